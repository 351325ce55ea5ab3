import { availableParallelism } from "node:os";

import { defineConfig } from "vitest/config";

import { POSTGRES_VERSIONS } from "./support/postgres_versions.ts";
import { MISSING_PROMTOOL } from "./support/promtool.ts";
import { prepareFastRun } from "./support/fast_run.ts";
import { LongestFirst, NOT_FAST } from "./support/slow_tests.ts";
import { MISSING_CLIENTS, MISSING_MOTO } from "./stand_ins/real_clients.ts";

prepareFastRun();

const ALL = ["test/**/*.test.ts"];

const project = (name: string, include: string[], left_out: string[] = []) => ({
  extends: true as const,
  test: {
    name,
    include,
    exclude: ["**/node_modules/**", ...left_out],
    globalSetup: ["test/support/global_setup.ts"],
  },
});

const MISSING = [
  ...POSTGRES_VERSIONS.flatMap(({ missing }) => missing ?? []),
  ...MISSING_CLIENTS,
  ...MISSING_MOTO,
  ...MISSING_PROMTOOL,
];
// At the very end, where it is read.
if (MISSING.length > 0) process.once("exit", () => console.warn(`\nNOT TESTED ON: ${MISSING.join(" ")}\n`));

export default defineConfig(({ mode }) => ({
  test: {
    root: `${import.meta.dirname}/..`,
    // Node itself loads the tests, as it loads tasks/ inside graphile-worker: one copy of each module.
    experimental: { viteModuleRunner: false },
    // Real processes and a real Postgres: slow on a busy machine, so bounds are generous.
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // More than there are cores: most files wait for Postgres and for processes most of the time.
    maxWorkers: availableParallelism() + 2,
    sequence: { sequencer: LongestFirst },
    projects:
      mode === "fast"
        ? [project("postgres-18", ALL, NOT_FAST)]
        : [
            // On the Postgres that npm brings.
            project("postgres-18", ALL),
            ...POSTGRES_VERSIONS.filter(({ missing }) => missing === undefined).map(({ name, tests }) =>
              project(name, tests),
            ),
          ],
  },
}));
