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

-- What is open, by state: how many (10,000 at most), and since when the oldest is. Each branch reads open restores only.
create or replace view restore_overview as
  select s.restore_status, s.open::integer as open, s.oldest_since
    from (select 'not_started'::restore_status as restore_status,
                 (select count(*) from (select from restores r where r.status = 'not_started' and r.closed_at is null limit 10000) o) as open,
                 (select r.status_at from restores r where r.status = 'not_started' and r.closed_at is null order by r.status_at limit 1) as oldest_since
          union all
          select 'pending', (select count(*) from (select from restores r where r.status = 'pending' and r.closed_at is null limit 10000) o),
                 (select r.status_at from restores r where r.status = 'pending' and r.closed_at is null order by r.status_at limit 1)
          union all
          select 'restored', (select count(*) from (select from restores r where r.status = 'restored' and r.closed_at is null limit 10000) o),
                 (select r.status_at from restores r where r.status = 'restored' and r.closed_at is null order by r.status_at limit 1)
          union all
          select 'failed', (select count(*) from (select from restores r where r.status = 'failed' and r.closed_at is null limit 10000) o),
                 (select r.status_at from restores r where r.status = 'failed' and r.closed_at is null order by r.status_at limit 1)) s;

-- What has waited longest: one row for each thing to wait for, if anything waits for it.
create or replace view oldest_waiting as
  select w.waits_for, w.id, w.since, now() - w.since as waiting
    from ((select 'S3 to accept the restore' as waits_for, r.id, r.status_at as since
             from restores r where r.status = 'not_started' and r.closed_at is null order by r.status_at limit 1)
          union all
          (select 'S3 to restore the object', r.id, r.accepted_at from restores r where r.status = 'pending' order by r.accepted_at limit 1)
          union all
          (select 'the pre mail to be written', u.request_id, u.since from untold_pre u order by u.since limit 1)
          union all
          (select 'the post mail to be written', u.request_id, u.since from untold_post u order by u.since limit 1)
          union all
          (select 'a mail to be sent', n.id, n.created_at from notifications n
            where n.status <> 'sent' and n.status = 'sealed' order by n.created_at limit 1)) w;

-- The entries of both maps, and why an entry is unusable (it was entered before 0006_people.sql refused such); null: it is usable.
create or replace view map_entries as
  select m.access_key_id as id, m.email::text as email, coalesce(access_key_problem(m.access_key_id), address_problem(m.email)) as problem
    from aws_key_user_map m
  union all
  select m.principal, m.email::text, coalesce(principal_problem(m.principal), address_problem(m.email)) from aws_principal_user_map m;

-- Each worker, and whether it is alive: a living one holds its lock.
create or replace view worker_status as
  select w.id, w.started_at,
         exists (select from pg_locks l
                  where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and l.database = (select d.oid from pg_database d where d.datname = current_database())
                    and l.classid::bigint = (worker_lock(w.id) >> 32) & 4294967295 and l.objid::bigint = worker_lock(w.id) & 4294967295) as is_alive
    from workers w;

-- The tasks: what waits, what failed for good, and when each last did its work to the end.
create or replace view job_status as
  select t.task, r.succeeded_at, r.failed_at, coalesce(r.error, '') as error,
         count(j.id) filter (where j.attempts < j.max_attempts and j.run_at <= now()) as waiting,
         count(j.id) filter (where j.attempts >= j.max_attempts) as failed,
         min(j.run_at) filter (where j.attempts < j.max_attempts and j.run_at <= now()) as waiting_since,
         case t.task when 'poll_pending_restores' then interval '1 hour' else interval '5 minutes' end as runs_every
    from unnest(array['resolve_users', 'trigger_restores', 'poll_pending_restores', 'pre_notify', 'post_notify']) t (task)
    left join task_runs r on r.task = t.task
    left join graphile_worker.jobs j on j.task_identifier = t.task
   group by t.task, r.succeeded_at, r.failed_at, r.error;

-- Each step of each restore, also those made by hand, and by whom.
create or replace view restore_steps as
  select h.id, h.restore_id, h.at, h.from_status, h.to_status, h.code, h.by from restore_history h;

-- What operators did.
create or replace view operator_actions as
  select a.id, a.at, a.actor, a.role, a.action, a.target, a.restore_id, a.before, a.after from actions a;

-- What was counted in each hour. le: the upper bound of a histogram's bucket, in seconds; null: a plain count or sum.
create or replace view hourly_totals as
  select t.hour, t.metric, t.labels, t.le, sum(t.n) as n from totals t group by t.hour, t.metric, t.labels, t.le;

-- Whether mail goes out, and if not, since what and until when.
create or replace view mail_gate_status as
  select g.closed_until <= now() as is_open, g.closed_until, g.reason, g.sender, g.calls_per_second, g.next_call_at from mail_gate g;

-- How long no read may have come before that is news: twice the longest gap of the last thirty days, and at least a day.
create or replace view read_silence as
  select r.last_read_at, now() - r.last_read_at as silent_for, greatest(interval '1 day', 2 * coalesce(g.longest, interval '0')) as news_after, g.hours
    from (select max(q.requested_at) as last_read_at from restore_requests q) r
   cross join (
    select max(h.hour - h.before) as longest, count(*) as hours
      from (select t.hour, lag(t.hour) over (order by t.hour) as before
              from (select distinct t.hour from totals t where t.metric = 'reads_opened' and t.hour > now() - interval '30 days') t) h) g;

-- What needs somebody: one row per kind of problem, the worst first (rank). Empty when all is well. `thaw status`, the pages, metrics
-- and alerts all read this.
create or replace view findings as
  select f.rank, f.finding, f.problem, f.since, f.count::integer as count, f.what_to_do
    from (
      select 1 as rank, 'no_worker' as finding, 'No worker is alive: nothing is restored, and no mail goes out.' as problem,
             (select max(t.succeeded_at) from task_runs t) as since, 1::bigint as count, 'Start one: npm run worker' as what_to_do
       where not exists (select from worker_status w where w.is_alive)
      union all
      select 2, 'mail_gate_closed', 'No mail goes out' || coalesce(' from ' || g.sender, '') || ': ' || g.reason, null, 1,
             'It opens at ' || to_char(g.closed_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC. Or now, once the reason is gone: select open_mail_gate()'
        from mail_gate g where g.closed_until > now() + interval '1 minute'
      union all
      select 3, 'stuck', s.problem || '.', min(s.since), count(*), case when count(distinct s.what_to_do) = 1 then min(s.what_to_do) else 'See stuck_requests.' end
        from stuck_requests s group by s.problem
      union all
      select 4, 'task_failing', 'The task ' || j.task || ' fails: ' || j.error, j.failed_at, greatest(j.failed, 1), 'Look at the worker''s log for ' || j.task || '.'
        from job_status j where j.failed > 0 or j.failed_at > coalesce(j.succeeded_at, '-infinity')
      union all
      select 5, 'task_late', 'The task ' || j.task || ' has not done its work since then.', j.succeeded_at, 1, 'Look at the worker''s log for ' || j.task || '.'
        from job_status j
       where j.succeeded_at < now() - 3 * j.runs_every and exists (select from worker_status w where w.is_alive and w.started_at < now() - 3 * j.runs_every)
      union all
      select 6, 'no_reads', 'No read has come for ' || extract(day from s.silent_for) || ' days; usually one comes within ' || round(extract(epoch from s.news_after) / 7200) || ' hours.',
             s.last_read_at, 1, 'Does the trail still log data events? See the queue, its dead-letter queue and the function''s log (lambdas/README.md).'
        from read_silence s where s.hours >= 3 and s.silent_for > s.news_after
      union all
      select 7, 'no_events', 'Restores ended without an event of S3''s: the hourly poll found ' || l.n || ' in a day.', l.since, l.n::bigint,
             'Does EventBridge still get the bucket''s events? See lambdas/README.md.'
        from (select sum(t.n) filter (where t.metric = 'completions_lost') as n, min(t.hour) filter (where t.metric = 'completions_lost') as since,
                     coalesce(sum(t.n) filter (where t.metric = 'events'), 0) as events
                from totals t where t.hour > now() - interval '1 day' and t.metric in ('completions_lost', 'events')) l
       where l.n >= 3 and l.events = 0
      union all
      select 8, 'old_transaction', 'A transaction of ' || coalesce(a.usename, 'somebody') || ' has been open for hours: vacuum cannot clear away what is older.', a.xact_start, 1,
             'End it, or select pg_terminate_backend(' || a.pid || ')'
        from pg_stat_activity a
       where a.datname = current_database() and a.xact_start < now() - interval '1 hour' and (a.backend_xmin is not null or a.backend_xid is not null)) f
   order by f.rank, f.since;
