/** What a restore costs, worked out by hand. Prices: US East, the AWS Price List of 2026-09-26. A GB is 2^30 bytes, a month 30 days. */
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { dollars } from "../../server/wording/dollars.ts";
import { size } from "../../server/wording/sizes.ts";
import { test } from "../support/database.ts";
import { one, query } from "../support/rows.ts";

const GB = 2 ** 30;

interface Wanted {
  region?: string | null;
  storage_class: string;
  archive_status?: string | null;
  tier: string;
  bytes: number;
  days: number;
}

async function estimate(
  pool: Pool,
  { region = "us-east-1", storage_class, archive_status = null, tier, bytes, days }: Wanted,
): Promise<string | null> {
  const { cost } = await one(pool, "select trim_scale(estimate_cost($1, $2, $3, $4, $5, $6)) as cost", [
    region,
    storage_class,
    archive_status,
    tier,
    bytes,
    days,
  ]);
  return cost;
}

/** As many objects of one size together: one of all the bytes, and the requests of the others. */
async function estimateMany(pool: Pool, objects: number, of: Wanted): Promise<number> {
  const all = Number(await estimate(pool, of));
  return all + (objects - 1) * Number(await estimate(pool, { ...of, bytes: 0 }));
}

describe("one object of 100 GB for 3 days, by class and tier", () => {
  const copy = (100 * 0.023 * 3) / 30; // 0.23
  test.for<
    [storage_class: string, archive_status: string | null, tier: string, cost: number, written: string]
  >([
    ["GLACIER", null, "Expedited", 10 / 1000 + 100 * 0.03 + copy, "$3.24"],
    ["GLACIER", null, "Standard", 0.05 / 1000 + 100 * 0.01 + copy, "$1.23"],
    ["GLACIER", null, "Bulk", 0 + 0 + copy, "$0.23"],
    ["DEEP_ARCHIVE", null, "Standard", 0.1 / 1000 + 100 * 0.02 + copy, "$2.23"],
    ["DEEP_ARCHIVE", null, "Bulk", 0.025 / 1000 + 100 * 0.0025 + copy, "$0.48"],
    // Intelligent-Tiering moves the object back for good: there is no copy to pay.
    ["INTELLIGENT_TIERING", "ARCHIVE_ACCESS", "Expedited", 10 / 1000 + 100 * 0.03, "$3.01"],
    ["INTELLIGENT_TIERING", "ARCHIVE_ACCESS", "Standard", 0, "$0.00"],
    ["INTELLIGENT_TIERING", "ARCHIVE_ACCESS", "Bulk", 0, "$0.00"],
    ["INTELLIGENT_TIERING", "DEEP_ARCHIVE_ACCESS", "Standard", 0, "$0.00"],
    ["INTELLIGENT_TIERING", "DEEP_ARCHIVE_ACCESS", "Bulk", 0, "$0.00"],
  ])("%s %s, %s: %d", async ([storage_class, archive_status, tier, cost, written], { pool }) => {
    const found = await estimate(pool, { storage_class, archive_status, tier, bytes: 100 * GB, days: 3 });
    expect(Number(found)).toBeCloseTo(cost, 9);
    expect(dollars(found ?? "")).toBe(written);
  });
});

describe("AWS's own example (re:Post, Manage data retrieval): 15,000,000 objects, 102,400 GB, without the copies", () => {
  const objects = 15_000_000;
  const all = { bytes: 102_400 * GB, days: 0 };
  test.for<[storage_class: string, tier: string, requests: number, data: number, total: number]>([
    ["GLACIER", "Standard", 15_000 * 0.05, 102_400 * 0.01, 750 + 1024],
    ["GLACIER", "Expedited", 15_000 * 10, 102_400 * 0.03, 150_000 + 3072],
    ["GLACIER", "Bulk", 0, 0, 0],
    ["DEEP_ARCHIVE", "Standard", 15_000 * 0.1, 102_400 * 0.02, 1500 + 2048],
    ["DEEP_ARCHIVE", "Bulk", 15_000 * 0.025, 102_400 * 0.0025, 375 + 256],
  ])("%s %s", async ([storage_class, tier, requests, data, total], { pool }) => {
    expect(requests + data).toBeCloseTo(total, 6);
    expect(await estimateMany(pool, objects, { storage_class, tier, ...all })).toBeCloseTo(total, 6);
  });

  test("and their copies of a week cost more than the retrieval", async ({ pool }) => {
    const of = { storage_class: "GLACIER", tier: "Standard", bytes: 102_400 * GB, days: 7 };
    // 102,400 GB x 0.023 x 7/30 = 549.5466...
    expect(await estimateMany(pool, objects, of)).toBeCloseTo(1774 + (102_400 * 0.023 * 7) / 30, 6);
  });
});

test("a million files of a scanner, 1 MB each, cost what nobody expects of one read", async ({ pool }) => {
  const of = { storage_class: "DEEP_ARCHIVE", tier: "Standard", bytes: 1_000_000 * 1e6, days: 7 };
  const gb = 1e12 / GB; // 931.32
  const cost = (1_000_000 / 1000) * 0.1 + gb * 0.02 + (gb * 0.023 * 7) / 30; // 100 + 18.63 + 5.00
  expect(await estimateMany(pool, 1_000_000, of)).toBeCloseTo(cost, 6);
  expect(dollars(cost)).toBe("$123.62");
});

test("a small file costs something, and an empty one its request", async ({ pool }) => {
  const of = { storage_class: "GLACIER", tier: "Standard", days: 7 };
  expect(await estimate(pool, { ...of, bytes: 0 })).toBe("0.00005");
  expect(dollars((await estimate(pool, { ...of, bytes: 0 })) ?? "")).toBe("under $0.01");
  // 1/1024 GB x (0.01 + 0.023 x 7/30)
  const cost = Number(await estimate(pool, { ...of, bytes: 2 ** 20 }));
  expect(cost).toBeCloseTo(0.00005 + (0.01 + (0.023 * 7) / 30) / 1024, 12);
});

describe("regions", () => {
  const DEEP = { storage_class: "DEEP_ARCHIVE", tier: "Bulk", bytes: 100 * GB, days: 3 };
  const TOKYO = {
    region: "ap-northeast-1",
    storage_class: "DEEP_ARCHIVE",
    tier: "Bulk",
    per_1000_requests: "0.025",
    per_gb: "0.005",
    copy_per_gb_month: "0.025",
    source: "AWS Price List",
  };
  const load = (pool: Pool, ...prices: object[]) =>
    one(pool, "select added, changed from import_prices($1)", [JSON.stringify(prices)]);

  test("one with prices uses its own, from the day on from which they count", async ({ pool }) => {
    const tomorrow = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10);
    await load(
      pool,
      { ...TOKYO, valid_from: "2020-01-01", per_gb: "9" },
      { ...TOKYO, valid_from: "2026-10-01" },
      { ...TOKYO, valid_from: tomorrow, per_gb: "9" },
    );
    const found = await estimate(pool, { ...DEEP, region: "ap-northeast-1" });
    expect(Number(found)).toBeCloseTo(0.000025 + 100 * 0.005 + (100 * 0.025 * 3) / 30, 9); // 0.750025
    expect(
      await one(
        pool,
        "select region, is_foreign from price_of('ap-northeast-1', 'DEEP_ARCHIVE', null, 'Bulk', current_date)",
      ),
    ).toEqual({
      region: "ap-northeast-1",
      is_foreign: false,
    });
  });

  test("one without prices uses those of US East, and says so", async ({ pool }) => {
    expect(await estimate(pool, { ...DEEP, region: "sa-east-1" })).toBe(await estimate(pool, DEEP));
    expect(
      await query(
        pool,
        "select storage_class, tier, price_region from check_tiers('Expedited', 7, 1, 'sa-east-1')",
      ),
    ).toEqual([
      { storage_class: "GLACIER", tier: "Expedited", price_region: "us-east-1" },
      { storage_class: "DEEP_ARCHIVE", tier: "Standard", price_region: "us-east-1" },
      { storage_class: "ARCHIVE_ACCESS", tier: "Expedited", price_region: "us-east-1" },
      { storage_class: "DEEP_ARCHIVE_ACCESS", tier: "Standard", price_region: "us-east-1" },
    ]);
  });

  test("a class without prices, as another store has, costs nothing that we know", async ({ pool }) => {
    expect(await estimate(pool, { ...DEEP, storage_class: "location-dmf-v1" })).toBeNull();
  });
});

test("Postgres writes dollars and sizes as mails, pages and commands do", async ({ pool }) => {
  const amounts = ["0", "0.004", "0.01", "0.125", "1.005", "24.1", "999.995", "1234567.891"];
  const sizes = [
    0, 1, 2, 999, 1000, 1150, 9949, 9950, 12_500, 999_499, 999_500, 1_234_000, 5e12, 1.2e15, 3e18,
  ];
  expect(
    (await query(pool, "select dollar_words(a::numeric) as words from unnest($1::text[]) a", [amounts])).map(
      ({ words }) => words as string,
    ),
  ).toEqual(amounts.map(dollars));
  expect(
    (
      await query(pool, "select size_words(a::numeric) as words from unnest($1::text[]) a", [
        sizes.map(String),
      ])
    ).map(({ words }) => words as string),
  ).toEqual(sizes.map(size));
});
