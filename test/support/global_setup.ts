/** One Postgres for each project of the run, with a migrated template that each test copies (test/support/database.ts). */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import type { TestProject } from "vitest/node";
import { createPool } from "../../server/postgres/pool.ts";
import type { Programs } from "../../server/postgres/embedded/binaries.ts";
import { startEmbeddedPostgres } from "../../server/postgres/embedded/start.ts";
import { createLog } from "../../server/log.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import { POSTGRES_VERSIONS } from "./postgres_versions.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** A superuser's way in; the server's other databases differ in the path only. */
    postgresUrl: string;
    /** What it runs by, for tests that start one of their own; without: the Postgres that npm brings. */
    postgresPrograms: Programs | undefined;
  }
}

export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const dir = join(tmpdir(), `thaw-test-${randomUUID()}`);
  // Tests kill Postgres, never the machine: the kernel keeps what was written.
  const settings = {
    fsync: "off",
    full_page_writes: "off",
    max_connections: "300",
    // In memory, as a rule, beside those of the other projects.
    max_wal_size: "256MB",
  };
  const keep = process.env["KEEP_DB"] === "1";
  if (!keep) cleanUpAfterKill(dir);
  const programs = await POSTGRES_VERSIONS.find(({ name }) => name === project.name)?.programs();
  const server = await startEmbeddedPostgres({ dir, settings, programs });
  await makeTemplate(server.url);
  project.provide("postgresUrl", server.url);
  project.provide("postgresPrograms", programs);
  return async () => {
    if (keep) {
      console.log(`Kept: Postgres in ${dir}. When done: kill -INT ${server.pid}, then remove the directory.`);
      return;
    }
    await server.stop("immediate");
    await rm(server.dataDirectory, { recursive: true });
    await rm(dir, { recursive: true, force: true });
  };
}

async function makeTemplate(url: string): Promise<void> {
  const admin = new Client({ connectionString: url });
  await admin.connect();
  await admin.query("create database template_thaw");
  const template = new URL(url);
  template.pathname = "/template_thaw";
  const pool = createPool(
    template.href,
    { name: "template", max: 10, query_timeout_ms: 0 },
    createLog("silent"),
  );
  await migrate(pool);
  await pool.query("vacuum analyze");
  await pool.end();
  await admin.query("alter database template_thaw with is_template true allow_connections false");
  await admin.end();
}

/** A killed run gets no teardown; this shell sees its pipe close and does what is left to do. */
function cleanUpAfterKill(dir: string): void {
  const script = `read forever
    data=$(cd "$1/data" && pwd -P)
    pid=$(head -n 1 "$data/postmaster.pid") && kill -QUIT "$pid"
    until rm -rf "$data" "$1"; do sleep 1; done`;
  const shell = spawn("/bin/sh", ["-c", script, "sh", dir], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  shell.unref();
}
