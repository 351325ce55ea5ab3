/**
 * What S3's archive classes allow and how long they take.
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

const isDeep = (of: ArchiveClass): boolean =>
  of.storage_class === "DEEP_ARCHIVE" || of.archive_status === "DEEP_ARCHIVE_ACCESS";

/** Whether a read needs a restore first (a temporary copy may still make it readable). */
export function isArchived(of: ArchiveClass): boolean {
  return (
    of.storage_class === "GLACIER" ||
    of.storage_class === "DEEP_ARCHIVE" ||
    (of.storage_class === "INTELLIGENT_TIERING" && of.archive_status !== null)
  );
}

/**
 * Whether the restore request carries `Days`. GLACIER and DEEP_ARCHIVE require it (else MalformedXML);
 * Intelligent-Tiering forbids it (else InvalidArgument): its objects move back for good.
 */
export function takesDays(of: ArchiveClass): boolean {
  return of.storage_class !== "INTELLIGENT_TIERING";
}

/** The wanted tier, or Standard where the class does not know Expedited. */
export function tierFor(of: ArchiveClass, wanted: Tier): Tier {
  return wanted === "Expedited" && isDeep(of) ? "Standard" : wanted;
}

/**
 * How long S3 typically takes, in hours counted from acceptance. `from` is 0 where S3 names only an
 * upper bound. A tier of null (somebody else asked S3) gives the slowest tier's bound.
 */
export function retrievalHours(of: ArchiveClass, tier: Tier | null): { from: number; to: number } {
  if (isDeep(of)) return tier === "Standard" ? { from: 0, to: 12 } : { from: 0, to: 48 };
  switch (tier) {
    case "Expedited":
      return { from: 1 / 60, to: 5 / 60 };
    case "Standard":
      return { from: 3, to: 5 };
    case "Bulk":
      return { from: 5, to: 12 };
    case null:
      return { from: 0, to: 12 };
  }
}
