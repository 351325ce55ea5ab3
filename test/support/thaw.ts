/** A whole Thaw in this process: stand-ins, server and worker, on a database of its own. */
import { randomUUID } from "node:crypto";

import { GetObjectCommand, type S3Client } from "@aws-sdk/client-s3";
import pg from "pg";

import { handler as restoreCompleted } from "../../lambdas/restore_completed.ts";
import { handler as restoreRequested } from "../../lambdas/restore_requested.ts";
import { createApp } from "../../server/http/app.ts";
import { debounceOf, readConfig, trustedSessions, type WorkerConfig } from "../../server/config.ts";
import { createPool } from "../../server/postgres/pool.ts";
import { listen } from "../../server/http/listen.ts";
import { createLog } from "../../server/log.ts";
import { startWorker, type RunningWorker, type WorkerTiming } from "../../server/worker/worker.ts";
import { personsClient } from "./s3_client.ts";
import { startResendStandIn, type ResendStandIn } from "../stand_ins/resend.ts";
import { startS3StandIn, type S3Event, type S3StandIn, type S3StandInOptions } from "../stand_ins/s3.ts";

export const SECRET = "a-secret-of-at-least-32-characters-for-tests";
export const BUCKET = "archive";
export const JANE = "AKIAJANE000000000001";
export const BOB = "AKIABOB0000000000001";

export interface Thaw {
  url: string;
  s3: S3StandIn;
  resend: ResendStandIn;
  pool: pg.Pool;
  /** Errors of the lambdas that carried S3's events. */
  lambdaErrors: unknown[];
  /** Archives a file. */
  archive(key: string, storage_class?: string): void;
  /** Reads a file as a person would, through S3; answers S3's error, or "" when it was readable. */
  read(key: string, access_key_id?: string): Promise<string>;
  post(
    path: "/restore/request" | "/restore/completed",
    body: unknown,
    headers?: Record<string, string>,
  ): Promise<Answer>;
  /** Tells the map whose a key is. */
  know(access_key_id: string, email: string): Promise<void>;
  /** With other settings, when told: a deployment changes them. */
  startWorker(changes?: Partial<WorkerConfig>, timing?: Partial<WorkerTiming>): Promise<RunningWorker>;
  stop(): Promise<void>;
}

export interface Answer {
  status: number;
  // oxlint-disable-next-line typescript/no-explicit-any -- what a test expects, it asserts.
  body: any;
  headers: Headers;
}

export interface ThawOptions {
  s3?: S3StandInOptions;
  env?: Record<string, string>;
  /** False: no worker until startWorker(). */
  worker?: boolean;
  /** False: S3's events get lost. */
  events?: boolean;
}

/** Where a worker finds the stand-ins. */
export const standInSettings = (
  s3: Pick<S3StandIn, "url">,
  resend: Pick<ResendStandIn, "url" | "api_key">,
): Record<string, string> => ({
  RESEND_API_KEY: resend.api_key,
  RESEND_BASE_URL: resend.url,
  MAIL_FROM: "Thaw <thaw@example.com>",
  AWS_REGION: "us-east-1",
  AWS_ACCESS_KEY_ID: "AKIATHAW000000000001",
  AWS_SECRET_ACCESS_KEY: "secret",
  AWS_ENDPOINT_URL_S3: s3.url,
  S3_FORCE_PATH_STYLE: "true",
});

/** The settings of a Thaw on these stand-ins, with windows that a test can wait for. */
export function settingsFor(
  databaseUrl: string,
  s3: S3StandIn,
  resend: ResendStandIn,
): Record<string, string> {
  return {
    ...standInSettings(s3, resend),
    DATABASE_URL: databaseUrl,
    RESTORE_SECRET: SECRET,
    NOTIFY_QUIET_SECONDS: "1",
    NOTIFY_MAX_WAIT_SECONDS: "4",
    LOG_LEVEL: process.env["TEST_LOG_LEVEL"] ?? "silent",
    PORT: "0",
  };
}

export async function startThaw(databaseUrl: string, options: ThawOptions = {}): Promise<Thaw> {
  const lambdaErrors: unknown[] = [];
  const carried = new Set<Promise<void>>();
  const carry = (event: S3Event): void => {
    if (options.events === false) return;
    const handler =
      event["detail-type"] === "AWS API Call via CloudTrail" ? restoreRequested : restoreCompleted;
    const delivery = Promise.resolve(handler(event)).then(
      () => undefined,
      (error: unknown) => void lambdaErrors.push(error),
    );
    carried.add(delivery);
    void delivery.finally(() => carried.delete(delivery));
  };
  const s3 = await startS3StandIn({
    restore_ms: 300,
    ...options.s3,
    onEvent(event) {
      options.s3?.onEvent?.(event);
      carry(event);
    },
  });
  const resend = await startResendStandIn();
  s3.createBucket(BUCKET);

  const env = { ...settingsFor(databaseUrl, s3, resend), ...options.env };
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: env["AWS_ACCESS_KEY_ID"],
    AWS_SECRET_ACCESS_KEY: env["AWS_SECRET_ACCESS_KEY"],
  });
  const config = readConfig(env, ["server", "worker"]);
  if (!config.server || !config.worker) throw new Error("unreachable");
  const log = createLog(config.LOG_LEVEL);
  const pool = createPool(databaseUrl, { name: "test", max: 15, query_timeout_ms: 0 }, log);
  const app = createApp({
    pool,
    secrets: config.server.RESTORE_SECRET,
    debounce: debounceOf(config),
    session_domains: trustedSessions(config),
    notReady: () => Promise.resolve(null),
    log,
  });
  const listening = await listen(app.fetch, config.server);
  const url = `http://127.0.0.1:${listening.port}`;
  Object.assign(process.env, { THAW_URL: url, RESTORE_SECRET: SECRET });

  const workers: RunningWorker[] = [];
  const worker = config.worker;
  const readers = new Map<string, S3Client>();

  const thaw: Thaw = {
    url,
    s3,
    resend,
    pool,
    lambdaErrors,
    archive(key, storage_class = "GLACIER") {
      s3.putObject({ bucket: BUCKET, key, storage_class, body: `contents of ${key}` });
    },
    async read(key, access_key_id = JANE) {
      const client = readers.get(access_key_id) ?? personsClient(s3.url, access_key_id);
      readers.set(access_key_id, client);
      try {
        await (
          await client.send(new GetObjectCommand({ Bucket: BUCKET, Key: key }))
        ).Body?.transformToString();
        return "";
      } catch (error) {
        return (error as Error).name;
      } finally {
        await Promise.all(carried);
      }
    },
    async post(path, body, headers = {}) {
      const response = await fetch(url + path, {
        method: "POST",
        headers: { "content-type": "application/json", "x-restore-secret": SECRET, ...headers },
        body: typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body),
      });
      const text = await response.text();
      return {
        status: response.status,
        body: text === "" ? undefined : JSON.parse(text),
        headers: response.headers,
      };
    },
    async know(access_key_id, email) {
      await pool.query("insert into aws_key_user_map (access_key_id, email) values ($1, $2)", [
        access_key_id,
        email,
      ]);
    },
    async startWorker(changes = {}, timing = {}) {
      const started = await startWorker({
        pool,
        config: { ...config, worker: { ...worker, ...changes } },
        log,
        fatal: (reason) => lambdaErrors.push(new Error(`the worker died: ${reason}`)),
        // Each mail waits for a job that becomes due later.
        timing: { poll_every_ms: 500, ...timing },
      });
      // A test that stops it itself leaves nothing for stop().
      let stopped: Promise<void> | undefined;
      const running = { ...started, stop: () => (stopped ??= started.stop()) };
      workers.push(running);
      return running;
    },
    async stop() {
      await s3.close();
      await resend.close();
      for (const client of readers.values()) client.destroy();
      await listening.close();
      await Promise.all(workers.map((running) => running.stop()));
      await pool.end();
    },
  };
  if (options.worker !== false) await thaw.startWorker();
  return thaw;
}

/** A body for POST /restore/request. */
export const requestBody = (s3_key: string, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  s3_bucket: BUCKET,
  s3_key,
  access_key_id: JANE,
  event_id: randomUUID(),
  ...more,
});

/** Without a worker, mails due at once, and written and marked in pages of four requests. */
export async function startWithSmallPages(databaseUrl: string): Promise<Thaw> {
  const thaw = await startThaw(databaseUrl, {
    worker: false,
    env: { NOTIFY_QUIET_SECONDS: "0", NOTIFY_MAX_WAIT_SECONDS: "0" },
  });
  await thaw.pool.query(
    "create or replace function mail_page() returns integer language sql immutable as $$ select 4 $$",
  );
  return thaw;
}
