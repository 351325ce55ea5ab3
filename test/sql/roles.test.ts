/** The five database roles: each does its work, and can do nothing else. No superuser takes part. */
import { chown, copyFile, chmod, stat } from "node:fs/promises";
import { join } from "node:path";

import { Client, type Pool } from "pg";
import { describe, expect } from "vitest";

import { waitFor } from "../support/database.ts";
import type { PrivatePostgres } from "../support/private_postgres.ts";
import { type RoleName, test } from "../support/roles.ts";
import { aRead, insertNotification, insertRead, one, query, WAITS } from "../support/rows.ts";
import { BUCKET, JANE, requestBody } from "../support/thaw.ts";

const DENIED = /permission denied/;

/** Names of our functions that run with their owner's rights and that this role may call. */
const callable = async (pool: Pool): Promise<string[]> =>
  (
    await query(
      pool,
      `select p.proname::text as name from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.prosecdef and has_function_privilege(p.oid, 'execute') order by 1`,
    )
  ).map((row) => row["name"] as string);

/** Of what it owns it could change the code, and others would run it. */
const ownedByWorker = async (pool: Pool): Promise<unknown> =>
  (
    await one(
      pool,
      "select count(*)::int as count from pg_shdepend where refobjid = 'thaw_worker'::regrole and deptype = 'o'",
    )
  )["count"];

/** What this role may do with the tables and views of both schemas, as "table: right". */
const rightsOf = async (pool: Pool): Promise<string[]> =>
  (
    await query(
      pool,
      `select n.nspname || '.' || c.relname || ': ' || right_name as it
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
        cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) right_name
        where n.nspname in ('public', 'graphile_worker') and c.relkind in ('r', 'p', 'v')
          and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, right_name)
        order by 1`,
    )
  ).map((row) => row["it"] as string);

test("a server and a worker with a role each bring a read to its end, and no role is a superuser", async ({
  migrated: roles,
  world,
}) => {
  expect(
    await query(
      roles.as("admin"),
      "select rolname from pg_roles where rolname ~ 'thaw_|admin' and (rolsuper or rolbypassrls)",
    ),
  ).toEqual([]);
  const { s3, resend } = world;
  s3.putObject({ bucket: BUCKET, key: "a", storage_class: "GLACIER", body: "a" });
  await roles
    .as("thaw_migrator")
    .query("insert into aws_key_user_map values ($1, 'jane@example.com')", [JANE]);
  const server = world.run(["server"], { DATABASE_URL: roles.urlOf("thaw_server") });
  const worker = world.run(["worker"], { DATABASE_URL: roles.urlOf("thaw_worker") });

  expect(await server.post("/restore/request", requestBody("a"))).toMatchObject({ status: 200 });
  await waitFor("S3 to be asked", async () => s3.counts.get("RestoreObject 202") === 1);
  await waitFor("the first mail", async () => resend.mails.length === 1);
  s3.finishRestore({ bucket: BUCKET, key: "a" });
  const restore_expires_at = s3.look({ bucket: BUCKET, key: "a" })?.expires_at?.toISOString();
  expect(
    await server.post("/restore/completed", { s3_bucket: BUCKET, s3_key: "a", restore_expires_at }),
  ).toMatchObject({
    body: { updated: 1 },
  });
  await waitFor("the ready mail", async () => resend.mails.length === 2);
  expect((await fetch(`${await server.url()}/readyz`)).status).toBe(200);

  // What needs rights that only some tasks use: a poll, people found later, a gate shut, what is over closed.
  const owner = roles.as("thaw_migrator");
  await owner.query("update restores set head_wanted_at = now(), status_at = now() - interval '1 hour'");
  await owner.query(
    "select nudge(task) from unnest(array['poll_pending_restores', 'resolve_users', 'pre_notify']) task",
  );
  await waitFor(
    "the HEAD",
    async () => (await query(owner, "select from restores where head_wanted_at is null")).length === 1,
  );
  await waitFor(
    "an empty queue",
    async () =>
      (await query(owner, "select from graphile_worker.jobs where task_identifier <> 'post_notify'"))
        .length === 0,
  );
  expect(worker.output()).not.toMatch(/"level":"(error|fatal)"/);

  worker.child.kill("SIGTERM");
  server.child.kill("SIGTERM");
  expect([await worker.end(), await server.end()]).toEqual([0, 0]);
  expect(await query(owner, "select from workers")).toEqual([]);
});

/** What people see, and no more. */
const VIEWS = [
  "cost_by_bucket",
  "cost_by_class",
  "cost_by_month",
  "cost_by_person",
  "cost_by_prefix",
  "findings",
  "gauges",
  "held_restores",
  "hold_list",
  "hold_overview",
  "hourly_totals",
  "job_status",
  "limit_list",
  "limit_status",
  "mail_gate_status",
  "mail_status",
  "oldest_waiting",
  "operator_actions",
  "policy_list",
  "price_list",
  "read_silence",
  "recent_failures",
  "request_status",
  "restore_details",
  "restore_overview",
  "restore_readers",
  "restore_steps",
  "silent_buckets",
  "stuck_requests",
  "thaw_health",
  "times_to_readable",
  "told_times",
  "unsent_mails",
  "untold_requests",
  "waiting_looks",
  "worker_status",
];

describe("what a role may not do", () => {
  test("the server: anything but hand in events", async ({ migrated: roles }) => {
    const server = roles.as("thaw_server");
    expect(await rightsOf(server)).toEqual([]);
    expect(await callable(server)).toEqual([
      "applied_sql_files",
      "complete_restores",
      "locked_reads",
      "request_restores",
    ]);
    for (const statement of [
      "select * from restores",
      "select * from stuck_requests",
      "select claim_restores_to_trigger(1)",
      "select reap_dead_workers()",
      "select nudge('trigger_restores')",
      "select graphile_worker.add_job('trigger_restores')",
      "select retry_restore(gen_random_uuid())",
      "select * from thaw_migrations",
      "create table mine (id int)",
      "set role thaw_migrator",
    ]) {
      await expect(server.query(statement), statement).rejects.toThrow(DENIED);
    }
  });

  test("the worker: own anything, or write what the functions do not write", async ({ migrated: roles }) => {
    const worker = roles.as("thaw_worker");
    expect(await ownedByWorker(worker)).toBe(0);
    expect(await callable(worker)).toEqual([
      "add_costs_up",
      "add_totals_up",
      "admit_restores",
      "applied_sql_files",
      "claim_identities",
      "claim_looks",
      "claim_notifications",
      "claim_restores_to_poll",
      "claim_restores_to_trigger",
      "close_finished_restores",
      "drop_looks",
      "due_notices",
      "due_people",
      "enter_worker",
      "forget_failed_jobs",
      "forget_old_actions",
      "forget_old_holds",
      "forget_old_restores",
      "freeze_notification",
      "hand_in_looks",
      "leave_worker",
      "mark_more_readers",
      "mark_notification_sent",
      "mark_notification_undeliverable",
      "note_identities",
      "note_look_troubles",
      "note_mail_limit",
      "note_notification_refused",
      "note_notification_uncertain",
      "note_task_run",
      "nudge",
      "reap_dead_workers",
      "resolve_requests",
      "seal_more",
      "seal_notice",
      "seal_page",
      "settle_holds",
      "settle_restores",
      "shut_mail_gate",
      "take_mail_turn",
      "unfinished_notifications",
      "unseal_stale_notifications",
    ]);
    const jobTables = ["_private_job_queues", "_private_jobs", "_private_known_crontabs", "_private_tasks"];
    expect(await rightsOf(worker)).toEqual([
      ...jobTables.flatMap((table) =>
        ["delete", "insert", "select", "update"].map((right) => `graphile_worker.${table}: ${right}`),
      ),
      ...["graphile_worker.jobs", "graphile_worker.migrations"].map((table) => `${table}: select`),
      "public.announcements: select",
      "public.holds: select",
      "public.limits: select",
      "public.mail_gate: select",
      "public.notices: select",
      "public.notifications: select",
      "public.restore_requests: select",
      "public.restores: select",
      "public.spending: select",
    ]);
    for (const statement of [
      "update restores set status = 'restored'",
      "update notifications set status = 'sent', sent_at = now()",
      "insert into notifications (id, kind, email, body, status) values (gen_random_uuid(), 'pre', 'a@b', '{}', 'sent')",
      "select * from aws_key_user_map",
      "select request_restores('[]', '{}')",
      "select * from import_users('[]')",
      "create table mine (id int)",
      "set role thaw_migrator",
    ]) {
      await expect(worker.query(statement), statement).rejects.toThrow(DENIED);
    }
  });

  test("the worker: have the owner run its code when our functions add a job", async ({
    migrated: roles,
  }) => {
    const worker = roles.as("thaw_worker");
    const { definition } = await one(
      worker,
      `select pg_get_functiondef(p.oid) as definition from pg_proc p
        where p.pronamespace = 'graphile_worker'::regnamespace and p.proname = 'add_job'`,
    );
    const booby_trapped = (definition as string).replace(
      /\bbegin\b/i,
      "begin if current_user <> 'thaw_worker' then grant select on public.aws_key_user_map to thaw_worker; end if;",
    );
    expect(booby_trapped).not.toBe(definition);
    await worker.query(
      "create function pg_temp.mine() returns trigger language plpgsql as 'begin return new; end'",
    );
    for (const statement of [
      booby_trapped,
      "create function graphile_worker.mine() returns int language sql as 'select 1'",
      "create trigger mine before insert on graphile_worker._private_jobs for each row execute function pg_temp.mine()",
      "create rule mine as on insert to graphile_worker._private_jobs do also select 1",
      "create policy mine on graphile_worker._private_jobs using (true)",
      "alter table graphile_worker._private_jobs alter payload set default '{}'",
      "alter table graphile_worker._private_jobs add check (true)",
      "create or replace view graphile_worker.jobs as select 1",
      "delete from graphile_worker.migrations",
    ]) {
      await expect(worker.query(statement), statement).rejects.toThrow(/permission denied|must be owner/);
    }
    await worker.query("select nudge('pre_notify')");
    await expect(worker.query("select * from aws_key_user_map")).rejects.toThrow(DENIED);
  });

  test("a reader: see more than views and jobs", async ({ migrated: roles }) => {
    const reader = roles.as("thaw_reader");
    expect(await rightsOf(reader)).toEqual([
      "graphile_worker.jobs: select",
      ...VIEWS.map((view) => `public.${view}: select`),
    ]);
    expect(await callable(reader)).toEqual(["old_transactions"]);
    for (const view of [...VIEWS, "graphile_worker.jobs"]) await query(reader, `select * from ${view}`);
    expect((await reader.query("select * from mail_status")).fields.map((field) => field.name)).not.toContain(
      "body",
    );
    // Whatever a view calls it: none shows what a mail says, nor the map.
    expect(
      await query(
        roles.as("thaw_migrator"),
        `select distinct w.ev_class::regclass::text as view, d.refobjid::regclass || '.' || a.attname as shows
           from pg_depend d
           join pg_rewrite w on w.oid = d.objid and d.classid = 'pg_rewrite'::regclass
           join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
          where d.refclassid = 'pg_class'::regclass and has_table_privilege('thaw_reader', w.ev_class, 'select')
            and (d.refobjid::regclass || '.' || a.attname = 'notifications.body' or d.refobjid::regclass::text ~ '_user_map$')`,
      ),
    ).toEqual([{ view: "mail_status", shows: "notifications.body" }]);
    await insertNotification(roles.as("thaw_migrator"), { body: '{"subject":"Ready","text":"Hello Jane"}' });
    const shown = JSON.stringify(await query(reader, "select * from mail_status"));
    expect(shown).toContain("Ready");
    expect(shown).not.toContain("Hello");
    for (const statement of [
      "select * from restore_requests",
      "select body from notifications",
      "select * from aws_key_user_map",
      "select payload from graphile_worker._private_jobs",
      "select request_restores('[]', '{}')",
    ]) {
      await expect(reader.query(statement), statement).rejects.toThrow(DENIED);
    }
  });

  test("an operator: see a table, own, change or drop anything, or do a process's work", async ({
    migrated: roles,
  }) => {
    const operator = roles.as("thaw_operator");
    expect(await rightsOf(operator)).toEqual([
      "graphile_worker.jobs: select",
      ...VIEWS.map((view) => `public.${view}: select`),
    ]);
    expect(await callable(operator)).toEqual([
      "applied_sql_files",
      "approve_hold",
      "check_limits",
      "check_read",
      "check_tiers",
      "close_mail_gate",
      "erase_person",
      "find_ids",
      "give_up_restore",
      "import_policies",
      "import_prices",
      "import_users",
      "locked_reads",
      "nudge",
      "old_transactions",
      "open_mail_gate",
      "open_order",
      "order_limits",
      "order_restores",
      "preview_order",
      "refuse_hold",
      "remove_limit",
      "remove_policy",
      "remove_user",
      "resend_notification",
      "resolve_notification",
      "resolve_requests",
      "retry_restore",
      "set_limit",
      "set_policy",
      "who_reads",
    ]);
    for (const statement of [
      "select * from restores",
      "select body from notifications",
      "select * from aws_key_user_map",
      "select * from map_entries",
      "select * from actions",
      "update mail_gate set closed_until = now()",
      "update restore_steps set by = 'nobody'",
      "delete from operator_actions",
      "select mark_notification_sent(gen_random_uuid(), 'r')",
      "select request_restores('[]', '{}')",
      "select forget_old_restores('1 day', 1)",
      "select note_action('retry', 'x', null, '{}', '{}')",
      "create table mine (id int)",
      "set role thaw_migrator",
    ]) {
      await expect(operator.query(statement), statement).rejects.toThrow(DENIED);
    }
    for (const statement of [
      "drop view findings",
      "drop function nudge",
      "alter table restores add column mine int",
      "truncate totals",
    ])
      await expect(operator.query(statement), statement).rejects.toThrow(/must be owner|permission denied/);
  });

  test("who looks at findings: see what others run, in this database or another", async ({
    migrated: roles,
  }) => {
    await roles.asSuperuser("grant pg_read_all_stats to thaw_migrator");
    const others = await roles.as("admin").connect();
    const worker = await roles.as("thaw_worker").connect();
    try {
      await others.query("begin");
      await others.query("select 'a secret of another database'");
      await worker.query("begin isolation level repeatable read");
      await worker.query("select 'a secret of this database'");
      for (const role of ["thaw_reader", "thaw_operator"] as const) {
        const seen = await query(
          roles.as(role),
          "select usename, query from pg_stat_activity where usename in ('admin', 'thaw_worker') and query like '%secret%'",
        );
        expect(seen, role).toEqual([]);
        const found = await query(roles.as(role), "select username from old_transactions(interval '0')");
        expect(found.map(({ username }) => username)).toContain("thaw_worker");
        expect(found.map(({ username }) => username)).not.toContain("admin");
      }
    } finally {
      others.release(true);
      worker.release(true);
      await roles.asSuperuser("revoke pg_read_all_stats from thaw_migrator");
    }
  });

  test("anybody: put a history trigger on a table of its own", async ({ migrated: roles }) => {
    const client = await roles.as("thaw_operator").connect();
    await client.query("create temp table restores (id uuid, status public.restore_status)");
    await expect(
      client.query(
        "create trigger mine after insert on pg_temp.restores referencing new table as new_rows for each statement execute function public.note_opened()",
      ),
    ).rejects.toThrow(DENIED);
    client.release(true);
  });

  test("anybody else who may connect: anything", async ({ migrated: roles }) => {
    const somebody = roles.as("somebody");
    expect(await rightsOf(somebody)).toEqual([]);
    expect(await callable(somebody)).toEqual([]);
  });

  test("a caller: slip a table of its own under a function", async ({ migrated: roles }) => {
    const client = await roles.as("thaw_server").connect();
    await client.query("create temp table restores (id uuid)");
    await client.query("create temp table restore_requests (id uuid)");
    await client.query("set search_path = pg_temp, public");
    await client.query("select * from public.request_restores($1, $2)", [JSON.stringify([aRead()]), WAITS]);
    client.release(true);
    expect(await one(roles.as("thaw_migrator"), "select count(*)::int as count from restores")).toEqual({
      count: 1,
    });
  });
});

test("an operator retries, gives up, sends again, opens the gate and knows people, without the owner's password", async ({
  migrated: roles,
}) => {
  const owner = roles.as("thaw_migrator");
  const operator = roles.as("thaw_operator");
  const { restore } = await insertRead(owner, "not_started", { restore: { s3_key: "a" } });
  const { request } = await insertRead(owner, "pending", { restore: { s3_key: "b" } });
  const mail = await insertNotification(owner, { status: "failed", failure_message: "refused" });
  const unknown = await insertNotification(owner, { status: "unknown", failure_message: "no answer" });

  await operator.query("select retry_restore($1), give_up_restore($2)", [restore["id"], request["id"]]);
  await operator.query("select resend_notification($1), resolve_notification($2, true)", [
    mail["id"],
    unknown["id"],
  ]);
  await operator.query("select close_mail_gate(null, 'to look')");
  await operator.query("select open_mail_gate()");
  await operator.query("select * from import_users($1)", [
    JSON.stringify([{ id: JANE, email: "jane@example.com" }]),
  ]);
  expect(await query(operator, "select * from who_reads($1)", [JANE])).toEqual([
    { email: "jane@example.com", resolved_by: "access_key" },
  ]);
  await operator.query("select remove_user($1)", [JANE]);

  expect(await query(operator, "select distinct actor, role from operator_actions")).toEqual([
    { actor: "thaw_operator", role: "thaw_operator" },
  ]);
  expect(await query(operator, "select action from operator_actions order by id")).toHaveLength(8);
  // The trigger's functions run as the owner, and yet name the operator.
  expect(await one(operator, "select by, code from restore_steps where to_status = 'failed'")).toEqual({
    by: "thaw_operator",
    code: "given_up",
  });
});

test("what a reader or an operator can see or call says what it is", async ({ migrated: roles }) => {
  const silent = await query(
    roles.as("thaw_migrator"),
    `select distinct it.name from unnest(array['thaw_reader', 'thaw_operator']) role
      cross join lateral (
        select p.proname::text as name, obj_description(p.oid, 'pg_proc') as text from pg_proc p
         where p.pronamespace = 'public'::regnamespace and p.prosecdef and has_function_privilege(role, p.oid, 'execute')
         union all
        select c.relname, obj_description(c.oid, 'pg_class') from pg_class c
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and has_table_privilege(role, c.oid, 'select')
         union all
        select c.relname || '.' || a.attname, col_description(c.oid, a.attnum) from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and has_table_privilege(role, c.oid, 'select')) it
      where coalesce(it.text, '') = ''`,
  );
  expect(silent).toEqual([]);
});

test("a client that vanishes keeps no lock for long, and a reader cannot write nor ask for ever", async ({
  migrated: roles,
}) => {
  const settingsOf = async (role: RoleName): Promise<string[]> =>
    (await one(roles.as("admin"), "select rolconfig from pg_roles where rolname = $1", [role]))["rolconfig"];
  expect(await settingsOf("thaw_server")).toEqual(["idle_in_transaction_session_timeout=30s"]);
  expect(await settingsOf("thaw_worker")).toEqual(["idle_in_transaction_session_timeout=60s"]);
  expect(await settingsOf("thaw_operator")).toEqual(["idle_in_transaction_session_timeout=60s"]);
  expect((await settingsOf("thaw_reader")).toSorted()).toEqual([
    "default_transaction_read_only=on",
    "idle_in_transaction_session_timeout=60s",
    "statement_timeout=60s",
  ]);
});

describe("too few rights", () => {
  test("a worker whose role has mere grants refuses to start, and says what to do", async ({
    migrated: roles,
    world,
  }) => {
    // Enough to start and to see no job: row-level security hides them all from who is not the owner.
    const owner = roles.as("thaw_migrator");
    await owner.query(`grant usage on schema graphile_worker to somebody`);
    await owner.query(`grant all on all tables in schema graphile_worker to somebody`);
    await owner.query(`grant all on all functions in schema public to somebody`);
    await owner.query(`grant all on all tables in schema public to somebody`);
    const worker = world.run(["worker"], { DATABASE_URL: roles.urlOf("somebody") });

    expect(await worker.end()).toBe(1);

    expect(worker.output()).toContain("The database role somebody has too few rights for a worker.");
    expect(worker.output()).toContain("thaw_worker");
  });

  test("server and worker do not start with each other's role", async ({ migrated: roles, world }) => {
    for (const [role, wrong] of [
      ["server", "thaw_worker"],
      ["worker", "thaw_server"],
      ["server", "thaw_reader"],
    ] as const) {
      const process = world.run([role], { DATABASE_URL: roles.urlOf(wrong) });
      expect(await process.end(), wrong).toBe(1);
      expect(process.output()).toContain(`The database role ${wrong} has too few rights for a ${role}.`);
    }
  });

  test("a database that is older than its roles is handed over by the next migration", async ({
    unmigrated: roles,
    world,
  }) => {
    await roles.asSuperuser("alter role thaw_worker rename to thaw_worker_later");
    try {
      await roles.migrate();
    } finally {
      await roles.asSuperuser("alter role thaw_worker_later rename to thaw_worker");
      await roles.asSuperuser("alter role thaw_worker password 'thaw_worker'");
    }
    const env = { DATABASE_URL: roles.urlOf("thaw_worker") };
    const tooEarly = world.run(["worker"], env);
    expect(await tooEarly.end()).toBe(1);
    expect(tooEarly.output()).toContain("npm run migrate");

    await roles.migrate();

    const worker = world.run(["worker"], env);
    await worker.says("worker ready");
    await waitFor(
      "its jobs",
      async () => (await query(roles.as("thaw_migrator"), "select from graphile_worker.jobs")).length === 0,
    );
  });
});

describe("too many rights", () => {
  test("who may create in schema public, and is not the owner, refuses to start, and says what to do", async ({
    unmigrated: roles,
    world,
  }) => {
    // As Postgres 14 makes every database. An operator of the server's own would be the owner's to run.
    await roles.asSuperuser(
      "alter schema public owner to current_user; grant usage, create on schema public to public",
    );
    await roles.migrate();
    let mend = "";
    for (const role of ["server", "worker"] as const) {
      const process = world.run([role], { DATABASE_URL: roles.urlOf(`thaw_${role}`) });
      expect(await process.end(), role).toBe(1);
      expect(process.output()).toContain(`The database role thaw_${role} may create in schema public`);
      mend = /Let a superuser run in this database: (.*) \(sql\/README/.exec(process.output())?.[1] ?? "";
    }
    const owner = world.run(["server", "worker"], { DATABASE_URL: roles.urlOf("thaw_migrator") });
    await owner.says("server ready");

    await roles.asSuperuser(mend);

    await expect(
      roles.as("thaw_server").query("create function public.mine() returns int language sql as 'select 1'"),
    ).rejects.toThrow(DENIED);
    await world.run(["server"], { DATABASE_URL: roles.urlOf("thaw_server") }).says("server ready");
    await world.run(["worker"], { DATABASE_URL: roles.urlOf("thaw_worker") }).says("worker ready");
    await roles.migrate();
  });

  test("to create in schema public is taken from everybody by a migration that can", async ({
    unmigrated: roles,
  }) => {
    // Only its owner can. Since 15 that is whoever owns the database; on 14 a superuser has to say so.
    await roles.asSuperuser(`do $$ begin
      if current_setting('server_version_num')::int < 150000 then alter schema public owner to thaw_migrator; end if;
    end $$`);
    await roles.asSuperuser("grant create on schema public to public");
    await roles.migrate();
    await expect(roles.as("somebody").query("create table public.mine (id int)")).rejects.toThrow(DENIED);
  });

  test("a function that is in no list any more loses its owner's rights, and roles theirs", async ({
    migrated: roles,
  }) => {
    // As a process of the release before does, which restarts in the middle of a deploy.
    await roles.as("thaw_migrator").query(`
      alter function lock_restores(uuid[]) security definer set search_path = public, pg_temp;
      grant execute on function lock_restores(uuid[]) to thaw_worker`);
    expect(await callable(roles.as("thaw_worker"))).toContain("lock_restores");
    await roles.migrate();
    expect(await callable(roles.as("thaw_worker"))).not.toContain("lock_restores");
  });

  test("a worker that owns graphile-worker's schema loses it, and goes on working", async ({
    migrated: roles,
    world,
  }) => {
    const worker = roles.as("thaw_worker");
    // As an earlier release left it.
    await roles.as("thaw_migrator").query(`do $$
      declare
        v_object record;
      begin
        alter schema graphile_worker owner to thaw_worker;
        for v_object in
          select format('alter table %s owner to thaw_worker', c.oid::regclass) as command from pg_class c
           where c.relnamespace = 'graphile_worker'::regnamespace and c.relkind in ('r', 'p', 'v')
          union all
          select format('alter routine %s owner to thaw_worker', p.oid::regprocedure) from pg_proc p where p.pronamespace = 'graphile_worker'::regnamespace
        loop
          execute v_object.command;
        end loop;
      end $$`);
    expect(await ownedByWorker(worker)).toBeGreaterThan(10);
    const started = world.run(["worker"], { DATABASE_URL: roles.urlOf("thaw_worker") });
    await started.says("worker ready");

    await roles.migrate();

    expect(await ownedByWorker(worker)).toBe(0);
    await worker.query("select nudge('resolve_users')");
    await waitFor(
      "its jobs",
      async () => (await query(worker, "select from graphile_worker.jobs")).length === 0,
    );
    expect(started.output()).not.toMatch(/"level":"(error|fatal)"/);
    started.child.kill("SIGTERM");
    expect(await started.end()).toBe(0);
    await world.run(["worker"], { DATABASE_URL: roles.urlOf("thaw_worker") }).says("worker ready");
  });
});

test("a role that may not migrate says so, and whom to ask", async ({ unmigrated: roles, world }) => {
  const started = async (role: "thaw_server" | "thaw_worker") => {
    const refusing = world.run(["migrate", "server", "worker"], { DATABASE_URL: roles.urlOf(role) });
    expect(await refusing.end()).toBe(1);
    return refusing.output();
  };
  const empty = await started("thaw_server");
  expect(empty).toMatch(/^The database role thaw_server may not migrate: permission denied for [^\n]*\n$/);
  expect(empty).toContain("Run npm run migrate as the owner of the database (thaw_migrator)");
  await roles.migrate();
  for (const role of ["thaw_server", "thaw_worker"] as const) {
    const output = await started(role);
    expect(output).toMatch(new RegExp(`^The database role ${role} may not migrate: [^\\n]*\\n$`));
    expect(output).toContain("Run npm run migrate as thaw_migrator, who owns the tables");
    expect(output).toContain("npm run server");
  }
});

describe("TLS", () => {
  const TLS = join(import.meta.dirname, "../fixtures/tls");

  /** From here on it speaks TLS, with those who ask for it. */
  const withTls = async (postgres: PrivatePostgres): Promise<void> => {
    const { uid, gid } = await stat(postgres.dataDirectory);
    for (const name of ["server.pem", "server.key"]) {
      const path = join(postgres.dataDirectory, name);
      await copyFile(join(TLS, name), path);
      await chmod(path, 0o600);
      await chown(path, uid, gid);
    }
    const client = new Client({ connectionString: postgres.url });
    await client.connect();
    for (const [setting, value] of [
      ["ssl_cert_file", "server.pem"],
      ["ssl_key_file", "server.key"],
      ["ssl", "on"],
    ]) {
      await client.query(`alter system set ${setting} = '${value}'`);
    }
    await client.query("select pg_reload_conf()");
    await client.end();
  };

  test("is used and checked as the URL says", async ({ migrated: roles, shared, world }) => {
    await withTls(shared);
    const urlWith = (parameters: string): string =>
      `${roles.urlOf("thaw_server", "localhost")}?${parameters}`;
    const trusted = `sslmode=verify-full&sslrootcert=${join(TLS, "ca.pem")}`;
    await waitFor("TLS", async () => {
      const client = new Client({ connectionString: urlWith(trusted) });
      await client.connect();
      await client.end();
      return true;
    });

    const server = world.run(["server"], { DATABASE_URL: urlWith(trusted) });
    await server.url();
    expect(
      await query(
        roles.as("thaw_server"),
        `select distinct s.ssl from pg_stat_ssl s join pg_stat_activity a on a.pid = s.pid
          where a.usename = 'thaw_server' and a.application_name like 'thaw%'`,
      ),
    ).toEqual([{ ssl: true }]);

    const stranger = world.run(["server"], {
      DATABASE_URL: urlWith(`sslmode=verify-full&sslrootcert=${join(TLS, "other_ca.pem")}`),
    });
    expect(await stranger.end()).toBe(1);
    expect(stranger.output()).toMatch(/Postgres cannot be used: .*certificate/);
  });
});
