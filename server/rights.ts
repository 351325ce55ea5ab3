import type pg from "pg";

import type { Role } from "./config.ts";

/** A function that only this role's processes may call: who may call it has been given the others as well. */
const PROBES = { server: "request_restores", worker: "claim_restores_to_trigger" } as const;

/**
 * Why the database role of this process is not enough for what it does, or null (sql/privileges.sql). A worker
 * that does not own graphile-worker's tables would start and silently run nothing: row-level security shows it none.
 */
export async function rightsProblem(pool: pg.Pool, roles: readonly Role[]): Promise<string | null> {
  const { rows } = await pool.query<{ role: string; callable: string[]; owns_jobs: boolean }>(
    `select current_user as role,
            array(select p.proname::text from pg_proc p
                   where p.pronamespace = 'public'::regnamespace and has_function_privilege(p.oid, 'execute')) as callable,
            (select pg_has_role(c.relowner, 'usage') from pg_class c
              where c.relname = '_private_jobs' and c.relnamespace = (select n.oid from pg_namespace n where n.nspname = 'graphile_worker')) as owns_jobs
      where to_regclass('thaw_migrations') is not null`,
  );
  const found = rows[0];
  if (found === undefined) return null; // Not migrated: nobody has any rights yet.
  for (const role of ["server", "worker"] as const) {
    if (!roles.includes(role)) continue;
    if (found.callable.includes(PROBES[role]) && (role !== "worker" || found.owns_jobs)) continue;
    return (
      `The database role ${found.role} has too few rights for a ${role}. Let it connect as thaw_${role} or as the owner, ` +
      `and migrate once after the roles were made: npm run migrate (README, "Roles")`
    );
  }
  return null;
}
