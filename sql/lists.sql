-- What the operator's pages read, besides the views of views.sql. No view here sorts, joins or counts: a page reads some fifty rows
-- by an index, however many there are.

-- All that Thaw and S3 know of a restore.
create or replace view restore_details as
  select r.id, r.s3_bucket, r.s3_key, r.version_id, r.region, r.status as restore_status, r.status_at, r.created_at, r.closed_at,
         r.storage_class, r.archive_status, r.tier, r.size_bytes, r.accepted_at, r.restored_at, r.restore_expires_at, r.last_checked_at,
         r.attempts, r.attempt_after, r.failing_since, r.lost_count, r.head_wanted_at, r.failure_code, r.failure_message
    from restores r;

-- Who reads what, and what they were told.
create or replace view restore_readers as
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.version_id, q.reader, q.access_key_id, q.principal, q.account_id, q.source_identity,
         q.email::text as email, q.resolved_by::text as resolved_by, q.restore_status, q.status_at, q.requested_at, q.read_count, q.last_read_at,
         q.pre_notified, q.post_notified, q.pre_notification_id, q.post_notification_id
    from restore_requests q;

-- Mails that are not sent, without their bodies. mail_status has the status as text, which no index of notifications is for. A mail
-- of a person who was erased is not to be sent.
create or replace view unsent_mails as
  select n.id, n.kind::text as kind, n.email::text as email, n.status::text as status, n.created_at, n.sent_at, n.attempts, n.attempt_after,
         n.resend_id, coalesce(n.failure_code, '') as failure_code, coalesce(n.failure_message, '') as failure_message, n.superseded_by
    from notifications n where n.status <> 'sent' and n.superseded_by is null and n.failure_code is distinct from 'erased';

comment on view restore_details is 'One row per restore (an object, from the first failed read until its copy has expired), open while closed_at is null. Read by the operator''s pages.';
comment on column restore_details.id is 'The restore.';
comment on column restore_details.s3_bucket is 'The bucket of the object.';
comment on column restore_details.s3_key is 'The key of the object, as S3 has it, never decoded.';
comment on column restore_details.version_id is 'The version that the read named; empty when it named none.';
comment on column restore_details.region is 'The bucket''s region as the event told it; null: the worker''s own.';
comment on column restore_details.restore_status is 'not_started, pending, restored or failed.';
comment on column restore_details.status_at is 'Since when it has that status.';
comment on column restore_details.created_at is 'When the first failed read of it came in.';
comment on column restore_details.closed_at is 'When this restore was over; null: it is open.';
comment on column restore_details.storage_class is 'As S3 says; null: S3 was not asked yet.';
comment on column restore_details.archive_status is 'The archive tier of Intelligent-Tiering; null: outside one.';
comment on column restore_details.tier is 'The retrieval tier that Thaw asked for; null: not asked yet, or another client asked.';
comment on column restore_details.size_bytes is 'Size of the object, in bytes; null: not known yet.';
comment on column restore_details.accepted_at is 'When S3 accepted the restore; null: not yet.';
comment on column restore_details.restored_at is 'When S3 first said that it is readable; null: it is not.';
comment on column restore_details.restore_expires_at is 'When the readable copy ends; null: never, or not known yet.';
comment on column restore_details.last_checked_at is 'When S3 last answered how far it is.';
comment on column restore_details.attempts is 'Tries since the last progress.';
comment on column restore_details.attempt_after is 'Lease and backoff: no worker takes it before.';
comment on column restore_details.failing_since is 'The first of an unbroken run of errors; null: none.';
comment on column restore_details.lost_count is 'How often S3 lost an accepted restore.';
comment on column restore_details.head_wanted_at is 'An event of S3 came then, and S3 is to confirm it; null: none.';
comment on column restore_details.failure_code is 'S3''s name of the latest error, or Thaw''s; final when the status is failed.';
comment on column restore_details.failure_message is 'The same as a sentence.';

comment on view restore_readers is 'One row per restore and reader. Read by the operator''s pages.';
comment on column restore_readers.id is 'The request: what the server answered to the read that made it.';
comment on column restore_readers.restore_id is 'The restore that the reader waits for.';
comment on column restore_readers.s3_bucket is 'The bucket of the object.';
comment on column restore_readers.s3_key is 'The key of the object.';
comment on column restore_readers.version_id is 'The version that the read named; empty when it named none.';
comment on column restore_readers.reader is 'The access key, or without one the ARN.';
comment on column restore_readers.access_key_id is 'The access key that read; empty: none was told.';
comment on column restore_readers.principal is 'The ARN of the reader; empty: none was told.';
comment on column restore_readers.account_id is 'The AWS account of the reader; empty: not told.';
comment on column restore_readers.source_identity is 'Who took on the role, where the identity provider says so; empty: not told.';
comment on column restore_readers.email is 'Whom the maps name; null: nobody to write to.';
comment on column restore_readers.resolved_by is 'The rule that found the address; null: none.';
comment on column restore_readers.restore_status is 'The status of the restore, which it follows by foreign key.';
comment on column restore_readers.status_at is 'Since when.';
comment on column restore_readers.requested_at is 'When the first read came in.';
comment on column restore_readers.read_count is 'How many failed reads were counted.';
comment on column restore_readers.last_read_at is 'Time of the newest read.';
comment on column restore_readers.pre_notified is 'Whether the mail that the restore began was sent.';
comment on column restore_readers.post_notified is 'Whether the mail of what became of it was sent.';
comment on column restore_readers.pre_notification_id is 'The mail that the restore began; null: none is written.';
comment on column restore_readers.post_notification_id is 'The mail of what became of it; null: none is written.';

comment on view unsent_mails is 'One row per mail that is not sent, and that no operator had sent again: waiting (sealed), failed or unknown. Read by the operator''s pages.';
comment on column unsent_mails.id is 'The mail, and its idempotency key.';
comment on column unsent_mails.kind is 'pre: the restore began; post: what became of it.';
comment on column unsent_mails.email is 'To whom.';
comment on column unsent_mails.status is 'sealed: written, to be sent. failed: Resend refuses it. unknown: perhaps sent.';
comment on column unsent_mails.created_at is 'When it was written.';
comment on column unsent_mails.sent_at is 'Always null here; as in mail_status.';
comment on column unsent_mails.attempts is 'How often it was tried.';
comment on column unsent_mails.attempt_after is 'Lease and backoff: not tried before.';
comment on column unsent_mails.resend_id is 'Resend''s id of it; null: none is known.';
comment on column unsent_mails.failure_code is 'Resend''s name of the latest error; empty: none.';
comment on column unsent_mails.failure_message is 'The same as a sentence; empty: none.';
comment on column unsent_mails.superseded_by is 'Always null here; as in mail_status.';
