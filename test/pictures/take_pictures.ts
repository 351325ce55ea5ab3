/**
 * `node test/pictures/take_pictures.ts`: the pictures of mails that README.md shows, made by the real renderer and
 * photographed by Chromium (`apt install chromium`, or CHROMIUM=/path/to/another). Nothing else uses them: run it after a
 * change of what mails look like, and commit what it writes.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { MAIL_SAMPLES } from "../../server/cli/mail_samples.ts";
import { renderMail } from "../../server/mail/render.ts";

const CHROMIUM = process.env["CHROMIUM"] ?? "chromium";

const WIDTH_PX = 640;

/** README.md is read over slow lines too. */
const MOST_BYTES = 100_000;

/** How much of each mail the picture shows. */
const HEIGHTS_PX = { being_restored: 600, ready: 800 };

const directory = mkdtempSync(join(tmpdir(), "thaw-pictures-"));
try {
  for (const [name, height_px] of Object.entries(HEIGHTS_PX)) {
    const page = join(directory, `${name}.html`);
    const picture = join(import.meta.dirname, `${name}.png`);
    const { subject, html } = renderMail(MAIL_SAMPLES[name as keyof typeof HEIGHTS_PX]);
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
