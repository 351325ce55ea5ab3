/** A tool looked at an object and gave up by itself: only our own HEAD says whether that was a read that failed. */
import { describe, expect } from "vitest";

import { test as base, waitFor } from "../support/database.ts";
import { policy } from "../support/cost.ts";
import { one, query } from "../support/rows.ts";
import { BOB, BUCKET, JANE, requestBody, startThaw, type Thaw, type ThawOptions } from "../support/thaw.ts";

interface Fixtures {
  /** A Thaw whose restores run until told to finish. */
  start: (options?: ThawOptions) => Promise<Thaw>;
}

const test = base.extend<Fixtures>({
  start: async ({ databaseUrl }, use) => {
    const started: Thaw[] = [];
    await use(async (options = {}) => {
      const thaw = await startThaw(databaseUrl, { ...options, s3: { restore_ms: Infinity, ...options.s3 } });
      started.push(thaw);
      return thaw;
    });
    for (const thaw of started) {
      await thaw.stop();
      expect(thaw.lambdaErrors).toEqual([]);
    }
  },
});

const object = (key: string) => ({ bucket: BUCKET, key });

async function look(thaw: Thaw, key: string, more: Record<string, unknown> = {}): Promise<void> {
  const answer = await thaw.post("/restore/request", requestBody(key, { evidence: "looked", ...more }));
  expect(answer).toMatchObject({ status: 200, body: { ok: true, id: expect.any(String), duplicate: false } });
}

const left = async ({ pool }: Thaw): Promise<number> => (await query(pool, "select from looks")).length;
const decided = (thaw: Thaw): Promise<unknown> =>
  waitFor("S3 to be asked about every look", async () => (await left(thaw)) === 0, 30_000);
const isPending = ({ pool }: Thaw, key: string): Promise<unknown> =>
  waitFor(
    `${key} to be pending`,
    async () =>
      (await query(pool, "select from restores where status = 'pending' and s3_key = $1", [key])).length ===
      1,
    30_000,
  );
const headsOf = (thaw: Thaw, key: string): number =>
  thaw.s3.requests.filter((request) => request.operation === "HeadObject" && request.key === key).length;

/** What Thaw keeps of reads, mails and costs. */
const kept = async ({ pool }: Thaw): Promise<unknown> =>
  one(
    pool,
    `select (select jsonb_agg(r) from restores r) as restores, (select jsonb_agg(q) from restore_requests q) as requests,
            (select jsonb_agg(n) from notifications n) as mails, (select jsonb_agg(a) from announcements a) as announcements,
            (select jsonb_agg(h) from restore_history h) as history, (select jsonb_agg(t) from totals t) as totals,
            (select jsonb_agg(l) from looks l) as looks`,
  );
const NOTHING = {
  restores: null,
  requests: null,
  mails: null,
  announcements: null,
  history: null,
  totals: null,
  looks: null,
};

describe("a look at", () => {
  test("an archived object is restored, and its reader hears of both, once", async ({ start }) => {
    const thaw = await start();
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("film.mov");
    await look(thaw, "film.mov");
    await waitFor("the first mail", async () => thaw.resend.mails.length === 1, 30_000);
    thaw.s3.finishRestore(object("film.mov"));
    await waitFor("the second mail", async () => thaw.resend.mails.length === 2, 30_000);
    expect(thaw.s3.look(object("film.mov"))?.restores_accepted).toBe(1);
    expect(await left(thaw)).toBe(0);
  });

  test("a readable object leaves nothing, whatever makes it readable", async ({ start }) => {
    const thaw = await start({ events: false });
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("warm", "STANDARD");
    thaw.archive("instant", "GLACIER_IR");
    thaw.archive("tiered", "INTELLIGENT_TIERING");
    thaw.archive("copy");
    thaw.s3.beginRestore(object("copy"), { days: 3 });
    thaw.s3.finishRestore(object("copy"));
    for (const key of ["warm", "instant", "tiered", "copy"]) await look(thaw, key);
    await decided(thaw);
    expect(await kept(thaw)).toEqual(NOTHING);
    expect(Object.fromEntries(thaw.s3.counts)).toEqual({ "HeadObject 200": 4 });
  });

  test("a readable object changes nothing of its open restore", async ({ start }) => {
    const thaw = await start({ env: { NOTIFY_QUIET_SECONDS: "0", NOTIFY_MAX_WAIT_SECONDS: "0" } });
    await thaw.know(JANE, "jane@example.com");
    await thaw.know(BOB, "bob@example.com");
    thaw.archive("film.mov");
    await thaw.read("film.mov");
    await isPending(thaw, "film.mov");
    thaw.s3.finishRestore(object("film.mov"));
    await waitFor("the ready mail", async () => {
      const told = await query(thaw.pool, "select from restore_requests where post_notified");
      return told.length === 1 && thaw.resend.mails.length === 2;
    });
    const before = await kept(thaw);
    await look(thaw, "film.mov");
    await look(thaw, "film.mov", { access_key_id: BOB });
    await decided(thaw);
    expect(await kept(thaw)).toEqual(before);
  });

  test("an object that is being restored joins the restore", async ({ start }) => {
    const thaw = await start();
    thaw.archive("film.mov");
    await thaw.read("film.mov");
    await isPending(thaw, "film.mov");
    await look(thaw, "film.mov", { access_key_id: BOB });
    await decided(thaw);
    expect(await query(thaw.pool, "select restore_status::text from restore_requests")).toEqual([
      { restore_status: "pending" },
      { restore_status: "pending" },
    ]);
    expect(thaw.s3.look(object("film.mov"))?.restores_accepted).toBe(1);
  });

  test("an object that is gone leaves nothing, and nobody is mailed", async ({ start }) => {
    const thaw = await start();
    await look(thaw, "gone.mov");
    await decided(thaw);
    expect(await kept(thaw)).toEqual(NOTHING);
  });

  test("an object that S3 refuses to show waits in backoff, and the others flow", async ({ start }) => {
    const thaw = await start();
    thaw.archive("denied");
    thaw.archive("film.mov");
    const denied = thaw.s3.fail({ with: "access_denied", operation: "HeadObject", key: "denied" });
    await look(thaw, "denied");
    await look(thaw, "film.mov");
    await isPending(thaw, "film.mov");
    await waitFor("the refusal to be noted", async () =>
      (await query(thaw.pool, "select failure_code from looks")).some(
        (row) => row["failure_code"] === "AccessDenied",
      ),
    );
    expect(await query(thaw.pool, "select from restores where s3_key = 'denied'")).toEqual([]);

    denied.remove();
    await thaw.pool.query("update looks set attempt_after = now()");
    await thaw.pool.query("select nudge('trigger_restores')");
    await isPending(thaw, "denied");
  });

  test("an object that a policy only observes costs nothing, and nobody hears of it", async ({ start }) => {
    const thaw = await start();
    await thaw.know(JANE, "jane@example.com");
    await policy(thaw.pool, "observe");
    thaw.archive("film.mov");
    await look(thaw, "film.mov");
    await waitFor(
      "the observation",
      async () =>
        (await query(thaw.pool, "select from restores where failure_code = 'observed'")).length === 1,
    );
    expect(thaw.s3.counts.get("RestoreObject 202")).toBeUndefined();
    expect(thaw.resend.mails).toEqual([]);
  });
});

test("a look by a session of a trusted account is judged by its address when it is handed in, too", async ({
  start,
}) => {
  const account_id = "222233334444";
  const env = { SESSION_ACCOUNTS: account_id, SESSION_EMAIL_DOMAINS: "example.com" };
  const thaw = await start({ worker: false, env });
  thaw.archive("film.mov");
  const principal_id = "AROAEXAMPLEROLE000001:jane@example.com";
  await look(thaw, "film.mov", { access_key_id: undefined, account_id, principal_id });
  await policy(thaw.pool, "ignore", { principal: "jane@example.com" });
  await thaw.startWorker();
  await decided(thaw);
  expect(await query(thaw.pool, "select from restores")).toEqual([]);
});

test("a look and the read that fails after it are one request and one mail", async ({ start }) => {
  const thaw = await start();
  await thaw.know(JANE, "jane@example.com");
  thaw.archive("film.mov");
  await look(thaw, "film.mov");
  expect(await thaw.read("film.mov")).toBe("InvalidObjectState");
  await decided(thaw);
  await isPending(thaw, "film.mov");
  await waitFor("the first mail", async () => thaw.resend.mails.length > 0, 30_000);
  thaw.s3.finishRestore(object("film.mov"));
  await waitFor("the ready mail", async () => thaw.resend.mails.length > 1, 30_000);
  expect(thaw.resend.mails).toHaveLength(2);
  expect(await one(thaw.pool, "select read_count from restore_requests")).toEqual({ read_count: 2 });
});

test("many readers who look at one object cost one HEAD beside that of the restore", async ({ start }) => {
  const thaw = await start({ worker: false });
  thaw.archive("film.mov");
  await Promise.all(
    Array.from({ length: 100 }, (_, index) =>
      look(thaw, "film.mov", { access_key_id: `AKIAREADER${index}` }),
    ),
  );
  await thaw.startWorker();
  await isPending(thaw, "film.mov");
  expect(await left(thaw)).toBe(0);
  expect(headsOf(thaw, "film.mov")).toBe(2);
  expect(await query(thaw.pool, "select from restore_requests")).toHaveLength(100);
});

test("a row that an operator keeps locked delays only the looks at its own object", async ({ start }) => {
  const thaw = await start({ worker: false });
  for (const key of ["locked", "a", "b", "c"]) thaw.archive(key);
  expect(await thaw.post("/restore/request", requestBody("locked", { access_key_id: BOB }))).toMatchObject({
    status: 200,
  });
  await thaw.pool.query("update restores set attempt_after = now() + interval '1 hour'");
  for (const key of ["locked", "a", "b", "c"]) await look(thaw, key);
  const client = await thaw.pool.connect();
  try {
    await client.query("begin");
    await client.query("select from restores where s3_key = 'locked' for update");
    await thaw.startWorker();
    for (const key of ["a", "b", "c"]) await isPending(thaw, key);
    await waitFor("the trouble to be noted", async () =>
      (await query(thaw.pool, "select failure_code from looks")).some(
        (row) => row["failure_code"] === "not_handed_in",
      ),
    );
    await client.query("rollback");
  } finally {
    client.release(true);
  }
  await thaw.pool.query("update looks set attempt_after = now()");
  await thaw.pool.query("select nudge('trigger_restores')");
  await decided(thaw);
  expect(await query(thaw.pool, "select from restore_requests where s3_key = 'locked'")).toHaveLength(2);
});

describe("very many looks at readable objects", () => {
  /** More than a run asks about while a read waits. */
  const COUNT = 400;
  const keys = Array.from({ length: COUNT }, (_, index) => `warm-${index}`);

  async function lookAtAll(thaw: Thaw): Promise<void> {
    for (const key of keys) thaw.archive(key, "STANDARD");
    await Promise.all(keys.map((key) => look(thaw, key)));
  }

  test("cost a HEAD each, never more at once than asked for, and leave nothing", async ({ start }) => {
    const thaw = await start({ worker: false, s3: { latency_ms: 20 } });
    await lookAtAll(thaw);
    await thaw.startWorker({ S3_CONCURRENCY: 5 });
    await decided(thaw);
    expect(Object.fromEntries(thaw.s3.counts)).toEqual({ "HeadObject 200": COUNT });
    expect(await kept(thaw)).toEqual(NOTHING);
    // Whatever begins within one latency runs at the same time.
    const begun = thaw.s3.requests.map((request) => request.at);
    const at_once = begun.map((at, index) => begun.slice(index).filter((later) => later - at < 20).length);
    expect(Math.max(...at_once)).toBeLessThanOrEqual(5);
  });

  test("delay no read by more than a page of them", async ({ start }) => {
    const thaw = await start({ worker: false, s3: { latency_ms: 50 } });
    await lookAtAll(thaw);
    thaw.archive("film.mov");
    await thaw.startWorker({ S3_CONCURRENCY: 8 });
    await waitFor("looks to be asked about", async () => thaw.s3.requests.length >= 10);
    expect(await thaw.read("film.mov")).toBe("InvalidObjectState");
    await isPending(thaw, "film.mov");
    expect(await left(thaw)).toBeGreaterThan(0);
  });

  test("that S3 leaves hanging delay no read for longer than a HEAD of theirs may take", async ({
    start,
  }) => {
    const thaw = await start({ worker: false });
    await lookAtAll(thaw);
    thaw.s3.fail({ with: "hang", operation: "HeadObject", key_prefix: "warm-" });
    thaw.archive("film.mov");
    await thaw.startWorker({ S3_CONCURRENCY: 8 });
    await waitFor("looks to hang", async () => thaw.s3.requests.length >= 2);
    await thaw.pool.query("select nudge('trigger_restores')");
    await waitFor("looks of the second run to hang", async () => thaw.s3.requests.length >= 4);
    expect(await thaw.read("film.mov")).toBe("InvalidObjectState");
    await isPending(thaw, "film.mov");
    // Nobody waited until the SDK asked a second time.
    const asked = thaw.s3.requests.flatMap(({ key }) => (key?.startsWith("warm-") ? [key] : []));
    expect(new Set(asked).size).toBe(asked.length);
    // Two runs of two ask; a further page is begun at most while the read comes in.
    expect(asked.length).toBeLessThan(COUNT / 4);
  });
});
