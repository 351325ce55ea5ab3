import { sql } from "kysely";

import type { WorkerConfig } from "../config.ts";
import type { Database, NoticeKind } from "../postgres/rows.ts";
import { FILES_SHOWN, type HeldFile, type Hold, type NoticeContents, type WarningContents } from "./input.ts";

/** What a notice says, and to whom; email null: to each of APPROVERS. */
export interface Notice {
  email: string | null;
  contents: NoticeContents;
}

/** An approver decides by the numbers; a few names tell what it is about. */
const APPROVER_FILES_SHOWN = 10;

/** Reads the contents of a notice; null: nothing is left to tell of. */
export async function readNotice(
  trx: Database,
  id: string,
  { APPROVERS, PUBLIC_URL }: Pick<WorkerConfig, "APPROVERS" | "PUBLIC_URL">,
): Promise<Notice | null> {
  const {
    rows: [notice],
  } = await sql<{
    kind: NoticeKind;
    email: string | null;
    hold_id: string;
    now: Date;
  }>`select kind, email, hold_id, now() as now from notices where id = ${id}`.execute(trx);
  if (notice === undefined) return null;
  const { kind, email, hold_id, now } = notice;
  const page = (path: string): string | null =>
    PUBLIC_URL === undefined ? null : new URL(path, PUBLIC_URL).href;
  const read = {
    held: async () => await heldContents(trx, hold_id, email ?? "", APPROVERS, now),
    approval: async () => await approvalContents(trx, hold_id, page(`/ops/holds/${hold_id}`), now),
    warning: async () => await warningContents(trx, id, page("/ops/costs"), now),
  };
  const contents = await read[kind]();
  return contents === null ? null : { email, contents };
}

const HOLD = sql`h.id, h.person, h.reason, h.opened_at, h.opened_at + hold_lasts() as expires_at`;

interface Summary {
  file_count: number;
  bytes: string;
  estimated_cost: string | null;
}

/** This reader's files in the hold, whoever pays for them. Recipe: row by row, from what the person waits for. */
async function heldContents(
  trx: Database,
  hold_id: string,
  email: string,
  approvers: string[],
  now: Date,
): Promise<NoticeContents | null> {
  const waiting = sql`
    select distinct on (r.s3_bucket, r.s3_key, r.version_id)
           r.s3_bucket, r.s3_key, r.version_id, r.size_bytes, r.estimated_cost, q.reader, q.requested_at
      from restore_requests q
     cross join lateral (select * from restores x where x.id = q.restore_id and x.hold_id = ${hold_id} and x.status = 'not_started' offset 0) r
     where lower(q.email) = lower(${email}) and q.email is not null and q.post_notification_id is null and not q.observed
     order by r.s3_bucket, r.s3_key, r.version_id, q.requested_at`;
  const {
    rows: [summary],
  } = await sql<Hold & Summary & { readers: string[] | null; first_read_at: Date }>`
    with waiting as (${waiting})
    select ${HOLD}, w.*
      from holds h
     cross join (select count(*)::int as file_count, coalesce(sum(w.size_bytes), 0)::text as bytes, sum(w.estimated_cost)::text as estimated_cost,
                        array_agg(distinct w.reader) filter (where w.reader <> '') as readers, min(w.requested_at) as first_read_at
                   from waiting w) w
     where h.id = ${hold_id}`.execute(trx);
  if (summary === undefined || summary.file_count === 0) return null;
  const { rows: files } = await sql<HeldFile>`
    select s3_bucket, s3_key, version_id, size_bytes::float8 from (${waiting}) w limit ${FILES_SHOWN}`.execute(
    trx,
  );
  const { file_count, bytes, estimated_cost, readers, first_read_at, ...hold } = summary;
  return {
    kind: "held",
    hold,
    files,
    file_count,
    bytes,
    estimated_cost,
    approvers,
    readers: readers ?? [],
    first_read_at,
    now,
  };
}

/** The whole hold, by its own sums, however much it holds. */
async function approvalContents(
  trx: Database,
  hold_id: string,
  page: string | null,
  now: Date,
): Promise<NoticeContents | null> {
  const {
    rows: [summary],
  } = await sql<Hold & Summary>`
    select ${HOLD}, h.objects::int as file_count, h.bytes::text as bytes, h.estimated_cost::text as estimated_cost
      from holds h where h.id = ${hold_id}`.execute(trx);
  const { rows: files } = await sql<HeldFile & { estimated_cost: string | null }>`
    select r.s3_bucket, r.s3_key, r.version_id, r.size_bytes::float8, r.estimated_cost
      from (select * from restores r where r.hold_id = ${hold_id} and r.status = 'not_started' and r.attempt_after = 'infinity'
             limit ${APPROVER_FILES_SHOWN}) r
     order by r.s3_bucket, r.s3_key, r.version_id`.execute(trx);
  if (summary === undefined || files.length === 0) return null;
  const { file_count, bytes, estimated_cost, ...hold } = summary;
  // A sum of 0 is also what there is where no prices are known.
  const has_prices = Number(estimated_cost) > 0 || files.some((file) => file.estimated_cost !== null);
  return {
    kind: "approval",
    hold,
    files,
    file_count,
    bytes,
    estimated_cost: has_prices ? estimated_cost : null,
    page,
    now,
  };
}

async function warningContents(
  trx: Database,
  id: string,
  page: string | null,
  now: Date,
): Promise<NoticeContents | null> {
  const {
    rows: [row],
  } = await sql<
    Pick<WarningContents, "limit" | "per" | "person" | "resets_at"> & {
      objects: number;
      bytes: string;
      cost: string;
      max_objects: number | null;
      max_bytes: string | null;
      max_cost: string | null;
    }
  >`
    select limit_words(l) as limit, l.per, s.subject as person,
           (s.period + case l.per when 'day' then interval '1 day' else interval '1 month' end) at time zone 'UTC' as resets_at,
           s.objects::float8 as objects, s.bytes::text as bytes, s.cost::text as cost,
           l.max_objects::float8 as max_objects, l.max_bytes::text as max_bytes, l.max_cost::text as max_cost
      from notices n
      join spending s on s.limit_id = n.limit_id and s.subject = n.subject and s.period = n.period
      join limits l on l.id = n.limit_id
     where n.id = ${id}`.execute(trx);
  if (row === undefined) return null;
  const { limit, per, person, resets_at, objects, bytes, cost, max_objects, max_bytes, max_cost } = row;
  return {
    kind: "warning",
    limit,
    per,
    person,
    used: { objects, bytes, cost },
    most: { objects: max_objects, bytes: max_bytes, cost: max_cost },
    resets_at,
    page,
    now,
  };
}
