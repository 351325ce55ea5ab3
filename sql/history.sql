-- What happened to each restore (restore_history), and what is counted for good (totals). Both are written by statement-level
-- triggers: one insert for each statement, whatever wrote it, a person in psql included. Only what moves no row is counted where it
-- comes in: reads (request_restores) and events (complete_restores).
--
-- The triggers pin a hash join of old and new rows. A session plans them once, for the few rows of its first statement; a nested loop
-- would later compare each of the 100,000 rows of an update by hand with each.

-- Who does it: the name that a page or a command gives for the transaction, else the database role.
create or replace function actor() returns text language sql stable as $$
  select coalesce(nullif(current_setting('thaw.actor', true), ''), session_user::text)
$$;

-- Upper bounds of the histograms, in seconds: a minute to two days (Bulk from Deep Archive takes that long).
create or replace function time_buckets() returns double precision[] language sql immutable as
  $$ select array[60, 300, 900, 1800, 3600, 7200, 14400, 21600, 43200, 64800, 86400, 129600, 172800, 'infinity']::double precision[] $$;

-- The smallest bound that is not below it. Without a query, so that Postgres puts it into the statement that calls it.
create or replace function bucket_of(p_seconds double precision) returns double precision language sql immutable as $$
  select (time_buckets())[width_bucket(p_seconds, time_buckets()) + case when p_seconds = any (time_buckets()) then 0 else 1 end]
$$;

create or replace function note_opened() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  insert into restore_history (restore_id, to_status, by) select n.id, n.status, actor() from new_rows n;
  if found then
    insert into totals (metric, n) select 'reads_opened', count(*) from new_rows;
  end if;
  return null;
end
$$;

create or replace trigger restores_opened after insert on restores
  referencing new table as new_rows for each statement execute function note_opened();

-- A step is a new status, the end (closed), or new trouble with S3 (the code; the status is the same). Most updates are none: a claim,
-- an answer of S3 that changes nothing, or an update of no row at all, of which each POST makes two.
create or replace function note_moved() returns trigger
language plpgsql security definer set search_path = public, pg_temp set enable_nestloop = off set enable_hashjoin = on as $$
begin
  if not exists (select from new_rows) then return null; end if;
  with moved as materialized (
    select n.id, n.status, n.failure_code, n.storage_class, n.tier, n.size_bytes, o.status as was,
           n.s3_bucket, n.status <> o.status as is_step, n.closed_at is not null and o.closed_at is null as is_end,
           n.status = o.status and n.failure_code is distinct from o.failure_code and n.failure_code is not null as is_trouble,
           o.head_wanted_at is null and o.status = 'pending' as is_unannounced,
           o.restore_expires_at > now() as is_early,
           extract(epoch from now() - n.created_at)::double precision as seconds
      from new_rows n join old_rows o on o.id = n.id
     where n.status <> o.status or n.failure_code is distinct from o.failure_code
        or (n.closed_at is null) <> (o.closed_at is null)),
  noted as (
    insert into restore_history (restore_id, from_status, to_status, code, by)
    select m.id, m.was::text, m.status::text, coalesce(m.failure_code, ''), actor() from moved m where m.is_step or m.is_trouble
    union all
    select m.id, m.status::text, 'closed', coalesce(m.failure_code, ''), actor() from moved m where m.is_end)
  insert into totals (metric, labels, le, n)
  select t.metric, '{}'::jsonb, null::double precision, t.n
    from (select count(*) filter (where m.is_step and m.status = 'pending') as accepted,
                 sum(m.size_bytes) filter (where m.is_step and m.status = 'restored') as bytes,
                 count(*) filter (where m.is_end and m.status = 'restored' and m.is_early) as early
            from moved m) c
   cross join lateral (values ('accepted', c.accepted), ('restored_bytes', c.bytes), ('ended_early', c.early)) t (metric, n)
   where t.n > 0
  union all
  -- By bucket: where all get lost, its notifications may be off (silent_buckets).
  select 'completions_lost', jsonb_build_object('s3_bucket', m.s3_bucket), null, count(*)
    from moved m where m.is_step and m.status = 'restored' and m.is_unannounced group by m.s3_bucket
  union all
  select t.metric, t.labels, t.le, t.n
    from (select m.status, case when m.failure_code = 'observed' then 'observed' else m.status::text end as result, coalesce(m.storage_class, '') as storage_class, coalesce(m.tier, '') as tier,
                 case when m.status = 'restored' then bucket_of(m.seconds) end as le, count(*) as n, sum(m.seconds) as seconds
            from moved m where m.is_step and m.status in ('restored', 'failed')
           group by 1, 2, 3, 4, 5) g
   cross join lateral (values
      (true, 'restores', jsonb_build_object('result', g.result, 'tier', g.tier), null::double precision, g.n::double precision),
      (g.status = 'restored', 'read_to_readable_seconds', jsonb_build_object('storage_class', g.storage_class, 'tier', g.tier), g.le, g.n),
      (g.status = 'restored', 'read_to_readable_seconds_sum', jsonb_build_object('storage_class', g.storage_class, 'tier', g.tier), null, g.seconds)
      ) t (happened, metric, labels, le, n)
   where t.happened;
  return null;
end
$$;

create or replace trigger restores_moved after update on restores
  referencing old table as old_rows new table as new_rows for each statement execute function note_moved();

-- History goes with its restore, whoever deletes it. Recipe: page by key, by index.
create or replace function forget_history() returns trigger
language plpgsql security definer set search_path = public, pg_temp set enable_seqscan = off as $$
begin
  delete from restore_history h where h.restore_id = any (array(select o.id from old_rows o));
  return null;
end
$$;

create or replace trigger restores_deleted after delete on restores
  referencing old table as old_rows for each statement execute function forget_history();

-- What became of mails. Of the first thousand files that a mail tells of: from the oldest one's end to the mail; and how many of
-- them an earlier mail had told the same person, which the primary key of announcements is there to prevent.
create or replace function note_mailed() returns trigger
language plpgsql security definer set search_path = public, pg_temp
  set enable_nestloop = off set enable_hashjoin = on set enable_seqscan = off as $$
begin
  if not exists (select from new_rows) then return null; end if;
  with mailed as materialized (
    -- Of what an operator says was sent, nobody knows when.
    select n.id, n.kind, n.status, case when o.status = 'sealed' then extract(epoch from n.sent_at - f.since)::double precision end as seconds,
           coalesce(f.twice, 0) as twice
      from new_rows n join old_rows o on o.id = n.id
      left join lateral (
        select min(q.since) as since,
               count(*) filter (where exists (select from announcements a
                                               where a.restore_id = q.restore_id and a.kind = 'post' and a.person = lower(n.email)
                                                 and a.notification_id <> n.id)) as twice
          from (select r.restore_id, greatest(r.requested_at, r.status_at) as since from restore_requests r
                 where r.post_notification_id = n.id limit 1000) q) f
        on n.kind = 'post' and n.status = 'sent'
     where n.status <> o.status)
  insert into totals (metric, labels, le, n)
  select t.metric, t.labels, t.le, sum(t.n)
    from mailed m
   cross join lateral (values
      (true, 'mails', jsonb_build_object('kind', m.kind, 'status', m.status), null::double precision, 1::double precision),
      (m.seconds is not null, 'ready_to_mail_seconds', '{}', bucket_of(m.seconds), 1),
      (m.seconds is not null, 'ready_to_mail_seconds_sum', '{}', null, m.seconds),
      (m.twice > 0, 'announced_twice', '{}', null, m.twice)) t (happened, metric, labels, le, n)
   where t.happened
   group by t.metric, t.labels, t.le;
  return null;
end
$$;

create or replace trigger notifications_mailed after update on notifications
  referencing old table as old_rows new table as new_rows for each statement execute function note_mailed();

-- Adds the ledger up: one row for each hour, metric and label; of hours that no chart shows any more, one row for each metric and label
-- (hour -infinity). One at a time; returns how many rows it saved. What others have not committed yet is left to the next time.
-- /metrics relies on it that the sum of all hours before three days ago does not change by this.
create or replace function add_totals_up() returns integer
language plpgsql volatile as $$
declare
  v_saved integer;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('add_totals_up', 0)) then return 0; end if;
  with many as (
    select array_agg(t.id) as ids, s.sum_hour as hour, t.metric, t.labels, t.le, sum(t.n) as n, max(t.last_at) as last_at
      from totals t
     cross join lateral (select case when t.hour < now() - interval '90 days' then '-infinity' else t.hour end as sum_hour) s
     -- Hours between are added up already. Where they are not (no worker ran, a transaction was open for days), they count all the same.
     where t.hour > now() - interval '2 days' or t.hour < now() - interval '90 days'
     group by s.sum_hour, t.metric, t.labels, t.le
    having count(*) > 1),
  gone as (delete from totals t where t.id in (select unnest(m.ids) from many m) returning 1),
  added as (
    insert into totals (hour, metric, labels, le, n, last_at) select m.hour, m.metric, m.labels, m.le, m.n, m.last_at from many m
    returning 1)
  select (select count(*) from gone) - (select count(*) from added) into v_saved;
  return v_saved;
end
$$;

-- A task's run has ended. A success once in ten seconds is enough (many end in each second of a burst), and always the first after a
-- failure.
create or replace function note_task_run(p_task text, p_error text default null) returns void
language sql volatile as $$
  insert into task_runs as t (task, succeeded_at, failed_at, error)
  values (p_task, case when p_error is null then now() end, case when p_error is not null then now() end, coalesce(p_error, ''))
      on conflict (task) do update
     set succeeded_at = coalesce(excluded.succeeded_at, t.succeeded_at), failed_at = coalesce(excluded.failed_at, t.failed_at),
         error = case when excluded.failed_at is null then t.error else excluded.error end
   where excluded.failed_at is not null or t.succeeded_at is null or t.succeeded_at < now() - interval '10 seconds'
      or t.failed_at >= t.succeeded_at
$$;
