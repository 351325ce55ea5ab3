/**
 * What one step costs does not depend on what else waits: each recurring statement on a large open backlog, half of which is
 * due, with the statistics of that moment and with none.
 */
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { addOpen, costOf, WORK, type Cost } from "../bench/figures/history.ts";
import { test } from "../support/database.ts";

const FEW = 2_000;
const MANY = 60_000;

/** By the names that the bench gives them. */
const STATEMENTS: Record<string, string> = Object.fromEntries(
  [
    "POST /restore/request",
    "POST /restore/completed",
    "trigger_restores",
    "poll_pending_restores",
    "closing sweep",
    "nudge",
    "reaper",
  ].map((name) => [name, WORK[name] ?? ""]),
);

async function costs(pool: Pool, statements = STATEMENTS): Promise<Record<string, Cost>> {
  const client = await pool.connect();
  const found: Record<string, Cost> = {};
  for (const [name, statement] of Object.entries(statements)) found[name] = await costOf(client, statement);
  client.release(true);
  return found;
}

/** A page on the way more in each index that grew, and never all of a table. */
function expectAsCheap(many: Record<string, Cost>, few: Record<string, Cost>): void {
  for (const [name, cost] of Object.entries(many)) {
    expect.soft(cost.scanned, `${name} reads all of`).toEqual([]);
    expect.soft(cost.buffers, name).toBeLessThanOrEqual(1.5 * (few[name]?.buffers ?? 0) + 10);
  }
}

describe("each step costs the same", () => {
  test("however much is open, and half of it due", { timeout: 120_000 }, async ({ pool }) => {
    await addOpen(pool, FEW);
    await pool.query("vacuum analyze");
    const few = await costs(pool);
    // What vacuum and analyze say of an empty table: that there is no row.
    for (const known of ["analyze restores, restore_requests", "vacuum restores, restore_requests"]) {
      await pool.query("truncate restores, restore_requests cascade");
      await pool.query(known);
      await addOpen(pool, MANY);
      expectAsCheap(await costs(pool), few);
    }
    await pool.query("vacuum analyze");
    expectAsCheap(await costs(pool), few);
  });

  const OVER =
    "status = 'restored', accepted_at = now() - interval '60 days', status_at = now() - interval '50 days', restore_expires_at = now() - interval '40 days'";
  test.for([
    ["waits to be asked for", "trigger_restores", "attempt_after = now()"],
    [
      "waits to be asked about",
      "poll_pending_restores",
      "status = 'pending', accepted_at = now() - interval '2 days'",
    ],
    ["is doubtful", "poll_pending_restores", `${OVER}, head_wanted_at = now()`],
    ["is over", "closing sweep", OVER],
    [
      "has failed today",
      "closing sweep",
      "status = 'failed', failure_code = 'gone', failure_message = 'Gone.'",
    ],
    ["was over long ago", "forgetting", `${OVER}, closed_at = now() - interval '40 days'`],
  ] as const)("where all of it %s", { timeout: 60_000 }, async ([, name, columns], { pool }) => {
    const statement = STATEMENTS[name] ?? "select forget_old_restores('30 days', 100)";
    const fill = async (count: number): Promise<void> => {
      const pairs = columns.split(", ").map((pair) => pair.split(" = "));
      await pool.query("truncate restores, restore_requests cascade");
      await pool.query(
        `insert into restores (id, s3_bucket, s3_key, ${pairs.map(([column]) => column).join()})
         select gen_random_uuid(), 'bench', n::text, ${pairs.map(([, value]) => value).join()} from generate_series(1, $1::int) n`,
        [count],
      );
    };
    await fill(1_000);
    await pool.query("vacuum analyze");
    const few = await costs(pool, { [name]: statement });
    await fill(MANY);
    const unaware = await costs(pool, { [name]: statement });
    await pool.query("vacuum analyze");
    expectAsCheap(await costs(pool, { [name]: statement }), few);
    expectAsCheap(unaware, few);
  });

  test("however many jobs wait, on a table that was never analysed", async ({ pool }) => {
    const nudge = WORK["nudge"] ?? "";
    const client = await pool.connect();
    const none = await costOf(client, nudge);
    await pool.query(
      "select graphile_worker.add_jobs(array_agg(('trigger_restores', null, null, now() + n * interval '1 second', 3, null, null, null)::graphile_worker.job_spec)) from generate_series(-1000, 1000) n",
    );
    const many = await costOf(client, nudge);
    client.release(true);
    expect(many.scanned).toEqual([]);
    expect(many.buffers).toBeLessThanOrEqual(none.buffers + 200);
  });

  test("to find nothing stuck, however much is open and untold", { timeout: 60_000 }, async ({ pool }) => {
    await addOpen(pool, MANY, false);
    await pool.query("vacuum analyze");
    const client = await pool.connect();
    const { buffers, scanned } = await costOf(client, "select * from stuck_requests");
    client.release(true);
    expect((await pool.query("select from stuck_requests")).rowCount).toBe(0);
    expect(scanned.filter((table) => table !== "notifications")).toEqual([]);
    expect(buffers).toBeLessThan(100);
  });
});
