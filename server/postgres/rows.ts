import { Kysely, PostgresDialect, sql, type Generated } from "kysely";
import type { Pool } from "pg";

export type RestoreStatus = "not_started" | "pending" | "restored" | "failed";
/** What becomes of a person's files: `pre`, the restore has begun; `post`, how it ended. */
export type NewsKind = "pre" | "post";
/** About a hold or a limit: to the readers who wait, and to APPROVERS. */
export type NoticeKind = "held" | "approval" | "warning";
export type NotificationKind = NewsKind | NoticeKind;

/** The columns that tasks need of a claimed row of `restores`. */
export interface RestoreRow {
  id: string;
  /** Fencing token: only the current claim may report on the row. */
  claim_id: string;
  status: RestoreStatus;
  s3_bucket: string;
  s3_key: string;
  /** '': the event named none, the current version. */
  version_id: string;
  region: string | null;
  etag: string | null;
  pinned_version_id: string | null;
  /** When its cost was reserved (sql/cost.sql); null: not, or nothing limits it. */
  admitted_at: Date | null;
  /** The tier it was reserved for, or that S3 accepted. */
  tier: string | null;
}

/** Its columns in what the claim functions return. Reading all columns would cost as much as writing the outcome. */
export const RESTORE_ROW = sql`id, claim_id, status, s3_bucket, s3_key, version_id, region, etag, pinned_version_id, admitted_at, tier`;

interface RestoreRequestRow {
  id: string;
  restore_id: string;
  access_key_id: string;
  principal: string;
  email: string | null;
  restore_status: RestoreStatus;
  requested_at: Date;
  pre_notification_id: string | null;
  post_notification_id: string | null;
}

interface NotificationRow {
  id: string;
  kind: NotificationKind;
  email: string;
  status: Generated<"sealed" | "sent" | "failed" | "unknown">;
  body: string | null;
  notice_id: string | null;
}

/** The columns that TypeScript names; sql/ defines the tables. */
export interface Tables {
  restores: RestoreRow;
  restore_requests: RestoreRequestRow;
  notifications: NotificationRow;
}

export type Database = Kysely<Tables>;

export function createDatabase(pool: Pool): Database {
  return new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
}
