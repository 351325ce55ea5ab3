/** SQL of the pages about money: holds, limits, estimates. Bounded as in queries.ts. */
import type { Pool } from "pg";

import { PAGE_ROWS, rows, type ListedRestore, type Rows } from "./queries.ts";
import type { Cursor } from "./urls.ts";

/** Files of a hold whose readers are looked at: nearly always all of them are the one person's. */
const READERS_OF = 1_000;

/** Bars of one limit: the persons who have used most of it. */
const SUBJECTS = 10;

/** Limits that the page shows. */
export const LIMITS = 100;

/** Rows of each top list, and of its CSV file. */
export const TOP = 20;
const CSV_TOP = 10_000;

// Holds.

export type HoldStatus = "open" | "approved" | "refused" | "expired";

export interface Hold {
  id: string;
  person: string;
  status: HoldStatus;
  reason: string;
  objects: number;
  /** Of Postgres's numeric, as text. */
  bytes: string;
  /** In dollars. */
  estimated_cost: string;
  opened_at: Date;
  cursor_at: string;
  last_added_at: Date;
  expires_at: Date;
  decided_at: Date | null;
  decided_by: string | null;
}

const HOLD = `h.id, h.person, h.status, h.reason, h.objects::float8 as objects, h.bytes, h.estimated_cost, h.opened_at, h.opened_at::text as cursor_at,
  h.last_added_at, h.expires_at, h.decided_at, h.decided_by`;

/** Those that wait, the oldest first; or those that are decided, the newest first. One row more than a page. */
export const holds = (pool: Pool, is_decided: boolean, cursor: Cursor | undefined): Rows<Hold> => {
  const [which, direction, beyond] = is_decided ? ["<>", "desc", "<"] : ["=", "asc", ">"];
  return rows(
    pool,
    `select ${HOLD} from hold_list h
      where h.status ${which} 'open' and ($1::timestamptz is null or (h.opened_at, h.id) ${beyond} ($1, $2::uuid))
      order by h.opened_at ${direction}, h.id ${direction} limit ${PAGE_ROWS + 1}`,
    [cursor?.at ?? null, cursor?.id ?? null],
  );
};

export const hold = async (pool: Pool, id: string): Promise<Hold | undefined> =>
  (await rows<Hold>(pool, `select ${HOLD} from hold_list h where h.id = $1`, [id]))[0];

export type HeldFile = Pick<
  ListedRestore,
  | "id"
  | "s3_bucket"
  | "s3_key"
  | "version_id"
  | "restore_status"
  | "closed_at"
  | "is_held"
  | "failure_code"
  | "size_bytes"
  | "storage_class"
  | "tier"
> & { estimated_cost: string | null };

/** By id, from the one after `after` on: however many there are. One row more than a page. */
export const filesOfHold = (pool: Pool, id: string, after: string | undefined): Rows<HeldFile> =>
  rows(
    pool,
    `select r.id, r.s3_bucket, r.s3_key, r.version_id, r.restore_status::text as restore_status, r.closed_at, r.is_held, r.failure_code,
            r.size_bytes, coalesce(r.archive_status, r.storage_class) as storage_class, r.tier, r.estimated_cost
       from restore_details r
      where r.hold_id = $1 and ($2::uuid is null or r.id > $2) order by r.id limit ${PAGE_ROWS + 1}`,
    [id, after ?? null],
  );

export interface HoldReader {
  reader: string;
  email: string | null;
  files: number;
  last_read_at: Date;
}

/** The ten who read most of the first thousand files of a hold. */
export const readersOfHold = (pool: Pool, id: string): Rows<HoldReader> =>
  rows(
    pool,
    `select q.reader, q.email, count(*)::int as files, max(q.last_read_at) as last_read_at
       from (select r.id from restore_details r where r.hold_id = $1 order by r.id limit ${READERS_OF}) f
      cross join lateral (select q.reader, q.email, q.last_read_at from restore_readers q where q.restore_id = f.id limit 100) q
      group by q.reader, q.email order by count(*) desc, q.reader limit 10`,
    [id],
  );

// Limits.

export interface Spending {
  id: string;
  words: string;
  scope: "all" | "person" | "prefix";
  /** Whose part of it, of a limit for each person. */
  person: string;
  objects: number;
  bytes: string;
  estimated_cost: string;
  /** 1: all of it; what was approved is beyond. */
  used: number;
}

/** Each limit in its present period; of a limit for each person, those who have used most. */
export const spending = (pool: Pool): Rows<Spending> =>
  rows(
    pool,
    `select s.limit_id::text as id, s.limit_text as words, s.scope, s.person, s.objects::float8 as objects, s.bytes, s.estimated_cost, s.used::float8 as used
       from (select l.*, row_number() over (partition by l.limit_id order by l.used desc, l.objects desc, l.person) as place from limit_status l) s
      where s.place <= ${SUBJECTS}
      order by s.limit_id, s.place limit ${LIMITS}`,
  );

// Estimates.

/** By whom, in which bucket, under which first folder. */
export const BY = ["person", "bucket", "prefix"] as const;
export type By = (typeof BY)[number];

const SOURCE_OF: Record<By, { view: string; name: string }> = {
  person: { view: "cost_by_person", name: "c.person" },
  bucket: { view: "cost_by_bucket", name: "'s3://' || c.s3_bucket" },
  prefix: { view: "cost_by_prefix", name: "'s3://' || c.s3_bucket || '/' || c.key_prefix" },
};

export interface Cost {
  name: string;
  objects: number;
  bytes: string;
  estimated_cost: string;
  observed_objects: number;
  observed_bytes: string;
  observed_cost: string;
}

const SUMS = [false, true]
  .flatMap((observed) => {
    const of = (column: string) =>
      `coalesce(sum(c.${column}) filter (where ${observed ? "" : "not "}c.observed), 0)`;
    const [objects, bytes, cost] = observed
      ? ["observed_objects", "observed_bytes", "observed_cost"]
      : ["objects", "bytes", "estimated_cost"];
    return [
      `${of("objects")}::float8 as ${objects}`,
      `${of("bytes")} as ${bytes}`,
      `${of("estimated_cost")} as ${cost}`,
    ];
  })
  .join(", ");

/** A month (YYYY-MM, UTC). */
const IN_MONTH = "c.day >= ($1 || '-01')::date and c.day < (($1 || '-01')::date + interval '1 month')::date";

/** The dearest first, restored or not. */
export const costs = (pool: Pool, by: By, month: string, limit = TOP): Rows<Cost> => {
  const { view, name } = SOURCE_OF[by];
  return rows(
    pool,
    `select ${name} as name, ${SUMS} from ${view} c where ${IN_MONTH}
      group by 1 order by sum(c.estimated_cost) desc, sum(c.bytes) desc, 1 limit $2`,
    [month, limit],
  );
};

export const costsForCsv = (pool: Pool, by: By, month: string): Rows<Cost> => costs(pool, by, month, CSV_TOP);

/** All of a month in one row. */
export const costOfMonth = async (pool: Pool, month: string): Promise<Omit<Cost, "name"> | undefined> =>
  (await rows<Omit<Cost, "name">>(pool, `select ${SUMS} from cost_by_class c where ${IN_MONTH}`, [month]))[0];

export interface Ignored {
  s3_bucket: string;
  key_prefix: string;
  principal: string;
  reads: number;
}

/** Reads of that month that a policy ignores, by policy. */
export const ignoredReads = (pool: Pool, month: string): Rows<Ignored> =>
  rows(
    pool,
    `select t.labels ->> 's3_bucket' as s3_bucket, t.labels ->> 'key_prefix' as key_prefix, t.labels ->> 'principal' as principal, sum(t.n) as reads
       from hourly_totals t
      where t.hour >= ($1 || '-01')::timestamp at time zone 'UTC' and t.hour < (($1 || '-01')::timestamp + interval '1 month') at time zone 'UTC'
        and t.metric = 'reads_ignored'
      group by 1, 2, 3 order by reads desc limit ${TOP}`,
    [month],
  );
