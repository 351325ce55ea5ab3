import type pg from "pg";

const LOOK_EVERY_MS = 10_000;

/** A failover takes less; after this the process is worth more restarted than waiting. */
const AWAY_MS = 60_000;

/** Calls `fatal` once Postgres has stayed away for a minute: a worker without it looks alive and does nothing. */
export function watchPostgres(pool: pg.Pool, fatal: (reason: string) => void): { stop(): void } {
  let last_answer = performance.now();
  const timer = setInterval(() => {
    if (performance.now() - last_answer > AWAY_MS) fatal(`Postgres has not answered for ${AWAY_MS / 1000} s`);
    pool.query("select").then(
      () => (last_answer = performance.now()),
      () => {}, // The next looks decide.
    );
  }, LOOK_EVERY_MS);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
