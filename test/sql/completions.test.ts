import { randomUUID } from "node:crypto";

import type { Pool, PoolClient } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import {
  ago,
  ahead,
  everything,
  forgetNudges,
  insertRead,
  insertRequest,
  insertRestore,
  JOHN,
  NOTIFY_NUDGES,
  nudges,
  query,
  reload,
  requests,
  type Row,
  WAITS,
} from "../support/rows.ts";
import { BUCKET, startThaw } from "../support/thaw.ts";

const EXPIRES = ahead("7 days");

/** S3 says that film.mov is restored for 7 days, as of now, unless told otherwise. */
const anEvent = (more: Row = {}): Row => ({
  id: randomUUID(),
  s3_bucket: BUCKET,
  s3_key: "film.mov",
  restore_expires_at: EXPIRES,
  event_time: new Date(),
  ...more,
});

/** Answers how many requests each event concerns; NaN: it was not noted. */
async function complete(pool: Pool | PoolClient, ...events: Row[]): Promise<number[]> {
  const rows = await query<{ event_id: string; updated: number }>(
    pool,
    "select * from complete_restores($1, $2)",
    [JSON.stringify(events), WAITS],
  );
  return events.map((event) => rows.find((row) => row.event_id === event["id"])?.updated ?? Number.NaN);
}

/** Does `work` while another session has done `first` in a transaction that is undone afterwards. */
async function beside<T>(
  pool: Pool,
  first: (client: PoolClient) => Promise<unknown>,
  work: () => Promise<T>,
): Promise<T> {
  const client = await pool.connect();
  try {
    // Who waits for it without end, fails instead.
    await client.query("begin; set local idle_in_transaction_session_timeout = '5s'");
    client.on("error", () => undefined);
    await first(client);
    return await work();
  } finally {
    client.release(true);
  }
}

/** What an event does to a row that is due or in back-off: S3 is asked at once. Nothing else changes. */
const asked = (restore: Row): Row => ({
  ...restore,
  head_wanted_at: expect.any(Date) as Date,
  attempt_after: expect.any(Date) as Date,
});

const TASK = { not_started: "trigger_restores", pending: "poll_pending_restores" } as const;

/** Whatever an event says of itself, and whoever wrote it. */
const EVENTS: Record<string, () => Row> = {
  "as S3 sends it": () => ({}),
  "without expiry and time": () => ({ restore_expires_at: undefined, event_time: undefined }),
  "of a copy that has expired": () => ({ restore_expires_at: ago("1 minutes") }),
  "of a copy that never expires": () => ({ restore_expires_at: "9999-12-31T00:00:00Z" }),
  "older than our request": () => ({ event_time: ago("3 days") }),
  "from the future": () => ({ event_time: ahead("3 days") }),
};

describe("a Completed event", () => {
  test.for(
    (["not_started", "pending"] as const).flatMap((state) =>
      Object.keys(EVENTS).map((name) => [state, name] as const),
    ),
  )("for a %s restore, %s: S3 is asked at once, and nothing moves", async ([state, name], { pool }) => {
    const { restore } = await insertRead(pool, state, { restore: { attempt_after: ahead("1 hours") } });
    await insertRequest(pool, restore, { access_key_id: JOHN, email: null });
    const before = await requests(pool);

    expect(await complete(pool, anEvent(EVENTS[name]?.()))).toEqual([2]);

    expect(await reload(pool, restore)).toEqual(asked(restore));
    expect(await requests(pool)).toEqual(before);
    expect(await query(pool, "select from restores where attempt_after <= now()")).toHaveLength(1);
    expect(await nudges(pool)).toEqual([`${TASK[state]} +0`]);
  });

  test("asks again each time it is delivered, for one of them may be the true one", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending", { restore: { head_wanted_at: ago("5 hours") } });
    for (const time of [1, 2]) {
      await pool.query("update restores set attempt_after = now() + interval '1 hour'");
      expect(await complete(pool, anEvent())).toEqual([1]);
      const after = await reload(pool, restore);
      expect([time, after]).toEqual([time, asked(restore)]);
      expect((after["head_wanted_at"] as Date).getTime()).toBeGreaterThan(ago("1 minutes").getTime());
      expect((after["attempt_after"] as Date).getTime()).toBeLessThan(ahead("1 minutes").getTime());
    }
  });

  test("is one question when it is twice in a batch", async ({ pool }) => {
    await insertRead(pool, "pending");
    expect(await complete(pool, anEvent(), anEvent())).toEqual([1, 1]);
    expect(await nudges(pool)).toEqual(["poll_pending_restores +0"]);
  });

  // The version that the read named, the one that HEAD found, the one that the event names: whether S3 is asked.
  test.for([
    ["", null, "", true],
    ["", null, "v1", true],
    ["", "", "v1", true],
    ["", "v1", "v1", true],
    ["", "v1", "", true],
    // Who names no version wants the current one, and that may be another by now: HEAD tells.
    ["", "v1", "v2", true],
    ["v1", "v1", "v1", true],
    ["v1", null, "v1", true],
    ["v1", "v1", "", true],
    ["v1", "v1", "v2", false],
    ["v1", null, "v2", false],
  ] as const)(
    "a read of version '%s', pinned %s, and an event of version '%s': asked %s",
    async ([version_id, pinned_version_id, of_event, is_meant], { pool }) => {
      const { restore } = await insertRead(pool, "pending", { restore: { version_id, pinned_version_id } });
      expect(await complete(pool, anEvent({ version_id: of_event }))).toEqual([is_meant ? 1 : 0]);
      expect(await reload(pool, restore)).toEqual(is_meant ? asked(restore) : restore);
      expect(await nudges(pool)).toEqual(is_meant ? ["poll_pending_restores +0"] : []);
    },
  );

  test("asks about every open restore that it can mean", async ({ pool }) => {
    await insertRead(pool, "pending", { restore: { version_id: "v1" } });
    await insertRead(pool, "not_started", { restore: { version_id: "v2" } });
    await insertRead(pool, "pending");
    expect(await complete(pool, anEvent({ version_id: "v1" }))).toEqual([2]);
    expect(await complete(pool, anEvent())).toEqual([3]);
    expect(await query(pool, "select from restores where head_wanted_at is not null")).toHaveLength(3);
  });

  test("leaves other objects alone", async ({ pool }) => {
    await insertRead(pool, "pending", { restore: { s3_key: "another.mov" } });
    await insertRead(pool, "pending", { restore: { s3_bucket: "another" } });
    const before = await everything(pool);
    expect(await complete(pool, anEvent())).toEqual([0]);
    expect(await everything(pool)).toEqual(before);
  });

  test("each of a batch counts its own", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending");
    await insertRequest(pool, restore, { access_key_id: JOHN });
    await insertRead(pool, "pending", { restore: { s3_key: "another.mov" } });
    expect(
      await complete(pool, anEvent({ s3_key: "nobody's" }), anEvent({ s3_key: "another.mov" }), anEvent()),
    ).toEqual([0, 1, 2]);
  });

  test("nobody asked for it: nothing happens", async ({ pool }) => {
    const before = await everything(pool);
    expect(await complete(pool, anEvent())).toEqual([0]);
    expect(await everything(pool)).toEqual(before);
  });

  test("it comes before the read: the read starts from S3's word, not from the event", async ({ pool }) => {
    expect(await complete(pool, anEvent())).toEqual([0]);
    await insertRead(pool, "not_started");
    expect(await requests(pool)).toMatchObject([{ restore_status: "not_started" }]);
  });

  test.for(["restored", "failed", "closed"] as const)(
    "a %s restore stays as it is",
    async (state, { pool }) => {
      await insertRead(pool, state);
      const before = await everything(pool);
      expect(await complete(pool, anEvent({ restore_expires_at: ahead("30 days") }))).toEqual([0]);
      expect(await everything(pool)).toEqual(before);
    },
  );

  test.for([
    ["a claim is under way", { claim_id: randomUUID(), attempts: 1 }],
    ["S3 asked to slow down", { failure_code: "SlowDown", failure_message: "Slow down.", attempts: 3 }],
  ] as const)("waits while %s, and is not forgotten", async ([, more], { pool }) => {
    const { restore } = await insertRead(pool, "pending", {
      restore: { ...more, attempt_after: ahead("1 minutes") },
    });
    expect(await complete(pool, anEvent())).toEqual([1]);
    expect(await reload(pool, restore)).toEqual({ ...restore, head_wanted_at: expect.any(Date) as Date });
  });

  test("nudges again after a claim that passed by the rows it held", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending", { restore: { head_wanted_at: ago("1 seconds") } });
    const claimed = await beside(
      pool,
      (client) => complete(client, anEvent()),
      () => query(pool, "select id from claim_restores_to_poll(10, '23 hours')"),
    );
    expect(claimed).toEqual([]);
    expect(await complete(pool, anEvent())).toEqual([1]);
    expect(await nudges(pool)).toEqual(["poll_pending_restores +0"]);
    expect((await pool.query("select id from claim_restores_to_poll(10, '23 hours')")).rows).toEqual([
      { id: restore["id"] },
    ]);
  });
});

describe("a row in somebody's hands", () => {
  test("is waited for as long as a worker takes to note what S3 said", async ({ pool }) => {
    await insertRead(pool, "pending");
    const worker = await pool.connect();
    await worker.query("begin; select from restores for update");
    const noting = worker.query("select pg_sleep(0.1); commit");
    expect(await complete(pool, anEvent())).toEqual([1]);
    await noting;
    worker.release();
  });

  test("keeps no other event of the batch, and has no answer to its own", async ({ pool }) => {
    const { restore: locked } = await insertRead(pool, "pending");
    const { restore: free } = await insertRead(pool, "pending", { restore: { s3_key: "another.mov" } });
    // Half of what it means is not enough.
    await insertRead(pool, "pending", { restore: { version_id: "v1" } });
    const updated = await beside(
      pool,
      (client) => client.query("select from restores where id = $1 for update", [locked["id"]]),
      () => complete(pool, anEvent(), anEvent({ s3_key: "another.mov" }), anEvent()),
    );
    expect(updated).toEqual([Number.NaN, 1, Number.NaN]);
    expect(await reload(pool, free)).toEqual(asked(free));
    expect(await reload(pool, locked)).toEqual(locked);
    expect(await complete(pool, anEvent())).toEqual([2]);
  });

  test("two servers with the same events in another order do not lock each other out", async ({ pool }) => {
    const keys = Array.from({ length: 40 }, (_, index) => `file ${index}`);
    for (const s3_key of keys) await insertRead(pool, "pending", { restore: { s3_key } });
    const events = keys.map((s3_key) => anEvent({ s3_key }));
    for (let time = 0; time < 20; time++) {
      const both = await Promise.all([complete(pool, ...events), complete(pool, ...events.toReversed())]);
      expect(both).toEqual([keys.map(() => 1), keys.map(() => 1)]);
    }
  });

  test("a reader who is just being added is not in the way", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending");
    const updated = await beside(
      pool,
      (client) => client.query("select from restores for key share"),
      () => complete(pool, anEvent()),
    );
    expect(updated).toEqual([1]);
    expect(await reload(pool, restore)).toEqual(asked(restore));
  });
});

describe("an event while S3 is being asked", () => {
  const settle = (pool: Pool, outcome: Row) =>
    pool.query("select settle_restores($1, $2)", [JSON.stringify([outcome]), WAITS]);
  const claim = async (pool: Pool): Promise<Row | undefined> =>
    (await query(pool, "select * from claim_restores_to_poll(10, '23 hours')"))[0];
  const ANSWERS = {
    "still restoring": { transition: "note_restores_checked", restore_expires_at: null },
    archived: { transition: "mark_restores_lost" },
  };

  test.for(Object.keys(ANSWERS) as (keyof typeof ANSWERS)[])(
    "is not answered by what S3 said before it: %s",
    async (answer, { pool }) => {
      const { restore } = await insertRead(pool, "pending", { restore: { head_wanted_at: ago("5 hours") } });
      const { id, claim_id } = (await claim(pool)) ?? {};
      // S3 has answered; then the restore completes, its event is noted, and only then the answer.
      expect(await complete(pool, anEvent())).toEqual([1]);
      await forgetNudges(pool);
      await settle(pool, { id, claim_id, ...ANSWERS[answer] });

      expect(await reload(pool, restore)).toMatchObject({ status: "pending", lost_count: 0 });
      expect(await nudges(pool)).toEqual(["poll_pending_restores +0"]);
      expect(await claim(pool)).toMatchObject({
        id: restore["id"],
        head_wanted_at: expect.any(Date) as Date,
      });
    },
  );

  test("is not lost by the order that S3 takes meanwhile", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started");
    const [row] = await query(pool, "select * from claim_restores_to_trigger(10)");
    expect(await complete(pool, anEvent())).toEqual([1]);
    await forgetNudges(pool);
    await settle(pool, { id: row?.["id"], claim_id: row?.["claim_id"], transition: "mark_restores_pending" });
    expect(await nudges(pool)).toEqual(["poll_pending_restores +0", ...NOTIFY_NUDGES("pre")]);
    expect(await claim(pool)).toMatchObject({ id: restore["id"] });
  });

  test("whose clock goes back is asked about once more, not over and over", async ({ pool }) => {
    await insertRead(pool, "pending", { restore: { head_wanted_at: ahead("10 minutes") } });
    for (const claims of [1, 1, 0]) {
      const row = await claim(pool);
      expect(row === undefined ? 0 : 1).toBe(claims);
      if (row === undefined) break;
      const { id, claim_id } = row;
      await settle(pool, { id, claim_id, ...ANSWERS["still restoring"] });
    }
  });

  test.for([
    ["0 seconds", 60],
    ["90 seconds", 60],
    ["3 minutes", 120],
    ["20 minutes", 16 * 60],
    ["59 minutes", 32 * 60],
    ["65 minutes", 3600],
    ["40 hours", 3600],
  ] as const)(
    "an event %s old that S3 does not know of yet is asked about again in %s s",
    async ([age, seconds], { pool }) => {
      const { restore } = await insertRead(pool, "pending", { restore: { head_wanted_at: ago(age) } });
      const { id, claim_id } = (await claim(pool)) ?? {};
      await settle(pool, { id, claim_id, ...ANSWERS["still restoring"] });
      expect(await reload(pool, restore)).toMatchObject({
        head_wanted_at: expect.any(Date) as Date,
        last_checked_at: expect.any(Date) as Date,
        attempts: 0,
        claim_id: null,
      });
      expect(await nudges(pool)).toEqual([`poll_pending_restores +${seconds}`]);
      expect(await claim(pool)).toBeUndefined();
    },
  );

  test("a false one costs a handful of questions, though the restore takes ten hours", async ({ pool }) => {
    await insertRead(pool, "pending");
    await complete(pool, anEvent());
    let heads = 0;
    for (let minute = 0; minute <= 600; minute++) {
      const row = await claim(pool);
      if (row !== undefined) {
        heads++;
        const { id, claim_id } = row;
        await settle(pool, { id, claim_id, ...ANSWERS["still restoring"] });
      }
      await pool.query(
        `update restores set accepted_at = accepted_at - interval '61 seconds', last_checked_at = last_checked_at - interval '61 seconds',
                head_wanted_at = head_wanted_at - interval '61 seconds', attempt_after = attempt_after - interval '61 seconds'`,
      );
    }
    expect(heads).toBeGreaterThan(10);
    expect(heads).toBeLessThan(20);
  });
});

describe("POST", () => {
  const completed = (more: Row = {}): Row => ({
    s3_bucket: BUCKET,
    s3_key: "film.mov",
    restore_expires_at: EXPIRES.toISOString(),
    ...more,
  });

  test("answers how many requests wait, and 0 when nobody asked", async ({ databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, { worker: false });
    const { restore } = await insertRead(thaw.pool, "pending");
    await insertRequest(thaw.pool, restore, { access_key_id: JOHN });
    const answers = [await thaw.post("/restore/completed", completed())];
    answers.push(await thaw.post("/restore/completed", completed({ s3_key: "nobody's" })));
    await thaw.stop();
    expect(answers).toMatchObject([
      { status: 200, body: { ok: true, updated: 2 } },
      { status: 200, body: { ok: true, updated: 0 } },
    ]);
  });

  test("a row that an operator keeps locked is refused with 503, the others are taken, and a repeat is as well", async ({
    databaseUrl,
  }) => {
    const thaw = await startThaw(databaseUrl, { worker: false });
    for (const s3_key of ["film.mov", "another.mov"])
      await insertRead(thaw.pool, "pending", { restore: { s3_key } });
    const post = (s3_key: string) => thaw.post("/restore/completed", completed({ s3_key }));
    const [locked, ...others] = await beside(
      thaw.pool,
      (client) => client.query("select from restores where s3_key = 'film.mov' for update"),
      () => Promise.all([post("film.mov"), ...Array.from({ length: 9 }, () => post("another.mov"))]),
    );
    const repeat = await post("film.mov");
    await thaw.stop();
    expect(locked).toMatchObject({ status: 503, body: { error: { code: "unavailable" } } });
    expect(others.map((answer) => answer.status)).toEqual(others.map(() => 200));
    expect(repeat).toMatchObject({ status: 200, body: { updated: 1 } });
  });

  test("an object with 120,000 readers is answered as quickly as any, and so are the others", async ({
    databaseUrl,
  }) => {
    const thaw = await startThaw(databaseUrl, { worker: false });
    const restore = await insertRestore(thaw.pool, "pending");
    await insertRead(thaw.pool, "pending", { restore: { s3_key: "another.mov" } });
    await thaw.pool.query(
      `insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, restore_status, status_at, last_read_at)
       select gen_random_uuid(), id, s3_bucket, s3_key, 'ASIA' || n, status, status_at, now()
         from restores, generate_series(1, 120000) n where id = $1`,
      [restore["id"]],
    );
    const started = performance.now();
    const answers = await Promise.all(
      ["film.mov", "another.mov", "film.mov"].map((s3_key) =>
        thaw.post("/restore/completed", completed({ s3_key })),
      ),
    );
    const took_ms = performance.now() - started;
    await thaw.stop();
    expect(answers).toMatchObject([
      // Counted up to there.
      { status: 200, body: { updated: 1000 } },
      { status: 200, body: { updated: 1 } },
      { status: 200, body: { updated: 1000 } },
    ]);
    // Some five milliseconds, on a machine that does other things as well.
    expect(took_ms).toBeLessThan(500);
  });
});
