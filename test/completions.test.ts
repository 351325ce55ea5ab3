import { randomUUID } from "node:crypto";

import type { Pool, PoolClient } from "pg";
import { describe, expect } from "vitest";

import { test } from "./database.ts";
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
} from "./rows.ts";
import { BUCKET, startThaw } from "./thaw.ts";

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

/** Answers how many requests each event moved. */
async function complete(pool: Pool | PoolClient, ...events: Row[]): Promise<number[]> {
  const rows = await query<{ event_id: string; updated: number }>(
    pool,
    "select * from complete_restores($1, $2)",
    [JSON.stringify(events), WAITS],
  );
  return events.map((event) => rows.find((row) => row.event_id === event["id"])?.updated ?? Number.NaN);
}

describe("a Completed event that fits", () => {
  test.for(["not_started", "pending"] as const)(
    "makes a %s restore restored, with all its readers",
    async (state, { pool }) => {
      const { restore } = await insertRead(pool, state, {
        restore: { failing_since: ago("1 hours"), failure_code: "SlowDown", failure_message: "Slow down." },
      });
      await insertRequest(pool, restore, { access_key_id: JOHN, email: null });

      expect(await complete(pool, anEvent())).toEqual([2]);

      const after = await reload(pool, restore);
      expect(after).toMatchObject({
        status: "restored",
        restore_expires_at: EXPIRES,
        head_wanted_at: null,
        failing_since: null,
        failure_code: null,
        attempts: 0,
      });
      expect(await requests(pool)).toMatchObject([
        { restore_status: "restored", restored_at: after["restored_at"] as Date },
        { restore_status: "restored", restored_at: after["restored_at"] as Date },
      ]);
      expect(await nudges(pool)).toEqual(NOTIFY_NUDGES("post"));
    },
  );

  test("counts once, however often it is delivered", async ({ pool }) => {
    await insertRead(pool, "pending");
    const event = anEvent();
    expect(await complete(pool, event)).toEqual([1]);
    const before = await everything(pool);
    expect(await complete(pool, event)).toEqual([0]);
    expect(await everything(pool)).toEqual(before);
  });

  test("counts once when it is twice in a batch", async ({ pool }) => {
    await insertRead(pool, "pending");
    const updated = await complete(pool, anEvent(), anEvent());
    expect(updated.toSorted()).toEqual([0, 1]);
    expect(await nudges(pool)).toEqual(NOTIFY_NUDGES("post"));
  });

  test("moves the open restores of the version that was named and of the one that was pinned", async ({
    pool,
  }) => {
    await insertRead(pool, "pending", { restore: { version_id: "v1", pinned_version_id: "v1" } });
    await insertRead(pool, "pending", { restore: { pinned_version_id: "v1" } });
    expect(await complete(pool, anEvent({ version_id: "v1" }))).toEqual([2]);
    expect(await requests(pool)).toMatchObject([
      { restore_status: "restored" },
      { restore_status: "restored" },
    ]);
  });

  test("leaves other objects alone", async ({ pool }) => {
    await insertRead(pool, "pending", { restore: { s3_key: "another.mov" } });
    await insertRead(pool, "pending", { restore: { s3_bucket: "another" } });
    const before = await everything(pool);
    expect(await complete(pool, anEvent())).toEqual([0]);
    expect(await everything(pool)).toEqual(before);
  });

  test("each event of a batch counts its own", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending");
    await insertRequest(pool, restore, { access_key_id: JOHN });
    await insertRead(pool, "pending", { restore: { s3_key: "another.mov" } });
    expect(
      await complete(pool, anEvent({ s3_key: "nobody's" }), anEvent({ s3_key: "another.mov" }), anEvent()),
    ).toEqual([0, 1, 2]);
  });

  test("without expiry is not told before S3 has said until when", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending");
    expect(await complete(pool, anEvent({ restore_expires_at: undefined }))).toEqual([1]);
    expect(await reload(pool, restore)).toMatchObject({
      status: "restored",
      restore_expires_at: null,
      head_wanted_at: expect.any(Date) as Date,
    });
    expect(await query(pool, "select from untold_requests")).toEqual([]);
    expect(await nudges(pool)).toEqual(["poll_pending_restores +0", ...NOTIFY_NUDGES("post")]);
  });

  test("without expiry is right for Intelligent-Tiering, and told", async ({ pool }) => {
    await insertRead(pool, "pending", { restore: { storage_class: "INTELLIGENT_TIERING" } });
    expect(await complete(pool, anEvent({ restore_expires_at: undefined }))).toEqual([1]);
    expect(await query(pool, "select kind from untold_requests")).toEqual([{ kind: "post" }]);
    expect(await nudges(pool)).toEqual(NOTIFY_NUDGES("post"));
  });

  test.for([
    ["names the version that the read named", { version_id: "v1" }, { version_id: "v1" }],
    ["names the version that HEAD found", { pinned_version_id: "v1" }, { version_id: "v1" }],
    ["names none, of an unversioned bucket", { pinned_version_id: "" }, { version_id: "" }],
    ["has no time", {}, { event_time: undefined }],
    [
      "was made when we asked, by S3's clock",
      { accepted_at: ago("1 hours") },
      { event_time: ago("64 minutes") },
    ],
  ] as const)("%s: believed", async ([, restore, event], { pool }) => {
    const pinned = "version_id" in restore ? { pinned_version_id: restore.version_id } : {};
    await insertRead(pool, "pending", { restore: { ...pinned, ...restore } });
    expect(await complete(pool, anEvent(event))).toEqual([1]);
  });
});

describe("a Completed event that does not fit", () => {
  test.for([
    ["names another version than HEAD found", { pinned_version_id: "v1" }, { version_id: "v2" }],
    ["names none, but HEAD found one", { pinned_version_id: "v1" }, {}],
    ["names one, but HEAD found none", { pinned_version_id: "" }, { version_id: "v1" }],
    [
      "names another version than the read did",
      { version_id: "v1", pinned_version_id: null },
      { version_id: "v2" },
    ],
    ["tells of a copy that has expired", {}, { restore_expires_at: ago("1 minutes") }],
    ["is older than our request", { accepted_at: ago("1 hours") }, { event_time: ago("66 minutes") }],
  ] as const)("%s: only makes us ask S3, once", async ([, columns, event], { pool }) => {
    const { restore } = await insertRead(pool, "pending", { restore: columns });

    expect(await complete(pool, anEvent(event))).toEqual([0]);

    const doubted = await reload(pool, restore);
    expect(doubted).toEqual({ ...restore, head_wanted_at: expect.any(Date) as Date });
    expect(await nudges(pool)).toEqual(["poll_pending_restores +0"]);
    await forgetNudges(pool);
    expect(await complete(pool, anEvent(event))).toEqual([0]);
    expect(await reload(pool, restore)).toEqual(doubted);
    expect(await nudges(pool)).toEqual(["poll_pending_restores +0"]);
  });

  test("it nudges again after a claim that passed by the rows it held", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending", { restore: { head_wanted_at: ago("1 seconds") } });
    const holder = await pool.connect();
    await holder.query("begin");
    expect(await complete(holder, anEvent({ version_id: "another" }))).toEqual([0]);
    const claimed = await pool.query("select id from claim_restores_to_poll(10, '23 hours')");
    expect(claimed.rows).toEqual([]);
    await holder.query("commit");
    holder.release();
    expect(await nudges(pool)).toEqual(["poll_pending_restores +0"]);
    expect((await pool.query("select id from claim_restores_to_poll(10, '23 hours')")).rows).toEqual([
      { id: restore["id"] },
    ]);
  });

  test("it is older than the read that nobody has acted on yet: only makes us ask S3", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started");
    expect(await complete(pool, anEvent({ event_time: ago("3 days") }))).toEqual([0]);
    expect(await reload(pool, restore)).toMatchObject({
      status: "not_started",
      head_wanted_at: expect.any(Date) as Date,
    });
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
      await insertRestore(pool, state);
      const before = await everything(pool);
      expect(await complete(pool, anEvent({ restore_expires_at: ahead("30 days") }))).toEqual([0]);
      expect(await everything(pool)).toEqual(before);
    },
  );
});

test("POST answers how many requests it moved, and 0 when nobody asked", async ({ databaseUrl }) => {
  const thaw = await startThaw(databaseUrl, { worker: false });
  try {
    const { restore } = await insertRead(thaw.pool, "pending");
    await insertRequest(thaw.pool, restore, { access_key_id: JOHN });
    const body = { s3_bucket: BUCKET, s3_key: "film.mov", restore_expires_at: EXPIRES.toISOString() };
    expect(await thaw.post("/restore/completed", body)).toMatchObject({
      status: 200,
      body: { ok: true, updated: 2 },
    });
    expect(await thaw.post("/restore/completed", { ...body, s3_key: "nobody's" })).toMatchObject({
      status: 200,
      body: { ok: true, updated: 0 },
    });
  } finally {
    await thaw.stop();
  }
});
