/**
 * Runs `work` with a signal that aborts after `ms`, or when `stop` does. Unlike AbortSignal.timeout it leaves no timer behind
 * when the work is done: at thousands of calls a second these would pile up.
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

/**
 * For work that no signal can end: rejects with what `late` returns when it takes longer than `ms`. The work itself goes on,
 * and its outcome is dropped.
 */
export async function inTime<T>(ms: number, work: Promise<T>, late: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), ms);
  });
  try {
    return await Promise.race([work, tooLate]);
  } finally {
    clearTimeout(timer);
  }
}
