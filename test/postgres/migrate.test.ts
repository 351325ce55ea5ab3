import { randomUUID } from "node:crypto";
import { appendFileSync, cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { Client, type Pool } from "pg";
import { describe, expect, inject } from "vitest";

import { createPool } from "../../server/postgres/pool.ts";
import { createLog } from "../../server/log.ts";
import { migrate, migrationProblem } from "../../server/postgres/migrate.ts";
import { statementsOf } from "../../server/postgres/sql_statements.ts";
import { test as base, waitFor } from "../support/database.ts";
import { query } from "../support/rows.ts";

const SQL = join(import.meta.dirname, "../../sql");
const ALL = [
  "0001_tables.sql",
  "0002_workers.sql",
  "0003_retention.sql",
  "0004_mail_turns.sql",
  "0005_unknown_readers.sql",
  "0006_people.sql",
  "0007_claimed_at.sql",
  "0008_mail_pages.sql",
  "0009_claims.sql",
  "0010_unused_functions.sql",
  "0011_history.sql",
  "0012_view_names.sql",
  "0013_lists.sql",
  "0014_history_without_checks.sql",
  "0015_search.sql",
  "0016_gate_since.sql",
  "0017_cost.sql",
  "0018_who.sql",
  "0019_looks.sql",
  "0020_ask_after.sql",
  "0021_named_readers.sql",
  "rules.sql",
  "times.sql",
  "history.sql",
  "people.sql",
  "cost.sql",
  "transitions.sql",
  "looks.sql",
  "mails.sql",
  "workers.sql",
  "retention.sql",
  "lists.sql",
  "operators.sql",
  "cost_operators.sql",
  "orders.sql",
  "views.sql",
  "cost_views.sql",
  "metrics.sql",
  "privileges.sql",
  "comments.sql",
];

const newPool = (url: string): Pool =>
  createPool(url, { name: "migrate", max: 5, query_timeout_ms: 0 }, createLog("silent"));

async function administer(statement: string): Promise<void> {
  const client = new Client({ connectionString: inject("postgresUrl") });
  await client.connect();
  await client.query(statement);
  await client.end();
}

/** An empty database, and a copy of sql/ to change. */
const test = base.extend<{ empty: Pool; another: Pool; directory: string }>({
  // oxlint-disable-next-line no-empty-pattern
  empty: async ({}, use) => {
    const name = `empty_${randomUUID().replaceAll("-", "")}`;
    await administer(`create database ${name}`);
    const url = new URL(inject("postgresUrl"));
    url.pathname = `/${name}`;
    const pool = newPool(url.href);
    await use(pool);
    await pool.end();
    await administer(`drop database ${name} with (force)`);
  },
  another: async ({ empty }, use) => {
    const pool = newPool(empty.options.connectionString as string);
    await use(pool);
    await pool.end();
  },
  // oxlint-disable-next-line no-empty-pattern
  directory: async ({}, use) => {
    const directory = mkdtempSync(join(tmpdir(), "thaw-sql-"));
    cpSync(SQL, directory, { recursive: true });
    await use(directory);
    rmSync(directory, { recursive: true });
  },
});

const files = async (pool: Pool): Promise<string[]> =>
  (await query(pool, "select name from thaw_migrations order by applied_at, name")).map(
    (row) => row["name"] as string,
  );
/** What late_read_grace() answers is the mark of the text that defined it last. */
const grace = async (pool: Pool): Promise<string> =>
  (await query(pool, "select late_read_grace()::text as grace"))[0]?.["grace"] as string;
const graceOf = (minutes: number): string =>
  `\ncreate or replace function late_read_grace() returns interval language sql immutable as $$ select interval '${minutes} minutes' $$;\n`;

test("a page is cut between its statements, and nowhere else", () => {
  const statements = [
    "select 1",
    "select ';', ';;' || 'it''s; --', e'\\';', \"a;b\"",
    "create function f() returns text language sql as $$ select ';' || $a$;;$a$ $$",
    "do $do$ begin perform ';'; -- ;\nend $do$",
    "select $1, a$b$c, 2 /* ; */ + 3 -- ;\n, 4",
  ];
  const text = `-- first;\n${statements.join(";\n\n/* ; */ ")};\n-- last;\n`;
  expect(statementsOf(text).map((statement) => statement.text)).toEqual(statements);
  for (const { text: statement, line } of statementsOf(text)) {
    expect(
      text
        .split("\n")
        .slice(line - 1)
        .join("\n"),
    ).toContain(statement);
    expect(text.split("\n")[line - 1]).toContain(statement.split("\n")[0]);
  }
});

describe("migrating", () => {
  test("runs each file once, in order", async ({ empty }) => {
    expect(await migrationProblem(empty)).toBe("The database has no Thaw tables yet. Run: npm run migrate");
    expect(await migrate(empty)).toEqual(ALL);
    expect(await migrationProblem(empty)).toBeNull();
    expect(await migrate(empty)).toEqual([]);
    expect(await files(empty)).toHaveLength(ALL.length);
  });

  test("by two processes at once happens once", async ({ empty, another }) => {
    const ran = await Promise.all([migrate(empty), migrate(another)]);
    expect(ran.toSorted((a, b) => a.length - b.length)).toEqual([[], ALL]);
    expect(await migrationProblem(another)).toBeNull();
  });

  test("refuses a numbered file that was edited, and changes nothing", async ({ empty, directory }) => {
    await migrate(empty, directory);
    appendFileSync(join(directory, "0001_tables.sql"), "\n-- a word more\n");
    appendFileSync(join(directory, "transitions.sql"), graceOf(6));
    await expect(migrate(empty, directory)).rejects.toThrow(
      "sql/0001_tables.sql was edited after it was applied. Put it back and add a new file.",
    );
    expect(await grace(empty)).toBe("00:05:00");
  });

  test("runs a new numbered file, and changed pages", async ({ empty, directory }) => {
    await migrate(empty, directory);
    writeFileSync(join(directory, "0099_more.sql"), "create table more (id integer);");
    appendFileSync(
      join(directory, "views.sql"),
      "\ncreate or replace view all_more as select * from more;\n",
    );
    appendFileSync(join(directory, "transitions.sql"), graceOf(6));
    expect(await migrate(empty, directory)).toEqual(["0099_more.sql", "transitions.sql", "views.sql"]);
    expect(await grace(empty)).toBe("00:06:00");
    expect(await query(empty, "select * from all_more")).toEqual([]);
  });

  describe("meets those who work in no circle", () => {
    const PAST_DEADLOCK_TIMEOUT_S = 2;

    test("with whoever looks at requests before restores", async ({ empty, another, directory }) => {
      await migrate(empty, directory);
      writeFileSync(join(directory, "0099_more.sql"), "alter table restores add column more integer;");
      const reader = await another.connect();
      await reader.query("begin; select from restore_requests");
      const migrated = migrate(empty, directory);
      await sleep(300);
      await reader.query("select from restores");
      await sleep(PAST_DEADLOCK_TIMEOUT_S * 1000);
      await reader.query("commit");
      reader.release();
      expect(await migrated).toEqual(["0099_more.sql"]);
    });

    test("and locks nothing but Thaw's own: no view of ours names a relation of others", async ({
      empty,
    }) => {
      await migrate(empty);
      expect(
        await query(
          empty,
          `select distinct w.ev_class::regclass::text as view, d.refobjid::regclass::text as names
             from pg_depend d join pg_rewrite w on w.oid = d.objid and d.classid = 'pg_rewrite'::regclass
             join pg_class v on v.oid = w.ev_class and v.relnamespace = 'public'::regnamespace
             join pg_class c on c.oid = d.refobjid and d.refclassid = 'pg_class'::regclass and c.relnamespace <> 'public'::regnamespace`,
        ),
      ).toEqual([]);
    });

    test("with whoever looks at a view while a numbered file takes its time", async ({
      empty,
      another,
      directory,
    }) => {
      await migrate(empty, directory);
      writeFileSync(join(directory, "0099_more.sql"), `select pg_sleep(${PAST_DEADLOCK_TIMEOUT_S});`);
      appendFileSync(join(directory, "views.sql"), "\n-- a word more\n");
      const migrated = migrate(empty, directory);
      await sleep(500);
      const read = query(another, "select from untold_requests");
      expect(await migrated).toEqual(["0099_more.sql", "views.sql"]);
      expect(await read).toEqual([]);
    });
  });

  test("writes comments when all else is done, and nobody waits for them", async ({
    empty,
    another,
    directory,
  }) => {
    await migrate(empty, directory);
    writeFileSync(join(directory, "0099_more.sql"), "alter table restores add column more integer;");
    appendFileSync(
      join(directory, "comments.sql"),
      "\ncomment on column restores.more is 'More.';\nselect pg_advisory_xact_lock(1);\n",
    );
    const holder = await another.connect();
    try {
      await holder.query("select pg_advisory_lock(1)");
      const migrated = migrate(empty, directory);
      await waitFor(
        "the comments to be under way",
        async () =>
          (
            await query(
              holder as unknown as Pool,
              "select from pg_locks where not granted and locktype = 'advisory'",
            )
          ).length > 0,
      );
      await holder.query("set lock_timeout = '100ms'");
      await holder.query("insert into restores (id, s3_bucket, s3_key) values (gen_random_uuid(), 'b', 'k')");
      expect((await holder.query("select more from restores")).rowCount).toBe(1);
      expect((await holder.query("select from pg_description where description = 'More.'")).rowCount).toBe(0);
      await holder.query("select pg_advisory_unlock(1)");
      expect(await migrated).toEqual(["0099_more.sql", "comments.sql"]);
    } finally {
      holder.release(true);
    }
  });

  test("that ends in the comments is not finished, and the next one writes them", async ({
    empty,
    directory,
  }) => {
    await migrate(empty, directory);
    writeFileSync(join(directory, "0099_more.sql"), "create table more (id integer);");
    appendFileSync(join(directory, "comments.sql"), "\ncomment on table nowhere is 'x';\n");
    await expect(migrate(empty, directory)).rejects.toThrow(/sql\/comments.sql:\d+: .*nowhere/);
    expect(await query(empty, "select * from more")).toEqual([]);
    cpSync(join(SQL, "comments.sql"), join(directory, "comments.sql"));
    appendFileSync(join(directory, "comments.sql"), "\ncomment on table more is 'x';\n");
    expect(await migrate(empty, directory)).toEqual(["comments.sql"]);
  });

  test("does not let an older process put its own functions back", async ({ empty, directory }) => {
    await migrate(empty);
    appendFileSync(join(directory, "transitions.sql"), graceOf(6));
    await migrate(empty, directory);

    expect(await migrate(empty)).toEqual([]);

    expect(await grace(empty)).toBe("00:06:00");
    expect(await migrationProblem(empty)).toBeNull();
  });

  test("keeps the rows that are there", async ({ empty, directory }) => {
    await migrate(empty, directory);
    await empty.query(
      "insert into aws_key_user_map (access_key_id, email) values ('AKIA', 'jane@example.com')",
    );
    appendFileSync(join(directory, "transitions.sql"), graceOf(6));
    await migrate(empty, directory);
    expect(await query(empty, "select email from aws_key_user_map")).toEqual([{ email: "jane@example.com" }]);
  });

  test("names file and line of a mistake, and leaves nothing half done", async ({ empty, directory }) => {
    writeFileSync(join(directory, "0099_more.sql"), "create table more (\n  id integer,\n  name tekst\n);\n");
    await expect(migrate(empty, directory)).rejects.toThrow(
      'sql/0099_more.sql:3: type "tekst" does not exist',
    );
    expect(await migrationProblem(empty)).toBe("The database has no Thaw tables yet. Run: npm run migrate");
    rmSync(join(directory, "0099_more.sql"));
    expect(await migrate(empty, directory)).toEqual(ALL);
  });

  const fn = (body: string, language = "plpgsql"): string =>
    `create function f() returns integer language ${language} as $body$${body}$body$`;
  test.for<[string, string, number, RegExp]>([
    ["a word that is none", "selekt 1;", 4, /syntax error at or near "selekt"/],
    ["a mistake far from where its statement begins", "select\n  1,\n  nope;", 6, /column "nope"/],
    [
      "a column that is missing in a body of SQL",
      `${fn("\n  select 1;\n  select nope;\n", "sql")};`,
      6,
      /"nope"/,
    ],
    [
      "the second of two functions with one text",
      `create function g() returns integer language sql as 'select 1';\n${fn("select nope", "sql")};`,
      5,
      /"nope"/,
    ],
    [
      "a mistake in a body of PL/pgSQL",
      `${fn("\nbegin\n  perform 1; -- ;\n  iff true;\nend ")};`,
      7,
      /at or near "iff"/,
    ],
    [
      "an exception in a DO block",
      "do $$\nbegin\n  raise exception 'no such luck';\nend $$;",
      6,
      /no such luck/,
    ],
    ["a DO block on the line of its quote", "do\n$$ begin\n  perform 1 / 0;\nend $$;", 6, /division by zero/],
    [
      "a missing column in a DO block",
      "do $$\nbegin\n  perform 1;\n  perform nope from pg_class;\nend $$;",
      7,
      /"nope"/,
    ],
    [
      "what a DO block calls",
      `${fn("\nbegin\n  return 1 / 0;\nend ")};\ndo $$\nbegin\n  perform f();\nend $$;`,
      10,
      /division by zero/,
    ],
    ["a row that is refused", "insert into restores (status)\n  values ('nonsense');", 5, /nonsense/],
    ["a statement that fails when it runs", "select 1 / 0;", 4, /division by zero/],
    ["a quote that never ends", "select 1;\nselect 'oh", 5, /unterminated quoted string/],
  ])("says on which line a page fails: %s", async ([, text, line, message], { empty, directory }) => {
    writeFileSync(
      join(directory, "0099_more.sql"),
      `-- one; two\nselect 1;\n/* three; */\n${text}\nselect 2;\n`,
    );
    const error = await migrate(empty, directory).then(
      () => new Error("it did not fail"),
      (reason: Error) => reason,
    );
    expect(error.name).toBe("MigrationError");
    expect(error.message).toMatch(message);
    expect(error.message).toMatch(new RegExp(`^sql/0099_more\\.sql:${line}: `));
  });

  test("says so of a page that is applied again and that Postgres cannot read", async ({
    empty,
    directory,
  }) => {
    writeFileSync(join(directory, "metrics.sql"), "select 1;\nselect 'oh");
    await expect(migrate(empty, directory)).rejects.toThrow(
      /^sql\/metrics\.sql:2: unterminated quoted string/,
    );
  });

  test("a database that lacks a file of this build says which", async ({ empty }) => {
    await migrate(empty);
    await empty.query("update thaw_migrations set sha256 = 'older' where name = 'transitions.sql'");
    expect(await migrationProblem(empty)).toBe(
      "The database lacks sql/transitions.sql of this build. Run: npm run migrate",
    );
  });
});
