/** Databases, and ways to them, that Thaw cannot work with: each is a sentence that says what to do. */
import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { createPool } from "../../server/postgres/pool.ts";
import { databaseProblem } from "../../server/postgres/database_problem.ts";
import { createLog } from "../../server/log.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import { startApi } from "../support/api.ts";
import { newPool } from "../support/database.ts";
import { test } from "../support/processes.ts";
import { runCommand, type Ended } from "../support/run_command.ts";
import { requestBody } from "../support/thaw.ts";

/** Each process that an operator starts; the doctor has lines instead. */
const COMMANDS = [
  ["server/main.ts", "migrate"],
  ["server/main.ts", "server"],
  ["server/main.ts", "worker"],
  ["server/main.ts", "migrate", "server", "worker"],
  ["server/cli/users.ts", "list"],
];

/** One sentence, of one line, without a stack, a secret or an error's insides. */
function expectSentence({ code, output }: Ended, sentence: RegExp): void {
  expect(output).toMatch(sentence);
  expect(output).not.toMatch(/^\s+at |node:internal|sesame/m);
  expect(code).toBe(1);
}

const databaseOf = (url: string): string => new URL(url).pathname.slice(1);

describe.for(["LATIN1", "SQL_ASCII", "EUC_JP"])("a database in %s", (encoding) => {
  test("is refused by all, with the line that makes a right one", async ({ world, emptyUrl, pool }) => {
    const name = databaseOf(emptyUrl);
    await pool.query(`drop database ${name}`);
    await pool.query(
      `create database ${name} encoding '${encoding}' locale_provider libc locale 'C' template template0`,
    );

    const env = { ...world.settings, DATABASE_URL: emptyUrl };
    const sentence = new RegExp(
      `^The database ${name} is not UTF-8 but ${encoding}, which .* create database ${name}_utf8 encoding 'UTF8' template template0 .*; `,
    );
    for (const command of COMMANDS) expectSentence(await runCommand(command, env), sentence);
    const { output, code } = await runCommand(["server/cli/doctor/doctor.ts"], env);
    expect(output).toMatch(
      new RegExp(`^FAIL {2}Postgres: .*${encoding}.*create database ${name}_utf8 encoding 'UTF8'`, "m"),
    );
    expect(code).toBe(1);

    const line = /create database [^;]+/.exec(output)?.[0] ?? "";
    await pool.query(line);
    const right = new URL(emptyUrl);
    right.pathname = `/${name}_utf8`;
    expect(
      await runCommand(["server/main.ts", "migrate"], { ...env, DATABASE_URL: right.href }),
    ).toMatchObject({
      code: 0,
    });
    await pool.query(`drop database ${name}_utf8`);
  });
});

test("a database whose foreign keys and triggers are off is refused by all", async ({
  world,
  databaseUrl,
  pool,
}) => {
  await pool.query(`alter database ${databaseOf(databaseUrl)} set session_replication_role = replica`);
  for (const command of COMMANDS) {
    expectSentence(
      await runCommand(command, world.settings),
      /^session_replication_role is replica.* alter database \S+ reset session_replication_role/,
    );
  }
});

test("a Postgres that is too old is told apart from one that is not", async ({ pool, databaseUrl }) => {
  expect(await databaseProblem(pool)).toBeNull();
  // A schema that is searched first has another version.
  await pool.query(`create schema strange;
    create function strange.current_setting(text) returns text language sql
      as $$ select case $1 when 'server_version' then '13.22' when 'server_version_num' then '130022' end $$`);
  await pool.query(`alter database ${databaseOf(databaseUrl)} set search_path = strange, pg_catalog, public`);
  const plain = newPool(databaseUrl);
  expect(await databaseProblem(plain)).toEqual({
    found: "version 13.22",
    todo: expect.stringMatching(/14 or newer/),
  });
  await plain.end();
});

describe("DATABASE_URL", () => {
  const urlOf = (databaseUrl: string, change: (url: URL) => void): string => {
    const url = new URL(databaseUrl);
    change(url);
    return url.href;
  };

  test("without the password that Postgres asks for", async ({ world, databaseUrl }) => {
    const DATABASE_URL = urlOf(databaseUrl, (url) => (url.password = ""));
    const env = { ...world.settings, DATABASE_URL, PGPASSFILE: "/no/such/file" };
    for (const command of COMMANDS) {
      expectSentence(
        await runCommand(command, env),
        /^Postgres cannot be used: .*asks for a password.*PGPASSWORD/,
      );
    }
    const { output } = await runCommand(["server/cli/doctor/doctor.ts"], env);
    expect(output).toMatch(/^FAIL {2}Postgres: .*asks for a password: put it into DATABASE_URL/m);
  });

  test("with a wrong password", async ({ world, databaseUrl }) => {
    const DATABASE_URL = urlOf(databaseUrl, (url) => (url.password = "open-sesame"));
    for (const command of COMMANDS) {
      expectSentence(
        await runCommand(command, { ...world.settings, DATABASE_URL }),
        /^Postgres cannot be used: password authentication failed.*Check DATABASE_URL/,
      );
    }
  });

  test("with several hosts", async ({ world }) => {
    for (const DATABASE_URL of [
      "postgres://thaw:open-sesame@db1.example,db2.example/thaw",
      "postgres://thaw:open-sesame@db1.example:5432,db2.example:5432/thaw?target_session_attrs=read-write",
      "postgres://thaw:open-sesame@/thaw?host=db1.example%2Cdb2.example",
    ]) {
      for (const command of COMMANDS) {
        expectSentence(
          await runCommand(command, { ...world.settings, DATABASE_URL }),
          /DATABASE_URL: names several hosts.*name the one/,
        );
      }
    }
  });

  test("with a file of certificates that is not there, or is none", async ({ world, databaseUrl }) => {
    const none = join(tmpdir(), `thaw-no-pem-${randomUUID()}`);
    await writeFile(none, "sesame");
    for (const name of ["sslrootcert", "sslcert", "sslkey"]) {
      for (const [file, why] of [
        ["/no/such/ca.pem", "cannot be read \\(ENOENT\\)"],
        [none, "is no PEM file"],
      ] as const) {
        const DATABASE_URL = `${databaseUrl}?sslmode=verify-full&${name}=${encodeURIComponent(file)}`;
        expectSentence(
          await runCommand(["server/main.ts", "server"], { ...world.settings, DATABASE_URL }),
          new RegExp(`DATABASE_URL: names ${file} as ${name}, which ${why}`),
        );
      }
    }
  });

  test("with a file that begins as a certificate and is none", async ({ world }) => {
    const broken = join(tmpdir(), `thaw-broken-pem-${randomUUID()}`);
    await writeFile(broken, "-----BEGIN CERTIFICATE-----\nsesame\n-----END CERTIFICATE-----\n");
    // Says yes to TLS, and no more: the file is read before anything is sent.
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => socket.write("S"));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const DATABASE_URL = `postgres://thaw:open-sesame@127.0.0.1:${port}/thaw?sslmode=verify-full&sslcert=${broken}&sslkey=${broken}`;
    expectSentence(
      await runCommand(["server/main.ts", "server"], { ...world.settings, DATABASE_URL }),
      /^Postgres cannot be used: .*PEM.*Check DATABASE_URL/,
    );
    server.close();
  });
});

describe("a value that the database cannot hold", () => {
  /** As a database in another encoding answers; one that Thaw does not start on. */
  const refuse = (pool: Pool, state: string): Promise<unknown> =>
    pool.query(`
      create function refuse() returns trigger language plpgsql as $$ begin
        if new.s3_key like '日本%' then raise exception 'refused' using errcode = '${state}'; end if;
        return new;
      end $$;
      create trigger refuse before insert on restores for each row execute function refuse()`);

  test("is the caller's to hear of, with 422, and takes nobody else's event along", async ({
    databaseUrl,
    pool,
  }) => {
    await refuse(pool, "22P05");
    const api = await startApi(databaseUrl);
    const answers = await Promise.all(
      ["a.bin", "日本/😀.bin", "b.bin"].map((key) => api.post("/restore/request", requestBody(key))),
    );
    expect(answers.map(({ status }) => status)).toEqual([200, 422, 200]);
    expect(answers[1]?.body).toEqual({
      error: {
        code: "unprocessable",
        message: expect.stringMatching(/cannot hold.*repeating it will not help/),
      },
    });
    await api.close();
  });

  test.for(["23514", "54000"])(
    "is another row's fault with %s: 500, to be tried again",
    async (state, { databaseUrl, pool }) => {
      await refuse(pool, state);
      const api = await startApi(databaseUrl);
      expect(await api.post("/restore/request", requestBody("日本.bin"))).toMatchObject({ status: 500 });
      await api.close();
    },
  );
});

test("a later release may have a function answer more: servers of before go on", async ({
  databaseUrl,
  pool,
}) => {
  const api = await startApi(databaseUrl);
  expect(await api.post("/restore/request", requestBody("before"))).toMatchObject({ status: 200 });
  expect(await api.post("/restore/completed", { s3_bucket: "archive", s3_key: "x" })).toMatchObject({
    status: 200,
  });

  // The one result more that a release may add, in functions that do the same.
  await pool.query(`
    alter function request_restores rename to request_before;
    alter function complete_restores rename to complete_before;
    create function request_restores(jsonb, interval[], text[]) returns table (read_id uuid, request_id uuid, duplicate boolean, more integer)
      language sql as $$ select *, 1 from request_before($1, $2, $3) $$;
    create function complete_restores(jsonb, interval[]) returns table (event_id uuid, updated integer, more integer)
      language sql as $$ select *, 1 from complete_before($1, $2) $$`);

  for (let time = 0; time < 5; time++) {
    expect(await api.post("/restore/request", requestBody(`after/${time}`))).toMatchObject({ status: 200 });
    expect(await api.post("/restore/completed", { s3_bucket: "archive", s3_key: "x" })).toMatchObject({
      status: 200,
    });
  }
  await api.close();
});

test("a migration does not wait for ever for a lock that anybody may take, and says who has it", async ({
  databaseUrl,
  pool,
}) => {
  const client = await pool.connect();
  await client.query("select pg_advisory_lock(x'74686177'::bigint)");
  const own = createPool(databaseUrl, { name: "migrate", max: 5, query_timeout_ms: 0 }, createLog("silent"));
  await expect(migrate(own, undefined, 300)).rejects.toThrow(
    /another connection holds the migrations' lock.*process \d+ of .*pg_terminate_backend/s,
  );
  await client.query("select pg_advisory_unlock_all()");
  client.release();
  expect(await migrate(own)).toEqual([]);
  await own.end();
});
