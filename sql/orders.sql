-- Orders: somebody has the files under a prefix, or in a list, restored for a person (npm run thaw -- restore). To all else an order
-- is ordinary reads by the reader mailto:<address>: policies, limits, holds and mails apply as to any read.
--
-- First preview_order says of each page of objects what would become of it, and order_limits what the limits would do with all of
-- it. Then open_order notes who orders what for whom, and order_restores hands it in, page by page. Repeated after an
-- interruption an order finds what it has handed in by its open restores, so nothing is handed in twice.

-- The reader of an order.
create or replace function order_reader(p_for text) returns text language sql immutable as $$ select 'mailto:' || lower(p_for) $$;

-- What an order of a page of archived objects would do: [{ord, s3_bucket, s3_key, version_id, region, storage_class, archive_status,
-- size_bytes, has_expedited}]. p_tier, p_days: RESTORE_TIER and RESTORE_DAYS, for what no policy says.
--   state   new: a restore begins. joined: it is under way, and the person hears, too. ordered: it is under way for this person
--           already. held: it waits for approval, and the person hears, too. failed: it has failed, and is not tried again before over_at.
--   action  what the policy says that fits.
-- tier, days, cost and limits as admissions_of has them; hours as usual_hours. Recipe: row by row, by index.
create or replace function preview_order(p_for text, p_objects jsonb, p_tier text, p_days integer)
returns table (ord integer, state text, action text, tier text, days integer, cost numeric, limits bigint[],
               from_hours double precision, to_hours double precision)
language sql stable set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  select o.ord,
         case
           when r.id is null or r.status = 'restored' or over_at(r) <= now() then 'new'
           when r.status = 'failed' then 'failed'
           when exists (select from restore_requests q where q.restore_id = r.id and q.reader = order_reader(p_for)) then 'ordered'
           when r.status = 'not_started' and r.attempt_after = 'infinity' then 'held'
           else 'joined' end,
         coalesce(p.action::text, 'restore'), t.tier, t.days,
         estimate_cost(o.region, o.storage_class, o.archive_status, t.tier, o.size_bytes, t.days),
         limits_of(o.s3_bucket, o.s3_key), h.from_hours, h.to_hours
    from (select prefix_lengths() as lengths offset 0) n
   cross join jsonb_to_recordset(p_objects) as o (ord integer, s3_bucket text, s3_key text, version_id text, region text, storage_class text,
                                                  archive_status text, size_bytes bigint, has_expedited boolean)
    left join lateral (select * from restores x
                        where x.s3_bucket = o.s3_bucket and x.s3_key = o.s3_key and x.version_id = coalesce(o.version_id, '')
                          and x.closed_at is null offset 0) r on true
    left join lateral find_policy(o.s3_bucket, o.s3_key, order_reader(p_for), array[lower(p_for)], n.lengths) p on true
   cross join lateral (select tier_for(coalesce(p.tier, p_tier), o.has_expedited) as tier, coalesce(p.days, p_days) as days) t
   cross join lateral usual_hours(o.storage_class, o.archive_status, t.tier, o.size_bytes) h
$$;

-- The limits that an order counts for, and whether it goes beyond what is left of them: [{limit_id, objects, bytes, cost,
-- is_unknown}]. is_unknown: something of it has no size or no price.
create or replace function order_limits(p_for text, p_needs jsonb)
returns table (limit_text text, objects_left bigint, bytes_left numeric, cost_left numeric, is_beyond boolean)
language sql stable as $$
  select limit_words(l), l.max_objects - u.objects, l.max_bytes - u.bytes, l.max_cost - u.cost,
         is_beyond(u.objects, n.objects, l.max_objects) or is_beyond(u.bytes, n.bytes, l.max_bytes) or is_beyond(u.cost, n.cost, l.max_cost)
         or (n.is_unknown and coalesce(l.max_bytes, l.max_cost) is not null)
    from jsonb_to_recordset(p_needs) as n (limit_id bigint, objects bigint, bytes numeric, cost numeric, is_unknown boolean)
    join limits l on l.id = n.limit_id
    left join spending s on s.limit_id = l.id and s.period = period_of(l.per, now())
                        and s.subject = case l.scope when 'person' then lower(p_for) else '' end
   cross join lateral (select coalesce(s.objects, 0) as objects, coalesce(s.bytes, 0) as bytes, coalesce(s.cost, 0) as cost) u
   order by l.scope, l.per, l.s3_bucket, l.key_prefix
$$;

-- Notes an order before anything of it is handed in: for whom, of what (s3://bucket/prefix, or a file), and what was planned. Returns
-- its row in actions; order_restores counts there what was handed in.
create or replace function open_order(p_for text, p_of text, p_plan jsonb) returns bigint
language plpgsql volatile as $$
declare
  v_id bigint;
begin
  if p_for is null or address_problem(p_for) is not null or is_erased(lower(p_for)) then
    raise exception 'nobody has the address %: %', p_for, coalesce(address_problem(p_for), 'it is missing')
      using errcode = 'invalid_parameter_value', hint = 'Write one bare address, like jane@example.com.';
  end if;
  insert into actions (actor, action, target, after)
  values (actor(), 'order restores', p_of, p_plan || jsonb_build_object('for', lower(p_for), 'handed_in', 0))
  returning id into v_id;
  return v_id;
end
$$;

-- Hands in a page of an order, as reads of its person just now: [{id, s3_bucket, s3_key, version_id?, region?, evidence?}], ids made by
-- the caller. Results as of request_restores. Of one order an object counts once, however often it is handed in (event_id).
create or replace function order_restores(p_order bigint, p_objects jsonb, p_notify_waits interval[], p_session_domains text[] default '{}')
returns table (read_id uuid, request_id uuid, duplicate boolean)
language plpgsql volatile as $$
declare
  v_for text;
  v_reads uuid[];
  v_requests uuid[];
  v_duplicates boolean[];
begin
  select a.after ->> 'for' into v_for from actions a where a.id = p_order and a.action = 'order restores';
  if not found then
    raise exception 'there is no order %', p_order using errcode = 'no_data_found', hint = 'Call open_order first.';
  elsif address_problem(v_for) is not null then
    raise exception 'the person of order % was erased', p_order using errcode = 'object_not_in_prerequisite_state';
  end if;
  select array_agg(r.read_id), array_agg(r.request_id), array_agg(r.duplicate) into v_reads, v_requests, v_duplicates
    from request_restores(
      -- No other field: it could name another reader.
      (select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'id', o -> 'id', 's3_bucket', o -> 's3_bucket', 's3_key', o -> 's3_key', 'version_id', o -> 'version_id', 'region', o -> 'region',
                'evidence', o -> 'evidence', 'principal', order_reader(v_for), 'event_id', 'order-' || p_order)))
         from jsonb_array_elements(p_objects) o),
      p_notify_waits, p_session_domains) r;
  -- Last, as wherever a row of actions is changed: restores are locked first.
  update actions a
     set after = jsonb_set(a.after, '{handed_in}', to_jsonb((a.after ->> 'handed_in')::bigint + coalesce(cardinality(array_remove(v_requests, null)), 0)))
   where a.id = p_order;
  return query select t.read_id, t.request_id, t.duplicate from unnest(v_reads, v_requests, v_duplicates) t (read_id, request_id, duplicate);
end
$$;
