-- What people read about cost: policies, limits, holds, prices, and what restores cost by our estimate.

-- The policies, the most specific first: of a read, the first that fits counts.
create or replace view policy_list as
  select p.s3_bucket, p.key_prefix, p.principal, p.action::text as action, p.tier, p.days, p.note, p.created_at
    from policies p
   order by policy_rank(p) desc, p.s3_bucket, p.key_prefix, p.principal;

-- The limits.
create or replace view limit_list as
  select l.id, l.scope::text as scope, l.s3_bucket, l.key_prefix, l.per::text as per, l.max_objects, l.max_bytes, l.max_cost,
         limit_words(l) as limit_text, l.created_at
    from limits l;

-- What is used of each limit in the period that is now: one row per limit, and of a limit for each person one row per person who has
-- used any of it.
create or replace view limit_status as
  select l.id as limit_id, l.scope::text as scope, l.s3_bucket, l.key_prefix, l.per::text as per, limit_words(l) as limit_text,
         coalesce(s.subject, '') as person, period_of(l.per, now()) as period,
         coalesce(s.objects, 0) as objects, coalesce(s.bytes, 0) as bytes, coalesce(s.cost, 0) as estimated_cost,
         l.max_objects, l.max_bytes, l.max_cost,
         greatest(l.max_objects - coalesce(s.objects, 0), 0) as objects_left, greatest(l.max_bytes - coalesce(s.bytes, 0), 0) as bytes_left,
         greatest(l.max_cost - coalesce(s.cost, 0), 0) as cost_left,
         round(greatest(case when l.max_objects = 0 then 1 else coalesce(s.objects, 0)::numeric / l.max_objects end,
                        case when l.max_bytes = 0 then 1 else coalesce(s.bytes, 0) / l.max_bytes end,
                        case when l.max_cost = 0 then 1 else coalesce(s.cost, 0) / l.max_cost end), 4) as used,
         s.warned_at
    from limits l
    left join spending s on s.limit_id = l.id and s.period = period_of(l.per, now());

-- The holds: restores that wait, or waited, for somebody's approval. The status is as it is, so that an index is for it.
create or replace view hold_list as
  select h.id, h.person, h.status, h.reason, h.objects, h.bytes, h.estimated_cost, h.opened_at, h.last_added_at,
         case when h.status = 'open' then h.opened_at + hold_lasts() end as expires_at, h.decided_at, h.decided_by, h.settled_at
    from holds h;

-- The restores that wait in a hold now.
create or replace view held_restores as
  select r.hold_id, r.id as restore_id, r.s3_bucket, r.s3_key, r.version_id, r.created_at, r.storage_class, r.archive_status, r.size_bytes,
         r.tier, r.days, r.estimated_cost
    from restores r where r.status = 'not_started' and r.attempt_after = 'infinity' and r.hold_id is not null;

-- The prices, and which of them count now.
create or replace view price_list as
  select p.region, p.storage_class, p.tier, p.per_1000_requests, p.per_gb, p.copy_per_gb_month, p.valid_from, p.source,
         p.valid_from = (select max(o.valid_from) from prices o
                          where (o.region, o.storage_class, o.tier) = (p.region, p.storage_class, p.tier)
                            and o.valid_from <= (now() at time zone 'UTC')::date) is true as is_current
    from prices p;

-- What restores cost by our estimate, day by day (UTC). Observed: nothing was restored; it would have cost this. Ask for some days:
-- where day >= '2026-11-01'. Recipe: by index on the day.
create or replace view cost_by_person as
  select c.day, c.person, c.observed, sum(c.objects) as objects, sum(c.bytes) as bytes, sum(c.cost) as estimated_cost
    from costs c group by c.day, c.person, c.observed;

create or replace view cost_by_bucket as
  select c.day, c.s3_bucket, c.observed, sum(c.objects) as objects, sum(c.bytes) as bytes, sum(c.cost) as estimated_cost
    from costs c group by c.day, c.s3_bucket, c.observed;

-- Prefix: the key up to its first slash.
create or replace view cost_by_prefix as
  select c.day, c.s3_bucket, c.folder as key_prefix, c.observed, sum(c.objects) as objects, sum(c.bytes) as bytes, sum(c.cost) as estimated_cost
    from costs c group by c.day, c.s3_bucket, c.folder, c.observed;

-- As the bill tells them apart: by class and tier.
create or replace view cost_by_class as
  select c.day, c.storage_class, c.tier, c.observed, sum(c.objects) as objects, sum(c.bytes) as bytes, sum(c.cost) as estimated_cost
    from costs c group by c.day, c.storage_class, c.tier, c.observed;

create or replace view cost_by_month as
  select (c.day - (extract(day from c.day)::integer - 1)) as month, c.observed, sum(c.objects) as objects, sum(c.bytes) as bytes,
         sum(c.cost) as estimated_cost
    from costs c group by 1, c.observed;
