import { HeadObjectCommand, RestoreObjectCommand } from "@aws-sdk/client-s3";

import { answerOf, attemptsOf, isSigned, NotFromS3 } from "./answer.ts";
import { BucketRefusals, provesBucket } from "./bucket_refusals.ts";
import { S3Clients, type S3ClientSettings } from "./clients.ts";
import { listPages, type ListedObject, type ListedPlace } from "./list.ts";
import { readHead, timeAtS3, type ObjectFacts, type ObjectState } from "./head.ts";
import { NO_EXPIRY, restoreRefused, type RestoreAnswer } from "./restore_answer.ts";
import { takesDays, type Tier } from "./storage_class.ts";

/** Which object, as `restores` names it; `version_id` '' is the current one. */
export interface S3Object {
  s3_bucket: string;
  s3_key: string;
  version_id: string;
  region: string | null;
}

/** All calls for one object must end within this, retries of the SDK included; well below the lease of a minute. */
export const CALLS_TIMEOUT_MS = 25_000;

export interface S3 {
  /** @throws what the SDK throws; a missing object is a state, not an error. */
  headObject(object: S3Object, signal: AbortSignal): Promise<ObjectState>;
  restoreObject(
    object: S3Object & ObjectFacts,
    how: { tier: Tier; days: number },
    signal: AbortSignal,
  ): Promise<RestoreAnswer>;
  /** What lies under a prefix, in pages. @throws what the SDK throws. */
  list(place: ListedPlace, stop: AbortSignal): AsyncGenerator<ListedObject[]>;
  /** Where the bucket lies, as far as it is known. */
  regionOf(object: S3Object): string | null;
  destroy(): void;
}

/** S3 as Thaw needs it: HEAD, RestoreObject and lists, and what their responses mean (source: see storage_class.ts). */
export function createS3(settings: S3ClientSettings): S3 {
  const clients = new S3Clients(settings);
  const bucketRefusals = new BucketRefusals(clients);

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

    const refusal = await bucketRefusals.of(object, signal);
    const why = answerOf(refusal)?.code;
    if (status === 404) {
      if (refusal !== undefined && !provesBucket(refusal)) throw refusal;
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

    async restoreObject(object, { tier, days }, signal) {
      const command = new RestoreObjectCommand({
        Bucket: object.s3_bucket,
        Key: object.s3_key,
        ...versioned(object.version_id || object.pinned_version_id),
        RestoreRequest: {
          ...(takesDays(object) && { Days: days }),
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
        if (status === 200)
          return { answer: "look_again", trouble: NO_EXPIRY, attempts: attemptsOf($metadata) };
        throw new NotFromS3("an answer to RestoreObject that is not S3's");
      } catch (error) {
        const refusal = answerOf(error);
        const answer = refusal && restoreRefused(object, refusal.code, refusal.attempts);
        if (answer === undefined) throw error;
        return answer;
      }
    },

    list: (place, stop) => listPages(clients, place, stop),

    regionOf: (object) => clients.regionOf(object.s3_bucket, object.region),

    destroy: () => clients.destroy(),
  };
}

const versioned = (version_id: string): { VersionId?: string } =>
  version_id === "" ? {} : { VersionId: version_id };
