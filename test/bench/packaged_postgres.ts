/**
 * A Postgres as a distribution packages it, with its defaults, where there is one; else the embedded one. It tells what it
 * costs: processor time, and who waited long for a lock.
 */
import { execFile, spawn } from "node:child_process";
import { chown, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

import { accountFor } from "../../server/embedded_postgres/binaries.ts";
import { freePort } from "../../server/embedded_postgres/start.ts";
import { PrivatePostgres } from "../private_postgres.ts";
import { waitFor } from "../wait_for.ts";

const run = promisify(execFile);

/** Nobody should wait for a lock longer than that; Postgres logs who does. */
export const LONG_LOCK_MS = 200;
const SETTINGS = {
  log_lock_waits: "on",
  deadlock_timeout: `${LONG_LOCK_MS}ms`,
  log_line_prefix: "%m [%p] %a ",
};

export interface PackagedPostgres {
  url: string;
  /** What it is, for the table. */
  what: string;
  /** Of all its processes, in seconds. */
  cpuTime(): Promise<number>;
  /** Lines of its log about waits for a lock that were long. */
  longLockWaits(): Promise<string[]>;
  remove(): Promise<void>;
}

export async function packagedPostgres(dir: string): Promise<PackagedPostgres> {
  const bin = await newestPackage();
  if (bin === undefined) {
    const postgres = await PrivatePostgres.start(dir, SETTINGS);
    const pid = await postmasterOf(postgres.dataDirectory);
    return {
      url: postgres.url,
      what: "the embedded Postgres: none is packaged here",
      cpuTime: () => cpuTime(pid),
      longLockWaits: () => longLockWaits(join(dir, "postgres.log")),
      remove: () => postgres.remove(),
    };
  }
  const data = join(dir, "data");
  await mkdir(dir, { recursive: true });
  const account = await accountFor(data);
  if ("uid" in account) await chown(dir, account.uid, account.gid);
  await run(
    join(bin, "initdb"),
    ["-D", data, "-A", "trust", "-U", "thaw", "-E", "UTF8", "--locale=C.UTF-8"],
    account,
  );
  const port = await freePort(0);
  const settings = {
    ...SETTINGS,
    port: String(port),
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
  };
  const server = spawn(
    join(bin, "postgres"),
    ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
    { ...account, stdio: ["ignore", "ignore", "pipe"] },
  );
  const lines: string[] = [];
  server.stderr.on("data", (chunk) => lines.push(...String(chunk).split("\n")));
  await waitFor(
    "Postgres",
    async () => lines.some((line) => line.includes("ready to accept connections")),
    30_000,
  );
  const { stdout } = await run(join(bin, "postgres"), ["--version"]);
  return {
    url: `postgres://thaw@127.0.0.1:${port}/postgres`,
    what: `${stdout.trim()}, its defaults`,
    cpuTime: () => cpuTime(server.pid ?? 0),
    longLockWaits: async () => lines.filter(isLongWait),
    async remove() {
      server.kill("SIGQUIT");
      await waitFor("Postgres to end", async () => server.exitCode !== null || server.signalCode !== null);
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function newestPackage(): Promise<string | undefined> {
  const root = "/usr/lib/postgresql";
  const versions = (await readdir(root).catch(() => [])).map(Number).filter(Number.isInteger);
  return versions.length === 0 ? undefined : join(root, String(Math.max(...versions)), "bin");
}

const postmasterOf = async (data: string): Promise<number> =>
  Number((await readFile(join(data, "postmaster.pid"), "utf8")).split("\n")[0]);

const isLongWait = (line: string): boolean => line.includes("still waiting for");
const longLockWaits = async (log: string): Promise<string[]> =>
  (await readFile(log, "utf8")).split("\n").filter(isLongWait);

/** Its own, that of its children that have ended, and that of those that live. */
async function cpuTime(postmaster: number): Promise<number> {
  let ticks = 0;
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const stat =
      (await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")).split(") ")[1]?.split(" ") ?? [];
    const own = Number(stat[11]) + Number(stat[12]);
    if (Number(pid) === postmaster) ticks += own + Number(stat[13]) + Number(stat[14]);
    else if (Number(stat[1]) === postmaster) ticks += own;
  }
  return ticks / 100;
}
