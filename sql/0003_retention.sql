-- What retention walks. Restores are kept for audit; RETENTION_DAYS says for how long.
create index restores_closed on restores (closed_at) where closed_at is not null;
