/** What operators say about cost: what is refused, what is noted, and what is going on meanwhile. */
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { admit, archived, claim, limit, SCANNER, spent } from "../support/cost.ts";
import { test, waitFor } from "../support/database.ts";
import { aRead, one, query, requestRestores, type Row } from "../support/rows.ts";

const ROLE = "arn:aws:iam::123456789012:role/team/scanner";

const said = async (pool: Pool, call: string, values: unknown[] = []): Promise<string> =>
  (await one(pool, `select ${call} as said`, values))["said"] as string;

const actions = (pool: Pool): Promise<Row[]> =>
  query(pool, "select action, target, before, after from actions order by id");

describe("a policy", () => {
  test("is set, changed and removed in one line, each with its row in actions", async ({ pool }) => {
    expect(await said(pool, "set_policy('*', '', '', 'observe')")).toBe(
      "s3://*, read by anybody: observe (new)",
    );
    expect(await said(pool, "set_policy('*', '', '*', 'observe')")).toBe(
      "s3://*, read by anybody: observe (as before)",
    );
    expect(await said(pool, "set_policy('*', '', null, 'restore', 'Bulk', 3, 'slow')")).toBe(
      "s3://*, read by anybody: restore, Bulk, 3 days (changed)",
    );
    expect(await said(pool, "remove_policy('*', '', '*')")).toBe(
      "removed the policy of s3://*, read by anybody",
    );
    const target = "s3://*, read by anybody";
    expect(await actions(pool)).toEqual([
      { action: "set a policy", target, before: {}, after: { action: "observe" } },
      {
        action: "set a policy",
        target,
        before: { action: "observe" },
        after: { action: "restore", tier: "Bulk", days: 3, note: "slow" },
      },
      {
        action: "remove a policy",
        target,
        before: { action: "restore", tier: "Bulk", days: 3, note: "slow" },
        after: {},
      },
    ]);
    await expect(query(pool, "select remove_policy('*', '', '*')")).rejects.toMatchObject({ code: "P0002" });
  });

  test("of a role is for its sessions, and of an address for its person however it is written", async ({
    pool,
  }) => {
    await query(pool, "select set_policy('b', 'a/', $1, 'hold')", [ROLE]);
    await query(pool, "select set_policy('b', 'a/', 'Jane@Example.com', 'ignore')");
    const found = async (principal: string, names: string[]): Promise<unknown> =>
      (
        await query(pool, "select action from find_policy('b', 'a/x', $1, $2, prefix_lengths())", [
          principal,
          names,
        ])
      )[0]?.["action"];
    expect(await found(`${SCANNER}i-1`, [])).toBe("hold");
    expect(await found("arn:aws:iam::123456789012:user/jane", ["AKIAJ", "jane@example.com"])).toBe("ignore");
    expect(await found("arn:aws:iam::123456789012:user/john", ["AKIAX", "john@example.com"])).toBeUndefined();
    expect(await said(pool, "remove_policy('b', 'a/', $1)", [ROLE])).toContain(`${SCANNER}*`);
  });

  test.for<[args: string, problem: RegExp]>([
    ["'', '', '*', 'observe'", /^the bucket is missing/],
    ["'a b', '', '*', 'observe'", /^no bucket has that name/],
    ["'*', 'logs/', '*', 'observe'", /^all buckets have no common prefix/],
    ["'b', 'logs/*', '*', 'observe'", /^a prefix stands for all that begins so/],
    ["'b', repeat('x', 1025), '*', 'observe'", /^the prefix is longer/],
    ["'b', '', 'arn:aws:iam::123456789012:group/x', 'observe'", /^a group reads nothing/],
    ["'b', '', 'AKIA*', 'observe'", /^only an ARN may end in \*/],
    ["'b', '', 'jane@', 'observe'", /./],
    ["'b', '', '*', 'freeze'", /^the action must be/],
    ["'b', '', '*', null", /^the action is missing/],
    ["'b', '', '*', 'ignore', 'Bulk'", /^what is ignored is not restored/],
    ["'b', '', '*', 'restore', 'Fast'", /^the tier must be/],
    ["'b', '', '*', 'restore', null, 0", /^the days must be/],
    ["'b', '', '*', 'restore', null, 366", /^the days must be/],
  ])("set_policy(%s) is refused in one line", async ([args, problem], { pool }) => {
    await expect(query(pool, `select set_policy(${args})`)).rejects.toMatchObject({
      code: "22023",
      message: expect.stringMatching(problem),
    });
    expect(await actions(pool)).toEqual([]);
  });
});

describe("a limit", () => {
  test("is set, changed and removed in one line; what was spent stays", async ({ pool }) => {
    expect(await said(pool, "set_limit('person', null, null, 'day', 20)")).toBe(
      "set: 20 objects per day for each person",
    );
    await requestRestores(pool, aRead({ access_key_id: "AKIAA" }));
    await admit(
      pool,
      (await claim(pool)).map((row) => archived(row)),
    );
    expect(await said(pool, "set_limit('person', '*', '', 'day', 10, 1500000000000, 12.5)")).toBe(
      "set: 10 objects, 1.5 TB, $12.50 per day for each person; it was 20 objects per day for each person",
    );
    expect(await spent(pool)).toMatchObject([{ subject: "AKIAA", objects: 1 }]);
    expect(
      await one(
        pool,
        "select person, objects::integer, objects_left::integer, used::float from limit_status",
      ),
    ).toEqual({ person: "AKIAA", objects: 1, objects_left: 9, used: 0.1 });

    expect(await said(pool, "remove_limit('person', null, null, 'day')")).toMatch(/^removed: 10 objects/);
    expect(await query(pool, "select from spending")).toEqual([]);
    expect((await actions(pool)).map(({ action, target }) => [action, target])).toEqual([
      ["set a limit", "20 objects per day for each person"],
      ["set a limit", "10 objects, 1.5 TB, $12.50 per day for each person"],
      ["remove a limit", "10 objects, 1.5 TB, $12.50 per day for each person"],
    ]);
    await expect(query(pool, "select remove_limit('person', null, null, 'day')")).rejects.toMatchObject({
      code: "P0002",
    });
  });

  test.for<[args: string, problem: RegExp]>([
    ["'team', '*', '', 'day', 1", /^the scope must be/],
    ["'all', '*', '', 'week', 1", /^a limit is per day or per month/],
    ["'all', 'b', '', 'day', 1", /^only a limit of scope prefix/],
    ["'prefix', '*', '', 'day', 1", /^a limit for all buckets is one of scope all/],
    ["'prefix', 'b', 'x*', 'day', 1", /^a prefix stands for all/],
    ["'all', '*', '', 'day'", /^say how much/],
    ["'all', '*', '', 'day', -1", /^a limit is not below 0/],
    ["'all', '*', '', 'day', null, null, 'infinity'", /^that is no amount/],
  ])("set_limit(%s) is refused in one line", async ([args, problem], { pool }) => {
    await expect(query(pool, `select set_limit(${args})`)).rejects.toMatchObject({
      code: "22023",
      message: expect.stringMatching(problem),
    });
    expect(await query(pool, "select from limits")).toEqual([]);
  });

  test("that is removed or set waits for the admission that is going on, which counts for it whole", async ({
    pool,
  }) => {
    await limit(pool, { max_objects: 5 });
    await requestRestores(pool, aRead());
    const objects = JSON.stringify((await claim(pool)).map((row) => archived(row)));
    const client = await pool.connect();
    try {
      await client.query("begin");
      await client.query("select * from admit_restores($1, 'Standard', 7)", [objects]);
      const set = said(pool, "set_limit('person', null, null, 'day', 1)");
      const removed = said(pool, "remove_limit('all', null, null, 'day')");
      await waitFor("both to wait", async () => {
        const { n } = await one(
          pool,
          "select count(*)::int as n from pg_locks where not granted and relation = 'limits'::regclass",
        );
        return n === 2;
      });
      await client.query("commit");
      expect(await set).toBe("set: 1 object per day for each person");
      expect(await removed).toBe("removed: 5 objects per day for all");
    } finally {
      client.release(true);
    }
    expect(await spent(pool)).toEqual([]);
    expect(await one(pool, "select cardinality(charged) as n from restores")).toEqual({ n: 1 });
  });
});

describe("prices", () => {
  const PRICE = {
    region: "eu-central-1",
    storage_class: "GLACIER",
    tier: "Standard",
    per_1000_requests: "0.06",
    per_gb: "0.012",
    copy_per_gb_month: "0.0245",
    valid_from: "2026-11-01",
    source: "AWS Price List",
  };
  test.for<[change: object, problem: RegExp]>([
    [{ region: "Frankfurt" }, /^entry 1: the region must be/],
    [{ storage_class: "GLACIER_IR" }, /^entry 1: write the archive tier/],
    [{ storage_class: "GLACEIR" }, /^entry 1: the storage class must be/],
    [{ storage_class: "DEEP_ARCHIVE", tier: "Expedited" }, /^entry 1: DEEP_ARCHIVE has no Expedited/],
    [{ per_gb: "$0.01" }, /^entry 1: per_gb must be/],
    [{ per_1000_requests: "-1" }, /^entry 1: per_1000_requests must be/],
    [{ copy_per_gb_month: "NaN" }, /^entry 1: copy_per_gb_month must be/],
    [{ valid_from: "2026-02-30" }, /^entry 1: valid_from must be/],
    [{ source: "" }, /^entry 1: the source is missing/],
  ])("with %j are refused, and none is stored", async ([change, problem], { pool }) => {
    const before = await query(pool, "select * from prices");
    await expect(
      query(pool, "select * from import_prices($1)", [JSON.stringify([{ ...PRICE, ...change }, PRICE])]),
    ).rejects.toMatchObject({ code: "22023", message: expect.stringMatching(problem) });
    expect(await query(pool, "select * from prices")).toEqual(before);
  });

  test("are added, changed or as before, and the newest that counts today is current", async ({ pool }) => {
    const load = (...prices: object[]): Promise<Row> =>
      one(pool, "select added, changed from import_prices($1)", [JSON.stringify(prices)]);
    expect(
      await load(PRICE, { ...PRICE, valid_from: "2099-01-01" }, { ...PRICE, valid_from: "2020-01-01" }),
    ).toEqual({
      added: 3,
      changed: 0,
    });
    expect(await load(PRICE)).toEqual({ added: 0, changed: 0 });
    expect(await load({ ...PRICE, per_gb: "0.013" })).toEqual({ added: 0, changed: 1 });
    expect(
      await query(
        pool,
        "select valid_from::text, per_gb::float from price_list where region = 'eu-central-1' and is_current",
      ),
    ).toEqual([{ valid_from: "2026-11-01", per_gb: 0.013 }]);
    expect((await actions(pool)).map(({ action, target, after }) => [action, target, after])).toEqual([
      ["import prices", "eu-central-1", { added: 3, changed: 0 }],
      ["import prices", "eu-central-1", { added: 0, changed: 1 }],
    ]);
  });
});

test("costs of some days are found by the day, however long the ledger is", async ({ pool }) => {
  await query(
    pool,
    `insert into costs (day, person, s3_bucket, folder, storage_class, tier, observed, objects, bytes, cost)
     select date '2024-01-01' + n % 800, 'p' || n % 50, 'b', 'f' || n % 20 || '/', 'GLACIER', 'Standard', n % 3 = 0, 1, 1, 1
       from generate_series(1, 40000) n`,
  );
  await query(pool, "analyze costs");
  for (const view of ["cost_by_person", "cost_by_bucket", "cost_by_prefix", "cost_by_class"]) {
    const plan = await query(
      pool,
      `explain select sum(estimated_cost) from ${view} where day >= '2025-03-01' and day < ('2025-03-01'::date + interval '1 month')::date`,
    );
    const text = plan.map((row) => row["QUERY PLAN"] as string).join("\n");
    expect(text, view).toContain("costs_by_day");
    expect(text, view).not.toContain("Seq Scan");
  }
});
