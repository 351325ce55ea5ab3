-- Rules that the other pages share: delays, limits, leases, what is still to be told, how a job is added, how plans are pinned.
--
-- The pages are applied in this order: rules, times, history, people, cost, transitions, looks, mails, workers, retention, operators,
-- cost_operators, orders, views, cost_views, metrics, privileges, comments.
-- Each is applied again when its text changes. During a deploy, processes of this release and of the release before run side by
-- side. So a function that a process calls keeps its name, its arguments and its results; it may only get more of them.
-- (test/postgres/upgrade.test.ts lists the calls of the release before: forget_old_restores and forget_failed_jobs, for example,
-- keep their names.) A function that no process of the two calls any more is dropped by a numbered migration.
--
-- How plans are pinned. The cost of a step must not depend on how much else waits. So no plan may depend on the table statistics
-- of the moment: these tables fill and empty within minutes. There are five recipes; functions and views refer to them by name.
--   page by key   A statement that changes a page of a large table has two parts. First an array of ids: read in the order of an
--                 index, with a limit, locking what it takes and skipping what is locked. Then the change, by primary key:
--                 where id = any (that array). If the change joined its page instead, the planner would not know the limit: with
--                 half of the table waiting it hashes the whole table for fifty rows.
--   row by row    A subquery with offset 0, mostly in cross join lateral or exists. Postgres cannot merge it into a join, so it
--                 stays an index lookup for each outer row.
--   by index      set enable_seqscan = off, and where needed enable_bitmapscan, enable_sort, enable_hashjoin, enable_mergejoin: an
--                 index exists that makes these needless. privileges.sql also turns off JIT and parallel workers for each such
--                 function: the estimated cost of such a plan is high, and JIT compilation takes longer than the page.
--   one plan      set plan_cache_mode = force_generic_plan: planned once per session. Planning each call anew is half of the work
--                 of a small statement.
--   fresh plan    set plan_cache_mode = force_custom_plan: planned at each call, for arrays of up to mail_page() ids. A generic
--                 plan assumes ten, and would compare each row with each.
-- test/sql/plans.test.ts checks the plan of each recurring statement, at size.

-- CloudTrail delivers events minutes late: a read up to this long after restored_at counts as made before it.
create or replace function late_read_grace() returns interval language sql immutable as $$ select interval '5 minutes' $$;
-- The answer to a Completed event counts at most this many readers per restore, so that it takes a millisecond at most.
create or replace function readers_counted() returns integer language sql immutable as $$ select 1000 $$;
-- Retries stop after this time and at least this many tries (half a night of backoff); then the readers are told. The number is
-- needed too: two tries do not prove much if no worker ran in the day between them.
create or replace function give_up_after() returns interval language sql immutable as $$ select interval '24 hours' $$;
create or replace function give_up_tries() returns integer language sql immutable as $$ select 10 $$;
-- A failed restore stays open this long: further reads only count. The next read after that opens a new restore.
create or replace function failed_stays_open() returns interval language sql immutable as $$ select interval '24 hours' $$;
-- Right after S3 accepts a restore, HEAD may not show it yet. Only after this time does "archived" mean that S3 lost it.
create or replace function lost_grace() returns interval language sql immutable as $$ select interval '15 minutes' $$;
-- After this many losses of one restore, retrying will not help: it fails.
create or replace function lost_limit() returns integer language sql immutable as $$ select 3 $$;
-- How long a restore waits for readers whose address is unknown.
create or replace function unknown_reader_wait() returns interval language sql immutable as $$ select interval '7 days' $$;
-- At most this many requests are attached to a mail, marked as told, or detached in one transaction. A POST for one of these
-- objects waits meanwhile: about 50 ms here, and on a slow Postgres still well below the lock_timeout of request_restores.
create or replace function mail_page() returns integer language sql immutable as $$ select 500 $$;
-- After this time the text of a mail is out of date; if Resend has certainly not accepted it, it is written anew.
create or replace function mail_stays_fresh() returns interval language sql immutable as $$ select interval '10 minutes' $$;
-- No reserved send slot is further ahead than this: workers reserve at most one second ahead, and a slower rate may stretch that.
create or replace function mail_turn_horizon() returns interval language sql immutable as $$ select interval '5 seconds' $$;
-- Resend remembers an idempotency key for 24 hours. One hour is kept in reserve, also for a clock that is set back.
create or replace function idempotency_key_lifetime() returns interval language sql immutable as $$ select interval '23 hours' $$;

-- The time between two calls of Resend: 3 percent more than its limit allows. Some calls travel faster than others, and one
-- call too many in a second stops all mail for a second.
create or replace function call_interval(p_calls_per_second double precision) returns interval language sql immutable as
  $$ select interval '1 second' / (0.97 * p_calls_per_second) $$;

-- Right after a start of Postgres all workers look dead, until they have reconnected.
create or replace function reconnect_grace() returns interval language sql immutable as $$ select interval '20 seconds' $$;

-- Lease and backoff in one: 1 minute (longer than all calls for one row may take) to 1 hour.
create or replace function retry_delay(p_attempts integer) returns interval language sql immutable as $$
  select least(interval '1 hour', interval '1 minute' * power(2, least(p_attempts, 10) - 1))
$$;

-- S3 throttles us (SlowDown); the object is not at fault, so back off briefly: 2 seconds to 1 hour.
create or replace function busy_delay(p_attempts integer) returns interval language sql immutable as $$
  select least(interval '1 hour', interval '2 seconds' * power(2, least(p_attempts, 12) - 1))
$$;

-- The lease of a claim. Attempts that S3 throttled do not lengthen it: its calls take no longer for that.
create or replace function lease(r restores) returns interval language sql immutable as $$
  select retry_delay(case r.failure_code when 'SlowDown' then 1 else r.attempts + 1 end)
$$;

-- S3 is still restoring although an event said that it is done: ask again when the event is twice as old, so after 1 minute to
-- 1 hour. A false event for a restore that takes ten hours costs 17 calls, and a true event is never dropped.
create or replace function ask_again_delay(p_head_wanted_at timestamptz) returns interval language sql stable as $$
  select retry_delay(1 + floor(log(2, greatest(1, extract(epoch from now() - p_head_wanted_at) / 60)::numeric))::integer)
$$;

-- Whether an event came after the claim: then the outcome of that claim says nothing about the event.
create or replace function was_asked_too_early(r restores) returns boolean language sql immutable as $$
  select coalesce(r.head_wanted_at > r.claimed_at, false)
$$;

-- Whether S3 has failed for it long and often enough to give up.
create or replace function retries_exhausted(r restores) returns boolean language sql stable as $$
  select r.failing_since <= now() - give_up_after() and r.attempts >= give_up_tries()
$$;

-- What a reader has still to be told of their restore: pre, that it has begun; post, how it ended. Partial indexes repeat these
-- conditions (0008_mail_pages.sql).
create or replace function is_untold_pre(q restore_requests) returns boolean language sql immutable as $$
  select q.pre_notification_id is null and q.restore_status = 'pending' and q.email is not null and not q.observed
$$;

create or replace function is_untold_post(q restore_requests) returns boolean language sql immutable as $$
  select q.post_notification_id is null and q.restore_status in ('restored', 'failed') and q.email is not null and not q.observed
$$;

-- The task that writes and sends mails of a kind: all that is not about an outcome is pre_notify's.
create or replace function notify_task(p_kind notification_kind) returns text language sql immutable as $$
  select case p_kind when 'post' then 'post_notify' else 'pre_notify' end
$$;

-- Whether a reader of a restore that is over still waits to be told. An unknown reader does for unknown_reader_wait(), for the map may
-- name them yet: the sweep counts from when the file became readable, a new restore (which costs money) from their request.
create or replace function awaits_post(q restore_requests, p_since timestamptz) returns boolean language sql stable as $$
  select is_untold_post(q) or (q.post_notification_id is null and q.email is null and not q.observed and p_since > now() - unknown_reader_wait())
$$;

-- When a restore is over: a read event newer than this needs a new restore. Null while it is not_started or pending.
create or replace function over_at(r restores) returns timestamptz language sql stable as $$
  select case
    when r.status = 'failed' then r.status_at + failed_stays_open()
    when r.status = 'restored' then coalesce(r.restore_expires_at, r.status_at + late_read_grace())
  end
$$;

-- Adds a job for a task, after each of p_waits. A nudge is a hint without payload: the tables say what is due, and the crontab finds
-- what no nudge announced. So it needs few attempts.
--
-- Few jobs wait, however many commits nudge: none is added if a job of that task exists that runs not much later than wanted and
-- cannot start before our commit. It cannot because we lock it: graphile-worker takes jobs with for update skip locked. (A job
-- that was taken before we got the lock is no longer available, and does not match.) The lock is shared (key share): any number
-- of commits can rely on the same job.
--   At once: rely on the newest job that may start, if an older one waits too. Workers take the oldest first, so a stream of
--   commits never locks the last one away from them.
--   Later: rely on a job within an eighth of the wait. The first job of a stream runs at the time wanted, each further one at the
--   end of the next eighth.
-- Concurrent commits do not see each other's jobs and add one each. A job_key would not do: each commit would wait for the one
-- before to replace the job, and add_job then loses requests (graphile/worker#580).
--
-- Recipe: one plan, by index (graphile-worker's index, in its order).
create or replace function nudge(p_task text, p_waits interval[] default array[interval '0']) returns void
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
      -- A job has been due for 10 seconds although workers look every two seconds, so none is running. Postpone that job instead
      -- of adding one per eighth. Commits that relied on it are over, for we have its lock; and the oldest job stays, which also
      -- starts after their commit.
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

-- The job of a task that a worker would take first; null: none may start.
create or replace function first_job(p_task integer) returns bigint language sql volatile as $$
  select j.id from graphile_worker._private_jobs j
   where j.task_id = p_task and j.is_available and j.priority = 0 and j.run_at <= clock_timestamp() and j.key is null
   order by j.run_at, j.id limit 1
$$;

-- Locks in the one order in which all functions lock restores, so that there is no deadlock.
create or replace function lock_restores(p_ids uuid[]) returns void
language plpgsql volatile as $$
begin
  perform from restores r where r.id = any (p_ids) order by r.s3_bucket, r.s3_key, r.version_id, r.id for update;
end
$$;

-- Which of these restores are open and in one of these states, each found by its key. For changes of rows that the caller has locked:
-- they ask for the key alone. Recipe: page by key, row by row.
create or replace function open_with_status(p_ids uuid[], p_statuses restore_status[]) returns setof uuid
language sql stable as $$
  select k.id from unnest(p_ids) k (id)
   cross join lateral (select o.status, o.closed_at from restores o where o.id = k.id offset 0) r
   where r.closed_at is null and r.status = any (p_statuses)
$$;

