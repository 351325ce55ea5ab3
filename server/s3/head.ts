import type { HeadObjectCommandOutput, S3Client } from "@aws-sdk/client-s3";

import { isArchived, takesDays } from "./storage_class.ts";

/** What HEAD says of an object that exists, named like the columns of `restores`. */
export interface ObjectFacts {
  storage_class: string;
  archive_status: string | null;
  size_bytes: number | null;
  etag: string | null;
  /** The version HEAD answered for; '' in a bucket without versions. */
  pinned_version_id: string;
}

/**
 * An object's state as S3 reports it now. "archived" is both "never restored" and "its copy has expired": S3 does not
 * distinguish them.
 */
export type ObjectState =
  | ({ state: "archived" } & ObjectFacts)
  | ({ state: "restoring" } & ObjectFacts)
  | ({ state: "readable"; restore_expires_at: Date | null } & ObjectFacts)
  | { state: "gone" };

/** By the clock skew that the SDK measures from S3's responses. */
export const timeAtS3 = (client: S3Client): Date => new Date(Date.now() + client.config.systemClockOffset);

/**
 * The decision table of HEAD. "readable" needs evidence: missing, new or unparsable values never lead there. A copy past its
 * expiry counts as gone: S3 removes it a little later.
 */
export function readHead(head: HeadObjectCommandOutput, now: Date): ObjectState {
  const facts: ObjectFacts = {
    storage_class: head.StorageClass ?? "STANDARD",
    archive_status: head.ArchiveStatus ?? null,
    size_bytes: head.ContentLength ?? null,
    etag: head.ETag ?? null,
    pinned_version_id: head.VersionId ?? "",
  };
  const restore = parseRestoreHeader(head.Restore);
  if (restore.ongoing === true) return { state: "restoring", ...facts };
  if (!isArchived(facts)) return { state: "readable", restore_expires_at: null, ...facts };
  const expires = restore.expires_at;
  if (restore.ongoing === false && expires !== null && expires > now && takesDays(facts)) {
    return { state: "readable", restore_expires_at: expires, ...facts };
  }
  return { state: "archived", ...facts };
}

/** `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`; the date has a comma itself. */
function parseRestoreHeader(header: string | undefined): {
  ongoing: boolean | null;
  expires_at: Date | null;
} {
  const ongoing = /ongoing-request="(true|false)"/.exec(header ?? "")?.[1];
  const expires = new Date(/expiry-date="([^"]+)"/.exec(header ?? "")?.[1] ?? Number.NaN);
  return {
    ongoing: ongoing === undefined ? null : ongoing === "true",
    expires_at: Number.isNaN(expires.getTime()) ? null : expires,
  };
}
