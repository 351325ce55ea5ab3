-- Readers and their addresses: the maps, and the lookup of the person behind an access key, a role or a session.

-- The text as an address, if it is one and its domain is in p_domains; else null.
create or replace function address_within(p_text text, p_domains text[]) returns email_address
language sql immutable as $$
  select case when lower(split_part(p_text, '@', 2)) = any (p_domains) and address_problem(p_text) is null then p_text::email_address end
$$;

-- Whom the identity store can be asked about: a person by their id, or by the user name that is the name of an Identity Center session.
create or replace function identity_subject(p_principal text, p_on_behalf_of text) returns text language sql immutable as $$
  select case
    when p_on_behalf_of <> '' then 'user/' || p_on_behalf_of
    when p_principal ~ '^arn:[^:]+:identitystore:::user/' then 'user/' || substring(p_principal from '^arn:[^:]+:identitystore:::user/(.{1,128})$')
    -- Such roles are assumed through Identity Center only, so nobody else chooses these names.
    when p_principal like '%:assumed-role/AWSReservedSSO\_%'
      then 'name/' || substring(p_principal from '^arn:[^:]+:sts::[0-9]*:assumed-role/AWSReservedSSO_[^/]+/([^/]{1,128})$')
  end
$$;

-- An address that the identity store told is used for a day; then it is asked again, so that a changed address is followed.
create or replace function identity_lasts() returns interval language sql immutable as $$ select interval '1 day' $$;
-- While the store fails to answer, an older address is better than none, up to this age.
create or replace function identity_lasts_in_trouble() returns interval language sql immutable as $$ select interval '7 days' $$;

-- Whether an answer of the identity store is an address that may be used.
create or replace function is_current(u identity_store_users) returns boolean language sql stable as $$
  select u.email is not null
     and (u.answered_at > now() - identity_lasts() or (u.failing_since is not null and u.answered_at > now() - identity_lasts_in_trouble()))
$$;

-- The address of a reader, and the rule that found it; no row: no usable address. p_session_domains: whose session names are trusted
-- (anyone who may assume a role chooses its session name): the domains of which a session name is an address, and the other accounts
-- (12 digits) whose sessions count too; empty: none. (The rules are text up to the end: a migration that adds one and this page are one
-- transaction, in which the new value cannot be used.)
create or replace function find_person(p_access_key_id text, p_principal text, p_source_identity text, p_session_domains text[],
                                       p_principal_id text default '', p_account_id text default '', p_on_behalf_of text default '')
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
                 'session_name', 0
          union all
          -- Apart (offset 0): a read by key alone, as most are, costs one comparison.
          select o.email, o.rule, o.prefix_length
            from (select m.email, 'principal_id' as rule, length(m.principal) as prefix_length from aws_principal_user_map m
                   where m.principal in (p_principal_id, split_part(p_principal_id, ':', 1) || ':*')
                  union all
                  -- Of another account CloudTrail tells the principal id alone; with temporary credentials it ends in the session's name.
                  select address_within(substring(p_principal_id from ':(.+)$'), p_session_domains), 'session_name', 0
                   where p_principal = '' and p_account_id = any (p_session_domains)
                  union all
                  select u.email, 'identity_store', 0 from identity_store_users u
                   where u.subject = identity_subject(p_principal, p_on_behalf_of) and is_current(u)
                  offset 0) o
           where p_principal_id <> '' or p_principal <> '' or p_on_behalf_of <> '') f
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
-- p_identity_store: the id of the identity store that is to be asked about whom no rule finds; '': none.
-- Recipe: page by key, by index.
create or replace function resolve_requests(p_limit integer, p_notify_waits interval[], p_session_domains text[] default '{}',
                                            p_identity_store text default '') returns integer
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_ids uuid[];
begin
  v_ids := array(select q.id from restore_requests q where not q.user_resolved order by q.id limit p_limit for no key update skip locked);
  if v_ids = '{}' then
    if exists (select from restore_requests q where not q.user_resolved) then perform resolve_again_soon(); end if;
    return resolve_unknown(p_limit, p_notify_waits, p_session_domains, p_identity_store);
  end if;
  perform nudge_known(resolve_page(v_ids, p_session_domains), p_notify_waits);
  perform want_identities(v_ids, p_identity_store);
  return cardinality(v_ids);
end
$$;

-- The second lookup: a page of unknown readers, each by key in restores and in the maps. Rows that stay unknown are not written.
-- There is one walk at a time, in second_look; any worker continues it. Recipe: page by key, by index.
create or replace function resolve_unknown(p_limit integer, p_notify_waits interval[], p_session_domains text[], p_identity_store text) returns integer
language plpgsql volatile set enable_seqscan = off as $$
declare
  v_look second_look;
  v_page uuid[];
  v_waiting uuid[];
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

  v_waiting := array(select q.id from restore_requests q
                      where q.id = any (v_page) and exists (select from restores r where r.id = q.restore_id and r.closed_at is null));
  with waiting as materialized (
    select q.id, q.access_key_id, q.principal, q.source_identity, q.principal_id, q.account_id, q.on_behalf_of from restore_requests q
     where q.id = any (v_waiting)),
  readers as materialized (
    select d.* from (select distinct w.access_key_id, w.principal, w.source_identity, w.principal_id, w.account_id, w.on_behalf_of from waiting w) d
     where exists (select from find_person(d.access_key_id, d.principal, d.source_identity, p_session_domains, d.principal_id, d.account_id, d.on_behalf_of)))
  select array_agg(w.id) into v_known from waiting w
    join readers using (access_key_id, principal, source_identity, principal_id, account_id, on_behalf_of);

  v_free := array(select q.id from restore_requests q where q.id = any (v_known) and q.email is null for no key update skip locked);
  v_resolved := resolve_page(v_free, p_session_domains);
  perform nudge_known(v_resolved, p_notify_waits);
  perform want_identities(v_waiting, p_identity_store);
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
      from (select distinct q.access_key_id, q.principal, q.source_identity, q.principal_id, q.account_id, q.on_behalf_of
              from restore_requests q where q.id = any (p_ids)) d
      left join lateral find_person(d.access_key_id, d.principal, d.source_identity, p_session_domains, d.principal_id, d.account_id, d.on_behalf_of) p on true),
  resolved as (
    update restore_requests q set email = r.email, user_resolved = true, resolved_by = r.resolved_by
      from readers r
     where q.id = any (p_ids) and q.email is null
       and q.access_key_id = r.access_key_id and q.principal = r.principal and q.source_identity = r.source_identity
       and q.principal_id = r.principal_id and q.account_id = r.account_id and q.on_behalf_of = r.on_behalf_of
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
-- the role's path, so an entry for all roles under a path is not possible. A role's id means its sessions, too.
create or replace function normalized_map_id(p_id text) returns text language sql immutable as $$
  select case
    when p_id ~ '^arn:[^:]+:iam::[^:]*:role/(.*/)?[^/*]+\*$|^arn:[^:]+:iam::[^:]*:role/\*$'
      then regexp_replace(p_id, '^arn:([^:]+):iam::([^:]*):role/(.*/)?([^/]+)$', 'arn:\1:sts::\2:assumed-role/\4')
    when p_id ~ '^AROA[A-Z0-9]{17}$' then p_id || ':*'
    else regexp_replace(p_id, '^arn:([^:]+):iam::([^:]*):role/(.*/)?([^/*]+)$', 'arn:\1:sts::\2:assumed-role/\4/*')
  end
$$;

-- Whether an id belongs into aws_principal_user_map: an ARN, or the id of a user or role. Else it is an access key.
create or replace function is_principal(p_id text) returns boolean language sql immutable as $$
  select p_id like 'arn:%' or is_principal_id(p_id)
$$;

-- How import_users would store each entry of [{id, email}], and what is wrong with it; null: nothing.
create or replace function check_users(p_users jsonb) returns table (ord bigint, id text, email text, id_problem text, address_problem text)
language sql immutable as $$
  select u.ord, normalized_map_id(u.id), u.email,
         case when is_principal(u.id) then principal_problem(normalized_map_id(u.id)) else access_key_problem(u.id) end, address_problem(u.email)
    from rows from (jsonb_to_recordset(p_users) as (id text, email text)) with ordinality as u (id, email, ord)
   order by u.ord
$$;

-- ---------------------------------------------------------------------------------------------- identity store
--
-- resolve_users asks IAM Identity Center's identity store about readers whom neither maps nor session names know: each person once, and
-- again a day later if they still, or again, read.
--
--   (none), answered -> wanted     want_identities     a reader is unknown, and the last answer is a day old
--   wanted -> claimed              claim_identities    a page of them; the claim is a lease
--   claimed -> answered            note_identities     the store has answered: an address, or none
--   claimed -> wanted              note_identities     it has not; the gate is shut for a while
--
-- What the store refuses, it refuses for all (throttled, denied, away), so there is one gate instead of a backoff for each person.

-- The lease of a claim: longer than a page of calls may take (worker/identities.ts).
create or replace function identity_lease() returns interval language sql immutable as $$ select interval '1 minute' $$;
-- How long nobody is asked about after so many failures in a row: 2 seconds to 5 minutes, what a denied right may cost in calls.
create or replace function identity_backoff(p_failures integer) returns interval language sql immutable as $$
  select least(interval '5 minutes', interval '2 seconds' * power(2, least(p_failures, 10) - 1))
$$;
-- Whom nobody has asked about for so long is forgotten.
create or replace function identity_kept() returns interval language sql immutable as $$ select interval '30 days' $$;

-- Of these requests, those whose reader is unknown and is a person of the identity store: to be asked about.
create or replace function want_identities(p_ids uuid[], p_identity_store text) returns void
language plpgsql volatile as $$
begin
  if p_identity_store = '' then return; end if;
  insert into identity_store_users as u (subject, store)
  select distinct identity_subject(q.principal, q.on_behalf_of), p_identity_store
    from restore_requests q
   where q.id = any (p_ids) and q.email is null and identity_subject(q.principal, q.on_behalf_of) is not null
   order by 1
      on conflict (subject) do update
     set is_wanted = true, store = excluded.store,
         ask_after = case when u.store = excluded.store then u.ask_after else now() end,
         email = case when u.store = excluded.store then u.email end, answer = case when u.store = excluded.store then u.answer end,
         answered_at = case when u.store = excluded.store then u.answered_at end
   where u.store <> excluded.store or (not u.is_wanted and u.ask_after <= now());
end
$$;

-- A page of people to ask the store about, for one worker at a time. Recipe: page by key, by index.
create or replace function claim_identities(p_identity_store text, p_limit integer) returns table (subject text, claim_id uuid)
language plpgsql volatile set enable_seqscan = off as $$
#variable_conflict use_column
declare
  v_claim uuid := gen_random_uuid();
begin
  if exists (select from identity_store_gate g where g.closed_until > now()) then return; end if;
  delete from identity_store_users u
   where u.subject = any (array(select o.subject from identity_store_users o
                                 where not o.is_wanted and o.ask_after < now() - identity_kept() limit p_limit for update skip locked));
  return query
    update identity_store_users u set claim_id = v_claim, ask_after = now() + identity_lease()
     where u.subject = any (array(select o.subject from identity_store_users o
                                   where o.is_wanted and o.store = p_identity_store and o.ask_after <= now()
                                   order by o.ask_after limit p_limit for update skip locked))
    returning u.subject, u.claim_id;
end
$$;

-- What the store said: [{subject, claim_id, answer, email}]. answer: found, not_found, disabled, no_address; trouble: it has failed;
-- not_asked: given back. p_code, p_message: why it failed; null: it has not. Only the current claim holder may report.
create or replace function note_identities(p_answers jsonb, p_code text default null, p_message text default null) returns void
language plpgsql volatile as $$
declare
  v_is_news boolean;
  v_answered boolean;
  v_failures integer;
begin
  -- In the order of resolve_unknown and want_identities, so that there is no deadlock.
  perform from second_look s where s.only_row for no key update;
  perform from identity_store_users u
   where u.subject in (select a.subject from jsonb_to_recordset(p_answers) as a (subject text)) order by u.subject for no key update;
  with said as (
    select a.subject, a.claim_id, a.answer, a.answer not in ('trouble', 'not_asked') as is_definite,
           case when a.answer = 'found' and address_problem(a.email) is null then a.email end as email
      from jsonb_to_recordset(p_answers) as a (subject text, claim_id uuid, answer text, email text)),
  noted as (
    update identity_store_users u
       set claim_id = null, is_wanted = not s.is_definite,
           answer = case when not s.is_definite then u.answer when s.answer = 'found' and s.email is null then 'no_address' else s.answer end,
           email = case when s.is_definite then s.email::email_address else u.email end,
           answered_at = case when s.is_definite then now() else u.answered_at end,
           ask_after = case when s.is_definite then now() + identity_lasts()
                          -- As long again as the store has failed for them, so that one person for whom it always fails keeps nobody else waiting.
                          when s.answer = 'trouble' then now() + least(interval '5 minutes', now() - coalesce(u.failing_since, now()))
                          else now() end,
           failing_since = case when s.answer = 'trouble' then coalesce(u.failing_since, now()) when not s.is_definite then u.failing_since end
      from said s where u.subject = s.subject and u.claim_id = s.claim_id
    returning s.is_definite, is_current(u) as is_news)
  select bool_or(n.is_news), bool_or(n.is_definite) into v_is_news, v_answered from noted n;

  -- Readers who are known by now are looked up again.
  if v_is_news then update second_look s set started_at = '-infinity', after = null where s.only_row; end if;

  if p_code is not null then
    update identity_store_gate g
       set failures = g.failures + 1, closed_until = now() + identity_backoff(g.failures + 1), failure_code = p_code, failure_message = p_message
     where g.only_row
    returning g.failures into v_failures;
    perform nudge('resolve_users', array[identity_backoff(v_failures)]);
  elsif v_answered then
    update identity_store_gate g set failures = 0, closed_until = '-infinity', failure_code = '', failure_message = ''
     where g.only_row and g.failures > 0;
  end if;
end
$$;
