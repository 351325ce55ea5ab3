import type { RestoreOrder, Tier } from "./s3_restore_request.ts";
import { TIERS } from "./s3_restore_request.ts";
import type { S3Version } from "./s3_store.ts";
import { malformedXml, S3Error } from "./s3_wire.ts";

/** What S3 knows about the restore of one version. Absent: nothing asked, or long over. */
export type RestoreState =
  | {
      state: "running";
      days: number | undefined;
      tier: Tier;
      accepted_at: number;
      timer: NodeJS.Timeout | undefined;
    }
  | {
      state: "ready";
      expires_at: number;
      /** S3 shows an expired copy for a while before it takes the header away. */
      lingers: boolean;
    };

/** How long a restore takes: the same for all, or worked out for each. */
export type RestoreDuration =
  | number
  | ((o: {
      bucket: string;
      key: string;
      version_id: string;
      storage_class: string;
      size_bytes: number;
      tier: Tier;
    }) => number);

/** What the restores need to know, and whom they tell of every turn they take. */
export interface RestoreConditions {
  duration: RestoreDuration;
  /** How long after a 202 the header still says nothing of it. */
  header_lag_ms: number;
  switches: { expedited_available: boolean };
  initiated(version: S3Version): void;
  completed(version: S3Version, expiresAt: number | undefined): void;
  expired(version: S3Version): void;
}

const DAY_MS = 86_400_000;
/** A longer timer would fire at once (Node's limit, 24.8 days); such a restore waits for finishRestore. */
const MAX_TIMER_MS = 2_147_483_647;

/** When a copy made at `from` for `days` days goes away: rounded up to the next midnight UTC. */
export function copyExpiry(from: number, days: number): number {
  return Math.ceil((from + days * DAY_MS) / DAY_MS) * DAY_MS;
}

/** Classes whose objects are there at once. Others are archives: S3's two, and those of stores that took over its API. */
const AT_ONCE = new Set([
  "STANDARD",
  "STANDARD_IA",
  "ONEZONE_IA",
  "REDUCED_REDUNDANCY",
  "INTELLIGENT_TIERING",
  "GLACIER_IR",
  "EXPRESS_ONEZONE",
]);

/** Whether a GET is refused, and a restore would be of use. */
export function isArchived(version: S3Version): boolean {
  if (version.archive_status !== undefined) return true;
  if (AT_ONCE.has(version.storage_class)) return false;
  return version.restore?.state !== "ready" || version.restore.expires_at <= Date.now();
}

/** The restores of all versions: begin, finish, expire, get lost. */
export class Restores {
  private conditions: RestoreConditions;
  private running = new Set<S3Version>();
  /** Copies by expiry: nearly all share a few midnights. */
  private copies = new Map<number, Set<S3Version>>();
  private sweep: NodeJS.Timeout;

  constructor(conditions: RestoreConditions) {
    this.conditions = conditions;
    this.sweep = setInterval(() => this.expireDue(), 500).unref();
  }

  /** Begins or speeds up a restore (202), or moves the expiry of a copy that exists (200). */
  begin(version: S3Version, order: RestoreOrder): 200 | 202 {
    this.check(version, order);
    this.settle(version);
    const { restore } = version;
    if (restore?.state === "running") {
      const faster = TIERS.indexOf(order.tier) > TIERS.indexOf(restore.tier);
      if (!faster || order.days !== restore.days) {
        throw new S3Error(409, "RestoreAlreadyInProgress", "Object restore is already in progress");
      }
      this.checkCapacity(order);
      restore.tier = order.tier;
      this.startTimer(version);
      return 202;
    }
    if (order.days !== undefined && restore?.state === "ready" && restore.expires_at > Date.now()) {
      this.setExpiry(version, copyExpiry(Date.now(), order.days));
      return 200;
    }
    this.checkCapacity(order);
    this.forget(version);
    version.restore = {
      state: "running",
      days: order.days,
      tier: order.tier,
      accepted_at: Date.now(),
      timer: undefined,
    };
    version.restores_accepted += 1;
    this.running.add(version);
    this.conditions.initiated(version);
    this.startTimer(version);
    return 202;
  }

  /** Makes a running restore ready now; false when none runs. */
  finish(version: S3Version): boolean {
    const { restore } = version;
    if (restore?.state !== "running") return false;
    this.forget(version);
    if (version.storage_class === "INTELLIGENT_TIERING") {
      // Back in the Frequent Access tier for good: no copy, no header, no expiry.
      version.archive_status = undefined;
      this.conditions.completed(version, undefined);
    } else {
      const expiresAt = copyExpiry(Date.now(), restore.days ?? 1);
      this.setExpiry(version, expiresAt);
      this.conditions.completed(version, expiresAt);
    }
    return true;
  }

  /** Takes a copy away now; false when there is none. */
  expire(version: S3Version): boolean {
    if (version.restore?.state !== "ready") return false;
    this.forget(version);
    this.conditions.expired(version);
    return true;
  }

  /** Sets the expiry of a copy from outside; false when there is none. */
  age(version: S3Version, expiresAt: number, lingers: boolean): boolean {
    if (version.restore?.state !== "ready") return false;
    this.setExpiry(version, expiresAt, lingers);
    this.settle(version);
    return true;
  }

  /** Loses a running restore; false when none runs. */
  lose(version: S3Version): boolean {
    if (version.restore?.state !== "running") return false;
    this.forget(version);
    return true;
  }

  /** Nobody may see a copy past its expiry, even before the sweep has come by. */
  settle(version: S3Version): void {
    const { restore } = version;
    if (restore?.state === "ready" && !restore.lingers && restore.expires_at <= Date.now()) {
      this.expire(version);
    }
  }

  /** Drops a restore or a copy without a word, as when the version is gone. */
  forget(version: S3Version): void {
    const { restore } = version;
    version.restore = undefined;
    if (restore?.state === "running") {
      clearTimeout(restore.timer);
      this.running.delete(version);
    } else if (restore?.state === "ready") {
      const due = this.copies.get(restore.expires_at);
      due?.delete(version);
      if (due?.size === 0) this.copies.delete(restore.expires_at);
    }
  }

  /** The x-amz-restore header, if there is one to show. */
  header(version: S3Version): string | undefined {
    this.settle(version);
    const { restore } = version;
    if (restore === undefined) return undefined;
    if (restore.state === "ready") {
      const date = new Date(restore.expires_at).toUTCString();
      return `ongoing-request="false", expiry-date="${date}"`;
    }
    return Date.now() < restore.accepted_at + this.conditions.header_lag_ms
      ? undefined
      : 'ongoing-request="true"';
  }

  close(): void {
    clearInterval(this.sweep);
    for (const version of this.running) {
      if (version.restore?.state === "running") clearTimeout(version.restore.timer);
    }
  }

  /** Everything S3 says no to before it looks at what already runs. */
  private check(version: S3Version, order: RestoreOrder): void {
    const { storage_class: storageClass, archive_status: archiveStatus } = version;
    if (storageClass === "INTELLIGENT_TIERING") {
      if (order.days !== undefined) {
        const message =
          "INTELLIGENT_TIERING objects are not subject to restore expiry. Do not specify Days when restoring this object";
        throw new S3Error(400, "InvalidArgument", message);
      }
      if (archiveStatus === undefined) {
        const message = "This action is not allowed against this storage tier";
        throw new S3Error(403, "ObjectAlreadyInActiveTierError", message);
      }
    } else if (!AT_ONCE.has(storageClass)) {
      if (order.days === undefined) throw malformedXml();
    } else {
      const message = "Restore is not allowed for the object's current storage class";
      throw new S3Error(403, "InvalidObjectState", message, { StorageClass: storageClass });
    }
    if (order.tier !== "Expedited") return;
    if (storageClass === "DEEP_ARCHIVE" || archiveStatus === "DEEP_ARCHIVE_ACCESS") {
      // The sentence is S3's; the code beside it is nowhere recorded, only that it is a 4xx.
      const message = "Retrieval option is not supported by this storage class";
      throw new S3Error(400, "InvalidArgument", message);
    }
  }

  /** Only a retrieval needs capacity; keeping a copy for longer does not. */
  private checkCapacity(order: RestoreOrder): void {
    if (order.tier !== "Expedited" || this.conditions.switches.expedited_available) return;
    const message = "Glacier expedited retrievals are currently not available, please try again later";
    throw new S3Error(503, "GlacierExpeditedRetrievalNotAvailable", message);
  }

  private startTimer(version: S3Version): void {
    const { restore } = version;
    if (restore?.state !== "running") return;
    clearTimeout(restore.timer);
    const ms =
      typeof this.conditions.duration === "number"
        ? this.conditions.duration
        : this.conditions.duration({
            bucket: version.bucket.name,
            key: version.key,
            version_id: version.version_id,
            storage_class: version.storage_class,
            size_bytes: version.size_bytes,
            tier: restore.tier,
          });
    // Counted from the first 202, so that a faster tier never makes it later.
    const left = Math.max(0, restore.accepted_at + ms - Date.now());
    // A timer even for 0 ms: the 202 goes out before anything is ready.
    restore.timer = left > MAX_TIMER_MS ? undefined : setTimeout(() => this.finish(version), left).unref();
  }

  private setExpiry(version: S3Version, expiresAt: number, lingers = false): void {
    this.forget(version);
    version.restore = { state: "ready", expires_at: expiresAt, lingers };
    const due = this.copies.get(expiresAt);
    if (due === undefined) this.copies.set(expiresAt, new Set([version]));
    else due.add(version);
  }

  private expireDue(): void {
    const now = Date.now();
    for (const [expiresAt, versions] of this.copies) {
      if (expiresAt > now) continue;
      for (const version of versions) this.settle(version);
    }
  }
}
