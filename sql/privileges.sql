-- The rights of each role (roles.sql creates the roles). Applied last, by every migration. A role that does not exist is skipped:
-- a Thaw whose processes all connect as the owner needs none of them.
--
-- The functions that processes call run with their owner's rights (security definer), and with a search path of their own, so
-- that a caller's search path cannot put other tables under them.

do $$
declare
  v_server text[] := array['applied_sql_files', 'request_restores', 'locked_reads', 'complete_restores'];
  v_worker text[] := array['applied_sql_files', 'nudge', 'resolve_requests', 'claim_identities', 'note_identities',
    'claim_restores_to_trigger', 'claim_restores_to_poll', 'close_finished_restores', 'forget_old_restores',
    'claim_looks', 'hand_in_looks', 'drop_looks', 'note_look_troubles', 'settle_restores', 'admit_restores', 'settle_holds', 'add_costs_up', 'forget_old_holds', 'due_notices', 'seal_notice',
    'due_people', 'seal_page', 'seal_more', 'freeze_notification', 'unfinished_notifications',
    'unseal_stale_notifications', 'take_mail_turn', 'claim_notifications',
    'mark_notification_sent', 'mark_more_readers', 'mark_notification_undeliverable', 'note_notification_uncertain',
    'note_notification_refused', 'shut_mail_gate', 'note_mail_limit',
    'enter_worker', 'leave_worker', 'reap_dead_workers', 'forget_failed_jobs', 'forget_old_actions', 'add_totals_up', 'note_task_run'];
  v_operator text[] := array['applied_sql_files', 'retry_restore', 'give_up_restore', 'resend_notification', 'resolve_notification',
    'open_mail_gate', 'close_mail_gate', 'approve_hold', 'refuse_hold', 'import_users', 'remove_user', 'erase_person', 'who_reads', 'resolve_requests', 'nudge',
    'find_ids',
    'set_policy', 'remove_policy', 'import_policies', 'set_limit', 'remove_limit', 'import_prices', 'check_read', 'check_limits', 'check_tiers',
    'preview_order', 'order_limits', 'open_order', 'order_restores', 'locked_reads'];
  -- What the views call with the owner's rights.
  v_reader text[] := array['old_transactions'];
  -- Nobody calls these. A role that could would put them on a table of its own, and write history that never was.
  v_triggers text[] := array['note_opened', 'note_moved', 'note_mailed', 'forget_history', 'limits_keep_their_kind', 'derive_reader'];
  v_has_operator boolean := to_regrole('thaw_operator') is not null;
  v_has_server boolean := to_regrole('thaw_server') is not null;
  v_has_worker boolean := to_regrole('thaw_worker') is not null;
  v_object record;
begin
  for v_object in
    select p.oid::regprocedure as signature, p.proname as name from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proowner = current_user::regrole and p.proname = any (v_server || v_worker || v_operator || v_reader || v_triggers)
  loop
    execute format('alter function %s security definer set search_path = public, pg_temp', v_object.signature);
    execute format('revoke all on function %s from public', v_object.signature);
    if v_has_server and v_object.name = any (v_server) then
      execute format('grant execute on function %s to thaw_server', v_object.signature);
    end if;
    if v_has_worker and v_object.name = any (v_worker) then
      execute format('grant execute on function %s to thaw_worker', v_object.signature);
    end if;
    if v_has_operator and v_object.name = any (v_operator) then
      execute format('grant execute on function %s to thaw_operator', v_object.signature);
    end if;
  end loop;

  -- Functions that are in no list any more: the owner's rights, and what roles were granted, go with their place in it. A process of
  -- the release before that restarts meanwhile applies its own list.
  for v_object in
    select p.oid::regprocedure as signature from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proowner = current_user::regrole and p.prosecdef
       and p.proname <> all (v_server || v_worker || v_operator || v_reader)
       and exists (select from aclexplode(p.proacl) a where a.grantee in (to_regrole('thaw_server'), to_regrole('thaw_worker'), to_regrole('thaw_operator')))
  loop
    execute format('alter function %s security invoker reset search_path', v_object.signature);
    if v_has_server then execute format('revoke all on function %s from thaw_server', v_object.signature); end if;
    if v_has_worker then execute format('revoke all on function %s from thaw_worker', v_object.signature); end if;
    if v_has_operator then execute format('revoke all on function %s from thaw_operator', v_object.signature); end if;
  end loop;

  -- Functions that pin their plans also turn off JIT and parallel workers, for every caller: where enable_seqscan is off and a plan
  -- still needs a sequential scan, its estimated cost is so high that JIT, which is on by default, would compile it at each call.
  for v_object in
    select p.oid::regprocedure as signature from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proowner = current_user::regrole
       and (p.proname = any (v_server || v_worker || v_operator) or exists (select from unnest(p.proconfig) c where c ~ '^(enable_|plan_cache_mode)'))
  loop
    execute format('alter function %s set jit = off set max_parallel_workers_per_gather = 0', v_object.signature);
  end loop;

  -- A role that may create an operator in a schema on our functions' search path can make their owner run its code. Postgres 14
  -- allows this to all roles, and only the schema's owner can revoke it. If we are not the owner, server and worker refuse to
  -- start (server/postgres/rights.ts).
  if has_schema_privilege('public', 'public', 'create')
     and (select pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = 'public') then
    revoke create on schema public from public;
  end if;

  if v_has_worker then
    -- Our functions call graphile-worker's with their owner's rights: the owner of graphile-worker's functions could put any code
    -- there. Early versions of this file made the worker their owner; this takes it back.
    if (select n.nspowner = 'thaw_worker'::regrole from pg_namespace n where n.nspname = 'graphile_worker') then
      reassign owned by thaw_worker to current_user;
    end if;
    grant usage on schema graphile_worker to thaw_worker;
    grant select on all tables in schema graphile_worker to thaw_worker;
    grant execute on all functions in schema graphile_worker to thaw_worker;
    for v_object in
      select c.oid, c.oid::regclass as name from pg_class c
       where c.relnamespace = 'graphile_worker'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'migrations'
    loop -- the worker may not write graphile-worker's migrations
      execute format('grant insert, update, delete on %s to thaw_worker', v_object.name);
      -- With grants alone graphile-worker starts and silently runs nothing: row-level security hides all jobs from a role that is
      -- not the owner.
      if not exists (select from pg_policy p where p.polrelid = v_object.oid and p.polname = 'thaw_worker') then
        execute format('create policy thaw_worker on %s to thaw_worker using (true)', v_object.name);
      end if;
    end loop;

    -- The worker renders a mail in the transaction that seals it, so it reads these tables itself, and inserts the mail.
    grant select on restores, restore_requests, announcements, notifications, mail_gate, holds, notices, limits, spending to thaw_worker;
    grant insert (id, kind, email, body, notice_id) on notifications to thaw_worker;
    grant execute on function usual_hours to thaw_worker;
  end if;

  for v_object in select r.rolname as name from pg_roles r where r.rolname in ('thaw_reader', 'thaw_operator') loop
    execute format('grant usage on schema graphile_worker to %I', v_object.name);
    execute format('grant select on graphile_worker.jobs to %I', v_object.name);
    execute format('grant select on untold_requests, stuck_requests, request_status, mail_status, mail_gate_status, worker_status, job_status,
      findings, restore_steps, operator_actions, hourly_totals, told_times, restore_overview, oldest_waiting, waiting_looks, recent_failures,
      read_silence, silent_buckets, thaw_health, gauges, restore_details, restore_readers, unsent_mails, times_to_readable,
      hold_overview to %I', v_object.name);
    execute format('grant select on policy_list, limit_list, limit_status, hold_list, held_restores, price_list,
      cost_by_person, cost_by_bucket, cost_by_prefix, cost_by_class, cost_by_month to %I', v_object.name);
    -- The views call them as the role that reads.
    execute format('grant execute on function is_untold_pre, is_untold_post, awaits_post, old_transactions, usual_hours to %I', v_object.name);
  end loop;
end
$$;
