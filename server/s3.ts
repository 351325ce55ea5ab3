import {
  HeadObjectCommand,
  NotFound,
  RestoreObjectCommand,
  S3Client,
  S3ServiceException,
  type HeadObjectCommandOutput,
} from "@aws-sdk/client-s3";

import type { WorkerConfig } from "./config.ts";
import { isArchived, takesDays, type Tier } from "./storage_class.ts";

/** Which object, as `restores` names it; `version_id` '' is the current one. */
export interface S3Object {
  s3_bucket: string;
  s3_key: string;
  version_id: string;
  region: string | null;
}

/** What HEAD tells of an object that exists, in the columns of `restores`. */
export interface ObjectFacts {
  storage_class: string;
  archive_status: string | null;
  size_bytes: number | null;
  etag: string | null;
  /** The version HEAD answered for; '' in a bucket without versions. */
  pinned_version_id: string;
}

/**
 * S3's word on an object. "archived" is both "never restored" and "its copy has expired": S3 does not tell
 * them apart.
 */
export type ObjectState =
  | ({ state: "archived" | "restoring" } & ObjectFacts)
  | ({ state: "readable"; restore_expires_at: Date | null } & ObjectFacts)
  | { state: "gone" };

/** How S3 took a request to restore. "readable": a copy exists, or the object left its archive tier. */
export type RestoreAnswer =
  | "accepted"
  | "in_progress"
  | "readable"
  | "not_restorable"
  | "expedited_refused"
  | "gone";

/** All calls for one object must end within this, retries of the SDK included; well below the lease of a minute. */
export const CALLS_TIMEOUT_MS = 25_000;

/** One attempt of one call. HEAD and restore are answered in well under a second; ten mean a dead connection. */
const REQUEST_TIMEOUT_MS = 10_000;

export interface S3 {
  /** @throws whatever the SDK throws, except for objects that are gone. */
  headObject(object: S3Object, signal: AbortSignal): Promise<ObjectState>;
  restoreObject(object: S3Object & ObjectFacts, tier: Tier, signal: AbortSignal): Promise<RestoreAnswer>;
  destroy(): void;
}

/** An answer that S3 cannot have given: somebody in between did. */
class NotFromS3 extends Error {
  override name = "NotFromS3";
}

type S3Settings = Pick<
  WorkerConfig,
  "AWS_REGION" | "AWS_ENDPOINT_URL_S3" | "S3_FORCE_PATH_STYLE" | "S3_CONCURRENCY" | "RESTORE_DAYS"
>;

/** S3 as Thaw needs it: two calls, and what their answers mean (source: see storage_class.ts). */
export function createS3(settings: S3Settings): S3 {
  // A client per region: the event names the bucket's, and a redirect costs a second request each time.
  const clients = new Map<string | null, S3Client>();
  const clientFor = (region: string | null): S3Client => {
    const known = clients.get(region);
    if (known) return known;
    const own = region ?? settings.AWS_REGION;
    const client = new S3Client({
      ...(own !== undefined && { region: own }),
      ...(settings.AWS_ENDPOINT_URL_S3 !== undefined && { endpoint: settings.AWS_ENDPOINT_URL_S3 }),
      forcePathStyle: settings.S3_FORCE_PATH_STYLE === "true",
      followRegionRedirects: true,
      // Half a millisecond of CPU per object; S3 asks for no checksum on these calls.
      requestChecksumCalculation: "WHEN_REQUIRED",
      requestHandler: {
        // Without throwOnRequestTimeout the SDK only logs a warning and goes on waiting.
        requestTimeout: REQUEST_TIMEOUT_MS,
        throwOnRequestTimeout: true,
        connectionTimeout: 3_000,
        httpAgent: { keepAlive: true, maxSockets: settings.S3_CONCURRENCY },
        httpsAgent: { keepAlive: true, maxSockets: settings.S3_CONCURRENCY },
      },
    });
    clients.set(region, client);
    return client;
  };

  return {
    async headObject(object, signal) {
      try {
        const client = clientFor(object.region);
        const head = await client.send(
          new HeadObjectCommand({
            Bucket: object.s3_bucket,
            Key: object.s3_key,
            ...versioned(object.version_id),
          }),
          { abortSignal: signal },
        );
        // A proxy's own page may come with a 200, and without S3's headers looks like a readable file.
        if (head.ETag === undefined) throw new NotFromS3("an answer to HEAD without an ETag");
        return readHead(head, timeAtS3(client));
      } catch (error) {
        // 405: the version named is a delete marker.
        if (error instanceof NotFound || [404, 405].includes(statusOf(error))) return { state: "gone" };
        throw error;
      }
    },

    async restoreObject(object, tier, signal) {
      try {
        const answer = await clientFor(object.region).send(
          new RestoreObjectCommand({
            Bucket: object.s3_bucket,
            Key: object.s3_key,
            ...versioned(object.version_id || object.pinned_version_id),
            RestoreRequest: {
              ...(takesDays(object) && { Days: settings.RESTORE_DAYS }),
              // Never the top-level Tier: that is for SELECT jobs, and with Days it is MalformedXML.
              GlacierJobParameters: { Tier: tier },
            },
          }),
          { abortSignal: signal },
        );
        return answer.$metadata.httpStatusCode === 200 ? "readable" : "accepted";
      } catch (error) {
        const meaning = RESTORE_ERRORS[(error as Error).name];
        if (meaning === undefined) throw error;
        return meaning;
      }
    },

    destroy() {
      for (const client of clients.values()) client.destroy();
    },
  };
}

/** Errors of RestoreObject that are answers. By name, never by status: 403 alone has three meanings. */
const RESTORE_ERRORS: Record<string, RestoreAnswer> = {
  RestoreAlreadyInProgress: "in_progress",
  ObjectAlreadyInActiveTierError: "readable",
  InvalidObjectState: "not_restorable",
  GlacierExpeditedRetrievalNotAvailable: "expedited_refused",
  NoSuchKey: "gone",
  NoSuchVersion: "gone",
  MethodNotAllowed: "gone",
};

const versioned = (version_id: string): { VersionId?: string } =>
  version_id === "" ? {} : { VersionId: version_id };

const statusOf = (error: unknown): number =>
  error instanceof S3ServiceException ? (error.$metadata.httpStatusCode ?? 0) : 0;

/** The SDK notes from S3's answers how far this machine's clock is off. */
export const timeAtS3 = (client: S3Client): Date => new Date(Date.now() + client.config.systemClockOffset);

/** The decision table of HEAD. A copy whose expiry has passed is as good as gone: S3 removes it a little later. */
export function readHead(head: HeadObjectCommandOutput, now: Date): ObjectState {
  const facts: ObjectFacts = {
    storage_class: head.StorageClass ?? "STANDARD",
    archive_status: head.ArchiveStatus ?? null,
    size_bytes: head.ContentLength ?? null,
    etag: head.ETag ?? null,
    pinned_version_id: head.VersionId ?? "",
  };
  if (!isArchived(facts)) return { state: "readable", restore_expires_at: null, ...facts };
  const restore = parseRestoreHeader(head.Restore);
  if (restore.ongoing === true) return { state: "restoring", ...facts };
  const expires = restore.expires_at;
  if (restore.ongoing === false && expires !== null && expires > now && takesDays(facts)) {
    return { state: "readable", restore_expires_at: expires, ...facts };
  }
  return { state: "archived", ...facts };
}

/** `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`; the date holds a comma itself. */
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
