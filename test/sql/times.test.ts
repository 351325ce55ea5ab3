/** How long S3 takes, and when it is asked about a restore that no event says is done. */
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import { ago, ahead, insertRestore, one, query, reload, type Row, WAITS } from "../support/rows.ts";

const DEEP = "DEEP_ARCHIVE";
const INT = "INTELLIGENT_TIERING";

/** Amazon S3 User Guide, "Understanding archive retrieval options". */
const USUAL: [string | null, string | null, string | null, number, number][] = [
  ["GLACIER", null, "Expedited", 1 / 60, 5 / 60],
  ["GLACIER", null, "Standard", 3, 5],
  ["GLACIER", null, "Bulk", 5, 12],
  [INT, "ARCHIVE_ACCESS", "Expedited", 1 / 60, 5 / 60],
  [INT, "ARCHIVE_ACCESS", "Standard", 3, 5],
  [INT, "ARCHIVE_ACCESS", "Bulk", 5, 12],
  [DEEP, null, "Standard", 0, 12],
  [DEEP, null, "Bulk", 0, 48],
  [INT, "DEEP_ARCHIVE_ACCESS", "Standard", 0, 12],
  [INT, "DEEP_ARCHIVE_ACCESS", "Bulk", 0, 48],
  // Another client has started it: the slowest tier.
  ["GLACIER", null, null, 0, 12],
  [INT, "ARCHIVE_ACCESS", null, 0, 12],
  [DEEP, null, null, 0, 48],
  ["GLACIER", null, "Instant", 0, 12],
  // What nobody here has heard of: the slowest archive.
  ["CLOUDTIER", null, "Expedited", 0, 48],
  ["location-dmf-v1", null, "Standard", 0, 48],
  [INT, "COLDEST_ACCESS", "Standard", 0, 48],
  [INT, null, "Standard", 0, 48],
  [null, null, null, 0, 48],
];

const usual = (
  pool: Pool,
  storage_class: string | null,
  archive_status: string | null,
  tier: string | null,
  bytes: number | null = null,
) =>
  one<{ from_hours: number; to_hours: number }>(pool, "select * from usual_hours($1, $2, $3, $4)", [
    storage_class,
    archive_status,
    tier,
    bytes,
  ]);

describe("what S3 usually takes", () => {
  test("follows class, archive tier and retrieval tier", async ({ pool }) => {
    for (const [storage_class, archive_status, tier, from_hours, to_hours] of USUAL) {
      const hours = await usual(pool, storage_class, archive_status, tier, 1000);
      expect(hours, `${storage_class} ${archive_status} ${tier}`).toEqual({
        from_hours: expect.closeTo(from_hours, 9),
        to_hours: expect.closeTo(to_hours, 9),
      });
    }
  });

  test("is more for a large Expedited one, and two days for more than 5 TB", async ({ pool }) => {
    const large = await usual(pool, "GLACIER", null, "Expedited", 1e12);
    expect(large.to_hours).toBeCloseTo(5 / 60 + 1e12 / 300e6 / 3600, 6);
    expect((await usual(pool, "GLACIER", null, "Expedited", 250e6)).to_hours).toBeCloseTo(5 / 60, 9);
    expect(await usual(pool, "GLACIER", null, "Standard", 1e12)).toEqual({ from_hours: 3, to_hours: 5 });
    for (const tier of ["Expedited", "Standard", "Bulk"])
      expect(await usual(pool, "GLACIER", null, tier, 6e12)).toEqual({ from_hours: 0, to_hours: 48 });
  });
});

const CLAIM = "select * from claim_restores_to_poll(10, '23 hours')";

const settle = (pool: Pool, row: Row, transition: string, more: Row = {}) =>
  pool.query("select settle_restores($1, $2)", [
    JSON.stringify([{ id: row["id"], claim_id: row["claim_id"], transition, ...more }]),
    WAITS,
  ]);

/** How long from now until S3 is asked, in minutes. */
const minutesUntilAsked = async (pool: Pool): Promise<number> =>
  (
    await one<{ minutes: number }>(
      pool,
      "select round(extract(epoch from ask_after - now()) / 60)::int as minutes from restores",
    )
  ).minutes;

describe("S3 is asked about a pending restore", () => {
  test.for([
    ["GLACIER", null, "Standard", 300],
    ["GLACIER", null, "Expedited", 5],
    [DEEP, null, "Standard", 720],
    [INT, "DEEP_ARCHIVE_ACCESS", "Bulk", 2880],
    ["GLACIER", null, null, 720],
  ] as const)("when its expected time ends: %s %s, %s, after %i minutes", async (given, { pool }) => {
    const [storage_class, archive_status, tier, minutes] = given;
    await insertRestore(pool, "not_started");
    const claimed = await one(pool, "select * from claim_restores_to_trigger(1)");
    await settle(pool, claimed, "mark_restores_pending", {
      storage_class,
      archive_status,
      tier,
      size_bytes: 1,
      pinned_version_id: "",
    });
    expect(await minutesUntilAsked(pool)).toBe(minutes);
    expect(await query(pool, CLAIM)).toEqual([]);
    await pool.query("update restores set ask_after = now()");
    expect(await query(pool, CLAIM)).toHaveLength(1);
  });

  test.for([
    // Late by so many minutes, and asked again after so many.
    [-60, 60],
    [0, 15],
    [10, 15],
    [40, 40],
    [300, 300],
    [600, 360],
    [3000, 360],
  ] as const)("and %i minutes later: again after %i", async ([late, again], { pool }) => {
    await insertRestore(pool, "pending", {
      tier: "Standard",
      accepted_at: ago(`${300 + late} minutes`),
      ask_after: ago("1 seconds"),
    });
    const claimed = await one(pool, CLAIM);
    await settle(pool, claimed, "note_restores_checked");
    expect(await minutesUntilAsked(pool)).toBe(again);
    expect(await query(pool, CLAIM)).toEqual([]);
  });

  test("nine times on the first day that it is late, and four times on the next, by runs every 5 minutes", async ({
    pool,
  }) => {
    await insertRestore(pool, "pending", {
      tier: "Standard",
      accepted_at: ago("5 hours"),
      ask_after: ago("1 seconds"),
    });
    const asked: number[] = [];
    for (let minute = 0; minute < 2 * 24 * 60; minute += 5) {
      for (const claimed of await query(pool, CLAIM)) {
        asked.push(minute);
        await settle(pool, claimed, "note_restores_checked");
      }
      await pool.query(
        `update restores set accepted_at = accepted_at - interval '5 minutes', last_checked_at = last_checked_at - interval '5 minutes',
                             ask_after = ask_after - interval '5 minutes', attempt_after = attempt_after - interval '5 minutes'`,
      );
    }
    expect(asked.slice(0, 2)).toEqual([0, 15]);
    expect(Math.max(...asked.slice(1).map((minute, index) => minute - (asked[index] ?? 0)))).toBe(360);
    expect(asked.filter((minute) => minute < 24 * 60)).toHaveLength(9);
    expect(asked.filter((minute) => minute >= 24 * 60)).toHaveLength(4);
  });

  test("not while an event asks, nor in backoff, and after what events and 23 hours ask for", async ({
    pool,
  }) => {
    const due = { tier: "Standard", accepted_at: ago("6 hours"), ask_after: ago("1 hours") };
    const rows: Record<string, Row> = {
      due,
      "due earlier": { ...due, ask_after: ago("2 hours") },
      "in backoff": { ...due, attempt_after: ahead("1 minutes") },
      later: { ...due, ask_after: ahead("1 minutes") },
      "an event asks, in backoff": {
        ...due,
        head_wanted_at: ago("1 minutes"),
        attempt_after: ahead("1 minutes"),
      },
    };
    for (const [s3_key, more] of Object.entries(rows))
      await insertRestore(pool, "pending", { s3_key, ...more });
    await insertRestore(pool, "pending", { s3_key: "unchecked", accepted_at: ago("24 hours") });
    await insertRestore(pool, "pending", { s3_key: "an event asks", head_wanted_at: ago("1 minutes") });
    await insertRestore(pool, "restored", { s3_key: "restored", ask_after: ago("1 hours") });

    const page = async (limit: number): Promise<string[]> =>
      (await query(pool, `select s3_key from claim_restores_to_poll(${limit}, '23 hours')`))
        .map((row) => row["s3_key"] as string)
        .toSorted();
    expect(await page(10)).toEqual(["an event asks", "unchecked"]);
    expect(await page(1)).toEqual(["due earlier"]);
    expect(await page(10)).toEqual(["due"]);
    expect(await page(10)).toEqual([]);
  });

  test("again when the lease of a dead worker ends, at once when it is known to be dead, and when a backoff ends", async ({
    pool,
  }) => {
    const restore = await insertRestore(pool, "pending", {
      tier: "Standard",
      accepted_at: ago("6 hours"),
      ask_after: ago("1 minutes"),
    });
    const claim = "select * from claim_restores_to_poll(10, '23 hours', p_worker := 'dead')";
    expect(await query(pool, claim)).toHaveLength(1);
    expect(await query(pool, claim)).toEqual([]);
    const leased = await reload(pool, restore);
    expect(leased["ask_after"]).toEqual(leased["attempt_after"]);

    await pool.query("select release_work('{dead}')");
    const again = await query(pool, claim);
    expect(again).toHaveLength(1);

    // S3 throttles: a second or two, and not the minute of the lease.
    await settle(pool, again[0] as Row, "note_restore_troubles", { code: "SlowDown", message: "Slow down." });
    const troubled = await reload(pool, restore);
    expect(troubled["ask_after"]).toEqual(troubled["attempt_after"]);
    await pool.query("update restores set ask_after = now(), attempt_after = now()");
    expect(await query(pool, claim)).toHaveLength(1);
  });

  test("never, once S3 has lost it, until S3 has accepted it again", async ({ pool }) => {
    const restore = await insertRestore(pool, "pending", {
      tier: "Standard",
      accepted_at: ago("6 hours"),
      ask_after: ago("1 minutes"),
    });
    await settle(pool, await one(pool, CLAIM), "mark_restores_lost");
    expect(await reload(pool, restore)).toMatchObject({ status: "not_started", ask_after: Infinity });
  });
});
