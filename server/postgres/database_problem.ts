import type { Pool, PoolClient } from "pg";

import { ConfigError } from "../config.ts";

/** Why Thaw cannot work on a database, and what to do about it. */
export interface DatabaseProblem {
  found: string;
  todo: string;
}

const OLDEST_POSTGRES = 14;

/** A busy pooler may give us another backend once by chance, hardly each time. */
const COMPARISONS = 3;

/** @throws ConfigError when Thaw cannot work on this database. */
export async function requireUsableDatabase(pool: Pool): Promise<void> {
  const problem = await databaseProblem(pool);
  if (problem !== null) throw new ConfigError(`${problem.found}. ${problem.todo}.`);
}

interface Facts {
  major: number;
  version: string;
  encoding: string;
  database: string;
  owner: string;
  right_name: string;
  replication_role: string;
}

/** A problem that no session setting can solve (session.ts has the settings); null: none. */
export async function databaseProblem(pool: Pool): Promise<DatabaseProblem | null> {
  const { rows } = await pool.query<Facts>(
    `select current_setting('server_version_num')::int / 10000 as major, current_setting('server_version') as version,
            current_setting('server_encoding') as encoding, current_setting('session_replication_role') as replication_role,
            quote_ident(d.datname) as database, d.datdba::regrole::text as owner, quote_ident(left(d.datname, 58) || '_utf8') as right_name
       from pg_database d where d.datname = current_database()`,
  );
  const facts = rows[0];
  if (facts === undefined) throw new Error("pg_database has no row of the current database");
  if (facts.major < OLDEST_POSTGRES) {
    return { found: `version ${facts.version}`, todo: `Thaw needs ${OLDEST_POSTGRES} or newer: upgrade it` };
  }
  if (facts.encoding !== "UTF8") return wrongEncoding(facts);
  if (facts.replication_role !== "origin") {
    return {
      found: `session_replication_role is ${facts.replication_role}, so foreign keys and triggers do nothing`,
      todo: `Let a superuser reset it, where it was set: alter database ${facts.database} reset session_replication_role; or alter role ... reset session_replication_role`,
    };
  }
  if (await sharesConnections(pool)) {
    return {
      found:
        "DATABASE_URL leads through a pooler in transaction mode, where settings, locks and LISTEN get lost",
      todo: 'Connect to Postgres itself, or set pool_mode=session for this database in the pooler (sql/README.md, "Poolers")',
    };
  }
  return null;
}

/** S3 keys are UTF-8, so any character may come. */
function wrongEncoding({ encoding, database, owner, right_name }: Facts): DatabaseProblem {
  const why =
    encoding === "SQL_ASCII"
      ? "which means none: it would store any bytes, and neither compare addresses nor cut texts by their characters"
      : "which cannot hold every name that a file may have in S3";
  return {
    found: `The database ${database} is not UTF-8 but ${encoding}, ${why}`,
    todo:
      `Make a right one: create database ${right_name} encoding 'UTF8' template template0 locale 'C.UTF-8' owner ${owner}; ` +
      "(any other locale of that machine in UTF-8 will do), and name it in DATABASE_URL",
  };
}

/**
 * Whether a pooler in transaction mode shares backends among our connections. Behind any pooler the process id from the
 * log-in is not the backend's. Then the backends are compared: in session mode each connection keeps its own.
 */
async function sharesConnections(pool: Pool): Promise<boolean> {
  const one = await pool.connect();
  try {
    if ((await backendOf(one)) === (one as unknown as { processID: number }).processID) return false;
    const other = await pool.connect();
    try {
      const [mine, others] = [new Set<number>(), new Set<number>()];
      for (let round = 0; round < COMPARISONS; round++) {
        mine.add(await backendOf(one));
        // Twice in a row: a pooler that alternates between two backends would otherwise look like session mode.
        mine.add(await backendOf(one));
        others.add(await backendOf(other));
      }
      return mine.size > 1 || others.size > 1 || [...mine].some((pid) => others.has(pid));
    } finally {
      other.release();
    }
  } finally {
    one.release();
  }
}

async function backendOf(client: PoolClient): Promise<number> {
  const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
  return rows[0]?.pid ?? 0;
}
