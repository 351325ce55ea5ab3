/** From each release to this one: rows keep what they say, and old processes go on working beside new ones. */
import { randomUUID } from "node:crypto";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { createApp } from "../../server/http/app.ts";
import { createPool } from "../../server/postgres/pool.ts";
import { createLog } from "../../server/log.ts";
import { migrate, migrationProblem } from "../../server/postgres/migrate.ts";
import { waitFor } from "../support/database.ts";
import { test as base } from "../support/processes.ts";
import {
  ago,
  aRead,
  insertNotification,
  insertRead,
  insertRequest,
  insertRestore,
  one,
  query,
  STATES,
  WAITS,
  type Row,
} from "../support/rows.ts";
import { requestBody, SECRET } from "../support/thaw.ts";

const SQL = join(import.meta.dirname, "../../sql");

/** A release: its last numbered file. The files that are applied again are kept as they were in fixtures/releases/. */
const RELEASES = [
  { release: "1", last: "0001_tables.sql" },
  { release: "2", last: "0002_workers.sql" },
  { release: "3", last: "0003_retention.sql" },
];

/** sql/ as that release had it. */
function sqlOf({ release, last }: (typeof RELEASES)[number]): string {
  const directory = mkdtempSync(join(tmpdir(), "thaw-release-"));
  cpSync(SQL, directory, {
    recursive: true,
    filter: (path) => !/^\d{4}_/.test(basename(path)) || basename(path) <= last,
  });
  writeFileSync(join(directory, "privileges.sql"), "");
  cpSync(join(import.meta.dirname, "../fixtures/releases", release), directory, { recursive: true });
  return directory;
}

const test = base.extend<{ old: Pool }>({
  /** A database that nothing was ever done to. */
  old: async ({ emptyUrl }, use) => {
    const pool = createPool(emptyUrl, { name: "upgrade", max: 10, query_timeout_ms: 0 }, createLog("silent"));
    await use(pool);
    await pool.end();
  },
});

const TABLES = [
  "restores",
  "restore_requests",
  "notifications",
  "announcements",
  "mail_gate",
  "aws_key_user_map",
  "aws_principal_user_map",
];

/** Since release 2. */
const knowsWorkers = async (pool: Pool): Promise<boolean> =>
  (await one(pool, "select to_regclass('workers') is not null as known"))["known"];

const rowsOf = async (pool: Pool): Promise<Record<string, Row[]>> => {
  const rows: Record<string, Row[]> = {};
  for (const table of [...TABLES, ...((await knowsWorkers(pool)) ? ["workers"] : [])])
    rows[table] = await query(pool, `select * from ${table} t order by t::text`);
  rows["jobs"] = await query(
    pool,
    "select id, task_identifier, run_at from graphile_worker.jobs order by id",
  );
  return rows;
};

/** Rows of every state, also of those in somebody's hands. */
async function fill(pool: Pool): Promise<void> {
  for (const state of STATES) {
    const { restore } = await insertRead(pool, state, { restore: { s3_key: `${state}.bin` } });
    await insertRequest(pool, restore, {
      access_key_id: "",
      principal: "arn:aws:iam::1:role/nobody",
      email: null,
    });
    const held = await insertRestore(pool, state, {
      s3_key: `${state}-held.bin`,
      claim_id: randomUUID(),
      attempts: 2,
    });
    await insertRequest(pool, held, { user_resolved: false, email: null });
  }
  await insertRead(pool, "not_started", {
    restore: {
      s3_key: "troubled.bin",
      failing_since: ago("1 hours"),
      failure_code: "SlowDown",
      failure_message: "S3 is busy.",
    },
  });
  await insertRead(pool, "restored", {
    restore: { s3_key: "doubtful.bin", head_wanted_at: ago("1 minutes") },
  });
  for (const more of [
    { status: "sealed" },
    { status: "sealed", uncertain_since: ago("1 hours"), claim_id: randomUUID(), attempts: 3 },
    { status: "sent", sent_at: ago("1 hours"), resend_id: "r" },
    { status: "failed", failure_message: "refused" },
    { status: "unknown", failure_message: "no answer" },
  ]) {
    const mail = await insertNotification(pool, more);
    const { restore } = await insertRead(pool, "restored", {
      restore: { s3_key: `${JSON.stringify(more)}.bin` },
      request: { post_notification_id: mail["id"], post_notified: more.status === "sent" },
    });
    await pool.query("insert into announcements values ($1, 'post', 'jane@example.com', $2)", [
      restore["id"],
      mail["id"],
    ]);
  }
  await pool.query("insert into aws_key_user_map values ('AKIA', 'jane@example.com')");
  await pool.query("insert into aws_principal_user_map values ('arn:*', 'john@example.com')");
  // What maps could hold before it was refused.
  await pool.query(
    "insert into aws_key_user_map values ('AKIALONG', repeat('x', 8000) || '@example.com'), ('a.b', 'jane@corp')",
  );
  await pool.query(
    "insert into aws_principal_user_map values ('arn:aws:iam::1:role/x', 'jane.@example.com')",
  );
  await pool.query("update mail_gate set closed_until = now() + interval '1 hour', reason = 'quota'");
  if (await knowsWorkers(pool)) {
    await pool.query("insert into workers values ('somewhere')");
    for (const table of ["restores", "notifications"])
      await pool.query(`update ${table} set claimed_by = 'somewhere' where claim_id is not null`);
    await pool.query("update mail_gate set calls_per_second = 40, next_call_at = now()");
  }
  await pool.query("select nudge('trigger_restores')");
}

/** What the processes of a release began to ask of Postgres; all since the first release must go on working. */
const CALLS: Record<string, string[]> = {
  "1": [
    "select to_regclass('thaw_migrations') is not null and to_regclass('graphile_worker.jobs') is not null as known",
    "select name, sha256 from thaw_migrations",
    "select nudge(task) from unnest('{resolve_users}'::text[]) task",
    "select * from request_restores('[]', '{}', '{}')",
    "select * from complete_restores('[]', '{}')",
    "select * from claim_restores_to_trigger(5)",
    "select c.*, coalesce(c.last_checked_at, c.accepted_at)::text as due_since from claim_restores_to_poll(5, '23 hours', '-infinity', gen_random_uuid()) c",
    "select lock_restores('{}')",
    ...[
      "mark_restores_pending",
      "mark_restores_restored",
      "mark_restores_failed",
      "mark_restores_lost",
      "mark_restores_expired",
      "note_restores_checked",
      "note_restore_troubles",
    ].map((transition) => `select ${transition}('[]', '{}')`),
    "select close_finished_restores(10) as closed",
    "select resolve_requests(10, '{}', '{}') as touched",
    "select email, resolved_by from find_person('', '', '', '{}')",
    "select added, changed from import_users('[]')",
    "select person from due_people('pre', '0', '0', 5, '') person",
    "select seal_notification(gen_random_uuid(), 'pre', 'nobody@example.com', '0', '0') as announced",
    "select unseal_stale_notifications('pre')",
    "select * from claim_notifications('pre', 5)",
    "select mark_notification_sent(gen_random_uuid(), 'r')",
    "select mark_notification_undeliverable(gen_random_uuid(), 'failed', 'c', 'm')",
    "select note_notification_uncertain(gen_random_uuid(), gen_random_uuid(), 'c', 'm')",
    "select shut_mail_gate(gen_random_uuid(), gen_random_uuid(), null, '0', 'c', 'm')",
    "select pause_mail('0', 'm')",
  ],
  "2": [
    "select name, sha256 from applied_sql_files()",
    "select * from claim_restores_to_trigger(5, 'worker')",
    "select * from claim_restores_to_poll(5, '23 hours', '-infinity', gen_random_uuid(), 'worker')",
    "select * from claim_notifications('pre', 5, 'worker')",
    "select note_mail_limit(10)",
    "select enter_worker('worker'), leave_worker('worker')",
    "select reap_dead_workers()",
    "select forget_failed_jobs()",
  ],
  "3": ["select forget_old_restores('30 days', 10) as forgotten"],
};

const callsOf = ({ release }: (typeof RELEASES)[number]): string[] =>
  Object.entries(CALLS).flatMap(([since, calls]) => (since <= release ? calls : []));

describe.for(RELEASES)("from release $release", (release) => {
  test("rows in every state are what they were, and go on from there", async ({ old }) => {
    const directory = sqlOf(release);
    await migrate(old, directory);
    await fill(old);
    const before = await rowsOf(old);

    await migrate(old);

    expect(await migrationProblem(old)).toBeNull();
    const after = await rowsOf(old);
    for (const [table, rows] of Object.entries(before)) {
      expect(after[table]).toHaveLength(rows.length);
      // Since 0002 what a closed restore still held is nobody's any more; all else says what it said.
      const kept = (row: Row): Row =>
        row["closed_at"] instanceof Date && release.last < "0002" ? { ...row, claim_id: null } : row;
      for (const row of rows) expect(after[table]).toContainEqual(expect.objectContaining(kept(row)));
    }
    // Due as before: what was in back-off or in somebody's hands comes back by its own time.
    const due = await query(old, "select s3_key from claim_restores_to_trigger(10, 'new') order by s3_key");
    expect(due.map((row) => row["s3_key"])).toEqual([
      "not_started-held.bin",
      "not_started.bin",
      "troubled.bin",
    ]);
    expect(await query(old, "select id from claim_notifications('post', 10, 'new')")).toEqual([]);
    await old.query("update mail_gate set closed_until = now()");
    expect(await query(old, "select id from claim_notifications('post', 10, 'new')")).toHaveLength(2);
    rmSync(directory, { recursive: true });
  });

  test("its processes' calls still mean what they meant", async ({ old }) => {
    const directory = sqlOf(release);
    await migrate(old, directory);
    for (const call of callsOf(release)) await query(old, call);
    await migrate(old);
    for (const call of callsOf(release)) await query(old, call);

    // A read of its server, claimed by its worker, settled by it: beside a new worker that leaves both alone.
    await query(old, "select * from request_restores($1, $2, '{}')", [JSON.stringify([aRead()]), WAITS]);
    const claimed = await one(old, "select * from claim_restores_to_trigger(1)");
    expect(await query(old, "select * from claim_restores_to_trigger(1, 'new')")).toEqual([]);
    await query(old, "select reap_dead_workers()");
    const outcome = [
      { id: claimed["id"], claim_id: claimed["claim_id"], storage_class: "GLACIER", pinned_version_id: "" },
    ];
    await query(old, "select mark_restores_restored($1, $2)", [JSON.stringify(outcome), WAITS]);
    expect(await one(old, "select status::text from restores")).toEqual({ status: "restored" });
    rmSync(directory, { recursive: true });
  });

  test("its servers answer while the database is migrated", async ({ old }) => {
    const directory = sqlOf(release);
    await migrate(old, directory);
    const app = createApp({
      pool: old,
      secrets: [SECRET],
      notify_waits: WAITS,
      session_domains: [],
      notReady: async () => null,
      log: createLog("silent"),
    });
    const statuses: number[] = [];
    let over = false;
    const callers = Array.from({ length: 8 }, async (_, caller) => {
      for (let read = 0; !over; read++) {
        const response = await app.request("/restore/request", {
          method: "POST",
          headers: { "content-type": "application/json", "x-restore-secret": SECRET },
          body: JSON.stringify(requestBody(`${caller}-${read}.bin`)),
        });
        statuses.push(response.status);
      }
    });
    await waitFor("some answers before", async () => statuses.length > 50);
    await migrate(old);
    const migrated = statuses.length;
    await waitFor("some answers after", async () => statuses.length > migrated + 50);
    over = true;
    await Promise.all(callers);

    expect(new Set(statuses)).toEqual(new Set([200]));
    expect(await one(old, "select count(*)::int as count from restore_requests")).toEqual({
      count: statuses.length,
    });
    rmSync(directory, { recursive: true });
  });
});

test("a migration that cannot get its tables gives up, and changes nothing", async ({ old }) => {
  const [release] = RELEASES;
  if (release === undefined) throw new Error("there is no release");
  const directory = sqlOf(release);
  await migrate(old, directory);
  const reader = await old.connect();
  await reader.query("begin");
  await reader.query("select from restores");

  await expect(migrate(old)).rejects.toThrow(/sql\/0002_workers.sql:.*lock timeout/);

  await reader.query("commit");
  reader.release();
  expect(await query(old, "select from thaw_migrations where name = '0002_workers.sql'")).toEqual([]);
  await migrate(old);
  expect(await migrationProblem(old)).toBeNull();
  rmSync(directory, { recursive: true });
});
