import { randomUUID } from "node:crypto";

import { sql } from "kysely";

import type { Database, NotificationKind } from "./database.ts";
import { mailContents } from "./mail_contents.ts";
import type { ClaimedMail } from "./mailer.ts";
import { renderMail } from "./mail/render_mail.ts";
import { walkDue } from "./walk_due.ts";
import { workerContext, type WorkerContext } from "./worker_context.ts";

/** People sealed before their mails go out: the first of a crowd need not wait for the last. */
const SEAL_PAGE = 50;

/** Resend allows a few requests per second for a whole team; more at once only earns refusals. */
const SEND_CONCURRENCY = 2;

/** While Resend wants a pause this short, waiting is quicker than another job. */
const SHORT_PAUSE_SECONDS = 5;

/**
 * Tells people of one kind of news: seals what is due, person by person, then sends what is sealed. Every step
 * can be repeated; what a dead worker left behind, the next run picks up.
 */
export async function notify(kind: NotificationKind, signal: AbortSignal): Promise<void> {
  const context = workerContext();
  let after = "";
  for (;;) {
    const people = await duePeople(context, kind, after);
    for (const person of people) await sealPerson(context, kind, person);
    await sendSealed(context, kind, signal);
    const last = people.at(-1);
    if (last === undefined || signal.aborted) return;
    after = last;
  }
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

/** A person whose mail cannot be rendered is our bug: it is logged, tried again later, and holds up nobody. */
async function sealPerson(context: WorkerContext, kind: NotificationKind, person: string): Promise<void> {
  try {
    await context.db.transaction().execute((trx) => seal(context, trx, kind, person));
  } catch (error) {
    if (!(error instanceof RenderError)) throw error;
    context.log.error({ err: error.cause, kind, person }, "a mail could not be rendered");
  }
}

class RenderError extends Error {
  override name = "RenderError";
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
  let body: string;
  try {
    const { subject, html, text } = renderMail(contents);
    body = JSON.stringify({
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
  } catch (error) {
    throw new RenderError("render", { cause: error });
  }
  await trx.insertInto("notifications").values({ id, kind, email, body }).execute();
}

async function sendSealed(
  context: WorkerContext,
  kind: NotificationKind,
  signal: AbortSignal,
): Promise<void> {
  const { db } = context;
  await walkDue<ClaimedMail>({
    claim: async (limit) => {
      const { rows } = await sql<ClaimedMail>`select * from claim_notifications(${kind}, ${limit})`.execute(
        db,
      );
      return rows;
    },
    work: (mail) => sendOne(context, mail, signal),
    concurrency: SEND_CONCURRENCY,
    signal,
  });
}

async function sendOne(
  { db, mailer, log }: WorkerContext,
  mail: ClaimedMail,
  signal: AbortSignal,
): Promise<void> {
  const answer = await mailer.send(mail, signal);
  const line = { notification_id: mail.id, outcome: answer.outcome };
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
  if (answer.slow_down_seconds > 0) {
    await new Promise((resolve) =>
      setTimeout(resolve, Math.min(answer.slow_down_seconds, SHORT_PAUSE_SECONDS) * 1000),
    );
  }
}
