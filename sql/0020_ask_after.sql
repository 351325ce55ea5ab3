-- When S3 is asked about a pending restore, if no event says earlier that it is done.

-- The default of before is a constant to Postgres, so no row is rewritten. What is pending now is asked about at once, and gets its
-- own time with the answer.
alter table restores add column ask_after timestamptz not null default now();
alter table restores alter column ask_after set default 'infinity';

-- Apart from what an event asks about: that may be in backoff, and must not be read for each page.
create index restores_to_ask on restores (ask_after, id) where status = 'pending' and head_wanted_at is null;
