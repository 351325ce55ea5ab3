import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { sql } from "kysely";

import type { Database, NewsKind } from "../postgres/rows.ts";
import { mailContents } from "../mail/contents.ts";
import type { ClaimedMail } from "../mail/resend.ts";
import { renderMail } from "../mail/render.ts";
import { sealNotices } from "./notices.ts";
import { attempt, bodyOf } from "./sealing.ts";
import { walkDue } from "./walk_due.ts";
import type { TaskContext } from "./task.ts";

/** People per page: one page is sealed while the last is sent. Small enough that neither waits long, and mails go out fresh. */
const PAGE = 50;

/** With two transactions Postgres works while we render; more would take connections from those that send. */
const SEAL_CONCURRENCY = 2;

/** Enough to use Resend's rate limit while it takes half a second per answer; take_mail_turn keeps within the limit. */
const SEND_CONCURRENCY = 5;

/** No turn is reserved further ahead. A later one is asked for again, so that it counts at once when an operator opens the gate. */
const TURN_WITHIN_MS = 1_000;

/**
 * Tells people one kind of news: seals what is due, for those who have waited longest first, and sends what is sealed. With `pre`
 * go the mails about holds and limits: nothing is restored yet, or will be without somebody. Every
 * step can be repeated: the next run picks up what a dead worker left behind.
 */
export async function tellPeople(context: TaskContext, kind: NewsKind, signal: AbortSignal): Promise<void> {
  await markReaders(context.db, kind, signal);
  // All of them: a stale mail that is left would go out with its old body.
  while (!signal.aborted && (await unsealPage(context, kind)));
  for (const id of await unfinished(context.db, kind))
    await attempt(context, kind, () => finish(context, id));

  const tried: string[] = [];
  const triedNotices: string[] = [];
  for (let over = false; !over && !signal.aborted;) {
    // Seals the next page while the last is sent.
    const [sealing, sending] = await Promise.allSettled([
      sealPage(context, kind, tried, signal).then(
        async (due) => due + (kind === "pre" ? await sealNotices(context, triedNotices, signal) : 0),
      ),
      sendSealed(context, kind, PAGE, signal),
    ]);
    for (const result of [sealing, sending]) if (result.status === "rejected") throw result.reason;
    over = sealing.status === "fulfilled" && sealing.value === 0;
  }
  await sendSealed(context, kind, Infinity, signal);
}

async function unsealPage({ db, settings }: TaskContext, kind: NewsKind): Promise<boolean> {
  const { rows } = await sql<{ unsealed: number }>`
    select unseal_stale_notifications(${kind}, ${settings.MAIL_FROM}) as unsealed`.execute(db);
  return rows[0]?.unsealed !== 0;
}

async function unfinished(db: Database, kind: NewsKind): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`select id from unfinished_notifications(${kind}) id`.execute(db);
  return rows.map((row) => row.id);
}

/** Seals mails for the people who have waited longest. Returns how many were due. `tried`: those for whom nothing was sealed. */
async function sealPage(
  context: TaskContext,
  kind: NewsKind,
  tried: string[],
  signal: AbortSignal,
): Promise<number> {
  const { quiet, max_wait } = context.debounce;
  const { rows } = await sql<{ person: string }>`
    select person from due_people(${kind}, ${quiet}::interval, ${max_wait}::interval, ${PAGE}, '', ${tried}::text[]) person`.execute(
    context.db,
  );
  const people = rows.map((row) => row.person);
  context.count("claimed", people.length);
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

/**
 * Attaches what is due and freezes the mail: its body never changes again. In one transaction, unless that would lock more
 * than a page of requests: then page by page. Returns whether there was anything to tell.
 */
async function seal(context: TaskContext, kind: NewsKind, person: string): Promise<boolean> {
  const id = randomUUID();
  const { quiet, max_wait } = context.debounce;
  const page = await context.db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ announced: number; is_full: boolean }>`
      select * from seal_page(${id}, ${kind}, ${person}, ${quiet}::interval, ${max_wait}::interval)`.execute(
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
  if (page.announced > 0) context.count("sealed");
  if (page.announced > 0 && page.is_full) await finish(context, id);
  // A full page of which all was in an earlier mail: there may be more behind it.
  return page.announced > 0 || page.is_full;
}

/** Attaches the rest of a mail that is being written, a page at a time, and freezes it. */
async function finish(context: TaskContext, id: string): Promise<void> {
  const { db } = context;
  for (let frozen = false; !frozen;) {
    for (let more = true; more;) {
      const { rows } = await sql<{ attached: number }>`select seal_more(${id}) as attached`.execute(db);
      more = rows[0]?.attached !== 0;
    }
    const { rows: unwritten } = await sql<{ kind: NewsKind; person: string }>`
      select kind, lower(email) as person from notifications
       where id = ${id} and body is null and created_at > now() - mail_stays_fresh()`.execute(db);
    const [mail] = unwritten;
    // Another worker was faster, or the mail became stale meanwhile.
    if (mail === undefined) return;
    // Nothing is locked, so all is read from one snapshot.
    const { email, body, request_count } = await db
      .transaction()
      .setIsolationLevel("repeatable read")
      .execute((trx) => written(context, trx, mail.kind, id, mail.person));
    const { rows } = await sql<{ frozen: boolean }>`
      select freeze_notification(${id}, ${email}, ${body}, ${request_count}) as frozen`.execute(db);
    frozen = rows[0]?.frozen === true;
  }
}

/** The mail as Resend gets it, about all that is attached to it by now. */
async function written(
  context: TaskContext,
  trx: Database,
  kind: NewsKind,
  id: string,
  person: string,
): Promise<{ email: string; body: string; request_count: number }> {
  const { APPROVERS } = context.settings;
  const { email, request_count, contents } = await mailContents(trx, kind, id, person, APPROVERS);
  return { email, body: bodyOf(context, id, email, renderMail(contents)), request_count };
}

/** Marks the readers of sent mails as told, page by page, including those that a dead worker left unmarked. */
async function markReaders(db: Database, kind: NewsKind, signal: AbortSignal): Promise<void> {
  for (let more = true; more && !signal.aborted;) {
    const { rows } = await sql<{ more: boolean }>`select mark_more_readers(${kind}) as more`.execute(db);
    more = rows[0]?.more === true;
  }
}

/** Sends what is sealed, at most `limit` mails. */
async function sendSealed(
  context: TaskContext,
  kind: NewsKind,
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
  { db, worker_id, settings, count }: TaskContext,
  kind: NewsKind,
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
    count("claimed", mails.length);
    // None: another worker was faster, or the gate has been shut.
    if (mails.length > 0) return mails;
  }
}

async function sendOne(
  { db, mailer, log, settings, count }: TaskContext,
  kind: NewsKind,
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
      // If we die between two pages nothing is lost: the mail is sent, and the next run goes on marking.
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
