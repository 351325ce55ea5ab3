-- Readers and their addresses: the maps, and the lookup of the person behind an access key, a role or a session.

-- The text as an address, if it is one and its domain is in p_domains; else null.
create or replace function address_within(p_text text, p_domains text[]) returns email_address
language sql immutable as $$
  select case when lower(split_part(p_text, '@', 2)) = any (p_domains) and address_problem(p_text) is null then p_text::email_address end
$$;

-- The address of a reader, and the rule that found it; no row: no usable address. p_session_domains: the domains of which a
-- session name is trusted as an address (anyone who may assume a role chooses its session name); empty: none.
create or replace function find_person(p_access_key_id text, p_principal text, p_source_identity text, p_session_domains text[])
returns table (email email_address, resolved_by resolution_rule)
language sql stable rows 1 as $$
  select f.email, f.rule::resolution_rule
    from (select m.email, 'access_key' as rule, 0 as prefix_length
            from aws_key_user_map m where m.access_key_id = p_access_key_id
          union all
          select m.email, 'principal', 0 from aws_principal_user_map m where m.principal = p_principal
          union all
          -- An order (orders.sql) names its person.
          select case when address_problem(n.address) is null then n.address::email_address end, 'named', 0
            from (select substring(p_principal from '^mailto:(.+)$') as address) n
          union all
          -- Every prefix of the ARN is looked up by index: the cost depends on the ARN's length, not on the size of the map.
          select m.email, 'principal_prefix', length(m.principal) from aws_principal_user_map m
           where m.principal like '%*'
             and m.principal = any (array(select left(p_principal, n) || '*' from generate_series(0, length(p_principal)) n))
          union all
          select address_within(p_source_identity, p_session_domains), 'source_identity', 0
          union all
          select address_within(substring(p_principal from '^arn:[^:]+:sts::[0-9]*:(?:assumed-role/[^/]+|federated-user)/(.+)$'), p_session_domains),
                 'session_name', 0) f
   -- The maps may hold unusable addresses that were entered before 0006_people.sql refused them.
   where f.email is not null and address_problem(f.email) is null
   order by f.rule::resolution_rule, f.prefix_length desc
   limit 1
$$;

-- How long an unknown reader waits for the next lookup: the crontab's 5 minutes, less what a run may come early. A map entry that
-- is newer than the last lookup (or was being written then) starts the next one at once.
create or replace function second_look_after() returns interval language sql immutable as $$ select interval '4 minutes 30 seconds' $$;

-- Fills in addresses, a page at a time; returns 0 when nothing is left. An address once on a row stays. A reader whom no rule
-- finds is marked as looked up (user_resolved, no email), and is looked up again while the restore is open.
-- Recipe: page by key, by index.
create or replace function resolve_requests(p_limit integer, p_notify_waits interval[], p_session_domains text[] default '{}') returns integer
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_ids uuid[];
begin
  v_ids := array(select q.id from restore_requests q where not q.user_resolved order by q.id limit p_limit for no key update skip locked);
  if v_ids = '{}' then
    if exists (select from restore_requests q where not q.user_resolved) then perform resolve_again_soon(); end if;
    return resolve_unknown(p_limit, p_notify_waits, p_session_domains);
  end if;
  perform nudge_known(resolve_page(v_ids, p_session_domains), p_notify_waits);
  return cardinality(v_ids);
end
$$;

-- The second lookup: a page of unknown readers, each by key in restores and in the maps. Rows that stay unknown are not written.
-- There is one walk at a time, in second_look; any worker continues it. Recipe: page by key, by index.
create or replace function resolve_unknown(p_limit integer, p_notify_waits interval[], p_session_domains text[]) returns integer
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_look second_look;
  v_page uuid[];
  v_known uuid[];
  v_free uuid[];
  v_resolved integer;
begin
  select s.* into v_look from second_look s where s.only_row for update skip locked;
  if not found then return 0; end if;
  if v_look.after is null then
    if v_look.started_at > now() - second_look_after()
       and not exists (select from aws_key_user_map m where m.created_at > v_look.started_at - interval '10 seconds')
       and not exists (select from aws_principal_user_map m where m.created_at > v_look.started_at - interval '10 seconds') then
      return 0;
    end if;
    v_look.started_at := now();
    v_look.after := '00000000-0000-0000-0000-000000000000';
  end if;

  v_page := array(select q.id from restore_requests q
                   where q.email is null and q.user_resolved and q.ended_unknown is distinct from q.restore_id and q.id > v_look.after
                   order by q.id limit p_limit);

  with over as (
    select q.id from restore_requests q join restores r on r.id = q.restore_id
     where q.id = any (v_page) and r.closed_at is not null for no key update of q skip locked)
  update restore_requests q set ended_unknown = q.restore_id from over where q.id = over.id;

  with waiting as materialized (
    select q.id, q.access_key_id, q.principal, q.source_identity from restore_requests q
     where q.id = any (v_page) and exists (select from restores r where r.id = q.restore_id and r.closed_at is null)),
  readers as materialized (
    select d.* from (select distinct w.access_key_id, w.principal, w.source_identity from waiting w) d
     where exists (select from find_person(d.access_key_id, d.principal, d.source_identity, p_session_domains)))
  select array_agg(w.id) into v_known from waiting w join readers using (access_key_id, principal, source_identity);

  v_free := array(select q.id from restore_requests q where q.id = any (v_known) and q.email is null for no key update skip locked);
  v_resolved := resolve_page(v_free, p_session_domains);
  perform nudge_known(v_resolved, p_notify_waits);
  if cardinality(v_free) < cardinality(v_known) then
    v_look.started_at := now() - second_look_after();
    perform resolve_again_soon();
  end if;

  update second_look s
     set started_at = v_look.started_at, after = case when cardinality(v_page) = p_limit then v_page[p_limit] end
   where s.only_row;
  return case when cardinality(v_page) = p_limit then p_limit else v_resolved end;
end
$$;

-- Looks up these requests (locked by the caller); returns how many have an address now. If Postgres refuses a row with its
-- address, that row stays unknown and the others are filled in. Recipe: by index.
create or replace function resolve_page(p_ids uuid[], p_session_domains text[]) returns integer
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_known integer;
  v_waiting uuid[];
begin
  -- Each reader is looked up once, however many requests they have.
  with readers as materialized (
    select d.*, p.email, p.resolved_by
      from (select distinct q.access_key_id, q.principal, q.source_identity from restore_requests q where q.id = any (p_ids)) d
      left join lateral find_person(d.access_key_id, d.principal, d.source_identity, p_session_domains) p on true),
  resolved as (
    update restore_requests q set email = r.email, user_resolved = true, resolved_by = r.resolved_by
      from readers r
     where q.id = any (p_ids) and q.email is null
       and q.access_key_id = r.access_key_id and q.principal = r.principal and q.source_identity = r.source_identity
    returning q.email, q.restore_id, q.restore_status)
  select count(r.email), array_agg(r.restore_id) filter (where r.email is not null and r.restore_status = 'not_started')
    into v_known, v_waiting from resolved r;
  if v_waiting is not null and exists (select from holds h where h.status = 'open') then perform note_held_readers(v_waiting); end if;
  return v_known;
exception when data_exception or integrity_constraint_violation or program_limit_exceeded then
  if cardinality(p_ids) > 1 then
    return (select sum(resolve_page(array[i.id], p_session_domains)) from unnest(p_ids) as i (id));
  end if;
  raise warning 'the reader of request % stays unknown, for Postgres does not take its address: %', p_ids[1], sqlerrm;
  update restore_requests q set user_resolved = true where q.id = any (p_ids);
  return 0;
end
$$;

-- Readers have become known: they may be due a mail now, or when their debounce window ends.
create or replace function nudge_known(p_known integer, p_notify_waits interval[]) returns void
language plpgsql volatile as $$
begin
  if p_known > 0 then
    perform nudge('pre_notify', interval '0' || p_notify_waits), nudge('post_notify', interval '0' || p_notify_waits);
  end if;
end
$$;

-- Rows were skipped because they are locked (S3's answer is just being noted). Nothing announces when they are free, so look
-- again in a second; the job_key makes it one job for all of them.
create or replace function resolve_again_soon() returns void
language plpgsql volatile as $$
begin
  perform graphile_worker.add_job('resolve_users', run_at := now() + interval '1 second', max_attempts := 3,
                                  job_key := 'resolve_users_again', job_key_mode := 'preserve_run_at');
end
$$;

-- The form in which a map keeps an id: a role's ARN, as the console shows it, becomes the prefix of its sessions' ARNs. These lack
-- the role's path, so an entry for all roles under a path is not possible.
create or replace function normalized_map_id(p_id text) returns text language sql immutable as $$
  select case
    when p_id ~ '^arn:[^:]+:iam::[^:]*:role/(.*/)?[^/*]+\*$|^arn:[^:]+:iam::[^:]*:role/\*$'
      then regexp_replace(p_id, '^arn:([^:]+):iam::([^:]*):role/(.*/)?([^/]+)$', 'arn:\1:sts::\2:assumed-role/\4')
    else regexp_replace(p_id, '^arn:([^:]+):iam::([^:]*):role/(.*/)?([^/*]+)$', 'arn:\1:sts::\2:assumed-role/\4/*')
  end
$$;

-- How import_users would store each entry of [{id, email}], and what is wrong with it; null: nothing.
create or replace function check_users(p_users jsonb) returns table (ord bigint, id text, email text, id_problem text, address_problem text)
language sql immutable as $$
  select u.ord, normalized_map_id(u.id), u.email,
         case when u.id like 'arn:%' then principal_problem(normalized_map_id(u.id)) else access_key_problem(u.id) end, address_problem(u.email)
    from rows from (jsonb_to_recordset(p_users) as (id text, email text)) with ordinality as u (id, email, ord)
   order by u.ord
$$;
