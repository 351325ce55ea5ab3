/** How long and how often: an invocation has one budget for all its calls. */

/** Thaw answers within 2 s even when its database is away, so a longer silence is no answer. */
const TRY_TIMEOUT_MS = 5_000;
/** A restart of the server lasts a second or two; what lasts longer is left to AWS's own retries. */
export const MAX_TRIES = 4;
/** Below the 30 s that a function is given, so that the failure is ours and carries its reason. */
const BUDGET_MS = 20_000;
/** Kept back from the time Lambda leaves us, to log and to throw. */
const RESERVE_MS = 500;
/** The first wait between tries; each further one doubles. */
const BACKOFF_MS = 200;

/** The one thing we need of Lambda's second argument. */
export interface InvocationContext {
  getRemainingTimeInMillis(): number;
}

/** When (in `Date.now()` time) an invocation must have its answers. */
export function deadlineOf(context?: InvocationContext): number {
  const remaining_ms = context?.getRemainingTimeInMillis() ?? Infinity;
  return Date.now() + Math.max(0, Math.min(BUDGET_MS, remaining_ms - RESERVE_MS));
}

/** Full jitter over the upper half: many functions that failed together must not return together. */
export const backoff = (tries: number): number => BACKOFF_MS * 2 ** (tries - 1) * (0.5 + Math.random() / 2);

export const timeoutWithin = (deadline: number): number =>
  Math.max(1, Math.min(TRY_TIMEOUT_MS, Math.floor(deadline - Date.now())));

/** fetch says only "fetch failed"; the cause knows why. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return "timed out";
  const { cause } = error;
  if (!(cause instanceof Error)) return error.message;
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : cause.name;
  return cause.message.includes(code) ? cause.message : `${code} ${cause.message}`.trim();
}
