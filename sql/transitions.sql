-- The state machine, on one page. Every function takes a set, is guarded by the state it leaves, and adds
-- the job it causes in the same transaction. Each statement of a function sees what was committed before
-- it (read committed), which is why locking and looking are separate statements. Restores are locked before
-- their requests, and in the order of their names, so that nobody waits in a circle.
--
--   not_started -> pending                mark_restores_pending      S3 accepted (202), or was at it already (409)
--   not_started, pending -> restored      mark_restores_restored     HEAD says readable; nothing else may say so
--   not_started, pending -> failed        mark_restores_failed       gone, overwritten
--                                         note_restore_troubles      24 hours of trouble
--   pending -> not_started                mark_restores_lost         HEAD says archived; the third time: failed
--   restored, failed -> closed            request_restores           a read newer than its end
--                                         close_finished_restores    the sweep
--                                         mark_restores_expired      HEAD says archived again
--                                         retry_restore              an operator's wish
--   closed -> gone                        forget_old_restores        RETENTION_DAYS
--
-- Events move nothing: complete_restores asks for a HEAD at once (head_wanted_at), and HEAD moves the row.
--
-- Who may call what stands in privileges.sql. This file is applied again whenever its text changes; old and new
-- processes run side by side during a deploy, so a function's arguments and results only ever grow.

-- How plans are pinned. What one step costs must not depend on what else waits, so no plan may hang on what the statistics of
-- the moment say. A statement that takes a page of a large table has two parts:
--   1. an array of ids: a look-up in the order of an index, with a limit, that locks what it takes (skip locked);
--   2. the change, by key: where id = any (that array).
-- A join of the change with its page would be planned without knowing the limit, for a tenth of all that waits: with half of
-- the table waiting it hashes all of it for fifty rows. The function turns off what an index makes needless
-- (enable_seqscan, enable_bitmapscan, enable_sort), and privileges.sql JIT and parallel workers for each function that does:
-- compiling takes longer than the page. test/sql/plans.test.ts holds each one to it, at size.

-- ---------------------------------------------------------------------------------------- constants

-- CloudTrail delivers minutes late: a read this soon after restored_at was made before it.
create or replace function late_read_grace() returns interval language sql immutable as $$ select interval '5 minutes' $$;
-- So many readers of one object are counted for the answer to an event: a millisecond, however many there are.
create or replace function readers_counted() returns integer language sql immutable as $$ select 1000 $$;
-- Errors are tried again this long, and this often (half a night of back-off), then somebody is told: two tries with a day
-- between them on which no worker ran are not enough.
create or replace function give_up_after() returns interval language sql immutable as $$ select interval '24 hours' $$;
create or replace function give_up_tries() returns integer language sql immutable as $$ select 10 $$;
-- A failed restore answers further reads this long; the next read after that tries again.
create or replace function failed_stays_open() returns interval language sql immutable as $$ select interval '24 hours' $$;
-- Right after S3 accepts, HEAD may not show it yet; only later does "archived" mean lost.
create or replace function lost_grace() returns interval language sql immutable as $$ select interval '15 minutes' $$;
-- Lost three times is no accident.
create or replace function lost_limit() returns integer language sql immutable as $$ select 3 $$;
-- A restore without expiry waits this long for readers whose address nobody knows.
create or replace function unknown_reader_wait() returns interval language sql immutable as $$ select interval '7 days' $$;
-- So many requests are attached to a mail, marked as told or detached in one transaction. Whoever reads one of them meanwhile
-- waits for it: about a twentieth of a second here, and well below lock_timeout of request_restores where Postgres is slower.
create or replace function mail_page() returns integer language sql immutable as $$ select 500 $$;
-- What a mail says has grown old by then, if Resend has certainly not taken it.
create or replace function mail_stays_fresh() returns interval language sql immutable as $$ select interval '10 minutes' $$;
-- Nobody takes a turn to call Resend that is further ahead than a second; a new pace may stretch that.
create or replace function mail_turn_horizon() returns interval language sql immutable as $$ select interval '5 seconds' $$;
-- Resend remembers an idempotency key for 24 hours; an hour in hand, also for a clock that is set back meanwhile.
create or replace function resend_remembers() returns interval language sql immutable as $$ select interval '23 hours' $$;

-- Between two calls of Resend: 3 percent slower than it allows, for some calls are quicker on their way than others, and
-- one too many in a second stops all mail for a second.
create or replace function call_interval(p_calls_per_second double precision) returns interval language sql immutable as
  $$ select interval '1 second' / (0.97 * p_calls_per_second) $$;

-- Right after a start of Postgres all workers look dead: their connections are only coming back.
create or replace function reconnect_grace() returns interval language sql immutable as $$ select interval '20 seconds' $$;

-- Lease, back-off and grace in one: 1 minute (longer than all calls for one row may take) ... 1 hour.
create or replace function retry_delay(p_attempts integer) returns interval language sql immutable as $$
  select least(interval '1 hour', interval '1 minute' * power(2, least(p_attempts, 10) - 1))
$$;

-- S3 asks to slow down: that is no trouble of the row's, and over soon. 2 seconds ... 1 hour.
create or replace function busy_delay(p_attempts integer) returns interval language sql immutable as $$
  select least(interval '1 hour', interval '2 seconds' * power(2, least(p_attempts, 12) - 1))
$$;

-- How long a claim holds. That S3 was busy before does not make its calls longer.
create or replace function lease(r restores) returns interval language sql immutable as $$
  select retry_delay(case r.failure_code when 'SlowDown' then 1 else r.attempts + 1 end)
$$;

-- S3 still restores it although an event said that it is done: asked again once the event is twice as old, so after 1 minute
-- ... 1 hour. A false event of a restore that takes ten hours costs 17 calls, and none of S3's own is forgotten.
create or replace function ask_again_delay(p_head_wanted_at timestamptz) returns interval language sql stable as $$
  select retry_delay(1 + floor(log(2, greatest(1, extract(epoch from now() - p_head_wanted_at) / 60)::numeric))::integer)
$$;

-- Whether an event came after S3 was asked: what S3 said is no answer to that event.
create or replace function was_asked_too_early(r restores) returns boolean language sql immutable as $$
  select coalesce(r.head_wanted_at > r.claimed_at, false)
$$;

-- Whether S3's trouble with it has lasted long enough to give up.
create or replace function is_hopeless(r restores) returns boolean language sql stable as $$
  select r.failing_since <= now() - give_up_after() and r.attempts >= give_up_tries()
$$;

-- When a restore is over: a read event newer than this needs a new one. Null while S3 has not answered.
create or replace function over_at(r restores) returns timestamptz language sql stable as $$
  select case
    when r.status = 'failed' then r.status_at + failed_stays_open()
    when r.status = 'restored' then coalesce(r.restore_expires_at, r.status_at + late_read_grace())
  end
$$;

-- A nudge is a hint without payload: the tables say what is due, and the crontab finds what no nudge told.
-- So it is not worth many attempts.
--
-- Few jobs wait, however many commits nudge: none is added where a job of that task stands that is not much later than wanted
-- and cannot start before our commit. It cannot because we lock it: whoever gets a job locks it for update and skips what is
-- locked, and a job that was got meanwhile is no longer available when we have the lock. The lock is shared (key share): any
-- number of commits can rely on the same job.
--   At once: the newest of those that may start, if an older one waits, too. Workers get the oldest first, so a stream of
--   commits never keeps the last one from them.
--   Later: one within an eighth of the wait. The first of a stream stands at the moment wanted, each further one at the end
--   of the next eighth.
-- Commits at the same moment do not see each other's jobs and add one each. A job_key would not do instead: each commit would
-- wait for the last one's to replace the job, and add_job loses requests then (graphile/worker#580).
create or replace function nudge(p_task text, p_waits interval[] default array[interval '0']) returns void
-- By graphile-worker's index and in its order, whatever the statistics say of a table that fills and empties all the time.
language plpgsql volatile set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  v_task integer := (select t.id from graphile_worker._private_tasks t where t.identifier = p_task);
  v_wait interval;
  v_run_at timestamptz;
  v_spare bigint;
begin
  for v_wait in select unnest(p_waits) loop
    v_run_at := now() + v_wait;
    if v_wait <= interval '0' then
      perform from graphile_worker._private_jobs j
       where j.task_id = v_task and j.is_available and j.priority = 0 and j.run_at <= clock_timestamp() and j.key is null
         and j.id <> first_job(v_task)
       order by j.run_at desc limit 1 for key share skip locked;
      continue when found;
    else
      perform from graphile_worker._private_jobs j
       where j.task_id = v_task and j.is_available and j.priority = 0 and j.run_at between v_run_at and v_run_at + v_wait / 8 and j.key is null
       order by j.run_at limit 1 for key share skip locked;
      continue when found;
      if exists (select from graphile_worker._private_jobs j
                  where j.task_id = v_task and j.is_available and j.priority = 0 and j.run_at between v_run_at - v_wait / 8 and v_run_at) then
        v_run_at := v_run_at + v_wait / 8;
      end if;
      -- No worker comes, for each looks every two seconds: what stands already is put off, or one more would stand with each
      -- eighth. Whoever relied on it has committed, for we have its lock, and the oldest still stands: that starts after their
      -- commit as well.
      select j.id into v_spare from graphile_worker._private_jobs j
       where j.task_id = v_task and j.is_available and j.priority = 0 and j.run_at <= clock_timestamp() - interval '10 seconds' and j.key is null
         and j.id <> first_job(v_task)
       order by j.run_at desc limit 1 for update skip locked;
      if found and v_spare <> first_job(v_task) then
        perform graphile_worker.reschedule_jobs(array[v_spare], run_at := v_run_at);
        continue;
      end if;
    end if;
    perform graphile_worker.add_job(p_task, run_at := v_run_at, max_attempts := 3);
  end loop;
end
$$;

-- The job of a task that a worker would get first; null: none may start.
create or replace function first_job(p_task integer) returns bigint language sql volatile as $$
  select j.id from graphile_worker._private_jobs j
   where j.task_id = p_task and j.is_available and j.priority = 0 and j.run_at <= clock_timestamp() and j.key is null
   order by j.run_at, j.id limit 1
$$;

create or replace function lock_restores(p_ids uuid[]) returns void
language plpgsql volatile as $$
begin
  perform from restores r where r.id = any (p_ids) order by r.s3_bucket, r.s3_key, r.version_id, r.id for update;
end
$$;

-- ---------------------------------------------------------------------------------------- events come in

-- Failed reads. p_requests: [{id, s3_bucket, s3_key, version_id?, access_key_id?, principal?, account_id?,
-- source_identity?, region?, event_id?, event_time?}], ids made by the caller. p_notify_waits: after how long a mail may be
-- due (the quiet window, the longest wait). Answers each id with its row; duplicate: an earlier read made it.
-- Raises serialization_failure when a restore closes under its hands: call again; lock_not_available when somebody keeps a
-- row of one of them locked: locked_reads tells which.
create or replace function request_restores(p_requests jsonb, p_notify_waits interval[], p_session_domains text[] default '{}')
returns table (read_id uuid, request_id uuid, duplicate boolean)
-- Read by read, by index, whatever the statistics say (hence lateral and offset 0, too): planned for the tables of the moment, a
-- batch of 64 took 5 ms or 170; a plan made while they were empty goes through all of them when they are not any more; and
-- planning anew each time is half the work.
-- Thaw itself locks nothing for longer than 200 ms: whoever waits longer waits for an operator, or for something that hangs, and
-- must not keep everybody else's reads with him (they have 1.9 seconds).
language plpgsql volatile set lock_timeout = '300ms' set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_reads object_read[];
  v_opened boolean;
  v_closed uuid[];
  v_new_statuses restore_status[];
  v_unresolved boolean;
  v_answered integer;
begin
  -- One entry per object and reader, in key order so that two servers lock in the same order.
  -- An event from the future would stay "newer" for ever: it counts as of now.
  select array_agg((g.id, g.s3_bucket, g.s3_key, g.version_id, g.access_key_id, g.principal, g.account_id,
                    g.source_identity, g.reader, g.region, g.event_id, g.event_time, g.read_count)::object_read
                   order by g.s3_bucket, g.s3_key, g.version_id, g.reader)
    into v_reads
    from (select (array_agg(p.id order by p.ord))[1] as id, p.s3_bucket, p.s3_key, p.version_id, max(p.access_key_id) as access_key_id,
                 max(p.principal) as principal, max(p.account_id) as account_id,
                 max(p.source_identity) as source_identity, p.reader, max(p.region) as region,
                 (array_agg(p.event_id order by p.event_time desc, p.event_id))[1] as event_id, max(p.event_time) as event_time,
                 count(distinct coalesce(p.event_id, p.id::text))::integer as read_count
            from parse_reads(p_requests) p
           group by p.s3_bucket, p.s3_key, p.version_id, p.reader) g;

  -- restored, failed -> closed: over before this read was made (the copy expired, or the failure is old).
  -- The lock (as wherever something closes) is one that the lock of a reader's insert below waits for.
  update restores r set closed_at = over_at(r), head_wanted_at = null, claim_id = null
   where r.id = any (array(
    select o.id from (select s3_bucket, s3_key, version_id, max(event_time) as event_time from unnest(v_reads) group by 1, 2, 3 order by 1, 2, 3) i
     cross join lateral (select o.id from restores o
                          where o.s3_bucket = i.s3_bucket and o.s3_key = i.s3_key and o.version_id = i.version_id
                            and o.closed_at is null and o.head_wanted_at is null and i.event_time > over_at(o) for update) o));

  -- -> not_started: the first read of an object without an open restore. A late delivery starts nothing.
  -- It bears the id of the read that opened it, so that the log lines of both can be told to belong together.
  with opened as (
    insert into restores (id, s3_bucket, s3_key, version_id, region)
    select (array_agg(i.id order by i.reader))[1], i.s3_bucket, i.s3_key, i.version_id, max(i.region)
      from unnest(v_reads) i
     where not exists (select from restores r where r.s3_bucket = i.s3_bucket and r.s3_key = i.s3_key
                          and r.version_id = i.version_id and r.closed_at is null offset 0)
       and not is_late(i)
     group by i.s3_bucket, i.s3_key, i.version_id
     order by i.s3_bucket, i.s3_key, i.version_id
        on conflict (s3_bucket, s3_key, version_id) where closed_at is null do nothing
    returning s3_bucket, s3_key, version_id)
  select count(*) > 0, array_agg(l.id) filter (where l.id is not null) into v_opened, v_closed
    from opened o
    left join lateral (select r.id from restores r
                        where r.s3_bucket = o.s3_bucket and r.s3_key = o.s3_key and r.version_id = o.version_id and r.closed_at is not null
                        order by r.closed_at desc limit 1) l on true;

  -- Whoever still waits to hear of the last one, closed by this read or by the sweep, waits for the new one.
  if v_closed is not null then
    perform move_untold_requests(v_closed);
  end if;

  -- The reader's own row; a repeat is only counted. The lock keeps the status from moving between our
  -- look at it and our insert.
  with attached as (
    insert into restore_requests as q (id, restore_id, s3_bucket, s3_key, version_id, access_key_id, principal, account_id, source_identity,
                                       email, user_resolved, resolved_by, restore_status, status_at, read_count, last_read_at, last_event_id)
    select i.id, r.id, i.s3_bucket, i.s3_key, i.version_id, i.access_key_id, i.principal, i.account_id, i.source_identity,
           p.email, p.email is not null, p.resolved_by, r.status, r.status_at, i.read_count, i.event_time, i.event_id
      from unnest(v_reads) i
     cross join lateral (select o.id, o.status, o.status_at from restores o
                          where o.s3_bucket = i.s3_bucket and o.s3_key = i.s3_key and o.version_id = i.version_id
                            and o.closed_at is null for key share) r
      left join lateral find_person(i.access_key_id, i.principal, i.source_identity, p_session_domains) p on true
     where not is_late(i)
        on conflict (restore_id, reader) do update
           set read_count = q.read_count + excluded.read_count,
               last_read_at = greatest(q.last_read_at, excluded.last_read_at),
               last_event_id = excluded.last_event_id
         where q.id <> excluded.id and (q.last_event_id is distinct from excluded.last_event_id or excluded.last_event_id is null)
    returning q.restore_status, q.user_resolved, q.xmax = 0 as is_new)
  select array_agg(distinct a.restore_status) filter (where a.is_new), bool_or(a.is_new and not a.user_resolved)
    into v_new_statuses, v_unresolved
    from attached a;

  if v_opened or 'not_started' = any (v_new_statuses) then perform nudge('trigger_restores'); end if;
  if 'pending' = any (v_new_statuses) then perform nudge('pre_notify', p_notify_waits); end if;
  if v_new_statuses && array['restored', 'failed']::restore_status[] then perform nudge('post_notify', p_notify_waits); end if;
  if v_unresolved then perform nudge('resolve_users'); end if;

  -- A read failed although we believe the object readable: S3 must say, and nobody is told "ready" before.
  -- (restored_at, for an index that has the status would do as well as the object's where the statistics know of no row.)
  update restores r set head_wanted_at = now()
   where r.id = any (array(
    select o.id from (select s3_bucket, s3_key, version_id, max(event_time) as event_time from unnest(v_reads) group by 1, 2, 3 order by 1, 2, 3) i
     cross join lateral (select o.id from restores o
                          where o.s3_bucket = i.s3_bucket and o.s3_key = i.s3_key and o.version_id = i.version_id
                            and o.closed_at is null and o.restored_at is not null and o.head_wanted_at is null
                            and i.event_time > greatest(o.status_at + late_read_grace(), o.last_checked_at) for no key update) o));
  if found then perform nudge('poll_pending_restores'); end if;

  return query
    select p.id, q.id, q.id <> p.id
      from parse_reads(p_requests) p
     cross join lateral (
       select coalesce(
         (select rq.id from restore_requests rq
           where rq.restore_id = (select r.id from restores r where r.s3_bucket = p.s3_bucket and r.s3_key = p.s3_key
                                     and r.version_id = p.version_id and r.closed_at is null)
             and rq.reader = p.reader),
         (select rq.id
            from (select r.id from restores r where r.s3_bucket = p.s3_bucket and r.s3_key = p.s3_key
                     and r.version_id = p.version_id and r.closed_at is not null order by r.closed_at desc offset 0) r
           cross join lateral (select o.id from restore_requests o where o.restore_id = r.id and o.reader = p.reader offset 0) rq
           limit 1)) as id
       offset 0) q
     where q.id is not null
     order by p.ord;
  get diagnostics v_answered = row_count;
  -- Closed between our look for an open restore and our insert: those reads belong to no restore yet.
  if v_answered < jsonb_array_length(p_requests) then
    raise exception 'a restore closed while it was being read' using errcode = 'serialization_failure', hint = 'Call again.';
  end if;
end
$$;

create or replace function parse_reads(p_requests jsonb)
returns table (ord bigint, id uuid, s3_bucket text, s3_key text, version_id text, access_key_id text, principal text,
               account_id text, source_identity text, reader text, region text, event_id text, event_time timestamptz)
language sql stable as $$
  select p.ord, p.id, p.s3_bucket, p.s3_key, coalesce(p.version_id, ''), coalesce(p.access_key_id, ''), coalesce(p.principal, ''),
         coalesce(p.account_id, ''), coalesce(p.source_identity, ''), case when coalesce(p.access_key_id, '') <> '' then p.access_key_id else coalesce(p.principal, '') end,
         p.region, p.event_id, least(coalesce(p.event_time, now()), now())
    from rows from (jsonb_to_recordset(p_requests) as (id uuid, s3_bucket text, s3_key text, version_id text, access_key_id text,
                    principal text, account_id text, source_identity text, region text, event_id text, event_time timestamptz))
         with ordinality as p (id, s3_bucket, s3_key, version_id, access_key_id, principal, account_id, source_identity, region, event_id, event_time, ord)
$$;

-- Whether this very reader already had a restore of this object that ended after the read was made: then the
-- event comes from a replayed or delayed queue, and a paid restore must not start by it.
create or replace function is_late(i object_read) returns boolean language sql stable as $$
  select exists (select from restores r
                  where r.s3_bucket = i.s3_bucket and r.s3_key = i.s3_key and r.version_id = i.version_id
                    and r.closed_at >= i.event_time
                    and exists (select from restore_requests q where q.restore_id = r.id and q.reader = i.reader offset 0)
                 offset 0)
$$;

-- Which of these reads ([{id, s3_bucket, s3_key, access_key_id?, principal?}]) meet a row that somebody keeps locked: the
-- object's open restore (any version's), or its reader's own row. A look that waits for nobody.
create or replace function locked_reads(p_reads jsonb) returns setof uuid
language plpgsql volatile set lock_timeout = '300ms' set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_read record;
begin
  for v_read in
    select i.id, i.s3_bucket, i.s3_key,
           case when coalesce(i.access_key_id, '') <> '' then i.access_key_id else coalesce(i.principal, '') end as reader
      from jsonb_to_recordset(p_reads) as i (id uuid, s3_bucket text, s3_key text, access_key_id text, principal text)
  loop
    if (select count(*) from restores r where r.s3_bucket = v_read.s3_bucket and r.s3_key = v_read.s3_key and r.closed_at is null)
         > (select count(*) from (select from restores r where r.s3_bucket = v_read.s3_bucket and r.s3_key = v_read.s3_key
                                     and r.closed_at is null for update skip locked) f)
       or (select count(*) from restores r join restore_requests q on q.restore_id = r.id and q.reader = v_read.reader
            where r.s3_bucket = v_read.s3_bucket and r.s3_key = v_read.s3_key and r.closed_at is null)
         > (select count(*) from (select from restores r join restore_requests q on q.restore_id = r.id and q.reader = v_read.reader
                                   where r.s3_bucket = v_read.s3_bucket and r.s3_key = v_read.s3_key and r.closed_at is null
                                     for no key update of q skip locked) f)
    then
      return next v_read.id;
    end if;
  end loop;
end
$$;

-- S3's Completed events. p_events: [{id, s3_bucket, s3_key, version_id?}]. They come late, twice, out of order, and from whoever
-- has the secret, so they move nothing: each asks for a HEAD at once of every open restore that it can mean, and HEAD moves
-- the row. Answers how many requests wait for those restores. An event gets no answer, and has to come again, when somebody
-- keeps a row of it locked for longer than a worker takes to note what S3 said.
create or replace function complete_restores(p_events jsonb, p_notify_waits interval[]) -- p_notify_waits: of older servers
returns table (event_id uuid, updated integer)
-- Event by event, by index, for the reasons that request_restores has.
language plpgsql volatile set lock_timeout = '300ms' set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_meant uuid[];
  v_reached uuid[];
  v_statuses restore_status[];
begin
  v_meant := array(select distinct r.id from parse_completions(p_events) e cross join lateral meant_by(e.s3_bucket, e.s3_key, e.version_id) r);

  begin
    v_statuses := want_head(array(
      select r.id from restores r where r.id = any (v_meant)
       order by r.s3_bucket, r.s3_key, r.version_id, r.id for no key update));
    v_reached := v_meant;
  exception when lock_not_available then
    -- The others need not wait any longer.
    v_reached := array(
      select r.id from restores r where r.id = any (v_meant)
       order by r.s3_bucket, r.s3_key, r.version_id, r.id for no key update skip locked);
    v_statuses := want_head(v_reached);
  end;

  -- Also where S3 was to be asked before: a claim may have passed by (skip locked) while we held the rows.
  if 'not_started' = any (v_statuses) then perform nudge('trigger_restores'); end if;
  if 'pending' = any (v_statuses) then perform nudge('poll_pending_restores'); end if;

  return query
    select e.id, coalesce(sum(w.readers), 0)::integer
      from parse_completions(p_events) e
      left join lateral meant_by(e.s3_bucket, e.s3_key, e.version_id) r on true
      left join lateral (select count(*) as readers
                           from (select from restore_requests q where q.restore_id = r.id limit readers_counted()) c) w on true
     group by e.id
    having count(r.id) = count(r.id) filter (where r.id = any (v_reached));
end
$$;

-- The open restores that S3's event can mean: an event without a version any of that key, and a read without one any version.
create or replace function meant_by(p_s3_bucket text, p_s3_key text, p_version_id text) returns setof restores
language sql stable as $$
  select r.* from restores r
   where r.s3_bucket = p_s3_bucket and r.s3_key = p_s3_key and r.closed_at is null
     and (p_version_id = '' or r.version_id in ('', p_version_id)) and r.status in ('not_started', 'pending')
  offset 0 -- event by event: else all that is open is joined with the events where the statistics know of no row
$$;

-- Has S3 asked at once, or as soon as a claim under way has ended, or S3 takes calls again. For rows that the caller has
-- locked; answers which statuses they have.
create or replace function want_head(p_ids uuid[]) returns restore_status[]
language sql volatile as $$
  with wanted as (
    update restores r
       set head_wanted_at = now(),
           attempt_after = case when r.claim_id is not null or r.failure_code = 'SlowDown' then r.attempt_after
                                else least(r.attempt_after, now()) end
     where r.id = any (p_ids) and r.closed_at is null and r.status in ('not_started', 'pending')
    returning r.status)
  select array_agg(distinct w.status) from wanted w
$$;

create or replace function parse_completions(p_events jsonb)
returns table (id uuid, s3_bucket text, s3_key text, version_id text, restore_expires_at timestamptz, event_time timestamptz)
language sql stable as $$
  select p.id, p.s3_bucket, p.s3_key, coalesce(p.version_id, ''), p.restore_expires_at, p.event_time
    from jsonb_to_recordset(p_events) as p (id uuid, s3_bucket text, s3_key text, version_id text,
                                            restore_expires_at timestamptz, event_time timestamptz)
$$;

-- ---------------------------------------------------------------------------------------- who reads

-- The text as an address, when it is one and its domain is among p_domains; else null.
create or replace function address_within(p_text text, p_domains text[]) returns email_address
language sql immutable as $$
  select case when lower(split_part(p_text, '@', 2)) = any (p_domains) and address_problem(p_text) is null then p_text::email_address end
$$;

-- Whose read it is, and by which rule; no row: nobody's whom we could write to. p_session_domains: whose session
-- names are trusted to be addresses (whoever may assume a role may choose the name); empty: none.
create or replace function find_person(p_access_key_id text, p_principal text, p_source_identity text, p_session_domains text[])
returns table (email email_address, resolved_by resolution_rule)
language sql stable rows 1 as $$
  select f.email, f.resolved_by
    from (select m.email, 'access_key'::resolution_rule as resolved_by, 0 as prefix_length
            from aws_key_user_map m where m.access_key_id = p_access_key_id
          union all
          select m.email, 'principal', 0 from aws_principal_user_map m where m.principal = p_principal
          union all
          -- All prefixes that it has, by index: the cost is the ARN's length, whatever the map holds.
          select m.email, 'principal_prefix', length(m.principal) from aws_principal_user_map m
           where m.principal like '%*'
             and m.principal = any (array(select left(p_principal, n) || '*' from generate_series(0, length(p_principal)) n))
          union all
          select address_within(p_source_identity, p_session_domains), 'source_identity', 0
          union all
          select address_within(substring(p_principal from '^arn:[^:]+:sts::[0-9]*:(?:assumed-role/[^/]+|federated-user)/(.+)$'), p_session_domains),
                 'session_name', 0) f
   -- Maps of before took addresses that reach nobody.
   where f.email is not null and address_problem(f.email) is null
   order by f.resolved_by, f.prefix_length desc
   limit 1
$$;

-- How long a reader whom nobody knew waits for the next look: the crontab's step, less what a run may come early. An entry that is
-- newer than the last look (or was being written then) brings it at once.
create or replace function second_look_after() returns interval language sql immutable as $$ select interval '4 minutes 30 seconds' $$;

-- Fills in addresses, a page at a time; answers 0 when nothing is left to look at. An email once on a row stays.
-- A reader whom no rule knows is resolved to nobody, and looked up again while the restore is open.
create or replace function resolve_requests(p_limit integer, p_notify_waits interval[], p_session_domains text[] default '{}') returns integer
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_ids uuid[];
begin
  v_ids := array(select q.id from restore_requests q where not q.user_resolved order by q.id limit p_limit for no key update skip locked);
  if v_ids = '{}' then
    if exists (select from restore_requests q where not q.user_resolved) then perform look_again_soon(); end if;
    return resolve_unknown(p_limit, p_notify_waits, p_session_domains);
  end if;
  perform nudge_known(resolve_page(v_ids, p_session_domains), p_notify_waits);
  return cardinality(v_ids);
end
$$;

-- The second look, a page of readers whom nobody knew: each by its key to its restore, and to the map. What is still unknown is not
-- written. One walk at a time, whoever goes on with it.
create or replace function resolve_unknown(p_limit integer, p_notify_waits interval[], p_session_domains text[]) returns integer
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_look second_look;
  v_page uuid[];
  v_known uuid[];
  v_free uuid[];
  v_resolved integer;
begin
  select s.* into v_look from second_look s where s.only_row for update skip locked;
  if not found then return 0; end if;
  if v_look.after is null then
    if v_look.started_at > now() - second_look_after()
       and not exists (select from aws_key_user_map m where m.created_at > v_look.started_at - interval '10 seconds')
       and not exists (select from aws_principal_user_map m where m.created_at > v_look.started_at - interval '10 seconds') then
      return 0;
    end if;
    v_look.started_at := now();
    v_look.after := '00000000-0000-0000-0000-000000000000';
  end if;

  v_page := array(select q.id from restore_requests q
                   where q.email is null and q.user_resolved and q.ended_unknown is distinct from q.restore_id and q.id > v_look.after
                   order by q.id limit p_limit);

  with over as (
    select q.id from restore_requests q join restores r on r.id = q.restore_id
     where q.id = any (v_page) and r.closed_at is not null for no key update of q skip locked)
  update restore_requests q set ended_unknown = q.restore_id from over where q.id = over.id;

  with waiting as materialized (
    select q.id, q.access_key_id, q.principal, q.source_identity from restore_requests q
     where q.id = any (v_page) and exists (select from restores r where r.id = q.restore_id and r.closed_at is null)),
  readers as materialized (
    select d.* from (select distinct w.access_key_id, w.principal, w.source_identity from waiting w) d
     where exists (select from find_person(d.access_key_id, d.principal, d.source_identity, p_session_domains)))
  select array_agg(w.id) into v_known from waiting w join readers using (access_key_id, principal, source_identity);

  v_free := array(select q.id from restore_requests q where q.id = any (v_known) and q.email is null for no key update skip locked);
  v_resolved := resolve_page(v_free, p_session_domains);
  perform nudge_known(v_resolved, p_notify_waits);
  if cardinality(v_free) < cardinality(v_known) then
    v_look.started_at := now() - second_look_after();
    perform look_again_soon();
  end if;

  update second_look s
     set started_at = v_look.started_at, after = case when cardinality(v_page) = p_limit then v_page[p_limit] end
   where s.only_row;
  return case when cardinality(v_page) = p_limit then p_limit else v_resolved end;
end
$$;

-- Looks up these requests (locked by the caller); answers how many are known now. A row that Postgres does not take with its
-- address stays nobody's, and the others are filled in.
create or replace function resolve_page(p_ids uuid[], p_session_domains text[]) returns integer
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_known integer;
begin
  -- Each reader once: one of a hundred thousand files may be nobody's.
  with readers as materialized (
    select d.*, p.email, p.resolved_by
      from (select distinct q.access_key_id, q.principal, q.source_identity from restore_requests q where q.id = any (p_ids)) d
      left join lateral find_person(d.access_key_id, d.principal, d.source_identity, p_session_domains) p on true),
  resolved as (
    update restore_requests q set email = r.email, user_resolved = true, resolved_by = r.resolved_by
      from readers r
     where q.id = any (p_ids) and q.email is null
       and q.access_key_id = r.access_key_id and q.principal = r.principal and q.source_identity = r.source_identity
    returning q.email)
  select count(r.email) into v_known from resolved r;
  return v_known;
exception when data_exception or integrity_constraint_violation or program_limit_exceeded then
  if cardinality(p_ids) > 1 then
    return (select sum(resolve_page(array[i.id], p_session_domains)) from unnest(p_ids) as i (id));
  end if;
  raise warning 'the reader of request % stays unknown, for Postgres does not take its address: %', p_ids[1], sqlerrm;
  update restore_requests q set user_resolved = true where q.id = any (p_ids);
  return 0;
end
$$;

create or replace function nudge_known(p_known integer, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
begin
  if p_known > 0 then
    perform nudge('pre_notify', interval '0' || p_notify_waits), nudge('post_notify', interval '0' || p_notify_waits);
  end if;
end
$$;

-- Passed by: whoever holds them (S3's answer is just being noted) tells nobody when they are free. One look for all of them.
create or replace function look_again_soon() returns void
language plpgsql volatile as $$
begin
  perform graphile_worker.add_job('resolve_users', run_at := now() + interval '1 second', max_attempts := 3,
                                  job_key := 'resolve_users_again', job_key_mode := 'preserve_run_at');
end
$$;

-- What a map keeps of an id: a role's ARN, as the console shows it, means its sessions. These do not have the role's path, so
-- all roles under a path cannot be said.
create or replace function map_entry(p_id text) returns text language sql immutable as $$
  select case
    when p_id ~ '^arn:[^:]+:iam::[^:]*:role/(.*/)?[^/*]+\*$|^arn:[^:]+:iam::[^:]*:role/\*$'
      then regexp_replace(p_id, '^arn:([^:]+):iam::([^:]*):role/(.*/)?([^/]+)$', 'arn:\1:sts::\2:assumed-role/\4')
    else regexp_replace(p_id, '^arn:([^:]+):iam::([^:]*):role/(.*/)?([^/*]+)$', 'arn:\1:sts::\2:assumed-role/\4/*')
  end
$$;

-- What import_users would make of each entry of [{id, email}], and what is wrong with it; null: nothing.
create or replace function check_users(p_users jsonb) returns table (ord bigint, id text, email text, id_problem text, address_problem text)
language sql immutable as $$
  select u.ord, map_entry(u.id), u.email,
         case when u.id like 'arn:%' then principal_problem(map_entry(u.id)) else access_key_problem(u.id) end, address_problem(u.email)
    from rows from (jsonb_to_recordset(p_users) as (id text, email text)) with ordinality as u (id, email, ord)
   order by u.ord
$$;

-- Adds and changes entries of both maps: [{id, email}], id an access key id, an ARN or a prefix that ends in *. Whom nobody knew is
-- looked up again at once.
create or replace function import_users(p_users jsonb) returns table (added integer, changed integer)
language sql volatile as $$
  with users as (
    select distinct on (c.id) c.id, c.email from check_users(p_users) c order by c.id, c.ord desc),
  keys as (
    insert into aws_key_user_map as m (access_key_id, email) select u.id, u.email from users u where u.id not like 'arn:%'
        on conflict (access_key_id) do update set email = excluded.email where m.email <> excluded.email
    returning m.xmax = 0 as is_new),
  principals as (
    insert into aws_principal_user_map as m (principal, email) select u.id, u.email from users u where u.id like 'arn:%'
        on conflict (principal) do update set email = excluded.email where m.email <> excluded.email
    returning m.xmax = 0 as is_new),
  again as (
    update second_look s set started_at = '-infinity', after = null where s.only_row)
  select count(*) filter (where is_new)::integer, count(*) filter (where not is_new)::integer
    from (select is_new from keys union all select is_new from principals) t
$$;

-- ---------------------------------------------------------------------------------------- S3 is asked

-- A page of objects to restore. The claim is a lease: whoever dies with it lets go of the rows by itself. Its lock
-- (no key update) does not skip rows that somebody is reading just now. Every outcome uses its claim up.
create or replace function claim_restores_to_trigger(p_limit integer, p_worker text default null) returns setof restores
language sql volatile set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
  update restores r set attempts = r.attempts + 1, attempt_after = now() + lease(r),
                        claim_id = gen_random_uuid(), claimed_by = p_worker, claimed_at = now()
   where r.id = any (array(
     select d.id from restores d
      where d.status = 'not_started' and d.attempt_after <= now()
      order by d.attempt_after limit p_limit for no key update skip locked))
  returning r.*
$$;

-- A page of objects to ask S3 about: first those that an event asks for, then those pending that were
-- not looked at for p_poll_after. One run walks the index once (p_after_checked, p_after_id: where the last
-- page ended), so rows in back-off are not read again for each page.
create or replace function claim_restores_to_poll(p_limit integer, p_poll_after interval,
                                                  p_after_checked timestamptz default '-infinity',
                                                  p_after_id uuid default '00000000-0000-0000-0000-000000000000',
                                                  p_worker text default null) returns setof restores
language plpgsql volatile set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  v_ids uuid[];
begin
  v_ids := array(
    select d.id from restores d
     where d.head_wanted_at is not null and d.status <> 'not_started' and d.attempt_after <= now()
     order by d.attempt_after limit p_limit for no key update skip locked);
  v_ids := v_ids || array(
    select d.id from restores d
     where d.status = 'pending' and coalesce(d.last_checked_at, d.accepted_at) <= now() - p_poll_after
       and (coalesce(d.last_checked_at, d.accepted_at), d.id) > (p_after_checked, p_after_id)
       and d.head_wanted_at is null and d.attempt_after <= now()
     order by coalesce(d.last_checked_at, d.accepted_at), d.id
     limit p_limit - cardinality(v_ids) for no key update skip locked);
  return query
    update restores r set attempts = r.attempts + 1, attempt_after = now() + lease(r),
                          claim_id = gen_random_uuid(), claimed_by = p_worker, claimed_at = now()
     where r.id = any (v_ids)
    returning r.*;
end
$$;

-- What a task learned about a page: [{id, claim_id, code?, message?, storage_class?, ...}].
create or replace function parse_outcomes(p_outcomes jsonb)
returns table (id uuid, claim_id uuid, storage_class text, archive_status text, size_bytes bigint, etag text,
               pinned_version_id text, tier text, restore_expires_at timestamptz, code text, message text)
language sql stable as $$
  select o.id, o.claim_id, o.storage_class, o.archive_status, o.size_bytes, o.etag,
         o.pinned_version_id, o.tier, o.restore_expires_at, o.code, o.message
    from jsonb_to_recordset(p_outcomes) as o (id uuid, claim_id uuid, storage_class text, archive_status text, size_bytes bigint,
      etag text, pinned_version_id text, tier text, restore_expires_at timestamptz, code text, message text)
$$;

-- Notes a page of outcomes in one statement, and so in one transaction. Each says by its transition which of the following
-- functions moves its row.
create or replace function settle_restores(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_kind record;
begin
  -- All locks first, in the one order that everybody takes them.
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  for v_kind in
    select o ->> 'transition' as transition, jsonb_agg(o) as outcomes from jsonb_array_elements(p_outcomes) o group by 1 order by 1
  loop
    case v_kind.transition
      when 'mark_restores_pending' then perform mark_restores_pending(v_kind.outcomes, p_notify_waits);
      when 'mark_restores_restored' then perform mark_restores_restored(v_kind.outcomes, p_notify_waits);
      when 'mark_restores_failed' then perform mark_restores_failed(v_kind.outcomes, p_notify_waits);
      when 'mark_restores_lost' then perform mark_restores_lost(v_kind.outcomes, p_notify_waits);
      when 'mark_restores_expired' then perform mark_restores_expired(v_kind.outcomes, p_notify_waits);
      when 'note_restores_checked' then perform note_restores_checked(v_kind.outcomes, p_notify_waits);
      when 'note_restore_troubles' then perform note_restore_troubles(v_kind.outcomes, p_notify_waits);
    end case;
  end loop;
end
$$;

-- not_started -> pending: S3 is at it. A fact, so whoever held the claim. (An event may have asked for a HEAD.)
create or replace function mark_restores_pending(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_doubtful boolean;
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  with accepted as (
    update restores r
       set status = 'pending', status_at = now(), accepted_at = now(), last_checked_at = null, tier = o.tier,
           storage_class = o.storage_class, archive_status = o.archive_status, size_bytes = o.size_bytes, etag = o.etag,
           pinned_version_id = o.pinned_version_id,
           attempts = 0, attempt_after = now(), claim_id = null, failing_since = null, failure_code = null, failure_message = null
      from parse_outcomes(p_outcomes) o
     where r.id = o.id and r.status = 'not_started'
    returning r.head_wanted_at)
  select bool_or(a.head_wanted_at is not null) into v_doubtful from accepted a;
  if v_doubtful is not null then perform nudge('pre_notify', p_notify_waits); end if;
  if v_doubtful then perform nudge('poll_pending_restores'); end if;
end
$$;

-- not_started, pending -> restored: HEAD says that it can be read.
create or replace function mark_restores_restored(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  update restores r
     set status = 'restored', status_at = now(), restore_expires_at = o.restore_expires_at,
         storage_class = o.storage_class, archive_status = o.archive_status, size_bytes = o.size_bytes, etag = o.etag,
         pinned_version_id = o.pinned_version_id, last_checked_at = now(), head_wanted_at = null,
         attempts = 0, attempt_after = now(), claim_id = null, failing_since = null, failure_code = null, failure_message = null
    from parse_outcomes(p_outcomes) o
   where r.id = o.id and r.status in ('not_started', 'pending') and r.claim_id = o.claim_id;
  if found then perform nudge('post_notify', p_notify_waits); end if;
end
$$;

-- not_started, pending -> failed: S3 says that there is nothing (left) to restore.
create or replace function mark_restores_failed(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  update restores r
     set status = 'failed', status_at = now(), failure_code = o.code, failure_message = o.message, claim_id = null, head_wanted_at = null
    from parse_outcomes(p_outcomes) o
   where r.id = o.id and r.status in ('not_started', 'pending') and r.claim_id = o.claim_id;
  if found then perform nudge('post_notify', p_notify_waits); end if;
end
$$;

-- pending -> not_started: accepted a while ago, and archived again without having been readable. Only HEAD may
-- say so, and only to who still holds the claim: a worker that slept brings old news.
create or replace function mark_restores_lost(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_statuses restore_status[];
  v_waits interval[];
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  with lost as (
    update restores r
       set status = case when r.lost_count + 1 < lost_limit() then 'not_started' else 'failed' end::restore_status,
           status_at = now(), lost_count = r.lost_count + 1, accepted_at = null, last_checked_at = null, head_wanted_at = null,
           tier = null, attempts = 0, attempt_after = now(), claim_id = null, failing_since = null,
           failure_code = 'restore_lost',
           failure_message = format('S3 accepted the restore %s but the file is still archived. %s',
             case when r.lost_count = 0 then 'once' when r.lost_count = 1 then 'twice' else r.lost_count + 1 || ' times' end,
             case when r.lost_count + 1 < lost_limit() then 'It is being asked for again.' else 'An administrator should look at it.' end)
      from parse_outcomes(p_outcomes) o
     where r.id = o.id and r.status = 'pending' and r.accepted_at <= now() - lost_grace() and not was_asked_too_early(r)
       and r.claim_id = o.claim_id and r.attempt_after > now()
    returning r.status)
  select array_agg(l.status) into v_statuses from lost l;
  if 'not_started' = any (v_statuses) then perform nudge('trigger_restores'); end if;
  if 'failed' = any (v_statuses) then perform nudge('post_notify', p_notify_waits); end if;

  -- Too soon to tell: look again once the grace is over. Or an event has come since S3 was asked: look again now.
  with too_soon as (
    update restores r
       set head_wanted_at = least(coalesce(r.head_wanted_at, now()), now()), attempts = 0, claim_id = null,
           attempt_after = case when was_asked_too_early(r) then now() else r.accepted_at + lost_grace() end
      from parse_outcomes(p_outcomes) o
     where r.id = o.id and r.status = 'pending' and (r.accepted_at > now() - lost_grace() or was_asked_too_early(r))
       and r.claim_id = o.claim_id and r.attempt_after > now()
    returning case when r.attempt_after <= now() then interval '0' else lost_grace() end as wait)
  select array_agg(distinct t.wait) into v_waits from too_soon t;
  perform nudge('poll_pending_restores', v_waits);
end
$$;

-- No arrow: S3 answered, and nothing has changed. That it still restores is no answer to an event which said that it is done:
-- S3 is asked again, at once when the event came after the question.
create or replace function note_restores_checked(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_readable boolean;
  v_waits interval[];
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  with checked as (
    update restores r
       set last_checked_at = now(),
           -- Not later than now, whatever becomes of the clock: the next question comes after it.
           head_wanted_at = case when r.status = 'pending' and r.head_wanted_at is not null then least(r.head_wanted_at, now()) end,
           restore_expires_at = case when r.status = 'restored' then o.restore_expires_at end,
           attempts = 0,
           attempt_after = case when r.status = 'pending' and r.head_wanted_at is not null and not was_asked_too_early(r)
                                then now() + ask_again_delay(r.head_wanted_at) else now() end,
           claim_id = null, failing_since = null, failure_code = null, failure_message = null
      from parse_outcomes(p_outcomes) o
     where r.id = o.id and r.status in ('pending', 'restored') and r.closed_at is null and r.claim_id = o.claim_id
    returning r.status, r.head_wanted_at, r.attempt_after - now() as wait)
  select bool_or(c.status = 'restored'), array_agg(distinct c.wait) filter (where c.head_wanted_at is not null)
    into v_readable, v_waits from checked c;
  perform nudge('poll_pending_restores', v_waits);
  -- Whoever was held back while S3 was asked can be told now.
  if v_readable then perform nudge('post_notify', interval '0' || p_notify_waits); end if;
end
$$;

-- No arrow at first: trouble is noted where everybody can see it, and the claim's delay runs on. After 24
-- hours without a break: not_started, pending -> failed. Only the claim's holder may report.
create or replace function note_restore_troubles(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_over uuid[];
  v_believed boolean;
  v_trigger_waits interval[];
  v_poll_waits interval[];
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  update restores r
     set status = 'failed', status_at = now(), failure_code = o.code, failure_message = o.message, claim_id = null, head_wanted_at = null
    from parse_outcomes(p_outcomes) o
   where r.id = o.id and r.status in ('not_started', 'pending') and r.claim_id = o.claim_id and r.attempt_after > now()
     and is_hopeless(r);
  if found then perform nudge('post_notify', p_notify_waits); end if;

  -- A restored object that S3 will not tell us about: its word that it was restored has to do, for as long as it said.
  with believed as (
    update restores r
       set head_wanted_at = null, attempts = 0, attempt_after = now(), claim_id = null,
           failing_since = null, failure_code = null, failure_message = null
      from parse_outcomes(p_outcomes) o
     where r.id = o.id and r.status = 'restored' and r.closed_at is null and r.claim_id = o.claim_id and r.attempt_after > now()
       and is_hopeless(r)
    returning r.id, r.restore_expires_at)
  select array_agg(b.id) filter (where b.restore_expires_at <= now()), count(*) > 0 into v_over, v_believed from believed b;
  if v_believed then perform nudge('post_notify', interval '0' || p_notify_waits); end if;
  perform reopen_restores(v_over);

  with troubled as (
    update restores r
       set failing_since = coalesce(r.failing_since, now()), failure_code = o.code, failure_message = o.message, claim_id = null,
           attempt_after = case o.code when 'SlowDown' then now() + busy_delay(r.attempts) else r.attempt_after end
      from parse_outcomes(p_outcomes) o
     where r.id = o.id and r.status in ('not_started', 'pending', 'restored') and r.closed_at is null
       and r.claim_id = o.claim_id and r.attempt_after > now()
    returning r.status, r.attempt_after - now() as wait)
  select array_agg(distinct d.wait) filter (where d.status = 'not_started'), array_agg(distinct d.wait) filter (where d.status <> 'not_started')
    into v_trigger_waits, v_poll_waits
    from troubled d;
  perform nudge('trigger_restores', v_trigger_waits), nudge('poll_pending_restores', v_poll_waits);
end
$$;

-- restored -> closed: HEAD says that it is archived again (or gone: the new restore will find out).
create or replace function mark_restores_expired(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
begin
  perform reopen_restores(array(
    select r.id from restores r join parse_outcomes(p_outcomes) o on o.id = r.id
     where r.status = 'restored' and r.claim_id = o.claim_id and r.attempt_after > now()));
end
$$;

-- restored, failed -> closed, and a new restore in its place. Comes along: whoever was not told yet, and whoever read it since;
-- with p_everyone all readers (an operator's retry of a failed one). Answers the new restores' ids.
create or replace function reopen_restores(p_restore_ids uuid[], p_everyone boolean default false) returns setof uuid
language plpgsql volatile as $$
declare
  v_closed uuid[];
begin
  perform lock_restores(p_restore_ids);

  -- A copy was over, for all we know, when S3 last called it readable: a read since then is not late.
  with over as (
    update restores r
       set head_wanted_at = null, claim_id = null,
           closed_at = case r.status when 'failed' then now() else least(now(), greatest(r.status_at + late_read_grace(), r.last_checked_at)) end,
           -- Whatever is told of it from now on, is not that it can be read.
           restore_expires_at = case r.status when 'restored' then least(r.restore_expires_at, now()) end
     where r.id = any (p_restore_ids) and r.closed_at is null and r.status in ('restored', 'failed')
    returning r.id)
  select array_agg(o.id) into v_closed from over o;
  if v_closed is null then return; end if;

  insert into restores (id, s3_bucket, s3_key, version_id, region)
  select gen_random_uuid(), r.s3_bucket, r.s3_key, r.version_id, r.region
    from restores r
   where r.id = any (v_closed)
     and exists (select from restore_requests q where q.restore_id = r.id
                    and (p_everyone or q.post_notification_id is null or q.last_read_at > r.closed_at))
   order by r.s3_bucket, r.s3_key, r.version_id
      on conflict (s3_bucket, s3_key, version_id) where closed_at is null do nothing;

  perform move_untold_requests(v_closed);

  insert into restore_requests (id, restore_id, s3_bucket, s3_key, version_id, access_key_id, principal, account_id, source_identity,
                                email, user_resolved, resolved_by, restore_status, status_at, last_read_at, last_event_id)
  select gen_random_uuid(), n.id, q.s3_bucket, q.s3_key, q.version_id, q.access_key_id, q.principal, q.account_id, q.source_identity,
         q.email, q.user_resolved, q.resolved_by, n.status, n.status_at, q.last_read_at, q.last_event_id
    from restores o
    join restore_requests q on q.restore_id = o.id
    join restores n on n.s3_bucket = o.s3_bucket and n.s3_key = o.s3_key and n.version_id = o.version_id and n.closed_at is null
   where o.id = any (v_closed) and (p_everyone or q.last_read_at > o.closed_at)
      on conflict (restore_id, reader) do nothing;

  perform nudge('trigger_restores');
  return query
    select n.id from restores o
      join restores n on n.s3_bucket = o.s3_bucket and n.s3_key = o.s3_key and n.version_id = o.version_id and n.closed_at is null
     where o.id = any (v_closed);
end
$$;

-- Requests of closed restores whose readers have not heard how it ended go to the object's open restore. Those whom nobody
-- knows, not for ever: they would become more with each restore.
create or replace function move_untold_requests(p_closed uuid[]) returns void
language sql volatile as $$
  update restore_requests q
     set restore_id = n.id, restore_status = n.status, status_at = n.status_at
    from restores o
    join restores n on n.s3_bucket = o.s3_bucket and n.s3_key = o.s3_key and n.version_id = o.version_id and n.closed_at is null
   where o.id = any (p_closed) and q.restore_id = o.id and q.post_notification_id is null
     and (q.email is not null or q.requested_at > now() - unknown_reader_wait())
     and not exists (select from restore_requests t where t.restore_id = n.id and t.reader = q.reader)
$$;

-- restored, failed -> closed, a page at a time; answers how many. Late or early does not matter: closed_at is
-- when the restore was over, not when we noticed. Without an expiry it is over once everyone is told. One sweep at a time,
-- whatever the number of workers: its pages shall not add up to what readers notice. Who comes second leaves it to the first.
create or replace function close_lock() returns bigint language sql immutable as $$ select hashtextextended('close_finished_restores', 0) $$;

create or replace function close_finished_restores(p_limit integer) returns integer
language plpgsql volatile set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  v_ids uuid[];
begin
  if not pg_try_advisory_xact_lock(close_lock()) then return 0; end if;

  -- A doubt (head_wanted_at) is S3's to settle.
  v_ids := array(
    select d.id from restores d
     where d.closed_at is null and d.status = 'failed' and d.head_wanted_at is null
       and coalesce(d.restore_expires_at, d.status_at) <= now() - failed_stays_open()
     order by coalesce(d.restore_expires_at, d.status_at) limit p_limit for update skip locked);
  v_ids := v_ids || array(
    select d.id from restores d
     where d.closed_at is null and d.status = 'restored' and d.head_wanted_at is null
       and coalesce(d.restore_expires_at, d.status_at) <= now() and over_at(d) <= now()
       and (d.restore_expires_at is not null
            or not exists (select from restore_requests q where q.restore_id = d.id and q.post_notification_id is null
                              and (q.email is not null or d.status_at > now() - unknown_reader_wait())))
     order by coalesce(d.restore_expires_at, d.status_at) limit p_limit - cardinality(v_ids) for update skip locked);
  update restores r set closed_at = over_at(r), head_wanted_at = null, claim_id = null where r.id = any (v_ids);
  return cardinality(v_ids);
end
$$;

-- closed -> gone: what was over p_age ago, a page at a time, with its readers and the mails that tell of nothing else.
-- Whoever has still to be told keeps his restore; a mail that was refused or is unknown keeps it twice as long. Answers how many. One at a time: two would
-- leave a mail that both share.
create or replace function forget_lock() returns bigint language sql immutable as $$ select hashtextextended('forget_old_restores', 0) $$;

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
       -- offset 0: restore by restore, or all who wait for anything would be gone through for each.
       and not exists (select from (select * from restore_requests o where o.restore_id = r.id offset 0) q
                        where q.email is not null and q.post_notification_id is null
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

  -- Each with the earlier ones that it was sent instead of.
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

-- ---------------------------------------------------------------------------------------- people are told

-- Whether a person has something to hear and their debounce window has ended: nothing new for p_quiet, or the oldest thing
-- p_max_wait old. Not while a mail of theirs is being written: that takes in all of it.
create or replace function is_due(p_kind notification_kind, p_person text, p_quiet interval, p_max_wait interval) returns boolean
-- By index, from either end, whatever the statistics say.
language plpgsql stable set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  return (exists (select from untold_requests u where u.kind = p_kind and u.person = p_person and u.since <= now() - p_max_wait)
       or (exists (select from untold_requests u where u.kind = p_kind and u.person = p_person and u.since <= now() - p_quiet)
           and not exists (select from untold_requests u where u.kind = p_kind and u.person = p_person and u.since > now() - p_quiet)))
     and not exists (select from notifications n where n.body is null and lower(n.email) = p_person and n.kind = p_kind);
end
$$;

-- People who are due, those with the oldest news first; some of them, and none only when there is none. p_passed: whom this
-- run has tried already. (p_after: processes of an earlier release walk in order of person.)
create or replace function due_people(p_kind notification_kind, p_quiet interval, p_max_wait interval,
                                      p_limit integer, p_after text default '', p_passed text[] default '{}') returns setof text
-- In the order of the index on since, as far as somebody is found: nothing is sorted or joined but what that takes. So a look
-- costs the same however many are due and however long the history is; only people with old news who go on reading, and whom
-- this run could not write to, are gone through before the others.
language plpgsql stable
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_rows integer := 1000;
  v_seen integer;
  v_people text[];
begin
  loop
    execute format(
      'with oldest as materialized (
         select u.person, u.since from untold_%s u where u.since <= now() - least($2, $3) order by u.since limit $6)
       select (select count(*) from oldest),
              array(select p.person
                      from (select o.person from oldest o where o.person > $4 and o.person <> all ($5)
                             group by o.person order by min(o.since), o.person offset 0) p
                     where is_due($1, p.person, $2, $3) limit $7)', p_kind)
      into v_seen, v_people using p_kind, p_quiet, p_max_wait, p_after, p_passed, v_rows, p_limit;
    if v_people <> '{}' or v_seen < v_rows then
      return query select unnest(v_people);
      return;
    end if;
    v_rows := v_rows * 8;
  end loop;
end
$$;

-- Locks a page of what this person has not been told, the oldest first, up to p_until. The restores first, then the requests.
create or replace function lock_untold(p_kind notification_kind, p_person text, p_until timestamptz) returns uuid[]
language plpgsql volatile set plan_cache_mode = force_custom_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_page uuid[];
begin
  execute format('select array(select u.request_id from untold_%s u where u.person = $1 and u.since <= $2 order by u.since limit $3)', p_kind)
     into v_page using p_person, p_until, mail_page();
  perform from restores r
   where r.id = any (array(select distinct q.restore_id from restore_requests q where q.id = any (v_page)))
   order by r.s3_bucket, r.s3_key, r.version_id, r.id for key share;
  -- None that an earlier mail told: who marks it sent holds that mail, for which attach_requests waits, and waits for them.
  return array(
    select q.id from restore_requests q
     where q.id in (select u.request_id from untold_requests u where u.kind = p_kind and u.request_id = any (v_page))
     order by q.s3_bucket, q.s3_key, q.version_id, q.reader for no key update);
end
$$;

-- Attaches to notification p_id what of these locked requests is still untold, and answers how many restores that are.
create or replace function attach_requests(p_id uuid, p_kind notification_kind, p_person text, p_locked uuid[]) returns integer
language plpgsql volatile set plan_cache_mode = force_custom_plan
  set enable_seqscan = off set enable_mergejoin = off as $$
declare
  v_requests uuid[];
  v_restores uuid[];
  v_new uuid[];
  v_told uuid[];
begin
  select coalesce(array_agg(u.request_id), '{}'), coalesce(array_agg(distinct u.restore_id), '{}')
    into v_requests, v_restores
    from untold_requests u
   where u.kind = p_kind and u.person = p_person and u.request_id = any (p_locked);

  with announced as (
    insert into announcements (restore_id, kind, person, notification_id)
    select r.id, p_kind, p_person, p_id
      from unnest(v_restores) as r (id) order by r.id
        on conflict do nothing
    returning restore_id)
  select coalesce(array_agg(a.restore_id), '{}') into v_new from announced a;

  -- The rest an earlier mail told. It may be marked sent just now: wait, so that nobody told looks untold.
  v_told := array(select unnest(v_restores) except select unnest(v_new));
  perform from notifications n
   where n.id in (select a.notification_id from announcements a
                   where a.restore_id = any (v_told) and a.kind = p_kind and a.person = p_person and a.notification_id <> p_id)
   order by n.id for share;

  update restore_requests q
     set pre_notification_id = case when p_kind = 'pre' then m.id else q.pre_notification_id end,
         post_notification_id = case when p_kind = 'post' then m.id else q.post_notification_id end,
         pre_notified = q.pre_notified or (p_kind = 'pre' and m.is_sent),
         post_notified = q.post_notified or (p_kind = 'post' and m.is_sent)
    from (select r.restore_id, p_id as id, false as is_sent from unnest(v_new) as r (restore_id)
           union all
          select a.restore_id, n.id, n.status = 'sent'
            from announcements a join notifications n on n.id = a.notification_id
           where a.restore_id = any (v_told) and a.kind = p_kind and a.person = p_person) m
   where q.id = any (v_requests) and m.restore_id = q.restore_id;

  return cardinality(v_new);
end
$$;

-- Attaches to notification p_id a page of what this person is due to hear; announced: how many restores that are.
-- 0: nothing due (another worker was faster), or all of it was told before under another key of theirs; then
-- there is no mail to write. Else the caller inserts notification p_id before it commits (the foreign keys are checked then):
-- rendered, or without a body when the page is full; seal_more attaches the rest, and freeze_notification gives it its body.
create or replace function seal_page(p_id uuid, p_kind notification_kind, p_person text, p_quiet interval, p_max_wait interval)
returns table (announced integer, is_full boolean)
-- Rows that somebody keeps locked must not hold up everybody else's mail.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_locked uuid[];
begin
  announced := 0;
  is_full := false;
  if is_due(p_kind, p_person, p_quiet, p_max_wait) then
    -- Lock first, then look: a second worker waits here, and then finds nothing due. What comes in between is
    -- left to the next mail.
    v_locked := lock_untold(p_kind, p_person, now());
    if is_due(p_kind, p_person, p_quiet, p_max_wait) then
      announced := attach_requests(p_id, p_kind, p_person, v_locked);
      is_full := cardinality(v_locked) = mail_page();
      -- Whoever writes on may die.
      if announced > 0 then perform nudge(p_kind || '_notify', array[case when is_full then interval '1 minute' else '0' end]); end if;
    end if;
  end if;
  return next;
end
$$;

-- The same for processes of an earlier release: a page a mail.
create or replace function seal_notification(p_id uuid, p_kind notification_kind, p_person text,
                                             p_quiet interval, p_max_wait interval) returns integer
language sql volatile as $$
  select announced from seal_page(p_id, p_kind, p_person, p_quiet, p_max_wait)
$$;

-- The next page of a mail that is being written; answers how many requests it took. 0: all is attached that this person had not
-- been told when it was begun (what comes while it is written is the next mail's: it ends though they go on reading).
create or replace function seal_more(p_id uuid) returns integer
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_mail notifications;
  v_locked uuid[];
begin
  select n.* into v_mail from notifications n where n.id = p_id and n.body is null for update;
  if not found or v_mail.created_at <= now() - mail_stays_fresh() then return 0; end if;
  v_locked := lock_untold(v_mail.kind, lower(v_mail.email), v_mail.created_at);
  perform attach_requests(p_id, v_mail.kind, lower(v_mail.email), v_locked);
  return cardinality(v_locked);
end
$$;

-- Gives a mail its body, once. p_requests: of how many it tells; false when that is not what is attached (another worker writes
-- it as well), or when it grew old or got its body meanwhile.
create or replace function freeze_notification(p_id uuid, p_email text, p_body text, p_requests integer) returns boolean
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_mail notifications;
begin
  select n.* into v_mail from notifications n where n.id = p_id and n.body is null for update;
  if not found or v_mail.created_at <= now() - mail_stays_fresh()
     or p_requests <> (select (select count(*) from restore_requests q where q.pre_notification_id = p_id)
                            + (select count(*) from restore_requests q where q.post_notification_id = p_id)) then
    return false;
  end if;
  update notifications n set email = p_email, body = p_body, attempt_after = now() where n.id = p_id;
  perform nudge(v_mail.kind || '_notify');
  return true;
end
$$;

-- Mails that somebody began to write a minute ago, and has perhaps died since. Two who write on one do no harm: a page at a
-- time is attached, and one body counts.
create or replace function unfinished_notifications(p_kind notification_kind) returns setof uuid
language sql stable as $$
  select n.id from notifications n
   where n.body is null and n.kind = p_kind
     and n.created_at > now() - mail_stays_fresh() and n.created_at <= now() - interval '1 minute'
$$;

-- sealed -> untold again: Resend has certainly not taken this mail, and what it says has grown old while the gate was
-- shut (the copies may have expired, the sender been mended), or it was never written to its end. Its people get one new mail
-- with all their news. A page at a time, the body first, for without one nobody sends it; answers 0 when there is none left, or
-- only such whose requests somebody keeps locked: these wait, and hold up no other.
create or replace function unseal_stale_notifications(p_kind notification_kind, p_sender text default null) returns integer
language plpgsql volatile as $$
declare
  v_id uuid;
  v_had_body boolean;
  v_page uuid[];
begin
  for v_id in
    select n.id from notifications n
     where n.kind = p_kind and n.status = 'sealed' and n.uncertain_since is null
       and n.created_at <= now() - mail_stays_fresh()
       and not exists (select from mail_gate g where is_shut(g, p_sender, now()))
       and not exists (select from notifications o where o.superseded_by = n.id)
     order by n.created_at for update skip locked
  loop
    update notifications n set body = null where n.id = v_id and n.body is not null;
    v_had_body := found;
    v_page := lock_attached(v_id, false);
    delete from announcements a
     where a.notification_id = v_id and a.restore_id in (select q.restore_id from restore_requests q where q.id = any (v_page));
    update restore_requests q
       set pre_notification_id = nullif(q.pre_notification_id, v_id), post_notification_id = nullif(q.post_notification_id, v_id)
     where q.id = any (v_page);
    if cardinality(v_page) < mail_page() and not has_attached(v_id, false) then
      delete from announcements a where a.notification_id = v_id;
      delete from notifications n where n.id = v_id;
      return 1;
    end if;
    if v_had_body or v_page <> '{}' then return 1; end if;
  end loop;
  return 0;
end
$$;

-- Locks a page of the requests of a mail, or of those that are not marked as told yet: of those that nobody else has locked,
-- for whoever works through a mail's requests waits for nobody. (Somebody's open transaction would keep all mail waiting; and
-- restores that move lock their requests in the order of S3's answers, which a wait could turn into a circle.)
create or replace function lock_attached(p_id uuid, p_unmarked boolean) returns uuid[]
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_page uuid[];
begin
  v_page := array(
    select q.id from restore_requests q where q.pre_notification_id = p_id and not (p_unmarked and q.pre_notified)
     limit mail_page() for no key update skip locked);
  return v_page || array(
    select q.id from restore_requests q where q.post_notification_id = p_id and not (p_unmarked and q.post_notified)
     limit mail_page() - cardinality(v_page) for no key update skip locked);
end
$$;

-- Whether there are such requests, whoever has them locked.
create or replace function has_attached(p_id uuid, p_unmarked boolean) returns boolean
-- Volatile: it must see what was marked just before, in the same expression.
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
begin
  return exists (select from restore_requests q where q.pre_notification_id = p_id and not (p_unmarked and q.pre_notified))
      or exists (select from restore_requests q where q.post_notification_id = p_id and not (p_unmarked and q.post_notified));
end
$$;

-- Whether the gate keeps mails of this sender back at p_at. (No sender: a process of an earlier release, which waits for all.)
create or replace function is_shut(g mail_gate, p_sender text, p_at timestamptz) returns boolean language sql immutable as $$
  select g.closed_until > p_at and (g.sender is null or p_sender is null or g.sender = p_sender)
$$;

-- The next turn to call Resend, for whoever has such a mail to send: in how many milliseconds it is. All workers together keep
-- the pace that Resend's answers tell, and who comes late for a turn holds up no other. It is taken only when it is no further
-- ahead than p_within; else ask again after that time: what an operator changes meanwhile counts at once. Null: nothing is due,
-- or the gate is shut for so long that another job is as good.
create or replace function take_mail_turn(p_kind notification_kind, p_sender text default null, p_within interval default null)
returns double precision
-- Whoever keeps the gate locked must not stop all mail for long.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_gate mail_gate;
  v_next timestamptz;
  v_turn timestamptz;
begin
  if not exists (select from notifications n
                  where n.kind = p_kind and n.status = 'sealed' and n.body is not null and n.attempt_after <= now()) then
    return null;
  end if;
  select g.* into v_gate from mail_gate g for update;
  if is_shut(v_gate, p_sender, clock_timestamp() + interval '5 seconds') then return null; end if;
  -- Further ahead than anybody takes a turn: Postgres' clock was set back (a failover, a snapshot), and nobody waits for those.
  v_next := least(v_gate.next_call_at, clock_timestamp() + mail_turn_horizon());
  v_turn := greatest(v_next, case when is_shut(v_gate, p_sender, clock_timestamp()) then v_gate.closed_until end, clock_timestamp());
  if v_turn > clock_timestamp() + p_within then
    update mail_gate g set next_call_at = v_next where g.next_call_at <> v_next;
  else
    update mail_gate g set next_call_at = v_turn + call_interval(v_gate.calls_per_second);
  end if;
  return greatest(0, extract(epoch from v_turn - clock_timestamp()) * 1000);
end
$$;

-- Mails to send, while the gate is open. p_has_turn: the caller has waited for its turn; else (processes of an earlier
-- release) there must be one just now. uncertain_since_before is what a definite refusal puts back. A mail that may have
-- been sent longer ago than Resend remembers is never sent again: sealed -> unknown.
create or replace function claim_notifications(p_kind notification_kind, p_limit integer, p_worker text default null, p_has_turn boolean default false,
                                               p_sender text default null)
returns table (id uuid, claim_id uuid, email text, body text, uncertain_since_before timestamptz, calls_per_second double precision)
-- A claim lasts milliseconds; whoever keeps the gate locked must not stop all mail for long.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_gate mail_gate;
  v_claimed integer;
begin
  update notifications n
     set status = 'unknown', failure_code = 'unknown_outcome',
         failure_message = format('Resend did not answer clearly since %s UTC; it may have sent this mail or not. Last answer: %s',
           to_char(n.uncertain_since at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), coalesce(n.failure_message, 'none'))
   where n.id in (select o.id from notifications o
                   where o.kind = p_kind and o.status = 'sealed' and o.attempt_after <= now()
                     and o.uncertain_since <= now() - resend_remembers()
                     for update skip locked);

  -- One claim after the other: two at once would take the same turn.
  select g.* into v_gate from mail_gate g for update;
  if is_shut(v_gate, p_sender, now()) or (v_gate.next_call_at > clock_timestamp() and not p_has_turn) then return; end if;

  return query
    with due as (
      select d.id, d.uncertain_since from notifications d
       where d.kind = p_kind and d.status = 'sealed' and d.body is not null and d.attempt_after <= now()
         and coalesce(d.uncertain_since, now()) > now() - resend_remembers()
       order by d.attempt_after limit p_limit for update skip locked)
    update notifications n
       set attempts = n.attempts + 1, attempt_after = now() + retry_delay(n.attempts + 1), claim_id = gen_random_uuid(), claimed_by = p_worker,
           uncertain_since = coalesce(n.uncertain_since, now())
      from due
     where n.id = due.id
    returning n.id, n.claim_id, n.email::text, n.body, due.uncertain_since, v_gate.calls_per_second;
  get diagnostics v_claimed = row_count;
  if v_claimed = 0 or p_has_turn then return; end if;

  update mail_gate g set next_call_at = clock_timestamp() + v_claimed * call_interval(v_gate.calls_per_second);
end
$$;

-- What Resend's answers say of its limit. It counts for a whole team, and may change: the turns that are taken already are
-- as many in the new pace.
create or replace function note_mail_limit(p_calls_per_second double precision) returns void
language sql volatile as $$
  update mail_gate g
     set calls_per_second = p_calls_per_second,
         next_call_at = now() + (greatest(g.next_call_at, now()) - now()) * (g.calls_per_second / p_calls_per_second)
   where g.calls_per_second <> p_calls_per_second
$$;

-- sealed, failed, unknown -> sent: a fact, whoever held the claim. Only now the readers count as told: the first page of them
-- with it, the others by mark_more_readers.
create or replace function mark_notification_sent(p_id uuid, p_resend_id text) returns boolean
language plpgsql volatile as $$
declare
  v_kind notification_kind;
begin
  update notifications n
     set status = 'sent', sent_at = now(), resend_id = p_resend_id, failure_code = null, failure_message = null
   where n.id = p_id and n.status <> 'sent'
  returning n.kind into v_kind;
  if not found then return false; end if;
  if mark_readers(p_id) < mail_page() and not has_attached(p_id, true) then return false; end if;
  update notifications n set has_marks_left = true where n.id = p_id;
  -- Whoever marks them may die.
  perform nudge(v_kind || '_notify', array[interval '1 minute']);
  return true;
end
$$;

-- Marks the next page of readers of a mail that is sent. False: there is none left of this kind, or only such as somebody keeps
-- locked: a later run marks these.
create or replace function mark_more_readers(p_kind notification_kind) returns boolean
language plpgsql volatile as $$
declare
  v_id uuid;
  v_marked integer;
begin
  for v_id in
    select n.id from notifications n where n.has_marks_left and n.kind = p_kind order by n.sent_at for no key update skip locked
  loop
    v_marked := mark_readers(v_id);
    if v_marked < mail_page() and not has_attached(v_id, true) then
      update notifications n set has_marks_left = false where n.id = v_id;
      return true;
    end if;
    if v_marked > 0 then return true; end if;
  end loop;
  return false;
end
$$;

-- Answers how many it marked.
create or replace function mark_readers(p_id uuid) returns integer
language plpgsql volatile as $$
declare
  v_page uuid[] := lock_attached(p_id, true);
begin
  update restore_requests q
     set pre_notified = q.pre_notified or q.pre_notification_id is not distinct from p_id,
         post_notified = q.post_notified or q.post_notification_id is not distinct from p_id
   where q.id = any (v_page);
  return cardinality(v_page);
end
$$;

-- sealed -> failed (Resend will never take it) or unknown (it took something else under this key).
create or replace function mark_notification_undeliverable(p_id uuid, p_status notification_status, p_code text, p_message text) returns void
language sql volatile as $$
  update notifications n
     set status = p_status, failure_code = p_code, failure_message = p_message
   where n.id = p_id and n.status = 'sealed' and p_status in ('failed', 'unknown')
$$;

-- No arrow: perhaps sent, perhaps not. Tried again under the same key when the claim's delay is over.
create or replace function note_notification_uncertain(p_id uuid, p_claim_id uuid, p_code text, p_message text) returns void
language plpgsql volatile as $$
declare
  v_mail notifications;
begin
  update notifications n set failure_code = p_code, failure_message = p_message, claim_id = null
   where n.id = p_id and n.status = 'sealed' and n.claim_id = p_claim_id
  returning n.* into v_mail;
  if found then perform nudge(v_mail.kind || '_notify', array[v_mail.attempt_after - now()]); end if;
end
$$;

-- No arrow: Resend certainly did not take it, because of a sender that it was frozen with and that is ours no more. That says
-- nothing about other mails: it waits alone until its claim's delay is over, under its key, and its horizon runs on.
create or replace function note_notification_refused(p_id uuid, p_claim_id uuid, p_uncertain_since timestamptz, p_code text, p_reason text) returns void
language plpgsql volatile as $$
declare
  v_mail notifications;
begin
  update notifications n set uncertain_since = p_uncertain_since, claim_id = null, failure_code = p_code, failure_message = p_reason
   where n.id = p_id and n.status = 'sealed' and n.claim_id = p_claim_id
  returning n.* into v_mail;
  if found then perform nudge(v_mail.kind || '_notify', array[v_mail.attempt_after - now()]); end if;
end
$$;

-- No arrow: Resend certainly did not take it, for a reason that is not this mail's (rate, quota, key, sender). The claim is undone,
-- and the gate stays shut: for everybody, or for one sender (p_sender). Whoever shut it goes to the end of the queue, so that
-- what the gate keeps back is tried before it: were the reason this mail's after all, it would shut it again.
create or replace function shut_mail_gate(p_id uuid, p_claim_id uuid, p_uncertain_since timestamptz,
                                          p_wait interval, p_code text, p_reason text, p_sender text default null) returns void
language plpgsql volatile as $$
begin
  -- No longer than five minutes: an operator may open the gate before its time.
  update notifications n
     set attempts = n.attempts - 1, attempt_after = now() + least(p_wait, interval '5 minutes'), uncertain_since = p_uncertain_since,
         claim_id = null, failure_code = p_code, failure_message = p_reason
   where n.id = p_id and n.status = 'sealed' and n.claim_id = p_claim_id;
  perform pause_mail(p_wait, p_reason, p_sender);
end
$$;

-- Shuts the gate. A longer wait stands, with its reason, unless it was one sender's only and this is everybody's.
create or replace function pause_mail(p_wait interval, p_reason text, p_sender text default null) returns void
language plpgsql volatile as $$
begin
  update mail_gate g set closed_until = now() + p_wait, reason = p_reason, sender = p_sender
   where case when g.closed_until <= now() or g.sender is not distinct from p_sender then g.closed_until < now() + p_wait
              else p_sender is null end;
  if found then perform nudge('pre_notify', array[p_wait]), nudge('post_notify', array[p_wait]); end if;
end
$$;

-- ---------------------------------------------------------------------------------------- workers come and go

-- What this database has been migrated with, for processes that may not read tables.
create or replace function applied_sql_files() returns table (name text, sha256 text)
language sql stable as $$
  select m.name, m.sha256 from thaw_migrations m
$$;

-- Whoever lives holds this lock, on a connection that does nothing else.
create or replace function worker_lock(p_worker text) returns bigint language sql immutable as $$ select hashtextextended(p_worker, 0) $$;

-- To be called on the connection that lives and dies with the worker. The lock comes first: a row without it is a dead worker's.
create or replace function enter_worker(p_worker text) returns void
language plpgsql volatile as $$
begin
  perform pg_advisory_lock(worker_lock(p_worker));
  insert into workers (id) values (p_worker) on conflict do nothing;
end
$$;

-- The last word of a worker that was told to stop: what it had claimed and not begun is everybody's again.
create or replace function leave_worker(p_worker text) returns void
language plpgsql volatile as $$
begin
  delete from workers w where w.id = p_worker;
  perform give_back(array[p_worker]);
end
$$;

-- Gives back what dead workers held. Taking a living worker's rows away would be wasteful, not wrong: its reports are
-- guarded by claim_id, and mails by their key. Answers how many had died.
create or replace function reap_dead_workers() returns integer
language plpgsql volatile as $$
declare
  v_dead text[];
begin
  v_dead := array(select w.id from workers w
                   where pg_postmaster_start_time() < now() - reconnect_grace() and pg_try_advisory_xact_lock(worker_lock(w.id)));
  if v_dead = '{}' then return 0; end if;
  delete from workers w where w.id = any (v_dead);
  perform give_back(v_dead);
  return cardinality(v_dead);
end
$$;

-- Claims at once instead of when their lease ends, and graphile-worker's jobs, which it would keep locked for four hours.
create or replace function give_back(p_workers text[]) returns void
language plpgsql volatile as $$
begin
  -- A row that several workers died with may be what kills them: it waits until its lease ends.
  perform lock_restores(array(select r.id from restores r
                               where r.claimed_by = any (p_workers) and r.claim_id is not null and r.closed_at is null));
  update restores r set attempt_after = now(), claim_id = null
   where r.claimed_by = any (p_workers) and r.claim_id is not null and r.closed_at is null
     and (r.attempts <= 3 or r.failure_code = 'SlowDown');
  update notifications n set attempt_after = now(), claim_id = null
   where n.status = 'sealed' and n.claimed_by = any (p_workers) and n.claim_id is not null and n.attempts <= 3;

  perform graphile_worker.force_unlock_workers(p_workers);
  perform nudge('trigger_restores'), nudge('poll_pending_restores'), nudge('pre_notify'), nudge('post_notify');
end
$$;

-- Jobs that failed for good are kept a day for whoever looks, then they only make graphile-worker's table long.
-- What they nudged is long done by the next nudge. Answers how many.
create or replace function forget_failed_jobs() returns integer
language sql volatile as $$
  select count(*)::integer
    from graphile_worker.complete_jobs(array(
      select j.id from graphile_worker.jobs j
       where j.attempts >= j.max_attempts and coalesce(j.locked_at, j.updated_at) < now() - interval '1 day'))
$$;

-- ---------------------------------------------------------------------------------------- operators

-- Tries again now, whatever state it is in. Takes the id of a restore or of a request; says what it did.
create or replace function retry_restore(p_id uuid) returns text
language plpgsql volatile as $$
declare
  v_restore restores;
begin
  select r.* into v_restore from restores r
   where r.id = coalesce((select q.restore_id from restore_requests q where q.id = p_id), p_id) for update;
  if not found then
    raise exception 'there is no restore or request %', p_id using hint = 'Take an id from stuck_requests, restores or restore_requests.';
  end if;
  if v_restore.closed_at is not null then
    return 'this restore is closed; the next read of the object opens a new one, nothing to retry';
  end if;
  case v_restore.status
    when 'not_started' then
      update restores set attempt_after = now(), failing_since = null where id = v_restore.id;
      perform nudge('trigger_restores');
      return 'S3 is asked again now';
    when 'pending' then
      update restores set head_wanted_at = now(), attempt_after = now(), failing_since = null where id = v_restore.id;
      perform nudge('poll_pending_restores');
      return 'S3 is asked now how far it is';
    when 'restored' then
      update restores set head_wanted_at = now(), attempt_after = now() where id = v_restore.id;
      perform nudge('poll_pending_restores');
      return 'S3 is asked now whether it is still readable';
    when 'failed' then
      return 'a new restore begins, and its readers are told: ' || (select string_agg(n::text, ', ') from reopen_restores(array[v_restore.id], true) n);
  end case;
end
$$;

-- Sends a mail once more, under a new key: Resend will not recognise it, so a person may get it twice. That is
-- for an operator to decide, and this is how. Answers the new notification's id.
create or replace function resend_notification(p_id uuid) returns uuid
-- Anybody who may connect can take an advisory lock: nobody waits for ever for it.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_old notifications;
  v_new uuid := gen_random_uuid();
begin
  -- What is sent again must not be forgotten meanwhile.
  perform pg_advisory_xact_lock(forget_lock());
  select n.* into v_old from notifications n where n.id = p_id for update;
  if not found then
    raise exception 'there is no notification %', p_id using hint = 'Take an id from stuck_requests or notifications.';
  elsif v_old.status = 'sealed' then
    raise exception 'notification % is still being sent (attempts: %, next not before %)', p_id, v_old.attempts, v_old.attempt_after
      using hint = 'Wait for it to be sent, failed or unknown. Is the mail_gate closed?';
  elsif v_old.superseded_by is not null then
    raise exception 'notification % was sent again already, as %', p_id, v_old.superseded_by;
  end if;
  insert into notifications (id, kind, email, body) values (v_new, v_old.kind, v_old.email, v_old.body);
  update notifications set superseded_by = v_new where id = p_id;
  update announcements set notification_id = v_new where notification_id = p_id;
  update restore_requests set pre_notification_id = v_new where pre_notification_id = p_id;
  update restore_requests set post_notification_id = v_new where post_notification_id = p_id;
  perform nudge(v_old.kind || '_notify');
  return v_new;
end
$$;
