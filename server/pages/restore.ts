/** One restore: how it stands, what can be done, and all that happened. */
import { html } from "hono/html";

import { dollars } from "../wording/dollars.ts";
import { size } from "../wording/sizes.ts";
import { clockInWords, expectation } from "../wording/times.ts";
import { actionLink, facts, link, stateWord, table, tag } from "./layout.ts";
import { PAGE_ROWS, type Done, type Mail, type Reader, type Restore, type Step } from "./queries.ts";
import { count, inWords, plain, reason, time, visible, visibleUnlessEmpty, type Html } from "./text.ts";
import { stateOf } from "./restores.ts";
import { isId, urls } from "./urls.ts";

export interface RestoreFacts {
  restore: Restore;
  readers: Reader[];
  mails: Mail[];
  steps: Step[];
  actions: Done[];
  /** The action just done, shown at the top. */
  done: Done | undefined;
}

/** What happens now, in one sentence. */
function nowInWords(restore: Restore, now: Date): Html | string {
  const { closed_at, restore_status, failing_since } = restore;
  if (closed_at !== null && restore.failure_code === "observed")
    return "A policy says only to observe: nothing was restored, and nobody is told.";
  if (restore.is_held)
    return html`S3 is not asked before somebody approves
    it.${restore.hold_id === null ? "" : html` ${link(urls.hold(restore.hold_id), "Why, and who can decide")}`}`;
  if (closed_at !== null) return "This restore is over. The next read of the file opens a new one.";
  switch (restore_status) {
    case "not_started":
      return failing_since === null
        ? "Thaw has not asked S3 yet."
        : html`S3 refuses, or cannot be reached. Thaw tries again ${time(restore.attempt_after, now)}.`;
    case "pending": {
      const expected = expectation(restore, now);
      return `S3 is restoring it. Expected by ${clockInWords(expected.to, now)}.`;
    }
    case "restored":
      return restore.restore_expires_at === null
        ? "It can be read."
        : html`It can be read. The copy ends ${time(restore.restore_expires_at, now)}.`;
    case "failed":
      return "It will not become readable without somebody's help.";
    case "open":
    case "held":
    case "closed":
      return "";
  }
}

const actionsFor = ({ id, restore_status, closed_at, is_held }: Restore): Html | "" =>
  closed_at !== null
    ? ""
    : html`<p class="bar">
        ${is_held ? "" : actionLink(urls.confirm("retry", { id }), "Retry ...")}
        ${restore_status === "not_started" || restore_status === "pending" ? actionLink(urls.confirm("give_up", { id }), "Give up ...") : ""}
      </p>`;

const mailCell = (id: string | null, is_sent: boolean): Html | string =>
  id === null ? "not yet" : link(urls.mail(id), is_sent ? "sent" : "written, not sent");

const readerTable = (list: Reader[], now: Date): Html =>
  table(
    "By name",
    ["reader", "address", "reads", "first read", "told that it began", "told what became of it"],
    list
      .slice(0, PAGE_ROWS)
      .map((reader) => [
        html`${visible(reader.reader)}${reader.principal !== "" && reader.principal !== reader.reader ? html`<br /><small>${visible(reader.principal)}</small>` : ""}`,
        reader.email === null
          ? "nobody known"
          : html`${visible(reader.email)}
              <small>${reader.resolved_by === null ? "" : plain(`by ${reader.resolved_by}`)}</small>`,
        count(reader.read_count),
        time(reader.requested_at, now),
        mailCell(reader.pre_notification_id, reader.pre_notified),
        mailCell(reader.post_notification_id, reader.post_notified),
      ]),
  );

export const mailTable = (caption: string, list: Mail[], now: Date): Html =>
  table(
    caption,
    ["mail", "to", "state", "written", "sent", "trouble"],
    list.map((mail) => [
      link(urls.mail(mail.id), mail.kind === "pre" ? "the restore began" : "what became of it"),
      visible(mail.email),
      html`${tag(mail.status)}${mail.superseded_by === null ? "" : html` <small>${link(urls.mail(mail.superseded_by), "sent again")}</small>`}`,
      time(mail.created_at, now),
      time(mail.sent_at, now),
      reason(mail),
    ]),
  );

const stepTable = (list: Step[], now: Date): Html =>
  table(
    "The newest first",
    ["when", "step", "code", "by"],
    list.map((step) => [
      time(step.at, now),
      html`${step.from_status === null ? "" : html`${stateWord(step.from_status)} → `}${step.from_status === step.to_status ? "trouble" : stateWord(step.to_status)}`,
      visibleUnlessEmpty(step.code),
      visible(step.by),
    ]),
  );

/** Of a hold. */
const DECISIONS = new Set(["approve", "refuse"]);

export const actionTable = (caption: string, list: Done[], now: Date): Html =>
  table(
    caption,
    ["when", "who", "what", "to", "before", "after"],
    list.map((done) => [
      time(done.at, now),
      html`${visible(done.actor)}${done.actor === done.role ? "" : html` <small>by ${visible(done.role)}</small>`}`,
      visible(done.action),
      done.restore_id === null
        ? DECISIONS.has(done.action) && isId(done.target)
          ? link(urls.hold(done.target), visible(done.target))
          : visible(done.target)
        : link(urls.restore(done.restore_id), visible(done.target)),
      html`<small>${visible(inWords(done.before))}</small>`,
      html`<small>${visible(inWords(done.after))}</small>`,
    ]),
  );

/** What was just done, in the words that the function returned. */
export const doneNote = (done: Done | undefined, now: Date): Html | "" =>
  done === undefined
    ? ""
    : html`<p class="card well" role="status">
        <b>Done: ${visible(done.action)}</b>, by ${visible(done.actor)}, ${time(done.at, now)}.
        ${visible(inWords(done.after))}
      </p>`;

export function restorePage(of: RestoreFacts, now: Date, may_act: boolean): Html {
  const { restore } = of;
  const next = of.readers.length > PAGE_ROWS ? of.readers[PAGE_ROWS - 1] : undefined;
  return html`${doneNote(of.done, now)}
    <p>${tag(stateOf(restore))} ${nowInWords(restore, now)}</p>
    ${restore.failure_code === null ? "" : html`<p class="card note"><b>${visible(restore.failure_code)}</b>: ${visible(restore.failure_message ?? "")}${restore.failing_since === null ? "" : html` First ${time(restore.failing_since, now)}.`}</p>`}
    ${may_act ? actionsFor(restore) : ""}
    <section class="card" aria-label="Facts">
      ${facts([
        ["In this state since", time(restore.status_at, now)],
        ["First read", time(restore.created_at, now)],
        ["Accepted by S3", restore.accepted_at && time(restore.accepted_at, now)],
        ["Readable until", restore.restore_expires_at && time(restore.restore_expires_at, now)],
        ["Over since", restore.closed_at && time(restore.closed_at, now)],
        ["Size", restore.size_bytes && size(restore.size_bytes)],
        [
          "Class and tier",
          [restore.storage_class, restore.archive_status, restore.tier]
            .filter((word) => word !== null)
            .map(plain)
            .join(", "),
        ],
        ["Estimated cost", restore.estimated_cost && dollars(restore.estimated_cost)],
        ["Counted for", restore.payer && visible(restore.payer)],
        ["Approval", restore.hold_id && link(urls.hold(restore.hold_id), "Its hold")],
        ["Version", visibleUnlessEmpty(restore.version_id)],
        ["Region", restore.region && plain(restore.region)],
        ["S3 last asked", restore.last_checked_at && time(restore.last_checked_at, now)],
        ["S3 asked next, unless an event comes", restore.ask_after && time(restore.ask_after, now)],
        ["Event to be confirmed", restore.head_wanted_at && time(restore.head_wanted_at, now)],
        [
          "Not taken before",
          restore.attempt_after !== null && restore.attempt_after > now && time(restore.attempt_after, now),
        ],
        ["Attempts since the last progress", restore.attempts === 0 ? null : count(restore.attempts)],
        ["Lost by S3", restore.lost_count === 0 ? null : `${count(restore.lost_count)} times`],
        ["Restore", restore.id],
      ])}
    </section>
    <section>
      <h2>Readers</h2>
      ${readerTable(of.readers, now)}
      ${next === undefined ? "" : html`<p><a class="button" rel="next" href="${urls.restore(restore.id, { readers_after: next.reader })}">More readers</a></p>`}
    </section>
    <section>
      <h2>Mails</h2>
      ${mailTable("Mails to these readers", of.mails, now)}
    </section>
    <section>
      <h2>History</h2>
      ${stepTable(of.steps, now)}
    </section>
    <section>
      <h2>What operators did</h2>
      ${actionTable("The newest first", of.actions, now)}
    </section>`;
}
