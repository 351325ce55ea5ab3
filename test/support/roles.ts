/** A Postgres whose roles were made as the README says, and databases in it that thaw_migrator owns. */
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Client, type Pool } from "pg";
import { expect, inject } from "vitest";

import { newPool } from "./database.ts";
import { PrivatePostgres, UNSAFE } from "./private_postgres.ts";
import { test as base } from "./processes.ts";
import { ROOT } from "./root.ts";
import { runCommand } from "./run_command.ts";

const ROLES = ["thaw_migrator", "thaw_server", "thaw_worker", "thaw_reader", "thaw_operator"] as const;
export type RoleName = (typeof ROLES)[number];

export interface Roles {
  urlOf(role: RoleName | "admin" | "somebody", host?: string): string;
  /** Connected as that role. */
  as(role: RoleName | "admin" | "somebody"): Pool;
  /** By a process of its own, as the owner of the database. */
  migrate(): Promise<void>;
  /** In their database, by the superuser who made it. */
  asSuperuser(statement: string): Promise<void>;
}

/** Runs statements on that database, one connection for each. */
async function runOn(url: string, ...statements: string[]): Promise<void> {
  for (const statement of statements) {
    const client = new Client({ connectionString: url });
    await client.connect();
    try {
      await client.query(statement);
    } finally {
      await client.end();
    }
  }
}

const withPath = (postgresUrl: string, change: Partial<URL>): string =>
  Object.assign(new URL(postgresUrl), change).href;

const migrateAs = async (databaseUrl: string): Promise<void> => {
  const { code, output } = await runCommand(["server/main.ts", "migrate"], { DATABASE_URL: databaseUrl });
  expect(code, output).toBe(0);
};

/** As the README says, by an administrator who is no superuser; public is nobody's to create in, as since Postgres 15. */
async function makeDatabase(server: PrivatePostgres, name: string): Promise<void> {
  await runOn(
    withPath(server.url, { username: "admin", password: "admin", pathname: "/postgres" }),
    `create database ${name} owner thaw_migrator`,
  );
  await runOn(
    withPath(server.url, { pathname: `/${name}` }),
    "revoke create on schema public from public",
    "grant create on schema public to thaw_migrator",
  );
}

export const test = base.extend<{
  shared: PrivatePostgres;
  unmigrated: Roles;
  migrated: Roles;
}>({
  /** A Postgres whose roles were made as the README says, and in it the database `migrated`, to be copied. */
  shared: [
    // oxlint-disable-next-line no-empty-pattern
    async ({}, use) => {
      const dir = join(tmpdir(), `thaw-roles-${randomUUID()}`);
      const server = await PrivatePostgres.start(dir, UNSAFE, inject("postgresPrograms"));
      await runOn(
        server.url,
        "create role admin login createrole createdb password 'admin'",
        "create role somebody login password 'somebody'",
      );
      await runOn(
        withPath(server.url, { username: "admin", password: "admin", pathname: "/postgres" }),
        await readFile(join(ROOT, "sql/roles.sql"), "utf8"),
        ...ROLES.map((role) => `alter role ${role} password '${role}'`),
      );
      await makeDatabase(server, "migrated");
      await migrateAs(
        withPath(server.url, {
          username: "thaw_migrator",
          password: "thaw_migrator",
          pathname: "/migrated",
        }),
      );
      await use(server);
      await server.remove();
    },
    { scope: "file" },
  ],
  /** A database of the test's own, with nothing in it. */
  unmigrated: async ({ shared }, use) => {
    const name = `thaw_${randomUUID().replaceAll("-", "")}`;
    await makeDatabase(shared, name);
    await useRoles(shared, name, use);
  },
  /** A database of the test's own, which thaw_migrator has migrated. */
  migrated: async ({ shared }, use) => {
    const name = `thaw_${randomUUID().replaceAll("-", "")}`;
    await runOn(shared.url, `create database ${name} template migrated owner thaw_migrator`);
    await useRoles(shared, name, use);
  },
});

async function useRoles(
  server: PrivatePostgres,
  name: string,
  use: (roles: Roles) => Promise<void>,
): Promise<void> {
  const pools = new Map<string, Pool>();
  const urlOf: Roles["urlOf"] = (role, hostname = "127.0.0.1") =>
    withPath(server.url, {
      username: role,
      password: role,
      hostname,
      pathname: role === "admin" ? "/postgres" : `/${name}`,
    });
  await use({
    urlOf,
    as(role) {
      const pool = pools.get(role) ?? newPool(urlOf(role));
      pools.set(role, pool);
      return pool;
    },
    asSuperuser: (statement) => runOn(withPath(server.url, { pathname: `/${name}` }), statement),
    migrate: () => migrateAs(urlOf("thaw_migrator")),
  });
  for (const pool of pools.values()) await pool.end();
  await runOn(server.url, `drop database ${name} with (force)`);
}
