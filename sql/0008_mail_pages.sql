-- Mails of any size in short transactions, and people in the order in which their news came.

-- The strongest lock first: who holds a weaker one, and asks for more, meets whoever writes meanwhile in a circle.
lock table notifications, restore_requests, mail_gate in access exclusive mode;

-- Without a body a mail is being written: its files are attached page by page, and nobody sends it.
alter table notifications alter column body drop not null;
alter table notifications add constraint notifications_without_body_waits check (body is not null or status = 'sealed');
create index notifications_being_written on notifications (lower(email)) where body is null;

-- Sent, and more readers than one transaction may lock have still to be marked as told.
alter table notifications add column has_marks_left boolean not null default false;
create index notifications_marks_left on notifications (sent_at) where has_marks_left;

-- Whose mails the gate is shut for, when Resend refused their sender; null: everybody's.
alter table mail_gate add column sender text;

-- Who has waited longest; and of one person, since when, from the first thing to the last.
create index restore_requests_pre_untold_since on restore_requests (greatest(requested_at, status_at))
  where pre_notification_id is null and restore_status = 'pending' and email is not null;
create index restore_requests_post_untold_since on restore_requests (greatest(requested_at, status_at))
  where post_notification_id is null and restore_status in ('restored', 'failed') and email is not null;
drop index restore_requests_pre_untold;
create index restore_requests_pre_untold on restore_requests (lower(email), greatest(requested_at, status_at))
  where pre_notification_id is null and restore_status = 'pending' and email is not null;
drop index restore_requests_post_untold;
create index restore_requests_post_untold on restore_requests (lower(email), greatest(requested_at, status_at))
  where post_notification_id is null and restore_status in ('restored', 'failed') and email is not null;

-- Of an expression that only partial indexes have, Postgres keeps no statistics, and takes 1/200 of the table for one person's
-- rows: dear enough for a sequential scan.
create statistics restore_requests_person on (lower(email)) from restore_requests;
analyze restore_requests;

-- They get another argument, or another result; with the old ones kept, a call that leaves it out would be ambiguous.
drop function if exists due_people(notification_kind, interval, interval, integer, text);
drop function if exists unseal_stale_notifications(notification_kind);
drop function if exists take_mail_turn(notification_kind);
drop function if exists claim_notifications(notification_kind, integer, text, boolean);
drop function if exists mark_notification_sent(uuid, text);
drop function if exists shut_mail_gate(uuid, uuid, timestamptz, interval, text, text);
drop function if exists pause_mail(interval, text);
-- A mail is written in pages now, and holds as much as there is.
drop function if exists files_per_mail();
