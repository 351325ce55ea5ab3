-- How long S3 takes for a restore, and when Thaw asks about it by itself. The poll, mails and pages all have it from here.

-- What S3 usually takes for an object, in hours from when it accepted the restore (Amazon S3 User Guide, "Understanding archive
-- retrieval options"). from_hours is 0 where S3 names an upper bound only. Where the tier is not known (another client started the
-- restore) it is the bound of the slowest; of a class that nobody has published anything about, and above 5 TB, that of all.
-- Expedited's minutes are for objects below 250 MB; larger ones come at up to 300 MB/s.
create or replace function usual_hours(p_storage_class text, p_archive_status text, p_tier text, p_size_bytes bigint,
                                       out from_hours double precision, out to_hours double precision)
language sql immutable as $$
  select coalesce(u.from_hours, 0),
         coalesce(u.to_hours, 48) + case when u.tier = 'Expedited' and p_size_bytes > 250e6 then p_size_bytes / 300e6 / 3600 else 0 end
    from (select case when p_size_bytes > 5e12 then null
                      when p_storage_class = 'INTELLIGENT_TIERING' then p_archive_status
                      when p_storage_class = 'GLACIER' then 'ARCHIVE_ACCESS'
                      when p_storage_class = 'DEEP_ARCHIVE' then 'DEEP_ARCHIVE_ACCESS' end as archive,
                 case when p_tier in ('Expedited', 'Standard', 'Bulk') then p_tier else 'unknown' end as tier) o
    left join (values ('ARCHIVE_ACCESS', 'Expedited', 1 / 60.0, 5 / 60.0), ('ARCHIVE_ACCESS', 'Standard', 3, 5), ('ARCHIVE_ACCESS', 'Bulk', 5, 12),
                      ('ARCHIVE_ACCESS', 'unknown', 0, 12), ('DEEP_ARCHIVE_ACCESS', 'Standard', 0, 12)) u (archive, tier, from_hours, to_hours)
      on u.archive = o.archive and u.tier = o.tier
$$;

-- When S3 should be done with it.
create or replace function expected_end(r restores) returns timestamptz language sql immutable as $$
  select r.accepted_at + h.to_hours * interval '1 hour' from usual_hours(r.storage_class, r.archive_status, r.tier, r.size_bytes) h
$$;

-- When S3 is asked next about a pending restore, if no event says earlier that it is done: when its expected time ends, and then
-- when it is twice as late as now, after 15 minutes to 6 hours. A restore that S3 has forgotten costs 9 calls on its first day, and 4
-- on each day after that; one that S3 is done with in time, and whose event gets lost, costs one.
create or replace function next_ask(r restores) returns timestamptz language sql stable as $$
  select case when e.at > now() then e.at
              else now() + least(interval '6 hours', greatest(interval '15 minutes', now() - e.at)) end
    from (select expected_end(r)) e (at)
$$;
