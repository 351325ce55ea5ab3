/** Mails that are not sent, and one mail. */
import { html } from "hono/html";

import { actionLink, facts, link, table, tag } from "./layout.ts";
import { gateFacts } from "./overview.ts";
import {
  MAIL_STATUSES,
  mayBeResent,
  PAGE_ROWS,
  type Done,
  type Gate,
  type Mail,
  type MailStatus,
  type Told,
} from "./queries.ts";
import { actionTable, doneNote, mailTable } from "./restore.ts";
import { objectLink } from "./restores.ts";
import { csv } from "../wording/csv.ts";
import { count, time, visible, type Html } from "./text.ts";
import { cursorText, urls } from "./urls.ts";

export function mailsPage(
  status: MailStatus | undefined,
  rows: Mail[],
  gate: Gate | undefined,
  now: Date,
  may_act: boolean,
): Html {
  const list = rows.slice(0, PAGE_ROWS);
  const last = list.at(-1);
  return html`${gate === undefined ? "" : gateFacts(gate, now, may_act)}
    <p class="bar">
      ${[undefined, ...MAIL_STATUSES].map((one) => {
        const name = one === undefined ? "all" : one === "unknown" ? "perhaps sent" : one;
        return one === status ? html`<b>${name}</b> ` : html`${link(urls.mails(one), name)} `;
      })}
    </p>
    ${mailTable("Mails that are not sent, the oldest first. Sent ones: see their restore.", list, now)}
    <p class="bar">
      ${rows.length > PAGE_ROWS && last !== undefined ? html`<a class="button" rel="next" href="${urls.mails(status, cursorText({ at: last.cursor_at, id: last.id }))}">Next page</a>` : ""}
      <a href="${urls.mailsCsv(status)}">As CSV</a>
      ${may_act && list.length > 0 && mayBeResent(status) ? actionLink(urls.confirm("resend_all", { status }), "Send all of these again ...") : ""}
    </p>`;
}

const actionsFor = (mail: Mail): Html | "" => {
  const { id, status, superseded_by } = mail;
  if (superseded_by !== null || status === "sealed") return "";
  return html`<p class="bar">
    ${actionLink(urls.confirm("resend", { id }), "Send again ...")}
    ${status === "unknown" ? html`${actionLink(urls.confirm("was_sent", { id }), "It was sent ...")} ${actionLink(urls.confirm("was_not_sent", { id }), "It was not sent ...")}` : ""}
  </p>`;
};

export const mailPage = (
  mail: Mail,
  files: Told[],
  actions: Done[],
  done: Done | undefined,
  now: Date,
  may_act: boolean,
): Html =>
  html`${doneNote(done, now)}
    <p>
      ${tag(mail.status)}
      ${mail.superseded_by === null ? "" : html`An operator had it ${link(urls.mail(mail.superseded_by), "sent again")}.`}
    </p>
    ${mail.failure_code === "" && mail.failure_message === "" ? "" : html`<p class="card note"><b>${visible(mail.failure_code)}</b>: ${visible(mail.failure_message)}</p>`}
    ${may_act ? actionsFor(mail) : ""}
    <section class="card" aria-label="Facts">
      ${facts([
        ["To", visible(mail.email)],
        ["Says", mail.kind === "pre" ? "that the restore began" : "what became of it"],
        ["Written", time(mail.created_at, now)],
        ["Sent", mail.sent_at && time(mail.sent_at, now)],
        ["Attempts", count(mail.attempts)],
        ["Not tried before", mail.status === "sealed" && mail.attempt_after && time(mail.attempt_after, now)],
        ["Resend's id", mail.resend_id && visible(mail.resend_id)],
        ["Mail", mail.id],
      ])}
    </section>
    <section>
      <h2>Files</h2>
      ${table(
        files.length > PAGE_ROWS ? `The first ${PAGE_ROWS}` : "It tells of these",
        ["file"],
        files.slice(0, PAGE_ROWS).map((file) => [objectLink({ ...file, id: file.restore_id })]),
      )}
    </section>
    <section>
      <h2>What operators did</h2>
      ${actionTable("The newest first", actions, now)}
    </section>`;

export const mailsAsCsv = (list: Mail[]): string =>
  csv([
    ["id", "kind", "email", "status", "created_at", "attempts", "failure_code", "failure_message"],
    ...list.map((mail) => [
      mail.id,
      mail.kind,
      mail.email,
      mail.status,
      mail.created_at,
      mail.attempts,
      mail.failure_code,
      mail.failure_message,
    ]),
  ]);
