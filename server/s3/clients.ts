import { S3Client } from "@aws-sdk/client-s3";

import { answerOf } from "./answer.ts";
import { REGION_NAME } from "./names.ts";

/** One attempt of one call. HEAD and RestoreObject take well under a second; ten seconds mean a dead connection. */
const REQUEST_TIMEOUT_MS = 10_000;

/**
 * How often one call is redirected to another region: once as a rule; twice when the region in an event does not exist and
 * the configured one is not the bucket's either.
 */
const MAX_REDIRECTS = 2;

/** The credentials provider failed: the SDK's chain, STS, SSO, a token file, the instance's role. */
export class NoCredentials extends Error {
  override name = "NoCredentials";

  constructor(cause: unknown) {
    super("no AWS credentials", { cause });
  }
}

/** Named like the settings. */
export interface S3ClientSettings {
  AWS_REGION?: string | undefined;
  AWS_ENDPOINT_URL_S3?: string | undefined;
  S3_FORCE_PATH_STYLE: "true" | "false";
  S3_CONCURRENCY: number;
}

/**
 * One client per region, and the known regions of buckets.
 *
 * The SDK's own `followRegionRedirects` follows 301 only, remembers nothing, and meanwhile changes the region of the whole
 * client, which breaks concurrent calls.
 */
export class S3Clients {
  private settings: S3ClientSettings;
  private clients = new Map<string | null, S3Client>();
  /** As S3 itself told; this overrides events and settings. */
  private regions = new Map<string, string | null>();

  constructor(settings: S3ClientSettings) {
    this.settings = settings;
  }

  /** The region to call for a bucket; null is the configured one. */
  regionOf(bucket: string, named: string | null): string | null {
    return this.regions.get(bucket) ?? named;
  }

  /**
   * Makes a call in the bucket's region, and again in another one if S3 says that the bucket is there.
   *
   * @throws NoCredentials, or what the call throws.
   */
  async ask<T>(
    bucket: string,
    named: string | null,
    signal: AbortSignal,
    call: (client: S3Client) => Promise<T>,
  ): Promise<T> {
    let region = this.regionOf(bucket, named);
    for (let redirects = 0; ; redirects++) {
      const client = this.clientIn(region);
      await credentialsOf(client, signal);
      try {
        return await call(client);
      } catch (error) {
        const told = regionTold(error, region);
        if (told === undefined || told === (await client.config.region())) throw error;
        this.regions.set(bucket, told);
        if (redirects === MAX_REDIRECTS) throw error;
        region = told;
      }
    }
  }

  clientIn(region: string | null): S3Client {
    const known = this.clients.get(region);
    if (known) return known;
    const { settings } = this;
    const own = region ?? settings.AWS_REGION;
    const client = new S3Client({
      ...(own !== undefined && { region: own }),
      ...(settings.AWS_ENDPOINT_URL_S3 !== undefined && { endpoint: settings.AWS_ENDPOINT_URL_S3 }),
      forcePathStyle: settings.S3_FORCE_PATH_STYLE === "true",
      // Saves 0.5 ms of CPU per object; S3 requires no checksum on these calls.
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
    this.clients.set(region, client);
    return client;
  }

  destroy(): void {
    for (const client of this.clients.values()) client.destroy();
  }
}

/** Gets the credentials before the call: within it an AccessDenied of STS would look like S3's. The SDK caches them. */
async function credentialsOf(client: S3Client, signal: AbortSignal): Promise<void> {
  const late = new Promise<never>((_, reject) => {
    // The provider takes no signal.
    signal.addEventListener("abort", () => reject(new Error("they did not come in time")), { once: true });
  });
  await Promise.race([client.config.credentials(), late]).catch((error: unknown) => {
    throw new NoCredentials(error);
  });
}

/** These may mean "another region". Some callers get 403 for a signature of the wrong region. */
const ELSEWHERE = new Set([301, 307, 400, 403]);

/** The region to which an error redirects: null is the configured one; undefined: none. */
function regionTold(error: unknown, tried: string | null): string | null | undefined {
  const answer = answerOf(error);
  if (answer === undefined) {
    // An event can name a region that does not exist, or that this network cannot resolve.
    return (error as { code?: unknown } | null)?.code === "ENOTFOUND" && tried !== null ? null : undefined;
  }
  if (!ELSEWHERE.has(answer.status)) return undefined;
  const { Region: in_body } = error as { Region?: unknown };
  const told = answer.headers["x-amz-bucket-region"] ?? in_body;
  if (typeof told === "string" && REGION_NAME.test(told)) return told;
  // A store that refuses the event's region and names no other.
  return answer.code === "AuthorizationHeaderMalformed" && tried !== null ? null : undefined;
}
