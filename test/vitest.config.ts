import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    root: `${import.meta.dirname}/..`,
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/global_setup.ts"],
    // Real processes and a real Postgres: slow on a busy machine, so bounds are generous.
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
