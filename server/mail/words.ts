/** The words that mails share: counts, files, and why this person is written to. */
import type { HeldFile, MailContents } from "./input.ts";
import { displayCopy, type Block, type FileEntry, type Inline, type Paragraph } from "./document.ts";
import { size } from "../wording/sizes.ts";
import { moment } from "../wording/times.ts";

/** More readers than this explain nothing (temporary keys change every session). */
const READERS_SHOWN = 3;

export const lead = (...text: Paragraph): Block => ({ kind: "lead", text });
export const paragraph = (...text: Paragraph): Block => ({ kind: "paragraph", text });

/** "10,000". */
export const number = (n: number): string => n.toLocaleString("en-US");
/** "1 file", "10 files". */
export const files = (n: number): string => `${number(n)} ${n === 1 ? "file" : "files"}`;
/** "Your file is", "Your 10 files are". */
export const yourFilesAre = (n: number): string => (n === 1 ? "Your file is" : `Your ${files(n)} are`);

/** What a list leaves out; null when it is complete. */
export function more(total: number, shown: number): string | null {
  if (total <= shown) return null;
  return shown === 0 ? files(total) : `and ${number(total - shown)} more`;
}

/** A file with the facts that hold for it alone. */
export function entry(file: HeldFile, facts: string[]): FileEntry {
  const named = displayCopy(file.s3_key) === file.s3_key;
  return {
    bucket: file.s3_bucket,
    key: file.s3_key,
    size: file.size_bytes === null ? "" : size(file.size_bytes),
    facts: [
      ...facts,
      ...(file.version_id === "" ? [] : [`version ${file.version_id}`]),
      ...(named ? [] : ["its name has characters that cannot be shown"]),
    ],
  };
}

/** Why this person gets the mail, and who writes it. */
export function footer({
  file_count,
  readers,
  first_read_at,
}: Pick<MailContents, "file_count" | "readers" | "first_read_at">): Paragraph[] {
  const one = file_count === 1;
  const others = readers.filter((reader) => !isOrder(reader));
  if (readers.length > 0 && others.length === 0) {
    return [
      [
        `Why you get this mail: somebody who looks after Thaw ordered ${one ? "this file" : "these files"} for you${one ? "" : ", the first"} on ${moment(first_read_at)}. `,
        "If you did not ask for that, tell them: the address may be wrong.",
      ],
      ["Thaw restores archived files in Amazon S3 and writes to the people who wait."],
    ];
  }
  return [
    [
      `Why you get this mail: ${one ? "a read of this file" : "reads of these files"}`,
      ...by(others),
      ` failed${one ? "" : ", the first"} on ${moment(first_read_at)}, because ${one ? "it was" : "they were"} in archive storage. `,
      "If that was not you, tell whoever looks after Thaw: the address may be wrong.",
    ],
    [
      "Thaw notices failed reads of archived files in Amazon S3, restores the files and writes to the people who wait.",
    ],
  ];
}

/** More approvers than this do not help: one is enough to ask. */
const APPROVERS_SHOWN = 3;

/** Whom to ask: "ann@example.com or bob@example.com", or who can tell. */
export function approversInWords(approvers: string[]): Inline[] {
  if (approvers.length === 0) return ["whoever looks after Thaw"];
  return approvers
    .slice(0, APPROVERS_SHOWN)
    .flatMap((approver, index): Inline[] =>
      index === 0 ? [{ code: approver }] : [" or ", { code: approver }],
    );
}

/** Whether files were ordered for the person (npm run thaw -- restore), instead of read by them. */
const isOrder = (reader: string): boolean => reader.startsWith("mailto:");

/** " with access key AKIA... and by arn:aws:...": whose reads these were. */
function by(readers: string[]): Inline[] {
  if (readers.length === 0) return [" under your name"];
  const shown = readers.slice(0, READERS_SHOWN);
  const left = readers.length - shown.length;
  const parts = shown.flatMap((reader, index): Inline[] => {
    const last = index === shown.length - 1 && left === 0;
    const before = index === 0 ? " " : last ? " and " : ", ";
    return [before + (reader.includes(":") ? "by " : "with access key "), { code: reader }];
  });
  return left === 0 ? parts : [...parts, ` and ${number(left)} more`];
}

/** Why an approver gets a mail. */
export const APPROVERS_FOOTER: Paragraph[] = [
  ["Why you get this mail: your address is one of ", { code: "APPROVERS" }, " in Thaw's settings."],
  ["Costs are estimates by published prices, without tax and download."],
];
