import { join } from "node:path";

/** The checkout under test. */
export const ROOT = join(import.meta.dirname, "../..");
