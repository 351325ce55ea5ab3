import { Pool, type Client, type PoolClient } from "pg";

import type { Log } from "../log.ts";
import { endsSession, isReadTimeout } from "./errors.ts";
import { Outage } from "./outage.ts";
import { setUpSession } from "./session.ts";

export interface PoolOptions {
  /** Shows in pg_stat_activity. */
  name: string;
  max: number;
  /** A query without an answer fails after this; 0: never. */
  query_timeout_ms: number;
}

/** Longer than any statement of a worker takes, and half of its lease. */
export const WORKER_QUERY_TIMEOUT_MS = 30_000;

/** A batch that takes longer hangs. Callers get their 503 within two seconds. */
export const SERVER_QUERY_TIMEOUT_MS = 1_800;

/**
 * Every connection of Thaw comes from here, graphile-worker's too. A lost connection fails its query and is logged by
 * `outage` (one for all pools of a process); it does not end the process.
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
    // Below the two seconds within which a caller gets its 503.
    connectionTimeoutMillis: 1500,
    ...(options.query_timeout_ms > 0 && { query_timeout: options.query_timeout_ms }),
    // pg awaits it before it hands out the connection, although the type says void.
    // oxlint-disable-next-line typescript/no-misused-promises
    onConnect: (client) =>
      setUpSession(client, {
        application_name: options.name,
        statement_timeout_ms: options.query_timeout_ms,
      }),
  });
  // Without these handlers a lost connection ends the process. The next query reports it.
  pool.on("error", () => {});
  pool.on("connect", (client) => {
    client.on("error", () => {});
    evictBroken(client);
  });
  outage.watch(pool);
  return pool;
}

/**
 * Closes a connection that cannot be used again, so that the pool replaces it. pg itself gives up only the query, and puts
 * the connection back. Broken means: no answer in time (half-open after a failover, the next query would queue behind the
 * lost one), or Postgres ends the session (restart, operator). On such a connection graphile-worker could not record the
 * end of a job, and would end the process.
 */
function evictBroken(client: PoolClient): void {
  const query = client.query.bind(client) as (...args: unknown[]) => unknown;
  client.query = ((...args: unknown[]) => {
    const answer = query(...args);
    if (answer instanceof Promise) {
      answer.catch((error: Error) => {
        if (isReadTimeout(error) || endsSession(error))
          void (client as unknown as Client).end().catch(() => {});
      });
    }
    return answer;
  }) as typeof client.query;
}
