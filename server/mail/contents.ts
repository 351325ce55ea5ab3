import { sql } from "kysely";

import type { Database, NewsKind } from "../postgres/rows.ts";
import { FILES_SHOWN, type MailContents, type MailFile } from "./input.ts";

type Summary = Omit<MailContents, "kind" | "files" | "approvers"> & { email: string; request_count: number };

/** Reads the contents of a sealed notification: one entry per object, whichever access keys the person used. */
export async function mailContents(
  trx: Database,
  kind: NewsKind,
  notification_id: string,
  person: string,
  approvers: string[],
): Promise<{ email: string; request_count: number; contents: MailContents }> {
  const attached = kind === "pre" ? sql.ref("q.pre_notification_id") : sql.ref("q.post_notification_id");
  // A copy that expired before this mail, and was read again, has two restores here: the newer one counts.
  const told = sql`
    select distinct on (r.s3_bucket, r.s3_key, r.version_id) r.*
      from restores r where r.id in (select q.restore_id from restore_requests q where ${attached} = ${notification_id})
     order by r.s3_bucket, r.s3_key, r.version_id, r.closed_at desc nulls first, r.created_at desc`;
  const {
    rows: [summary],
  } = await sql<Summary>`
    with told as (${told}),
    waiting as (
      select w.restore_id, w.restore_status from restore_requests w
       where lower(w.email) = ${person} and w.email is not null and w.post_notification_id is null and not w.observed
         and not exists (select from announcements a where a.restore_id = w.restore_id and a.kind = 'post' and a.person = ${person}))
    select min(q.email) as email,
           count(*)::int as request_count,
           (select count(*)::int from told) as file_count,
           (select count(*)::int from told r where r.status = 'restored' and (r.restore_expires_at > now() or r.restore_expires_at is null)) as restored_count,
           (select count(*)::int from told r where r.status = 'failed') as failed_count,
           (select count(*)::int from told r where r.status = 'restored' and r.restore_expires_at <= now()) as expired_count,
           (select count(distinct w.restore_id)::int from waiting w) as waiting_count,
           (select count(distinct w.restore_id)::int from waiting w
             where w.restore_status = 'not_started' and (select exists (select from holds h where h.status = 'open'))
               and exists (select from restores r join holds h on h.id = r.hold_id where r.id = w.restore_id and h.status = 'open' offset 0)) as held_count,
           array_agg(distinct nullif(q.reader, '')) filter (where q.reader <> '') as readers,
           min(q.requested_at) as first_read_at,
           now() as now
      from restore_requests q
     where ${attached} = ${notification_id}`.execute(trx);
  if (summary === undefined) throw new Error(`notification ${notification_id} has no contents`);

  // Some of each outcome: fifty ready files must not push out the failed ones and their reasons.
  const { rows: files } = await sql<MailFile>`
    select f.s3_bucket, f.s3_key, f.version_id, f.restore_status, f.storage_class, f.archive_status, f.tier, f.size_bytes::float8,
           f.accepted_at, h.from_hours, h.to_hours, f.restored_at, f.restore_expires_at, f.failure_code, f.failure_message
      from (select r.*
              from (select r.*, r.status as restore_status,
                           row_number() over (partition by r.status, r.restore_expires_at <= now()
                                              order by r.restore_expires_at nulls last, r.s3_bucket, r.s3_key, r.version_id) as place
                      from (${told}) r) r
             order by place, restore_status
             limit ${FILES_SHOWN}) f
     cross join lateral usual_hours(f.storage_class, f.archive_status, f.tier, f.size_bytes) h`.execute(trx);
  files.sort(
    (a, b) =>
      (a.restore_expires_at?.getTime() ?? Infinity) - (b.restore_expires_at?.getTime() ?? Infinity) ||
      (a.s3_key < b.s3_key ? -1 : 1),
  );

  const { email, request_count, ...counts } = summary;
  return {
    email,
    request_count,
    contents: {
      kind,
      ...counts,
      approvers,
      readers: counts.readers ?? [],
      files,
    },
  };
}
