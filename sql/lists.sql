-- What the operator's pages read, besides the views of views.sql. No view here sorts, joins or counts: a page reads some fifty rows
-- by an index, however many there are.

-- All that Thaw and S3 know of a restore.
create or replace view restore_details as
  select r.id, r.s3_bucket, r.s3_key, r.version_id, r.region, r.status as restore_status, r.status_at, r.created_at, r.closed_at,
         r.storage_class, r.archive_status, r.tier, r.size_bytes, r.accepted_at, r.restored_at, r.restore_expires_at, r.last_checked_at,
         r.attempts, case when isfinite(r.attempt_after) then r.attempt_after end as attempt_after, r.failing_since, r.lost_count, r.head_wanted_at,
         r.failure_code, r.failure_message,
         r.status = 'not_started' and r.attempt_after = 'infinity' as is_held, r.hold_id, r.payer, r.days, r.estimated_cost
    from restores r;

-- Who reads what, and what they were told.
create or replace view restore_readers as
  select q.id, q.restore_id, q.s3_bucket, q.s3_key, q.version_id, q.reader, q.access_key_id, q.principal, q.account_id, q.source_identity,
         q.email::text as email, q.resolved_by::text as resolved_by, q.restore_status, q.status_at, q.requested_at, q.read_count, q.last_read_at,
         q.pre_notified, q.post_notified, q.pre_notification_id, q.post_notification_id, q.observed
    from restore_requests q;

-- Mails that are not sent, without their bodies. mail_status has the status as text, which no index of notifications is for. A mail
-- of a person who was erased is not to be sent.
create or replace view unsent_mails as
  select n.id, n.kind::text as kind, n.email::text as email, n.status::text as status, n.created_at, n.sent_at, n.attempts, n.attempt_after,
         n.resend_id, coalesce(n.failure_code, '') as failure_code, coalesce(n.failure_message, '') as failure_message, n.superseded_by
    from notifications n where n.status <> 'sent' and n.superseded_by is null and n.failure_code is distinct from 'erased';
