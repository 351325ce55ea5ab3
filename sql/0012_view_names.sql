-- Views that get other columns (restore_status, as in the table, where they had status), which `create or replace` cannot do; views.sql
-- creates them again. No process reads the columns that change: the doctor of the release before counts the ids of stuck_requests.
drop view if exists findings, stuck_requests, request_status;

-- When it was counted last: the time of the last read, event, mail.
alter table totals add column last_at timestamptz not null default now();
