/** Which test files take long: they start first, and `npm run test:fast` leaves out those that have to. */
import { BaseSequencer, type TestSpecification } from "vitest/node";

const filesOf = (names: string[]): string[] => names.map((name) => `test/${name}.test.ts`);

/** Longest first, or one of them would run alone at the end; the storms beside what mostly waits. */
const LONGEST = filesOf([
  "processes/chaos",
  "worker/notify",
  "journey",
  "processes/processes",
  "processes/crash_points",
  "processes/limit_rounds",
  "model/model",
  "faults",
  "worker/trigger_restores",
  "worker/mail_protocol",
  "sql/transitions",
  "sql/roles",
]);

/** Real processes, storms, browsers, other programs, other servers, large tables: what a change of a rule or a page rarely breaks alone. */
export const NOT_FAST = filesOf([
  "processes/*",
  "cli/*",
  "faults",
  "journey",
  "lambdas/cfn_lint",
  "lambdas/days_away",
  "lambdas/lambda_bundle",
  "lambdas/looked",
  "lambdas/readme",
  "model/model",
  "pages/browser",
  "pages/metrics",
  "pages/on_call",
  "pages/process",
  "postgres/database_problem",
  "postgres/embedded_postgres",
  "postgres/packaged_postgres",
  "postgres/poolers",
  "postgres/session_settings",
  "promises",
  "s3/other_stores",
  "sql/plans",
  "sql/roles",
  "stand_ins/clients",
  "worker/big_mails",
  "worker/limit_storm",
  "worker/looks",
  "worker/mail_protocol",
  "worker/trigger_restores",
]);

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId, project }: TestSpecification): number => {
      // Those of other Postgres versions fill the gaps: the same file five times at once would fight for the processors.
      const found =
        project.name === "postgres-18" ? LONGEST.findIndex((name) => moduleId.endsWith(`/${name}`)) : -1;
      return found === -1 ? LONGEST.length : found;
    };
    // The others as vitest orders them: by what it measured last, or by size.
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b));
  }
}
