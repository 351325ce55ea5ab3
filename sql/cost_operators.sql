-- What operators say about cost: policies, limits, prices. Each function checks what it is given, says in one line what is wrong with
-- it, and leaves a row in actions. Approving and refusing a hold: cost.sql.

-- ------------------------------------------------------------------------------------------------ policies

-- A whole number in a text; null: it is none.
create or replace function whole_number(p_text text) returns integer language sql immutable as $$
  select case when p_text ~ '^[0-9]{1,9}$' then p_text::integer end
$$;

-- What is wrong with a bucket and a prefix; null: nothing.
create or replace function place_problem(p_s3_bucket text, p_key_prefix text) returns text language sql immutable as $$
  select case
    when coalesce(p_s3_bucket, '') = '' then 'the bucket is missing: write s3://bucket/prefix, or s3://* for all'
    when octet_length(p_s3_bucket) > 255 then 'the bucket is longer than 255 bytes'
    when p_s3_bucket = '*' and p_key_prefix <> '' then 'all buckets have no common prefix: write s3://*'
    when p_s3_bucket <> '*' and p_s3_bucket !~ '^[A-Za-z0-9._-]+$' then 'no bucket has that name: write s3://bucket/prefix, or s3://* for all'
    when octet_length(p_key_prefix) > 1024 then 'the prefix is longer than 1,024 bytes'
    when right(p_key_prefix, 1) = '*' then 'a prefix stands for all that begins so: leave out the * at its end'
  end
$$;

-- The form in which a policy keeps a reader: as the maps do it; a role's ARN is taken for its sessions, an address is in lower case.
create or replace function normalized_principal(p_principal text) returns text language sql immutable as $$
  select case
    when coalesce(p_principal, '') in ('', '*') then '*'
    when p_principal like '%@%' and not is_principal(p_principal) then lower(p_principal)
    else normalized_map_id(p_principal)
  end
$$;

-- What is wrong with a normalized principal; null: nothing.
create or replace function policy_principal_problem(p_principal text) returns text language sql immutable as $$
  select case
    when octet_length(p_principal) > 2048 then 'the principal is longer than 2,048 bytes'
    when p_principal = '*' then null
    when is_principal(p_principal) then principal_problem(p_principal)
    when p_principal like '%@%' then address_problem(p_principal)
    when p_principal like '%*' then 'only an ARN may end in *, or the id of a role (AROA...:*)'
    else access_key_problem(p_principal)
  end
$$;

-- How set_policy and import_policies would store each of [{s3_bucket, key_prefix, principal, action, tier, days, note}], all of them
-- texts, and what is wrong with it; null: nothing. What is missing or empty: all readers, the worker's settings.
create or replace function check_policies(p_policies jsonb)
returns table (ord bigint, s3_bucket text, key_prefix text, principal text, action text, tier text, days integer, note text, problem text)
language sql immutable as $$
  select p.ord, p.s3_bucket, p.key_prefix, p.principal, p.action, p.tier, whole_number(p.days), p.note,
         coalesce(place_problem(p.s3_bucket, p.key_prefix), policy_principal_problem(p.principal),
           case
             when p.action is null then 'the action is missing: restore, hold, observe or ignore'
             when p.action not in ('restore', 'hold', 'observe', 'ignore') then 'the action must be restore, hold, observe or ignore'
             when p.action = 'ignore' and coalesce(p.tier, p.days) is not null then 'what is ignored is not restored: leave out tier and days'
             when p.tier not in ('Expedited', 'Standard', 'Bulk') then 'the tier must be Expedited, Standard or Bulk'
             when coalesce(whole_number(p.days), 0) not between 1 and 365 and p.days is not null then 'the days must be a whole number from 1 to 365'
             when length(p.note) > 1000 then 'the note is longer than 1,000 characters'
           end)
    from (select u.ord, u.s3_bucket, coalesce(u.key_prefix, '') as key_prefix, normalized_principal(u.principal) as principal,
                 nullif(u.action, '') as action, nullif(u.tier, '') as tier, nullif(u.days, '') as days, coalesce(u.note, '') as note
            from rows from (jsonb_to_recordset(p_policies)
                   as (s3_bucket text, key_prefix text, principal text, action text, tier text, days text, note text))
                   with ordinality as u (s3_bucket, key_prefix, principal, action, tier, days, note, ord)) p
   order by p.ord
$$;

-- "s3://logs/2024/, read by anybody".
create or replace function place_words(p_s3_bucket text, p_key_prefix text) returns text language sql immutable as $$
  select case when p_s3_bucket = '*' then 's3://*' else format('s3://%s/%s', p_s3_bucket, p_key_prefix) end
$$;
create or replace function policy_words(p_s3_bucket text, p_key_prefix text, p_principal text) returns text language sql immutable as $$
  select place_words(p_s3_bucket, p_key_prefix) || ', read by ' || case when p_principal = '*' then 'anybody' else p_principal end
$$;

-- What a policy says, for actions.
create or replace function policy_json(p policies) returns jsonb language sql stable as $$
  select jsonb_strip_nulls(jsonb_build_object('action', p.action, 'tier', p.tier, 'days', p.days, 'note', nullif(p.note, '')))
$$;

-- Adds and changes policies, all or none: as check_policies takes them. Counts for reads from now on, and for restores that S3 was not
-- asked for yet.
create or replace function import_policies(p_policies jsonb) returns table (added integer, changed integer)
language plpgsql volatile set lock_timeout = '3s' as $$
#variable_conflict use_column
declare
  v_problem text;
  v_added integer := 0;
  v_changed integer := 0;
  v_one record;
  v_old policies;
  v_new policies;
begin
  select format('entry %s: %s', c.ord, c.problem) into v_problem from check_policies(p_policies) c where c.problem is not null order by c.ord limit 1;
  if v_problem is not null then
    raise exception '%', v_problem using errcode = 'invalid_parameter_value';
  end if;
  lock table policies in share row exclusive mode;
  for v_one in
    select distinct on (c.s3_bucket, c.key_prefix, c.principal) c.* from check_policies(p_policies) c
     order by c.s3_bucket, c.key_prefix, c.principal, c.ord desc
  loop
    select p.* into v_old from policies p where (p.s3_bucket, p.key_prefix, p.principal) = (v_one.s3_bucket, v_one.key_prefix, v_one.principal);
    insert into policies as p (s3_bucket, key_prefix, principal, action, tier, days, note)
    values (v_one.s3_bucket, v_one.key_prefix, v_one.principal, v_one.action::policy_action, v_one.tier, v_one.days, v_one.note)
        on conflict (s3_bucket, key_prefix, principal) do update
           set action = excluded.action, tier = excluded.tier, days = excluded.days, note = excluded.note
    returning p.* into v_new;
    continue when policy_json(v_old) = policy_json(v_new);
    if v_old.s3_bucket is null then v_added := v_added + 1; else v_changed := v_changed + 1; end if;
    perform note_action('set a policy', policy_words(v_one.s3_bucket, v_one.key_prefix, v_one.principal), null,
      case when v_old.s3_bucket is null then '{}' else policy_json(v_old) end, policy_json(v_new));
  end loop;
  return query select v_added, v_changed;
end
$$;

-- Sets the policy of a place and a reader: what happens to their reads. '*': every bucket, every reader. Returns what it did.
create or replace function set_policy(p_s3_bucket text, p_key_prefix text, p_principal text, p_action text, p_tier text default null,
                                      p_days integer default null, p_note text default '') returns text
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_policies jsonb := jsonb_build_array(jsonb_build_object('s3_bucket', p_s3_bucket, 'key_prefix', p_key_prefix, 'principal', p_principal,
    'action', p_action, 'tier', p_tier, 'days', p_days, 'note', p_note));
  v_problem text := (select c.problem from check_policies(v_policies) c);
  v_did record;
begin
  if v_problem is not null then raise exception '%', v_problem using errcode = 'invalid_parameter_value'; end if;
  select * into v_did from import_policies(v_policies);
  return format('%s: %s%s%s', (select policy_words(c.s3_bucket, c.key_prefix, c.principal) from check_policies(v_policies) c), p_action,
    coalesce(', ' || nullif(p_tier, ''), '') || coalesce(', ' || p_days || case when p_days = 1 then ' day' else ' days' end, ''),
    case when v_did.added > 0 then ' (new)' when v_did.changed > 0 then ' (changed)' else ' (as before)' end);
end
$$;

-- Removes the policy of a place and a reader; what remains counts for their next reads. Returns what it did.
create or replace function remove_policy(p_s3_bucket text, p_key_prefix text, p_principal text) returns text
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_principal text := normalized_principal(p_principal);
  v_words text := policy_words(p_s3_bucket, coalesce(p_key_prefix, ''), v_principal);
  v_old policies;
begin
  lock table policies in share row exclusive mode;
  delete from policies p where (p.s3_bucket, p.key_prefix, p.principal) = (p_s3_bucket, coalesce(p_key_prefix, ''), v_principal)
  returning p.* into v_old;
  if not found then
    raise exception 'there is no policy of %', v_words using errcode = 'no_data_found', hint = 'Take one from policy_list, as it stands there.';
  end if;
  perform note_action('remove a policy', v_words, null, policy_json(v_old), '{}');
  return 'removed the policy of ' || v_words;
end
$$;

-- ------------------------------------------------------------------------------------------------- limits

create or replace function limit_json(l limits) returns jsonb language sql stable as $$
  select jsonb_strip_nulls(jsonb_build_object('max_objects', l.max_objects, 'max_bytes', l.max_bytes, 'max_cost', l.max_cost))
$$;

-- What is wrong with the kind of a limit; null: nothing.
create or replace function limit_kind_problem(p_scope text, p_s3_bucket text, p_key_prefix text, p_per text) returns text language sql immutable as $$
  select case
    when coalesce(p_scope, '') not in ('all', 'person', 'prefix') then 'the scope must be person, prefix or all'
    when coalesce(p_per, '') not in ('day', 'month') then 'a limit is per day or per month'
    when p_scope <> 'prefix' and (p_s3_bucket <> '*' or p_key_prefix <> '') then 'only a limit of scope prefix has a bucket and a prefix'
    when p_scope = 'prefix' and p_s3_bucket = '*' then 'a limit for all buckets is one of scope all'
    else place_problem(p_s3_bucket, p_key_prefix)
  end
$$;

-- What is wrong with a limit; null: nothing.
create or replace function limit_problem(p_scope text, p_s3_bucket text, p_key_prefix text, p_per text, p_max_objects bigint, p_max_bytes bigint,
                                         p_max_cost numeric) returns text language sql immutable as $$
  select coalesce(limit_kind_problem(p_scope, p_s3_bucket, p_key_prefix, p_per), case
    when coalesce(p_max_objects, p_max_bytes, p_max_cost) is null then 'say how much: objects, bytes or dollars (0 holds everything)'
    when p_max_objects < 0 or p_max_bytes < 0 or p_max_cost < 0 then 'a limit is not below 0'
    when p_max_cost >= 'infinity' then 'that is no amount of dollars'
  end)
$$;

-- Sets a limit of that kind: of what is left out nothing is limited. What was spent in its period stays; a new limit counts from now
-- on. Waits for the admissions that are going on, which see either the old limit or the new one. Returns what it did.
create or replace function set_limit(p_scope text, p_s3_bucket text, p_key_prefix text, p_per text, p_max_objects bigint default null,
                                     p_max_bytes bigint default null, p_max_cost numeric default null) returns text
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_bucket text := coalesce(nullif(p_s3_bucket, ''), '*');
  v_prefix text := coalesce(p_key_prefix, '');
  v_problem text := limit_problem(p_scope, v_bucket, v_prefix, p_per, p_max_objects, p_max_bytes, p_max_cost);
  v_old limits;
  v_new limits;
begin
  if v_problem is not null then raise exception '%', v_problem using errcode = 'invalid_parameter_value'; end if;
  lock table limits in exclusive mode;
  select l.* into v_old from limits l
   where (l.scope, l.s3_bucket, l.key_prefix, l.per) = (p_scope::limit_scope, v_bucket, v_prefix, p_per::limit_period);
  insert into limits as l (scope, s3_bucket, key_prefix, per, max_objects, max_bytes, max_cost)
  values (p_scope::limit_scope, v_bucket, v_prefix, p_per::limit_period, p_max_objects, p_max_bytes, p_max_cost)
      on conflict (scope, s3_bucket, key_prefix, per) do update
         set max_objects = excluded.max_objects, max_bytes = excluded.max_bytes, max_cost = excluded.max_cost
  returning l.* into v_new;
  if v_old.id is null or limit_json(v_old) <> limit_json(v_new) then
    perform note_action('set a limit', limit_words(v_new), null, case when v_old.id is null then '{}' else limit_json(v_old) end, limit_json(v_new));
  end if;
  return case when v_old.id is null then 'set: ' || limit_words(v_new) else format('set: %s; it was %s', limit_words(v_new), limit_words(v_old)) end;
end
$$;

-- Removes a limit, with what was counted for it. What it holds already waits on for approval. Returns what it did.
create or replace function remove_limit(p_scope text, p_s3_bucket text, p_key_prefix text, p_per text) returns text
language plpgsql volatile set lock_timeout = '3s' as $$
declare
  v_bucket text := coalesce(nullif(p_s3_bucket, ''), '*');
  v_prefix text := coalesce(p_key_prefix, '');
  v_problem text := limit_kind_problem(p_scope, v_bucket, v_prefix, p_per);
  v_old limits;
begin
  if v_problem is not null then raise exception '%', v_problem using errcode = 'invalid_parameter_value'; end if;
  lock table limits in exclusive mode;
  select l.* into v_old from limits l
   where (l.scope, l.s3_bucket, l.key_prefix, l.per) = (p_scope::limit_scope, v_bucket, v_prefix, p_per::limit_period);
  if not found then
    raise exception 'there is no limit per % %', p_per, case p_scope when 'prefix' then 'under ' || place_words(v_bucket, v_prefix) else 'of scope ' || p_scope end
      using errcode = 'no_data_found', hint = 'Take one from limit_list.';
  end if;
  -- In the order in which admissions and give_back lock them.
  perform from spending s where s.limit_id = v_old.id order by s.subject, s.period for update;
  delete from limits l where l.id = v_old.id;
  perform note_action('remove a limit', limit_words(v_old), null, limit_json(v_old), '{}');
  return 'removed: ' || limit_words(v_old);
end
$$;

-- ------------------------------------------------------------------------------------------------- prices

-- A price in a text, in dollars; null: it is none.
create or replace function price_number(p_text text) returns numeric language sql immutable as $$
  select case when p_text ~ '^[0-9]{1,6}(\.[0-9]{1,10})?$' then p_text::numeric end
$$;

-- A day in a text; null: it is none.
create or replace function day_of(p_text text) returns date language plpgsql immutable as $$
begin
  return case when p_text ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then make_date(left(p_text, 4)::integer, substr(p_text, 6, 2)::integer, right(p_text, 2)::integer) end;
exception when datetime_field_overflow then
  return null;
end
$$;

-- How import_prices would store each of [{region, storage_class, tier, per_1000_requests, per_gb, copy_per_gb_month, valid_from,
-- source}], all of them texts, and what is wrong with it; null: nothing.
create or replace function check_prices(p_prices jsonb)
returns table (ord bigint, region text, storage_class text, tier text, per_1000_requests numeric, per_gb numeric, copy_per_gb_month numeric,
               valid_from date, source text, problem text)
language sql immutable as $$
  select p.ord, p.region, p.storage_class, p.tier, price_number(p.per_1000_requests), price_number(p.per_gb), price_number(p.copy_per_gb_month),
         day_of(p.valid_from), p.source,
         case
           when coalesce(p.region, '') !~ '^[a-z]{2}(-[a-z]+)+-[0-9]+$' then 'the region must be one like eu-central-1'
           when p.storage_class in ('INTELLIGENT_TIERING', 'GLACIER_IR') then 'write the archive tier of Intelligent-Tiering: ARCHIVE_ACCESS or DEEP_ARCHIVE_ACCESS (Glacier Instant Retrieval is never restored)'
           when coalesce(p.storage_class, '') not in ('GLACIER', 'DEEP_ARCHIVE', 'ARCHIVE_ACCESS', 'DEEP_ARCHIVE_ACCESS')
             then 'the storage class must be GLACIER, DEEP_ARCHIVE, ARCHIVE_ACCESS or DEEP_ARCHIVE_ACCESS'
           when coalesce(p.tier, '') not in ('Expedited', 'Standard', 'Bulk') then 'the tier must be Expedited, Standard or Bulk'
           when p.tier = 'Expedited' and p.storage_class in ('DEEP_ARCHIVE', 'DEEP_ARCHIVE_ACCESS') then p.storage_class || ' has no Expedited'
           when price_number(p.per_1000_requests) is null then 'per_1000_requests must be dollars like 0.05'
           when price_number(p.per_gb) is null then 'per_gb must be dollars like 0.01'
           when price_number(p.copy_per_gb_month) is null then 'copy_per_gb_month must be dollars like 0.023 (0: there is no temporary copy)'
           when day_of(p.valid_from) is null then 'valid_from must be a day like 2026-11-01'
           when coalesce(p.source, '') = '' then 'the source is missing: where the price was looked up'
         end
    from rows from (jsonb_to_recordset(p_prices)
           as (region text, storage_class text, tier text, per_1000_requests text, per_gb text, copy_per_gb_month text, valid_from text, source text))
           with ordinality as p (region, storage_class, tier, per_1000_requests, per_gb, copy_per_gb_month, valid_from, source, ord)
   order by p.ord
$$;

-- Adds and changes prices, all or none: as check_prices takes them. What was estimated before stays as it was.
create or replace function import_prices(p_prices jsonb) returns table (added integer, changed integer)
language plpgsql volatile set lock_timeout = '3s' as $$
#variable_conflict use_column
declare
  v_problem text;
  v_did record;
begin
  select format('entry %s: %s', c.ord, c.problem) into v_problem from check_prices(p_prices) c where c.problem is not null order by c.ord limit 1;
  if v_problem is not null then raise exception '%', v_problem using errcode = 'invalid_parameter_value'; end if;
  with given as (
    select distinct on (c.region, c.storage_class, c.tier, c.valid_from) c.* from check_prices(p_prices) c
     order by c.region, c.storage_class, c.tier, c.valid_from, c.ord desc),
  stored as (
    insert into prices as p (region, storage_class, tier, per_1000_requests, per_gb, copy_per_gb_month, valid_from, source)
    select g.region, g.storage_class, g.tier, g.per_1000_requests, g.per_gb, g.copy_per_gb_month, g.valid_from, g.source from given g
        on conflict (region, storage_class, tier, valid_from) do update
           set per_1000_requests = excluded.per_1000_requests, per_gb = excluded.per_gb, copy_per_gb_month = excluded.copy_per_gb_month, source = excluded.source
         where (p.per_1000_requests, p.per_gb, p.copy_per_gb_month, p.source)
               is distinct from (excluded.per_1000_requests, excluded.per_gb, excluded.copy_per_gb_month, excluded.source)
    returning p.region, p.xmax = 0 as is_new)
  select count(*) filter (where s.is_new)::integer as added, count(*) filter (where not s.is_new)::integer as changed,
         string_agg(distinct s.region, ', ') as regions
    into v_did from stored s;
  if v_did.added + v_did.changed > 0 then
    perform note_action('import prices', v_did.regions, null, '{}', jsonb_build_object('added', v_did.added, 'changed', v_did.changed));
  end if;
  return query select v_did.added, v_did.changed;
end
$$;

-- --------------------------------------------------------------------------------- what would happen to a read

-- Who a reader is to policies and limits, and which policy is theirs at that key: an access key, an ARN or id (of a role: all its sessions),
-- an address, '*' or empty: nobody in particular. One row; without a policy its columns are null. known_class and the like: what the
-- latest restore of that key tells.
create or replace function check_read(p_s3_bucket text, p_s3_key text, p_reader text default '', p_session_domains text[] default '{}')
returns table (reader text, problem text, email text, payer text, policy_bucket text, policy_prefix text, policy_principal text, action text,
               tier text, days integer, note text, region text, known_class text, known_bytes bigint)
language sql stable as $$
  select w.reader, policy_principal_problem(w.reader), w.email, w.payer, p.s3_bucket, p.key_prefix, p.principal,
         coalesce(p.action::text, 'restore'), p.tier, p.days, coalesce(p.note, ''), r.region, coalesce(nullif(r.archive_status, ''), r.storage_class), r.size_bytes
    from (select n.reader, n.principal, n.access_key_id, n.principal_id, coalesce(f.email::text, n.address) as email,
                 case when n.reader <> '*' then payer_name(coalesce(f.email::text, n.address), n.principal, n.access_key_id, '', n.principal_id) end as payer
            from (select i.reader, case when i.reader like 'arn:%' then rtrim(i.reader, '*') else '' end as principal,
                         case when is_principal_id(i.reader) then rtrim(i.reader, '*') else '' end as principal_id,
                         case when not is_principal(i.reader) and i.reader not like '%@%' and i.reader <> '*' then i.reader else '' end as access_key_id,
                         case when i.reader like '%@%' and not is_principal(i.reader) then i.reader end as address
                    from (select normalized_principal(p_reader) as reader) i) n
            left join lateral find_person(n.access_key_id, n.principal, '', p_session_domains, n.principal_id) f on true) w
    left join lateral find_policy(p_s3_bucket, p_s3_key, w.principal, array[w.access_key_id, w.principal_id, lower(w.email)], prefix_lengths()) p on true
    left join lateral (
      select o.* from (
        (select x.* from restores x where x.s3_bucket = p_s3_bucket and x.s3_key = p_s3_key and x.closed_at is null limit 1)
        union all
        (select x.* from restores x where x.s3_bucket = p_s3_bucket and x.s3_key = p_s3_key and x.version_id = '' and x.closed_at is not null
          order by x.closed_at desc limit 1)) o
       where o.storage_class is not null limit 1) r on true
$$;

-- The limits that count for a key and a payer (null: nobody in particular, who has used nothing of theirs), what is left of them (less
-- than nothing, where more was approved), and whether one more object of so many bytes and dollars is beyond them.
create or replace function check_limits(p_s3_bucket text, p_s3_key text, p_payer text, p_bytes numeric default 1, p_cost numeric default 0.000001)
returns table (limit_text text, scope text, objects bigint, bytes numeric, cost numeric, objects_left bigint, bytes_left numeric, cost_left numeric,
               is_beyond boolean)
language sql stable as $$
  select limit_words(l), l.scope::text, u.objects, u.bytes, u.cost, l.max_objects - u.objects, l.max_bytes - u.bytes, l.max_cost - u.cost,
         is_beyond(u.objects, 1, l.max_objects) or is_beyond(u.bytes, p_bytes, l.max_bytes) or is_beyond(u.cost, p_cost, l.max_cost)
         or (l.max_bytes is not null and p_bytes is null) or (l.max_cost is not null and p_cost is null)
    from unnest(limits_of(p_s3_bucket, p_s3_key)) k (id)
    join limits l on l.id = k.id
    left join spending s on s.limit_id = l.id and s.period = period_of(l.per, now())
                        and s.subject = case l.scope when 'person' then coalesce(p_payer, '') else '' end
   cross join lateral (select coalesce(s.objects, 0) as objects, coalesce(s.bytes, 0) as bytes, coalesce(s.cost, 0) as cost) u
   order by l.scope, l.per, l.s3_bucket, l.key_prefix
$$;

-- By which tier each class is restored when this tier is wanted, and what that costs by our estimate; price_region: whose prices.
create or replace function check_tiers(p_tier text, p_days integer, p_bytes bigint, p_region text default null)
returns table (storage_class text, tier text, estimated_cost numeric, price_region text, valid_from date)
language sql stable as $$
  select c.storage_class, t.tier, estimate_cost(p_region, c.storage_class, null, t.tier, p_bytes, p_days), p.region, p.valid_from
    from (values (1, 'GLACIER', true), (2, 'DEEP_ARCHIVE', false), (3, 'ARCHIVE_ACCESS', true), (4, 'DEEP_ARCHIVE_ACCESS', false)) c (ord, storage_class, has_expedited)
   cross join lateral (select tier_for(p_tier, c.has_expedited) as tier) t
    left join lateral price_of(p_region, c.storage_class, null, t.tier, (now() at time zone 'UTC')::date) p on true
   order by c.ord
$$;
