/** Admission as trigger_restores does it, and what it spent. */
import type { Pool } from "pg";
import { expect } from "vitest";

import { aRead, query, requestRestores, WAITS, type Row } from "./rows.ts";

export const GIB = 2 ** 30;
export const SCANNER = "arn:aws:sts::123456789012:assumed-role/scanner/";

/** HEAD's word about a claimed row, as trigger_restores hands it in. */
export const archived = (claimed: Row, more: Row = {}): Row => ({
  id: claimed["id"],
  claim_id: claimed["claim_id"],
  region: "us-east-1",
  storage_class: "GLACIER",
  archive_status: null,
  size_bytes: GIB,
  etag: '"e"',
  pinned_version_id: "",
  has_expedited: true,
  ...more,
});

export const claim = (pool: Pool, limit = 1000): Promise<Row[]> =>
  query(pool, "select * from claim_restores_to_trigger($1)", [limit]);

export const admit = (pool: Pool, objects: Row[]): Promise<Row[]> =>
  query(pool, "select * from admit_restores($1, 'Standard', 7)", [JSON.stringify(objects)]);

export const settle = (pool: Pool, outcomes: Row[]): Promise<Row[]> =>
  query(pool, "select settle_restores($1, $2::interval[])", [JSON.stringify(outcomes), WAITS]);

/** Reads that many objects, and admits all of them. */
export async function admitReads(
  pool: Pool,
  count: number,
  more: (n: number) => Row = () => ({}),
): Promise<Row[]> {
  await requestRestores(
    pool,
    ...Array.from({ length: count }, (_, n) =>
      aRead({ s3_key: `k${String(n).padStart(4, "0")}`, ...more(n) }),
    ),
  );
  return await admit(
    pool,
    (await claim(pool)).map((row) => archived(row)),
  );
}

export const decisions = (admitted: Row[]): Row =>
  Object.fromEntries(
    Object.entries(Object.groupBy(admitted, (row) => row["decision"] as string)).map(([key, rows]) => [
      key,
      rows?.length,
    ]),
  );

export const limit = (pool: Pool, values: Row): Promise<Row[]> => {
  const row = {
    scope: "all",
    per: "day",
    max_objects: null,
    max_bytes: null,
    max_cost: null,
    s3_bucket: "*",
    key_prefix: "",
    ...values,
  };
  return query(
    pool,
    `insert into limits (scope, per, max_objects, max_bytes, max_cost, s3_bucket, key_prefix) values ($1, $2, $3, $4, $5, $6, $7)
     on conflict (scope, s3_bucket, key_prefix, per) do update set max_objects = excluded.max_objects`,
    [row.scope, row.per, row.max_objects, row.max_bytes, row.max_cost, row.s3_bucket, row.key_prefix],
  );
};

export const policy = (pool: Pool, action: string, more: Row = {}): Promise<Row[]> => {
  const row = { s3_bucket: "*", key_prefix: "", principal: "*", tier: null, days: null, ...more };
  return query(
    pool,
    "insert into policies (s3_bucket, key_prefix, principal, action, tier, days) values ($1, $2, $3, $4, $5, $6)",
    [row.s3_bucket, row.key_prefix, row.principal, action, row.tier, row.days],
  );
};

export const holds = (pool: Pool): Promise<Row[]> =>
  query(pool, "select person, status, objects::integer, bytes::float, reason from holds order by opened_at");

/** What limits have spent, which is the sum of what restores were charged. */
export async function spent(pool: Pool): Promise<Row[]> {
  expect(await query(pool, SPENDING_IS_WRONG)).toEqual([]);
  return query(
    pool,
    "select limit_id, subject, period, objects::integer, bytes::float, round(cost, 9)::float as cost from spending where objects > 0 order by 1, 2, 3",
  );
}

/** S3 has refused it by a 4xx at its first call: nothing was started. */
export const refused = (row: Row): Row => ({
  ...archived(row),
  transition: "note_restore_troubles",
  code: "AccessDenied",
  message: "no",
  gives_back: true,
});

/** S3 has accepted it. */
export const accepted = (row: Row): Row => ({
  ...archived(row),
  transition: "mark_restores_pending",
  tier: "Standard",
  days: 7,
});

/** A worker looks at all that is due, and has it admitted. */
export const admitDue = async (pool: Pool): Promise<Row[]> =>
  admit(
    pool,
    (await claim(pool)).map((row) => archived(row)),
  );

/** That many files in a folder, read by sessions of one scanner, unless told otherwise, and admitted. */
export const readFiles = (pool: Pool, count: number, more: Row = {}): Promise<Row[]> =>
  admitReads(pool, count, (n) => ({
    s3_key: `scans/${String(n).padStart(4, "0")}.tif`,
    access_key_id: "",
    principal: `${SCANNER}session-${n}`,
    ...more,
  }));

/** S3 accepts all that was admitted. */
export const acceptAdmitted = async (pool: Pool): Promise<Row[]> =>
  settle(
    pool,
    (await query(pool, "select * from restores where status = 'not_started' and claim_id is not null")).map(
      (row) => accepted(row),
    ),
  );
/** Where what a limit has spent is not the sum of what restores were charged for it; [] while all is right. */
export const SPENDING_IS_WRONG = `
  select limit_id, subject, period, s.objects as spent, c.objects as charged, s.bytes as bytes_spent, c.bytes as bytes_charged,
         s.cost as cost_spent, c.cost as cost_charged
    from spending s
    full join (select x.limit_id, x.subject, x.period, count(*) as objects, sum(x.bytes) as bytes, sum(x.cost) as cost
                 from charges_of(array(select id from restores)) x group by 1, 2, 3) c using (limit_id, subject, period)
   where (coalesce(s.objects, 0), coalesce(s.bytes, 0), coalesce(s.cost, 0)) <> (coalesce(c.objects, 0), coalesce(c.bytes, 0), coalesce(c.cost, 0))`;

/** What is held and will never be decided about: no open hold, and none that is still to be settled. */
export const HELD_FOR_EVER = `
  select r.id from restores r left join holds h on h.id = r.hold_id
   where r.status = 'not_started' and r.attempt_after = 'infinity' and (h.id is null or (h.status <> 'open' and h.settled_at is not null))`;
