/** From the release before to this one: rows keep what they say, and old processes go on working beside new ones. */
import { randomUUID } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { createPool } from "../../server/postgres/pool.ts";
import { createLog } from "../../server/log.ts";
import { migrate, migrationProblem } from "../../server/postgres/migrate.ts";
import { waitFor } from "../support/database.ts";
import { test as base } from "../support/processes.ts";
import {
  ago,
  ahead,
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
import { postTo, testApp } from "../support/app.ts";
import { requestBody } from "../support/thaw.ts";

const SQL = join(import.meta.dirname, "../../sql");

/** The release that is upgraded from: its last numbered file. The files that are applied again are kept as it had them. */
const PREVIOUS = {
  last: "0009_claims.sql",
  pages: join(import.meta.dirname, "../fixtures/previous_release"),
};

/** sql/ as that release had it. It had two pages, the views first. */
function previousSql(): string {
  const directory = mkdtempSync(join(tmpdir(), "thaw-release-"));
  for (const name of readdirSync(SQL)) {
    if (!/^\d{4}_/.test(name)) writeFileSync(join(directory, name), "");
    else if (name <= PREVIOUS.last) cpSync(join(SQL, name), join(directory, name));
  }
  cpSync(join(PREVIOUS.pages, "views.sql"), join(directory, "rules.sql"));
  for (const name of ["transitions.sql", "privileges.sql"])
    cpSync(join(PREVIOUS.pages, name), join(directory, name));
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
  "workers",
];

const rowsOf = async (pool: Pool): Promise<Record<string, Row[]>> => {
  const rows: Record<string, Row[]> = {};
  for (const table of TABLES) rows[table] = await query(pool, `select * from ${table} t order by t::text`);
  rows["jobs"] = await query(
    pool,
    "select id, task_identifier, run_at from graphile_worker.jobs order by id",
  );
  return rows;
};

/** What maps could hold before it was refused, and still hold. */
async function insertUnusable(pool: Pool): Promise<void> {
  const checks = await query(
    pool,
    `select conrelid::regclass as map, conname as name, pg_get_constraintdef(oid) as definition from pg_constraint
      where contype = 'c' and conrelid in ('aws_key_user_map'::regclass, 'aws_principal_user_map'::regclass)`,
  );
  for (const { map, name } of checks) await pool.query(`alter table ${map} drop constraint ${name}`);
  await pool.query(
    "insert into aws_key_user_map values ('AKIALONG', repeat('x', 8000) || '@example.com'), ('a.b', 'jane@corp')",
  );
  await pool.query(
    "insert into aws_principal_user_map values ('arn:aws:iam::1:role/x', 'jane.@example.com')",
  );
  for (const { map, name, definition } of checks)
    await pool.query(`alter table ${map} add constraint ${name} ${definition}`);
}

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
  await insertUnusable(pool);
  await pool.query("update mail_gate set closed_until = now() + interval '1 hour', reason = 'quota'");
  await pool.query("insert into workers values ('somewhere')");
  for (const table of ["restores", "notifications"])
    await pool.query(`update ${table} set claimed_by = 'somewhere' where claim_id is not null`);
  await pool.query("update mail_gate set calls_per_second = 40, next_call_at = now()");
  await pool.query("select nudge('trigger_restores')");
}

/** What the processes of that release ask of Postgres: they go on working beside new ones, and go on being answered. */
const CALLS = [
  "select to_regclass('thaw_migrations') is not null as known",
  "select name, sha256 from applied_sql_files()",
  "select read_id, request_id, duplicate from request_restores('[]', '{}', '{}')",
  "select id from locked_reads('[]') id",
  "select event_id, updated from complete_restores('[]', '{}')",
  "select nudge(task) from unnest('{resolve_users}'::text[]) task",
  "select enter_worker('worker'), leave_worker('worker')",
  "select reap_dead_workers()",
  "select resolve_requests(10, '{}', '{}') as touched",
  "select id, claim_id, status, s3_bucket, s3_key, version_id, region, etag, pinned_version_id from claim_restores_to_trigger(5, 'worker')",
  "select c.head_wanted_at, coalesce(c.last_checked_at, c.accepted_at)::text as due_since from claim_restores_to_poll(5, '23 hours', '-infinity', gen_random_uuid(), 'worker') c",
  "select settle_restores('[]', '{}')",
  "select close_finished_restores(10) as closed",
  "select forget_failed_jobs()",
  "select forget_old_restores('30 days', 10) as forgotten",
  "select mark_more_readers('pre') as more",
  "select unseal_stale_notifications('pre', 'thaw@example.com') as unsealed",
  "select id from unfinished_notifications('pre') id",
  "select person from due_people('pre', '0', '0', 5, '', '{}') person",
  "select * from seal_page(gen_random_uuid(), 'pre', 'nobody@example.com', '0', '0')",
  "select seal_more(gen_random_uuid()) as attached",
  "select freeze_notification(gen_random_uuid(), 'nobody@example.com', '{}', 1) as frozen",
  "select mail_stays_fresh()",
  "select take_mail_turn('pre', 'thaw@example.com', '1 second') as wait_ms",
  "select * from claim_notifications('pre', 1, 'worker', true, 'thaw@example.com')",
  "select mark_notification_sent(gen_random_uuid(), 'r')",
  "select note_notification_refused(gen_random_uuid(), gen_random_uuid(), null, 'c', 'm')",
  "select note_notification_uncertain(gen_random_uuid(), gen_random_uuid(), 'c', 'm')",
  "select mark_notification_undeliverable(gen_random_uuid(), 'failed', 'c', 'm')",
  "select shut_mail_gate(gen_random_uuid(), gen_random_uuid(), null, '0', 'c', 'm', null)",
  "select note_mail_limit(10)",
  "select email, resolved_by from find_person('', '', '', '{}')",
  "select id, email, id_problem, address_problem from check_users('[]')",
  "select added, changed from import_users('[]')",
  "select pause_mail('0', 'm')",
  "select count(distinct id)::int as count from stuck_requests",
  "select id, email, problem from map_entries order by email, id",
];

describe("from the release before", () => {
  test("rows in every state are what they were, and go on from there", async ({ old }) => {
    const directory = previousSql();
    await migrate(old, directory);
    await fill(old);
    const before = await rowsOf(old);

    await migrate(old);

    expect(await migrationProblem(old)).toBeNull();
    const after = await rowsOf(old);
    for (const [table, rows] of Object.entries(before)) {
      expect(after[table]).toHaveLength(rows.length);
      for (const row of rows) expect(after[table]).toContainEqual(expect.objectContaining(row));
    }
    expect(await query(old, "select restore_id, restore_status from request_status")).toHaveLength(
      before["restore_requests"]?.length ?? 0,
    );
    // What was dropped and created again has its comments, too.
    const { silent } = await one(
      old,
      `select count(*)::int as silent from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and obj_description(c.oid, 'pg_class') is null`,
    );
    expect(silent).toBe(0);
    // Due as before: what was in back-off or in somebody's hands comes back by its own time.
    const due = await query(old, "select s3_key from claim_restores_to_trigger(10, 'new') order by s3_key");
    expect(due.map((row) => row["s3_key"])).toEqual([
      "not_started-held.bin",
      "not_started.bin",
      "troubled.bin",
    ]);
    expect(await query(old, "select id from claim_notifications('post', 10, 'new')")).toEqual([]);
    // Nobody knows since when the gate was shut: at least since then.
    expect(
      await query(old, "select from mail_gate_status where closed_since > now() - interval '5 minutes'"),
    ).toHaveLength(1);
    await old.query("update mail_gate set closed_until = now()");
    expect(await query(old, "select id from claim_notifications('post', 10, 'new')")).toHaveLength(2);
    rmSync(directory, { recursive: true });
  });

  test("what is pending is asked about at once, and then when its own time comes, by its workers too", async ({
    old,
  }) => {
    const directory = previousSql();
    await migrate(old, directory);
    const states = { fresh: "1 hours", late: "6 hours", "very late": "26 hours" };
    for (const [s3_key, age] of Object.entries(states))
      await insertRestore(old, "pending", { s3_key, tier: "Standard", accepted_at: ago(age) });
    await insertRestore(old, "pending", {
      s3_key: "in backoff",
      tier: "Standard",
      accepted_at: ago("6 hours"),
      attempt_after: ahead("10 minutes"),
    });
    const before = await one(old, "select pg_relation_filenode('restores') as file");

    await migrate(old);

    // Not written anew.
    expect(await one(old, "select pg_relation_filenode('restores') as file")).toEqual(before);
    // As a worker of that release asks, with a cursor that knows nothing of it.
    const claimed: Row[] = [];
    let cursor = ["-infinity", "00000000-0000-0000-0000-000000000000"];
    for (let page = 0; page < 10; page++) {
      const rows = await query(
        old,
        `select c.id, c.claim_id, c.s3_key, coalesce(c.last_checked_at, c.accepted_at)::text as due_since
           from claim_restores_to_poll(1, '23 hours', $1, $2, 'worker') c`,
        cursor,
      );
      if (rows.length === 0) break;
      claimed.push(...rows);
      cursor = [rows[0]?.["due_since"], rows[0]?.["id"]];
    }
    expect(claimed.map((row) => row["s3_key"])).toHaveLength(3);
    expect(new Set(claimed.map((row) => row["s3_key"]))).toEqual(new Set(Object.keys(states)));
    const outcomes = claimed.map(({ id, claim_id }) => ({
      id,
      claim_id,
      transition: "note_restores_checked",
    }));
    await query(old, "select settle_restores($1, $2)", [JSON.stringify(outcomes), WAITS]);
    expect(
      await query(
        old,
        "select s3_key, round(extract(epoch from ask_after - now()) / 60)::int as minutes from restores order by minutes",
      ),
    ).toEqual([
      { s3_key: "in backoff", minutes: 0 },
      { s3_key: "late", minutes: 60 },
      { s3_key: "fresh", minutes: 240 },
      { s3_key: "very late", minutes: 360 },
    ]);
    // What its worker makes pending has its time, for that is our function.
    const { id } = await insertRestore(old, "not_started", { s3_key: "new" });
    const pending = { id, transition: "mark_restores_pending", tier: "Bulk", storage_class: "GLACIER" };
    await query(old, "select settle_restores($1, $2)", [
      JSON.stringify([{ ...pending, size_bytes: 1, pinned_version_id: "" }]),
      WAITS,
    ]);
    expect(
      await one(
        old,
        "select ask_after - accepted_at = interval '12 hours' as so from restores where id = $1",
        [id],
      ),
    ).toEqual({ so: true });
    rmSync(directory, { recursive: true });
  });

  test("its processes' calls still mean what they meant", async ({ old }) => {
    const directory = previousSql();
    await migrate(old, directory);
    for (const call of CALLS) await query(old, call);
    await migrate(old);
    for (const call of CALLS) await query(old, call);

    // A read of its server, claimed by its worker, settled by it: beside a new worker that leaves both alone.
    await query(old, "select * from request_restores($1, $2, '{}')", [JSON.stringify([aRead()]), WAITS]);
    const claimed = await one(old, "select * from claim_restores_to_trigger(1)");
    expect(await query(old, "select * from claim_restores_to_trigger(1, 'new')")).toEqual([]);
    await query(old, "select reap_dead_workers()");
    const outcome = [
      {
        transition: "mark_restores_restored",
        id: claimed["id"],
        claim_id: claimed["claim_id"],
        storage_class: "GLACIER",
        pinned_version_id: "",
      },
    ];
    await query(old, "select settle_restores($1, $2)", [JSON.stringify(outcome), WAITS]);
    expect(await one(old, "select status::text from restores")).toEqual({ status: "restored" });
    rmSync(directory, { recursive: true });
  });

  test("its servers answer while the database is migrated", async ({ old }) => {
    const directory = previousSql();
    await migrate(old, directory);
    const app = testApp(old, { debounce: { quiet: WAITS[0] as string, max_wait: WAITS[1] as string } });
    const statuses: number[] = [];
    let over = false;
    const callers = Array.from({ length: 8 }, async (_, caller) => {
      for (let read = 0; !over; read++) {
        const response = await postTo(app, "/restore/request", requestBody(`${caller}-${read}.bin`));
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
  const directory = previousSql();
  await migrate(old, directory);
  const APPLIED = "select name, sha256 from thaw_migrations order by name, sha256";
  const applied = await query(old, APPLIED);
  const reader = await old.connect();
  await reader.query("begin");
  await reader.query("select from restores");

  await expect(migrate(old)).rejects.toThrow(/sql\/0010_unused_functions.sql:.*lock timeout/);

  await reader.query("commit");
  reader.release();
  expect(await query(old, APPLIED)).toEqual(applied);
  await migrate(old);
  expect(await migrationProblem(old)).toBeNull();
  rmSync(directory, { recursive: true });
});
