-- What operators search by, at any size: the beginning of a key, an address, an access key, an ARN. And the oldest mails of a status.

-- In the order of a key's bytes (text_pattern_ops), whatever the database sorts by: so a key's beginning is a range of the index,
-- and whole keys are compared as before.
drop index restores_open_object;
create unique index restores_open_object on restores (s3_bucket, s3_key text_pattern_ops, version_id) where closed_at is null;
drop index restores_closed_object;
create index restores_closed_object on restores (s3_bucket, s3_key text_pattern_ops, version_id, closed_at) where closed_at is not null;

-- A person's reads, the newest first. In two parts: each step of a restore writes a row's entries anew, and those who are told take no
-- more steps.
drop index restore_requests_waiting;
create index restore_requests_waiting on restore_requests (lower(email), requested_at, id)
  where post_notification_id is null and email is not null;
create index restore_requests_told on restore_requests (lower(email), requested_at, id)
  where post_notification_id is not null and email is not null;

create index restore_requests_of_key on restore_requests (access_key_id text_pattern_ops, requested_at, id) where access_key_id <> '';
create index restore_requests_of_principal on restore_requests (principal text_pattern_ops, requested_at, id) where principal <> '';

-- By status, so that the refused ones are found among very many that wait.
drop index notifications_not_sent;
create index notifications_not_sent on notifications (status, created_at, id) where status <> 'sent';
