/** The database as commands use it: one connection, the actor of what is changed, and ids as people type them. */
import { sql, type RawBuilder } from "kysely";

import { ConfigError, readConfig, type Config } from "../config.ts";
import { createLog } from "../log.ts";
import { requireUsableDatabase } from "../postgres/database_problem.ts";
import { embeddedUrl } from "../postgres/embedded/url.ts";
import { isForbidden } from "../postgres/errors.ts";
import { migrationProblem } from "../postgres/migrate.ts";
import { createPool } from "../postgres/pool.ts";
import { createDatabase, type Database } from "../postgres/rows.ts";
import { inTime } from "../time_limit.ts";
import { CommandError, EXIT } from "./command.ts";
import { visible, type Terminal } from "./terminal.ts";

/** cron runs `status`: it must end. Nothing that a person waits for takes as long. */
const QUERY_TIMEOUT_MS = 60_000;

const END_TIMEOUT_MS = 1_000;

/** `name` shows in pg_stat_activity. @throws ConfigError when DATABASE_URL or the database cannot be used. */
export async function withDatabase<T>(
  { env }: Terminal,
  name: string,
  work: (db: Database, config: Config) => Promise<T>,
  query_timeout_ms = QUERY_TIMEOUT_MS,
): Promise<T> {
  const config = readConfig(env, []);
  const url = config.DATABASE_URL === "embedded" ? await embeddedUrl() : config.DATABASE_URL;
  const pool = createPool(url, { name: `thaw ${name}`, max: 2, query_timeout_ms }, createLog("fatal"));
  try {
    await requireUsableDatabase(pool);
    // thaw_reader may not ask what was applied.
    const problem = await migrationProblem(pool).catch((error: unknown) => {
      if (isForbidden(error)) return null;
      throw error;
    });
    if (problem !== null) throw new ConfigError(problem);
    return await work(createDatabase(pool), config);
  } finally {
    // With a Postgres that hangs, end() hangs too.
    await inTime(END_TIMEOUT_MS, pool.end(), () => new Error("late")).catch(() => {});
  }
}

/** Changes something in one transaction; the rows in `actions` name the operating system's user and the database role. */
export const acting = <T>(
  db: Database,
  { user }: Terminal,
  work: (trx: Database) => Promise<T>,
): Promise<T> =>
  db.transaction().execute(async (trx) => {
    await sql`select set_config('thaw.actor', format('%s (%s)', ${user}::text, session_user), true)`.execute(
      trx,
    );
    return work(trx);
  });

/**
 * The result of one SQL function that changes something. `confirmed` is what it must have found (actions.before), or nothing is
 * changed: while somebody reads the question, Thaw and other operators go on.
 */
export const call = <T>(
  db: Database,
  terminal: Terminal,
  work: RawBuilder<T>,
  confirmed: Record<string, string> = {},
): Promise<T> =>
  acting(db, terminal, async (trx) => {
    const { rows } = await sql<{ result: T }>`select ${work} as result`.execute(trx);
    if (Object.keys(confirmed).length > 0) {
      // The time of a row in actions is that of its transaction.
      const { rows: others } = await sql`
        select from operator_actions
         where at = now() and actor = current_setting('thaw.actor') and not before @> ${JSON.stringify(confirmed)}::jsonb`.execute(
        trx,
      );
      if (others.length > 0) {
        throw new CommandError(
          EXIT.wrong_state,
          "It has changed since the question was asked. Nothing was changed: look at it again.",
        );
      }
    }
    return (rows[0] as { result: T }).result;
  });

type Kind = "restore" | "request" | "mail";

interface Found {
  kind: Kind;
  id: string;
  state: string;
  /** What a person knows it by. */
  about: string;
  /** Of a request: the latest mail about it. */
  mail_id: string | null;
}

/** The restore of that id, or of that request's id, or of the only one that begins so. @throws CommandError */
export const findRestore = (db: Database, typed: string): Promise<Found> =>
  findOne(db, typed, ["restore", "request"]);

/** The mail of that id, or the latest one of that request. @throws CommandError */
export async function findMail(db: Database, typed: string): Promise<Found> {
  const found = await findOne(db, typed, ["mail", "request"]);
  if (found.kind === "mail") return found;
  if (found.mail_id === null)
    throw new CommandError(EXIT.wrong_state, `No mail has been written yet about ${visible(found.about)}.`);
  return findOne(db, found.mail_id, ["mail"]);
}

const OTHER: Record<Kind, string> = {
  restore: "a restore: see retry and give-up",
  request: "a request",
  mail: "a mail: see resend and resolve",
};

async function findOne(db: Database, typed: string, kinds: Kind[]): Promise<Found> {
  if (!/^[0-9a-f]{8}[0-9a-f-]{0,28}$/i.test(typed)) {
    throw new CommandError(
      EXIT.usage,
      `${typed} is no id: give the one that status shows, or at least its first 8 characters.`,
    );
  }
  const { rows } = await sql<Found>`select kind, id, state, about, mail_id from find_ids(${typed})`.execute(
    db,
  );
  // The first request of a restore has the restore's id.
  const wanted = kinds.flatMap((kind) => rows.filter((row) => row.kind === kind));
  const [found, ...others] = wanted.filter(({ id }, at) => wanted.findIndex((row) => row.id === id) === at);
  if (others.length > 0) {
    const list = [found, ...others].map((row) => `  ${row?.id}  ${row?.kind} ${visible(row?.about ?? "")}`);
    throw new CommandError(EXIT.usage, `${typed} begins several ids; give more of it:\n${list.join("\n")}`);
  }
  if (found !== undefined) return found;
  const [other] = rows;
  throw new CommandError(
    EXIT.not_found,
    other === undefined
      ? `There is no ${kinds.join(" or ")} ${typed}.`
      : `${other.id} is not a ${kinds.join(" or ")} but ${OTHER[other.kind]}.`,
  );
}
