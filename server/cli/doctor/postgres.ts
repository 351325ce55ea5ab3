import type { Pool } from "pg";

import { counted, fail, ok, reasonOf, skip, warn, type Finding } from "./finding.ts";
import { databaseProblem } from "../../postgres/database_problem.ts";
import { migrationProblem } from "../../postgres/migrate.ts";
import { whatToDo } from "../../postgres/errors.ts";

/** Signatures and tokens bear a few minutes; mails that say "ready at 18:40" should not be a minute off. */
const SKEW_SECONDS = 60;

const TABLES = ["schema public", "worker", "people", "readers", "mail gate", "stuck requests"];

export const skipDatabase = (why: string): Finding[] =>
  ["clock", "database", ...TABLES].map((what) => skip(what, why));

/** Returns whether the tables can be asked. */
export async function* checkPostgres(pool: Pool): AsyncGenerator<Finding, boolean> {
  const before = Date.now();
  const server = await one<{ version: string; now: Date }>(
    pool,
    "select current_setting('server_version') as version, clock_timestamp() as now",
  ).catch((error: unknown) => ({ error }));
  if ("error" in server) {
    yield fail("Postgres", `cannot be asked (${reasonOf(server.error)})`, whatToDo(server.error));
    yield* skipDatabase("Postgres cannot be asked");
    return false;
  }
  const now = Date.now();
  const unfit = await databaseProblem(pool).catch((error: unknown) => ({
    found: `cannot be asked (${reasonOf(error)})`,
    todo: "Look at Postgres' log",
  }));
  yield unfit === null
    ? ok("Postgres", `answers, version ${server.version}`)
    : fail("Postgres", unfit.found, unfit.todo);
  yield clock((before + now) / 2, server.now);

  const problem = await migrationProblem(pool).catch(reasonOf);
  if (problem !== null) {
    yield fail("database", problem.replace(/\.? Run: .*/, ""), "Migrate it: npm run migrate");
    for (const table of TABLES) yield skip(table, "the database is not migrated");
    return false;
  }
  yield ok("database", "migrated, and current");

  const checks = [schemaPublic, worker, people, readers, mailGate, stuckRequests];
  for (const [index, check] of checks.entries()) {
    yield await check(pool).catch((error: unknown) =>
      fail(TABLES[index] ?? "", `Postgres does not tell (${reasonOf(error)})`, "Look at Postgres' log"),
    );
  }
  return true;
}

/** The buckets of the last 90 days, ten at most, the newest first. What S3 would not call a bucket is none. */
export async function recentBuckets(pool: Pool): Promise<string[]> {
  const { rows } = await pool.query<{ s3_bucket: string }>(
    `select s3_bucket from restore_requests where requested_at > now() - interval '90 days' and s3_bucket ~ '^[A-Za-z0-9_.-]{3,255}$'
      group by s3_bucket order by max(requested_at) desc limit 10`,
  );
  return rows.map((row) => row.s3_bucket);
}

async function one<Row extends object>(pool: Pool, text: string): Promise<Row> {
  const { rows } = await pool.query<Row>(text);
  if (rows[0] === undefined) throw new Error("no row");
  return rows[0];
}

function clock(here: number, there: Date): Finding {
  const skew = Math.round((there.getTime() - here) / 1000);
  const ahead = skew > 0 ? "ahead of" : "behind";
  return Math.abs(skew) <= SKEW_SECONDS
    ? ok("clock", "agrees with Postgres'")
    : warn(
        "clock",
        `Postgres' is ${Math.abs(skew)} s ${ahead} this machine's`,
        "Set both by NTP: Postgres' decides when a mail is due and a copy has expired",
      );
}

/** Server and worker look at their own role when they start; somebody else's can do the same harm. */
async function schemaPublic(pool: Pool): Promise<Finding> {
  const { roles, owner } = await one<{ roles: string[]; owner: string }>(
    pool,
    `select array(select quote_ident(r.rolname) from pg_roles r
                   where r.rolcanlogin and not pg_has_role(r.oid, t.relowner, 'usage') and has_schema_privilege(r.oid, 'public', 'create')
                   order by 1) as roles,
            t.relowner::regrole::text as owner
       from pg_class t where t.oid = to_regclass('thaw_migrations')`,
  );
  return roles.length === 0
    ? ok("schema public", "nobody else may create there")
    : warn(
        "schema public",
        `${roles.join(", ")} may create there, and so have ${owner} run code of their own`,
        `Let a superuser run in this database: revoke create on schema public from public, ${roles.join(", ")}; grant create on schema public to ${owner}`,
      );
}

/** A live worker holds the advisory lock of its row in `workers` (sql/workers.sql), and runs jobs when they are due. */
async function worker(pool: Pool): Promise<Finding> {
  const { connected, overdue } = await one<{ connected: boolean; overdue: number }>(
    pool,
    // pg_locks shows the key of an advisory lock as two halves; objsubid 1 marks a key of one bigint.
    `select exists (select from workers w
                      join pg_locks l on (l.classid::bigint << 32) | l.objid::bigint = worker_lock(w.id)
                     where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
                       and l.database = (select oid from pg_database where datname = current_database())) as connected,
            (select count(*)::int from graphile_worker.jobs
              where run_at < now() - interval '10 minutes' and locked_at is null and attempts < max_attempts) as overdue`,
  );
  const jobs = `${counted(overdue, "job")} overdue by more than 10 minutes`;
  if (!connected) {
    return warn(
      "worker",
      `none is connected; ${jobs}`,
      "Is a worker running? Start one: npm run worker (or npm start, with a server)",
    );
  }
  return overdue === 0
    ? ok("worker", "connected, and no job is overdue")
    : warn("worker", `connected; ${jobs}`, "Look at the worker's log, and restart it if it says nothing");
}

const ADD_PEOPLE = "npm run users -- import keys.csv";

async function people(pool: Pool): Promise<Finding> {
  const { keys, principals, useless } = await one<{ keys: number; principals: number; useless: number }>(
    pool,
    `select (select count(*)::int from aws_key_user_map) as keys,
            (select count(*)::int from aws_principal_user_map) as principals,
            (select count(*)::int from map_entries where problem is not null) as useless`,
  );
  if (useless > 0)
    return warn(
      "people",
      `${useless} of the ${keys + principals} entries in the map can match no reader, or reach nobody`,
      "See which, and why: npm run users -- list; delete them from aws_key_user_map or aws_principal_user_map, and import what is right",
    );
  return keys + principals > 0
    ? ok("people", `${counted(keys, "access key")} and ${counted(principals, "principal")} in the map`)
    : warn(
        "people",
        "the map is empty: only sessions named by an address in SESSION_EMAIL_DOMAINS reach anybody",
        `Say whose a key or a role is: ${ADD_PEOPLE}`,
      );
}

async function readers(pool: Pool): Promise<Finding> {
  const { requests, keys } = await one<{ requests: number; keys: number }>(
    pool,
    `select count(*)::int as requests, count(distinct reader)::int as keys from restore_requests
      where user_resolved and email is null and requested_at > now() - interval '7 days'`,
  );
  return requests === 0
    ? ok("readers", "all of the last 7 days are known")
    : warn(
        "readers",
        `${counted(requests, "request")} of the last 7 days by ${counted(keys, "reader")} whom nobody knows: restored, and nobody is told`,
        `See which: psql "$DATABASE_URL" -c "select access_key_id, principal, count(*) from restore_requests where user_resolved and email is null group by 1, 2"; then add them: ${ADD_PEOPLE}`,
      );
}

async function mailGate(pool: Pool): Promise<Finding> {
  const { closed, reason, until } = await one<{ closed: boolean; reason: string; until: string }>(
    pool,
    `select closed_until > now() as closed, reason,
            case when isfinite(closed_until) then to_char(closed_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
                 else 'somebody opens it' end as until from mail_gate`,
  );
  return closed
    ? fail(
        "mail gate",
        `closed until ${until}, no mail goes out: ${reason}`,
        `Mend that; it opens by itself then, or now: psql "$DATABASE_URL" -c "update mail_gate set closed_until = '-infinity'"`,
      )
    : ok("mail gate", "open");
}

async function stuckRequests(pool: Pool): Promise<Finding> {
  const { count } = await one<{ count: number }>(
    pool,
    "select count(distinct id)::int as count from stuck_requests",
  );
  return count === 0
    ? ok("stuck requests", "none")
    : warn(
        "stuck requests",
        String(count),
        `See why, and what to do: psql "$DATABASE_URL" -c "select * from stuck_requests"`,
      );
}
