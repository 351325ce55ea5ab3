import type { Tier } from "./s3_restore_request.ts";

/** One request as the stand-in saw it. */
export interface S3Request {
  /** Milliseconds since 1970. */
  at: number;
  method: string;
  operation: string;
  bucket: string | undefined;
  key: string | undefined;
  version_id?: string;
  access_key_id?: string;
  /** 0 while, or because, nobody was answered (hang, reset, drop_after_accept). */
  status: number;
  /** S3's code, also for HEAD, where the caller never gets to see it. */
  code?: string;
  /** Set for a RestoreObject whose body could be read. */
  tier?: Tier;
  days?: number;
  /** True when a restore was begun or sped up (202), even if the answer was then lost. */
  accepted?: boolean;
  /** The scripted fault that struck it. */
  fault?: string;
}

/** What came in: the newest requests in full, and how many of each kind there ever were. */
export class RequestLog {
  requests: S3Request[] = [];
  counts = new Map<string, number>();
  private limit: number;

  constructor(limit: number) {
    this.limit = limit;
  }

  /** Takes a request down as it arrives; what becomes of it is filled in later. */
  remember(seen: S3Request): void {
    // Half at a time: dropping one by one would move the whole list for every request.
    if (this.requests.length >= this.limit) this.requests.splice(0, Math.ceil(this.limit / 2));
    this.requests.push(seen);
  }

  /** Counts a request once it is known how it ends. */
  count(seen: S3Request): void {
    const name = `${seen.operation} ${seen.status}`;
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }

  clear(): void {
    this.requests.length = 0;
    this.counts.clear();
  }
}
