/** What a mail is made from, as read from the database. */
import type { NewsKind } from "../postgres/rows.ts";
import type { Fetchable } from "../wording/fetch_command.ts";
import type { Restoring } from "../wording/times.ts";

/** How many files a mail lists at most; the others are counted. */
export const FILES_SHOWN = 50;

/** One file of a mail. */
export interface MailFile extends Fetchable, Restoring {
  restore_status: "pending" | "restored" | "failed";
  /** This, archive_status and tier are null where another client started the restore. */
  storage_class: string | null;
  archive_status: string | null;
  tier: string | null;
  size_bytes: number | null;
  restored_at: Date | null;
  /** Null: stays readable (Intelligent-Tiering, classes that are no archive). */
  restore_expires_at: Date | null;
  failure_code: string | null;
  failure_message: string | null;
}

/** Everything that a mail says. The counts are of all files, listed or not. */
export interface MailContents {
  /** "pre": the restore has started; "post": its outcome. */
  kind: NewsKind;
  /** One entry per object, at most FILES_SHOWN; those with the earliest expiry first. */
  files: MailFile[];
  file_count: number;
  /** Ready and still readable. */
  restored_count: number;
  failed_count: number;
  /** Restored, but the copy was gone before this mail could be written. */
  expired_count: number;
  /** This person's files that are still being restored and get a later mail. */
  waiting_count: number;
  /** Those of them that somebody has to approve first. */
  held_count: number;
  /** Whom to ask about them. */
  approvers: string[];
  /** Access key ids or principal ARNs whose reads failed. */
  readers: string[];
  first_read_at: Date;
  now: Date;
}

/** A file that waits for approval. */
export type HeldFile = Pick<MailFile, "s3_bucket" | "s3_key" | "version_id" | "size_bytes">;

/** What a hold keeps back, and why. */
export interface Hold {
  id: string;
  /** Who pays for its restores: an address, a role, an access key, an account. */
  person: string;
  /** "beyond the limit of 20 objects per day for each person", "its policy says hold". */
  reason: string;
  opened_at: Date;
  /** When it expires, if nobody decides. */
  expires_at: Date;
}

/** To a reader: your files wait for approval. Counts are of this reader's files; sums come as Postgres writes them. */
export interface HeldContents {
  kind: "held";
  hold: Hold;
  files: HeldFile[];
  file_count: number;
  bytes: string;
  /** Null: no prices are known for any of them. */
  estimated_cost: string | null;
  approvers: string[];
  readers: string[];
  first_read_at: Date;
  now: Date;
}

/** To each of APPROVERS: somebody has to decide. Counts are of the whole hold. */
export interface ApprovalContents {
  kind: "approval";
  hold: Hold;
  files: HeldFile[];
  file_count: number;
  bytes: string;
  estimated_cost: string | null;
  /** The hold's page; null: PUBLIC_URL is not set. */
  page: string | null;
  now: Date;
}

/** To each of APPROVERS: a limit is nearly used up. */
export interface WarningContents {
  kind: "warning";
  /** "20 objects per day for each person". */
  limit: string;
  per: "day" | "month";
  /** Whose limit it is, where each person has their own; else ''. */
  person: string;
  used: { objects: number; bytes: string; cost: string };
  most: { objects: number | null; bytes: string | null; cost: string | null };
  /** When the next period begins. */
  resets_at: Date;
  page: string | null;
  now: Date;
}

export type NoticeContents = HeldContents | ApprovalContents | WarningContents;
