import {
  HeadObjectCommand,
  ListObjectsV2Command,
  RestoreObjectCommand,
  type HeadObjectCommandOutput,
  type S3Client,
} from "@aws-sdk/client-s3";

import { answerOf, isSigned, NotFromS3 } from "./answer.ts";
import { S3Clients, type S3ClientSettings } from "./clients.ts";
import type { Trouble } from "./trouble.ts";
import { isArchived, isUnknownArchive, takesDays, type Tier } from "./storage_class.ts";

/** Which object, as `restores` names it; `version_id` '' is the current one. */
export interface S3Object {
  s3_bucket: string;
  s3_key: string;
  version_id: string;
  region: string | null;
}

/** What HEAD says of an object that exists, named like the columns of `restores`. */
export interface ObjectFacts {
  storage_class: string;
  archive_status: string | null;
  size_bytes: number | null;
  etag: string | null;
  /** The version HEAD answered for; '' in a bucket without versions. */
  pinned_version_id: string;
}

/**
 * An object's state as S3 reports it now. "archived" is both "never restored" and "its copy has expired": S3 does not
 * distinguish them.
 */
export type ObjectState =
  | ({ state: "archived" } & ObjectFacts)
  | ({ state: "restoring" } & ObjectFacts)
  | ({ state: "readable"; restore_expires_at: Date | null } & ObjectFacts)
  | { state: "gone" };

/**
 * S3's response to RestoreObject. "look_again": it contradicts the HEAD just before, so HEAD must be repeated; `trouble` is
 * the error if HEAD still says the same.
 */
export type RestoreAnswer =
  | { answer: "accepted" | "in_progress" | "expedited_refused" }
  | { answer: "look_again"; trouble: Trouble };

/** All calls for one object must end within this, retries of the SDK included; well below the lease of a minute. */
export const CALLS_TIMEOUT_MS = 25_000;

/** A bucket's refusal is cached this long: when credentials expire, thousands of objects ask for it at once. */
const BUCKET_REFUSAL_MS = 10_000;

export interface S3 {
  /** @throws what the SDK throws; a missing object is a state, not an error. */
  headObject(object: S3Object, signal: AbortSignal): Promise<ObjectState>;
  restoreObject(object: S3Object & ObjectFacts, tier: Tier, signal: AbortSignal): Promise<RestoreAnswer>;
  destroy(): void;
}

/** S3 as Thaw needs it: two calls, and what their responses mean (source: see storage_class.ts). */
export function createS3(settings: S3ClientSettings & { RESTORE_DAYS: number }): S3 {
  const clients = new S3Clients(settings);
  const refusals = new Map<string, { until_ms: number; refusal: Promise<unknown> }>();

  /** S3's refusal to list the bucket, or undefined if it lists it. This response has a body with a code, HEAD's has none. */
  const bucketRefusal = (object: S3Object, signal: AbortSignal): Promise<unknown> => {
    const known = refusals.get(object.s3_bucket);
    if (known !== undefined && known.until_ms > performance.now()) return known.refusal;
    const list = new ListObjectsV2Command({
      Bucket: object.s3_bucket,
      // The right to list may hold for one folder only.
      Prefix: object.s3_key,
      MaxKeys: 1,
      EncodingType: "url",
    });
    const refusal = clients
      .ask(object.s3_bucket, object.region, signal, (client) => client.send(list, { abortSignal: signal }))
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    refusals.set(object.s3_bucket, { until_ms: performance.now() + BUCKET_REFUSAL_MS, refusal });
    return refusal;
  };

  const head = (object: S3Object, signal: AbortSignal): Promise<ObjectState> =>
    clients.ask(object.s3_bucket, object.region, signal, async (client) => {
      const command = new HeadObjectCommand({
        Bucket: object.s3_bucket,
        Key: object.s3_key,
        ...versioned(object.version_id),
      });
      const answer = await client.send(command, { abortSignal: signal });
      // A proxy's own page may have status 200, and would look like a readable file.
      const { $metadata, ETag } = answer;
      if ($metadata.httpStatusCode !== 200 || ETag === undefined || !isSigned($metadata)) {
        throw new NotFromS3("an answer to HEAD that is not S3's");
      }
      return readHead(answer, timeAtS3(client));
    });

  /**
   * Refusals of HEAD have no body, so several causes look alike. Only S3's own 404 for this object, in a bucket that exists,
   * ends a restore. For other causes, listing the bucket tells the code.
   */
  const headRefused = async (
    object: S3Object,
    error: unknown,
    asked_in: string | null,
    signal: AbortSignal,
  ): Promise<ObjectState> => {
    const answer = answerOf(error);
    if (answer === undefined || !answer.signed) throw error;
    const { status, code, headers } = answer;
    const has_marker = headers["x-amz-delete-marker"] === "true";
    // 405: the version named is a delete marker.
    if (has_marker && (status === 404 || status === 405)) return { state: "gone" };
    if (code !== undefined) {
      if (status === 404 && (code === "NoSuchKey" || code === "NoSuchVersion")) return { state: "gone" };
      throw error;
    }
    if (status !== 404 && status !== 403 && status !== 400) throw error;

    const refusal = await bucketRefusal(object, signal);
    const why = answerOf(refusal)?.code;
    if (status === 404) {
      if (refusal !== undefined && !comesFromBucket(refusal)) throw refusal;
      return { state: "gone" };
    }
    // The body can have told the bucket's region, where HEAD did not.
    if (clients.regionOf(object.s3_bucket, object.region) !== asked_in) return await head(object, signal);
    throw why === undefined || why === "AccessDenied" ? error : refusal;
  };

  return {
    async headObject(object, signal) {
      const asked_in = clients.regionOf(object.s3_bucket, object.region);
      try {
        return await head(object, signal);
      } catch (error) {
        return await headRefused(object, error, asked_in, signal);
      }
    },

    async restoreObject(object, tier, signal) {
      const command = new RestoreObjectCommand({
        Bucket: object.s3_bucket,
        Key: object.s3_key,
        ...versioned(object.version_id || object.pinned_version_id),
        RestoreRequest: {
          ...(takesDays(object) && { Days: settings.RESTORE_DAYS }),
          // Never the top-level Tier: that is for SELECT jobs, and with Days it is MalformedXML.
          GlacierJobParameters: { Tier: tier },
        },
      });
      try {
        const { $metadata } = await clients.ask(object.s3_bucket, object.region, signal, (client) =>
          client.send(command, { abortSignal: signal }),
        );
        const status = isSigned($metadata) ? $metadata.httpStatusCode : undefined;
        if (status === 202) return { answer: "accepted" };
        if (status === 200) return { answer: "look_again", trouble: NO_EXPIRY };
        throw new NotFromS3("an answer to RestoreObject that is not S3's");
      } catch (error) {
        const answer = restoreRefused(object, answerOf(error)?.code);
        if (answer === undefined) throw error;
        return answer;
      }
    },

    destroy: () => clients.destroy(),
  };
}

/** Whether a refusal proves that the bucket exists: it has a code, and neither NoSuchBucket nor one of a fault of S3. */
function comesFromBucket(refusal: unknown): boolean {
  const answer = answerOf(refusal);
  return answer?.code !== undefined && answer.code !== "NoSuchBucket" && answer.status < 500;
}

/** 200 means that a copy exists. HEAD must say until when: without that it could expire at any moment. */
const NO_EXPIRY: Trouble = {
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
function restoreRefused(object: ObjectFacts, code: string | undefined): RestoreAnswer | undefined {
  if (code === undefined) return undefined;
  if (code === "RestoreAlreadyInProgress") return { answer: "in_progress" };
  if (code === "GlacierExpeditedRetrievalNotAvailable") return { answer: "expedited_refused" };
  const doubt = DOUBTS[code];
  if (isUnknownArchive(object) && (doubt !== undefined || NOT_IN_THIS_WAY.has(code))) {
    const message = `S3 does not restore this file (${code}): Thaw does not know its storage class, ${object.storage_class}. An administrator must look at it.`;
    return { answer: "look_again", trouble: { code, message } };
  }
  return doubt === undefined ? undefined : { answer: "look_again", trouble: { code, message: doubt } };
}

const versioned = (version_id: string): { VersionId?: string } =>
  version_id === "" ? {} : { VersionId: version_id };

/** By the clock skew that the SDK measures from S3's responses. */
export const timeAtS3 = (client: S3Client): Date => new Date(Date.now() + client.config.systemClockOffset);

/**
 * The decision table of HEAD. "readable" needs evidence: missing, new or unparsable values never lead there. A copy past its
 * expiry counts as gone: S3 removes it a little later.
 */
export function readHead(head: HeadObjectCommandOutput, now: Date): ObjectState {
  const facts: ObjectFacts = {
    storage_class: head.StorageClass ?? "STANDARD",
    archive_status: head.ArchiveStatus ?? null,
    size_bytes: head.ContentLength ?? null,
    etag: head.ETag ?? null,
    pinned_version_id: head.VersionId ?? "",
  };
  const restore = parseRestoreHeader(head.Restore);
  if (restore.ongoing === true) return { state: "restoring", ...facts };
  if (!isArchived(facts)) return { state: "readable", restore_expires_at: null, ...facts };
  const expires = restore.expires_at;
  if (restore.ongoing === false && expires !== null && expires > now && takesDays(facts)) {
    return { state: "readable", restore_expires_at: expires, ...facts };
  }
  return { state: "archived", ...facts };
}

/** `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`; the date has a comma itself. */
function parseRestoreHeader(header: string | undefined): {
  ongoing: boolean | null;
  expires_at: Date | null;
} {
  const ongoing = /ongoing-request="(true|false)"/.exec(header ?? "")?.[1];
  const expires = new Date(/expiry-date="([^"]+)"/.exec(header ?? "")?.[1] ?? Number.NaN);
  return {
    ongoing: ongoing === undefined ? null : ongoing === "true",
    expires_at: Number.isNaN(expires.getTime()) ? null : expires,
  };
}
