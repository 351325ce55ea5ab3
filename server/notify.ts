import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import type { JobHelpers } from "graphile-worker";
import { sql } from "kysely";

import type { Database, NotificationKind } from "./database.ts";
import { mailContents } from "./mail/mail_contents.ts";
import type { ClaimedMail } from "./mail/mailer.ts";
import { renderMail } from "./mail/render_mail.ts";
import { fewRuns } from "./few_runs.ts";
import { count } from "./job_counts.ts";
import { isConflict, isTooSlow, isUnavailable } from "./postgres_errors.ts";
import { walkDue } from "./walk_due.ts";
import { workerContext, type WorkerContext } from "./worker_context.ts";

/** People sealed before their mails go out: the first of a crowd need not wait for the last. */
const SEAL_PAGE = 50;

/** Enough to keep Resend's pace while it takes half a second to answer; its limit is kept by the turns. */
const SEND_CONCURRENCY = 5;

/** A person's rows may be in somebody else's hands for a moment. */
const SEAL_TRIES = 3;

/**
 * Tells people of one kind of news: seals what is due, person by person, then sends what is sealed. Every step
 * can be repeated; what a dead worker left behind, the next run picks up.
 */
export function notify(kind: NotificationKind, helpers: JobHelpers): Promise<void> {
  return fewRuns(`${kind}_notify`, 1, helpers, () => tellPeople(workerContext(), kind, helpers.abortSignal));
}

async function tellPeople(
  context: WorkerContext,
  kind: NotificationKind,
  signal: AbortSignal,
): Promise<void> {
  // All of them, or the rest would go out as they were frozen.
  while (!signal.aborted && (await unsealOne(context.db, kind)));
  let after = "";
  for (;;) {
    const people = await duePeople(context, kind, after);
    for (const person of people) {
      if (signal.aborted) return;
      await sealPerson(context, kind, person);
    }
    await sendSealed(context, kind, signal);
    const last = people.at(-1);
    if (last === undefined || signal.aborted) return;
    after = last;
  }
}

async function unsealOne(db: Database, kind: NotificationKind): Promise<boolean> {
  const { rows } = await sql<{
    unsealed: number;
  }>`select unseal_stale_notifications(${kind}) as unsealed`.execute(db);
  return rows[0]?.unsealed !== 0;
}

async function duePeople(
  { db, notify_waits }: WorkerContext,
  kind: NotificationKind,
  after: string,
): Promise<string[]> {
  const [quiet, maxWait] = notify_waits;
  const { rows } = await sql<{ person: string }>`
    select person from due_people(${kind}, ${quiet}::interval, ${maxWait}::interval, ${SEAL_PAGE}, ${after}) person`.execute(
    db,
  );
  return rows.map((row) => row.person);
}

/** Whoever cannot be written to (our bug, or rows that somebody keeps locked) is tried again later, and holds up nobody. */
async function sealPerson(context: WorkerContext, kind: NotificationKind, person: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await context.db.transaction().execute((trx) => seal(context, trx, kind, person));
      return;
    } catch (error) {
      if (isUnavailable(error) && !isTooSlow(error)) throw error;
      if (isConflict(error) && attempt < SEAL_TRIES) continue;
      // Without the address: stuck_requests has it.
      context.log.error({ err: error, kind }, "a mail could not be sealed");
      return;
    }
  }
}

/** Attaches what is due and freezes the mail, in one transaction: the body never changes again. */
async function seal(
  { notify_waits, settings }: WorkerContext,
  trx: Database,
  kind: NotificationKind,
  person: string,
): Promise<void> {
  const id = randomUUID();
  const [quiet, maxWait] = notify_waits;
  const { rows } = await sql<{ announced: number }>`
    select seal_notification(${id}, ${kind}, ${person}, ${quiet}::interval, ${maxWait}::interval) as announced`.execute(
    trx,
  );
  if (rows[0]?.announced === 0) return;

  const { email, contents } = await mailContents(trx, kind, id, person);
  const { subject, html, text } = renderMail(contents);
  const body = JSON.stringify({
    from: settings.MAIL_FROM,
    to: [email],
    subject,
    html,
    text,
    ...(settings.MAIL_REPLY_TO !== undefined && { reply_to: settings.MAIL_REPLY_TO }),
    // Keeps holiday replies away.
    headers: { "Auto-Submitted": "auto-generated" },
    tags: [{ name: "notification_id", value: id }],
  });
  await trx.insertInto("notifications").values({ id, kind, email, body }).execute();
  count("sealed");
}

async function sendSealed(
  context: WorkerContext,
  kind: NotificationKind,
  signal: AbortSignal,
): Promise<void> {
  await walkDue<ClaimedMail>({
    claim: () => claim(context, kind, signal),
    work: (mail) => sendOne(context, mail, signal),
    concurrency: SEND_CONCURRENCY,
    signal,
  });
}

/** Waits for the next turn to call Resend, and claims a mail that is due. */
async function claim(
  { db, worker_id }: WorkerContext,
  kind: NotificationKind,
  signal: AbortSignal,
): Promise<ClaimedMail[]> {
  for (;;) {
    const { rows: turns } = await sql<{ wait_ms: number | null }>`
      select take_mail_turn(${kind}) as wait_ms`.execute(db);
    const wait_ms = turns[0]?.wait_ms ?? null;
    if (wait_ms === null) return [];
    await sleep(wait_ms, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return [];
    const { rows: mails } = await sql<ClaimedMail>`
      select * from claim_notifications(${kind}, 1, ${worker_id}, true)`.execute(db);
    // Else somebody was faster, or the gate has been shut.
    if (mails.length > 0) return mails;
  }
}

async function sendOne(
  { db, mailer, log }: WorkerContext,
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
      break;
    case "uncertain":
      await sql`select note_notification_uncertain(${mail.id}, ${mail.claim_id}, ${answer.code}, ${answer.message})`.execute(
        db,
      );
      log.warn({ ...line, code: answer.code }, "mail");
      break;
    case "gate":
      await sql`select shut_mail_gate(${mail.id}, ${mail.claim_id}, ${mail.uncertain_since_before},
                                      ${`${answer.wait_seconds} seconds`}::interval, ${answer.code}, ${answer.message})`.execute(
        db,
      );
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
