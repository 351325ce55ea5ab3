import type { RestoreRow } from "./database.ts";
import { GroupCommit } from "./group_commit.ts";
import { isBadRow } from "./postgres_errors.ts";
import { CALLS_TIMEOUT_MS } from "./s3.ts";
import { troubleOf } from "./s3_trouble.ts";
import { outcomeOf, settleRestores, type Finding, type RestoreOutcome } from "./settle_restores.ts";
import { withTimeLimit } from "./time_limit.ts";
import { walkDue } from "./walk_due.ts";
import { workerContext } from "./worker_context.ts";

/** S3's answer does not fit our columns (an expiry in the year 12000): that row's trouble alone. */
const UNNOTED: Finding = {
  transition: "note_restore_troubles",
  code: "unusable_answer",
  message: "S3's answer about this file cannot be used. An administrator should look at the log.",
};

/** Of a task's walks at a time: while one waits for an object that hangs, another takes what is new. */
export const WALKS = 2;

/**
 * Claims restores, asks S3 about each, and notes what it said: outcomes that come together in one transaction.
 * Whatever S3 or the network does wrong becomes the row's own trouble and holds up no other.
 */
export async function restoreWalk(walk: {
  claim: (limit: number) => Promise<RestoreRow[]>;
  ask: (restore: RestoreRow, signal: AbortSignal) => Promise<Finding>;
  signal: AbortSignal;
}): Promise<void> {
  const { db, settings, notify_waits, log } = workerContext();
  const concurrency = settings.S3_CONCURRENCY;
  const settled = new GroupCommit<RestoreOutcome, void>(
    async (outcomes) => {
      await settleRestores(db, notify_waits, outcomes);
      return outcomes.map(() => undefined);
    },
    { batch_size: concurrency, queue_size: concurrency },
  );
  const stop = walk.signal;

  await walkDue<RestoreRow>({
    claim: walk.claim,
    concurrency,
    signal: stop,
    work: async (restore) => {
      const started = performance.now();
      const finding = await withTimeLimit(CALLS_TIMEOUT_MS, stop, (signal) =>
        walk.ask(restore, signal),
      ).catch((error: unknown): Finding => {
        if (stop.aborted) throw error; // Shutting down: nobody's trouble, the lease brings the row back.
        return { transition: "note_restore_troubles", ...troubleOf(error) };
      });
      await settled.push(outcomeOf(restore, finding)).catch(async (error: unknown) => {
        if (!isBadRow(error)) throw error;
        log.error({ err: error, restore_id: restore.id, finding }, "cannot note what S3 said");
        await settled.push(outcomeOf(restore, UNNOTED));
      });
      log.info(
        {
          restore_id: restore.id,
          s3_bucket: restore.s3_bucket,
          s3_key: restore.s3_key,
          transition: finding.transition,
          ...("code" in finding && { code: finding.code }),
          ms: Math.round(performance.now() - started),
        },
        "asked S3",
      );
    },
  });
}
