-- The outbox: one row of notifications per mail. Its body is written once and never changes, its id is the idempotency key.
--
--   (none) -> being written               seal_page                        attaches what a person has not been told yet
--   being written -> sealed               seal_page, freeze_notification   the body is frozen
--   sealed -> sent                        mark_notification_sent           Resend took it: a fact, so also from failed, unknown
--   sealed -> failed                      mark_notification_undeliverable  Resend will never take it (an address, mostly)
--   sealed -> unknown                     claim_notifications              no clear answer for as long as Resend remembers a key
--                                         mark_notification_undeliverable  Resend took another mail under this key
--   being written, sealed -> (none)       unseal_stale_notifications       certainly not taken, and old: written anew later
--   sent, failed, unknown -> sent again   resend_notification              a new row replaces it (operators.sql)
--   -> gone                               forget_old_restores              with its restores (retention.sql)
--
-- Between sealed and sent, a claim is a lease: claim_notifications makes it, the outcome or its end returns the mail. The gate
-- (mail_gate) is the rate limiter and the circuit breaker that all workers share: take_mail_turn, shut_mail_gate.

-- What each person has not been told yet, since when, one view per kind (an index serves the order of one, and none that of
-- their union). The one definition of "untold": the notify tasks, and whoever looks in psql. Readable files are held back while
-- S3 is asked whether they still are.
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
-- run has tried already. p_after: not used; the release before passes ''.
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

-- Whether the gate holds back mails of this sender at p_at. It is shut for one sender, or (null) for all; a caller that names no
-- sender counts as each of them.
create or replace function is_shut(g mail_gate, p_sender text, p_at timestamptz) returns boolean language sql immutable as $$
  select g.closed_until > p_at and coalesce(g.sender = p_sender, true)
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

-- Mails to send, while the gate is open; the caller has waited for its turn (take_mail_turn). p_has_turn: not used; the release
-- before passes true. uncertain_since_before is what a definite refusal puts back. A mail that may have
-- been sent longer ago than Resend remembers is never sent again: sealed -> unknown.
create or replace function claim_notifications(p_kind notification_kind, p_limit integer, p_worker text default null, p_has_turn boolean default false,
                                               p_sender text default null)
returns table (id uuid, claim_id uuid, email text, body text, uncertain_since_before timestamptz, calls_per_second double precision)
-- A claim lasts milliseconds; whoever keeps the gate locked must not stop all mail for long.
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_gate mail_gate;
begin
  update notifications n
     set status = 'unknown', failure_code = 'unknown_outcome',
         failure_message = format('Resend did not answer clearly since %s UTC; it may have sent this mail or not. Last answer: %s',
           to_char(n.uncertain_since at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), coalesce(n.failure_message, 'none'))
   where n.id in (select o.id from notifications o
                   where o.kind = p_kind and o.status = 'sealed' and o.attempt_after <= now()
                     and o.uncertain_since <= now() - idempotency_key_lifetime()
                     for update skip locked);

  -- Locked, to see a gate that another worker is shutting just now.
  select g.* into v_gate from mail_gate g for update;
  if is_shut(v_gate, p_sender, now()) then return; end if;

  return query
    with due as (
      select d.id, d.uncertain_since from notifications d
       where d.kind = p_kind and d.status = 'sealed' and d.body is not null and d.attempt_after <= now()
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
