/** What every page has around it. */
import { html } from "hono/html";

import { ICON, SCRIPT, STYLE } from "./assets.ts";
import { plain, time, visible, type Html } from "./text.ts";
import { urls } from "./urls.ts";

export interface Page {
  /** Also the heading. A plain text: what comes from elsewhere goes through plain(). */
  title: string;
  heading?: Html;
  main: unknown;
  now: Date;
  /** Who looks, and as which database role; none: before somebody has signed in, or without a database. */
  actor?: string | undefined;
  role?: string | undefined;
  may_act?: boolean | undefined;
  /** The page renews itself. */
  is_live?: boolean;
  /** What is in the search box. */
  search?: string;
  /** Which entry of the navigation this page belongs to. */
  place?: string;
}

const PLACES = [
  ["Overview", urls.overview()],
  ["Restores", urls.restores()],
  ["Stuck", urls.stuck()],
  ["Mails", urls.mails()],
  ["Holds", urls.holds()],
  ["Costs", urls.costs()],
  ["Workers", urls.workers()],
  ["Actions", urls.actions()],
] as const;

const place = (name: string, href: string, current: string | undefined): Html =>
  name === current
    ? html`<li><a href="${href}" aria-current="page">${name}</a></li>`
    : html`<li><a href="${href}">${name}</a></li>`;

/** What was searched for stays in the box, unless it would show as something else there. */
const searched = (q = ""): string => (plain(q) === q ? q : "");

export const layout = (page: Page): Html =>
  html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="robots" content="noindex" />
        <title>${page.title} – Thaw</title>
        <link rel="icon" href="${urls.asset(ICON.name)}" />
        <link rel="stylesheet" href="${urls.asset(STYLE.name)}" />
        <script src="${urls.asset(SCRIPT.name)}" defer></script>
      </head>
      <body>
        <a class="skip" href="#main">Skip to the content</a>
        <header>
          <nav aria-label="Pages">
            <ul>
              ${PLACES.map(([name, href]) => place(name, href, page.place))}
            </ul>
          </nav>
          <form role="search" action="${urls.search()}" method="get">
            <input
              type="search"
              name="q"
              value="${searched(page.search)}"
              aria-label="Search: id, s3://bucket/key, address, access key, ARN"
              placeholder="id, s3://bucket/key, address, key, ARN"
            />
            <button>Search</button>
          </form>
        </header>
        <main id="main" tabindex="-1">
          <h1>${page.heading ?? page.title}</h1>
          ${page.main}
        </main>
        <footer>
          <p>
            As of ${time(page.now, page.now)}.
            ${page.actor === undefined ? "" : html`You are <b>${visible(page.actor)}</b>${page.role === undefined ? "" : html`, by the database role <b>${plain(page.role)}</b>`}.`}
            ${page.may_act === false ? "This role may only look." : ""}
          </p>
          ${page.is_live === true ? html`<button id="updates" type="button" hidden>Stop updating</button>` : ""}
          <p id="said" role="status"></p>
        </footer>
      </body>
    </html>`;

const STATE_WORDS: Record<string, readonly [string, string]> = {
  not_started: ["not started", "wait"],
  held: ["waits for approval", "wait"],
  pending: ["S3 restores it", "wait"],
  restored: ["readable", "good"],
  failed: ["failed", "bad"],
  closed: ["over", ""],
  open: ["open", ""],
  approved: ["approved", "good"],
  refused: ["refused", "bad"],
  expired: ["expired", "bad"],
  observed: ["only observed", ""],
  sealed: ["waiting", "wait"],
  sent: ["sent", "good"],
  unknown: ["perhaps sent", "bad"],
};

/** A state as a word; its colour says the same once more, unless nothing is in that state. */
export function tag(state: string, count = 1): Html {
  const [word, colour] = STATE_WORDS[state] ?? [plain(state), ""];
  const kind = count === 0 ? "" : colour;
  return html`<span class="tag ${kind}">${word}</span>`;
}

export const stateWord = (state: string): string => STATE_WORDS[state]?.[0] ?? plain(state);

/** A table whose rows become cards on a phone. The first cell of a row names it. */
export function table(caption: string, columns: string[], body: unknown[][]): Html {
  if (body.length === 0)
    return html`<p class="quiet">${caption}${caption.endsWith(".") ? " There are none." : ": none."}</p>`;
  return html`<table class="rows">
    <caption>
      ${caption}
    </caption>
    <thead>
      <tr>
        ${columns.map((column) => html`<th scope="col">${column}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${body.map(
        ([first, ...cells]) =>
          html`<tr>
            <th scope="row">${first}</th>
            ${cells.map((cell, index) =>
              // On a phone an empty cell is no line.
              cell === "" ? html`<td></td>` : html`<td data-label="${columns[index + 1] ?? ""}">${cell}</td>`,
            )}
          </tr>`,
      )}
    </tbody>
  </table>`;
}

/** Names and values, without those that say nothing. */
export const facts = (entries: [string, unknown][]): Html =>
  html`<dl>
    ${entries
      .filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "")
      .map(
        ([name, value]) =>
          html`<dt>${name}</dt>
            <dd>${value}</dd>`,
      )}
  </dl>`;

export const link = (href: string, text: unknown): Html => html`<a href="${href}">${text}</a>`;

/** Leads to a page that first says what would happen. */
export const actionLink = (href: string, text: string): Html =>
  html`<a class="button act" href="${href}">${text}</a>`;
