/**
 * What a restore may do at each event: the state machine once more, on one page and without SQL. `next` answers all
 * states in which a restore may be after an event, given how it stood and what is true in S3.
 */
export type Status = "not_started" | "pending" | "restored" | "failed";

/** What is true in S3 of one object. */
export type Truth =
  | { state: "archived" | "restoring" | "gone" }
  | { state: "readable"; expires_at: number | null }
  /** Does not answer, or refuses. */
  | { state: "silent" };

/** A restore as it stands, times in milliseconds since 1970. When it may be asked about is for claims to decide. */
export interface Restore {
  status: Status;
  status_at: number;
  created_at: number;
  accepted_at: number | null;
  /** An event came after S3 was asked: what S3 said before it is no answer. */
  was_asked_too_early: boolean;
  restore_expires_at: number | null;
  failing_since: number | null;
  /** Claims since the last progress, before this event. */
  attempts: number;
  lost_count: number;
  is_doubtful: boolean;
  /** The file was replaced since S3 accepted the restore. */
  is_overwritten: boolean;
  /** Somebody who may be told has not been. */
  has_untold: boolean;
}

/** What is known when an archived object is to be restored. */
export interface Request {
  /** It was admitted before; a worker died, or S3 failed. */
  is_admitted: boolean;
  hold: "open" | "approved" | "refused" | "expired" | null;
  /** Of its policy now; none: restore. All its readers may have been observed when they read. */
  action: "restore" | "hold" | "observe";
  /** Whether the limit allows one more; without a limit always. */
  has_room: boolean;
}
export type Decision = "go" | "held" | "observed" | "refused";

/** Whether RestoreObject may be sent. */
export function decide({ is_admitted, hold, action, has_room }: Request): Decision {
  if (is_admitted || hold === "approved") return "go";
  if (hold === "open") return "held";
  if (hold !== null) return "refused";
  if (action === "observe") return "observed";
  return action === "hold" || !has_room ? "held" : "go";
}

export type Event =
  | { what: "read"; at: number }
  /** An event that calls it complete, whoever wrote it and whatever it says: it has S3 asked, no more. */
  | { what: "completed" }
  | { what: "trigger"; truth: Truth; decision?: Decision }
  /** A worker ends what a decided hold keeps. */
  | { what: "settle" }
  | { what: "poll"; truth: Truth }
  | { what: "sweep" }
  /** An operator's wish. */
  | { what: "retry" }
  /** Time, the map of people, mails, claims that nobody reports on: none of them moves a restore. */
  | { what: "other" };

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const LATE_READ_GRACE = 5 * MINUTE;
const LOST_GRACE = 15 * MINUTE;
const FAILED_STAYS_OPEN = 24 * HOUR;
const GIVE_UP_AFTER = 24 * HOUR;
/** Ten in truth, which no run of commands is long enough for: see Play.begin. */
export const GIVE_UP_TRIES = 2;
const LOST_LIMIT = 3;

/** When it is over: a read newer than this needs a new restore. */
function overAt(restore: Restore): number {
  if (restore.status === "failed") return restore.status_at + FAILED_STAYS_OPEN;
  if (restore.status === "restored") return restore.restore_expires_at ?? restore.status_at + LATE_READ_GRACE;
  return Infinity;
}

export function next(restore: Restore, event: Event, now: number): (Status | "closed")[] {
  const { status } = restore;
  const stays: Status[] = [status];
  switch (event.what) {
    case "read":
      return !restore.is_doubtful && Math.min(event.at, now) > overAt(restore) ? ["closed"] : stays;
    case "trigger":
      return status === "not_started" ? triggered(restore, event, now) : stays;
    case "settle":
      return ["failed"];
    case "poll":
      return status === "pending" || (status === "restored" && restore.is_doubtful)
        ? polled(restore, event.truth, now)
        : stays;
    case "sweep":
      if (restore.is_doubtful || overAt(restore) > now) return stays;
      return status === "restored" && restore.restore_expires_at === null && restore.has_untold
        ? stays
        : ["closed"];
    case "retry":
      return status === "failed" ? ["closed"] : stays;
    case "completed":
    case "other":
      return stays;
  }
}

const DECIDED: Record<Decision, Status | "closed"> = {
  go: "pending",
  held: "not_started",
  observed: "closed",
  refused: "failed",
};

function triggered(
  restore: Restore,
  { truth, decision = "go" }: Extract<Event, { what: "trigger" }>,
  now: number,
): (Status | "closed")[] {
  switch (truth.state) {
    case "archived":
      return [DECIDED[decision]];
    case "restoring":
      return ["pending"];
    case "readable":
      return ["restored"];
    case "gone":
      return ["failed"];
    case "silent":
      return troubled(restore, "failed", now);
  }
}

function polled(restore: Restore, truth: Truth, now: number): (Status | "closed")[] {
  if (restore.status === "restored") {
    // Archived again, or gone: a new restore finds out. Silent: S3's earlier word has to do, for as long as it said.
    if (truth.state === "silent")
      return isOver(restore, now) ? troubled(restore, "closed", now) : ["restored"];
    return truth.state === "readable" ? ["restored"] : ["closed"];
  }
  if (truth.state === "silent") return troubled(restore, "failed", now);
  if (truth.state === "gone" || restore.is_overwritten) return ["failed"];
  if (truth.state === "restoring") return ["pending"];
  if (truth.state === "readable") return ["restored"];
  if ((restore.accepted_at ?? 0) > now - LOST_GRACE) return ["pending"];
  const lost: Status = restore.lost_count + 1 < LOST_LIMIT ? "not_started" : "failed";
  // Whether this event brings a claim of its own, or only the report on an earlier one.
  return restore.was_asked_too_early ? ["pending", lost] : [lost];
}

const isOver = ({ restore_expires_at }: Restore, now: number): boolean =>
  restore_expires_at !== null && restore_expires_at <= now;

/** Stays as it is until the trouble has lasted a day, and enough tries. */
function troubled(restore: Restore, end: "failed" | "closed", now: number): (Status | "closed")[] {
  const { status, failing_since, attempts } = restore;
  if (failing_since === null || failing_since > now - GIVE_UP_AFTER || attempts + 1 < GIVE_UP_TRIES)
    return [status];
  // Whether this event brings a claim of its own, or only the report on an earlier one.
  return attempts < GIVE_UP_TRIES ? [status, end] : [end];
}
