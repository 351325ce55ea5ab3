-- Deletes what is old.

-- At most one run deletes at a time: each of two would keep a mail that the other's restores still use.
create or replace function forget_lock() returns bigint language sql immutable as $$ select hashtextextended('forget_old_restores', 0) $$;

-- closed -> deleted: restores that were over p_age ago, a page at a time, with their readers and the mails that tell of nothing
-- else. A restore stays while a reader has still to be told, and twice as long if a mail of it is failed or unknown. Returns how
-- many.
-- Recipe: page by key, row by row, by index, one plan. (Without row by row, all requests that are untold anywhere could be read
-- for each restore.)
create or replace function forget_old_restores(p_age interval, p_limit integer) returns integer
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
  set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_ids uuid[];
  v_mails uuid[];
begin
  if not pg_try_advisory_xact_lock(forget_lock()) then return 0; end if;

  v_ids := array(
    select r.id from restores r
     where r.closed_at <= now() - p_age
       -- A reader who was told under another key of theirs (announcements) is not to be told again.
       and not exists (select from (select o.email, is_untold_post(o) as is_untold from restore_requests o where o.restore_id = r.id offset 0) q
                        where q.is_untold
                          and not exists (select from announcements a where a.restore_id = r.id and a.kind = 'post' and a.person = lower(q.email)))
       and not exists (select from (select * from announcements o where o.restore_id = r.id offset 0) a
                        cross join lateral (select m.status from notifications m where m.id = a.notification_id offset 0) n
                        where n.status = 'sealed' or (n.status <> 'sent' and r.closed_at > now() - 2 * p_age))
     order by r.closed_at limit p_limit for update skip locked);

  with announced as (
    delete from announcements a where a.restore_id = any (v_ids) returning a.notification_id as id),
  asked as (
    delete from restore_requests q where q.restore_id = any (v_ids) returning q.pre_notification_id, q.post_notification_id)
  select array_agg(distinct m.id) into v_mails
    from (select id from announced union all select pre_notification_id from asked union all select post_notification_id from asked) m
   where m.id is not null;
  delete from restores r where r.id = any (v_ids);

  -- Each mail together with the earlier ones that it replaced (superseded_by).
  with recursive over as (
    select m.id from unnest(v_mails) as m (id)
     where not exists (select from announcements a where a.notification_id = m.id offset 0)
       and not exists (select from restore_requests q where q.pre_notification_id = m.id offset 0)
       and not exists (select from restore_requests q where q.post_notification_id = m.id offset 0)
    union
    select n.id from over o cross join lateral (select s.id from notifications s where s.superseded_by = o.id offset 0) n)
  delete from notifications n where n.id = any (array(select o.id from over o));
  return cardinality(v_ids);
end
$$;

-- Jobs that failed for good are kept for a day, for operators to look at, and then deleted, or graphile-worker's table would grow.
-- The work that they nudged was done after a later nudge. Returns how many.
create or replace function forget_failed_jobs() returns integer
language sql volatile as $$
  select count(*)::integer
    from graphile_worker.complete_jobs(array(
      select j.id from graphile_worker.jobs j
       where j.attempts >= j.max_attempts and coalesce(j.locked_at, j.updated_at) < now() - interval '1 day'))
$$;

-- What operators did. (The history of a restore goes with it.) Returns how many it deleted.
create or replace function forget_old_actions(p_age interval) returns integer
language sql volatile as $$
  with gone as (delete from actions a where a.at < now() - p_age returning 1) select count(*)::integer from gone
$$;

-- Holds that were settled p_age ago, with their notices and mails, once the last of their restores is gone; and what of limits was
-- used in periods that ended that long ago, with the warnings. A page of each; returns how many. A notice stays twice as long if a
-- mail of it is failed or unknown. Recipe: page by key, by index.
create or replace function forget_old_holds(p_age interval, p_limit integer) returns integer
language plpgsql volatile set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_holds integer;
  v_periods integer;
begin
  if not pg_try_advisory_xact_lock(forget_lock()) then return 0; end if;
  delete from holds h where h.id = any (array(
    select o.id from holds o
     where o.settled_at < now() - p_age and o.opened_at < now() - p_age
       and not exists (select from restores r where r.hold_id = o.id)
       and not exists (select from notices n where n.hold_id = o.id and keeps_notice(n, p_age))
     order by o.opened_at limit p_limit for update skip locked));
  get diagnostics v_holds = row_count;

  delete from spending s using (
    select o.limit_id, o.subject, o.period from spending o
     where o.period < (now() - p_age)::date - 31 -- the first day of a period of at most 31
       and not exists (select from notices n where n.limit_id = o.limit_id and n.subject = o.subject and n.period = o.period and keeps_notice(n, p_age))
     order by o.period limit p_limit for update skip locked) old
   where s.limit_id = old.limit_id and s.subject = old.subject and s.period = old.period;
  get diagnostics v_periods = row_count;
  return greatest(v_holds, v_periods);
end
$$;

-- Whether a mail of this old notice is not to be deleted yet.
create or replace function keeps_notice(n notices, p_age interval) returns boolean language sql stable as $$
  select exists (select from notifications m
                  where m.notice_id = n.id and (m.status = 'sealed' or (m.status <> 'sent' and m.created_at > now() - 2 * p_age)))
$$;
