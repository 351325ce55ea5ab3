-- What operators do: functions for psql, `npm run thaw` and the pages. Each leaves a row in actions. A function that finds no such
-- row raises no_data_found; one that does not apply in that state raises object_not_in_prerequisite_state.

-- Leaves what somebody did: who (actor()), to what, and what it was before and after. Shown on the restore, kept under retention.
create or replace function note_action(p_action text, p_target text, p_restore_id uuid, p_before jsonb, p_after jsonb) returns void
language sql volatile as $$
  insert into actions (actor, action, target, restore_id, before, after) values (actor(), p_action, p_target, p_restore_id, p_before, p_after)
$$;

-- A time as people read it; of the gate, infinity is what nobody has set an end to.
create or replace function utc_minute(p_at timestamptz) returns text language sql immutable as $$
  select case when isfinite(p_at) then to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') else 'somebody opens it' end
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

-- The mail with this id; locked. Retention must not delete it meanwhile, and takes its own lock first: so does this, or there could be
-- a deadlock. Any database user can take that advisory lock and keep it, hence lock_timeout.
create or replace function find_notification(p_id uuid) returns notifications
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_mail notifications;
begin
  perform pg_advisory_xact_lock(forget_lock());
  select n.* into v_mail from notifications n where n.id = p_id for update;
  if not found then
    raise exception 'there is no notification %', p_id
      using errcode = 'no_data_found', hint = 'Take an id from stuck_requests or mail_status.';
  end if;
  return v_mail;
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
  elsif v_restore.status = 'not_started' and exists (select from holds h where h.id = v_restore.hold_id and h.status = 'open') then
    return format('this restore waits for approval, so S3 is not asked; approve or refuse hold %s', v_restore.hold_id);
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
      v_did := coalesce('a new restore begins, and its readers are told: ' || (select string_agg(n::text, ', ') from reopen_restores(array[v_restore.id], true) n),
                        'closed, for nobody waits for it; the next read of the object opens a new one');
  end case;
  perform note_action('retry', v_restore.id::text, v_restore.id,
    jsonb_build_object('status', v_restore.status, 'failure_code', v_restore.failure_code), jsonb_build_object('did', v_did));
  return v_did;
end
$$;

-- Sends a mail once more, with a new idempotency key. Resend will not recognise it, so a person may get it twice: that is why only
-- an operator does this. Returns the id of the new notification.
create or replace function resend_notification(p_id uuid) returns uuid
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_old notifications := find_notification(p_id);
  v_new uuid := gen_random_uuid();
begin
  if v_old.status = 'sealed' then
    raise exception 'notification % is still being sent (attempts: %, next not before %)', p_id, v_old.attempts, v_old.attempt_after
      using errcode = 'object_not_in_prerequisite_state', hint = 'Wait for it to be sent, failed or unknown. Is the mail_gate closed?';
  elsif v_old.superseded_by is not null then
    raise exception 'notification % was sent again already, as %', p_id, v_old.superseded_by
      using errcode = 'object_not_in_prerequisite_state';
  elsif is_erased(v_old.email) then
    raise exception 'the person of notification % was erased', p_id using errcode = 'object_not_in_prerequisite_state';
  end if;
  insert into notifications (id, kind, email, body) values (v_new, v_old.kind, v_old.email, v_old.body);
  update notifications set superseded_by = v_new where id = p_id;
  update notifications set notice_id = v_old.notice_id where id = v_new and v_old.notice_id is not null;
  update announcements set notification_id = v_new where notification_id = p_id;
  update restore_requests set pre_notification_id = v_new where pre_notification_id = p_id;
  update restore_requests set post_notification_id = v_new where post_notification_id = p_id;
  perform note_action('send again', p_id::text, null, jsonb_build_object('status', v_old.status), jsonb_build_object('notification_id', v_new));
  perform nudge(notify_task(v_old.kind));
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
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_mail notifications := find_notification(p_id);
begin
  if v_mail.status <> 'unknown' or v_mail.superseded_by is not null then
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
  return 'opened; it was shut until ' || utc_minute(v_gate.closed_until) || ': ' || v_gate.reason;
end
$$;

-- No mail goes out for this long (null: until somebody opens the gate), to look at something first: before a worker starts on a
-- restored database, for example. It never lets mail out earlier than somebody else has said.
create or replace function close_mail_gate(p_wait interval, p_reason text) returns text
language plpgsql volatile as $$
declare
  v_gate mail_gate;
  v_until timestamptz := coalesce(now() + p_wait, 'infinity');
begin
  if p_wait <= interval '0' then
    raise exception 'that is no time to come: %', p_wait using errcode = 'invalid_parameter_value', hint = 'Write how long, like 2 hours.';
  end if;
  select g.* into v_gate from mail_gate g for update;
  if v_gate.closed_until > v_until and v_gate.sender is null then
    raise exception 'the mail gate is closed for longer already, until %: %', utc_minute(v_gate.closed_until), v_gate.reason
      using errcode = 'object_not_in_prerequisite_state', hint = 'If mail may go out earlier, open it first.';
  end if;
  update mail_gate g set closed_until = v_until, reason = p_reason, sender = null;
  perform note_action('close the mail gate', 'mail_gate', null,
    jsonb_build_object('closed_until', v_gate.closed_until, 'reason', v_gate.reason), jsonb_build_object('closed_until', v_until, 'reason', p_reason));
  return 'closed until ' || utc_minute(v_until);
end
$$;

-- Whom the maps name for a key, an ARN or a principal id, and by which rule. For roles that may not read the maps.
create or replace function who_reads(p_id text, p_session_domains text[] default '{}') returns table (email text, resolved_by text)
language sql stable as $$
  select f.email::text, f.resolved_by::text
    from find_person(case when is_principal(p_id) then '' else p_id end, case when p_id like 'arn:%' then p_id else '' end, '', p_session_domains,
                     case when is_principal_id(p_id) then p_id else '' end) f
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

-- ---------------------------------------------------------------------------------------------- people

-- What actions keep instead of an address: who knows the address can find its rows.
create or replace function address_hash(p_address text) returns text language sql immutable as $$
  select 'sha256:' || encode(sha256(convert_to(lower(p_address), 'UTF8')), 'hex')
$$;

-- Removes an entry of the maps: an access key, an ARN, or a prefix that ends in *. Requests that it has named keep their address (see
-- erase_person); the key's next reads are nobody's.
create or replace function remove_user(p_id text) returns text
language plpgsql volatile as $$
declare
  v_id text := normalized_map_id(p_id);
  v_email text;
begin
  with keys as (delete from aws_key_user_map m where m.access_key_id = v_id returning m.email),
  principals as (delete from aws_principal_user_map m where m.principal = v_id returning m.email)
  select e.email into v_email from (select email from keys union all select email from principals) e;
  if not found then
    raise exception 'the maps have no entry %', v_id
      using errcode = 'no_data_found', hint = 'Write the access key, the ARN or the prefix as it was entered.';
  end if;
  perform note_action('remove a user', without_address(v_id, v_email), null, jsonb_build_object('email', address_hash(v_email)), '{}');
  return 'removed ' || v_id;
end
$$;

-- The text with this address replaced, where it stands as a whole: as JSON, as a role's session (in its ARN or principal id), or alone.
create or replace function without_address(p_text text, p_address text, p_instead text default 'erased') returns text
language sql immutable as $$
  select regexp_replace(p_text, '(^|[/":])' || regexp_replace(p_address, '([^[:alnum:]@])', '\\\1', 'g') || '($|")', '\1' || p_instead || '\2', 'gi')
$$;

-- The address of an erased person's mails: it reaches nobody (RFC 2606).
create or replace function erased_address() returns email_address language sql immutable as $$ select 'erased@erased.invalid'::email_address $$;
create or replace function is_erased(p_address text) returns boolean language sql immutable as $$ select p_address = erased_address()::text $$;

-- Adds and changes entries of both maps: [{id, email}], id an access key id, an ARN or principal id, or a prefix that ends in *. Unknown readers are
-- looked up again at once. The row in actions has the first hundred entries that changed, with the addresses as address_hash.
create or replace function import_users(p_users jsonb) returns table (added integer, changed integer)
language sql volatile as $$
  with users as (
    select distinct on (c.id) c.id, c.email from check_users(p_users) c order by c.id, c.ord desc),
  changes as (
    select without_address(u.id, u.email) as id, u.email, o.email::text as old
      from users u
      left join lateral (
        select m.email from aws_key_user_map m where m.access_key_id = u.id
        union all
        select m.email from aws_principal_user_map m where m.principal = u.id) o on true
     where o.email is distinct from u.email order by u.id limit 100),
  keys as (
    insert into aws_key_user_map as m (access_key_id, email) select u.id, u.email from users u where not is_principal(u.id)
        on conflict (access_key_id) do update set email = excluded.email where m.email <> excluded.email
    returning m.xmax = 0 as is_new),
  principals as (
    insert into aws_principal_user_map as m (principal, email) select u.id, u.email from users u where is_principal(u.id)
        on conflict (principal) do update set email = excluded.email where m.email <> excluded.email
    returning m.xmax = 0 as is_new),
  again as (
    update second_look s set started_at = '-infinity', after = null where s.only_row),
  done as (
    select count(*) filter (where is_new)::integer as added, count(*) filter (where not is_new)::integer as changed
      from (select is_new from keys union all select is_new from principals) t),
  noted as (
    insert into actions (actor, action, target, before, after)
    select actor(), 'import users', 'the maps',
           (select coalesce(jsonb_object_agg(c.id, address_hash(c.old)), '{}') from changes c where c.old is not null),
           jsonb_build_object('added', d.added, 'changed', d.changed,
             'entries', (select coalesce(jsonb_object_agg(c.id, address_hash(c.email)), '{}') from changes c))
      from done d where d.added + d.changed > 0)
  select d.added, d.changed from done d
$$;

-- Erases an address: it leaves the maps, the requests (with a session of that name), the outbox, what restores cost (erase_payer)
-- and what operators did. Restores and totals stay. Mails that were not sent are not sent any more. Call it until it returns 0: a page of rows at a time, because reads and
-- mails wait for what it has locked. It finds the page first and locks it then: to find all rows of a person it reads tables from end to
-- end, some three seconds for each million restores. (With an index on lower(email) a new request took half as long again; that is too
-- much for so rare an act.) It changes nothing while a mail to them is being sent.
create or replace function erase_person(p_address text, p_limit integer default 500) returns integer
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_person text := lower(p_address);
  v_subjects text[] := array(select u.subject from identity_store_users u where lower(u.email) = v_person);
  v_requests uuid[];
  v_announced tid[];
  v_mails uuid[];
  v_steps bigint[];
  v_actions bigint[];
  v_left integer := p_limit;
  v_changed integer;
  v_all integer := 0;
begin
  if p_address is null or address_problem(p_address) is not null or is_erased(v_person) then
    raise exception 'that is not an address' using errcode = 'invalid_parameter_value', hint = 'Write one bare address, like jane@example.com.';
  end if;
  if exists (select from notifications n
              where n.status = 'sealed' and (lower(n.email) = v_person or is_about(n.notice_id, v_person)) and (n.body is null or n.claim_id is not null or n.uncertain_since is not null)) then
    raise exception 'a mail to this person is being sent'
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Wait for it to be sent, failed or unknown. If the mail gate is closed, that takes until it opens: see mail_gate_status.';
  end if;

  v_requests := array(
    select o.id from restore_requests o
     where lower(o.email) = v_person or lower(o.source_identity) = v_person
        or (o.principal <> '' and right(lower(o.principal), length(v_person) + 1) = '/' || v_person)
        or (o.principal_id <> '' and right(lower(o.principal_id), length(v_person) + 1) = ':' || v_person)
        or identity_subject(o.principal, o.on_behalf_of) = any (v_subjects)
     limit v_left);
  v_left := v_left - cardinality(v_requests);
  -- These have no id of their own. One that is moved meanwhile is found again by the next call.
  v_announced := array(select o.ctid from announcements o where o.person = v_person limit v_left);
  v_left := v_left - cardinality(v_announced);
  v_mails := array(select o.id from notifications o where lower(o.email) = v_person limit v_left);
  v_left := v_left - cardinality(v_mails);
  v_steps := array(select o.id from restore_history o where lower(o.by) = v_person limit v_left);
  v_left := v_left - cardinality(v_steps);
  v_actions := array(
    select o.id from actions o
     where without_address(o.actor, v_person) <> o.actor or without_address(o.target, v_person) <> o.target
        or without_address(o.before::text, v_person) <> o.before::text or without_address(o.after::text, v_person) <> o.after::text
     limit v_left);
  v_left := v_left - cardinality(v_actions);

  -- What they looked at last. It would become a request of theirs.
  delete from looks l where l.id = any (array(
    select o.id from looks o
     where without_address((o.read - 's3_key')::text, v_person) <> (o.read - 's3_key')::text
        or identity_subject(o.read ->> 'principal', coalesce(o.read ->> 'on_behalf_of', '')) = any (v_subjects) limit v_left for update skip locked));
  get diagnostics v_changed = row_count;
  v_left := v_left - v_changed;
  v_all := v_all + v_changed;

  delete from aws_key_user_map m where lower(m.email) = v_person;
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;
  delete from aws_principal_user_map m where lower(m.email) = v_person or lower(without_address(m.principal, v_person)) <> lower(m.principal);
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;

  -- By its own id, so that two sessions of one person stay two readers of a restore.
  update restore_requests q
     set email = case when lower(q.email) = v_person then null else q.email end,
         resolved_by = case when lower(q.email) = v_person then null else q.resolved_by end, user_resolved = true,
         principal = case when o.is_in_store
                          then regexp_replace(q.principal, '/[^/]*$', '/erased-' || left(q.id::text, 8))
                          else without_address(q.principal, v_person, 'erased-' || left(q.id::text, 8)) end,
         principal_id = case when o.is_in_store
                             then regexp_replace(q.principal_id, ':.*$', ':erased-' || left(q.id::text, 8))
                             else without_address(q.principal_id, v_person, 'erased-' || left(q.id::text, 8)) end,
         on_behalf_of = '',
         source_identity = without_address(q.source_identity, v_person)
    -- The identity store would name them again.
    from (select l.id, identity_subject(l.principal, l.on_behalf_of) is not null
                       and (lower(l.email) = v_person or identity_subject(l.principal, l.on_behalf_of) = any (v_subjects)) as is_in_store
            from restore_requests l where l.id = any (v_requests) for update skip locked) o
   where q.id = o.id;
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;

  update announcements a set person = 'erased-' || a.notification_id
   where a.person = v_person
     and a.ctid = any (array(select o.ctid from announcements o where o.ctid = any (v_announced) and o.person = v_person for update skip locked));
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;

  update notifications n
     set email = erased_address(), body = '{}', failure_code = case when n.status <> 'sent' then 'erased' end,
         status = case when n.status = 'sent' then n.status else 'failed' end,
         failure_message = case when n.status <> 'sent' then 'Its person was erased.' end
   where n.id = any (array(
     select o.id from notifications o
      where o.id = any (v_mails) and lower(o.email) = v_person
        and (o.status <> 'sealed' or (o.body is not null and o.claim_id is null and o.uncertain_since is null))
        for update skip locked));
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;

  if v_left > 0 then
    delete from identity_store_users u where lower(u.email) = v_person;
    get diagnostics v_changed = row_count;
    v_all := v_all + v_changed;
    v_all := v_all + erase_payer(v_person, v_left);
  end if;

  update restore_history h set by = 'erased'
   where h.id = any (array(select o.id from restore_history o where o.id = any (v_steps) for update skip locked));
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;

  update actions a
     set actor = without_address(a.actor, v_person), target = without_address(a.target, v_person),
         before = without_address(a.before::text, v_person)::jsonb, after = without_address(a.after::text, v_person)::jsonb
   where a.id = any (array(select o.id from actions o where o.id = any (v_actions) for update skip locked));
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;

  update task_runs t set error = 'erased' where position(v_person in lower(t.error)) > 0;
  update mail_gate g set reason = 'erased' where position(v_person in lower(g.reason)) > 0;

  if v_all > 0 then
    -- Not note_action: the operator may be that person.
    insert into actions (actor, action, target, after)
    values (without_address(actor(), v_person), 'erase a person', address_hash(v_person), jsonb_build_object('rows', v_all));
  elsif v_left < p_limit then
    raise exception 'rows of this person are locked by others' using errcode = 'lock_not_available', hint = 'Call it again.';
  end if;
  return v_all;
end
$$;

-- For erase_person: a page of restores gets a name in place of an address that pays for them, and what limits have spent on it moves
-- along in the same transaction, so that spending stays the sum of charges_of(). Then holds, notices, the ledger and policies.
-- Returns how many rows it changed. Locks as admit_restores does: restores, spending, holds.
create or replace function erase_payer(p_person text, p_limit integer) returns integer
language plpgsql volatile as $$
declare
  v_name text := 'erased-' || substr(address_hash(p_person), 8, 12);
  v_ids uuid[];
  v_changed integer;
  v_all integer := 0;
begin
  v_ids := array(select r.id from restores r where names_person(r.payer, p_person) limit p_limit for update skip locked);
  perform from spending s where names_person(s.subject, p_person) order by s.limit_id, s.subject, s.period for no key update;
  with moved as (
    select c.* from charged_to(v_ids) c where c.subject <> ''),
  taken as (
    update spending s set objects = s.objects - m.objects, bytes = s.bytes - m.bytes, cost = s.cost - m.cost
      from moved m where s.limit_id = m.limit_id and s.subject = m.subject and s.period = m.period
    returning s.limit_id, s.subject, s.period, s.warned_at, m.objects, m.bytes, m.cost)
  insert into spending as s (limit_id, subject, period, objects, bytes, cost, warned_at)
  select t.limit_id, without_address(t.subject, p_person, v_name), t.period, sum(t.objects), sum(t.bytes), sum(t.cost), min(t.warned_at)
    from taken t group by 1, 2, 3 order by 1, 2, 3
      on conflict (limit_id, subject, period) do update
     set objects = s.objects + excluded.objects, bytes = s.bytes + excluded.bytes, cost = s.cost + excluded.cost,
         warned_at = least(s.warned_at, excluded.warned_at);
  update restores r set payer = without_address(r.payer, p_person, v_name) where r.id = any (v_ids);
  v_all := cardinality(v_ids);
  if v_all = p_limit then return v_all; end if;

  -- What is left of these are periods whose restores are gone, and warnings that name the person.
  delete from spending s
   where names_person(s.subject, p_person) and not exists (select from restores r where r.payer = s.subject);
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;

  -- Their own notices go, and what APPROVERS were told loses its text. What was not sent yet is taken back, and written anew.
  update notifications n set body = case when n.status <> 'sealed' then '{}' end
   where n.body <> '{}' and n.notice_id in (
     select o.id from notices o join holds h on h.id = o.hold_id where names_person(h.person, p_person));
  delete from notices n where lower(n.email) = p_person;
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;
  update holds h
     set person = without_address(h.person, p_person, 'erased-' || left(h.id::text, 8)), decided_by = without_address(h.decided_by, p_person)
   where names_person(h.person, p_person) or names_person(h.decided_by, p_person);
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;

  update costs c set person = without_address(c.person, p_person, v_name)
   where c.id = any (array(select o.id from costs o where names_person(o.person, p_person) limit p_limit for update skip locked));
  get diagnostics v_changed = row_count;
  v_all := v_all + v_changed;
  delete from policies p where names_person(p.principal, p_person);
  get diagnostics v_changed = row_count;
  return v_all + v_changed;
end
$$;

-- Whether this is the name of that person (in small letters): the address, or an ARN or principal id that ends in it.
create or replace function names_person(p_name text, p_person text) returns boolean language sql immutable as $$
  select lower(p_name) = p_person or right(lower(p_name), length(p_person) + 1) in ('/' || p_person, ':' || p_person)
$$;

-- Whether a mail for APPROVERS tells of this person.
create or replace function is_about(p_notice_id uuid, p_person text) returns boolean language sql stable as $$
  select exists (select from notices n left join holds h on h.id = n.hold_id
                  where n.id = p_notice_id and (names_person(h.person, p_person) or names_person(n.subject, p_person)))
$$;
