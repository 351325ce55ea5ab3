/**
 * `node test/pictures/take_pictures.ts`: the pictures of mails that README.md shows, made by the real renderer and
 * photographed by Chromium (`apt install chromium`, or CHROMIUM=/path/to/another). Nothing else uses them: run it after a
 * change of what mails look like, and commit what it writes.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { MailContents, MailFile } from "../../server/mail/input.ts";
import { renderMail } from "../../server/mail/render.ts";

const CHROMIUM = process.env["CHROMIUM"] ?? "chromium";

const WIDTH_PX = 640;

/** README.md is read over slow lines too. */
const MOST_BYTES = 100_000;

const file = (s3_key: string, size_bytes: number, changes: Partial<MailFile>): MailFile => ({
  s3_bucket: "acme-archive",
  s3_key,
  version_id: "",
  restore_status: "pending",
  storage_class: "GLACIER",
  archive_status: null,
  tier: "Standard",
  size_bytes,
  accepted_at: new Date("2026-11-24T15:40:00Z"),
  restored_at: null,
  restore_expires_at: null,
  failure_code: null,
  failure_message: null,
  ...changes,
});

const FILES = [
  ["surveys/2019/north.pdf", 12_400_000],
  ["surveys/2019/aerial photos.zip", 3_820_000_000],
] as const;

const contents = (changes: Partial<MailContents>): MailContents => ({
  kind: "pre",
  files: [],
  file_count: FILES.length,
  restored_count: 0,
  failed_count: 0,
  expired_count: 0,
  waiting_count: 0,
  readers: ["AKIAIOSFODNN7EXAMPLE"],
  first_read_at: new Date("2026-11-24T15:38:00Z"),
  now: new Date("2026-11-24T15:42:00Z"),
  ...changes,
});

/** File name -> what the mail says, and how much of it the picture shows. */
const PICTURES: Record<string, { mail: MailContents; height_px: number }> = {
  being_restored: {
    mail: contents({ files: FILES.map(([key, bytes]) => file(key, bytes, {})) }),
    height_px: 600,
  },
  ready: {
    mail: contents({
      kind: "post",
      files: FILES.map(([key, bytes]) =>
        file(key, bytes, {
          restore_status: "restored",
          restored_at: new Date("2026-11-24T19:51:00Z"),
          restore_expires_at: new Date("2026-12-02T00:00:00Z"),
        }),
      ),
      restored_count: FILES.length,
      now: new Date("2026-11-24T19:53:00Z"),
    }),
    height_px: 776,
  },
};

const directory = mkdtempSync(join(tmpdir(), "thaw-pictures-"));
try {
  for (const [name, { mail, height_px }] of Object.entries(PICTURES)) {
    const page = join(directory, `${name}.html`);
    const picture = join(import.meta.dirname, `${name}.png`);
    const { subject, html } = renderMail(mail);
    writeFileSync(page, html);
    const options = [
      "--headless=new",
      // As root, and in containers, Chromium has no sandbox. The page is our own.
      "--no-sandbox",
      "--hide-scrollbars",
      `--user-data-dir=${join(directory, "profile")}`,
      `--window-size=${WIDTH_PX},${height_px}`,
      `--screenshot=${picture}`,
    ];
    execFileSync(CHROMIUM, [...options, `file://${page}`], { stdio: ["ignore", "ignore", "pipe"] });
    const bytes = statSync(picture).size;
    if (bytes > MOST_BYTES) throw new Error(`${picture} has ${bytes} bytes, more than ${MOST_BYTES}.`);
    console.log(`${picture}  ${(bytes / 1024).toFixed(0)} KB  ${subject}`);
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
