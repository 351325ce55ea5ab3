import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";

import { runMigrations } from "graphile-worker";
import type pg from "pg";

import { isUndefinedFunction } from "./postgres_errors.ts";

const SQL_DIRECTORY = `${import.meta.dirname}/../sql`;

/** Any number: it only keeps two migrating processes apart ("thaw" in hexadecimal letters). */
const MIGRATION_LOCK = 0x74686177;

interface SqlFile {
  name: string;
  text: string;
  sha256: string;
  /**
   * Numbered files run once and are never edited. Views and transitions replace what they define when their text
   * changes. Privileges run each time: those replaced have lost theirs, and roles may have come since.
   */
  runs: "once" | "when_changed" | "always";
}

/** The files of `sql/` in the order they run: numbered migrations, views, transitions, privileges. */
function sqlFiles(directory: string): SqlFile[] {
  const numbered = readdirSync(directory)
    .filter((name) => /^\d{4}_[a-z0-9_]+\.sql$/.test(name))
    .sort();
  const file = (name: string, runs: SqlFile["runs"]): SqlFile => {
    const text = readFileSync(`${directory}/${name}`, "utf8");
    return { name, text, sha256: createHash("sha256").update(text).digest("hex"), runs };
  };
  return [
    ...numbered.map((name) => file(name, "once")),
    file("views.sql", "when_changed"),
    file("transitions.sql", "when_changed"),
    file("privileges.sql", "always"),
  ];
}

/**
 * Brings graphile-worker's schema and ours up to date, all of ours in one transaction. Safe to repeat and to
 * run from several processes at once. Returns the names of the files it ran.
 *
 * A text that was applied before is not applied again, so that an older process which restarts in the middle
 * of a deploy does not put its own functions back. To return to an earlier text, change its comment.
 *
 * @throws Error naming file and line when a statement fails, and when a numbered file was edited.
 */
export async function migrate(pool: pg.Pool, directory = SQL_DIRECTORY): Promise<string[]> {
  await runMigrations({ pgPool: pool });
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query("select pg_advisory_xact_lock($1)", [MIGRATION_LOCK]);
    // Whoever waits for a table lets everybody else wait behind: better to fail, and be started again.
    await client.query("set local lock_timeout = '5s'");
    await client.query(`create table if not exists thaw_migrations (
      name text not null, sha256 text not null, applied_at timestamptz not null default now(), primary key (name, sha256))`);
    const ran = await applyFiles(client, directory);
    await client.query("commit");
    // Never analysed, add_job's cached plan scans the whole table: 1.5 ms at 500 jobs, 15 ms at 50,000.
    if (ran.length > 0) await client.query("vacuum analyze graphile_worker._private_jobs");
    return ran;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}

async function applyFiles(client: pg.PoolClient, directory: string): Promise<string[]> {
  const applied = await appliedFiles(client, "thaw_migrations");
  const ran: string[] = [];
  for (const file of sqlFiles(directory)) {
    const hashes = applied.get(file.name);
    const isKnown = hashes?.has(file.sha256) === true;
    if (isKnown && file.runs !== "always") continue;
    if (!isKnown && file.runs === "once" && hashes !== undefined) {
      throw new Error(`sql/${file.name} was edited after it was applied. Put it back and add a new file.`);
    }
    try {
      if (file.runs === "once") await client.query(LOCK_TABLES);
      await client.query(file.text);
    } catch (error) {
      throw new Error(`sql/${file.name}:${lineOf(error, file.text)}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    if (isKnown) continue;
    await client.query("insert into thaw_migrations (name, sha256) values ($1, $2)", [
      file.name,
      file.sha256,
    ]);
    ran.push(file.name);
  }
  return ran;
}

/**
 * What numbered files change, in the order in which processes take it. The strongest lock first: one file makes an index, a
 * later one changes the table, and whoever asks for more than it holds meets those who write meanwhile in a circle.
 */
const LOCK_TABLES = `do $$ begin
  if to_regclass('restores') is not null then
    lock table restores, notifications, restore_requests, mail_gate in access exclusive mode;
  end if;
end $$`;

async function appliedFiles(
  client: pg.Pool | pg.PoolClient,
  from: "thaw_migrations" | "applied_sql_files()",
): Promise<Map<string, Set<string>>> {
  const { rows } = await client.query<{ name: string; sha256: string }>(`select name, sha256 from ${from}`);
  const applied = new Map<string, Set<string>>();
  for (const { name, sha256 } of rows) applied.set(name, (applied.get(name) ?? new Set()).add(sha256));
  return applied;
}

const lineOf = (error: unknown, text: string): string => {
  const position = Number((error as { position?: string }).position);
  return position > 0 ? String(text.slice(0, position).split("\n").length) : "?";
};

/** Why this build cannot work on that database yet, or null. A database newer than the build is fine. */
export async function migrationProblem(pool: pg.Pool): Promise<string | null> {
  const { rows } = await pool.query<{ known: boolean }>(
    "select to_regclass('thaw_migrations') is not null as known",
  );
  if (rows[0]?.known !== true) return "The database has no Thaw tables yet. Run: npm run migrate";
  const applied = await appliedFiles(pool, "applied_sql_files()").catch((error: unknown) => {
    if (isUndefinedFunction(error)) return new Map<string, Set<string>>();
    throw error;
  });
  const missing = sqlFiles(SQL_DIRECTORY).filter((file) => applied.get(file.name)?.has(file.sha256) !== true);
  if (missing.length === 0) return null;
  return `The database lacks ${missing.map((file) => `sql/${file.name}`).join(", ")} of this build. Run: npm run migrate`;
}
