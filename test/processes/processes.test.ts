/** Thaw's real processes: how they start, refuse to start, stop and die. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { connect, createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { watch } from "../../server/worker/watch.ts";
import { newPool, waitFor } from "../support/database.ts";
import { test as base, type Process, type World } from "../support/processes.ts";
import { baseEnv } from "../support/fast_run.ts";
import { ROOT } from "../support/root.ts";
import { isWaitedFor, know } from "../support/rows.ts";
import { BUCKET, JANE, requestBody, SECRET, startThaw } from "../support/thaw.ts";

const START = ["migrate", "server", "worker"];
/** What a supervisor grants, and what a busy machine adds to seeing it. */
const SUPERVISOR_MS = 11_000;

const test = base.extend<{ checkout: string }>({
  /** A copy of the checkout with a .data/ of its own. */
  // oxlint-disable-next-line no-empty-pattern
  checkout: async ({}, use) => {
    const root = await mkdtemp(join(tmpdir(), "thaw-checkout-"));
    for (const part of ["package.json", "crontab", "server", "sql", "tasks"]) {
      await cp(join(ROOT, part), join(root, part), { recursive: true });
    }
    await symlink(join(ROOT, "node_modules"), join(root, "node_modules"));
    await use(root);
    const data = join(root, ".data", "data");
    const pid = await postmasterOf(root);
    if (pid !== undefined) process.kill(pid, "SIGQUIT");
    await waitFor("Postgres to be gone", async () => (await postmasterOf(root)) === undefined);
    const elsewhere = await readlink(data).catch(() => undefined);
    if (elsewhere !== undefined) await rm(elsewhere, { recursive: true, force: true });
    await rm(root, { recursive: true });
  },
});

/** The process of a checkout's embedded Postgres, if it runs. */
async function postmasterOf(root: string): Promise<number | undefined> {
  const data = join(root, ".data", "data");
  const pid = Number((await readFile(join(data, "postmaster.pid"), "utf8").catch(() => "")).split("\n")[0]);
  if (!(pid > 0)) return undefined;
  try {
    process.kill(pid, 0);
    return pid;
  } catch {
    return undefined;
  }
}

async function takePort(): Promise<{ port: number; server: Server }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, port: (server.address() as AddressInfo).port };
}

const jobs = async (pool: Pool): Promise<number> =>
  (await pool.query("select from graphile_worker.jobs")).rowCount ?? -1;

/** Which tasks there are is asked once by each worker; graphile-worker remembers the answer, be it an error. */
const refuseTasks = (pool: Pool) =>
  pool.query(`
    create function refuse() returns trigger language plpgsql as $$
    begin
      if current_query() not like '%nudge%' then raise exception 'out of order'; end if;
      return null;
    end $$;
    create trigger refuse before insert on graphile_worker._private_tasks
      for each statement execute function refuse()`);

const lockedJobs = async (pool: Pool): Promise<number> =>
  (await pool.query("select from graphile_worker.jobs where locked_by is not null")).rowCount ?? -1;

const isStruck = (fault: { struck: number }) => waitFor("S3 to be asked", async () => fault.struck > 0);

describe("npm start", () => {
  test("migrates an empty database, serves, and works a read to its end", async ({ world, emptyUrl }) => {
    const { s3, resend } = world;
    s3.putObject({ bucket: BUCKET, key: "a", storage_class: "GLACIER", body: "a" });
    const thaw = world.run(START, { DATABASE_URL: emptyUrl });
    const pool = newPool(emptyUrl);
    await thaw.says("server ready");
    await know(pool, JANE);

    expect(await thaw.post("/restore/request", requestBody("a"))).toMatchObject({ status: 200 });
    await waitFor("S3 to be asked", async () => s3.counts.get("RestoreObject 202") === 1);
    s3.finishRestore({ bucket: BUCKET, key: "a" });
    const expires = s3.look({ bucket: BUCKET, key: "a" })?.expires_at?.toISOString();
    const completed = { s3_bucket: BUCKET, s3_key: "a", restore_expires_at: expires };
    expect(await thaw.post("/restore/completed", completed)).toEqual({
      status: 200,
      body: { ok: true, updated: 1 },
    });

    await waitFor("the mail", async () => resend.mails.some((mail) => mail.subject.includes("ready")));
    expect((await fetch(`${await thaw.url()}/readyz`)).status).toBe(200);
    await pool.end();
    thaw.child.kill("SIGTERM");
    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
  });

  test("may be run twice at once on one empty database", async ({ world, emptyUrl }) => {
    const both = [world.run(START, { DATABASE_URL: emptyUrl }), world.run(START, { DATABASE_URL: emptyUrl })];
    for (const [index, thaw] of both.entries()) {
      expect(await thaw.post("/restore/request", requestBody(`${index}`))).toMatchObject({ status: 200 });
    }
    for (const thaw of both) thaw.child.kill("SIGTERM");
    expect(await Promise.all(both.map((thaw) => thaw.end(SUPERVISOR_MS)))).toEqual([0, 0]);
  });

  test("says what is wrong with the settings, and nothing secret", async ({ world }) => {
    const thaw = world.run(START, {
      DATABASE_URL: "postgres://thaw:hun/ter2@db/thaw",
      MAIL_FROM: "",
      PORT: "x",
    });

    expect(await thaw.end()).toBe(1);
    for (const name of ["DATABASE_URL", "MAIL_FROM", "PORT"]) expect(thaw.output()).toContain(`  ${name}: `);
    expect(thaw.output()).not.toMatch(/ter2|    at /);
  });
});

test("the log has one line per request and one per job, and the request's id leads from one to the other", async ({
  world,
  pool,
}) => {
  world.s3.putObject({ bucket: BUCKET, key: "a", storage_class: "GLACIER", body: "a" });
  // What runs is written down: a job that has ended leaves no trace.
  await pool.query(`create table ended (id text);
    create function note() returns trigger language plpgsql as $$ begin insert into ended values (old.id); return old; end $$;
    create trigger note before delete on graphile_worker._private_jobs for each row execute function note()`);
  const thaw = world.run(["server", "worker"]);
  const { body } = await thaw.post("/restore/request", requestBody("a"));
  const request_id = (body as { id: string }).id;
  await waitFor(
    "pending",
    async () => (await pool.query("select from restores where status = 'pending'")).rowCount === 1,
  );
  await waitFor("the jobs to end", async () => (await lockedJobs(pool)) === 0);
  thaw.child.kill("SIGTERM");
  expect(await thaw.end(SUPERVISOR_MS)).toBe(0);

  const lines = thaw
    .output()
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const of = (msg: string) => lines.filter((line) => line["msg"] === msg);
  expect(of("request")).toMatchObject([{ level: "info", request_id, status: 200, s3_key: "a" }]);
  expect(of("asked S3")).toMatchObject([
    { level: "info", restore_id: request_id, s3_key: "a", transition: "mark_restores_pending" },
  ]);
  const ended = (await pool.query<{ id: string }>("select id from ended")).rows.map(({ id }) => id);
  expect(
    of("job")
      .map((line) => line["job_id"])
      .toSorted(),
  ).toEqual(ended.toSorted());
  const did = of("job").filter((line) => "did" in line && line["task"] === "trigger_restores");
  expect(did).toMatchObject([{ did: { claimed: 1, asked: 1, pending: 1 } }]);
  for (const { did: _did, ...line } of of("job")) {
    expect(line).toEqual({
      level: "info",
      time: expect.any(String),
      task: expect.stringMatching(
        /^(resolve_users|trigger_restores|p(re|ost)_notify|poll_pending_restores)$/,
      ),
      job_id: expect.any(String),
      attempt: 1,
      ms: expect.any(Number),
      msg: "job",
    });
  }
});

describe("a process that cannot do its work", () => {
  test("refuses a database that is not migrated", async ({ world, emptyUrl }) => {
    for (const role of ["server", "worker"]) {
      const refusing = world.run([role], { DATABASE_URL: emptyUrl });
      expect(await refusing.end()).toBe(1);
      expect(refusing.output()).toBe("The database has no Thaw tables yet. Run: npm run migrate\n");
    }
  });

  test("says which roles there are", async ({ world }) => {
    for (const roles of [[], ["server", "wörker"]]) {
      const refusing = world.run(roles);
      expect(await refusing.end()).toBe(1);
      expect(refusing.output()).toBe(
        "Say what to run: node server/main.ts [migrate] [server] [worker] [pages]\n",
      );
    }
  });

  test("says that its port is taken, and has begun nothing", async ({ world, emptyUrl }) => {
    const { server, port } = await takePort();
    const refusing = world.run(START, { PORT: String(port), DATABASE_URL: emptyUrl });

    expect(await refusing.end()).toBe(1);
    expect(refusing.output()).toBe(`Port ${port} of 127.0.0.1 is taken; set PORT to another.\n`);
    const pool = newPool(emptyUrl);
    const { rows } = await pool.query("select from pg_namespace where nspname = 'graphile_worker'");
    expect(rows).toEqual([]);
    await pool.end();
    server.close();
  });

  test("says that it cannot have its host", async ({ world }) => {
    const refusing = world.run(["server"], { HOST: "192.0.2.1", PORT: "3000" });

    expect(await refusing.end()).toBe(1);
    expect(refusing.output()).toMatch(/^Cannot listen on port 3000 of 192.0.2.1: .*EADDRNOTAVAIL.*\n$/);
  });

  test("ends when a migration fails, which changes nothing", async ({ world, emptyUrl, checkout }) => {
    await writeFile(join(checkout, "sql", "9999_broken.sql"), "select 1;\nselect 1 / 0;\nselect nonsense;\n");
    const migrating = world.run(["migrate"], { DATABASE_URL: emptyUrl }, checkout);

    expect(await migrating.end()).toBe(1);
    expect(migrating.output()).toBe("sql/9999_broken.sql:2: division by zero\n");
    const pool = newPool(emptyUrl);
    const { rows } = await pool.query(
      "select to_regclass('restores') as restores, to_regclass('thaw_migrations') as migrations",
    );
    expect(rows).toEqual([{ restores: null, migrations: null }]);
    await pool.end();
  });

  test("ends well when there was only to migrate", async ({ world, emptyUrl }) => {
    for (const says of ["migrated", "the database is up to date"]) {
      const migrating = world.run(["migrate"], { DATABASE_URL: emptyUrl });
      expect(await migrating.end()).toBe(0);
      expect(migrating.output()).toContain(`"${says}"`);
    }
  });
});

describe("a process that is told to stop", () => {
  test("answers a request whose body is still coming", async ({ world, pool }) => {
    const thaw = world.run(["server"]);
    const { port } = new URL(await thaw.url());
    const body = JSON.stringify(requestBody("a"));
    const socket = connect(Number(port), "127.0.0.1");
    let answer = "";
    socket.on("data", (chunk) => (answer += String(chunk)));
    const headers = `host: thaw\r\ncontent-type: application/json\r\nx-restore-secret: ${SECRET}\r\n`;
    socket.write(
      `POST /restore/request HTTP/1.1\r\n${headers}content-length: ${body.length}\r\n\r\n${body.slice(0, 10)}`,
    );
    // Another's answer shows that it has seen ours begin.
    await fetch(`http://127.0.0.1:${port}/healthz`);

    thaw.child.kill("SIGTERM");
    await thaw.says("stopping");
    await expect(fetch(`http://127.0.0.1:${port}/healthz`)).rejects.toThrow();
    socket.write(body.slice(10));
    await once(socket, "close");

    expect(answer).toMatch(/^HTTP\/1.1 200 .*"duplicate":false\}$/s);
    expect((await pool.query("select from restore_requests")).rowCount).toBe(1);
    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
  });

  test("lets a running job end, and leaves none locked", async ({ world, pool }) => {
    world.s3.putObject({ bucket: BUCKET, key: "a", storage_class: "GLACIER", body: "a" });
    const slow = world.s3.fail({ with: "latency", operation: "RestoreObject", latency_ms: 1_500 });
    const thaw = world.run(["server", "worker"]);
    await thaw.post("/restore/request", requestBody("a"));
    await isStruck(slow);
    expect(await lockedJobs(pool)).toBeGreaterThan(0);

    thaw.child.kill("SIGTERM");

    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
    expect(await lockedJobs(pool)).toBe(0);
    expect((await pool.query("select status from restores")).rows).toEqual([{ status: "pending" }]);
  });

  test("cuts a job short that does not end, and leaves none locked", async ({ world, pool }) => {
    world.s3.putObject({ bucket: BUCKET, key: "a", storage_class: "GLACIER", body: "a" });
    const hanging = world.s3.fail({ with: "hang" });
    const thaw = world.run(["server", "worker"]);
    await thaw.post("/restore/request", requestBody("a"));
    await isStruck(hanging);

    thaw.child.kill("SIGTERM");

    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
    expect(await lockedJobs(pool)).toBe(0);
    expect((await pool.query("select status from restores")).rows).toEqual([{ status: "not_started" }]);
  });

  test("stops once when it is told twice", async ({ world }) => {
    const thaw = world.run(["server", "worker"]);
    await thaw.url();

    thaw.child.kill("SIGINT");
    await thaw.says("stopping");
    thaw.child.kill("SIGINT");
    thaw.child.kill("SIGTERM");

    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
    expect(thaw.output()).not.toMatch(/"level":"(error|fatal)"/);
  });

  test("does not wait for connections that are only kept", async ({ world }) => {
    const thaw = world.run(["server"]);
    const url = await thaw.url();
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const get = async (path: string) => {
      const [response] = await once(request(url + path, { agent }).end(), "response");
      response.resume();
      await once(response, "end");
    };
    await get("/healthz");
    // A second one that never says anything.
    const silent = connect(Number(new URL(url).port), "127.0.0.1");
    await once(silent, "connect");
    const began = performance.now();

    thaw.child.kill("SIGTERM");

    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
    expect(performance.now() - began).toBeLessThan(2_500);
    agent.destroy();
    silent.destroy();
  });

  test("answers a request that waits for Postgres, and does not wait for its connection, which is kept", async ({
    world,
    pool,
  }) => {
    const thaw = world.run(["server"]);
    await thaw.url();
    const locker = await pool.connect();
    await locker.query("begin; lock table restores in access exclusive mode");
    // fetch keeps its connections.
    const answer = thaw.post("/restore/request", requestBody("a"));
    await waitFor("the request to wait", () => isWaitedFor(pool));
    thaw.child.kill("SIGTERM");
    await thaw.says("stopping");
    await locker.query("rollback");
    locker.release();
    expect(await answer).toMatchObject({ status: 200 });
    const answered = performance.now();

    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
    expect(performance.now() - answered).toBeLessThan(1_500);
  });

  test("while it starts, starts no further", async ({ world, pool, databaseUrl }) => {
    const locker = await newPool(databaseUrl).connect();
    await locker.query("begin; lock table thaw_migrations in access exclusive mode");
    const thaw = world.run(START);
    await waitFor("the start to wait", () => isWaitedFor(pool));

    thaw.child.kill("SIGTERM");
    await thaw.says("stopping");
    await locker.query("rollback");
    locker.release(true);

    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
    expect(await lockedJobs(pool)).toBe(0);
  });
});

describe("when Postgres goes away", () => {
  /** Starts a worker again whenever it ends, as a supervisor does. */
  const supervise = (world: World, env: Record<string, string>) => {
    const ends: (number | string)[] = [];
    let worker = world.run(["worker"], env);
    const first = worker;
    let wanted = true;
    const loop = (async () => {
      for (;;) {
        ends.push(await worker.end(120_000));
        if (!wanted) return;
        await sleep(300); // Its back-off.
        worker = world.run(["worker"], env);
      }
    })();
    return {
      ends,
      ready: () => first.says("worker ready"),
      async stop() {
        wanted = false;
        worker.child.kill("SIGTERM");
        await loop;
      },
    };
  };

  for (const busy of [false, true]) {
    test(`the server answers 503, and a worker that was ${busy ? "busy" : "idle"} finishes the work afterwards`, async ({
      world,
      postgres,
    }) => {
      const { s3 } = world;
      const env = { DATABASE_URL: postgres.url };
      expect(await world.run(["migrate"], env).end()).toBe(0);
      for (const key of ["a", "b"])
        s3.putObject({ bucket: BUCKET, key, storage_class: "GLACIER", body: key });
      const server = world.run(["server"], env);
      const worker = supervise(world, env);
      await Promise.all([server.url(), worker.ready()]);
      const before = newPool(postgres.url);
      await waitFor("the jobs of the start to end", async () => (await jobs(before)) === 0);
      if (busy) {
        const slow = s3.fail({ with: "latency", operation: "RestoreObject", latency_ms: 1_500, times: 1 });
        expect(await server.post("/restore/request", requestBody("a"))).toMatchObject({ status: 200 });
        await isStruck(slow);
        // One that ends while Postgres is away ends the worker, and the call with it.
        await waitFor("the other jobs to end", async () => (await lockedJobs(before)) === 1);
      }
      await before.end();

      await postgres.stop();
      if (busy) await waitFor("the end of the call", async () => s3.counts.get("RestoreObject 202") === 1);
      expect(await server.post("/restore/request", requestBody("b"))).toMatchObject({ status: 503 });
      expect((await fetch(`${await server.url()}/readyz`)).status).toBe(503);
      expect((await fetch(`${await server.url()}/healthz`)).status).toBe(200);

      await postgres.start();
      await waitFor("the server to be ready", async () => (await fetch(`${await server.url()}/readyz`)).ok);
      expect(await server.post("/restore/request", requestBody("b"))).toMatchObject({
        status: 200,
        body: { duplicate: false },
      });
      const pool = newPool(postgres.url);
      // As if the lease of the worker that lost its database were over.
      await pool.query("update restores set attempt_after = now()");
      await pool.query("select nudge('trigger_restores')");
      await waitFor("all restores", async () => {
        const { rows } = await pool.query("select from restores where status <> 'pending'");
        return rows.length === 0;
      });
      await pool.end();
      for (const key of busy ? ["a", "b"] : ["b"])
        expect(s3.look({ bucket: BUCKET, key })?.restores_accepted).toBe(1);

      await worker.stop();
      expect(worker.ends.at(-1)).toBe(0);
      expect(worker.ends.slice(0, -1)).not.toContain(0);
      server.child.kill("SIGTERM");
      expect(await server.end(SUPERVISOR_MS)).toBe(0);
    });
  }

  test("the log says once that it is lost, once that it is back, of a 503 one short line, and quotes no object", async ({
    world,
    postgres,
  }) => {
    const thaw = world.run(START, { DATABASE_URL: postgres.url, LOG_LEVEL: "info" });
    const url = await thaw.url();
    await waitFor("the jobs of the start to end", async () => thaw.output().split('"msg":"job"').length > 5);
    // A job that ends while Postgres is away ends the worker.
    const pool = newPool(postgres.url);
    await waitFor("their ends to be noted", async () => (await jobs(pool)) === 0);
    await pool.end();
    const before = thaw.output().length;

    await postgres.stop("fast");
    await thaw.says("Postgres is lost");
    for (let time = 0; time < 3; time++) {
      expect(await thaw.post("/restore/request", requestBody("a"))).toMatchObject({ status: 503 });
      expect((await fetch(`${url}/readyz`)).status).toBe(503);
    }
    await sleep(1_500); // An outage that lasts longer than a look.
    await postgres.start();
    await thaw.says("Postgres is back");

    const text = thaw.output().slice(before);
    const lines = text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const of = (msg: string) => lines.filter((line) => line["msg"] === msg);
    expect(of("Postgres is lost")).toMatchObject([
      { level: "error", process: "server worker", reason: expect.stringMatching(/^\S.{5,150}$/) },
    ]);
    const [back] = of("Postgres is back");
    expect(of("Postgres is back")).toMatchObject([{ level: "warn", process: "server worker" }]);
    expect(back?.["away_ms"]).toBeGreaterThan(1_500);
    expect(of("a request failed")).toMatchObject(
      Array.from({ length: 3 }, () => ({ level: "warn", status: 503, reason: expect.any(String) })),
    );
    expect(of("not ready")).toHaveLength(1);
    for (const line of lines) {
      expect(line).not.toHaveProperty("err");
      expect(JSON.stringify(line).length).toBeLessThan(450);
    }
    expect(text).not.toMatch(/client|password|    at /);
    // It may also have ended, as a busy one does; what it said then is another test's.
    thaw.child.kill("SIGTERM");
    await thaw.end(SUPERVISOR_MS);
  });

  test("a worker that cannot go on says that it is for Postgres", async ({ world, postgres }) => {
    const env = { DATABASE_URL: postgres.url };
    expect(await world.run(["migrate"], env).end()).toBe(0);
    world.s3.putObject({ bucket: BUCKET, key: "a", storage_class: "GLACIER", body: "a" });
    const slow = world.s3.fail({ with: "latency", operation: "HeadObject", latency_ms: 1_500, times: 1 });
    const [server, worker] = [world.run(["server"], env), world.run(["worker"], env)];
    await worker.says("worker ready");
    await server.post("/restore/request", requestBody("a"));
    await isStruck(slow);

    await postgres.stop();

    // Its job ends while nobody can take it down; graphile-worker does not go on then.
    expect(await worker.end()).toBe(1);
    // Written at once, so perhaps before the line of the job that ended.
    const fatal = /^.*"level":"fatal".*$/m.exec(worker.output())?.[0] ?? "{}";
    expect(JSON.parse(fatal), worker.output()).toMatchObject({
      level: "fatal",
      msg: "cannot go on without Postgres; a supervisor should restart this process",
      reason: expect.any(String),
      postgres: expect.stringMatching(/ECONNREFUSED|ECONNRESET|terminated/),
      away_ms: expect.any(Number),
    });
    for (const line of worker.output().split("\n")) expect(line.length).toBeLessThan(2_000);
  });

  test("a worker that hears nothing from it ends by itself", async ({ postgres }) => {
    const pool = newPool(postgres.url);
    const reasons: string[] = [];
    let looks = 0;
    pool.on("acquire", () => looks++);
    const watching = watch({
      check: async () => {
        await pool.query("select");
        return null;
      },
      fatal: (reason) => reasons.push(reason),
      check_every_ms: 50,
    });
    // More than it takes when none is answered.
    await waitFor("some looks", async () => looks > 20);
    expect(reasons).toEqual([]);

    await postgres.stop();
    await waitFor("the verdict", async () => reasons.length > 0);

    expect(reasons[0]).toBe("the worker has not reached its jobs for 0.6 s");
    watching.stop();
    await pool.end();
  });

  test("a process whose worker gets no jobs is not ready, one without a worker is", async ({
    world,
    pool,
  }) => {
    await refuseTasks(pool);
    const [both, alone] = [world.run(["server", "worker"]), world.run(["server"])];
    const ready = async (process: Process) => {
      const response = await fetch(`${await process.url()}/readyz`);
      return [response.status, await response.json()];
    };
    await waitFor("its worker to fail", async () => (await ready(both))[0] === 503);

    expect(await ready(both)).toEqual([503, { ok: false, reason: "The worker does not get its jobs." }]);
    expect(await ready(alone)).toEqual([200, { ok: true }]);
  });

  test("a worker that does not recover although Postgres is back ends by itself", async ({
    databaseUrl,
    pool,
  }) => {
    await refuseTasks(pool);
    const thaw = await startThaw(databaseUrl, { worker: false });
    const worker = await thaw.startWorker({}, { check_every_ms: 500 });
    await waitFor("its failure", async () => worker.problem() !== null);
    await pool.query("drop function refuse cascade");

    await waitFor("the verdict", async () => thaw.lambdaErrors.length > 0);

    expect(thaw.lambdaErrors[0]).toMatchObject({
      message: "the worker died: the worker has not reached its jobs for 6 s",
    });
    await thaw.stop();
  });
});

describe("the embedded Postgres", () => {
  const env = { DATABASE_URL: "embedded" };

  test("comes and goes with the process, keeps its data, and survives a kill", async ({
    world,
    checkout,
  }) => {
    const first = world.run(START, env, checkout);
    const { body } = await first.post("/restore/request", requestBody("a"));
    first.child.kill("SIGINT");
    expect(await first.end(SUPERVISOR_MS)).toBe(0);
    expect(await postmasterOf(checkout)).toBeUndefined();

    const second = world.run(START, env, checkout);
    const repeat = { status: 200, body: { ok: true, id: (body as { id: string }).id, duplicate: true } };
    expect(await second.post("/restore/request", requestBody("a"))).toEqual(repeat);
    second.child.kill("SIGKILL");
    await second.end();
    expect(await postmasterOf(checkout)).toBeDefined();

    const third = world.run(START, env, checkout);
    expect(await third.post("/restore/request", requestBody("a"))).toEqual(repeat);
    third.child.kill("SIGTERM");
    expect(await third.end(SUPERVISOR_MS)).toBe(0);
    expect(await postmasterOf(checkout)).toBeUndefined();
  });

  test("is stopped when something else cannot start", async ({ world, checkout }) => {
    await writeFile(join(checkout, "sql", "9999_broken.sql"), "select nonsense;\n");
    const refusing = world.run(START, env, checkout);

    expect(await refusing.end()).toBe(1);
    expect(refusing.output()).toContain("embedded Postgres is running");
    expect(refusing.output()).toContain('\nsql/9999_broken.sql:1: column "nonsense" does not exist\n');
    expect(await postmasterOf(checkout)).toBeUndefined();
  });

  test("is not even started where the port is taken", async ({ world, checkout }) => {
    const { server, port } = await takePort();
    const refusing = world.run(START, { ...env, PORT: String(port) }, checkout);

    expect(await refusing.end()).toBe(1);
    expect(refusing.output()).toBe(`Port ${port} of 127.0.0.1 is taken; set PORT to another.\n`);
    expect(await readdir(checkout)).not.toContain(".data");
    server.close();
  });

  test("goes with the terminal that is closed, though nobody reads what is said about it", async ({
    world,
    checkout,
  }) => {
    const thaw = world.run(START, env, checkout);
    await thaw.url();
    thaw.child.stdout?.destroy();
    thaw.child.stderr?.destroy();

    thaw.child.kill("SIGHUP");

    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
    expect(await postmasterOf(checkout)).toBeUndefined();
  });

  // `script` makes the terminal; where there is none, Debian's bsdutils is missing. Its options differ elsewhere.
  test.skipIf(process.platform !== "linux")(
    "goes with a real terminal, on which the last lines cannot be written",
    async ({ world, checkout }) => {
      const command = `exec ${process.execPath} ${join(checkout, "server/main.ts")} ${START.join(" ")}`;
      const terminal = spawn("script", ["-qec", command, "/dev/null"], {
        cwd: tmpdir(),
        env: { ...baseEnv(checkout), ...world.settings, ...env },
        stdio: ["ignore", "pipe", "inherit"],
      });
      let output = "";
      terminal.stdout.on("data", (chunk) => (output += String(chunk)));
      await waitFor("the start", async () => output.includes("server ready"), 20_000);
      expect(await postmasterOf(checkout)).toBeDefined();
      const children = await readFile(`/proc/${terminal.pid}/task/${terminal.pid}/children`, "utf8");
      const pid = Number(children);

      terminal.kill("SIGKILL");

      await waitFor("Postgres to be gone", async () => (await postmasterOf(checkout)) === undefined);
      const isGone = async () => !existsSync(`/proc/${pid}`);
      try {
        await waitFor("Thaw to be gone", isGone, SUPERVISOR_MS);
      } finally {
        if (!(await isGone())) process.kill(pid, "SIGKILL");
      }
    },
  );

  test("is stopped when it has only just been told to start", async ({ world, checkout }) => {
    const thaw = world.run(START, env, checkout);
    await waitFor("the first sign of it", async () => (await postmasterOf(checkout)) !== undefined);

    thaw.child.kill("SIGTERM");

    expect(await thaw.end(SUPERVISOR_MS)).toBe(0);
    expect(await postmasterOf(checkout)).toBeUndefined();
  });
});
