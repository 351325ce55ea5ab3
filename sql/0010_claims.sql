-- The sweep's look, status by status: a failed restore is over a day later than a restored one, and a day's failed ones would be
-- gone through by each.
drop index restores_to_close;
create index restores_to_close on restores (status, (coalesce(restore_expires_at, status_at)))
  where closed_at is null and status in ('restored', 'failed');

-- What stuck_requests looks for, so that it finds nothing quickly when all is well, however much is open or untold.
create index restores_failing on restores (failing_since) where failing_since is not null and closed_at is null;
create index restores_accepted on restores (accepted_at) where status = 'pending';
create index restore_requests_pre_since on restore_requests (greatest(requested_at, status_at))
  where pre_notification_id is null and restore_status = 'pending' and email is not null;
create index restore_requests_post_since on restore_requests (greatest(requested_at, status_at))
  where post_notification_id is null and restore_status in ('restored', 'failed') and email is not null;
