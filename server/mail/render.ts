/**
 * From what the database knows to a mail that can be sent.
 *
 * Pure: the same contents give the same bytes, so the body can be frozen before it is sent.
 */
import type { MailDocument } from "./document.ts";
import { approvalMail } from "./approval.ts";
import { heldMail } from "./held.ts";
import { FILES_SHOWN, type HeldFile, type MailContents, type NoticeContents } from "./input.ts";
import { mailHtml } from "./html.ts";
import { outcomeMail } from "./outcome.ts";
import { startedMail } from "./started.ts";
import { mailText } from "./text.ts";
import { warningMail } from "./warning.ts";

/** Gmail cuts a mail at 102 KB, and a key appears in it twice: very long ones make the list shorter. */
const KEY_BYTES_SHOWN = 20_000;

export interface RenderedMail {
  subject: string;
  html: string;
  text: string;
}

/** Renders one mail. The subject holds counts and times, never a name from outside. */
export function renderMail(contents: MailContents | NoticeContents): RenderedMail {
  const mail = documentOf(contents);
  return { subject: mail.subject, html: mailHtml(mail), text: mailText(mail) };
}

function documentOf(contents: MailContents | NoticeContents): MailDocument {
  switch (contents.kind) {
    case "pre":
      return startedMail({ ...contents, files: fitting(contents.files) });
    case "post":
      return outcomeMail({ ...contents, files: fitting(contents.files) });
    case "held":
      return heldMail({ ...contents, files: fitting(contents.files) });
    case "approval":
      return approvalMail({ ...contents, files: fitting(contents.files) });
    case "warning":
      return warningMail(contents);
  }
}

function fitting<F extends HeldFile>(files: F[]): F[] {
  let bytes = 0;
  return files.slice(0, FILES_SHOWN).filter((file, index) => {
    bytes += Buffer.byteLength(file.s3_key);
    return index === 0 || bytes <= KEY_BYTES_SHOWN;
  });
}
