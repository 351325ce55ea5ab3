import { randomUUID } from "node:crypto";

import type { Pool, PoolClient } from "pg";
import { describe, expect } from "vitest";

import { test, waitFor } from "../support/database.ts";
import {
  ago,
  ahead,
  claimInTurn,
  everything,
  forgetNudges,
  insertNotification,
  insertRead,
  insertRequest,
  insertRow,
  JOHN,
  nudges,
  one,
  query,
  read,
  requests,
  type Row,
  sealMail,
  WAITS,
  whileUncommitted,
} from "../support/rows.ts";

const PERSON = "jane@example.com";
type Kind = "pre" | "post";

const duePeople = async (pool: Pool, kind: Kind = "post", limit = 100): Promise<string[]> =>
  (await query(pool, "select person from due_people($1, $2, $3, $4) as person", [kind, ...WAITS, limit])).map(
    (row) => row["person"] as string,
  );

/** Seals what Jane is due to hear, mail and all, and returns how many restores it announces. */
const sealIn = (client: PoolClient, id: string = randomUUID(), kind: Kind = "post"): Promise<number> =>
  sealMail(client, id, kind, PERSON);

async function seal(pool: Pool, id: string = randomUUID(), kind: Kind = "post"): Promise<number> {
  const client = await pool.connect();
  try {
    await client.query("begin");
    const announced = await sealIn(client, id, kind);
    await client.query("commit");
    return announced;
  } finally {
    client.release(true);
  }
}

/** Jane's mail about a file, which she has read under a second key since. */
async function sealBeforeSecondKey(pool: Pool): Promise<string> {
  const { restore } = await insertRead(pool, "restored");
  const id = randomUUID();
  await seal(pool, id);
  await insertRequest(pool, restore, { access_key_id: JOHN });
  return id;
}

const notifications = (pool: Pool): Promise<Row[]> =>
  query(pool, "select * from notifications order by created_at, id");
const age = (pool: Pool, restore: Row, age: string) =>
  pool.query(
    "update restores set status_at = now() - $2::interval, accepted_at = now() - $2::interval where id = $1",
    [restore["id"], age],
  );

describe("a person is due to hear", () => {
  test.for([
    ["pre", "pending"],
    ["post", "restored"],
    ["post", "failed"],
  ] as const)(
    "%s of a %s restore when nothing new has come for the quiet window",
    async ([kind, state], { pool }) => {
      const { restore } = await insertRead(pool, state);
      await age(pool, restore, "119 seconds");
      expect(await duePeople(pool, kind)).toEqual([]);
      expect(await seal(pool, randomUUID(), kind)).toBe(0);

      await age(pool, restore, "121 seconds");
      expect(await duePeople(pool, kind)).toEqual([PERSON]);
      expect(await seal(pool, randomUUID(), kind)).toBe(1);
      expect(await duePeople(pool, kind)).toEqual([]);
    },
  );

  test("when news keep coming, no later than the longest wait after the first", async ({ pool }) => {
    const first = await insertRead(pool, "restored", { restore: { s3_key: "first" } });
    const last = await insertRead(pool, "restored", { restore: { s3_key: "last" } });
    await age(pool, last.restore, "1 second");
    await age(pool, first.restore, "899 seconds");
    expect(await duePeople(pool)).toEqual([]);
    await age(pool, first.restore, "901 seconds");
    expect(await duePeople(pool)).toEqual([PERSON]);
    expect(await seal(pool)).toBe(2);
  });

  test("counting from the later of read and status", async ({ pool }) => {
    const { restore, request } = await insertRead(pool, "restored");
    await pool.query("update restore_requests set requested_at = now() - interval '1 minute'");
    expect(await duePeople(pool)).toEqual([]);
    await insertRequest(pool, restore, { access_key_id: JOHN, email: "john@example.com" });
    expect(await duePeople(pool)).toEqual(["john@example.com"]);
    await pool.query("update restore_requests set requested_at = $2 where id = $1", [
      request["id"],
      ago("3 minutes"),
    ]);
    expect((await duePeople(pool)).toSorted()).toEqual([PERSON, "john@example.com"]);
  });

  test("and repeats do not move the window", async ({ pool }) => {
    await insertRead(pool, "pending");
    await read(pool);
    expect(await requests(pool)).toMatchObject([{ read_count: 2 }]);
    expect(await duePeople(pool, "pre")).toEqual([PERSON]);
  });

  test("nothing that is not their kind of news, or that they were told", async ({ pool }) => {
    await insertRead(pool, "not_started", { restore: { s3_key: "1" } });
    await insertRead(pool, "pending", { restore: { s3_key: "2" } });
    await insertRead(pool, "restored", { restore: { s3_key: "3" }, request: { email: null } });
    const told = await insertRead(pool, "restored", { restore: { s3_key: "4" } });
    const { id } = await insertNotification(pool);
    await pool.query("update restore_requests set post_notification_id = $2 where id = $1", [
      told.request["id"],
      id,
    ]);
    expect(await duePeople(pool, "post")).toEqual([]);
    expect(await duePeople(pool, "pre")).toEqual([PERSON]);
  });

  test("nothing while S3 is asked whether it is still readable", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", { restore: { head_wanted_at: ago("1 minutes") } });
    expect(await duePeople(pool)).toEqual([]);
    expect(await seal(pool)).toBe(0);
    await pool.query("update restores set head_wanted_at = null where id = $1", [restore["id"]]);
    expect(await duePeople(pool)).toEqual([PERSON]);
  });

  test("those with the oldest news first, without those whom a run has tried already", async ({ pool }) => {
    for (const [index, name] of ["d", "B", "a", "C"].entries()) {
      const { restore } = await insertRead(pool, "restored", {
        restore: { s3_key: name },
        request: { email: `${name}@example.com`, requested_at: ago("3 hours") },
      });
      await age(pool, restore, `${60 - index} minutes`);
    }
    expect(await duePeople(pool, "post", 3)).toEqual(["d@example.com", "b@example.com", "a@example.com"]);
    const passed = await query(
      pool,
      "select person from due_people('post', $1, $2, 3, '', '{d@example.com,a@example.com}') as person",
      WAITS,
    );
    expect(passed.map((row) => row["person"])).toEqual(["b@example.com", "c@example.com"]);
  });

  test("though thousands of files of somebody who goes on reading are older", async ({ pool }) => {
    await pool.query(
      `with r as (insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, restore_expires_at)
                  select gen_random_uuid(), 'b', 'k' || n, 'restored', now() - interval '10 minutes' + n * interval '100 ms', now(), now() + interval '1 day'
                    from generate_series(0, 6000) n returning *)
       insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, requested_at, last_read_at)
       select gen_random_uuid(), id, s3_bucket, s3_key, 'A', 'busy@example.com', true, status, status_at, now() - interval '1 hour', now() from r`,
    );
    const { restore } = await insertRead(pool, "restored", { request: { requested_at: ago("1 hours") } });
    await age(pool, restore, "3 minutes");
    expect(await duePeople(pool)).toEqual([PERSON]);
  });
});

describe("sealing", () => {
  test("attaches all that is due to one mail, and nudges whoever sends it", async ({ pool }) => {
    for (let file = 1; file <= 3; file++) {
      await insertRead(pool, "restored", { restore: { s3_key: `file ${file}` } });
    }
    const id = randomUUID();
    expect(await seal(pool, id)).toBe(3);

    expect((await requests(pool)).map((row) => row["post_notification_id"])).toEqual([id, id, id]);
    expect(await requests(pool)).toMatchObject(
      Array.from({ length: 3 }, () => ({ post_notified: false, pre_notification_id: null })),
    );
    expect(await nudges(pool)).toEqual(["post_notify +0"]);
  });

  test("nothing due changes nothing", async ({ pool }) => {
    await insertRead(pool, "pending");
    const before = await everything(pool);
    expect(await seal(pool)).toBe(0);
    expect(await everything(pool)).toEqual(before);
  });

  test("lists an object once, whatever keys and spellings its reader used", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", { request: { email: "Jane@Example.com" } });
    await insertRequest(pool, restore, { access_key_id: JOHN, email: PERSON });
    expect(await duePeople(pool)).toEqual([PERSON]);

    const id = randomUUID();
    expect(await seal(pool, id)).toBe(1);

    expect((await requests(pool)).map((row) => row["post_notification_id"])).toEqual([id, id]);
    expect(await query(pool, "select person from announcements")).toEqual([{ person: PERSON }]);
  });

  test.for([
    ["sent", true],
    ["sealed", false],
  ] as const)(
    "a second key that comes when the mail is %s is told by that mail, not by another",
    async ([status, told], { pool }) => {
      const { restore } = await insertRead(pool, "restored");
      const id = randomUUID();
      await seal(pool, id);
      if (status === "sent") await pool.query("select mark_notification_sent($1, 'resend')", [id]);
      await insertRequest(pool, restore, { access_key_id: JOHN });
      await forgetNudges(pool);

      expect(await seal(pool)).toBe(0);

      expect(await requests(pool)).toMatchObject([
        { post_notification_id: id, post_notified: told },
        { post_notification_id: id, post_notified: told },
      ]);
      expect(await notifications(pool)).toHaveLength(1);
      expect(await nudges(pool)).toEqual([]);
      expect(await duePeople(pool)).toEqual([]);
      await pool.query("select mark_notification_sent($1, 'resend')", [id]);
      expect(await requests(pool)).toMatchObject([{ post_notified: true }, { post_notified: true }]);
    },
  );

  test("tells of each restore of an object anew", async ({ pool }) => {
    await insertRead(pool, "closed");
    expect(await seal(pool)).toBe(1);
    await insertRead(pool, "restored");
    expect(await seal(pool)).toBe(1);
  });

  test("by two workers at once makes one mail", async ({ pool }) => {
    await insertRead(pool, "restored");
    const announced = await whileUncommitted(
      pool,
      (client) => sealIn(client),
      () => seal(pool),
    );
    expect(announced).toBe(0);
    expect(await notifications(pool)).toHaveLength(1);
    expect(await query(pool, "select from announcements")).toHaveLength(1);
  });

  test("without a mail cannot be committed", async ({ pool }) => {
    await insertRead(pool, "restored");
    const before = await everything(pool);
    await expect(
      pool.query("select seal_page($1, 'post', $2, $3, $4)", [randomUUID(), PERSON, ...WAITS]),
    ).rejects.toMatchObject({ code: "23503" });
    expect(await everything(pool)).toEqual(before);
  });

  test("waits for a mail that is marked sent just now, so that nobody told looks untold", async ({
    pool,
  }) => {
    const id = await sealBeforeSecondKey(pool);

    await whileUncommitted(
      pool,
      (client) => client.query("select mark_notification_sent($1, 'resend')", [id]),
      () => seal(pool),
    );
    expect(await requests(pool)).toMatchObject([{ post_notified: true }, { post_notified: true }]);
  });

  test("holds no request of an earlier mail while it waits for that, or they would wait in a circle", async ({
    pool,
  }) => {
    const id = await sealBeforeSecondKey(pool);

    await whileUncommitted(
      pool,
      (client) => client.query("select from notifications where id = $1 for no key update", [id]),
      () => seal(pool),
      // As mark_notification_sent goes on.
      (client) =>
        client.query("select from restore_requests where post_notification_id = $1 for no key update", [id]),
    );
    expect(await requests(pool)).toMatchObject([{ post_notification_id: id }, { post_notification_id: id }]);
  });

  test("is marked sent only after a second key has been attached", async ({ pool }) => {
    const id = await sealBeforeSecondKey(pool);

    await whileUncommitted(
      pool,
      (client) => sealIn(client),
      () => pool.query("select mark_notification_sent($1, 'resend')", [id]),
    );
    expect(await requests(pool)).toMatchObject([{ post_notified: true }, { post_notified: true }]);
  });

  test("holds no request while it waits for a restore, or they would wait in a circle", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending");
    await whileUncommitted(
      pool,
      (client) => client.query("select from restores where id = $1 for update", [restore["id"]]),
      () => seal(pool, randomUUID(), "pre"),
      // Reaches for the requests, too.
      (client) => client.query("update restores set status_at = $1", [ago("30 minutes")]),
    );
    expect(await notifications(pool)).toMatchObject([{ kind: "pre" }]);
  });

  /** S3 says that it can be read. */
  const ready = async (client: Pool | PoolClient, { id, claim_id }: Row) =>
    client.query("select settle_restores($1, $2)", [
      JSON.stringify([
        { id, claim_id, transition: "mark_restores_restored", restore_expires_at: ahead("7 days") },
      ]),
      WAITS,
    ]);

  test("keeps a transition of its restores waiting until it is done", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending", { restore: { claim_id: randomUUID() } });
    await whileUncommitted(
      pool,
      (client) => sealIn(client, randomUUID(), "pre"),
      () => ready(pool, restore),
    );
    expect(await requests(pool)).toMatchObject([
      { restore_status: "restored", pre_notification_id: expect.any(String) as string },
    ]);
  });

  test("a restore that moves meanwhile is told of as it is when its seal has the lock", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending", { restore: { claim_id: randomUUID() } });
    const announced = await whileUncommitted(
      pool,
      (client) => ready(client, restore),
      () => seal(pool, randomUUID(), "pre"),
    );
    expect(announced).toBe(0);
    expect(await requests(pool)).toMatchObject([{ restore_status: "restored", pre_notification_id: null }]);
  });
});

describe("a sealed mail", () => {
  const claim = (pool: Pool, kind: Kind = "post"): Promise<Row[]> =>
    query(pool, "select * from claim_notifications($1, 10)", [kind]);
  const due = (pool: Pool) => pool.query("update notifications set attempt_after = now()");

  test("is claimed once, with its frozen body, until its lease is over", async ({ pool }) => {
    const { id } = await insertNotification(pool, { body: '{"subject":"ready"}' });
    await insertNotification(pool, { kind: "pre" });
    expect(await claim(pool)).toEqual([
      {
        id,
        claim_id: expect.any(String) as string,
        email: PERSON,
        body: '{"subject":"ready"}',
        uncertain_since_before: null,
        calls_per_second: 2,
      },
    ]);
    expect(await claim(pool)).toEqual([]);
    await due(pool);
    const [again] = await claim(pool);
    expect(again).toMatchObject({ id, uncertain_since_before: expect.any(Date) as Date });
  });

  test("is not shared by two workers", async ({ pool }) => {
    await insertNotification(pool);
    let mine: Row[] = [];
    const theirs = await whileUncommitted(
      pool,
      async (client) => (mine = await query(client, "select id from claim_notifications('post', 10)")),
      () => query(pool, "select id from claim_notifications('post', 10)"),
    );
    expect([mine.length, theirs.length]).toEqual([1, 0]);
  });

  test("that was perhaps sent 23 hours ago is never sent again", async ({ pool }) => {
    await insertNotification(pool, {
      uncertain_since: ago("22 hours"),
      attempts: 5,
      failure_code: "timeout",
      failure_message: "no answer",
    });
    expect(await claim(pool)).toHaveLength(1);
    await pool.query("update notifications set attempt_after = now(), uncertain_since = $1", [
      ago("23 hours"),
    ]);
    expect(await claim(pool)).toEqual([]);
    expect(await notifications(pool)).toMatchObject([
      {
        status: "unknown",
        failure_code: "unknown_outcome",
        failure_message: expect.stringMatching(
          /may have sent this mail or not. Last answer: no answer$/,
        ) as string,
      },
    ]);
  });

  test("in flight past the horizon is left to its worker", async ({ pool }) => {
    await insertNotification(pool, { uncertain_since: ago("24 hours"), attempt_after: ahead("1 minutes") });
    expect(await claim(pool)).toEqual([]);
    expect(await notifications(pool)).toMatchObject([{ status: "sealed" }]);
  });

  test("waits while the gate is closed", async ({ pool }) => {
    await insertNotification(pool);
    await pool.query("update mail_gate set closed_until = now() + interval '1 minute'");
    expect(await claim(pool)).toEqual([]);
    await pool.query("update mail_gate set closed_until = now() - interval '1 second'");
    expect(await claim(pool)).toHaveLength(1);
  });

  test.for([
    ["never", null],
    ["once", ago("2 hours")],
  ] as const)(
    "that was certainly refused is as before its claim, %s perhaps sent",
    async ([, uncertain_since], { pool }) => {
      await insertNotification(pool, { uncertain_since, attempts: 3 });
      const [claimed] = await claim(pool);
      await pool.query("select shut_mail_gate($1, $2, $3, '10 minutes', 'rate_limit', 'Too many')", [
        claimed?.["id"],
        claimed?.["claim_id"],
        claimed?.["uncertain_since_before"],
      ]);
      expect(await notifications(pool)).toMatchObject([
        {
          status: "sealed",
          attempts: 3,
          uncertain_since,
          failure_code: "rate_limit",
          failure_message: "Too many",
        },
      ]);
      expect(await query(pool, "select reason, closed_until > now() as closed from mail_gate")).toEqual([
        { reason: "Too many", closed: true },
      ]);
      expect(await nudges(pool)).toEqual(["post_notify +600", "pre_notify +600"]);
      expect(await claim(pool)).toEqual([]);
    },
  );

  test("keeps the gate closed for the longest wait that anybody was told", async ({ pool }) => {
    const shut = (wait: string) =>
      pool.query("select shut_mail_gate($1, $1, null, $2, 'code', 'reason')", [randomUUID(), wait]);
    await shut("1 hour");
    await shut("1 second");
    expect(
      await query(pool, "select closed_until > now() + interval '50 minutes' as closed from mail_gate"),
    ).toEqual([{ closed: true }]);
  });

  test("perhaps sent is tried again when the delay of its claim is over", async ({ pool }) => {
    await insertNotification(pool);
    const [claimed] = await claim(pool);
    await pool.query("select note_notification_uncertain($1, $2, 'timeout', 'no answer')", [
      claimed?.["id"],
      claimed?.["claim_id"],
    ]);
    expect(await notifications(pool)).toMatchObject([
      { status: "sealed", attempts: 1, failure_code: "timeout", uncertain_since: expect.any(Date) as Date },
    ]);
    expect(await nudges(pool)).toEqual(["post_notify +60"]);
  });

  test("does not listen to a claim that another worker has taken since", async ({ pool }) => {
    const { id } = await insertNotification(pool);
    await claim(pool);
    const before = await notifications(pool);
    const stale = randomUUID();
    await pool.query("select note_notification_uncertain($1, $2, 'timeout', 'no answer')", [id, stale]);
    await pool.query("select shut_mail_gate($1, $2, null, '1 second', 'code', 'reason')", [id, stale]);
    expect(await notifications(pool)).toEqual(before);
  });

  test.for(["sealed", "failed", "unknown"] as const)(
    "%s that Resend did take is sent, and only now its readers count as told",
    async (status, { pool }) => {
      await insertRead(pool, "restored");
      const id = randomUUID();
      await seal(pool, id);
      await pool.query("update notifications set status = $1, failure_message = 'why'", [status]);

      await pool.query("select mark_notification_sent($1, 'resend id')", [id]);

      expect(await notifications(pool)).toMatchObject([
        { status: "sent", resend_id: "resend id", sent_at: expect.any(Date) as Date, failure_message: null },
      ]);
      expect(await requests(pool)).toMatchObject([{ post_notified: true, pre_notified: false }]);
      const after = await everything(pool);
      await pool.query("select mark_notification_sent($1, 'another id')", [id]);
      expect(await everything(pool)).toEqual(after);
    },
  );

  test.for(["failed", "unknown"] as const)(
    "that is %s says why, and stays sent if it was",
    async (status, { pool }) => {
      const { id } = await insertNotification(pool);
      const sent = await insertNotification(pool, { status: "sent", sent_at: ago("1 minutes") });
      for (const notification of [id, sent["id"]]) {
        await pool.query(
          "select mark_notification_undeliverable($1, $2, 'validation_error', 'No such address')",
          [notification, status],
        );
      }
      expect(await notifications(pool)).toMatchObject(
        expect.arrayContaining([
          expect.objectContaining({ id, status, failure_message: "No such address" }) as Row,
          expect.objectContaining({ id: sent["id"], status: "sent", failure_message: null }) as Row,
        ]) as Row[],
      );
      expect(await claim(pool)).toEqual([]);
    },
  );
});

test("an announcement belongs to a mail that exists", async ({ pool }) => {
  const { restore } = await insertRead(pool, "restored");
  await expect(
    insertRow(pool, "announcements", {
      restore_id: restore["id"],
      kind: "post",
      person: PERSON,
      notification_id: randomUUID(),
    }),
  ).rejects.toMatchObject({ code: "23503" });
});

describe("Resend's pace", () => {
  const claim = async (pool: Pool): Promise<number> => (await claimInTurn(pool, "post")).length;
  const waits = async (pool: Pool): Promise<number> =>
    (await one(pool, "select extract(epoch from next_call_at - now())::float8 as seconds from mail_gate"))[
      "seconds"
    ] as number;

  test("is two a second until Resend has told it, whoever claims", async ({ pool }) => {
    for (let mail = 0; mail < 3; mail++) await insertNotification(pool);
    expect(await Promise.all([claim(pool), claim(pool)]).then((counts) => counts.toSorted())).toEqual([0, 1]);
    expect(await waits(pool)).toBeGreaterThan(0.2);
    expect(await waits(pool)).toBeLessThan(0.53);
    await waitFor("the next turn", async () => (await claim(pool)) === 1);
  });

  test("is what Resend says, at once", async ({ pool }) => {
    await insertNotification(pool);
    await claim(pool);
    await pool.query("select note_mail_limit(100)");
    expect(await waits(pool)).toBeLessThan(0.02);
    for (let mail = 0; mail < 30; mail++) await insertNotification(pool);
    const started = performance.now();
    let claimed = 0;
    while (claimed < 30) claimed += await claim(pool);
    // 30 turns of a little more than 10 ms, the first at once.
    expect(performance.now() - started).toBeGreaterThan(270);
  });

  const turn = async (pool: Pool): Promise<number | null> =>
    (await one(pool, "select take_mail_turn('post') as wait_ms"))["wait_ms"] as number | null;

  test("gives turns ahead of time, and who comes late for one pushes no other back", async ({ pool }) => {
    await insertNotification(pool);
    await pool.query("update mail_gate set next_call_at = now() + interval '4 seconds'");
    const { next_call_at } = await one(pool, "select next_call_at::text from mail_gate");
    const first = (await turn(pool)) ?? NaN;
    expect(first).toBeGreaterThan(0);
    expect(first).toBeLessThanOrEqual(4_000);
    expect(await turn(pool)).toBeGreaterThan(first);
    // Two turns, whatever time it took to take them.
    const { taken } = await one(
      pool,
      "select extract(epoch from next_call_at - $1::timestamptz)::float8 as taken from mail_gate",
      [next_call_at],
    );
    expect(taken).toBeCloseTo(2 / (2 * 0.97), 3);
    // Claimed in that turn, whatever turns were given since; without one there is nothing to claim.
    expect(await claim(pool)).toBe(0);
    expect(await query(pool, "select from claim_notifications('post', 1, 'worker', true)")).toHaveLength(1);
    expect(await turn(pool)).toBeNull();
  });

  test("lies no further ahead than anybody takes a turn: Postgres' clock may be set back", async ({
    pool,
  }) => {
    await insertNotification(pool);
    await pool.query("update mail_gate set next_call_at = now() + interval '10 minutes'");
    expect(await turn(pool)).toBeLessThanOrEqual(5_000);
    expect(await waits(pool)).toBeLessThan(6);
  });

  test("is not taken when it is further ahead than who asks would wait", async ({ pool }) => {
    await insertNotification(pool);
    await pool.query("update mail_gate set next_call_at = now() + interval '4 seconds'");
    const before = await one(pool, "select next_call_at from mail_gate");
    const ask = "select take_mail_turn('post', 'Thaw <thaw@example.com>', '1 second') as wait_ms";
    expect((await one(pool, ask))["wait_ms"]).toBeGreaterThan(1_000);
    expect(await one(pool, "select next_call_at from mail_gate")).toEqual(before);
    await pool.query("update mail_gate set next_call_at = '-infinity'");
    expect((await one(pool, ask))["wait_ms"]).toBe(0);
  });

  test("gives no turn while the gate is shut, unless it opens in seconds", async ({ pool }) => {
    await insertNotification(pool);
    const shut = (wait: string) =>
      pool.query(
        `update mail_gate set next_call_at = '-infinity', closed_until = now() + interval '${wait}'`,
      );
    await shut("1 minute");
    expect(await turn(pool)).toBeNull();
    await shut("4 seconds");
    expect(await turn(pool)).toBeGreaterThan(2_000);
    // Shut again while somebody waited for that turn.
    await shut("1 minute");
    expect(await query(pool, "select from claim_notifications('post', 1, 'worker', true)")).toEqual([]);
  });

  test("keeps the turns that are taken when it changes", async ({ pool }) => {
    await pool.query("update mail_gate set next_call_at = now() + interval '10 seconds'");
    await pool.query("select note_mail_limit(20)");
    expect(await waits(pool)).toBeGreaterThan(0.5);
    expect(await waits(pool)).toBeLessThanOrEqual(1);
    await pool.query("update mail_gate set next_call_at = '-infinity'");
    await pool.query("select note_mail_limit(2)");
    expect(await waits(pool)).toBeLessThanOrEqual(0);
  });

  test("is nobody's business when nothing is due", async ({ pool }) => {
    expect(await claim(pool)).toBe(0);
    expect(await turn(pool)).toBeNull();
    expect(await one(pool, "select next_call_at::text as at from mail_gate")).toEqual({ at: "-infinity" });
  });
});
