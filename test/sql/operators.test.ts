import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { test, waitFor } from "../support/database.ts";
import {
  ago,
  ahead,
  everything,
  forgetNudges,
  insertNotification,
  insertRead,
  insertRequest,
  insertRow,
  isWaitedFor,
  JOHN,
  know,
  nudges,
  one,
  query,
  reload,
  requests,
  requestsOf,
  restores,
  type Row,
  STATES,
} from "../support/rows.ts";
import { JANE } from "../support/thaw.ts";

describe("retry_restore", () => {
  const retry = async (pool: Pool, id: unknown): Promise<string> =>
    (await query(pool, "select retry_restore($1) as said", [id]))[0]?.["said"] as string;
  const waiting = {
    attempts: 7,
    attempt_after: ahead("1 hours"),
    failing_since: ago("20 hours"),
    failure_code: "AccessDenied",
    failure_message: "S3 does not let Thaw read this file.",
  };

  test.for([
    ["not_started", "trigger_restores +0", "S3 is asked again now"],
    ["pending", "poll_pending_restores +0", "S3 is asked now how far it is"],
    ["restored", "poll_pending_restores +0", "S3 is asked now whether it is still readable"],
  ] as const)("of a %s restore lets it be asked about now", async ([state, job, said], { pool }) => {
    const { restore } = await insertRead(pool, state, { restore: waiting });

    expect(await retry(pool, restore["id"])).toBe(said);

    expect(await nudges(pool)).toEqual([job]);
    const claim =
      state === "not_started" ? "claim_restores_to_trigger(1)" : "claim_restores_to_poll(1, '23 hours')";
    expect(await query(pool, `select id from ${claim}`)).toEqual([{ id: restore["id"] }]);
  });

  test("of a failed restore begins anew and tells all its readers", async ({ pool }) => {
    const { restore, request } = await insertRead(pool, "failed");
    await insertRequest(pool, restore, { access_key_id: JOHN, email: "john@example.com" });
    const { id } = await insertNotification(pool, { status: "sent", sent_at: ago("30 minutes") });
    await pool.query(
      "update restore_requests set post_notification_id = $2, post_notified = true where id = $1",
      [request["id"], id],
    );

    const said = await retry(pool, restore["id"]);

    const opened = (await restores(pool)).find((row) => row["closed_at"] === null);
    expect(said).toBe(`a new restore begins, and its readers are told: ${opened?.["id"]}`);
    expect(opened).toMatchObject({ status: "not_started" });
    expect(await requestsOf(pool, opened as Row)).toMatchObject([
      { access_key_id: JANE, email: "jane@example.com", post_notified: false, post_notification_id: null },
      { access_key_id: JOHN, email: "john@example.com", post_notified: false },
    ]);
    expect((await reload(pool, restore))["closed_at"]).toBeInstanceOf(Date);
    expect(await nudges(pool)).toEqual(["trigger_restores +0"]);
  });

  test("of a closed restore does nothing and says so", async ({ pool }) => {
    const { restore } = await insertRead(pool, "closed");
    const before = await everything(pool);
    expect(await retry(pool, restore["id"])).toMatch(/^this restore is closed/);
    expect(await everything(pool)).toEqual(before);
  });

  test("takes the id of a request as well", async ({ pool }) => {
    const { request } = await insertRead(pool, "not_started", { restore: waiting });
    expect(await retry(pool, request["id"])).toBe("S3 is asked again now");
  });

  test("says of an unknown id where to find one", async ({ pool }) => {
    const id = randomUUID();
    await expect(retry(pool, id)).rejects.toMatchObject({
      message: `there is no restore or request ${id}`,
      hint: "Take an id from stuck_requests, restores or restore_requests.",
    });
  });
});

describe("resend_notification", () => {
  const resend = async (pool: Pool, id: unknown): Promise<string> =>
    (await query(pool, "select resend_notification($1) as id", [id]))[0]?.["id"] as string;

  async function insertMail(pool: Pool, more: Row): Promise<Row> {
    const { restore } = await insertRead(pool, "restored");
    const notification = await insertNotification(pool, { body: '{"subject":"ready"}', ...more });
    await pool.query("update restore_requests set post_notification_id = $1", [notification["id"]]);
    await insertRow(pool, "announcements", {
      restore_id: restore["id"],
      kind: "post",
      person: "jane@example.com",
      notification_id: notification["id"],
    });
    return notification;
  }

  test("does not wait for ever for a lock that anybody may take", async ({ pool }) => {
    const old = await insertMail(pool, { status: "failed", failure_message: "No such address" });
    const client = await pool.connect();
    await client.query("select pg_advisory_lock(forget_lock())");

    await expect(resend(pool, old["id"])).rejects.toMatchObject({ code: "55P03" });

    await client.query("select pg_advisory_unlock_all()");
    client.release();
    expect(await resend(pool, old["id"])).toEqual(expect.any(String));
  });

  test.for([
    ["sent", { status: "sent", sent_at: ago("1 hours") }],
    ["failed", { status: "failed", failure_message: "No such address" }],
    ["unknown", { status: "unknown", failure_message: "No clear answer" }],
  ] as const)("of a %s mail sends its very body under a new id", async ([, more], { pool }) => {
    const old = await insertMail(pool, more);

    const id = await resend(pool, old["id"]);

    expect(
      await query(
        pool,
        "select id, body, status, superseded_by from notifications order by created_at, status desc",
      ),
    ).toEqual(
      expect.arrayContaining([
        { id: old["id"], body: old["body"] as string, status: more.status, superseded_by: id },
        { id, body: old["body"] as string, status: "sealed", superseded_by: null },
      ]),
    );
    expect(await requests(pool)).toMatchObject([{ post_notification_id: id }]);
    expect(await query(pool, "select notification_id from announcements")).toEqual([{ notification_id: id }]);
    expect(await nudges(pool)).toEqual(["post_notify +0"]);
    await pool.query("select mark_notification_sent($1, 'resend id')", [id]);
    expect(await requests(pool)).toMatchObject([{ post_notified: true }]);

    const before = await everything(pool);
    await expect(resend(pool, old["id"])).rejects.toThrow(
      `notification ${old["id"]} was sent again already, as ${id}`,
    );
    expect(await everything(pool)).toEqual(before);
  });

  test("of a mail that is still being sent refuses", async ({ pool }) => {
    const { id } = await insertMail(pool, {});
    await expect(resend(pool, id)).rejects.toThrow(/is still being sent/);
  });

  test("says of an unknown id where to find one", async ({ pool }) => {
    const id = randomUUID();
    await expect(resend(pool, id)).rejects.toMatchObject({
      message: `there is no notification ${id}`,
      hint: "Take an id from stuck_requests or mail_status.",
    });
  });
});

describe("give_up_restore", () => {
  const giveUp = (pool: Pool, id: unknown) => query(pool, "select give_up_restore($1) as said", [id]);

  test.for(["not_started", "pending"] as const)(
    "ends a %s restore, and its readers are told",
    async (state, { pool }) => {
      const { restore, request } = await insertRead(pool, state, { restore: { claim_id: randomUUID() } });

      expect(await giveUp(pool, request["id"])).toEqual([{ said: "given up; its readers are told" }]);

      expect(await reload(pool, restore)).toMatchObject({
        status: "failed",
        failure_code: "given_up",
        claim_id: null,
        closed_at: null,
      });
      expect(await nudges(pool)).toEqual(["post_notify +0"]);
      expect(await query(pool, "select person from due_people('post', '0', '0', 10) person")).toEqual([
        { person: "jane@example.com" },
      ]);
    },
  );

  test("is not undone by a worker that holds its claim", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started");
    const { id, claim_id } = await one(pool, "select id, claim_id from claim_restores_to_trigger(1, 'w')");
    await giveUp(pool, restore["id"]);
    for (const transition of ["mark_restores_pending", "mark_restores_restored", "note_restore_troubles"])
      await pool.query("select settle_restores($1, '{}')", [
        JSON.stringify([{ id, claim_id, transition, code: "x", message: "X." }]),
      ]);
    expect(await reload(pool, restore)).toMatchObject({ status: "failed", failure_code: "given_up" });
  });

  test.for(["restored", "failed", "closed"] as const)(
    "refuses a %s restore and changes nothing",
    async (state, { pool }) => {
      const { restore } = await insertRead(pool, state);
      const before = await everything(pool);
      await expect(giveUp(pool, restore["id"])).rejects.toMatchObject({
        code: "55000",
        message: `restore ${restore["id"]} is ${state}, there is nothing to give up`,
      });
      expect(await everything(pool)).toEqual(before);
    },
  );

  test("says of an unknown id where to find one", async ({ pool }) => {
    await expect(giveUp(pool, randomUUID())).rejects.toMatchObject({ code: "P0002" });
  });
});

describe("resolve_notification", () => {
  const unknown = async (pool: Pool): Promise<Row> => {
    const mail = await insertNotification(pool, { status: "unknown", failure_message: "no answer" });
    await insertRead(pool, "restored", { request: { post_notification_id: mail["id"] } });
    return mail;
  };

  test("that it was sent marks it and its readers", async ({ pool }) => {
    const mail = await unknown(pool);
    await query(pool, "select resolve_notification($1, true)", [mail["id"]]);
    expect(await one(pool, "select status::text, resend_id from notifications")).toEqual({
      status: "sent",
      resend_id: "noted by an operator",
    });
    expect(await requests(pool)).toMatchObject([{ post_notified: true }]);
  });

  test("that it was not sends it again", async ({ pool }) => {
    const mail = await unknown(pool);
    const { said } = await one(pool, "select resolve_notification($1, false) as said", [mail["id"]]);
    const again = await one(pool, "select id from notifications where status = 'sealed'");
    expect(said).toBe(`sent again, as ${again["id"]}`);
    expect(await requests(pool)).toMatchObject([{ post_notification_id: again["id"] }]);
    await expect(query(pool, "select resolve_notification($1, true)", [mail["id"]])).rejects.toMatchObject({
      code: "55000",
    });
  });

  test.for([
    ["sealed", {}],
    ["sent", { status: "sent", sent_at: ago("1 hours") }],
    ["failed", { status: "failed", failure_message: "refused" }],
  ] as const)("refuses a %s mail", async ([status, more], { pool }) => {
    const mail = await insertNotification(pool, more);
    await expect(query(pool, "select resolve_notification($1, true)", [mail["id"]])).rejects.toMatchObject({
      code: "55000",
      message: `notification ${mail["id"]} is ${status}, not unknown`,
    });
  });
});

describe("the mail gate", () => {
  test("is not shut for a shorter time than it is already, nor for none", async ({ pool }) => {
    await pool.query("select close_mail_gate(null, 'restored from a backup')");
    await expect(
      query(pool, "select close_mail_gate('30 minutes', 'the domain moves')"),
    ).rejects.toMatchObject({
      code: "55000",
      message: "the mail gate is closed for longer already, until somebody opens it: restored from a backup",
    });
    for (const wait of ["0", "-1 hour"])
      await expect(query(pool, "select close_mail_gate($1, 'x')", [wait])).rejects.toMatchObject({
        code: "22023",
      });
    expect(await one(pool, "select is_open, reason from mail_gate_status")).toEqual({
      is_open: false,
      reason: "restored from a backup",
    });
    // For one sender it is open for all others.
    await pool.query("update mail_gate set closed_until = now() + interval '1 day', sender = 'a@b'");
    await pool.query("select close_mail_gate('30 minutes', 'the domain moves')");
  });

  test("stays shut as long as an operator says, and opens when one says so", async ({ pool }) => {
    await insertNotification(pool);
    const claim = () => query(pool, "select id from claim_notifications('post', 1)");
    expect((await one(pool, "select close_mail_gate('2 hours', 'to look') as said"))["said"]).toMatch(
      /^closed until \d{4}-.* UTC$/,
    );
    expect(await claim()).toEqual([]);
    expect(await one(pool, "select is_open, reason from mail_gate_status")).toEqual({
      is_open: false,
      reason: "to look",
    });

    expect(await one(pool, "select close_mail_gate(null, 'a copy') as said")).toEqual({
      said: "closed until somebody opens it",
    });
    // A rate limit that ends sooner does not open it.
    await pool.query("select pause_mail('1 second', 'rate limit')");
    expect(await one(pool, "select reason from mail_gate_status")).toEqual({ reason: "a copy" });

    await forgetNudges(pool);
    expect(await one(pool, "select open_mail_gate() as said")).toEqual({
      said: "opened; it was shut until somebody opens it: a copy",
    });
    expect(await nudges(pool)).toEqual(["post_notify +0", "pre_notify +0"]);
    expect(await one(pool, "select is_open, closed_until, reason from mail_gate_status")).toEqual({
      is_open: true,
      closed_until: null,
      reason: "",
    });
    expect(await claim()).toHaveLength(1);
    expect(await one(pool, "select open_mail_gate() as said")).toEqual({ said: "the mail gate is open" });
  });
});

describe("who_reads", () => {
  test("names the person of a key or an ARN, and the rule", async ({ pool }) => {
    await know(pool, JANE);
    await insertRow(pool, "aws_principal_user_map", {
      principal: "arn:aws:iam::111122223333:user/*",
      email: "john@example.com",
    });
    const who = (id: string, domains: string[] = []) =>
      query(pool, "select * from who_reads($1, $2)", [id, domains]);
    expect(await who(JANE)).toEqual([{ email: "jane@example.com", resolved_by: "access_key" }]);
    expect(await who("arn:aws:iam::111122223333:user/kim")).toEqual([
      { email: "john@example.com", resolved_by: "principal_prefix" },
    ]);
    expect(await who("AKIANOBODY")).toEqual([]);
    const session = "arn:aws:sts::444455556666:assumed-role/Staff/eve@example.com";
    expect(await who(session)).toEqual([]);
    expect(await who(session, ["example.com"])).toEqual([
      { email: "eve@example.com", resolved_by: "session_name" },
    ]);
  });
});

describe("remove_user", () => {
  test("removes a key, and a role as the console writes it, and keeps no address", async ({ pool }) => {
    await know(pool, JANE);
    await insertRow(pool, "aws_principal_user_map", {
      principal: "arn:aws:sts::111122223333:assumed-role/Staff/*",
      email: "john@example.com",
    });
    await query(pool, "select remove_user($1)", [JANE]);
    await query(pool, "select remove_user('arn:aws:iam::111122223333:role/Staff')");
    expect(await query(pool, "select id from map_entries")).toEqual([]);
    const actions = await query(pool, "select action, target, before from actions order by id");
    expect(actions).toEqual([
      {
        action: "remove a user",
        target: JANE,
        before: { email: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) },
      },
      expect.objectContaining({ target: "arn:aws:sts::111122223333:assumed-role/Staff/*" }),
    ]);
    expect(JSON.stringify(actions)).not.toContain("example.com");
  });

  test("says when there is no such entry", async ({ pool }) => {
    await expect(query(pool, "select remove_user('AKIANOBODY')")).rejects.toMatchObject({ code: "P0002" });
    expect(await query(pool, "select from actions")).toEqual([]);
  });
});

describe("erase_person", () => {
  const ADDRESS = "jane.o+x@example.com";
  const SESSION = `arn:aws:sts::111122223333:assumed-role/Staff/${ADDRESS}`;
  const OTHER = "arn:aws:sts::111122223333:assumed-role/Staff/mary.jane.o+x@example.com";

  /** Calls it until nothing is left; how often that was. */
  async function erase(pool: Pool, address = ADDRESS, limit = 500): Promise<number> {
    for (let calls = 1; ; calls++) {
      const { rows } = await one(pool, "select erase_person($1, $2) as rows", [address, limit]);
      if (rows === 0) return calls;
      expect(calls).toBeLessThan(100);
    }
  }

  /** The tables in which this text stands anywhere. */
  async function tablesWith(pool: Pool, text: string): Promise<string[]> {
    const tables = await query(
      pool,
      `select c.oid::regclass::text as name from pg_class c
        where c.relkind in ('r', 'p') and c.relnamespace in ('public'::regnamespace, 'graphile_worker'::regnamespace) order by 1`,
    );
    const found: string[] = [];
    for (const { name } of tables)
      if (
        (
          await query(pool, `select from ${name} t where position(lower($1) in lower(t::text)) > 0 limit 1`, [
            text,
          ])
        ).length > 0
      )
        found.push(name);
    return found;
  }

  async function fill(pool: Pool): Promise<void> {
    await know(pool, JANE, ADDRESS);
    await insertRow(pool, "aws_principal_user_map", { principal: SESSION, email: "boss@example.com" });
    await insertRow(pool, "aws_principal_user_map", { principal: OTHER, email: "mary@example.com" });
    for (const state of STATES) {
      const { restore } = await insertRead(pool, state, {
        restore: { s3_key: state },
        request: { email: ADDRESS.toUpperCase(), resolved_by: "access_key" },
      });
      await insertRequest(pool, restore, {
        access_key_id: "",
        principal: SESSION,
        source_identity: ADDRESS,
        email: ADDRESS,
        resolved_by: "session_name",
      });
      await insertRequest(pool, restore, {
        access_key_id: "",
        principal: SESSION.toUpperCase(),
        email: ADDRESS,
      });
      await insertRequest(pool, restore, {
        access_key_id: "",
        principal: `mailto:${ADDRESS}`,
        email: ADDRESS,
        resolved_by: "named",
      });
      await insertRequest(pool, restore, { access_key_id: "", principal: OTHER, email: "mary@example.com" });
      for (const more of [
        { status: "sent", sent_at: ago("1 hours") },
        { status: "failed", failure_message: `${ADDRESS} is no such address` },
        { status: "sealed" },
      ]) {
        const mail = await insertNotification(pool, {
          email: ADDRESS,
          body: JSON.stringify({ to: [ADDRESS] }),
          ...more,
        });
        await pool.query("insert into announcements values ($1, 'post', $2, $3) on conflict do nothing", [
          restore["id"],
          more.status === "sent" ? ADDRESS : "john@example.com",
          mail["id"],
        ]);
      }
    }
    await pool.query("insert into actions (actor, action, target, before) values ($1, 'retry', $1, $2)", [
      ADDRESS,
      JSON.stringify({ email: ADDRESS, more: [OTHER] }),
    ]);
    await pool.query("select open_order($1, 's3://archive/', '{}')", [ADDRESS]);
    await pool.query("update restore_history set by = $1 where to_status = 'failed'", [ADDRESS]);
    await pool.query("select note_task_run('pre_notify', $1)", [`no mail to ${ADDRESS}`]);
  }

  test("takes an address out of everything, and leaves restores, totals and other people", async ({
    pool,
  }) => {
    await fill(pool);
    const kept = async () => ({
      restores: await restores(pool),
      totals: await query(
        pool,
        "select metric, sum(n) as n from totals where metric <> 'mails' group by metric order by metric",
      ),
      mary: await query(pool, "select * from restore_requests where principal = $1 order by id", [OTHER]),
      readers: (await requests(pool)).length,
      mails: (await query(pool, "select from notifications")).length,
    });
    const before = await kept();

    await erase(pool);

    // Mary's session has it as its end, and is hers.
    expect(await tablesWith(pool, ADDRESS)).toEqual([
      "actions",
      "aws_principal_user_map",
      "restore_requests",
    ]);
    expect(await kept()).toEqual(before);
    await pool.query("delete from restore_requests where principal = $1", [OTHER]);
    await pool.query("delete from aws_principal_user_map");
    await pool.query("update actions set before = '{}' where action = 'retry'");
    expect(await tablesWith(pool, ADDRESS)).toEqual([]);
    expect(
      await query(
        pool,
        "select distinct status::text, email, body, failure_code from notifications order by 1",
      ),
    ).toEqual([
      { status: "failed", email: "erased@erased.invalid", body: "{}", failure_code: "erased" },
      { status: "sent", email: "erased@erased.invalid", body: "{}", failure_code: null },
    ]);
    expect(
      await query(pool, "select action, target from actions where action = 'erase a person' limit 1"),
    ).toEqual([{ action: "erase a person", target: expect.stringMatching(/^sha256:/) }]);
  });

  test("keeps no lock while it reads tables from end to end", async ({ pool }) => {
    await fill(pool);
    const psql = await pool.connect();
    try {
      await psql.query("begin; lock table announcements in access exclusive mode");
      const erased = erase(pool);
      await waitFor("it to have come so far", () => isWaitedFor(pool));
      expect(
        (
          await pool.query("select from restore_requests where lower(email) = $1 for update nowait", [
            ADDRESS,
          ])
        ).rowCount,
      ).toBeGreaterThan(0);
      await pool.query("select from aws_key_user_map for update nowait");
      await psql.query("rollback");
      await erased;
    } finally {
      psql.release(true);
    }
    expect(await tablesWith(pool, `"${ADDRESS}"`)).toEqual([]);
  });

  test("goes on in pages, whoever calls it", async ({ pool }) => {
    await fill(pool);
    const client = await pool.connect();
    await client.query("select set_config('thaw.actor', $1, false)", [ADDRESS]);
    expect(await erase(client as unknown as Pool, ADDRESS, 3)).toBeGreaterThan(8);
    client.release(true);
    await pool.query("update actions set before = '{}' where action = 'retry'");
    expect(await tablesWith(pool, `"${ADDRESS}"`)).toEqual([]);
    expect(await query(pool, "select from notifications where email <> 'erased@erased.invalid'")).toEqual([]);
  });

  test("leaves nothing to send, nothing stuck, and nobody to look up", async ({ pool }) => {
    await know(pool, JANE, ADDRESS);
    const mail = await insertNotification(pool, { email: ADDRESS, status: "sealed" });
    await insertRead(pool, "restored", { request: { email: ADDRESS, post_notification_id: mail["id"] } });
    await erase(pool);
    expect(await query(pool, "select id from claim_notifications('post', 10)")).toEqual([]);
    await pool.query("select resolve_requests(10, '{}', '{example.com}')");
    expect(await requests(pool)).toMatchObject([{ email: null }]);
    expect(await query(pool, "select * from stuck_requests")).toEqual([]);
    await expect(query(pool, "select resend_notification($1)", [mail["id"]])).rejects.toMatchObject({
      code: "55000",
    });
    // Retention finds it, mail and all.
    await pool.query("update restores set closed_at = now() - interval '70 days'");
    await pool.query("select forget_old_restores('30 days', 10)");
    expect(await query(pool, "select from restores")).toEqual([]);
    expect(await query(pool, "select from notifications")).toEqual([]);
  });

  test.for([
    ["being written", { body: null }],
    ["in a worker's hands", { claim_id: randomUUID() }],
    ["perhaps sent", { uncertain_since: ago("1 hours") }],
  ] as const)("refuses while a mail to the person is %s, and changes nothing", async ([, more], { pool }) => {
    await know(pool, JANE, ADDRESS);
    await insertNotification(pool, { email: ADDRESS, ...more });
    const before = await everything(pool);
    await expect(query(pool, "select erase_person($1)", [ADDRESS])).rejects.toMatchObject({ code: "55000" });
    expect(await everything(pool)).toEqual(before);
    expect(await query(pool, "select from aws_key_user_map")).toHaveLength(1);
  });

  test("says when rows are locked, instead of that nothing is left", async ({ pool }) => {
    const { request } = await insertRead(pool, "restored", { request: { email: ADDRESS } });
    const psql = await pool.connect();
    await psql.query("begin");
    await psql.query("select from restore_requests where id = $1 for update", [request["id"]]);
    await expect(query(pool, "select erase_person($1)", [ADDRESS])).rejects.toMatchObject({ code: "55P03" });
    await psql.query("rollback");
    psql.release();
    expect(await erase(pool)).toBe(2);
  });

  test.for(["", "nobody", "erased@erased.invalid", "%@example.com%"])(
    "refuses %s",
    async (address, { pool }) => {
      await expect(query(pool, "select erase_person($1)", [address])).rejects.toMatchObject({
        code: "22023",
      });
    },
  );
});

describe("stuck_requests", () => {
  const problems = (pool: Pool): Promise<Row[]> =>
    query(pool, "select * from stuck_requests order by problem");
  const told = async (pool: Pool, more: Row = { status: "sent", sent_at: ago("1 hours") }): Promise<Row> => {
    const notification = await insertNotification(pool, { created_at: ago("1 hours"), ...more });
    await pool.query("update restore_requests set pre_notification_id = $1, post_notification_id = $1", [
      notification["id"],
    ]);
    return notification;
  };

  test("is empty when all is well", async ({ pool }) => {
    for (const state of STATES) {
      await insertRead(pool, state, { restore: { s3_key: state, attempt_after: ago("1 minutes") } });
    }
    await told(pool);
    await insertRead(pool, "restored", { restore: { s3_key: "new", status_at: ago("1 minutes") } });
    await pool.query("update restore_requests set requested_at = now() where s3_key = 'new'");
    expect(await problems(pool)).toEqual([]);
  });

  test("tells of a restore that S3 refuses, with S3's reason", async ({ pool }) => {
    const failing_since = ago("20 minutes");
    const { request } = await insertRead(pool, "not_started", {
      restore: {
        failing_since,
        failure_code: "AccessDenied",
        failure_message: "S3 does not let Thaw read this file.",
      },
    });
    expect(await problems(pool)).toMatchObject([
      {
        id: request["id"],
        s3_key: "film.mov",
        email: "jane@example.com",
        restore_status: "not_started",
        since: failing_since,
        problem: "S3 refuses, or cannot be reached",
        failure_code: "AccessDenied",
        failure_message: "S3 does not let Thaw read this file.",
      },
    ]);
  });

  test("tells of a restore that nobody works on", async ({ pool }) => {
    await insertRead(pool, "not_started", { restore: { attempt_after: ago("20 minutes") } });
    expect(await problems(pool)).toMatchObject([{ problem: "no worker has asked S3 yet" }]);
  });

  test("tells of a doubt that nobody looks into, as its readers wait", async ({ pool }) => {
    await insertRead(pool, "restored", {
      restore: { attempt_after: ago("2 days"), head_wanted_at: ago("20 minutes") },
    });
    expect(await problems(pool)).toMatchObject([{ problem: "no worker has asked S3 yet" }]);
    await pool.query("update restores set head_wanted_at = now()");
    expect(await problems(pool)).toEqual([]);
  });

  test("tells of a restore that takes longer than S3 ever does", async ({ pool }) => {
    await insertRead(pool, "pending", { restore: { accepted_at: ago("61 hours") } });
    await told(pool);
    expect(await problems(pool)).toMatchObject([{ problem: "S3 takes longer than it ever should" }]);
  });

  test.for([
    ['"being restored"', "pending"],
    ['"ready" or "failed"', "restored"],
    ['"ready" or "failed"', "closed"],
  ] as const)("tells of a mail %s that is overdue, of a %s restore", async ([mail, state], { pool }) => {
    await insertRead(pool, state);
    expect(await problems(pool)).toMatchObject([{ problem: `the mail ${mail} is overdue` }]);
  });

  test("tells of a mail that does not get out, and why", async ({ pool }) => {
    await insertRead(pool, "restored");
    await told(pool, { status: "sealed" });
    await pool.query(
      "update mail_gate set closed_until = now() + interval '1 hour', reason = 'quota exceeded'",
    );
    expect(await problems(pool)).toMatchObject([
      { problem: "a mail is not sent yet", failure_message: "quota exceeded" },
    ]);
  });

  test.for([
    ["failed", "Resend refused a mail", "resend MAIL_ID"],
    ["unknown", "nobody knows whether a mail was sent", "resolve MAIL_ID"],
  ] as const)(
    "tells of a %s mail, until it is sent again as it says",
    async ([status, problem, command], { pool }) => {
      await insertRead(pool, "restored");
      const { id } = await told(pool, { status, failure_code: "code", failure_message: "why" });
      const found = await problems(pool);
      expect(found).toMatchObject([
        {
          problem,
          failure_code: "code",
          failure_message: "why",
          what_to_do: expect.stringContaining(`npm run thaw -- ${command}`),
          mail_id: id,
        },
      ]);
      await pool.query("select resend_notification($1)", [found[0]?.["mail_id"]]);
      expect(await problems(pool)).toEqual([]);
    },
  );
});
