import { S3Client } from "@aws-sdk/client-s3";

import { answerOf } from "./answer.ts";
import { REGION_NAME } from "./names.ts";

/** One attempt of one call. HEAD and restore are answered in well under a second; ten mean a dead connection. */
const REQUEST_TIMEOUT_MS = 10_000;

/**
 * How often a call follows S3's word to another region: once as a rule, twice when the region that an event named does not
 * exist and the configured one is not the bucket's either.
 */
const MOST_FOLLOWS = 2;

/** The provider of credentials gave none: the SDK's chain, STS, SSO, a token file, the instance's role. */
export class NoCredentials extends Error {
  override name = "NoCredentials";

  constructor(cause: unknown) {
    super("no AWS credentials", { cause });
  }
}

/** By the names of the settings that give them. */
export interface S3ClientSettings {
  AWS_REGION?: string | undefined;
  AWS_ENDPOINT_URL_S3?: string | undefined;
  S3_FORCE_PATH_STYLE: "true" | "false";
  S3_CONCURRENCY: number;
}

/**
 * A client per region, and where each bucket lies.
 *
 * The SDK's own `followRegionRedirects` follows 301 alone, forgets it at once, and bends the region of the whole client
 * while it does, under the feet of other calls.
 */
export class S3Clients {
  private settings: S3ClientSettings;
  private clients = new Map<string | null, S3Client>();
  /** As S3 itself said: that counts more than what an event or a setting says. */
  private regions = new Map<string, string | null>();

  constructor(settings: S3ClientSettings) {
    this.settings = settings;
  }

  /** Where to ask for a bucket; null is the configured region. */
  regionOf(bucket: string, named: string | null): string | null {
    return this.regions.get(bucket) ?? named;
  }

  /**
   * Makes a call in the bucket's region. Where S3 says that it lies elsewhere, the call is made again there.
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
    for (let follows = 0; ; follows++) {
      const client = this.clientIn(region);
      await credentialsOf(client, signal);
      try {
        return await call(client);
      } catch (error) {
        const told = regionTold(error, region);
        if (told === undefined || told === (await client.config.region())) throw error;
        this.regions.set(bucket, told);
        if (follows === MOST_FOLLOWS) throw error;
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
    this.clients.set(region, client);
    return client;
  }

  destroy(): void {
    for (const client of this.clients.values()) client.destroy();
  }
}

/** Asked for before the call, where nothing else can fail: else STS's AccessDenied looks like S3's. The SDK remembers them. */
async function credentialsOf(client: S3Client, signal: AbortSignal): Promise<void> {
  const late = new Promise<never>((_, reject) => {
    // Waiting for credentials hears no signal.
    signal.addEventListener("abort", () => reject(new Error("they did not come in time")), { once: true });
  });
  await Promise.race([client.config.credentials(), late]).catch((error: unknown) => {
    throw new NoCredentials(error);
  });
}

/** These may mean "another region". 403 is what S3 says for a signature of another region to some callers. */
const ELSEWHERE = new Set([301, 307, 400, 403]);

/** The region that an error tells to ask in: null is the configured one; undefined: it tells none. */
function regionTold(error: unknown, tried: string | null): string | null | undefined {
  const answer = answerOf(error);
  if (answer === undefined) {
    // An event can name a region that does not exist, or that this network does not know.
    return (error as { code?: unknown } | null)?.code === "ENOTFOUND" && tried !== null ? null : undefined;
  }
  if (!ELSEWHERE.has(answer.status)) return undefined;
  const { Region: in_body } = error as { Region?: unknown };
  const told = answer.headers["x-amz-bucket-region"] ?? in_body;
  if (typeof told === "string" && REGION_NAME.test(told)) return told;
  // A store that refuses the event's region and names no other.
  return answer.code === "AuthorizationHeaderMalformed" && tried !== null ? null : undefined;
}
