-- The outbox: one row of notifications per mail. Its body is written once and never changes; its id is the idempotency key.
--
--   from -> to                        function                         why
--   (none) -> sealed                  seal_page                        a person is due; all of it fits in one page
--   (none) -> being written           seal_page                        a full page is attached; there may be more
--   being written -> sealed           freeze_notification              seal_more has attached the rest
--   sealed, failed, unknown -> sent   mark_notification_sent           Resend accepted it: a fact, whatever the row said before
--   sealed -> failed                  mark_notification_undeliverable  Resend will never accept it (the address, mostly)
--   sealed -> unknown                 claim_notifications              no clear answer for as long as Resend remembers the key
--                                     mark_notification_undeliverable  Resend has another mail under this key
--   being written, sealed -> deleted  unseal_stale_notifications       certainly not accepted, and out of date: untold again
--   sent, failed, unknown -> replaced resend_notification              an operator sends it again: a new row, sealed (operators.sql)
--   sent, failed, unknown -> deleted  forget_old_restores              with the last restore that it tells of (retention.sql)
--   (none) -> sealed                  seal_notice                      of a hold or a limit: to a reader, or to each of APPROVERS
--   sent, failed, unknown -> deleted  forget_old_holds                 of a hold or a limit of long ago (retention.sql)
--
-- status knows sealed, sent, failed, unknown. Being written is sealed without a body: nobody sends it. Replaced: superseded_by is
-- set, and the status stays. The caller of seal_page, or of seal_notice, inserts the row, in the same transaction (server/worker/mails.ts).
--
-- A sealed mail is sent under a claim (claim_notifications), which is a lease. It ends with an arrow above, or the mail stays
-- sealed and is sent again later: note_notification_uncertain, note_notification_refused, shut_mail_gate, the end of the lease,
-- or a dead worker (workers.sql). mail_gate is the rate limiter (take_mail_turn, note_mail_limit) and the circuit breaker
-- (shut_mail_gate) that all workers share.

-- What each person is still to be told, and since when (is_untold_pre, is_untold_post). Readable files are held back while S3 is
-- asked whether they still are. One view per kind, because an index can give the order of one, but not of their union.
create or replace view untold_pre as
  select q.id as request_id, lower(q.email) as person, q.restore_id, greatest(q.requested_at, q.status_at) as since
    from restore_requests q
   where is_untold_pre(q);

create or replace view untold_post as
  select q.id as request_id, lower(q.email) as person, q.restore_id, greatest(q.requested_at, q.status_at) as since
    from restore_requests q
   where is_untold_post(q)
     and not exists (select from restores r where r.id = q.restore_id and r.head_wanted_at is not null);

create or replace view untold_requests as
  select request_id, 'pre'::notification_kind as kind, person, restore_id, since from untold_pre
  union all
  select request_id, 'post'::notification_kind, person, restore_id, since from untold_post;

-- The same of these requests alone, each found by its key. Recipe: row by row.
create or replace function untold_among(p_kind notification_kind, p_ids uuid[])
returns table (request_id uuid, person text, restore_id uuid)
language sql stable as $$
  select q.id, lower(q.email), q.restore_id
    from unnest(p_ids) k (id)
   cross join lateral (select * from restore_requests o where o.id = k.id offset 0) q
   cross join lateral (select * from restores o where o.id = q.restore_id offset 0) r
   where case p_kind when 'pre' then is_untold_pre(q) else is_untold_post(q) and r.head_wanted_at is null end
$$;

-- The debounce: whether this person has news and their window has ended, because nothing new came for p_quiet, or the oldest news is
-- p_max_wait old. Not while a mail of theirs is being written: that mail will include the news.
-- Recipe: one plan, by index (from either end of the window).
create or replace function is_due(p_kind notification_kind, p_person text, p_quiet interval, p_max_wait interval) returns boolean
language plpgsql stable set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  return (exists (select from untold_requests u where u.kind = p_kind and u.person = p_person and u.since <= now() - p_max_wait)
       or (exists (select from untold_requests u where u.kind = p_kind and u.person = p_person and u.since <= now() - p_quiet)
           and not exists (select from untold_requests u where u.kind = p_kind and u.person = p_person and u.since > now() - p_quiet)))
     and not exists (select from notifications n where n.body is null and lower(n.email) = p_person and n.kind = p_kind);
end
$$;

-- People who are due (is_due), those with the oldest news first. It may return fewer than p_limit, but none only if nobody is due.
-- p_passed: people that this run has tried already. p_after: not used; the release before passes ''.
--
-- Recipe: row by row, by index. It walks the index on since only until people are found, and sorts no more. So the cost does not
-- depend on how many are due, nor on the history; only people with old news who go on reading, and those in p_passed, are walked
-- through first. since <= now() - least(quiet, longest wait) follows from is_due, and ends the walk early.
create or replace function due_people(p_kind notification_kind, p_quiet interval, p_max_wait interval,
                                      p_limit integer, p_after text default '', p_passed text[] default '{}') returns setof text
language plpgsql stable
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_rows integer := 20 * p_limit; -- most people wait for fewer files
  v_seen integer;
  v_people text[];
begin
  loop
    execute format(
      'with oldest as materialized (
         select u.person, u.since from untold_%s u where u.since <= now() - least($2, $3) order by u.since limit $5)
       select (select count(*) from oldest),
              array(select p.person
                      from (select o.person from oldest o where o.person <> all ($4)
                             group by o.person order by min(o.since), o.person offset 0) p
                     where is_due($1, p.person, $2, $3) limit $6)', p_kind)
      into v_seen, v_people using p_kind, p_quiet, p_max_wait, p_passed, v_rows, p_limit;
    if v_people <> '{}' or v_seen < v_rows then
      return query select unnest(v_people);
      return;
    end if;
    v_rows := v_rows * 8;
  end loop;
end
$$;

-- Locks a page of what this person is still to be told, the oldest first, up to p_until: the restores, then the requests.
-- Recipe: page by key, by index, fresh plan.
create or replace function lock_untold(p_kind notification_kind, p_person text, p_until timestamptz) returns uuid[]
language plpgsql volatile set plan_cache_mode = force_custom_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_page uuid[];
begin
  execute format('select array(select u.request_id from untold_%s u where u.person = $1 and u.since <= $2 order by u.since limit $3)', p_kind)
     into v_page using p_person, p_until, mail_page();
  perform from restores r
   where r.id = any (array(
      select q.restore_id from unnest(v_page) k (id) cross join lateral (select o.restore_id from restore_requests o where o.id = k.id offset 0) q))
   order by r.s3_bucket, r.s3_key, r.version_id, r.id for key share;
  -- No request that an earlier mail has told meanwhile: marking that mail sent locks the mail and then its requests, and
  -- attach_requests waits for the mail. Holding one of its requests here would be a deadlock.
  return array(
    select q.id from restore_requests q
     where q.id = any (array(select u.request_id from untold_among(p_kind, v_page) u))
     order by q.s3_bucket, q.s3_key, q.version_id, q.reader for no key update);
end
$$;

-- Attaches those of these locked requests that are still untold to notification p_id; returns how many restores it announces. A
-- restore that an earlier mail announced to this person (under another key of theirs) is attached to that mail, and not counted.
-- Recipe: by index, fresh plan.
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
    from untold_among(p_kind, p_locked) u
   where u.person = p_person;

  with announced as (
    insert into announcements (restore_id, kind, person, notification_id)
    select r.id, p_kind, p_person, p_id
      from unnest(v_restores) as r (id) order by r.id
        on conflict do nothing
    returning restore_id)
  select coalesce(array_agg(a.restore_id), '{}') into v_new from announced a;

  -- The rest was announced by an earlier mail. If that is being marked as sent just now, wait, to read its final status.
  v_told := array(select unnest(v_restores) except select unnest(v_new));
  perform from notifications n
   where n.id = any (array(select a.notification_id from announcements a
                            where a.restore_id = any (v_told) and a.kind = p_kind and a.person = p_person and a.notification_id <> p_id))
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

-- Attaches to notification p_id a page of what this person is due to be told. announced: how many restores. 0: nothing is due
-- (another worker was faster), or all of it was announced before under another key of theirs; then there is no mail to write.
-- Else the caller inserts notification p_id before it commits (the foreign keys are deferred until then): rendered, or without a
-- body if the page is full; then seal_more attaches the rest, and freeze_notification stores the body.
create or replace function seal_page(p_id uuid, p_kind notification_kind, p_person text, p_quiet interval, p_max_wait interval)
returns table (announced integer, is_full boolean)
-- lock_timeout: locked rows of one person must not hold up the mails of others.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_locked uuid[];
begin
  announced := 0;
  is_full := false;
  if is_due(p_kind, p_person, p_quiet, p_max_wait) then
    -- Lock, then check again: a second worker waits here, and then finds nothing due. What comes in between is left to the
    -- next mail.
    v_locked := lock_untold(p_kind, p_person, now());
    if is_due(p_kind, p_person, p_quiet, p_max_wait) then
      announced := attach_requests(p_id, p_kind, p_person, v_locked);
      is_full := cardinality(v_locked) = mail_page();
      -- The nudge is due later if this worker has to go on: it is for the case that it dies.
      if announced > 0 then perform nudge(p_kind || '_notify', array[case when is_full then interval '1 minute' else '0' end]); end if;
    end if;
  end if;
  return next;
end
$$;

-- Attaches the next page to a mail that is being written; returns how many requests it locked. 0: all is attached that was untold
-- when the mail was begun. (News since then are left to the next mail, so that a person who goes on reading gets this one.)
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

-- Stores the body of a mail, once. p_requests: how many requests it was rendered from; false if another number is attached (another
-- worker writes the same mail), or if the mail has gone out of date or got its body meanwhile.
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

-- Whether the mail of a notice would be of no use any more: somebody has decided about its hold, its period is over, or its limit is
-- not nearly used up after all (what S3 did not start was given back, or the limit was changed).
create or replace function is_pointless(n notices) returns boolean language sql stable as $$
  select case
    when n.hold_id is not null then not exists (select from holds h where h.id = n.hold_id and h.status = 'open')
    else not exists (
      select from spending s join limits l on l.id = s.limit_id
       where s.limit_id = n.limit_id and s.subject = n.subject and s.period = n.period and s.period = period_of(l.per, now())
         and (s.objects >= l.max_objects * limit_warns_at() or s.bytes >= l.max_bytes * limit_warns_at() or s.cost >= l.max_cost * limit_warns_at())) end
$$;

-- The debounce of notices: when its hold has not grown for p_quiet, or p_max_wait after the notice.
create or replace function notice_due_at(n notices, p_quiet interval, p_max_wait interval) returns timestamptz language sql stable as $$
  select least(n.created_at + p_max_wait, greatest(n.created_at, (select h.last_added_at from holds h where h.id = n.hold_id)) + p_quiet)
$$;

-- Notices that are due, the oldest first; nearly always there are none. p_has_approvers: if there is nobody to write to, what is for
-- APPROVERS stays due. p_passed: those that this run has tried already. If none is due yet, a job is added for when one will be.
create or replace function due_notices(p_quiet interval, p_max_wait interval, p_has_approvers boolean, p_limit integer, p_passed uuid[] default '{}')
returns setof uuid
language plpgsql volatile as $$
declare
  v_wait interval;
begin
  if not exists (select from notices n where n.sealed_at is null) then return; end if;
  return query
    select n.id from notices n
     where n.sealed_at is null and n.id <> all (p_passed)
       and (is_pointless(n) or ((p_has_approvers or n.email is not null) and notice_due_at(n, p_quiet, p_max_wait) <= now()))
     order by n.created_at limit p_limit;
  if not found then
    select min(notice_due_at(n, p_quiet, p_max_wait)) - now() into v_wait
      from notices n where n.sealed_at is null and n.id <> all (p_passed) and (p_has_approvers or n.email is not null);
    if v_wait is not null then perform nudge('pre_notify', array[v_wait]); end if;
  end if;
end
$$;

-- Closes a notice; returns whether its mails are to be written: then the caller inserts them before it commits. Locks the hold first,
-- so that nobody decides about it meanwhile.
create or replace function seal_notice(p_id uuid, p_quiet interval, p_max_wait interval) returns boolean
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_notice notices;
  v_is_pointless boolean;
begin
  perform from holds h where h.id = (select n.hold_id from notices n where n.id = p_id) for share;
  select n.* into v_notice from notices n where n.id = p_id and n.sealed_at is null for update;
  if not found then return false; end if;
  v_is_pointless := is_pointless(v_notice);
  if not v_is_pointless and notice_due_at(v_notice, p_quiet, p_max_wait) > now() then return false; end if;
  update notices n set sealed_at = now() where n.id = p_id;
  -- settle_holds skips a hold that is locked here, if it was decided just before.
  perform nudge(case when v_is_pointless then 'trigger_restores' else 'pre_notify' end);
  return not v_is_pointless;
end
$$;

-- Mails whose writing began over a minute ago; the worker has perhaps died. Two workers on one mail do no harm: pages are attached
-- one at a time, and only one body is stored.
create or replace function unfinished_notifications(p_kind notification_kind) returns setof uuid
language sql stable as $$
  select n.id from notifications n
   where n.body is null and n.kind = p_kind
     and n.created_at > now() - mail_stays_fresh() and n.created_at <= now() - interval '1 minute'
$$;

-- being written, sealed -> deleted, and its requests untold again: Resend has certainly not accepted this mail, and it went out of
-- date while the gate was shut (copies may have expired, MAIL_FROM may have been corrected), or it was never completed. Its person
-- gets one new mail with all their news; what a hold or a limit gives notice of is written anew if it is still true. One page per call: first the body goes, so that nobody sends it, then its requests are
-- detached. Returns 0 if no such mail is left, or only mails whose requests are locked; those are skipped until the next run.
create or replace function unseal_stale_notifications(p_kind notification_kind, p_sender text default null) returns integer
language plpgsql volatile as $$
declare
  v_id uuid;
  v_had_body boolean;
  v_page uuid[];
  v_notice uuid;
begin
  for v_id in
    select n.id from notifications n
     where notify_task(n.kind) = notify_task(p_kind) and n.status = 'sealed' and n.uncertain_since is null
       and n.created_at <= now() - mail_stays_fresh()
       and not exists (select from mail_gate g where is_shut(g, p_sender, now()))
       -- Not what an operator sent again: that is sent as it is.
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
      delete from notifications n where n.id = v_id returning n.notice_id into v_notice;
      update notices o set sealed_at = null where o.id = v_notice;
      if found then perform nudge('pre_notify'); end if;
      return 1;
    end if;
    if v_had_body or v_page <> '{}' then return 1; end if;
  end loop;
  return 0;
end
$$;

-- Locks a page of a mail's requests (p_unmarked: of those not marked as told yet), skipping locked ones. Waiting could stop all mail
-- for one open transaction. And a deadlock would be possible: a restore that changes status locks its requests through the
-- foreign key, in the order of S3's answers. Recipe: one plan, by index.
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

-- Whether such requests exist, locked or not. Recipe: one plan, by index.
create or replace function has_attached(p_id uuid, p_unmarked boolean) returns boolean
-- Volatile: it must see what was marked just before, in the same expression.
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
begin
  return exists (select from restore_requests q where q.pre_notification_id = p_id and not (p_unmarked and q.pre_notified))
      or exists (select from restore_requests q where q.post_notification_id = p_id and not (p_unmarked and q.post_notified));
end
$$;

-- Whether the gate holds back mails of this sender at p_at. It is shut for one sender, or (null) for all; a caller that names no
-- sender counts as each of them.
create or replace function is_shut(g mail_gate, p_sender text, p_at timestamptz) returns boolean language sql immutable as $$
  select g.closed_until > p_at and coalesce(g.sender = p_sender, true)
$$;

-- Reserves the next send slot ("turn") in the rate limit that all workers share, and returns the wait in milliseconds. A worker that
-- uses its slot late delays no other. Nothing is reserved if the slot is further ahead than p_within (null: always reserve): then
-- ask again after that time, so that an operator's change of the gate counts at once. Null: no mail of this kind is due, or the
-- gate stays shut for over 5 seconds; its opening has a job of its own.
create or replace function take_mail_turn(p_kind notification_kind, p_sender text default null, p_within interval default null)
returns double precision
-- lock_timeout: if the gate stays locked, try again later instead of waiting for ever.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_gate mail_gate;
  v_next timestamptz;
  v_turn timestamptz;
begin
  if not exists (select from notifications n
                  where notify_task(n.kind) = notify_task(p_kind) and n.status = 'sealed' and n.body is not null and n.attempt_after <= now()) then
    return null;
  end if;
  select g.* into v_gate from mail_gate g for update;
  if is_shut(v_gate, p_sender, clock_timestamp() + interval '5 seconds') then return null; end if;
  -- A slot further ahead than any worker reserves: Postgres' clock was set back (a failover, a snapshot). Nobody waits for those.
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

-- Mails to send, while the gate is open; the caller has waited for its turn (take_mail_turn). p_has_turn: not used; the release
-- before passes true. From its first claim on a mail may have been sent: uncertain_since. uncertain_since_before is the value before
-- this claim, which a definite refusal puts back. A mail that may have been sent longer ago than Resend remembers its key is
-- never sent again: sealed -> unknown.
create or replace function claim_notifications(p_kind notification_kind, p_limit integer, p_worker text default null, p_has_turn boolean default false,
                                               p_sender text default null)
returns table (id uuid, claim_id uuid, email text, body text, uncertain_since_before timestamptz, calls_per_second double precision)
-- lock_timeout: as in take_mail_turn.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_gate mail_gate;
begin
  update notifications n
     set status = 'unknown', failure_code = 'unknown_outcome',
         failure_message = format('Resend did not answer clearly since %s UTC; it may have sent this mail or not. Last answer: %s',
           to_char(n.uncertain_since at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), coalesce(n.failure_message, 'none'))
   where n.id in (select o.id from notifications o
                   where notify_task(o.kind) = notify_task(p_kind) and o.status = 'sealed' and o.attempt_after <= now()
                     and o.uncertain_since <= now() - idempotency_key_lifetime()
                     for update skip locked);

  -- Locked, to see a gate that another worker is shutting just now.
  select g.* into v_gate from mail_gate g for update;
  if is_shut(v_gate, p_sender, now()) then return; end if;

  return query
    with due as (
      select d.id, d.uncertain_since from notifications d
       where notify_task(d.kind) = notify_task(p_kind) and d.status = 'sealed' and d.body is not null and d.attempt_after <= now()
         and coalesce(d.uncertain_since, now()) > now() - idempotency_key_lifetime()
       order by d.attempt_after limit p_limit for update skip locked)
    update notifications n
       set attempts = n.attempts + 1, attempt_after = now() + retry_delay(n.attempts + 1), claim_id = gen_random_uuid(), claimed_by = p_worker,
           uncertain_since = coalesce(n.uncertain_since, now())
      from due
     where n.id = due.id
    returning n.id, n.claim_id, n.email::text, n.body, due.uncertain_since, v_gate.calls_per_second;
end
$$;

-- Stores the rate limit that Resend's answers tell. It is one for the whole Resend team, and may change. As many slots stay
-- reserved as before, at the new rate.
create or replace function note_mail_limit(p_calls_per_second double precision) returns void
language sql volatile as $$
  update mail_gate g
     set calls_per_second = p_calls_per_second,
         next_call_at = now() + (greatest(g.next_call_at, now()) - now()) * (g.calls_per_second / p_calls_per_second)
   where g.calls_per_second <> p_calls_per_second
$$;

-- sealed, failed, unknown -> sent: a fact, so it needs no claim. Only now the readers are marked as told: the first page of them
-- here, the rest by mark_more_readers. Returns whether a rest is left.
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
  -- In case this worker dies before it has marked the rest.
  perform nudge(v_kind || '_notify', array[interval '1 minute']);
  return true;
end
$$;

-- Marks the next page of readers of a sent mail. False: none is left for mails of this kind, or only locked ones, which a later run
-- marks.
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

-- Marks a page of this mail's readers as told; returns how many.
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

-- sealed -> failed (Resend will never accept it) or unknown (it has another mail under this key).
create or replace function mark_notification_undeliverable(p_id uuid, p_status notification_status, p_code text, p_message text) returns void
language sql volatile as $$
  update notifications n
     set status = p_status, failure_code = p_code, failure_message = p_message
   where n.id = p_id and n.status = 'sealed' and p_status in ('failed', 'unknown')
$$;

-- Stays sealed: perhaps sent, perhaps not. It is sent again, with the same key, when the lease of its claim ends.
create or replace function note_notification_uncertain(p_id uuid, p_claim_id uuid, p_code text, p_message text) returns void
language plpgsql volatile as $$
declare
  v_mail notifications;
begin
  update notifications n set failure_code = p_code, failure_message = p_message, claim_id = null
   where n.id = p_id and n.status = 'sealed' and n.claim_id = p_claim_id
  returning n.* into v_mail;
  if found then perform nudge(notify_task(v_mail.kind), array[v_mail.attempt_after - now()]); end if;
end
$$;

-- Stays sealed: Resend certainly did not accept it, because of the sender in its body, which MAIL_FROM no longer names. Other mails
-- are not concerned: only this one waits, until the lease of its claim ends. uncertain_since is as before the claim.
create or replace function note_notification_refused(p_id uuid, p_claim_id uuid, p_uncertain_since timestamptz, p_code text, p_reason text) returns void
language plpgsql volatile as $$
declare
  v_mail notifications;
begin
  update notifications n set uncertain_since = p_uncertain_since, claim_id = null, failure_code = p_code, failure_message = p_reason
   where n.id = p_id and n.status = 'sealed' and n.claim_id = p_claim_id
  returning n.* into v_mail;
  if found then perform nudge(notify_task(v_mail.kind), array[v_mail.attempt_after - now()]); end if;
end
$$;

-- Stays sealed: Resend certainly did not accept it, for a reason that is not this mail's (rate, quota, API key, sender). The claim
-- is undone, and the gate is shut: for all mails, or for those of one sender (p_sender). This mail goes to the end of the queue:
-- if it was the cause after all, the others are sent before it shuts the gate again.
create or replace function shut_mail_gate(p_id uuid, p_claim_id uuid, p_uncertain_since timestamptz,
                                          p_wait interval, p_code text, p_reason text, p_sender text default null) returns void
language plpgsql volatile as $$
begin
  -- At most five minutes: an operator may open the gate earlier, and this mail must not wait much longer than the others.
  update notifications n
     set attempts = n.attempts - 1, attempt_after = now() + least(p_wait, interval '5 minutes'), uncertain_since = p_uncertain_since,
         claim_id = null, failure_code = p_code, failure_message = p_reason
   where n.id = p_id and n.status = 'sealed' and n.claim_id = p_claim_id;
  perform pause_mail(p_wait, p_reason, p_sender);
end
$$;

-- Shuts the gate. A longer wait that is set already stays, with its reason, unless it is for one sender and this one is for all.
create or replace function pause_mail(p_wait interval, p_reason text, p_sender text default null) returns void
language plpgsql volatile as $$
begin
  update mail_gate g set closed_until = now() + p_wait, reason = p_reason, sender = p_sender
   where case when g.closed_until <= now() or g.sender is not distinct from p_sender then g.closed_until < now() + p_wait
              else p_sender is null end;
  if found then perform nudge('pre_notify', array[p_wait]), nudge('post_notify', array[p_wait]); end if;
end
$$;

-- Since when no mail goes out, whoever closes the gate and opens it, a person in psql included. A gate that opened by itself and is
-- closed again before a mail got out was not open for those who wait. (Workers try as soon as it opens, or else within the crontab's
-- five minutes; a refusal much later is a new one.)
create or replace function note_gate_closed() returns trigger
language plpgsql set search_path = public, pg_temp as $$
begin
  new.closed_since := case
    when new.closed_until <= now() then null
    when old.closed_until > now() then coalesce(old.closed_since, now())
    when old.closed_since is not null and old.closed_until > now() - interval '15 minutes'
         and not exists (select from totals t
                          where t.hour >= date_trunc('hour', old.closed_until, 'UTC') and t.metric = 'mails'
                            and t.labels @> '{"status": "sent"}' and t.last_at > old.closed_until)
      then old.closed_since
    else now() end;
  return new;
end
$$;

create or replace trigger mail_gate_closed before update of closed_until on mail_gate
  for each row execute function note_gate_closed();
