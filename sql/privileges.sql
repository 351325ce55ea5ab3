-- Who may do what (roles.sql makes the roles). Applied by every migration, last. A role that does not exist is passed over:
-- a Thaw whose processes all connect as the owner needs none of them.
--
-- Whatever a process calls runs with its owner's rights (security definer), and finds our tables whatever its caller put
-- on the search path.

do $$
declare
  v_server text[] := array['applied_sql_files', 'request_restores', 'complete_restores'];
  v_worker text[] := array['applied_sql_files', 'nudge', 'lock_restores', 'resolve_requests',
    'claim_restores_to_trigger', 'claim_restores_to_poll', 'close_finished_restores', 'forget_old_restores',
    'mark_restores_pending', 'mark_restores_restored', 'mark_restores_failed', 'mark_restores_lost', 'mark_restores_expired',
    'note_restores_checked', 'note_restore_troubles',
    'due_people', 'seal_notification', 'unseal_stale_notifications', 'take_mail_turn', 'claim_notifications',
    'mark_notification_sent', 'mark_notification_undeliverable', 'note_notification_uncertain', 'shut_mail_gate', 'note_mail_limit',
    'enter_worker', 'leave_worker', 'reap_dead_workers', 'forget_failed_jobs'];
  v_has_server boolean := to_regrole('thaw_server') is not null;
  v_has_worker boolean := to_regrole('thaw_worker') is not null;
  v_object record;
begin
  for v_object in
    select p.oid::regprocedure as signature, p.proname as name from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proowner = current_user::regrole and p.proname = any (v_server || v_worker)
  loop
    execute format('alter function %s security definer set search_path = public, pg_temp', v_object.signature);
    execute format('revoke all on function %s from public', v_object.signature);
    if v_has_server and v_object.name = any (v_server) then
      execute format('grant execute on function %s to thaw_server', v_object.signature);
    end if;
    if v_has_worker and v_object.name = any (v_worker) then
      execute format('grant execute on function %s to thaw_worker', v_object.signature);
    end if;
  end loop;

  -- graphile-worker under a role with mere grants starts, and silently runs nothing.
  if v_has_worker then
    if (select n.nspowner <> 'thaw_worker'::regrole from pg_namespace n where n.nspname = 'graphile_worker') then
      alter schema graphile_worker owner to thaw_worker;
    end if;
    for v_object in
      select format('alter %s %s owner to thaw_worker', case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end, c.oid::regclass) as command
        from pg_class c
       where c.relnamespace = 'graphile_worker'::regnamespace and c.relowner <> 'thaw_worker'::regrole and c.relkind in ('r', 'p', 'v', 'S')
         and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i') and c.relkind = 'S') -- follows its table
      union all
      select format('alter routine %s owner to thaw_worker', p.oid::regprocedure)
        from pg_proc p where p.pronamespace = 'graphile_worker'::regnamespace and p.proowner <> 'thaw_worker'::regrole
      union all
      select format('alter type %s owner to thaw_worker', t.oid::regtype)
        from pg_type t left join pg_class c on c.oid = t.typrelid
       where t.typnamespace = 'graphile_worker'::regnamespace and t.typowner <> 'thaw_worker'::regrole
         and (c.relkind = 'c' or (t.typrelid = 0 and t.typelem = 0)) -- not those that tables bring along
    loop
      execute v_object.command;
    end loop;

    -- What a mail says is read under the same locks that seal it; its body is the worker's to write, once.
    grant select on restores, restore_requests, announcements, notifications, mail_gate to thaw_worker;
    grant insert (id, kind, email, body) on notifications to thaw_worker;
  end if;

  if to_regrole('thaw_reader') is not null then
    grant select on untold_requests, stuck_requests, request_status, mail_status to thaw_reader;
    grant usage on schema graphile_worker to thaw_reader;
    grant select on graphile_worker.jobs to thaw_reader;
  end if;
end
$$;
