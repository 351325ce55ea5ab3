/** Launches, recognises and stops the server process of a cluster. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { type Account, POSTGRES_ENVIRONMENT } from "./binaries.ts";
import type { Cluster } from "./cluster.ts";

export interface Postmaster {
  pid: number;
  port: number;
}

export interface Launch {
  cluster: Cluster;
  account: Account;
  /** Path of `postgres`. */
  program: string;
  port: number;
  settings: Record<string, string>;
  /** The process in `postmaster.pid` when it no longer runs. */
  predecessor: Postmaster | undefined;
}

const STOP_TIMEOUT_MS = 30_000;

/** Returns once the process exists; it may still exit at once. */
export async function launch(to: Launch): Promise<Postmaster> {
  const settings = {
    port: String(to.port),
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    autovacuum_naptime: "5s",
    ...to.settings,
  };
  const log = await open(to.cluster.log, "a", 0o600);
  try {
    const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const child = spawn(to.program, ["-D", to.cluster.data, ...args], {
      ...to.account,
      cwd: to.cluster.data,
      detached: true, // Else Ctrl-C would stop it before the app has drained.
      stdio: ["ignore", log.fd, log.fd],
      env: {
        ...POSTGRES_ENVIRONMENT,
        // The pid in postmaster.pid may be another process's by now, or a zombie's. With this variable Postgres does not
        // take it for a running server. All its other checks remain.
        ...(to.predecessor && { PG_GRANDPARENT_PID: String(to.predecessor.pid) }),
      },
    });
    child.unref();
    await once(child, "spawn");
    return { pid: child.pid ?? 0, port: to.port };
  } finally {
    await log.close();
  }
}

/** The contents of `postmaster.pid`, perhaps stale: process on line 1, port on line 4, state on line 8. */
export async function lastPostmaster({
  data,
}: Cluster): Promise<(Postmaster & { isReady: boolean }) | undefined> {
  const lines = (await readFile(join(data, "postmaster.pid"), "utf8").catch(() => "")).split("\n");
  const [pid, port] = [Number(lines[0]), Number(lines[3])];
  return pid > 0 && port > 0 ? { pid, port, isReady: lines[7]?.trim() === "ready" } : undefined;
}

/**
 * Whether the process is this cluster's server, by its command line. Being alive proves nothing (pids are reused, zombies stay
 * in containers), and its working directory is not always readable.
 */
export async function isRunning({ pid }: Postmaster, { data }: Cluster): Promise<boolean> {
  const command =
    process.platform === "linux"
      ? readFile(`/proc/${pid}/cmdline`, "utf8").then((text) => text.replaceAll("\0", " "))
      : promisify(execFile)("ps", ["-ww", "-o", "args=", "-p", String(pid)]).then(({ stdout }) => stdout);
  return (await command.catch(() => "")).includes(` -D ${data} `);
}

/** Waits until the process is gone. */
export async function stop(server: Postmaster, cluster: Cluster, mode: "fast" | "immediate"): Promise<void> {
  const deadline = Date.now() + STOP_TIMEOUT_MS;
  if (await isRunning(server, cluster)) process.kill(server.pid, mode === "fast" ? "SIGINT" : "SIGQUIT");
  while (await isRunning(server, cluster)) {
    if (Date.now() > deadline) {
      throw new Error(
        `Postgres (process ${server.pid}) still runs ${STOP_TIMEOUT_MS / 1000} s after it was told to stop. ` +
          `If it does not stop by itself: kill -QUIT ${server.pid}. ${await logTail(cluster)}`,
      );
    }
    await sleep(20);
  }
}

export async function logSize({ log }: Cluster): Promise<number> {
  return (await stat(log).catch(() => undefined))?.size ?? 0;
}

/** For error messages: where the log is, and how it ends. */
export async function logTail({ log }: Cluster, since = 0): Promise<string> {
  const text = (await readFile(log).catch(() => Buffer.alloc(0))).subarray(since).toString();
  return `${log} ends with:\n${text.trimEnd().split("\n").slice(-15).join("\n")}`;
}
