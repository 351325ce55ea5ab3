import type { Debounce } from "../config.ts";

/** As the SQL functions take it: an `interval[]` of both waits. */
export const intervalsOf = ({ quiet, max_wait }: Debounce): string[] => [quiet, max_wait];
