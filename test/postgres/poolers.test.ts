/** Behind a real PgBouncer: what works, and what the rest is told. */
import { describe, expect } from "vitest";

import { waitFor } from "../support/database.ts";
import { PGBOUNCER, startPgBouncer, type PgBouncer } from "../support/pgbouncer.ts";
import { test as base } from "../support/processes.ts";
import { runCommand } from "../support/run_command.ts";
import { know } from "../support/rows.ts";
import { BUCKET, JANE, requestBody } from "../support/thaw.ts";

const test = base.extend<{ pgbouncer: PgBouncer; tiny: PgBouncer }>({
  pgbouncer: async ({ databaseUrl }, use) => {
    const pgbouncer = await startPgBouncer(databaseUrl);
    await use(pgbouncer);
    await pgbouncer.stop();
  },
  /** One connection of Postgres' for each mode, for all that come. */
  tiny: async ({ databaseUrl }, use) => {
    const pgbouncer = await startPgBouncer(databaseUrl, 1);
    await use(pgbouncer);
    await pgbouncer.stop();
  },
});

const COMMANDS = [
  ["server/main.ts", "migrate"],
  ["server/main.ts", "server"],
  ["server/main.ts", "worker"],
  ["server/cli/users.ts", "list"],
];

describe.skipIf(PGBOUNCER === null)("PgBouncer", () => {
  test("in session mode: all of Thaw works behind it, with settings of its own", async ({
    world,
    pgbouncer,
    pool,
  }) => {
    const DATABASE_URL = pgbouncer.url("session");
    await know(pool, JANE);
    await pool.query(
      "do $$ begin execute format('alter database %I set datestyle = German', current_database()); end $$",
    );
    world.s3.putObject({ bucket: BUCKET, key: "a.bin", storage_class: "GLACIER", body: "a" });
    expect(
      await runCommand(["server/cli/users.ts", "list"], { ...world.settings, DATABASE_URL }),
    ).toMatchObject({
      code: 0,
    });

    const thaw = world.run(["migrate", "server", "worker"], { DATABASE_URL });
    expect(await thaw.post("/restore/request", requestBody("a.bin"))).toMatchObject({ status: 200 });
    await waitFor("the mail", async () => world.resend.mails.length === 1);

    // The one lock that says that the worker lives, and the job that comes by NOTIFY, need a connection of their own.
    const { output } = await runCommand(["server/cli/doctor/doctor.ts"], { ...world.settings, DATABASE_URL });
    expect(output).toMatch(/^ok {4}Postgres: answers/m);
    expect(output).toMatch(/^ok {4}worker: 1 alive/m);
    expect(thaw.output()).not.toMatch(/"level":"(warn|error|fatal)"/);
    thaw.child.kill("SIGTERM");
    expect(await thaw.end()).toBe(0);
  });

  test.for(["transaction", "statement"] as const)(
    "in %s mode: every process says so, and what to do, instead of losing its settings",
    async (mode, { world, pgbouncer }) => {
      const env = { ...world.settings, DATABASE_URL: pgbouncer.url(mode) };
      for (const command of COMMANDS) {
        const { code, output } = await runCommand(command, env);
        expect(output, command.join(" ")).toMatch(
          /^DATABASE_URL leads through a pooler in transaction mode.*pool_mode=session.*sql\/README\.md, "Poolers"/,
        );
        expect(output.trim().split("\n")).toHaveLength(1);
        expect(code).toBe(1);
      }
      const { output } = await runCommand(["server/cli/doctor/doctor.ts"], env);
      expect(output).toMatch(/^FAIL {2}Postgres: .*transaction mode.*pool_mode=session/m);
    },
  );

  test("knows transaction mode while other clients keep the pooler busy", async ({ world, pgbouncer }) => {
    const env = { ...world.settings, DATABASE_URL: pgbouncer.url("transaction") };
    const ended = await Promise.all(
      Array.from({ length: 4 }, () => runCommand(["server/cli/users.ts", "list"], env)),
    );
    for (const { output } of ended) expect(output).toMatch(/pooler in transaction mode/);
  });

  test("refuses a start-up parameter: it is named, with what to do", async ({ world, pgbouncer }) => {
    for (const parameters of ["?options=-c%20jit%3Doff", "?statement_timeout=1000"]) {
      const DATABASE_URL = pgbouncer.url("session", parameters);
      const { code, output } = await runCommand(["server/main.ts", "server"], {
        ...world.settings,
        DATABASE_URL,
      });
      expect(output).toMatch(
        /^Postgres cannot be used: unsupported startup parameter: (options|statement_timeout)\. .*DATABASE_URL and PGOPTIONS.*ignore_startup_parameters/,
      );
      expect(code).toBe(1);
    }
  });

  test("has too few connections: nobody waits for ever", async ({ world, tiny }) => {
    for (const command of COMMANDS) {
      const { code, output } = await runCommand(command, {
        ...world.settings,
        DATABASE_URL: tiny.url("session"),
      });
      expect(output, command.join(" ")).toMatch(
        /^Postgres cannot be used: .*without a free connection.*default_pool_size/,
      );
      expect(code).toBe(1);
    }
  });
});
