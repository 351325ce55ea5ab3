/** What the figures are measured on: a Postgres as it would run, stand-ins, and Thaw's real processes. */
import { fork, spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Pool } from "pg";

import { createPool } from "../../server/postgres/pool.ts";
import type { Programs } from "../../server/postgres/embedded/binaries.ts";
import { createLog } from "../../server/log.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import { PrivatePostgres } from "../support/private_postgres.ts";
import { SECRET, standInSettings } from "../support/thaw.ts";
import { waitFor } from "../support/wait_for.ts";
import type { Calls, CloudOptions } from "./clouds.ts";
import { packagedPostgres, type PackagedPostgres } from "./packaged_postgres.ts";
import { ROOT } from "../support/root.ts";

/** How often a figure looks whether all is done: seldom, for the look itself costs what is measured. */
export const LOOK_EVERY_MS = 500;

export interface Clouds {
  env: Record<string, string>;
  ask<Name extends keyof Calls>(
    call: Name,
    ...args: Parameters<Calls[Name]>
  ): Promise<ReturnType<Calls[Name]>>;
  stop(): Promise<void>;
}

export interface Running {
  child: ChildProcess;
  /** Of a server. */
  url: string;
  stop(): Promise<void>;
  /** Most memory it ever held, in MiB. */
  peakMemory(): Promise<number>;
  /** What it holds now, in MiB. */
  memory(): Promise<number>;
  /** Processor time used so far, in milliseconds. */
  cpuTime(): Promise<number>;
}

export interface World {
  /** A migrated database with nothing in it, on the world's Postgres or on another. */
  newDatabase(postgresUrl?: string): Promise<{ url: string; pool: Pool }>;
  /** A Postgres with its defaults. */
  packagedPostgres(): Promise<PackagedPostgres>;
  clouds(options?: Partial<CloudOptions>): Promise<Clouds>;
  server(databaseUrl: string, env?: Record<string, string>): Promise<Running>;
  /** The routes without Postgres. */
  nullServer(): Promise<Running>;
  worker(databaseUrl: string, clouds: Clouds, env?: Record<string, string>): Promise<Running>;
  /** Any script of this folder, until it ends; answers what it printed. */
  script(name: string, args: string[], env?: Record<string, string>): Promise<string>;
  close(): Promise<void>;
}

async function memoryOf({ pid }: ChildProcess, field: "VmHWM" | "VmRSS"): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
}

/** Without programs, on the Postgres that npm brings. */
export async function openWorld(programs?: Programs): Promise<World> {
  const dir = await mkdtemp(join(tmpdir(), "thaw-bench-"));
  // As safe as in production: durable is part of what is measured.
  const settings = { max_connections: "200", shared_buffers: "512MB", max_wal_size: "4GB" };
  const postgres = await PrivatePostgres.start(dir, settings, programs);
  const children = new Set<ChildProcess>();
  const pools = new Set<Pool>();
  const others = new Set<PackagedPostgres>();

  const launch = async (args: string[], env: Record<string, string>, ready: string): Promise<Running> => {
    const child = spawn(process.execPath, args, {
      env: { PATH: process.env["PATH"] ?? "", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.add(child);
    let output = "";
    let isReady = false;
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => {
        if (isReady) return;
        output += String(chunk);
        isReady = output.includes(ready);
      });
    }
    await waitFor(ready, async () => {
      if (child.exitCode !== null) throw new Error(output);
      return isReady;
    });
    const closed = once(child, "close");
    return {
      child,
      url: `http://127.0.0.1:${/"port":(\d+)/.exec(output)?.[1]}`,
      async stop() {
        child.kill("SIGTERM");
        await closed;
        children.delete(child);
      },
      peakMemory: () => memoryOf(child, "VmHWM"),
      memory: () => memoryOf(child, "VmRSS"),
      async cpuTime() {
        const fields = (await readFile(`/proc/${child.pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
        return (Number(fields[11]) + Number(fields[12])) * 10;
      },
    };
  };

  return {
    async packagedPostgres() {
      const packaged = await packagedPostgres(await mkdtemp(join(tmpdir(), "thaw-packaged-")));
      others.add(packaged);
      return packaged;
    },
    async newDatabase(postgresUrl = postgres.url) {
      const name = `bench_${randomUUID().replaceAll("-", "")}`;
      const admin = new Pool({ connectionString: postgresUrl, max: 1 });
      await admin.query(`create database ${name}`);
      await admin.end();
      const url = new URL(postgresUrl);
      url.pathname = `/${name}`;
      const pool = createPool(url.href, { name: "bench", max: 4, query_timeout_ms: 0 }, createLog("silent"));
      pools.add(pool);
      await migrate(pool);
      return { url: url.href, pool };
    },
    async clouds(options = {}) {
      const child = fork(join(import.meta.dirname, "clouds.ts"), [JSON.stringify({ s3: {}, ...options })]);
      children.add(child);
      await once(child, "message");
      let calls = 0;
      const ask: Clouds["ask"] = (call, ...args) =>
        new Promise((resolve, reject) => {
          const id = calls++;
          const fall = (): void => reject(new Error(`the stand-ins died at ${call}`));
          const hear = (message: { id: number; value: never }): void => {
            if (message.id !== id) return;
            child.off("message", hear).off("exit", fall);
            resolve(message.value);
          };
          child.on("message", hear).on("exit", fall);
          child.send({ id, call, args });
        });
      const addresses = await ask("addresses");
      return {
        ask,
        env: standInSettings(addresses.s3, addresses.resend),
        async stop() {
          child.kill("SIGKILL");
          await once(child, "close");
          children.delete(child);
        },
      };
    },
    // As in production: one line per request, to a pipe that somebody reads.
    server: (databaseUrl, env = {}) =>
      launch(
        [join(ROOT, "server/main.ts"), "server"],
        { DATABASE_URL: databaseUrl, RESTORE_SECRET: SECRET, PORT: "0", ...env },
        "server ready",
      ),
    nullServer: () => launch([join(import.meta.dirname, "null_server.ts")], {}, "server ready"),
    worker: (databaseUrl, clouds, env = {}) =>
      launch(
        [join(ROOT, "server/main.ts"), "worker"],
        { DATABASE_URL: databaseUrl, ...clouds.env, ...env },
        "worker ready",
      ),
    async script(name, args, env = {}) {
      const child = spawn(process.execPath, [join(import.meta.dirname, name), ...args], {
        env: { PATH: process.env["PATH"] ?? "", ...env },
        stdio: ["ignore", "pipe", "inherit"],
      });
      children.add(child);
      let output = "";
      child.stdout.on("data", (chunk) => (output += String(chunk)));
      const [code] = await once(child, "close");
      children.delete(child);
      if (code !== 0) throw new Error(`${name} ended with ${String(code)}`);
      return output.trim();
    },
    async close() {
      for (const child of children) child.kill("SIGKILL");
      for (const pool of pools) await pool.end();
      for (const other of others) await other.remove();
      await postgres.remove();
    },
  };
}
