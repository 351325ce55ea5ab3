/** Files that people have read, put straight into the tables: aged rows instead of waiting. */
import type { Pool } from "pg";

import { waitFor } from "./database.ts";
import { BUCKET } from "./thaw.ts";

export interface GivenFiles {
  email: string | null;
  keys: string[];
  status: "pending" | "restored" | "failed";
  access_key_id?: string;
  /** When the copies expire, seen from now: '3 days', '-1 hour'. */
  expires?: string;
  /** How long ago they were read and took their status. */
  age?: string;
  failure_message?: string;
}

/** One request per key, on an open restore of that object: its own, or the one that is there. */
export async function givenFiles(pool: Pool, files: GivenFiles): Promise<void> {
  const {
    email,
    keys,
    status,
    access_key_id = `AKIA${email ?? "NOBODY"}`,
    expires = "3 days",
    age = "1 hour",
    failure_message = "The bucket does not exist.",
  } = files;
  // At once: a worker that runs may close what has expired as soon as it sees it.
  const client = await pool.connect();
  await client.query("begin");
  await client.query(
    `insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, storage_class, tier, size_bytes,
                           pinned_version_id, restore_expires_at, failure_code, failure_message)
     select gen_random_uuid(), $1, key, $3::restore_status, now() - $4::interval, now() - $4::interval, 'GLACIER', 'Standard', 1000, '',
            case when $3::text = 'restored' then now() + $5::interval end,
            case when $3::text = 'failed' then 'NoSuchBucket' end, case when $3::text = 'failed' then $6 end
       from unnest($2::text[]) key
         on conflict do nothing`,
    [BUCKET, keys, status, age, expires, failure_message],
  );
  await client.query(
    `insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved,
                                   restore_status, status_at, requested_at, last_read_at)
     select gen_random_uuid(), r.id, r.s3_bucket, r.s3_key, $3, $4, true, r.status, r.status_at, now() - $5::interval, now() - $5::interval
       from restores r where r.s3_bucket = $1 and r.s3_key = any ($2) and r.closed_at is null`,
    [BUCKET, keys, access_key_id, email, age],
  );
  await client.query("commit");
  client.release();
}

/** Runs the notify tasks until nothing more is to be done soon. */
export async function runNotify(pool: Pool): Promise<void> {
  await pool.query("select nudge('pre_notify'), nudge('post_notify')");
  await quiet(pool);
}

/** A hundred mails take 13 s by Resend's pace alone; below the time limit of a test. */
const QUIET_WITHIN_MS = 28_000;

/** Waits until no job is due within ten seconds: whatever had to happen by now has happened. */
export async function quiet(pool: Pool): Promise<void> {
  await waitFor(
    "the jobs to end",
    async () => {
      const { rowCount } = await pool.query(
        "select from graphile_worker.jobs where run_at < now() + interval '10 seconds' and attempts < max_attempts",
      );
      return rowCount === 0;
    },
    QUIET_WITHIN_MS,
  );
}
