/** Holds, limits and restores that wait for approval, as admit_restores makes them. */
import type { Pool } from "pg";

import { aRead, insertRow, query, requestRestores, type Row } from "./rows.ts";

const GIB = 2 ** 30;

export const SCANNER = "arn:aws:sts::123456789012:assumed-role/scanner";

export const insertLimit = (pool: Pool, more: Row = {}): Promise<Row> =>
  insertRow(pool, "limits", { scope: "person", per: "day", ...more });

export const insertPolicy = (pool: Pool, action: string, more: Row = {}): Promise<Row> =>
  insertRow(pool, "policies", { s3_bucket: "*", action, ...more });

/** What HEAD says of each restore that is due, an archived GiB, is handed to admit_restores. */
export const admitDue = (pool: Pool): Promise<Row[]> =>
  query(
    pool,
    `select a.* from admit_restores(
       (select jsonb_agg(jsonb_build_object('id', c.id, 'claim_id', c.claim_id, 'region', 'us-east-1', 'storage_class', 'GLACIER',
                                            'size_bytes', ${GIB}, 'etag', '"e"', 'pinned_version_id', '', 'has_expedited', true))
          from claim_restores_to_trigger(10000) c), 'Standard', 7) a`,
  );

/** As many files as said, read by one reader, and looked at by a worker. */
export async function readFiles(pool: Pool, count: number, more: Row = {}): Promise<Row[]> {
  await requestRestores(
    pool,
    ...Array.from({ length: count }, (_, n) =>
      aRead({
        s3_key: `scans/${String(n).padStart(4, "0")}.tif`,
        access_key_id: "",
        principal: `${SCANNER}/session-${n}`,
        ...more,
      }),
    ),
  );
  return admitDue(pool);
}

/** S3 accepts all that was admitted. */
export const acceptAdmitted = (pool: Pool): Promise<Row[]> =>
  query(
    pool,
    `select settle_restores(jsonb_agg(jsonb_build_object('id', r.id, 'claim_id', r.claim_id, 'transition', 'mark_restores_pending', 'tier', coalesce(r.tier, 'Standard'),
              'days', 7, 'region', 'us-east-1', 'storage_class', 'GLACIER', 'size_bytes', ${GIB}, 'etag', '"e"', 'pinned_version_id', '')), '{120 seconds,900 seconds}')
       from restores r where r.status = 'not_started' and r.claim_id is not null`,
  );
