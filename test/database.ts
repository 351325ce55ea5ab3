/** A private database per test, and waiting without sleeping for luck. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import { Client, Pool } from "pg";
import { inject, test as base } from "vitest";

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

/** Asks until there is an answer. An error of the probe counts as "not yet", and is told at the end. */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined | false>,
  timeout_ms = 15_000,
): Promise<T> {
  const deadline = Date.now() + timeout_ms;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) {
      throw new Error(`Waited ${timeout_ms} ms in vain for ${what}; last: ${inspect(last)}`, { cause: last });
    }
    await sleep(20);
  }
}
