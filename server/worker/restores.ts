import { sql } from "kysely";

import type { RestoreRow } from "../postgres/rows.ts";
import { Batcher } from "../postgres/batch.ts";
import { intervalsOf } from "../postgres/debounce.ts";
import { isBadRow } from "../postgres/errors.ts";
import type { ObjectFacts } from "../s3/head.ts";
import { CALLS_TIMEOUT_MS } from "../s3/s3.ts";
import { troubleOf, type Trouble } from "../s3/trouble.ts";
import { withTimeLimit } from "../time_limit.ts";
import { NotAdmitted } from "./admissions.ts";
import type { TaskContext } from "./task.ts";
import { walkDue } from "./walk_due.ts";

/** What S3's answer means for a claimed row, named by the function of sql/transitions.sql that notes it. */
export type Finding = (
  | ({
      transition: "mark_restores_pending";
      tier: string | null;
      days?: number;
      region?: string | null;
    } & ObjectFacts)
  | ({ transition: "mark_restores_restored"; restore_expires_at: Date | null } & ObjectFacts)
  | ({ transition: "mark_restores_failed" } & Trouble)
  | { transition: "mark_restores_lost" }
  | { transition: "mark_restores_expired" }
  | { transition: "note_restores_checked"; restore_expires_at: Date | null }
  | ({ transition: "note_restore_troubles" } & Trouble)
) & {
  /** S3 has certainly not started what was admitted for this attempt: what was reserved for it is given back. */
  gives_back?: true;
};

/** A finding about this row, by the holder of this claim. */
type Outcome = Finding & Pick<RestoreRow, "id" | "claim_id">;

/** S3's answer does not fit our columns (an expiry in the year 12000). Only this row is in trouble. */
const UNNOTED: Finding = {
  transition: "note_restore_troubles",
  code: "unusable_answer",
  message: "S3's answer about this file cannot be used. An administrator should look at the log.",
};

/** admit_restores has settled the row itself. */
export interface Settled {
  settled: "held" | "observed" | "refused";
}

/** What the job's log line calls it. */
const COUNTED_AS: Record<Finding["transition"], string> = {
  mark_restores_pending: "pending",
  mark_restores_restored: "restored",
  mark_restores_failed: "failed",
  mark_restores_lost: "lost",
  mark_restores_expired: "expired",
  note_restores_checked: "unchanged",
  note_restore_troubles: "trouble",
};

/** Concurrent runs of a task that asks S3: while one waits for an object that hangs, the other takes what is new. */
export const RESTORE_RUNS = 2;

/**
 * An outcome waits this long for others: a transaction costs as much as twenty rows, and adds jobs of its own. Somebody who
 * waits hours for a file does not notice.
 */
const NOTE_TOGETHER_MS = 100;

/**
 * Claims restores, asks S3 about each, and notes the outcomes a page at a time while it goes on asking. An error of S3 or of
 * the network becomes trouble of that row alone and delays no other.
 */
export async function walkRestores(
  context: TaskContext,
  stop: AbortSignal,
  walk: {
    claim: (limit: number) => Promise<RestoreRow[]>;
    /** A finding to note; a word for the log when the row is settled already. */
    ask: (restore: RestoreRow, signal: AbortSignal) => Promise<Finding | Settled>;
  },
): Promise<void> {
  const { log, settings, count } = context;
  const outcomes = batch(context);
  try {
    await walkDue<RestoreRow>({
      claim: async (limit) => {
        const claimed = await walk.claim(limit);
        count("claimed", claimed.length);
        return claimed;
      },
      concurrency: settings.S3_CONCURRENCY,
      signal: stop,
      work: async (restore) => {
        const started = performance.now();
        const finding = await withTimeLimit(CALLS_TIMEOUT_MS, stop, (signal) =>
          walk.ask(restore, signal),
        ).catch((error: unknown): Finding => {
          // Shutting down, or Postgres is away: the object is not at fault. Its row is given back, or its lease ends.
          if (error instanceof NotAdmitted) throw error.cause;
          if (stop.aborted) throw error;
          return { transition: "note_restore_troubles", ...troubleOf(error) };
        });
        log.info(
          {
            restore_id: restore.id,
            s3_bucket: restore.s3_bucket,
            s3_key: restore.s3_key,
            ...("settled" in finding ? finding : { transition: finding.transition }),
            ...("code" in finding && { code: finding.code }),
            ms: Math.round(performance.now() - started),
          },
          "asked S3",
        );
        count("asked");
        if ("settled" in finding) {
          count(finding.settled);
          return;
        }
        count(COUNTED_AS[finding.transition]);
        await outcomes.add({ ...finding, id: restore.id, claim_id: restore.claim_id });
      },
    });
  } finally {
    await outcomes.end();
  }
}

/** Notes outcomes a page at a time: all of a page, or none. */
function batch({ db, debounce, settings, log }: TaskContext): Batcher<Outcome, void> {
  const settle = (outcomes: Outcome[]) =>
    sql`select settle_restores(${JSON.stringify(outcomes)}, ${intervalsOf(debounce)}::interval[])`.execute(
      db,
    );
  return new Batcher<Outcome, void>(
    async (outcomes) => {
      await settle(outcomes).catch(async (error: unknown) => {
        const [outcome, ...others] = outcomes;
        if (!isBadRow(error) || outcome === undefined || others.length > 0) throw error;
        const { id, claim_id, ...finding } = outcome;
        log.error({ err: error, restore_id: id, finding }, "cannot note what S3 said");
        await settle([{ ...UNNOTED, id, claim_id }]);
      });
      return outcomes.map(() => undefined);
    },
    { batch_size: settings.S3_CONCURRENCY, linger_ms: NOTE_TOGETHER_MS },
  );
}
