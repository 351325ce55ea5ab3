/** What views and operators' functions say of restores that wait for approval, of observed ones, and of limits. */
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { acceptAdmitted, admitDue, limit, policy, readFiles, SCANNER as SESSIONS } from "../support/cost.ts";
import { test } from "../support/database.ts";
import { one, query, read, type Row } from "../support/rows.ts";

/** The role, without its sessions. */
const SCANNER = SESSIONS.slice(0, -1);

/** Old enough for anything to call it stuck. */
const age = (pool: Pool, interval = "3 hours"): Promise<Row[]> =>
  query(
    pool,
    `with r as (update restores set status_at = status_at - '${interval}'::interval, created_at = created_at - '${interval}'::interval)
     update holds set opened_at = opened_at - '${interval}'::interval, last_added_at = last_added_at - '${interval}'::interval`,
  );

const moneyFindings = (pool: Pool): Promise<Row[]> =>
  query(
    pool,
    "select finding, problem, count, since, what_to_do from findings where finding in ('stuck', 'holds_open', 'limit_used') order by rank",
  );

describe("a restore that waits for approval", () => {
  test("is not stuck, and no view counts it among those that wait for S3", async ({ pool }) => {
    await limit(pool, { scope: "person", max_objects: 0 });
    await readFiles(pool, 3);
    await age(pool);
    const { id } = await one(pool, "select id from holds");

    expect(await query(pool, "select * from stuck_requests")).toEqual([]);
    expect(
      await one(pool, "select open, oldest_since from restore_overview where restore_status = 'not_started'"),
    ).toEqual({
      open: 0,
      oldest_since: null,
    });
    expect(await query(pool, "select waits_for, id from oldest_waiting")).toEqual([
      { waits_for: "an operator to approve it", id },
    ]);
    expect(await one(pool, "select not_started, holds_open, oldest_waiting_since from thaw_health")).toEqual({
      not_started: 0,
      holds_open: 1,
      oldest_waiting_since: null,
    });
    expect(
      await query(
        pool,
        "select distinct waits_for_approval, hold_id, payer, estimated_cost > 0 as costs from request_status",
      ),
    ).toEqual([{ waits_for_approval: true, hold_id: id, payer: SCANNER, costs: true }]);
    // infinity is for Postgres alone.
    expect(await query(pool, "select distinct attempt_after, is_held from restore_details")).toEqual([
      { attempt_after: null, is_held: true },
    ]);
    // Somebody else's, which S3 has yet to accept, is.
    await query(pool, "update limits set max_objects = 10");
    await read(pool, { s3_key: "mine" });
    expect(await one(pool, "select open from restore_overview where restore_status = 'not_started'")).toEqual(
      { open: 1 },
    );
    expect(await query(pool, "select waits_for from oldest_waiting")).toHaveLength(2);
  });

  test("is a finding of its hold, with how many and since when, until it is decided", async ({ pool }) => {
    await policy(pool, "hold");
    await readFiles(pool, 2);
    await read(pool, { s3_key: "other", access_key_id: "AKIAOTHER" });
    await admitDue(pool);
    await age(pool);

    const [found] = await moneyFindings(pool);
    expect(found).toMatchObject({
      finding: "holds_open",
      problem: expect.stringMatching(/^2 bursts of reads wait for approval: 3 objects/),
      count: 2,
      what_to_do: expect.stringContaining("npm run thaw -- hold list"),
    });
    const { opened_at } = await one(pool, "select min(opened_at) as opened_at from holds");
    expect(found?.["since"]).toEqual(opened_at);

    await query(pool, "select refuse_hold(id, 'ann') from holds where person = 'AKIAOTHER'");
    expect(await moneyFindings(pool)).toMatchObject([
      { problem: expect.stringMatching(/^A burst of reads waits for approval: 2 objects/), count: 1 },
    ]);
    await query(pool, "select approve_hold(id, 'ann') from holds where status = 'open'");
    expect(await moneyFindings(pool)).toEqual([]);
  });

  test("is not asked for by a retry, which says what to do instead, and is one by one or in bulk", async ({
    pool,
  }) => {
    await policy(pool, "hold");
    await readFiles(pool, 2);
    const before = await query(pool, "select * from restores order by id");
    const { id: hold } = await one(pool, "select id from holds");

    const said = await query(pool, "select retry_restore(id) as said from restores");
    expect(said.map((row) => row["said"])).toEqual(
      Array(2).fill(`this restore waits for approval, so S3 is not asked; approve or refuse hold ${hold}`),
    );
    expect(await query(pool, "select * from restores order by id")).toEqual(before);
    expect(await query(pool, "select * from actions")).toEqual([]);
    expect(await admitDue(pool)).toEqual([]);

    // Once it is approved, a retry only hurries it.
    await query(pool, "select approve_hold($1, 'ann')", [hold]);
    expect(await query(pool, "select distinct retry_restore(id) as said from restores")).toEqual([
      { said: "S3 is asked again now" },
    ]);
    expect((await admitDue(pool)).map(({ decision }) => decision)).toEqual(["go", "go"]);
  });

  test("can be given up: it fails, and its readers are told", async ({ pool }) => {
    await policy(pool, "hold");
    await readFiles(pool, 1);
    await query(pool, "select give_up_restore(id) from restores");
    expect(await one(pool, "select restore_status, is_held, failure_code from restore_details")).toEqual({
      restore_status: "failed",
      is_held: false,
      failure_code: "given_up",
    });
  });
});

describe("what is only observed", () => {
  test("has not failed", async ({ pool }) => {
    await policy(pool, "observe");
    await readFiles(pool, 2);
    expect(await query(pool, "select failure_code, count(*)::int as n from restores group by 1")).toEqual([
      { failure_code: "observed", n: 2 },
    ]);
    expect(await query(pool, "select * from recent_failures")).toEqual([]);
    expect(await query(pool, "select * from stuck_requests")).toEqual([]);
    expect(await query(pool, "select distinct observed from restore_readers")).toEqual([{ observed: true }]);
  });

  test("is counted by what it would have cost, apart from what was restored", async ({ pool }) => {
    await policy(pool, "observe", { s3_bucket: "cold" });
    await readFiles(pool, 2, { s3_bucket: "cold" });
    await readFiles(pool, 3);
    await acceptAdmitted(pool);
    const each = 0.00005 + 0.01 + (0.023 * 7) / 30;
    expect(
      await query(
        pool,
        "select labels ->> 'observed' as observed, labels ->> 'tier' as tier, n from totals where metric = 'estimated_cost' order by 1",
      ),
    ).toEqual([
      { observed: "false", tier: "Standard", n: expect.closeTo(3 * each, 9) },
      { observed: "true", tier: "Standard", n: expect.closeTo(2 * each, 9) },
    ]);
  });
});

describe("a limit", () => {
  test("is a finding from four fifths on, and says when all of it is used", async ({ pool }) => {
    await limit(pool, { scope: "person", max_objects: 5 });
    await limit(pool, { scope: "all", per: "month", max_objects: 100 });
    await readFiles(pool, 3);
    expect(await moneyFindings(pool)).toEqual([]);

    await readFiles(pool, 1, { s3_key: "one more" });
    expect(await moneyFindings(pool)).toMatchObject([
      {
        finding: "limit_used",
        problem: `A limit is used to 80 %: 5 objects per day for each person (${SCANNER}).`,
        count: 1,
        what_to_do: expect.stringContaining("until the next day begins (UTC)"),
      },
    ]);
    await readFiles(pool, 1, { s3_key: "and one" });
    await readFiles(pool, 5, { principal: "arn:aws:iam::123456789012:user/jane", s3_bucket: "other" });
    expect(await moneyFindings(pool)).toMatchObject([
      { problem: "A limit is used up: 5 objects per day for each person.", count: 2 },
    ]);

    // A new day begins, or the limit is raised.
    await query(pool, "update limits set max_objects = 50 where max_objects = 5");
    expect(await moneyFindings(pool)).toEqual([]);
  });

  test("that holds everything is no finding by itself", async ({ pool }) => {
    await limit(pool, { scope: "person", max_objects: 0 });
    await readFiles(pool, 1);
    expect((await moneyFindings(pool)).map(({ finding }) => finding)).toEqual(["holds_open"]);
  });
});
