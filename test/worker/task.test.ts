import type { JobHelpers } from "graphile-worker";
import type { Pool } from "pg";
import { describe, expect, onTestFinished } from "vitest";

import { createDatabase } from "../../server/postgres/rows.ts";
import { closeTasks, countsOf, openTasks, task, type WorkerContext } from "../../server/worker/task.ts";
import { test } from "../support/database.ts";
import { isWaitedFor, query } from "../support/rows.ts";
import { waitFor } from "../support/wait_for.ts";

function open(worker_id: string, pool: Pool): void {
  openTasks({ worker_id, db: createDatabase(pool) } as WorkerContext);
  onTestFinished(() => closeTasks(worker_id));
}

const job = (locked_by: string, task_identifier = "pre_notify") => ({ locked_by, task_identifier });

const helpers = (of: ReturnType<typeof job>, signal = new AbortController().signal): JobHelpers =>
  ({ job: of, abortSignal: signal }) as unknown as JobHelpers;

/** Notes of runs wait until `during` calls `unlock`. */
async function lockTaskRuns(
  pool: Pool,
  during: (unlock: () => Promise<unknown>) => Promise<void>,
): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query("lock table task_runs");
    await during(() => client.query("rollback"));
  } finally {
    client.release(true);
  }
}

describe("a task", () => {
  test("works with what the worker has that locked its job, though another lives in the same process", async ({
    pool,
  }) => {
    open("a", pool);
    open("b", pool);
    const ran: string[] = [];
    const run = task({ runs: 1 }, async ({ worker_id }) => void ran.push(worker_id));

    await run({}, helpers(job("b")));
    await run({}, helpers(job("a")));

    expect(ran).toEqual(["b", "a"]);
  });

  test("does nothing for a worker that has stopped", async ({ pool }) => {
    open("a", pool);
    const run = task({ runs: 1 }, async () => {});
    closeTasks("a");

    await expect(run({}, helpers(job("a")))).rejects.toThrow(/only in a worker/);
  });

  test("looks again, once, for all nudges that come while as many runs go on as may", async ({ pool }) => {
    open("a", pool);
    open("b", pool);
    const { promise: busy, resolve: rest } = Promise.withResolvers<void>();
    const ran: string[] = [];
    const run = task({ runs: 2 }, async ({ worker_id, count }) => {
      ran.push(worker_id);
      count("looked");
      await busy;
    });

    const [first, second, third] = [job("a"), job("a"), job("a")];
    const runs = [first, second].map((of) => run({}, helpers(of)));
    await run({}, helpers(third));
    await run({}, helpers(job("a")));
    expect(ran).toEqual(["a", "a"]);
    // The limit is each worker's own, and each task's.
    const others = [job("b"), job("a", "post_notify")].map((of) => run({}, helpers(of)));
    expect(ran).toEqual(["a", "a", "b", "a"]);
    rest();
    await Promise.all([...runs, ...others]);

    expect(ran.slice(4)).toEqual(["a"]);
    expect([countsOf(first), countsOf(second)]).toEqual([{ did: { looked: 2 } }, { did: { looked: 1 } }]);
    expect(countsOf(third)).toEqual({});
  });

  test("tells of its successes while nudges keep coming, so that it does not look late", async ({ pool }) => {
    open("a", pool);
    const successes: unknown[] = [];
    const run = task({ runs: 1 }, async () => {
      successes.push((await query(pool, "select from task_runs where succeeded_at is not null")).length);
      // As if a nudge came during each run.
      if (successes.length < 5) await nudge();
    });
    const nudge = (): unknown => run({}, helpers(job("a")));

    await nudge();

    expect(successes).toEqual([0, 1, 1, 1, 1]);
  });

  test.for([
    ["well", null],
    ["badly", new Error("no Postgres")],
  ] as const)(
    "hears a nudge that comes while it notes that a run ended %s",
    async ([, failure], { pool }) => {
      open("a", pool);
      let runs = 0;
      const run = task({ runs: 1 }, async () => {
        runs++;
        if (runs === 1 && failure !== null) throw failure;
      });
      await lockTaskRuns(pool, async (unlock) => {
        const first = Promise.resolve(run({}, helpers(job("a")))).catch(() => undefined);
        await waitFor("the note to wait", () => isWaitedFor(pool));
        const second = run({}, helpers(job("a")));
        expect(runs).toBe(2);
        await unlock();
        await Promise.all([first, second]);
      });
    },
  );

  test("does not look again once its worker is told to stop, nor after it failed", async ({ pool }) => {
    open("a", pool);
    const stop = new AbortController();
    let runs = 0;
    const run = task({ runs: 1 }, async () => {
      runs++;
      await run({}, helpers(job("a")));
      stop.abort();
      if (runs === 2) throw new Error("no Postgres");
    });

    await run({}, helpers(job("a"), stop.signal));
    expect(runs).toBe(1);
    await expect(run({}, helpers(job("a")))).rejects.toThrow("no Postgres");
    expect(runs).toBe(2);
    // A run that was told to stop is neither; operators see what it failed of.
    expect(await query(pool, "select task, succeeded_at, error from task_runs")).toEqual([
      { task: "pre_notify", succeeded_at: null, error: "no Postgres" },
    ]);
  });
});
