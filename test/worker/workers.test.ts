/** Workers come and go: who lives, what the dead leave behind, and connections that only look alive. */
import { randomUUID } from "node:crypto";

import type { Pool, PoolClient } from "pg";
import { describe, expect } from "vitest";

import { createPool } from "../../server/postgres/pool.ts";
import { createDatabase } from "../../server/postgres/rows.ts";
import { createLog } from "../../server/log.ts";
import { enterWorker } from "../../server/worker/presence.ts";
import { newPool, test, waitFor } from "../support/database.ts";
import {
  insertNotification,
  insertRead,
  insertRestore,
  isWaitedFor,
  one,
  query,
  reload,
  type Row,
} from "../support/rows.ts";
import { startTcpProxy } from "../support/tcp_proxy.ts";

const reap = async (pool: Pool): Promise<number> => {
  // The shared Postgres has just started, when this file is the first.
  await pool.query(
    "create or replace function reconnect_grace() returns interval language sql immutable as $$ select interval '0' $$",
  );
  return (await one(pool, "select reap_dead_workers() as count"))["count"] as number;
};

const enter = async (pool: Pool, worker: string): Promise<PoolClient> => {
  const client = await pool.connect();
  client.on("error", () => undefined);
  await client.query("select enter_worker($1)", [worker]);
  return client;
};

const claim = async (pool: Pool, worker: string | null): Promise<Row> =>
  one(pool, "select * from claim_restores_to_trigger(1, $1)", [worker]);

/** The connections that hold a worker's lock. */
const holders = async (pool: Pool): Promise<number[]> =>
  (
    await query(
      pool,
      `select l.pid from pg_locks l
        where l.locktype = 'advisory' and l.granted and l.database = (select oid from pg_database where datname = current_database())`,
    )
  ).map((row) => row["pid"] as number);

const workers = async (pool: Pool): Promise<string[]> =>
  (await query(pool, "select id from workers order by id")).map((row) => row["id"] as string);

describe("reap_dead_workers", () => {
  test("gives back what the dead held, and nothing of the living", async ({ pool }) => {
    const [dead, living] = [await enter(pool, "dead"), await enter(pool, "living")];
    await insertRestore(pool, "not_started", { s3_key: "a" });
    const ofDead = await claim(pool, "dead");
    await insertRestore(pool, "not_started", { s3_key: "b" });
    const ofLiving = await claim(pool, "living");
    await insertRestore(pool, "not_started", { s3_key: "c" });
    const ofNobody = await claim(pool, null);
    await insertNotification(pool);
    await pool.query("select claim_notifications('post', 1, 'dead')");
    const uncertain = await insertNotification(pool, { kind: "pre" });
    // Its turn in Resend's pace would come half a second later.
    await pool.query("update mail_gate set next_call_at = '-infinity'");
    const sending = await one(pool, "select * from claim_notifications('pre', 1, 'dead')");
    await pool.query("select note_notification_uncertain($1, $2, 'Timeout', 'no answer')", [
      uncertain["id"],
      sending["claim_id"],
    ]);
    dead.release(true);
    await waitFor("its lock to be free", async () => (await holders(pool)).length === 1);

    expect(await reap(pool)).toBe(1);

    expect(await workers(pool)).toEqual(["living"]);
    const due = "select s3_key from restores where attempt_after <= now() order by s3_key";
    expect(await query(pool, due)).toEqual([{ s3_key: "a" }]);
    expect(await reload(pool, ofDead)).toMatchObject({ claim_id: null, attempts: 1 });
    expect(await reload(pool, ofLiving)).toMatchObject({ claim_id: ofLiving["claim_id"] });
    expect(await reload(pool, ofNobody)).toMatchObject({ claim_id: ofNobody["claim_id"] });
    // What was noted keeps its back-off; what was on its way is uncertain, and due.
    expect(
      await query(
        pool,
        "select kind::text, uncertain_since is not null as uncertain from notifications where attempt_after <= now()",
      ),
    ).toEqual([{ kind: "post", uncertain: true }]);
    expect(await reap(pool)).toBe(0);
    living.release(true);
  });

  test("frees the jobs of the dead, and nudges every task that may have been theirs", async ({ pool }) => {
    const [dead, living] = [await enter(pool, "dead"), await enter(pool, "living")];
    for (const worker of ["dead", "living", "of another build"]) {
      await pool.query("select graphile_worker.add_job('trigger_restores', job_key := $1)", [worker]);
      await pool.query(
        "update graphile_worker._private_jobs set locked_by = $1, locked_at = now() where key = $1",
        [worker],
      );
    }
    dead.release(true);

    await waitFor("it to be gone", async () => (await reap(pool)) === 1);

    expect(
      await query(
        pool,
        "select locked_by from graphile_worker.jobs where key is not null order by locked_by nulls first",
      ),
    ).toEqual([{ locked_by: null }, { locked_by: "living" }, { locked_by: "of another build" }]);
    expect(
      await query(
        pool,
        "select task_identifier as task from graphile_worker.jobs where key is null order by 1",
      ),
    ).toEqual(
      ["poll_pending_restores", "post_notify", "pre_notify", "trigger_restores"].map((task) => ({ task })),
    );
    living.release(true);
  });

  test("leaves a row that three workers died with to its lease: it may be what kills them", async ({
    pool,
  }) => {
    const restore = await insertRestore(pool, "not_started");
    for (const worker of ["first", "second", "third", "fourth"]) {
      const client = await enter(pool, worker);
      await claim(pool, worker);
      client.release(true);
      await waitFor("it to be gone", async () => (await reap(pool)) === 1);
    }
    expect(
      await one(
        pool,
        "select attempts, round(extract(epoch from attempt_after - now()) / 60)::int as minutes from restores where id = $1",
        [restore["id"]],
      ),
    ).toEqual({
      attempts: 4,
      minutes: 8,
    });
  });

  test("touches no closed restore", async ({ pool }) => {
    const { restore } = await insertRead(pool, "restored", {
      restore: { claim_id: randomUUID(), claimed_by: "dead", head_wanted_at: new Date() },
    });
    const client = await enter(pool, "dead");
    await pool.query("update restores set closed_at = now(), head_wanted_at = null where id = $1", [
      restore["id"],
    ]);
    const before = await reload(pool, restore);
    client.release(true);
    await waitFor("it to be gone", async () => (await reap(pool)) === 1);
    expect(await reload(pool, restore)).toEqual(before);
  });
});

test("right after a start of Postgres nobody is taken for dead", async ({ pool }) => {
  const client = await enter(pool, "here");
  await pool.query(
    "create or replace function reconnect_grace() returns interval language sql immutable as $$ select interval '1 year' $$",
  );
  client.release(true);
  await waitFor("its lock to be free", async () => (await holders(pool)).length === 0);
  expect(await one(pool, "select reap_dead_workers() as count")).toEqual({ count: 0 });
  expect(await workers(pool)).toEqual(["here"]);
});

describe("a worker's presence", () => {
  test("ends when it leaves, and comes back when its connection broke", async ({ databaseUrl, pool }) => {
    const own = newPool(databaseUrl);
    const presence = await enterWorker(own, "here");
    expect(await workers(pool)).toEqual(["here"]);
    expect(await reap(pool)).toBe(0);

    const [holder] = await holders(pool);
    await pool.query("select pg_terminate_backend($1)", [holder]);
    await waitFor("it to be held dead", async () => (await reap(pool)) === 1);
    expect(await workers(pool)).toEqual([]);

    await waitFor("it to be back", async () => {
      await presence.check();
      return (await holders(pool)).length === 1 && (await workers(pool)).length === 1;
    });
    expect(await reap(pool)).toBe(0);

    await presence.leave();
    expect(await workers(pool)).toEqual([]);
    await own.end();
  });
});

test("a worker that leaves gives back what it had claimed and not begun", async ({ databaseUrl, pool }) => {
  const own = newPool(databaseUrl);
  const presence = await enterWorker(own, "here");
  const restore = await insertRestore(pool, "not_started");
  await claim(pool, "here");
  await insertNotification(pool);
  await pool.query("select claim_notifications('post', 1, 'here')");
  await pool.query("select graphile_worker.add_job('trigger_restores', job_key := 'its')");
  await pool.query("update graphile_worker._private_jobs set locked_by = 'here', locked_at = now()");

  await presence.leave();

  expect(await reload(pool, restore)).toMatchObject({ claim_id: null, attempts: 1 });
  expect(
    await query(
      pool,
      `select 'restore' as what from restores where attempt_after <= now()
       union all select 'mail' from notifications where attempt_after <= now()
       union all select 'job' from graphile_worker.jobs where key = 'its' and locked_by is null`,
    ),
  ).toEqual([{ what: "restore" }, { what: "mail" }, { what: "job" }]);
  // Whoever is there goes on with it.
  expect(
    (await query(pool, "select distinct task_identifier as task from graphile_worker.jobs")).length,
  ).toBe(4);
  await own.end();
});

test("a worker whose connection was cut since its last check gives back what it held when it leaves", async ({
  databaseUrl,
  pool,
}) => {
  const own = newPool(databaseUrl);
  const presence = await enterWorker(own, "here");
  await insertRestore(pool, "not_started");
  await claim(pool, "here");
  const [holder] = await holders(pool);
  await pool.query("select pg_terminate_backend($1)", [holder]);
  await waitFor("the lock to be free", async () => (await holders(pool)).length === 0);
  // As its regular check does, which comes just now.
  const checking = presence.check();
  await presence.leave();
  await checking;
  expect(await workers(pool)).toEqual([]);
  expect(await claim(pool, "another")).toBeDefined();
  expect(await holders(pool)).toEqual([]);
  await own.end();
});

test("a worker whose connection a firewall forgot becomes known again", async ({ databaseUrl, pool }) => {
  await using proxy = await startTcpProxy(databaseUrl);
  const own = createPool(proxy.url, { name: "thaw", max: 3, query_timeout_ms: 700 }, createLog("silent"));
  const presence = await enterWorker(own, "here");
  // It is not told, while Postgres finds out by itself.
  proxy.forget();
  await pool.query("select pg_terminate_backend($1)", await holders(pool));
  await waitFor("it to be held dead", async () => (await reap(pool)) === 1);

  await presence.check();

  expect(await workers(pool)).toEqual(["here"]);
  expect(await reap(pool)).toBe(0);
  await presence.leave();
  await own.end();
});

test("a worker whose connection is cut while it leaves, leaves", async ({ databaseUrl, pool }) => {
  await using proxy = await startTcpProxy(databaseUrl);
  const own = newPool(proxy.url);
  const presence = await enterWorker(own, "here");
  // So that its last word waits, and is cut off in the middle.
  const locker = await pool.connect();
  await locker.query("begin; lock table workers in access exclusive mode");
  const leaving = presence.leave();
  await waitFor("it to wait", () => isWaitedFor(pool));
  proxy.melt();
  const left = await leaving.then(
    () => "left",
    (error: unknown) => error,
  );
  await locker.query("rollback");
  locker.release();

  expect(left).toBe("left");
  await own.end();
});

test("jobs that failed for good are kept a day", async ({ pool }) => {
  await pool.query(
    "select graphile_worker.add_job('trigger_restores', job_key := key) from unnest(array['old', 'new', 'due', 'locked', 'working']) key",
  );
  await pool.query(`update graphile_worker._private_jobs set attempts = case key when 'due' then 1 else max_attempts end,
                           locked_at = case key when 'locked' then now() - interval '2 days' when 'working' then now() end,
                           locked_by = case when key in ('locked', 'working') then 'somebody' end`);
  // A trigger sets updated_at.
  await pool.query("alter table graphile_worker._private_jobs disable trigger user");
  await pool.query(
    "update graphile_worker._private_jobs set updated_at = now() - interval '2 days' where key <> 'new'",
  );
  await pool.query("alter table graphile_worker._private_jobs enable trigger user");

  expect(await one(pool, "select forget_failed_jobs() as count")).toEqual({ count: 2 });

  expect(await query(pool, "select key from graphile_worker.jobs order by key")).toEqual(
    ["due", "new", "working"].map((key) => ({ key })),
  );
});

describe("a connection that is half-open", () => {
  const QUERY_TIMEOUT_MS = 700;

  test.for(["pool", "client", "transaction"] as const)(
    "costs one time-out and leaves the pool (%s)",
    async (way, { databaseUrl }) => {
      await using proxy = await startTcpProxy(databaseUrl);
      const pool = createPool(
        proxy.url,
        { name: "thaw", max: 1, query_timeout_ms: QUERY_TIMEOUT_MS },
        createLog("silent"),
      );
      const ask = {
        pool: () => pool.query("select"),
        // As graphile-worker does: it gives the client back without a word about the error.
        client: async () => {
          const client = await pool.connect();
          try {
            await client.query("select");
          } finally {
            client.release();
          }
        },
        transaction: () =>
          createDatabase(pool)
            .transaction()
            .execute((trx) => trx.selectFrom("restores").select("id").execute()),
      }[way];
      await ask();

      proxy.forget();
      const started = performance.now();
      await expect(ask()).rejects.toThrow(/timeout|not queryable|closed|terminated/);
      expect(performance.now() - started).toBeLessThan(5 * QUERY_TIMEOUT_MS);

      await ask();
      await pool.end();
    },
  );
});

test("a connection that Postgres ends goes to nobody after its query", async ({ databaseUrl }) => {
  const pool = createPool(
    databaseUrl,
    { name: "thaw", max: 1, query_timeout_ms: 5_000 },
    createLog("silent"),
  );
  const client = await pool.connect();
  // Asked for while it is still held, as graphile-worker does that notes a failed job.
  const next = pool.connect().then(async (other) => {
    await other.query("select");
    other.release();
  });
  const ended = client
    .query("select pg_terminate_backend(pg_backend_pid())")
    // In the same turn, before the socket's end is heard of.
    .finally(() => client.release());
  await expect(ended).rejects.toMatchObject({ code: "57P01" });
  await next;
  await pool.end();
});
