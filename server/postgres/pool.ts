import { Kysely, PostgresDialect, sql, type Generated } from "kysely";
import { Pool, type Client, type PoolClient } from "pg";

import type { Log } from "../log.ts";
import { endsSession } from "./errors.ts";
import { Outage } from "./outage.ts";
import { setUpSession } from "./session.ts";

export type RestoreStatus = "not_started" | "pending" | "restored" | "failed";
export type NotificationKind = "pre" | "post";

/** What tasks need of a claimed row of `restores`; `''` is "none named". */
export interface RestoreRow {
  id: string;
  /** Names the claim that may report on the row. */
  claim_id: string;
  status: RestoreStatus;
  s3_bucket: string;
  s3_key: string;
  version_id: string;
  region: string | null;
  etag: string | null;
  pinned_version_id: string | null;
}

/** Its columns, of what the claim functions return: reading all would cost as much as writing the outcome. */
export const RESTORE_ROW = sql`id, claim_id, status, s3_bucket, s3_key, version_id, region, etag, pinned_version_id`;

interface RestoreRequestRow {
  id: string;
  restore_id: string;
  access_key_id: string;
  principal: string;
  email: string | null;
  restore_status: RestoreStatus;
  requested_at: Date;
  pre_notification_id: string | null;
  post_notification_id: string | null;
}

interface NotificationRow {
  id: string;
  kind: NotificationKind;
  email: string;
  status: Generated<"sealed" | "sent" | "failed" | "unknown">;
  body: string | null;
}

/** The columns that TypeScript reads or writes by name; sql/ has the whole truth. */
export interface Tables {
  restores: RestoreRow;
  restore_requests: RestoreRequestRow;
  notifications: NotificationRow;
}

export type Database = Kysely<Tables>;

export interface PoolOptions {
  /** Shows in pg_stat_activity. */
  name: string;
  max: number;
  /** Ends a query that Postgres does not answer, in milliseconds; 0: never. */
  query_timeout_ms: number;
}

/** Longer than any statement of a worker takes, and half of what its leases last. */
export const WORKER_QUERY_TIMEOUT_MS = 30_000;

/** Longer than this means a batch that hangs; callers must have their 503 within two seconds. */
export const SERVER_QUERY_TIMEOUT_MS = 1_800;

/**
 * A pool that says what happens to its connections instead of crashing the process. The one place where Thaw connects:
 * graphile-worker works on it too. `outage`: of all pools of a process.
 */
export function createPool(
  connectionString: string,
  options: PoolOptions,
  log: Log,
  outage = new Outage(log, options.name),
): Pool {
  const pool = new Pool({
    connectionString,
    application_name: options.name,
    max: options.max,
    keepAlive: true,
    // A caller of ours gets its 503 within two seconds, so a dead Postgres must show sooner.
    connectionTimeoutMillis: 1500,
    ...(options.query_timeout_ms > 0 && { query_timeout: options.query_timeout_ms }),
    // Awaited, though its type says void: nobody gets the connection before.
    // oxlint-disable-next-line typescript/no-misused-promises
    onConnect: (client) =>
      setUpSession(client, {
        application_name: options.name,
        statement_timeout_ms: options.query_timeout_ms,
      }),
  });
  // Without handlers a lost connection ends the process; with them the next query reports it.
  pool.on("error", () => {});
  pool.on("connect", (client) => {
    client.on("error", () => {});
    endWhenLost(client);
  });
  outage.watch(pool);
  return pool;
}

/**
 * pg gives up a query, but not its connection, and back in the pool that would fail for whoever is next. It has to go when
 * it does not answer (half-open, after a failover: each next query would wait behind the one that never ends), and when
 * Postgres says that it ends it (a restart, an operator): graphile-worker that notes a job on it would end the process.
 */
function endWhenLost(client: PoolClient): void {
  const query = client.query.bind(client) as (...args: unknown[]) => unknown;
  client.query = ((...args: unknown[]) => {
    const answer = query(...args);
    if (answer instanceof Promise) {
      answer.catch((error: Error) => {
        if (error.message === "Query read timeout" || endsSession(error))
          void (client as unknown as Client).end().catch(() => {});
      });
    }
    return answer;
  }) as typeof client.query;
}

export function createDatabase(pool: Pool): Database {
  return new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
}
