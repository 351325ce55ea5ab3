-- Views for people in psql, for `npm run thaw`, the pages and metrics. What each column means: comments.sql, or \d+ in psql.
--
-- A migration locks all of these views (server/postgres/migrate.ts), and with each whatever relation it names: so a view names our own
-- alone, and asks Postgres's catalogue and graphile-worker's tables through functions. A lock on pg_database would keep everybody out.

-- What an operator should look at, why, and what to do about it: the same text for each row of a problem, so that it also stands
-- for all of them in findings. Empty when all is well.
-- Recipe: row by row. Each branch reads an index on the time that it compares, the oldest first, so that it is quick also when it finds
-- nothing; and of one problem, under the settings of oldest_stuck, a limit ends it at the first rows.
create or replace view stuck_requests as
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.email::text as email, q.restore_status, s.since,
         s.problem, coalesce(s.failure_code, '') as failure_code, coalesce(s.failure_message, '') as failure_message, s.what_to_do,
         null::uuid as mail_id
    from ((select r.id, r.failing_since as since, 'S3 refuses, or cannot be reached' as problem, r.failure_code, r.failure_message,
                  'Fix what S3 says is wrong, then: npm run thaw -- retry ID' as what_to_do
             from restores r
            where r.closed_at is null and r.status <> 'failed' and r.failing_since < now() - interval '15 minutes'
            order by r.failing_since)
          union all
          (select r.id, greatest(r.status_at, r.head_wanted_at), 'no worker has asked S3 yet', r.failure_code, r.failure_message,
                  'Is a worker running, and what does its log say? Start one: npm run worker'
             from restores r
            where r.status = 'not_started' and r.failing_since is null and r.closed_at is null
              and r.attempt_after < now() - interval '15 minutes'
              and (r.head_wanted_at is null or r.head_wanted_at < now() - interval '15 minutes')
            order by r.attempt_after)
          union all
          (select r.id, greatest(r.status_at, r.head_wanted_at), 'no worker has asked S3 yet', r.failure_code, r.failure_message,
                  'Is a worker running, and what does its log say? Start one: npm run worker'
             from restores r
            where r.head_wanted_at < now() - interval '15 minutes' and r.status <> 'not_started' and r.failing_since is null and r.closed_at is null
              and r.attempt_after < now() - interval '15 minutes'
            order by r.attempt_after)
          union all
          (select r.id, r.accepted_at, 'S3 takes longer than it ever should', r.failure_code, r.failure_message,
                  'Ask S3 once more: npm run thaw -- retry ID. If that does not help, look at the file in S3.'
             from restores r
            where r.status = 'pending' and r.accepted_at < now() - interval '60 hours'
            order by r.accepted_at)) s
   cross join lateral (select * from restore_requests o where o.restore_id = s.id offset 0) q
  union all
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.email::text, q.restore_status, u.since,
         u.problem, '', '', 'Is a worker running, and is the mail gate open? npm run thaw -- gate', null
    from ((select o.request_id, o.since, 'the mail "being restored" is overdue' as problem from untold_pre o
            where o.since < now() - interval '30 minutes' order by o.since)
          union all
          (select o.request_id, o.since, 'the mail "ready" or "failed" is overdue' from untold_post o
            where o.since < now() - interval '30 minutes' order by o.since)) u
   cross join lateral (select * from restore_requests o where o.id = u.request_id offset 0) q
  union all
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, n.email::text, q.restore_status, n.created_at,
         n.problem, coalesce(n.failure_code, ''), coalesce(n.failure_message, (select reason from mail_gate where closed_until > now()), ''),
         case n.status when 'sealed' then 'It is tried again by itself. Is the mail gate open? npm run thaw -- gate'
           when 'failed' then 'Clear what Resend says is wrong, then: npm run thaw -- resend MAIL_ID'
           else 'See at resend.com whether it was sent, then: npm run thaw -- resolve MAIL_ID --sent (or --not-sent)' end,
         n.id
    from ((select o.id, o.email, o.status, o.created_at, o.failure_code, o.failure_message, 'a mail is not sent yet' as problem
             from notifications o
            where o.status <> 'sent' and o.status = 'sealed' and o.created_at < now() - interval '15 minutes' order by o.created_at)
          union all
          (select o.id, o.email, o.status, o.created_at, o.failure_code, o.failure_message, 'Resend refused a mail'
             from notifications o
            where o.status <> 'sent' and o.status = 'failed' and o.superseded_by is null and not is_erased(o.email) order by o.created_at)
          union all
          (select o.id, o.email, o.status, o.created_at, o.failure_code, o.failure_message, 'nobody knows whether a mail was sent'
             from notifications o
            where o.status <> 'sent' and o.status = 'unknown' and o.superseded_by is null and not is_erased(o.email) order by o.created_at)) n
   cross join lateral (select * from restore_requests o where o.pre_notification_id = n.id
                       union all
                       select * from restore_requests o where o.post_notification_id = n.id and o.pre_notification_id is distinct from n.id offset 0) q;

-- The problems of stuck_requests.
create or replace function stuck_problems() returns text[] language sql immutable as $$
  select array['S3 refuses, or cannot be reached', 'no worker has asked S3 yet', 'S3 takes longer than it ever should',
               'the mail "being restored" is overdue', 'the mail "ready" or "failed" is overdue', 'a mail is not sent yet', 'Resend refused a mail',
               'nobody knows whether a mail was sent']
$$;

-- The oldest of stuck_requests with one problem, however many there are. Recipe: one plan, by index.
create or replace function oldest_stuck(p_problem text, p_limit integer) returns setof stuck_requests
language plpgsql stable set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  return query select * from stuck_requests q where q.problem = p_problem limit p_limit;
end
$$;

-- Who waits for which object, and its state: one row per restore and reader.
create or replace view request_status as
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.version_id, q.access_key_id, q.principal, q.email::text as email,
         q.restore_status, q.status_at, q.requested_at, q.read_count, q.last_read_at, q.pre_notified, q.post_notified,
         r.storage_class, r.tier, r.size_bytes, r.accepted_at, q.restored_at, r.restore_expires_at,
         coalesce(r.failure_code, '') as failure_code, coalesce(r.failure_message, '') as failure_message, r.closed_at,
         q.pre_notification_id, q.post_notification_id,
         r.status = 'not_started' and r.attempt_after = 'infinity' as waits_for_approval, r.hold_id, r.payer, r.estimated_cost, q.observed,
         q.principal_id, q.on_behalf_of
    from restore_requests q join restores r on r.id = q.restore_id;

-- The subject of a mail. Its cost lets Postgres read the bodies of the rows that a limit leaves, and not those of all that it sorts.
create or replace function mail_subject(p_body text) returns text language plpgsql immutable cost 10000 as $$
begin
  return p_body::json ->> 'subject';
exception when data_exception then
  return null; -- one strange body must not hide all the other mails
end
$$;

-- The mails, without their bodies. requests is counted up to 1,000 of each kind.
create or replace view mail_status as
  select n.id, n.kind::text as kind, n.email::text as email, n.status::text as status, n.created_at, n.sent_at, n.attempts, n.attempt_after,
         n.resend_id, coalesce(n.failure_code, '') as failure_code, coalesce(n.failure_message, '') as failure_message, n.superseded_by,
         mail_subject(n.body) as subject,
         ((select count(*) from (select from restore_requests q where q.pre_notification_id = n.id limit 1000) pre)
           + (select count(*) from (select from restore_requests q where q.post_notification_id = n.id limit 1000) post))::integer as requests
    from notifications n;

-- From read to told, for each request.
create or replace view told_times as
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.email::text as email, q.restore_status, q.requested_at, r.accepted_at, q.restored_at,
         a.sent_at as pre_told_at, b.sent_at as post_told_at
    from restore_requests q
    join restores r on r.id = q.restore_id
    left join notifications a on a.id = q.pre_notification_id
    left join notifications b on b.id = q.post_notification_id;

-- What is open, by state: how many (10,000 at most), and since when the oldest is. Each branch reads open restores only, by an index for
-- that state (not_started and pending are never closed). What waits for approval is in hold_overview instead.
create or replace view restore_overview as
  select s.restore_status, s.open::integer as open, s.oldest_since
    from (select 'not_started'::restore_status as restore_status,
                 (select count(*) from (select from restores r where r.status = 'not_started' and r.attempt_after <> 'infinity' limit 10000) o) as open,
                 (select r.status_at from restores r where r.status = 'not_started' and r.closed_at is null and r.attempt_after <> 'infinity'
                   order by r.status_at limit 1) as oldest_since
          union all
          select 'pending', (select count(*) from (select from restores r where r.status = 'pending' limit 10000) o),
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
             from restores r where r.status = 'not_started' and r.closed_at is null and r.attempt_after <> 'infinity' order by r.status_at limit 1)
          union all
          (select 'S3 to say whether an object that was looked at is archived', l.id, l.created_at from looks l order by l.created_at limit 1)
          union all
          (select 'an operator to approve it', h.id, h.opened_at from holds h where h.status = 'open' order by h.opened_at limit 1)
          union all
          (select 'S3 to restore the object', r.id, r.accepted_at from restores r where r.status = 'pending' order by r.accepted_at limit 1)
          union all
          (select 'the pre mail to be written', u.request_id, u.since from untold_pre u order by u.since limit 1)
          union all
          (select 'the post mail to be written', u.request_id, u.since from untold_post u order by u.since limit 1)
          union all
          (select 'a mail to be sent', n.id, n.created_at from notifications n
            where n.status <> 'sent' and n.status = 'sealed' order by n.created_at limit 1)) w;

-- Looks that S3 is still to be asked about (looks.sql).
create or replace view waiting_looks as
  select l.id, l.s3_bucket, l.s3_key, l.version_id, l.reader, l.created_at as since, l.attempts, l.attempt_after, l.failure_code, l.failure_message
    from looks l;

-- Restores that failed in the last 7 days, and why. What was only observed has not failed.
create or replace view recent_failures as
  select r.id as restore_id, r.s3_bucket, r.s3_key, r.version_id, r.status_at as failed_at, r.failure_code, r.failure_message, r.closed_at
    from restores r where r.status = 'failed' and r.closed_at is null and r.status_at > now() - interval '7 days'
  union all
  select r.id, r.s3_bucket, r.s3_key, r.version_id, r.status_at, r.failure_code, r.failure_message, r.closed_at
    from restores r where r.closed_at > now() - interval '7 days' and r.status = 'failed' and r.status_at > now() - interval '7 days'
     and r.failure_code <> 'observed';

-- The open holds in one row; 10,000 at most are counted.
create or replace view hold_overview as
  select count(*)::integer as open, min(h.opened_at) as oldest_since, coalesce(sum(h.objects), 0)::bigint as objects,
         coalesce(sum(h.bytes), 0) as bytes, coalesce(sum(h.estimated_cost), 0) as estimated_cost
    from (select o.* from holds o where o.status = 'open' order by o.opened_at limit 10000) h;

-- The entries of both maps, and why an entry is unusable (it was entered before 0006_people.sql refused such); null: it is usable.
create or replace view map_entries as
  select m.access_key_id as id, m.email::text as email, coalesce(access_key_problem(m.access_key_id), address_problem(m.email)) as problem
    from aws_key_user_map m
  union all
  select m.principal, m.email::text, coalesce(principal_problem(m.principal), address_problem(m.email)) from aws_principal_user_map m;

-- Each worker, and whether it is alive.
create or replace view worker_status as
  select w.id, w.started_at, is_worker_alive(w.id) as is_alive from workers w;

-- The jobs of a task: those that may start and are not taken, and those that failed for good. A job in its last run has as many
-- attempts as it may have, and has not failed.
create or replace function jobs_of(p_task text)
returns table (waiting bigint, failed bigint, waiting_since timestamptz, failed_at timestamptz, error text) language sql stable as $$
  select count(*) filter (where j.attempts < j.max_attempts and j.run_at <= now()),
         count(*) filter (where j.attempts >= j.max_attempts),
         min(j.run_at) filter (where j.attempts < j.max_attempts and j.run_at <= now()),
         max(j.updated_at) filter (where j.attempts >= j.max_attempts),
         max(j.last_error) filter (where j.attempts >= j.max_attempts)
    from graphile_worker.jobs j where j.task_identifier = p_task and j.locked_at is null
$$;

-- The tasks: what waits, what failed for good, and when each last did its work to the end.
create or replace view job_status as
  select t.task, r.succeeded_at, greatest(r.failed_at, j.failed_at) as failed_at, coalesce(nullif(r.error, ''), j.error, '') as error,
         j.waiting, j.failed, j.waiting_since,
         interval '5 minutes' as runs_every
    from unnest(array['resolve_users', 'trigger_restores', 'poll_pending_restores', 'pre_notify', 'post_notify']) t (task)
    left join task_runs r on r.task = t.task
   cross join lateral jobs_of(t.task) j;

-- Transactions of this database that have been open for p_age and hold back vacuum, and whose they are. It runs with its owner's rights
-- (privileges.sql), so that those who look need no right to see what others run, in this database and all others. (A vacuum of
-- autovacuum's holds back no other.)
create or replace function old_transactions(p_age interval)
returns table (username name, pid integer, since timestamptz) language sql stable as $$
  select a.usename, a.pid, a.xact_start from pg_stat_activity a
   where a.datname = current_database() and a.xact_start < now() - p_age and (a.backend_xmin is not null or a.backend_xid is not null)
     and a.backend_type <> 'autovacuum worker'
$$;

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
  select g.closed_until <= now() as is_open, case when g.closed_until > now() then g.closed_until end as closed_until,
         case when g.closed_until > now() then g.reason else '' end as reason, case when g.closed_until > now() then g.sender end as sender,
         g.calls_per_second, g.next_call_at, case when g.closed_until > now() then g.closed_since end as closed_since
    from mail_gate g;

-- When reads, events, accepted restores and sent mails were counted last. Recipe: in the order of totals_by_hour.
create or replace view last_times as
  select (select t.last_at from totals t where t.metric = 'reads' order by t.hour desc, t.last_at desc limit 1) as read_at,
         (select t.last_at from totals t where t.metric = 'accepted' order by t.hour desc, t.last_at desc limit 1) as accepted_at,
         (select t.last_at from totals t where t.metric = 'events' order by t.hour desc, t.last_at desc limit 1) as event_at,
         (select t.last_at from totals t where t.metric = 'mails' and t.labels @> '{"status": "sent"}'
           order by t.hour desc, t.last_at desc limit 1) as mail_at;

-- How long no read may have come before that is news: twice the longest gap of the thirty days before the last read, and at least a
-- day. (Not of the last thirty days: after a month of silence there would be no gap to compare it with. The hours are kept for 90 days.)
create or replace view read_silence as
  select r.last_read_at, now() - r.last_read_at as silent_for, greatest(interval '1 day', 2 * g.longest_gap) as news_after,
         g.longest_gap, g.hours
    from (select coalesce((select l.read_at from last_times l), (select max(q.requested_at) from restore_requests q)) as last_read_at) r
   cross join lateral (
    select max(h.hour - h.before) as longest_gap, count(*) as hours
      from (select t.hour, lag(t.hour) over (order by t.hour) as before
              from (select distinct t.hour from totals t where t.metric = 'reads' and t.hour > r.last_read_at - interval '30 days') t) h) g;

-- Fewer lost events of a bucket than this may be an accident. An event is late after this time, not lost: the poll may be faster.
create or replace function silence_needs_lost() returns integer language sql immutable as $$ select 3 $$;
create or replace function late_event_grace() returns interval language sql immutable as $$ select interval '15 minutes' $$;

-- Buckets that tell of nothing any more: since the last event of the bucket (within a day) the poll has found some restores readable
-- of which no event had come. One that gets lost among many makes none of these, for the next event ends it. What was
-- found just now may still be told of.
create or replace view silent_buckets as
  select l.s3_bucket, sum(l.n)::bigint as lost, coalesce(min(e.last_at), min(l.hour)) as since, min(e.last_at) as last_event_at
    from (select t.labels ->> 's3_bucket' as s3_bucket, t.n, t.hour, t.last_at from totals t
           where t.hour > now() - interval '1 day' and t.metric = 'completions_lost' and t.labels ? 's3_bucket') l
    left join (select t.labels ->> 's3_bucket' as s3_bucket, max(t.last_at) as last_at from totals t
                where t.hour > now() - interval '1 day' and t.metric = 'events' group by 1) e
      on e.s3_bucket = l.s3_bucket
   where (e.last_at is null or l.last_at > e.last_at + late_event_grace()) and l.last_at <= now() - late_event_grace()
   group by l.s3_bucket
  having sum(l.n) >= silence_needs_lost();

-- What needs somebody: one row per kind of problem, the worst first (rank). Empty when all is well. `thaw status`, the pages, metrics
-- and alerts all read this. A count ends at 1,000: however much is stuck, this stays quick.
create or replace view findings as
  select f.rank, f.finding, f.problem, f.since, f.count::integer as count, f.what_to_do
    from (
      select 1 as rank, 'no_worker' as finding, 'No worker is alive: nothing is restored, and no mail goes out.' as problem,
             (select max(t.succeeded_at) from task_runs t) as since, 1::bigint as count, 'Start one: npm run worker' as what_to_do
       where not exists (select from worker_status w where w.is_alive)
      union all
      select 2, 'mail_gate_closed', 'No mail goes out' || coalesce(' from ' || g.sender, '') || ': ' || g.reason, g.closed_since, 1,
             case when isfinite(g.closed_until) then 'It opens at ' || utc_minute(g.closed_until) || '. Or now, once the reason is gone: '
               else 'Once the reason is gone: ' end || 'npm run thaw -- gate open'
        from mail_gate g
       -- Not for a rate limit that ends in a moment, unless one follows the other.
       where g.closed_until > now() + interval '1 minute' or (g.closed_until > now() and g.closed_since < now() - interval '1 minute')
      union all
      select 3, 'stuck', p.problem || '.', s.since, s.count, s.what_to_do
        from unnest(stuck_problems()) p (problem)
       -- Problem by problem, so that the limit ends each by itself.
       cross join lateral (
         select min(o.since) as since, count(*) as count, min(o.what_to_do) as what_to_do
           from oldest_stuck(p.problem, 1000) o) s
       where s.count > 0
      union all
      select 4, 'task_failing', 'The task ' || j.task || ' fails: ' || j.error, j.failed_at, greatest(j.failed, 1), 'Look at the worker''s log for ' || j.task || '.'
        from job_status j where j.failed_at > coalesce(j.succeeded_at, '-infinity')
      union all
      -- Where no task has ever told of a success, the workers are of a release that did not.
      select 5, 'task_late', 'The task ' || j.task || ' has not done its work since then.', j.succeeded_at, 1, 'Look at the worker''s log for ' || j.task || '.'
        from job_status j
       where coalesce(j.succeeded_at, '-infinity') < now() - 3 * j.runs_every and exists (select from task_runs)
         and exists (select from worker_status w where w.is_alive and w.started_at < now() - 3 * j.runs_every)
      union all
      select 6, 'no_reads', format('No read has come for %s hours; in the 30 days before, the longest gap was %s hours.',
               floor(extract(epoch from s.silent_for) / 3600), ceil(extract(epoch from s.longest_gap) / 3600)),
             s.last_read_at, 1, 'Does the trail still log data events? See the queue, its dead-letter queue and the function''s log (lambdas/README.md).'
        from read_silence s where s.hours >= 3 and s.silent_for > s.news_after
      union all
      select 7, 'no_events', format('Restores of the bucket %s ended, and S3 sent no event of it: people hear late, when the poll asks.', b.s3_bucket),
             b.since, b.lost, 'See what is wrong, and how to turn the events on: npm run doctor'
               -- What a shell would not take for more than a name.
               || case when b.s3_bucket ~ '^[A-Za-z0-9._-]+$' then ' -- ' || b.s3_bucket else '' end
        from (select s.* from silent_buckets s order by s.lost desc, s.s3_bucket limit 20) b
      union all
      select 8, 'old_transaction', format('A transaction of %s has been open for hours: vacuum cannot clear away what is newer.', coalesce(a.username, 'somebody')),
             a.since, a.count, format('End it (process %s), or let a superuser: select pg_terminate_backend(%s)', a.pid, a.pid)
        from (select o.username, o.since, o.pid, count(*) over () as count from old_transactions(interval '1 hour') o order by o.since limit 1) a
      union all
      select 9, 'holds_open', case h.open when 1 then 'A burst of reads waits' else h.open || ' bursts of reads wait' end
               || format(' for approval: %s, estimated at %s.', object_words(h.objects), dollar_words(h.estimated_cost)),
             h.oldest_since, h.open, 'See who reads what, and what it would cost, then approve or refuse: npm run thaw -- hold list'
        from hold_overview h where h.open > 0
      union all
      select 10, 'limit_used', case when u.part >= 1 then 'A limit is used up: ' else format('A limit is used to %s %%: ', floor(100 * u.part)) end
               || limit_words(l) || case when l.scope = 'person' and u.count = 1 then ' (' || u.subject || ')' else '' end || '.',
             u.since, u.count, 'What is beyond it waits for approval until the next ' || l.per || ' begins (UTC). To change it: npm run thaw -- limit set'
        from limits l
       -- Limit by limit, so that 1,000 end each count.
       cross join lateral (
         select max(o.part) as part, min(o.warned_at) as since, count(*) as count, min(o.subject) as subject
           from (select used_part(l, s) as part, s.warned_at, s.subject from spending s
                  where s.limit_id = l.id and s.period = period_of(l.per, now()) and s.warned_at is not null limit 1000) o
          where o.part >= limit_warns_at()) u
       where u.count > 0) f
   order by f.rank, f.since;

-- The state of Thaw in one row.
create or replace view thaw_health as
  select s.last_read_at,
         greatest(l.accepted_at, (select max(r.accepted_at) from restores r where r.status = 'pending')) as last_accepted_at,
         l.event_at as last_event_at, l.mail_at as last_mail_at,
         o.not_started, o.pending, o.restored, o.failed,
         (select min(w.since) from oldest_waiting w where w.waits_for <> 'an operator to approve it') as oldest_waiting_since,
         (select coalesce(sum(t.n), 0)::bigint from totals t
           where t.metric = 'mails' and t.labels @> '{"status": "sent"}' and t.hour >= date_trunc('day', now(), 'UTC')) as mails_today,
         g.is_open as mail_gate_is_open, (select count(*)::integer from worker_status w where w.is_alive) as workers_alive,
         (select h.open from hold_overview h) as holds_open, (select count(*)::integer from silent_buckets) as silent_buckets
    from read_silence s
   cross join last_times l
   cross join mail_gate_status g
   cross join (
     select max(v.open) filter (where v.restore_status = 'not_started') as not_started, max(v.open) filter (where v.restore_status = 'pending') as pending,
            max(v.open) filter (where v.restore_status = 'restored') as restored, max(v.open) filter (where v.restore_status = 'failed') as failed
       from restore_overview v) o;
