import { sql } from "kysely";

import { RESTORE_ROW, type RestoreRow } from "../server/postgres/rows.ts";
import { RESTORE_RUNS, walkRestores, type Finding } from "../server/worker/restores.ts";
import { sweep } from "../server/worker/sweep.ts";
import { task, type TaskContext } from "../server/worker/task.ts";

/**
 * Asks S3 how far its restores are (`pending` -> `restored`, `not_started` or `failed`; `restored` -> closed): at once about those
 * that an event calls complete or a read found archived; in case an event was lost, about a pending one when its expected time
 * ends, then at growing intervals (sql/times.sql), and once in POLL_AFTER_HOURS in any case. Then sweeps up what is over.
 */
export default task({ runs: RESTORE_RUNS }, async (context, signal) => {
  await walkRestores(context, signal, {
    claim: await claimer(context),
    ask: (restore, limited) => askHowFar(context, restore, limited),
  });
  await sweep(context, signal);
});

/** Claims what is due. However short POLL_AFTER_HOURS is, one run asks about each object once. */
async function claimer({
  db,
  settings,
  worker_id,
}: TaskContext): Promise<(limit: number) => Promise<RestoreRow[]>> {
  const poll_after = `${settings.POLL_AFTER_HOURS} hours`;
  const { rows: begun } = await sql<{ at: string }>`select now()::text as at`.execute(db);
  let last = { checked: "-infinity", id: "00000000-0000-0000-0000-000000000000" };
  return async (limit) => {
    const { rows } = await sql<RestoreRow & { due_since: string; head_wanted_at: Date | null }>`
      select ${RESTORE_ROW}, c.head_wanted_at, coalesce(c.last_checked_at, c.accepted_at)::text as due_since
        from claim_restores_to_poll(${limit}, greatest(${poll_after}::interval, now() - ${begun[0]?.at}::timestamptz),
                                    ${last.checked}::timestamptz, ${last.id}::uuid, ${worker_id}) c
       order by c.head_wanted_at is null, coalesce(c.last_checked_at, c.accepted_at), c.id`.execute(db);
    // Rows that an event asks about come first, outside this order: only the others move the cursor.
    const end = rows.at(-1);
    if (end?.head_wanted_at === null) last = { checked: end.due_since, id: end.id };
    return rows;
  };
}

async function askHowFar({ s3 }: TaskContext, restore: RestoreRow, signal: AbortSignal): Promise<Finding> {
  // The version that the read named. If it named none, it wants the current one, whichever is being restored.
  const head = await s3.headObject(restore, signal);
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
