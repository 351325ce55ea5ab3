import { type ChildProcessByStdio, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { chmod, mkdir, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { Client } from "pg";
import { describe, expect, test as base, vi } from "vitest";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../server/postgres/embedded/start.ts";

const isRoot = process.getuid?.() === 0;

/** A directory of its own, and an end for every server that a test starts. */
const test = base.extend<{ dir: string; start: typeof startEmbeddedPostgres }>({
  // Vitest reads from the pattern which fixtures a fixture needs.
  // oxlint-disable-next-line no-empty-pattern
  dir: async ({}, use) => {
    const dir = join(tmpdir(), `thaw-test-${randomUUID()}`);
    await use(dir);
    const data = await realpath(join(dir, "data")).catch(() => dir); // A link, where only root can enter.
    await rm(data, { recursive: true, force: true });
    await rm(dir, { recursive: true, force: true });
  },
  start: async ({ dir: _removedAfterwards }, use) => {
    const started: EmbeddedPostgres[] = [];
    await use(async (options) => {
      const server = await startEmbeddedPostgres(options);
      started.push(server);
      return server;
    });
    for (const server of started) await server.stop("immediate");
  },
});

async function ask(url: string, statement: string): Promise<unknown> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ answer: unknown }>(statement);
    return rows[0]?.answer;
  } finally {
    await client.end();
  }
}

/** Starts it in a process of its own, which then runs `afterwards`. */
function spawnParent(dir: string, afterwards: string): ChildProcessByStdio<null, Readable, null> {
  const program = `
    import { startEmbeddedPostgres } from ${JSON.stringify(`${import.meta.dirname}/../../server/postgres/embedded/start.ts`)};
    console.log((await startEmbeddedPostgres({ dir: ${JSON.stringify(dir)} })).pid);
    ${afterwards}`;
  return spawn(process.execPath, ["--input-type=module", "--eval", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

test("the first start makes a database as we need it, locked and for this machine only", async ({
  dir,
  start,
}) => {
  const { url } = await start({ dir, settings: { work_mem: "7MB" } });
  expect(new URL(url).pathname).toBe("/thaw");
  expect(await ask(url, "select 'B' < 'a' and 'z' < 'ä' and lower('Ä') = 'ä' as answer")).toBe(true);

  const names = "{autovacuum_naptime,listen_addresses,unix_socket_directories,work_mem}";
  const shown = `select array_agg(current_setting(name) order by name) as answer from unnest('${names}'::text[]) name`;
  expect(await ask(url, shown)).toEqual(["5s", "127.0.0.1", "", "7MB"]);

  const guess = new URL(url);
  guess.password = "thaw";
  await expect(ask(guess.href, "select")).rejects.toThrow(/password authentication failed/);
  expect((await stat(join(dir, "url"))).mode & 0o777).toBe(0o600);
});

test("data, password and port outlive a stop, and a SIGKILL of the server", async ({ dir, start }) => {
  const first = await start({ dir });
  await ask(first.url, "create table kept as select 7 as answer");
  await first.stop();
  const second = await start({ dir });
  expect(second.url).toBe(first.url);
  expect(await ask(second.url, "update kept set answer = 8 returning answer")).toBe(8);
  process.kill(second.pid, "SIGKILL");
  const third = await start({ dir });
  expect(third.pid).not.toBe(second.pid);
  expect(await ask(third.url, "select answer from kept")).toBe(8);
});

test("it does not keep its parent alive, and outlives its end and its SIGKILL to be joined", async ({
  dir,
  start,
}) => {
  const ends = spawnParent(dir, "");
  const [pid] = (await once(ends.stdout, "data")).map(Number);
  const [code] = await once(ends, "exit");
  expect(code).toBe(0);

  const isKilled = spawnParent(dir, "setInterval(() => {}, 1000);");
  expect((await once(isKilled.stdout, "data")).map(Number)).toEqual([pid]);
  isKilled.kill("SIGKILL");
  await once(isKilled, "exit");

  const survivor = await start({ dir });
  expect(survivor.pid).toBe(pid);
  expect(await ask(survivor.url, "select 1 as answer")).toBe(1);
});

test("a postmaster.pid that names a stranger's process is no obstacle", async ({ dir, start }) => {
  const first = await start({ dir });
  const file = join(first.dataDirectory, "postmaster.pid");
  const remains = (await readFile(file, "utf8")).split("\n");
  process.kill(first.pid, "SIGKILL");
  // A stranger of the same user: Postgres looks past processes that it may not signal.
  const { uid, gid } = await stat(file);
  const stranger = spawn("sleep", ["60"], { uid, gid });
  try {
    await writeFile(file, [stranger.pid, ...remains.slice(1)].join("\n"));
    const second = await start({ dir });
    expect(second.pid).not.toBe(stranger.pid);
    await second.stop();
    expect(stranger.exitCode ?? stranger.signalCode).toBeNull();
  } finally {
    stranger.kill();
  }
});

test("of several starters at once, first or later, all get the same server", async ({ dir, start }) => {
  const firstTime = await Promise.all([start({ dir }), start({ dir }), start({ dir })]);
  expect(new Set(firstTime.map(({ url, pid }) => `${url} ${pid}`)).size).toBe(1);
  await firstTime[0].stop();
  const again = await Promise.all([start({ dir }), start({ dir }), start({ dir })]);
  expect(new Set(again.map(({ url, pid }) => `${url} ${pid}`)).size).toBe(1);
  expect(new URL(again[0].url).password).toBe(new URL(firstTime[0].url).password);
});

describe("what goes wrong is said clearly", () => {
  test("a directory that cannot be", async ({ dir, start }) => {
    await writeFile(dir, "a file");
    const start_below = start({ dir: join(dir, "below") });
    await expect(start_below).rejects.toThrow(
      /^Cannot keep a Postgres in .*ENOTDIR[^]*Name a directory that you can/,
    );
  });

  test("a directory with data of something else", async ({ dir, start }) => {
    await mkdir(join(dir, "data"), { recursive: true });
    await expect(start({ dir })).rejects.toThrow(
      /^Cannot keep a Postgres in .*url[^]*remove this one to start anew/,
    );
  });

  test("a port that is taken", async ({ dir, start }) => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const address = other.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    try {
      await expect(start({ dir, port })).rejects.toThrow(
        /^Postgres does not start[^]*Address already in use/,
      );
    } finally {
      other.close();
    }
  });

  test("a system that npm has no Postgres for", async ({ dir, start }) => {
    vi.spyOn(process, "arch", "get").mockReturnValue("s390x");
    try {
      await expect(start({ dir })).rejects.toThrow(/no bundled Postgres for this system.*Set DATABASE_URL/);
    } finally {
      vi.restoreAllMocks();
    }
  });
});

describe.runIf(isRoot)("as root", () => {
  test("a directory that only root can enter holds a link to the data", async ({ dir, start }) => {
    await mkdir(dir);
    await chmod(dir, 0o700);
    const first = await start({ dir });
    expect(first.dataDirectory).not.toContain(dir);
    expect((await stat(first.dataDirectory)).uid).not.toBe(0); // Postgres runs as whom its data belongs to.
    await ask(first.url, "create table kept as select 7 as answer");
    await first.stop();
    const second = await start({ dir });
    expect(second.dataDirectory).toBe(first.dataDirectory);
    expect(await ask(second.url, "select answer from kept")).toBe(7);
  });
});
