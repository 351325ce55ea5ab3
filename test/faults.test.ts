/** Holds faults.md to the tests that are there; and the faults that no other file has. */
import { existsSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";

import type { Pool } from "pg";
import { describe, expect, vi } from "vitest";

import { newPool, test as base, waitFor } from "./support/database.ts";
import { givenFiles, quiet, runNotify } from "./support/given_files.ts";
import { test, type Process, type World, readByJane } from "./support/processes.ts";
import { aRead, JOHN, one, query, requestRestores, WAITS } from "./support/rows.ts";
import { BUCKET, JANE, startThaw, type ThawOptions } from "./support/thaw.ts";

const inTests = (name: string): string => `${import.meta.dirname}/${name}`;

describe("faults.md", () => {
  const rows = readFileSync(inTests("faults.md"), "utf8")
    .split("\n")
    .filter((line) => /^\| \d/.test(line))
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    );

  base("numbers its faults from 1 on without a gap, and says of each what happens", () => {
    expect(rows.map(([number]) => Number(number))).toEqual(rows.map((_, index) => index + 1));
    for (const cells of rows) {
      expect(cells).toHaveLength(4);
      expect(cells).not.toContain("");
    }
  });

  base.for(rows)("$0: $1: is shown by tests of these titles", ([, , , shown = ""]) => {
    if (shown === "no test: ruled out") return;
    for (const test of shown.split(" <br> ")) {
      const [file = "", title] = test.split(/: (.*)/);
      expect(existsSync(inTests(file)), `test/${file} is there`).toBe(true);
      const source = readFileSync(inTests(file), "utf8");
      // The whole title, as the source spells it.
      const isThere = source.includes(`"${title}"`) || source.includes(`\`${title}\``);
      expect(isThere, `test/${file} has a test "${title}"`).toBe(true);
    }
  });
});

/** A look every five seconds finds the dead; Postgres must have been up for a while; the rest is a busy machine. */
const RECOVERED_WITHIN_MS = 40_000;
vi.setConfig({ testTimeout: 90_000 });

const FILM = { bucket: BUCKET, key: "film.mov" };

async function startWorker(world: World, env: Record<string, string> = {}): Promise<Process> {
  const worker = world.run(["worker"], env);
  await worker.says("worker ready");
  return worker;
}

const marked = (pool: Pool, what: string): Promise<unknown> =>
  waitFor(what, async () => (await query(pool, `select from ${what}`)).length === 1, RECOVERED_WITHIN_MS);

const SENT = "notifications where status = 'sent'";

/** All that was due is done, and nothing is held by somebody who is gone. */
const settled = (pool: Pool): Promise<unknown> =>
  waitFor(
    "the jobs to end",
    async () =>
      (
        await query(
          pool,
          "select from graphile_worker.jobs where locked_by is not null or run_at < now() + interval '10 seconds'",
        )
      ).length === 0,
    RECOVERED_WITHIN_MS,
  );

test("Postgres stops while Resend takes a mail, and starts again: the mail arrives once", async ({
  world,
  postgres,
}) => {
  const { resend } = world;
  const env = { DATABASE_URL: postgres.url };
  expect(await world.run(["migrate"], env).end()).toBe(0);
  let worker = await startWorker(world, env);
  const pool = newPool(postgres.url);
  resend.addFault({ kind: "slow", delay_ms: 1_000, times: 1 });
  await readByJane(world, pool, FILM.key);
  await waitFor("the call", async () => resend.requests.length === 1, 30_000);

  await postgres.stop();
  await waitFor("the mail", async () => resend.mails.length === 1);
  await postgres.start();

  expect(await one(pool, "select status::text, attempts from notifications")).toEqual({
    status: "sealed",
    attempts: 1,
  });
  // A minute passes, and a supervisor does its work if there is any.
  await pool.query("update notifications set attempt_after = now()");
  await waitFor(
    "the mark",
    async () => {
      if (worker.child.exitCode !== null) worker = world.run(["worker"], env);
      await pool.query("select nudge('pre_notify')");
      return (await query(pool, `select from ${SENT}`)).length === 1;
    },
    RECOVERED_WITHIN_MS,
  );
  expect(resend.mails).toHaveLength(1);
  expect(resend.requests.map(({ replayed }) => replayed)).toEqual([false, true]);
  expect(await one(pool, "select pre_notified from restore_requests")).toEqual({ pre_notified: true });
  await pool.end();
});

test("the connection that hears of jobs is cut: there is a new one within seconds, and no job waits longer", async ({
  world,
  pool,
}) => {
  const listeners = async (): Promise<number[]> =>
    (
      await query(
        pool,
        "select pid from pg_stat_activity where datname = current_database() and query like 'LISTEN%'",
      )
    ).map((row) => row["pid"] as number);
  const worker = await startWorker(world);
  const [pid] = await waitFor("the first", async () => {
    const pids = await listeners();
    return pids.length === 1 && pids;
  });
  await settled(pool);

  await pool.query("select pg_terminate_backend($1)", [pid]);
  const cut = performance.now();
  await readByJane(world, pool, FILM.key);

  await marked(pool, "restores where status = 'pending'");
  // Two seconds of polling, and what a busy machine adds.
  expect(performance.now() - cut).toBeLessThan(5_000);
  await waitFor("another", async () => {
    const pids = await listeners();
    return pids.length === 1 && pids[0] !== pid;
  });
  expect(performance.now() - cut).toBeLessThan(8_000);
  expect(worker.child.exitCode).toBeNull();
});

describe("kill -9", () => {
  test("between the mark and the end of its job: the job runs once more, and changes nothing", async ({
    world,
    pool,
  }) => {
    const { resend, s3 } = world;
    const worker = await startWorker(world);
    resend.addFault({ kind: "slow", delay_ms: 1_000, times: 1 });
    await readByJane(world, pool, FILM.key);
    await waitFor("the call", async () => resend.requests.length === 1, 30_000);
    const holder = await pool.connect();
    await holder.query("begin");
    await holder.query("select from graphile_worker._private_jobs where locked_by is not null for update");
    await marked(pool, SENT);
    const endings = `select pid from pg_stat_activity
                      where datname = current_database() and wait_event_type = 'Lock' and query like '%jobs%'`;
    await waitFor("the job's end to be on its way", async () => (await query(pool, endings)).length > 0);

    worker.child.kill("SIGKILL");
    await worker.end();
    // What a dead process had sent, Postgres would still do.
    for (const { pid } of await query(pool, endings))
      await pool.query("select pg_terminate_backend($1)", [pid]);
    await holder.query("rollback");
    holder.release();
    const locked = "select task_identifier as task from graphile_worker.jobs where locked_by is not null";
    expect(await query(pool, locked)).toContainEqual({ task: "pre_notify" });
    const everythingSaid = "select n.*, q.pre_notified, q.status_at from notifications n, restore_requests q";
    const before = await one(pool, everythingSaid);
    const asked = s3.requests.length;

    await startWorker(world);
    await settled(pool);

    expect(await one(pool, everythingSaid)).toEqual(before);
    expect(resend.requests).toHaveLength(1);
    expect(s3.requests).toHaveLength(asked);
  });

  test("at the deadline of a worker that was told twice to stop: its mail arrives once", async ({
    world,
    pool,
  }) => {
    const { resend } = world;
    const worker = await startWorker(world);
    resend.addFault({ kind: "accept_then_hang", times: 1 });
    await readByJane(world, pool, FILM.key);
    await waitFor("Resend to accept", async () => resend.mails.length === 1, 30_000);

    worker.child.kill("SIGTERM");
    await worker.says("stopping");
    worker.child.kill("SIGTERM");
    worker.child.kill("SIGKILL");
    expect(await worker.end()).toBe("SIGKILL");
    await startWorker(world);

    await marked(pool, SENT);
    await settled(pool);
    expect(resend.mails).toHaveLength(1);
    expect(resend.requests.map(({ replayed }) => replayed)).toEqual([false, true]);
  });
});

/** S3's view of clocks: what was signed a quarter of an hour ago, or will be, is refused. */
async function startPunctualS3(s3_url: string): Promise<{ url: string; refused: string[]; close(): void }> {
  const refused: string[] = [];
  const server = createServer((incoming, response) => {
    const [, date, hour, rest] = /^(\d{8}T)(\d\d)(.*)$/.exec(String(incoming.headers["x-amz-date"])) ?? [];
    const signed = Date.parse(
      `${date?.slice(0, 4)}-${date?.slice(4, 6)}-${date?.slice(6, 9)}${hour}:${rest?.slice(0, 2)}:${rest?.slice(2)}`,
    );
    if (!(Math.abs(signed - Date.now()) < 15 * 60_000)) {
      refused.push(incoming.method ?? "");
      incoming.resume();
      response.writeHead(403, { "content-type": "application/xml" });
      return response.end(
        "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>",
      );
    }
    const { method, headers } = incoming;
    const passed = request(s3_url + (incoming.url ?? ""), { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(response);
    });
    return incoming.pipe(passed);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    refused,
    close: () => server.close().closeAllConnections(),
  };
}

/** For NODE_OPTIONS: the process reads a clock that is wrong by so much. */
const wrongClock = (by_ms: number): string =>
  `--import=data:text/javascript,${encodeURIComponent(`
    const Right = Date;
    globalThis.Date = class Date extends Right {
      constructor(...given) { given.length > 0 ? super(...given) : super(Right.now() + ${by_ms}); }
      static now() { return Right.now() + ${by_ms}; }
    };`)}`;

test.for([
  ["an hour ahead", 3_600_000],
  ["an hour behind", -3_600_000],
] as const)(
  "a worker whose clock is %s: S3 is asked once more and read by its own time, all else goes by Postgres's",
  async ([, by_ms], { world, pool }) => {
    const { s3, resend } = world;
    const punctual = await startPunctualS3(s3.url);
    const { at: before } = await one(pool, "select now() as at");
    await startWorker(world, { NODE_OPTIONS: wrongClock(by_ms), AWS_ENDPOINT_URL_S3: punctual.url });
    await readByJane(world, pool, FILM.key);

    await marked(pool, "restores where status = 'pending' and failure_code is null");
    expect(punctual.refused[0]).toBe("HEAD");
    expect(s3.look(FILM)?.restores_accepted).toBe(1);
    await marked(pool, SENT);
    s3.finishRestore(FILM);
    // By the worker's own clock it may be over already.
    s3.ageCopy(FILM, new Date(Date.now() + 30 * 60_000));
    await pool.query("update restores set head_wanted_at = now()");
    await pool.query("select nudge('poll_pending_restores')");
    await marked(pool, "restore_requests where post_notified");

    const times = await one(
      pool,
      `select r.accepted_at, r.restored_at, q.requested_at, n.sent_at
         from restores r, restore_requests q, notifications n where n.kind = 'post'`,
    );
    const { at: after } = await one(pool, "select now() as at");
    for (const [what, at] of Object.entries(times)) expect(at >= before && at <= after, what).toBe(true);
    const began = (times["accepted_at"] as Date).toISOString().slice(11, 16);
    expect(resend.mails[0]?.text).toContain(`The restore\nbegan at ${began} UTC.`);
    expect(resend.mails[1]?.subject).toMatch(/^Your file is ready, until /);
    punctual.close();
  },
);

/** Nothing is held back: what is due, is due now. */
const AT_ONCE: ThawOptions = {
  worker: false,
  env: { NOTIFY_QUIET_SECONDS: "0", NOTIFY_MAX_WAIT_SECONDS: "0" },
};

base(
  "a mail that cannot be written is tried again and seen by operators; the others arrive",
  async ({ databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, AT_ONCE);
    const { pool, resend } = thaw;
    for (const name of ["ann", "bob", "carl"])
      await givenFiles(pool, { email: `${name}@example.com`, keys: [`${name}.bin`], status: "restored" });
    await pool.query("alter table notifications add constraint poison check (email <> 'ann@example.com')");
    await thaw.startWorker();

    await runNotify(pool);

    expect(resend.mails.flatMap(({ to }) => to).toSorted()).toEqual(["bob@example.com", "carl@example.com"]);
    expect(await query(pool, "select from graphile_worker.jobs where last_error is not null")).toEqual([]);
    expect(await query(pool, "select email, problem from stuck_requests")).toEqual([
      { email: "ann@example.com", problem: 'the mail "ready" or "failed" is overdue' },
    ]);

    await pool.query("alter table notifications drop constraint poison");
    await runNotify(pool);
    expect(resend.mails[2]?.to).toEqual(["ann@example.com"]);
    await thaw.stop();
  },
);

base("ten thousand reads of one person are two mails, each in seconds", async ({ databaseUrl }) => {
  // The windows as they are by default: nothing is told before they are over.
  const thaw = await startThaw(databaseUrl, {
    worker: false,
    env: { NOTIFY_QUIET_SECONDS: "120", NOTIFY_MAX_WAIT_SECONDS: "900" },
  });
  const { pool, resend } = thaw;
  await thaw.know(JANE, "jane@example.com");
  // Two hundred at a time, as the server writes what comes together.
  for (let from = 0; from < 10_000; from += 200) {
    const keys = Array.from({ length: 200 }, (_, index) => `film-${from + index}.mov`);
    await requestRestores(pool, ...keys.map((s3_key) => aRead({ s3_key })));
  }
  await pool.query(
    `select mark_restores_pending(jsonb_agg(to_jsonb(c) || '{"storage_class": "GLACIER", "pinned_version_id": ""}'), $1)
       from claim_restores_to_trigger(10000) c`,
    [WAITS],
  );
  // As autovacuum does within a minute: the plan for never analysed tables compares each with each.
  await pool.query("analyze");
  await thaw.startWorker();
  /** Two minutes pass; then how long until the mail is there. */
  const timed = async (mails: number): Promise<number> => {
    await pool.query("update restores set status_at = status_at - interval '121 seconds'");
    await pool.query("update restore_requests set requested_at = requested_at - interval '121 seconds'");
    const began = performance.now();
    await runNotify(pool);
    expect(resend.mails).toHaveLength(mails);
    return Math.round(performance.now() - began);
  };

  const started_ms = await timed(1);
  await pool.query(
    "update restores set status = 'restored', status_at = now(), restore_expires_at = now() + interval '7 days'",
  );
  const ready_ms = await timed(2);

  console.log(`10,000 files in one mail: started after ${started_ms} ms, ready after ${ready_ms} ms`);
  expect(Math.max(started_ms, ready_ms)).toBeLessThan(10_000);
  expect(resend.mails.map(({ subject }) => subject)).toEqual([
    expect.stringMatching(/^Your 10,000 files are being restored/),
    expect.stringMatching(/^Your 10,000 files are ready/),
  ]);
  for (const { text } of resend.mails) {
    expect(new Set(text.match(/film-\d+\.mov/g))).toHaveProperty("size", 50);
    expect(text).toContain("and 9,950 more");
  }
  expect(
    await query(
      pool,
      "select pre_notified, post_notified, count(*)::int from restore_requests group by 1, 2",
    ),
  ).toEqual([{ pre_notified: true, post_notified: true, count: 10_000 }]);
  await thaw.stop();
});

base(
  "no worker for a day, then one: oldest first, nothing told that is over, and no storm of cron jobs",
  async ({ databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, {
      worker: false,
      // S3 is asked about one file after the other, and all of them belong into one mail.
      env: { S3_CONCURRENCY: "1", NOTIFY_QUIET_SECONDS: "2", NOTIFY_MAX_WAIT_SECONDS: "15" },
      s3: { restore_ms: Infinity },
      events: false,
    });
    const { pool, resend, s3 } = thaw;
    await thaw.know(JANE, "jane@example.com");
    await thaw.know(JOHN, "john@example.com");
    const names = (name: string, count: number): string[] =>
      Array.from({ length: count }, (_, index) => `${name}-${String(index).padStart(2, "0")}.mov`);
    const [waiting, done] = [names("waiting", 20), names("done", 10)];
    for (const key of [...waiting, ...done]) thaw.archive(key);
    // Read all day, the last ones first in the table.
    await requestRestores(pool, ...[...waiting, ...done].toReversed().map((s3_key) => aRead({ s3_key })));
    await pool.query(
      "update restores set attempt_after = now() - interval '1 day' + right(split_part(s3_key, '.', 1), 2)::int * interval '1 hour'",
    );
    // Somebody else had these restored, and S3 told.
    for (const key of done) {
      s3.beginRestore({ bucket: BUCKET, key }, { days: 7 });
      s3.finishRestore({ bucket: BUCKET, key });
      const restore_expires_at = s3.look({ bucket: BUCKET, key })?.expires_at?.toISOString();
      await thaw.post("/restore/completed", { s3_bucket: BUCKET, s3_key: key, restore_expires_at });
    }
    // John was told that his file is coming, and the event that it is there got lost.
    thaw.archive("lost.mov");
    await givenFiles(pool, {
      email: "john@example.com",
      keys: ["lost.mov"],
      status: "pending",
      age: "24 hours",
    });
    await pool.query("update restore_requests set requested_at = now() - interval '1 day'");
    s3.beginRestore({ bucket: BUCKET, key: "lost.mov" }, { days: 7 });
    s3.finishRestore({ bucket: BUCKET, key: "lost.mov" });
    await pool.query("update graphile_worker._private_jobs set run_at = run_at - interval '1 day'");
    await pool.query(
      "select graphile_worker.add_job('pre_notify', job_key := 'given_up', max_attempts := 1)",
    );
    await pool.query(
      "update graphile_worker._private_jobs set attempts = 1, locked_by = 'dead', locked_at = now() - interval '2 days' where key = 'given_up'",
    );
    // Cron last fired a day ago; from now on what it adds is written down.
    await pool.query(`
    insert into graphile_worker._private_known_crontabs (identifier, known_since, last_execution)
      select task, now() - interval '9 days', date_trunc('hour', now() - interval '1 day')
        from unnest(array['resolve_users', 'trigger_restores', 'pre_notify', 'post_notify', 'poll_pending_restores']) task;
    create table added (key text);
    create function note() returns trigger language plpgsql as $$ begin insert into added values (new.key); return new; end $$;
    create trigger note before insert on graphile_worker._private_jobs for each row execute function note()`);

    await thaw.startWorker();
    await waitFor(
      "all to be asked for, or told",
      async () =>
        (await query(pool, "select from restore_requests where restore_status = 'pending' and pre_notified"))
          .length === waiting.length &&
        (await query(pool, "select from restore_requests where post_notified")).length === done.length + 1,
      20_000,
    );
    await quiet(pool);

    // Two walks take turns, so neighbours may change places.
    const asked = s3.requests
      .filter(({ operation, key }) => operation === "HeadObject" && key?.startsWith("waiting"))
      .map(({ key }) => waiting.indexOf(key ?? ""));
    expect(asked).toHaveLength(waiting.length);
    for (const [place, file] of asked.entries()) expect(Math.abs(place - file), asked.join()).toBeLessThan(3);

    const mailsTo = (name: string) => resend.mails.filter(({ to }) => to[0] === `${name}@example.com`);
    const started = mailsTo("jane").filter(({ subject }) => subject.includes("being restored"));
    expect(started.map(({ text }) => text).join()).not.toContain("done-");
    expect(mailsTo("jane").filter(({ subject }) => subject.includes("ready"))).toEqual([
      expect.objectContaining({ subject: "10 of your 30 files are ready" }),
    ]);
    expect(mailsTo("john").filter(({ subject }) => subject.includes("ready"))).toHaveLength(1);
    expect(await query(pool, "select from graphile_worker.jobs where key = 'given_up'")).toEqual([]);
    // One may have come due in these very seconds.
    const fired = await query(
      pool,
      "select key from added where key like 'cron_%' group by key having count(*) > 1",
    );
    expect(fired).toEqual([]);
    await thaw.stop();
  },
);
