import { defineConfig } from "vitest/config";

import { POSTGRES_VERSIONS } from "./postgres_versions.ts";

const project = (name: string, include: string[]) => ({
  extends: true as const,
  test: { name, include, globalSetup: ["test/global_setup.ts"] },
});

export default defineConfig({
  test: {
    root: `${import.meta.dirname}/..`,
    // Node itself loads the tests, as it loads tasks/ inside graphile-worker: one copy of each module.
    experimental: { viteModuleRunner: false },
    // Real processes and a real Postgres: slow on a busy machine, so bounds are generous.
    testTimeout: 30_000,
    hookTimeout: 60_000,
    projects: [
      // On the Postgres that npm brings.
      project("postgres-18", ["test/**/*.test.ts"]),
      ...POSTGRES_VERSIONS.filter(({ missing }) => missing === undefined).map(({ name, tests }) =>
        project(name, tests),
      ),
    ],
  },
});
