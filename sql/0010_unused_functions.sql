-- Functions that no process of this release or of the release before calls. The pages that follow define what is still in use, in
-- the same transaction. What only has a new name (is_hopeless, give_back, map_entry, look_again_soon, resend_remembers) stays for a
-- release: a call that waits for this migration goes on with the old body, which calls it.

drop function if exists seal_notification(uuid, notification_kind, text, interval, interval);

-- Workers call settle_restores. Dropped and created anew, its parts lose the rights that workers had on each.
drop function if exists lock_restores(uuid[]);
drop function if exists mark_restores_pending(jsonb, interval[]);
drop function if exists mark_restores_restored(jsonb, interval[]);
drop function if exists mark_restores_failed(jsonb, interval[]);
drop function if exists mark_restores_lost(jsonb, interval[]);
drop function if exists mark_restores_expired(jsonb, interval[]);
drop function if exists note_restores_checked(jsonb, interval[]);
drop function if exists note_restore_troubles(jsonb, interval[]);
