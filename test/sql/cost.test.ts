import { describe, expect } from "vitest";

import {
  GIB,
  SCANNER,
  admit,
  admitReads,
  archived,
  claim,
  decisions,
  holds,
  limit,
  policy,
  refused,
  settle,
  spent,
} from "../support/cost.ts";
import { test } from "../support/database.ts";
import { aRead, one, query, read, reload, requestRestores, WAITS, type Row } from "../support/rows.ts";

describe("without policies and limits", () => {
  test("everything goes, by the settings, and nothing is written", async ({ pool }) => {
    await read(pool, { s3_key: "a" });
    const [claimed] = (await claim(pool)) as [Row];

    expect(await admit(pool, [archived(claimed)])).toEqual([
      { id: claimed["id"], decision: "go", tier: "Standard", days: 7, is_new: true },
    ]);
    expect(await reload(pool, claimed)).toEqual(claimed);
  });

  test("what is accepted costs what the prices say, by its payer", async ({ pool }) => {
    await read(pool, { s3_key: "logs/a", principal: `${SCANNER}i-1`, access_key_id: "ASIA1" });
    const [claimed] = (await claim(pool)) as [Row];
    await settle(pool, [
      { ...archived(claimed), transition: "mark_restores_pending", tier: "Standard", days: 7 },
    ]);

    expect(
      await one(pool, "select person, folder, tier, objects::integer, bytes::float, cost::float from costs"),
    ).toEqual({
      person: "arn:aws:sts::123456789012:assumed-role/scanner",
      folder: "logs/",
      tier: "Standard",
      objects: 1,
      bytes: GIB,
      cost: expect.closeTo(0.00005 + 0.01 + (0.023 * 7) / 30, 9),
    });
  });

  test("a claim that is not ours any more is not admitted", async ({ pool }) => {
    await read(pool, { s3_key: "a" });
    const [claimed] = (await claim(pool)) as [Row];
    expect(await admit(pool, [archived({ ...claimed, claim_id: claimed["id"] })])).toEqual([]);
  });
});

describe("a limit", () => {
  test("holds only the excess, in one hold for one payer with a thousand sessions", async ({ pool }) => {
    await limit(pool, { scope: "person", max_objects: 20 });
    const admitted = await admitReads(pool, 50, (n) => ({
      principal: `${SCANNER}session-${n}`,
      access_key_id: `ASIA${n}`,
    }));

    expect(decisions(admitted)).toEqual({ go: 20, held: 30 });
    expect(await holds(pool)).toEqual([
      {
        person: SCANNER.slice(0, -1),
        status: "open",
        objects: 30,
        bytes: 30 * GIB,
        reason: "beyond the limit of 20 objects per day for each person",
      },
    ]);
    expect(await spent(pool)).toMatchObject([
      { subject: SCANNER.slice(0, -1), objects: 20, bytes: 20 * GIB },
    ]);
    expect(await claim(pool)).toEqual([]);
  });

  test("of 0 holds everything, and other people never wait for one who exceeds theirs", async ({ pool }) => {
    await limit(pool, { scope: "prefix", s3_bucket: "archive", key_prefix: "k000", max_objects: 0 });
    await limit(pool, { scope: "person", max_bytes: 12 * GIB });
    const admitted = await admitReads(pool, 30, (n) => ({
      s3_bucket: "archive",
      access_key_id: n < 15 ? "AKIAA" : "AKIAB",
    }));
    // Ten under the prefix; of the rest five are A's and fifteen B's, who may have twelve.
    expect(decisions(admitted)).toEqual({ go: 17, held: 13 });
    await spent(pool);
  });

  test("by cost counts the estimate", async ({ pool }) => {
    await limit(pool, { max_cost: 0.1 });
    const each = 0.00005 + 0.01 + (0.023 * 7) / 30;
    expect(decisions(await admitReads(pool, 10))).toEqual({
      go: Math.floor(0.1 / each),
      held: 10 - Math.floor(0.1 / each),
    });
    await spent(pool);
  });

  test("charges a row once, whatever is asked again", async ({ pool }) => {
    await limit(pool, { max_objects: 5 });
    await admitReads(pool, 3);
    const before = await spent(pool);
    await query(pool, "update restores set attempt_after = now(), claim_id = null");

    const again = await admit(
      pool,
      (await claim(pool)).map((row) => archived(row)),
    );
    expect(again.map(({ decision, is_new }) => [decision, is_new])).toEqual(
      Array.from({ length: 3 }, () => ["go", false]),
    );
    expect(await spent(pool)).toEqual(before);
  });

  test("gets back what S3 refused, once", async ({ pool }) => {
    await limit(pool, { max_objects: 5 });
    await admitReads(pool, 3);
    const claimed = await query(pool, "select * from restores");
    const outcomes = claimed.map(refused);
    await settle(pool, outcomes.slice(0, 2));
    expect(await spent(pool)).toMatchObject([{ objects: 1 }]);
    await settle(pool, outcomes);
    expect(await spent(pool)).toEqual([]);
    await settle(pool, outcomes);
    expect(await spent(pool)).toEqual([]);
  });

  test("is charged the tier that S3 accepted", async ({ pool }) => {
    await limit(pool, { max_cost: 100 });
    await policy(pool, "restore", { tier: "Expedited" });
    const [row] = (await admitReads(pool, 1)) as [Row];
    expect(row).toMatchObject({ decision: "go", tier: "Expedited" });
    const [expedited] = await spent(pool);
    const [claimed] = (await query(pool, "select * from restores")) as [Row];
    await settle(pool, [
      { ...archived(claimed), transition: "mark_restores_pending", tier: "Standard", days: 7 },
    ]);

    const [standard] = await spent(pool);
    expect(expedited?.["cost"] - standard?.["cost"]).toBeCloseTo(0.01 + 0.02 - 0.00005, 9);
  });

  test("is kept by three workers at once", async ({ pool }) => {
    await limit(pool, { max_objects: 20 });
    await limit(pool, { scope: "person", max_objects: 15 });
    await requestRestores(
      pool,
      ...Array.from({ length: 60 }, (_, n) =>
        aRead({ s3_key: `k${n}`, access_key_id: n % 2 ? "AKIAA" : "AKIAB" }),
      ),
    );
    const claims = await Promise.all(Array.from({ length: 6 }, () => claim(pool, 10)));
    const admitted = await Promise.all(
      claims.map((rows) =>
        admit(
          pool,
          rows.map((row) => archived(row)),
        ),
      ),
    );
    expect(decisions(admitted.flat())).toEqual({ go: 20, held: 40 });
    await spent(pool);
  });
});

describe("a hold", () => {
  test("that is approved runs beyond the limit, counted, and two operators decide once", async ({ pool }) => {
    await limit(pool, { max_objects: 2 });
    await admitReads(pool, 5);
    const { id } = await one(pool, "select id from holds");
    const decided = await Promise.allSettled([
      query(pool, "select approve_hold($1, 'ann')", [id]),
      query(pool, "select approve_hold($1, 'bob')", [id]),
    ]);
    expect(decided.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);

    // The transaction that decided nothing may hold the row for a moment longer.
    while (
      (
        await one(
          pool,
          "select settle_holds(2), exists (select from holds where settled_at is null) as is_left",
        )
      )["is_left"] === true
    );
    const admitted = await admit(
      pool,
      (await claim(pool)).map((row) => archived(row)),
    );
    expect(decisions(admitted)).toEqual({ go: 3 });
    expect(await spent(pool)).toMatchObject([{ objects: 5 }]);
    expect(await one(pool, "select status, settled_at is not null as settled from holds")).toEqual({
      status: "approved",
      settled: true,
    });
  });

  test("that is refused, or that nobody decides about, fails with a sentence", async ({ pool }) => {
    await policy(pool, "hold");
    await admitReads(pool, 4, (n) => ({ access_key_id: n < 2 ? "AKIAA" : "AKIAB" }));
    const { id } = await one(pool, "select id from holds where person = 'AKIAA'");
    await query(pool, "select refuse_hold($1, 'ann')", [id]);
    await query(pool, "update holds set opened_at = now() - interval '73 hours' where status = 'open'");

    while ((await one(pool, "select settle_holds(1) as n"))["n"] > 0);
    expect(
      await query(
        pool,
        "select status, failure_code, count(*)::integer as n from restores group by 1, 2 order by 2",
      ),
    ).toEqual([
      { status: "failed", failure_code: "approval_expired", n: 2 },
      { status: "failed", failure_code: "not_approved", n: 2 },
    ]);
  });

  test("that has grown since it was looked at is not approved", async ({ pool }) => {
    await policy(pool, "hold");
    await admitReads(pool, 2);
    const { id } = await one(pool, "select id from holds");
    await expect(query(pool, "select approve_hold($1, 'ann', 1)", [id])).rejects.toThrow(
      "has grown to 2 objects",
    );
    await query(pool, "select approve_hold($1, 'ann', 2)", [id]);
  });

  test("is joined by new readers of its objects, and an event makes HEAD look, no more", async ({ pool }) => {
    await policy(pool, "hold");
    await read(pool, { s3_key: "a", access_key_id: "AKIAA" });
    await admit(
      pool,
      (await claim(pool)).map((row) => archived(row)),
    );
    await query(pool, "insert into aws_key_user_map values ('AKIAB', 'bob@example.com')");
    await read(pool, { s3_key: "a", access_key_id: "AKIAB" });
    expect(await query(pool, "select kind, email from notices order by kind")).toEqual([
      { kind: "held", email: "bob@example.com" },
      { kind: "approval", email: null },
    ]);

    await query(pool, "select * from complete_restores($1, $2::interval[])", [
      JSON.stringify([{ id: "00000000-0000-0000-0000-000000000001", s3_bucket: "b", s3_key: "a" }]),
      WAITS,
    ]);
    await query(pool, "update restores set head_wanted_at = now(), attempt_after = now()");
    expect(
      decisions(
        await admit(
          pool,
          (await claim(pool)).map((row) => archived(row)),
        ),
      ),
    ).toEqual({ held: 1 });
    expect(await holds(pool)).toMatchObject([{ objects: 1 }]);
  });
});

describe("policies", () => {
  test("the longest prefix wins, then the most specific principal", async ({ pool }) => {
    await policy(pool, "observe");
    await policy(pool, "hold", { s3_bucket: "b" });
    await policy(pool, "restore", { s3_bucket: "b", key_prefix: "a/" });
    await policy(pool, "ignore", { s3_bucket: "b", key_prefix: "a/", principal: `${SCANNER}*` });
    await policy(pool, "restore", {
      s3_bucket: "b",
      key_prefix: "a/",
      principal: `${SCANNER}good`,
      tier: "Bulk",
      days: 2,
    });
    const found = await Promise.all(
      [
        ["c", "x", ""],
        ["b", "x", ""],
        ["b", "a/x", ""],
        ["b", "a/x", `${SCANNER}bad`],
        ["b", "a/x", `${SCANNER}good`],
      ].map((of) =>
        one(pool, "select action, tier, days from find_policy($1, $2, $3, '{}', prefix_lengths())", of),
      ),
    );
    expect(found.map(({ action, tier }) => [action, tier])).toEqual([
      ["observe", null],
      ["hold", null],
      ["restore", null],
      ["ignore", null],
      ["restore", "Bulk"],
    ]);
  });

  test("what is ignored is counted and leaves no row", async ({ pool }) => {
    await policy(pool, "ignore", { principal: `${SCANNER}*` });
    const answers = await requestRestores(
      pool,
      aRead({ s3_key: "a", principal: `${SCANNER}1` }),
      aRead({ s3_key: "b" }),
    );
    expect(answers.map(({ request_id }) => request_id === null).sort()).toEqual([false, true]);
    expect(await query(pool, "select s3_key from restores")).toEqual([{ s3_key: "b" }]);
    expect(await query(pool, "select n from totals where metric = 'reads_ignored'")).toEqual([{ n: 1 }]);
  });

  test("what is observed is closed with its estimate, tells nobody, and starts nothing later", async ({
    pool,
  }) => {
    await query(pool, "insert into aws_key_user_map values ('AKIAA', 'ann@example.com')");
    await policy(pool, "observe");
    const event = {
      s3_key: "a",
      access_key_id: "AKIAA",
      event_id: "e",
      event_time: new Date().toISOString(),
    };
    await read(pool, event);
    expect(
      decisions(
        await admit(
          pool,
          (await claim(pool)).map((row) => archived(row)),
        ),
      ),
    ).toEqual({ observed: 1 });

    expect(
      await query(
        pool,
        "select status, failure_code, closed_at is not null as closed, estimated_cost > 0 as costs from restores",
      ),
    ).toEqual([{ status: "failed", failure_code: "observed", closed: true, costs: true }]);
    expect(await query(pool, "select * from untold_requests")).toEqual([]);
    await query(pool, "delete from policies");
    await read(pool, event);
    expect(await query(pool, "select * from untold_requests")).toEqual([]);
    expect(await claim(pool)).toEqual([]);
    expect(await one(pool, "select observed, objects::integer from costs")).toEqual({
      observed: true,
      objects: 1,
    });
  });

  test("the same object observed again within its days costs nothing more", async ({ pool }) => {
    await policy(pool, "observe");
    for (const time of ["a", "b"]) {
      await read(pool, { s3_key: "a", access_key_id: "AKIAA", event_id: time });
      await admit(
        pool,
        (await claim(pool)).map((row) => archived(row)),
      );
    }
    const costs = await query(pool, "select estimated_cost > 0 as costs from restores order by created_at");
    expect(costs).toEqual([{ costs: true }, { costs: false }]);
  });
});

test.for([
  ["Expedited", true, "Expedited"],
  ["Expedited", false, "Standard"],
  ["Standard", false, "Standard"],
  ["Bulk", false, "Bulk"],
  ["Bulk", true, "Bulk"],
])("%s wanted of a class with Expedited (%s) becomes %s", async ([wanted, has_expedited, tier], { pool }) => {
  expect(await one(pool, "select tier_for($1, $2) as tier", [wanted, has_expedited])).toEqual({ tier });
});
