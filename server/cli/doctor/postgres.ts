import type { Pool } from "pg";

import type { Silence } from "./bucket.ts";
import { counted, fail, ok, skip, warn, type Finding } from "./finding.ts";
import { reasonOf } from "../../log.ts";
import { databaseProblem } from "../../postgres/database_problem.ts";
import { migrationProblem } from "../../postgres/migrate.ts";
import { BUCKET_NAME } from "../../s3/names.ts";
import { isForbidden, whatToDo } from "../../postgres/errors.ts";

/** Signatures and tokens tolerate a few minutes; mails that say "ready at 18:40" should not be a minute off. */
const SKEW_SECONDS = 60;

const TABLES = ["role", "schema public", "worker", "people", "readers", "mail gate", "stuck requests"];

export const skipDatabase = (why: string): Finding[] =>
  ["clock", "database", ...TABLES].map((what) => skip(what, why));

/** Returns whether the tables can be queried. */
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

  const migration = await checkMigration(pool);
  yield migration;
  if (migration.level === "FAIL") {
    for (const table of TABLES) yield skip(table, "the database is not migrated");
    return false;
  }

  const checks = [role, schemaPublic, worker, people, readers, mailGate, stuckRequests];
  for (const [index, check] of checks.entries())
    yield await check(pool).catch((error: unknown) => untold(TABLES[index] ?? "", error));
  return true;
}

/** A role that may not see something is no fault of the database; `role` has said which it is. */
const untold = (what: string, error: unknown): Finding =>
  isForbidden(error)
    ? skip(what, "this role may not see it")
    : fail(what, `Postgres does not tell (${reasonOf(error)})`, "Look at Postgres' log");

async function checkMigration(pool: Pool): Promise<Finding> {
  try {
    const problem = await migrationProblem(pool);
    return problem === null
      ? ok("database", "migrated, and current")
      : fail("database", problem.replace(/\.? Run: .*/, ""), "Migrate it: npm run migrate");
  } catch (error) {
    return isForbidden(error)
      ? skip("database", "this role may not ask which files were applied")
      : untold("database", error);
  }
}

/** What needs somebody, as `thaw status` and the pages say it. */
export async function* checkFindings(pool: Pool): AsyncGenerator<Finding> {
  const what = "findings";
  try {
    const { rows } = await pool.query<{
      finding: string;
      problem: string;
      count: number;
      since: Date | null;
      what_to_do: string;
    }>("select finding, problem, count, since, what_to_do from findings");
    if (rows.length === 0) yield ok(what, "nothing needs you");
    for (const { finding, problem, count, since, what_to_do } of rows) {
      const details = [
        ...(count > 1 ? [`${count} of them`] : []),
        ...(since === null ? [] : [`since ${since.toISOString().slice(0, 16).replace("T", " ")} UTC`]),
      ].join(", ");
      yield warn(
        finding.replaceAll("_", " "),
        `${problem.replace(/\.$/, "")}${details === "" ? "" : ` (${details})`}`,
        what_to_do,
      );
    }
  } catch (error) {
    yield untold(what, error);
  }
}

/** Under a process's own role little can be checked. */
async function role(pool: Pool): Promise<Finding> {
  const { name, is_owner, has_views, sees_others } = await one<{
    name: string;
    is_owner: boolean;
    has_views: boolean;
    sees_others: boolean;
  }>(
    pool,
    `select quote_ident(current_user) as name, pg_has_role(t.relowner, 'usage') as is_owner,
            has_table_privilege('findings', 'select') as has_views, pg_has_role(t.relowner, 'pg_read_all_stats', 'usage') as sees_others
       from pg_class t where t.oid = to_regclass('thaw_migrations')`,
  );
  if (is_owner) return ok("role", `${name}, who owns the tables and sees all of them`);
  if (!has_views)
    return warn(
      "role",
      `${name} sees no view, so that neither workers nor people, mails and findings are checked`,
      "Run the doctor as thaw_operator, or as the owner (thaw_migrator)",
    );
  return ok(
    "role",
    `${name} sees the views, and not the maps and tables: people and readers are not checked${sees_others ? "" : ", nor since when others' transactions are open"}`,
  );
}

/** The buckets of the last 90 days, ten at most, the newest first. Rows added by hand may have impossible names. */
export async function recentBuckets(pool: Pool): Promise<string[]> {
  const { rows } = await pool.query<{ s3_bucket: string }>(
    `select s3_bucket from restore_requests where requested_at > now() - interval '90 days' and s3_bucket ~ $1
      group by s3_bucket order by max(requested_at) desc limit 10`,
    [`^${BUCKET_NAME}$`],
  );
  return rows.map((row) => row.s3_bucket);
}

/** Those of which no event comes although restores of them end. */
export async function silentBuckets(pool: Pool): Promise<Map<string, Silence>> {
  const { rows } = await pool.query<Silence & { s3_bucket: string }>(
    "select s3_bucket, lost::int, since from silent_buckets where s3_bucket ~ $1 order by lost desc limit 10",
    [`^${BUCKET_NAME}$`],
  );
  return new Map(rows.map(({ s3_bucket, ...silence }) => [s3_bucket, silence]));
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

/** Server and worker check their own role when they start; any other role can do the same harm. */
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

/** A live worker runs jobs when they are due. */
async function worker(pool: Pool): Promise<Finding> {
  const { alive, overdue } = await one<{ alive: number; overdue: number }>(
    pool,
    `select (select count(*)::int from worker_status where is_alive) as alive,
            (select coalesce(sum(waiting), 0)::int from job_status where waiting_since < now() - interval '10 minutes') as overdue`,
  );
  const jobs =
    overdue === 0 ? "no job is overdue" : `${counted(overdue, "job")} overdue, by more than 10 minutes`;
  if (alive === 0) {
    return fail(
      "worker",
      `none is alive; ${jobs}`,
      "Start one: npm run worker (or npm start, with a server)",
    );
  }
  return overdue === 0
    ? ok("worker", `${alive} alive, and no job is overdue`)
    : warn(
        "worker",
        `${alive} alive; ${jobs}`,
        "Look at the worker's log, and restart it if it says nothing",
      );
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
      where user_resolved and email is null and principal not like 'mailto:%' and requested_at > now() - interval '7 days'`,
  );
  return requests === 0
    ? ok("readers", "all of the last 7 days are known")
    : warn(
        "readers",
        `${counted(requests, "request")} of the last 7 days by ${counted(keys, "unknown reader")}: restored, and nobody is told`,
        `See which: psql "$DATABASE_URL" -c "select access_key_id, principal, count(*) from restore_requests where user_resolved and email is null group by 1, 2"; then add them: ${ADD_PEOPLE}`,
      );
}

async function mailGate(pool: Pool): Promise<Finding> {
  const { is_open, reason, until } = await one<{ is_open: boolean; reason: string; until: string }>(
    pool,
    "select is_open, reason, utc_minute(closed_until) as until from mail_gate_status",
  );
  return !is_open
    ? fail(
        "mail gate",
        `closed until ${until}, no mail goes out: ${reason}`,
        `Fix that: the gate then opens by itself. To open it now: npm run thaw -- gate open`,
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
    : warn("stuck requests", String(count), "See why, and what to do: npm run thaw -- status");
}
