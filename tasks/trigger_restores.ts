import { sql } from "kysely";

import { RESTORE_ROW, type RestoreRow } from "../server/postgres/rows.ts";
import { answerOf } from "../server/s3/answer.ts";
import type { ObjectFacts, ObjectState } from "../server/s3/head.ts";
import type { RestoreAnswer } from "../server/s3/restore_answer.ts";
import type { Tier } from "../server/s3/storage_class.ts";
import { troubleOf, type Trouble } from "../server/s3/trouble.ts";
import { Admissions } from "../server/worker/admissions.ts";
import { askAboutLooks } from "../server/worker/looks.ts";
import { RESTORE_RUNS, walkRestores, type Finding, type Settled } from "../server/worker/restores.ts";
import { task, type TaskContext } from "../server/worker/task.ts";

/**
 * Asks S3 to restore what was read (`not_started` -> `pending`, `restored` or `failed`): claim, HEAD, admit, RestoreObject, note.
 *
 * Asks at least once per restore: after a crash S3 answers the repeat with RestoreAlreadyInProgress.
 *
 * Asks about looks, too: those at archived objects become reads, and so restores.
 */
export default task({ runs: RESTORE_RUNS }, async (context, signal) => {
  let looked = 0;
  do {
    // Reads first: a page of looks when no restore is due.
    await startRestores(context, signal);
    looked = signal.aborted ? 0 : await askAboutLooks(context, signal);
  } while (looked > 0);
});

async function startRestores(context: TaskContext, signal: AbortSignal): Promise<void> {
  const admissions = new Admissions(context);
  const holds = { may_wait: true };
  await walkRestores(context, signal, {
    claim: async (limit) => {
      // A page of them between two pages of what is due: many held restores delay no other.
      for (;;) {
        const settled = holds.may_wait ? await settleHolds(context) : 0;
        holds.may_wait = settled > 0;
        const rows = await claimDue(context, limit);
        if (rows.length > 0 || settled === 0 || signal.aborted) return rows;
      }
    },
    ask: (restore, limited) => startRestore(context, admissions, restore, limited),
  });
}

/** What somebody approved becomes due, what they refused fails, and what nobody decided about expires: a page. Returns how many. */
async function settleHolds({ db, count }: TaskContext): Promise<number> {
  const { rows } = await sql<{ settled: number }>`select settle_holds(${SETTLED_PAGE}) as settled`.execute(
    db,
  );
  const settled = rows[0]?.settled ?? 0;
  count("settled", settled);
  return settled;
}

/** Each also locks its requests through the foreign key: some 50 ms of locks. */
const SETTLED_PAGE = 500;

async function claimDue({ db, worker_id }: TaskContext, limit: number): Promise<RestoreRow[]> {
  const { rows } = await sql<RestoreRow>`
    select ${RESTORE_ROW} from claim_restores_to_trigger(${limit}, ${worker_id})`.execute(db);
  return rows;
}

async function startRestore(
  context: TaskContext,
  admissions: Admissions,
  restore: RestoreRow,
  signal: AbortSignal,
): Promise<Finding | Settled> {
  const head = await context.s3.headObject(restore, signal);
  if (head.state !== "archived") return needsNoRestore(restore, head);
  const region = context.s3.regionOf(restore);
  const admission = await admissions.admit({
    id: restore.id,
    claim_id: restore.claim_id,
    region,
    ...factsOf(head),
  });
  if (admission === null) return trouble(CLAIM_LOST);
  const { decision, tier, days, is_new } = admission;
  if (decision !== "go") return { settled: decision };
  return await askFor(context, { ...restore, ...head, region }, { tier, days, is_new }, signal);
}

/** A restore that is under way is our own if it was admitted before: a worker died before it could note S3's answer. */
function needsNoRestore(
  restore: Pick<RestoreRow, "admitted_at" | "tier">,
  head: Exclude<ObjectState, { state: "archived" }>,
): Finding {
  switch (head.state) {
    case "gone":
      return GONE;
    case "readable":
      return { ...head, transition: "mark_restores_restored" };
    case "restoring":
      return {
        ...head,
        transition: "mark_restores_pending",
        tier: restore.admitted_at === null ? null : restore.tier,
      };
  }
}

async function askFor(
  context: TaskContext,
  object: RestoreRow & ObjectFacts,
  { tier, days, is_new }: { tier: Tier; days: number; is_new: boolean },
  signal: AbortSignal,
): Promise<Finding> {
  const { s3 } = context;
  const pending = {
    ...factsOf(object),
    transition: "mark_restores_pending",
    days,
    region: object.region,
  } as const;
  const answer = await refusalsGiveBack(is_new, s3.restoreObject(object, { tier, days }, signal));
  if ("transition" in answer) return answer;
  // Somebody else's, unless we, or the SDK, may have asked before.
  const gives_back = is_new && "attempts" in answer && answer.attempts === 1 && { gives_back: true as const };
  switch (answer.answer) {
    case "accepted":
      return { ...pending, tier };
    case "in_progress":
      return { ...pending, tier: gives_back ? null : tier, ...gives_back };
    case "expedited_refused":
      // No capacity, for an unknown time: the slower tier is the sure one.
      if (tier === "Expedited")
        return await askFor(context, object, { tier: "Standard", days, is_new }, signal);
      return { ...trouble(NO_EXPEDITED), ...(is_new && { gives_back: true }) };
    case "look_again": {
      const head = await s3.headObject(object, signal);
      const finding =
        head.state === "archived"
          ? trouble(answer.trouble)
          : needsNoRestore(
              gives_back ? { admitted_at: null, tier: null } : { ...object, tier, admitted_at: new Date() },
              head,
            );
      return { ...finding, ...gives_back };
    }
  }
}

/** S3 has read the request and said no (4xx): it has not started anything, so what was reserved is given back. */
async function refusalsGiveBack(
  is_new: boolean,
  asked: Promise<RestoreAnswer>,
): Promise<RestoreAnswer | Finding> {
  try {
    return await asked;
  } catch (error) {
    const answer = answerOf(error);
    const is_refused =
      answer?.signed === true && answer.status >= 300 && answer.status < 500 && answer.attempts === 1;
    if (!is_new || !is_refused) throw error;
    return { transition: "note_restore_troubles", ...troubleOf(error), gives_back: true };
  }
}

const CLAIM_LOST: Trouble = {
  code: "claim_lost",
  message: "Another worker has taken this restore over.",
};

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
