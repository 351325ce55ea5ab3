-- What operators do: functions for psql, `npm run thaw` and the pages. Each leaves a row in actions. A function that finds no such
-- row raises no_data_found; one that does not apply in that state raises object_not_in_prerequisite_state.

-- Leaves what somebody did: who (actor()), to what, and what it was before and after. Shown on the restore, kept under retention.
create or replace function note_action(p_action text, p_target text, p_restore_id uuid, p_before jsonb, p_after jsonb) returns void
language sql volatile as $$
  insert into actions (actor, action, target, restore_id, before, after) values (actor(), p_action, p_target, p_restore_id, p_before, p_after)
$$;

-- The restore with this id, or that of the request with this id; locked.
create or replace function find_restore(p_id uuid) returns restores
language plpgsql volatile as $$
declare
  v_restore restores;
begin
  select r.* into v_restore from restores r
   where r.id = coalesce((select q.restore_id from restore_requests q where q.id = p_id), p_id) for update;
  if not found then
    raise exception 'there is no restore or request %', p_id
      using errcode = 'no_data_found', hint = 'Take an id from stuck_requests, restores or restore_requests.';
  end if;
  return v_restore;
end
$$;

-- Retries an open restore now, in any state. Takes the id of a restore or of a request; returns a sentence that says what it did.
create or replace function retry_restore(p_id uuid) returns text
language plpgsql volatile as $$
declare
  v_restore restores := find_restore(p_id);
  v_did text;
begin
  if v_restore.closed_at is not null then
    return 'this restore is closed; the next read of the object opens a new one, nothing to retry';
  end if;
  case v_restore.status
    when 'not_started' then
      update restores set attempt_after = now(), failing_since = null where id = v_restore.id;
      perform nudge('trigger_restores');
      v_did := 'S3 is asked again now';
    when 'pending' then
      update restores set head_wanted_at = now(), attempt_after = now(), failing_since = null where id = v_restore.id;
      perform nudge('poll_pending_restores');
      v_did := 'S3 is asked now how far it is';
    when 'restored' then
      update restores set head_wanted_at = now(), attempt_after = now() where id = v_restore.id;
      perform nudge('poll_pending_restores');
      v_did := 'S3 is asked now whether it is still readable';
    when 'failed' then
      v_did := 'a new restore begins, and its readers are told: ' || (select string_agg(n::text, ', ') from reopen_restores(array[v_restore.id], true) n);
  end case;
  perform note_action('retry', v_restore.id::text, v_restore.id,
    jsonb_build_object('status', v_restore.status, 'failure_code', v_restore.failure_code), jsonb_build_object('did', v_did));
  return v_did;
end
$$;

-- Sends a mail once more, with a new idempotency key. Resend will not recognise it, so a person may get it twice: that is why only
-- an operator does this. Returns the id of the new notification.
create or replace function resend_notification(p_id uuid) returns uuid
-- lock_timeout: any database user can take the advisory lock below and keep it.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_old notifications;
  v_new uuid := gen_random_uuid();
begin
  -- Retention must not delete the mail meanwhile.
  perform pg_advisory_xact_lock(forget_lock());
  select n.* into v_old from notifications n where n.id = p_id for update;
  if not found then
    raise exception 'there is no notification %', p_id
      using errcode = 'no_data_found', hint = 'Take an id from stuck_requests or mail_status.';
  elsif v_old.status = 'sealed' then
    raise exception 'notification % is still being sent (attempts: %, next not before %)', p_id, v_old.attempts, v_old.attempt_after
      using errcode = 'object_not_in_prerequisite_state', hint = 'Wait for it to be sent, failed or unknown. Is the mail_gate closed?';
  elsif v_old.superseded_by is not null then
    raise exception 'notification % was sent again already, as %', p_id, v_old.superseded_by
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  insert into notifications (id, kind, email, body) values (v_new, v_old.kind, v_old.email, v_old.body);
  update notifications set superseded_by = v_new where id = p_id;
  update announcements set notification_id = v_new where notification_id = p_id;
  update restore_requests set pre_notification_id = v_new where pre_notification_id = p_id;
  update restore_requests set post_notification_id = v_new where post_notification_id = p_id;
  perform note_action('send again', p_id::text, null, jsonb_build_object('status', v_old.status), jsonb_build_object('notification_id', v_new));
  perform nudge(v_old.kind || '_notify');
  return v_new;
end
$$;

-- not_started, pending -> failed: an operator ends it, and its readers are told. S3 may go on restoring; Thaw no longer asks.
-- Takes the id of a restore or of a request; returns what it did.
create or replace function give_up_restore(p_id uuid) returns text
language plpgsql volatile as $$
declare
  v_restore restores := find_restore(p_id);
begin
  if v_restore.closed_at is not null or v_restore.status not in ('not_started', 'pending') then
    raise exception 'restore % is %, there is nothing to give up', v_restore.id, case when v_restore.closed_at is null then v_restore.status::text else 'closed' end
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  update restores r
     set status = 'failed', status_at = now(), failure_code = 'given_up', failure_message = 'An administrator has ended this restore.',
         claim_id = null, head_wanted_at = null
   where r.id = v_restore.id;
  perform note_action('give up', v_restore.id::text, v_restore.id, jsonb_build_object('status', v_restore.status), '{"status": "failed"}');
  perform nudge('post_notify');
  return 'given up; its readers are told';
end
$$;

-- What became of a mail of which nobody knows whether Resend took it: an operator has looked.
create or replace function resolve_notification(p_id uuid, p_was_sent boolean) returns text
language plpgsql volatile as $$
declare
  v_mail notifications;
begin
  select n.* into v_mail from notifications n where n.id = p_id for update;
  if not found then
    raise exception 'there is no notification %', p_id using errcode = 'no_data_found', hint = 'Take an id from mail_status.';
  elsif v_mail.status <> 'unknown' or v_mail.superseded_by is not null then
    raise exception 'notification % is %, not unknown', p_id, case when v_mail.superseded_by is null then v_mail.status::text else 'sent again' end
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  perform note_action('resolve', p_id::text, null, jsonb_build_object('status', v_mail.status), jsonb_build_object('was_sent', p_was_sent));
  if p_was_sent then
    perform mark_notification_sent(p_id, coalesce(v_mail.resend_id, 'noted by an operator'));
    return 'noted as sent';
  end if;
  return 'sent again, as ' || resend_notification(p_id);
end
$$;

-- Mail goes on at once, whatever shut the gate. Were the reason still there, the next refusal shuts it again.
create or replace function open_mail_gate() returns text
language plpgsql volatile as $$
declare
  v_gate mail_gate;
begin
  select g.* into v_gate from mail_gate g for update;
  if v_gate.closed_until <= now() then return 'the mail gate is open'; end if;
  update mail_gate g set closed_until = now();
  perform note_action('open the mail gate', 'mail_gate', null,
    jsonb_build_object('closed_until', v_gate.closed_until, 'reason', v_gate.reason, 'sender', v_gate.sender), '{}');
  perform nudge('pre_notify'), nudge('post_notify');
  return 'opened; it was shut until ' || to_char(v_gate.closed_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC: ' || v_gate.reason;
end
$$;

-- No mail goes out for this long, to look at something in peace (before a worker starts on a restored database, say).
create or replace function close_mail_gate(p_wait interval, p_reason text) returns text
language plpgsql volatile as $$
declare
  v_gate mail_gate;
begin
  select g.* into v_gate from mail_gate g for update;
  update mail_gate g set closed_until = now() + p_wait, reason = p_reason, sender = null;
  perform note_action('close the mail gate', 'mail_gate', null,
    jsonb_build_object('closed_until', v_gate.closed_until, 'reason', v_gate.reason), jsonb_build_object('closed_until', now() + p_wait, 'reason', p_reason));
  return 'closed until ' || to_char((now() + p_wait) at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC';
end
$$;

-- Whom the maps name for a key or an ARN, and by which rule. For roles that may not read the maps.
create or replace function who_reads(p_id text, p_session_domains text[] default '{}') returns table (email text, resolved_by text)
language sql stable as $$
  select f.email::text, f.resolved_by::text
    from find_person(case when p_id like 'arn:%' then '' else p_id end, case when p_id like 'arn:%' then p_id else '' end, '', p_session_domains) f
$$;

-- What an id or its beginning (8 characters or more, with or without hyphens) can mean: restores, requests and mails, ten of each at
-- most. about: what a person knows it by. mail_id: the latest mail about a request.
create or replace function find_ids(p_start text) returns table (kind text, id uuid, state text, about text, mail_id uuid)
language sql stable as $$
  with range as materialized (
    select rpad(s.digits, 32, '0')::uuid as first, rpad(s.digits, 32, 'f')::uuid as last
      from (select replace(lower(p_start), '-', '') as digits) s
     where s.digits ~ '^[0-9a-f]{8,32}$'),
  restore_ids as (
    select f.* from range b cross join lateral (
      select r.id, case when r.closed_at is null then r.status::text else 'closed' end as state, r.s3_bucket, r.s3_key
        from restores r where r.id between b.first and b.last order by r.id limit 10) f),
  request_ids as (
    select f.* from range b cross join lateral (
      select q.id, q.restore_id, q.email, coalesce(q.post_notification_id, q.pre_notification_id) as mail_id
        from restore_requests q where q.id between b.first and b.last order by q.id limit 10) f),
  mail_ids as (
    select f.* from range b cross join lateral (
      select n.id, n.kind, n.status, n.email from notifications n where n.id between b.first and b.last order by n.id limit 10) f)
  select 'restore', r.id, r.state, format('s3://%s/%s (%s)', r.s3_bucket, r.s3_key, r.state), null::uuid from restore_ids r
  union all
  select 'request', q.id, s.state, format('s3://%s/%s (%s), read by %s', r.s3_bucket, r.s3_key, s.state, coalesce(q.email, 'somebody unknown')), q.mail_id
    from request_ids q
    join restores r on r.id = q.restore_id
   cross join lateral (select case when r.closed_at is null then r.status::text else 'closed' end as state) s
  union all
  select 'mail', m.id, m.status::text, format('%s mail to %s (%s)', m.kind, m.email, m.status), null from mail_ids m
$$;
