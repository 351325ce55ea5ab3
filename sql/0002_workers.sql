-- Who works. A worker that dies leaves claims and locked jobs; whoever sees that its lock is free gives them back.
create table workers (
  id text primary key,                    -- graphile-worker's name for it, as in graphile_worker.jobs.locked_by
  started_at timestamptz not null default now()
);

alter table restores add column claimed_by text;      -- the worker of the latest claim
alter table notifications add column claimed_by text;

-- What is in a worker's hands just now: a few pages, however many rows there are.
create index restores_claimed on restores (claimed_by) where claim_id is not null and closed_at is null;
-- A claim that ended with its row says nothing any more.
update restores set claim_id = null where claim_id is not null and closed_at is not null;

-- Resend's pace, for all workers: how many calls a second it takes (two until it has told us), and when the next may go out.
alter table mail_gate add column calls_per_second double precision not null default 2
  constraint mail_gate_has_a_pace check (calls_per_second > 0);
alter table mail_gate add column next_call_at timestamptz not null default '-infinity';

-- They get another argument, or another result; with the old ones kept, a call that leaves it out would be ambiguous.
drop function if exists claim_restores_to_trigger(integer);
drop function if exists claim_restores_to_poll(integer, interval, timestamptz, uuid);
drop function if exists claim_notifications(notification_kind, integer);
