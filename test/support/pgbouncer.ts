/** A real PgBouncer, where one is installed, in front of any Postgres. */
import { execFileSync, spawn } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";

import { accountFor } from "../../server/postgres/embedded/binaries.ts";
import { freePort } from "../../server/postgres/embedded/start.ts";
import { waitFor } from "./wait_for.ts";

/** Null, and said loudly, where there is none: then nothing is known about poolers. */
export const PGBOUNCER = find();

function find(): string | null {
  // Debian has it where only root looks.
  for (const program of ["pgbouncer", "/usr/sbin/pgbouncer"]) {
    try {
      execFileSync(program, ["--version"], { stdio: "ignore" });
      return program;
    } catch {
      // The next one.
    }
  }
  console.warn(
    "\n!!! No PgBouncer here: nothing is tested behind a pooler. Install it: apt-get install pgbouncer\n",
  );
  return null;
}

export type PoolMode = "session" | "transaction" | "statement";

export interface PgBouncer {
  /** The way to the same database through it. */
  url(mode: PoolMode, parameters?: string): string;
  stop(): Promise<void>;
}

/** With a database name per mode; `pool_size` connections for each. */
export async function startPgBouncer(databaseUrl: string, pool_size = 40): Promise<PgBouncer> {
  const to = new URL(databaseUrl);
  const dir = await mkdtemp("/var/tmp/thaw-pgbouncer-");
  const port = await freePort(0);
  const modes: PoolMode[] = ["session", "transaction", "statement"];
  const target = `host=${to.hostname} port=${to.port} dbname=${to.pathname.slice(1)} user=${to.username} password=${to.password}`;
  const databases = modes.map((mode) => `${mode} = ${target} pool_mode=${mode} pool_size=${pool_size}`);
  // Who comes in, is nobody's business here: it listens on loopback for a test.
  const settings = ["listen_addr=127.0.0.1", `listen_port=${port}`, "unix_socket_dir=", "auth_type=any"];
  const file = join(dir, "pgbouncer.ini");
  await writeFile(file, ["[databases]", ...databases, "[pgbouncer]", ...settings, ""].join("\n"));
  await chmod(dir, 0o755);
  const account = await accountFor(dir);
  const child = spawn(PGBOUNCER ?? "pgbouncer", [file], { ...account, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr?.on("data", (chunk) => (said += String(chunk)));
  let has_ended = false;
  child.once("close", () => (has_ended = true));
  await waitFor("PgBouncer", async () => {
    if (has_ended) throw new Error(said);
    return new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => {
        socket.destroy();
        resolve(true);
      }).once("error", () => resolve(false));
    });
  });
  return {
    url: (mode, parameters = "") => `postgres://thaw@127.0.0.1:${port}/${mode}${parameters}`,
    async stop() {
      child.kill("SIGQUIT");
      await waitFor("PgBouncer's end", async () => has_ended);
      await rm(dir, { recursive: true });
    },
  };
}
