/** `npm run users -- import keys.csv | list | check <access key id or ARN>`: fills the map without SQL. */
import { readFileSync } from "node:fs";

import { sql } from "kysely";

import { allowClosedOutput } from "./closed_output.ts";
import { ConfigError, notifyWaits, readConfig, type Config } from "./config.ts";
import { createDatabase, createPool, type Database } from "./database.ts";
import { createLog } from "./log.ts";
import { migrationProblem } from "./migrate.ts";
import { reportError } from "./report_error.ts";
import { readUserRows, type UserRow } from "./user_rows.ts";

const USAGE = `Whose is an access key, or a role?

  npm run users -- import FILE    adds and changes entries; FILE is CSV with the columns access_key_id (or principal) and email
  npm run users -- list           shows all entries
  npm run users -- check WHO      tells to whom a key or an ARN leads, and by which rule`;

async function main([command, argument]: string[]): Promise<void> {
  const wants_argument = command === "import" || command === "check";
  if ((command !== "list" && !wants_argument) || (argument !== undefined) !== wants_argument)
    throw new ConfigError(USAGE);

  const config = readConfig(process.env, []);
  const pool = createPool(
    databaseUrl(config),
    { name: "thaw users", max: 1, query_timeout_ms: 0 },
    createLog("fatal"),
  );
  try {
    const problem = await migrationProblem(pool);
    if (problem !== null) throw new ConfigError(problem);
    const db = createDatabase(pool);
    if (command === "list") await list(db);
    else if (command === "check") await check(db, config, argument ?? "");
    else await importFile(db, config, argument ?? "");
  } finally {
    await pool.end();
  }
}

function databaseUrl(config: Config): string {
  return config.DATABASE_URL === "embedded"
    ? readText(`${import.meta.dirname}/../.data/url`).trim()
    : config.DATABASE_URL;
}

async function importFile(db: Database, config: Config, file: string): Promise<void> {
  const rows = readUserRows(readText(file), file);
  // All or nothing: half a list imported is a list nobody can trust.
  const { added, changed } = await db.transaction().execute(async (trx) => {
    const {
      rows: [counts],
    } = await sql<{ added: number; changed: number }>`
      select added, changed from import_users(${JSON.stringify(rows)}::jsonb)`.execute(trx);
    if (counts === undefined) throw new Error("import_users answered nothing");
    return counts;
  });
  say(
    `${rows.length} entries read: ${added} added, ${changed} changed, ${rows.length - added - changed} as before.`,
  );

  const resolved = await resolveWaiting(db, config);
  say(
    resolved === 0
      ? "No waiting request needed them."
      : `${resolved} waiting ${resolved === 1 ? "request has" : "requests have"} an address now; the mails go out by themselves.`,
  );
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new ConfigError(`Cannot read ${file}: ${(error as Error).message}`);
  }
}

/** Requests resolved per statement, as in tasks/resolve_users.ts. */
const PAGE = 1000;

async function resolveWaiting(db: Database, config: Config): Promise<number> {
  const known = async (): Promise<number> => {
    const { rows } = await sql<{ count: number }>`
      select count(*)::int as count from restore_requests q join restores r on r.id = q.restore_id
       where r.closed_at is null and q.email is not null`.execute(db);
    return rows[0]?.count ?? 0;
  };
  const before = await known();
  for (;;) {
    const { rows } = await sql<{ touched: number }>`
      select resolve_requests(${PAGE}, ${notifyWaits(config)}::interval[], ${config.SESSION_EMAIL_DOMAINS}::text[]) as touched`.execute(
      db,
    );
    if (rows[0]?.touched === 0) return (await known()) - before;
  }
}

async function list(db: Database): Promise<void> {
  const { rows } = await sql<UserRow>`
    select access_key_id as id, email from aws_key_user_map union all select principal, email from aws_principal_user_map
     order by email, id`.execute(db);
  if (rows.length === 0)
    say("The map is empty: nobody can be told anything. See: npm run users -- import FILE");
  for (const { id, email } of rows) say(`${email}\t${id}`);
}

const RULES: Record<string, string> = {
  access_key: "by its access key",
  principal: "by its ARN",
  principal_prefix: "by a prefix of its ARN",
  source_identity: "by its source identity (SESSION_EMAIL_DOMAINS)",
  session_name: "by its session name (SESSION_EMAIL_DOMAINS)",
};

async function check(db: Database, config: Config, who: string): Promise<void> {
  const key = who.startsWith("arn:") ? "" : who;
  const principal = who.startsWith("arn:") ? who : "";
  const { rows } = await sql<{ email: string; resolved_by: string }>`
    select email, resolved_by from find_person(${key}, ${principal}, '', ${config.SESSION_EMAIL_DOMAINS}::text[])`.execute(
    db,
  );
  const found = rows[0];
  if (found === undefined)
    say(
      `${who} leads to nobody: its reads are restored, and nobody is told. Add it: npm run users -- import FILE`,
    );
  else say(`${who} leads to ${found.email}: ${RULES[found.resolved_by] ?? found.resolved_by}.`);

  const waiting = await sql<{ count: number; unknown: number }>`
    select count(*)::int as count, count(*) filter (where q.email is null)::int as unknown
      from restore_requests q join restores r on r.id = q.restore_id
     where r.closed_at is null and (q.access_key_id = ${key} or ${key} = '') and (q.principal = ${principal} or ${principal} = '')`.execute(
    db,
  );
  const { count, unknown } = waiting.rows[0] ?? { count: 0, unknown: 0 };
  say(
    `${count} open ${count === 1 ? "request is" : "requests are"} by it, ${unknown} of them without an address.`,
  );
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

allowClosedOutput();
main(process.argv.slice(2)).catch((error: unknown) => {
  reportError(error);
  process.exitCode = 1;
});
