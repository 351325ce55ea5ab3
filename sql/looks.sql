-- Looks. `aws s3 cp` of one file asks HEAD, sees the storage class, and gives up without a read that could fail. Of such a call the
-- function posts evidence "looked", and only a HEAD of our own says whether the object is archived. Until then it waits here, so
-- that a look at a readable object leaves nothing behind.
--
--   (none) -> waiting        put_looks            a look comes in (request_restores)
--   waiting -> claimed       claim_looks          the looks at an object, for one HEAD
--   claimed -> a read        hand_in_looks        archived, or being restored: from here on a read like any other
--   claimed -> (none)        drop_looks           readable, or gone: nothing to restore
--   claimed -> waiting       note_look_troubles   S3 failed: backoff
--   claimed -> (none)        note_look_troubles   ... for 24 hours and ten tries
--
-- A row is claimed while claim_id is set. Reads come first: trigger_restores takes a page of looks when no restore is due.
--
-- put_looks waits for no lock, because the reads of its batch would wait with it. So two calls at once may write two rows for one
-- reader; handed in, they are one request.

-- At most this many looks are claimed for the objects of a page beside those that are due first. Handed in, they hold their locks for
-- less than 100 ms.
create or replace function looks_page() returns integer language sql immutable as $$ select 200 $$;

-- Takes looks (as request_restores takes reads). One of a reader who already has one waiting for that object joins it: the newer
-- time and event count. Not one that is claimed, for its HEAD may be older than this look. Returns the id that the request will have
-- if the object is archived (and the reader has no request yet); duplicate: it joined an earlier look.
-- Recipe: row by row, by index.
create or replace function put_looks(p_looks jsonb) returns table (read_id uuid, request_id uuid, duplicate boolean)
language plpgsql volatile set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  v_look record;
  v_waiting uuid;
  v_is_new boolean := false;
begin
  for v_look in
    select p.id, p.s3_bucket, p.s3_key, p.version_id, p.reader, p.event_time,
           (e.read - 'evidence') || jsonb_build_object('event_time', p.event_time) as read
      from parse_reads(p_looks) p
      join jsonb_array_elements(p_looks) with ordinality e (read, ord) on e.ord = p.ord
     order by p.ord
  loop
    select l.id into v_waiting from looks l
     where l.s3_bucket = v_look.s3_bucket and l.s3_key = v_look.s3_key and l.version_id = v_look.version_id
       and hashtextextended(l.reader, 0) = hashtextextended(v_look.reader, 0) and l.reader = v_look.reader
       and l.claim_id is null
     limit 1 for no key update skip locked;
    if found then
      update looks l set read = v_look.read || jsonb_build_object('id', l.id)
       where l.id = v_waiting and (l.read ->> 'event_time')::timestamptz < v_look.event_time;
    else
      v_waiting := v_look.id;
      v_is_new := true;
      insert into looks (id, s3_bucket, s3_key, version_id, reader, read)
      values (v_look.id, v_look.s3_bucket, v_look.s3_key, v_look.version_id, v_look.reader, v_look.read);
    end if;
    read_id := v_look.id;
    request_id := v_waiting;
    duplicate := v_waiting <> v_look.id;
    return next;
  end loop;
  if v_is_new then perform nudge('trigger_restores'); end if;
end
$$;

-- One claim of looks at a time, for some milliseconds: two would divide the looks at one object, and ask about it twice.
create or replace function claim_looks_lock() returns bigint language sql immutable as $$ select hashtextextended('claim_looks', 0) $$;

-- Claims the looks at up to p_limit objects: one row for each object, with the looks that one HEAD answers. The claim is a lease, as
-- that of a restore is. Recipe: page by key, by index, one plan.
create or replace function claim_looks(p_limit integer, p_worker text default null)
returns table (claim_id uuid, ids uuid[], s3_bucket text, s3_key text, version_id text, region text)
language plpgsql volatile set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
  v_claim uuid := gen_random_uuid();
  v_ids uuid[];
begin
  perform pg_advisory_xact_lock(claim_looks_lock());
  v_ids := array(
    select d.id from looks d where d.attempt_after <= now()
     order by d.attempt_after limit p_limit for no key update skip locked);
  if v_ids = '{}' then return; end if;
  -- Others who looked at the same objects.
  v_ids := v_ids || array(
    select m.id
      from (select distinct o.s3_bucket, o.s3_key, o.version_id from looks o where o.id = any (v_ids)) o
     cross join lateral (
       select l.id from looks l
        where l.s3_bucket = o.s3_bucket and l.s3_key = o.s3_key and l.version_id = o.version_id
          and l.attempt_after <= now() and l.id <> all (v_ids)
        limit looks_page() for no key update skip locked) m
     limit looks_page());
  return query
    with claimed as (
      update looks l set attempts = l.attempts + 1, attempt_after = now() + retry_delay(l.attempts + 1),
                         claim_id = v_claim, claimed_by = p_worker
       where l.id = any (v_ids)
      returning l.*)
    select v_claim, array_agg(c.id), c.s3_bucket, c.s3_key, c.version_id, max(c.read ->> 'region')
      from claimed c group by c.s3_bucket, c.s3_key, c.version_id;
end
$$;

-- HEAD says archived, or being restored: these looks become reads, with the event and the time that they came with, so that
-- policies, limits, late deliveries and repeats are judged as of any read. Only the current claim holder may.
-- Raises what request_restores raises. Recipe: by index.
create or replace function hand_in_looks(p_claim_id uuid, p_ids uuid[], p_notify_waits interval[], p_session_domains text[] default '{}')
returns void
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_reads jsonb;
begin
  with handed_in as (delete from looks l where l.id = any (p_ids) and l.claim_id = p_claim_id returning l.read)
  select jsonb_agg(h.read) into v_reads from handed_in h;
  if v_reads is not null then perform from request_restores(v_reads, p_notify_waits, p_session_domains); end if;
end
$$;

-- HEAD says readable, or gone. Only the current claim holder may report it. Recipe: by index.
create or replace function drop_looks(p_claim_id uuid, p_ids uuid[]) returns void
language sql volatile set enable_seqscan = off as $$
  delete from looks l where l.id = any (p_ids) and l.claim_id = p_claim_id
$$;

-- S3 failed: p_troubles: [{ids, code, message}]. They stay in backoff until the claim's lease ends. When S3 has failed for long and
-- often enough to give up a restore, they are deleted: nobody was promised anything yet. Returns those. Recipe: by index.
create or replace function note_look_troubles(p_claim_id uuid, p_troubles jsonb)
returns table (id uuid, s3_bucket text, s3_key text, code text)
language plpgsql volatile set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_waits interval[];
begin
  with troubled as (
    update looks l
       set claim_id = null, failure_code = t.code, failure_message = t.message,
           attempt_after = case t.code when 'SlowDown' then now() + busy_delay(l.attempts) else l.attempt_after end
      from jsonb_to_recordset(p_troubles) as t (ids uuid[], code text, message text)
     where l.id = any (t.ids) and l.claim_id = p_claim_id
       and not (l.created_at <= now() - give_up_after() and l.attempts >= give_up_tries())
    returning l.attempt_after - now() as wait)
  select array_agg(distinct t.wait) into v_waits from troubled t;
  perform nudge('trigger_restores', v_waits);
  return query
    delete from looks l using jsonb_to_recordset(p_troubles) as t (ids uuid[], code text, message text)
     where l.id = any (t.ids) and l.claim_id = p_claim_id
    returning l.id, l.s3_bucket, l.s3_key, t.code;
end
$$;
