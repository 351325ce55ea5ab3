-- The sweep's look, status by status: a failed restore is over a day later than a restored one, and a day's failed ones would be
-- gone through by each.
drop index restores_to_close;
create index restores_to_close on restores (status, (coalesce(restore_expires_at, status_at)))
  where closed_at is null and status in ('restored', 'failed');

-- What stuck_requests looks for, so that it finds nothing quickly when all is well, however much is open. What is untold it
-- finds by restore_requests_pre_untold_since and ..._post_untold_since.
create index restores_failing on restores (failing_since) where failing_since is not null and closed_at is null;
create index restores_accepted on restores (accepted_at) where status = 'pending';
