import { availableParallelism } from "node:os";

import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

import { POSTGRES_VERSIONS } from "./support/postgres_versions.ts";
import { prepareFastRun } from "./support/fast_run.ts";
import { MISSING_CLIENTS, MISSING_MOTO } from "./stand_ins/real_clients.ts";

prepareFastRun();

const project = (name: string, include: string[]) => ({
  extends: true as const,
  test: { name, include, globalSetup: ["test/support/global_setup.ts"] },
});

const MISSING = [
  ...POSTGRES_VERSIONS.flatMap(({ missing }) => missing ?? []),
  ...MISSING_CLIENTS,
  ...MISSING_MOTO,
];
// At the very end, where it is read.
if (MISSING.length > 0) process.once("exit", () => console.warn(`\nNOT TESTED ON: ${MISSING.join(" ")}\n`));

/** Longest first, or one of them would run alone at the end. Others follow by what the last run measured. */
const LONG = [
  "processes/chaos",
  "processes/processes",
  "processes/crash_points",
  "faults",
  "model/model",
  "worker/notify",
  "journey",
  "worker/trigger_restores",
  "worker/mail_protocol",
  "sql/transitions",
  "sql/roles",
].map((name) => `/test/${name}.test.ts`);

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => {
      const found = LONG.findIndex((name) => moduleId.endsWith(name));
      return found === -1 ? LONG.length : found;
    };
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b));
  }
}

export default defineConfig({
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
    projects: [
      // On the Postgres that npm brings.
      project("postgres-18", ["test/**/*.test.ts"]),
      ...POSTGRES_VERSIONS.filter(({ missing }) => missing === undefined).map(({ name, tests }) =>
        project(name, tests),
      ),
    ],
  },
});
