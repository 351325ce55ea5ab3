import type { Task } from "graphile-worker";
import { sql } from "kysely";

import { RESTORE_ROW, type RestoreRow } from "../server/postgres/rows.ts";
import { fewRuns } from "../server/worker/few_runs.ts";
import { count } from "../server/worker/job_counts.ts";
import { restoreWalk, WALKS } from "../server/worker/restores.ts";
import type { Finding } from "../server/worker/settle_restores.ts";
import { workerContext } from "../server/worker/task.ts";

/**
 * Asks S3 how far it is: about every pending object once in POLL_AFTER_HOURS, against lost events, and at once
 * about those that an event calls complete, or a read calls archived (`pending` -> `restored`, `not_started` or `failed`;
 * `restored` -> closed). Also closes what is over, and clears away what is older than RETENTION_DAYS and jobs that failed for good.
 */
const poll_pending_restores: Task = (_payload, helpers) =>
  fewRuns("poll_pending_restores", WALKS, helpers, () => poll(helpers.abortSignal));

export default poll_pending_restores;

async function poll(signal: AbortSignal): Promise<void> {
  const { db, settings, worker_id } = workerContext();
  const poll_after = `${settings.POLL_AFTER_HOURS} hours`;
  // Whoever was asked in this run is not asked again, however short POLL_AFTER_HOURS is.
  const { rows: begun } = await sql<{ at: string }>`select now()::text as at`.execute(db);
  let last = { checked: "-infinity", id: "00000000-0000-0000-0000-000000000000" };
  await restoreWalk({
    claim: async (limit) => {
      const { rows } = await sql<RestoreRow & { due_since: string; head_wanted_at: Date | null }>`
        select ${RESTORE_ROW}, c.head_wanted_at, coalesce(c.last_checked_at, c.accepted_at)::text as due_since
          from claim_restores_to_poll(${limit}, greatest(${poll_after}::interval, now() - ${begun[0]?.at}::timestamptz),
                                      ${last.checked}::timestamptz, ${last.id}::uuid, ${worker_id}) c
         order by c.head_wanted_at is null, coalesce(c.last_checked_at, c.accepted_at), c.id`.execute(db);
      // Those that an event asks for come first and stand in no order: the walk goes on from the others.
      const end = rows.at(-1);
      if (end?.head_wanted_at === null) last = { checked: end.due_since, id: end.id };
      return rows;
    },
    ask: askHowFar,
    signal,
  });
  while (!signal.aborted && (await closeFinished()) > 0);
  await sql`select forget_failed_jobs()`.execute(db);
  await forgetOld(signal);
}

/** Rows closed per statement: it holds its locks for a hundredth of a second or two. */
const CLOSE_PAGE = 100;

async function closeFinished(): Promise<number> {
  const { rows } = await sql<{
    closed: number;
  }>`select close_finished_restores(${CLOSE_PAGE}) as closed`.execute(workerContext().db);
  const closed = rows[0]?.closed ?? 0;
  count("closed", closed);
  return closed;
}

/** Restores per statement, and statements per run: years of history go in the course of days, and nobody waits for it. */
const FORGET_PAGE = 100;
const FORGET_PAGES = 1000;

async function forgetOld(signal: AbortSignal): Promise<void> {
  const { db, settings } = workerContext();
  if (settings.RETENTION_DAYS === undefined) return;
  for (let page = 0; page < FORGET_PAGES && !signal.aborted; page++) {
    const { rows } = await sql<{ forgotten: number }>`
      select forget_old_restores(${`${settings.RETENTION_DAYS} days`}::interval, ${FORGET_PAGE}) as forgotten`.execute(
      db,
    );
    const forgotten = rows[0]?.forgotten ?? 0;
    count("forgotten", forgotten);
    if (forgotten < FORGET_PAGE) return;
  }
}

async function askHowFar(restore: RestoreRow, signal: AbortSignal): Promise<Finding> {
  // As the read named it: who named no version wants the current one, whatever is being restored.
  const head = await workerContext().s3.headObject(restore, signal);
  if (restore.status === "restored") {
    return head.state === "readable"
      ? { transition: "note_restores_checked", restore_expires_at: head.restore_expires_at }
      : { transition: "mark_restores_expired" };
  }
  switch (head.state) {
    case "gone":
      return {
        transition: "mark_restores_failed",
        code: "object_not_found",
        message: "The file was deleted while it was being restored.",
      };
    case "archived":
    case "restoring":
    case "readable":
      if (head.pinned_version_id !== restore.pinned_version_id) return OVERWRITTEN;
      if (restore.etag !== null && head.etag !== null && restore.etag !== head.etag) return OVERWRITTEN;
  }
  switch (head.state) {
    case "archived":
      return { transition: "mark_restores_lost" };
    case "restoring":
      return { transition: "note_restores_checked", restore_expires_at: null };
    case "readable":
      return { ...head, transition: "mark_restores_restored" };
  }
}

const OVERWRITTEN: Finding = {
  transition: "mark_restores_failed",
  code: "object_overwritten",
  message:
    "The file was replaced by a newer one while it was being restored. Read it again to get the newer one.",
};
