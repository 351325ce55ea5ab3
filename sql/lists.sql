-- What the operator's pages read, besides the views of views.sql. No view of rows sorts, joins or counts: a page reads some fifty rows
-- by an index, however many there are.

-- All that Thaw and S3 know of a restore.
create or replace view restore_details as
  select r.id, r.s3_bucket, r.s3_key, r.version_id, r.region, r.status as restore_status, r.status_at, r.created_at, r.closed_at,
         r.storage_class, r.archive_status, r.tier, r.size_bytes, r.accepted_at, r.restored_at, r.restore_expires_at, r.last_checked_at,
         r.attempts, case when isfinite(r.attempt_after) then r.attempt_after end as attempt_after, r.failing_since, r.lost_count, r.head_wanted_at,
         r.failure_code, r.failure_message,
         r.status = 'not_started' and r.attempt_after = 'infinity' as is_held, r.hold_id, r.payer, r.days, r.estimated_cost,
         case when r.status = 'pending' and isfinite(r.ask_after) then r.ask_after end as ask_after
    from restores r;

-- Who reads what, and what they were told.
create or replace view restore_readers as
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.version_id, q.reader, q.access_key_id, q.principal, q.account_id, q.source_identity,
         q.email::text as email, q.resolved_by::text as resolved_by, q.restore_status, q.status_at, q.requested_at, q.read_count, q.last_read_at,
         q.pre_notified, q.post_notified, q.pre_notification_id, q.post_notification_id, q.observed,
         q.principal_id, q.on_behalf_of
    from restore_requests q;

-- Mails that are not sent, without their bodies. The index of notifications is for notification_status, not for the text of it. A mail
-- of a person who was erased is not to be sent.
create or replace view unsent_mails as
  select n.id, n.kind::text as kind, n.email::text as email, n.status::text as status, n.created_at, n.sent_at, n.attempts, n.attempt_after,
         n.resend_id, coalesce(n.failure_code, '') as failure_code, coalesce(n.failure_message, '') as failure_message, n.superseded_by,
         n.status as notification_status
    from notifications n where n.status <> 'sent' and n.superseded_by is null and n.failure_code is distinct from 'erased';

-- How long it took from the read to "readable", in 30 days, by the buckets' bounds. hourly_totals would add up each hour first.
create or replace view times_to_readable as
  select b.labels ->> 'storage_class' as storage_class, b.labels ->> 'tier' as tier, b.le, b.n
    from (select t.labels, t.le, sum(t.n) as n from totals t
           where t.hour > now() - interval '30 days' and t.metric = 'read_to_readable_seconds' group by t.labels, t.le) b;

-- What operators search. Each function reads an index in its order up to p_limit, from the row p_after on, which is the last one of
-- the page before. Recipe: by index.

-- The bucket after p_bucket, of those that restores are in.
create or replace function next_bucket(p_bucket text) returns text
language sql stable set enable_seqscan = off set enable_bitmapscan = off as $$
  select least((select min(r.s3_bucket) from restore_details r where r.closed_at is null and r.s3_bucket > p_bucket),
               (select min(r.s3_bucket) from restore_details r where r.closed_at is not null and r.s3_bucket > p_bucket))
$$;

-- Restores of files whose keys begin with p_key, by name. p_bucket is the bucket, or (not p_is_whole) how its name begins.
create or replace function find_by_name(p_bucket text, p_is_whole boolean, p_key text, p_after uuid, p_limit integer) returns setof uuid
language plpgsql stable set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  v_after restore_details;
  v_bucket text;
  v_from text := p_key;
  -- No key that begins with p_key comes after it: a key has at most 1,024 bytes.
  v_to constant text := p_key || repeat(chr(1114111), 256);
  v_left integer := p_limit;
  v_found integer;
begin
  select * into v_after from restore_details r where r.id = p_after;
  v_bucket := case when p_is_whole then p_bucket else coalesce(v_after.s3_bucket, next_bucket('')) end;
  v_from := coalesce(v_after.s3_key, p_key);
  while v_bucket is not null and v_left > 0 loop
    if p_is_whole or starts_with(v_bucket, p_bucket) then
      return query
        select o.id
          from ((select r.id, r.s3_key, r.version_id, 'infinity'::timestamptz as closed_at from restore_details r
                  where r.s3_bucket = v_bucket and r.s3_key ~>=~ v_from and r.s3_key ~<=~ v_to and r.closed_at is null
                    and (v_after.id is null or r.s3_key ~>~ v_from
                         or (r.version_id, 'infinity', r.id) > (v_after.version_id, coalesce(v_after.closed_at, 'infinity'), v_after.id))
                  order by r.s3_key using ~<~, r.version_id limit v_left)
                union all
                (select r.id, r.s3_key, r.version_id, r.closed_at from restore_details r
                  where r.s3_bucket = v_bucket and r.s3_key ~>=~ v_from and r.s3_key ~<=~ v_to and r.closed_at is not null
                    and (v_after.id is null or r.s3_key ~>~ v_from
                         or (r.version_id, r.closed_at, r.id) > (v_after.version_id, coalesce(v_after.closed_at, 'infinity'), v_after.id))
                  order by r.s3_key using ~<~, r.version_id, r.closed_at, r.id limit v_left)) o
         order by o.s3_key using ~<~, o.version_id, o.closed_at, o.id limit v_left;
      get diagnostics v_found = row_count;
      v_left := v_left - v_found;
    end if;
    exit when p_is_whole;
    v_bucket := next_bucket(v_bucket);
    v_after := null;
    v_from := p_key;
  end loop;
end
$$;

-- The reads of a person, the newest first: those of whose end they are still to be told, and the others.
create or replace function find_by_address(p_address text, p_after uuid, p_limit integer) returns setof uuid
language sql stable set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
  select o.id
    from (select coalesce((select q.requested_at from restore_readers q where q.id = p_after), 'infinity') as at) a
   cross join lateral (
     (select q.id, q.requested_at from restore_readers q
       where lower(q.email) = lower(p_address) and q.post_notification_id is null and q.email is not null and not q.observed
         and (q.requested_at, q.id) < (a.at, coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
       order by q.requested_at desc, q.id desc limit p_limit)
     union all
     (select q.id, q.requested_at from restore_readers q
       where lower(q.email) = lower(p_address) and (q.post_notification_id is not null or q.observed) and q.email is not null
         and (q.requested_at, q.id) < (a.at, coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
       order by q.requested_at desc, q.id desc limit p_limit)) o
   order by o.requested_at desc, o.id desc limit p_limit
$$;

-- Of a prefix of readers' names, so many are looked up.
create or replace function readers_looked_up() returns integer language sql immutable as $$ select 100 $$;

-- Access keys, ARNs and principal ids (of readers without an ARN) that begin with p_start, the first readers_looked_up() of each. One step through the index for each, however
-- much it has read.
create or replace function readers_like(p_start text) returns setof text
language plpgsql stable set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  v_name text := '';
begin
  for i in 1 .. readers_looked_up() loop
    select q.access_key_id into v_name from restore_readers q
     where q.access_key_id <> '' and q.access_key_id ~>=~ p_start and q.access_key_id ~>~ v_name
     order by q.access_key_id using ~<~ limit 1;
    exit when v_name is null or not starts_with(v_name, p_start);
    return next v_name;
  end loop;
  v_name := '';
  for i in 1 .. readers_looked_up() loop
    select q.principal into v_name from restore_readers q
     where q.principal <> '' and q.principal ~>=~ p_start and q.principal ~>~ v_name
     order by q.principal using ~<~ limit 1;
    exit when v_name is null or not starts_with(v_name, p_start);
    return next v_name;
  end loop;
  v_name := '';
  for i in 1 .. readers_looked_up() loop
    select q.principal_id into v_name from restore_readers q
     where q.principal_id <> '' and q.principal = '' and q.principal_id ~>=~ p_start and q.principal_id ~>~ v_name
     order by q.principal_id using ~<~ limit 1;
    exit when v_name is null or not starts_with(v_name, p_start);
    return next v_name;
  end loop;
end
$$;

-- What readers of these names (access keys, ARNs or principal ids) read, the newest first.
create or replace function find_by_reader(p_names text[], p_after uuid, p_limit integer) returns setof uuid
language sql stable set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
  select o.id
    from (select coalesce((select q.requested_at from restore_readers q where q.id = p_after), 'infinity') as at) a
   cross join unnest(p_names) n (name)
   cross join lateral (
     (select q.id, q.requested_at from restore_readers q
       where q.access_key_id = n.name and q.access_key_id <> ''
         and (q.requested_at, q.id) < (a.at, coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
       order by q.requested_at desc, q.id desc limit p_limit)
     union all
     (select q.id, q.requested_at from restore_readers q
       where q.principal = n.name and q.principal <> ''
         and (q.requested_at, q.id) < (a.at, coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
       order by q.requested_at desc, q.id desc limit p_limit)
     union all
     (select q.id, q.requested_at from restore_readers q
       where q.principal_id = n.name and q.principal_id <> '' and q.principal = ''
         and (q.requested_at, q.id) < (a.at, coalesce(p_after, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
       order by q.requested_at desc, q.id desc limit p_limit)) o
   group by o.id, o.requested_at
   order by o.requested_at desc, o.id desc limit p_limit
$$;
