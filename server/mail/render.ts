/**
 * From what the database knows to a mail that can be sent.
 *
 * Pure: the same contents give the same bytes, so the body can be frozen before it is sent.
 */
import { FILES_SHOWN, type MailContents, type MailFile } from "./input.ts";
import { mailHtml } from "./html.ts";
import { outcomeMail } from "./outcome.ts";
import { startedMail } from "./started.ts";
import { mailText } from "./text.ts";

/** Gmail cuts a mail at 102 KB, and a key appears in it twice: very long ones make the list shorter. */
const KEY_BYTES_SHOWN = 20_000;

export interface RenderedMail {
  subject: string;
  html: string;
  text: string;
}

/** Renders one mail. The subject holds counts and times, never a name from outside. */
export function renderMail(contents: MailContents): RenderedMail {
  const shown = { ...contents, files: fitting(contents.files) };
  const mail = contents.kind === "pre" ? startedMail(shown) : outcomeMail(shown);
  return { subject: mail.subject, html: mailHtml(mail), text: mailText(mail) };
}

function fitting(files: MailFile[]): MailFile[] {
  let bytes = 0;
  return files.slice(0, FILES_SHOWN).filter((file, index) => {
    bytes += Buffer.byteLength(file.s3_key);
    return index === 0 || bytes <= KEY_BYTES_SHOWN;
  });
}
