-- What resolve_users walks every five minutes, from the oldest open restore on: readers whom nobody knew.
create index restore_requests_unknown on restore_requests (status_at) where email is null and user_resolved;
