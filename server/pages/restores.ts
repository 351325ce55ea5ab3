/** Lists of restores: by state and time, stuck ones, and what a search found. */
import { html } from "hono/html";

import { actionLink, link, stateWord, table, tag } from "./layout.ts";
import { PAGE_ROWS, type FoundRead, type ListedRestore, type MailStatus, type Stuck } from "./queries.ts";
import { csv } from "../wording/csv.ts";
import { size } from "../wording/sizes.ts";
import { capital, plain, reason, since, time, visible, type Html } from "./text.ts";
import { cursorText, LIST_STATES, urls, type ListQuery } from "./urls.ts";

/** "s3://bucket/key" as a link to the restore. */
export const objectLink = (restore: {
  id: string;
  s3_bucket: string;
  s3_key: string;
  version_id?: string;
}): Html =>
  html`${link(urls.restore(restore.id), visible(`s3://${restore.s3_bucket}/${restore.s3_key}`))}${
    restore.version_id === undefined || restore.version_id === ""
      ? ""
      : html` <small>version ${visible(restore.version_id)}</small>`
  }`;

const readersOf = ({ readers, email }: ListedRestore): Html | string => {
  const more = readers >= 100 ? "100 or more readers" : readers === 1 ? "1 reader" : `${readers} readers`;
  return email === null
    ? html`${more}, nobody known`
    : html`${visible(email)}${readers > 1 ? ` (${more})` : ""}`;
};

const trouble = (
  { failing_since, failure_code, failure_message, restore_status }: ListedRestore,
  now: Date,
) =>
  failure_code === null || (failing_since === null && restore_status !== "failed")
    ? ""
    : html`<b>${visible(failure_code)}</b>
        ${failing_since === null ? "" : `first ${since(failing_since, now)}. `}${visible(failure_message ?? "")}`;

/** As lists and pages name it: its status, or what matters more. */
export const stateOf = ({
  closed_at,
  is_held,
  failure_code,
  restore_status,
}: Pick<ListedRestore, "closed_at" | "is_held" | "failure_code" | "restore_status">): string => {
  if (closed_at !== null) return failure_code === "observed" ? "observed" : "closed";
  return is_held ? "held" : restore_status;
};

export const restoreTable = (caption: string, list: ListedRestore[], now: Date): Html =>
  table(
    caption,
    ["file", "state", "since", "size", "readers", "trouble"],
    list.map((restore) => [
      objectLink(restore),
      tag(stateOf(restore)),
      time(restore.at, now),
      restore.size_bytes === null ? "–" : size(restore.size_bytes),
      readersOf(restore),
      trouble(restore, now),
    ]),
  );

const option = (value: string, text: string, chosen: boolean): Html =>
  chosen
    ? html`<option value="${value}" selected>${text}</option>`
    : html`<option value="${value}">${text}</option>`;

export function listPage(query: ListQuery, rows: ListedRestore[], now: Date, may_act: boolean): Html {
  const list = rows.slice(0, PAGE_ROWS);
  const last = list.at(-1);
  const bulk = { state: query.state, from: query.from, to: query.to };
  return html`<form class="bar" method="get" action="${urls.restores()}">
      <label
        >State
        <select name="state">
          ${LIST_STATES.map((state) => option(state, state === "open" ? "all that are open" : stateWord(state), state === query.state))}
        </select></label
      >
      <label>From (UTC) <input type="date" name="from" value="${query.from ?? ""}" /></label>
      <label>To (UTC) <input type="date" name="to" value="${query.to ?? ""}" /></label>
      <label
        >Order
        <select name="order">
          ${option("", "newest first", query.order === undefined)}${option("oldest", "oldest first", query.order === "oldest")}
        </select></label
      >
      <button>Show</button>
    </form>
    ${restoreTable(query.state === "closed" ? "Restores that are over" : `Restores: ${query.state === "open" ? "all that are open" : stateWord(query.state)}`, list, now)}
    <p class="bar">
      ${rows.length > PAGE_ROWS && last !== undefined ? html`<a class="button" rel="next" href="${urls.restores({ ...query, after: cursorText({ at: last.cursor_at, id: last.id }) })}">Next page</a>` : ""}
      <a href="${urls.restoresCsv(query)}">As CSV</a>
      ${may_act && list.length > 0 && query.state !== "closed" && query.state !== "held" ? html`${actionLink(urls.confirm("retry_all", bulk), "Retry all that match ...")}` : ""}
      ${may_act && list.length > 0 && (query.state === "not_started" || query.state === "pending") ? actionLink(urls.confirm("give_up_all", bulk), "Give up all that match ...") : ""}
    </p>`;
}

/** Only then a retry of the restore helps; mails have a list of their own. */
export const isAboutS3 = (problem: string): boolean => problem.includes("S3");

/** Where the mails of a problem are listed, each with what can be done. */
const MAILS_OF: Record<string, MailStatus> = {
  "a mail is not sent yet": "waiting",
  "Resend refused a mail": "failed",
  "nobody knows whether a mail was sent": "unknown",
};

/** A problem: what to do about it, by hand and here. */
const problemCard = (problem: string, what_to_do: string, may_act: boolean): Html =>
  html`<li class="finding">
    <h2>${visible(capital(problem))}</h2>
    <p>
      <b>What to do:</b> ${visible(what_to_do)}
      ${may_act && isAboutS3(problem) ? actionLink(urls.confirm("retry_all", { problem }), "Retry the restores of all these ...") : ""}
      ${MAILS_OF[problem] === undefined ? "" : link(urls.mails(MAILS_OF[problem]), "These mails, one by one or all at once")}
    </p>
  </li>`;

export function stuckPage(problem: string | undefined, rows: Stuck[], now: Date, may_act: boolean): Html {
  // One text for each problem.
  const problems = new Map(rows.map((row) => [row.problem, row.what_to_do]));
  return html`<p>
      ${problem === undefined ? "What an operator should look at, the oldest first. One row for each reader." : html`Only: <b>${visible(problem)}</b>. ${link(urls.stuck(), "Show all")}`}
    </p>
    <ul class="findings">
      ${[...problems].map(([name, what_to_do]) => problemCard(name, what_to_do, may_act))}
    </ul>
    ${table(
      problem === undefined ? "Stuck" : plain(problem),
      ["file", "problem", "since", "reader", "what S3 or Resend says"],
      rows
        .slice(0, PAGE_ROWS)
        .map((row) => [
          objectLink({ ...row, id: row.restore_id }),
          link(urls.stuck(row.problem), visible(row.problem)),
          time(row.since, now),
          row.email === null ? "nobody known" : visible(row.email),
          html`${reason(row)} ${row.mail_id === null ? "" : link(urls.mail(row.mail_id), "The mail")}`,
        ]),
    )}
    ${rows.length > PAGE_ROWS ? html`<p>There are more. When these are solved, the next ones show.</p>` : ""}`;
}

const foundTable = (list: FoundRead[], now: Date): Html =>
  table(
    "Reads, the newest first",
    ["file", "state", "read", "reader", "address"],
    list.map((read) => [
      objectLink({ ...read, id: read.restore_id }),
      tag(read.closed_at === null || read.failure_code === "observed" ? stateOf(read) : read.restore_status),
      time(read.requested_at, now),
      visible(read.reader),
      read.email === null ? "nobody known" : visible(read.email),
    ]),
  );

const nextFound = (q: string, rows: { id: string }[]): Html | "" => {
  const last = rows[PAGE_ROWS - 1];
  return rows.length > PAGE_ROWS && last !== undefined
    ? html`<p class="bar"><a class="button" rel="next" href="${urls.search(q, last.id)}">Next page</a></p>`
    : "";
};

export const namesPage = (q: string, rows: ListedRestore[], now: Date): Html =>
  html`${restoreTable("Files by name", rows.slice(0, PAGE_ROWS), now)} ${nextFound(q, rows)}`;

export const readsPage = (q: string, rows: FoundRead[], now: Date): Html =>
  html`${foundTable(rows.slice(0, PAGE_ROWS), now)} ${nextFound(q, rows)}`;

export const restoresAsCsv = (list: ListedRestore[]): string =>
  csv([
    [
      "id",
      "s3_bucket",
      "s3_key",
      "version_id",
      "status",
      "since",
      "created_at",
      "closed_at",
      "storage_class",
      "tier",
      "size_bytes",
      "readers",
      "email",
      "failure_code",
      "failure_message",
    ],
    ...list.map((row) => [
      row.id,
      row.s3_bucket,
      row.s3_key,
      row.version_id,
      row.restore_status,
      row.at,
      row.created_at,
      row.closed_at,
      row.storage_class,
      row.tier,
      row.size_bytes,
      row.readers,
      row.email,
      row.failure_code,
      row.failure_message,
    ]),
  ]);
