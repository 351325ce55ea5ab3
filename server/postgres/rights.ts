import type pg from "pg";

import type { Role } from "../config.ts";

/** One function per role: a role's grants are made together, so one shows all. */
const PROBES = { server: "request_restores", worker: "claim_restores_to_trigger" } as const;

interface Rights {
  role: string;
  callable: string[];
  sees_jobs: boolean;
  owner: string;
  could_become_owner: boolean;
}

/**
 * Why the database role of this process has too few or too many rights, or null (sql/privileges.sql). A worker from which
 * row-level security hides graphile-worker's jobs would start and silently run nothing.
 */
export async function rightsProblem(pool: pg.Pool, roles: readonly Role[]): Promise<string | null> {
  const { rows } = await pool.query<Rights>(
    `select quote_ident(current_user) as role,
            array(select p.proname::text from pg_proc p
                   where p.pronamespace = 'public'::regnamespace and has_function_privilege(p.oid, 'execute')) as callable,
            (select pg_has_role(c.relowner, 'usage')
                    or exists (select from pg_policy p, unnest(p.polroles) of_role where p.polrelid = c.oid and pg_has_role(of_role, 'usage'))
               from pg_class c
              where c.relname = '_private_jobs' and c.relnamespace = (select n.oid from pg_namespace n where n.nspname = 'graphile_worker')) as sees_jobs,
            t.relowner::regrole::text as owner,
            not pg_has_role(t.relowner, 'usage') and has_schema_privilege('public', 'create') as could_become_owner
       from pg_class t where t.oid = to_regclass('thaw_migrations')`,
  );
  const found = rows[0];
  if (found === undefined) return null; // Not migrated: there are no grants yet.
  for (const role of ["server", "worker"] as const) {
    if (!roles.includes(role)) continue;
    if (!found.callable.includes(PROBES[role]) || (role === "worker" && !found.sees_jobs)) {
      return (
        `The database role ${found.role} has too few rights for a ${role}. Let it connect as thaw_${role} or as the owner, ` +
        `and migrate once after the roles were made: npm run migrate (sql/README.md, "Roles")`
      );
    }
    if (found.could_become_owner) {
      return (
        `The database role ${found.role} may create in schema public, and so have ${found.owner} run code of its own. ` +
        `Let a superuser run in this database: revoke create on schema public from public, ${found.role}; ` +
        `grant create on schema public to ${found.owner} (sql/README.md, "Roles")`
      );
    }
  }
  return null;
}
