-- The tables. What must hold for every writer, a person in psql included, is a constraint here; who moves
-- a row, and when, stands in transitions.sql.

-- In life order. failed always carries a code and a sentence that a person understands.
create type restore_status as enum (
  'not_started', -- somebody read the object; S3 has not accepted a restore yet
  'pending',     -- S3 is restoring it
  'restored',    -- S3 itself said (event or HEAD) that it can be read
  'failed'       -- it will not become readable without somebody's help
);

-- pre: "your files are being restored". post: what became of them.
create type notification_kind as enum ('pre', 'post');

create type notification_status as enum (
  'sealed',  -- its body is frozen; to be sent, or being sent
  'sent',    -- Resend accepted it
  'failed',  -- Resend refuses it for good (the address, mostly)
  'unknown'  -- perhaps sent: Resend was away longer than it remembers our idempotency key
);

-- One @, and nothing that could make two recipients or a second header line of one.
create domain email_address as text
  constraint email_address_is_one_mailbox check (value ~ '^[^@[:space:][:cntrl:],;<>"]+@[^@[:space:][:cntrl:],;<>"]+$');

-- One row per object and restore: the lock of the object while closed_at is null, and what
-- trigger_restores and poll_pending_restores walk.
create table restores (
  id uuid primary key,
  s3_bucket text not null,
  s3_key text not null,
  version_id text not null default '',           -- as the read named it; '' when it named none
  region text,                                   -- the bucket's, as the event told it; null: the worker's own
  status restore_status not null default 'not_started',
  status_at timestamptz not null default now(),  -- since when it has that status
  attempts integer not null default 0,           -- claims since the last progress
  attempt_after timestamptz not null default now(), -- lease, back-off and grace in one: nobody touches the row before
  claim_id uuid,                                 -- of the latest claim: only its holder may report trouble or a loss
  failing_since timestamptz,                     -- first of an unbroken run of troubles
  lost_count integer not null default 0,         -- how often S3 forgot an accepted restore
  head_wanted_at timestamptz,                    -- an event that S3 itself must confirm (HEAD); null: none
  storage_class text,
  archive_status text,                           -- Intelligent-Tiering's archive tier
  size_bytes bigint,
  etag text,
  pinned_version_id text,                        -- the version HEAD answered for; '' in an unversioned bucket
  tier text,                                     -- null: somebody else asked S3, with a tier we do not know
  accepted_at timestamptz,
  restored_at timestamptz generated always as (case when status = 'restored' then status_at end) stored,
  restore_expires_at timestamptz,                -- null: readable without end, or not known yet
  last_checked_at timestamptz,                   -- S3's last answer to a poll
  failure_code text,                             -- of the latest trouble; final when status is failed
  failure_message text,
  closed_at timestamptz,                         -- when this restore was over; a later read opens a new one
  created_at timestamptz not null default now(),
  constraint restores_bucket_length check (octet_length(s3_bucket) between 1 and 255),
  constraint restores_key_length check (octet_length(s3_key) between 1 and 1024),
  constraint restores_version_length check (octet_length(version_id) <= 1024),
  constraint restores_pending_was_accepted check (status <> 'pending' or accepted_at is not null),
  constraint restores_failed_is_explained check (status <> 'failed' or (failure_code is not null and failure_message is not null)),
  constraint restores_closed_is_over check (closed_at is null or status in ('restored', 'failed')),
  constraint restores_closed_wants_no_head check (closed_at is null or head_wanted_at is null),
  -- What restore_requests points at, so that it follows.
  constraint restores_status_key unique (id, status, status_at)
);

-- The per-object lock.
create unique index restores_open_object on restores (s3_bucket, s3_key, version_id) where closed_at is null;
-- Late deliveries: "was there a restore that ended after this read?"
create index restores_closed_object on restores (s3_bucket, s3_key, version_id, closed_at) where closed_at is not null;
create index restores_to_trigger on restores (attempt_after) where status = 'not_started';
create index restores_to_poll on restores ((coalesce(last_checked_at, accepted_at)), id) where status = 'pending';
create index restores_head_wanted on restores (attempt_after) where head_wanted_at is not null;
create index restores_to_close on restores ((coalesce(restore_expires_at, status_at)))
  where closed_at is null and status in ('restored', 'failed');

-- Who a key belongs to.
create table aws_key_user_map (
  access_key_id text primary key,
  email email_address not null,
  created_at timestamptz not null default now(),
  constraint aws_key_user_map_key_length check (octet_length(access_key_id) between 1 and 128)
);

-- Who is behind a role or a session, whose keys change all the time: an exact ARN, or a prefix that ends in *.
create table aws_principal_user_map (
  principal text primary key,
  email email_address not null,
  created_at timestamptz not null default now(),
  constraint aws_principal_user_map_length check (octet_length(principal) between 1 and 2048),
  constraint aws_principal_user_map_star_ends check (position('*' in principal) in (0, length(principal)))
);

-- How a reader became a person, in the order in which it is tried.
create type resolution_rule as enum (
  'access_key',       -- aws_key_user_map has the key
  'principal',        -- aws_principal_user_map has the ARN
  'principal_prefix', -- ... or a prefix of it, the longest one
  'source_identity',  -- an address, of a domain that SESSION_EMAIL_DOMAINS allows
  'session_name'      -- likewise: what IAM Identity Center and most federations call a role session
);

-- One row per mail, with its frozen body: exactly these bytes are sent, however often it takes.
create table notifications (
  id uuid primary key,
  kind notification_kind not null,
  email email_address not null,
  status notification_status not null default 'sealed',
  body text not null,                               -- the JSON that Resend gets
  attempts integer not null default 0,
  attempt_after timestamptz not null default now(),
  claim_id uuid,                                    -- of the latest claim
  uncertain_since timestamptz,                      -- first attempt of which we do not know whether Resend took it
  sent_at timestamptz,
  resend_id text,
  failure_code text,
  failure_message text,
  superseded_by uuid references notifications,      -- an operator had it sent again
  created_at timestamptz not null default now(),
  constraint notifications_sent_has_time check ((status = 'sent') = (sent_at is not null)),
  constraint notifications_failure_is_explained check (status not in ('failed', 'unknown') or failure_message is not null)
);

create index notifications_to_send on notifications (attempt_after) where status = 'sealed';
-- What an operator looks at, and what must not be deleted while another mail points at it.
create index notifications_not_sent on notifications (created_at) where status <> 'sent';
create index notifications_superseded on notifications (superseded_by) where superseded_by is not null;

-- One row per restore and reader. Status and time follow the restore through the foreign key, in the very
-- statement that moves it: no writer can make them differ.
create table restore_requests (
  id uuid primary key,
  restore_id uuid not null,
  s3_bucket text not null,
  s3_key text not null,
  version_id text not null default '',
  access_key_id text not null default '',
  principal text not null default '',               -- ARN of the reader, where CloudTrail names one
  account_id text not null default '',
  source_identity text not null default '',         -- who took on the role, where the identity provider says so
  -- Who reads: the key, or without one the principal.
  reader text not null generated always as (case when access_key_id <> '' then access_key_id else principal end) stored,
  email email_address,                              -- null: nobody to write to (yet)
  user_resolved boolean not null default false,
  resolved_by resolution_rule,                      -- the rule that found the email
  restore_status restore_status not null,
  status_at timestamptz not null,
  restored_at timestamptz generated always as (case when restore_status = 'restored' then status_at end) stored,
  pre_notified boolean not null default false,      -- true only once Resend has accepted the mail
  post_notified boolean not null default false,
  pre_notification_id uuid references notifications deferrable initially deferred,
  post_notification_id uuid references notifications deferrable initially deferred,
  requested_at timestamptz not null default now(),
  read_count integer not null default 1,
  last_read_at timestamptz not null,                -- time of the newest read event
  last_event_id text,                               -- a redelivered event is not counted again
  constraint restore_requests_one_per_reader unique (restore_id, reader),
  constraint restore_requests_follow_restore foreign key (restore_id, restore_status, status_at)
    references restores (id, status, status_at) on update cascade,
  constraint restore_requests_access_key_length check (octet_length(access_key_id) <= 128),
  constraint restore_requests_source_identity_length check (octet_length(source_identity) <= 256),
  constraint restore_requests_principal_length check (octet_length(principal) <= 2048),
  constraint restore_requests_pre_was_sealed check (not pre_notified or pre_notification_id is not null),
  constraint restore_requests_post_was_sealed check (not post_notified or post_notification_id is not null),
  constraint restore_requests_email_is_resolved check (email is null or user_resolved)
);

create index restore_requests_pre_untold on restore_requests (lower(email))
  where pre_notification_id is null and restore_status = 'pending' and email is not null;
create index restore_requests_post_untold on restore_requests (lower(email))
  where post_notification_id is null and restore_status in ('restored', 'failed') and email is not null;
-- What else a person still waits for: "4 of your 10 files".
create index restore_requests_waiting on restore_requests (lower(email))
  where post_notification_id is null and email is not null;
create index restore_requests_pre_notification on restore_requests (pre_notification_id) where pre_notification_id is not null;
create index restore_requests_post_notification on restore_requests (post_notification_id) where post_notification_id is not null;
create index restore_requests_newest on restore_requests (requested_at);
create index restore_requests_unresolved on restore_requests (id) where not user_resolved;

-- Each person is told each thing once per restore, whatever keys they used: the primary key says so.
create table announcements (
  restore_id uuid not null references restores,
  kind notification_kind not null,
  person text not null,                             -- lower(email)
  notification_id uuid not null references notifications deferrable initially deferred,
  primary key (restore_id, kind, person)
);

create index announcements_notification on announcements (notification_id);

-- One row: while it is closed no worker sends mail (rate limit, quota, a revoked key).
create table mail_gate (
  only_row boolean primary key default true,
  closed_until timestamptz not null default '-infinity',
  reason text not null default '',
  constraint mail_gate_has_one_row check (only_row)
);

insert into mail_gate default values;

-- A read as request_restores works on it: one per object and reader of a batch.
create type object_read as (
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
  read_count integer
);

-- graphile-worker notes each task's name with its first job. Two processes that start together on a new database
-- would do so in different orders and lock each other out; so it is done here, once.
select graphile_worker.add_job(task, job_key := 'register_' || task), graphile_worker.remove_job('register_' || task)
  from unnest(array['poll_pending_restores', 'post_notify', 'pre_notify', 'resolve_users', 'trigger_restores']) as task;
