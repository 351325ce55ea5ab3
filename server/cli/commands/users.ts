/** Which person an access key or a role belongs to: the maps. */
import { sql } from "kysely";

import { CommandError, EXIT, YES, type Command } from "../command.ts";
import { readText, refuse, shapeProblem } from "../csv_file.ts";
import { acting, call, withDatabase } from "../database.ts";
import { ConfigError, debounceOf, trustedSessions, type Config } from "../../config.ts";
import { isForbidden } from "../../postgres/errors.ts";
import { resolveRequests } from "../../postgres/people.ts";
import type { Database } from "../../postgres/rows.ts";
import { sentence, visible, type Terminal } from "../terminal.ts";
import { readUserRows, type UserLine, type UserRow } from "../user_rows.ts";

/** A list of very many people may take its time. */
const NO_TIMEOUT = 0;

export const usersImport: Command = {
  name: "users import",
  args: "FILE",
  summary: "Says whose a key or a role is: adds and changes entries of the maps",
  examples: [
    ["keys.csv", "CSV with the columns access_key_id (or principal) and email; all of it, or nothing"],
  ],
  run: (terminal, [file = ""]) =>
    withDatabase(terminal, "users", (db, config) => importFile(db, terminal, config, file), NO_TIMEOUT),
};

export const usersList: Command = {
  name: "users list",
  args: "",
  summary: "Shows all entries of the maps",
  examples: [["", "address, tab, access key or ARN"]],
  run: (terminal) => withDatabase(terminal, "users", (db) => list(db, terminal), NO_TIMEOUT),
};

export const usersCheck: Command = {
  name: "users check",
  args: "ID",
  summary: "Shows the address that a key, an ARN or a principal id leads to, and by which rule",
  examples: [
    ["AKIAIOSFODNN7EXAMPLE", "an access key"],
    ["arn:aws:iam::111122223333:role/Analyst", "a role: its sessions"],
    ["AROAIOSFODNN7EXAMPLE1", "a role of another account, by its id: its sessions"],
  ],
  run: (terminal, [who = ""]) =>
    withDatabase(terminal, "users", (db, config) => check(db, terminal, config, who), NO_TIMEOUT),
};

export const usersRemove: Command = {
  name: "users remove",
  args: "ID",
  summary: "Takes an access key or an ARN out of the maps",
  examples: [["AKIAIOSFODNN7EXAMPLE", "its reads are restored, and nobody is told"]],
  options: YES,
  run: (terminal, [id = ""], given) =>
    withDatabase(terminal, "users", async (db) => {
      await terminal.confirm(`Take ${id} out of the map?`, given);
      const did = await call(db, terminal, sql<string>`remove_user(${id})`);
      terminal.show({ id, did }, sentence(did));
    }),
};

export const usersErase: Command = {
  name: "users erase",
  args: "ADDRESS",
  summary: "Takes a person's address out of maps, requests, mails and history; the restores stay",
  examples: [
    ["jane@example.com", "asks for the address once more: this cannot be undone"],
    ["jane@example.com --confirm=jane@example.com", "from a script"],
  ],
  options: { confirm: { type: "string", value: "ADDRESS", what: "the address once more" } },
  run: (terminal, [address = ""], given) =>
    withDatabase(
      terminal,
      "users",
      async (db) => {
        const question = `This cannot be undone, and ${address} is told nothing more. Type the address to erase it:`;
        await terminal.confirmName(question, address, given);
        const rows = await erase(db, terminal, address);
        if (rows === 0) throw new CommandError(EXIT.not_found, `Nothing is known of ${address}.`);
        terminal.show({ erased_rows: rows }, `Erased: the address is gone from ${rows} rows.`);
      },
      NO_TIMEOUT,
    ),
};

/** A page of rows in each transaction, until none is left. */
async function erase(db: Database, terminal: Terminal, address: string): Promise<number> {
  let all = 0;
  for (;;) {
    const rows = await call(db, terminal, sql<number>`erase_person(${address})`);
    if (rows === 0) return all;
    all += rows;
  }
}

async function importFile(db: Database, terminal: Terminal, config: Config, file: string): Promise<void> {
  const rows = await readEntries(db, file);
  // All or nothing: nobody could tell which half of a list was imported.
  const { added, changed } = await acting(db, terminal, async (trx) => {
    const {
      rows: [counts],
    } = await sql<{ added: number; changed: number }>`
      select added, changed from import_users(${JSON.stringify(rows)}::jsonb)`.execute(trx);
    if (counts === undefined) throw new Error("import_users returned no row");
    return counts;
  });
  terminal.show(
    { read: rows.length, added, changed },
    `${rows.length} entries read: ${added} added, ${changed} changed, ${rows.length - added - changed} as before.`,
  );

  const resolved = await resolveWaiting(db, config);
  terminal.show(
    { resolved },
    resolved === 0
      ? "No waiting request needed them."
      : `${resolved} waiting ${resolved === 1 ? "request has" : "requests have"} an address now; the mails go out by themselves.`,
  );
}

/** The file's entries, each once. @throws ConfigError with every problem and its line. */
async function readEntries(db: Database, file: string): Promise<UserRow[]> {
  const { rows, misshapen } = readUserRows(readText(file), file);
  const { rows: checked } = await sql<
    UserRow & { id_problem: string | null; address_problem: string | null }
  >`
    select id, email, id_problem, address_problem from check_users(${JSON.stringify(rows)}::jsonb)`.execute(
    db,
  );

  const problems = misshapen.map(shapeProblem);
  const entries = new Map<string, UserRow>();
  for (const [index, { id, email, id_problem, address_problem }] of checked.entries()) {
    const { line, id: written } = rows[index] as UserLine;
    const report = (problem: string): void => void problems.push({ line, problem });
    if (id_problem !== null) report(written === "" ? id_problem : `${quoted(written)}: ${id_problem}`);
    if (address_problem !== null) report(`${quoted(email)} is not an email address: ${address_problem}`);
    if ((entries.get(id)?.email ?? email) !== email)
      report(`${written} appears twice, with different addresses`);
    entries.set(id, { id, email });
  }
  refuse(file, problems);
  return [...entries.values()];
}

const quoted = (text: string): string => `'${visible(text)}'`;

async function resolveWaiting(db: Database, config: Config): Promise<number> {
  const known = async (): Promise<number> => {
    const { rows } = await sql<{ count: number }>`
      select count(*)::int as count from request_status where closed_at is null and email is not null`.execute(
      db,
    );
    return rows[0]?.count ?? 0;
  };
  const before = await known();
  await resolveRequests(db, {
    debounce: debounceOf(config),
    session_domains: trustedSessions(config),
  });
  return (await known()) - before;
}

async function list(db: Database, terminal: Terminal): Promise<void> {
  const { rows } = await sql<UserRow & { problem: string | null }>`
    select id, email, problem from map_entries order by email, id`.execute(db);
  if (rows.length === 0)
    terminal.text("The map is empty: nobody can be told anything. See: npm run users -- import FILE");
  for (const { id, email, problem } of rows)
    terminal.show(
      { id, email, problem },
      email,
      id,
      ...(problem === null ? [] : [`(of no use: ${problem})`]),
    );
}

const RULES: Record<string, string> = {
  access_key: "by its access key",
  principal: "by its ARN",
  principal_prefix: "by a prefix of its ARN",
  principal_id: "by its principal id",
  source_identity: "by its source identity (SESSION_EMAIL_DOMAINS)",
  session_name: "by its session name (SESSION_EMAIL_DOMAINS)",
  identity_store: "by IAM Identity Center (IDENTITY_STORE_ID)",
};

/** A role or a prefix is looked up as its sessions are, by what their ARNs have in common. */
async function check(db: Database, terminal: Terminal, config: Config, who: string): Promise<void> {
  const { rows: asked } = await sql<{ entry: string; problem: string | null; is_principal: boolean }>`
    select id as entry, id_problem as problem, is_principal(id) from check_users(jsonb_build_array(jsonb_build_object('id', ${who}::text)))`.execute(
    db,
  );
  const { entry, problem, is_principal } = asked[0] ?? { entry: who, problem: null, is_principal: false };
  if (problem !== null) throw new ConfigError(`Nobody reads as ${quoted(who)}: ${problem}`);
  const isPrefix = entry.endsWith("*");
  const key = is_principal ? "" : entry;
  const principal = is_principal ? entry.replace(/\*$/, "") : "";
  const subject = isPrefix && entry !== who ? `${who} (its sessions, ${entry})` : who;

  const { rows } = await sql<{ email: string; resolved_by: string }>`
    select email, resolved_by from who_reads(${key || principal}, ${trustedSessions(config)}::text[])`.execute(
    db,
  );
  const found = rows[0];
  terminal.show(
    { id: entry, email: found?.email ?? null, resolved_by: found?.resolved_by ?? null },
    found === undefined
      ? `${subject} leads to nobody: its reads are restored, and nobody is told. Add it: npm run users -- import FILE`
      : `${subject} leads to ${found.email}: ${RULES[found.resolved_by] ?? found.resolved_by}.`,
  );
  if (isPrefix) {
    const { rows: within } = await sql<UserRow>`
      select id, email from map_entries
       where starts_with(id, ${principal}) and id <> ${entry} order by id limit 10`
      .execute(db)
      .catch((error: unknown) => {
        // thaw_operator asks for one reader at a time, and cannot read the map.
        if (isForbidden(error)) return { rows: [] };
        throw error;
      });
    for (const { id, email } of within) terminal.show({ id, email }, `  but ${id} leads to ${email}`);
  }

  const waiting = await sql<{ count: number; unknown: number }>`
    select count(*)::int as count, count(*) filter (where q.email is null)::int as unknown
      from request_status q
     where q.closed_at is null and (q.access_key_id = ${key} or ${key} = '')
       and (${principal} in ('', q.principal, q.principal_id)
            or (${isPrefix} and (starts_with(q.principal, ${principal}) or starts_with(q.principal_id, ${principal}))))`.execute(
    db,
  );
  const { count, unknown } = waiting.rows[0] ?? { count: 0, unknown: 0 };
  terminal.show(
    { open_requests: count, without_address: unknown },
    `${count} open ${count === 1 ? "request is" : "requests are"} by it, ${unknown} of them without an address.`,
  );
}
