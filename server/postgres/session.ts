import type { ClientBase } from "pg";

import { isTooSlow } from "./errors.ts";

/**
 * Between two statements of a transaction we do nothing that takes longer: whoever is paused there must not keep its locks
 * (roles.sql says the same).
 */
const IDLE_IN_TRANSACTION_MS = 60_000;

/**
 * What our connections rely on, whatever the server, the database or the role says otherwise. Not among them: what an
 * administrator may have good reasons for (default_transaction_read_only while a disk is full, memory, costs).
 */
const SETTINGS = {
  // What `pg` and our functions read and write. With DateStyle German each time comes as null, and no mail is ever sealed.
  client_encoding: "UTF8",
  DateStyle: "ISO, MDY",
  IntervalStyle: "postgres",
  TimeZone: "UTC",
  standard_conforming_strings: "on",

  // pg_temp last: nobody slips a table of their own under a name of ours.
  search_path: "public, pg_temp",
  // Off, graphile-worker's rows are refused to a worker that does not own them.
  row_security: "on",

  // "Lock first, then look" needs what was committed while we waited for the lock.
  default_transaction_isolation: "read committed",

  // No statement of ours gains from either. What a plan with a disabled step costs on paper has JIT compile it at each call,
  // and a query of five rows starts parallel workers when their number is guessed too high.
  jit: "off",
  max_parallel_workers_per_gather: "0",

  // Our limits alone, where each belongs: a migration and a connection that listens for jobs may take their time.
  lock_timeout: "0",
  idle_session_timeout: "0",
  transaction_timeout: "0",
  idle_in_transaction_session_timeout: String(IDLE_IN_TRANSACTION_MS),

  // An answer of 2xx means that it is on disk. Other values than "off" are a choice about replicas, and stay.
  synchronous_commit: "on",
};

/** As long as a log-in may take, which a pooler grants before it has a connection of Postgres' to spare. */
const TIMEOUT_MS = 1_500;

export interface SessionOptions {
  /** Shows in pg_stat_activity, where the doctor looks for it. */
  application_name: string;
  /** 0: never. */
  statement_timeout_ms: number;
}

/**
 * Makes a new connection independent of what it finds. A statement, not start-up parameters: PgBouncer refuses those, and
 * an `options` in DATABASE_URL would replace ours. What this Postgres does not know (14 to 16: transaction_timeout) is passed over.
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
