-- What /metrics serves of the state of the moment (server/pages/metrics.ts). What is counted for good is in hourly_totals.

-- One row per figure and label. Nothing here is read from end to end: rows are counted up to 10,000, each count by a partial index,
-- and the oldest of something is the first entry of an index. Labels never name a person, a key or a bucket.
create or replace view gauges as
  select 'restores_open' as metric, jsonb_build_object('state', o.restore_status) as labels, o.open::double precision as value from restore_overview o
  union all
  select 'restores_open', '{"state": "held"}', count(*)
    from (select from restores r where r.status = 'not_started' and r.attempt_after = 'infinity' limit 10000) c
  union all
  select 'oldest_waiting_seconds', jsonb_build_object('state', o.state), coalesce(extract(epoch from now() - o.since), 0)
    from (select 'not_started' as state, (select o.oldest_since from restore_overview o where o.restore_status = 'not_started') as since
          union all
          select 'pending', (select r.accepted_at from restores r where r.status = 'pending' order by r.accepted_at limit 1)
          union all
          select 'looked', (select l.created_at from looks l order by l.created_at limit 1)) o
  union all
  select 'requests_untold', jsonb_build_object('kind', c.kind), c.n
    from (select 'pre' as kind, (select count(*) from (select from restore_requests q where is_untold_pre(q) limit 10000) c) as n
          union all
          select 'post', (select count(*) from (select from restore_requests q where is_untold_post(q) limit 10000) c)) c
  union all
  -- The oldest news that is not sent yet, in a mail or not.
  select 'mail_oldest_due_seconds', jsonb_build_object('kind', o.kind),
         coalesce(extract(epoch from now() - least(o.since, (
           select min(c.created_at)
             from (select n.kind, n.created_at from notifications n where n.status = 'sealed' order by n.attempt_after limit 10000) c
            where c.kind = o.kind::notification_kind))), 0)
    from (select 'pre' as kind, (select u.since from untold_pre u order by u.since limit 1) as since
          union all
          select 'post', (select u.since from untold_post u order by u.since limit 1)) o
  union all
  select 'mails', jsonb_build_object('status', s.status),
         (select count(*) from (select from notifications n
                                 where n.status <> 'sent' and n.status = s.status and (n.status = 'sealed' or n.superseded_by is null) limit 10000) c)
    from unnest('{sealed,failed,unknown}'::notification_status[]) s (status)
  union all
  select 'mail_gate_closed', '{}', case when g.is_open then 0 else 1 end from mail_gate_status g
  union all
  select 'mail_gate_closed_seconds', '{}', coalesce(extract(epoch from now() - g.closed_since), 0) from mail_gate_status g
  union all
  select 'workers_alive', '{}', count(*) from worker_status w where w.is_alive
  union all
  select f.metric, jsonb_build_object('task', j.task), f.value
    from job_status j
   cross join lateral (values
      ('task_last_success_timestamp_seconds', coalesce(extract(epoch from j.succeeded_at), 0)),
      ('task_last_failure_timestamp_seconds', coalesce(extract(epoch from j.failed_at), 0)),
      ('task_interval_seconds', extract(epoch from j.runs_every))) f (metric, value)
  union all
  select 'jobs', jsonb_build_object('task', j.task, 'state', f.state), f.n
    from job_status j cross join lateral (values ('waiting', j.waiting), ('failed', j.failed)) f (state, n)
  union all
  select 'findings', jsonb_build_object('finding', f.finding), sum(f.count) from findings f group by f.finding
  union all
  select f.metric, '{}', f.value
    from hold_overview h
   cross join lateral (values
      ('holds_open', h.open), ('hold_oldest_seconds', coalesce(extract(epoch from now() - h.oldest_since), 0)), ('held_objects', h.objects)) f (metric, value)
  union all
  -- Of a limit for each person: of the one who has used most, from the warning on.
  select 'limit_used_ratio', jsonb_build_object('limit', l.id::text, 'scope', l.scope, 'per', l.per), coalesce(greatest(
           (select used_part(l, s) from spending s where s.limit_id = l.id and s.subject = '' and s.period = period_of(l.per, now())),
           (select max(o.part) from (select used_part(l, s) as part from spending s
                                      where s.limit_id = l.id and s.period = period_of(l.per, now()) and s.warned_at is not null limit 10000) o)), 0)
    from (select o.* from limits o order by o.id limit 100) l
  union all
  select 'last_read_timestamp_seconds', '{}', extract(epoch from s.last_read_at) from read_silence s where s.last_read_at is not null
  union all
  select 'oldest_transaction_seconds', '{}', coalesce(max(extract(epoch from now() - o.since)), 0) from old_transactions(interval '0') o;
