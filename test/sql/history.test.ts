/** What happened to each restore, who did it, and what is counted for good. */
import { randomUUID } from "node:crypto";

import type { Pool, PoolClient } from "pg";
import { describe, expect } from "vitest";

import { newPool, test } from "../support/database.ts";
import {
  ago,
  ahead,
  aRead,
  insertNotification,
  insertRead,
  insertRestore,
  one,
  query,
  read,
  requestRestores,
  type Row,
  STATES,
  WAITS,
} from "../support/rows.ts";
import { BUCKET } from "../support/thaw.ts";

type Client = Pool | PoolClient;

/** Each step of a restore as "from > to code". */
async function steps(client: Client, restore_id: unknown): Promise<string[]> {
  const rows = await query(
    client,
    "select from_status, to_status, code from restore_history where restore_id = $1 order by id",
    [restore_id],
  );
  return rows.map(({ from_status, to_status, code }) => `${from_status ?? ""} > ${to_status} ${code}`.trim());
}

/** Counts by metric; labels and histogram buckets added up. */
async function counted(client: Client): Promise<Record<string, number>> {
  const rows = await query<{ metric: string; n: number }>(
    client,
    "select metric, sum(n) as n from totals where metric not like '%sum' group by metric",
  );
  return Object.fromEntries(rows.map(({ metric, n }) => [metric, n]));
}

const sessionUser = async (client: Client): Promise<string> =>
  (await one(client, "select session_user::text as name"))["name"] as string;

/** Claims what is due, and settles it. */
async function settle(pool: Pool, transition: string, more: Row = {}, claim = "trigger"): Promise<string> {
  const claims = {
    trigger: "claim_restores_to_trigger(1, 'worker')",
    poll: "claim_restores_to_poll(1, '0')",
  };
  const { id, claim_id } = await one(
    pool,
    `select id, claim_id from ${claims[claim as keyof typeof claims]}`,
  );
  const outcome = {
    id,
    claim_id,
    transition,
    pinned_version_id: "",
    storage_class: "GLACIER",
    size_bytes: 1000,
    ...more,
  };
  await pool.query("select settle_restores($1, $2)", [JSON.stringify([outcome]), WAITS]);
  return id as string;
}

describe("the history of a restore", () => {
  test("has each step of an ordinary one, with who did it", async ({ pool }) => {
    const { request_id } = await read(pool);
    await settle(pool, "mark_restores_pending", { tier: "Standard" });
    await pool.query("update restores set accepted_at = now() - interval '4 hours'");
    const restore_expires_at = ahead("1 days");
    const id = await settle(pool, "mark_restores_restored", { restore_expires_at }, "poll");
    await pool.query(
      "update restores set restore_expires_at = now() - interval '1 hour', status_at = now() - interval '1 day'",
    );
    await pool.query("select close_finished_restores(10)");

    expect(id).toBe(request_id);
    expect(await steps(pool, id)).toEqual([
      "> not_started",
      "not_started > pending",
      "pending > restored",
      "restored > closed",
    ]);
    expect(await query(pool, "select distinct by from restore_history")).toEqual([
      { by: await sessionUser(pool) },
    ]);
  });

  test("notes trouble with its code once, and what it ends in", async ({ pool }) => {
    await read(pool);
    const again = "update restores set attempt_after = now()";
    const trouble = (code: string): Promise<string> =>
      settle(pool, "note_restore_troubles", { code, message: "S3 says no." });
    for (const code of ["AccessDenied", "AccessDenied", "NoSuchBucket"]) {
      await trouble(code);
      await pool.query(again);
    }
    await pool.query("update restores set failing_since = now() - interval '25 hours', attempts = 12");
    const id = await trouble("NoSuchBucket");

    expect(await steps(pool, id)).toEqual([
      "> not_started",
      "not_started > not_started AccessDenied",
      "not_started > not_started NoSuchBucket",
      "not_started > failed NoSuchBucket",
    ]);
  });

  test("notes a restore that S3 lost, and one that begins anew", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending");
    await settle(pool, "mark_restores_lost", {}, "poll");
    const failed = await settle(pool, "mark_restores_failed", { code: "object_not_found", message: "Gone." });
    await pool.query("select retry_restore($1)", [failed]);

    expect(await steps(pool, restore["id"])).toEqual([
      "> pending",
      "pending > not_started restore_lost",
      "not_started > failed object_not_found",
      "failed > closed object_not_found",
    ]);
    const opened = await one(pool, "select id from restores where closed_at is null");
    expect(await steps(pool, opened["id"])).toEqual(["> not_started"]);
  });

  test("has what somebody changes by hand, as that database role", async ({ pool, databaseUrl }) => {
    const { restore } = await insertRead(pool, "pending");
    const role = `dba_${randomUUID().slice(0, 8)}`;
    await pool.query(`create role ${role} login password 'secret'`);
    await pool.query(`grant select, update on restores to ${role}`);
    const url = Object.assign(new URL(databaseUrl), { username: role, password: "secret" });
    const psql = newPool(url.href);
    try {
      await psql.query(
        "update restores set status = 'failed', status_at = now(), failure_code = 'by_hand', failure_message = 'So I say.'",
      );
      await psql.query("update restores set closed_at = now()");
    } finally {
      await psql.end();
      await pool.query(`drop owned by ${role}; drop role ${role}`);
    }
    expect(
      await query(pool, "select to_status, code, by from restore_history where restore_id = $1 order by id", [
        restore["id"],
      ]),
    ).toEqual([
      { to_status: "pending", code: "", by: await sessionUser(pool) },
      { to_status: "failed", code: "by_hand", by: role },
      { to_status: "closed", code: "by_hand", by: role },
    ]);
  });

  test("has the name that a page or command gives, for that transaction only", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started");
    const client = await pool.connect();
    await client.query("begin");
    await client.query("select set_config('thaw.actor', 'kim@ops', true)");
    await client.query("select give_up_restore($1)", [restore["id"]]);
    await client.query("commit");
    await client.query("update restores set closed_at = now()");
    client.release();

    const me = await sessionUser(pool);
    expect(await query(pool, "select to_status, by from restore_history order by id")).toEqual([
      { to_status: "not_started", by: me },
      { to_status: "failed", by: "kim@ops" },
      { to_status: "closed", by: me },
    ]);
    expect(await one(pool, "select actor, role, action from actions")).toEqual({
      actor: "kim@ops",
      role: me,
      action: "give up",
    });
  });

  test("has no row for a statement that moves nothing", async ({ pool }) => {
    for (const state of STATES) await insertRead(pool, state, { restore: { s3_key: state } });
    const before = await query(pool, "select id from restore_history");
    await pool.query("update restores set attempts = attempts + 1, region = 'eu-west-1'");
    await pool.query("update restores set failure_message = 'Other words.' where status = 'failed'");
    expect(await query(pool, "select id from restore_history")).toEqual(before);
  });

  test("takes a statement over very many rows in its stride, also after one over a single row", async ({
    pool,
  }) => {
    const client = await pool.connect();
    // Plans of the first statement of a session stay: with a nested loop the second would compare 20,000 rows with 20,000.
    await client.query("set statement_timeout = '20s'");
    await client.query(
      "insert into restores (id, s3_bucket, s3_key) select gen_random_uuid(), 'b', n::text from generate_series(1, 20000) n",
    );
    const fail = "status = 'failed', status_at = now(), failure_code = 'x', failure_message = 'X.'";
    for (const keys of ["= '1'", "= '2'", "= '3'", "= '4'", "= '5'", "= '6'", "> '6'"])
      await client.query(`update restores set ${fail} where s3_key ${keys}`);
    await client.query(`update restores set ${fail} where status = 'not_started'`);
    client.release(true);
    expect(await counted(pool)).toMatchObject({ reads_opened: 20_000, restores: 20_000 });
  });

  test("goes with its restore, and actions go when they are old", async ({ pool }) => {
    const old = await insertRestore(pool, "closed", { closed_at: ago("31 days") });
    const young = await insertRestore(pool, "closed", { s3_key: "young", closed_at: ago("29 days") });
    for (const days of [31, 29])
      await pool.query(
        "insert into actions (at, actor, action, target) values (now() - $1 * interval '1 day', 'kim', 'retry', $1::text)",
        [days],
      );
    await pool.query("select forget_old_restores('30 days', 100), forget_old_actions('30 days')");

    expect(await steps(pool, old["id"])).toEqual([]);
    expect(await steps(pool, young["id"])).toEqual(["> restored"]);
    expect(await query(pool, "select target from actions")).toEqual([{ target: "29" }]);
  });
});

describe("an open transaction", () => {
  test("that has moved a row holds up no other row, read, mail or sweep", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started", { restore: { s3_key: "held" } });
    const psql = await pool.connect();
    await psql.query("begin");
    await psql.query(
      "update restores set status = 'failed', status_at = now(), failure_code = 'x', failure_message = 'X.' where id = $1",
      [restore["id"]],
    );
    const others = await pool.connect();
    await others.query("set lock_timeout = '2s'");
    const mail = await insertNotification(others);

    await read(others, { s3_key: "other" });
    await others.query("select complete_restores($1, $2)", [
      JSON.stringify([{ id: randomUUID(), s3_bucket: BUCKET, s3_key: "other" }]),
      WAITS,
    ]);
    await others.query(
      "update restores set status = 'failed', status_at = now(), failure_code = 'x', failure_message = 'X.' where s3_key = 'other'",
    );
    await others.query("select mark_notification_sent($1, 'r')", [mail["id"]]);
    await others.query("select note_task_run('pre_notify'), add_totals_up()");
    await others.query("select close_finished_restores(10), forget_old_restores('30 days', 10)");
    expect(await counted(others)).toEqual({ reads: 1, reads_opened: 2, events: 1, restores: 1, mails: 1 });

    await psql.query("commit");
    psql.release();
    others.release(true);
    expect(await counted(pool)).toMatchObject({ restores: 2 });
  });
});

describe("totals", () => {
  test("count reads, events, steps, bytes and times", async ({ pool }) => {
    const key = { s3_key: "film.mov" };
    await read(pool, key);
    await requestRestores(pool, aRead(key), aRead({ s3_key: "other.mov" }));
    await pool.query(
      "update restores set attempt_after = now() + interval '1 day' where s3_key <> 'film.mov'",
    );
    await settle(pool, "mark_restores_pending", { tier: "Standard" });
    await pool.query(
      "update restores set accepted_at = now() - interval '1 hour', created_at = now() - interval '2 hours' where s3_key = 'film.mov'",
    );
    const event = [{ id: randomUUID(), s3_bucket: BUCKET, s3_key: "film.mov" }];
    await pool.query("select complete_restores($1, $2)", [JSON.stringify(event), WAITS]);
    await settle(
      pool,
      "mark_restores_restored",
      { restore_expires_at: ahead("1 days"), tier: "Standard" },
      "poll",
    );

    expect(await counted(pool)).toEqual({
      reads: 3,
      reads_opened: 2,
      accepted: 1,
      estimated_cost: 0,
      events: 1,
      restores: 1,
      restored_bytes: 1000,
      read_to_readable_seconds: 1,
    });
    expect(
      await query(
        pool,
        "select labels, le, n from totals where metric like 'read_to_readable%' order by metric",
      ),
    ).toEqual([
      { labels: { tier: "Standard", storage_class: "GLACIER" }, le: 14_400, n: 1 },
      { labels: { tier: "Standard", storage_class: "GLACIER" }, le: null, n: expect.closeTo(7200, -2) },
    ]);
  });

  test("tell a restore that the poll found from one that an event announced", async ({ pool }) => {
    await insertRead(pool, "pending");
    await settle(pool, "mark_restores_restored", { restore_expires_at: ahead("1 days") }, "poll");
    expect(await counted(pool)).toMatchObject({ completions_lost: 1 });
    // Asked for by a person, and not by an event.
    const { restore } = await insertRead(pool, "pending", { restore: { s3_key: "asked" } });
    await pool.query("select retry_restore($1)", [restore["id"]]);
    await settle(pool, "mark_restores_restored", { restore_expires_at: ahead("1 days") }, "poll");
    expect(await counted(pool)).toMatchObject({ completions_lost: 1, restores: 2 });
    expect(await counted(pool)).not.toHaveProperty("events");
  });

  test("take the time from ready to mail of each reader, and not of the first", async ({ pool }) => {
    // Readable for days; this reader came ten minutes ago.
    const { request } = await insertRead(pool, "restored", {
      restore: { status_at: ago("3 days") },
      request: { requested_at: ago("10 minutes") },
    });
    const mail = await insertNotification(pool);
    await pool.query("update restore_requests set post_notification_id = $1 where id = $2", [
      mail["id"],
      request["id"],
    ]);
    await pool.query("select mark_notification_sent($1, 'r')", [mail["id"]]);
    expect(await one(pool, "select le from totals where metric = 'ready_to_mail_seconds'")).toEqual({
      le: 900,
    });
    expect(await one(pool, "select labels from totals where metric = 'mails'")).toEqual({
      labels: { kind: "post", status: "sent" },
    });
  });

  test("are the same added up, when restores are forgotten, and from many sides at once", async ({
    pool,
  }) => {
    const work = async (worker: number): Promise<void> => {
      for (let turn = 0; turn < 10; turn++) {
        await read(pool, { s3_key: `${worker}-${turn}` });
        if (turn % 3 === 0) await pool.query("select add_totals_up()");
      }
    };
    await Promise.all(Array.from({ length: 6 }, (_, worker) => work(worker)));
    await read(pool, { s3_key: "last" });
    const truth = { reads: 61, reads_opened: 61 };
    expect(await counted(pool)).toEqual(truth);

    const saved = (await one(pool, "select add_totals_up() as saved"))["saved"] as number;
    expect(saved).toBeGreaterThan(0);
    expect(await counted(pool)).toEqual(truth);
    expect((await query(pool, "select from totals")).length).toBe(
      (await query(pool, "select distinct hour, metric from totals")).length,
    );
    expect(await one(pool, "select add_totals_up() as saved")).toEqual({ saved: 0 });

    await pool.query(
      "update restores set status = 'restored', status_at = now() - interval '50 days', closed_at = now() - interval '40 days'",
    );
    await pool.query("select forget_old_restores('30 days', 1000)");
    expect(await query(pool, "select from restores")).toEqual([]);
    expect(await counted(pool)).toMatchObject(truth);
  });

  test("of hours that no chart shows any more become one row, and still count", async ({ pool }) => {
    await pool.query(
      "insert into totals (hour, metric, n, last_at) select now() - n * interval '1 day', 'reads', 1, now() - n * interval '1 day' from generate_series(80, 130) n",
    );
    await pool.query("select add_totals_up()");
    expect(await counted(pool)).toEqual({ reads: 51 });
    expect(
      await one(
        pool,
        "select count(*)::int as rows, count(*) filter (where hour = '-infinity')::int as old from totals",
      ),
    ).toEqual({
      rows: 11,
      old: 1,
    });
    expect(await one(pool, "select read_at > now() - interval '81 days' as last from last_times")).toEqual({
      last: true,
    });
  });

  test("leave out what was rolled back", async ({ pool }) => {
    const client = await pool.connect();
    await client.query("begin");
    await read(client);
    await client.query("rollback");
    client.release();
    expect(await counted(pool)).toEqual({});
  });
});

describe("runs of tasks", () => {
  const run = async (pool: Pool): Promise<Row> =>
    one(
      pool,
      "select succeeded_at is not null as ok, failed_at > coalesce(succeeded_at, '-infinity') as failing, error from task_runs",
    );

  test("are noted with what they failed of, and the first success after it at once", async ({ pool }) => {
    await pool.query("select note_task_run('pre_notify')");
    await pool.query("select note_task_run('pre_notify', 'no route')");
    expect(await run(pool)).toEqual({ ok: true, failing: true, error: "no route" });
    await pool.query("select note_task_run('pre_notify')");
    expect(await run(pool)).toEqual({ ok: true, failing: false, error: "no route" });
  });

  test("are written once in ten seconds", async ({ pool }) => {
    await pool.query("select note_task_run('pre_notify')");
    const first = await one(pool, "select xmin::text as version from task_runs");
    for (let run = 0; run < 5; run++) await pool.query("select note_task_run('pre_notify')");
    expect(await one(pool, "select xmin::text as version from task_runs")).toEqual(first);
  });
});

describe("actions", () => {
  test("of each operators' function say who, what, and before", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started", { restore: { s3_key: "a" } });
    const { restore: other } = await insertRead(pool, "pending", { restore: { s3_key: "b" } });
    const mail = await insertNotification(pool, { status: "failed", failure_message: "refused" });
    await pool.query("select retry_restore($1), give_up_restore($2)", [restore["id"], other["id"]]);
    await pool.query("select resend_notification($1)", [mail["id"]]);
    await pool.query("select close_mail_gate('1 hour', 'to look')");
    await pool.query("select open_mail_gate()");

    expect(
      await query(pool, "select actor, action, target, restore_id, before from actions order by id"),
    ).toMatchObject([
      {
        action: "retry",
        target: restore["id"],
        restore_id: restore["id"],
        before: { status: "not_started" },
      },
      { action: "give up", target: other["id"], restore_id: other["id"], before: { status: "pending" } },
      { action: "send again", target: mail["id"], restore_id: null, before: { status: "failed" } },
      { action: "close the mail gate", target: "mail_gate" },
      { action: "open the mail gate", target: "mail_gate", before: { reason: "to look" } },
    ]);
    expect(await query(pool, "select distinct actor, role from operator_actions")).toEqual([
      { actor: await sessionUser(pool), role: await sessionUser(pool) },
    ]);
  });

  test("that are refused or change nothing leave no row", async ({ pool }) => {
    const { restore } = await insertRead(pool, "closed");
    await pool.query("select retry_restore($1), open_mail_gate()", [restore["id"]]);
    await expect(pool.query("select give_up_restore($1)", [restore["id"]])).rejects.toMatchObject({
      code: "55000",
    });
    expect(await query(pool, "select from actions")).toEqual([]);
  });
});
