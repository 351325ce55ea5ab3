/** What it costs to find out who reads: not more with a larger map, and nothing for what was looked up before. */
import type { Pool, PoolClient } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import {
  ago,
  forgetNudges,
  insertRead,
  insertRequest,
  insertRestore,
  insertRow,
  JOHN,
  one,
  query,
  read,
  type Row,
  WAITS,
  know,
} from "../support/rows.ts";
import { JANE } from "../support/thaw.ts";

const ACCOUNT = "arn:aws:sts::111122223333:assumed-role";
const MAPS = ["aws_key_user_map", "aws_principal_user_map"];

const addExact = (pool: Pool, count: number): Promise<unknown> =>
  pool.query(
    `insert into aws_principal_user_map (principal, email)
     select '${ACCOUNT}/Analyst/session-' || n, 'p' || n || '@example.com' from generate_series(1, $1::int) n`,
    [count],
  );
const addPrefixes = (pool: Pool, count: number): Promise<unknown> =>
  pool.query(
    `insert into aws_principal_user_map (principal, email)
     select '${ACCOUNT}/Role' || n || '/*', 'r' || n || '@example.com' from generate_series(1, $1::int) n`,
    [count],
  );
/** Open reads of one object, each by a reader of its own whom nobody knows. */
async function addUnknown(pool: Pool, count: number, looked_up: boolean): Promise<Row> {
  const restore = await insertRestore(pool, "restored");
  await pool.query(
    `insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, principal, user_resolved, restore_status, status_at, last_read_at)
     select gen_random_uuid(), r.id, r.s3_bucket, r.s3_key, 'ASIA' || n, '${ACCOUNT}/Machine/i-' || n, $2, r.status, r.status_at, now()
       from restores r, generate_series(1, $1::int) n where r.id = $3`,
    [count, looked_up, restore["id"]],
  );
  return restore;
}

const resolve = async (pool: Pool, limit = 1000): Promise<number> =>
  (await one(pool, "select resolve_requests($1, $2) as touched", [limit, WAITS]))["touched"] as number;
async function resolveAll(pool: Pool, limit?: number): Promise<void> {
  while ((await resolve(pool, limit)) > 0);
}
const emailOf = async (pool: Pool, access_key_id: string): Promise<string | null> =>
  (await one(pool, "select email from restore_requests where access_key_id = $1", [access_key_id]))["email"];

async function scansOf(client: PoolClient): Promise<Map<string, string>> {
  const rows = await query(client, "select relname, seq_scan from pg_stat_xact_user_tables");
  return new Map(rows.map((row) => [row["relname"] as string, String(row["seq_scan"])]));
}

interface PlanNode {
  "Relation Name"?: string;
  "Actual Rows": number;
  "Actual Loops": number;
  "Rows Removed by Filter"?: number;
  Plans?: PlanNode[];
}

/** Entries of the maps that a plan looked at, those that did not fit included. */
const entriesRead = (node: PlanNode): number =>
  (MAPS.includes(node["Relation Name"] ?? "")
    ? (node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0)) * node["Actual Loops"]
    : 0) + (node.Plans ?? []).reduce((sum, child) => sum + entriesRead(child), 0);

/** Pages that a statement touches the second time in its session, and maps that it read from end to end. */
async function costOf(
  pool: Pool,
  statement: string,
  settings = "",
): Promise<{ buffers: number; entries: number; scanned: string[] }> {
  const client = await pool.connect();
  try {
    await client.query(`begin; ${settings}`);
    // With what the session did before, as long as it is not reported.
    const scans = await scansOf(client);
    let buffers = NaN;
    let entries = NaN;
    for (let call = 0; call < 2; call++) {
      await client.query("savepoint before");
      const plan = await one(client, `explain (analyze, buffers, format json) ${statement}`);
      const { Plan } = plan["QUERY PLAN"][0];
      buffers = Plan["Shared Hit Blocks"] + Plan["Shared Read Blocks"];
      entries = entriesRead(Plan as PlanNode);
      await client.query("rollback to before");
    }
    const after = await scansOf(client);
    return { buffers, entries, scanned: MAPS.filter((map) => after.get(map) !== scans.get(map)) };
  } finally {
    await client.query("rollback");
    client.release();
  }
}

const A_READ = `select * from request_restores('[{"id":"00000000-0000-4000-8000-000000000001","s3_bucket":"bench","s3_key":"a",
  "access_key_id":"ASIANEW","principal":"${ACCOUNT}/Role77/jane"}]', '{120 seconds,900 seconds}', '{}')`;
const A_LOOK = `select * from find_person('ASIANEW', '${ACCOUNT}/Role77/jane', '', '{}')`;

describe("to look up a reader", () => {
  test.for([
    ["20,000 exact ARNs", (pool: Pool) => addExact(pool, 20_000)],
    ["10,000 prefixes", (pool: Pool) => addPrefixes(pool, 10_000)],
  ] as const)("costs with %s what it costs with a few", async ([, fill], { pool }) => {
    await addExact(pool, 10);
    await addPrefixes(pool, 100);
    await pool.query("analyze");
    const few = { look: await costOf(pool, A_LOOK), read: await costOf(pool, A_READ) };
    await pool.query("delete from aws_principal_user_map");
    await fill(pool);
    for (const analyze of [false, true]) {
      if (analyze) await pool.query("vacuum analyze aws_principal_user_map");
      const look = await costOf(pool, A_LOOK, "set local enable_seqscan = off");
      const aRead = await costOf(pool, A_READ);
      expect(look.scanned).toEqual([]);
      expect(aRead.scanned).toEqual([]);
      // The prefix that fits, if there is one.
      expect(look.entries).toBeLessThanOrEqual(1);
      // An index of this size has two pages more on the way to each of the ARN's hundred prefixes.
      expect(look.buffers).toBeLessThan(few.look.buffers + 400);
      expect(aRead.buffers).toBeLessThan(few.read.buffers + 400);
    }
  });

  test("never makes a plan so dear that Postgres compiles it", async ({ pool }) => {
    await addExact(pool, 2_000);
    const client = await pool.connect();
    await client.query("set enable_seqscan = off");
    const plan = await one(client, `explain (format json) ${A_LOOK}`).finally(() => client.release(true));
    // From Postgres 18 on what cannot be avoided is marked; before, it costs 1e10. jit_above_cost is 100,000 as Postgres comes.
    expect(JSON.stringify(plan)).not.toContain('"Disabled":true');
    expect(plan["QUERY PLAN"][0].Plan["Total Cost"]).toBeLessThan(100_000);
  });

  test("goes to the longest of very many prefixes", async ({ pool }) => {
    await addPrefixes(pool, 2_000);
    for (const [principal, email] of [
      ["arn:*", "all@example.com"],
      [`${ACCOUNT}/Ro*`, "ro@example.com"],
      [`${ACCOUNT}/Role77/j*`, "j@example.com"],
    ])
      await insertRow(pool, "aws_principal_user_map", { principal, email });
    const found = async (principal: string): Promise<Row> =>
      one(pool, "select email, resolved_by from find_person('', $1, '', '{}')", [principal]);
    expect(await found(`${ACCOUNT}/Role77/jane`)).toEqual({
      email: "j@example.com",
      resolved_by: "principal_prefix",
    });
    expect(await found(`${ACCOUNT}/Role77/kim`)).toMatchObject({ email: "r77@example.com" });
    expect(await found(`${ACCOUNT}/Robert/kim`)).toMatchObject({ email: "ro@example.com" });
    expect(await found("arn:aws:iam::111122223333:root")).toMatchObject({ email: "all@example.com" });
  });
});

describe("readers who were never looked up", () => {
  test("come a page at a time, so that a run that is cut off has got somewhere", async ({ pool }) => {
    await addUnknown(pool, 30, false);
    expect(await resolve(pool, 10)).toBe(10);
    expect(await query(pool, "select from restore_requests where user_resolved")).toHaveLength(10);
  });

  test("hear in time of 20,000 exact ARNs and 16,000 whom nobody knows", async ({ pool }) => {
    await addExact(pool, 20_000);
    const restore = await addUnknown(pool, 16_000, false);
    await insertRequest(pool, restore, { access_key_id: JOHN, email: null, user_resolved: false });
    await know(pool, JOHN, "john@example.com");
    // A worker's statements end after 30 seconds; no page may come near that, on the busiest machine.
    const client = await pool.connect();
    await client.query("set statement_timeout = '10s'");
    await resolveAll(client as unknown as Pool).finally(() => client.release(true));
    expect(await emailOf(pool, JOHN)).toBe("john@example.com");
    expect(await query(pool, "select from restore_requests where not user_resolved")).toEqual([]);
  });

  test("whose row Postgres does not take with its address stay unknown, and the others are found", async ({
    pool,
  }) => {
    // Whatever it is: here a rule that only this row breaks.
    await pool.query("alter table restore_requests add check (email <> 'poison@example.com')");
    const restore = await insertRestore(pool, "pending");
    for (const [key, email] of [
      ["AKIA1", "one@example.com"],
      ["AKIA2", "poison@example.com"],
      ["AKIA3", "three@example.com"],
    ] as const) {
      await insertRequest(pool, restore, { access_key_id: key, email: null, user_resolved: false });
      await know(pool, key, email);
    }
    await resolveAll(pool);
    expect(
      await query(pool, "select email, user_resolved from restore_requests order by access_key_id"),
    ).toEqual([
      { email: "one@example.com", user_resolved: true },
      { email: null, user_resolved: true },
      { email: "three@example.com", user_resolved: true },
    ]);
  });
});

describe("an address of before, that reaches nobody,", () => {
  test("is not used, and harms neither its reader's file nor another reader", async ({ pool }) => {
    await pool.query("alter table aws_key_user_map drop constraint aws_key_user_map_reaches_somebody");
    await pool.query(
      "insert into aws_key_user_map select 'AKIALONG', string_agg(md5(n::text), '') || '@example.com' from generate_series(1, 250) n",
    );
    await know(pool, "AKIADOT", "jane@example.com.");
    await read(pool, { access_key_id: "AKIALONG", s3_key: "a" });
    await read(pool, { access_key_id: "AKIADOT", s3_key: "b" });
    await read(pool, { access_key_id: JOHN, s3_key: "a" });
    await know(pool, JOHN, "john@example.com");
    await resolveAll(pool);
    expect(await query(pool, "select access_key_id, email from restore_requests order by 1")).toEqual(
      [
        { access_key_id: "AKIADOT", email: null },
        { access_key_id: JOHN, email: "john@example.com" },
        { access_key_id: "AKIALONG", email: null },
      ].toSorted((a, b) => (a.access_key_id < b.access_key_id ? -1 : 1)),
    );
    expect(
      await query(pool, "select id, problem from map_entries where problem is not null order by id"),
    ).toEqual([
      { id: "AKIADOT", problem: "a dot stands at an end, or twice" },
      { id: "AKIALONG", problem: "it is longer than 254 bytes" },
    ]);
  });
});

describe("readers whom nobody knew", () => {
  /** As when the last look was a minute ago. */
  const lookedUp = async (pool: Pool): Promise<void> => {
    await resolveAll(pool);
    await pool.query("update second_look set started_at = now() - interval '1 minute'");
    await forgetNudges(pool);
  };

  test("are not looked up again at each nudge", async ({ pool }) => {
    await addUnknown(pool, 5_000, false);
    await lookedUp(pool);
    await pool.query("vacuum analyze restore_requests");
    await insertRead(pool, "pending", {
      restore: { s3_key: "new" },
      request: { access_key_id: "ASIANEW", email: null, user_resolved: false },
    });
    expect(await resolve(pool)).toBe(1);
    const { buffers } = await costOf(
      pool,
      `select resolve_requests(1000, '{120 seconds,900 seconds}', '{}')`,
    );
    expect(buffers).toBeLessThan(100);
  });

  test("are looked up again once an entry is newer than the last look", async ({ pool }) => {
    await insertRead(pool, "pending", { request: { email: null } });
    await lookedUp(pool);
    await know(pool, JANE);
    expect(await resolve(pool)).toBe(1);
    expect(await emailOf(pool, JANE)).toBe("jane@example.com");
  });

  test("are looked up again after an import, which may have changed older entries", async ({ pool }) => {
    await insertRead(pool, "pending", { request: { email: null } });
    await lookedUp(pool);
    await know(pool, JANE, "jane@example.com", { created_at: ago("1 hours") });
    expect(await resolve(pool)).toBe(0);
    await query(pool, "select import_users($1)", [JSON.stringify([{ id: JANE, email: "new@example.com" }])]);
    expect(await resolve(pool)).toBe(1);
    expect(await emailOf(pool, JANE)).toBe("new@example.com");
  });

  test("are looked up again every five minutes, whatever is written where", async ({ pool }) => {
    await insertRead(pool, "pending", { request: { email: null } });
    await lookedUp(pool);
    await know(pool, JANE, "jane@example.com", { created_at: ago("1 hours") });
    expect(await resolve(pool)).toBe(0);
    await pool.query("update second_look set started_at = now() - interval '5 minutes'");
    expect(await resolve(pool)).toBe(1);
    expect(await emailOf(pool, JANE)).toBe("jane@example.com");
  });

  test("come a page at a time, each run going on where the last one ended", async ({ pool }) => {
    await addUnknown(pool, 25, true);
    const looks: (string | null)[] = [];
    const touched: number[] = [];
    for (let run = 0; run < 4; run++) {
      touched.push(await resolve(pool, 10));
      looks.push((await one(pool, "select after from second_look"))["after"]);
    }
    expect(touched).toEqual([10, 10, 0, 0]);
    const ids = (await query(pool, "select id from restore_requests order by id")).map((row) => row["id"]);
    expect(looks).toEqual([ids[9], ids[19], null, null]);
  });

  test("all hear of it, however many pages they are", async ({ pool }) => {
    await addUnknown(pool, 25, true);
    await insertRow(pool, "aws_principal_user_map", {
      principal: `${ACCOUNT}/Machine/*`,
      email: "ops@example.com",
    });
    await resolveAll(pool, 10);
    expect(await query(pool, "select from restore_requests where email = 'ops@example.com'")).toHaveLength(
      25,
    );
  });

  test("are left alone when their restore is over, and looked up again with the next one", async ({
    pool,
  }) => {
    const restore = await insertRestore(pool, "closed", { closed_at: ago("1 hours") });
    await insertRequest(pool, restore, { access_key_id: JOHN, email: null });
    await lookedUp(pool);
    await query(pool, "select import_users('[]')");
    const { indexed } = await one(
      pool,
      "select count(*)::int as indexed from restore_requests where email is null and user_resolved and ended_unknown is distinct from restore_id",
    );
    expect(indexed).toBe(0);

    // Jane reads it, and John, who has heard nothing yet, waits for the new restore.
    await read(pool, { event_time: new Date() });
    await know(pool, JOHN, "john@example.com");
    await resolveAll(pool);
    expect(await emailOf(pool, JOHN)).toBe("john@example.com");
  });

  test("are walked through by one run at a time, and by the next when it died", async ({ pool }) => {
    await addUnknown(pool, 5, true);
    await insertRow(pool, "aws_principal_user_map", {
      principal: `${ACCOUNT}/Machine/*`,
      email: "ops@example.com",
    });
    const other = await pool.connect();
    await other.query("begin");
    expect(await resolve(other as unknown as Pool)).toBe(5);
    expect(await resolve(pool)).toBe(0);
    await other.query("rollback");
    other.release();
    expect(await resolve(pool)).toBe(5);
  });
});
