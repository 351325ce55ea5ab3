import { sql } from "kysely";

import type { TaskContext } from "./task.ts";

/** Restores closed per statement: it holds its locks for 10 to 20 ms. */
const CLOSE_PAGE = 100;

/** Restores deleted per statement, and statements per run: years of history go over several days; nobody waits for it. */
const FORGET_PAGE = 100;
const FORGET_PAGES = 1000;

/** Closes restores that are over, then deletes jobs that failed for good and what is older than RETENTION_DAYS. */
export async function sweep(context: TaskContext, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && (await closeFinished(context)) > 0);
  await sql`select forget_failed_jobs(), add_totals_up(), add_costs_up()`.execute(context.db);
  await forgetOld(context, signal);
}

async function closeFinished({ db, count }: TaskContext): Promise<number> {
  const { rows } = await sql<{ closed: number }>`
    select close_finished_restores(${CLOSE_PAGE}) as closed`.execute(db);
  const closed = rows[0]?.closed ?? 0;
  count("closed", closed);
  return closed;
}

async function forgetOld({ db, settings, count }: TaskContext, signal: AbortSignal): Promise<void> {
  if (settings.RETENTION_DAYS === undefined) return;
  const age = `${settings.RETENTION_DAYS} days`;
  for (let page = 0; page < FORGET_PAGES && !signal.aborted; page++) {
    const { rows } = await sql<{ forgotten: number }>`
      select forget_old_restores(${age}::interval, ${FORGET_PAGE}) as forgotten`.execute(db);
    const forgotten = rows[0]?.forgotten ?? 0;
    count("forgotten", forgotten);
    if (forgotten < FORGET_PAGE) break;
  }
  for (let page = 0; page < FORGET_PAGES && !signal.aborted; page++) {
    const { rows } = await sql<{ forgotten: number }>`
      select forget_old_holds(${age}::interval, ${FORGET_PAGE}) as forgotten`.execute(db);
    if ((rows[0]?.forgotten ?? 0) < FORGET_PAGE) break;
  }
  await sql`select forget_old_actions(${age}::interval)`.execute(db);
}
