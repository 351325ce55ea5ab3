import { runMigrations } from "graphile-worker";
import type pg from "pg";

import { requireUsableDatabase } from "./database_problem.ts";
import { isForbidden, isLocked, isUndefinedFunction } from "./errors.ts";
import { reasonOf } from "../log.ts";
import { SQL_DIRECTORY, sqlFiles, viewsOf, type SqlFile } from "./sql_files.ts";
import { lineOf, statementsOf } from "./sql_statements.ts";

/** Key of the advisory lock by which one process migrates at a time ("thaw" in hexadecimal). */
const MIGRATION_LOCK = 0x74686177;

/** Another migration may take this long. A process that gives up is restarted by its supervisor. */
const WAIT_MS = 60_000;

/** The message says what a person has to do. */
export class MigrationError extends Error {
  override name = "MigrationError";
}

/**
 * Brings graphile-worker's schema and ours up to date, all of ours in one transaction, and then the comments in another. Safe to
 * repeat and to run from several processes at once. Returns the names of the files it ran.
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
    const files = sqlFiles(directory);
    // Some 400 comments: servers and workers need not wait for them, as they do for what is locked until the first commit.
    const ran = [
      ...(await inTransaction(
        client,
        pool,
        wait_ms,
        files.filter((file) => !file.is_comment),
      )),
      ...(await inTransaction(
        client,
        pool,
        wait_ms,
        files.filter((file) => file.is_comment),
      )),
    ];
    // Without statistics add_job's cached plan scans the whole table: 1.5 ms at 500 jobs, 15 ms at 50,000.
    if (ran.length > 0) await client.query("vacuum analyze graphile_worker._private_jobs");
    return ran;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}

/** Applies those of the files that are new; all of them, or none. */
async function inTransaction(
  client: pg.PoolClient,
  pool: pg.Pool,
  wait_ms: number,
  files: SqlFile[],
): Promise<string[]> {
  await client.query("begin");
  await client.query(`set local lock_timeout = ${wait_ms}`);
  await client.query("select pg_advisory_xact_lock($1)", [MIGRATION_LOCK]).catch(async (error: unknown) => {
    throw isLocked(error) ? new MigrationError(await whoMigrates(pool, wait_ms)) : error;
  });
  // Behind a waiting table lock every other query on the table waits too: better to fail, and be restarted.
  await client.query("set local lock_timeout = '5s'");
  await client.query(`create table if not exists thaw_migrations (
    name text not null, sha256 text not null, applied_at timestamptz not null default now(), primary key (name, sha256))`);
  const ran = await applyFiles(client, files);
  await client.query("commit");
  return ran;
}

/** Every role that may connect can take this lock and so block all migrations: the message names the holder. */
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

async function applyFiles(client: pg.PoolClient, files: SqlFile[]): Promise<string[]> {
  const applied = await appliedFiles(client, "thaw_migrations");
  const ran: string[] = [];
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
    if (!(await applyAtOnce(client, file))) await applyEach(client, file);
    if (isKnown) continue;
    await client.query("insert into thaw_migrations (name, sha256) values ($1, $2)", [
      file.name,
      file.sha256,
    ]);
    ran.push(file.name);
  }
  return ran;
}

async function applyEach(client: pg.PoolClient, file: SqlFile): Promise<void> {
  for (const statement of statementsOf(file.text)) {
    await client.query(statement.text).catch((error: unknown) => {
      const place = `sql/${file.name}:${lineOf(error, statement)}`;
      throw new MigrationError(`${place}: ${reasonOf(error)}`, { cause: error });
    });
  }
}

/**
 * A file in one message: everybody waits while its tables are locked, and on a busy machine each round trip takes a while. False:
 * a statement failed, and nothing was done; of many sent together Postgres rarely says which one.
 */
async function applyAtOnce(client: pg.PoolClient, { text }: SqlFile): Promise<boolean> {
  // By itself: a text that Postgres cannot read is refused as a whole, and would take the savepoint with it.
  await client.query("savepoint file");
  try {
    await client.query(`${text}\n;release savepoint file`);
    return true;
  } catch (error) {
    await client.query("rollback to savepoint file").catch(() => {
      throw error;
    });
    return false;
  }
}

/**
 * Locks all that the files change at once, in the strongest mode: when one file creates an index and a later one alters the
 * table, the lock upgrade would deadlock with concurrent writers. The views too: a query on a view locks it and then waits for
 * its tables, and views are replaced last.
 *
 * Other sessions take these locks in other orders (a view has requests before restores). So each try gives up and releases
 * all before Postgres checks for a deadlock (deadlock_timeout, 1 s), and lets waiting sessions pass before the next one.
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
  -- Per table.
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
