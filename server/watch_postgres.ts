import type pg from "pg";

import type { RunningWorker } from "./worker.ts";

/** Bad looks in a row, a minute in all: a failover takes less. */
const LOOKS = 6;

/**
 * Calls `fatal` once Postgres has stayed away, or the worker has not come back to its jobs although Postgres
 * has (it remembers some errors for ever): it would look alive and do nothing. Looks are counted, not time,
 * so that a process that was suspended itself does not blame others.
 */
export function watchPostgres(
  pool: pg.Pool,
  worker: Pick<RunningWorker, "getsJobs">,
  fatal: (reason: string) => void,
  look_every_ms = 10_000,
): { stop(): void } {
  let bad_looks = 0;
  const timer = setInterval(() => {
    if (bad_looks >= LOOKS)
      fatal(`the worker has not reached its jobs for ${(LOOKS * look_every_ms) / 1000} s`);
    bad_looks++;
    pool.query("select").then(
      () => worker.getsJobs() && (bad_looks = 0),
      () => {}, // The next looks decide.
    );
  }, look_every_ms);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
