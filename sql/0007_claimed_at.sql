-- When S3 was last asked: what it said is no answer to an event that came after that.
alter table restores add column claimed_at timestamptz;
