-- What the operator's lists walk: open restores by state, closed ones by their end, page by page from a (time, id) on. Very many
-- copies expire at the same midnight, so the id is in both.
create index restores_open_by_state on restores (status, status_at, id) where closed_at is null;
drop index restores_closed;
create index restores_closed on restores (closed_at, id) where closed_at is not null;
-- What was done to one mail.
create index actions_of_target on actions (target);
