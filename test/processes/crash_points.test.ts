/** Killed at exactly the moments that matter: nothing is lost, nothing done twice, and seconds later it goes on. */
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";

import type { Pool } from "pg";
import { expect, vi } from "vitest";

import { admit, archived, claim, HELD_FOR_EVER, limit, policy, SPENDING_IS_WRONG } from "../support/cost.ts";
import { waitFor } from "../support/database.ts";
import { test, type Process, type World, readByJane } from "../support/processes.ts";
import { aRead, one, query, requestRestores } from "../support/rows.ts";
import { startTcpProxy } from "../support/tcp_proxy.ts";
import { BUCKET, requestBody } from "../support/thaw.ts";

/**
 * A look every five seconds finds the dead one; the rest is what a busy machine adds. A lease would last a minute, and
 * graphile-worker's own lock four hours.
 */
const RECOVERED_WITHIN_MS = 40_000;
// Or the default of 30 seconds would end a test before what it waits for may come.
vi.setConfig({ testTimeout: 90_000 });

/** Two workers of which the second can do nothing yet: whatever is claimed, the first has claimed. */
async function twoWorkers(world: World, env: Record<string, string> = {}): Promise<[Process, Process]> {
  const second = world.run(["worker"]);
  await second.says("worker ready");
  second.child.kill("SIGSTOP");
  const first = world.run(["worker"], env);
  await first.says("worker ready");
  return [first, second];
}

const noLockLeft = (pool: Pool, living: number): Promise<unknown> =>
  waitFor(
    "no lock of the dead",
    async () =>
      (await query(pool, "select from workers")).length === living &&
      (
        await query(
          pool,
          "select from graphile_worker.jobs where locked_by is not null and locked_by not in (select id from workers)",
        )
      ).length === 0,
    RECOVERED_WITHIN_MS,
  );

const mailSent = (pool: Pool): Promise<unknown> =>
  waitFor(
    "the mail to be marked sent",
    async () => (await query(pool, "select from notifications where status = 'sent'")).length === 1,
    RECOVERED_WITHIN_MS,
  );

test("between claim and send", async ({ world, pool }) => {
  // Whoever connects here wants to send: that is the moment.
  let killed = 0;
  const trap = createServer((socket) => {
    // Before the line is cut: else it might still note that, and its mail would wait out the backoff.
    if (killed++ === 0) first.child.kill("SIGKILL");
    socket.destroy();
  }).listen(0, "127.0.0.1");
  await once(trap, "listening");
  const [first, second] = await twoWorkers(world, {
    RESEND_BASE_URL: `http://127.0.0.1:${(trap.address() as AddressInfo).port}`,
  });

  await readByJane(world, pool, "a.bin");
  await first.end(30_000);
  expect(killed).toBe(1);
  expect(await one(pool, "select status::text, attempts from notifications")).toEqual({
    status: "sealed",
    attempts: 1,
  });
  second.child.kill("SIGCONT");

  await mailSent(pool);
  await noLockLeft(pool, 1);
  expect(world.resend.mails).toHaveLength(1);
  expect(world.resend.requests).toHaveLength(1);
  trap.close();
});

test("between Resend's acceptance and our mark", async ({ world, pool }) => {
  const { resend } = world;
  const [first, second] = await twoWorkers(world);
  resend.addFault({ kind: "accept_then_hang", times: 1 });

  await readByJane(world, pool, "a.bin");
  await waitFor("Resend to accept", async () => resend.mails.length === 1, 30_000);
  first.child.kill("SIGKILL");
  await first.end();
  second.child.kill("SIGCONT");

  await mailSent(pool);
  await noLockLeft(pool, 1);
  expect(resend.mails).toHaveLength(1);
  expect(resend.requests.map((request) => request.replayed)).toEqual([false, true]);
});

test("between RestoreObject and our transition", async ({ world, pool }) => {
  const { s3 } = world;
  const [first, second] = await twoWorkers(world);
  world.onS3Event = (event) => {
    if (event["detail-type"] === "Object Restore Initiated") first.child.kill("SIGKILL");
  };

  await readByJane(world, pool, "a.bin");
  await first.end(30_000);
  expect(await one(pool, "select status::text, attempts from restores")).toEqual({
    status: "not_started",
    attempts: 1,
  });
  second.child.kill("SIGCONT");

  await waitFor(
    "pending",
    async () =>
      (await query(pool, "select from restores where status = 'pending' and accepted_at is not null"))
        .length === 1,
    RECOVERED_WITHIN_MS,
  );
  await noLockLeft(pool, 1);
  expect(s3.look({ bucket: BUCKET, key: "a.bin" })?.restores_accepted).toBe(1);
});

test("between the question of the poll and what it notes", async ({ world, pool }) => {
  const { s3 } = world;
  const [first, second] = await twoWorkers(world);
  await readByJane(world, pool, "a.bin");
  await isPending(pool);
  s3.finishRestore({ bucket: BUCKET, key: "a.bin" });
  const hang = s3.fail({ with: "hang", operation: "HeadObject" });
  // Its expected time has ended, and no event has come.
  await pool.query(
    "update restores set accepted_at = accepted_at - interval '5 hours', ask_after = ask_after - interval '5 hours'",
  );
  await pool.query("select nudge('poll_pending_restores')");
  await waitFor("the question", async () => hang.struck > 0, 30_000);
  first.child.kill("SIGKILL");
  await first.end();
  hang.remove();
  expect(await one(pool, "select status::text, claim_id is null as is_free from restores")).toEqual({
    status: "pending",
    is_free: false,
  });
  second.child.kill("SIGCONT");

  await waitFor(
    "the ready mail",
    async () =>
      (await query(pool, "select from notifications where kind = 'post' and status = 'sent'")).length === 1,
    RECOVERED_WITHIN_MS,
  );
  await noLockLeft(pool, 1);
  expect(world.resend.mails.filter(({ subject }) => subject.includes("ready"))).toHaveLength(1);
  expect(s3.look({ bucket: BUCKET, key: "a.bin" })?.restores_accepted).toBe(1);
});

/** What a limit has spent, what the ledger has, and what S3 accepted of that object. */
const charged = async ({ s3 }: World, pool: Pool, key: string): Promise<unknown> => {
  expect(await query(pool, SPENDING_IS_WRONG)).toEqual([]);
  return {
    ...(await one(
      pool,
      "select (select sum(objects)::integer from spending) as spent, (select sum(objects)::integer from costs) as ledger",
    )),
    accepted: s3.look({ bucket: BUCKET, key })?.restores_accepted,
  };
};
const ONCE = { spent: 1, ledger: 1, accepted: 1 };

const isPending = (pool: Pool, count = 1): Promise<unknown> =>
  waitFor(
    "pending",
    async () => (await query(pool, "select from restores where status = 'pending'")).length === count,
    RECOVERED_WITHIN_MS,
  );

test("between admission and RestoreObject, and then the limit is lowered and the policy changed: charged once, restored once", async ({
  world,
  pool,
}) => {
  await limit(pool, { max_objects: 1 });
  const [first, second] = await twoWorkers(world);
  const hang = world.s3.fail({ with: "hang", operation: "RestoreObject" });
  await readByJane(world, pool, "a.bin");
  await waitFor("RestoreObject", async () => hang.struck > 0, 30_000);
  first.child.kill("SIGKILL");
  await first.end();
  hang.remove();
  await limit(pool, { max_objects: 0 });
  await policy(pool, "hold");
  world.s3.putObject({ bucket: BUCKET, key: "b.bin", storage_class: "GLACIER", body: "b" });
  await requestRestores(pool, aRead({ s3_key: "b.bin" }));
  second.child.kill("SIGCONT");

  await isPending(pool);
  await waitFor("the other to be held", async () => (await query(pool, "select from holds")).length === 1);
  expect(await charged(world, pool, "a.bin")).toEqual(ONCE);
  expect(world.s3.look({ bucket: BUCKET, key: "b.bin" })?.restores_accepted).toBe(0);
});

test("between RestoreObject and our transition, under a limit: charged once, by the tier that was asked for", async ({
  world,
  pool,
}) => {
  await limit(pool, { max_objects: 1, max_cost: 1 });
  await policy(pool, "restore", { tier: "Bulk", days: 3 });
  const [first, second] = await twoWorkers(world);
  world.onS3Event = () => first.child.kill("SIGKILL");
  await readByJane(world, pool, "a.bin");
  await first.end(30_000);
  expect(await one(pool, "select status::text, charged is not null as charged from restores")).toEqual({
    status: "not_started",
    charged: true,
  });
  second.child.kill("SIGCONT");

  await isPending(pool);
  expect(await charged(world, pool, "a.bin")).toEqual(ONCE);
  expect(await one(pool, "select tier, days, payer from restores")).toEqual({
    tier: "Bulk",
    days: 3,
    payer: "jane@example.com",
  });
});

const looks = (pool: Pool, ...keys: string[]): Promise<unknown> =>
  requestRestores(pool, ...keys.map((s3_key) => aRead({ s3_key, evidence: "looked" })));

test("between the claim of a look and its HEAD: another asks, and it becomes one request", async ({
  world,
  pool,
}) => {
  const [first, second] = await twoWorkers(world);
  const hang = world.s3.fail({ with: "hang", operation: "HeadObject" });
  for (const key of ["a.bin", "b.bin"])
    world.s3.putObject({ bucket: BUCKET, key, storage_class: "GLACIER", body: key });
  await looks(pool, "a.bin", "b.bin", "gone.bin");
  await waitFor("the HEADs", async () => hang.struck >= 3, 30_000);
  first.child.kill("SIGKILL");
  await first.end();
  expect(await query(pool, "select from looks where claim_id is not null")).toHaveLength(3);
  expect(await query(pool, "select from restores")).toEqual([]);
  hang.remove();
  second.child.kill("SIGCONT");

  await isPending(pool, 2);
  await noLockLeft(pool, 1);
  expect(await query(pool, "select from looks")).toEqual([]);
  expect(await query(pool, "select read_count from restore_requests")).toEqual([
    { read_count: 1 },
    { read_count: 1 },
  ]);
});

test("in the middle of very many looks, one worker after the other: each archived object is restored once, and nothing stays of the others", async ({
  world,
  pool,
}) => {
  const keys = Array.from({ length: 600 }, (_, index) => `film-${index}.mov`);
  for (const [index, key] of keys.entries()) {
    const storage_class = index % 3 === 0 ? "GLACIER" : "STANDARD";
    world.s3.putObject({ bucket: BUCKET, key, storage_class, body: key });
  }
  world.s3.fail({ with: "latency", latency_ms: 20 });
  const workers = [1, 2, 3].map(() => world.run(["worker"], { S3_CONCURRENCY: "4" }));
  for (const worker of workers) await worker.says("worker ready");
  for (let from = 0; from < keys.length; from += 200) await looks(pool, ...keys.slice(from, from + 200));

  for (const [index, worker] of workers.slice(1).entries()) {
    const before = (index + 1) * 100;
    await waitFor("some HEADs", async () => world.s3.requests.length >= before, 30_000);
    worker.child.kill("SIGKILL");
    await worker.end();
  }
  await waitFor(
    "the last look to be decided",
    async () => (await query(pool, "select from looks")).length === 0,
    RECOVERED_WITHIN_MS,
  );
  await isPending(pool, 200);
  expect(await query(pool, "select from restores")).toHaveLength(200);
  expect(await one(pool, "select count(*)::integer, sum(read_count)::integer from restore_requests")).toEqual(
    {
      count: 200,
      sum: 200,
    },
  );
  expect(world.s3.counts.get("RestoreObject 202")).toBe(200);
});

test("between two pages of an approved hold: the rest follows, each once", async ({ world, pool }) => {
  // Two runs take a page each, and then wait for S3.
  const count = 1_300;
  const keys = Array.from({ length: count }, (_, index) => `film-${index}.mov`);
  for (const key of keys) world.s3.putObject({ bucket: BUCKET, key, storage_class: "GLACIER", body: key });
  await limit(pool, { max_objects: 0 });
  await requestRestores(pool, ...keys.map((s3_key) => aRead({ s3_bucket: BUCKET, s3_key })));
  await admit(
    pool,
    (await claim(pool, count)).map((row) => archived(row)),
  );
  const [first, second] = await twoWorkers(world);
  const hang = world.s3.fail({ with: "hang", operation: "HeadObject" });
  await query(pool, "select approve_hold(id, 'ann', $1) from holds", [count]);
  await waitFor("the first page to be asked about", async () => hang.struck > 0, 30_000);
  first.child.kill("SIGKILL");
  await first.end();
  expect(await query(pool, "select from restores where attempt_after = 'infinity'")).not.toHaveLength(0);
  hang.remove();
  second.child.kill("SIGCONT");

  await isPending(pool, count);
  expect(world.s3.counts.get("RestoreObject 202")).toBe(count);
  expect(await query(pool, SPENDING_IS_WRONG)).toEqual([]);
  expect(await query(pool, HELD_FOR_EVER)).toEqual([]);
  expect(await one(pool, "select sum(objects)::integer as spent from spending")).toEqual({ spent: count });
});

test("between COMMIT and the HTTP answer", async ({ world, databaseUrl, pool }) => {
  await using proxy = await startTcpProxy(databaseUrl);
  const first = world.run(["server"], { DATABASE_URL: proxy.url });
  const body = requestBody("a.bin");
  // The first answer is of no matter; it brings the connection that is then held.
  expect(await first.post("/restore/request", requestBody("warm.bin"))).toMatchObject({ status: 200 });

  proxy.mute();
  const unanswered = first.post("/restore/request", body).catch((error: unknown) => error);
  const row = await waitFor("the commit", async () => {
    const rows = await query(pool, "select id from restore_requests where s3_key = 'a.bin'");
    return rows[0];
  });
  first.child.kill("SIGKILL");
  expect(await unanswered).toBeInstanceOf(Error);

  const second = world.run(["server"]);
  expect(await second.post("/restore/request", body)).toEqual({
    status: 200,
    body: { ok: true, id: row["id"], duplicate: true },
  });
  expect(await one(pool, "select read_count from restore_requests where s3_key = 'a.bin'")).toEqual({
    read_count: 1,
  });
  expect(await query(pool, "select from restores where s3_key = 'a.bin'")).toHaveLength(1);
});

test("a server whose line to Postgres goes dead without a word: it answers 503, and seconds later 200", async ({
  world,
  databaseUrl,
}) => {
  await using proxy = await startTcpProxy(databaseUrl);
  const server = world.run(["server"], { DATABASE_URL: proxy.url });
  expect(await server.post("/restore/request", requestBody("warm.bin"))).toMatchObject({ status: 200 });

  proxy.forget();
  expect(await server.post("/restore/request", requestBody("a.bin"))).toMatchObject({ status: 503 });
  await waitFor(
    "a new line",
    async () => (await server.post("/restore/request", requestBody("a.bin"))).status === 200,
    15_000,
  );
});

test("one of two workers, with claims and jobs in its hands: the other takes them over", async ({
  world,
  pool,
}) => {
  const { s3 } = world;
  const [first, second] = await twoWorkers(world);
  const hang = s3.fail({ with: "hang", operation: "HeadObject" });
  const keys = Array.from({ length: 20 }, (_, index) => `film-${index}.mov`);
  for (const key of keys) s3.putObject({ bucket: BUCKET, key, storage_class: "GLACIER", body: key });
  await requestRestores(pool, ...keys.map((s3_key) => aRead({ s3_key })));
  await waitFor("all to hang", async () => hang.struck >= keys.length, 30_000);
  expect(await query(pool, "select from graphile_worker.jobs where locked_by is not null")).not.toHaveLength(
    0,
  );

  first.child.kill("SIGKILL");
  hang.remove();
  second.child.kill("SIGCONT");

  await waitFor(
    "all to be pending",
    async () => (await query(pool, "select from restores where status = 'pending'")).length === keys.length,
    RECOVERED_WITHIN_MS,
  );
  await noLockLeft(pool, 1);
  expect(s3.counts.get("RestoreObject 202")).toBe(keys.length);
});

test("paused beyond its lease, and continued: what it still reports does no harm", async ({
  world,
  pool,
}) => {
  const { resend } = world;
  const [first, second] = await twoWorkers(world);
  resend.addFault({ kind: "hang", times: 1 });
  await readByJane(world, pool, "a.bin");
  await waitFor("the call that hangs", async () => resend.requests.length === 1, 30_000);
  first.child.kill("SIGSTOP");
  second.child.kill("SIGCONT");
  // A minute passes.
  await pool.query("update notifications set attempt_after = now()");
  await pool.query("select nudge('pre_notify')");
  await mailSent(pool);
  expect(await query(pool, "select from workers")).toHaveLength(2);

  // Its call ends unanswered; of that it speaks, and nobody listens.
  first.child.kill("SIGCONT");
  // A call of Resend may take 20 s.
  await first.says('"outcome":"uncertain"', RECOVERED_WITHIN_MS);
  await waitFor(
    "its jobs to end",
    async () =>
      (await query(pool, "select from graphile_worker.jobs where locked_by is not null")).length === 0,
  );
  expect(await one(pool, "select status::text, failure_code from notifications")).toEqual({
    status: "sent",
    failure_code: null,
  });
  expect(resend.mails).toHaveLength(1);
});

test("the dead are noticed by a running worker within seconds, whatever died and when", async ({
  world,
  pool,
}) => {
  await pool.query(
    "create or replace function reconnect_grace() returns interval language sql immutable as $$ select interval '0' $$",
  );
  const worker = world.run(["worker"]);
  await worker.says("worker ready");
  await noLockLeft(pool, 1);
  world.s3.putObject({ bucket: BUCKET, key: "a.bin", storage_class: "GLACIER", body: "a" });

  // Two in a row: the first look after a start proves nothing about the next.
  for (const dead of ["first", "second"]) {
    await pool.query("insert into restores (id, s3_bucket, s3_key) values (gen_random_uuid(), $1, $2)", [
      BUCKET,
      dead,
    ]);
    await pool.query("select * from claim_restores_to_trigger(1, $1)", [dead]);
    const began = performance.now();
    await pool.query("insert into workers (id) values ($1)", [dead]);

    await waitFor(
      "its claim to be given back",
      async () =>
        (
          await query(pool, "select from restores where s3_key = $1 and claimed_by is distinct from $1", [
            dead,
          ])
        ).length === 1,
      RECOVERED_WITHIN_MS,
    );
    // Five seconds between two looks, and what a busy machine adds.
    expect(performance.now() - began).toBeLessThan(10_000);
  }
});
