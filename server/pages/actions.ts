/**
 * What can be done. A link leads to a page that says what will happen; its form is a POST, which calls the same function as psql and
 * `npm run thaw`, in the name of the person who signed in.
 */
import { html } from "hono/html";
import type { Pool } from "pg";

import { hold, type Hold } from "./cost_queries.ts";
import { holdInWords, holdTag } from "./holds.ts";
import { link, stateWord, tag } from "./layout.ts";
import { gateFacts } from "./overview.ts";
import { notFound, PageProblem } from "./problem.ts";
import {
  act,
  BULK_LIMIT,
  databaseTime,
  gate,
  mailsById,
  matchingMails,
  matchingRestores,
  mayBeResent,
  restore,
  stuckRestores,
  type Mail,
  type Restore,
} from "./queries.ts";
import { isAboutS3, objectLink, stateOf } from "./restores.ts";
import { plain, things, visible, type Html } from "./text.ts";
import { isId, isListState, parseDay, urls } from "./urls.ts";

/** What a form or an address says; unchecked. */
export type Given = Record<string, string | undefined>;

interface Confirmation {
  title: string;
  /** What it is done to. */
  subject: Html;
  will: string[];
  /** What the form sends. */
  fields: [string, string][];
  button: string;
}

export interface Outcome {
  /** What the function returned. */
  said: string;
  /** Where to look at it. */
  to: string;
}

interface Action {
  confirm(pool: Pool, given: Given, now: Date, may_act: boolean): Promise<Confirmation>;
  run(pool: Pool, given: Given, actor: string): Promise<Outcome>;
}

const idOf = ({ id }: Given): string => {
  if (id === undefined || !isId(id)) throw notFound();
  return id;
};

async function theRestore(pool: Pool, given: Given): Promise<Restore> {
  const found = await restore(pool, idOf(given));
  if (found === undefined) throw notFound();
  return found;
}

async function theMail(pool: Pool, given: Given): Promise<Mail> {
  const [found] = await mailsById(pool, [idOf(given)]);
  if (found === undefined) throw notFound();
  return found;
}

/** Nothing was written: the function said why. */
const nothingDone = (said: string | undefined): PageProblem =>
  new PageProblem(409, "Nothing was done", said ?? "Nothing matches any more.");

/** The state that the page named which was confirmed. */
const confirmedState = ({ status }: Given): Record<string, string> =>
  status === undefined ? {} : { status };

const onRestore = (title: string, button: string, call: string, will: (of: Restore) => string[]): Action => ({
  async confirm(pool, given) {
    const found = await theRestore(pool, given);
    return {
      title,
      subject: html`<p>${objectLink(found)} ${tag(stateOf(found))}</p>`,
      will: will(found),
      fields: [
        ["id", found.id],
        ["status", found.restore_status],
      ],
      button,
    };
  },
  async run(pool, given, actor) {
    const id = idOf(given);
    const {
      said,
      actions: [action],
    } = await act(pool, actor, call, [id], confirmedState(given));
    if (action === undefined) throw nothingDone(said[0]);
    return { said: said[0] ?? "", to: urls.restore(id, { done: action }) };
  },
});

const onMail = (title: string, button: string, call: string, will: string[]): Action => ({
  async confirm(pool, given) {
    const mail = await theMail(pool, given);
    return {
      title,
      subject: html`<p>
        ${link(urls.mail(mail.id), "The mail")} to ${visible(mail.email)} ${tag(mail.status)}
      </p>`,
      will,
      fields: [
        ["id", mail.id],
        ["status", mail.status],
      ],
      button,
    };
  },
  async run(pool, given, actor) {
    const id = idOf(given);
    // resolve_notification, false: it leaves a second row, of the mail that goes out again.
    const {
      said,
      actions: [action],
    } = await act(pool, actor, call, [id], confirmedState(given));
    if (action === undefined) throw nothingDone(said[0]);
    return { said: said[0] ?? "", to: urls.mail(id, { done: action }) };
  },
});

async function theHold(pool: Pool, given: Given): Promise<Hold> {
  const found = await hold(pool, idOf(given));
  if (found === undefined) throw notFound();
  return found;
}

/** `seen`: how many objects the person saw who decides. */
const onHold = (
  title: string,
  button: string,
  callOf: (id: string, seen: number) => [call: string, values: unknown[]],
  will: string[],
): Action => ({
  async confirm(pool, given) {
    const found = await theHold(pool, given);
    return {
      title,
      subject: html`<p>
          ${link(urls.hold(found.id), visible(found.person))} ${holdTag(found)} <b>${holdInWords(found)}</b>.
        </p>
        <p>Held, because it is ${visible(found.reason)}.</p>`,
      will: found.status === "open" ? will : ["Nothing: it is decided already."],
      fields: [
        ["id", found.id],
        ["seen", String(found.objects)],
      ],
      button,
    };
  },
  async run(pool, given, actor) {
    const id = idOf(given);
    const seen = /^\d{1,15}$/.test(given["seen"] ?? "") ? Number(given["seen"]) : 0;
    const {
      said,
      actions: [action],
    } = await act(pool, actor, ...callOf(id, seen));
    if (action === undefined) throw nothingDone(said[0]);
    return { said: said[0] ?? "", to: urls.hold(id, { done: action }) };
  },
});

const retryWill = (of: Restore): string[] => {
  if (of.closed_at !== null)
    return ["Nothing: this restore is over. The next read of the file opens a new one."];
  if (of.is_held) return ["Nothing: this restore waits for approval. Approve or refuse its hold."];
  switch (of.restore_status) {
    case "not_started":
      return [
        "S3 is asked again at once, instead of after the backoff.",
        "The 24 hours after which Thaw gives up begin anew.",
      ];
    case "pending":
      return ["S3 is asked at once how far it is. The restore goes on; it costs nothing more."];
    case "restored":
      return ["S3 is asked at once whether the file is still readable."];
    default:
      return [
        "A new restore begins. S3 charges for it, unless the file is readable already.",
        "All its readers are told by mail what becomes of it.",
      ];
  }
};

/** What a bulk action is for: all restores or mails of a list, or the restores behind a problem. */
interface Bulk {
  thing: "restore" | "mail";
  words: Html | string;
  fields: [string, string][];
  back: string;
  ids(pool: Pool): Promise<string[]>;
}

function manyRestores(given: Given): Bulk {
  const { problem, state } = given;
  if (problem !== undefined && problem !== "") {
    if (!isAboutS3(problem) || plain(problem) !== problem) throw notFound();
    return {
      thing: "restore",
      words: html`stuck, because: ${visible(problem)}`,
      fields: [["problem", problem]],
      back: urls.stuck(problem),
      ids: (pool) => stuckRestores(pool, problem),
    };
  }
  if (state === undefined || !isListState(state) || state === "closed" || state === "held") throw notFound();
  const query = { state, from: parseDay(given["from"]), to: parseDay(given["to"]) };
  return {
    thing: "restore",
    words: `${state === "open" ? "open" : stateWord(state)}${query.from ? ` since ${query.from}` : ""}${query.to ? ` until ${query.to}` : ""}`,
    fields: Object.entries(query).flatMap(([name, value]): [string, string][] =>
      value ? [[name, value]] : [],
    ),
    back: urls.restores(query),
    ids: (pool) => matchingRestores(pool, query, given["as_of"]),
  };
}

function manyMails({ status }: Given): Bulk {
  if (!mayBeResent(status)) throw notFound();
  return {
    thing: "mail",
    words: tag(status),
    fields: [["status", status]],
    back: urls.mails(status),
    ids: (pool) => matchingMails(pool, status),
  };
}

/** Short transactions: each locks its rows until it ends. */
const CHUNK = 50;

/** A chunk in the order in which everybody locks restores (lock_restores), or there could be a deadlock with a worker. */
const inOrder = (call: string, where: string): string =>
  `select ${call}(o.id) as said
     from (select r.id from restore_details r where r.id = any ($1::uuid[]) ${where}
            order by r.s3_bucket, r.s3_key, r.version_id, r.id offset 0) o`;

const onMany = (
  bulkOf: (given: Given) => Bulk,
  title: (what: string) => string,
  call: string,
  will: string[],
): Action => ({
  async confirm(pool, given) {
    const bulk = bulkOf(given);
    const as_of = await databaseTime(pool);
    const found = await bulk.ids(pool);
    const n = Math.min(found.length, BULK_LIMIT);
    if (n === 0) throw nothingDone(undefined);
    return {
      title: `${title(things(n, bulk.thing))}?`,
      subject: html`<p>
        ${link(bulk.back, `The ${bulk.thing}s`)} that are ${bulk.words}:
        <b
          >${found.length > BULK_LIMIT ? `more than ${BULK_LIMIT}; the oldest ${BULK_LIMIT} are done at once` : things(n, bulk.thing)}</b
        >.
      </p>`,
      will: [
        ...will,
        "They are counted again when you confirm. What has come into this state since now is left out; if more match all the same, nothing is done, and you are asked again.",
      ],
      fields: [...bulk.fields, ["count", String(n)], ["as_of", as_of]],
      button: title(things(n, bulk.thing)),
    };
  },
  async run(pool, given, actor) {
    const bulk = bulkOf(given);
    const ids = (await bulk.ids(pool)).slice(0, BULK_LIMIT);
    const expected = /^\d{1,6}$/.test(given["count"] ?? "") ? Number(given["count"]) : 0;
    if (ids.length > expected) {
      throw new PageProblem(
        409,
        "Nothing was done",
        `Now ${things(ids.length, bulk.thing)} match; the page that you confirmed said ${expected}. Look at the list again.`,
      );
    }
    let done = 0;
    let last: string | undefined;
    for (let from = 0; from < ids.length; from += CHUNK) {
      const { actions } = await act(pool, actor, call, [ids.slice(from, from + CHUNK)]).catch(
        (error: unknown) => {
          if (done === 0) throw error;
          throw new PageProblem(
            503,
            "Only a part was done",
            `${done} of ${ids.length} are done, and in the list of actions. Then it failed: do the same again for the others.`,
          );
        },
      );
      // One for each: what somebody else has done meanwhile leaves none.
      done += actions.length;
      last = actions[0] ?? last;
    }
    if (last === undefined) throw nothingDone(undefined);
    return { said: things(done, bulk.thing), to: urls.actions({ done: last }) };
  },
});

export const ACTIONS: Record<string, Action> = {
  retry: onRestore("Retry this restore?", "Retry", "select retry_restore($1) as said", retryWill),
  give_up: onRestore("Give this restore up?", "Give up", "select give_up_restore($1) as said", (of) =>
    of.closed_at === null && (of.restore_status === "not_started" || of.restore_status === "pending")
      ? [
          "Thaw stops asking S3, and the restore has failed. What S3 has accepted goes on there, and is paid for.",
          "All its readers are told by mail that an administrator ended it.",
        ]
      : ["Nothing: it is not under way."],
  ),
  resend: onMail(
    "Send this mail again?",
    "Send again",
    "select 'sent again, as ' || resend_notification($1) as said",
    [
      "The same text goes out once more, under a new id. Resend cannot know that it is the same: if the first one arrived, the person gets it twice.",
    ],
  ),
  was_sent: onMail(
    "Was this mail sent?",
    "Yes, it was sent",
    "select resolve_notification($1, true) as said",
    ["It is noted as sent, and does not go out again. Look in Resend's log first."],
  ),
  was_not_sent: onMail(
    "Was this mail not sent?",
    "Send it now",
    "select resolve_notification($1, false) as said",
    [
      "It goes out once more, under a new id. Look in Resend's log first: if it was sent after all, the person gets it twice.",
    ],
  ),
  approve: onHold(
    "Approve these restores?",
    "Approve",
    // Without a name, as the actor of this transaction.
    (id, seen) => ["select approve_hold($1, '', $2) as said", [id, seen]],
    [
      "All of it is restored, beyond the limit, and counted. AWS charges for it.",
      "If it has grown by then, nothing is done, and you are asked again.",
    ],
  ),
  refuse: onHold(
    "Refuse these restores?",
    "Refuse",
    // However much it has grown: nothing is spent.
    (id) => ["select refuse_hold($1, '') as said", [id]],
    ["Nothing of it is restored: the restores have failed, and all their readers are told by mail."],
  ),
  open_gate: {
    async confirm(pool, _given, now) {
      const found = await gate(pool);
      if (found === undefined) throw notFound();
      return {
        title: "Open the mail gate?",
        subject: gateFacts(found, now, false),
        will: [
          "Mail goes out again at once. If the reason is still there, the next refusal closes the gate again.",
        ],
        // Not another closing: somebody may hold mail back on purpose by now.
        fields: found.closed_until_text === null ? [] : [["closed_until", found.closed_until_text]],
        button: "Open the gate",
      };
    },
    async run(pool, { closed_until }, actor) {
      const {
        said,
        actions: [action],
      } = await act(
        pool,
        actor,
        "select open_mail_gate() as said",
        [],
        closed_until === undefined ? {} : { closed_until },
      );
      if (action === undefined) throw nothingDone(said[0]);
      return { said: said[0] ?? "", to: urls.actions({ done: action }) };
    },
  },
  retry_all: onMany(manyRestores, (what) => `Retry ${what}`, inOrder("retry_restore", ""), [
    "Of each that waits, S3 is asked at once. For each that failed a new restore begins: S3 charges for it, and its readers are told.",
  ]),
  give_up_all: onMany(
    manyRestores,
    (what) => `Give up ${what}`,
    inOrder("give_up_restore", "and r.closed_at is null and r.restore_status in ('not_started', 'pending')"),
    [
      "Thaw stops asking S3, and the restores have failed. All their readers are told by mail that an administrator ended them.",
    ],
  ),
  resend_all: onMany(
    manyMails,
    (what) => `Send ${what} again`,
    `select 'sent again, as ' || resend_notification(m.id) as said from unsent_mails m
      where m.id = any ($1::uuid[]) and m.status in ('failed', 'unknown')`,
    [
      "The same text of each goes out once more, under a new id. Resend cannot know that it is the same: whoever got the first one gets it twice. Of mails that were perhaps sent, look in Resend's log first.",
    ],
  ),
};

export const confirmPage = (name: string, of: Confirmation): Html =>
  html`${of.subject}
    <p><b>What will happen:</b></p>
    <ul>
      ${of.will.map((line) => html`<li>${line}</li>`)}
    </ul>
    <form method="post" action="${urls.act(name)}">
      ${of.fields.map(([field, value]) => html`<input type="hidden" name="${field}" value="${value}" />`)}
      <p class="bar">
        <button class="act">${plain(of.button)}</button> ${link(urls.overview(), "Do nothing")}
      </p>
    </form>`;
