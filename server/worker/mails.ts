import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import type { JobHelpers } from "graphile-worker";
import { sql } from "kysely";

import type { Database, NotificationKind } from "../postgres/rows.ts";
import { mailContents } from "../mail/contents.ts";
import { senderOf, type ClaimedMail } from "../mail/resend.ts";
import { renderMail } from "../mail/render.ts";
import { fewRuns } from "./few_runs.ts";
import { count } from "./job_counts.ts";
import { isConflict, isTooSlow, isUnavailable } from "../postgres/errors.ts";
import { walkDue } from "./walk_due.ts";
import { workerContext, type WorkerContext } from "./task.ts";

/** People sealed while as many mails go out: neither waits long for the other, and a mail is seldom older than its page. */
const PAGE = 50;

/** Two transactions at once keep Postgres at work while we render; more would take connections from those who send. */
const SEAL_CONCURRENCY = 2;

/** Enough to keep Resend's pace while it takes half a second to answer; its limit is kept by the turns. */
const SEND_CONCURRENCY = 5;

/** No turn is taken further ahead; until then we ask again, so that an operator's word on the gate counts at once. */
const TURN_WITHIN_MS = 1_000;

/** A person's rows may be in somebody else's hands for a moment. */
const SEAL_TRIES = 3;

/**
 * Tells people of one kind of news: seals what is due, those who have waited longest first, and sends what is sealed. Every
 * step can be repeated; what a dead worker left behind, the next run picks up.
 */
export function notify(kind: NotificationKind, helpers: JobHelpers): Promise<void> {
  return fewRuns(`${kind}_notify`, 1, helpers, () => tellPeople(workerContext(), kind, helpers.abortSignal));
}

async function tellPeople(
  context: WorkerContext,
  kind: NotificationKind,
  signal: AbortSignal,
): Promise<void> {
  await markReaders(context.db, kind, signal);
  // All of them, or the rest would go out as they were frozen.
  while (!signal.aborted && (await unsealPage(context, kind)));
  for (const id of await unfinished(context.db, kind))
    await attempt(context, kind, () => finish(context, id));

  const tried: string[] = [];
  for (let over = false; !over && !signal.aborted;) {
    // The next page is sealed while the last goes out.
    const [sealing, sending] = await Promise.allSettled([
      sealPage(context, kind, tried, signal),
      sendSealed(context, kind, PAGE, signal),
    ]);
    for (const result of [sealing, sending]) if (result.status === "rejected") throw result.reason;
    over = sealing.status === "fulfilled" && sealing.value === 0;
  }
  await sendSealed(context, kind, Infinity, signal);
}

async function unsealPage({ db, settings }: WorkerContext, kind: NotificationKind): Promise<boolean> {
  const { rows } = await sql<{ unsealed: number }>`
    select unseal_stale_notifications(${kind}, ${settings.MAIL_FROM}) as unsealed`.execute(db);
  return rows[0]?.unsealed !== 0;
}

async function unfinished(db: Database, kind: NotificationKind): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`select id from unfinished_notifications(${kind}) id`.execute(db);
  return rows.map((row) => row.id);
}

/** Seals those who have waited longest, and answers how many people that are. `tried` keeps whom nothing could be sealed for. */
async function sealPage(
  context: WorkerContext,
  kind: NotificationKind,
  tried: string[],
  signal: AbortSignal,
): Promise<number> {
  const [quiet, maxWait] = context.notify_waits;
  const { rows } = await sql<{ person: string }>`
    select person from due_people(${kind}, ${quiet}::interval, ${maxWait}::interval, ${PAGE}, '', ${tried}::text[]) person`.execute(
    context.db,
  );
  const people = rows.map((row) => row.person);
  await walkDue<string>({
    claim: (limit) => Promise.resolve(people.splice(0, limit)),
    work: async (person) => {
      if ((await attempt(context, kind, () => seal(context, kind, person))) !== true) tried.push(person);
    },
    concurrency: SEAL_CONCURRENCY,
    signal,
  });
  return rows.length;
}

/** Whoever cannot be written to (our bug, or rows that somebody keeps locked) is tried again later, and holds up nobody. */
async function attempt<T>(
  context: WorkerContext,
  kind: NotificationKind,
  work: () => Promise<T>,
): Promise<T | undefined> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (isUnavailable(error) && !isTooSlow(error)) throw error;
      if (isConflict(error) && attempt < SEAL_TRIES) continue;
      // Without the address: stuck_requests has it.
      context.log.error({ err: error, kind }, "a mail could not be sealed");
      return undefined;
    }
  }
}

/**
 * Attaches what is due and freezes the mail: the body never changes again. In one transaction, unless that would lock more
 * than a page of requests: then it is written page by page. Answers whether there was anything to tell.
 */
async function seal(context: WorkerContext, kind: NotificationKind, person: string): Promise<boolean> {
  const id = randomUUID();
  const [quiet, maxWait] = context.notify_waits;
  const page = await context.db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ announced: number; is_full: boolean }>`
      select * from seal_page(${id}, ${kind}, ${person}, ${quiet}::interval, ${maxWait}::interval)`.execute(
      trx,
    );
    const { announced = 0, is_full = false } = rows[0] ?? {};
    if (announced > 0) {
      const mail = is_full ? { email: person, body: null } : await written(context, trx, kind, id, person);
      await trx
        .insertInto("notifications")
        .values({ id, kind, email: mail.email, body: mail.body })
        .execute();
    }
    return { announced, is_full };
  });
  if (page.announced > 0) count("sealed");
  if (page.announced > 0 && page.is_full) await finish(context, id);
  // A full page that an earlier mail had told: there may be more behind it.
  return page.announced > 0 || page.is_full;
}

/** Attaches the rest of a mail that is being written, a page at a time, and freezes it. */
async function finish(context: WorkerContext, id: string): Promise<void> {
  const { db } = context;
  for (let frozen = false; !frozen;) {
    for (let more = true; more;) {
      const { rows } = await sql<{ attached: number }>`select seal_more(${id}) as attached`.execute(db);
      more = rows[0]?.attached !== 0;
    }
    const { rows: unwritten } = await sql<{ kind: NotificationKind; person: string }>`
      select kind, lower(email) as person from notifications
       where id = ${id} and body is null and created_at > now() - mail_stays_fresh()`.execute(db);
    const [mail] = unwritten;
    // Another worker was faster, or it grew old meanwhile.
    if (mail === undefined) return;
    // Nothing is locked, so one look at everything.
    const { email, body, request_count } = await db
      .transaction()
      .setIsolationLevel("repeatable read")
      .execute((trx) => written(context, trx, mail.kind, id, mail.person));
    const { rows } = await sql<{ frozen: boolean }>`
      select freeze_notification(${id}, ${email}, ${body}, ${request_count}) as frozen`.execute(db);
    frozen = rows[0]?.frozen === true;
  }
}

/** The mail as Resend gets it, of all that is attached to it by now. */
async function written(
  { settings }: WorkerContext,
  trx: Database,
  kind: NotificationKind,
  id: string,
  person: string,
): Promise<{ email: string; body: string; request_count: number }> {
  const { email, request_count, contents } = await mailContents(trx, kind, id, person);
  const { subject, html, text } = renderMail(contents);
  const body = JSON.stringify({
    ...senderOf(settings),
    to: [email],
    subject,
    html,
    text,
    // Keeps holiday replies away.
    headers: { "Auto-Submitted": "auto-generated" },
    tags: [{ name: "notification_id", value: id }],
  });
  return { email, body, request_count };
}

/** Marks the readers of mails that are sent, page by page: also those that a dead worker did not come to. */
async function markReaders(db: Database, kind: NotificationKind, signal: AbortSignal): Promise<void> {
  for (let more = true; more && !signal.aborted;) {
    const { rows } = await sql<{ more: boolean }>`select mark_more_readers(${kind}) as more`.execute(db);
    more = rows[0]?.more === true;
  }
}

/** Sends what is sealed, at most `limit` mails. */
async function sendSealed(
  context: WorkerContext,
  kind: NotificationKind,
  limit: number,
  signal: AbortSignal,
): Promise<void> {
  let left = limit;
  await walkDue<ClaimedMail>({
    claim: () => (left-- > 0 ? claim(context, kind, signal) : Promise.resolve([])),
    work: (mail) => sendOne(context, kind, mail, signal),
    concurrency: SEND_CONCURRENCY,
    signal,
  });
}

/** Waits for the next turn to call Resend, and claims a mail that is due. */
async function claim(
  { db, worker_id, settings }: WorkerContext,
  kind: NotificationKind,
  signal: AbortSignal,
): Promise<ClaimedMail[]> {
  for (;;) {
    const { rows: turns } = await sql<{ wait_ms: number | null }>`
      select take_mail_turn(${kind}, ${settings.MAIL_FROM}, ${`${TURN_WITHIN_MS} milliseconds`}::interval) as wait_ms`.execute(
      db,
    );
    const wait_ms = turns[0]?.wait_ms ?? null;
    if (wait_ms === null) return [];
    await sleep(Math.min(wait_ms, TURN_WITHIN_MS), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return [];
    if (wait_ms > TURN_WITHIN_MS) continue;
    const { rows: mails } = await sql<ClaimedMail>`
      select * from claim_notifications(${kind}, 1, ${worker_id}, true, ${settings.MAIL_FROM})`.execute(db);
    // Else somebody was faster, or the gate has been shut.
    if (mails.length > 0) return mails;
  }
}

async function sendOne(
  { db, mailer, log, settings }: WorkerContext,
  kind: NotificationKind,
  mail: ClaimedMail,
  signal: AbortSignal,
): Promise<void> {
  const answer = await mailer.send(mail, signal);
  const line = { notification_id: mail.id, outcome: answer.outcome };
  count(answer.outcome);
  switch (answer.outcome) {
    case "sent":
      await sql`select mark_notification_sent(${mail.id}, ${answer.resend_id})`.execute(db);
      log.info({ ...line, resend_id: answer.resend_id }, "mail");
      // Nothing is lost when we die between two pages: it is sent, and the next run goes on.
      await markReaders(db, kind, signal);
      break;
    case "refused":
      await sql`select note_notification_refused(${mail.id}, ${mail.claim_id}, ${mail.uncertain_since_before}, ${answer.code}, ${answer.message})`.execute(
        db,
      );
      log.warn({ ...line, code: answer.code }, "mail");
      break;
    case "uncertain":
      await sql`select note_notification_uncertain(${mail.id}, ${mail.claim_id}, ${answer.code}, ${answer.message})`.execute(
        db,
      );
      log.warn({ ...line, code: answer.code }, "mail");
      break;
    case "gate":
      await sql`select shut_mail_gate(${mail.id}, ${mail.claim_id}, ${mail.uncertain_since_before},
                                      ${`${answer.wait_seconds} seconds`}::interval, ${answer.code}, ${answer.message},
                                      ${answer.for_sender ? settings.MAIL_FROM : null})`.execute(db);
      log.warn({ ...line, code: answer.code, wait_seconds: answer.wait_seconds }, "mail");
      break;
    case "failed":
    case "unknown":
      await sql`select mark_notification_undeliverable(${mail.id}, ${answer.outcome}, ${answer.code}, ${answer.message})`.execute(
        db,
      );
      log.error({ ...line, code: answer.code }, "mail");
      break;
  }
  if (answer.calls_per_second !== null && answer.calls_per_second !== mail.calls_per_second) {
    await sql`select note_mail_limit(${answer.calls_per_second})`.execute(db);
  }
}
