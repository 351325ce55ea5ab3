/** What a mail is made from, as read from the database. */
import type { Fetchable } from "../wording/fetch_command.ts";
import type { Restoring } from "../wording/times.ts";

/** How many files a mail lists at most; the others are counted. */
export const FILES_SHOWN = 50;

/** One file of a mail. */
export interface MailFile extends Fetchable, Restoring {
  restore_status: "pending" | "restored" | "failed";
  restored_at: Date | null;
  /** Null: stays readable (Intelligent-Tiering, classes that are no archive). */
  restore_expires_at: Date | null;
  failure_code: string | null;
  failure_message: string | null;
}

/** Everything that a mail says. The counts are of all files, listed or not. */
export interface MailContents {
  /** "pre": the restore has started; "post": its outcome. */
  kind: "pre" | "post";
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
  /** Access key ids or principal ARNs whose reads failed. */
  readers: string[];
  first_read_at: Date;
  now: Date;
}
