import type { ObjectFacts } from "./head.ts";
import { isUnknownArchive } from "./storage_class.ts";
import type { Trouble } from "./trouble.ts";

/**
 * S3's response to RestoreObject. "look_again": it contradicts the HEAD just before, so HEAD must be repeated; `trouble` is
 * the error if HEAD still says the same. `attempts`: how often the SDK has sent it. After more than one, the restore that is in
 * progress may be our own.
 */
export type RestoreAnswer =
  | { answer: "accepted" | "expedited_refused" }
  | { answer: "in_progress"; attempts: number }
  | { answer: "look_again"; trouble: Trouble; attempts: number };

/** 200 means that a copy exists. HEAD must say until when: without that it could expire at any moment. */
export const NO_EXPIRY: Trouble = {
  code: "no_expiry",
  message:
    "S3 says that there is a readable copy of this file, but not until when. Thaw asks again by itself.",
};

/** Refusals of RestoreObject that HEAD must confirm: none of them is final. */
const DOUBTS: Record<string, string> = {
  InvalidObjectState: "S3 refuses to restore this file although it is archived. Thaw tries again by itself.",
  ObjectAlreadyInActiveTierError:
    "S3 says that this file needs no restore, and does not show it as readable. Thaw asks again by itself.",
  NoSuchKey: "S3 shows this file, and does not find it to restore it. Thaw tries again by itself.",
  NoSuchVersion: "S3 shows this file, and does not find it to restore it. Thaw tries again by itself.",
  MethodNotAllowed: "S3 shows this file, and does not let it be restored. Thaw tries again by itself.",
};

/** Other codes for a class that a store cannot restore, or not by this request. */
const NOT_IN_THIS_WAY = new Set(["NotImplemented", "MalformedXML", "InvalidArgument", "InvalidRequest"]);

/** What a refusal of RestoreObject means, by its code and never by status: 403 has three meanings. */
export function restoreRefused(
  object: ObjectFacts,
  code: string | undefined,
  attempts: number,
): RestoreAnswer | undefined {
  if (code === undefined) return undefined;
  if (code === "RestoreAlreadyInProgress") return { answer: "in_progress", attempts };
  if (code === "GlacierExpeditedRetrievalNotAvailable") return { answer: "expedited_refused" };
  const doubt = DOUBTS[code];
  if (isUnknownArchive(object) && (doubt !== undefined || NOT_IN_THIS_WAY.has(code))) {
    const message = `S3 does not restore this file (${code}): Thaw does not know its storage class, ${object.storage_class}. An administrator must look at it.`;
    return { answer: "look_again", trouble: { code, message }, attempts };
  }
  return doubt === undefined
    ? undefined
    : { answer: "look_again", trouble: { code, message: doubt }, attempts };
}
