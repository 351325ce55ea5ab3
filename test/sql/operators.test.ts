import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import {
  ago,
  ahead,
  everything,
  insertNotification,
  insertRead,
  insertRequest,
  insertRow,
  JOHN,
  nudges,
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
        status: "not_started",
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
    ["pre", "pending"],
    ["post", "restored"],
    ["post", "closed"],
  ] as const)("tells of a %s mail that is overdue, of a %s restore", async ([kind, state], { pool }) => {
    await insertRead(pool, state);
    expect(await problems(pool)).toMatchObject([{ problem: `the ${kind} mail is overdue` }]);
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
    ["failed", "Resend refused a mail"],
    ["unknown", "nobody knows whether a mail was sent"],
  ] as const)(
    "tells of a %s mail, until it is sent again as it says",
    async ([status, problem], { pool }) => {
      await insertRead(pool, "restored");
      const { id } = await told(pool, { status, failure_code: "code", failure_message: "why" });
      const found = await problems(pool);
      expect(found).toMatchObject([
        {
          problem,
          failure_code: "code",
          failure_message: "why",
          what_to_do: `select resend_notification('${id}')`,
        },
      ]);
      await pool.query(found[0]?.["what_to_do"] as string);
      expect(await problems(pool)).toEqual([]);
    },
  );
});
