/** For work that somebody waits for: a list of a thousand pages does not end because S3 throttles one of them. */
import { setTimeout } from "node:timers/promises";

import { answerOf } from "./answer.ts";

/** With the waits below: about two minutes, beside the SDK's own attempts. */
const TRIES = 8;

/** 1 s, then twice as long each time, half a minute at most; half of it by chance, so that callers do not come back together. */
const waitMs = (tries: number): number =>
  Math.min(30_000, 1000 * 2 ** (tries - 1)) * (0.5 + Math.random() / 2);

/** Repeats a call that S3 throttles, or does not answer. @throws what the last one threw, at once what no repeat can help. */
export async function untilItAnswers<T>(stop: AbortSignal, call: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await call();
    } catch (error) {
      if (stop.aborted || tries === TRIES || !mayPass(error)) throw error;
      await setTimeout(waitMs(tries), undefined, { signal: stop });
    }
  }
}

const PASSES = new Set([
  "SlowDown",
  "ThrottlingException",
  "Throttling",
  "RequestTimeout",
  "RequestLimitExceeded",
]);
const BROKEN = new Set(["ECONNREFUSED", "ECONNRESET", "EPIPE", "ETIMEDOUT", "EAI_AGAIN"]);

function mayPass(error: unknown): boolean {
  const answer = answerOf(error);
  if (answer !== undefined) {
    const { status, code } = answer;
    return status === 429 || (status >= 500 && status !== 501) || (code !== undefined && PASSES.has(code));
  }
  const { name, code } = (error ?? {}) as { name?: unknown; code?: unknown };
  // Ours, when one call took too long; whoever stops all of it has asked before.
  return name === "TimeoutError" || name === "AbortError" || (typeof code === "string" && BROKEN.has(code));
}
