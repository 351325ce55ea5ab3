/** Every kind of mail, as `thaw mails preview` and the pictures of README.md show it. */
import type { HeldContents, Hold, MailContents, MailFile, NoticeContents } from "../mail/input.ts";

const file = (s3_key: string, size_bytes: number, changes: Partial<MailFile> = {}): MailFile => ({
  s3_bucket: "acme-archive",
  s3_key,
  version_id: "",
  restore_status: "pending",
  storage_class: "GLACIER",
  archive_status: null,
  tier: "Standard",
  size_bytes,
  accepted_at: new Date("2026-11-24T15:40:00Z"),
  from_hours: 3,
  to_hours: 5,
  restored_at: null,
  restore_expires_at: null,
  failure_code: null,
  failure_message: null,
  ...changes,
});

const READY: Partial<MailFile> = {
  restore_status: "restored",
  restored_at: new Date("2026-11-24T19:51:00Z"),
  restore_expires_at: new Date("2026-12-02T00:00:00Z"),
};

const EXPIRED: Partial<MailFile> = { ...READY, restore_expires_at: new Date("2026-11-24T00:00:00Z") };

const FAILED: Partial<MailFile> = {
  restore_status: "failed",
  failure_code: "object_not_found",
  failure_message: "The file is no longer there.",
};

const REPORT = ["surveys/2019/north.pdf", 12_400_000] as const;
const PHOTOS = ["surveys/2019/aerial photos.zip", 3_820_000_000] as const;
const SOUND = ["interviews/2007/tape 12.wav", 640_000_000] as const;

/** A name may hold anything. */
const HOSTILE_KEY = "reports/<b>bold</b> & 'quoted'\u202Efdp.exe\n$(id).txt";

const APPROVERS = ["ann@example.com", "li@example.com"];

const NOT_APPROVED: Partial<MailFile> = {
  restore_status: "failed",
  failure_code: "not_approved",
  failure_message: "The restore was not approved.",
};

const HOLD: Hold = {
  id: "0d1b9c1e-9a52-4c8f-a6a4-0b7a52f5c1aa",
  person: "jane@example.com",
  reason: "beyond the limit of 20 objects per day for each person",
  opened_at: new Date("2026-11-24T15:38:00Z"),
  expires_at: new Date("2026-11-27T15:38:00Z"),
};

const HELD: HeldContents = {
  kind: "held",
  hold: HOLD,
  files: [file(...REPORT), file(...PHOTOS), file(...SOUND)],
  file_count: 12,
  bytes: "1200000000000",
  estimated_cost: "24.1",
  approvers: APPROVERS,
  readers: ["AKIAIOSFODNN7EXAMPLE"],
  first_read_at: new Date("2026-11-24T15:38:00Z"),
  now: new Date("2026-11-24T15:42:00Z"),
};

/** The counts are those of the files, unless told otherwise. */
function mail(
  kind: MailContents["kind"],
  files: MailFile[],
  changes: Partial<MailContents> = {},
): MailContents {
  const now = new Date(kind === "pre" ? "2026-11-24T15:42:00Z" : "2026-11-24T19:53:00Z");
  const isOver = ({ restore_expires_at }: MailFile): boolean =>
    restore_expires_at !== null && restore_expires_at <= now;
  const restored = files.filter(({ restore_status }) => restore_status === "restored");
  return {
    kind,
    files,
    file_count: files.length,
    restored_count: restored.filter((one) => !isOver(one)).length,
    failed_count: files.filter(({ restore_status }) => restore_status === "failed").length,
    expired_count: restored.filter(isOver).length,
    waiting_count: 0,
    held_count: 0,
    approvers: APPROVERS,
    readers: ["AKIAIOSFODNN7EXAMPLE"],
    first_read_at: new Date("2026-11-24T15:38:00Z"),
    now,
    ...changes,
  };
}

/** By the name of the file that shows it. */
export const MAIL_SAMPLES = {
  being_restored: mail("pre", [file(...REPORT), file(...PHOTOS)]),
  being_restored_one: mail("pre", [file(...REPORT)]),
  being_restored_different_times: mail("pre", [
    file(...REPORT, { tier: "Expedited", from_hours: 1 / 60, to_hours: 5 / 60 }),
    file(...PHOTOS, { storage_class: "DEEP_ARCHIVE", tier: "Bulk", from_hours: 0, to_hours: 48 }),
    file(...SOUND, {
      storage_class: "INTELLIGENT_TIERING",
      archive_status: "ARCHIVE_ACCESS",
      tier: null,
      from_hours: 0,
      to_hours: 12,
    }),
  ]),
  ready: mail("post", [file(...REPORT, READY), file(...PHOTOS, READY)]),
  ready_in_part: mail("post", [file(...REPORT, READY)], { waiting_count: 2 }),
  ready_and_failed: mail("post", [file(...REPORT, READY), file(...SOUND, EXPIRED), file(...PHOTOS, FAILED)]),
  failed: mail("post", [file(...PHOTOS, FAILED)]),
  expired: mail("post", [file(...SOUND, EXPIRED)]),
  very_many: mail(
    "post",
    Array.from({ length: 50 }, (_, index) => file(`tiles/${1000 + index}.tif`, 88_000_000, READY)),
    { file_count: 50_000, restored_count: 50_000 },
  ),
  ready_table_data: mail("post", [
    file("events/year=2024/part-0000.parquet", 268_000_000, { ...READY, storage_class: "DEEP_ARCHIVE" }),
    file("events/year=2023/part-0000.parquet", 251_000_000, { ...READY, storage_class: "DEEP_ARCHIVE" }),
  ]),
  hostile_names: mail("post", [file(HOSTILE_KEY, 1, READY)]),
  needs_approval: HELD,
  needs_approval_one: {
    ...HELD,
    files: [file(...REPORT)],
    file_count: 1,
    bytes: "12400000",
    estimated_cost: "0.0002",
    approvers: [],
  },
  please_decide: {
    kind: "approval",
    hold: HOLD,
    files: [file(...REPORT), file(...PHOTOS), file(HOSTILE_KEY, 1)],
    file_count: 12,
    bytes: HELD.bytes,
    estimated_cost: HELD.estimated_cost,
    page: `https://thaw.example.com/ops/holds/${HOLD.id}`,
    now: HELD.now,
  },
  limit_nearly_used: {
    kind: "warning",
    limit: "20 objects, $20 per day for each person",
    per: "day",
    person: HOLD.person,
    used: { objects: 17, bytes: "1200000000", cost: "3.1" },
    most: { objects: 20, bytes: null, cost: "20" },
    resets_at: new Date("2026-11-25T00:00:00Z"),
    page: null,
    now: HELD.now,
  },
  ready_in_part_held: mail("post", [file(...REPORT, READY)], { waiting_count: 3, held_count: 2 }),
  not_approved: mail("post", [file(...PHOTOS, NOT_APPROVED)]),
} satisfies Record<string, MailContents | NoticeContents>;
