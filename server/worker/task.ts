import type { Task } from "graphile-worker";
import { sql } from "kysely";

import type { Config, Debounce, WorkerConfig } from "../config.ts";
import type { Database } from "../postgres/rows.ts";
import { type Log, reasonOf } from "../log.ts";
import type { IdentityStore } from "../identity_store.ts";
import type { Mailer } from "../mail/resend.ts";
import type { S3 } from "../s3/s3.ts";

/** What the tasks of one worker share. */
export interface WorkerContext {
  db: Database;
  s3: S3;
  mailer: Mailer;
  /** Undefined: there is none to ask. */
  identity_store: IdentityStore | undefined;
  /** graphile-worker's name for this worker: jobs are locked, and rows claimed, in this name. */
  worker_id: string;
  settings: WorkerConfig & Pick<Config, "SESSION_EMAIL_DOMAINS" | "SESSION_ACCOUNTS">;
  debounce: Debounce;
  log: Log;
}

/** What one run works with. */
export interface TaskContext extends WorkerContext {
  /** Adds to what the job's log line says it did: `{ claimed: 3, asked: 3, pending: 2, trouble: 1 }`. */
  count: (what: string, by?: number) => void;
}

type Counts = Record<string, number>;

/** How often a task runs in this worker just now, and whether a nudge came since the last run began. */
interface Runs {
  running: number;
  again: boolean;
}

interface OpenWorker {
  context: WorkerContext;
  runs: Map<string, Runs>;
  /** By job: graphile-worker hands the same job object to the task and to its events, but no result. */
  counts: WeakMap<object, Counts>;
}

/** The only state of this module: tasks are loaded by file name, and a job names its worker only (`locked_by`). */
const workers = new Map<string, OpenWorker>();

/** Before its first job. */
export function openTasks(context: WorkerContext): void {
  workers.set(context.worker_id, { context, runs: new Map(), counts: new WeakMap() });
}

/** After its last job. */
export function closeTasks(worker_id: string): void {
  workers.delete(worker_id);
}

/**
 * Wraps each file of tasks/. At most `runs` runs of a task go on at a time in a worker, and nudges coalesce: one that comes
 * meanwhile ends at once and makes a run look again. Each commit brings a nudge, and many runs over one backlog would take
 * the job slots of other tasks. If a run fails, its rows are still due: the next nudge or the crontab finds them.
 */
export function task(
  limits: { runs: number },
  run: (context: TaskContext, signal: AbortSignal) => Promise<void>,
): Task {
  return async (_payload, { job, abortSignal }) => {
    const worker = workers.get(job.locked_by ?? "");
    if (worker === undefined) throw new Error("tasks run only in a worker that startWorker has started");
    const { context, counts } = worker;

    const runs = worker.runs.get(job.task_identifier) ?? { running: 0, again: false };
    worker.runs.set(job.task_identifier, runs);
    runs.again = true;
    if (runs.running >= limits.runs) return;

    const did: Counts = {};
    counts.set(job, did);
    const count = (what: string, by = 1): void => {
      if (by > 0) did[what] = (did[what] ?? 0) + by;
    };
    try {
      await runUntilNothingIsNew();
      if (!abortSignal.aborted) await noteRun(context.db, job.task_identifier, null);
    } catch (error) {
      // Postgres may be away: then the error of the run says more.
      await noteRun(context.db, job.task_identifier, reasonOf(error)).catch(() => undefined);
      throw error;
    }

    async function runUntilNothingIsNew(): Promise<void> {
      runs.running++;
      try {
        for (let looked = 0; runs.again && !abortSignal.aborted; looked++) {
          // First: of several runs, one alone looks again.
          runs.again = false;
          // Not only at the end: while nudges keep coming there is none, and the task would look late.
          if (looked > 0) await noteRun(context.db, job.task_identifier, null);
          await run({ ...context, count }, abortSignal);
        }
      } finally {
        // Without an await after the last look at `again`: a nudge that came in between would be lost.
        runs.running--;
      }
    }
  };
}

/** For operators: when did each task last do its work to the end? */
async function noteRun(db: Database, task: string, error: string | null): Promise<void> {
  await sql`select note_task_run(${task}, ${error})`.execute(db);
}

/** What a job did, for its log line. Nothing when it found nothing to do, or left it to a run that was under way. */
export function countsOf(job: { locked_by: string | null }): { did?: Counts } {
  const did = workers.get(job.locked_by ?? "")?.counts.get(job);
  return did === undefined || Object.keys(did).length === 0 ? {} : { did };
}
