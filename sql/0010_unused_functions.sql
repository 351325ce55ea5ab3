-- Functions that no process of this release or of the release before calls, and functions that have a new name. The pages
-- that follow define what is still in use, in the same transaction.

drop function if exists seal_notification(uuid, notification_kind, text, interval, interval);

-- Renamed.
drop function if exists is_hopeless(restores);
drop function if exists give_back(text[]);
drop function if exists map_entry(text);
drop function if exists look_again_soon();
drop function if exists resend_remembers();

-- Workers call settle_restores. Dropped and created anew, its parts lose the rights that workers had on each.
drop function if exists lock_restores(uuid[]);
drop function if exists mark_restores_pending(jsonb, interval[]);
drop function if exists mark_restores_restored(jsonb, interval[]);
drop function if exists mark_restores_failed(jsonb, interval[]);
drop function if exists mark_restores_lost(jsonb, interval[]);
drop function if exists mark_restores_expired(jsonb, interval[]);
drop function if exists note_restores_checked(jsonb, interval[]);
drop function if exists note_restore_troubles(jsonb, interval[]);
