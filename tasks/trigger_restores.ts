import { sql } from "kysely";

import { RESTORE_ROW, type RestoreRow } from "../server/postgres/pool.ts";
import type { ObjectFacts, ObjectState, S3Object } from "../server/s3/s3.ts";
import { tierFor, type Tier } from "../server/s3/storage_class.ts";
import type { Trouble } from "../server/s3/trouble.ts";
import { RESTORE_RUNS, walkRestores, type Finding } from "../server/worker/restores.ts";
import { task, type TaskContext } from "../server/worker/task.ts";

/**
 * Asks S3 to restore what was read (`not_started` -> `pending`, `restored` or `failed`).
 *
 * Asks at least once per restore: after a crash S3 answers the repeat with RestoreAlreadyInProgress.
 */
export default task({ runs: RESTORE_RUNS }, (context, signal) =>
  walkRestores(context, signal, {
    claim: (limit) => claimDue(context, limit),
    ask: (restore, limited) => startRestore(context, restore, limited),
  }),
);

async function claimDue({ db, worker_id }: TaskContext, limit: number): Promise<RestoreRow[]> {
  const { rows } = await sql<RestoreRow>`
    select ${RESTORE_ROW} from claim_restores_to_trigger(${limit}, ${worker_id})`.execute(db);
  return rows;
}

async function startRestore(
  context: TaskContext,
  restore: RestoreRow,
  signal: AbortSignal,
): Promise<Finding> {
  const head = await context.s3.headObject(restore, signal);
  if (head.state !== "archived") return needsNoRestore(head);
  return await askFor(context, { ...restore, ...head }, tierFor(head, context.settings.RESTORE_TIER), signal);
}

function needsNoRestore(head: Exclude<ObjectState, { state: "archived" }>): Finding {
  switch (head.state) {
    case "gone":
      return GONE;
    case "readable":
      return { ...head, transition: "mark_restores_restored" };
    case "restoring":
      return { ...head, transition: "mark_restores_pending", tier: null };
  }
}

async function askFor(
  context: TaskContext,
  object: S3Object & ObjectFacts,
  tier: Tier,
  signal: AbortSignal,
): Promise<Finding> {
  const { s3 } = context;
  const taken = await s3.restoreObject(object, tier, signal);
  switch (taken.answer) {
    case "accepted":
      return { ...factsOf(object), transition: "mark_restores_pending", tier };
    case "in_progress":
      return { ...factsOf(object), transition: "mark_restores_pending", tier: null };
    case "expedited_refused":
      // No capacity, for an unknown time: the slower tier is the sure one.
      if (tier === "Expedited") return await askFor(context, object, "Standard", signal);
      return trouble(NO_EXPEDITED);
    case "look_again": {
      const head = await s3.headObject(object, signal);
      return head.state === "archived" ? trouble(taken.trouble) : needsNoRestore(head);
    }
  }
}

const trouble = (of: Trouble): Finding => ({ transition: "note_restore_troubles", ...of });

const NO_EXPEDITED: Trouble = {
  code: "GlacierExpeditedRetrievalNotAvailable",
  message: "S3 has no room for this restore just now. Thaw tries again by itself.",
};

const GONE: Finding = {
  transition: "mark_restores_failed",
  code: "object_not_found",
  message: "The file is no longer there: it, or the version that was read, has been deleted.",
};

const factsOf = ({
  storage_class,
  archive_status,
  size_bytes,
  etag,
  pinned_version_id,
}: ObjectFacts): ObjectFacts => ({
  storage_class,
  archive_status,
  size_bytes,
  etag,
  pinned_version_id,
});
