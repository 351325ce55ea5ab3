import { sql } from "kysely";

import { trustedSessions } from "../config.ts";
import { Batcher } from "../postgres/batch.ts";
import { intervalsOf } from "../postgres/debounce.ts";
import { isBadRow, isLocked } from "../postgres/errors.ts";
import type { S3Object } from "../s3/s3.ts";
import { troubleOf, type Trouble } from "../s3/trouble.ts";
import { withTimeLimit } from "../time_limit.ts";
import type { TaskContext } from "./task.ts";

/** The looks at one object that one HEAD answers (sql/looks.sql). */
interface Looks extends S3Object {
  claim_id: string;
  ids: string[];
}

/** Shorter than for a restore: a read that comes meanwhile waits for the page of looks to end. */
const HEAD_TIMEOUT_MS = 5_000;

/** Of S3_CONCURRENCY, which is also the number of connections: two runs leave half of them to reads and polls. */
const SHARE = 1 / 4;

/** Rows that another session keeps locked, or that Postgres refuses. */
const NOT_HANDED_IN: Trouble = {
  code: "not_handed_in",
  message: "S3 says that the file is archived, and Postgres could not note it. Thaw tries again by itself.",
};

/**
 * Asks S3 about a page of looks: those at archived objects become reads, those at readable ones vanish. Returns how many objects
 * it asked about; 0: no look is due.
 */
export async function askAboutLooks(context: TaskContext, stop: AbortSignal): Promise<number> {
  const { count, db } = context;
  const page = await claim(context);
  if (page.length === 0) return 0;
  count("looks", page.length);

  const handIns = new Batcher((looks: Looks[]) => handIn(context, looks), { batch_size: page.length });
  const needless: string[] = [];
  const troubles: (Trouble & { ids: string[] })[] = [];
  const asked = await Promise.allSettled(
    page.map(async (looks) => {
      const found = await ask(context, looks, stop);
      if (found === "nothing to restore") {
        needless.push(...looks.ids);
        return;
      }
      const trouble = found === "to restore" ? await notHandedIn(context, handIns.push(looks)) : found;
      if (trouble !== undefined) troubles.push({ ...trouble, ids: looks.ids });
      else count("handed_in", looks.ids.length);
    }),
  );

  const claim_id = page[0]?.claim_id;
  if (needless.length > 0) await sql`select drop_looks(${claim_id}, ${needless}::uuid[])`.execute(db);
  if (troubles.length > 0) await noteTroubles(context, claim_id, troubles);
  count("dropped", needless.length);
  // Shutting down, or Postgres is away: their leases end.
  for (const result of asked) if (result.status === "rejected") throw result.reason;
  return page.length;
}

async function claim({ db, settings, worker_id }: TaskContext): Promise<Looks[]> {
  const { rows } = await sql<Looks>`
    select claim_id, ids, s3_bucket, s3_key, version_id, region
      from claim_looks(${Math.ceil(settings.S3_CONCURRENCY * SHARE)}, ${worker_id})`.execute(db);
  return rows;
}

async function ask(
  { s3, log }: TaskContext,
  looks: Looks,
  stop: AbortSignal,
): Promise<"to restore" | "nothing to restore" | Trouble> {
  const { s3_bucket, s3_key, ids } = looks;
  try {
    const { state } = await withTimeLimit(HEAD_TIMEOUT_MS, stop, (signal) => s3.headObject(looks, signal));
    log.debug({ s3_bucket, s3_key, look_ids: ids, state }, "asked S3 about looks");
    return state === "archived" || state === "restoring" ? "to restore" : "nothing to restore";
  } catch (error) {
    // Shutting down: the object is not at fault. Its rows are given back.
    if (stop.aborted) throw error;
    const trouble = troubleOf(error);
    log.info({ s3_bucket, s3_key, look_ids: ids, code: trouble.code }, "cannot ask S3 about looks");
    return trouble;
  }
}

/** In one transaction with their end as looks, so that nothing is handed in twice. */
async function handIn({ db, debounce, settings }: TaskContext, looks: Looks[]): Promise<undefined[]> {
  const ids = looks.flatMap((of) => of.ids);
  await sql`
    select hand_in_looks(${looks[0]?.claim_id}, ${ids}::uuid[], ${intervalsOf(debounce)}::interval[],
                         ${trustedSessions(settings)}::text[])`.execute(db);
  return looks.map(() => undefined);
}

async function notHandedIn({ log }: TaskContext, handedIn: Promise<undefined>): Promise<Trouble | undefined> {
  try {
    return await handedIn;
  } catch (error) {
    if (!isLocked(error) && !isBadRow(error)) throw error;
    log.error({ err: error }, "cannot hand a look in");
    return NOT_HANDED_IN;
  }
}

async function noteTroubles(
  { db, log, count }: TaskContext,
  claim_id: string | undefined,
  troubles: (Trouble & { ids: string[] })[],
): Promise<void> {
  count("trouble", troubles.length);
  const { rows } = await sql<{ id: string; s3_bucket: string; s3_key: string; code: string }>`
    select id, s3_bucket, s3_key, code from note_look_troubles(${claim_id}, ${JSON.stringify(troubles)})`.execute(
    db,
  );
  for (const { id, ...given_up } of rows) {
    log.warn({ look_id: id, ...given_up }, "gave a look up: S3 did not say whether the file is archived");
  }
}
