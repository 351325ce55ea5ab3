/** Whoever calls Thaw: like the Lambdas, again and again until it is taken. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import type { S3Event } from "../stand_ins/s3.ts";
import { SECRET } from "../support/thaw.ts";

export interface Read {
  s3_bucket: string;
  s3_key: string;
  version_id?: string;
  access_key_id: string;
  event_id: string;
  event_time: string;
}

/** A call that was answered with 2xx: from then on it is Thaw's. */
export interface Accepted {
  read: Read;
  id: string;
  duplicate: boolean;
}

export interface Callers {
  read(read: Read): Promise<void>;
  completed(event: S3Event): Promise<void>;
  accepted: Accepted[];
  /** What no caller should ever hear. */
  surprises: string[];
  tries: number;
}

/** A server that does not answer in this time will not. */
const CALL_TIMEOUT_MS = 6_000;

export function createCallers(urls: string[], random: () => number): Callers {
  const callers: Callers = {
    accepted: [],
    surprises: [],
    tries: 0,
    async read(read) {
      const body = await post("/restore/request", read);
      callers.accepted.push({ read, ...(body as { id: string; duplicate: boolean }) });
    },
    async completed(event) {
      const detail = event.detail as {
        bucket: { name: string };
        object: { key: string; "version-id"?: string };
        "restore-expiry-time"?: string;
      };
      await post("/restore/completed", {
        s3_bucket: detail.bucket.name,
        s3_key: detail.object.key,
        version_id: detail.object["version-id"],
        restore_expires_at: detail["restore-expiry-time"],
        event_time: event.time,
        event_id: randomUUID(),
      });
    },
  };

  async function post(path: string, body: unknown): Promise<unknown> {
    for (;;) {
      callers.tries++;
      const url = urls[Math.floor(random() * urls.length)] ?? "";
      const response = await fetch(url + path, {
        method: "POST",
        headers: { "content-type": "application/json", "x-restore-secret": SECRET },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
      }).catch(() => undefined);
      const text = await response?.text().catch(() => undefined);
      if (response !== undefined && text !== undefined) {
        if (response.ok) return JSON.parse(text);
        // 408: on a machine this busy our body came too late. Either way nothing was taken.
        if (response.status !== 503 && response.status !== 408)
          callers.surprises.push(`${path} was answered with ${response.status}: ${text}`);
      }
      await sleep(100 + random() * 400);
    }
  }

  return callers;
}
