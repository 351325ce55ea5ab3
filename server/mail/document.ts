/**
 * What a mail consists of, before it becomes HTML and plain text.
 *
 * Both parts are made from this one description, so neither can say less than the other.
 */

export type Tone = "waiting" | "ready" | "failed" | "expired";

/** Words; a name that people copy (an access key, an option), set in a fixed-width face; or a page of ours, never a URL from outside. */
export type Inline = string | { code: string } | { page: string };
export type Paragraph = Inline[];

/** One line of a list of files, with the few facts shown below its name. */
export interface FileEntry {
  bucket: string;
  key: string;
  /** Empty when it is not known. */
  size: string;
  facts: string[];
}

export type Block =
  | { kind: "lead"; text: Paragraph }
  | { kind: "paragraph"; text: Paragraph }
  | { kind: "heading"; tone: Tone; text: string }
  | { kind: "files"; files: FileEntry[]; more: string | null }
  | { kind: "commands"; lines: string[] };

export interface MailDocument {
  subject: string;
  /** What a list of mails shows beside the subject. */
  preheader: string;
  tone: Tone;
  heading: string;
  blocks: Block[];
  /** Why this person gets the mail: small print, last. */
  footer: Paragraph[];
}

/**
 * What breaks a line, hides itself or turns the reading direction: C0 and C1 controls, line and
 * paragraph separators, the bidirectional marks, embeddings, overrides and isolates.
 */
// oxlint-disable-next-line no-control-regex -- controls are what this is about.
const UNSHOWABLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Text from outside, safe to show: one line, no direction marks. Not for commands or data. */
export function displayCopy(text: string): string {
  return text.replace(UNSHOWABLE, "").toWellFormed();
}
