-- The state machine of a restore, on one page. Every function works on a set of rows, is guarded by the state they leave, and adds
-- the job that it causes in the same transaction. Each statement of a function sees what was committed before it (read committed);
-- so locking a row and reading it are separate statements. To avoid deadlocks, restores are locked before their requests, and in
-- the order of bucket, key and version.
--
--   from -> to                            function                   why
--   (none) -> not_started                 request_restores           the first read of an object without an open restore
--                                         reopen_restores            a new one in place of one that it closes
--   not_started -> pending                mark_restores_pending      S3 accepted (202), or is restoring it already (409)
--   not_started, pending -> restored      mark_restores_restored     HEAD says readable; nothing else may set this
--   not_started -> not_started, held      admit_restores             it must be approved first: hold_id (cost.sql)
--   not_started -> failed                 settle_holds               ... and was not
--   not_started -> failed, closed         admit_restores             a policy says only to observe (cost.sql)
--   not_started, pending -> failed        mark_restores_failed       HEAD says that it is gone or overwritten
--                                         note_restore_troubles      S3 failed for 24 hours and ten tries
--   pending -> not_started                mark_restores_lost         accepted, and yet HEAD says archived: S3 lost it
--   pending -> failed                     mark_restores_lost         ... for the third time
--   restored, failed -> closed            request_restores           a read newer than its end (over_at)
--                                         close_finished_restores    its end has passed
--   restored -> closed                    mark_restores_expired      HEAD says archived again, or gone
--                                         note_restore_troubles      past its expiry, and S3 failed for 24 hours and ten tries
--   failed -> closed                      retry_restore              an operator retries it (operators.sql)
--   closed -> deleted                     forget_old_restores        older than RETENTION_DAYS (retention.sql)
--
-- closed is not a status: closed_at is set, and the status stays. The last three of -> closed call reopen_restores, which opens a
-- new restore for the readers who still need one. Events move nothing: complete_restores asks for a HEAD at once
-- (head_wanted_at), and its answer moves the row.
--
-- Who may call what: privileges.sql.

-- -------------------------------------------------------------------------------------- events come in

-- Takes failed reads. p_requests: [{id, s3_bucket, s3_key, version_id?, access_key_id?, principal?, account_id?,
-- source_identity?, principal_id?, on_behalf_of?, region?, event_id?, event_time?, evidence?}], ids made by the caller; request_id is null
-- where a policy ignores the read. p_notify_waits: the debounce times after which a
-- mail may be due (the quiet window, the longest wait). Returns each id with its request; duplicate: an earlier read created it.
-- Raises serialization_failure if a restore closes meanwhile: call again; lock_not_available if a row of one of these reads stays
-- locked: locked_reads tells which.
--
-- lock_timeout: Thaw itself locks nothing for longer than 200 ms. A longer lock is an operator's, or of a process that hangs, and
-- must not hold up the other reads of the batch (the server gives them 1.9 seconds).
--
-- Recipe: page by key, row by row, by index, one plan. Planned for the tables of the moment, a batch of 64 took 5 ms or 170 ms; a
-- plan made while the tables were empty scans all of them later.
create or replace function request_restores(p_requests jsonb, p_notify_waits interval[], p_session_domains text[] default '{}')
returns table (read_id uuid, request_id uuid, duplicate boolean)
language plpgsql volatile set lock_timeout = '300ms' set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_reads failed_read[];
  v_opened boolean;
  v_closed uuid[];
  v_new_statuses restore_status[];
  v_unresolved boolean;
  v_waiting uuid[];
  v_ignored uuid[];
  v_observed uuid[];
  v_answered integer;
begin
  -- What a policy ignores is counted, and leaves no row.
  v_ignored := ignore_reads(p_requests, p_session_domains);
  if v_ignored <> '{}' then
    return query select i, null::uuid, false from unnest(v_ignored) i;
    p_requests := (select jsonb_agg(e) from jsonb_array_elements(p_requests) e where (e ->> 'id')::uuid <> all (v_ignored));
    if p_requests is null then return; end if;
  end if;

  -- Looks wait for a HEAD first, and leave no row here (looks.sql).
  if p_requests @? '$[*] ? (@.evidence == "looked")' then
    return query select * from put_looks(jsonb_path_query_array(p_requests, '$[*] ? (@.evidence == "looked")'));
    p_requests := jsonb_path_query_array(p_requests, '$[*] ? (!(@.evidence == "looked"))');
    if p_requests = '[]' then return; end if;
  end if;

  -- One entry per object and reader, in key order, so that all servers lock in the same order.
  -- (parse_reads: an event time in the future counts as now, or the read would stay "newer" for ever.)
  select array_agg((g.id, g.s3_bucket, g.s3_key, g.version_id, g.access_key_id, g.principal, g.account_id,
                    g.source_identity, g.reader, g.region, g.event_id, g.event_time, g.read_count, g.principal_id, g.on_behalf_of)::failed_read
                   order by g.s3_bucket, g.s3_key, g.version_id, g.reader)
    into v_reads
    from (select (array_agg(p.id order by p.ord))[1] as id, p.s3_bucket, p.s3_key, p.version_id, max(p.access_key_id) as access_key_id,
                 max(p.principal) as principal, max(p.account_id) as account_id,
                 max(p.source_identity) as source_identity, p.reader, max(p.region) as region,
                 max(p.principal_id) as principal_id, max(p.on_behalf_of) as on_behalf_of,
                 (array_agg(p.event_id order by p.event_time desc, p.event_id))[1] as event_id, max(p.event_time) as event_time,
                 count(distinct coalesce(p.event_id, p.id::text))::integer as read_count
            from parse_reads(p_requests) p
           group by p.s3_bucket, p.s3_key, p.version_id, p.reader) g;

  v_observed := observed_reads(v_reads, p_session_domains);

  -- restored, failed -> closed: over before this read was made (the copy expired, or the failure is old).
  -- for update, as wherever a restore closes: it conflicts with the key share lock that attaching a reader takes below.
  update restores r set closed_at = over_at(r), head_wanted_at = null, claim_id = null
   where r.id = any (array(
    select o.id from (select s3_bucket, s3_key, version_id, max(event_time) as event_time from unnest(v_reads) group by 1, 2, 3 order by 1, 2, 3) i
     cross join lateral (select o.id from restores o
                          where o.s3_bucket = i.s3_bucket and o.s3_key = i.s3_key and o.version_id = i.version_id
                            and o.closed_at is null and o.head_wanted_at is null and i.event_time > over_at(o) for update) o));

  -- -> not_started: the first read of an object without an open restore. A late delivery starts nothing.
  -- The restore gets the id of the read that opened it, so that the log lines of both can be matched.
  with opened as (
    insert into restores (id, s3_bucket, s3_key, version_id, region)
    select (array_agg(i.id order by i.reader))[1], i.s3_bucket, i.s3_key, i.version_id, max(i.region)
      from unnest(v_reads) i
     where not exists (select from restores r where r.s3_bucket = i.s3_bucket and r.s3_key = i.s3_key
                          and r.version_id = i.version_id and r.closed_at is null offset 0)
       and not is_late(i)
     group by i.s3_bucket, i.s3_key, i.version_id
     order by i.s3_bucket, i.s3_key, i.version_id
        on conflict (s3_bucket, s3_key, version_id) where closed_at is null do nothing
    returning s3_bucket, s3_key, version_id)
  select count(*) > 0, array_agg(l.id) filter (where l.id is not null) into v_opened, v_closed
    from opened o
    left join lateral (select r.id from restores r
                        where r.s3_bucket = o.s3_bucket and r.s3_key = o.s3_key and r.version_id = o.version_id and r.closed_at is not null
                        order by r.closed_at desc limit 1) l on true;

  -- Readers who still wait to be told of the last restore, closed by this read or by the sweep, move to the new one.
  if v_closed is not null then
    perform move_untold_requests(v_closed);
  end if;

  -- The reader's own row; a repeat is only counted. The key share lock keeps the status as we read it until our insert.
  with attached as (
    insert into restore_requests as q (id, restore_id, s3_bucket, s3_key, version_id, access_key_id, principal, account_id, source_identity,
                                       principal_id, on_behalf_of, reader, email, user_resolved, resolved_by, restore_status, status_at, read_count, last_read_at, last_event_id, observed)
    select i.id, r.id, i.s3_bucket, i.s3_key, i.version_id, i.access_key_id, i.principal, i.account_id, i.source_identity,
           i.principal_id, i.on_behalf_of, i.reader, p.email, p.email is not null, p.resolved_by, r.status, r.status_at, i.read_count, i.event_time, i.event_id, i.id = any (v_observed)
      from unnest(v_reads) i
     cross join lateral (select o.id, o.status, o.status_at from restores o
                          where o.s3_bucket = i.s3_bucket and o.s3_key = i.s3_key and o.version_id = i.version_id
                            and o.closed_at is null for key share) r
      left join lateral find_person(i.access_key_id, i.principal, i.source_identity, p_session_domains, i.principal_id, i.account_id, i.on_behalf_of) p on true
     where not is_late(i)
        on conflict (restore_id, reader) do update
           set read_count = q.read_count + excluded.read_count,
               last_read_at = greatest(q.last_read_at, excluded.last_read_at),
               last_event_id = excluded.last_event_id,
               observed = q.observed and excluded.observed
         where q.id <> excluded.id and (q.last_event_id is distinct from excluded.last_event_id or excluded.last_event_id is null)
    returning q.restore_id, q.restore_status, q.user_resolved, q.xmax = 0 as is_new)
  select array_agg(distinct a.restore_status) filter (where a.is_new), bool_or(a.is_new and not a.user_resolved),
         array_agg(a.restore_id) filter (where a.is_new and a.user_resolved and a.restore_status = 'not_started')
    into v_new_statuses, v_unresolved, v_waiting
    from attached a;
  -- Whoever joins a held object hears that it is.
  if v_waiting is not null and exists (select from holds h where h.status = 'open') then perform note_held_readers(v_waiting); end if;

  if v_opened or 'not_started' = any (v_new_statuses) then perform nudge('trigger_restores'); end if;
  if 'pending' = any (v_new_statuses) then perform nudge('pre_notify', p_notify_waits); end if;
  if v_new_statuses && array['restored', 'failed']::restore_status[] then perform nudge('post_notify', p_notify_waits); end if;
  if v_unresolved then perform nudge('resolve_users'); end if;

  -- A read failed although the row says readable: ask S3 by HEAD, and tell nobody "ready" before it answers.
  -- (restored_at is not null, instead of status: with the status, a planner whose statistics say "no rows" might choose an index
  -- on the status instead of the object's.)
  update restores r set head_wanted_at = now()
   where r.id = any (array(
    select o.id from (select s3_bucket, s3_key, version_id, max(event_time) as event_time from unnest(v_reads) group by 1, 2, 3 order by 1, 2, 3) i
     cross join lateral (select o.id from restores o
                          where o.s3_bucket = i.s3_bucket and o.s3_key = i.s3_key and o.version_id = i.version_id
                            and o.closed_at is null and o.restored_at is not null and o.head_wanted_at is null
                            and i.event_time > greatest(o.status_at + late_read_grace(), o.last_checked_at) for no key update) o));
  if found then perform nudge('poll_pending_restores'); end if;

  return query
    select p.id, q.id, q.id <> p.id
      from parse_reads(p_requests) p
     cross join lateral (
       select coalesce(
         (select rq.id from restore_requests rq
           where rq.restore_id = (select r.id from restores r where r.s3_bucket = p.s3_bucket and r.s3_key = p.s3_key
                                     and r.version_id = p.version_id and r.closed_at is null)
             and rq.reader = p.reader),
         (select rq.id
            from (select r.id from restores r where r.s3_bucket = p.s3_bucket and r.s3_key = p.s3_key
                     and r.version_id = p.version_id and r.closed_at is not null order by r.closed_at desc offset 0) r
           cross join lateral (select o.id from restore_requests o where o.restore_id = r.id and o.reader = any (names_of(p.access_key_id, p.principal, p.reader)) offset 0) rq
           limit 1)) as id
       offset 0) q
     where q.id is not null
     order by p.ord;
  get diagnostics v_answered = row_count;
  -- A restore closed between our search for an open one and our insert: these reads belong to no restore yet.
  if v_answered < jsonb_array_length(p_requests) then
    raise exception 'a restore closed while it was being read' using errcode = 'serialization_failure', hint = 'Call again.';
  end if;
  -- Not what operators order: it would hide that no event of a read comes any more (read_silence).
  v_answered := v_answered - jsonb_array_length(jsonb_path_query_array(p_requests, '$[*] ? (@.principal starts with "mailto:")'));
  if v_answered > 0 then insert into totals (metric, n) values ('reads', v_answered); end if;
end
$$;

create or replace function parse_reads(p_requests jsonb)
returns table (ord bigint, id uuid, s3_bucket text, s3_key text, version_id text, access_key_id text, principal text,
               account_id text, source_identity text, reader text, region text, event_id text, event_time timestamptz, principal_id text,
               on_behalf_of text)
language sql stable as $$
  select p.ord, p.id, p.s3_bucket, p.s3_key, coalesce(p.version_id, ''), coalesce(p.access_key_id, ''), coalesce(p.principal, ''),
         coalesce(p.account_id, ''), coalesce(p.source_identity, ''),
         reader_of(coalesce(p.access_key_id, ''), coalesce(p.principal, ''), coalesce(p.principal_id, ''), coalesce(p.account_id, '')),
         p.region, p.event_id, least(coalesce(p.event_time, now()), now()), coalesce(p.principal_id, ''), coalesce(p.on_behalf_of, '')
    from rows from (jsonb_to_recordset(p_requests) as (id uuid, s3_bucket text, s3_key text, version_id text, access_key_id text,
                    principal text, account_id text, source_identity text, region text, event_id text, event_time timestamptz, principal_id text,
                    on_behalf_of text))
         with ordinality as p (id, s3_bucket, s3_key, version_id, access_key_id, principal, account_id, source_identity, region, event_id, event_time,
                               principal_id, on_behalf_of, ord)
$$;

-- What a reader is called in closed restores: requests of before 0018_who.sql have '' for a reader without key and ARN.
create or replace function names_of(p_access_key_id text, p_principal text, p_reader text) returns text[] language sql immutable as $$
  select case when p_access_key_id <> '' or p_principal <> '' then array[p_reader] else array[p_reader, ''] end
$$;

-- Whether this reader already had a restore of this object that ended after the read was made. Then the event comes from a
-- replayed or delayed queue, and must not start a paid restore. Recipe: row by row.
create or replace function is_late(i failed_read) returns boolean language sql stable as $$
  select exists (select from restores r
                  where r.s3_bucket = i.s3_bucket and r.s3_key = i.s3_key and r.version_id = i.version_id
                    and r.closed_at >= i.event_time
                    and exists (select from restore_requests q where q.restore_id = r.id and q.reader = any (names_of(i.access_key_id, i.principal, i.reader)) offset 0)
                 offset 0)
$$;

-- Which of these reads ([{id, s3_bucket, s3_key, access_key_id?, principal?, principal_id?, account_id?}]) need a row that is locked: the object's open restore
-- (of any version), or its reader's own row. It waits for no row lock. Recipe: one plan, by index.
create or replace function locked_reads(p_reads jsonb) returns setof uuid
language plpgsql volatile set lock_timeout = '300ms' set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_read record;
begin
  for v_read in
    select i.id, i.s3_bucket, i.s3_key,
           reader_of(coalesce(i.access_key_id, ''), coalesce(i.principal, ''), coalesce(i.principal_id, ''), coalesce(i.account_id, '')) as reader
      from jsonb_to_recordset(p_reads) as i (id uuid, s3_bucket text, s3_key text, access_key_id text, principal text, principal_id text, account_id text)
  loop
    if (select count(*) from restores r where r.s3_bucket = v_read.s3_bucket and r.s3_key = v_read.s3_key and r.closed_at is null)
         > (select count(*) from (select from restores r where r.s3_bucket = v_read.s3_bucket and r.s3_key = v_read.s3_key
                                     and r.closed_at is null for update skip locked) f)
       or (select count(*) from restores r join restore_requests q on q.restore_id = r.id and q.reader = v_read.reader
            where r.s3_bucket = v_read.s3_bucket and r.s3_key = v_read.s3_key and r.closed_at is null)
         > (select count(*) from (select from restores r join restore_requests q on q.restore_id = r.id and q.reader = v_read.reader
                                   where r.s3_bucket = v_read.s3_bucket and r.s3_key = v_read.s3_key and r.closed_at is null
                                     for no key update of q skip locked) f)
    then
      return next v_read.id;
    end if;
  end loop;
end
$$;

-- S3's Completed events. p_events: [{id, s3_bucket, s3_key, version_id?}]. They come late, twice, out of order, and from anybody who
-- has the secret, so they move nothing: each asks for a HEAD at once of every open restore that it can mean, and HEAD moves the
-- row. Returns how many requests wait for those restores. It returns nothing for an event whose row another session keeps locked for
-- longer than a worker takes to settle a page: that event must come again. p_notify_waits: not used.
-- Recipe: one plan, by index, row by row.
create or replace function complete_restores(p_events jsonb, p_notify_waits interval[])
returns table (event_id uuid, updated integer)
language plpgsql volatile set lock_timeout = '300ms' set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_meant uuid[];
  v_reached uuid[];
  v_statuses restore_status[];
begin
  v_meant := array(select distinct r.id from parse_completions(p_events) e cross join lateral meant_by(e.s3_bucket, e.s3_key, e.version_id) r);

  begin
    v_statuses := want_head(array(
      select r.id from restores r where r.id = any (v_meant)
       order by r.s3_bucket, r.s3_key, r.version_id, r.id for no key update));
    v_reached := v_meant;
  exception when lock_not_available then
    -- The others need not wait any longer.
    v_reached := array(
      select r.id from restores r where r.id = any (v_meant)
       order by r.s3_bucket, r.s3_key, r.version_id, r.id for no key update skip locked);
    v_statuses := want_head(v_reached);
  end;

  -- Also where S3 was to be asked before: a claim may have passed by (skip locked) while we held the rows.
  if 'not_started' = any (v_statuses) then perform nudge('trigger_restores'); end if;
  if 'pending' = any (v_statuses) then perform nudge('poll_pending_restores'); end if;

  return query
    with answered as materialized (
      select e.id, e.s3_bucket, coalesce(sum(w.readers), 0)::integer as readers
        from parse_completions(p_events) e
        left join lateral meant_by(e.s3_bucket, e.s3_key, e.version_id) r on true
        left join lateral (select count(*) as readers
                             from (select from restore_requests q where q.restore_id = r.id limit readers_counted()) c) w on true
       group by e.id, e.s3_bucket
      having count(r.id) = count(r.id) filter (where r.id = any (v_reached))),
    counted as (
      -- By bucket (silent_buckets), where we restore something of it: others have no row of their own.
      insert into totals (metric, labels, n)
      select 'events', b.labels, sum(b.events)
        from (select case when (select true from restores r where r.s3_bucket = a.s3_bucket and r.closed_at is null limit 1)
                          then jsonb_build_object('s3_bucket', a.s3_bucket) else '{}' end as labels, a.events
                from (select o.s3_bucket, count(*) as events from answered o group by o.s3_bucket) a) b
       group by b.labels)
    select a.id, a.readers from answered a;
end
$$;

-- The open restores that S3's event can mean: an event without a version any of that key, and a read without one any version.
create or replace function meant_by(p_s3_bucket text, p_s3_key text, p_version_id text) returns setof restores
language sql stable as $$
  select r.* from restores r
   where r.s3_bucket = p_s3_bucket and r.s3_key = p_s3_key and r.closed_at is null
     and (p_version_id = '' or r.version_id in ('', p_version_id)) and r.status in ('not_started', 'pending')
  offset 0 -- event by event: else all that is open is joined with the events where the statistics know of no row
$$;

-- Makes a HEAD due for these rows, which the caller has locked: now, or when the current claim or S3's throttling ends. Returns
-- their statuses.
create or replace function want_head(p_ids uuid[]) returns restore_status[]
language sql volatile as $$
  with wanted as (
    update restores r
       set head_wanted_at = now(),
           attempt_after = case when r.claim_id is not null or r.failure_code = 'SlowDown' then r.attempt_after
                                else least(r.attempt_after, now()) end
     where r.id = any (array(select i from open_with_status(p_ids, '{not_started,pending}') i))
    returning r.status)
  select array_agg(distinct w.status) from wanted w
$$;

create or replace function parse_completions(p_events jsonb)
returns table (id uuid, s3_bucket text, s3_key text, version_id text, restore_expires_at timestamptz, event_time timestamptz)
language sql stable as $$
  select p.id, p.s3_bucket, p.s3_key, coalesce(p.version_id, ''), p.restore_expires_at, p.event_time
    from jsonb_to_recordset(p_events) as p (id uuid, s3_bucket text, s3_key text, version_id text,
                                            restore_expires_at timestamptz, event_time timestamptz)
$$;

-- -------------------------------------------------------------------------------------- S3 is asked

-- Claims a page of objects to restore. The claim is a lease: if the worker dies, its rows become due when it expires. claim_id is
-- the fencing token; each outcome ends the claim. (no key update: a POST for the object, which locks key share, does not make
-- the row look locked.) Recipe: page by key, by index.
create or replace function claim_restores_to_trigger(p_limit integer, p_worker text default null) returns setof restores
language sql volatile set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
  update restores r set attempts = r.attempts + 1, attempt_after = now() + lease(r),
                        claim_id = gen_random_uuid(), claimed_by = p_worker, claimed_at = now()
   where r.id = any (array(
     select d.id from restores d
      where d.status = 'not_started' and d.attempt_after <= now()
      order by d.attempt_after limit p_limit for no key update skip locked))
  returning r.*
$$;

-- Claims a page of objects to ask S3 about: first those with an event to confirm, then those pending that were not checked for
-- p_poll_after. A run walks the index of these once (p_after_checked, p_after_id: where the last page ended), so rows in backoff
-- are not read again for each page. When there are none of these (a page of both would confuse that cursor), those whose time has
-- come (ask_after, times.sql). A claim moves ask_after on, so their index needs no cursor. Recipe: page by key, by index, one plan.
create or replace function claim_restores_to_poll(p_limit integer, p_poll_after interval,
                                                  p_after_checked timestamptz default '-infinity',
                                                  p_after_id uuid default '00000000-0000-0000-0000-000000000000',
                                                  p_worker text default null) returns setof restores
language plpgsql volatile set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  v_wanted uuid[];
  v_unchecked uuid[];
  v_due uuid[];
begin
  v_wanted := array(
    select d.id from restores d
     where d.head_wanted_at is not null and d.status <> 'not_started' and d.attempt_after <= now()
     order by d.attempt_after limit p_limit for no key update skip locked);
  v_unchecked := array(
    select d.id from restores d
     where d.status = 'pending' and coalesce(d.last_checked_at, d.accepted_at) <= now() - p_poll_after
       and (coalesce(d.last_checked_at, d.accepted_at), d.id) > (p_after_checked, p_after_id)
       and d.head_wanted_at is null and d.attempt_after <= now()
     order by coalesce(d.last_checked_at, d.accepted_at), d.id
     limit p_limit - cardinality(v_wanted) for no key update skip locked);
  if v_unchecked = '{}' then
    v_due := array(
      select d.id from restores d
       where d.status = 'pending' and d.head_wanted_at is null and d.ask_after <= now() and d.attempt_after <= now()
       order by d.ask_after, d.id limit p_limit - cardinality(v_wanted) for no key update skip locked);
  end if;
  return query
    update restores r set attempts = r.attempts + 1, attempt_after = now() + lease(r), ask_after = greatest(r.ask_after, now() + lease(r)),
                          claim_id = gen_random_uuid(), claimed_by = p_worker, claimed_at = now()
     where r.id = any (v_wanted || v_unchecked || v_due)
    returning r.*;
end
$$;

-- What a task found out about a page: [{id, claim_id, code?, message?, storage_class?, ...}].
create or replace function parse_outcomes(p_outcomes jsonb)
returns table (id uuid, claim_id uuid, storage_class text, archive_status text, size_bytes bigint, etag text,
               pinned_version_id text, tier text, restore_expires_at timestamptz, code text, message text,
               region text, days integer, gives_back boolean)
language sql stable as $$
  select o.id, o.claim_id, o.storage_class, o.archive_status, o.size_bytes, o.etag,
         o.pinned_version_id, o.tier, o.restore_expires_at, o.code, o.message, o.region, o.days, o.gives_back
    from jsonb_to_recordset(p_outcomes) as o (id uuid, claim_id uuid, storage_class text, archive_status text, size_bytes bigint,
      etag text, pinned_version_id text, tier text, restore_expires_at timestamptz, code text, message text,
      region text, days integer, gives_back boolean)
$$;

-- The outcomes of restores that are open and in one of these states.
create or replace function outcomes_in(p_outcomes jsonb, p_statuses restore_status[])
returns table (id uuid, claim_id uuid, storage_class text, archive_status text, size_bytes bigint, etag text,
               pinned_version_id text, tier text, restore_expires_at timestamptz, code text, message text,
               region text, days integer, gives_back boolean)
language sql stable as $$
  select * from parse_outcomes(p_outcomes) o
   where o.id = any (array(select i from open_with_status(array(select p.id from parse_outcomes(p_outcomes) p), p_statuses) i))
$$;

-- Applies a page of outcomes in one transaction. The field transition of each names the function below that moves its row.
create or replace function settle_restores(p_outcomes jsonb, p_notify_waits interval[]) returns void
-- Recipe: by index, also for the functions that it calls.
language plpgsql volatile set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_kind record;
  v_not_started uuid[];
  v_recharged uuid[];
begin
  -- All locks first, in one order: one lock_restores per transition would not be in order.
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  -- S3 has certainly not started these, so they cost nothing. Only the current claim holder knows.
  v_not_started := array(
    select r.id from outcomes_in(p_outcomes, '{not_started}') o join restores r on r.id = o.id
     where o.gives_back and r.claim_id = o.claim_id and r.admitted_at is not null);
  v_recharged := v_not_started || accepted_by_other_tier(p_outcomes);
  if v_recharged <> '{}' then perform lock_spending(v_recharged); end if;
  perform give_back(v_not_started);
  for v_kind in
    select o ->> 'transition' as transition, jsonb_agg(o) as outcomes from jsonb_array_elements(p_outcomes) o group by 1 order by 1
  loop
    case v_kind.transition
      when 'mark_restores_pending' then perform mark_restores_pending(v_kind.outcomes, p_notify_waits);
      when 'mark_restores_restored' then perform mark_restores_restored(v_kind.outcomes, p_notify_waits);
      when 'mark_restores_failed' then perform mark_restores_failed(v_kind.outcomes, p_notify_waits);
      when 'mark_restores_lost' then perform mark_restores_lost(v_kind.outcomes, p_notify_waits);
      when 'mark_restores_expired' then perform mark_restores_expired(v_kind.outcomes, p_notify_waits);
      when 'note_restores_checked' then perform note_restores_checked(v_kind.outcomes, p_notify_waits);
      when 'note_restore_troubles' then perform note_restore_troubles(v_kind.outcomes, p_notify_waits);
    end case;
  end loop;
end
$$;

-- not_started -> pending: S3 is restoring it. A fact, so it needs no claim. (An event may have asked for a HEAD meanwhile.)
-- Without a tier somebody else has asked S3, and pays.
create or replace function mark_restores_pending(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_doubtful boolean;
  v_paid uuid[];
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  perform charge_other_tier(p_outcomes);
  with accepted as (
    update restores r
       set status = 'pending', status_at = now(), accepted_at = now(), last_checked_at = null,
           ask_after = (select now() + h.to_hours * interval '1 hour' from usual_hours(o.storage_class, o.archive_status, o.tier, o.size_bytes) h),
           tier = o.tier, days = coalesce(o.days, r.days),
           payer = coalesce(r.payer, (select payer_name(q.email, q.principal, q.access_key_id, q.account_id, q.principal_id) from first_reader(r.id) q), 'unknown'),
           estimated_cost = case when r.charged is not null then r.estimated_cost
                                 when o.tier is not null
                                 then estimate_cost(o.region, o.storage_class, o.archive_status, o.tier, o.size_bytes, coalesce(o.days, r.days)) end,
           storage_class = o.storage_class, archive_status = o.archive_status, size_bytes = o.size_bytes, etag = o.etag,
           pinned_version_id = o.pinned_version_id,
           attempts = 0, attempt_after = now(), claim_id = null, failing_since = null, failure_code = null, failure_message = null
      from outcomes_in(p_outcomes, '{not_started}') o
     where r.id = o.id
    returning r.id, r.head_wanted_at, r.tier is not null and r.lost_count = 0 as is_paid)
  select bool_or(a.head_wanted_at is not null), array_agg(a.id) filter (where a.is_paid) into v_doubtful, v_paid from accepted a;
  perform note_costs(v_paid, false);
  if v_doubtful is not null then perform nudge('pre_notify', p_notify_waits); end if;
  if v_doubtful then perform nudge('poll_pending_restores'); end if;
end
$$;

-- not_started, pending -> restored: HEAD says that it is readable.
create or replace function mark_restores_restored(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  update restores r
     set status = 'restored', status_at = now(), restore_expires_at = o.restore_expires_at,
         storage_class = o.storage_class, archive_status = o.archive_status, size_bytes = o.size_bytes, etag = o.etag,
         pinned_version_id = o.pinned_version_id, last_checked_at = now(), head_wanted_at = null,
         attempts = 0, attempt_after = now(), claim_id = null, failing_since = null, failure_code = null, failure_message = null
    from outcomes_in(p_outcomes, '{not_started,pending}') o
   where r.id = o.id and r.claim_id = o.claim_id;
  if found then perform nudge('post_notify', p_notify_waits); end if;
end
$$;

-- not_started, pending -> failed: HEAD says that there is nothing (left) to restore.
create or replace function mark_restores_failed(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  update restores r
     set status = 'failed', status_at = now(), failure_code = o.code, failure_message = o.message, claim_id = null, head_wanted_at = null
    from outcomes_in(p_outcomes, '{not_started,pending}') o
   where r.id = o.id and r.claim_id = o.claim_id;
  if found then perform nudge('post_notify', p_notify_waits); end if;
end
$$;

-- pending -> not_started, the third time failed: accepted a while ago, and archived without having been readable. Only HEAD may
-- say so, and only the current claim holder may report it: a paused worker's view is stale.
create or replace function mark_restores_lost(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_statuses restore_status[];
  v_waits interval[];
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  with lost as (
    update restores r
       set status = case when r.lost_count + 1 < lost_limit() then 'not_started' else 'failed' end::restore_status,
           status_at = now(), lost_count = r.lost_count + 1, accepted_at = null, last_checked_at = null, head_wanted_at = null,
           ask_after = 'infinity', tier = null, attempts = 0, attempt_after = now(), claim_id = null, failing_since = null,
           failure_code = 'restore_lost',
           failure_message = format('S3 accepted the restore %s but the file is still archived. %s',
             case when r.lost_count = 0 then 'once' when r.lost_count = 1 then 'twice' else r.lost_count + 1 || ' times' end,
             case when r.lost_count + 1 < lost_limit() then 'It is being asked for again.' else 'An administrator should look at it.' end)
      from outcomes_in(p_outcomes, '{pending}') o
     where r.id = o.id and r.accepted_at <= now() - lost_grace() and not was_asked_too_early(r)
       and r.claim_id = o.claim_id and r.attempt_after > now()
    returning r.status)
  select array_agg(l.status) into v_statuses from lost l;
  if 'not_started' = any (v_statuses) then perform nudge('trigger_restores'); end if;
  if 'failed' = any (v_statuses) then perform nudge('post_notify', p_notify_waits); end if;

  -- Too soon to tell: check again after the grace time. Or an event has come since the claim: check again now.
  with too_soon as (
    update restores r
       set head_wanted_at = least(coalesce(r.head_wanted_at, now()), now()), attempts = 0, claim_id = null,
           attempt_after = case when was_asked_too_early(r) then now() else r.accepted_at + lost_grace() end
      from outcomes_in(p_outcomes, '{pending}') o
     where r.id = o.id and (r.accepted_at > now() - lost_grace() or was_asked_too_early(r))
       and r.claim_id = o.claim_id and r.attempt_after > now()
    returning case when r.attempt_after <= now() then interval '0' else lost_grace() end as wait)
  select array_agg(distinct t.wait) into v_waits from too_soon t;
  perform nudge('poll_pending_restores', v_waits);
end
$$;

-- No transition: S3 answered, and nothing has changed. While S3 is restoring it is asked again: by its time (next_ask). If an event
-- said that the restore is done: at once if the event came after the claim, else with a growing delay.
create or replace function note_restores_checked(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_readable boolean;
  v_waits interval[];
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  with checked as (
    update restores r
       set last_checked_at = now(),
           -- Not later than now, even if the clock was set back: the next claim must come after it (was_asked_too_early).
           head_wanted_at = case when r.status = 'pending' and r.head_wanted_at is not null then least(r.head_wanted_at, now()) end,
           ask_after = case when r.status = 'pending' then next_ask(r) else r.ask_after end,
           restore_expires_at = case when r.status = 'restored' then o.restore_expires_at end,
           attempts = 0,
           attempt_after = case when r.status = 'pending' and r.head_wanted_at is not null and not was_asked_too_early(r)
                                then now() + ask_again_delay(r.head_wanted_at) else now() end,
           claim_id = null, failing_since = null, failure_code = null, failure_message = null
      from outcomes_in(p_outcomes, '{pending,restored}') o
     where r.id = o.id and r.claim_id = o.claim_id
    returning r.status, r.head_wanted_at, r.attempt_after - now() as wait)
  select bool_or(c.status = 'restored'), array_agg(distinct c.wait) filter (where c.head_wanted_at is not null)
    into v_readable, v_waits from checked c;
  perform nudge('poll_pending_restores', v_waits);
  -- Ready mails that were held back while S3 was asked may go now.
  if v_readable then perform nudge('post_notify', interval '0' || p_notify_waits); end if;
end
$$;

-- S3 failed. At first no transition: the error is stored where operators see it, and the row stays in backoff until the claim's
-- lease ends. When retries are exhausted: not_started, pending -> failed. Only the current claim holder may report.
create or replace function note_restore_troubles(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
declare
  v_over uuid[];
  v_believed boolean;
  v_trigger_waits interval[];
  v_poll_waits interval[];
begin
  perform lock_restores(array(select o.id from parse_outcomes(p_outcomes) o));
  update restores r
     set status = 'failed', status_at = now(), failure_code = o.code, failure_message = o.message, claim_id = null, head_wanted_at = null
    from outcomes_in(p_outcomes, '{not_started,pending}') o
   where r.id = o.id and r.claim_id = o.claim_id and r.attempt_after > now()
     and retries_exhausted(r);
  if found then perform nudge('post_notify', p_notify_waits); end if;

  -- A restored object that S3 fails to answer for: rely on its last answer, until the expiry that this gave. After it: -> closed.
  with believed as (
    update restores r
       set head_wanted_at = null, attempts = 0, attempt_after = now(), claim_id = null,
           failing_since = null, failure_code = null, failure_message = null
      from outcomes_in(p_outcomes, '{restored}') o
     where r.id = o.id and r.claim_id = o.claim_id and r.attempt_after > now()
       and retries_exhausted(r)
    returning r.id, r.restore_expires_at)
  select array_agg(b.id) filter (where b.restore_expires_at <= now()), count(*) > 0 into v_over, v_believed from believed b;
  if v_believed then perform nudge('post_notify', interval '0' || p_notify_waits); end if;
  perform reopen_restores(v_over);

  with troubled as (
    update restores r
       set failing_since = coalesce(r.failing_since, now()), failure_code = o.code, failure_message = o.message, claim_id = null,
           attempt_after = case o.code when 'SlowDown' then now() + busy_delay(r.attempts) else r.attempt_after end,
           ask_after = least(r.ask_after, case o.code when 'SlowDown' then now() + busy_delay(r.attempts) else r.attempt_after end)
      from outcomes_in(p_outcomes, '{not_started,pending,restored}') o
     where r.id = o.id and r.claim_id = o.claim_id and r.attempt_after > now()
    returning r.status, r.attempt_after - now() as wait)
  select array_agg(distinct d.wait) filter (where d.status = 'not_started'), array_agg(distinct d.wait) filter (where d.status <> 'not_started')
    into v_trigger_waits, v_poll_waits
    from troubled d;
  perform nudge('trigger_restores', v_trigger_waits), nudge('poll_pending_restores', v_poll_waits);
end
$$;

-- restored -> closed: HEAD says that it is archived again, or gone (then the new restore finds that out and fails).
create or replace function mark_restores_expired(p_outcomes jsonb, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
begin
  perform reopen_restores(array(
    select r.id from outcomes_in(p_outcomes, '{restored}') o join restores r on r.id = o.id
     where r.claim_id = o.claim_id and r.attempt_after > now()));
end
$$;

-- restored, failed -> closed, and a new restore in its place, if it has readers who need one: readers who have no post mail, and
-- readers who read it after its end; with p_everyone all readers (an operator retries a failed one). Returns the new ids.
create or replace function reopen_restores(p_restore_ids uuid[], p_everyone boolean default false) returns setof uuid
language plpgsql volatile as $$
declare
  v_closed uuid[];
begin
  perform lock_restores(p_restore_ids);

  -- closed_at of a copy is when S3 last called it readable: a read after that is not a late delivery.
  with over as (
    update restores r
       set head_wanted_at = null, claim_id = null,
           closed_at = case r.status when 'failed' then now() else least(now(), greatest(r.status_at + late_read_grace(), r.last_checked_at)) end,
           -- A mail that is rendered from now on must not call it readable.
           restore_expires_at = case r.status when 'restored' then least(r.restore_expires_at, now()) end
     where r.id = any (array(select i from open_with_status(p_restore_ids, '{restored,failed}') i))
    returning r.id)
  select array_agg(o.id) into v_closed from over o;
  if v_closed is null then return; end if;

  insert into restores (id, s3_bucket, s3_key, version_id, region)
  select gen_random_uuid(), r.s3_bucket, r.s3_key, r.version_id, r.region
    from restores r
   where r.id = any (v_closed)
     and exists (select from restore_requests q where q.restore_id = r.id
                    and (p_everyone or awaits_post(q, q.requested_at) or q.last_read_at > r.closed_at))
   order by r.s3_bucket, r.s3_key, r.version_id
      on conflict (s3_bucket, s3_key, version_id) where closed_at is null do nothing;

  perform move_untold_requests(v_closed);

  insert into restore_requests (id, restore_id, s3_bucket, s3_key, version_id, access_key_id, principal, account_id, source_identity,
                                principal_id, on_behalf_of, email, user_resolved, resolved_by, restore_status, status_at, last_read_at, last_event_id, observed)
  select gen_random_uuid(), n.id, q.s3_bucket, q.s3_key, q.version_id, q.access_key_id, q.principal, q.account_id, q.source_identity,
         q.principal_id, q.on_behalf_of, q.email, q.user_resolved, q.resolved_by, n.status, n.status_at, q.last_read_at, q.last_event_id, q.observed
    from restores o
    join restore_requests q on q.restore_id = o.id
    join restores n on n.s3_bucket = o.s3_bucket and n.s3_key = o.s3_key and n.version_id = o.version_id and n.closed_at is null
   where o.id = any (v_closed) and (p_everyone or q.last_read_at > o.closed_at)
      on conflict (restore_id, reader) do nothing;

  perform nudge('trigger_restores');
  return query
    select n.id from restores o
      join restores n on n.s3_bucket = o.s3_bucket and n.s3_key = o.s3_key and n.version_id = o.version_id and n.closed_at is null
     where o.id = any (v_closed);
end
$$;

-- Moves requests of closed restores whose readers have not been told how it ended to the object's open restore. Unknown readers
-- move for a limited time only (awaits_post), or their number would grow with each restore.
create or replace function move_untold_requests(p_closed uuid[]) returns void
language sql volatile as $$
  update restore_requests q
     set restore_id = n.id, restore_status = n.status, status_at = n.status_at
    from restores o
    join restores n on n.s3_bucket = o.s3_bucket and n.s3_key = o.s3_key and n.version_id = o.version_id and n.closed_at is null
   where o.id = any (p_closed) and q.restore_id = o.id and awaits_post(q, q.requested_at)
     and not exists (select from restore_requests t where t.restore_id = n.id and t.reader = q.reader)
$$;

-- At most one sweep runs at a time, however many workers: the row locks of several pages together would delay POSTs.
create or replace function close_lock() returns bigint language sql immutable as $$ select hashtextextended('close_finished_restores', 0) $$;

-- restored, failed -> closed, a page at a time; returns how many, 0 also while another worker sweeps. When it runs does not matter:
-- closed_at is when the restore was over, not when we noticed. A restore without expiry is over once all its readers are told.
-- Recipe: page by key, by index, one plan.
create or replace function close_finished_restores(p_limit integer) returns integer
language plpgsql volatile set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  v_ids uuid[];
begin
  if not pg_try_advisory_xact_lock(close_lock()) then return 0; end if;

  -- Not while a HEAD is wanted: its answer decides.
  v_ids := array(
    select d.id from restores d
     where d.closed_at is null and d.status = 'failed' and d.head_wanted_at is null
       and coalesce(d.restore_expires_at, d.status_at) <= now() - failed_stays_open()
     order by coalesce(d.restore_expires_at, d.status_at) limit p_limit for update skip locked);
  v_ids := v_ids || array(
    select d.id from restores d
     where d.closed_at is null and d.status = 'restored' and d.head_wanted_at is null
       and coalesce(d.restore_expires_at, d.status_at) <= now() and over_at(d) <= now()
       and (d.restore_expires_at is not null
            or not exists (select from restore_requests q where q.restore_id = d.id and awaits_post(q, d.status_at)))
     order by coalesce(d.restore_expires_at, d.status_at) limit p_limit - cardinality(v_ids) for update skip locked);
  update restores r set closed_at = over_at(r), head_wanted_at = null, claim_id = null where r.id = any (v_ids);
  return cardinality(v_ids);
end
$$;
