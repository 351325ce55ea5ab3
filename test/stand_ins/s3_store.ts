import { createHash, randomBytes } from "node:crypto";
import type { RestoreState } from "./s3_restores.ts";
import { S3Error } from "./s3_wire.ts";

export type Versioning = "off" | "enabled" | "suspended";
export type ArchiveStatus = "ARCHIVE_ACCESS" | "DEEP_ARCHIVE_ACCESS";

/**
 * What who signs for another region hears: 301 as a rule; 400 AuthorizationHeaderMalformed where the endpoint is not the
 * region's own; 403 has been seen too. The region stands in a header, or in the body alone, which a HEAD does not have.
 */
export interface WrongRegion {
  status: 301 | 400 | 403;
  told_in: "header" | "body";
}

/** A bucket, its versions oldest first. */
export interface S3Bucket {
  name: string;
  region: string;
  versioning: Versioning;
  requester_pays: boolean;
  wrong_region: WrongRegion;
  notifications: string;
  objects: Map<string, S3Version[]>;
  /** Keys in S3's order, kept until the set of keys changes. */
  sorted_keys: string[] | undefined;
}

/** One version of an object, or a delete marker. */
export interface S3Version {
  bucket: S3Bucket;
  key: string;
  /** "null" for a version written while versioning was off or suspended. */
  version_id: string;
  delete_marker: boolean;
  storage_class: string;
  archive_status: ArchiveStatus | undefined;
  size_bytes: number;
  body: Buffer | undefined;
  etag: string;
  last_modified: number;
  restore: RestoreState | undefined;
  /** Restores S3 has begun (202) for this version, ever: the figure that money follows. */
  restores_accepted: number;
}

/** Names an object, or one version of it. */
export interface S3Name {
  bucket: string;
  key: string;
  version_id?: string | undefined;
}

export interface NewBucket {
  versioning?: Versioning;
  region?: string;
  requester_pays?: boolean;
  wrong_region?: WrongRegion;
  /** XML that GET ?notification tells: "<EventBridgeConfiguration/>". Events come whatever it says. Empty. */
  notifications?: string;
}

export interface NewObject {
  bucket: string;
  key: string;
  storage_class?: string;
  archive_status?: ArchiveStatus;
  size_bytes?: number;
  body?: string;
}

/** Buckets, keys and versions; knows nothing of HTTP or of restores. */
export class S3Store {
  buckets = new Map<string, S3Bucket>();
  etags = 0;
  /** Told when a version goes away, so that its restore can be forgotten. */
  onRemoved: (version: S3Version) => void;

  constructor(onRemoved: (version: S3Version) => void) {
    this.onRemoved = onRemoved;
  }

  createBucket(name: string, options: NewBucket = {}): void {
    if (this.buckets.has(name)) throw new Error(`bucket ${name} exists already`);
    this.buckets.set(name, {
      name,
      region: options.region ?? "us-east-1",
      versioning: options.versioning ?? "off",
      requester_pays: options.requester_pays ?? false,
      wrong_region: options.wrong_region ?? { status: 301, told_in: "header" },
      notifications: options.notifications ?? "",
      objects: new Map(),
      sorted_keys: undefined,
    });
  }

  bucket(name: string): S3Bucket {
    const bucket = this.buckets.get(name);
    if (bucket !== undefined) return bucket;
    throw new S3Error(404, "NoSuchBucket", "The specified bucket does not exist", { BucketName: name });
  }

  put(object: NewObject): S3Version {
    const bucket = this.bucket(object.bucket);
    const storageClass = object.storage_class ?? "STANDARD";
    if (object.archive_status !== undefined && storageClass !== "INTELLIGENT_TIERING") {
      throw new Error("only INTELLIGENT_TIERING objects have an archive_status");
    }
    const body = object.body === undefined ? undefined : Buffer.from(object.body);
    return this.add(bucket, object.key, {
      delete_marker: false,
      storage_class: storageClass,
      archive_status: object.archive_status,
      size_bytes: body?.length ?? object.size_bytes ?? 1024,
      body,
      // Content that was never made has no digest; a counter differs as often as content would.
      etag:
        body === undefined
          ? (this.etags += 1).toString(16).padStart(32, "0")
          : createHash("md5").update(body).digest("hex"),
    });
  }

  /** Without a version: a delete marker where the bucket keeps versions. With one: that version is gone. */
  delete(name: S3Name): void {
    const bucket = this.bucket(name.bucket);
    if (name.version_id !== undefined) {
      this.remove(bucket, name.key, name.version_id);
    } else if (bucket.versioning === "off") {
      this.remove(bucket, name.key, "null");
    } else {
      this.add(bucket, name.key, {
        delete_marker: true,
        storage_class: "STANDARD",
        archive_status: undefined,
        size_bytes: 0,
        body: undefined,
        etag: "",
      });
    }
  }

  /** The named version, else the current one; undefined when there is none. May be a delete marker. */
  find(bucket: S3Bucket, key: string, versionId: string | undefined): S3Version | undefined {
    const versions = bucket.objects.get(key);
    if (versionId === undefined) return versions?.at(-1);
    return versions?.find((version) => version.version_id === versionId);
  }

  /** Keys in the order S3 lists them: by their UTF-8 bytes. */
  sortedKeys(bucket: S3Bucket): string[] {
    bucket.sorted_keys ??= [...bucket.objects.keys()].sort(compareBytes);
    return bucket.sorted_keys;
  }

  /** Where a listing begins: the first key with this prefix (or beyond) that comes after `after`. */
  firstKey(bucket: S3Bucket, prefix: string, after: string): number {
    const keys = this.sortedKeys(bucket);
    let low = 0;
    let high = keys.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const key = keys[middle] ?? "";
      const early = compareBytes(key, prefix) < 0 || (after !== "" && compareBytes(key, after) <= 0);
      if (early) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private add(
    bucket: S3Bucket,
    key: string,
    content: Pick<
      S3Version,
      "delete_marker" | "storage_class" | "archive_status" | "size_bytes" | "body" | "etag"
    >,
  ): S3Version {
    const versionId = bucket.versioning === "enabled" ? newVersionId() : "null";
    // An unversioned or suspended bucket has one null version per key: the new one takes its place.
    if (versionId === "null") this.remove(bucket, key, "null");
    const version: S3Version = {
      bucket,
      key,
      version_id: versionId,
      ...content,
      last_modified: Date.now(),
      restore: undefined,
      restores_accepted: 0,
    };
    const versions = bucket.objects.get(key);
    if (versions === undefined) {
      bucket.objects.set(key, [version]);
      bucket.sorted_keys = undefined;
    } else {
      versions.push(version);
    }
    return version;
  }

  private remove(bucket: S3Bucket, key: string, versionId: string): void {
    const versions = bucket.objects.get(key);
    const index = versions?.findIndex((version) => version.version_id === versionId) ?? -1;
    if (versions === undefined || index === -1) return;
    for (const version of versions.splice(index, 1)) this.onRemoved(version);
    if (versions.length > 0) return;
    bucket.objects.delete(key);
    bucket.sorted_keys = undefined;
  }
}

/** The id callers see: none in a bucket that never kept versions. */
export function visibleVersionId(version: S3Version): string | undefined {
  return version.bucket.versioning === "off" ? undefined : version.version_id;
}

/** 32 characters like S3's; whoever reads more into them than "opaque" will be wrong here too. */
function newVersionId(): string {
  return randomBytes(24).toString("base64").replaceAll("+", ".").replaceAll("/", "_");
}

/** UTF-16 order and UTF-8 order differ only where surrogates meet U+E000 and above. */
function compareBytes(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const left = a.charCodeAt(i);
    const right = b.charCodeAt(i);
    if (left === right) continue;
    const leftIsPair = left >= 0xd800 && left <= 0xdfff;
    const rightIsPair = right >= 0xd800 && right <= 0xdfff;
    if (leftIsPair === rightIsPair) return left - right;
    if (leftIsPair) return right >= 0xe000 ? 1 : left - right;
    return left >= 0xe000 ? -1 : left - right;
  }
  return a.length - b.length;
}
