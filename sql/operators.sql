-- Functions that operators call in psql. README.md, "Operating", has an example of each.

-- Retries an open restore now, in any state. Takes the id of a restore or of a request; returns a sentence that says what it did.
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
