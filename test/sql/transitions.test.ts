import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { WORKER_QUERY_TIMEOUT_MS } from "../../server/postgres/pool.ts";
import { SEND_TIMEOUT_MS } from "../../server/mail/resend.ts";
import { CALLS_TIMEOUT_MS } from "../../server/s3/s3.ts";
import { test } from "../support/database.ts";
import {
  ago,
  ahead,
  everything,
  forgetNudges,
  insertNotification,
  insertRead,
  insertRequest,
  insertRestore,
  insertRow,
  JOHN,
  NOTIFY_NUDGES,
  nudges,
  one,
  query,
  reload,
  requests,
  requestsOf,
  restores,
  type Row,
  type State,
  STATES,
  WAITS,
  know,
  tell,
} from "../support/rows.ts";
import { BUCKET, JANE } from "../support/thaw.ts";

const FACTS = {
  storage_class: "DEEP_ARCHIVE",
  archive_status: null,
  size_bytes: 42,
  etag: '"abc"',
  pinned_version_id: "v9",
};
const EXPIRES = "2099-01-02T00:00:00.000Z";
const FAILURE = { code: "AccessDenied", message: "S3 does not let Thaw read this file." };

/** What a worker may report of a claimed row. */
const OUTCOMES = {
  mark_restores_pending: { ...FACTS, tier: "Bulk" },
  mark_restores_restored: { ...FACTS, restore_expires_at: EXPIRES },
  mark_restores_failed: FAILURE,
  mark_restores_lost: {},
  mark_restores_expired: {},
  note_restores_checked: { restore_expires_at: EXPIRES },
  note_restore_troubles: FAILURE,
} as const;
type Transition = keyof typeof OUTCOMES;
const TRANSITIONS = Object.keys(OUTCOMES) as Transition[];

const report = (pool: Pool, transition: Transition, ...rows: Row[]) =>
  pool.query("select settle_restores($1, $2)", [
    JSON.stringify(
      rows.map(({ id, claim_id }) => Object.assign({ id, claim_id, transition }, OUTCOMES[transition])),
    ),
    WAITS,
  ]);

/** Claimed just now, as the claim functions do it. */
const claimed = () => ({ claim_id: randomUUID(), attempts: 1, attempt_after: ahead("1 minutes") });

const asked = { attempts: 0, claim_id: null, failing_since: null, failure_code: null, failure_message: null };
const troubled = {
  claim_id: null,
  attempts: 1,
  failure_code: FAILURE.code,
  failure_message: FAILURE.message,
  failing_since: expect.any(Date) as Date,
};
const failed = { status: "failed", failure_code: FAILURE.code, failure_message: FAILURE.message };
const restored = {
  ...asked,
  status: "restored",
  restore_expires_at: new Date(EXPIRES),
  storage_class: "DEEP_ARCHIVE",
  size_bytes: "42",
  etag: '"abc"',
  pinned_version_id: "v9",
  restored_at: expect.any(Date) as Date,
  last_checked_at: expect.any(Date) as Date,
};

/** Every arrow, and every note without one: where it starts, what the row is then, which jobs come of it. */
const ARROWS: Record<Transition, Partial<Record<State, { row: Row; jobs: string[] }>>> = {
  mark_restores_pending: {
    not_started: {
      row: {
        ...asked,
        status: "pending",
        tier: "Bulk",
        etag: '"abc"',
        accepted_at: expect.any(Date) as Date,
      },
      jobs: NOTIFY_NUDGES("pre"),
    },
  },
  mark_restores_restored: {
    not_started: { row: restored, jobs: NOTIFY_NUDGES("post") },
    pending: { row: restored, jobs: NOTIFY_NUDGES("post") },
  },
  mark_restores_failed: {
    not_started: { row: failed, jobs: NOTIFY_NUDGES("post") },
    pending: { row: failed, jobs: NOTIFY_NUDGES("post") },
  },
  mark_restores_lost: {
    pending: {
      row: {
        status: "not_started",
        lost_count: 1,
        accepted_at: null,
        claim_id: null,
        failure_code: "restore_lost",
      },
      jobs: ["trigger_restores +0"],
    },
  },
  mark_restores_expired: {
    restored: {
      row: { status: "restored", closed_at: expect.any(Date) as Date },
      jobs: ["trigger_restores +0"],
    },
  },
  note_restores_checked: {
    pending: {
      row: {
        ...asked,
        status: "pending",
        last_checked_at: expect.any(Date) as Date,
        restore_expires_at: null,
      },
      jobs: [],
    },
    restored: {
      row: {
        ...asked,
        status: "restored",
        last_checked_at: expect.any(Date) as Date,
        restore_expires_at: new Date(EXPIRES),
      },
      jobs: ["post_notify +0", ...NOTIFY_NUDGES("post")],
    },
  },
  note_restore_troubles: {
    not_started: { row: { ...troubled, status: "not_started" }, jobs: ["trigger_restores +60"] },
    pending: { row: { ...troubled, status: "pending" }, jobs: ["poll_pending_restores +60"] },
    restored: { row: { ...troubled, status: "restored" }, jobs: ["poll_pending_restores +60"] },
  },
};

describe("what a worker reports", () => {
  const matrix = TRANSITIONS.flatMap((transition) => STATES.map((state) => [transition, state] as const));

  test.for(matrix)("%s of a %s restore", async ([transition, state], { pool }) => {
    const { restore } = await insertRead(pool, state, { restore: claimed() });
    const before = await everything(pool);

    await report(pool, transition, restore);

    const arrow = ARROWS[transition][state];
    const after = await everything(pool);
    if (arrow === undefined) {
      expect(after).toEqual(before);
    } else {
      expect(await reload(pool, restore)).toMatchObject(arrow.row);
      expect(await nudges(pool)).toEqual(arrow.jobs);
    }

    await report(pool, transition, restore);
    expect(await everything(pool), "a second report").toEqual(after);
  });

  const news = TRANSITIONS.filter((transition) => transition !== "mark_restores_pending");
  const moves = news.flatMap((transition) =>
    (Object.keys(ARROWS[transition]) as State[]).map((state) => [transition, state] as const),
  );

  test.for(moves)(
    "%s of a %s restore that another worker claimed since is ignored",
    async ([transition, state], { pool }) => {
      const { restore } = await insertRead(pool, state, { restore: claimed() });
      const before = await everything(pool);
      await report(pool, transition, { id: restore["id"], claim_id: randomUUID() });
      expect(await everything(pool)).toEqual(before);
    },
  );

  const badNews = moves.filter(([transition]) =>
    ["mark_restores_lost", "mark_restores_expired", "note_restore_troubles"].includes(transition),
  );

  test.for(badNews)(
    "%s of a %s restore is ignored when the lease is over",
    async ([transition, state], { pool }) => {
      const { restore } = await insertRead(pool, state, {
        restore: { ...claimed(), attempt_after: ago("1 seconds") },
      });
      const before = await everything(pool);
      await report(pool, transition, restore);
      expect(await everything(pool)).toEqual(before);
    },
  );

  test("that S3 accepted it is a fact, whoever holds the claim", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started", { restore: claimed() });
    await report(pool, "mark_restores_pending", { id: restore["id"], claim_id: randomUUID() });
    expect(await reload(pool, restore)).toMatchObject({ status: "pending", claim_id: null });
  });

  test("moves a whole page at once, and only the rows it may", async ({ pool }) => {
    const rows: Row[] = [];
    for (const [index, state] of STATES.entries()) {
      rows.push(
        (await insertRead(pool, state, { restore: { ...claimed(), s3_key: `file ${index}` } })).restore,
      );
    }
    await report(pool, "mark_restores_restored", ...rows);
    const statuses = (await query(pool, "select status from restores order by s3_key")).map(
      (row) => row["status"] as string,
    );
    expect(statuses).toEqual(["restored", "restored", "restored", "failed", "restored"]);
    expect(await nudges(pool)).toEqual(NOTIFY_NUDGES("post"));
  });
});

describe("an event that overtakes a worker", () => {
  const complete = (pool: Pool, more: Row = {}) =>
    pool.query("select * from complete_restores($1, $2)", [
      JSON.stringify([{ id: randomUUID(), s3_bucket: BUCKET, s3_key: "film.mov", ...more }]),
      WAITS,
    ]);

  test.for([
    ["not_started", "mark_restores_pending", "pending"],
    ["not_started", "note_restore_troubles", "not_started"],
    ["pending", "note_restores_checked", "pending"],
    ["pending", "note_restore_troubles", "pending"],
    ["pending", "mark_restores_lost", "pending"],
  ] as const)(
    "is still there after it: %s, then %s, then %s",
    async ([state, transition, after], { pool }) => {
      const { restore } = await insertRead(pool, state, {
        restore: { ...claimed(), claimed_at: ago("1 seconds") },
      });
      await complete(pool);
      await report(pool, transition, restore);
      expect(await reload(pool, restore)).toMatchObject({
        status: after,
        head_wanted_at: expect.any(Date) as Date,
      });
    },
  );

  test.for([
    ["not_started", "mark_restores_restored"],
    ["not_started", "mark_restores_failed"],
    ["pending", "mark_restores_restored"],
    ["pending", "mark_restores_failed"],
  ] as const)("is answered by an end: %s, then %s", async ([state, transition], { pool }) => {
    const { restore } = await insertRead(pool, state, {
      restore: { ...claimed(), claimed_at: ago("1 seconds") },
    });
    await complete(pool);
    await report(pool, transition, restore);
    expect(await reload(pool, restore)).toMatchObject({
      status: transition === "mark_restores_restored" ? "restored" : "failed",
      head_wanted_at: null,
    });
  });

  test("is looked into as soon as the restore is accepted", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started", { restore: claimed() });
    await complete(pool, { version_id: "v9" });
    // For the claim that may have passed by while the event held the row.
    expect(await nudges(pool)).toEqual(["trigger_restores +0"]);
    await forgetNudges(pool);

    await report(pool, "mark_restores_pending", restore);

    expect(await nudges(pool)).toEqual(["poll_pending_restores +0", ...NOTIFY_NUDGES("pre")]);
    expect((await query(pool, "select id from claim_restores_to_poll(10, '23 hours')"))[0]).toEqual({
      id: restore["id"],
    });
  });

  test("asks about what the worker's note under way has made of it", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started", { restore: claimed() });
    const outcome = JSON.stringify([
      { id: restore["id"], claim_id: restore["claim_id"], ...OUTCOMES.mark_restores_pending },
    ]);
    const worker = await pool.connect();
    await worker.query(`begin; select mark_restores_pending('${outcome}', '{120 seconds,900 seconds}')`);
    const noting = worker.query("select pg_sleep(0.1); commit");
    expect((await complete(pool, { version_id: "v9" })).rows).toMatchObject([{ updated: 1 }]);
    await noting;
    worker.release();
    expect(await reload(pool, restore)).toMatchObject({
      status: "pending",
      head_wanted_at: expect.any(Date) as Date,
    });
    expect(await nudges(pool)).toEqual(["poll_pending_restores +0", ...NOTIFY_NUDGES("pre")]);
  });
});

describe("a restore that S3 lost", () => {
  test("is not believed lost in the first quarter of an hour, and looked at again then", async ({ pool }) => {
    const accepted_at = ago("10 minutes");
    const { restore } = await insertRead(pool, "pending", { restore: { ...claimed(), accepted_at } });
    await report(pool, "mark_restores_lost", restore);

    expect(await reload(pool, restore)).toMatchObject({
      status: "pending",
      lost_count: 0,
      head_wanted_at: expect.any(Date) as Date,
      attempt_after: new Date(accepted_at.getTime() + 15 * 60_000),
    });
    expect(await nudges(pool)).toEqual(["poll_pending_restores +900"]);
  });

  test("is asked for again, and given up with an explanation the third time", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending", { restore: claimed() });
    const lose = async () => {
      await pool.query(
        `update restores set status = 'pending', accepted_at = now() - interval '1 hour',
                claim_id = gen_random_uuid(), attempt_after = now() + interval '1 minute'`,
      );
      await forgetNudges(pool);
      await report(pool, "mark_restores_lost", await reload(pool, restore));
      return reload(pool, restore);
    };
    expect(await lose()).toMatchObject({ status: "not_started", lost_count: 1 });
    expect(await lose()).toMatchObject({ status: "not_started", lost_count: 2 });
    expect(await lose()).toMatchObject({
      status: "failed",
      lost_count: 3,
      failure_code: "restore_lost",
      failure_message:
        "S3 accepted the restore 3 times but the file is still archived. An administrator should look at it.",
    });
    expect(await nudges(pool)).toEqual(NOTIFY_NUDGES("post"));
    expect(await requests(pool)).toMatchObject([{ restore_status: "failed" }]);
  });
});

describe("trouble", () => {
  test.for(["not_started", "pending"] as const)(
    "of a %s restore is over after 24 hours: failed, with code and sentence",
    async (state, { pool }) => {
      const { restore } = await insertRead(pool, state, {
        restore: {
          ...claimed(),
          attempts: 10,
          failing_since: ago("25 hours"),
          failure_code: "old",
          failure_message: "old",
        },
      });
      await report(pool, "note_restore_troubles", restore);
      expect(await reload(pool, restore)).toMatchObject(failed);
      expect(await requests(pool)).toMatchObject([{ restore_status: "failed" }]);
      expect(await nudges(pool)).toEqual(NOTIFY_NUDGES("post"));
    },
  );

  test("of less than a day is not the end, and keeps its beginning", async ({ pool }) => {
    const failing_since = ago("23 hours");
    const { restore } = await insertRead(pool, "not_started", {
      restore: { ...claimed(), attempts: 30, failing_since },
    });
    await report(pool, "note_restore_troubles", restore);
    expect(await reload(pool, restore)).toMatchObject({ status: "not_started", failing_since });
  });

  test.for(["not_started", "pending", "restored"] as const)(
    "of a %s restore on two days, with no worker in between, is not the end",
    async (state, { pool }) => {
      const { restore } = await insertRead(pool, state, {
        restore: { ...claimed(), attempts: 9, failing_since: ago("3 days"), head_wanted_at: ago("3 days") },
      });
      await report(pool, "note_restore_troubles", restore);
      expect(await reload(pool, restore)).toMatchObject({ ...troubled, attempts: 9, status: state });
    },
  );

  test("with a restored object ends after 24 hours with what S3 once said", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", {
      restore: {
        ...claimed(),
        attempts: 10,
        failing_since: ago("25 hours"),
        head_wanted_at: ago("25 hours"),
      },
    });
    await report(pool, "note_restore_troubles", restore);
    expect(await reload(pool, restore)).toMatchObject({ ...asked, status: "restored", head_wanted_at: null });
    expect(await nudges(pool)).toEqual(["post_notify +0", ...NOTIFY_NUDGES("post")]);
  });

  test("with a restored object, and its copy expired meanwhile: whoever read it since gets a new restore", async ({
    pool,
  }) => {
    const mail = await insertNotification(pool, { status: "sent", sent_at: ago("2 days") });
    const { restore, request } = await insertRead(pool, "restored", {
      restore: {
        ...claimed(),
        attempts: 10,
        failing_since: ago("25 hours"),
        head_wanted_at: ago("25 hours"),
        status_at: ago("3 days"),
        restore_expires_at: ago("2 hours"),
      },
      request: { post_notification_id: mail["id"], post_notified: true, last_read_at: ago("1 hours") },
    });
    await report(pool, "note_restore_troubles", restore);
    expect((await reload(pool, restore))["closed_at"]).not.toBeNull();
    expect(await query(pool, "select status::text from restores where closed_at is null")).toEqual([
      { status: "not_started" },
    ]);
    expect(
      await query(pool, "select reader from restore_requests where restore_status = 'not_started'"),
    ).toEqual([{ reader: request["access_key_id"] }]);
    expect(await nudges(pool)).toContain("trigger_restores +0");
  });

  test("is tried again after 1, 2, 4 ... 60 minutes", async ({ pool }) => {
    await insertRead(pool, "not_started");
    const waits: number[] = [];
    for (let attempt = 1; attempt <= 9; attempt++) {
      const [row] = await query(
        pool,
        "select id, claim_id, attempts, extract(epoch from attempt_after - now())::int as wait from claim_restores_to_trigger(1)",
      );
      expect(row?.["attempts"]).toBe(attempt);
      waits.push((row?.["wait"] as number) / 60);
      await report(pool, "note_restore_troubles", row as Row);
      await pool.query("update restores set attempt_after = now()");
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60]);
  });

  test("that is only S3 asking to slow down is tried again after 2, 4, 8 ... seconds", async ({ pool }) => {
    await insertRead(pool, "not_started");
    const waits: number[] = [];
    for (let attempt = 1; attempt <= 13; attempt++) {
      const [{ id, claim_id } = {}] = await query(
        pool,
        "select id, claim_id from claim_restores_to_trigger(1)",
      );
      const [claimed] = await query(
        pool,
        "select extract(epoch from attempt_after - now())::int > 60 as long from restores",
      );
      expect(claimed).toEqual({ long: false });
      const busy = { id, claim_id, code: "SlowDown", message: "S3 is busy." };
      await pool.query("select note_restore_troubles($1, $2)", [JSON.stringify([busy]), WAITS]);
      const [row] = await query(
        pool,
        "select round(extract(epoch from attempt_after - now()))::int as wait from restores",
      );
      waits.push(row?.["wait"]);
      await pool.query("update restores set attempt_after = now()");
    }
    expect(waits).toEqual([2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
  });

  test("of one row does not hold up the others of its page", async ({ pool }) => {
    const bad = await insertRestore(pool, "not_started", { ...claimed(), s3_key: "bad" });
    const good = await insertRestore(pool, "not_started", { ...claimed(), s3_key: "good" });
    await report(pool, "note_restore_troubles", bad);
    await report(pool, "mark_restores_pending", good);
    expect(await reload(pool, good)).toMatchObject({ status: "pending" });
    expect(await query(pool, "select id from claim_restores_to_trigger(10)")).toEqual([]);
  });
});

describe("claims", () => {
  test.for(["retry_delay(1)", "lease(r)"])(
    "last twice as long as anything under them may take (%s)",
    async (lease, { pool }) => {
      // Also one whose object S3 was busy with.
      await insertRestore(pool, "not_started", {
        attempts: 6,
        failure_code: "SlowDown",
        failure_message: "S3 is busy.",
      });
      const { ms } = await one(
        pool,
        `select extract(epoch from ${lease})::float8 * 1000 as ms from restores r`,
      );
      for (const limit of [CALLS_TIMEOUT_MS, SEND_TIMEOUT_MS, WORKER_QUERY_TIMEOUT_MS])
        expect(limit).toBeLessThanOrEqual(ms / 2);
    },
  );

  test("to trigger take what is due, oldest first, a page at a time, and each row once", async ({ pool }) => {
    for (let minute = 1; minute <= 5; minute++) {
      await insertRestore(pool, "not_started", {
        s3_key: `file ${minute}`,
        attempt_after: ago(`${minute} minutes`),
      });
    }
    await insertRestore(pool, "not_started", { s3_key: "in back-off", attempt_after: ahead("1 minutes") });
    await insertRestore(pool, "pending", { s3_key: "pending" });
    const page = async () =>
      (await query(pool, "select s3_key from claim_restores_to_trigger(2)"))
        .map((row) => row["s3_key"])
        .toSorted();
    expect(await page()).toEqual(["file 4", "file 5"]);
    expect(await page()).toEqual(["file 2", "file 3"]);
    expect(await page()).toEqual(["file 1"]);
    expect(await page()).toEqual([]);
  });

  test.for(["claim_restores_to_trigger(3)", "claim_restores_to_poll(3, '23 hours')"])(
    "%s of two workers at once never share a row",
    async (claim, { pool }) => {
      const state = claim.includes("poll") ? "pending" : "not_started";
      for (let index = 0; index < 6; index++) {
        await insertRestore(pool, state, {
          s3_key: `file ${index}`,
          ...(state === "pending" && { accepted_at: ago("2 days") }),
        });
      }
      const client = await pool.connect();
      await client.query("begin");
      const first = await query(client, `select id from ${claim}`);
      const second = await query(pool, `select id from ${claim}`);
      await client.query("commit");
      client.release();
      expect(first).toHaveLength(3);
      expect(second).toHaveLength(3);
      expect(new Set([...first, ...second].map((row) => row["id"])).size).toBe(6);
      expect(await query(pool, `select id from ${claim}`)).toEqual([]);
    },
  );

  test("give each row its own token, and come back when the lease is over", async ({ pool }) => {
    await insertRestore(pool, "not_started");
    await insertRestore(pool, "not_started", { s3_key: "another" });
    const first = await query(pool, "select claim_id from claim_restores_to_trigger(10)");
    await pool.query("update restores set attempt_after = now()");
    const second = await query(pool, "select claim_id from claim_restores_to_trigger(10)");
    expect(new Set([...first, ...second].map((row) => row["claim_id"])).size).toBe(4);
  });

  test("to poll take what was not looked at for 23 hours, or is doubted", async ({ pool }) => {
    const rows: Record<string, [State, Row]> = {
      "accepted long ago": ["pending", { accepted_at: ago("24 hours") }],
      "checked long ago": ["pending", { accepted_at: ago("48 hours"), last_checked_at: ago("24 hours") }],
      "checked lately": ["pending", { accepted_at: ago("48 hours"), last_checked_at: ago("22 hours") }],
      "accepted lately": ["pending", { accepted_at: ago("22 hours") }],
      "pending and doubted": ["pending", { head_wanted_at: ago("1 minutes") }],
      "restored and doubted": ["restored", { head_wanted_at: ago("1 minutes") }],
      "doubted, in back-off": [
        "restored",
        { head_wanted_at: ago("1 minutes"), attempt_after: ahead("1 minutes") },
      ],
      "due, in back-off": ["pending", { accepted_at: ago("24 hours"), attempt_after: ahead("1 minutes") }],
      "not started": ["not_started", { head_wanted_at: ago("1 minutes") }],
      restored: ["restored", {}],
      failed: ["failed", {}],
      closed: ["closed", {}],
    };
    for (const [s3_key, [state, more]] of Object.entries(rows)) {
      await insertRestore(pool, state, { s3_key, ...more });
    }
    const page = await query(pool, "select s3_key from claim_restores_to_poll(100, '23 hours')");
    expect(page.map((row) => row["s3_key"]).toSorted()).toEqual([
      "accepted long ago",
      "checked long ago",
      "pending and doubted",
      "restored and doubted",
    ]);
  });

  test("to poll walk rows of the same moment page by page, each once, and past those in back-off", async ({
    pool,
  }) => {
    const accepted_at = ago("2 days");
    for (let index = 0; index < 40; index++) {
      await insertRestore(pool, "pending", {
        s3_key: `file ${index}`,
        accepted_at: index < 30 ? accepted_at : ago("47 hours"),
        ...(index % 5 === 0 && { attempt_after: ahead("1 hours") }),
      });
    }
    const seen: string[] = [];
    let after: Row = { due_since: "-infinity", id: "00000000-0000-0000-0000-000000000000" };
    for (let page = 1; page <= 10; page++) {
      const rows = await query(
        pool,
        `select id, coalesce(last_checked_at, accepted_at)::text as due_since
           from claim_restores_to_poll(7, '23 hours', $1, $2) order by coalesce(last_checked_at, accepted_at), id`,
        [after["due_since"], after["id"]],
      );
      if (rows.length === 0) {
        expect(page).toBe(6);
        break;
      }
      seen.push(...rows.map((row) => row["id"] as string));
      // As if each failed at once and was due again: a run still walks on.
      await pool.query("update restores set attempt_after = now() where attempts > 0");
      after = rows.at(-1) as Row;
    }
    expect(seen).toHaveLength(32);
    expect(new Set(seen).size).toBe(32);
  });
});

describe("closing what is over", () => {
  const close = async (pool: Pool, limit = 100): Promise<number> =>
    (await query(pool, "select close_finished_restores($1) as closed", [limit]))[0]?.["closed"] as number;
  const told = async (pool: Pool) => {
    const { id } = await insertNotification(pool);
    await pool.query("update restore_requests set post_notification_id = $1", [id]);
  };

  test("a copy that has expired, as of its expiry, told or not", async ({ pool }) => {
    const restore_expires_at = ago("1 hours");
    const { restore } = await insertRead(pool, "restored", {
      restore: { status_at: ago("8 days"), restore_expires_at },
    });
    expect(await close(pool)).toBe(1);
    expect(await reload(pool, restore)).toMatchObject({ closed_at: restore_expires_at });
    expect(await close(pool)).toBe(0);
  });

  test("one sweep at a time: who comes second leaves it to the first", async ({ pool }) => {
    for (const s3_key of ["a", "b"])
      await insertRead(pool, "restored", { restore: { s3_key, restore_expires_at: ago("1 hours") } });
    const first = await pool.connect();
    await first.query("begin");
    await first.query("select close_finished_restores(1)");
    expect(await close(pool)).toBe(0);
    await first.query("commit");
    first.release();
    expect(await close(pool)).toBe(1);
  });

  test("not one in doubt: a reader waits for what S3 says", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", {
      restore: {
        status_at: ago("8 days"),
        restore_expires_at: ago("1 hours"),
        head_wanted_at: ago("2 hours"),
      },
    });
    expect(await close(pool)).toBe(0);
    expect(await reload(pool, restore)).toEqual(restore);
  });

  test("a failure a day old, as of that", async ({ pool }) => {
    const { restore } = await insertRead(pool, "failed", { restore: { status_at: ago("25 hours") } });
    expect(await close(pool)).toBe(1);
    expect(await reload(pool, restore)).toMatchObject({
      closed_at: new Date((restore["status_at"] as Date).getTime() + 24 * 3_600_000),
    });
  });

  test("one without expiry once everybody is told", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", {
      restore: { restore_expires_at: null, status_at: ago("30 days") },
    });
    expect(await close(pool)).toBe(0);
    await told(pool);
    expect(await close(pool)).toBe(1);
    expect((await reload(pool, restore))["closed_at"]).not.toBeNull();
  });

  test("one without expiry whose reader nobody knows, after a week", async ({ pool }) => {
    const unknown = { email: null, user_resolved: true };
    await insertRead(pool, "restored", {
      restore: { restore_expires_at: null, status_at: ago("6 days"), s3_key: "six" },
      request: unknown,
    });
    const seven = await insertRead(pool, "restored", {
      restore: { restore_expires_at: null, status_at: ago("8 days"), s3_key: "eight" },
      request: unknown,
    });
    expect(await close(pool)).toBe(1);
    expect((await reload(pool, seven.restore))["closed_at"]).not.toBeNull();
  });

  test("nothing else", async ({ pool }) => {
    await insertRead(pool, "not_started", { restore: { s3_key: "1", status_at: ago("9 days") } });
    await insertRead(pool, "pending", { restore: { s3_key: "2", status_at: ago("9 days") } });
    await insertRead(pool, "restored", { restore: { s3_key: "3", status_at: ago("6 days") } });
    await insertRead(pool, "failed", { restore: { s3_key: "4", status_at: ago("23 hours") } });
    await insertRead(pool, "closed", { restore: { s3_key: "5" } });
    await insertRead(pool, "restored", {
      restore: { s3_key: "6", status_at: ago("4 minutes"), restore_expires_at: null },
    });
    await told(pool);
    const before = await everything(pool);
    expect(await close(pool)).toBe(0);
    expect(await everything(pool)).toEqual(before);
  });

  test("a page at a time", async ({ pool }) => {
    for (let index = 0; index < 5; index++) {
      await insertRestore(pool, "restored", { s3_key: `file ${index}`, restore_expires_at: ago("1 hours") });
    }
    expect([await close(pool, 2), await close(pool, 2), await close(pool, 2), await close(pool, 2)]).toEqual([
      2, 2, 1, 0,
    ]);
  });
});

describe("reopening what HEAD calls archived again", () => {
  const expire = async (pool: Pool, read: { restore: Row }) => {
    await report(pool, "mark_restores_expired", read.restore);
    return (await restores(pool)).filter((restore) => restore["closed_at"] === null);
  };

  test("opens no new one, which would cost money, for readers whom nobody has known for a week", async ({
    pool,
  }) => {
    const unknown = { email: null, user_resolved: true };
    const six = await insertRead(pool, "restored", {
      restore: { ...claimed(), s3_key: "six" },
      request: { ...unknown, requested_at: ago("6 days") },
    });
    const eight = await insertRead(pool, "restored", {
      restore: { ...claimed(), s3_key: "eight" },
      request: { ...unknown, requested_at: ago("8 days"), last_read_at: ago("8 days") },
    });
    await report(pool, "mark_restores_expired", six.restore);
    await report(pool, "mark_restores_expired", eight.restore);
    const open = (await restores(pool)).filter((restore) => restore["closed_at"] === null);
    expect(open.map((restore) => restore["s3_key"])).toEqual(["six"]);
    expect(await requestsOf(pool, eight.restore)).toHaveLength(1);
  });

  test("moves the untold along and leaves the told, unless they read it since", async ({ pool }) => {
    const jane = await insertRead(pool, "restored", { restore: { ...claimed(), region: "eu-west-1" } });
    const johns = await insertRequest(pool, jane.restore, { access_key_id: JOHN, email: "john@example.com" });
    const marys = await insertRequest(pool, jane.restore, {
      access_key_id: "AKIAMARY000000000001",
      email: "mary@example.com",
      last_read_at: ago("1 minutes"),
    });
    await tell(pool, johns);
    await tell(pool, marys);

    const [opened, ...others] = await expire(pool, jane);

    expect(others).toEqual([]);
    expect(opened).toMatchObject({ status: "not_started", region: "eu-west-1" });
    expect(await requestsOf(pool, opened as Row)).toMatchObject([
      { id: jane.request["id"], access_key_id: JANE },
      {
        access_key_id: "AKIAMARY000000000001",
        email: "mary@example.com",
        post_notified: false,
        post_notification_id: null,
      },
    ]);
    expect((await requestsOf(pool, jane.restore)).map((row) => row["id"])).toEqual([
      johns["id"],
      marys["id"],
    ]);
  });

  test("opens nothing when everybody was told and nobody read it since", async ({ pool }) => {
    const jane = await insertRead(pool, "restored", { restore: claimed() });
    await tell(pool, jane.request);
    expect(await expire(pool, jane)).toEqual([]);
  });

  test("a read made before HEAD answered is no late delivery", async ({ pool }) => {
    const jane = await insertRead(pool, "restored", {
      restore: claimed(),
      request: { last_read_at: ago("2 minutes") },
    });
    const johns = await insertRequest(pool, jane.restore, { access_key_id: JOHN, email: "john@example.com" });
    await tell(pool, johns);
    const [opened] = await expire(pool, jane);

    await pool.query("select * from request_restores($1, $2)", [
      JSON.stringify([
        {
          id: randomUUID(),
          s3_bucket: BUCKET,
          s3_key: "film.mov",
          access_key_id: JOHN,
          event_time: ago("1 minutes"),
        },
      ]),
      WAITS,
    ]);

    expect(await requestsOf(pool, opened as Row)).toMatchObject([
      { access_key_id: JANE },
      { access_key_id: JOHN, restore_status: "not_started" },
    ]);
  });
});

describe("addresses", () => {
  const resolve = async (pool: Pool, limit = 100): Promise<number> =>
    (await query(pool, "select resolve_requests($1, $2) as touched", [limit, WAITS]))[0]?.[
      "touched"
    ] as number;
  const nobody = { email: null, user_resolved: false };

  test("are filled in from the map, and whoever waits is told", async ({ pool }) => {
    await insertRead(pool, "pending", { request: nobody });
    await know(pool, JANE, "jane@example.com");
    expect(await resolve(pool)).toBe(1);
    expect(await requests(pool)).toMatchObject([{ email: "jane@example.com", user_resolved: true }]);
    expect(await nudges(pool)).toEqual([
      "post_notify +0",
      ...NOTIFY_NUDGES("post"),
      "pre_notify +0",
      ...NOTIFY_NUDGES("pre"),
    ]);
    expect(await resolve(pool)).toBe(0);
  });

  test("of an unknown key are nobody's, until the map learns it while the restore is open", async ({
    pool,
  }) => {
    await insertRead(pool, "restored", { request: nobody });
    await insertRead(pool, "closed", { restore: { s3_key: "closed" }, request: nobody });
    expect(await resolve(pool)).toBe(2);
    expect(await requests(pool)).toMatchObject([
      { email: null, user_resolved: true },
      { email: null, user_resolved: true },
    ]);
    expect(await nudges(pool)).toEqual([]);
    expect(await resolve(pool)).toBe(0);

    await know(pool, JANE, "jane@example.com");
    expect(await resolve(pool)).toBe(1);
    const open = await query(
      pool,
      "select q.email from restore_requests q join restores r on r.id = q.restore_id where r.closed_at is null",
    );
    expect(open).toEqual([{ email: "jane@example.com" }]);
  });

  test("never change once they are on a row", async ({ pool }) => {
    await insertRead(pool, "pending", { request: { email: "old@example.com" } });
    await know(pool, JANE, "new@example.com");
    expect(await resolve(pool)).toBe(0);
    expect(await requests(pool)).toMatchObject([{ email: "old@example.com" }]);
  });

  test("come a page at a time", async ({ pool }) => {
    await know(pool, JANE, "jane@example.com");
    for (let index = 0; index < 5; index++) {
      await insertRead(pool, "pending", { restore: { s3_key: `file ${index}` }, request: nobody });
    }
    expect([
      await resolve(pool, 2),
      await resolve(pool, 2),
      await resolve(pool, 2),
      await resolve(pool, 2),
    ]).toEqual([2, 2, 1, 0]);
  });
});

describe("what must hold for every writer", () => {
  test.for([
    ["a status", "restore_status = 'restored'"],
    ["a time", "status_at = status_at + interval '1 second'"],
  ])("a request cannot have %s that its restore has not", async ([, change], { pool }) => {
    await insertRead(pool, "pending");
    await expect(pool.query(`update restore_requests set ${change}`)).rejects.toMatchObject({
      code: "23503",
      constraint: "restore_requests_follow_restore",
    });
  });

  test("a request follows its restore whoever moves it", async ({ pool }) => {
    await insertRead(pool, "pending");
    await pool.query("update restores set status = 'restored', status_at = now()");
    const [request] = await requests(pool);
    const [restore] = await restores(pool);
    expect(request).toMatchObject({
      restore_status: "restored",
      restored_at: restore?.["restored_at"] as Date,
    });
    expect(request?.["restored_at"]).toBeInstanceOf(Date);
  });

  const CHECKS: [constraint: string, attempt: (pool: Pool) => Promise<unknown>][] = [
    ["restores_bucket_length", (pool) => insertRestore(pool, "not_started", { s3_bucket: "" })],
    ["restores_key_length", (pool) => insertRestore(pool, "not_started", { s3_key: "é".repeat(513) })],
    [
      "restores_version_length",
      (pool) => insertRestore(pool, "not_started", { version_id: "v".repeat(1025) }),
    ],
    ["restores_pending_was_accepted", (pool) => insertRestore(pool, "pending", { accepted_at: null })],
    ["restores_failed_is_explained", (pool) => insertRestore(pool, "failed", { failure_message: null })],
    ["restores_closed_is_over", (pool) => insertRestore(pool, "pending", { closed_at: ago("1 hours") })],
    [
      "restores_closed_wants_no_head",
      (pool) => insertRestore(pool, "closed", { head_wanted_at: ago("1 hours") }),
    ],
    [
      "restores_open_object",
      async (pool) => {
        await insertRestore(pool, "not_started");
        await insertRestore(pool, "failed");
      },
    ],
    [
      "aws_key_user_map_key_length",
      (pool) => insertRow(pool, "aws_key_user_map", { access_key_id: "", email: "jane@example.com" }),
    ],
    ["notifications_sent_has_time", (pool) => insertNotification(pool, { status: "sent" })],
    ["notifications_failure_is_explained", (pool) => insertNotification(pool, { status: "unknown" })],
    [
      "restore_requests_one_per_reader",
      async (pool) => {
        const { restore } = await insertRead(pool, "pending");
        await insertRequest(pool, restore);
      },
    ],
    [
      "restore_requests_access_key_length",
      (pool) => insertRead(pool, "pending", { request: { access_key_id: "A".repeat(129) } }),
    ],
    [
      "restore_requests_principal_length",
      (pool) => insertRead(pool, "pending", { request: { principal: "p".repeat(2049) } }),
    ],
    [
      "restore_requests_pre_was_sealed",
      (pool) => insertRead(pool, "pending", { request: { pre_notified: true } }),
    ],
    [
      "restore_requests_post_was_sealed",
      (pool) => insertRead(pool, "restored", { request: { post_notified: true } }),
    ],
    [
      "restore_requests_email_is_resolved",
      (pool) => insertRead(pool, "pending", { request: { user_resolved: false } }),
    ],
    [
      "announcements_pkey",
      async (pool) => {
        const { restore } = await insertRead(pool, "restored");
        const { id } = await insertNotification(pool);
        for (let time = 1; time <= 2; time++) {
          await insertRow(pool, "announcements", {
            restore_id: restore["id"],
            kind: "post",
            person: "jane@example.com",
            notification_id: id,
          });
        }
      },
    ],
    ["mail_gate_pkey", (pool) => insertRow(pool, "mail_gate", { reason: "another" })],
    ["mail_gate_has_one_row", (pool) => insertRow(pool, "mail_gate", { only_row: false })],
  ];

  test.for(CHECKS)("%s", async ([constraint, attempt], { pool }) => {
    await expect(attempt(pool)).rejects.toMatchObject({ constraint });
  });

  test.for([
    "jane",
    "jane@example.com@example.com",
    "jane@example.com,john@example.com",
    "jane@example.com;john@example.com",
    "jane doe@example.com",
    "jane@example.com\nBcc: john@example.com",
    "jane@example.com\r",
    "Jane <jane@example.com>",
    "@example.com",
    "",
  ])("%j is no address", async (email, { pool }) => {
    await expect(insertRow(pool, "aws_key_user_map", { access_key_id: JANE, email })).rejects.toMatchObject({
      constraint: "email_address_is_one_mailbox",
    });
  });
});
