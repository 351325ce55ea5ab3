/** Time-outs and retries: an invocation has one time budget for all its calls. */

/** Connecting takes one or two round trips, TLS included; beyond this nobody is there. */
export const CONNECT_TIMEOUT_MS = 3_000;
/** Thaw responds within 2 s even when its database is down. */
const TRY_TIMEOUT_MS = 5_000;
/** Enough for a restart of the server (a second or two); AWS's own retries cover longer outages. */
export const MAX_TRIES = 4;
/**
 * An event from a queue is tried again only while this lasts: the tries above, but no time-out and no Retry-After. The
 * queue waits for nothing, while our waiting is billed.
 */
export const RETRY_QUEUED_WITHIN_MS = 2_000;
/** Below the functions' time-out of 30 s, so that the error is ours and has a reason. */
const BUDGET_MS = 20_000;
/** Of the remaining time, reserved to log and to throw. */
const RESERVE_MS = 500;
/** The first wait between tries; each further one doubles. */
const BACKOFF_MS = 200;

/** What we use of Lambda's second argument. */
export interface InvocationContext {
  getRemainingTimeInMillis(): number;
}

/** The `Date.now()` time by which an invocation must have its responses. */
export function deadlineOf(context?: InvocationContext): number {
  const remaining_ms = context?.getRemainingTimeInMillis() ?? Infinity;
  return Date.now() + Math.max(0, Math.min(BUDGET_MS, remaining_ms - RESERVE_MS));
}

/** In ms, with jitter over the upper half: functions that failed together must not retry together. */
export const backoff = (tries: number): number => BACKOFF_MS * 2 ** (tries - 1) * (0.5 + Math.random() / 2);

export const timeoutWithin = (deadline: number): number =>
  Math.max(1, Math.min(TRY_TIMEOUT_MS, Math.floor(deadline - Date.now())));

/** fetch says only "fetch failed", and a host with several addresses nothing at all; then the reason is inside. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return "timed out";
  if (error instanceof AggregateError && error.message === "") return error.errors.map(reasonOf).join(", ");
  const reason = error.cause instanceof Error ? error.cause : error;
  const code = "code" in reason && typeof reason.code === "string" ? reason.code : "";
  return reason.message.includes(code) ? reason.message : `${code} ${reason.message}`;
}
