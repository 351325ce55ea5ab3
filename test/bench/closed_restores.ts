/** A long past: closed restores with all that is left of each, and the counts of 90 days. */
import type { PoolClient } from "pg";

/** Of each: so many people, buckets, sessions. */
export const PEOPLE = 5_000;
export const BUCKETS = 5;

/** The past of the nth restore is two years long, however many there are. */
const ROW = `n, ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as id,
  ('00000000-0000-4000-9000-' || lpad(to_hex(n / 10), 12, '0'))::uuid as mail,
  ('00000000-0000-4000-a000-' || lpad(to_hex(n / 10), 12, '0'))::uuid as pre_mail, 'bucket-' || n % ${BUCKETS} as bucket,
  'projects/' || n % 1000 || '/film-' || n || '.mov' as key, n % 50 = 0 as has_failed,
  'p' || n / 10 % ${PEOPLE} || '@example.com' as email, 'AKIA' || lpad((n / 10 % ${PEOPLE})::text, 16, '0') as access_key,
  'arn:aws:sts::111122223333:assumed-role/Analyst/p' || n / 10 % ${PEOPLE} as principal,
  now() - interval '10 days' - n * (interval '720 days' / $3::float8) as at`;

const PARTS = [
  `insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, attempt_after, pinned_version_id, storage_class, tier, size_bytes,
                         restore_expires_at, failure_code, failure_message, closed_at, created_at)
   select id, bucket, key, case when has_failed then 'failed' else 'restored' end::restore_status, at + interval '5 hours', at + interval '1 minute',
          at + interval '5 hours', '', 'GLACIER', 'Bulk', 1000000, case when not has_failed then at + interval '7 days' end,
          case when has_failed then 'object_not_found' end, case when has_failed then 'The file is no longer there.' end, at + interval '7 days', at from n`,
  `insert into notifications (id, kind, email, status, body, sent_at, created_at)
   select mail, 'post', email, 'sent', '{"subject":"Your files are ready"}', at + interval '6 hours', at + interval '6 hours' from n where n % 10 = 0`,
  `insert into notifications (id, kind, email, status, body, sent_at, created_at)
   select pre_mail, 'pre', email, 'sent', '{"subject":"Your files are being restored"}', at + interval '15 minutes', at + interval '15 minutes'
     from n where n % 10 = 0`,
  "insert into announcements select id, 'post', email, mail from n",
  `insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, principal, email, user_resolved, resolved_by, restore_status, status_at,
                                 requested_at, last_read_at, pre_notification_id, post_notification_id, pre_notified, post_notified)
   select id, id, bucket, key, access_key, principal, email, true, 'principal', case when has_failed then 'failed' else 'restored' end::restore_status,
          at + interval '5 hours', at, at, pre_mail, mail, true, true from n`,
  `insert into restore_history (restore_id, at, from_status, to_status, by)
   select n.id, n.at + s.after, s.from_status, s.to_status, 'thaw_worker' from n
    cross join (values (interval '0', null, 'not_started'), ('1 minute', 'not_started', 'pending'), ('5 hours', 'pending', 'restored'),
                       ('7 days', 'restored', 'closed')) s (after, from_status, to_status)`,
];

/** Foreign keys are not looked at, and indexes are built when all is in. */
export async function addClosedRestores(client: PoolClient, count: number): Promise<void> {
  await client.query("set session_replication_role = replica; set maintenance_work_mem = '1GB'");
  const { rows: indexes } = await client.query<{ name: string; definition: string }>(
    `select c.relname as name, pg_get_indexdef(i.indexrelid) as definition from pg_index i join pg_class c on c.oid = i.indexrelid
      where i.indrelid::regclass::text in ('restores', 'restore_requests', 'notifications', 'announcements', 'restore_history')
        and not exists (select from pg_constraint o where o.conindid = i.indexrelid)`,
  );
  for (const { name } of indexes) await client.query(`drop index ${name}`);
  const page = 200_000;
  for (let from = 0; from < count; from += page) {
    for (const part of PARTS) {
      await client.query(`with n as (select ${ROW} from generate_series($1::bigint, $2::bigint) n) ${part}`, [
        from,
        Math.min(from + page, count) - 1,
        count,
      ]);
    }
  }
  for (const { definition } of indexes) await client.query(definition);
  await client.query("set session_replication_role = origin");
}

/** As the sweep leaves them: one row for each hour, metric and label. */
export const addCounts = (client: PoolClient): Promise<unknown> =>
  client.query(
    `insert into totals (hour, metric, labels, le, n, last_at)
     select h, m.metric, m.labels, m.le, 40, h + interval '59 minutes'
       from generate_series(date_trunc('hour', now(), 'UTC') - interval '90 days', date_trunc('hour', now(), 'UTC'), interval '1 hour') h
      cross join (
        select metric, '{}'::jsonb as labels, null::float8 as le from unnest(array['reads', 'events', 'reads_opened', 'accepted', 'restored_bytes']) metric
        union all select 'restores', jsonb_build_object('result', result, 'tier', tier), null
          from unnest(array['restored', 'failed']) result, unnest(array['Bulk', 'Standard']) tier
        union all select 'mails', jsonb_build_object('kind', kind, 'status', 'sent'), null from unnest(array['pre', 'post']) kind
        union all select 'read_to_readable_seconds', jsonb_build_object('storage_class', class, 'tier', tier), le
          from unnest(array['GLACIER', 'DEEP_ARCHIVE']) class, unnest(array['Bulk', 'Standard']) tier, unnest(time_buckets()) le
        union all select 'ready_to_mail_seconds', '{}', le from unnest(time_buckets()) le) m`,
  );

/** Restores that wait for an operator, each for one of six reasons, with a reader each. */
export async function addStuck(client: PoolClient, count: number): Promise<void> {
  await client.query("set session_replication_role = replica");
  await client.query(
    `with n as (select n, gen_random_uuid() as id, gen_random_uuid() as mail, now() - interval '3 days' - n * interval '1 second' as at
                  from generate_series(1, $1::int) n),
     m as (insert into notifications (id, kind, email, body, attempt_after, created_at)
           select mail, 'post', 'p' || n % 5000 || '@example.com', '{}', at, at from n where n % 6 = 5),
     r as (insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, attempt_after, failing_since, failure_code, failure_message)
           -- 0 and 1: S3 refuses, and of 1 no worker lives; 2: nobody has asked S3; 3: S3 takes too long; 4: no mail; 5: a mail that waits
           select id, 'bench', 'stuck/' || n, (array['not_started', 'not_started', 'not_started', 'pending', 'restored', 'restored'])[n % 6 + 1]::restore_status,
                  at, case when n % 6 > 2 then at end, case n % 6 when 0 then now() + interval '1 hour' else at end,
                  case when n % 6 < 2 then at end, case when n % 6 < 2 then 'AccessDenied' end, case when n % 6 < 2 then 'S3 refuses.' end from n)
     insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, requested_at,
                                   last_read_at, post_notification_id)
     select id, id, 'bench', 'stuck/' || n, 'AKIA' || n % 5000, 'p' || n % 5000 || '@example.com', true,
            (array['not_started', 'not_started', 'not_started', 'pending', 'restored', 'restored'])[n % 6 + 1]::restore_status, at, at, at,
            case when n % 6 = 5 then mail end from n`,
    [count],
  );
  await client.query("set session_replication_role = origin");
}
