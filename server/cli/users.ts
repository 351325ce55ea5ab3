/** `npm run users -- import keys.csv | list | check <access key id or ARN>`: fills the map without SQL. */
import { readFileSync } from "node:fs";

import { sql } from "kysely";

import { allowClosedOutput, createLog } from "../log.ts";
import { ConfigError, debounceOf, readConfig, type Config } from "../config.ts";
import { createDatabase, createPool, type Database } from "../postgres/pool.ts";
import { requireUsableDatabase } from "../postgres/database_problem.ts";
import { migrationProblem } from "../postgres/migrate.ts";
import { resolveRequests } from "../postgres/people.ts";
import { reportError } from "../report_error.ts";
import { decodeText } from "./user_file.ts";
import { readUserRows, type UserLine, type UserRow } from "./user_rows.ts";

const USAGE = `Whose is an access key, or a role?

  npm run users -- import FILE    adds and changes entries; FILE is CSV with the columns access_key_id (or principal) and email;
                                  a principal is an ARN, or a prefix of it that ends in *; a role's ARN means its sessions
  npm run users -- list           shows all entries
  npm run users -- check WHO      tells to whom a key or an ARN leads, and by which rule`;

async function main([command, argument]: string[]): Promise<void> {
  const wants_argument = command === "import" || command === "check";
  if ((command !== "list" && !wants_argument) || (argument !== undefined) !== wants_argument)
    throw new ConfigError(USAGE);

  const config = readConfig(process.env, []);
  const pool = createPool(
    databaseUrl(config),
    { name: "thaw users", max: 2, query_timeout_ms: 0 },
    createLog("fatal"),
  );
  try {
    await requireUsableDatabase(pool);
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
    ? readFile(`${import.meta.dirname}/../../.data/url`)
        .toString()
        .trim()
    : config.DATABASE_URL;
}

async function importFile(db: Database, config: Config, file: string): Promise<void> {
  const rows = await readEntries(db, file);
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

/** More than this is not read one by one; the rest shows with the next try. */
const PROBLEMS_SHOWN = 20;

/** The file's entries, each once. @throws ConfigError with every problem and its line. */
async function readEntries(db: Database, file: string): Promise<UserRow[]> {
  const { rows, misshapen } = readUserRows(decodeText(readFile(file), file), file);
  const { rows: checked } = await sql<
    UserRow & { id_problem: string | null; address_problem: string | null }
  >`
    select id, email, id_problem, address_problem from check_users(${JSON.stringify(rows)}::jsonb)`.execute(
    db,
  );

  const problems = misshapen.map(({ line, fields, expected }) => ({
    line,
    problem: `${fields} fields, where the first line has ${expected}`,
  }));
  const entries = new Map<string, UserRow>();
  for (const [index, { id, email, id_problem, address_problem }] of checked.entries()) {
    const { line, id: written } = rows[index] as UserLine;
    const report = (problem: string): void => void problems.push({ line, problem });
    if (id_problem !== null) report(written === "" ? id_problem : `${quoted(written)}: ${id_problem}`);
    if (address_problem !== null) report(`${quoted(email)} is not an email address: ${address_problem}`);
    if ((entries.get(id)?.email ?? email) !== email)
      report(`${written} stands twice, with different addresses`);
    entries.set(id, { id, email });
  }
  if (problems.length > 0) {
    const lines = problems
      .toSorted((a, b) => a.line - b.line)
      .map(({ line, problem }) => `  line ${line}: ${problem}`);
    const more = lines.length > PROBLEMS_SHOWN ? `\n  and ${lines.length - PROBLEMS_SHOWN} more` : "";
    throw new ConfigError(
      `Nothing was imported from ${file}:\n${lines.slice(0, PROBLEMS_SHOWN).join("\n")}${more}`,
    );
  }
  return [...entries.values()];
}

/** As people see it, and what they do not see: zero-width spaces, control characters. */
const quoted = (text: string): string =>
  `'${text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, (hidden) => `\\u{${hidden.codePointAt(0)?.toString(16)}}`)}'`;

function readFile(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new ConfigError(`Cannot read ${file}: ${(error as Error).message}`);
  }
}

async function resolveWaiting(db: Database, config: Config): Promise<number> {
  const known = async (): Promise<number> => {
    const { rows } = await sql<{ count: number }>`
      select count(*)::int as count from restore_requests q join restores r on r.id = q.restore_id
       where r.closed_at is null and q.email is not null`.execute(db);
    return rows[0]?.count ?? 0;
  };
  const before = await known();
  await resolveRequests(db, {
    debounce: debounceOf(config),
    session_domains: config.SESSION_EMAIL_DOMAINS,
  });
  return (await known()) - before;
}

async function list(db: Database): Promise<void> {
  const { rows } = await sql<UserRow & { problem: string | null }>`
    select id, email, problem from map_entries order by email, id`.execute(db);
  if (rows.length === 0)
    say("The map is empty: nobody can be told anything. See: npm run users -- import FILE");
  for (const { id, email, problem } of rows)
    say(`${email}\t${id}${problem === null ? "" : `\t(of no use: ${problem})`}`);
}

const RULES: Record<string, string> = {
  access_key: "by its access key",
  principal: "by its ARN",
  principal_prefix: "by a prefix of its ARN",
  source_identity: "by its source identity (SESSION_EMAIL_DOMAINS)",
  session_name: "by its session name (SESSION_EMAIL_DOMAINS)",
};

/** A role, or a prefix, is asked about as its sessions are: what counts is what their ARNs have in common. */
async function check(db: Database, config: Config, who: string): Promise<void> {
  const { rows: asked } = await sql<{ entry: string; problem: string | null }>`
    select id as entry, id_problem as problem from check_users(jsonb_build_array(jsonb_build_object('id', ${who}::text)))`.execute(
    db,
  );
  const { entry, problem } = asked[0] ?? { entry: who, problem: null };
  if (problem !== null) throw new ConfigError(`Nobody reads as ${quoted(who)}: ${problem}`);
  const isPrefix = entry.endsWith("*");
  const key = entry.startsWith("arn:") ? "" : entry;
  const principal = key === "" ? entry.replace(/\*$/, "") : "";
  const subject = isPrefix && entry !== who ? `${who} (its sessions, ${entry})` : who;

  const { rows } = await sql<{ email: string; resolved_by: string }>`
    select email, resolved_by from find_person(${key}, ${principal}, '', ${config.SESSION_EMAIL_DOMAINS}::text[])`.execute(
    db,
  );
  const found = rows[0];
  if (found === undefined)
    say(
      `${subject} leads to nobody: its reads are restored, and nobody is told. Add it: npm run users -- import FILE`,
    );
  else say(`${subject} leads to ${found.email}: ${RULES[found.resolved_by] ?? found.resolved_by}.`);
  if (isPrefix) {
    const { rows: within } = await sql<UserRow>`
      select principal as id, email from aws_principal_user_map
       where starts_with(principal, ${principal}) and principal <> ${entry} order by principal limit 10`.execute(
      db,
    );
    for (const { id, email } of within) say(`  but ${id} leads to ${email}`);
  }

  const waiting = await sql<{ count: number; unknown: number }>`
    select count(*)::int as count, count(*) filter (where q.email is null)::int as unknown
      from restore_requests q join restores r on r.id = q.restore_id
     where r.closed_at is null and (q.access_key_id = ${key} or ${key} = '')
       and (q.principal = ${principal} or ${principal} = '' or (${isPrefix} and starts_with(q.principal, ${principal})))`.execute(
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
  // Not only the exit code: pg leaves a connection open on which it could not log in.
  process.exit(1);
});
