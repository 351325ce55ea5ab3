/** Jobs are only nudges, so few need to wait; and none may be left out that somebody's work needs. */
import { Logger, run, type Runner } from "graphile-worker";
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { newPool, test, waitFor } from "../support/database.ts";
import { nudges, query } from "../support/rows.ts";

const TASKS = ["resolve_users", "trigger_restores", "pre_notify", "post_notify", "poll_pending_restores"];
const WAITS = "{120 seconds,900 seconds}";

const LATER_AND_AT_ONCE =
  "select nudge('post_notify', '{120 seconds}'), nudge('post_notify'), nudge('post_notify')";

const jobs = async (pool: Pool): Promise<number> =>
  (await pool.query("select from graphile_worker.jobs")).rowCount ?? 0;

/** As if so much time had passed. */
const pass = (pool: Pool, seconds: number): Promise<unknown> =>
  pool.query("update graphile_worker._private_jobs set run_at = run_at - $1 * interval '1 second'", [
    seconds,
  ]);

describe("few jobs wait", () => {
  test("of commits that want one at once: two, until a worker gets one", async ({ pool }) => {
    for (let commit = 0; commit < 20; commit++) await pool.query("select nudge('trigger_restores')");
    expect(await nudges(pool)).toEqual(["trigger_restores +0", "trigger_restores +0"]);
    await pool.query(
      "delete from graphile_worker._private_jobs where id = (select min(id) from graphile_worker._private_jobs)",
    );
    await pool.query("select nudge('trigger_restores')");
    expect(await jobs(pool)).toBe(2);
  });

  test("of commits that want one later: the first as wanted, one for each eighth of the wait", async ({
    pool,
  }) => {
    for (let second = 0; second < 40; second++) {
      await pool.query("select nudge('post_notify', '{120 seconds}')");
      await pass(pool, 1);
    }
    const waits = (await nudges(pool)).map((nudge) => Number(nudge.split("+")[1]));
    // An eighth is 15 seconds; what a statement takes comes on top.
    expect(waits[0]).toBe(80);
    expect(waits).toHaveLength(4);
    for (const [index, wait] of waits.slice(1).entries())
      expect(wait - (waits[index] ?? 0)).toBeOneOf([14, 15, 16]);
  });

  test("a job of another task, a failed one, a running one and one with a key are none to rely on", async ({
    pool,
  }) => {
    await pool.query(LATER_AND_AT_ONCE.replaceAll("post", "pre"));
    await pool.query(LATER_AND_AT_ONCE);
    const others = ["attempts = 3", "locked_at = now()", "key = id::text"];
    for (const other of others) {
      await pool.query(
        `update graphile_worker._private_jobs set ${other} where task_id = (select id from graphile_worker._private_tasks where identifier = 'post_notify')`,
      );
      const before = await jobs(pool);
      await pool.query(LATER_AND_AT_ONCE);
      expect(await jobs(pool), other).toBe(before + 3);
    }
  });

  test("at most fifty, in any hour without a worker", { timeout: 60_000 }, async ({ pool }) => {
    let most = 0;
    for (let seconds = 0; seconds < 3600; seconds += 5) {
      await pool.query("select nudge(task) from unnest($1::text[]) task", [TASKS]);
      await pool.query(`select nudge('pre_notify', '${WAITS}'), nudge('post_notify', '${WAITS}')`);
      await pass(pool, 5);
      most = Math.max(most, await jobs(pool));
    }
    expect(most).toBeLessThanOrEqual(50);
  });
});

describe("no nudge is lost", () => {
  /** In a transaction that stays open meanwhile. */
  async function during(pool: Pool, statement: string, meanwhile: () => Promise<void>): Promise<void> {
    const client = await pool.connect();
    try {
      await client.query("begin");
      await client.query(statement);
      await meanwhile();
      await client.query("commit");
    } finally {
      client.release(true);
    }
  }
  const TWO = "select nudge('post_notify'), nudge('post_notify')";

  test("a job that a commit relies on cannot start before it, and is not put off", async ({ pool }) => {
    await pool.query(TWO);
    const getable = async (): Promise<number> =>
      (
        await pool.query(
          "select from graphile_worker._private_jobs where run_at <= now() for update skip locked",
        )
      ).rowCount ?? 0;
    await during(pool, "select nudge('post_notify')", async () => {
      expect(await jobs(pool)).toBe(2);
      expect(await getable()).toBe(1);
      await pass(pool, 300);
      await pool.query("select nudge('post_notify', '{120 seconds}')");
      expect(await nudges(pool)).toEqual(["post_notify +-300", "post_notify +-300", "post_notify +120"]);
    });
    expect(await getable()).toBe(2);
  });

  test("a job that a worker gets just now is none to rely on", async ({ pool }) => {
    await pool.query(TWO);
    await during(pool, "select from graphile_worker._private_jobs for update", async () => {
      await pool.query("select nudge('post_notify')");
    });
    expect(await jobs(pool)).toBe(3);
  });

  test("what no worker comes for is put off, but for the oldest", async ({ pool }) => {
    await pool.query(TWO);
    await pass(pool, 300);
    await pool.query("select nudge('post_notify', '{120 seconds}')");
    expect(await nudges(pool)).toEqual(["post_notify +-300", "post_notify +120"]);
    await pool.query("select nudge('post_notify', '{900 seconds}')");
    expect(await nudges(pool)).toEqual(["post_notify +-300", "post_notify +120", "post_notify +900"]);
  });

  test("the only job that stands is not put off", async ({ pool }) => {
    await pool.query(TWO);
    await pass(pool, 300);
    await pool.query(
      "update graphile_worker._private_jobs set locked_at = now() where id = (select min(id) from graphile_worker._private_jobs)",
    );
    await pool.query("select nudge('post_notify', '{120 seconds}')");
    expect(await nudges(pool)).toEqual(["post_notify +-300", "post_notify +-300", "post_notify +120"]);
  });

  const ROUNDS = 15;
  test(
    "in a storm of commits, with a worker that gets jobs meanwhile",
    { timeout: 120_000 },
    async ({ databaseUrl, pool }) => {
      await pool.query("create table work (id bigint generated always as identity, done_at timestamptz)");
      const worker = await startWorker(pool);
      const writers = newPool(databaseUrl);
      const late: number[] = [];
      let most = 0;
      const round = async (): Promise<void> => {
        const committed = new Map<string, number>();
        await Promise.all(
          Array.from({ length: 8 }, async () => {
            const client = await writers.connect();
            for (let commit = 0; commit < 6; commit++) {
              await client.query("begin");
              const { rows } = await client.query<{ id: string }>(
                "insert into work default values returning id",
              );
              await client.query("select nudge('post_notify')");
              // The longer a commit takes, the more jobs start between its look and its end.
              await client.query("select pg_sleep(random() * 0.03)");
              await client.query("commit");
              committed.set(rows[0]?.id ?? "", Date.now());
            }
            client.release();
          }),
        );
        most = Math.max(most, await jobs(pool));
        // Nobody nudges any more: what was left out would stay undone.
        await waitFor(
          "all work to be done",
          async () => (await pool.query("select from work where done_at is null limit 1")).rowCount === 0,
          5_000,
        );
        const done = await query<{ id: string; at: Date }>(pool, "select id, done_at as at from work");
        for (const { id, at } of done) {
          const since = committed.get(id);
          if (since !== undefined) late.push(at.getTime() - since);
        }
      };
      try {
        for (let times = 0; times < ROUNDS; times++) await round();
      } finally {
        await worker.stop();
        await writers.end();
      }
      expect(late).toHaveLength(ROUNDS * 8 * 6);
      expect(Math.max(...late)).toBeLessThan(3_000);
      expect(most).toBeLessThanOrEqual(20);
    },
  );
});

/** Does what is there when it starts, two jobs at a time. */
const startWorker = (pool: Pool): Promise<Runner> =>
  run({
    pgPool: pool,
    noHandleSignals: true,
    logger: new Logger(() => () => undefined),
    concurrency: 2,
    taskList: {
      async post_notify() {
        await pool.query(
          "update work set done_at = clock_timestamp() where id in (select id from work where done_at is null for update skip locked)",
        );
        await pool.query("select pg_sleep(0.01)");
      },
    },
  });
