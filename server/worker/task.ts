import type { Config, WorkerConfig } from "../config.ts";
import type { Database } from "../postgres/rows.ts";
import type { Log } from "../log.ts";
import type { Mailer } from "../mail/resend.ts";
import type { S3 } from "../s3/s3.ts";

/** What tasks work with, beside their job. */
export interface WorkerContext {
  db: Database;
  s3: S3;
  mailer: Mailer;
  /** Whose claims these are: graphile-worker's name for this process. */
  worker_id: string;
  settings: WorkerConfig & Pick<Config, "SESSION_EMAIL_DOMAINS">;
  /** As the SQL functions take them: see notifyWaits. */
  notify_waits: string[];
  log: Log;
}

let context: WorkerContext | undefined;

/** graphile-worker loads tasks by file name and passes them nothing of ours, so the worker leaves it here. */
export function provideWorkerContext(provided: WorkerContext): void {
  context = provided;
}

export function workerContext(): WorkerContext {
  if (context === undefined) throw new Error("a task ran outside startWorker");
  return context;
}
