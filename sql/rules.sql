-- Rules that every page below shares: delays and limits, leases, how a job is added, how plans are pinned.
--
-- The pages are applied in this order: rules, people, transitions, mails, workers, retention, operators, views, privileges.
-- Each is applied again when its text changes. Old and new processes run side by side during a deploy, so the arguments and
-- results of a function that a process calls only ever grow.
--
-- How plans are pinned. What one step costs must not depend on what else waits, so no plan may depend on the statistics of the
-- moment: tables here fill and empty within minutes. Four recipes; functions and views refer to them by name.
--   page by key   A statement that takes a page of a large table has two parts: an array of ids (a look-up in the order of an
--                 index, with a limit, which locks what it takes and skips what is locked), then the change, by key:
--                 where id = any (that array). A join of the change with its page would be planned without knowing the limit:
--                 with half of the table waiting it hashes all of it for fifty rows.
--   row by row    cross join lateral (select ... offset 0): offset 0 keeps Postgres from merging the subquery into a join, so
--                 that it is a look-up by index for each row of what stands before it.
--   by index      set enable_seqscan, enable_bitmapscan, enable_sort, enable_hashjoin, enable_mergejoin = off: what an index
--                 makes needless. privileges.sql turns JIT and parallel workers off for each such function: on paper such a plan
--                 is expensive, and compiling it takes longer than the page.
--   one plan      set plan_cache_mode = force_generic_plan: planned once per session. Planning anew for each call is half of
--                 the work of a small statement.
-- test/sql/plans.test.ts checks the plan of each recurring statement, at size.

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
create or replace function idempotency_key_lifetime() returns interval language sql immutable as $$ select interval '23 hours' $$;

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
create or replace function retries_exhausted(r restores) returns boolean language sql stable as $$
  select r.failing_since <= now() - give_up_after() and r.attempts >= give_up_tries()
$$;

-- What a reader has still to be told of their restore: pre, that it has begun; post, how it ended. Partial indexes repeat these
-- conditions (0008_mail_pages.sql).
create or replace function is_untold_pre(q restore_requests) returns boolean language sql immutable as $$
  select q.pre_notification_id is null and q.restore_status = 'pending' and q.email is not null
$$;

create or replace function is_untold_post(q restore_requests) returns boolean language sql immutable as $$
  select q.post_notification_id is null and q.restore_status in ('restored', 'failed') and q.email is not null
$$;

-- Whether a reader of a restore that is over still waits to be told. An unknown reader does for unknown_reader_wait() after
-- p_since: the map may name them yet.
create or replace function awaits_post(q restore_requests, p_since timestamptz) returns boolean language sql stable as $$
  select is_untold_post(q) or (q.post_notification_id is null and q.email is null and p_since > now() - unknown_reader_wait())
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
