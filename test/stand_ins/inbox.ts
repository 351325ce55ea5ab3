import { randomBytes } from "node:crypto";
import type { DeliveredMail } from "./resend.ts";

/** What the server is to answer. */
export interface Page {
  status: number;
  type: string;
  body: string;
  headers?: Record<string, string>;
}

/** A long demo must not make the browser slow; the JSON has them all. */
const LISTED = 200;

/**
 * The inbox for people: `/` or `/inbox`, `/mails/<id>`, and for scripts `/mails.json`.
 * Undefined for any other address.
 */
export function inboxPage(mails: readonly DeliveredMail[], url: URL): Page | undefined {
  const path = url.pathname;
  if (path === "/mails.json") {
    return { status: 200, type: "application/json", body: JSON.stringify(mails), headers: FRESH };
  }
  if (path === "/inbox/list") {
    const chosen_id = url.searchParams.get("chosen");
    return { status: 200, type: HTML, body: list(mails, chosen_id), headers: FRESH };
  }
  const asked_id = /^\/mails\/([\w-]+)$/.exec(path)?.[1];
  if (path !== "/" && path !== "/inbox" && asked_id === undefined) return undefined;

  const chosen = asked_id === undefined ? mails.at(-1) : mails.find((mail) => mail.id === asked_id);
  const isText = chosen !== undefined && (url.searchParams.get("part") === "text" || chosen.html === "");
  const pane =
    chosen !== undefined
      ? reading(chosen, isText)
      : asked_id === undefined
        ? `<p class="nothing">A mail appears here as soon as it is sent.</p>`
        : `<p class="nothing">There is no mail with this id. <a href="/inbox">Go to the inbox</a></p>`;
  // A narrow screen shows one of the two: the list here, the mail at its own address.
  const view = asked_id === undefined ? "inbox" : "mail";
  const nonce = randomBytes(16).toString("base64");
  return {
    status: asked_id !== undefined && chosen === undefined ? 404 : 200,
    type: HTML,
    body: page({ view, chosen, count: mails.length, list: list(mails, chosen?.id), pane, nonce }),
    headers: { ...FRESH, "content-security-policy": policy(nonce) },
  };
}

const HTML = "text/html; charset=utf-8";
const FRESH = { "cache-control": "no-store" };

/** Nothing from outside, and no script but ours: the srcdoc frame inherits this, beside its sandbox. */
const policy = (nonce: string): string =>
  [
    "default-src 'none'",
    "style-src 'unsafe-inline'",
    "img-src data:",
    `script-src 'nonce-${nonce}'`,
    "connect-src 'self'",
    "base-uri 'self'",
    "form-action 'none'",
  ].join("; ");

const ESCAPES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

const escape = (text: string): string => text.replace(/[&<>"']/g, (sign) => ESCAPES[sign] ?? sign);

/** Isolated, so that a right-to-left mark in a file name turns only itself around. */
const foreign = (text: string): string => `<bdi>${escape(text)}</bdi>`;

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const ZONE = new Intl.DateTimeFormat("en-GB", { timeStyle: "long" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const time = (at: Date, clock = CLOCK): string =>
  `<time datetime="${at.toISOString()}" title="${escape(at.toString())}">${DAY.format(at)}, ${clock.format(at)}</time>`;

/** The first words of the text part, as mail programs show them under the subject. */
const preview = (mail: DeliveredMail): string =>
  mail.text.slice(0, 400).replace(/\s+/g, " ").trim().slice(0, 120);

function list(mails: readonly DeliveredMail[], chosen_id: string | null | undefined): string {
  if (mails.length === 0) {
    return `<p class="nothing"><b>No mail yet</b><br>This page looks for new mail by itself.</p>`;
  }
  const rows = mails
    .slice(-LISTED)
    .toReversed()
    .map((mail) => {
      const current = mail.id === chosen_id ? ` aria-current="true"` : "";
      return `<li><a href="/mails/${escape(mail.id)}"${current}>
<span class="top"><span class="to">${foreign(mail.to.join(", "))}</span>${time(mail.at)}</span>
<span class="subject">${foreign(mail.subject)}</span>
<span class="preview">${foreign(preview(mail))}</span></a></li>`;
    });
  const older = mails.length - rows.length;
  const rest =
    older > 0 ? `<p class="nothing">and ${older} older: <a href="/mails.json">mails.json</a></p>` : "";
  return `<ul data-count="${mails.length}">${rows.join("\n")}</ul>${rest}`;
}

const tab = (label: string, href: string, isChosen: boolean): string =>
  `<a href="${href}"${isChosen ? ` aria-current="page"` : ""}>${label}</a>`;

function reading(mail: DeliveredMail, isText: boolean): string {
  const field = (name: string, values: readonly string[] | undefined): string =>
    values === undefined ? "" : `<dt>${name}</dt><dd>${foreign(values.join(", "))}</dd>`;
  const self = `/mails/${escape(mail.id)}`;
  // Links of a mail open in a tab of their own; inside the frame they would replace the mail.
  const body = isText
    ? `<pre class="paper">${escape(mail.text) || "This mail has no text part."}</pre>`
    : `<iframe class="paper" title="The mail" sandbox="allow-popups allow-popups-to-escape-sandbox"
 srcdoc="${escape(`<!doctype html><base target="_blank">${mail.html}`)}"></iframe>`;
  return `<a class="back" href="/inbox">&larr; Inbox</a>
<h2>${foreign(mail.subject)}</h2>
<dl>${field("From", [mail.from])}${field("To", mail.to)}${field("Reply to", mail.reply_to)}<dt>Sent</dt><dd>${time(mail.at, ZONE)}</dd></dl>
<nav class="tabs" aria-label="Parts of the mail">${mail.html === "" ? "" : tab("Mail", self, !isText)}${tab("Plain text", `${self}?part=text`, isText)}</nav>
${body}`;
}

interface Parts {
  view: "inbox" | "mail";
  chosen: DeliveredMail | undefined;
  count: number;
  list: string;
  pane: string;
  nonce: string;
}

function page({ view, chosen, count, list, pane, nonce }: Parts): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<link rel="icon" href="data:,">
<title>${view === "mail" && chosen !== undefined ? escape(chosen.subject) : `Inbox (${count})`}</title>
<style>${STYLE}</style></head>
<body class="${view}" data-chosen="${escape(chosen?.id ?? "")}">
<header><h1><a href="/inbox">Inbox</a></h1><span id="count">${count}</span><span class="note">stand-in for Resend: nothing leaves this machine</span></header>
<main><section id="list" aria-label="Mails">${list}</section>
<article>${pane}</article></main>
<script nonce="${nonce}">${SCRIPT}</script>
</body></html>`;
}

const STYLE = `
:root { color-scheme: light dark; --line: light-dark(#dfe3e8, #30363d); --faint: light-dark(#5c6670, #9aa4ae);
  --back: light-dark(#f5f7f9, #0f1317); --front: light-dark(#fff, #171c21); --mark: light-dark(#e3effc, #1d3450);
  --link: light-dark(#0b62c4, #7db7ff); }
* { box-sizing: border-box; }
body { margin: 0; height: 100dvh; display: flex; flex-direction: column; background: var(--back);
  font: 15px/1.45 system-ui, sans-serif; }
a { color: var(--link); }
header { display: flex; align-items: center; gap: .6rem; padding: .6rem 1rem; border-bottom: 1px solid var(--line);
  background: var(--front); }
h1 { font-size: 1.1rem; margin: 0; }
h1 a { color: inherit; text-decoration: none; }
#count { background: var(--mark); border-radius: 1rem; padding: 0 .6rem; font-size: .85rem; }
.note { margin-left: auto; color: var(--faint); font-size: .85rem; text-align: right; }
main { flex: 1; min-height: 0; display: grid; grid-template-columns: minmax(17rem, 24rem) 1fr; }
#list { overflow-y: auto; border-right: 1px solid var(--line); background: var(--front); }
ul { list-style: none; margin: 0; padding: 0; }
li a { display: block; padding: .65rem 1rem; border-bottom: 1px solid var(--line); color: inherit;
  text-decoration: none; }
li a:hover { background: var(--back); }
li a[aria-current] { background: var(--mark); }
li span { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.top { display: flex !important; gap: .75rem; font-size: .85rem; color: var(--faint); }
.to { flex: 1; }
.subject { font-weight: 600; }
.preview { color: var(--faint); font-size: .9rem; }
.nothing { color: var(--faint); text-align: center; padding: 2rem 1rem; margin: 0; }
article { min-width: 0; min-height: 0; display: flex; flex-direction: column; padding: 1rem 1.25rem; overflow-y: auto; }
article > .nothing { margin: auto; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: 0 0 .8rem; font-size: .9rem; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.tabs { display: flex; gap: .25rem; }
.tabs a { padding: .3rem .9rem; border: 1px solid var(--line); border-bottom: 0; border-radius: .5rem .5rem 0 0;
  color: var(--faint); text-decoration: none; font-size: .9rem; }
.tabs a[aria-current] { background: var(--mark); color: inherit; font-weight: 600; }
.paper { flex: 1 0 auto; min-height: 20rem; width: 100%; margin: 0; border: 1px solid var(--line);
  border-radius: 0 .5rem .5rem .5rem; }
iframe.paper { background: #fff; color-scheme: light; }
pre.paper { padding: 1rem; background: var(--front); white-space: pre-wrap; overflow-wrap: anywhere;
  font: .9rem/1.5 ui-monospace, monospace; }
.back { display: none; margin-bottom: .6rem; text-decoration: none; }
@media (max-width: 46rem) {
  main { grid-template-columns: 1fr; }
  .inbox article, .mail #list { display: none; }
  .inbox li a[aria-current] { background: none; }
  #list { border-right: 0; }
  article { padding: .8rem; }
  .back { display: block; }
  .note { font-size: .75rem; }
}`;

/** Asks for the list only, so that the mail being read stays as it is. */
const SCRIPT = `
const list = document.getElementById("list");
const chosen = document.body.dataset.chosen;
let shown = "";
list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
async function look() {
  try {
    const answer = await fetch("/inbox/list?chosen=" + encodeURIComponent(chosen));
    const now = await answer.text();
    if (now !== shown) show(now);
    shown = now;
  } catch { /* The demo has ended or starts again: keep looking. */ }
  setTimeout(look, 1000);
}
function show(now) {
  const focused = document.activeElement?.getAttribute("href");
  list.innerHTML = now;
  if (focused) list.querySelector('a[href="' + CSS.escape(focused) + '"]')?.focus({ preventScroll: true });
  const count = list.querySelector("ul")?.dataset.count ?? "0";
  document.getElementById("count").textContent = count;
  if (document.body.className !== "inbox") return;
  document.title = "Inbox (" + count + ")";
  // The first mail of all: nothing is being read that could be lost.
  if (chosen === "" && count !== "0") location.reload();
}
look();`;
