-- What a map may say, and what it takes to look up again whom nobody knew. Each function below is the one place of its rule;
-- null: nothing is wrong. They call nothing of ours, so that a dump restores whatever its search path is.

-- In the order in which a read takes them, so that neither waits for the other.
lock table restores, restore_requests, aws_key_user_map, aws_principal_user_map in access exclusive mode;

-- The pattern is server/address.ts's, too (a test holds both to the same addresses). ASCII only: Resend takes no other.
create function address_problem(p_address text) returns text language sql immutable parallel safe as $$
  select case
    -- What SMTP can carry (RFC 5321), angle brackets taken off.
    when octet_length(p_address) > 254 then 'it is longer than 254 bytes'
    when p_address ~ '^(?=[^@]{1,64}@)[A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&''*+/=?^_`{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?$'
      then null
    when p_address = '' then 'it is missing'
    when lower(p_address) like 'mailto:%' then 'write it without mailto:'
    when p_address ~ '[,;<>"]' then 'write one bare address, like jane@example.com'
    when p_address ~ '[\x01-\x20\x7f]' then 'it holds a space or a control character'
    when p_address ~ '[^\x01-\x7f]' then 'it holds a character that is not ASCII, perhaps an invisible one (a domain with others is written xn--...)'
    when p_address !~ '^[^@]+@[^@]+$' then 'it needs one @'
    when p_address ~ '^\.|\.@|@\.|\.$|\.\.' then 'a dot stands at an end, or twice'
    when p_address !~ '@.*\.' then 'its domain has no dot'
    else 'no mail server takes it'
  end
$$;

-- Key ids are what POST takes (server/input.ts): those of Ceph, Garage and MinIO, too.
create function access_key_problem(p_access_key_id text) returns text language sql immutable parallel safe as $$
  select case
    when p_access_key_id = '' then 'the access key id or principal is missing'
    when p_access_key_id !~ '^[A-Za-z0-9_-]{1,128}$' then 'neither an access key id (letters, digits, - and _) nor an ARN'
    when p_access_key_id ~ '^A(IDA|ROA|GPA|IPA|NPA)[A-Z0-9]{17}$'
      then 'the id of a user, role or group, which no read is looked up by: write the access key id (AKIA...), or the ARN'
  end
$$;

-- The readers that CloudTrail names by an ARN, and prefixes of these. A prefix ends where a part does, or within a name.
create function principal_problem(p_principal text) returns text language sql immutable parallel safe as $$
  select case
    when p_principal ~ '[^\x21-\x7e]' then 'it holds a space, or a character that no ARN has'
    when position('*' in p_principal) not in (0, length(p_principal)) then 'a * may stand at the end only'
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

-- Not valid: what stands there already stays, and does not stop the migration. An address that reaches nobody is not used
-- (find_person), `npm run users -- list` and `npm run doctor` show such entries.
alter table aws_key_user_map
  add constraint aws_key_user_map_suits_a_reader check (access_key_problem(access_key_id) is null) not valid,
  add constraint aws_key_user_map_reaches_somebody check (address_problem(email) is null) not valid;
alter table aws_principal_user_map
  add constraint aws_principal_user_map_suits_a_reader check (principal_problem(principal) is null) not valid,
  add constraint aws_principal_user_map_reaches_somebody check (address_problem(email) is null) not valid;

-- A few among very many exact ones.
create index aws_principal_user_map_prefixes on aws_principal_user_map (principal) where principal like '%*';
-- "Is there one that is newer than the last look?"
create index aws_key_user_map_newest on aws_key_user_map (created_at);
create index aws_principal_user_map_newest on aws_principal_user_map (created_at);

-- The restore that was over while nobody knew the reader: nobody looks again, unless the row moves to another restore.
alter table restore_requests add column ended_unknown uuid;
drop index restore_requests_unknown;
create index restore_requests_unknown on restore_requests (id)
  where email is null and user_resolved and ended_unknown is distinct from restore_id;

-- One row: the walk over readers whom nobody knew, for the map may know them by now. It lasts many runs, if need be.
create table second_look (
  only_row boolean primary key default true,
  started_at timestamptz not null default '-infinity',
  after uuid,                                       -- the last request it looked at; null: it is over
  constraint second_look_has_one_row check (only_row)
);

insert into second_look default values;
