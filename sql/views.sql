-- Views for people in psql.

-- What an operator should look at, why, and what to do about it. Empty when all is well.
-- Recipe: row by row. Each branch reads an index on the time that it compares, so that it is quick also when it finds nothing.
create or replace view stuck_requests as
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.email::text as email, q.restore_status::text as status, s.since,
         s.problem, coalesce(s.failure_code, '') as failure_code, coalesce(s.failure_message, '') as failure_message, s.what_to_do
    from (select r.id, r.failing_since as since, 'S3 refuses, or cannot be reached' as problem, r.failure_code, r.failure_message,
                 'fix what failure_message says, then: select retry_restore(id)' as what_to_do
            from restores r
           where r.closed_at is null and r.status <> 'failed' and r.failing_since < now() - interval '15 minutes'
          union all
          select r.id, greatest(r.status_at, r.head_wanted_at), 'no worker has asked S3 yet', r.failure_code, r.failure_message,
                 'is a worker running? see graphile_worker.jobs'
            from restores r
           where (r.status = 'not_started' or r.head_wanted_at is not null) and r.failing_since is null and r.closed_at is null
             and r.attempt_after < now() - interval '15 minutes'
             and (r.head_wanted_at is null or r.head_wanted_at < now() - interval '15 minutes')
          union all
          select r.id, r.accepted_at, 'S3 takes longer than it ever should', r.failure_code, r.failure_message,
                 'select retry_restore(id) asks S3; else look at the object in S3'
            from restores r
           where r.status = 'pending' and r.accepted_at < now() - interval '60 hours') s
   cross join lateral (select * from restore_requests o where o.restore_id = s.id offset 0) q
  union all
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.email::text, q.restore_status::text, u.since,
         'the ' || u.kind || ' mail is overdue', '', '', 'is a worker running? is the mail_gate closed?'
    from untold_requests u
   cross join lateral (select * from restore_requests o where o.id = u.request_id offset 0) q
   where u.since < now() - interval '30 minutes'
  union all
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, n.email::text, q.restore_status::text, n.created_at,
         case n.status when 'sealed' then 'a mail is not sent yet' when 'failed' then 'Resend refused a mail'
           else 'nobody knows whether a mail was sent' end,
         coalesce(n.failure_code, ''), coalesce(n.failure_message, (select reason from mail_gate where closed_until > now()), ''),
         case n.status when 'sealed' then 'see mail_gate; it is tried again by itself'
           else format('select resend_notification(%L)', n.id) end
    from notifications n
    join restore_requests q on n.id in (q.pre_notification_id, q.post_notification_id)
   where n.status <> 'sent' and ((n.status = 'sealed' and n.created_at < now() - interval '15 minutes')
      or (n.status in ('failed', 'unknown') and n.superseded_by is null));

-- Who waits for which object, and its state: one row per restore and reader.
create or replace view request_status as
  select q.id, q.s3_bucket, q.s3_key, q.version_id, q.access_key_id, q.principal, q.email::text as email,
         q.restore_status::text as status, q.status_at, q.requested_at, q.read_count, q.last_read_at, q.pre_notified, q.post_notified,
         r.storage_class, r.tier, r.size_bytes, r.accepted_at, q.restored_at, r.restore_expires_at,
         coalesce(r.failure_code, '') as failure_code, coalesce(r.failure_message, '') as failure_message, r.closed_at
    from restore_requests q join restores r on r.id = q.restore_id;

-- The mails, without their bodies.
create or replace view mail_status as
  select n.id, n.kind::text as kind, n.email::text as email, n.status::text as status, n.created_at, n.sent_at, n.attempts, n.attempt_after,
         n.resend_id, coalesce(n.failure_code, '') as failure_code, coalesce(n.failure_message, '') as failure_message, n.superseded_by
    from notifications n;

-- The entries of both maps, and why an entry is unusable (it was entered before 0006_people.sql refused such); null: it is usable.
create or replace view map_entries as
  select m.access_key_id as id, m.email::text as email, coalesce(access_key_problem(m.access_key_id), address_problem(m.email)) as problem
    from aws_key_user_map m
  union all
  select m.principal, m.email::text, coalesce(principal_problem(m.principal), address_problem(m.email)) from aws_principal_user_map m;
