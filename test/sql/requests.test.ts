import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import {
  ago,
  ahead,
  aRead,
  everything,
  forgetNudges,
  insertRead,
  insertRequest,
  insertRestore,
  JOHN,
  NOTIFY_NUDGES,
  nudges,
  query,
  read,
  reload,
  requestRestores,
  requests,
  requestsOf,
  restores,
  type Row,
  WAITS,
  whileUncommitted,
  know,
  tell,
} from "../support/rows.ts";
import { BUCKET, JANE, requestBody, startThaw } from "../support/thaw.ts";

describe("the first read of an object", () => {
  test("opens a restore, gives its reader a row, and nudges who has work by it", async ({ pool }) => {
    const id = randomUUID();
    expect(await read(pool, { id })).toEqual({ read_id: id, request_id: id, duplicate: false });

    // Under the id of the request, by which the log lines of both sides are found.
    expect(await restores(pool)).toMatchObject([
      { id, s3_bucket: BUCKET, s3_key: "film.mov", version_id: "", status: "not_started", closed_at: null },
    ]);
    expect(await requests(pool)).toMatchObject([
      { id, access_key_id: JANE, restore_status: "not_started", read_count: 1, user_resolved: false },
    ]);
    expect(await nudges(pool)).toEqual(["resolve_users +0", "trigger_restores +0"]);
  });

  test("of a known key has its address at once", async ({ pool }) => {
    await know(pool, JANE, "Jane@Example.com");
    await read(pool);

    expect(await requests(pool)).toMatchObject([{ email: "Jane@Example.com", user_resolved: true }]);
    expect(await nudges(pool)).toEqual(["trigger_restores +0"]);
  });

  test("keeps where the bucket is and who read", async ({ pool }) => {
    await read(pool, { region: "eu-central-1", principal: "arn:aws:iam::1:user/jane", account_id: "1" });

    expect(await restores(pool)).toMatchObject([{ region: "eu-central-1" }]);
    expect(await requests(pool)).toMatchObject([
      { principal: "arn:aws:iam::1:user/jane", account_id: "1", reader: JANE },
    ]);
  });

  test("of another version is another object", async ({ pool }) => {
    await read(pool);
    expect(await read(pool, { version_id: "v1" })).toMatchObject({ duplicate: false });
    expect(await read(pool, { version_id: "v2" })).toMatchObject({ duplicate: false });

    expect((await restores(pool)).map((restore) => restore["version_id"]).toSorted()).toEqual([
      "",
      "v1",
      "v2",
    ]);
    expect((await requests(pool)).map((request) => request["version_id"]).toSorted()).toEqual([
      "",
      "v1",
      "v2",
    ]);
  });

  test.for([
    ["in the future", { event_time: ahead("2 hours") }],
    ["missing", { event_time: undefined }],
  ] as const)("with an event time %s counts as made now", async ([, more], { pool }) => {
    await read(pool, more);
    const rows = await requests(pool);
    expect(rows).toMatchObject([{ read_count: 1 }]);
    expect(rows[0]?.["last_read_at"]).toEqual(rows[0]?.["requested_at"]);
  });
});

describe("readers", () => {
  test("without a key are told apart by their principal", async ({ pool }) => {
    const keyless = { access_key_id: undefined };
    await read(pool, { ...keyless, principal: "arn:jane" });
    await read(pool, { ...keyless, principal: "arn:john" });
    expect(await read(pool, { ...keyless, principal: "arn:jane" })).toMatchObject({ duplicate: true });

    expect(await requests(pool)).toMatchObject([
      { access_key_id: "", principal: "arn:jane", reader: "arn:jane", read_count: 2 },
      { access_key_id: "", principal: "arn:john", reader: "arn:john", read_count: 1 },
    ]);
    expect(await restores(pool)).toHaveLength(1);
  });

  test("of whom nothing is known share a row", async ({ pool }) => {
    const anonymous = { access_key_id: undefined, principal: undefined };
    await read(pool, anonymous);
    expect(await read(pool, { ...anonymous, access_key_id: "" })).toMatchObject({ duplicate: true });
    expect(await requests(pool)).toMatchObject([
      { access_key_id: "", principal: "", reader: "", read_count: 2 },
    ]);
  });

  test("with a key are that key, whatever session it belongs to", async ({ pool }) => {
    await read(pool, { principal: "arn:session/1" });
    expect(await read(pool, { principal: "arn:session/2" })).toMatchObject({ duplicate: true });
  });
});

describe("a repeated read by the same reader", () => {
  test("is counted and starts nothing, forty times over", async ({ pool }) => {
    const { request_id } = await read(pool);
    await forgetNudges(pool);
    const before = await restores(pool);

    for (let repeat = 0; repeat < 40; repeat++) {
      expect(await read(pool)).toMatchObject({ request_id, duplicate: true });
    }

    expect(await requests(pool)).toMatchObject([{ read_count: 41 }]);
    expect(await restores(pool)).toEqual(before);
    expect(await nudges(pool)).toEqual([]);
  });

  test("is counted once however often its event is delivered", async ({ pool }) => {
    const event = { event_id: "event", event_time: ago("1 minutes") };
    const first = await read(pool, event);
    expect(await read(pool, event)).toMatchObject({ request_id: first.request_id, duplicate: true });
    expect(await requests(pool)).toMatchObject([{ read_count: 1 }]);
  });

  test("moves last_read_at forward only", async ({ pool }) => {
    const newest = ago("1 minutes");
    await read(pool, { event_time: ago("5 minutes") });
    await read(pool, { event_time: newest });
    await read(pool, { event_time: ago("3 minutes") });
    expect(await requests(pool)).toMatchObject([{ read_count: 3, last_read_at: newest }]);
  });

  test("of a failed restore is counted: no new attempt, no new mail", async ({ pool }) => {
    const { restore, request } = await insertRead(pool, "failed");
    await tell(pool, request);
    const [told] = await requests(pool);

    expect(await read(pool)).toMatchObject({ request_id: request["id"], duplicate: true });

    expect(await restores(pool)).toEqual([restore]);
    expect(await requests(pool)).toEqual([
      {
        ...told,
        read_count: 2,
        last_read_at: expect.any(Date) as Date,
        last_event_id: expect.any(String) as string,
      },
    ]);
    expect(await nudges(pool)).toEqual([]);
  });
});

describe("a read by another reader", () => {
  test.for([
    ["not_started", ["trigger_restores +0"]],
    ["pending", NOTIFY_NUDGES("pre")],
    ["restored", NOTIFY_NUDGES("post")],
    ["failed", NOTIFY_NUDGES("post")],
  ] as const)(
    "of a %s restore gets its own row and copies the status",
    async ([state, expected], { pool }) => {
      const { restore } = await insertRead(pool, state);
      await know(pool, JOHN, "john@example.com");

      // Within the grace after it was restored: no reason to doubt it.
      const answer = await read(pool, { access_key_id: JOHN, event_time: ago("56 minutes") });

      expect(answer).toMatchObject({ request_id: answer.read_id, duplicate: false });
      expect(await restores(pool)).toEqual([restore]);
      const [, johns] = await requestsOf(pool, restore);
      expect(johns).toMatchObject({
        id: answer.read_id,
        email: "john@example.com",
        restore_status: state,
        status_at: restore["status_at"],
        restored_at: restore["restored_at"],
        post_notification_id: null,
      });
      expect(await nudges(pool)).toEqual(expected);
    },
  );
});

describe("a late delivery", () => {
  test("of a read up to five minutes after it was restored starts nothing", async ({ pool }) => {
    const { restore, request } = await insertRead(pool, "restored");
    await tell(pool, request);

    expect(await read(pool, { event_time: ago("56 minutes") })).toMatchObject({ duplicate: true });

    expect(await restores(pool)).toEqual([restore]);
    expect(await nudges(pool)).toEqual([]);
  });

  test("of a read that the same reader's closed restore already served starts nothing", async ({ pool }) => {
    const { request } = await insertRead(pool, "closed");
    await tell(pool, request);
    const before = await everything(pool);

    expect(await read(pool, { event_time: ago("25 hours") })).toMatchObject({
      request_id: request["id"],
      duplicate: true,
    });
    expect(await everything(pool)).toEqual(before);
  });

  test("does not open a second restore beside another reader's either", async ({ pool }) => {
    const { request } = await insertRead(pool, "closed");
    await tell(pool, request);
    const open = await insertRestore(pool, "pending");
    await insertRequest(pool, open, { access_key_id: JOHN, email: "john@example.com" });
    const before = await everything(pool);

    expect(await read(pool, { event_time: ago("25 hours") })).toMatchObject({
      request_id: request["id"],
      duplicate: true,
    });
    expect(await everything(pool)).toEqual(before);
  });

  test("is judged per reader: who never had a restore of it gets one", async ({ pool }) => {
    await insertRead(pool, "closed");
    expect(await read(pool, { access_key_id: JOHN, event_time: ago("25 hours") })).toMatchObject({
      duplicate: false,
    });
    expect(await restores(pool)).toHaveLength(2);
  });

  test("a read made after the closed restore was over is not one", async ({ pool }) => {
    const { request } = await insertRead(pool, "closed");
    await tell(pool, request);
    expect(await read(pool, { event_time: ago("23 hours") })).toMatchObject({ duplicate: false });
    expect(await restores(pool)).toMatchObject([{ status: "restored" }, { status: "not_started" }]);
  });
});

/** Both come to the same: the sweep only notices earlier what the next read would. */
const CLOSERS = ["the read", "the sweep"] as const;

async function sweep(pool: Pool): Promise<void> {
  expect(await query(pool, "select close_finished_restores(10) as closed")).toEqual([{ closed: 1 }]);
}

describe("a read newer than what we believe", () => {
  test("closes a restore whose copy has expired, as of its expiry, and opens a new one", async ({ pool }) => {
    const expired = ago("10 minutes");
    const { restore, request } = await insertRead(pool, "restored", {
      restore: { status_at: ago("2 days"), restore_expires_at: expired },
    });
    await tell(pool, request);

    const answer = await read(pool);

    expect(answer).toMatchObject({ request_id: answer.read_id, duplicate: false });
    expect(await reload(pool, restore)).toEqual({ ...restore, closed_at: expired });
    const [, opened] = await restores(pool);
    expect(opened).toMatchObject({ status: "not_started", closed_at: null });
    expect(await requestsOf(pool, opened as Row)).toMatchObject([{ id: answer.read_id, read_count: 1 }]);
    expect(await nudges(pool)).toEqual(["resolve_users +0", "trigger_restores +0"]);
  });

  test("leaves a restore in doubt to S3, for whoever doubted it waits too", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", {
      restore: {
        status_at: ago("2 days"),
        restore_expires_at: ago("10 minutes"),
        head_wanted_at: ago("20 minutes"),
      },
    });
    expect(await read(pool)).toMatchObject({ duplicate: true });
    expect(await reload(pool, restore)).toEqual(restore);
  });

  test("closes a restore that had no expiry", async ({ pool }) => {
    const { restore, request } = await insertRead(pool, "restored", {
      restore: { restore_expires_at: null },
    });
    await tell(pool, request);
    expect(await read(pool)).toMatchObject({ duplicate: false });
    expect((await reload(pool, restore))["closed_at"]).toEqual(
      new Date((restore["status_at"] as Date).getTime() + 5 * 60_000),
    );
  });

  test.for(CLOSERS)(
    "takes along who was not told yet, and leaves who was, closed by %s",
    async (by, { pool }) => {
      const { restore, request } = await insertRead(pool, "restored", {
        restore: { status_at: ago("2 days"), restore_expires_at: ago("10 minutes") },
      });
      const john = await insertRequest(pool, restore, { access_key_id: JOHN, email: "john@example.com" });
      await tell(pool, request);
      if (by === "the sweep") await sweep(pool);

      await read(pool, { access_key_id: "AKIAMARY000000000001" });

      const [, opened] = await restores(pool);
      expect(await requestsOf(pool, restore)).toMatchObject([{ id: request["id"] }]);
      expect(await requestsOf(pool, opened as Row)).toMatchObject([
        { id: john["id"], email: "john@example.com", restore_status: "not_started", post_notified: false },
        { access_key_id: "AKIAMARY000000000001" },
      ]);
    },
  );

  test("does not carry readers whom nobody knows along for ever", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", {
      restore: { status_at: ago("20 days"), restore_expires_at: ago("10 minutes") },
      request: { email: null, requested_at: ago("8 days") },
    });
    const young = await insertRequest(pool, restore, {
      access_key_id: JOHN,
      email: null,
      requested_at: ago("6 days"),
    });

    await read(pool, { access_key_id: "AKIAMARY000000000001" });

    const [, opened] = await restores(pool);
    expect(await requestsOf(pool, opened as Row)).toMatchObject([
      { id: young["id"] },
      { access_key_id: "AKIAMARY000000000001" },
    ]);
  });

  test.for(CLOSERS)(
    "who reads again before hearing of the last time moves along and is counted, closed by %s",
    async (by, { pool }) => {
      const { request } = await insertRead(pool, "restored", {
        restore: { status_at: ago("2 days"), restore_expires_at: ago("10 minutes") },
      });
      if (by === "the sweep") await sweep(pool);
      expect(await read(pool)).toMatchObject({ request_id: request["id"], duplicate: true });

      const [, opened] = await restores(pool);
      expect(await requestsOf(pool, opened as Row)).toMatchObject([
        { id: request["id"], read_count: 2, restore_status: "not_started" },
      ]);
      expect(await nudges(pool)).toContain("trigger_restores +0");
    },
  );

  test("of an unexpired copy wants S3's word, and nobody is told meanwhile", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored");

    expect(await read(pool, { access_key_id: JOHN })).toMatchObject({ duplicate: false });

    expect(await restores(pool)).toMatchObject([{ id: restore["id"], status: "restored", closed_at: null }]);
    expect((await reload(pool, restore))["head_wanted_at"]).toBeInstanceOf(Date);
    expect(await nudges(pool)).toContain("poll_pending_restores +0");
    expect((await pool.query("select from untold_requests")).rowCount).toBe(0);
  });

  test("asks S3 once, not once more for each further read", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored");
    await read(pool);
    const doubted = await reload(pool, restore);
    await forgetNudges(pool);
    await read(pool);
    expect(await reload(pool, restore)).toEqual(doubted);
    expect(await nudges(pool)).toEqual([]);
  });

  test("does not ask S3 about what it has answered since", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", {
      restore: { last_checked_at: ago("10 minutes") },
    });
    await read(pool, { event_time: ago("20 minutes") });
    expect(await reload(pool, restore)).toEqual(restore);
  });

  test("closes a restore that failed more than a day ago, and opens a new one", async ({ pool }) => {
    const { restore, request } = await insertRead(pool, "failed", {
      restore: { status_at: ago("25 hours") },
    });
    await tell(pool, request);

    expect(await read(pool)).toMatchObject({ duplicate: false });

    expect((await reload(pool, restore))["closed_at"]).toEqual(
      new Date((restore["status_at"] as Date).getTime() + 24 * 3_600_000),
    );
    expect(await restores(pool)).toMatchObject([{ status: "failed" }, { status: "not_started" }]);
    expect(await nudges(pool)).toContain("trigger_restores +0");
  });

  test("an old read does not close it", async ({ pool }) => {
    const { restore } = await insertRead(pool, "failed", { restore: { status_at: ago("25 hours") } });
    await read(pool, { event_time: ago("2 hours") });
    expect(await restores(pool)).toEqual([restore]);
  });
});

describe("a batch", () => {
  test("answers each of its reads, repeats and all", async ({ pool }) => {
    const first = aRead({ event_time: ago("3 minutes") });
    const reads = [
      first,
      aRead({ event_time: ago("2 minutes") }),
      aRead({ event_id: first["event_id"], event_time: ago("3 minutes") }),
      aRead({ access_key_id: JOHN }),
      aRead({ s3_key: "another.mov" }),
    ];
    const answers = await requestRestores(pool, ...reads);

    expect(answers.map((answer) => answer.read_id)).toEqual(reads.map((read) => read["id"]));
    expect(answers.map((answer) => answer.duplicate)).toEqual([false, true, true, false, false]);
    expect(new Set(answers.slice(0, 3).map((answer) => answer.request_id))).toEqual(new Set([first["id"]]));
    expect(await restores(pool)).toHaveLength(2);
    const [jane] = await requestsOf(
      pool,
      (await restores(pool)).find((restore) => restore["s3_key"] === "film.mov") as Row,
    );
    expect(jane).toMatchObject({ access_key_id: JANE, read_count: 2 });
    expect(await nudges(pool)).toEqual(["resolve_users +0", "trigger_restores +0"]);
  });

  test("that is sent again after its answer was lost changes nothing and answers the same", async ({
    pool,
  }) => {
    const reads = [aRead(), aRead({ s3_key: "another.mov", event_id: undefined })];
    const answers = await requestRestores(pool, ...reads);
    const before = await everything(pool);

    expect(await requestRestores(pool, ...reads)).toEqual(answers);
    expect(await everything(pool)).toEqual(before);
  });

  test("of nothing is nothing", async ({ pool }) => {
    expect(await requestRestores(pool)).toEqual([]);
    expect(await nudges(pool)).toEqual([]);
  });

  test("with one row that cannot be changes nothing", async ({ pool }) => {
    await expect(requestRestores(pool, aRead(), aRead({ s3_key: "k".repeat(1025) }))).rejects.toMatchObject({
      code: "23514",
      constraint: "restores_key_length",
    });
    expect(await restores(pool)).toEqual([]);
  });

  test("holds the longest names there are", async ({ pool }) => {
    // Random, so that no index entry gets shorter by compression.
    const long = (length: number) =>
      Array.from({ length }, () => Math.floor(Math.random() * 36).toString(36)).join("");
    const longest = {
      s3_bucket: long(255),
      s3_key: long(1024),
      version_id: long(1024),
      access_key_id: undefined,
      principal: long(2048),
    };
    expect(await read(pool, longest)).toMatchObject({ duplicate: false });
    expect(await read(pool, longest)).toMatchObject({ duplicate: true });
  });
});

describe("two at once", () => {
  test("batches over the same objects in opposite order lose nothing and need no retry", async ({ pool }) => {
    const keys = Array.from({ length: 60 }, (_, index) => `file ${index}`);
    const batch = (access_key_id: string, names: string[]) =>
      requestRestores(pool, ...names.map((s3_key) => aRead({ s3_key, access_key_id })));

    for (let round = 1; round <= 5; round++) {
      await Promise.all([batch(JANE, keys), batch(JOHN, keys.toReversed()), batch(JANE, keys.toReversed())]);
      const [counts] = (
        await pool.query(
          `select (select count(*)::int from restores) as restores, count(*)::int as requests,
                  count(*) filter (where access_key_id = $1 and read_count = $2)::int as jane
             from restore_requests`,
          [JANE, 2 * round],
        )
      ).rows;
      expect(counts).toEqual({ restores: 60, requests: 120, jane: 60 });
    }
  });

  test("first reads of one object make one restore with two readers", async ({ pool }) => {
    await whileUncommitted(
      pool,
      (client) => read(client),
      () => read(pool, { access_key_id: JOHN }),
    );
    const [restore, ...others] = await restores(pool);
    expect(others).toEqual([]);
    expect(await requestsOf(pool, restore as Row)).toMatchObject([
      { access_key_id: JANE },
      { access_key_id: JOHN },
    ]);
  });

  test("a read waits for a transition under way and copies what it made", async ({ pool }) => {
    const claim_id = randomUUID();
    const { restore } = await insertRead(pool, "pending", { restore: { claim_id } });
    const outcome = JSON.stringify([{ id: restore["id"], claim_id, restore_expires_at: ahead("7 days") }]);

    await whileUncommitted(
      pool,
      (client) => client.query("select mark_restores_restored($1, $2)", [outcome, WAITS]),
      () => read(pool, { access_key_id: JOHN }),
    );

    const { status_at } = await reload(pool, restore);
    expect(await requestsOf(pool, restore)).toMatchObject([
      { access_key_id: JANE, restore_status: "restored", status_at },
      { access_key_id: JOHN, restore_status: "restored", status_at },
    ]);
  });

  test("a transition waits for a read under way and moves its reader too", async ({ pool }) => {
    const claim_id = randomUUID();
    const { restore } = await insertRead(pool, "pending", { restore: { claim_id } });
    const outcome = JSON.stringify([{ id: restore["id"], claim_id, restore_expires_at: ahead("7 days") }]);

    await whileUncommitted(
      pool,
      (client) => read(client, { access_key_id: JOHN }),
      () => pool.query("select mark_restores_restored($1, $2)", [outcome, WAITS]),
    );

    const { status_at } = await reload(pool, restore);
    expect(await requestsOf(pool, restore)).toMatchObject([
      { access_key_id: JANE, restore_status: "restored", status_at },
      { access_key_id: JOHN, restore_status: "restored", status_at },
    ]);
  });

  test("a read that meets the reopening of its restore is told to come again, and joins the new one", async ({
    pool,
  }) => {
    const claim_id = randomUUID();
    const { restore } = await insertRead(pool, "restored", {
      restore: { claim_id, attempt_after: ahead("1 minutes") },
    });
    const outcome = JSON.stringify([{ id: restore["id"], claim_id }]);
    const johns = { access_key_id: JOHN, event_time: new Date() };

    await expect(
      whileUncommitted(
        pool,
        (client) => client.query("select mark_restores_expired($1, $2)", [outcome, WAITS]),
        () => read(pool, johns),
      ),
    ).rejects.toMatchObject({ code: "40001" });
    expect(await read(pool, johns)).toMatchObject({ duplicate: false });

    const [, opened] = await restores(pool);
    expect(await requestsOf(pool, restore)).toEqual([]);
    expect(await requestsOf(pool, opened as Row)).toMatchObject([
      { access_key_id: JANE, restore_status: "not_started" },
      { access_key_id: JOHN, restore_status: "not_started" },
    ]);
  });

  test("reopening waits for a read under way and takes its reader along", async ({ pool }) => {
    const claim_id = randomUUID();
    const { restore } = await insertRead(pool, "restored", {
      restore: { claim_id, attempt_after: ahead("1 minutes") },
    });
    const outcome = JSON.stringify([{ id: restore["id"], claim_id }]);

    await whileUncommitted(
      pool,
      (client) => read(client, { access_key_id: JOHN }),
      () => pool.query("select mark_restores_expired($1, $2)", [outcome, WAITS]),
    );

    const [, opened] = await restores(pool);
    expect(await requestsOf(pool, opened as Row)).toMatchObject([
      { access_key_id: JANE },
      { access_key_id: JOHN },
    ]);
  });

  test("a read while its object is claimed does not hide it from the claim", async ({ pool }) => {
    const { restore } = await insertRead(pool, "not_started");
    const client = await pool.connect();
    await client.query("begin");
    await read(client);
    expect((await pool.query("select id from claim_restores_to_trigger(10)")).rows).toEqual([
      { id: restore["id"] },
    ]);
    await client.query("commit");
    client.release();
  });
});

test("POST resolves what the map knows and answers the same id for a repeat", async ({ databaseUrl }) => {
  const thaw = await startThaw(databaseUrl, { worker: false });
  try {
    await thaw.know(JANE, "jane@example.com");
    const first = await thaw.post("/restore/request", requestBody("film.mov"));
    const repeat = await thaw.post("/restore/request", requestBody("film.mov"));

    expect(first).toMatchObject({ status: 200, body: { ok: true, duplicate: false } });
    expect(repeat).toMatchObject({ status: 200, body: { ok: true, id: first.body.id, duplicate: true } });
    expect(await requests(thaw.pool)).toMatchObject([
      { id: first.body.id, email: "jane@example.com", user_resolved: true, read_count: 2 },
    ]);
  } finally {
    await thaw.stop();
  }
});
