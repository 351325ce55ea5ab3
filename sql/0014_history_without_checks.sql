-- Only the triggers of history.sql write this table, for rows that they have before them. Checking each row again cost as much as
-- writing it, at each read and each step. A trigger (restores_deleted) deletes the history of deleted restores instead.
alter table restore_history drop constraint restore_history_restore_id_fkey;
