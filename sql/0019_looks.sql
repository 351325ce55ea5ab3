-- Looks: reads of which nobody knows yet whether the object is archived (POST /restore/request with evidence "looked").
create table looks (
  id uuid primary key,
  s3_bucket text not null,
  s3_key text not null,
  version_id text not null,
  reader text not null,
  read jsonb not null,
  created_at timestamptz not null default now(),
  attempts integer not null default 0,
  attempt_after timestamptz not null default now(),
  claim_id uuid,
  claimed_by text,
  failure_code text,
  failure_message text
-- Rows come and go within a second. (Without truncation: it would lock the table, and reads wait with looks.)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 2000,
        vacuum_truncate = off);

create index looks_due on looks (attempt_after);
-- The reader as a hash: with a key, a version and an ARN of full length an entry would be longer than an index allows.
create index looks_of_object on looks (s3_bucket, s3_key, version_id, hashtextextended(reader, 0));
create index looks_oldest on looks (created_at);
