-- What happened to each restore, what people did, and what is counted for good.

-- Each step of a restore. Written by triggers (history.sql), so that an update by hand is in it, too.
create table restore_history (
  id bigint generated always as identity primary key,
  restore_id uuid not null references restores (id) on delete cascade,
  at timestamptz not null default now(),
  from_status text,
  to_status text not null,
  code text not null default '',
  by text not null,
  constraint restore_history_statuses check (
    to_status in ('not_started', 'pending', 'restored', 'failed', 'closed')
    and from_status in ('not_started', 'pending', 'restored', 'failed', 'closed'))
);
create index restore_history_of_restore on restore_history (restore_id, id);
create index restore_history_newest on restore_history (at);

-- What somebody did about restores, mails and people, by page, command or SQL function.
create table actions (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  actor text not null,
  role text not null default session_user,
  action text not null,
  target text not null,
  restore_id uuid,
  before jsonb not null default '{}',
  after jsonb not null default '{}'
);
create index actions_newest on actions (at);
create index actions_of_restore on actions (restore_id) where restore_id is not null;

-- Counted for good, whatever retention deletes: a ledger, to which transitions add and which the sweep adds up. Nobody updates a
-- row that another transaction may hold, so counting makes nobody wait.
create table totals (
  id bigint generated always as identity primary key,
  hour timestamptz not null default date_trunc('hour', now(), 'UTC'),
  metric text not null,
  labels jsonb not null default '{}',
  le double precision,
  n double precision not null
);
create index totals_by_hour on totals (hour, metric);

-- When each task last did its work to the end, and what it last failed of.
create table task_runs (
  task text primary key,
  succeeded_at timestamptz,
  failed_at timestamptz,
  error text not null default ''
) with (fillfactor = 50);

-- Vacuum and statistics must keep up with tables of millions of rows in which each row changes some ten times.
alter table restores set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
alter table restore_requests set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
alter table notifications set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05,
  toast.autovacuum_vacuum_scale_factor = 0.05);
alter table announcements set (autovacuum_vacuum_insert_scale_factor = 0.05);
alter table restore_history set (autovacuum_vacuum_insert_scale_factor = 0.05);
-- One row that each mail updates: pruned in its page, and vacuumed often.
alter table mail_gate set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
