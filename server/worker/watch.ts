/** Failed checks in a row: at the default interval one minute, which is longer than a failover takes. */
const FAILED_CHECKS = 12;

/**
 * Checks the worker regularly and calls `fatal` when it does not get better: Postgres stays away, or the worker gets no jobs
 * although Postgres is back (graphile-worker never forgets some errors). Such a process would look alive and do nothing.
 * Counts checks, not time: a process that was suspended itself must not blame others.
 */
export function watch(options: {
  /** Returns what is wrong, or null. Throws when Postgres does not answer. */
  check: () => Promise<string | null>;
  fatal: (reason: string) => void;
  check_every_ms: number;
}): { stop(): void } {
  const { check, fatal, check_every_ms } = options;
  let failed = 0;
  const timer = setInterval(() => {
    if (failed >= FAILED_CHECKS)
      fatal(`the worker has not reached its jobs for ${(FAILED_CHECKS * check_every_ms) / 1000} s`);
    // A check that does not return counts as failed.
    failed++;
    check().then(
      (problem) => void (problem === null && (failed = 0)),
      () => {}, // Counted already.
    );
  }, check_every_ms);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
