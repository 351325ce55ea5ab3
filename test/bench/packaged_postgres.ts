/**
 * A Postgres as a distribution packages it, with its defaults, where there is one; else the embedded one. It tells what it
 * costs: processor time, and who waited long for a lock.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { PACKAGED } from "../support/postgres_versions.ts";
import { PrivatePostgres } from "../support/private_postgres.ts";

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
  const programs = PACKAGED.missing === undefined ? await PACKAGED.programs() : undefined;
  const postgres = await PrivatePostgres.start(dir, SETTINGS, programs);
  const pid = await postmasterOf(postgres.dataDirectory);
  return {
    url: postgres.url,
    what: programs ? "a packaged Postgres, its defaults" : "the embedded Postgres: none is packaged here",
    cpuTime: () => cpuTime(pid),
    longLockWaits: () => longLockWaits(join(dir, "postgres.log")),
    remove: () => postgres.remove(),
  };
}

const postmasterOf = async (data: string): Promise<number> =>
  Number((await readFile(join(data, "postmaster.pid"), "utf8")).split("\n")[0]);

const longLockWaits = async (log: string): Promise<string[]> =>
  (await readFile(log, "utf8")).split("\n").filter((line) => line.includes("still waiting for"));

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
