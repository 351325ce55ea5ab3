/** How a mail looks as plain text: 76 columns, except for what must be copied in one piece. */
import { displayCopy, type Block, type FileEntry, type MailDocument, type Paragraph } from "./document.ts";

const COLUMNS = 76;

/** Renders the plain-text part. */
export function mailText(mail: MailDocument): string {
  const parts = [
    underlined(mail.heading, "="),
    ...mail.blocks.map(block),
    "-".repeat(COLUMNS),
    ...mail.footer.map((paragraph) => wrap(plain(paragraph))),
  ];
  return `${parts.join("\n\n")}\n`;
}

function block(of: Block): string {
  switch (of.kind) {
    case "lead":
    case "paragraph":
      return wrap(plain(of.text));
    case "heading":
      return underlined(of.text, "-");
    case "files":
      return [...of.files.map(file), ...(of.more === null ? [] : [`  ${of.more}`])].join("\n");
    case "commands":
      // Already exact and printable: nothing may be cleaned away or wrapped.
      return of.lines.map((line) => `  ${line}`).join("\n");
  }
}

function file({ bucket, key, size, facts }: FileEntry): string {
  const name = `* ${displayCopy(`s3://${bucket}/${key}`)}${size === "" ? "" : ` (${size})`}`;
  return facts.length === 0 ? name : `${name}\n${wrap(displayCopy(facts.join(", ")), "  ")}`;
}

const plain = (text: Paragraph): string =>
  text
    .map((part) => displayCopy(typeof part === "string" ? part : "page" in part ? part.page : part.code))
    .join("");

const underlined = (text: string, line: string): string => `${text}\n${line.repeat(text.length)}`;

function wrap(text: string, indent = ""): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent.length + line.length + 1 + word.length > COLUMNS) {
      lines.push(indent + line);
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, indent + line].join("\n");
}
