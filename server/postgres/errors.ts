/** What an error of `pg` means to us, by SQLSTATE; errors of the connection itself have none. */

/** No SQLSTATE begins with an E, while Node's EPIPE is as long as one. */
const sqlState = (error: unknown): string => {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && /^(?!E)[0-9A-Z]{5}$/.test(code) ? code : "";
};

/**
 * Two transactions met and the same one, tried again, will do: deadlock, serialisation failure, and a status
 * that moved between look and insert (`restore_requests_follow_restore`).
 */
export function isConflict(error: unknown): boolean {
  const state = sqlState(error);
  return (
    state === "40P01" ||
    state === "40001" ||
    (state === "23503" && (error as { constraint?: string }).constraint === "restore_requests_follow_restore")
  );
}

export const isLockTimeout = (error: unknown): boolean => sqlState(error) === "55P03";

/** Older than the build: what it calls does not exist there yet. */
export const isUndefinedFunction = (error: unknown): boolean => sqlState(error) === "42883";

/** The role lacks a right, or does not own what it would change. */
export const isForbidden = (error: unknown): boolean => sqlState(error) === "42501";

/** Postgres answers, and takes nothing: a failover, a full disk. */
export const isReadOnly = (error: unknown): boolean => sqlState(error) === "25006";

/** Somebody else kept a row locked for longer than `lock_timeout`: that row's trouble, and over when they let go. */
export const isLocked = (error: unknown): boolean => sqlState(error) === "55P03";

/** Our own time limit for a statement, kept by Postgres or else by pg: of one row's work that may be the row's fault. */
export const isTooSlow = (error: unknown): boolean =>
  sqlState(error) === "57014" || (error as Error | null)?.message === "Query read timeout";

/**
 * Postgres ends the session with it: shut down or terminated (57P), or idle for too long (25P). By state, for its severity
 * FATAL comes in the server's language.
 */
export const endsSession = (error: unknown): boolean => /^(57P0[1-5]|25P0[34])$/.test(sqlState(error));

/** A value that Postgres cannot take (class 22): whose body it stands in has to hear so. Class 23 and 54 may be another row's fault. */
export const isBadValue = (error: unknown): boolean => sqlState(error).startsWith("22");

/** Postgres is there and refuses this very data (class 22: data exception, 23: constraint, 54: too long). */
export function isBadRow(error: unknown): boolean {
  return /^(22|23|54)/.test(sqlState(error));
}

/**
 * Postgres is away, starting, stopping, full or read-only, or does not let us in (28, 3D: a password rotated, a
 * database not made yet); the same request may succeed later.
 */
export function isUnavailable(error: unknown): boolean {
  const state = sqlState(error);
  if (state !== "") return /^(08|25006|28|3D|53|57|58)/.test(state);
  // Errors of the system (ECONNREFUSED, EPIPE, ENOENT of a socket) and of TLS have a code, pg's own only a text.
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  return (
    (typeof code === "string" && /^(E(?!RR_)|ERR_(TLS|SSL|OSSL)|.*CERT|UNABLE_TO_VERIFY)/.test(code)) ||
    /timeout|terminated|Connection ended|not queryable|support SSL|client password must/i.test(
      String(message),
    )
  );
}

/** What the person who set DATABASE_URL can do about an error that isUnavailable. The texts are pg's and PgBouncer's. */
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
