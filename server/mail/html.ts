/**
 * How a mail looks as HTML.
 *
 * One column of at most 600 px; every style is inline, because some clients drop the style
 * sheet, which therefore only adds the dark colours. Nothing is loaded; only a page of Thaw itself is a link.
 */
import {
  displayCopy,
  type Block,
  type FileEntry,
  type MailDocument,
  type Paragraph,
  type Tone,
} from "./document.ts";

const SANS = "-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,Helvetica,Arial,sans-serif";
const MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace";

/** Long keys wrap: Outlook knows only word-break, the others prefer a break between words. */
const WRAP = "overflow-wrap:anywhere;word-wrap:break-word;word-break:break-word";

const SMALL = "font-size:13px;line-height:20px;color:#5c6b77";

/** Readable on the light card and, lightened below, on the dark one. */
const TONES: Record<Tone, string> = {
  waiting: "#1d6a96",
  ready: "#23744a",
  failed: "#a8402c",
  expired: "#8a6100",
};

const DARK = `
    :root { color-scheme: light dark; supported-color-schemes: light dark; }
    @media (prefers-color-scheme: dark) {
      .page { background: #0f1418 !important; }
      .card { background: #181f25 !important; border-left-color: #2a343c !important; border-right-color: #2a343c !important; border-bottom-color: #2a343c !important; }
      .ink { color: #e8edf1 !important; }
      .soft { color: #9fadb8 !important; }
      .rule { border-color: #2a343c !important; }
      .code { background: #10161b !important; border-color: #2a343c !important; color: #e8edf1 !important; }
      .waiting { color: #7cc0e8 !important; }
      .ready { color: #7fd0a3 !important; }
      .failed { color: #f0a08f !important; }
      .expired { color: #e5bf6b !important; }
    }
    @media (max-width: 480px) {
      .page-cell { padding: 0 !important; }
      .card { padding: 24px 18px !important; border-left: 0 !important; border-right: 0 !important; border-radius: 0 !important; }
    }`;

/** Renders the HTML part. */
export function mailHtml(mail: MailDocument): string {
  return `<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width,initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <meta name="supported-color-schemes" content="light dark">
  <meta name="format-detection" content="telephone=no,date=no,address=no,email=no,url=no">
  <title>${escape(mail.subject)}</title>
  <style>${DARK}
  </style>
</head>
<body class="page" style="margin:0;padding:0;background:#f2f4f5;-webkit-text-size-adjust:100%">
<div style="display:none;max-height:0;overflow:hidden;opacity:0;mso-hide:all">${escape(mail.preheader)}</div>
<table role="presentation" class="page" width="100%" cellspacing="0" cellpadding="0" border="0" style="background:#f2f4f5;table-layout:fixed">
<tr><td class="page-cell" align="center" style="padding:32px 12px">
<!--[if mso]><table role="presentation" width="600" cellspacing="0" cellpadding="0" border="0"><tr><td><![endif]-->
<table role="presentation" width="100%" cellspacing="0" cellpadding="0" border="0" style="max-width:600px;table-layout:fixed">
<tr><td class="card" align="left" style="background:#ffffff;border:1px solid #e1e6e9;border-top:4px solid ${TONES[mail.tone]};border-radius:8px;padding:30px 36px;font-family:${SANS}">
<h1 class="ink" style="margin:0 0 12px;font-size:23px;line-height:30px;font-weight:600;letter-spacing:-0.2px;color:#1b2530">${escape(mail.heading)}</h1>
${mail.blocks.map(block).join("\n")}
${footer(mail.footer)}
</td></tr>
</table>
<!--[if mso]></td></tr></table><![endif]-->
</td></tr>
</table>
</body>
</html>
`;
}

function block(of: Block): string {
  switch (of.kind) {
    case "lead":
      return `<p class="ink" style="margin:0 0 16px;font-size:17px;line-height:26px;color:#1b2530">${words(of.text)}</p>`;
    case "paragraph":
      return `<p class="ink" style="margin:0 0 16px;font-size:15px;line-height:23px;color:#1b2530">${words(of.text)}</p>`;
    case "heading":
      return `<h2 class="${of.tone}" style="margin:28px 0 8px;font-size:16px;line-height:23px;font-weight:600;color:${TONES[of.tone]}">${escape(of.text)}</h2>`;
    case "files":
      return files(of.files, of.more);
    case "commands":
      return `<div class="code" dir="ltr" style="margin:0 0 16px;padding:6px 14px;background:#f5f7f8;border:1px solid #e1e6e9;border-radius:6px;font-family:${MONO};font-size:12px;line-height:19px;color:#1b2530;${WRAP}">${of.lines
        .map((line) => `<div style="padding:5px 0">${command(line)}</div>`)
        .join("\n")}</div>`;
  }
}

const RULE = "border-top:1px solid #e8ecee";

function files(entries: FileEntry[], more: string | null): string {
  const rows = entries.map(
    (entry) =>
      `<tr><td class="rule" style="${RULE};padding:9px 0;${WRAP}">${name(entry)}${facts(entry)}</td>` +
      `<td class="rule soft" width="76" align="right" valign="top" style="${RULE};padding:9px 0;${SMALL};white-space:nowrap">${escape(entry.size)}</td></tr>`,
  );
  const rest = `<tr><td class="rule soft" colspan="2" style="${RULE};padding:9px 0;${SMALL}">${escape(more ?? "")}</td></tr>`;
  return `<table role="presentation" width="100%" cellspacing="0" cellpadding="0" border="0" style="margin:0 0 14px;table-layout:fixed;font-family:${SANS}">
${[...rows, ...(more === null ? [] : [rest])].join("\n")}
</table>`;
}

/** Bucket and folders in a softer colour than the name that a person looks for. */
function name({ bucket, key }: FileEntry): string {
  const shown = displayCopy(key);
  const cut = shown.lastIndexOf("/", shown.length - 2) + 1;
  const soft = (text: string) => `<span class="soft" style="color:#5c6b77">${breakable(text)}</span>`;
  return `<div class="ink" style="font-family:${MONO};font-size:13px;line-height:20px;color:#1b2530;white-space:pre-wrap">${soft(`s3://${bucket}/`)}<bdi>${cut === 0 ? "" : soft(shown.slice(0, cut))}${breakable(shown.slice(cut))}</bdi></div>`;
}

const facts = ({ facts: all }: FileEntry): string =>
  all.length === 0 ? "" : `<div class="soft" style="${SMALL}">${escape(all.join(" · "))}</div>`;

function footer(paragraphs: Paragraph[]): string {
  const texts = paragraphs.map(
    (text) =>
      `<p class="soft" style="margin:0 0 8px;font-size:13px;line-height:20px;color:#5c6b77;${WRAP}">${words(text)}</p>`,
  );
  return `<div class="rule" style="margin:28px 0 0;padding:16px 0 0;${RULE}">${texts.join("\n")}</div>`;
}

const words = (text: Paragraph): string =>
  text
    .map((part) =>
      typeof part === "string"
        ? unlinked(part)
        : "page" in part
          ? `<a class="waiting" href="${escape(part.page)}" style="color:${TONES.waiting};${WRAP}">${breakable(part.page)}</a>`
          : `<bdi style="font-family:${MONO};font-size:0.92em;${part.code.length <= 30 ? `white-space:nowrap">${unlinked(part.code)}` : `${WRAP}">${breakable(part.code)}`}</bdi>`,
    )
    .join("");

/** The last dot of `aws s3 cp ... .` belongs to its line: alone on the next it is easily overlooked. */
function command(line: string): string {
  const [, head, tail] = /^(.*)(.{4}' \.)$/su.exec(line) ?? [];
  return head === undefined || tail === undefined
    ? breakable(line)
    : `${breakable(head)}<span style="white-space:nowrap">${escape(tail)}</span>`;
}

const ENTITIES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** The only way by which text gets into the HTML. */
const escape = (text: string): string =>
  displayCopy(text).replace(/[&<>"']/g, (character) => ENTITIES[character] ?? "");

/** A sentence may quote a failure or a limit from outside: mail clients make no link of what is broken here. */
const unlinked = (text: string): string => escape(text).replaceAll("://", ":/<wbr>/");

/**
 * Text that may wrap at its punctuation. The same places keep mail clients from making a link of a
 * name that looks like an address; nothing is added to what a reader copies.
 */
const breakable = (text: string): string =>
  displayCopy(text)
    .split(/(?<=[/:@])|(?=\.)/)
    .map(escape)
    .join("<wbr>");
