/** What callers hear while Postgres is away, in every way in which it can be, and what they find afterwards. */
import { randomUUID } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Client, type Pool } from "pg";
import { describe, expect } from "vitest";

import { createPool } from "../../server/postgres/pool.ts";
import { createLog } from "../../server/log.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import { MINIMAL, startApi, test as base, type Answer, type Api } from "../support/api.ts";
import { newPool, waitFor } from "../support/database.ts";
import { PrivatePostgres, UNSAFE } from "../support/private_postgres.ts";
import { everything, one } from "../support/rows.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp_proxy.ts";
import { requestBody } from "../support/thaw.ts";

/** Two seconds, and what a busy machine adds. */
const SOON_MS = 2_800;

const expectAway = (...answers: Answer[]): void => {
  for (const answer of answers) {
    expect(answer).toMatchObject({
      status: 503,
      body: { error: { code: "unavailable", message: expect.stringMatching(/try again/) } },
    });
    expect(answer.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
    expect(answer.ms).toBeLessThan(SOON_MS);
  }
};

/** The same body until it is taken: what a Lambda does. */
const retry = (api: Api, body: unknown): Promise<Answer> =>
  waitFor("an answer", async () => {
    const answer = await api.post("/restore/request", body);
    return answer.status === 200 && answer;
  });

const expectReady = (api: Api): Promise<boolean> =>
  waitFor("readiness", async () => (await api.get("/readyz")).status === 200);

/** Outside of any pool, whose end would wait for it when a test fails. */
async function connectTo(url: string): Promise<Client> {
  const client = new Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

const test = base.extend<{ postgres: PrivatePostgres }>({
  // Vitest reads from the pattern which fixtures a fixture needs.
  // oxlint-disable-next-line no-empty-pattern
  postgres: async ({}, use) => {
    const dir = join(tmpdir(), `thaw-http-${randomUUID()}`);
    const server = await PrivatePostgres.start(dir, { ...UNSAFE, max_connections: "12" });
    const pool = createPool(
      server.url,
      { name: "migrate", max: 2, query_timeout_ms: 0 },
      createLog("silent"),
    );
    await migrate(pool);
    await pool.end();
    await use(server);
    await server.remove();
  },
});

describe("Postgres is stopped", () => {
  test("callers hear it at once, and need no restart afterwards", async ({ postgres }) => {
    const api = await startApi(postgres.url);
    const body = requestBody("a");
    const before = await api.post("/restore/request", body);
    expect(before.status).toBe(200);

    await postgres.stop();
    expectAway(
      ...(await Promise.all([api.post("/restore/request", body), api.post("/restore/completed", MINIMAL)])),
    );
    expect(await api.get("/readyz")).toMatchObject({
      status: 503,
      body: { reason: "Postgres does not answer." },
    });
    expect(await api.get("/healthz")).toMatchObject({ status: 200 });

    await postgres.start();
    // The very next one.
    expect(await api.post("/restore/request", body)).toMatchObject({
      status: 200,
      body: { id: before.body.id, duplicate: true },
    });
    expect(await api.get("/readyz")).toMatchObject({ status: 200 });
    await api.close();
  });

  test("in the middle of a statement, nothing of it stays, and a retry counts once", async ({ postgres }) => {
    const api = await startApi(postgres.url);
    const pool = newPool(postgres.url);
    const untouched = await everything(pool);
    // All is written, job included, when this holds it up.
    await pool.query(`create function hold() returns trigger language plpgsql as
      $$ begin perform pg_sleep(60); return null; end $$;
      create constraint trigger hold after insert on restore_requests
        deferrable initially deferred for each row execute function hold()`);
    const body = requestBody("a");

    const cut = api.post("/restore/request", body);
    await waitFor("the commit", async () => {
      const { rowCount } = await pool.query("select from pg_stat_activity where wait_event = 'PgSleep'");
      return rowCount === 1;
    });
    await postgres.stop();
    expectAway(await cut);

    await postgres.start();
    await pool.query("drop function hold cascade");
    expect(await everything(pool)).toEqual(untouched);
    const answer = await api.post("/restore/request", body);
    expect(answer).toMatchObject({ status: 200, body: { duplicate: false } });
    expect(await api.post("/restore/request", body)).toMatchObject({
      status: 200,
      body: { id: answer.body.id, duplicate: true },
    });
    expect(await one(pool, "select id, read_count from restore_requests")).toEqual({
      id: answer.body.id,
      read_count: 1,
    });
    await pool.end();
    await api.close();
  });
});

test("Postgres has no connection left", async ({ postgres }) => {
  const clients: Client[] = [];
  const full = await waitFor("the last connection", async () => {
    try {
      clients.push(await connectTo(postgres.url));
      return undefined;
    } catch (error) {
      return error as { code: string };
    }
  });
  expect(full.code).toBe("53300");
  const api = await startApi(postgres.url);

  expectAway(await api.post("/restore/request", MINIMAL), await api.post("/restore/completed", MINIMAL));
  expect(await api.get("/readyz")).toMatchObject({ status: 503 });

  await Promise.all(clients.map((client) => client.end()));
  await retry(api, MINIMAL);
  await expectReady(api);
  await api.close();
});

test("Postgres is read-only", async ({ databaseUrl, pool }) => {
  const api = await startApi(databaseUrl);
  const database = new URL(databaseUrl).pathname.slice(1);
  // Connected while it can still write, to undo it.
  const admin = await connectTo(databaseUrl);
  await api.post("/restore/request", requestBody("before"));
  await admin.query(`alter database ${database} set default_transaction_read_only = on`);
  // As a failover does it.
  await admin.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'api' and datname = $1",
    [database],
  );
  const body = requestBody("a");

  for (let time = 0; time < 3; time++) {
    expectAway(await api.post("/restore/request", body), await api.post("/restore/completed", MINIMAL));
    await waitFor("the probe to see it", async () => {
      const { status, body: probe } = await api.get("/readyz");
      expect(status).toBe(503);
      return probe.reason === "Postgres is read-only.";
    });
  }
  expect(await api.get("/healthz")).toMatchObject({ status: 200 });

  await admin.query(`alter database ${database} reset default_transaction_read_only`);
  await admin.end();
  await expectReady(api);
  expect(await retry(api, body)).toMatchObject({ body: { duplicate: false } });
  expect(await one(pool, "select read_count from restore_requests where s3_key = 'a'")).toEqual({
    read_count: 1,
  });
  await api.close();
});

test("somebody holds a lock on what we write", async ({ databaseUrl, pool }) => {
  const api = await startApi(databaseUrl);
  const body = requestBody("a");
  const holder = await connectTo(databaseUrl);
  await holder.query("begin; lock table restores in access exclusive mode");

  expectAway(
    ...(await Promise.all([api.post("/restore/request", body), api.post("/restore/completed", MINIMAL)])),
  );
  const probe = await api.get("/readyz");
  expect(probe.status).toBe(503);
  expect(probe.ms).toBeLessThan(SOON_MS);

  await holder.end();
  expect(await retry(api, body)).toMatchObject({ body: { duplicate: false } });
  expect(await one(pool, "select read_count from restore_requests")).toEqual({ read_count: 1 });
  await expectReady(api);
  await api.close();
});

test("somebody keeps one file locked: its own readers hear so, and everybody else is answered", async ({
  databaseUrl,
  pool,
}) => {
  const api = await startApi(databaseUrl);
  const locked = requestBody("locked.bin");
  await api.post("/restore/request", locked);
  const operator = await connectTo(databaseUrl);
  await operator.query("begin; select retry_restore(id) from restores; select from restores for update");

  const others: Answer[] = [];
  const refused: Answer[] = [];
  for (let round = 0; round < 5; round++) {
    const bodies = Array.from({ length: 20 }, (_, index) => requestBody(`${round}-${index}.bin`));
    bodies.splice(round * 3, 0, { ...locked, event_id: `again ${round}` });
    const answers = await Promise.all(bodies.map((body) => api.post("/restore/request", body)));
    refused.push(...answers.splice(round * 3, 1));
    others.push(...answers);
  }

  expect(others.map(({ status }) => status)).toEqual(others.map(() => 200));
  // One wait for the lock, and not one for each half of the batch.
  expect(Math.max(...others.map(({ ms }) => ms))).toBeLessThan(1_500);
  expectAway(...refused);
  expect(refused[0]?.body.error.message).toMatch(/locked/);

  await operator.query("commit");
  await operator.end();
  expect(await retry(api, { ...locked, event_id: "again 0" })).toMatchObject({ body: { duplicate: true } });
  expect(await one(pool, "select count(*)::int as files from restores")).toEqual({ files: 101 });
  await api.close();
});

describe("the line to Postgres", () => {
  test("goes silent: nobody waits for it, however many there are", async ({ databaseUrl }) => {
    await using proxy = await startTcpProxy(databaseUrl);
    const api = await startApi(proxy.url);
    const body = requestBody("a");
    expect(await api.post("/restore/request", body)).toMatchObject({ status: 200 });

    proxy.freeze();
    const first = api.post("/restore/request", body);
    await proxy.swallowed();
    // More than one batch, all of them behind the one that hangs.
    const others = Array.from({ length: 250 }, (_, index) =>
      api.post("/restore/request", requestBody(`${index}`)),
    );
    expectAway(...(await Promise.all([first, api.post("/restore/completed", MINIMAL), ...others])));
    const probe = await api.get("/readyz");
    expect(probe).toMatchObject({ status: 503, body: { reason: "Postgres does not answer." } });
    expect(probe.ms).toBeLessThan(SOON_MS);

    proxy.melt();
    await retry(api, body);
    await expectReady(api);
    await api.close();
  });

  test("was never there: connections open and nobody speaks", async ({ databaseUrl }) => {
    await using proxy = await startTcpProxy(databaseUrl);
    proxy.freeze();
    const api = await startApi(proxy.url);

    expectAway(
      ...(await Promise.all([
        api.post("/restore/request", requestBody("a")),
        api.post("/restore/completed", MINIMAL),
      ])),
    );
    const probe = await api.get("/readyz");
    expect(probe).toMatchObject({ status: 503, body: { reason: "Postgres does not answer." } });
    expect(probe.ms).toBeLessThan(SOON_MS);
    proxy.melt();
    await retry(api, MINIMAL);
    await api.close();
  });

  for (const [how, lose] of [
    ["lost", () => undefined],
    ["cut off", (proxy: TcpProxy) => proxy.swallowed().then(() => proxy.melt())],
  ] as const) {
    test(`an answer that is ${how} after the commit is made good by a repeat`, async ({
      databaseUrl,
      pool,
    }) => {
      await using proxy = await startTcpProxy(databaseUrl);
      const api = await startApi(proxy.url);
      await api.post("/restore/request", requestBody("warm the connection up"));
      proxy.mute();
      const losing = lose(proxy);
      const body = requestBody("a");

      expectAway(await api.post("/restore/request", body));
      await losing;
      proxy.melt();
      const row = await committed(pool);
      expect(row).toMatchObject({ read_count: 1 });
      expect((await retry(api, body)).body).toEqual({ ok: true, id: row["id"], duplicate: true });
      expect(await committed(pool)).toEqual(row);
      await api.close();
    });
  }
});

const committed = (pool: Pool) => one(pool, "select id, read_count from restore_requests where s3_key = 'a'");
