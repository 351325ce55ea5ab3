/** What an error of `pg` means, by SQLSTATE. Connection errors have none. */

/** No SQLSTATE begins with an E; Node's EPIPE has the same length. */
const sqlState = (error: unknown): string => {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && /^(?!E)[0-9A-Z]{5}$/.test(code) ? code : "";
};

/** Between read and insert a status may change, and a limit may be removed. */
const MAY_VANISH = new Set(["restore_requests_follow_restore", "spending_limit_id_fkey"]);

/** Concurrent transactions collided, and a retry will succeed: deadlock, serialisation failure, or what was read is gone. */
export function isConflict(error: unknown): boolean {
  const state = sqlState(error);
  return (
    state === "40P01" ||
    state === "40001" ||
    (state === "23503" && MAY_VANISH.has((error as { constraint?: string }).constraint ?? ""))
  );
}

/** The database is older than this build and lacks a function. */
export const isUndefinedFunction = (error: unknown): boolean => sqlState(error) === "42883";

/** The role lacks a right, or is not the owner. */
export const isForbidden = (error: unknown): boolean => sqlState(error) === "42501";

/** Postgres is up but read-only: a failover, a full disk. */
export const isReadOnly = (error: unknown): boolean => sqlState(error) === "25006";

/** Another session held a lock for longer than `lock_timeout`. This concerns the locked row only, and passes. */
export const isLocked = (error: unknown): boolean => sqlState(error) === "55P03";

/** pg gave up waiting (query_timeout); Postgres may still work on the query. pg gives this error no code. */
export const isReadTimeout = (error: unknown): boolean =>
  (error as Error | null)?.message === "Query read timeout";

/** All connections of the pool are in use, and none became free in time. It says nothing about Postgres. */
export const isPoolBusy = (error: unknown): boolean =>
  (error as Error | null)?.message === "timeout exceeded when trying to connect";

/** Our time limit for a statement, enforced by Postgres or else by pg. In work on one row, the row may be the cause. */
export const isTooSlow = (error: unknown): boolean => sqlState(error) === "57014" || isReadTimeout(error);

/**
 * Postgres ends the session: shutdown or termination (57P), idle time-out (25P). By SQLSTATE, because the severity (FATAL)
 * is in the server's language.
 */
export const endsSession = (error: unknown): boolean => /^(57P0[1-5]|25P0[34])$/.test(sqlState(error));

/** Postgres cannot store a value (class 22): its sender gets a 4xx. Classes 23 and 54 may be caused by another row. */
export const isBadValue = (error: unknown): boolean => sqlState(error).startsWith("22");

/** Postgres is up and refuses this data (class 22: data exception, 23: constraint, 54: too long). */
export function isBadRow(error: unknown): boolean {
  return /^(22|23|54)/.test(sqlState(error));
}

/**
 * Postgres is down, starting, stopping, full or read-only, or refuses the log-in (28, 3D: a password rotated, a database
 * not created yet). The same request may succeed later.
 */
export function isUnavailable(error: unknown): boolean {
  const state = sqlState(error);
  if (state !== "") return /^(08|25006|28|3D|53|57|58)/.test(state);
  // System errors (ECONNREFUSED, EPIPE, ENOENT of a socket) and TLS errors have a code, pg's own only a text.
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  return (
    (typeof code === "string" && /^(E(?!RR_)|ERR_(TLS|SSL|OSSL)|.*CERT|UNABLE_TO_VERIFY)/.test(code)) ||
    /timeout|terminated|Connection ended|not queryable|support SSL|client password must/i.test(
      String(message),
    )
  );
}

/** What the person who set DATABASE_URL can do about an error that isUnavailable, by the texts of pg and PgBouncer. */
export function whatToDo(error: unknown): string {
  const message = String((error as Error | null)?.message);
  if (/client password must/.test(message))
    return "Postgres asks for a password: put it into DATABASE_URL (postgres://user:password@host/database), PGPASSWORD or ~/.pgpass";
  if (/unsupported startup parameter/.test(message))
    return "A pooler refuses it: take it out of DATABASE_URL and PGOPTIONS, for Thaw sets what it needs by itself, or name it in the pooler's ignore_startup_parameters";
  if (/a pooler without a free connection/.test(message))
    return 'Give the pooler more (sql/README.md, "Poolers": default_pool_size), or connect to Postgres itself';
  return "Check DATABASE_URL, and that Postgres runs and lets this machine in";
}
