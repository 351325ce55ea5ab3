import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    root: `${import.meta.dirname}/..`,
    include: ["test/**/*.test.ts"],
    // Node itself loads the tests, as it loads tasks/ inside graphile-worker: one copy of each module.
    experimental: { viteModuleRunner: false },
    globalSetup: ["test/global_setup.ts"],
    // Real processes and a real Postgres: slow on a busy machine, so bounds are generous.
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
