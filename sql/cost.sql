-- What a restore may cost. trigger_restores asks HEAD, then admit_restores, then S3: no RestoreObject is sent without its answer.
--
--   policies   what happens to a read: restore, hold, observe or ignore; by which tier, for how many days
--   limits     how much may be restored in a day or a month (UTC): by all, by each person, under a prefix
--   spending   how much of a limit is used: the sum of the restores that carry its id in charged
--   holds      restores that somebody has to approve: one open hold for each person
--
--   (none) -> open                 admit_restores   a restore is beyond a limit, or its policy says hold
--   open -> approved, refused      approve_hold, refuse_hold
--   open -> expired                settle_holds     nobody has decided for hold_lasts()
--   approved, refused, expired -> settled           settle_holds     its restores are due, or failed
--
-- A held restore stays not_started with hold_id and attempt_after = infinity, so no claim takes it. (Only an event makes it due
-- once more: if somebody else has had it restored, HEAD finds that out; if not, it is held on.)
--
-- Exact whatever crashes: an admission and what it reserves are one transaction. charged on the row says what was reserved, so a row
-- is never charged twice. give_back takes it off, once, and only where S3 has certainly not started the restore.
-- Locks, in this order: the table limits, restores, spending (by limit, subject, period), holds (by person).

-- Nobody has decided about a hold for this long: its restores fail, and their readers are told.
create or replace function hold_lasts() returns interval language sql immutable as $$ select interval '72 hours' $$;
-- APPROVERS hear once when this part of a limit is used up.
create or replace function limit_warns_at() returns numeric language sql immutable as $$ select 0.8 $$;

-- Who pays for a read: the person; of an unknown one the role without its session (a scanner with a thousand session names is one
-- reader), else the ARN, the access key, the principal id (of a role without its session, too), the account.
create or replace function payer_name(p_email text, p_principal text, p_access_key_id text, p_account_id text, p_principal_id text) returns text
language sql immutable as $$
  select coalesce(lower(nullif(p_email, '')),
                  substring(p_principal from '^(arn:[^:]+:sts::[0-9]*:assumed-role/[^/]+)/'),
                  nullif(p_principal, ''), nullif(p_access_key_id, ''), substring(p_principal_id from '^(AROA[A-Z0-9]+):'),
                  nullif(p_principal_id, ''), nullif(p_account_id, ''), 'unknown')
$$;

-- The reader who pays for a restore: the one whose read opened it (they share their id), else any one; an observed one only where
-- all are. Recipe: row by row.
create or replace function first_reader(p_restore_id uuid) returns setof restore_requests
language sql stable rows 1 as $$
  select q.*
    from (select coalesce((select o.id from restore_requests o where o.id = p_restore_id and o.restore_id = p_restore_id and not o.observed),
                          (select o.id from restore_requests o where o.restore_id = p_restore_id and not o.observed order by o.restore_id, o.reader limit 1),
                          (select o.id from restore_requests o where o.restore_id = p_restore_id order by o.restore_id, o.reader limit 1)) as id) f
   cross join lateral (select * from restore_requests o where o.id = f.id offset 0) q
$$;

-- Of several policies that fit a read the one with the highest rank counts: that of the longest bucket and prefix, then of the most
-- specific principal.
create or replace function policy_rank(p policies) returns integer[] language sql immutable as $$
  select array[(p.s3_bucket <> '*')::integer, octet_length(p.key_prefix), (right(p.principal, 1) <> '*')::integer, octet_length(p.principal)]
$$;

-- The policy of a read, if there is one. p_names: what else the reader is called (access key, principal id, address). p_lengths: which lengths of prefixes there are (prefix_lengths), so that each is
-- looked up by key, however many policies there are.
create or replace function find_policy(p_s3_bucket text, p_s3_key text, p_principal text, p_names text[], p_lengths integer[])
returns setof policies
language sql stable rows 1 as $$
  select (p).*
    from (select o as p from policies o
           where o.s3_bucket = p_s3_bucket and o.key_prefix = any (array(select left(p_s3_key, n) from unnest(p_lengths) n))
          union all -- not or: that would read all policies
          select o from policies o where o.s3_bucket = '*' and o.key_prefix = '') f
   where ((p).principal = '*' or (p).principal = p_principal or (p).principal = any (p_names)
          or (right((p).principal, 1) = '*'
              and exists (select from unnest(p_principal || p_names) n where starts_with(n, rtrim((p).principal, '*')))))
   order by policy_rank(p) desc
   limit 1
$$;

create or replace function prefix_lengths() returns integer[] language sql stable as $$
  select array(select distinct length(p.key_prefix) from policies p)
$$;

-- Those of these reads whose policy has this action, with the policy's key. Recipe: row by row.
create or replace function reads_under(p_action policy_action, p_reads failed_read[], p_session_domains text[])
returns table (id uuid, s3_bucket text, key_prefix text, principal text)
language sql stable as $$
  select i.id, p.s3_bucket, p.key_prefix, p.principal
    from (select prefix_lengths() as lengths offset 0) n
   cross join unnest(p_reads) i
    left join lateral find_person(i.access_key_id, i.principal, i.source_identity, p_session_domains, i.principal_id, i.account_id, i.on_behalf_of) w on true
   cross join lateral find_policy(i.s3_bucket, i.s3_key, i.principal, array[i.access_key_id, i.principal_id, lower(w.email)], n.lengths) p
   where p.action = p_action
$$;

-- Which of these reads (request_restores) a policy ignores; counts them. Nearly always there is no such policy.
create or replace function ignore_reads(p_requests jsonb, p_session_domains text[]) returns uuid[]
language plpgsql volatile as $$
declare
  v_ignored uuid[];
begin
  if not exists (select from policies p where p.action = 'ignore') then return '{}'; end if;
  with ignored as (
    select u.* from reads_under('ignore', array(
      select (i.id, i.s3_bucket, i.s3_key, i.version_id, i.access_key_id, i.principal, i.account_id, i.source_identity, i.reader, i.region,
              i.event_id, i.event_time, 1, i.principal_id, i.on_behalf_of)::failed_read
        from parse_reads(p_requests) i), p_session_domains) u),
  counted as (
    insert into totals (metric, labels, n)
    select 'reads_ignored', jsonb_build_object('s3_bucket', i.s3_bucket, 'key_prefix', i.key_prefix, 'principal', i.principal), count(*)
      from ignored i group by 2
    returning 1)
  select coalesce(array_agg(i.id), '{}') into v_ignored from ignored i;
  return v_ignored;
end
$$;

-- Which of these reads a policy says only to observe: whatever becomes of the object, their readers hear nothing. Nearly always there
-- is no such policy.
create or replace function observed_reads(p_reads failed_read[], p_session_domains text[]) returns uuid[]
language plpgsql volatile as $$
begin
  if not exists (select from policies p where p.action = 'observe') then return '{}'; end if;
  return array(select u.id from reads_under('observe', p_reads, p_session_domains) u);
end
$$;

-- The prices of a class and tier on a day, in dollars: of the region, else of US East (is_foreign); no row: a class without prices,
-- such as another store's.
create or replace function price_of(p_region text, p_storage_class text, p_archive_status text, p_tier text, p_day date)
returns table (region text, per_1000_requests numeric, per_gb numeric, copy_per_gb_month numeric, valid_from date, is_foreign boolean)
language sql stable rows 1 as $$
  select p.region, p.per_1000_requests, p.per_gb, p.copy_per_gb_month, p.valid_from, p.region <> coalesce(p_region, 'us-east-1')
    from prices p
   where p.region in (p_region, 'us-east-1') and p.storage_class = coalesce(nullif(p_archive_status, ''), p_storage_class)
     and p.tier = p_tier and p.valid_from <= p_day
   order by p.region = p_region desc, p.valid_from desc
   limit 1
$$;

-- What a restore costs in dollars, without the download: a request, the retrieval, and the temporary copy (a month has 30 days, a GB
-- 2^30 bytes). Null: no prices for that class. Source of the formula: S3's pricing page, "Restore requests" and "Data retrievals".
create or replace function estimate_cost(p_region text, p_storage_class text, p_archive_status text, p_tier text, p_bytes bigint, p_days integer)
returns numeric
language sql stable as $$
  select p.per_1000_requests / 1000 + coalesce(p_bytes, 0) / 1073741824.0 * (p.per_gb + p.copy_per_gb_month * p_days / 30)
    from price_of(p_region, p_storage_class, p_archive_status, p_tier, (now() at time zone 'UTC')::date) p
$$;

-- The tier by which a class is restored for which this one is wanted.
create or replace function tier_for(p_wanted text, p_has_expedited boolean) returns text language sql immutable as $$
  select case when p_wanted = 'Expedited' and not p_has_expedited then 'Standard' else p_wanted end
$$;

-- The first day of a limit's period, by UTC.
create or replace function period_of(p_per limit_period, p_at timestamptz) returns date language sql immutable as $$
  select date_trunc(p_per::text, p_at at time zone 'UTC')::date
$$;

-- Which limits a restore counts for.
create or replace function limits_of(p_s3_bucket text, p_s3_key text) returns bigint[]
language sql stable as $$
  select array(select l.id from limits l where l.scope <> 'prefix' or (l.s3_bucket = p_s3_bucket and starts_with(p_s3_key, l.key_prefix)))
$$;

-- Whether a limit is exceeded by what it has spent and what is to come. 0: hold everything.
create or replace function is_beyond(p_spent numeric, p_needed numeric, p_max numeric) returns boolean language sql immutable as $$
  select coalesce(p_max = 0 or p_spent + p_needed > p_max, false)
$$;

-- Sizes, dollars and counts in words, as wording/sizes.ts and wording/dollars.ts write them.
create or replace function size_words(p_bytes numeric) returns text language sql immutable strict as $$
  select case
           when p_bytes < 999.5 then format('%s %s', p_bytes::bigint, case when p_bytes = 1 then 'byte' else 'bytes' end)
           when s.n < 9.95 then format('%s %s', round(s.n, 1), s.unit)
           else format('%s %s', round(s.n), s.unit) end
    from (select p_bytes / 1000.0 ^ u.power as n, u.unit
            from (values (1, 'kB'), (2, 'MB'), (3, 'GB'), (4, 'TB'), (5, 'PB'), (6, 'EB')) u (power, unit)
           where u.power = 6 or p_bytes / 1000.0 ^ u.power < 999.5 order by u.power limit 1) s
$$;
create or replace function dollar_words(p_dollars numeric) returns text language sql immutable strict as $$
  select case when p_dollars > 0 and p_dollars < 0.01 then 'under $0.01' else to_char(p_dollars, 'FM$999,999,999,999,990.00') end
$$;
create or replace function object_words(p_objects bigint) returns text language sql immutable strict as $$
  select to_char(p_objects, 'FM999,999,999,999,999,990') || case when p_objects = 1 then ' object' else ' objects' end
$$;

-- A limit in words: "20 objects per day for each person".
create or replace function limit_words(l limits) returns text language sql stable as $$
  select concat_ws(', ', object_words(l.max_objects), size_words(l.max_bytes), dollar_words(l.max_cost)) || ' per ' || l.per || ' '
         || case l.scope when 'all' then 'for all' when 'person' then 'for each person' else format('under s3://%s/%s', l.s3_bucket, l.key_prefix) end
$$;

-- Which part of a limit is used: 1 is all of it, what was approved is beyond. Null: it holds everything (0).
create or replace function used_part(l limits, s spending) returns numeric language sql immutable as $$
  select greatest(s.objects / nullif(l.max_objects, 0)::numeric, s.bytes / nullif(l.max_bytes, 0)::numeric, s.cost / nullif(l.max_cost, 0))
$$;

-- Decides about a page of archived objects whose claims the caller holds: [{id, claim_id, region, storage_class, archive_status,
-- size_bytes, etag, pinned_version_id, has_expedited}]. go: send RestoreObject with this tier and days; what it costs is reserved.
-- held, observed, refused: it must not be sent; the row is settled here. No row: the claim is no longer the caller's.
-- is_new: nothing was sent for it before; then, and only then, may it be given back.
-- p_tier, p_days: RESTORE_TIER and RESTORE_DAYS, for what no policy says.
-- Recipe: row by row, by index.
create or replace function admit_restores(p_objects jsonb, p_tier text, p_days integer)
returns table (id uuid, decision text, tier text, days integer, is_new boolean)
language plpgsql volatile set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
  v_all admission[];
  v_go uuid[] := '{}';
  v_held uuid[] := '{}';
  v_reasons jsonb := '{}';
  v_one admission;
  v_over text;
begin
  -- remove_limit waits for this: what is charged to a limit that goes meanwhile would be refused by its foreign key.
  lock table limits in row share mode;
  perform lock_restores(array(select o.id from parse_objects(p_objects) o));
  v_all := admissions_of(p_objects, p_tier, p_days);

  -- What is not decided by the row itself: beyond a limit or not. (The limits are those of one moment, on each admission: one that
  -- is set or removed meanwhile would be in the row's charges and not in what was spent, or the other way round.)
  if exists (select from unnest(v_all) a where is_counted(a) and a.limits <> '{}') then
    perform open_spending(v_all);
    if fits_all(v_all) then
      v_go := array(select a.id from unnest(v_all) a where is_counted(a) and a.limits <> '{}');
      perform charge(v_all, v_go);
    else
      foreach v_one in array v_all loop
        continue when not is_counted(v_one) or v_one.limits = '{}';
        v_over := case when v_one.hold_status is distinct from 'approved' then over_limit(v_one) end;
        if v_over is null then
          perform charge(array[v_one], array[v_one.id]);
          v_go := v_go || v_one.id;
        else
          v_held := v_held || v_one.id;
          v_reasons := v_reasons || jsonb_build_object(v_one.id, 'beyond the limit of ' || v_over);
        end if;
      end loop;
    end if;
    update restores r
       set admitted_at = now(), payer = a.payer, tier = a.tier, days = a.days, estimated_cost = a.cost, charged_bytes = coalesce(a.bytes, 0),
           charged = a.limits
      from unnest(v_all) a
     where r.id = a.id and r.id = any (v_go);
  end if;

  perform fail_held(array(select a.id from unnest(v_all) a where not a.is_admitted and a.hold_status in ('refused', 'expired')));
  perform observe_restores(v_all, array(select a.id from unnest(v_all) a where is_observed(a)), p_objects);
  -- Holds and notices last: a read that joins a hold writes a notice, too, and must not wait for us while we wait for it.
  v_held := v_held || array(select a.id from unnest(v_all) a where not a.is_admitted and a.action = 'hold' and a.hold_status is null);
  perform from holds h
   where (h.status = 'open' and h.person in (select a.payer from unnest(v_all) a where a.id = any (v_held)))
      or h.id in (select a.hold_id from unnest(v_all) a where not a.is_admitted and a.hold_status = 'open')
   order by h.person, h.id for no key update;
  perform hold_on(array(select a.id from unnest(v_all) a where not a.is_admitted and a.hold_status = 'open'));
  perform hold_restores(v_all, v_held, v_reasons, p_objects);

  return query
    select a.id,
           case when a.is_admitted then 'go'
                when a.id = any (v_held) or a.hold_status = 'open' then 'held'
                when a.hold_status in ('refused', 'expired') then 'refused'
                when is_observed(a) then 'observed'
                else 'go' end,
           a.tier, a.days, not a.is_admitted
      from unnest(v_all) a;
end
$$;

create or replace function parse_objects(p_objects jsonb)
returns table (id uuid, claim_id uuid, region text, storage_class text, archive_status text, size_bytes bigint, etag text,
               pinned_version_id text, has_expedited boolean)
language sql stable as $$
  select o.id, o.claim_id, o.region, o.storage_class, o.archive_status, o.size_bytes, o.etag, o.pinned_version_id, o.has_expedited
    from jsonb_to_recordset(p_objects) as o (id uuid, claim_id uuid, region text, storage_class text, archive_status text, size_bytes bigint,
      etag text, pinned_version_id text, has_expedited boolean)
$$;

-- Each object with its payer, policy, tier, days and estimate, in the order in which restores are locked. What was admitted before
-- keeps what it was admitted with. Recipe: row by row.
create or replace function admissions_of(p_objects jsonb, p_tier text, p_days integer) returns admission[]
language sql stable as $$
  select coalesce(array_agg((r.id, o.region, r.s3_bucket, r.s3_key, coalesce(r.payer, w.payer),
           case when q.observed then 'observe' else coalesce(p.action, 'restore') end, t.tier, t.days, o.size_bytes,
           case when o.size_bytes is not null then estimate_cost(o.region, o.storage_class, o.archive_status, t.tier, o.size_bytes, t.days) end,
           r.hold_id, h.status, r.admitted_at is not null, limits_of(r.s3_bucket, r.s3_key))::admission order by r.s3_bucket, r.s3_key, r.version_id, r.id), '{}')
    from (select prefix_lengths() as lengths offset 0) n
   cross join parse_objects(p_objects) o
   cross join lateral (select * from restores x where x.id = o.id and x.claim_id = o.claim_id and x.status = 'not_started' and x.closed_at is null offset 0) r
    left join lateral first_reader(r.id) q on true
   cross join lateral (select payer_name(q.email, q.principal, q.access_key_id, q.account_id, q.principal_id) as payer) w
    left join lateral find_policy(r.s3_bucket, r.s3_key, q.principal, array[q.access_key_id, q.principal_id, lower(q.email)], n.lengths) p on true
    left join lateral (select * from holds x where x.id = r.hold_id offset 0) h on true
   cross join lateral (select coalesce(case when r.admitted_at is not null then r.tier end, p.tier, p_tier) as wanted,
                              coalesce(case when r.admitted_at is not null then r.days end, p.days, p_days) as days) c
   cross join lateral (select tier_for(c.wanted, o.has_expedited) as tier, c.days) t
$$;

-- Whether limits apply: it is to be restored, and not admitted yet. (A policy "ignore" that was set after the POST comes too late.)
create or replace function is_counted(a admission) returns boolean language sql immutable as $$
  select not a.is_admitted and (a.hold_status is not distinct from 'approved' or (a.hold_status is null and a.action in ('restore', 'ignore')))
$$;

create or replace function is_observed(a admission) returns boolean language sql immutable as $$
  select not a.is_admitted and a.hold_status is null and a.action = 'observe'
$$;

-- What a page needs of each limit. is_unknown: something has no size or no price, so nobody can say how much. Recipe: row by row.
create or replace function needs_of(p_all admission[])
returns table (limit_id bigint, subject text, period date, max_objects bigint, max_bytes bigint, max_cost numeric, objects bigint, bytes numeric,
               cost numeric, is_unknown boolean)
language sql stable as $$
  select l.id, case l.scope when 'person' then a.payer else '' end, period_of(l.per, now()), max(l.max_objects), max(l.max_bytes), max(l.max_cost),
         count(*), sum(coalesce(a.bytes, 0)), sum(coalesce(a.cost, 0)),
         bool_or((l.max_bytes is not null and a.bytes is null) or (l.max_cost is not null and a.cost is null))
    from unnest(p_all) a cross join lateral unnest(a.limits) k (id) join limits l on l.id = k.id
   where is_counted(a)
   group by 1, 2, 3
   order by 1, 2, 3
$$;

-- Makes and locks the rows of spending that a page needs, in one order for all workers.
create or replace function open_spending(p_all admission[]) returns void
language plpgsql volatile as $$
begin
  insert into spending (limit_id, subject, period)
  select n.limit_id, n.subject, n.period from needs_of(p_all) n
      on conflict do nothing;
  perform from spending s
   where (s.limit_id, s.subject, s.period) in (select n.limit_id, n.subject, n.period from needs_of(p_all) n)
   order by s.limit_id, s.subject, s.period for no key update;
end
$$;

-- The limits that these restores together exceed.
create or replace function beyond(p_all admission[]) returns table (limit_id bigint, is_unknown boolean)
language sql volatile as $$
  select n.limit_id, n.is_unknown
    from needs_of(p_all) n join spending s using (limit_id, subject, period)
   where n.is_unknown or is_beyond(s.objects, n.objects, n.max_objects) or is_beyond(s.bytes, n.bytes, n.max_bytes) or is_beyond(s.cost, n.cost, n.max_cost)
$$;

-- Whether all of a page is within its limits: then nothing has to be looked at one by one. What was approved counts, and is not bound.
create or replace function fits_all(p_all admission[]) returns boolean
language sql volatile as $$
  select not exists (select from beyond(p_all))
$$;

-- The first limit that this restore exceeds, in words; null: none.
create or replace function over_limit(a admission) returns text
language sql volatile as $$
  select limit_words(l) || case when b.is_unknown then ' (how much it takes is not known: no size, or no price)' else '' end
    from beyond(array[a]) b join limits l on l.id = b.limit_id
   order by b.limit_id limit 1
$$;

-- Adds these restores to what their limits have spent. A limit of which the greater part is used up for the first time gives notice.
create or replace function charge(p_all admission[], p_ids uuid[]) returns void
language plpgsql volatile as $$
declare
  v_warned boolean;
begin
  with spent as (
    update spending s
       set objects = s.objects + n.objects, bytes = s.bytes + n.bytes, cost = s.cost + n.cost,
           warned_at = case when s.objects + n.objects >= n.max_objects * limit_warns_at() or s.bytes + n.bytes >= n.max_bytes * limit_warns_at()
                              or s.cost + n.cost >= n.max_cost * limit_warns_at() then coalesce(s.warned_at, now()) else s.warned_at end
      from needs_of(array(select a from unnest(p_all) a where a.id = any (p_ids))) n
     where (s.limit_id, s.subject, s.period) = (n.limit_id, n.subject, n.period)
    returning s.*),
  noticed as (
    insert into notices (kind, limit_id, subject, period)
    select 'warning', s.limit_id, s.subject, s.period from spent s where s.warned_at = now()
        on conflict do nothing
    returning 1)
  select count(*) > 0 into v_warned from noticed;
  if v_warned then perform nudge('pre_notify'); end if;
end
$$;

-- Locks what these restores were charged to.
create or replace function lock_spending(p_ids uuid[]) returns void
language plpgsql volatile as $$
begin
  perform from spending s
   where (s.limit_id, s.subject, s.period) in (select c.limit_id, c.subject, c.period from charged_to(p_ids) c)
   order by s.limit_id, s.subject, s.period for no key update;
end
$$;

-- Takes off what these restores were charged: S3 has certainly not started them. The caller has locked them and their spending.
-- (greatest: somebody may have set a counter back by hand.)
create or replace function give_back(p_ids uuid[]) returns void
language plpgsql volatile as $$
begin
  p_ids := array(select r.id from unnest(p_ids) k (id) cross join lateral (select x.id, x.admitted_at from restores x where x.id = k.id offset 0) r
                  where r.admitted_at is not null);
  if p_ids = '{}' then return; end if;
  update spending s set objects = greatest(0, s.objects - c.objects), bytes = greatest(0, s.bytes - c.bytes), cost = greatest(0, s.cost - c.cost)
    from charged_to(p_ids) c
   where (s.limit_id, s.subject, s.period) = (c.limit_id, c.subject, c.period);
  update restores r set admitted_at = null, charged = null, charged_bytes = null, estimated_cost = null, tier = null
   where r.id = any (p_ids);
end
$$;

-- Which restores S3 accepted by another tier than was reserved.
create or replace function accepted_by_other_tier(p_outcomes jsonb) returns uuid[]
language plpgsql stable as $$
begin
  return array(select r.id from outcomes_in(p_outcomes, '{not_started}') o join restores r on r.id = o.id
                where r.charged is not null and o.tier is not null and o.tier is distinct from r.tier);
end
$$;

-- S3 accepted these by another tier than was reserved (it had no room for Expedited): the difference is given back. The caller has
-- locked them and their spending.
create or replace function charge_other_tier(p_outcomes jsonb) returns void
language plpgsql volatile as $$
declare
  v_ids uuid[] := accepted_by_other_tier(p_outcomes);
begin
  if v_ids = '{}' then return; end if;
  update spending s set cost = greatest(0, s.cost - c.cost)
    from charged_to(v_ids) c
   where (s.limit_id, s.subject, s.period) = (c.limit_id, c.subject, c.period);
  update restores r
     set tier = o.tier, estimated_cost = estimate_cost(o.region, o.storage_class, o.archive_status, o.tier, r.charged_bytes, coalesce(o.days, r.days))
    from parse_outcomes(p_outcomes) o
   where r.id = o.id and r.id = any (v_ids);
  update spending s set cost = s.cost + c.cost
    from charged_to(v_ids) c
   where (s.limit_id, s.subject, s.period) = (c.limit_id, c.subject, c.period);
end
$$;

-- What each of these restores was charged, and where.
create or replace function charges_of(p_ids uuid[])
returns table (restore_id uuid, limit_id bigint, subject text, period date, bytes bigint, cost numeric)
language sql stable as $$
  select r.id, l.id, case l.scope when 'person' then r.payer else '' end, period_of(l.per, r.admitted_at), r.charged_bytes, coalesce(r.estimated_cost, 0)
    from unnest(p_ids) k (id)
   cross join lateral (select * from restores x where x.id = k.id and x.charged is not null offset 0) r
    join limits l on l.id = any (r.charged)
$$;

-- What these restores were charged, for each row of spending.
create or replace function charged_to(p_ids uuid[])
returns table (limit_id bigint, subject text, period date, objects bigint, bytes numeric, cost numeric)
language sql stable as $$
  select c.limit_id, c.subject, c.period, count(*), sum(c.bytes), sum(c.cost) from charges_of(p_ids) c group by 1, 2, 3
$$;

-- not_started -> not_started, held: these wait for approval, in their payer's hold.
create or replace function hold_restores(p_all admission[], p_ids uuid[], p_reasons jsonb, p_objects jsonb) returns void
language plpgsql volatile as $$
begin
  if p_ids = '{}' then return; end if;
  with held as (
    insert into holds as h (person, reason, objects, bytes, estimated_cost)
    select a.payer, min(coalesce(p_reasons ->> a.id::text, 'a policy asks for approval')), count(*), sum(coalesce(a.bytes, 0)), sum(coalesce(a.cost, 0))
      from unnest(p_all) a where a.id = any (p_ids)
     group by a.payer order by a.payer
        on conflict (person) where status = 'open' do update
           set objects = h.objects + excluded.objects, bytes = h.bytes + excluded.bytes,
               estimated_cost = h.estimated_cost + excluded.estimated_cost, last_added_at = now()
    returning h.id, h.person)
  update restores r
     set hold_id = h.id, payer = a.payer, tier = a.tier, days = a.days, estimated_cost = a.cost,
         storage_class = o.storage_class, archive_status = o.archive_status, size_bytes = o.size_bytes, etag = o.etag,
         pinned_version_id = o.pinned_version_id, attempts = 0, attempt_after = 'infinity', claim_id = null, head_wanted_at = null,
         failing_since = null, failure_code = null, failure_message = null
    from unnest(p_all) a join held h on h.person = a.payer join parse_objects(p_objects) o on o.id = a.id
   where r.id = a.id and r.id = any (p_ids);

  insert into notices (kind, hold_id)
  select distinct 'approval'::notification_kind, r.hold_id from restores r where r.id = any (p_ids)
      on conflict do nothing;
  if found then perform nudge('pre_notify'); end if;
  perform note_held_readers(p_ids);
end
$$;

-- A held restore that was looked at once more waits on; one that was decided about meanwhile is due. (The caller has locked the
-- holds: from here on nobody decides before we commit, so settle_holds sees what we write.)
create or replace function hold_on(p_ids uuid[]) returns void language plpgsql volatile as $$
begin
  if p_ids = '{}' then return; end if;
  update restores r set attempts = 0, attempt_after = case h.status when 'open' then 'infinity' else now() end, claim_id = null, head_wanted_at = null,
                        failing_since = null, failure_code = null, failure_message = null
    from holds h
   where r.id = any (p_ids) and h.id = r.hold_id;
  if exists (select from restores r where r.id = any (p_ids) and r.attempt_after < 'infinity') then perform nudge('trigger_restores'); end if;
end
$$;

-- The readers of held restores are to be told, once for each hold. Who is not known yet is noted when they are (resolve_page).
create or replace function note_held_readers(p_restore_ids uuid[]) returns void
language plpgsql volatile as $$
begin
  insert into notices (kind, hold_id, email)
  select distinct on (r.hold_id, lower(q.email)) 'held'::notification_kind, r.hold_id, q.email
    from unnest(p_restore_ids) k (id)
   cross join lateral (select * from restores x where x.id = k.id and x.status = 'not_started' offset 0) r
    join holds h on h.id = r.hold_id and h.status = 'open'
   cross join lateral (select * from restore_requests x where x.restore_id = r.id and x.email is not null and not x.observed offset 0) q
   order by r.hold_id, lower(q.email)
      on conflict do nothing;
  if found then perform nudge('pre_notify'); end if;
end
$$;

-- not_started -> failed, closed: the policy says only to observe. Nothing is sent to S3, and nobody is told. An object that was
-- observed a few days before would still be readable by that restore, so it costs nothing once more.
create or replace function observe_restores(p_all admission[], p_ids uuid[], p_objects jsonb) returns void
language plpgsql volatile as $$
begin
  if p_ids = '{}' then return; end if;
  update restores r
     set status = 'failed', status_at = now(), closed_at = now(), failure_code = 'observed',
         failure_message = 'Only observed, as the policy says: nothing was restored, and nobody is told.',
         payer = a.payer, tier = a.tier, days = a.days,
         estimated_cost = case when exists (select from restores x
                                             where x.s3_bucket = r.s3_bucket and x.s3_key = r.s3_key and x.version_id = r.version_id
                                               and x.closed_at > now() - make_interval(days => a.days) and x.failure_code = 'observed')
                               then 0 else a.cost end,
         storage_class = o.storage_class, archive_status = o.archive_status, size_bytes = o.size_bytes, etag = o.etag,
         pinned_version_id = o.pinned_version_id, claim_id = null, head_wanted_at = null, failing_since = null
    from unnest(p_all) a join parse_objects(p_objects) o on o.id = a.id
   where r.id = a.id and r.id = any (p_ids);
  update restore_requests q set observed = true, user_resolved = true, ended_unknown = q.restore_id where q.restore_id = any (p_ids);
  perform note_costs(p_ids, true);
end
$$;

-- Adds accepted or observed restores to the ledger of costs.
create or replace function note_costs(p_ids uuid[], p_observed boolean) returns void
language sql volatile as $$
  with noted as (
    insert into costs (day, person, s3_bucket, folder, storage_class, tier, observed, objects, bytes, cost)
    select (now() at time zone 'UTC')::date, r.payer, r.s3_bucket, coalesce(substring(r.s3_key from '^[^/]*/'), ''),
           coalesce(r.archive_status, r.storage_class, ''), r.tier, p_observed, count(*), sum(coalesce(r.size_bytes, 0)), sum(coalesce(r.estimated_cost, 0))
      from unnest(p_ids) k (id)
     cross join lateral (select * from restores x where x.id = k.id offset 0) r
     where r.tier is not null and r.payer is not null
     group by 2, 3, 4, 5, 6
    returning storage_class, tier, cost)
  insert into totals (metric, labels, n)
  select 'estimated_cost', jsonb_build_object('storage_class', n.storage_class, 'tier', n.tier, 'observed', p_observed::text), sum(n.cost)
    from noted n group by n.storage_class, n.tier
$$;

-- Adds the ledger up: one row for each day and kind. One at a time; returns how many rows it saved.
create or replace function add_costs_up() returns integer
language plpgsql volatile as $$
declare
  v_saved integer;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('add_costs_up', 0)) then return 0; end if;
  with many as (
    select array_agg(c.id) as ids, c.day, c.person, c.s3_bucket, c.folder, c.storage_class, c.tier, c.observed,
           sum(c.objects) as objects, sum(c.bytes) as bytes, sum(c.cost) as cost
      from costs c
     where c.day >= (now() at time zone 'UTC')::date - 2
     group by c.day, c.person, c.s3_bucket, c.folder, c.storage_class, c.tier, c.observed
    having count(*) > 1),
  gone as (delete from costs c where c.id in (select unnest(m.ids) from many m) returning 1),
  added as (
    insert into costs (day, person, s3_bucket, folder, storage_class, tier, observed, objects, bytes, cost)
    select m.day, m.person, m.s3_bucket, m.folder, m.storage_class, m.tier, m.observed, m.objects, m.bytes, m.cost from many m
    returning 1)
  select (select count(*) from gone) - (select count(*) from added) into v_saved;
  return v_saved;
end
$$;

-- Frees or fails what decided holds keep, a page at a time; first, holds that nobody has decided about for hold_lasts() expire.
-- Returns how many restores it moved. (skip locked, also for restores: admit_restores locks them before holds.)
-- Recipe: page by key, by index.
create or replace function settle_holds(p_limit integer) returns integer
language plpgsql volatile set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  v_hold holds;
  v_page uuid[];
begin
  update holds h set status = 'expired', decided_at = now(), decided_by = 'nobody'
   where h.id = any (array(select o.id from holds o where o.status = 'open' and o.opened_at <= now() - hold_lasts() for no key update skip locked));

  for v_hold in
    select h.* from holds h where h.status <> 'open' and h.settled_at is null order by h.decided_at for no key update skip locked
  loop
    v_page := array(
      select r.id from restores r
       where r.hold_id = v_hold.id and r.status = 'not_started' and r.attempt_after = 'infinity'
       limit p_limit for update skip locked);
    if v_page <> '{}' then
      if v_hold.status = 'approved' then
        update restores r set attempt_after = now() where r.id = any (v_page);
        perform nudge('trigger_restores');
      else
        perform fail_held(v_page);
      end if;
      return cardinality(v_page);
    end if;
    if not exists (select from restores r where r.hold_id = v_hold.id and r.status = 'not_started' and r.attempt_after = 'infinity') then
      update holds h set settled_at = now() where h.id = v_hold.id;
    end if;
  end loop;
  return 0;
end
$$;

-- not_started -> failed: somebody has refused these restores, or nobody has approved them in time.
create or replace function fail_held(p_ids uuid[]) returns void
language plpgsql volatile as $$
begin
  if p_ids = '{}' then return; end if;
  update restores r
     set status = 'failed', status_at = now(), claim_id = null, head_wanted_at = null, attempt_after = now(),
         failure_code = case h.status when 'refused' then 'not_approved' else 'approval_expired' end,
         failure_message = case h.status when 'refused' then 'The restore was not approved.'
                                         else format('Nobody approved the restore within %s hours.', extract(epoch from hold_lasts()) / 3600) end
    from holds h
   where r.id = any (p_ids) and h.id = r.hold_id and r.status = 'not_started' and h.status in ('refused', 'expired');
  if found then perform nudge('post_notify'); end if;
end
$$;

-- An operator approves a hold: its restores run, counted, beyond the limit. p_seen: how many objects they saw; if it has grown since,
-- nothing happens. Two operators decide once. Returns what it did.
create or replace function approve_hold(p_id uuid, p_by text, p_seen bigint default null) returns text
language plpgsql volatile set lock_timeout = '3s' as $$
begin
  return decide_hold(p_id, 'approved', p_by, p_seen);
end
$$;

-- An operator refuses a hold: its restores fail, and their readers are told. Returns what it did.
create or replace function refuse_hold(p_id uuid, p_by text) returns text
language plpgsql volatile set lock_timeout = '3s' as $$
begin
  return decide_hold(p_id, 'refused', p_by, null);
end
$$;

create or replace function decide_hold(p_id uuid, p_status hold_status, p_by text, p_seen bigint) returns text
language plpgsql volatile as $$
declare
  v_hold holds;
begin
  select h.* into v_hold from holds h where h.id = p_id for no key update;
  if not found then
    raise exception 'there is no hold %', p_id using errcode = 'no_data_found', hint = 'Take an id from hold_list.';
  elsif v_hold.status <> 'open' then
    raise exception 'hold % is % already, by %', p_id, v_hold.status, v_hold.decided_by using errcode = 'object_not_in_prerequisite_state';
  elsif v_hold.objects > p_seen then
    raise exception 'hold % has grown to % objects', p_id, v_hold.objects
      using errcode = 'object_not_in_prerequisite_state', hint = 'Look at it again, then decide.';
  end if;
  update holds h set status = p_status, decided_at = now(), decided_by = coalesce(nullif(p_by, ''), actor()) where h.id = p_id;
  perform note_action(case p_status when 'approved' then 'approve' else 'refuse' end, p_id::text, null,
    jsonb_build_object('person', v_hold.person, 'objects', v_hold.objects, 'estimated_cost', round(v_hold.estimated_cost, 4)), jsonb_build_object('status', p_status));
  perform nudge('trigger_restores');
  return case p_status when 'approved' then format('approved: %s objects are being restored', v_hold.objects)
                       else format('refused: the readers of %s objects are told', v_hold.objects) end;
end
$$;
