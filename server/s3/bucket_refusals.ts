import { ListObjectsV2Command } from "@aws-sdk/client-s3";

import { answerOf } from "./answer.ts";
import type { S3Clients } from "./clients.ts";

/** A bucket's refusal is cached this long: when credentials expire, thousands of objects ask for it at once. */
const BUCKET_REFUSAL_MS = 10_000;

/** Why S3 refuses calls in a bucket. Unlike that of a HEAD, the response to a listing has a body with an error code. */
export class BucketRefusals {
  readonly #clients: S3Clients;
  readonly #known = new Map<string, { until_ms: number; refusal: Promise<unknown> }>();

  constructor(clients: S3Clients) {
    this.#clients = clients;
  }

  /** The error of a listing, or undefined when S3 lists the bucket. */
  of(
    object: { s3_bucket: string; s3_key: string; region: string | null },
    signal: AbortSignal,
  ): Promise<unknown> {
    const known = this.#known.get(object.s3_bucket);
    if (known !== undefined && known.until_ms > performance.now()) return known.refusal;
    const list = new ListObjectsV2Command({
      Bucket: object.s3_bucket,
      // The right to list may hold for one folder only.
      Prefix: object.s3_key,
      MaxKeys: 1,
      EncodingType: "url",
    });
    const refusal = this.#clients
      .ask(object.s3_bucket, object.region, signal, (client) => client.send(list, { abortSignal: signal }))
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    this.#known.set(object.s3_bucket, { until_ms: performance.now() + BUCKET_REFUSAL_MS, refusal });
    return refusal;
  }
}

/** Whether a refusal proves that the bucket exists: it has a code, and neither NoSuchBucket nor one of a fault of S3. */
export function provesBucket(refusal: unknown): boolean {
  const answer = answerOf(refusal);
  return answer?.code !== undefined && answer.code !== "NoSuchBucket" && answer.status < 500;
}
