/** Thaw as operators run it: processes, started and killed. */
import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Pool } from "pg";
import { inject } from "vitest";

import { test as base, waitFor } from "./database.ts";
import { PrivatePostgres, UNSAFE } from "./private_postgres.ts";
import { baseEnv } from "./fast_run.ts";
import { ROOT } from "./root.ts";
import { startResendStandIn, type ResendStandIn } from "../stand_ins/resend.ts";
import { startS3StandIn, type S3Event, type S3StandIn } from "../stand_ins/s3.ts";
import { aRead, know, requestRestores } from "./rows.ts";
import { BUCKET, JANE, SECRET, settingsFor } from "./thaw.ts";

export interface Process {
  child: ChildProcess;
  /** All that it wrote. */
  output(): string;
  /** Waits for text in the output; fails when the process ends without. */
  says(text: string, timeout_ms?: number): Promise<void>;
  /** Of its HTTP side, once that is ready. */
  url(): Promise<string>;
  post(path: string, body: unknown): Promise<{ status: number; body: unknown }>;
  /** Waits for the end; answers the exit code, or the signal. */
  end(timeout_ms?: number): Promise<number | string>;
}

export interface World {
  s3: S3StandIn;
  /** Called when S3 tells of something: while a call is under way, before its answer. */
  onS3Event: (event: S3Event) => void;
  resend: ResendStandIn;
  /** Starts `node server/main.ts` with these roles; killed at the test's end at the latest. */
  run(roles: string[], env?: Record<string, string>, root?: string): Process;
  settings: Record<string, string>;
}

/** Tests of real processes, on stand-ins, with databases that they may also harm. */
export const test = base.extend<{ world: World; emptyUrl: string; postgres: PrivatePostgres }>({
  world: async ({ databaseUrl }, use) => {
    const s3 = await startS3StandIn({ restore_ms: Infinity, onEvent: (event) => world.onS3Event(event) });
    const resend = await startResendStandIn();
    s3.createBucket(BUCKET);
    const settings = { ...settingsFor(databaseUrl, s3, resend), LOG_LEVEL: "info" };
    const processes: Process[] = [];
    const world: World = {
      s3,
      onS3Event: () => undefined,
      resend,
      settings,
      run(roles, env = {}, root = ROOT) {
        const process = launch(roles, { ...settings, ...env }, root);
        processes.push(process);
        return process;
      },
    };
    await use(world);
    for (const { child } of processes) child.kill("SIGKILL");
    await Promise.all(processes.map((process) => process.end()));
    await s3.close();
    await resend.close();
  },
  /** A database that nothing was ever done to. */
  emptyUrl: async ({ databaseUrl, pool }, use) => {
    const name = `empty_${randomUUID().replaceAll("-", "")}`;
    await pool.query(`create database ${name}`);
    const url = new URL(databaseUrl);
    url.pathname = `/${name}`;
    await use(url.href);
    await pool.query(`drop database ${name} with (force)`);
  },
  /** A Postgres that the test may stop. */
  // oxlint-disable-next-line no-empty-pattern
  postgres: async ({}, use) => {
    const dir = join(tmpdir(), `thaw-processes-${randomUUID()}`);
    const postgres = await PrivatePostgres.start(dir, UNSAFE, inject("postgresPrograms"));
    await use(postgres);
    await postgres.remove();
  },
});

/** Jane, whom the map knows, has read an archived object: as the server writes it down. */
export async function readByJane({ s3 }: World, pool: Pool, s3_key: string): Promise<void> {
  s3.putObject({ bucket: BUCKET, key: s3_key, storage_class: "GLACIER", body: s3_key });
  await know(pool, JANE);
  await requestRestores(pool, aRead({ s3_key }));
}

/** For tests with stand-ins of their own; whoever launches it ends it. */
export function launch(roles: string[], env: Record<string, string>, root = ROOT): Process {
  const child = spawn(process.execPath, [join(root, "server", "main.ts"), ...roles], {
    // Somewhere else on purpose: nothing may depend on the working directory.
    cwd: tmpdir(),
    env: { ...baseEnv(root), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk) => (output += String(chunk)));
  child.stderr.on("data", (chunk) => (output += String(chunk)));
  const closed = once(child, "close").then(() => child.exitCode ?? child.signalCode ?? "lost");
  let isClosed = false;
  void closed.then(() => (isClosed = true));
  const launched: Process = {
    child,
    output: () => output,
    async says(text, timeout_ms = 20_000) {
      await waitFor(`"${text}"`, async () => output.includes(text) || isClosed, timeout_ms).catch(
        (error: unknown) => {
          throw new Error(`It does not say "${text}":\n${output}`, { cause: error });
        },
      );
      if (!output.includes(text)) throw new Error(`It ended without "${text}":\n${output}`);
    },
    async url() {
      await launched.says("server ready");
      return `http://127.0.0.1:${/"port":(\d+)/.exec(output)?.[1]}`;
    },
    async post(path, body) {
      const response = await fetch((await launched.url()) + path, {
        method: "POST",
        headers: { "content-type": "application/json", "x-restore-secret": SECRET },
        body: JSON.stringify(body),
      });
      return { status: response.status, body: await response.json() };
    },
    async end(timeout_ms = 20_000) {
      await waitFor("the process to end", async () => isClosed, timeout_ms).catch((error: unknown) => {
        throw new Error(`It does not end:\n${output}`, { cause: error });
      });
      return closed;
    },
  };
  return launched;
}
