import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";

import { runMigrations } from "graphile-worker";
import type pg from "pg";

import { requireUsableDatabase } from "./database_problem.ts";
import { isForbidden, isLockTimeout, isUndefinedFunction } from "./errors.ts";
import { reasonOf } from "../log.ts";
import { lineOf, statementsOf } from "./sql_statements.ts";

const SQL_DIRECTORY = `${import.meta.dirname}/../../sql`;

/** Any number: it only keeps two migrating processes apart ("thaw" in hexadecimal letters). */
const MIGRATION_LOCK = 0x74686177;

/** Another migration may take this long; a supervisor starts again whoever gives up. */
const WAIT_MS = 60_000;

/** What somebody has to do something about, said in a sentence. */
export class MigrationError extends Error {
  override name = "MigrationError";
}

interface SqlFile {
  name: string;
  text: string;
  sha256: string;
  /**
   * Numbered files run once and are never edited. A page replaces what it defines when its text changes. Privileges run each
   * time: what was replaced has lost its own, and roles may have been added since.
   */
  runs: "once" | "when_changed" | "always";
}

/** One per subject, in an order in which each finds the functions and views that its own are made of. */
const PAGES = ["rules", "people", "transitions", "mails", "workers", "retention", "operators", "views"];

/** The files of `sql/` in the order they run: numbered migrations, pages, privileges. */
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
    ...PAGES.map((name) => file(`${name}.sql`, "when_changed")),
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
 * @throws MigrationError naming file and line when a statement fails, and when a numbered file was edited; or the role, when
 * it has too few rights; ConfigError when Thaw cannot work on that database.
 */
export async function migrate(
  pool: pg.Pool,
  directory = SQL_DIRECTORY,
  wait_ms = WAIT_MS,
): Promise<string[]> {
  await requireUsableDatabase(pool);
  try {
    return await migrateAll(pool, directory, wait_ms);
  } catch (error) {
    if (isForbidden(error) || isForbidden((error as Error).cause)) throw await tooFewRights(pool, error);
    throw error;
  }
}

async function migrateAll(pool: pg.Pool, directory: string, wait_ms: number): Promise<string[]> {
  await runMigrations({ pgPool: pool });
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query(`set local lock_timeout = ${wait_ms}`);
    await client.query("select pg_advisory_xact_lock($1)", [MIGRATION_LOCK]).catch(async (error: unknown) => {
      throw isLockTimeout(error) ? new MigrationError(await whoMigrates(pool, wait_ms)) : error;
    });
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

/** Anybody who may connect can take that lock, and with it hold up every migration. */
async function whoMigrates(pool: pg.Pool, waited_ms: number): Promise<string> {
  const { rows } = await pool.query<{ pid: number; who: string }>(
    `select a.pid, concat_ws(', ', a.usename, nullif(a.application_name, '')) as who from pg_locks l join pg_stat_activity a on a.pid = l.pid
      where l.locktype = 'advisory' and l.granted and l.objid = $1 and a.datname = current_database()`,
    [MIGRATION_LOCK],
  );
  const holders = rows.map(({ pid, who }) => `process ${pid} of ${who}`).join("; ") || "none any more";
  return (
    `Waited ${waited_ms / 1000} s: another connection holds the migrations' lock (${holders}). ` +
    "If that is no migration of Thaw's, let a superuser run: select pg_terminate_backend(process). Then start again."
  );
}

async function applyFiles(client: pg.PoolClient, directory: string): Promise<string[]> {
  const applied = await appliedFiles(client, "thaw_migrations");
  const ran: string[] = [];
  const files = sqlFiles(directory);
  const isNew = ({ name, sha256 }: SqlFile) => applied.get(name)?.has(sha256) !== true;
  const next = files.find((file) => isNew(file) && (file.runs === "once" || viewsOf([file]).length > 0));
  if (next !== undefined) {
    await client.query(lockAll(files)).catch((error: unknown) => {
      throw new MigrationError(`sql/${next.name}: ${reasonOf(error)}`, { cause: error });
    });
  }
  for (const file of files) {
    const hashes = applied.get(file.name);
    const isKnown = hashes?.has(file.sha256) === true;
    if (isKnown && file.runs !== "always") continue;
    if (!isKnown && file.runs === "once" && hashes !== undefined) {
      throw new MigrationError(
        `sql/${file.name} was edited after it was applied. Put it back and add a new file.`,
      );
    }
    for (const statement of statementsOf(file.text)) {
      await client.query(statement.text).catch((error: unknown) => {
        const place = `sql/${file.name}:${lineOf(error, statement)}`;
        throw new MigrationError(`${place}: ${reasonOf(error)}`, { cause: error });
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
 * What files change, the strongest lock first: one file makes an index, a later one changes the table, and whoever asks for
 * more than it holds meets those who write meanwhile in a circle. The views too: whoever looks at one holds it and waits for
 * its tables, and it is replaced last.
 *
 * There is no order in which everybody takes these (requests come before restores in a view), so a try gives all of them back
 * before Postgres looks for a circle (deadlock_timeout, a second), and lets those behind it pass before the next.
 */
const lockAll = (files: SqlFile[]): string => `do $$
declare
  v_timeout text := current_setting('lock_timeout');
  v_until timestamptz := clock_timestamp() + interval '10 seconds';
  v_views text;
begin
  if to_regclass('restores') is null then return; end if;
  select string_agg(v.name || ', ', '') into v_views from unnest('{${viewsOf(files).join(",")}}'::text[]) as v (name)
   where to_regclass(v.name) is not null;
  -- For each of them.
  perform set_config('lock_timeout', '100ms', true);
  loop
    begin
      execute format('lock table %srestores, notifications, restore_requests, mail_gate in access exclusive mode', v_views);
      exit;
    exception when lock_not_available then
      if clock_timestamp() > v_until then raise; end if;
    end;
    perform pg_sleep(0.2);
  end loop;
  perform set_config('lock_timeout', v_timeout, true);
end $$`;

const viewsOf = (files: SqlFile[]): string[] =>
  files.flatMap(({ text }) =>
    [...text.matchAll(/^create or replace view ([a-z_]+)/gm)].map(([, name]) => name ?? ""),
  );

async function appliedFiles(
  client: pg.Pool | pg.PoolClient,
  from: "thaw_migrations" | "applied_sql_files()",
): Promise<Map<string, Set<string>>> {
  const { rows } = await client.query<{ name: string; sha256: string }>(`select name, sha256 from ${from}`);
  const applied = new Map<string, Set<string>>();
  for (const { name, sha256 } of rows) applied.set(name, (applied.get(name) ?? new Set()).add(sha256));
  return applied;
}

async function tooFewRights(pool: pg.Pool, error: unknown): Promise<MigrationError> {
  const { rows } = await pool.query<{ role: string; owner: string | null }>(
    `select quote_ident(current_user) as role,
            (select relowner::regrole::text from pg_class where oid = to_regclass('thaw_migrations')) as owner`,
  );
  const { role, owner } = rows[0] ?? { role: "?", owner: null };
  const who = owner === null ? "the owner of the database (thaw_migrator)" : `${owner}, who owns the tables`;
  return new MigrationError(
    `The database role ${role} may not migrate: ${reasonOf(error)}. Run npm run migrate as ${who}; ` +
      `then let ${role} run without migrating: npm run server, or npm run worker (sql/README.md, "Roles")`,
    { cause: error },
  );
}

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
