/** Looks: reads of which only a HEAD can say whether they failed (sql/looks.sql). */
import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { costOf, type Cost } from "../bench/figures/history.ts";
import { policy } from "../support/cost.ts";
import { test } from "../support/database.ts";
import {
  ago,
  aRead,
  forgetNudges,
  insertRead,
  isWaitedFor,
  JOHN,
  know,
  nudges,
  one,
  query,
  requestRestores,
  requests,
  restores,
  WAITS,
  whileUncommitted,
  type Answer,
  type Row,
} from "../support/rows.ts";
import { BUCKET, JANE } from "../support/thaw.ts";

const aLook = (more: Row = {}): Row => aRead({ evidence: "looked", ...more });

async function look(pool: Pool, more: Row = {}): Promise<Answer> {
  const [answer] = await requestRestores(pool, aLook(more));
  if (answer === undefined) throw new Error("no answer");
  return answer;
}

const looks = (pool: Pool): Promise<Row[]> => query(pool, "select * from looks order by created_at, id");

interface Claimed {
  claim_id: string;
  ids: string[];
  s3_key: string;
}
const claim = (pool: Pool, limit = 50): Promise<Claimed[]> =>
  query<Claimed & Row>(pool, "select * from claim_looks($1, 'w') order by s3_key", [limit]);

async function claimOne(pool: Pool): Promise<Claimed> {
  const [claimed, ...others] = await claim(pool);
  if (claimed === undefined || others.length > 0) throw new Error("not one");
  return claimed;
}

const handIn = (pool: Pool, { claim_id, ids }: Claimed): Promise<unknown> =>
  query(pool, "select hand_in_looks($1, $2, $3)", [claim_id, ids, WAITS]);
const drop = (pool: Pool, { claim_id, ids }: Claimed): Promise<unknown> =>
  query(pool, "select drop_looks($1, $2)", [claim_id, ids]);
const trouble = (pool: Pool, { claim_id, ids }: Claimed, code = "AccessDenied"): Promise<Row[]> =>
  query(pool, "select * from note_look_troubles($1, $2)", [
    claim_id,
    JSON.stringify([{ ids, code, message: "No." }]),
  ]);
const beDue = (pool: Pool): Promise<unknown> => query(pool, "update looks set attempt_after = now()");

/** Every row of ours, but what tells that workers live. */
async function traces(pool: Pool): Promise<Row> {
  const tables = await query(
    pool,
    `select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
        and relname not in ('workers', 'task_runs', 'thaw_migrations', 'prices') order by 1`,
  );
  const found: Row = {};
  for (const { name } of tables) {
    const rows = await query(pool, `select t.* from ${name} t`);
    if (rows.length > 0) found[name] = rows;
  }
  return found;
}

describe("a look", () => {
  test("waits for a HEAD, and is no read before", async ({ pool }) => {
    const read = aLook({ region: "eu-west-1" });
    expect(await requestRestores(pool, read)).toEqual([
      { read_id: read["id"], request_id: read["id"], duplicate: false },
    ]);
    expect([await restores(pool), await requests(pool)]).toEqual([[], []]);
    expect(await query(pool, "select from totals where metric = 'reads'")).toEqual([]);
    expect(await nudges(pool)).toEqual(["trigger_restores +0"]);
    expect(await claim(pool)).toEqual([
      {
        claim_id: expect.any(String),
        ids: [read["id"]],
        s3_bucket: BUCKET,
        s3_key: "film.mov",
        version_id: "",
        region: "eu-west-1",
      },
    ]);
    expect(await claim(pool)).toEqual([]);
  });

  test("at a readable object leaves nothing behind", async ({ pool }) => {
    const before = await traces(pool);
    await look(pool);
    await drop(pool, await claimOne(pool));
    expect(await traces(pool)).toEqual(before);
  });

  test("at an archived object becomes the read that it came as", async ({ pool }) => {
    await know(pool, JANE);
    const at = ago("10 minutes");
    const read = aLook({
      version_id: "v1",
      account_id: "1",
      source_identity: "s",
      region: "eu-west-1",
      event_id: "e",
      event_time: at,
    });
    await requestRestores(pool, read);
    await forgetNudges(pool);
    await handIn(pool, await claimOne(pool));

    expect(await looks(pool)).toEqual([]);
    expect(await restores(pool)).toMatchObject([{ id: read["id"], status: "not_started", version_id: "v1" }]);
    expect(await requests(pool)).toMatchObject([
      {
        id: read["id"],
        access_key_id: JANE,
        account_id: "1",
        source_identity: "s",
        email: "jane@example.com",
        last_event_id: "e",
        last_read_at: at,
        read_count: 1,
      },
    ]);
    expect(await nudges(pool)).toEqual(["trigger_restores +0"]);
    expect(await one(pool, "select sum(n) from totals where metric = 'reads'")).toEqual({ sum: 1 });
  });

  test("without a time counts as of when it came in, one from the future as well", async ({ pool }) => {
    await look(pool, { event_time: null, s3_key: "a" });
    await look(pool, { event_time: new Date(Date.now() + 3_600_000), s3_key: "b" });
    const came = await query(pool, "select created_at from looks");
    for (const looks of await claim(pool)) await handIn(pool, looks);
    expect((await requests(pool)).map((row) => row["last_read_at"])).toEqual(
      came.map((row) => row["created_at"]),
    );
  });

  test("and the read that follows it, in any order, are one request", async ({ pool }) => {
    for (const first of ["looked", "refused"]) {
      const more = { s3_key: first };
      if (first === "refused") await requestRestores(pool, aRead(more));
      await look(pool, more);
      if (first === "looked") await requestRestores(pool, aRead(more));
      await handIn(pool, await claimOne(pool));
    }
    expect((await requests(pool)).map((row) => [row["s3_key"], row["read_count"]]).toSorted()).toEqual([
      ["looked", 2],
      ["refused", 2],
    ]);
    expect(await restores(pool)).toHaveLength(2);
  });

  test("in a batch with reads changes nothing for them", async ({ pool }) => {
    const batch = [
      aRead({ s3_key: "a" }),
      aLook({ s3_key: "b" }),
      aRead({ s3_key: "c", evidence: "refused" }),
    ];
    const answers = await requestRestores(pool, ...batch);
    expect(answers.map((answer) => answer.request_id).toSorted()).toEqual(
      batch.map((read) => read["id"]).toSorted(),
    );
    expect((await restores(pool)).map((row) => row["s3_key"]).toSorted()).toEqual(["a", "c"]);
    expect((await looks(pool)).map((row) => row["s3_key"])).toEqual(["b"]);
  });

  test("that a policy ignores is counted, and asks S3 nothing", async ({ pool }) => {
    await policy(pool, "ignore");
    expect(await look(pool)).toMatchObject({ request_id: null, duplicate: false });
    expect(await looks(pool)).toEqual([]);
    expect(await one(pool, "select n from totals where metric = 'reads_ignored'")).toEqual({ n: 1 });
  });

  test("that a policy ignores by the time of its HEAD is no request", async ({ pool }) => {
    await look(pool);
    await policy(pool, "ignore");
    await handIn(pool, await claimOne(pool));
    expect([await looks(pool), await requests(pool)]).toEqual([[], []]);
  });

  test("that is delivered late, after this reader's restore, starts nothing", async ({ pool }) => {
    await insertRead(pool, "closed");
    await look(pool, { event_time: ago("2 days") });
    await handIn(pool, await claimOne(pool));
    expect(await looks(pool)).toEqual([]);
    expect(await restores(pool)).toHaveLength(1);
  });

  test("after the copy has expired opens a new restore, as a read does", async ({ pool }) => {
    await insertRead(pool, "closed");
    await look(pool);
    await handIn(pool, await claimOne(pool));
    expect((await restores(pool)).map((row) => row["closed_at"] === null)).toEqual([false, true]);
  });
});

describe("looks at one object", () => {
  test("by one reader while one waits are one, of the newest", async ({ pool }) => {
    const first = await look(pool, { event_id: "1", event_time: ago("3 minutes") });
    const newer = await look(pool, { event_id: "2", event_time: ago("1 minutes") });
    const again = await look(pool, { event_id: "2", event_time: ago("1 minutes") });
    const older = await look(pool, { event_id: "3", event_time: ago("2 minutes") });
    for (const { request_id, duplicate } of [newer, older, again])
      expect({ request_id, duplicate }).toEqual({ request_id: first.read_id, duplicate: true });
    await handIn(pool, await claimOne(pool));
    expect(await requests(pool)).toMatchObject([{ id: first.read_id, last_event_id: "2", read_count: 1 }]);
  });

  test("of one batch by one reader are one", async ({ pool }) => {
    const batch = [aLook(), aLook(), aLook()];
    const answers = await requestRestores(pool, ...batch);
    expect(new Set(answers.map((answer) => answer.request_id))).toEqual(new Set([batch[0]?.["id"]]));
    expect(await looks(pool)).toHaveLength(1);
  });

  test("while S3 is being asked wait for a HEAD of their own", async ({ pool }) => {
    await look(pool);
    const first = await claimOne(pool);
    const second = await look(pool);
    expect(second).toMatchObject({ request_id: second.read_id, duplicate: false });
    await drop(pool, first);
    expect((await looks(pool)).map((row) => row["id"])).toEqual([second.read_id]);
    await handIn(pool, await claimOne(pool));
    expect(await requests(pool)).toMatchObject([{ id: second.read_id }]);
  });

  test("wait for nobody who holds one of them, and neither do the reads beside them", async ({ pool }) => {
    await look(pool);
    const client = await pool.connect();
    try {
      await client.query("begin");
      await client.query("select from looks for update");
      const answers = await requestRestores(pool, aLook(), aRead({ s3_key: "other" }));
      expect(answers).toHaveLength(2);
      expect(await isWaitedFor(pool)).toBe(false);
      await client.query("commit");
    } finally {
      client.release(true);
    }
    expect(await looks(pool)).toHaveLength(2);
    const both = await claimOne(pool);
    await handIn(pool, both);
    expect((await requests(pool)).map((row) => [row["s3_key"], row["read_count"]]).toSorted()).toEqual([
      ["film.mov", 2],
      ["other", 1],
    ]);
  });

  test("by many readers are one HEAD, and a request for each", async ({ pool }) => {
    const readers = Array.from({ length: 120 }, (_, index) => `AKIAREADER${index}`);
    await requestRestores(pool, ...readers.map((access_key_id) => aLook({ access_key_id })));
    await look(pool, { s3_key: "other" });
    const claimed = await claim(pool, 10);
    expect(claimed.map(({ s3_key, ids }) => [s3_key, ids.length])).toEqual([["film.mov", 120]]);
    for (const looks of claimed) await handIn(pool, looks);
    expect((await requests(pool)).map((row) => row["access_key_id"]).toSorted()).toEqual(readers.toSorted());
    expect(await restores(pool)).toHaveLength(1);
  });

  test("are claimed by one of several workers at once, all of an object by the same", async ({ pool }) => {
    await requestRestores(
      pool,
      ...Array.from({ length: 100 }, (_, index) =>
        aLook({ s3_key: `${index % 20}`, access_key_id: `K${index}` }),
      ),
    );
    const claims = await Promise.all(Array.from({ length: 8 }, () => claim(pool, 10)));
    expect(new Set(claims.flat().flatMap(({ ids }) => ids)).size).toBe(100);
    expect(claims.flat().map(({ ids }) => ids.length)).toEqual(Array(20).fill(5));
  });

  test("are not divided by two claims at once: the second waits for the first", async ({ pool }) => {
    const readers = Array.from({ length: 40 }, (_, index) => `K${index}`);
    await requestRestores(pool, ...readers.map((access_key_id) => aLook({ access_key_id })));
    await look(pool, { s3_key: "other" });
    const second = await whileUncommitted(
      pool,
      (client) => client.query("select * from claim_looks(10, 'w')"),
      () => claim(pool, 10),
    );
    expect(second.map(({ s3_key }) => s3_key)).toEqual(["other"]);
  });

  test("with names of full length fit", async ({ pool }) => {
    const long = { s3_key: "é".repeat(512), version_id: "v".repeat(1024), access_key_id: "" };
    await look(pool, { ...long, principal: `arn:${"p".repeat(2044)}` });
    expect(await look(pool, { ...long, principal: `arn:${"p".repeat(2044)}` })).toMatchObject({
      duplicate: true,
    });
    await handIn(pool, await claimOne(pool));
    expect(await requests(pool)).toHaveLength(1);
  });
});

describe("a claim of looks", () => {
  test("is a lease of a minute at first; whoever comes late reports in vain", async ({ pool }) => {
    await look(pool);
    const late = await claimOne(pool);
    const { wait } = await one(
      pool,
      "select extract(epoch from attempt_after - now())::integer as wait from looks",
    );
    expect(wait).toBe(60);
    await beDue(pool);
    const current = await claimOne(pool);
    expect(current.ids).toEqual(late.ids);

    await handIn(pool, late);
    await drop(pool, late);
    expect(await trouble(pool, late)).toEqual([]);
    expect(await requests(pool)).toEqual([]);
    expect(await looks(pool)).toMatchObject([{ claim_id: current.claim_id, failure_code: null }]);
    await handIn(pool, current);
    expect(await requests(pool)).toHaveLength(1);
  });

  test("of a worker that died or left is free at once, and what it was for goes on", async ({ pool }) => {
    await look(pool);
    const late = await claimOne(pool);
    await forgetNudges(pool);
    await pool.query("select leave_worker('w')");
    expect(await nudges(pool)).toContain("trigger_restores +0");
    const current = await claimOne(pool);
    await handIn(pool, late);
    expect(await requests(pool)).toEqual([]);
    await handIn(pool, current);
    expect(await requests(pool)).toHaveLength(1);
  });

  test("leaves nothing half done when the reads cannot be noted", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending");
    await look(pool, { access_key_id: JOHN });
    const claimed = await claimOne(pool);
    const client = await pool.connect();
    try {
      await client.query("begin");
      await client.query("select from restores where id = $1 for update", [restore["id"]]);
      await expect(handIn(pool, claimed)).rejects.toThrow("lock timeout");
    } finally {
      client.release(true);
    }
    expect(await looks(pool)).toMatchObject([{ claim_id: claimed.claim_id }]);
    await handIn(pool, claimed);
    expect(await requests(pool)).toHaveLength(2);
  });
});

describe("trouble with S3", () => {
  test("keeps the look in backoff, with a nudge for when that ends", async ({ pool }) => {
    await look(pool);
    const claimed = await claimOne(pool);
    await forgetNudges(pool);
    expect(await trouble(pool, claimed)).toEqual([]);
    expect(await looks(pool)).toMatchObject([
      { claim_id: null, attempts: 1, failure_code: "AccessDenied", failure_message: "No." },
    ]);
    expect(await nudges(pool)).toEqual(["trigger_restores +60"]);
    expect(await claim(pool)).toEqual([]);
    // A further look asks S3 no sooner.
    expect(await look(pool)).toMatchObject({ duplicate: true });
    expect(await claim(pool)).toEqual([]);

    await beDue(pool);
    await trouble(pool, await claimOne(pool), "SlowDown");
    const { wait } = await one(
      pool,
      "select extract(epoch from attempt_after - now())::integer as wait from looks",
    );
    expect(wait).toBe(4);
  });

  test("for a day and ten tries ends it; for as long with fewer tries, or as often in less time, not", async ({
    pool,
  }) => {
    const cases = { over: [9, "25 hours"], seldom: [8, "25 hours"], young: [20, "23 hours"] } as const;
    for (const [s3_key, [attempts, age]] of Object.entries(cases)) {
      await look(pool, { s3_key });
      await pool.query("update looks set attempts = $2, created_at = $3 where s3_key = $1", [
        s3_key,
        attempts,
        ago(age),
      ]);
    }
    const ended: Row[] = [];
    for (const claimed of await claim(pool)) ended.push(...(await trouble(pool, claimed)));
    expect(ended).toMatchObject([{ s3_bucket: BUCKET, s3_key: "over", code: "AccessDenied" }]);
    expect((await looks(pool)).map((row) => row["s3_key"]).toSorted()).toEqual(["seldom", "young"]);
    expect([await restores(pool), await requests(pool)]).toEqual([[], []]);
  });
});

test("the oldest look that waits is there for operators to see", async ({ pool }) => {
  const { read_id } = await look(pool);
  const since = ago("2 hours");
  await pool.query("update looks set created_at = $1", [since]);
  await look(pool, { s3_key: "newer" });
  expect(await query(pool, "select waits_for, id, since from oldest_waiting")).toEqual([
    { waits_for: "S3 to say whether an object that was looked at is archived", id: read_id, since },
  ]);
  expect(await one(pool, "select oldest_waiting_since from thaw_health")).toEqual({
    oldest_waiting_since: since,
  });
  const { value } = await one(
    pool,
    `select value from gauges where metric = 'oldest_waiting_seconds' and labels = '{"state": "looked"}'`,
  );
  expect(value).toBeGreaterThanOrEqual(7200);
});

test("erasing a person erases what they look at, and nothing of others", async ({ pool }) => {
  const session = (name: string) => `arn:aws:sts::1:assumed-role/Reader/${name}`;
  await look(pool, { access_key_id: "A1", principal: session("Jane@example.com") });
  await look(pool, { access_key_id: "A2", source_identity: "jane@example.com" });
  await look(pool, { access_key_id: "A3", principal: session("maryjane@example.com") });
  await look(pool, { access_key_id: "A4", s3_key: "home/jane@example.com" });
  // Whom the identity store named.
  await pool.query(
    `insert into identity_store_users (subject, store, is_wanted, answer, email, answered_at)
     values ('user/1', 'd-1234567890', false, 'found', 'jane@example.com', now())`,
  );
  await look(pool, { access_key_id: "A5", on_behalf_of: "1" });
  await look(pool, { access_key_id: "A6", on_behalf_of: "2" });
  const { n } = await one(pool, "select erase_person('jane@example.com') as n");
  expect(n).toBeGreaterThanOrEqual(2);
  expect((await looks(pool)).map((row) => row["reader"]).toSorted()).toEqual(["A3", "A4", "A6"]);
  expect(await one(pool, "select erase_person('jane@example.com') as n")).toEqual({ n: 0 });
});

test("ids that come twice are one look", async ({ pool }) => {
  const read = aLook({ id: randomUUID() });
  await requestRestores(pool, read);
  expect(await requestRestores(pool, read)).toMatchObject([{ request_id: read["id"] }]);
  expect(await looks(pool)).toHaveLength(1);
});

describe("each step costs the same", () => {
  /** Half of them are due. */
  const addLooks = (pool: Pool, count: number): Promise<unknown> =>
    pool.query(
      `insert into looks (id, s3_bucket, s3_key, version_id, reader, read, attempt_after, created_at)
       select id, $2, 'films/' || n, '', $3,
              jsonb_build_object('id', id, 's3_bucket', $2::text, 's3_key', 'films/' || n, 'access_key_id', $3::text, 'event_time', now()),
              now() + n % 2 * interval '1 hour' - n * interval '1 ms', now() - n * interval '1 ms'
         from generate_series(1, $1) n cross join lateral (select md5(n::text)::uuid as id) i`,
      [count, BUCKET, JANE],
    );

  async function costs(pool: Pool): Promise<Record<string, Cost>> {
    const literal = (value: unknown) => `'${JSON.stringify(value)}'`;
    const claimed = await claim(pool, 30);
    const [handed_in, dropped, troubled] = [0, 10, 20].map((from) => claimed.slice(from, from + 10));
    const of = (page: Claimed[] = []): string =>
      `'${page[0]?.claim_id}', '{${page.flatMap(({ ids }) => ids).join()}}'`;
    const troubles = [{ ids: troubled?.flatMap(({ ids }) => ids), code: "x", message: "X." }];
    const statements = {
      put: `select * from request_restores(${literal([aLook(), aLook({ s3_key: "films/1" })])}, '{120 seconds}')`,
      claim: "select * from claim_looks(50, 'w')",
      "hand in": `select hand_in_looks(${of(handed_in)}, '{120 seconds}')`,
      drop: `select drop_looks(${of(dropped)})`,
      trouble: `select * from note_look_troubles('${troubled?.[0]?.claim_id}', ${literal(troubles)})`,
      "oldest waiting": "select * from oldest_waiting",
    };
    const client = await pool.connect();
    const found: Record<string, Cost> = {};
    try {
      for (const [name, statement] of Object.entries(statements))
        found[name] = await costOf(client, statement);
    } finally {
      client.release(true);
    }
    return found;
  }

  test("however many looks wait, whatever the statistics say", { timeout: 120_000 }, async ({ pool }) => {
    await pool.query("alter table looks set (autovacuum_enabled = off)");
    await addLooks(pool, 1_000);
    await pool.query("vacuum analyze looks");
    const few = await costs(pool);
    for (const known of ["analyze looks", "vacuum looks"]) {
      await pool.query("truncate looks");
      await pool.query(known);
      await addLooks(pool, 40_000);
      for (const [name, cost] of Object.entries(await costs(pool))) {
        expect.soft(cost.scanned, `${name}, ${known}`).not.toContain("looks");
        // All of the table is thousands; the system catalog, read anew when autovacuum was there, is hundreds.
        expect
          .soft(cost.buffers, `${name}, ${known}`)
          .toBeLessThanOrEqual(1.5 * (few[name]?.buffers ?? 0) + 400);
      }
    }
  });
});
