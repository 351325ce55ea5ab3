/** On Postgres as people install it: JIT on by default, messages in another language. */
import { Client, Pool } from "pg";
import { describe, expect, test as base } from "vitest";

import { createPool } from "../../server/postgres/pool.ts";
import { createLog } from "../../server/log.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import { startApi } from "../support/api.ts";
import { waitFor } from "../support/database.ts";
import { startPackagedPostgres, type PackagedPostgres } from "../support/packaged_postgres.ts";
import { PACKAGED } from "../support/postgres_versions.ts";
import { requestBody } from "../support/thaw.ts";

const test = base.extend<{ migrated: PackagedPostgres }>({
  // oxlint-disable-next-line no-empty-pattern
  migrated: async ({}, use) => {
    const postgres = await startPackagedPostgres("de");
    const pool = createPool(
      postgres.url,
      { name: "migrate", max: 2, query_timeout_ms: 0 },
      createLog("silent"),
    );
    await migrate(pool);
    await pool.end();
    await use(postgres);
    await postgres.stop();
  },
});

/** How much a statement, and all that it calls, had compiled: auto_explain says it of each. */
async function compiled(url: string, statements: string[]): Promise<string[]> {
  const client = new Client({ connectionString: url });
  const notices: string[] = [];
  client.on("notice", (notice) => notices.push(String(notice.message)));
  await client.connect();
  await client.query(`load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_analyze = on;
    set auto_explain.log_nested_statements = on; set auto_explain.log_level = notice; set client_min_messages = notice`);
  for (const statement of statements) await client.query(statement);
  await client.end();
  expect(notices.length).toBeGreaterThan(0);
  return notices.filter((notice) => /^JIT:|Workers Launched/m.test(notice));
}

const READ = JSON.stringify([
  { id: "00000000-0000-4000-8000-000000000001", s3_bucket: "b", s3_key: "k", principal: "arn:x" },
]);

describe.skipIf(PACKAGED.missing !== undefined)("a packaged Postgres", () => {
  test("has JIT on, and compiles nothing for psql either", { timeout: 60_000 }, async ({ migrated }) => {
    const plain = new Pool({ connectionString: migrated.url });
    const { rows } = await plain.query(
      "select current_setting('jit') as jit, pg_jit_available() as available",
    );
    expect(rows).toEqual([{ jit: "on", available: true }]);
    await plain.end();

    // What this measures by is there to be seen.
    const dear = "set enable_seqscan = off; select count(*) from restores; reset enable_seqscan";
    expect(await compiled(migrated.url, ["set jit_above_cost = 0", dear])).not.toEqual([]);

    expect(
      await compiled(migrated.url, [
        `select * from request_restores('${READ}', '{2 minutes, 15 minutes}')`,
        "select * from complete_restores('[]', '{2 minutes, 15 minutes}')",
        "select resolve_requests(1000, '{2 minutes, 15 minutes}')",
        "select forget_old_restores('30 days', 100)",
      ]),
    ).toEqual([]);
  });

  test(
    "speaks German: who is cut off hears 503, who may not write that it is read-only",
    { timeout: 60_000 },
    async ({ migrated }) => {
      const admin = new Client({ connectionString: migrated.url });
      await admin.connect();
      await expect(admin.query("select nichts")).rejects.toThrow(/existiert nicht/);

      const api = await startApi(migrated.url);
      expect(await api.post("/restore/request", requestBody("a"))).toMatchObject({ status: 200 });

      const cut = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'api'";
      await admin.query("begin");
      await admin.query("lock table restores");
      const waiting = api.post("/restore/request", requestBody("b"));
      await waitFor("its statement", async () => {
        const { rows } = await admin.query(
          "select from pg_stat_activity where application_name = 'api' and wait_event_type = 'Lock'",
        );
        return rows.length === 1;
      });
      await admin.query(cut);
      expect(await waiting).toMatchObject({ status: 503 });
      await admin.query("rollback");
      expect(await api.post("/restore/request", requestBody("b"))).toMatchObject({ status: 200 });

      await admin.query("alter database postgres set default_transaction_read_only = on");
      await admin.query(cut);
      await waitFor(
        "the probe",
        async () => (await api.get("/readyz")).body.reason === "Postgres is read-only.",
      );
      expect(await api.post("/restore/request", requestBody("c"))).toMatchObject({ status: 503 });
      await api.close();
      await admin.end();
    },
  );
});
