import type { RestoreRow } from "../postgres/rows.ts";
import { GroupCommit } from "../postgres/group_commit.ts";
import { isBadRow } from "../postgres/errors.ts";
import { count } from "./job_counts.ts";
import { CALLS_TIMEOUT_MS } from "../s3/s3.ts";
import { troubleOf } from "../s3/trouble.ts";
import { outcomeOf, settleRestores, type Finding, type RestoreOutcome } from "./settle_restores.ts";
import { withTimeLimit } from "../time_limit.ts";
import { walkDue } from "./walk_due.ts";
import { workerContext } from "./task.ts";

/** S3's answer does not fit our columns (an expiry in the year 12000): that row's trouble alone. */
const UNNOTED: Finding = {
  transition: "note_restore_troubles",
  code: "unusable_answer",
  message: "S3's answer about this file cannot be used. An administrator should look at the log.",
};

/** What S3 said, in a word of the job's line. */
const COUNTED_AS: Record<Finding["transition"], string> = {
  mark_restores_pending: "pending",
  mark_restores_restored: "restored",
  mark_restores_failed: "failed",
  mark_restores_lost: "lost",
  mark_restores_expired: "expired",
  note_restores_checked: "unchanged",
  note_restore_troubles: "trouble",
};

/** Of a task's walks at a time: while one waits for an object that hangs, another takes what is new. */
export const WALKS = 2;

/**
 * An outcome waits this long for others: a transaction costs as much as twenty rows of it, and adds jobs of its own. Far
 * less than anybody who waits for a file notices.
 */
const NOTE_TOGETHER_MS = 100;

/**
 * Claims restores, asks S3 about each, and notes what it said: outcomes that come together in one transaction, while S3 is
 * asked on. Whatever S3 or the network does wrong becomes the row's own trouble and holds up no other.
 */
export async function restoreWalk(walk: {
  claim: (limit: number) => Promise<RestoreRow[]>;
  ask: (restore: RestoreRow, signal: AbortSignal) => Promise<Finding>;
  signal: AbortSignal;
}): Promise<void> {
  const { log, settings } = workerContext();
  const stop = walk.signal;
  const notes = startNoting(settings.S3_CONCURRENCY);
  try {
    await walkDue<RestoreRow>({
      claim: walk.claim,
      concurrency: settings.S3_CONCURRENCY,
      signal: stop,
      work: async (restore) => {
        const started = performance.now();
        const finding = await withTimeLimit(CALLS_TIMEOUT_MS, stop, (signal) =>
          walk.ask(restore, signal),
        ).catch((error: unknown): Finding => {
          if (stop.aborted) throw error; // Shutting down: nobody's trouble, the row is given back.
          return { transition: "note_restore_troubles", ...troubleOf(error) };
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
        count("asked");
        count(COUNTED_AS[finding.transition]);
        await notes.add(restore, finding);
      },
    });
  } finally {
    await notes.end();
  }
}

interface Notes {
  /**
   * Resolves at once, or, for whoever fills a page, when that is noted: S3 is asked no faster than Postgres writes.
   * @throws when something could not be noted: the walk should end.
   */
  add(restore: RestoreRow, finding: Finding): Promise<void>;
  /** Notes what is left. @throws when something could not be noted: its rows come back by their lease. */
  end(): Promise<void>;
}

function startNoting(page_size: number): Notes {
  const { db, notify_waits, log } = workerContext();
  const settled = new GroupCommit<RestoreOutcome, void>(
    async (outcomes) => {
      await settleRestores(db, notify_waits, outcomes);
      return outcomes.map(() => undefined);
    },
    // Each of as many lanes waits for one page at most.
    { batch_size: page_size, queue_size: page_size * page_size },
  );
  const note = async (restore: RestoreRow, finding: Finding): Promise<void> => {
    await settled.push(outcomeOf(restore, finding)).catch(async (error: unknown) => {
      if (!isBadRow(error)) throw error;
      log.error({ err: error, restore_id: restore.id, finding }, "cannot note what S3 said");
      await settled.push(outcomeOf(restore, UNNOTED));
    });
  };

  let page: [RestoreRow, Finding][] = [];
  let timer: NodeJS.Timeout | undefined;
  const noting = new Set<Promise<void>>();
  let failure: unknown;
  const notePage = (): Promise<void> => {
    clearTimeout(timer);
    timer = undefined;
    const noted = Promise.all(page.map(([restore, finding]) => note(restore, finding))).then(
      () => void noting.delete(noted),
      (error: unknown) => void (failure ??= error),
    );
    page = [];
    noting.add(noted);
    return noted;
  };
  return {
    async add(restore, finding) {
      // Whose answers cannot be written down, need not be asked for.
      if (failure !== undefined) throw failure;
      page.push([restore, finding]);
      if (page.length >= page_size) await notePage();
      else timer ??= setTimeout(() => void notePage(), NOTE_TOGETHER_MS);
    },
    async end() {
      void notePage();
      await Promise.all(noting);
      if (failure !== undefined) throw failure;
    },
  };
}
