import { randomUUID } from "node:crypto";

import { sql } from "kysely";

import { readNotice, type Notice } from "../mail/notice.ts";
import { renderMail } from "../mail/render.ts";
import type { Database } from "../postgres/rows.ts";
import { attempt, bodyOf } from "./sealing.ts";
import type { TaskContext } from "./task.ts";

/** Notices per page: as many as people (mails.ts). */
const PAGE = 50;

/**
 * Seals what holds and limits give notice of: `held` to a reader who waits, `approval` and `warning` to each of APPROVERS. Returns
 * how many notices were due. `tried`: those that could not be sealed.
 */
export async function sealNotices(
  context: TaskContext,
  tried: string[],
  signal: AbortSignal,
): Promise<number> {
  const { quiet, max_wait } = context.debounce;
  const has_approvers = context.settings.APPROVERS.length > 0;
  const { rows } = await sql<{ id: string }>`
    select id from due_notices(${quiet}::interval, ${max_wait}::interval, ${has_approvers}, ${PAGE}, ${tried}::uuid[]) id`.execute(
    context.db,
  );
  for (const { id } of rows) {
    if (signal.aborted) break;
    const sealed = await attempt(context, "notice", () => seal(context, id));
    if (sealed === undefined) tried.push(id);
    else context.count("sealed", sealed);
  }
  return rows.length;
}

/** Writes the mails of a notice in the transaction that closes it; returns how many. */
async function seal(context: TaskContext, id: string): Promise<number> {
  const { db, settings, debounce } = context;
  return await db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ is_due: boolean }>`
      select seal_notice(${id}, ${debounce.quiet}::interval, ${debounce.max_wait}::interval) as is_due`.execute(
      trx,
    );
    if (rows[0]?.is_due !== true) return 0;
    const notice = await readNotice(trx, id, settings);
    if (notice === null) return 0;
    const mails = (await recipients(trx, id, notice, settings.APPROVERS)).map((email) => {
      const mail_id = randomUUID();
      const body = bodyOf(context, mail_id, email, renderMail(notice.contents));
      return { id: mail_id, kind: notice.contents.kind, email, body, notice_id: id };
    });
    if (mails.length > 0) await trx.insertInto("notifications").values(mails).execute();
    return mails.length;
  });
}

/** Who has no mail of it yet: one that went stale was taken back, and the others may have been sent. */
async function recipients(
  trx: Database,
  id: string,
  { email }: Notice,
  approvers: string[],
): Promise<string[]> {
  const { rows } = await sql<{ person: string }>`
    select lower(email) as person from notifications where notice_id = ${id}`.execute(trx);
  const told = new Set(rows.map(({ person }) => person));
  return (email === null ? approvers : [email]).filter((one) => !told.has(one.toLowerCase()));
}
