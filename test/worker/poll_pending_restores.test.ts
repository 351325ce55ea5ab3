import { describe, expect } from "vitest";

import { test as base, waitFor } from "../support/database.ts";
import { BUCKET, JANE, requestBody, startThaw, type Thaw, type ThawOptions } from "../support/thaw.ts";

interface Fixtures {
  /** A Thaw whose restores run until told to finish, and that hears nothing from S3's events. */
  start: (options?: ThawOptions) => Promise<Thaw>;
}

const test = base.extend<Fixtures>({
  start: async ({ databaseUrl }, use) => {
    const started: Thaw[] = [];
    await use(async (options = {}) => {
      const thaw = await startThaw(databaseUrl, { events: false, s3: { restore_ms: Infinity }, ...options });
      started.push(thaw);
      return thaw;
    });
    for (const thaw of started) {
      await thaw.stop();
      expect(thaw.lambdaErrors).toEqual([]);
      // To ask about a copy costs nothing; to ask S3 for it once more is paid for.
      expect(thaw.s3.counts.get("RestoreObject 200") ?? 0).toBe(0);
    }
  },
});

interface Row {
  s3_key: string;
  status: string;
  accepted_at: Date | null;
  last_checked_at: Date | null;
  head_wanted_at: Date | null;
  restore_expires_at: Date | null;
  lost_count: number;
  attempts: number;
  failure_code: string | null;
  failure_message: string | null;
  closed_at: Date | null;
}

/** The object's restores, oldest first. */
async function restores(thaw: Thaw, key: string): Promise<Row[]> {
  const found = await thaw.pool.query<Row>("select * from restores where s3_key = $1 order by created_at", [
    key,
  ]);
  return found.rows;
}

async function restore(thaw: Thaw, key: string): Promise<Row | undefined> {
  return (await restores(thaw, key)).at(-1);
}

const becomes = (thaw: Thaw, key: string, status: string): Promise<Row> =>
  waitFor(`${key} to be ${status}`, async () => {
    const row = await restore(thaw, key);
    return row?.status === status && row;
  });

/** Reads these and waits until S3 is at it. */
async function readAll(thaw: Thaw, keys: string[], more: Record<string, unknown> = {}): Promise<void> {
  for (const key of keys) {
    const { status } = await thaw.post("/restore/request", requestBody(key, more));
    expect(status).toBe(200);
  }
  for (const key of keys) await becomes(thaw, key, "pending");
}

/** As if S3 had accepted what is pending so long ago. */
async function age(thaw: Thaw, since: string): Promise<void> {
  await thaw.pool.query(
    `update restores set accepted_at = now() - $1::interval, last_checked_at = null, attempt_after = now()
      where status = 'pending'`,
    [since],
  );
}

/** Runs the poll, and whatever it causes, to its end. */
async function poll(thaw: Thaw): Promise<void> {
  await thaw.pool.query("select nudge('poll_pending_restores')");
  await quiet(thaw);
}

const quiet = (thaw: Thaw): Promise<true> =>
  waitFor(
    "the jobs to end",
    async () => {
      const due = await thaw.pool.query(
        `select from graphile_worker.jobs
          where task_identifier in ('poll_pending_restores', 'trigger_restores')
            and (run_at <= now() or locked_at is not null)`,
      );
      return due.rowCount === 0;
    },
    30_000,
  );

const name = (key: string, bucket = BUCKET) => ({ bucket, key });

const heads = (thaw: Thaw, key: string): number =>
  thaw.s3.requests.filter((request) => request.operation === "HeadObject" && request.key === key).length;

test.for([
  ["goes with RETENTION_DAYS", { RETENTION_DAYS: "30" }, 0],
  ["stays without", {}, 1],
] as const)("what was over long ago %s", async ([, env, left], { start }) => {
  const thaw = await start({ env });
  await thaw.pool.query(
    `insert into restores (id, s3_bucket, s3_key, status, status_at, closed_at)
     values (gen_random_uuid(), $1, 'old', 'restored', now() - interval '40 days', now() - interval '31 days')`,
    [BUCKET],
  );
  await poll(thaw);
  expect((await thaw.pool.query("select from restores")).rowCount).toBe(left);
});

describe("a pending restore whose event is lost", () => {
  test("is asked about once POLL_AFTER_HOURS are over, and not again before they are over again", async ({
    start,
  }) => {
    const thaw = await start();
    thaw.archive("k");
    await readAll(thaw, ["k"]);
    thaw.s3.clearRequests();

    await age(thaw, "22 hours 59 minutes");
    await poll(thaw);
    expect(heads(thaw, "k")).toBe(0);

    await age(thaw, "23 hours");
    await poll(thaw);
    expect(heads(thaw, "k")).toBe(1);
    const checked = await restore(thaw, "k");
    expect(checked).toMatchObject({ status: "pending", attempts: 0, failure_code: null });
    expect(checked?.last_checked_at).toBeInstanceOf(Date);

    await poll(thaw);
    expect(heads(thaw, "k")).toBe(1);

    await thaw.pool.query("update restores set last_checked_at = now() - interval '23 hours'");
    await poll(thaw);
    expect(heads(thaw, "k")).toBe(2);
  });

  test("is found to be ready, with S3's own expiry", async ({ start }) => {
    const thaw = await start();
    for (const key of ["k", "int"]) {
      thaw.s3.putObject({
        ...name(key),
        ...(key === "int"
          ? { storage_class: "INTELLIGENT_TIERING", archive_status: "ARCHIVE_ACCESS" }
          : { storage_class: "GLACIER" }),
      });
    }
    await readAll(thaw, ["k", "int"]);
    for (const key of ["k", "int"]) thaw.s3.finishRestore(name(key));

    await age(thaw, "23 hours");
    await poll(thaw);

    expect(await restore(thaw, "k")).toMatchObject({
      status: "restored",
      restore_expires_at: thaw.s3.look(name("k"))?.expires_at,
    });
    // Moved back for good.
    expect(await restore(thaw, "int")).toMatchObject({ status: "restored", restore_expires_at: null });
  });

  test("that S3 has lost is asked for again, and the third time fails with a sentence", async ({ start }) => {
    const thaw = await start();
    thaw.archive("k");
    await readAll(thaw, ["k"]);

    for (const time of [1, 2]) {
      thaw.s3.loseRestore(name("k"));
      await age(thaw, "23 hours");
      await poll(thaw);
      expect(await becomes(thaw, "k", "pending")).toMatchObject({ lost_count: time });
      expect(thaw.s3.look(name("k"))).toMatchObject({ restore: "running", restores_accepted: time + 1 });
    }
    thaw.s3.loseRestore(name("k"));
    await age(thaw, "23 hours");
    await poll(thaw);

    expect(await restore(thaw, "k")).toMatchObject({
      status: "failed",
      failure_code: "restore_lost",
      failure_message:
        "S3 accepted the restore 3 times but the file is still archived. An administrator should look at it.",
    });
    expect(thaw.s3.look(name("k"))?.restores_accepted).toBe(3);
  });

  test("of an object deleted or replaced meanwhile fails with the right sentence", async ({ start }) => {
    const thaw = await start();
    thaw.s3.createBucket("versioned", { versioning: "enabled" });
    for (const key of ["deleted", "replaced", "replaced, readable", "fine"]) thaw.archive(key);
    await readAll(thaw, ["deleted", "replaced", "replaced, readable", "fine"]);
    const versions: Record<string, string | undefined> = {};
    for (const key of ["version deleted", "hidden"]) {
      versions[key] = thaw.s3.putObject({ ...name(key, "versioned"), storage_class: "GLACIER" }).version_id;
    }
    await readAll(thaw, ["version deleted", "hidden"], { s3_bucket: "versioned" });

    thaw.s3.deleteObject(name("deleted"));
    thaw.s3.putObject({ ...name("replaced"), storage_class: "GLACIER", body: "new" });
    thaw.s3.putObject({ ...name("replaced, readable"), body: "new" });
    thaw.s3.deleteObject({
      ...name("version deleted", "versioned"),
      version_id: versions["version deleted"],
    });
    // The version that is being restored is still there, but who names none gets the new one.
    thaw.s3.putObject({ ...name("hidden", "versioned"), body: "new" });
    await age(thaw, "23 hours");
    await poll(thaw);

    for (const key of ["deleted", "version deleted"]) {
      expect(await restore(thaw, key)).toMatchObject({
        status: "failed",
        failure_code: "object_not_found",
        failure_message: "The file was deleted while it was being restored.",
      });
    }
    for (const key of ["replaced", "replaced, readable", "hidden"]) {
      expect(await restore(thaw, key)).toMatchObject({
        status: "failed",
        failure_code: "object_overwritten",
        failure_message: expect.stringMatching(/replaced by a newer one.*Read it again/),
      });
    }
    expect(await restore(thaw, "fine")).toMatchObject({ status: "pending" });
  });

  test("stays pending while S3 cannot be asked, its trouble visible, and is asked again", async ({
    start,
  }) => {
    const thaw = await start();
    const troubled = ["denied", "proxy", "web server", "no HEAD", "unnumbered"];
    for (const key of [...troubled, "fine"]) thaw.archive(key);
    await readAll(thaw, [...troubled, "fine"]);
    for (const key of [...troubled, "fine"]) thaw.s3.finishRestore(name(key));
    thaw.s3.fail({ with: "access_denied", key: "denied" });
    // Looks like a readable file to who does not look closely.
    thaw.s3.fail({ with: "garbage", status: 200, key: "proxy" });
    // And these like deleted ones.
    thaw.s3.fail({ with: "garbage", status: 404, key: "web server" });
    thaw.s3.fail({ with: "error", status: 405, key: "no HEAD" });
    const headers = { "x-amz-request-id": undefined, "x-amz-id-2": undefined };
    thaw.s3.fail({ with: "headers", headers, key: "unnumbered" });

    await age(thaw, "23 hours");
    await poll(thaw);

    expect(await restore(thaw, "fine")).toMatchObject({ status: "restored" });
    expect(await restore(thaw, "denied")).toMatchObject({
      status: "pending",
      failure_code: "AccessDenied",
      last_checked_at: null,
      attempts: 1,
    });
    for (const key of ["proxy", "web server", "unnumbered"]) {
      expect(await restore(thaw, key)).toMatchObject({ status: "pending", failure_code: "NotFromS3" });
    }
    expect(await restore(thaw, "no HEAD")).toMatchObject({
      status: "pending",
      failure_code: "MethodNotAllowed",
    });

    thaw.s3.clearFaults();
    await age(thaw, "23 hours");
    await poll(thaw);
    for (const key of troubled) {
      expect(await restore(thaw, key)).toMatchObject({ status: "restored", failure_code: null });
    }
  });
});

describe("in a bucket whose notifications are off", () => {
  /** As if that time had passed for what is pending. */
  const pass = (thaw: Thaw, time: string) =>
    thaw.pool.query(
      `update restores set accepted_at = accepted_at - $1::interval, last_checked_at = last_checked_at - $1::interval,
                           ask_after = ask_after - $1::interval, attempt_after = attempt_after - $1::interval where status = 'pending'`,
      [time],
    );

  test("people hear when the expected time of their files is over, after one question each", async ({
    start,
  }) => {
    const thaw = await start();
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("flexible");
    thaw.archive("deep", "DEEP_ARCHIVE");
    await readAll(thaw, ["flexible", "deep"]);
    thaw.s3.clearRequests();
    for (const key of ["flexible", "deep"]) thaw.s3.finishRestore(name(key));

    await pass(thaw, "4 hours 59 minutes");
    await poll(thaw);
    expect(thaw.s3.requests).toEqual([]);

    await pass(thaw, "1 minute");
    await poll(thaw);
    expect(await restore(thaw, "flexible")).toMatchObject({
      status: "restored",
      restore_expires_at: thaw.s3.look(name("flexible"))?.expires_at,
    });
    expect([heads(thaw, "flexible"), heads(thaw, "deep")]).toEqual([1, 0]);
    await waitFor("the mail", async () =>
      thaw.resend.mails.some(({ subject }) => subject.startsWith("1 of your 2 files is ready")),
    );

    await pass(thaw, "7 hours");
    await poll(thaw);
    expect(await restore(thaw, "deep")).toMatchObject({ status: "restored" });
    expect([heads(thaw, "flexible"), heads(thaw, "deep")]).toEqual([1, 1]);
    await waitFor("the other mail", async () => thaw.resend.mails.length === 3);
    const { rows } = await thaw.pool.query(
      "select labels, sum(n)::int as n from totals where metric = 'completions_lost' group by labels",
    );
    expect(rows).toEqual([{ labels: { s3_bucket: BUCKET }, n: 2 }]);
  });

  test("a file that takes longer than expected is asked about less and less often", async ({ start }) => {
    const thaw = await start();
    thaw.archive("k");
    await readAll(thaw, ["k"]);
    thaw.s3.clearRequests();
    await pass(thaw, "5 hours");
    await poll(thaw);
    await pass(thaw, "14 minutes");
    await poll(thaw);
    expect(heads(thaw, "k")).toBe(1);
    await pass(thaw, "2 minutes");
    await poll(thaw);
    expect(heads(thaw, "k")).toBe(2);

    // Late by four hours and more.
    await pass(thaw, "4 hours");
    await poll(thaw);
    await pass(thaw, "4 hours");
    thaw.s3.finishRestore(name("k"));
    await poll(thaw);
    expect(heads(thaw, "k")).toBe(3);
    expect(await restore(thaw, "k")).toMatchObject({ status: "pending" });
    await pass(thaw, "20 minutes");
    await poll(thaw);
    expect(heads(thaw, "k")).toBe(4);
    expect(await restore(thaw, "k")).toMatchObject({ status: "restored" });
  });

  test("events of other files change nothing for them, and cost no question more", async ({ start }) => {
    const thaw = await start();
    for (const key of ["told", "untold"]) thaw.archive(key);
    await readAll(thaw, ["told", "untold"]);
    thaw.s3.clearRequests();
    thaw.s3.finishRestore(name("told"));
    await thaw.post("/restore/completed", { s3_bucket: BUCKET, s3_key: "told" });
    await becomes(thaw, "told", "restored");
    await pass(thaw, "5 hours");
    await poll(thaw);
    await pass(thaw, "1 day");
    await poll(thaw);
    expect(heads(thaw, "told")).toBe(1);
    expect(heads(thaw, "untold")).toBe(2);
  });
});

describe("a Completed event", () => {
  test("only asks for a HEAD, which decides; and for another later, while that says restoring", async ({
    start,
  }) => {
    const thaw = await start();
    for (const key of ["running", "ready"]) thaw.archive(key);
    await readAll(thaw, ["running", "ready"]);
    thaw.s3.finishRestore(name("ready"));
    thaw.s3.clearRequests();

    for (const key of ["running", "ready"]) {
      const { body } = await thaw.post("/restore/completed", {
        s3_bucket: BUCKET,
        s3_key: key,
        restore_expires_at: "9999-12-31T00:00:00Z",
      });
      expect(body.updated).toBe(1);
    }
    await becomes(thaw, "ready", "restored");
    await waitFor(
      "the answer",
      async () => (await restore(thaw, "running"))?.last_checked_at instanceof Date,
    );
    await quiet(thaw);

    expect((await restore(thaw, "ready"))?.restore_expires_at).toEqual(
      thaw.s3.look(name("ready"))?.expires_at,
    );
    expect(await restore(thaw, "running")).toMatchObject({
      status: "pending",
      lost_count: 0,
      head_wanted_at: expect.any(Date) as Date,
    });
    expect([heads(thaw, "running"), heads(thaw, "ready")]).toEqual([1, 1]);

    // The event was true, and early: S3 knows of it now.
    thaw.s3.finishRestore(name("running"));
    await poll(thaw);
    expect(heads(thaw, "running")).toBe(1);
    await thaw.pool.query(
      "update restores set attempt_after = attempt_after - interval '1 minute' where status = 'pending'",
    );
    await poll(thaw);
    expect(await restore(thaw, "running")).toMatchObject({ status: "restored", head_wanted_at: null });
    expect(heads(thaw, "running")).toBe(2);
  });

  test("whose HEAD is refused leaves the trouble on the row, and is asked about again", async ({ start }) => {
    const thaw = await start();
    for (const key of ["denied", "fine"]) thaw.archive(key);
    await readAll(thaw, ["denied", "fine"]);
    for (const key of ["denied", "fine"]) thaw.s3.finishRestore(name(key));
    thaw.s3.fail({ with: "access_denied", key: "denied" });
    for (const key of ["denied", "fine"]) {
      await thaw.post("/restore/completed", { s3_bucket: BUCKET, s3_key: key });
    }
    await becomes(thaw, "fine", "restored");
    await quiet(thaw);
    expect(await restore(thaw, "denied")).toMatchObject({
      status: "pending",
      failure_code: "AccessDenied",
      head_wanted_at: expect.any(Date) as Date,
    });

    thaw.s3.clearFaults();
    await thaw.pool.query("update restores set attempt_after = now() where s3_key = 'denied'");
    await poll(thaw);
    expect(await restore(thaw, "denied")).toMatchObject({ status: "restored", failure_code: null });
  });

  test("and a HEAD that shows nothing yet, soon after S3 accepted, does not mean lost", async ({ start }) => {
    const thaw = await start({ s3: { restore_ms: Infinity, header_lag_ms: 3_600_000 } });
    thaw.archive("k");
    await readAll(thaw, ["k"]);

    await thaw.post("/restore/completed", {
      s3_bucket: BUCKET,
      s3_key: "k",
      restore_expires_at: "2020-01-01T00:00:00Z",
    });
    await waitFor("the HEAD", async () => heads(thaw, "k") === 2);
    await quiet(thaw);

    const { rows } = await thaw.pool.query(
      `select status, lost_count, attempt_after - accepted_at = lost_grace() as waits from restores`,
    );
    expect(rows).toEqual([{ status: "pending", lost_count: 0, waits: true }]);
    expect(thaw.s3.look(name("k"))?.restores_accepted).toBe(1);
  });
});

describe("a read that fails although we believe the object readable", () => {
  const READY = /Your file is ready/;

  /** Restored and told an hour ago. */
  async function restored(thaw: Thaw, key: string): Promise<void> {
    await thaw.know(JANE, "jane@example.com");
    thaw.archive(key);
    await readAll(thaw, [key]);
    await finish(thaw, key);
    await waitFor("the mail", async () => ready(thaw) === 1);
    await thaw.pool.query(
      `update restores set status_at = now() - interval '1 hour', accepted_at = now() - interval '5 hours', last_checked_at = null`,
    );
  }

  async function finish(thaw: Thaw, key: string): Promise<void> {
    thaw.s3.finishRestore(name(key));
    await thaw.post("/restore/completed", {
      s3_bucket: BUCKET,
      s3_key: key,
      restore_expires_at: thaw.s3.look(name(key))?.expires_at,
    });
    await becomes(thaw, key, "restored");
  }

  const ready = (thaw: Thaw): number => thaw.resend.mails.filter((mail) => READY.test(mail.subject)).length;

  test("is only counted when HEAD says readable", async ({ start }) => {
    const thaw = await start();
    await restored(thaw, "k");
    thaw.s3.clearRequests();

    await thaw.post("/restore/request", requestBody("k"));
    await waitFor("the answer", async () => (await restore(thaw, "k"))?.last_checked_at instanceof Date);

    expect(heads(thaw, "k")).toBe(1);
    expect(await restores(thaw, "k")).toMatchObject([
      { status: "restored", closed_at: null, head_wanted_at: null },
    ]);
    expect(thaw.s3.look(name("k"))?.restores_accepted).toBe(1);
  });

  test("begins a new restore when HEAD says archived, and its reader hears of that one too", async ({
    start,
  }) => {
    const thaw = await start();
    await restored(thaw, "k");
    thaw.s3.expireCopy(name("k"));

    await thaw.post("/restore/request", requestBody("k"));
    await waitFor("the new restore", async () => (await restores(thaw, "k")).length === 2);
    await becomes(thaw, "k", "pending");

    expect(await restores(thaw, "k")).toMatchObject([
      { status: "restored", closed_at: expect.any(Date) },
      { status: "pending", closed_at: null },
    ]);
    expect(thaw.s3.look(name("k"))?.restores_accepted).toBe(2);

    await finish(thaw, "k");
    await waitFor("the second mail", async () => ready(thaw) === 2);
  });

  test("of an object that is gone ends in a restore that failed", async ({ start }) => {
    const thaw = await start();
    await restored(thaw, "k");
    thaw.s3.deleteObject(name("k"));

    await thaw.post("/restore/request", requestBody("k"));
    await becomes(thaw, "k", "failed");

    expect(await restores(thaw, "k")).toMatchObject([
      { status: "restored", closed_at: expect.any(Date) },
      { status: "failed", failure_code: "object_not_found", closed_at: null },
    ]);
  });
});

describe("the closing sweep", () => {
  test("closes what is over, however much that is, and nothing else", async ({ start }) => {
    const thaw = await start();
    // More than two pages of expired copies.
    await thaw.pool.query(
      `insert into restores (id, s3_bucket, s3_key, status, status_at, restore_expires_at)
       select gen_random_uuid(), 'b', 'expired ' || n, 'restored', now() - interval '8 days', now() - interval '1 day'
         from generate_series(1, 2500) n`,
    );
    const insert = (key: string, status: string, since: string, expires: string | null) =>
      thaw.pool.query(
        `insert into restores (id, s3_bucket, s3_key, status, status_at, restore_expires_at, failure_code, failure_message)
         values (gen_random_uuid(), 'b', $1, $2, now() - $3::interval, now() + $4::interval, 'c', 'm')`,
        [key, status, since, expires],
      );
    await insert("failed long ago", "failed", "24 hours", null);
    await insert("failed lately", "failed", "23 hours 59 minutes", null);
    await insert("readable", "restored", "1 day", "1 minute");
    await insert("for good, all told", "restored", "1 hour", null);

    await poll(thaw);

    const { rows } = await thaw.pool.query(
      `select regexp_replace(s3_key, '\\d+', 'n') as key, count(*)::int,
              bool_and(closed_at = coalesce(restore_expires_at, over_at(restores))) as at_its_end
         from restores group by 1, closed_at is null order by 1`,
    );
    expect(rows).toEqual([
      { key: "expired n", count: 2500, at_its_end: true },
      { key: "failed lately", count: 1, at_its_end: null },
      { key: "failed long ago", count: 1, at_its_end: true },
      { key: "for good, all told", count: 1, at_its_end: true },
      { key: "readable", count: 1, at_its_end: null },
    ]);
  });
});

describe("many pending restores", () => {
  /** Objects that S3 is restoring, as rows accepted so long ago. */
  async function insertPending(thaw: Thaw, keys: string[], since: string, more = ""): Promise<void> {
    for (const key of keys) {
      thaw.archive(key);
      thaw.s3.beginRestore(name(key), { days: 7 });
    }
    await thaw.pool.query(
      `insert into restores (id, s3_bucket, s3_key, status, storage_class, pinned_version_id, accepted_at${more && ", head_wanted_at"})
       select gen_random_uuid(), $1, key, 'pending', 'GLACIER', '', now() - $3::interval - n * interval '1 microsecond'${more}
         from unnest($2::text[]) with ordinality k (key, n)`,
      [BUCKET, keys, since],
    );
  }

  const keys = (prefix: string, count: number): string[] =>
    Array.from({ length: count }, (_, index) => `${prefix} ${index}`);

  test("each of 2,000 is asked about exactly once in a run, the doubtful ones first", async ({ start }) => {
    const thaw = await start();
    await quiet(thaw);
    const due = keys("due", 1900);
    // Accepted a moment ago: a walk that went on from these would skip all that are due.
    const doubtful = keys("doubtful", 100);
    await insertPending(thaw, due, "30 hours");
    await insertPending(thaw, doubtful, "1 hour", ", now()");

    await poll(thaw);

    const asked = thaw.s3.requests.map((request) => request.key ?? "");
    expect(asked.toSorted()).toEqual([...due, ...doubtful].toSorted());
    expect(new Set(thaw.s3.requests.map((request) => request.operation))).toEqual(new Set(["HeadObject"]));
    // Claimed first; on the way some of the fifty connections may be slow to open.
    expect(asked.slice(0, 300).filter((key) => key.startsWith("doubtful")).length).toBeGreaterThan(80);
    const { rows } = await thaw.pool.query(
      `select count(*)::int from restores where status = 'pending' and attempts = 0 and last_checked_at > now() - interval '5 minutes'
          and case when s3_key like 'due%' then head_wanted_at is null else attempt_after > now() end`,
    );
    expect(rows).toEqual([{ count: 2000 }]);
  });

  test("hundreds whose events come at once are asked about once each, and all are ready", async ({
    start,
  }) => {
    const thaw = await start();
    const ready = keys("ready", 500);
    await insertPending(thaw, ready, "1 hour");
    for (const key of ready) thaw.s3.finishRestore(name(key));
    const answers = await Promise.all(
      ready.map((s3_key) => thaw.post("/restore/completed", { s3_bucket: BUCKET, s3_key })),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    await waitFor(
      "all to be restored",
      async () =>
        (await thaw.pool.query("select from restores where status <> 'restored' limit 1")).rowCount === 0,
      15_000,
    );
    const asked = thaw.s3.requests.map((request) => request.key ?? "");
    expect(asked.toSorted()).toEqual(ready.toSorted());
  });

  test("whose expected time has ended are asked about once each in a run, whatever 23 hours say of others", async ({
    start,
  }) => {
    const thaw = await start({ env: { S3_CONCURRENCY: "10" } });
    await quiet(thaw);
    const due = keys("due", 300);
    const unchecked = keys("unchecked", 60);
    await insertPending(thaw, due, "6 hours");
    await insertPending(thaw, unchecked, "30 hours");
    await thaw.pool.query(
      "update restores set tier = 'Standard', ask_after = now() - random() * interval '1 hour' where s3_key like 'due%'",
    );

    await poll(thaw);

    expect(thaw.s3.requests.map((request) => request.key).toSorted()).toEqual(
      [...due, ...unchecked].toSorted(),
    );
    const { rows } = await thaw.pool.query(
      "select count(*)::int from restores where attempts = 0 and ask_after > now() + interval '10 minutes' and isfinite(ask_after)",
    );
    expect(rows).toEqual([{ count: 360 }]);
    await poll(thaw);
    expect(thaw.s3.requests).toHaveLength(360);
  });

  test("are asked about once in a run also when POLL_AFTER_HOURS is next to nothing", async ({ start }) => {
    const thaw = await start({ env: { POLL_AFTER_HOURS: "0", S3_CONCURRENCY: "10" } });
    await quiet(thaw);
    const due = keys("due", 60);
    await insertPending(thaw, due, "1 minute");

    await poll(thaw);

    expect(thaw.s3.requests.map((request) => request.key).toSorted()).toEqual(due.toSorted());
  });
});
