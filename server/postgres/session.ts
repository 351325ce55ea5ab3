import type { ClientBase } from "pg";

import { isTooSlow } from "./errors.ts";

/**
 * No transaction of ours takes this long between two statements. A paused process must not keep its locks (roles.sql sets
 * the same).
 */
const IDLE_IN_TRANSACTION_MS = 60_000;

/**
 * The settings that our code relies on, whatever server, database and role set. Not among them: what an administrator may
 * set for good reasons (default_transaction_read_only while a disk is full, memory, costs).
 */
const SETTINGS = {
  // First: from then on the statement that sets all this cannot be cut off by it either.
  transaction_timeout: "0",

  // The formats that `pg` and our functions use. With DateStyle German pg reads each time as null, and no mail is sealed.
  client_encoding: "UTF8",
  DateStyle: "ISO, MDY",
  IntervalStyle: "postgres",
  TimeZone: "UTC",
  standard_conforming_strings: "on",

  // pg_temp last: no temporary table can shadow ours.
  search_path: "public, pg_temp",
  // With off, queries of graphile-worker's tables fail for a role that is not their owner.
  row_security: "on",

  // "Lock first, then read" must see what was committed while it waited for the lock.
  default_transaction_isolation: "read committed",

  // No statement of ours gains from either. The estimated cost of a disabled plan step makes JIT compile at each call, and a
  // query of five rows starts parallel workers when the estimate is too high.
  jit: "off",
  max_parallel_workers_per_gather: "0",

  // Only our own limits, each where it belongs: a migration or a connection that listens for jobs may take long.
  lock_timeout: "0",
  idle_session_timeout: "0",
  idle_in_transaction_session_timeout: String(IDLE_IN_TRANSACTION_MS),

  // A 2xx promises that the rows are on disk. Values other than "off" are a choice about replicas, and stay.
  synchronous_commit: "on",
};

/** As long as a log-in may take: a pooler accepts the log-in before it has a free backend. */
const TIMEOUT_MS = 1_500;

export interface SessionOptions {
  /** Shows in pg_stat_activity. */
  application_name: string;
  /** 0: never. */
  statement_timeout_ms: number;
}

/**
 * Applies SETTINGS to a new connection. By a statement, not by start-up parameters: PgBouncer refuses those, and `options` in
 * DATABASE_URL would replace ours. Settings that this Postgres lacks (14 to 16: transaction_timeout) are skipped.
 */
export async function setUpSession(client: ClientBase, options: SessionOptions): Promise<void> {
  const settings = {
    ...SETTINGS,
    application_name: options.application_name,
    statement_timeout: String(options.statement_timeout_ms),
  };
  const query = {
    text: `select set_config(name, value, false) from unnest($1::text[], $2::text[]) as wanted (name, value)
            where current_setting(name, true) is not null
              and (name <> 'synchronous_commit' or current_setting('synchronous_commit') = 'off')`,
    values: [Object.keys(settings), Object.values(settings)],
    query_timeout: TIMEOUT_MS,
  };
  await client.query(query).catch((error: unknown) => {
    throw isTooSlow(error)
      ? new Error("timeout after logging in (a pooler without a free connection?)", { cause: error })
      : error;
  });
}
