-- Who reads, where CloudTrail names neither an access key nor an ARN: by principal id, and by IAM Identity Center's id of the person.

alter type resolution_rule add value 'principal_id' after 'principal_prefix';
alter type resolution_rule add value 'identity_store' after 'session_name';

alter table restore_requests
  add column principal_id text not null default '',
  add column on_behalf_of text not null default '',
  add constraint restore_requests_principal_id_length check (octet_length(principal_id) <= 256),
  add constraint restore_requests_on_behalf_of_length check (octet_length(on_behalf_of) <= 256);

-- The reader's name. Postgres 14 cannot change the expression of a generated column, and a new column would rewrite the table, so a
-- trigger derives it for every writer. Rows of before keep what they have: readers of other accounts are '' there.
create function reader_of(p_access_key_id text, p_principal text, p_principal_id text, p_account_id text) returns text
language sql immutable parallel safe as $$
  select case when p_access_key_id <> '' then p_access_key_id when p_principal <> '' then p_principal
              when p_principal_id <> '' then p_principal_id else p_account_id end
$$;

alter table restore_requests alter column reader drop expression;

create function derive_reader() returns trigger language plpgsql as $$
begin
  new.reader := reader_of(new.access_key_id, new.principal, new.principal_id, new.account_id);
  return new;
end
$$;
-- With a condition: request_restores gives the reader itself, so that intake calls no trigger.
create trigger derive_reader before insert or update of access_key_id, principal, principal_id, account_id, reader on restore_requests for each row
  when (new.reader is distinct from reader_of(new.access_key_id, new.principal, new.principal_id, new.account_id))
  execute function derive_reader();
-- Also where triggers are off (session_replication_role): the column may not be empty.
alter table restore_requests enable always trigger derive_reader;

-- What operators search: readers without an ARN. The others are found by theirs.
create index restore_requests_of_principal_id on restore_requests (principal_id text_pattern_ops, requested_at, id)
  where principal_id <> '' and principal = '';

-- In place of object_read: a call of the release before that waits for this migration goes on to make rows of that type. It and its
-- functions (is_late, reads_under, observed_reads) stay for one release.
create type failed_read as (
  id uuid,
  s3_bucket text,
  s3_key text,
  version_id text,
  access_key_id text,
  principal text,
  account_id text,
  source_identity text,
  reader text,
  region text,
  event_id text,
  event_time timestamptz,
  read_count integer,
  principal_id text,
  on_behalf_of text
);

-- The ids of IAM that read: a user's, a role's with the name of the session.
create function is_principal_id(p_id text) returns boolean language sql immutable parallel safe as $$
  select p_id ~ '^A(IDA|ROA)[A-Z0-9]{17}(:|$)'
$$;

create or replace function access_key_problem(p_access_key_id text) returns text language sql immutable parallel safe as $$
  select case
    when p_access_key_id = '' then 'the access key id or principal is missing'
    when p_access_key_id !~ '^[A-Za-z0-9_-]{1,128}$' then 'neither an access key id (letters, digits, - and _) nor an ARN'
    when p_access_key_id ~ '^A(IDA|ROA)[A-Z0-9]{17}$' then 'the id of a user or role is a principal: it belongs into aws_principal_user_map'
    when p_access_key_id ~ '^A(GPA|IPA|NPA)[A-Z0-9]{17}$'
      then 'the id of a group, instance profile or policy, which reads nothing: write the access key id (AKIA...), or the ARN'
  end
$$;

-- As in 0006_people.sql; and principal ids. A * stands for all sessions of a role, not for a part of their names.
create or replace function principal_problem(p_principal text) returns text language sql immutable parallel safe as $$
  select case
    when p_principal ~ '[^\x21-\x7e]' then 'it holds a space, or a character that no ARN has'
    when position('*' in p_principal) not in (0, length(p_principal)) then 'a * may stand at the end only'
    when p_principal ~ '^(AIDA[A-Z0-9]{17}|AROA[A-Z0-9]{17}:([A-Za-z0-9_+=,.@-]{1,64}|\*))$' then null
    when p_principal ~ '^AIDA[A-Z0-9]{17}:' then 'a user has no sessions: write its id alone (AIDA...)'
    when p_principal ~ '^AROA[A-Z0-9]{17}:.*\*$' then 'a * means all sessions of a role: write AROA...:*, or the whole name of the session'
    when p_principal ~ '^AROA[A-Z0-9]{17}' then 'a role reads by its sessions: write AROA...:*, or AROA...:<name of the session>'
    when p_principal ~ '^arn:aws(-[a-z]+)*:(iam::[0-9]{12}:(root|user/.*[^/*])|sts::[0-9]{12}:(assumed-role/[^/]+/[^/*]+|federated-user/[^/*]+)|identitystore:::user/[^/*]+)$'
      or p_principal ~ '^arn:(aws(-[a-z]+)*:(iam::([0-9]{12}:(user/.*)?)?|sts::([0-9]{12}:(assumed-role/([^/]+(/[^/]*)?)?|federated-user/[^/]*)?)?|identitystore:::(user/[^/]*)?)?)?\*$'
      then null
    when p_principal !~ '^arn:' then 'not an ARN; all of them are arn:*'
    when p_principal ~ '^arn:[^:]*:iam:[^:]*:[^:]*:role/'
      then 'a role reads by its sessions: write arn:aws:sts::<account>:assumed-role/<the role''s name, without its path>/*'
    when p_principal ~ '^arn:[^:]*:iam:[^:]*:[^:]*:group/'
      then 'a group reads nothing: write its users, arn:aws:iam::<account>:user/<path and name>'
    when p_principal ~ '^arn:[^:]*:iam:[^:]*:[^:]*:(policy|instance-profile)/'
      then 'it reads nothing: write who has it, a user''s ARN or arn:aws:sts::<account>:assumed-role/<name of the role>/*'
    when p_principal ~ '^arn:[^:]*:(sts|iam):[^:]*:[^:]*:assumed-role/[^/]*$'
      then 'the session is missing: end it in /* for all sessions of the role'
    when p_principal ~ '^arn:[^:]*:sts:[^:]*:[^:]*:assumed-role/.*/.*/'
      then 'sessions do not have the role''s path: write arn:aws:sts::<account>:assumed-role/<the role''s name>/*'
    when p_principal ~ '^arn:[^:]*:(iam|sts):[^:]+:' then 'a region stands in it, where these ARNs have none: write arn:aws:iam::<account>:...'
    when p_principal ~ '^arn:[^:]*:(iam|sts)::[^:]*:' and p_principal !~ '^arn:[^:]*:(iam|sts)::[0-9]{12}:' then 'an account has 12 digits'
    when p_principal ~ '^arn:[^:]*:identitystore:' then 'a person of Identity Center is written arn:aws:identitystore:::user/<user id>'
    else 'no reader has it: write arn:aws:iam::<account>:user/<name>, or arn:aws:sts::<account>:assumed-role/<name of the role>/*'
  end
$$;

-- The identity store's answers, one row per person who was asked about. Beside the maps: those are what operators say.
create table identity_store_users (
  subject text primary key,
  store text not null,
  is_wanted boolean not null default true,
  ask_after timestamptz not null default now(),
  claim_id uuid,
  answer text,
  email email_address,
  answered_at timestamptz,
  failing_since timestamptz,
  constraint identity_store_users_subject check (subject ~ '^(user|name)/' and octet_length(subject) <= 600),
  constraint identity_store_users_answer check (answer in ('found', 'not_found', 'disabled', 'no_address')),
  constraint identity_store_users_answered check ((answer is null) = (answered_at is null) and (email is null or answer = 'found'))
);
create index identity_store_users_wanted on identity_store_users (store, ask_after) where is_wanted;
create index identity_store_users_unwanted on identity_store_users (ask_after) where not is_wanted;

-- One row: while it is shut nobody is asked about.
create table identity_store_gate (
  only_row boolean primary key default true,
  closed_until timestamptz not null default '-infinity',
  failures integer not null default 0,
  failure_code text not null default '',
  failure_message text not null default '',
  constraint identity_store_gate_has_one_row check (only_row)
);
insert into identity_store_gate default values;

-- They get more arguments, or more columns.
drop function if exists find_person(text, text, text, text[]);
drop function if exists resolve_requests(integer, interval[], text[]);
drop function if exists resolve_unknown(integer, interval[], text[]);
drop function if exists payer_name(text, text, text, text);
drop function if exists parse_reads(jsonb);
