/** A private database per test, and waiting without sleeping for luck. */
import { randomUUID } from "node:crypto";
import { Client, Pool } from "pg";
import { inject, test as base } from "vitest";

export { waitFor } from "./wait_for.ts";

/** Tests that ask for `databaseUrl` or `pool` get a migrated database of their own. */
export const test = base.extend<{ databaseUrl: string; pool: Pool }>({
  // Vitest reads from the pattern which fixtures a fixture needs.
  // oxlint-disable-next-line no-empty-pattern
  databaseUrl: async ({}, use) => {
    const name = `test_${randomUUID().replaceAll("-", "")}`;
    await administer(`create database ${name} template template_thaw`);
    const url = new URL(inject("postgresUrl"));
    url.pathname = `/${name}`;
    await use(url.href);
    if (process.env["KEEP_DB"] === "1") console.log(`Kept: ${url.href}`);
    else await administer(`drop database ${name} with (force)`);
  },
  pool: async ({ databaseUrl }, use) => {
    const pool = newPool(databaseUrl);
    await use(pool);
    await pool.end();
  },
});

/** For tests that need more than one pool; whoever makes it ends it. */
export function newPool(databaseUrl: string): Pool {
  const pool = new Pool({ connectionString: databaseUrl });
  // An idle connection that breaks (tests kill servers) must not end the process.
  pool.on("error", () => undefined);
  return pool;
}

async function administer(statement: string): Promise<void> {
  const client = new Client({ connectionString: inject("postgresUrl") });
  client.on("error", () => undefined);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
