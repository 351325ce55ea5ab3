/**
 * What S3's archive classes allow. (How long they take: sql/times.sql.)
 *
 * Source: Amazon S3 User Guide, "Restoring an archived object" and "Understanding archive retrieval
 * options". GLACIER_IR is readable at once and never restored, in spite of its name.
 */

export const TIERS = ["Expedited", "Standard", "Bulk"] as const;
export type Tier = (typeof TIERS)[number];

/** What HeadObject says of an object's class; `ArchiveStatus` comes with Intelligent-Tiering only. */
export interface ArchiveClass {
  /** `x-amz-storage-class`; S3 leaves the header out for STANDARD. */
  storage_class: string;
  /** `x-amz-archive-status`: ARCHIVE_ACCESS, DEEP_ARCHIVE_ACCESS, or null outside an archive tier. */
  archive_status: string | null;
}

/**
 * Classes whose objects are read without a restore: the storage classes that the S3 API knows, less those below.
 * AWS_BACKUP_WARM and AWS_BACKUP_LOW_COST_WARM are left out: it is not published how they are read.
 */
const READ_AT_ONCE = new Set([
  "STANDARD",
  "REDUCED_REDUNDANCY",
  "STANDARD_IA",
  "ONEZONE_IA",
  "INTELLIGENT_TIERING", // Outside its archive tiers: see archive_status.
  "GLACIER_IR",
  "EXPRESS_ONEZONE",
  "OUTPOSTS",
  "SNOW",
  "FSX_OPENZFS",
  "FSX_ONTAP",
]);

/** isFlexible, isDeep: the archives whose rules are published. */
const isFlexible = (of: ArchiveClass): boolean =>
  of.storage_class === "INTELLIGENT_TIERING"
    ? of.archive_status === "ARCHIVE_ACCESS"
    : of.storage_class === "GLACIER";

const isDeep = (of: ArchiveClass): boolean =>
  of.storage_class === "INTELLIGENT_TIERING"
    ? of.archive_status === "DEEP_ARCHIVE_ACCESS"
    : of.storage_class === "DEEP_ARCHIVE";

/**
 * Whether a read needs a restore first (a temporary copy may still make it readable). An unknown class or archive status
 * (`location-dmf-v1`, `CLOUDTIER`) counts as archived, and RestoreObject decides. Otherwise people would be told "ready" of
 * files that are on tape.
 */
export function isArchived(of: ArchiveClass): boolean {
  return !READ_AT_ONCE.has(of.storage_class) || of.archive_status !== null;
}

/** Counts as archived, by unknown rules. */
export function isUnknownArchive(of: ArchiveClass): boolean {
  return isArchived(of) && !isFlexible(of) && !isDeep(of);
}

/**
 * Whether the restore request carries `Days`. GLACIER and DEEP_ARCHIVE require it (else MalformedXML), and so do the
 * archives of S3-compatible stores; Intelligent-Tiering forbids it (else InvalidArgument): its objects move back
 * for good.
 */
export function takesDays(of: ArchiveClass): boolean {
  return of.storage_class !== "INTELLIGENT_TIERING";
}

/** Whether the class is known to have Expedited. Elsewhere Standard takes its place (tier_for in sql/cost.sql). */
export const hasExpedited = isFlexible;
