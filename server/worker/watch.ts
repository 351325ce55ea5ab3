import type { RunningWorker } from "./worker.ts";

/** Bad looks in a row, a minute in all: a failover takes less. */
const LOOKS = 12;
/** How soon a dead worker's rows are taken over; one small query each. */
const LOOK_EVERY_MS = 5_000;

/**
 * Looks after the worker: has it take over what dead ones held, and calls `fatal` once Postgres has stayed away,
 * or the worker has not come back to its jobs although Postgres has (it remembers some errors for ever): it would
 * look alive and do nothing. Looks are counted, not time, so that a process that was suspended itself does not
 * blame others.
 */
export function watchWorker(
  worker: Pick<RunningWorker, "getsJobs" | "look">,
  fatal: (reason: string) => void,
  look_every_ms = LOOK_EVERY_MS,
): { stop(): void } {
  let bad_looks = 0;
  const timer = setInterval(() => {
    if (bad_looks >= LOOKS)
      fatal(`the worker has not reached its jobs for ${(LOOKS * look_every_ms) / 1000} s`);
    bad_looks++;
    worker.look().then(
      () => worker.getsJobs() && (bad_looks = 0),
      () => {}, // The next looks decide.
    );
  }, look_every_ms);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
