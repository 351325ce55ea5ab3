/** Who is told what, and when. How mails survive a bad day is in mail_protocol.test.ts. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { describe, expect } from "vitest";

import { test as base, waitFor } from "../support/database.ts";
import { givenFiles, quiet, runNotify } from "../support/given_files.ts";
import { ago, insertRead } from "../support/rows.ts";
import { BOB, BUCKET, JANE, requestBody, startThaw, type Thaw, type ThawOptions } from "../support/thaw.ts";

const test = base.extend<{ start: (options?: ThawOptions) => Promise<Thaw> }>({
  start: async ({ databaseUrl }, use) => {
    const thaws: Thaw[] = [];
    await use(async (options) => {
      const thaw = await startThaw(databaseUrl, options);
      thaws.push(thaw);
      // What a start brings along must not see half of what the test puts there.
      if (options?.worker !== false) await quiet(thaw.pool);
      return thaw;
    });
    for (const thaw of thaws) {
      await thaw.stop();
      expect(thaw.lambdaErrors).toEqual([]);
    }
  },
});

/** Nothing is held back: what is due, is due now. */
const AT_ONCE: ThawOptions = { env: { NOTIFY_QUIET_SECONDS: "0", NOTIFY_MAX_WAIT_SECONDS: "0" } };
/** Restores that end when the test says so. */
const SLOW_S3 = { restore_ms: Infinity };

const subjects = (thaw: Thaw) => thaw.resend.mails.map((mail) => `${mail.to.join()}: ${mail.subject}`);
const mailsTo = (thaw: Thaw, address: string) =>
  thaw.resend.mails.filter((mail) => mail.to.includes(address));
const files = (from: number, to: number, prefix = "file") =>
  Array.from({ length: to - from + 1 }, (_, i) => `${prefix}-${String(from + i).padStart(5, "0")}.bin`);

/** The files of a mail, as its text part lists them. */
const listed = (mail: { text: string } | undefined) =>
  [...new Set(mail?.text.match(/[a-z]+-\d{5}\.bin/g))].sort();

describe("a mail's contents", () => {
  test("ten reads bring one started mail and one ready mail, each with the ten files", async ({ start }) => {
    const thaw = await start({ s3: SLOW_S3 });
    await thaw.know(JANE, "jane@example.com");
    const keys = files(1, 10);
    for (const key of keys) thaw.archive(key);

    await Promise.all(keys.map((key) => thaw.read(key)));
    await waitFor("the started mail", async () => thaw.resend.mails.length === 1);
    for (const key of keys) thaw.s3.finishRestore({ bucket: BUCKET, key });
    await waitFor("the ready mail", async () => thaw.resend.mails.length === 2);
    await quiet(thaw.pool);

    expect(subjects(thaw)).toEqual([
      expect.stringMatching(/^jane@example.com: Your 10 files are being restored, expected /),
      expect.stringMatching(/^jane@example.com: Your 10 files are ready, until /),
    ]);
    for (const mail of thaw.resend.mails) expect(listed(mail)).toEqual(keys);
  });

  test("ten thousand files are one mail that lists fifty and counts the others", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    await givenFiles(thaw.pool, { email: "jane@example.com", keys: files(1, 10_000), status: "pending" });

    await runNotify(thaw.pool);

    expect(subjects(thaw)).toEqual([
      expect.stringContaining("jane@example.com: Your 10,000 files are being restored"),
    ]);
    expect(listed(thaw.resend.mails[0])).toHaveLength(50);
    expect(thaw.resend.mails[0]?.text).toContain("and 9,950 more");
  });

  test("what is ready is told with what is still to come, and the rest later", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    const email = "jane@example.com";
    await givenFiles(thaw.pool, { email, keys: files(1, 4), status: "restored" });
    await givenFiles(thaw.pool, { email, keys: files(5, 10), status: "pending" });
    // Her other key waits for the same six, and a colleague for others: neither counts.
    await givenFiles(thaw.pool, { email, keys: files(5, 10), status: "pending", access_key_id: "AKIAOTHER" });
    await givenFiles(thaw.pool, { email: "bob@example.com", keys: files(20, 25), status: "pending" });
    await runNotify(thaw.pool);

    expect(mailsTo(thaw, email).map((mail) => mail.subject)).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^Your 6 files are being restored/),
        "4 of your 10 files are ready",
      ]),
    );
    const partial = mailsTo(thaw, email).find((mail) => mail.subject.startsWith("4 of"));
    expect(listed(partial)).toEqual(files(1, 4));
    expect(partial?.text).toContain("6 more files are still being restored");
    expect(partial?.text).toMatch(/we write\s+again/);

    await thaw.pool.query(
      "update restores set status = 'restored', restore_expires_at = now() + interval '3 days' where s3_key = any ($1)",
      [files(5, 10)],
    );
    await runNotify(thaw.pool);

    expect(mailsTo(thaw, email)).toHaveLength(3);
    expect(mailsTo(thaw, email)[2]?.subject).toMatch(/^Your 6 files are ready, until /);
    expect(listed(mailsTo(thaw, email)[2])).toEqual(files(5, 10));
  });

  test("a file that S3 is being asked about again is counted as still to come", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    const email = "jane@example.com";
    await givenFiles(thaw.pool, { email, keys: files(1, 3), status: "restored" });
    await thaw.pool.query(
      "update restores set head_wanted_at = now(), attempt_after = now() + interval '1 hour' where s3_key = $1",
      files(3, 3),
    );

    await runNotify(thaw.pool);

    expect(subjects(thaw)).toEqual([`${email}: 2 of your 3 files are ready`]);
  });

  test("what failed is told with its reason, beside what is ready", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    const email = "jane@example.com";
    await givenFiles(thaw.pool, { email, keys: files(1, 3), status: "restored" });
    await givenFiles(thaw.pool, {
      email,
      keys: files(4, 5),
      status: "failed",
      failure_message: "The moon was full.",
    });

    await runNotify(thaw.pool);

    expect(subjects(thaw)).toEqual([`${email}: 3 of your 5 files are ready, 2 could not be restored`]);
    expect(thaw.resend.mails[0]?.text).toContain("The moon was full. (Code: NoSuchBucket)");
    expect(listed(thaw.resend.mails[0])).toEqual(files(1, 5));
  });

  test("fifty ready files do not push out the one that failed", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    const email = "jane@example.com";
    await givenFiles(thaw.pool, { email, keys: files(1, 70), status: "restored" });
    await givenFiles(thaw.pool, { email, keys: files(99, 99), status: "failed" });

    await runNotify(thaw.pool);

    expect(listed(thaw.resend.mails[0])).toContain("file-00099.bin");
    expect(thaw.resend.mails[0]?.text).toContain("and 21 more");
  });

  test("a copy that expired before its reader was told is not called ready", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    await givenFiles(thaw.pool, {
      email: "jane@example.com",
      keys: files(1, 1),
      status: "restored",
      expires: "-1 minute",
    });

    await runNotify(thaw.pool);

    expect(subjects(thaw)).toEqual(["jane@example.com: Your file was restored, but the copy has expired"]);
    expect(thaw.resend.mails[0]?.text).not.toContain("ready");
  });

  test("a file that was restored twice before its reader was told is listed once, as it is now", async ({
    start,
  }) => {
    const thaw = await start({ ...AT_ONCE, worker: false });
    const older = {
      s3_key: "file-00001.bin",
      status_at: ago("9 days"),
      restore_expires_at: ago("1 days"),
      closed_at: ago("1 days"),
    };
    await insertRead(thaw.pool, "restored", { restore: older });
    await insertRead(thaw.pool, "restored", { restore: { s3_key: "file-00001.bin" } });
    await insertRead(thaw.pool, "restored", { restore: { s3_key: "file-00002.bin" } });

    await thaw.startWorker();
    await waitFor("the mail", async () => thaw.resend.mails.length === 1);

    expect(subjects(thaw)).toEqual([expect.stringContaining("Your 2 files are ready")]);
    const [text = ""] = thaw.resend.mails.map((mail) => mail.text);
    expect(text.match(/file-00001\.bin/g)).toHaveLength(text.match(/file-00002\.bin/g)?.length ?? 0);
    await quiet(thaw.pool);
    expect(thaw.resend.mails).toHaveLength(1);
  });

  test("a file that is ready before the started mail went out is announced as ready only", async ({
    start,
  }) => {
    const thaw = await start({ s3: { restore_ms: 0 } });
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("quick.bin");

    await thaw.read("quick.bin");
    await waitFor("the ready mail", async () => thaw.resend.mails.length > 0);
    await quiet(thaw.pool);

    expect(subjects(thaw)).toEqual([expect.stringContaining("Your file is ready")]);
  });
});

describe("the quiet window", () => {
  test("is not moved by repeated reads", async ({ start }) => {
    const thaw = await start({
      s3: SLOW_S3,
      env: { NOTIFY_QUIET_SECONDS: "2", NOTIFY_MAX_WAIT_SECONDS: "600" },
    });
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("a.bin");

    // Were each of these news, the mail would never come.
    await waitFor("the started mail in spite of repeats", async () => {
      await thaw.post("/restore/request", requestBody("a.bin"));
      return thaw.resend.mails.length === 1;
    });

    const { rows } = await thaw.pool.query("select read_count > 1 as is_repeated from restore_requests");
    expect(rows).toEqual([{ is_repeated: true }]);
  });

  test("ends after the longest wait though new reads keep coming", async ({ start }) => {
    const thaw = await start({
      s3: SLOW_S3,
      env: { NOTIFY_QUIET_SECONDS: "3", NOTIFY_MAX_WAIT_SECONDS: "4" },
    });
    await thaw.know(JANE, "jane@example.com");
    let reads = 0;
    const began = Date.now();

    await waitFor("two mails", async () => {
      const key = `file-${String(++reads).padStart(5, "0")}.bin`;
      thaw.archive(key);
      await thaw.read(key);
      await sleep(280); // The rhythm of the reads, not a wait for something.
      return thaw.resend.mails.length === 2;
    });

    // Four seconds, two of graphile-worker's polling, and some for a busy machine.
    const arrivals = [began, ...thaw.resend.mails.map((mail) => mail.at.getTime())];
    for (const [before, at] of arrivals.slice(1).map((at, i) => [arrivals[i] as number, at] as const)) {
      expect(at - before).toBeLessThan(10_000);
    }
    const [first, second] = thaw.resend.mails.map(listed);
    expect(first?.length).toBeGreaterThan(1);
    expect(first?.filter((key) => second?.includes(key))).toEqual([]);
  });
});

describe("people", () => {
  test("who read the same file get own mails that name nothing of each other", async ({ start }) => {
    const thaw = await start({ s3: SLOW_S3 });
    await thaw.know(JANE, "jane@example.com");
    await thaw.know(BOB, "bob@example.com");
    for (const key of ["both-00001.bin", "jane-00001.bin", "bob-00001.bin"]) thaw.archive(key);

    for (const key of ["both-00001.bin", "jane-00001.bin"]) await thaw.read(key, JANE);
    for (const key of ["both-00001.bin", "bob-00001.bin"]) await thaw.read(key, BOB);
    await waitFor("the started mails", async () => thaw.resend.mails.length === 2);
    for (const key of ["both-00001.bin", "jane-00001.bin", "bob-00001.bin"])
      thaw.s3.finishRestore({ bucket: BUCKET, key });
    await waitFor("the ready mails", async () => thaw.resend.mails.length === 4);

    for (const [name, key, other, others_key] of [
      ["jane", JANE, "bob", BOB],
      ["bob", BOB, "jane", JANE],
    ] as const) {
      const mails = mailsTo(thaw, `${name}@example.com`);
      expect(mails).toHaveLength(2);
      for (const mail of mails) {
        expect(mail.to).toEqual([`${name}@example.com`]);
        expect(listed(mail)).toEqual([`both-00001.bin`, `${name}-00001.bin`].sort());
        expect(mail.text).toContain(key);
        expect(mail.body).not.toContain(others_key);
        expect(mail.body).not.toContain(`${other}@`);
        expect(mail.body).not.toContain(`${other}-0`);
      }
    }
    expect(thaw.s3.look({ bucket: BUCKET, key: "both-00001.bin" })?.restores_accepted).toBe(1);
  });

  test("with two keys, and an address in two spellings, get one mail that lists a file once", async ({
    start,
  }) => {
    const thaw = await start(AT_ONCE);
    const [a, b] = files(1, 2);
    if (a === undefined || b === undefined) throw new Error("unreachable");
    const status = "restored";
    await givenFiles(thaw.pool, { email: "Jane@Example.com", keys: [a], status, access_key_id: "AKIA1" });
    await givenFiles(thaw.pool, { email: "jane@example.com", keys: [a, b], status, access_key_id: "AKIA2" });

    await runNotify(thaw.pool);

    expect(thaw.resend.mails.map((mail) => mail.subject)).toEqual([
      expect.stringContaining("Your 2 files are ready"),
    ]);
    expect(listed(thaw.resend.mails[0])).toEqual([a, b]);

    // The session ends, and the next one has another key.
    await givenFiles(thaw.pool, { email: "JANE@example.com", keys: [a], status, access_key_id: "AKIA3" });
    await runNotify(thaw.pool);

    expect(thaw.resend.mails).toHaveLength(1);
    const { rows } = await thaw.pool.query("select distinct post_notified from restore_requests");
    expect(rows).toEqual([{ post_notified: true }]);
  });

  test("are all told though their names sort oddly and fill several pages", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    const people = ["-", "_", "~", "+", "'", "0", "Z", "a", "ab", "a-b", "a.b", "a_b", "B", "ba"].flatMap(
      (name) => ["", "1", "-", "_", "z", "'", "+x", "Y", "~"].map((more) => `${name}${more}@example.com`),
    );
    await givenFiles(thaw.pool, { email: null, keys: ["a.bin"], status: "restored" });
    await thaw.pool.query(
      `insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, last_read_at)
       select gen_random_uuid(), r.id, r.s3_bucket, r.s3_key, p, p, true, r.status, r.status_at, now() from restores r, unnest($1::text[]) p`,
      [people],
    );

    await runNotify(thaw.pool);

    expect(people.length).toBeGreaterThan(100);
    expect(thaw.resend.mails.flatMap((mail) => mail.to).sort()).toEqual(people.sort());
  });

  test("wait for nobody whose rows somebody keeps locked", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    for (const name of ["ann", "bob", "carl"])
      await givenFiles(thaw.pool, {
        email: `${name}@example.com`,
        keys: [`${name}.bin`],
        status: "restored",
      });
    const psql = await thaw.pool.connect();
    await psql.query("begin");
    await psql.query("select from restore_requests where email = 'ann@example.com' for update");

    await runNotify(thaw.pool);
    expect(thaw.resend.mails.flatMap((mail) => mail.to)).toEqual(["bob@example.com", "carl@example.com"]);

    await psql.query("rollback");
    psql.release();
    await runNotify(thaw.pool);
    expect(thaw.resend.mails.map((mail) => mail.to)).toContainEqual(["ann@example.com"]);
  });
});

describe("keys", () => {
  test("that nobody knows bring no mail until the map knows them, and then what is news by then", async ({
    start,
  }) => {
    const thaw = await start({ s3: SLOW_S3 });
    thaw.archive("waiting-00001.bin");
    thaw.archive("ready-00001.bin");
    for (const key of ["waiting-00001.bin", "ready-00001.bin"]) await thaw.read(key);
    await waitFor("both to be asked for", async () => {
      const { rows } = await thaw.pool.query("select distinct status from restores");
      return rows.length === 1 && rows[0].status === "pending";
    });
    thaw.s3.finishRestore({ bucket: BUCKET, key: "ready-00001.bin" });
    await waitFor("the restore", async () => {
      const { rows } = await thaw.pool.query(
        "select restore_status from restore_requests where s3_key like 'ready%'",
      );
      return rows[0]?.restore_status === "restored";
    });
    await quiet(thaw.pool);
    expect(thaw.resend.mails).toEqual([]);
    const { rows } = await thaw.pool.query("select distinct user_resolved, email from restore_requests");
    expect(rows).toEqual([{ user_resolved: true, email: null }]);

    await thaw.know(JANE, "jane@example.com");
    await thaw.pool.query("select nudge('resolve_users')");
    await waitFor("both mails", async () => thaw.resend.mails.length === 2);

    expect(subjects(thaw).sort()).toEqual([
      "jane@example.com: 1 of your 2 files is ready",
      expect.stringContaining("jane@example.com: Your file is being restored"),
    ]);
  });

  test("that move to somebody else leave the mails of earlier reads with their reader", async ({ start }) => {
    const thaw = await start({ s3: SLOW_S3 });
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("a.bin");
    await thaw.read("a.bin");
    await waitFor("the started mail", async () => thaw.resend.mails.length === 1);

    await thaw.pool.query("update aws_key_user_map set email = 'bob@example.com'");
    await thaw.pool.query("select nudge('resolve_users')");
    await waitFor("resolve_users to run", async () => {
      const { rowCount } = await thaw.pool.query(
        "select from graphile_worker.jobs where task_identifier = 'resolve_users'",
      );
      return rowCount === 0;
    });
    await thaw.post("/restore/request", requestBody("a.bin"));
    thaw.s3.finishRestore({ bucket: BUCKET, key: "a.bin" });
    await waitFor("the ready mail", async () => thaw.resend.mails.length === 2);

    expect(thaw.resend.mails.map((mail) => mail.to)).toEqual([["jane@example.com"], ["jane@example.com"]]);
  });

  test("that CloudTrail left out mean that nobody is mailed", async ({ start }) => {
    const thaw = await start();
    thaw.archive("a.bin");
    await thaw.post("/restore/request", {
      ...requestBody("a.bin", { principal_arn: "arn:aws:sts::1:assumed-role/jane" }),
      access_key_id: undefined,
    });
    await waitFor("the restore", async () => {
      const { rows } = await thaw.pool.query("select restore_status, user_resolved from restore_requests");
      return rows[0]?.restore_status === "restored" && rows[0].user_resolved;
    });
    await quiet(thaw.pool);

    expect(thaw.resend.mails).toEqual([]);
  });

  test("of thousands of rows are resolved in one run", async ({ start }) => {
    const thaw = await start(AT_ONCE);
    await givenFiles(thaw.pool, { email: null, keys: ["a.bin"], status: "restored" });
    await thaw.pool.query(
      `insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, restore_status, status_at, last_read_at)
       select gen_random_uuid(), r.id, r.s3_bucket, r.s3_key, 'AKIA' || n, r.status, r.status_at, now() from restores r, generate_series(1, 3456) n`,
    );
    // Half of the keys are known, and all of those are hers.
    await thaw.pool.query(
      "insert into aws_key_user_map select 'AKIA' || n, 'jane@example.com' from generate_series(1, 3456, 2) n",
    );

    await thaw.pool.query("select nudge('resolve_users')");
    await waitFor("the rows to be resolved", async () => {
      const { rows } = await thaw.pool.query(
        "select count(email)::int as known, count(*) filter (where not user_resolved)::int as open from restore_requests",
      );
      return rows[0]?.known === 1728 && rows[0].open === 0;
    });
    await quiet(thaw.pool);

    expect(subjects(thaw)).toEqual([expect.stringContaining("Your file is ready")]);
  });
});

test("a crowd of nudges for a slow Resend leaves the worker room for other tasks", async ({ start }) => {
  const thaw = await start(AT_ONCE);
  thaw.resend.limits.latency_ms = 500;
  const people = files(1, 40).map((name) => `${name}@example.com`);
  for (const email of people) await givenFiles(thaw.pool, { email, keys: [email], status: "restored" });
  await thaw.pool.query("update mail_gate set closed_until = now() + interval '1 hour'");
  await runNotify(thaw.pool);
  await thaw.pool.query("update mail_gate set closed_until = now()");
  await thaw.pool.query("select nudge('post_notify') from generate_series(1, 50)");
  await waitFor("the first mail", async () => thaw.resend.mails.length > 0);

  thaw.archive("a.bin");
  await thaw.post("/restore/request", requestBody("a.bin", { access_key_id: randomUUID() }));
  await waitFor("the restore to begin", async () => {
    return thaw.s3.look({ bucket: BUCKET, key: "a.bin" })?.restores_accepted === 1;
  });

  expect(thaw.resend.mails.length).toBeLessThan(30);
  await waitFor("all mails", async () => thaw.resend.mails.length === people.length);
});
