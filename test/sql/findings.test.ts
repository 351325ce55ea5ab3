/** The list of what needs somebody: each kind makes its row, and a healthy database none. */
import { randomUUID } from "node:crypto";

import { Client, type Pool } from "pg";
import { describe, expect } from "vitest";

import { addOpen, costOf } from "../bench/figures/history.ts";
import { test as base } from "../support/database.ts";
import {
  ago,
  insertNotification,
  insertRead,
  insertRow,
  one,
  query,
  read,
  type Row,
  STATES,
} from "../support/rows.ts";

const test = base.extend<{ alive: Client }>({
  /** In every test: a worker that lives, since yesterday, and whose tasks did their work. */
  alive: [
    async ({ databaseUrl, pool }, use) => {
      const connected = new Client({ connectionString: databaseUrl });
      connected.on("error", () => undefined);
      await connected.connect();
      await connected.query("select enter_worker('alive')");
      await pool.query("update workers set started_at = now() - interval '1 day'");
      for (const { task } of await query(pool, "select task from job_status"))
        await pool.query("select note_task_run($1)", [task]);
      await use(connected);
      await connected.end();
    },
    { auto: true },
  ],
});

const findings = (pool: Pool): Promise<Row[]> => query(pool, "select * from findings");
const count = (pool: Pool, metric: string, hoursAgo: number, n = 1, labels = {}): Promise<Row> =>
  insertRow(pool, "totals", {
    metric,
    n,
    labels,
    hour: ago(`${hoursAgo} hours`),
    last_at: ago(`${hoursAgo} hours`),
  });

/** Readers who were told of it. */
async function told(pool: Pool, more: Row = { status: "sent", sent_at: ago("1 hours") }): Promise<Row> {
  const mail = await insertNotification(pool, { created_at: ago("1 hours"), ...more });
  await pool.query("update restore_requests set pre_notification_id = $1, post_notification_id = $1", [
    mail["id"],
  ]);
  return mail;
}

const refuse = (pool: Pool, wait: string): Promise<Row[]> =>
  query(pool, "select pause_mail($1, 'Resend refuses')", [wait]);

/** As if that time had passed for the gate. */
const pass = (pool: Pool, time: string): Promise<unknown> =>
  pool.query(
    `alter table mail_gate disable trigger user;
     update mail_gate set closed_until = closed_until - interval '${time}', closed_since = closed_since - interval '${time}';
     alter table mail_gate enable trigger user`,
  );

describe("the gate is shut since", () => {
  const minutes = async (pool: Pool): Promise<unknown> =>
    (
      await one(
        pool,
        "select round(extract(epoch from now() - closed_since) / 60)::int as minutes from mail_gate_status",
      )
    )["minutes"];

  test("the first refusal, while the next ones shut it anew", async ({ pool }) => {
    await refuse(pool, "10 minutes");
    expect(await findings(pool)).toMatchObject([{ finding: "mail_gate_closed", since: expect.any(Date) }]);
    await pass(pool, "7 minutes");
    await refuse(pool, "10 minutes");
    expect(await minutes(pool)).toBe(7);
    // It opens by itself, the next mail is refused.
    await pass(pool, "12 minutes");
    expect(await minutes(pool)).toBeNull();
    await refuse(pool, "10 minutes");
    expect(await minutes(pool)).toBe(19);
    await pool.query("select close_mail_gate(null, 'to look')");
    expect(await minutes(pool)).toBe(19);
  });

  test("the refusal after the last mail that got out", async ({ pool }) => {
    const mail = await insertNotification(pool, { status: "sealed" });
    await refuse(pool, "1 minute");
    await pass(pool, "5 minutes");
    await pool.query("select mark_notification_sent($1, 'r')", [mail["id"]]);
    await refuse(pool, "1 minute");
    expect(await minutes(pool)).toBe(0);
  });

  test("the refusal, when it has been open for long, or somebody had opened it", async ({ pool }) => {
    await refuse(pool, "1 minute");
    await pass(pool, "2 hours");
    await refuse(pool, "1 hour");
    expect(await minutes(pool)).toBe(0);
    await pass(pool, "30 minutes");
    await pool.query("select open_mail_gate()");
    await refuse(pool, "1 hour");
    expect(await minutes(pool)).toBe(0);
  });
});

describe("there is none", () => {
  test("when all is well", async ({ pool }) => {
    for (const state of STATES)
      await insertRead(pool, state, { restore: { s3_key: state, attempt_after: ago("1 minutes") } });
    await told(pool);
    for (const hours of [0, 5, 20]) await count(pool, "reads", hours);
    await pool.query("select nudge('trigger_restores')");
    expect(await findings(pool)).toEqual([]);
  });

  test("before the first read", async ({ pool }) => {
    expect(await findings(pool)).toEqual([]);
  });
});

describe("there is one", () => {
  test("when no worker is alive, whatever row a dead one has left", async ({ pool, alive }) => {
    await alive.query("select pg_advisory_unlock(worker_lock('alive'))");
    expect(await findings(pool)).toEqual([
      {
        rank: 1,
        finding: "no_worker",
        problem: "No worker is alive: nothing is restored, and no mail goes out.",
        since: expect.any(Date),
        count: 1,
        what_to_do: "Start one: npm run worker",
      },
    ]);
  });

  test.for([
    [
      "closed_until = now() + interval '1 hour', reason = 'quota'",
      /^No mail goes out: quota$/,
      /^It opens at .* UTC\. Or now, .*: npm run thaw -- gate open$/,
    ],
    ["closed_until = 'infinity', reason = 'a copy'", /: a copy$/, /^Once .*: npm run thaw -- gate open$/],
    [
      "closed_until = now() + interval '1 hour', reason = 'no such sender', sender = 'a@b'",
      /from a@b: no such sender$/,
      /npm run thaw -- gate open$/,
    ],
  ] as const)("when the gate is shut: %s", async ([gate, problem, what_to_do], { pool }) => {
    await pool.query(`update mail_gate set ${gate}`);
    expect(await findings(pool)).toMatchObject([
      {
        finding: "mail_gate_closed",
        problem: expect.stringMatching(problem),
        what_to_do: expect.stringMatching(what_to_do),
      },
    ]);
    await pool.query("select open_mail_gate()");
    expect(await findings(pool)).toEqual([]);
  });

  test("not for a rate limit that ends in a moment", async ({ pool }) => {
    await pool.query(
      "update mail_gate set closed_until = now() + interval '20 seconds', reason = 'rate limit'",
    );
    expect(await findings(pool)).toEqual([]);
  });

  test("when one rate limit follows the other, and no mail gets out between", async ({ pool }) => {
    await refuse(pool, "20 seconds");
    await pass(pool, "5 minutes");
    expect(await findings(pool)).toEqual([]);
    await refuse(pool, "20 seconds");
    expect(await findings(pool)).toMatchObject([{ finding: "mail_gate_closed" }]);
  });

  test("for each problem of stuck_requests, with how many and since when", async ({ pool }) => {
    const trouble = {
      failing_since: ago("20 minutes"),
      failure_code: "AccessDenied",
      failure_message: "No.",
    };
    await insertRead(pool, "not_started", { restore: { s3_key: "1", ...trouble } });
    await insertRead(pool, "not_started", {
      restore: { s3_key: "2", ...trouble, failing_since: ago("3 hours") },
    });
    await insertRead(pool, "not_started", { restore: { s3_key: "3", attempt_after: ago("20 minutes") } });
    await insertRead(pool, "pending", { restore: { s3_key: "4", accepted_at: ago("61 hours") } });
    await insertRead(pool, "restored", { restore: { s3_key: "5" } });
    for (const [key, more] of [
      ["6", { status: "sealed" }],
      ["7", { status: "failed", failure_message: "why" }],
      ["8", { status: "unknown", failure_message: "why" }],
    ] as const) {
      const mail = await insertNotification(pool, { created_at: ago("1 hours"), ...more });
      await insertRead(pool, "restored", {
        restore: { s3_key: key },
        request: { post_notification_id: mail["id"] },
      });
    }

    const found = await findings(pool);

    // Every problem that the view can name is in the list of findings: their counts are those of the view.
    const truth = await query(
      pool,
      `select problem || '.' as problem, count(*)::int as count, min(since) as since from stuck_requests group by problem`,
    );
    expect(truth).toHaveLength(8);
    expect(found.map(({ finding, problem, count, since }) => ({ finding, problem, count, since }))).toEqual(
      expect.arrayContaining(truth.map((row) => ({ finding: "stuck", ...row }))),
    );
    expect(found).toHaveLength(truth.length);
    // One text stands for all rows of a problem.
    expect(
      await query(
        pool,
        "select problem from stuck_requests group by problem having count(distinct what_to_do) > 1",
      ),
    ).toEqual([]);
    expect(found).toContainEqual(
      expect.objectContaining({
        problem: "S3 refuses, or cannot be reached.",
        count: 2,
        since: expect.any(Date),
        what_to_do: "Fix what S3 says is wrong, then: npm run thaw -- retry ID",
      }),
    );
  });

  test("for a task that fails, until it succeeds", async ({ pool }) => {
    await pool.query("select note_task_run('post_notify', 'Resend is away')");
    expect(await findings(pool)).toMatchObject([
      {
        finding: "task_failing",
        problem: "The task post_notify fails: Resend is away",
        since: expect.any(Date),
      },
    ]);
    await pool.query("select note_task_run('post_notify')");
    expect(await findings(pool)).toEqual([]);
  });

  test("for a job that failed for good, until the task succeeds; not for one in its last run", async ({
    pool,
  }) => {
    await pool.query("select graphile_worker.add_job('pre_notify', max_attempts := 1)");
    await pool.query(
      "update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'alive', last_error = 'oh'",
    );
    expect(await findings(pool)).toEqual([]);
    await pool.query(
      "update graphile_worker._private_jobs set locked_at = null, locked_by = null, updated_at = clock_timestamp()",
    );
    expect(await findings(pool)).toMatchObject([
      { finding: "task_failing", problem: "The task pre_notify fails: oh" },
    ]);
    await pool.query("update task_runs set succeeded_at = clock_timestamp() where task = 'pre_notify'");
    expect(await findings(pool)).toEqual([]);
    expect(await one(pool, "select failed::int from job_status where task = 'pre_notify'")).toEqual({
      failed: 1,
    });
  });

  test("for a task that is late, and for one that never succeeded", async ({ pool }) => {
    await pool.query(
      "update task_runs set succeeded_at = now() - interval '16 minutes' where task = 'pre_notify'",
    );
    await pool.query(
      "update task_runs set succeeded_at = now() - interval '14 minutes' where task = 'poll_pending_restores'",
    );
    await pool.query("delete from task_runs where task = 'resolve_users'");
    const late = await findings(pool);
    expect(late).toHaveLength(2);
    expect(late).toMatchObject([
      { finding: "task_late", problem: expect.stringContaining("pre_notify") },
      { finding: "task_late", problem: expect.stringContaining("resolve_users"), since: null },
    ]);
    // A worker that has just started, or is of a release that tells of no success, is not late.
    await pool.query("update workers set started_at = now() - interval '1 minute'");
    expect(await findings(pool)).toEqual([]);
    await pool.query("update workers set started_at = now() - interval '1 day'; delete from task_runs");
    expect(await findings(pool)).toEqual([]);
  });

  test("when no read has come for twice the longest gap, and a day", async ({ pool }) => {
    for (const hours of [25, 30, 40]) await count(pool, "reads", hours);
    expect(await findings(pool)).toMatchObject([
      {
        finding: "no_reads",
        problem: "No read has come for 25 hours; in the 30 days before, the longest gap was 10 hours.",
      },
    ]);
    // Used to a gap of a weekend.
    await count(pool, "reads", 100);
    expect(await findings(pool)).toEqual([]);
    // A read of an object whose restore is open already opens nothing, and is a read.
    await pool.query("delete from totals");
    for (const hours of [30, 31, 32]) await count(pool, "reads", hours);
    expect(await findings(pool)).toMatchObject([{ finding: "no_reads" }]);
    await count(pool, "reads", 0);
    expect(await findings(pool)).toEqual([]);
  });

  test("when no read has come, however much is ordered meanwhile", async ({ pool }) => {
    for (const hours of [25, 30, 40]) await count(pool, "reads", hours);
    const { id } = await one(pool, "select open_order('jane@example.com', 's3://b/', '{}') as id");
    for (const evidence of ["refused", "looked"]) {
      const objects = JSON.stringify([{ id: randomUUID(), s3_bucket: "b", s3_key: evidence, evidence }]);
      await pool.query("select order_restores($1, $2, '{}')", [id, objects]);
    }
    const looks = await query(pool, "select * from claim_looks(10)");
    for (const { claim_id, ids } of looks)
      await pool.query("select hand_in_looks($1, $2, '{}')", [claim_id, ids]);
    expect(await query(pool, "select s3_key from restores")).toHaveLength(2);
    expect((await findings(pool)).map(({ finding }) => finding)).toContain("no_reads");
    // A read beside them is one.
    await read(pool, { principal: null });
    expect((await findings(pool)).map(({ finding }) => finding)).not.toContain("no_reads");
    expect(await one(pool, "select sum(n)::int as n from totals where metric = 'reads'")).toEqual({ n: 4 });
  });

  test("when no read has come for weeks, as long as anybody can know what was usual", async ({ pool }) => {
    for (const days of [35, 36, 37, 38]) await count(pool, "reads", days * 24);
    expect(await findings(pool)).toMatchObject([{ finding: "no_reads" }]);
  });

  test("when restores of a bucket end and S3 sends no event of that bucket, until it does", async ({
    pool,
  }) => {
    await count(pool, "reads", 0);
    const lost = (s3_bucket: string, hoursAgo: number, n: number) =>
      count(pool, "completions_lost", hoursAgo, n, { s3_bucket });
    await lost("quiet", 3, 2);
    // One among many is an accident, and so are two.
    await lost("busy", 3, 1);
    await count(pool, "events", 2, 1000, { s3_bucket: "busy" });
    await lost("busy", 1, 1);
    expect(await findings(pool)).toEqual([]);
    await lost("quiet", 2, 1);
    // Events of others prove nothing.
    await count(pool, "events", 0, 7, {});
    expect(await findings(pool)).toMatchObject([
      {
        finding: "no_events",
        count: 3,
        problem: expect.stringContaining("Restores of the bucket quiet ended"),
        what_to_do: expect.stringMatching(/: npm run doctor -- quiet$/),
      },
    ]);
    expect(await one(pool, "select silent_buckets from thaw_health")).toEqual({ silent_buckets: 1 });
    // A busy one is found within hours, whatever came in the morning.
    await lost("busy", 1, 2);
    expect(await query(pool, "select s3_bucket, lost, last_event_at from silent_buckets order by 1")).toEqual(
      [
        { s3_bucket: "busy", lost: "3", last_event_at: expect.any(Date) },
        { s3_bucket: "quiet", lost: "3", last_event_at: null },
      ],
    );
    // What came later than the poll was late, and not lost.
    await count(pool, "events", 1, 1, { s3_bucket: "busy" });
    await count(pool, "events", 0, 1, { s3_bucket: "quiet" });
    expect(await findings(pool)).toEqual([]);
    // A name that a shell would read is in no command.
    await lost("$(id)", 1, 3);
    expect(await findings(pool)).toMatchObject([{ what_to_do: expect.stringMatching(/npm run doctor$/) }]);
  });

  test("when the events of a few restores may only be late, not yet", async ({ pool }) => {
    await count(pool, "reads", 0);
    await count(pool, "completions_lost", 0, 3, { s3_bucket: "slow" });
    // Of another bucket the last event came this morning.
    await count(pool, "events", 5, 1, { s3_bucket: "other" });
    await count(pool, "completions_lost", 0, 3, { s3_bucket: "other" });
    expect(await findings(pool)).toEqual([]);
    await pool.query("update totals set last_at = last_at - interval '16 minutes'");
    expect(
      (await query(pool, "select s3_bucket from silent_buckets order by 1")).map((row) => row["s3_bucket"]),
    ).toEqual(["other", "slow"]);
  });

  test("while a transaction keeps vacuum from its work", async ({ pool, databaseUrl }) => {
    // Nothing can be an hour old here: the view's own text, with a shorter hour.
    const { text } = await one(pool, "select pg_get_viewdef('findings'::regclass) as text");
    const shorter = (text as string).replace(/'01:00:00'::interval/, "'00:00:00'::interval");
    expect(shorter).not.toBe(text);
    await pool.query(`create or replace view findings as ${shorter}`);
    const psql = new Client({ connectionString: databaseUrl });
    await psql.connect();
    await psql.query("begin; create table mine (id int)");
    const found = (await findings(pool)).filter(({ finding }) => finding === "old_transaction");
    const { pid } = (await psql.query("select pg_backend_pid() as pid")).rows[0];
    await psql.end();
    expect(found).toMatchObject([
      {
        finding: "old_transaction",
        since: expect.any(Date),
        what_to_do: expect.stringContaining(String(pid)),
      },
    ]);
  });
});

test(
  "findings and oldest_waiting cost a few pages, however much is open and untold",
  { timeout: 60_000 },
  async ({ pool }) => {
    await addOpen(pool, 60_000, false);
    await count(pool, "reads", 0);
    await pool.query("vacuum analyze");
    const client = await pool.connect();
    const found = await costOf(client, "select * from findings");
    // It reads the open restores of one state, and nothing that is over.
    const waiting = await costOf(client, "select * from oldest_waiting");
    client.release(true);
    expect(await findings(pool)).toEqual([]);
    expect(found.scanned.filter((table) => !["notifications", "_private_jobs"].includes(table))).toEqual([]);
    expect(found.buffers).toBeLessThan(300);
    expect(waiting.buffers).toBeLessThan(400);
  },
);

test("findings stay quick when very much is stuck, and say so", { timeout: 60_000 }, async ({ pool }) => {
  await addOpen(pool, 60_000);
  await pool.query(
    "update restores set failing_since = now() - interval '1 hour', failure_code = 'x', failure_message = 'X.' where status = 'pending'",
  );
  await pool.query("vacuum analyze");
  const client = await pool.connect();
  const { buffers } = await costOf(client, "select * from findings");
  client.release(true);
  const found = await findings(pool);
  expect(found.length).toBeGreaterThan(2);
  expect(found).toContainEqual(
    expect.objectContaining({ problem: "S3 refuses, or cannot be reached.", count: 1000 }),
  );
  expect(buffers).toBeLessThan(60_000);
});

describe("the views of the whole", () => {
  test("thaw_health has one row on an empty database, and tells the last of each", async ({ pool }) => {
    expect(await query(pool, "select * from thaw_health")).toEqual([
      {
        last_read_at: null,
        last_accepted_at: null,
        last_event_at: null,
        last_mail_at: null,
        not_started: 0,
        pending: 0,
        restored: 0,
        failed: 0,
        oldest_waiting_since: null,
        mails_today: "0",
        mail_gate_is_open: true,
        workers_alive: 1,
        holds_open: 0,
        silent_buckets: 0,
      },
    ]);
    for (const state of STATES) await insertRead(pool, state, { restore: { s3_key: state } });
    await count(pool, "events", 2);
    const mail = await told(pool, {});
    await pool.query("select mark_notification_sent($1, 'r')", [mail["id"]]);
    await count(pool, "mails", 48, 7, { status: "sent", kind: "pre" });
    await pool.query("update mail_gate set closed_until = 'infinity'");
    expect(await query(pool, "select * from thaw_health")).toMatchObject([
      {
        last_read_at: expect.any(Date),
        last_accepted_at: expect.any(Date),
        last_event_at: expect.any(Date),
        last_mail_at: expect.any(Date),
        not_started: 1,
        pending: 1,
        restored: 1,
        failed: 1,
        oldest_waiting_since: expect.any(Date),
        mails_today: "1",
        mail_gate_is_open: false,
      },
    ]);
    expect(
      await query(
        pool,
        "select restore_status, open, oldest_since is not null as has_oldest from restore_overview",
      ),
    ).toEqual(
      ["not_started", "pending", "restored", "failed"].map((restore_status) => ({
        restore_status,
        open: 1,
        has_oldest: true,
      })),
    );
  });

  test("oldest_waiting names what has waited longest, for each thing to wait for", async ({ pool }) => {
    const asked = await insertRead(pool, "not_started", {
      restore: { s3_key: "a", status_at: ago("3 hours") },
    });
    await insertRead(pool, "not_started", { restore: { s3_key: "b", status_at: ago("2 hours") } });
    const pending = await insertRead(pool, "pending", {
      restore: { s3_key: "c", accepted_at: ago("5 hours") },
    });
    const ready = await insertRead(pool, "restored", { restore: { s3_key: "d" } });
    const mail = await insertNotification(pool, { created_at: ago("2 hours") });
    expect(await query(pool, "select waits_for, id from oldest_waiting")).toEqual([
      { waits_for: "S3 to accept the restore", id: asked.restore["id"] },
      { waits_for: "S3 to restore the object", id: pending.restore["id"] },
      { waits_for: "the pre mail to be written", id: pending.request["id"] },
      { waits_for: "the post mail to be written", id: ready.request["id"] },
      { waits_for: "a mail to be sent", id: mail["id"] },
    ]);
  });

  test("recent_failures has open and closed ones of seven days", async ({ pool }) => {
    const { restore: open } = await insertRead(pool, "failed", { restore: { s3_key: "open" } });
    const { restore: closed } = await insertRead(pool, "failed", {
      restore: { s3_key: "closed", status_at: ago("3 days"), closed_at: ago("2 days") },
    });
    await insertRead(pool, "failed", {
      restore: { s3_key: "old", status_at: ago("9 days"), closed_at: ago("8 days") },
    });
    expect(
      await query(pool, "select restore_id, failure_code from recent_failures order by failed_at"),
    ).toEqual([closed, open].map(({ id }) => ({ restore_id: id, failure_code: "object_not_found" })));
  });

  test("told_times and mail_status answer how long it took, and what the mail said", async ({ pool }) => {
    const { request, restore } = await insertRead(pool, "restored");
    const mail = await insertNotification(pool, {
      body: '{"subject":"Your file is ready","to":["jane@example.com"]}',
    });
    const strange = await insertNotification(pool, { body: "no JSON \\u0000", kind: "pre" });
    await insertNotification(pool, { body: null, kind: "pre", email: "john@example.com" });
    await pool.query("update restore_requests set pre_notification_id = $1, post_notification_id = $2", [
      strange["id"],
      mail["id"],
    ]);
    await pool.query("select mark_notification_sent($1, 'r')", [mail["id"]]);
    expect(
      await query(
        pool,
        "select id, restore_id, post_told_at - requested_at > '59 minutes' as took, pre_told_at from told_times",
      ),
    ).toEqual([{ id: request["id"], restore_id: restore["id"], took: true, pre_told_at: null }]);
    expect(
      await query(
        pool,
        "select subject, requests from mail_status order by subject nulls last, requests desc",
      ),
    ).toEqual([
      { subject: "Your file is ready", requests: 1 },
      { subject: null, requests: 1 },
      { subject: null, requests: 0 },
    ]);
    expect(
      await one(
        pool,
        "select s.subject from request_status q join mail_status s on s.id = q.post_notification_id where q.id = $1",
        [request["id"]],
      ),
    ).toEqual({
      subject: "Your file is ready",
    });
  });

  test("a worker's row says whether it is alive", async ({ pool }) => {
    await pool.query("insert into workers (id) values ($1)", [`dead_${randomUUID()}`]);
    expect(await query(pool, "select is_alive from worker_status order by id")).toEqual([
      { is_alive: true },
      { is_alive: false },
    ]);
  });
});
