import { restoreEvent, type RestoreEventType, type S3Event } from "./s3_events.ts";
import { type Fault, type FaultRule, Faults } from "./s3_faults.ts";
import { RequestLog, type S3Request } from "./s3_log.ts";
import { S3Operations } from "./s3_operations.ts";
import type { Tier } from "./s3_restore_request.ts";
import { type RestoreDuration, Restores } from "./s3_restores.ts";
import { S3Server } from "./s3_server.ts";
import {
  type ArchiveStatus,
  type NewBucket,
  type NewObject,
  type S3Name,
  S3Store,
  type S3Version,
  visibleVersionId,
} from "./s3_store.ts";

export type { S3Event, S3ReadEvent, S3RestoreEvent } from "./s3_events.ts";
export type { Fault, FaultKind, FaultRule } from "./s3_faults.ts";
export type { S3Request } from "./s3_log.ts";
export type { Tier } from "./s3_restore_request.ts";
export type { NewBucket, NewObject, S3Name } from "./s3_store.ts";

export interface S3StandInOptions {
  /** How long a restore takes; Infinity waits for finishRestore. 200 ms. */
  restore_ms?: RestoreDuration;
  /** Added to every answer. 0. */
  latency_ms?: number;
  /** How long after a 202 HEAD still shows nothing of it. 0. */
  header_lag_ms?: number;
  /** 0: any free one. */
  port?: number;
  /** Called once per event, as things happen and before the answer goes out. */
  onEvent?: (event: S3Event) => void;
  /** The trail records HeadObject, too (WatchAwsCli). false. */
  records_heads?: boolean;
  /** Who is behind an access key (CloudTrail's userIdentity); else an IAM user named like the key. */
  identify?: (accessKeyId: string | undefined) => Record<string, unknown> | undefined;
  /** For the faults that strike by chance. */
  seed?: number;
  /** SlowDown above this many RestoreObject requests a second. */
  restores_per_second?: number;
  /** How many requests are remembered; older ones are dropped. 100,000. */
  keep_requests?: number;
}

/** How an object stands, for assertions that should not go through HTTP. */
export interface S3Look {
  version_id: string | undefined;
  etag: string;
  storage_class: string;
  archive_status: ArchiveStatus | undefined;
  restore: "none" | "running" | "ready";
  expires_at: Date | undefined;
  /** Restores S3 has begun for this version, ever. */
  restores_accepted: number;
}

/** Conditions that hold until changed. */
export interface S3Switches {
  /** False: Expedited is refused with GlacierExpeditedRetrievalNotAvailable. */
  expedited_available: boolean;
  /** False: the caller lacks s3:ListBucket, so that a missing key looks denied. */
  may_list: boolean;
}

/** An S3 one can hold: everything a test or the demo does to it from the inside. */
export interface S3StandIn {
  url: string;
  port: number;
  switches: S3Switches;
  createBucket(name: string, options?: NewBucket): void;
  /** Overwrites as S3 does: a new version where versions are kept, else the old one and its restore are gone. */
  putObject(object: NewObject): { version_id: string | undefined; etag: string };
  /** Leaves a delete marker in a bucket that keeps versions, unless a version is named. */
  deleteObject(name: S3Name): void;
  /** How an object stands; undefined when it is missing or deleted. */
  look(name: S3Name): S3Look | undefined;
  /** A restore started by somebody else (console, Batch Operations). Throws what S3 would refuse it with. */
  beginRestore(name: S3Name, order?: { days?: number; tier?: Tier }): void;
  /** Makes a running restore ready now. Like the next three: false when there was nothing to do it to. */
  finishRestore(name: S3Name): boolean;
  /** Drops a running restore without a trace or an event. */
  loseRestore(name: S3Name): boolean;
  /** Takes the restored copy away now. */
  expireCopy(name: S3Name): boolean;
  /** Sets a copy's expiry. One in the past goes at once or, if it lingers, is still shown by HEAD. */
  ageCopy(name: S3Name, expiresAt: Date, options?: { lingers?: boolean }): boolean;
  /** Requests seen, oldest first: the newest keep_requests at most, the newest half of them at least. */
  requests: S3Request[];
  /** How many of each, never dropped: counts.get("RestoreObject 202"). Status 0: not answered. */
  counts: Map<string, number>;
  clearRequests(): void;
  /** Scripts a bad day. */
  fail(rule: FaultRule): Fault;
  clearFaults(): void;
  /** Ends every connection at once, hanging requests included; no event comes after it. */
  close(): Promise<void>;
}

/** Starts an S3 with Glacier's manners on 127.0.0.1, for path-style clients. */
export async function startS3StandIn(options: S3StandInOptions = {}): Promise<S3StandIn> {
  let closed = false;
  const emit = (event: S3Event): void => {
    if (!closed) options.onEvent?.(event);
  };
  const tell = (type: RestoreEventType, version: S3Version, expiresAt?: number): void =>
    emit(restoreEvent(type, version, server.newRequestId(), expiresAt));

  const switches: S3Switches = { expedited_available: true, may_list: true };
  const restores = new Restores({
    duration: options.restore_ms ?? 200,
    header_lag_ms: options.header_lag_ms ?? 0,
    switches,
    initiated: (version) => tell("Object Restore Initiated", version),
    completed: (version, expiresAt) => tell("Object Restore Completed", version, expiresAt),
    expired: (version) => tell("Object Restore Expired", version),
  });
  const store = new S3Store((version) => restores.forget(version));
  const faults = new Faults(options.seed ?? 1);
  const log = new RequestLog(options.keep_requests ?? 100_000);
  const operations = new S3Operations({
    store,
    restores,
    switches,
    emit,
    records_heads: options.records_heads ?? false,
    identify: options.identify,
    restores_per_second: options.restores_per_second,
  });
  const server = new S3Server(operations, faults, log, options.latency_ms ?? 0);
  const port = await server.listen(options.port ?? 0);

  /** A test that names what is not there has a slip in it. */
  const existing = (name: S3Name): S3Version => {
    const version = store.find(store.bucket(name.bucket), name.key, name.version_id);
    if (version !== undefined && !version.delete_marker) return version;
    throw new Error(`no object ${name.bucket}/${name.key}`);
  };

  return {
    url: `http://127.0.0.1:${port}`,
    port,
    switches,
    createBucket: (name, bucket) => store.createBucket(name, bucket),
    putObject: (object) => {
      const version = store.put(object);
      return { version_id: visibleVersionId(version), etag: version.etag };
    },
    deleteObject: (name) => store.delete(name),
    look: (name) => {
      const version = store.find(store.bucket(name.bucket), name.key, name.version_id);
      if (version === undefined || version.delete_marker) return undefined;
      restores.settle(version);
      const { restore } = version;
      return {
        version_id: visibleVersionId(version),
        etag: version.etag,
        storage_class: version.storage_class,
        archive_status: version.archive_status,
        restore: restore?.state ?? "none",
        expires_at: restore?.state === "ready" ? new Date(restore.expires_at) : undefined,
        restores_accepted: version.restores_accepted,
      };
    },
    beginRestore: (name, order = {}) => {
      restores.begin(existing(name), { days: order.days, tier: order.tier ?? "Standard" });
    },
    finishRestore: (name) => restores.finish(existing(name)),
    loseRestore: (name) => restores.lose(existing(name)),
    expireCopy: (name) => restores.expire(existing(name)),
    ageCopy: (name, expiresAt, { lingers } = {}) =>
      restores.age(existing(name), expiresAt.getTime(), lingers ?? false),
    requests: log.requests,
    counts: log.counts,
    clearRequests: () => log.clear(),
    fail: (rule) => faults.add(rule),
    clearFaults: () => faults.clear(),
    close: async () => {
      if (closed) return;
      closed = true;
      restores.close();
      await server.close();
    },
  };
}
