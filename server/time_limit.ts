/**
 * Does `work` with a signal that aborts after `ms`, or with `stop`. Unlike AbortSignal.timeout, nothing of it is left when
 * the work is done: thousands a second would pile up until their time.
 */
export async function withTimeLimit<T>(
  ms: number,
  stop: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const follow = (): void => controller.abort(stop.reason);
  const timer = setTimeout(() => controller.abort(new DOMException("It took too long.", "TimeoutError")), ms);
  stop.addEventListener("abort", follow);
  if (stop.aborted) follow();
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(timer);
    stop.removeEventListener("abort", follow);
  }
}
