-- What each table, view, column, type and operators' function means: \d+ restores, \dT+, \dD+ and \df+ in psql show it. First what a
-- row or a value is, its unit and what null means; then who writes it, where that is not the task in question. Every user who may
-- connect can read these texts. A migration that drops a view loses them: change this page then, so that it is applied again.
-- (test/sql/comments.test.ts finds what has none.)

-- ------------------------------------------------------------------------------------------------- types

comment on type restore_status is 'In life order. not_started: somebody read the object, and S3 has not accepted a restore yet. pending: S3 is restoring it. restored: S3 itself said, by HEAD, that it is readable. failed: it will not become readable without help; code and sentence say why.';
comment on type notification_kind is 'pre: "your files are being restored". post: what became of them. held: they wait for approval. approval: a hold waits for a decision. warning: a limit is nearly used up.';
comment on type policy_action is 'What happens to a read. restore: its file is restored. hold: it waits for approval. observe: only what it would cost is noted; nothing is restored, and nobody is told. ignore: it is counted, and leaves no row.';
comment on type limit_scope is 'Whose restores a limit counts. all: everybody''s together. person: each person''s own. prefix: those under one prefix of a bucket.';
comment on type limit_period is 'How long a limit counts, by UTC: a day, or a month of the calendar.';
comment on type hold_status is 'open: waits for a decision. approved: its restores run. refused, expired (nobody decided in 72 hours): its restores fail.';
comment on type admission is 'Internal: one restore as admit_restores works on it.';
comment on type notification_status is 'sealed: the body is frozen; to be sent, or being sent. sent: Resend accepted it. failed: Resend refuses it for good (the address, mostly). unknown: perhaps sent; Resend was away for longer than it remembers our idempotency key.';
comment on type resolution_rule is 'How a reader became a person, in the order tried. named: an order (npm run thaw -- restore) named the address itself, as the reader mailto:<address>. access_key: aws_key_user_map has the key. principal: aws_principal_user_map has the ARN. principal_prefix: it has a prefix of the ARN (the longest counts). principal_id: it has the principal id, or all sessions of its role. source_identity, session_name: the address that the session names, of a domain in SESSION_EMAIL_DOMAINS. identity_store: IAM Identity Center told the address.';
comment on domain email_address is 'One mailbox: one @, and nothing that could make two recipients or a second header line of one.';
comment on type object_read is 'Internal: failed_read, as the release before had it.';
comment on type failed_read is 'Internal: a failed read as request_restores works on it, one per object and reader of a batch.';

-- ---------------------------------------------------------------------------------------------- restores

comment on table restores is 'One row per object and restore. Open while closed_at is null: then it is the lock of the object (one open row per bucket, key and version), and what trigger_restores and poll_pending_restores walk. Rows that are over are kept for RETENTION_DAYS. Moved by the functions of transitions.sql only.';
comment on column restores.id is 'The id of the read that opened it, so that log lines match.';
comment on column restores.s3_bucket is 'The bucket.';
comment on column restores.s3_key is 'The key, as S3 has it: never decoded, never normalised.';
comment on column restores.version_id is 'As the read named it; empty: it named none, the current version.';
comment on column restores.region is 'Region of the bucket, as the event told it; null: the worker''s own.';
comment on column restores.status is 'See \dT+ restore_status. Called restore_status in other tables and views.';
comment on column restores.status_at is 'Since when it has that status.';
comment on column restores.attempts is 'Claims since the last progress.';
comment on column restores.attempt_after is 'No worker touches the row before: lease, backoff and grace time in one.';
comment on column restores.claim_id is 'Fencing token of the latest claim, while it is held: only its holder may report trouble or a loss. Null: nobody holds the row.';
comment on column restores.claimed_by is 'The worker of the latest claim (workers.id); null: never claimed.';
comment on column restores.claimed_at is 'Time of the latest claim: what S3 said then is no answer to an event that came later. Null: never claimed.';
comment on column restores.failing_since is 'First of an unbroken run of errors; null: the last call went well. After 24 hours and ten tries it fails.';
comment on column restores.lost_count is 'How often S3 forgot a restore that it had accepted; at 3 it fails.';
comment on column restores.head_wanted_at is 'When an event (or a read of a readable object) made it necessary to ask S3 by HEAD; null: nothing to ask. Ready mails wait for the answer.';
comment on column restores.storage_class is 'S3''s storage class; null: S3 was not asked yet.';
comment on column restores.archive_status is 'Archive tier of Intelligent-Tiering; null: none.';
comment on column restores.size_bytes is 'Size of the object in bytes; null: S3 was not asked yet.';
comment on column restores.etag is 'ETag of the object as HEAD answered; null: S3 was not asked yet.';
comment on column restores.pinned_version_id is 'The version that HEAD answered for, which is restored and checked from then on; empty: the bucket has no versions. Null: S3 was not asked yet.';
comment on column restores.tier is 'Retrieval tier that S3 was asked for; null: not yet, or somebody else asked S3.';
comment on column restores.accepted_at is 'When S3 accepted the restore; null: not (yet).';
comment on column restores.restored_at is 'Since when it is known to be readable; null: it is not. Follows status and status_at.';
comment on column restores.restore_expires_at is 'Until when the copy is readable; null: without end, or not known yet.';
comment on column restores.last_checked_at is 'S3''s last answer to a poll; null: not polled since it was accepted.';
comment on column restores.ask_after is 'When S3 is asked about it by itself while it is pending (times.sql): when its expected time ends, then at growing intervals; an event has it asked at once. infinity: not before S3 accepts it.';
comment on column restores.failure_code is 'S3''s name of the latest error, or Thaw''s own (object_not_found, restore_lost, given_up ...); final when failed. Null: no error now.';
comment on column restores.failure_message is 'The same as a sentence that a person understands; null: no error now.';
comment on column restores.closed_at is 'When this restore was over: a read after that opens a new row. Null: open.';
comment on column restores.payer is 'For whose account it counts: the address of the first reader in lower case, else their role without its session, ARN, access key or account. Null: not admitted, held or observed yet.';
comment on column restores.hold_id is 'The hold that it waits in, or waited in (holds.id); null: none. It waits while it is not_started and attempt_after is infinity.';
comment on column restores.admitted_at is 'When it was counted for its limits: S3 was asked after that. Null: no limit counted it.';
comment on column restores.days is 'For how many days S3 was, or is to be, asked to keep the copy; null: not asked yet.';
comment on column restores.estimated_cost is 'What it costs in dollars, by the prices of that day, without the download: an estimate. Null: not known.';
comment on column restores.charged is 'The limits that it counts for (limits.id); null: none. Taken off again only where S3 has certainly not started it.';
comment on column restores.charged_bytes is 'The bytes that it counts for them; null: none.';
comment on column restores.created_at is 'When its first read came in.';

-- -------------------------------------------------------------------------------------- restore_requests

comment on table restore_requests is 'One row per restore and reader. Status and time follow the restore by foreign key, in the statement that moves it.';
comment on column restore_requests.id is 'The id that POST /restore/request answered.';
comment on column restore_requests.restore_id is 'The restore that this reader waits for (restores.id).';
comment on column restore_requests.s3_bucket is 'The bucket, as in restores.';
comment on column restore_requests.s3_key is 'The key, as in restores.';
comment on column restore_requests.version_id is 'As the read named it; empty: it named none.';
comment on column restore_requests.access_key_id is 'AWS access key that read; empty: the event named none.';
comment on column restore_requests.principal is 'ARN of the reader, where CloudTrail names one; mailto:<address> of an order (npm run thaw -- restore); else empty. Of an erased person the session''s name, or the address, is replaced.';
comment on column restore_requests.account_id is 'AWS account of the reader; empty: not told.';
comment on column restore_requests.source_identity is 'Who took on the role, where the identity provider says so; else empty.';
comment on column restore_requests.principal_id is 'IAM''s id of the reader, with the session''s name where there is one (AIDA..., AROA...:session): all that an event of another account tells. Empty: not told. Of an erased person the session''s name is replaced.';
comment on column restore_requests.on_behalf_of is 'The person''s user id in IAM Identity Center, where the event has it; else empty. Emptied when the person is erased.';
comment on column restore_requests.reader is 'Who reads: the access key, or without one the ARN, the principal id, the account. One row per restore and reader. A trigger writes it.';
comment on column restore_requests.email is 'Whom Thaw writes to; null: nobody, or not looked up yet. Written by resolve_users and stays, until erase_person.';
comment on column restore_requests.user_resolved is 'Whether the maps were asked. True without an email: an unknown reader, looked up again while the restore is open.';
comment on column restore_requests.resolved_by is 'The rule that found the email, see \dT+ resolution_rule; null: none.';
comment on column restore_requests.restore_status is 'Status of the restore, see \dT+ restore_status.';
comment on column restore_requests.status_at is 'Since when the restore has that status.';
comment on column restore_requests.restored_at is 'Since when the object is known to be readable; null: it is not.';
comment on column restore_requests.pre_notified is 'True once Resend has accepted the mail "being restored".';
comment on column restore_requests.post_notified is 'True once Resend has accepted the mail that tells how it ended.';
comment on column restore_requests.pre_notification_id is 'The mail "being restored" (notifications.id); null: none is written.';
comment on column restore_requests.post_notification_id is 'The mail that tells how it ended (notifications.id); null: none is written.';
comment on column restore_requests.requested_at is 'When this reader''s first read came in.';
comment on column restore_requests.read_count is 'Failed reads of this reader; a redelivered event is not counted again.';
comment on column restore_requests.last_read_at is 'Time of the newest read event.';
comment on column restore_requests.last_event_id is 'Id of the newest read event; null: it had none.';
comment on column restore_requests.ended_unknown is 'The restore that was over while nobody knew the reader: nobody looks again. Null: not so.';
comment on column restore_requests.observed is 'True: the policy said observe. Nobody is told of this read.';

comment on table looks is 'One row per reader and object that a tool looked at without reading it (aws s3 cp of one file), until a HEAD of Thaw''s says whether it is archived: then it becomes a read (restores, restore_requests), else it is deleted. Nearly always empty. Moved by the functions of looks.sql only.';
comment on column looks.id is 'The id that POST /restore/request answered: that of the request, if it becomes one and the reader has none yet.';
comment on column looks.s3_bucket is 'The bucket.';
comment on column looks.s3_key is 'The key, as S3 has it.';
comment on column looks.version_id is 'As the look named it; empty: it named none, the current version.';
comment on column looks.reader is 'Who looks, as restore_requests.reader.';
comment on column looks.read is 'The read that it becomes, as request_restores takes it.';
comment on column looks.created_at is 'When it came in.';
comment on column looks.attempts is 'Claims: how often S3 was asked.';
comment on column looks.attempt_after is 'No worker touches the row before: lease and backoff in one.';
comment on column looks.claim_id is 'Fencing token of the claim, while it is held; null: nobody holds the row.';
comment on column looks.claimed_by is 'The worker of the latest claim (workers.id); null: never claimed.';
comment on column looks.failure_code is 'S3''s name of the latest error; null: none. After 24 hours and ten tries the row is deleted.';
comment on column looks.failure_message is 'The same as a sentence; null: none.';

-- ---------------------------------------------------------------------------------------------- the mails

comment on table notifications is 'The outbox: one row per mail, with its frozen body. Its id is the idempotency key: exactly these bytes are sent, however often it takes.';
comment on column notifications.id is 'Also the idempotency key at Resend.';
comment on column notifications.kind is 'pre or post, see \dT+ notification_kind.';
comment on column notifications.email is 'The recipient. erased@erased.invalid: the person was erased.';
comment on column notifications.status is 'See \dT+ notification_status.';
comment on column notifications.body is 'The JSON that Resend gets; null: the mail is being written, page by page.';
comment on column notifications.attempts is 'Claims for sending.';
comment on column notifications.attempt_after is 'Not sent before: lease and backoff.';
comment on column notifications.claim_id is 'Fencing token of the latest claim, while it is held; null: nobody holds it.';
comment on column notifications.claimed_by is 'The worker of the latest claim (workers.id); null: never claimed.';
comment on column notifications.uncertain_since is 'First attempt of which Thaw does not know whether Resend took it; null: none. 23 hours later it is given up as unknown.';
comment on column notifications.sent_at is 'When Resend accepted it; null: not (yet).';
comment on column notifications.resend_id is 'Resend''s id of the mail; null: not accepted.';
comment on column notifications.failure_code is 'Name of the latest error; null: none.';
comment on column notifications.failure_message is 'The latest error as a sentence; null: none.';
comment on column notifications.superseded_by is 'The mail that an operator sent in its place; null: none.';
comment on column notifications.created_at is 'When it was written.';
comment on column notifications.has_marks_left is 'True: sent, and more of its readers are still to be marked as told than one transaction may lock.';
comment on column notifications.notice_id is 'The notice that it is about (notices.id); null: it is about restores.';

comment on table announcements is 'Each person is told each thing once per restore, whatever keys they used: its primary key says so.';
comment on column announcements.restore_id is 'Of which restore.';
comment on column announcements.kind is 'pre or post, see \dT+ notification_kind.';
comment on column announcements.person is 'The address in lower case; erased-...: the person was erased.';
comment on column announcements.notification_id is 'The mail that tells it.';

comment on table mail_gate is 'One row: rate limiter and circuit breaker of all mail. While it is closed no worker sends. See mail_gate_status.';
comment on column mail_gate.only_row is 'Always true.';
comment on column mail_gate.closed_until is 'No mail before this time; in the past: open. infinity: until somebody opens it (open_mail_gate).';
comment on column mail_gate.closed_since is 'Since when no mail goes out, kept while refusals close the gate anew and no mail gets out between. Null: it is open.';
comment on column mail_gate.reason is 'Why it was closed last.';
comment on column mail_gate.calls_per_second is 'Resend''s rate limit, as its answers tell it.';
comment on column mail_gate.next_call_at is 'The next free send slot; a moment ahead at most.';
comment on column mail_gate.sender is 'Whose mails it keeps back, when Resend refused their sender (MAIL_FROM); null: everybody''s.';

-- -------------------------------------------------------------------------------------------- people, maps

comment on table aws_key_user_map is 'Whose an access key is. Written by npm run users (import_users, remove_user).';
comment on column aws_key_user_map.access_key_id is 'The access key id (AKIA...).';
comment on column aws_key_user_map.email is 'Whom its reads concern.';
comment on column aws_key_user_map.created_at is 'When it was entered: unknown readers are looked up again after that.';
comment on table aws_principal_user_map is 'Who is behind a role or a session, whose keys change all the time. Written by npm run users (import_users, remove_user).';
comment on column aws_principal_user_map.principal is 'An ARN, or a prefix of ARNs that ends in * (the longest that fits counts); or IAM''s id of a user (AIDA...), of a session (AROA...:name), or of a role for all its sessions (AROA...:*).';
comment on column aws_principal_user_map.email is 'Whom its reads concern.';
comment on column aws_principal_user_map.created_at is 'When it was entered: unknown readers are looked up again after that.';
comment on table second_look is 'One row: the walk over readers whom nobody knew, for the maps may know them by now. Written by resolve_users.';
comment on column second_look.only_row is 'Always true.';
comment on column second_look.started_at is 'When the latest walk began.';
comment on column second_look.after is 'The last request that it looked at; null: the walk is over.';
comment on table identity_store_users is 'What IAM Identity Center''s identity store said of readers whom no map knows, one row per person asked about. Written by resolve_users where IDENTITY_STORE_ID is set; deleting rows only causes new calls.';
comment on column identity_store_users.subject is 'Who: user/ and the user id, or name/ and the user name (the name of a session).';
comment on column identity_store_users.store is 'The identity store (IDENTITY_STORE_ID).';
comment on column identity_store_users.is_wanted is 'Whether the store is to be asked.';
comment on column identity_store_users.ask_after is 'Not asked before: the lease of a claim, a day after an answer, at most 5 minutes after a failure.';
comment on column identity_store_users.claim_id is 'Of the worker that asks just now: only it may say what the store answered. Null: none.';
comment on column identity_store_users.answer is 'The latest answer. found: an address; not_found: no such person; disabled: the person may not sign in; no_address: none, or none that can be used. Null: none yet.';
comment on column identity_store_users.email is 'The address, primary first. Used for a day, and for a week while the store does not answer. Null: none.';
comment on column identity_store_users.answered_at is 'When the store answered last; null: never.';
comment on column identity_store_users.failing_since is 'Since when it fails to answer about this person; null: it does not.';
comment on table identity_store_gate is 'One row: while it is shut the identity store is not asked. Written by resolve_users.';
comment on column identity_store_gate.only_row is 'Always true.';
comment on column identity_store_gate.closed_until is 'Not asked before.';
comment on column identity_store_gate.failures is 'How often it has failed in a row.';
comment on column identity_store_gate.failure_code is 'The code of the latest failure; empty: none since it answered.';
comment on column identity_store_gate.failure_message is 'What it said then, or what failed.';

-- ------------------------------------------------------------------------------------------ what it may cost

comment on table policies is 'What happens to reads. Of a read the longest bucket and prefix counts, then the most specific principal; without one it is restored by the worker''s settings. Written by npm run thaw -- policy (set_policy, import_policies, remove_policy).';
comment on column policies.s3_bucket is 'The bucket; *: every one.';
comment on column policies.key_prefix is 'What the key begins with; empty: every key.';
comment on column policies.principal is 'Who reads: an ARN, a prefix of ARNs that ends in *, an access key, a principal id (AROA...:* for a role''s sessions), or an address in lower case; *: anybody.';
comment on column policies.action is 'See \dT+ policy_action.';
comment on column policies.tier is 'The retrieval tier; Expedited is Standard where a class has none. Null: the worker''s RESTORE_TIER.';
comment on column policies.days is 'For how many days the copy stays; null: the worker''s RESTORE_DAYS.';
comment on column policies.note is 'Why it is there, for people; empty: nothing was said.';
comment on column policies.created_at is 'When it was made.';

comment on table limits is 'How much may be restored in a day or a month (UTC) before somebody has to approve. All that apply must have room; 0: everything waits for approval. Written by npm run thaw -- limit (set_limit, remove_limit).';
comment on column limits.id is 'Stays when the limit is changed.';
comment on column limits.scope is 'Whose restores it counts, see \dT+ limit_scope.';
comment on column limits.s3_bucket is 'The bucket of a limit under a prefix; *: every one.';
comment on column limits.key_prefix is 'The prefix of a limit under a prefix; empty: every key.';
comment on column limits.per is 'day or month, by UTC.';
comment on column limits.max_cost is 'Dollars by our estimate; null: not limited.';
comment on column limits.max_bytes is 'Bytes; null: not limited.';
comment on column limits.max_objects is 'Objects; null: not limited.';
comment on column limits.created_at is 'When it was made: it counts what was admitted since.';

comment on table spending is 'How much of a limit is used in a period: always the sum of the restores that it counts (restores.charged).';
comment on column spending.limit_id is 'The limit (limits.id).';
comment on column spending.subject is 'Of a limit for each person: who (restores.payer); else empty.';
comment on column spending.period is 'The first day of the day or month, by UTC.';
comment on column spending.objects is 'Objects counted.';
comment on column spending.bytes is 'Their bytes.';
comment on column spending.cost is 'Their estimated cost in dollars.';
comment on column spending.warned_at is 'When four fifths of it were used, of which APPROVERS hear once; null: not yet.';

comment on table holds is 'Restores that somebody has to approve: one open hold for each person, which grows while it is open. Decided by approve_hold and refuse_hold.';
comment on column holds.id is 'What approve_hold and refuse_hold take.';
comment on column holds.person is 'Whose restores they are (restores.payer).';
comment on column holds.status is 'See \dT+ hold_status.';
comment on column holds.reason is 'Why the first of them was held.';
comment on column holds.objects is 'How many restores it holds, or held.';
comment on column holds.bytes is 'Their bytes.';
comment on column holds.estimated_cost is 'What they would cost in dollars: an estimate.';
comment on column holds.opened_at is 'When the first was held; 72 hours later it expires.';
comment on column holds.last_added_at is 'When the latest was added.';
comment on column holds.decided_at is 'When it was decided, or expired; null: it is open.';
comment on column holds.decided_by is 'Who decided; nobody: it expired. Null: it is open.';
comment on column holds.settled_at is 'When the last of its restores was due or had failed; null: not yet.';

comment on table notices is 'A mail about a hold or a limit that is due to somebody, once.';
comment on column notices.id is 'The notice.';
comment on column notices.kind is 'held, approval or warning, see \dT+ notification_kind.';
comment on column notices.hold_id is 'The hold that it is about; null: it is about a limit.';
comment on column notices.limit_id is 'The limit that it is about (limits.id); null: it is about a hold.';
comment on column notices.subject is 'As in spending; null: it is about a hold.';
comment on column notices.period is 'As in spending; null: it is about a hold.';
comment on column notices.email is 'Who is told; null: each of APPROVERS.';
comment on column notices.created_at is 'When it became due.';
comment on column notices.sealed_at is 'When its mails were written; null: not yet.';

comment on table prices is 'What S3 takes for restores, by region, class and tier, in dollars without tax. Restores of a region without prices are estimated by those of us-east-1. Written by npm run thaw -- prices import (import_prices).';
comment on column prices.region is 'The AWS region.';
comment on column prices.storage_class is 'GLACIER or DEEP_ARCHIVE; of Intelligent-Tiering ARCHIVE_ACCESS or DEEP_ARCHIVE_ACCESS.';
comment on column prices.tier is 'The retrieval tier.';
comment on column prices.per_1000_requests is 'Dollars for 1,000 restored objects.';
comment on column prices.per_gb is 'Dollars for a GB (2^30 bytes) that is retrieved.';
comment on column prices.copy_per_gb_month is 'Dollars for a GB of temporary copies in 30 days; 0: the class makes none.';
comment on column prices.valid_from is 'From which day on it counts (UTC); of several the latest counts.';
comment on column prices.source is 'Where it was looked up.';

comment on table costs is 'What restores cost by our estimate: a ledger, to which each accepted or observed page adds, and which is added up to one row per day and kind. It outlives the restores.';
comment on column costs.id is 'Grows with time.';
comment on column costs.day is 'When S3 accepted them, or they were observed (UTC).';
comment on column costs.person is 'For whose account (restores.payer).';
comment on column costs.s3_bucket is 'The bucket.';
comment on column costs.folder is 'The key up to its first slash; empty: it has none.';
comment on column costs.storage_class is 'The class; of Intelligent-Tiering its archive tier.';
comment on column costs.tier is 'The retrieval tier.';
comment on column costs.observed is 'True: nothing was restored, it would have cost this.';
comment on column costs.objects is 'How many objects.';
comment on column costs.bytes is 'Their bytes.';
comment on column costs.cost is 'Their estimated cost in dollars.';

-- --------------------------------------------------------------------- workers, history, what is counted

comment on table workers is 'One row per worker that lives, or died and has not been cleaned up yet. Which of them live: worker_status.';
comment on column workers.id is 'graphile-worker''s name of it, as in graphile_worker.jobs.locked_by.';
comment on column workers.started_at is 'When it started.';
comment on table restore_history is 'Each step of each restore, written by a trigger, so that an update by hand is in it, too. Goes with its restore.';
comment on column restore_history.id is 'Grows with time.';
comment on column restore_history.restore_id is 'The restore.';
comment on column restore_history.at is 'When: the time of the transaction.';
comment on column restore_history.from_status is 'The status before; null: it was opened.';
comment on column restore_history.to_status is 'The status after, or closed. The same as before: S3 began to fail, code says how.';
comment on column restore_history.code is 'failure_code at that time; empty: no error.';
comment on column restore_history.by is 'Who did it: the name that a page or command gave, which proves nothing (see actions.role), else the database role (a worker''s, mostly).';
comment on table actions is 'What somebody did about restores, mails and people, by page, command or SQL function. Kept for RETENTION_DAYS.';
comment on column actions.id is 'Grows with time.';
comment on column actions.at is 'When.';
comment on column actions.actor is 'Who, as the page or command named them (thaw.actor); else the database role.';
comment on column actions.role is 'The database role of the connection: what the actor cannot choose.';
comment on column actions.action is 'What was done: retry, give up, send again, resolve, open the mail gate ...';
comment on column actions.target is 'To what: an id, an entry of the maps, or the hash of an address.';
comment on column actions.restore_id is 'The restore that it concerned; null: not a single one.';
comment on column actions.before is 'What it was before, as far as it changed.';
comment on column actions.after is 'What it was made.';
comment on table totals is 'Counted for good, whatever retention deletes: a ledger to which transitions add rows, so that counting makes nobody wait. The sweep adds it up to one row per hour, metric and labels. Read hourly_totals.';
comment on column totals.id is 'Of no meaning.';
comment on column totals.hour is 'Hour (UTC) in which it was counted; -infinity: over 90 days ago.';
comment on column totals.metric is 'What was counted: reads, reads_opened, events, accepted, restores, restored_bytes, completions_lost, ended_early, mails, read_to_readable_seconds, ready_to_mail_seconds; ..._sum: the sum of those seconds.';
comment on column totals.labels is 'Parts of the metric, such as result, tier, storage_class, kind, status, s3_bucket.';
comment on column totals.le is 'Upper bound in seconds of a histogram''s bucket (counts are per bucket, not cumulative); null: a plain count or sum.';
comment on column totals.n is 'How many, or how much.';
comment on column totals.last_at is 'When it was counted last.';
comment on table task_runs is 'When each task last did its work to the end. Written by workers; read job_status.';
comment on column task_runs.task is 'The task.';
comment on column task_runs.succeeded_at is 'Last success, to ten seconds; null: none yet.';
comment on column task_runs.failed_at is 'Last failure; null: none yet.';
comment on column task_runs.error is 'What it failed of last; it stays after a success.';
comment on table thaw_migrations is 'One row per file of sql/ that was applied, and text of it. Written by npm run migrate.';
comment on column thaw_migrations.name is 'The file.';
comment on column thaw_migrations.sha256 is 'Hash of its text.';
comment on column thaw_migrations.applied_at is 'When it was applied.';

-- ------------------------------------------------------------------------------------------------- views

-- A view's column that has the name of a table's column means the same, unless it says otherwise below.
do $$
declare
  v_column record;
begin
  for v_column in
    select distinct on (c.relname, a.attname) c.relname as view, a.attname as name, col_description(t.oid, b.attnum) as text
      from (values ('request_status', '{restore_requests,restores}'::regclass[]), ('stuck_requests', '{restore_requests}'), ('told_times', '{restore_requests,restores}'),
                   ('recent_failures', '{restores}'), ('mail_status', '{notifications}'), ('mail_gate_status', '{mail_gate}'),
                   ('untold_pre', '{announcements}'), ('untold_post', '{announcements}'), ('untold_requests', '{announcements}'),
                   ('worker_status', '{workers}'), ('job_status', '{task_runs}'), ('restore_steps', '{restore_history}'),
                   ('operator_actions', '{actions}'), ('hourly_totals', '{totals}'),
                   ('policy_list', '{policies}'), ('limit_list', '{limits}'), ('limit_status', '{limits,spending}'), ('hold_list', '{holds}'),
                   ('held_restores', '{restores}'), ('price_list', '{prices}'), ('cost_by_person', '{costs,holds}'), ('cost_by_bucket', '{costs,holds}'),
                   ('cost_by_prefix', '{costs,holds}'), ('cost_by_class', '{costs,holds}'), ('cost_by_month', '{costs,holds}')) v (name, tables)
      join pg_class c on c.relname = v.name and c.relnamespace = 'public'::regnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     cross join unnest(v.tables) with ordinality t (oid, ord)
      join pg_attribute b on b.attrelid = t.oid and b.attname = a.attname and b.attnum > 0
     order by c.relname, a.attname, t.ord
  loop
    execute format('comment on column %I.%I is %L', v_column.view, v_column.name, v_column.text);
  end loop;
end
$$;

comment on view findings is 'What needs somebody: one row per kind of problem, the worst first. Empty: all is well. Start here.';
comment on column findings.rank is 'The lower, the worse.';
comment on column findings.finding is 'Name of the kind: no_worker, mail_gate_closed, stuck, task_failing, task_late, no_reads, no_events, old_transaction, holds_open, limit_used.';
comment on column findings.problem is 'What is wrong, as a sentence.';
comment on column findings.since is 'Since when; null: not known.';
comment on column findings.count is 'How many are concerned; 1,000 means that many or more.';
comment on column findings.what_to_do is 'What to do about it. A command of npm run thaw has a function in psql: retry_restore, resend_notification, resolve_notification, open_mail_gate.';

comment on view thaw_health is 'The state of Thaw in one row, for dashboards.';
comment on column thaw_health.last_read_at is 'When the last failed read came in; null: never.';
comment on column thaw_health.last_accepted_at is 'When S3 last accepted a restore; null: never.';
comment on column thaw_health.last_event_at is 'When S3''s last Completed event came in; null: never.';
comment on column thaw_health.last_mail_at is 'When Resend last accepted a mail; null: never.';
comment on column thaw_health.not_started is 'Open restores that S3 has not accepted yet, 10,000 at most; without those that wait for approval.';
comment on column thaw_health.pending is 'Open restores that S3 is working on, 10,000 at most.';
comment on column thaw_health.restored is 'Readable objects, 10,000 at most.';
comment on column thaw_health.failed is 'Restores that failed within the last day, 10,000 at most.';
comment on column thaw_health.oldest_waiting_since is 'Since when the longest waits that waits for anything but approval (oldest_waiting); null: nothing waits.';
comment on column thaw_health.mails_today is 'Mails that Resend accepted today (UTC).';
comment on column thaw_health.mail_gate_is_open is 'Whether mail goes out.';
comment on column thaw_health.workers_alive is 'Workers that hold their lock.';
comment on column thaw_health.holds_open is 'Bursts of reads that wait for approval, 10,000 at most.';
comment on column thaw_health.silent_buckets is 'Buckets whose restores end without an event of S3 (view silent_buckets).';

comment on view silent_buckets is 'Buckets of which no event comes although restores of them end: their notifications may be off, or the rule, queue or function behind them. npm run doctor says which.';
comment on column silent_buckets.s3_bucket is 'The bucket.';
comment on column silent_buckets.lost is 'How many restores the poll has found readable since then, in a day at most, of which no event had come.';
comment on column silent_buckets.since is 'Since when: the last event, or the hour of the first such restore within a day.';
comment on column silent_buckets.last_event_at is 'When the last event of the bucket came; null: none within a day.';

comment on view restore_overview is 'Open restores by status: one row for each status. Those that wait for approval are in hold_overview.';
comment on view hold_overview is 'One row: the holds that wait for approval. At most 10,000 are counted, the oldest first.';
comment on column hold_overview.open is 'How many holds.';
comment on column hold_overview.oldest_since is 'Since when the oldest waits; null: none waits.';
comment on column hold_overview.objects is 'How many objects they hold.';
comment on column hold_overview.bytes is 'Their bytes.';
comment on column hold_overview.estimated_cost is 'What they would cost in dollars: an estimate.';
comment on column restore_overview.restore_status is 'See \dT+ restore_status.';
comment on column restore_overview.open is 'How many are open, 10,000 at most.';
comment on column restore_overview.oldest_since is 'Since when the oldest of them has that status; null: there is none.';

comment on view oldest_waiting is 'What has waited longest: a row for each thing to wait for, if anything waits for it.';
comment on column oldest_waiting.waits_for is 'For what.';
comment on column oldest_waiting.id is 'Who waits: a restore, a request (mail to be written), a mail (to be sent) or a look.';
comment on column oldest_waiting.since is 'Since when.';
comment on column oldest_waiting.waiting is 'For how long.';

comment on view waiting_looks is 'Looks (aws s3 cp of one file) that S3 is still to be asked about, by HEAD. Mostly empty: an answer takes a second.';
comment on column waiting_looks.id is 'The id that POST /restore/request answered.';
comment on column waiting_looks.s3_bucket is 'The bucket.';
comment on column waiting_looks.s3_key is 'The key, as S3 has it.';
comment on column waiting_looks.version_id is 'As the look named it; empty: it named none.';
comment on column waiting_looks.reader is 'Who looked, as restore_requests.reader.';
comment on column waiting_looks.since is 'When it came in.';
comment on column waiting_looks.attempts is 'How often S3 was asked.';
comment on column waiting_looks.attempt_after is 'S3 is not asked before.';
comment on column waiting_looks.failure_code is 'S3''s name of the latest error; null: none. After 24 hours and ten tries the look is dropped.';
comment on column waiting_looks.failure_message is 'The same as a sentence; null: none.';

comment on view stuck_requests is 'What an operator should look at, request by request: why, and what to do about it. Empty: all is well.';
comment on column stuck_requests.id is 'The request (restore_requests.id).';
comment on column stuck_requests.since is 'Since when.';
comment on column stuck_requests.problem is 'What is wrong.';
comment on column stuck_requests.failure_code is 'S3''s or Resend''s name of the error; empty: none.';
comment on column stuck_requests.failure_message is 'The error as a sentence; empty: none.';
comment on column stuck_requests.what_to_do is 'What to do about it: ID is this row''s id, MAIL_ID its mail_id. In psql the functions retry_restore, resend_notification and resolve_notification do the same.';
comment on column stuck_requests.mail_id is 'The mail that is not sent (notifications.id); null: it is not about a mail.';

comment on view request_status is 'Who waits for which object, and its state: one row per restore and reader.';
comment on column request_status.waits_for_approval is 'Whether somebody has to approve the restore first (hold_list); not_started until then.';
comment on column request_status.failure_code is 'S3''s or Thaw''s name of the latest error; empty: none.';
comment on column request_status.failure_message is 'The latest error as a sentence; empty: none.';
comment on view told_times is 'From read to told: one row per restore and reader, each time null until it has come.';
comment on column told_times.requested_at is 'When the read came in.';
comment on column told_times.pre_told_at is 'When Resend accepted the mail "being restored".';
comment on column told_times.post_told_at is 'When Resend accepted the mail that tells how it ended.';
comment on view recent_failures is 'Restores that failed in the last 7 days.';
comment on column recent_failures.restore_id is 'The restore (restores.id); retry_restore takes it while closed_at is null.';
comment on column recent_failures.failed_at is 'When it failed.';

comment on view mail_status is 'The mails, without their text.';
comment on column mail_status.failure_code is 'Name of the latest error; empty: none.';
comment on column mail_status.failure_message is 'The latest error as a sentence; empty: none.';
comment on column mail_status.subject is 'Subject of the mail; null: it is still being written, or its person was erased.';
comment on column mail_status.requests is 'How many requests it tells of, counted up to 1,000. Which: those with this pre_notification_id or post_notification_id in request_status.';
comment on view mail_gate_status is 'One row: whether mail goes out, and if not, since what and until when.';
comment on column mail_gate_status.is_open is 'Whether mail goes out.';
comment on column mail_gate_status.closed_until is 'When it opens by itself; infinity: never. Null: it is open.';
comment on column mail_gate_status.closed_since is 'Since when no mail goes out, kept while refusals close the gate anew and no mail gets out between. Null: it is open.';
comment on column mail_gate_status.reason is 'Why it is closed; empty: it is open.';
comment on view untold_requests is 'What each person is still to be told, and has no mail of yet.';
comment on column untold_requests.request_id is 'The request (restore_requests.id).';
comment on column untold_requests.person is 'The address in lower case.';
comment on column untold_requests.since is 'Since when there is this to tell.';
comment on view untold_pre is 'untold_requests of kind pre: that the restore has begun.';
comment on column untold_pre.request_id is 'The request (restore_requests.id).';
comment on column untold_pre.person is 'The address in lower case.';
comment on column untold_pre.since is 'Since when there is this to tell.';
comment on view untold_post is 'untold_requests of kind post: how it ended. Held back while S3 is asked whether it is still readable.';
comment on column untold_post.request_id is 'The request (restore_requests.id).';
comment on column untold_post.person is 'The address in lower case.';
comment on column untold_post.since is 'Since when there is this to tell.';
comment on view map_entries is 'The entries of both maps, and what is wrong with old ones.';
comment on column map_entries.id is 'Access key, ARN, or prefix that ends in *.';
comment on column map_entries.email is 'Whom its reads concern.';
comment on column map_entries.problem is 'Why this entry is of no use; null: it is fine.';

comment on view worker_status is 'The workers, and whether each is alive.';
comment on column worker_status.is_alive is 'Whether it holds its lock. false: it died, and its work is given to others.';
comment on view job_status is 'One row per task: what waits, what failed for good, and when it last did its work to the end.';
comment on column job_status.failed_at is 'Last failure; null: none. Before succeeded_at: it is over.';
comment on column job_status.error is 'What it failed of last; empty: never.';
comment on column job_status.waiting is 'Jobs that may start and have not been taken.';
comment on column job_status.failed is 'Jobs that failed for good in the last day. Their work was done after a later one.';
comment on column job_status.waiting_since is 'Since when the oldest waiting job may start; null: none waits.';
comment on column job_status.runs_every is 'How often the crontab starts it.';
comment on view restore_steps is 'Each step of each restore, also those made by hand, and by whom.';
comment on view operator_actions is 'What operators did: retried, gave up, sent again, opened the gate, approved or refused, removed or erased.';
comment on view gauges is 'What /metrics serves of the state of the moment: one row per figure and label. Each count stops at 10,000.';
comment on column gauges.metric is 'The name of the metric, without the prefix thaw_. Times in it are seconds since 1970, 0: never.';
comment on column gauges.labels is 'The labels of this row, as an object.';
comment on column gauges.value is 'The figure, in seconds or as a count.';

comment on view hourly_totals is 'What was counted in each hour; it outlives retention.';
comment on column hourly_totals.n is 'How many, or how much, in that hour.';
comment on view last_times is 'When reads, events, accepted restores and sent mails were counted last; null: never.';
comment on column last_times.read_at is 'When the last failed read came in.';
comment on column last_times.accepted_at is 'When S3 last accepted a restore.';
comment on column last_times.event_at is 'When S3''s last Completed event came in.';
comment on column last_times.mail_at is 'When Resend last accepted a mail.';
comment on view read_silence is 'One row: how long no read has come, and from when on that is a finding (no_reads).';
comment on column read_silence.last_read_at is 'When the last failed read came in; null: never.';
comment on column read_silence.silent_for is 'How long ago that is; null: none ever came.';
comment on column read_silence.news_after is 'Twice the longest gap, and at least a day.';
comment on column read_silence.longest_gap is 'The longest gap between two reads in the 30 days before the last one, to the hour; null: fewer than two hours had any.';
comment on column read_silence.hours is 'How many hours of those 30 days had a read; the finding needs three.';

-- ------------------------------------------------------------------------------- views of what it may cost

comment on view policy_list is 'The policies, the most specific first: of a read, the first that fits counts.';
comment on view limit_list is 'The limits.';
comment on column limit_list.limit_text is 'The limit in words.';
comment on view limit_status is 'What is used of each limit in the period that is now: one row per limit, and of a limit for each person one row per person who has used any of it.';
comment on column limit_status.limit_id is 'The limit (limits.id).';
comment on column limit_status.limit_text is 'The limit in words.';
comment on column limit_status.person is 'Whose part it is, of a limit for each person; empty: everybody''s, or nobody has used any of it.';
comment on column limit_status.objects is 'Objects counted.';
comment on column limit_status.bytes is 'Their bytes.';
comment on column limit_status.estimated_cost is 'Their estimated cost in dollars.';
comment on column limit_status.objects_left is 'How many objects there is room for; null: not limited.';
comment on column limit_status.bytes_left is 'How many bytes there is room for; null: not limited.';
comment on column limit_status.cost_left is 'How many dollars there is room for; null: not limited.';
comment on column limit_status.used is 'Which part of it is used up, of objects, bytes and cost the greatest; 1: all. More than 1: approved beyond it.';
comment on view hold_list is 'The holds: restores that wait, or waited, for somebody''s approval.';
comment on column hold_list.expires_at is 'When its restores fail if nobody decides; null: it is decided.';
comment on view held_restores is 'The restores that wait in a hold now.';
comment on column held_restores.restore_id is 'The restore (restores.id).';
comment on view price_list is 'The prices, and which of them count now.';
comment on column price_list.is_current is 'Whether it counts today.';
comment on view cost_by_person is 'What restores cost by our estimate: one row per day and person. Ask for some days: where day >= ''2026-11-01''.';
comment on view cost_by_bucket is 'What restores cost by our estimate: one row per day and bucket.';
comment on view cost_by_prefix is 'What restores cost by our estimate: one row per day, bucket and prefix, that is the key up to its first slash.';
comment on column cost_by_prefix.key_prefix is 'The key up to its first slash; empty: it has none.';
comment on view cost_by_class is 'What restores cost by our estimate: one row per day, class and tier, as the AWS bill tells them apart.';
comment on view cost_by_month is 'What restores cost by our estimate: one row per month, of all of them.';
comment on column cost_by_month.month is 'The first day of the month (UTC).';

-- --------------------------------------------------------------------------- views of the operator's pages

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
comment on column restore_details.ask_after is 'When S3 is asked next, if no event comes; null: it is not pending, or not known.';
comment on column restore_details.attempts is 'Tries since the last progress.';
comment on column restore_details.attempt_after is 'Lease and backoff: no worker takes it before. Null: it waits for approval.';
comment on column restore_details.failing_since is 'The first of an unbroken run of errors; null: none.';
comment on column restore_details.lost_count is 'How often S3 lost an accepted restore.';
comment on column restore_details.head_wanted_at is 'An event of S3 came then, and S3 is to confirm it; null: none.';
comment on column restore_details.failure_code is 'S3''s name of the latest error, or Thaw''s; final when the status is failed.';
comment on column restore_details.failure_message is 'The same as a sentence.';

comment on column restore_details.is_held is 'Whether it waits for approval.';
comment on column restore_details.hold_id is 'The hold that keeps it, or kept it; null: none.';
comment on column restore_details.payer is 'Whose limits it counts for; null: not known yet.';
comment on column restore_details.days is 'How long its copy stays readable; null: not known yet.';
comment on column restore_details.estimated_cost is 'What it costs in dollars: an estimate. Null: not known yet, or the class has no prices.';

comment on view restore_readers is 'One row per restore and reader. Read by the operator''s pages.';
comment on column restore_readers.id is 'The request: what the server answered to the read that made it.';
comment on column restore_readers.restore_id is 'The restore that the reader waits for.';
comment on column restore_readers.s3_bucket is 'The bucket of the object.';
comment on column restore_readers.s3_key is 'The key of the object.';
comment on column restore_readers.version_id is 'The version that the read named; empty when it named none.';
comment on column restore_readers.reader is 'The access key, or without one the ARN, the principal id, the account.';
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
comment on column restore_readers.observed is 'Whether a policy says only to observe; then nobody is told.';
comment on column restore_readers.principal_id is 'IAM''s id of the reader, with its session; empty: not told.';
comment on column restore_readers.on_behalf_of is 'The person''s user id in IAM Identity Center; empty: not told.';

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
comment on column unsent_mails.notification_status is 'The same as status, as the index of mails knows it.';

comment on view times_to_readable is 'How many restores of the last 30 days took how long from the read to readable. Read by the operator''s pages.';
comment on column times_to_readable.storage_class is 'As S3 said; empty: not known.';
comment on column times_to_readable.tier is 'The retrieval tier; empty: not known.';
comment on column times_to_readable.le is 'Upper bound of the bucket, in seconds; the bucket before it ends where this one begins.';
comment on column times_to_readable.n is 'How many.';

-- ----------------------------------------------------------------------------------- operators' functions

comment on function retry_restore(uuid) is 'Retries an open restore now, in any state. Takes the id of a restore or of a request; says what it did. A failed one begins anew, and its readers are told again.';
comment on function give_up_restore(uuid) is 'Ends a restore that is not_started or pending: it fails as given_up, and its readers are told. Takes the id of a restore or of a request.';
comment on function resend_notification(uuid) is 'Sends a mail again under a new idempotency key: the person may get it twice. Returns the new mail''s id.';
comment on function resolve_notification(uuid, boolean) is 'What became of a mail of status unknown, after somebody has looked at resend.com. true: it was sent. false: it is sent again.';
comment on function open_mail_gate() is 'Mail goes out at once. If the reason is still there, the next refusal closes the gate again.';
comment on function close_mail_gate(interval, text) is 'No mail goes out for this long (null: until open_mail_gate), for this reason.';
comment on function who_reads(text, text[]) is 'Whom the maps name for an access key, an ARN or a principal id, and by which rule; no row: nobody. The second argument: domains whose session names count as addresses (SESSION_EMAIL_DOMAINS).';
comment on function stuck_problems() is 'The problems of stuck_requests.';
comment on function oldest_stuck(text, integer) is 'The oldest of stuck_requests with one problem, so many; quick however much is stuck.';
comment on function find_by_name(text, boolean, text, uuid, integer) is 'Restores by name: bucket, whether that is its whole name or how it begins, how the key begins; the last one of the page before (or null), how many. Used by the operator''s pages.';
comment on function find_by_address(text, uuid, integer) is 'A person''s reads, the newest first: the last one of the page before (or null), how many. Used by the operator''s pages.';
comment on function find_by_reader(text[], uuid, integer) is 'What these access keys, ARNs or principal ids read, the newest first: the last one of the page before (or null), how many. Used by the operator''s pages.';
comment on function readers_like(text) is 'Access keys, ARNs and principal ids that begin so, the first 100 of each. Used by the operator''s pages.';
comment on function find_ids(text) is 'What an id, or its first 8 characters or more, can mean: restores, requests and mails, with what a person knows them by. Used by npm run thaw.';
comment on function import_users(jsonb) is 'Adds and changes entries of the maps: [{"id": access key, ARN or prefix, "email": address}]. Returns how many were added and changed. Used by npm run users.';
comment on function remove_user(text) is 'Removes an entry of the maps: an access key, an ARN, or a prefix that ends in *.';
comment on function erase_person(text, integer) is 'Erases an address from maps, requests, mails and history, a page at a time (second argument: rows): call it until it returns 0. Restores and totals stay. Refused while a mail to the person is being sent.';
comment on function resolve_requests(integer, interval[], text[], text) is 'Fills in the addresses of readers, a page at a time (rows; debounce times; domains of session names). Returns 0 when nothing is left. Used by npm run users and resolve_users.';
comment on function nudge(text, interval[]) is 'Starts a task soon: adds a job for it, unless one that will do is waiting. The second argument: after which times.';
comment on function applied_sql_files() is 'The files of sql/ that were applied, for processes that may not read tables.';
comment on function approve_hold(uuid, text, bigint) is 'Approves a hold: its restores run, counted, beyond the limit. By whom (empty: the database role); how many objects you have seen: if it has grown since, nothing happens. Two people decide once.';
comment on function refuse_hold(uuid, text) is 'Refuses a hold: its restores fail, and their readers are told. By whom (empty: the database role).';
comment on function set_policy(text, text, text, text, text, integer, text) is 'What happens to reads: of a bucket (*: every one) under a prefix by a principal (ARN, prefix of ARNs with *, access key, address; *: anybody), action (restore, hold, observe, ignore), tier, days, note. Says what it did.';
comment on function remove_policy(text, text, text) is 'Removes the policy of a bucket, prefix and principal, as policy_list has them.';
comment on function import_policies(jsonb) is 'Adds and changes policies, all or none: [{"s3_bucket", "key_prefix", "principal", "action", "tier", "days", "note"}]. Used by npm run thaw -- policy import.';
comment on function set_limit(text, text, text, text, bigint, bigint, numeric) is 'How much may be restored before somebody has to approve: scope (all, person, prefix), bucket and prefix (of scope prefix), per (day, month), objects, bytes, dollars (null: not limited). Says what it did. What was spent in its period stays.';
comment on function remove_limit(text, text, text, text) is 'Removes the limit of a scope, bucket, prefix and period, as limit_list has them. What it holds waits on for approval.';
comment on function import_prices(jsonb) is 'Adds and changes prices, all or none: [{"region", "storage_class", "tier", "per_1000_requests", "per_gb", "copy_per_gb_month", "valid_from", "source"}]. Used by npm run thaw -- prices import.';
comment on function check_read(text, text, text, text[]) is 'Who a reader (access key, ARN, address) is to policies and limits, and which policy is theirs at a bucket and key. Used by npm run thaw -- policy check.';
comment on function check_limits(text, text, text, numeric, numeric) is 'The limits that count for a bucket, key and payer (null: nobody in particular), what is left of them, and whether one more object of so many bytes and dollars is beyond them.';
comment on function locked_reads(jsonb) is 'Which of these reads ([{id, s3_bucket, s3_key, access_key_id?, principal?}]) need a row that somebody keeps locked.';
comment on function preview_order(text, jsonb, text, integer) is 'What an order of a page of objects for an address would do: of each whether a restore begins (new), is under way (joined, ordered), waits for approval (held) or has failed, its policy''s action, tier and days, its cost in dollars (an estimate), and the limits that it counts for. Changes nothing.';
comment on function order_limits(text, jsonb) is 'Of the limits that an order counts for ([{limit_id, objects, bytes, cost, is_unknown}]): what is left, and whether the order goes beyond.';
comment on function open_order(text, text, jsonb) is 'Notes in actions that restores are ordered: for which address, of what, and the plan. Returns the number that order_restores takes.';
comment on function order_restores(bigint, jsonb, interval[], text[]) is 'Hands in a page of an order, as reads by mailto:<its address>; results as of request_restores. Counts in actions what was handed in.';
comment on function check_tiers(text, integer, bigint, text) is 'By which tier each class is restored when this one is wanted, and what so many days and bytes of it cost in dollars, by the prices of a region: an estimate.';
comment on function old_transactions(interval) is 'Transactions of this database that have been open for that long and hold back vacuum: whose, which process, since when. Those of others only where the owner of Thaw''s tables has pg_read_all_stats.';
