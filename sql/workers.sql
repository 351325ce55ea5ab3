-- Workers come and go. A live worker holds an advisory lock; the claims and jobs of dead ones are released.

-- The SQL files that were applied to this database, for processes that may not read tables.
create or replace function applied_sql_files() returns table (name text, sha256 text)
language sql stable as $$
  select m.name, m.sha256 from thaw_migrations m
$$;

-- A live worker holds this lock on a dedicated connection.
create or replace function worker_lock(p_worker text) returns bigint language sql immutable as $$ select hashtextextended(p_worker, 0) $$;

-- Whether that worker is alive: a living one holds its lock. (pg_locks shows the key of an advisory lock as two halves; objsubid 1 marks
-- a key of one bigint.)
create or replace function is_worker_alive(p_worker text) returns boolean language sql stable as $$
  select exists (select from pg_locks l
                  where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                    and l.database = (select d.oid from pg_database d where d.datname = current_database())
                    and l.classid::bigint = (worker_lock(p_worker) >> 32) & 4294967295 and l.objid::bigint = worker_lock(p_worker) & 4294967295)
$$;

-- Call it on the connection that lives as long as the worker. The lock comes before the row: a row without a lock means that the
-- worker is dead.
create or replace function enter_worker(p_worker text) returns void
language plpgsql volatile as $$
begin
  perform pg_advisory_lock(worker_lock(p_worker));
  insert into workers (id) values (p_worker) on conflict do nothing;
end
$$;

-- A worker that was told to stop calls this last: what it has claimed and not begun becomes due for the others.
create or replace function leave_worker(p_worker text) returns void
language plpgsql volatile as $$
begin
  delete from workers w where w.id = p_worker;
  perform release_work(array[p_worker]);
end
$$;

-- Releases the work of dead workers; returns how many were dead. To take a live worker's rows by mistake would waste calls, but do
-- no harm: claim_id guards its reports, and the idempotency key its mails.
create or replace function reap_dead_workers() returns integer
language plpgsql volatile as $$
declare
  v_dead text[];
begin
  v_dead := array(select w.id from workers w
                   where pg_postmaster_start_time() < now() - reconnect_grace() and pg_try_advisory_xact_lock(worker_lock(w.id)));
  if v_dead = '{}' then return 0; end if;
  delete from workers w where w.id = any (v_dead);
  perform release_work(v_dead);
  return cardinality(v_dead);
end
$$;

-- Releases claims before their lease ends, and graphile-worker's jobs, which would stay locked for four hours.
create or replace function release_work(p_workers text[]) returns void
language plpgsql volatile as $$
begin
  -- A row that several workers died with may be the cause: it stays claimed until its lease ends.
  perform lock_restores(array(select r.id from restores r
                               where r.claimed_by = any (p_workers) and r.claim_id is not null and r.closed_at is null));
  update restores r set attempt_after = now(), ask_after = least(r.ask_after, now()), claim_id = null
   where r.claimed_by = any (p_workers) and r.claim_id is not null and r.closed_at is null
     and (r.attempts <= 3 or r.failure_code = 'SlowDown');
  update looks l set attempt_after = now(), claim_id = null
   where l.claimed_by = any (p_workers) and l.claim_id is not null and l.attempts <= 3;
  update notifications n set attempt_after = now(), claim_id = null
   where n.status = 'sealed' and n.claimed_by = any (p_workers) and n.claim_id is not null and n.attempts <= 3;

  perform graphile_worker.force_unlock_workers(p_workers);
  perform nudge('trigger_restores'), nudge('poll_pending_restores'), nudge('pre_notify'), nudge('post_notify');
end
$$;
