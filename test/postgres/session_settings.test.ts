/** Whatever a database, a role or a URL sets: Thaw's connections have the settings that Thaw relies on. */
import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { createPool } from "../../server/postgres/pool.ts";
import { createLog } from "../../server/log.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import { newPool, waitFor } from "../support/database.ts";
import { test } from "../support/processes.ts";
import { JANE, requestBody, startThaw } from "../support/thaw.ts";

/** Each as bad as it gets, and what our connections must have instead. Unknown to Postgres 14 to 16: transaction_timeout. */
const SETTINGS: Record<string, { bad: string; ours: string }> = {
  client_encoding: { bad: "LATIN1", ours: "UTF8" },
  DateStyle: { bad: "German, DMY", ours: "ISO, MDY" },
  IntervalStyle: { bad: "sql_standard", ours: "postgres" },
  TimeZone: { bad: "Asia/Kolkata", ours: "UTC" },
  standard_conforming_strings: { bad: "off", ours: "on" },
  search_path: { bad: "elsewhere", ours: "public, pg_temp" },
  row_security: { bad: "off", ours: "on" },
  default_transaction_isolation: { bad: "serializable", ours: "read committed" },
  jit: { bad: "on", ours: "off" },
  max_parallel_workers_per_gather: { bad: "4", ours: "0" },
  statement_timeout: { bad: "5ms", ours: "7s" },
  lock_timeout: { bad: "1ms", ours: "0" },
  idle_session_timeout: { bad: "300ms", ours: "0" },
  transaction_timeout: { bad: "5ms", ours: "0" },
  idle_in_transaction_session_timeout: { bad: "1ms", ours: "1min" },
  synchronous_commit: { bad: "off", ours: "on" },
};

const createTestPool = (url: string, query_timeout_ms = 0): Pool =>
  createPool(url, { name: "settings", max: 5, query_timeout_ms }, createLog("silent"));

/** In every session of this database from now on. */
async function setBadly(databaseUrl: string, pool: Pool): Promise<void> {
  const database = new URL(databaseUrl).pathname.slice(1);
  const { rows } = await pool.query<{ known: string[] }>(
    "select array_agg(lower(name)) as known from pg_settings",
  );
  for (const [name, { bad }] of Object.entries(SETTINGS)) {
    if (rows[0]?.known.includes(name.toLowerCase()) === true)
      await pool.query(`alter database ${database} set ${name} = ${bad.includes(",") ? bad : `'${bad}'`}`);
  }
}

async function settingsOf(pool: Pool): Promise<Record<string, string>> {
  const { rows } = await pool.query<{ name: string; value: string }>(
    "select name, current_setting(name, true) as value from unnest($1::text[]) as name where current_setting(name, true) is not null",
    [Object.keys(SETTINGS)],
  );
  return Object.fromEntries(rows.map(({ name, value }) => [name, value]));
}

const ours = (known: string[]): Record<string, string> =>
  Object.fromEntries(known.map((name) => [name, SETTINGS[name]?.ours ?? ""]));

describe("a database that sets everything otherwise", () => {
  test("is told what we need by each connection", async ({ emptyUrl, pool }) => {
    await setBadly(emptyUrl, pool);
    const own = createTestPool(emptyUrl, 7_000);
    const clients = [];
    for (let n = 0; n < 5; n++) clients.push(await own.connect());
    for (const client of clients) {
      const set = await settingsOf(client as unknown as Pool);
      expect(Object.keys(set).length).toBeGreaterThanOrEqual(15);
      expect(set).toEqual(ours(Object.keys(set)));
    }
    for (const client of clients) client.release();
    await own.end();
  });

  test("gets its tables, restores and tells, and no job fails", async ({ emptyUrl, pool }) => {
    await setBadly(emptyUrl, pool);
    const own = createTestPool(emptyUrl);
    await migrate(own);
    await own.end();

    const thaw = await startThaw(emptyUrl);
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("日本/é.bin");
    expect(await thaw.read("日本/é.bin")).toBe("InvalidObjectState");
    await waitFor("the mail that says ready", async () =>
      thaw.resend.mails.some((mail) => /ready/i.test(mail.subject)),
    );

    expect(thaw.lambdaErrors).toEqual([]);
    const failed = await thaw.pool.query(
      "select task_identifier, last_error from graphile_worker.jobs where last_error is not null",
    );
    expect(failed.rows).toEqual([]);
    await thaw.stop();
  });

  test("does not make transactions that meet fail", async ({ databaseUrl, pool }) => {
    await setBadly(databaseUrl, pool);
    const thaw = await startThaw(databaseUrl);
    await thaw.know(JANE, "jane@example.com");
    const keys = Array.from({ length: 30 }, (_, index) => `films/${index}.mov`);
    for (const key of keys) thaw.archive(key);

    const answers = await Promise.all(
      [...keys, ...keys, ...keys].map((key) => thaw.post("/restore/request", requestBody(key))),
    );

    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
    await waitFor("all restores", async () => {
      const { rows } = await thaw.pool.query("select from restores where status <> 'restored'");
      return rows.length === 0;
    });
    const failed = await thaw.pool.query(
      "select task_identifier, last_error from graphile_worker.jobs where last_error is not null",
    );
    expect(failed.rows).toEqual([]);
    await thaw.stop();
  });
});

describe("DATABASE_URL", () => {
  test("may set what it likes: ours counts", async ({ databaseUrl }) => {
    const own = createTestPool(
      `${databaseUrl}?application_name=mine&statement_timeout=5&options=-c%20DateStyle%3DGerman%20-c%20jit%3Don`,
    );
    const { rows } = await own.query(
      "select current_setting('application_name') as name, current_setting('DateStyle') as style, current_setting('jit') as jit, current_setting('statement_timeout') as limit",
    );
    expect(rows).toEqual([{ name: "settings", style: "ISO, MDY", jit: "off", limit: "0" }]);
    await own.end();
  });
});

describe("synchronous_commit", () => {
  test.for([
    ["off", "on"],
    ["local", "local"],
    ["remote_apply", "remote_apply"],
  ])("%s of a database is %s for Thaw", async ([set, seen], { databaseUrl, pool }) => {
    await pool.query(
      `alter database ${new URL(databaseUrl).pathname.slice(1)} set synchronous_commit = ${set}`,
    );
    const own = createTestPool(databaseUrl);
    expect((await settingsOf(own))["synchronous_commit"]).toBe(seen);
    await own.end();
  });
});

test("a role's own settings count no more than a database's", async ({ databaseUrl, pool }) => {
  const role = `bad_${randomUUID().replaceAll("-", "")}`;
  await pool.query(`create role ${role} login superuser password 'sesame'`);
  for (const [name, { bad }] of Object.entries(SETTINGS))
    await pool.query(`alter role ${role} set ${name} = ${bad.includes(",") ? bad : `'${bad}'`}`);
  const url = new URL(databaseUrl);
  url.username = role;
  url.password = "sesame";

  const plain = newPool(url.href);
  const bad = await plain.query("select current_setting('jit') as jit, current_setting('TimeZone') as zone");
  expect(bad.rows).toEqual([{ jit: "on", zone: "Asia/Kolkata" }]);
  await plain.end();

  const own = createTestPool(url.href, 7_000);
  const set = await settingsOf(own);
  expect(set).toEqual(ours(Object.keys(set)));
  await own.end();
  await pool.query(`drop role ${role}`);
});

test("every function that pins a plan pins JIT and parallel workers too, whoever calls it", async ({
  pool,
}) => {
  const { rows } = await pool.query<{ name: string; settings: string[] }>(
    `select p.proname as name, p.proconfig as settings from pg_proc p
      where p.pronamespace = 'public'::regnamespace and array_to_string(p.proconfig, ' ') ~ 'enable_|plan_cache_mode'`,
  );
  expect(rows.map(({ name }) => name)).toEqual(
    expect.arrayContaining(["request_restores", "complete_restores"]),
  );
  for (const { name, settings } of rows) {
    expect(settings, name).toEqual(expect.arrayContaining(["jit=off", "max_parallel_workers_per_gather=0"]));
  }
});
