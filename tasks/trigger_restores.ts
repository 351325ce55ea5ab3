import type { Task } from "graphile-worker";
import { sql } from "kysely";

import { RESTORE_ROW, type RestoreRow } from "../server/database.ts";
import { fewRuns } from "../server/few_runs.ts";
import { restoreWalk, WALKS } from "../server/restore_walk.ts";
import type { ObjectFacts, S3Object } from "../server/s3.ts";
import type { Finding } from "../server/settle_restores.ts";
import { tierFor, type Tier } from "../server/storage_class.ts";
import { workerContext } from "../server/worker_context.ts";

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
  switch (head.state) {
    case "gone":
      return GONE;
    case "readable":
      return { ...head, transition: "mark_restores_restored" };
    case "restoring":
      return { ...head, transition: "mark_restores_pending", tier: null };
    case "archived":
      return await askFor({ ...restore, ...head }, tierFor(head, settings.RESTORE_TIER), signal);
  }
}

async function askFor(object: S3Object & ObjectFacts, tier: Tier, signal: AbortSignal): Promise<Finding> {
  const { s3 } = workerContext();
  switch (await s3.restoreObject(object, tier, signal)) {
    case "accepted":
      return { ...factsOf(object), transition: "mark_restores_pending", tier };
    case "in_progress":
      return { ...factsOf(object), transition: "mark_restores_pending", tier: null };
    case "gone":
      return GONE;
    case "expedited_refused":
      // Not for minutes, and nobody knows for how long: the slower way is the sure one.
      if (tier === "Expedited") return await askFor(object, "Standard", signal);
      return REFUSED;
    case "readable":
    case "not_restorable": {
      // It changed since we looked a moment ago. Look again: only HEAD knows until when it is readable.
      const head = await s3.headObject(object, signal);
      if (head.state === "gone") return GONE;
      if (head.state === "readable") return { ...head, transition: "mark_restores_restored" };
      if (head.state === "restoring") return { ...head, transition: "mark_restores_pending", tier: null };
      return REFUSED;
    }
  }
}

const REFUSED: Finding = {
  transition: "note_restore_troubles",
  code: "InvalidObjectState",
  message: "S3 refuses to restore this file although it is archived. Thaw tries again by itself.",
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
