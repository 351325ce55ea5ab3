import type { Task } from "graphile-worker";
import { sql } from "kysely";

import { RESTORE_ROW, type RestoreRow } from "../server/postgres/rows.ts";
import { fewRuns } from "../server/worker/few_runs.ts";
import { restoreWalk, WALKS } from "../server/worker/restores.ts";
import type { ObjectFacts, ObjectState } from "../server/s3/head.ts";
import type { S3Object } from "../server/s3/s3.ts";
import type { Trouble } from "../server/s3/trouble.ts";
import type { Finding } from "../server/worker/settle_restores.ts";
import { tierFor, type Tier } from "../server/s3/storage_class.ts";
import { workerContext } from "../server/worker/task.ts";

/**
 * Asks S3 to bring back what was read (`not_started` -> `pending`, `restored` or `failed`).
 *
 * Runs at least once per restore: after a crash S3 answers the repeat with RestoreAlreadyInProgress.
 */
const trigger_restores: Task = (_payload, helpers) =>
  fewRuns("trigger_restores", WALKS, helpers, () =>
    restoreWalk({
      claim: async (limit) => {
        const { db, worker_id } = workerContext();
        const claim = sql<RestoreRow>`
          select ${RESTORE_ROW} from claim_restores_to_trigger(${limit}, ${worker_id})`;
        return (await claim.execute(db)).rows;
      },
      ask: startRestore,
      signal: helpers.abortSignal,
    }),
  );

export default trigger_restores;

async function startRestore(restore: RestoreRow, signal: AbortSignal): Promise<Finding> {
  const { s3, settings } = workerContext();
  const head = await s3.headObject(restore, signal);
  if (head.state !== "archived") return needsNoRestore(head);
  return await askFor({ ...restore, ...head }, tierFor(head, settings.RESTORE_TIER), signal);
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

async function askFor(object: S3Object & ObjectFacts, tier: Tier, signal: AbortSignal): Promise<Finding> {
  const { s3 } = workerContext();
  const taken = await s3.restoreObject(object, tier, signal);
  switch (taken.answer) {
    case "accepted":
      return { ...factsOf(object), transition: "mark_restores_pending", tier };
    case "in_progress":
      return { ...factsOf(object), transition: "mark_restores_pending", tier: null };
    case "expedited_refused":
      // Not for minutes, and nobody knows for how long: the slower way is the sure one.
      if (tier === "Expedited") return await askFor(object, "Standard", signal);
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
