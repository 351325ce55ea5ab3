import { EventEmitter } from "node:events";
import { readdirSync } from "node:fs";
import { parse } from "node:path";

import { Logger, run, type LogLevel, type WorkerEvents } from "graphile-worker";
import type pg from "pg";

import { debounceOf, type Config, type WorkerConfig } from "../config.ts";
import { createIdentityStore } from "../identity_store.ts";
import { createDatabase } from "../postgres/rows.ts";
import { type Log, reasonOf } from "../log.ts";
import { createMailer } from "../mail/resend.ts";
import { isUnavailable } from "../postgres/errors.ts";
import { createS3 } from "../s3/s3.ts";
import { closeTasks, countsOf, openTasks } from "./task.ts";
import { enterWorker } from "./presence.ts";
import { watch } from "./watch.ts";

const TASK_DIRECTORY = `${import.meta.dirname}/../../tasks`;

/** graphile-worker names a task after its file. What an editor leaves beside them is none. */
const TASKS = readdirSync(TASK_DIRECTORY)
  .filter((file) => file.endsWith(".ts"))
  .map((file) => parse(file).name);

export interface RunningWorker {
  /** Why this worker cannot do its work now, or null. */
  problem(): string | null;
  /** Lets running jobs end, and leaves no job locked. */
  stop(): Promise<void>;
}

export interface WorkerTiming {
  /** Between two checks of this worker, which also take over what dead workers held; a check is one small query. */
  check_every_ms: number;
  /** Running jobs get this long to end by themselves; then their calls are aborted. Supervisors kill after 10 s. */
  grace_ms: number;
  /** Jobs that become due later are found this late; of those added to start at once, Postgres notifies us. */
  poll_every_ms: number;
}

const TIMING: WorkerTiming = { check_every_ms: 5_000, grace_ms: 4_000, poll_every_ms: 2_000 };

/**
 * Starts graphile-worker on tasks/ and crontab. The caller owns the pool and keeps it open until stop() has returned.
 * `fatal` is called when the worker cannot go on: end the process, so that a supervisor restarts it.
 */
export async function startWorker(options: {
  pool: pg.Pool;
  config: Config & { worker: WorkerConfig };
  log: Log;
  fatal: (reason: string) => void;
  timing?: Partial<WorkerTiming>;
}): Promise<RunningWorker> {
  const { pool, config, log, fatal } = options;
  const { check_every_ms, grace_ms, poll_every_ms } = { ...TIMING, ...options.timing };
  const s3 = createS3(config.worker);
  const identity_store = createIdentityStore(config.worker);
  const context = {
    db: createDatabase(pool),
    s3,
    identity_store,
    mailer: createMailer(config.worker),
    settings: { ...config.worker, ...config },
    debounce: debounceOf(config),
    log,
  };

  const events = new EventEmitter() as WorkerEvents;
  let worker_id = "";
  events.on("pool:create", ({ workerPool }) => {
    worker_id = workerPool.id;
    openTasks({ ...context, worker_id });
  });
  events.on("pool:fatalError", ({ action, error }) =>
    fatal(`graphile-worker: ${action}: ${reasonOf(error)}`),
  );
  logJobs(events, log);

  // For what became due while no worker ran. Before run(): an error here leaves nothing running.
  await pool.query("select nudge(task) from unnest($1::text[]) task", [TASKS]);

  // What the last try to get a job says about this worker.
  let problem: string | null = null;
  for (const event of ["worker:getJob:empty", "job:start"] as const) events.on(event, () => (problem = null));
  events.on("worker:getJob:error", ({ error }) => {
    if (problem === null) log.warn(causeOf(error), "cannot get jobs");
    problem = "The worker does not get its jobs.";
  });

  const runner = await run({
    pgPool: pool,
    noHandleSignals: true,
    taskDirectory: TASK_DIRECTORY,
    crontabFile: `${import.meta.dirname}/../../crontab`,
    concurrency: config.worker.WORKER_CONCURRENCY,
    events,
    logger: workerLogger(log),
    preset: { worker: { gracefulShutdownAbortTimeout: grace_ms, pollInterval: poll_every_ms } },
  });
  const presence = await enterWorker(pool, worker_id).catch(async (error: unknown) => {
    await runner.stop();
    closeTasks(worker_id);
    throw error;
  });
  let stopping = false;
  // It may also resolve when the worker dies (graphile/worker#635): any end but by stop() is fatal.
  runner.promise.then(
    () => stopping || fatal("graphile-worker ended by itself"),
    (error: unknown) => stopping || fatal(`graphile-worker: ${reasonOf(error)}`),
  );

  const watching = watch({
    check: async () => {
      await presence.check();
      return problem;
    },
    fatal,
    check_every_ms,
  });

  return {
    problem: () => problem,
    async stop() {
      stopping = true;
      watching.stop();
      await runner.stop();
      // runner.stop() does not wait until the last job is marked complete; a job left locked stays so for four hours.
      await noJobLockedBy(pool, worker_id);
      closeTasks(worker_id);
      await presence.leave();
      s3.destroy();
      identity_store?.destroy();
    },
  };
}

/** One log line per job, at its end, with what it did. */
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

/** When Postgres is away, the reason is enough. Any other error may be a bug and needs its stack. */
const causeOf = (error: unknown) => (isUnavailable(error) ? { reason: reasonOf(error) } : { err: error });

async function noJobLockedBy(pool: pg.Pool, worker_id: string): Promise<void> {
  for (let check = 0; check < 100; check++) {
    const locked = await pool
      .query("select from graphile_worker.jobs where locked_by = $1 limit 1", [worker_id])
      .catch(() => undefined); // Postgres is gone: nothing to wait for.
    if (locked === undefined || locked.rowCount === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** graphile-worker's own log lines, in our format. Its info lines become debug: logJobs has one line per job. */
function workerLogger(log: Log): Logger {
  const levels: Record<LogLevel, "error" | "warn" | "debug"> = {
    error: "error",
    warning: "warn",
    info: "debug",
    debug: "debug",
  };
  return new Logger((scope) => (level, message, meta) => {
    // A failed job: logJobs has a line for it.
    if (meta?.["failure"] === true) return;
    // Some messages carry a stack.
    const [line] = message.split("\n", 1);
    // While Postgres is away it logs each attempt to listen; Outage logs the beginning and the end.
    log[isUnavailable(meta?.["error"]) ? "debug" : levels[level]](
      { ...(scope.taskIdentifier && { task: scope.taskIdentifier, job_id: scope.jobId }) },
      line,
    );
  });
}
