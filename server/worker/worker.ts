import { EventEmitter } from "node:events";

import { Logger, run, type LogLevel, type WorkerEvents } from "graphile-worker";
import type pg from "pg";

import { notifyWaits, type Config, type WorkerConfig } from "../config.ts";
import { createDatabase } from "../postgres/rows.ts";
import { countsOf } from "./job_counts.ts";
import { type Log, reasonOf } from "../log.ts";
import { createMailer } from "../mail/resend.ts";
import { isUnavailable } from "../postgres/errors.ts";
import { createS3 } from "../s3/s3.ts";
import { provideWorkerContext } from "./task.ts";
import { enterWorker } from "./presence.ts";

const TASKS = ["resolve_users", "trigger_restores", "pre_notify", "post_notify", "poll_pending_restores"];

/** Tasks get this long to end by themselves; then their calls are aborted. */
const GRACE_MS = 4_000;

export interface RunningWorker {
  /** False while every try to get a job fails. */
  getsJobs(): boolean;
  /** Takes over what dead workers held. Throws when Postgres does not answer. */
  look(): Promise<void>;
  /** Lets running jobs end and leaves none locked. */
  stop(): Promise<void>;
}

/**
 * Starts graphile-worker on tasks/ and crontab. The pool stays the caller's, and open until stop() has
 * returned. `fatal` is called when the worker cannot go on: end the process, so that a supervisor restarts it.
 */
export async function startWorker(options: {
  pool: pg.Pool;
  config: Config & { worker: WorkerConfig };
  log: Log;
  fatal: (reason: string) => void;
}): Promise<RunningWorker> {
  const { pool, config, log, fatal } = options;
  const s3 = createS3(config.worker);
  const context = {
    db: createDatabase(pool),
    s3,
    mailer: createMailer(config.worker),
    settings: { ...config.worker, ...config },
    notify_waits: notifyWaits(config),
    log,
  };

  const events = new EventEmitter() as WorkerEvents;
  let worker_id = "";
  events.on("pool:create", ({ workerPool }) => {
    worker_id = workerPool.id;
    provideWorkerContext({ ...context, worker_id });
  });
  events.on("pool:fatalError", ({ action, error }) =>
    fatal(`graphile-worker: ${action}: ${reasonOf(error)}`),
  );
  logJobs(events, log);

  // What was due while no worker ran. First, so that nothing can fail once the worker runs.
  await pool.query("select nudge(task) from unnest($1::text[]) task", [TASKS]);

  let getsJobs = true;
  for (const event of ["worker:getJob:empty", "job:start"] as const)
    events.on(event, () => (getsJobs = true));
  events.on("worker:getJob:error", ({ error }) => {
    if (getsJobs) log.warn(causeOf(error), "cannot get jobs");
    getsJobs = false;
  });

  const runner = await run({
    pgPool: pool,
    noHandleSignals: true,
    taskDirectory: `${import.meta.dirname}/../../tasks`,
    crontabFile: `${import.meta.dirname}/../../crontab`,
    concurrency: config.worker.WORKER_CONCURRENCY,
    events,
    logger: workerLogger(log),
    preset: { worker: { gracefulShutdownAbortTimeout: GRACE_MS } },
  });
  const presence = await enterWorker(pool, worker_id).catch(async (error: unknown) => {
    await runner.stop();
    throw error;
  });
  let stopping = false;
  // It may also resolve when it dies (graphile/worker#635): any end that nobody asked for is fatal.
  runner.promise.then(
    () => stopping || fatal("graphile-worker ended by itself"),
    (error: unknown) => stopping || fatal(`graphile-worker: ${reasonOf(error)}`),
  );

  return {
    getsJobs: () => getsJobs,
    look: () => presence.look(),
    async stop() {
      stopping = true;
      await runner.stop();
      // It does not wait for the last "completed" to be written; a job left locked stays so for four hours.
      await noJobLockedBy(pool, worker_id);
      await presence.leave();
      s3.destroy();
    },
  };
}

/** One line per job, when it has ended, with what it did. */
function logJobs(events: WorkerEvents, log: Log): void {
  events.on("job:complete", ({ job, error }) => {
    const line = {
      task: job.task_identifier,
      job_id: job.id,
      attempt: job.attempts,
      ms: Date.now() - (job.locked_at?.getTime() ?? Date.now()),
      ...countsOf(job),
    };
    if (error) log.error({ ...line, ...causeOf(error) }, "job failed");
    else log.info(line, "job");
  });
}

/** With Postgres away no stack says more than the reason; all else may be a bug. */
const causeOf = (error: unknown) => (isUnavailable(error) ? { reason: reasonOf(error) } : { err: error });

async function noJobLockedBy(pool: pg.Pool, worker_id: string): Promise<void> {
  for (let look = 0; look < 100; look++) {
    const locked = await pool
      .query("select from graphile_worker.jobs where locked_by = $1 limit 1", [worker_id])
      .catch(() => undefined); // Postgres is gone: nothing to wait for.
    if (locked === undefined || locked.rowCount === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** graphile-worker's own lines, in our format; one per job at debug, for the tasks log what they did. */
function workerLogger(log: Log): Logger {
  const levels: Record<LogLevel, "error" | "warn" | "debug"> = {
    error: "error",
    warning: "warn",
    info: "debug",
    debug: "debug",
  };
  return new Logger((scope) => (level, message, meta) => {
    // Has a line of ours.
    if (meta?.["failure"] === true) return;
    // A line, not the stack that follows in some.
    const [line] = message.split("\n", 1);
    // With Postgres away it tells of each try to listen; the outage has two lines of ours.
    log[isUnavailable(meta?.["error"]) ? "debug" : levels[level]](
      { ...(scope.taskIdentifier && { task: scope.taskIdentifier, job_id: scope.jobId }) },
      line,
    );
  });
}
