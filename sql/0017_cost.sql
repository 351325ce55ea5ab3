-- What restores may cost, who decides about those that cost more, and what they did cost.

-- held: your files wait for approval. approval: somebody has to decide. warning: a limit is nearly used up. Postgres lets nobody use
-- the new values before this transaction has ended, so functions of the pages take them as arguments.
alter type notification_kind add value if not exists 'held';
alter type notification_kind add value if not exists 'approval';
alter type notification_kind add value if not exists 'warning';

create type policy_action as enum ('restore', 'hold', 'observe', 'ignore');
create type limit_scope as enum ('all', 'person', 'prefix');
create type limit_period as enum ('day', 'month');
create type hold_status as enum ('open', 'approved', 'refused', 'expired');

create table policies (
  s3_bucket text not null,
  key_prefix text not null default '',
  principal text not null default '*',
  action policy_action not null,
  tier text,
  days integer,
  note text not null default '',
  created_at timestamptz not null default now(),
  primary key (s3_bucket, key_prefix, principal),
  constraint policies_bucket_length check (octet_length(s3_bucket) between 1 and 255),
  constraint policies_prefix_length check (octet_length(key_prefix) <= 1024),
  constraint policies_prefix_needs_a_bucket check (s3_bucket <> '*' or key_prefix = ''),
  constraint policies_principal_length check (octet_length(principal) between 1 and 2048),
  constraint policies_star_ends check (position('*' in principal) in (0, length(principal))),
  constraint policies_tier_is_one check (tier in ('Expedited', 'Standard', 'Bulk')),
  constraint policies_days_in_range check (days between 1 and 365),
  constraint policies_ignored_is_not_restored check (action <> 'ignore' or (tier is null and days is null))
);

create table limits (
  id bigint generated always as identity primary key,
  scope limit_scope not null,
  s3_bucket text not null default '*',
  key_prefix text not null default '',
  per limit_period not null,
  max_cost numeric,
  max_bytes bigint,
  max_objects bigint,
  created_at timestamptz not null default now(),
  -- One of each kind: a change keeps what was spent.
  constraint limits_one_of_a_kind unique (scope, s3_bucket, key_prefix, per),
  constraint limits_bucket_length check (octet_length(s3_bucket) between 1 and 255),
  constraint limits_prefix_length check (octet_length(key_prefix) <= 1024),
  constraint limits_prefix_has_a_bucket check ((scope = 'prefix') = (s3_bucket <> '*') and (scope = 'prefix' or key_prefix = '')),
  constraint limits_something check (coalesce(max_cost, max_bytes, max_objects) is not null),
  constraint limits_not_negative check (max_cost >= 0 and max_cost < 'infinity' and max_bytes >= 0 and max_objects >= 0)
);

-- What was charged is found again by these.
create function limits_keep_their_kind() returns trigger language plpgsql as $$
begin
  raise exception 'what a limit is for cannot be changed' using errcode = 'object_not_in_prerequisite_state', hint = 'Remove it, and set another.';
end
$$;
create trigger limits_keep_their_kind before update of id, scope, s3_bucket, key_prefix, per on limits for each row
  when ((old.id, old.scope, old.s3_bucket, old.key_prefix, old.per) is distinct from (new.id, new.scope, new.s3_bucket, new.key_prefix, new.per))
  execute function limits_keep_their_kind();

-- What of a limit is used: one row for each period, and for each person where the limit is each person's own (else subject is '').
create table spending (
  limit_id bigint not null references limits on delete cascade,
  subject text not null,
  period date not null,
  objects bigint not null default 0,
  bytes numeric not null default 0,
  cost numeric not null default 0,
  warned_at timestamptz,
  primary key (limit_id, subject, period),
  constraint spending_not_negative check (objects >= 0 and bytes >= 0 and cost >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index spending_old on spending (period);
create index spending_warned on spending (limit_id, period) where warned_at is not null;

create table holds (
  id uuid primary key default gen_random_uuid(),
  person text not null,
  status hold_status not null default 'open',
  reason text not null,
  objects bigint not null default 0,
  bytes numeric not null default 0,
  estimated_cost numeric not null default 0,
  opened_at timestamptz not null default now(),
  last_added_at timestamptz not null default now(),
  decided_at timestamptz,
  decided_by text,
  settled_at timestamptz,
  constraint holds_decided_by_somebody check ((status = 'open') = (decided_at is null) and (status = 'open') = (decided_by is null)),
  constraint holds_settled_was_decided check (settled_at is null or status <> 'open')
);
create unique index holds_one_open on holds (person) where status = 'open';
create index holds_open on holds (opened_at, id) where status = 'open';
create index holds_to_settle on holds (decided_at) where status <> 'open' and settled_at is null;
create index holds_newest on holds (opened_at, id);

-- A mail about a hold or a limit is due to somebody; email null: to each of APPROVERS.
create table notices (
  id uuid primary key default gen_random_uuid(),
  kind notification_kind not null,
  hold_id uuid references holds on delete cascade,
  limit_id bigint,
  subject text,
  period date,
  email email_address,
  created_at timestamptz not null default now(),
  sealed_at timestamptz,
  constraint notices_about_something check (num_nonnulls(hold_id, limit_id) = 1),
  constraint notices_of_a_limit check (limit_id is null or (subject is not null and period is not null)),
  foreign key (limit_id, subject, period) references spending on delete cascade
);
create unique index notices_once_of_a_hold on notices (hold_id, kind, coalesce(lower(email), '')) where hold_id is not null;
create unique index notices_once_of_a_limit on notices (limit_id, subject, period) where limit_id is not null;
create index notices_due on notices (created_at) where sealed_at is null;
create index notices_oldest on notices (created_at);

alter table notifications add column notice_id uuid references notices on delete cascade;
create index notifications_of_notice on notifications (notice_id) where notice_id is not null;
create unique index notifications_once_of_a_notice on notifications (notice_id, lower(email)) where notice_id is not null and superseded_by is null;

create table prices (
  region text not null,
  storage_class text not null,
  tier text not null,
  per_1000_requests numeric not null,
  per_gb numeric not null,
  copy_per_gb_month numeric not null,
  valid_from date not null,
  source text not null,
  primary key (region, storage_class, tier, valid_from),
  constraint prices_tier_is_one check (tier in ('Expedited', 'Standard', 'Bulk')),
  constraint prices_not_negative check (per_1000_requests >= 0 and per_gb >= 0 and copy_per_gb_month >= 0
    and per_1000_requests < 'infinity' and per_gb < 'infinity' and copy_per_gb_month < 'infinity')
);

-- US dollars, US East (N. Virginia), without tax and free tier. An object that Intelligent-Tiering keeps in an archive tier moves back
-- for good, so there is no temporary copy to pay.
insert into prices (region, storage_class, tier, per_1000_requests, per_gb, copy_per_gb_month, valid_from, source) values
  ('us-east-1', 'GLACIER', 'Expedited', 10.00, 0.03, 0.023, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'GLACIER', 'Standard', 0.05, 0.01, 0.023, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'GLACIER', 'Bulk', 0, 0, 0.023, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'DEEP_ARCHIVE', 'Standard', 0.10, 0.02, 0.023, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'DEEP_ARCHIVE', 'Bulk', 0.025, 0.0025, 0.023, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'ARCHIVE_ACCESS', 'Expedited', 10.00, 0.03, 0, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'ARCHIVE_ACCESS', 'Standard', 0, 0, 0, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'ARCHIVE_ACCESS', 'Bulk', 0, 0, 0, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'DEEP_ARCHIVE_ACCESS', 'Standard', 0, 0, 0, '2026-09-26', 'AWS Price List'),
  ('us-east-1', 'DEEP_ARCHIVE_ACCESS', 'Bulk', 0, 0, 0, '2026-09-26', 'AWS Price List');

-- What restores cost by our estimate: a ledger like totals, to which each accepted page adds, and which the sweep adds up.
create table costs (
  id bigint generated always as identity primary key,
  day date not null,
  person text not null,
  s3_bucket text not null,
  folder text not null,
  storage_class text not null,
  tier text not null,
  observed boolean not null,
  objects bigint not null,
  bytes numeric not null,
  cost numeric not null
);
-- (Without the folder: with a long one and a long ARN, its rows would be too large for an index.)
create index costs_by_day on costs (day, person, s3_bucket);

alter table restores
  add column payer text,
  add column hold_id uuid references holds,
  add column admitted_at timestamptz,
  add column days integer,
  add column estimated_cost numeric,
  add column charged bigint[],
  add column charged_bytes bigint,
  add constraint restores_charged_was_admitted check (charged is null or (admitted_at is not null and payer is not null and charged_bytes is not null));
create index restores_held on restores (hold_id) where status = 'not_started' and attempt_after = 'infinity';
-- What one hold keeps or kept; also for the foreign key.
create index restores_of_hold on restores (hold_id, id) where hold_id is not null;
-- What waits for approval is apart from what waits for S3, so that a million held ones hide nothing and cost nothing.
create index restores_held_since on restores (status_at, id) where status = 'not_started' and attempt_after = 'infinity';
drop index restores_open_by_state;
create index restores_open_by_state on restores (status, status_at, id)
  where closed_at is null and (status <> 'not_started' or attempt_after <> 'infinity');

-- A read under the policy "observe": nobody is told of it, ever.
alter table restore_requests add column observed boolean not null default false;
drop index restore_requests_post_untold_since;
create index restore_requests_post_untold_since on restore_requests (greatest(requested_at, status_at))
  where post_notification_id is null and restore_status in ('restored', 'failed') and email is not null and not observed;
drop index restore_requests_post_untold;
create index restore_requests_post_untold on restore_requests (lower(email), greatest(requested_at, status_at))
  where post_notification_id is null and restore_status in ('restored', 'failed') and email is not null and not observed;
drop index restore_requests_waiting;
create index restore_requests_waiting on restore_requests (lower(email), requested_at, id)
  where post_notification_id is null and email is not null and not observed;
drop index restore_requests_told;
create index restore_requests_told on restore_requests (lower(email), requested_at, id)
  where (post_notification_id is not null or observed) and email is not null;

-- One restore as admit_restores works on it.
create type admission as (
  id uuid,
  region text,
  s3_bucket text,
  s3_key text,
  payer text,
  action policy_action,
  tier text,
  days integer,
  bytes bigint,
  cost numeric,
  hold_id uuid,
  hold_status hold_status,
  is_admitted boolean,
  limits bigint[]
);

-- It gets more columns.
drop function if exists outcomes_in(jsonb, restore_status[]);
drop function if exists parse_outcomes(jsonb);
