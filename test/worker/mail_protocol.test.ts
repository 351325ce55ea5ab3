/** Each mail goes out once, whatever Resend, the network or the process does meanwhile. */
import { describe, expect } from "vitest";

import { createMailer, type ClaimedMail } from "../../server/mail/resend.ts";
import { test as base, waitFor } from "../support/database.ts";
import { givenFiles, quiet, runNotify } from "../support/given_files.ts";
import { launch } from "../support/processes.ts";
import { startResendStandIn, type FaultKind } from "../stand_ins/resend.ts";
import { startS3StandIn } from "../stand_ins/s3.ts";
import { know } from "../support/rows.ts";
import { BUCKET, JANE, requestBody, SECRET, settingsFor, startThaw, type Thaw } from "../support/thaw.ts";

/** Nothing is held back, and one file of jane's is ready. */
const test = base.extend<{ thaw: Thaw }>({
  thaw: async ({ databaseUrl }, use) => {
    const thaw = await startThaw(databaseUrl, {
      worker: false,
      env: { NOTIFY_QUIET_SECONDS: "0", NOTIFY_MAX_WAIT_SECONDS: "0", MAIL_FROM: "Thaw <old@example.com>" },
    });
    await givenReady(thaw, "jane");
    await use(thaw);
    await thaw.stop();
    expect(thaw.lambdaErrors).toEqual([]);
  },
});

const givenReady = (thaw: Pick<Thaw, "pool">, ...names: string[]): Promise<unknown> =>
  Promise.all(
    names.map((name) =>
      givenFiles(thaw.pool, { email: `${name}@example.com`, keys: [`${name}.bin`], status: "restored" }),
    ),
  );

/** The only notification. */
async function notification(thaw: Thaw): Promise<Record<string, unknown>> {
  const { rows } = await thaw.pool.query(
    "select n.*, n.attempt_after > now() + interval '30 seconds' as is_backing_off from notifications n",
  );
  expect(rows).toHaveLength(1);
  return rows[0];
}

/** Whether each request counts as told. */
async function told(thaw: Thaw): Promise<boolean[]> {
  const { rows } = await thaw.pool.query("select post_notified from restore_requests order by s3_key");
  return rows.map((row) => row.post_notified);
}

/** The back-off is over. */
const age = (thaw: Thaw) =>
  thaw.pool.query("update notifications set attempt_after = now() where status = 'sealed'");
/** The gate is open again, and who shut it is in the queue like the others. */
const openGate = async (thaw: Thaw) => {
  await thaw.pool.query("update mail_gate set closed_until = now()");
  await age(thaw);
};
const gate = async (thaw: Thaw) =>
  (
    await thaw.pool.query(
      "select extract(epoch from closed_until - now())::float8 as seconds, closed_until > now() as is_shut, reason from mail_gate",
    )
  ).rows[0];
const stuck = async (thaw: Thaw) =>
  (await thaw.pool.query("select email, problem, failure_code, mail_id from stuck_requests")).rows;

describe("an attempt of which nobody knows how it ended", () => {
  const faults: [FaultKind, boolean][] = [
    ["application_error", false],
    ["service_unavailable", false],
    ["html_502", false],
    ["reset", false],
    ["concurrent_idempotent_requests", false],
    ["accept_then_drop", true],
    ["accept_then_truncate", true],
    ["accept_then_html", true],
  ];
  test.for(faults)(
    "%s: is repeated after a while, and the mail arrives once",
    async ([kind, delivered], { thaw }) => {
      thaw.resend.addFault({ kind, times: 1 });
      await thaw.startWorker();

      await runNotify(thaw.pool);
      expect(thaw.resend.mails).toHaveLength(delivered ? 1 : 0);
      expect(await told(thaw)).toEqual([false]);
      const first = await notification(thaw);
      expect(first).toMatchObject({
        status: "sealed",
        attempts: 1,
        is_backing_off: true,
        uncertain_since: expect.any(Date),
        failure_message: expect.any(String),
      });
      await runNotify(thaw.pool);
      expect(thaw.resend.requests).toHaveLength(1);

      await age(thaw);
      await runNotify(thaw.pool);

      expect(thaw.resend.mails).toHaveLength(1);
      expect(thaw.resend.requests.map((request) => request.idempotency_key)).toEqual(
        Array(2).fill(`thaw/${String(first["id"])}`),
      );
      expect(thaw.resend.requests[1]).toMatchObject({ status: 200, replayed: delivered });
      expect(thaw.resend.mails[0]?.body).toBe(first["body"]);
      expect(await notification(thaw)).toMatchObject({
        status: "sent",
        resend_id: thaw.resend.mails[0]?.id,
        failure_message: null,
      });
      expect(await told(thaw)).toEqual([true]);
    },
  );

  test("is repeated with the same bytes though sender and files have changed since", async ({ thaw }) => {
    thaw.resend.addFault({ kind: "reset", times: 1 });
    const old = await thaw.startWorker();
    await runNotify(thaw.pool);
    await old.stop();
    const { body } = await notification(thaw);

    await thaw.pool.query(
      "update restores set restore_expires_at = now() + interval '9 days', size_bytes = 7",
    );
    await thaw.pool.query("update notifications set created_at = now() - interval '1 day'");
    await age(thaw);
    await thaw.startWorker({ MAIL_FROM: "Thaw <new@example.com>" });
    await runNotify(thaw.pool);

    expect(thaw.resend.mails.map((mail) => mail.body)).toEqual([body]);
    expect(body).toContain("old@example.com");
  });

  test("is not repeated when Resend may have forgotten it", async ({ thaw }) => {
    thaw.resend.addFault({ kind: "accept_then_drop", times: 1 });
    await thaw.startWorker();
    await runNotify(thaw.pool);
    thaw.resend.ageKeys(24 * 3600_000);

    await thaw.pool.query("update notifications set uncertain_since = now() - interval '23 hours 1 minute'");
    await age(thaw);
    await runNotify(thaw.pool);

    const { id, status } = await notification(thaw);
    expect(status).toBe("unknown");
    expect(thaw.resend.requests).toHaveLength(1);
    expect(await told(thaw)).toEqual([false]);
    expect(await stuck(thaw)).toMatchObject([
      {
        problem: "nobody knows whether a mail was sent",
        mail_id: id,
      },
    ]);

    // An operator decides: a new key, perhaps a second mail.
    await thaw.pool.query("select resend_notification($1)", [id]);
    await quiet(thaw.pool);
    expect(thaw.resend.mails).toHaveLength(2);
    expect(new Set(thaw.resend.mails.map((mail) => mail.idempotency_key)).size).toBe(2);
    expect(await told(thaw)).toEqual([true]);
    expect(await stuck(thaw)).toEqual([]);
  });

  test("is repeated up to the last hour in which Resend surely remembers it", async ({ thaw }) => {
    thaw.resend.addFault({ kind: "accept_then_drop", times: 1 });
    await thaw.startWorker();
    await runNotify(thaw.pool);
    await thaw.pool.query(
      "update notifications set uncertain_since = now() - interval '22 hours 59 minutes'",
    );
    await age(thaw);
    await runNotify(thaw.pool);

    expect(await notification(thaw)).toMatchObject({ status: "sent" });
    expect(thaw.resend.mails).toHaveLength(1);
  });

  test("leaves the mail unknown when Resend knows its key with another body", async ({ thaw }) => {
    thaw.resend.addFault({ kind: "invalid_idempotent_request" });
    await thaw.startWorker();
    await runNotify(thaw.pool);
    await age(thaw);
    await runNotify(thaw.pool);

    expect(await notification(thaw)).toMatchObject({
      status: "unknown",
      failure_code: "invalid_idempotent_request",
    });
    expect(thaw.resend.requests).toHaveLength(1);
    expect(await stuck(thaw)).toHaveLength(1);
  });
});

describe("a worker that dies", () => {
  /** Sealed, but not sent: as if the gate had been shut just then. */
  async function sealedMail(thaw: Thaw): Promise<void> {
    await thaw.pool.query("update mail_gate set closed_until = now() + interval '1 hour'");
    await thaw.startWorker();
    await runNotify(thaw.pool);
    await openGate(thaw);
    expect(thaw.resend.requests).toEqual([]);
  }
  const claim = async (thaw: Thaw) =>
    (await thaw.pool.query<ClaimedMail>("select * from claim_notifications('post', 10)")).rows;

  test("between claim and call leaves a mail that is sent when its lease ends", async ({ thaw }) => {
    await sealedMail(thaw);
    expect(await claim(thaw)).toHaveLength(1);

    await runNotify(thaw.pool);
    expect(thaw.resend.requests).toEqual([]);
    await age(thaw);
    await runNotify(thaw.pool);

    expect(thaw.resend.mails).toHaveLength(1);
    expect(await told(thaw)).toEqual([true]);
  });

  test("between Resend's answer and our note leaves a mail that is not delivered twice", async ({ thaw }) => {
    await sealedMail(thaw);
    const mailer = createMailer({ RESEND_API_KEY: thaw.resend.api_key, RESEND_BASE_URL: thaw.resend.url });
    for (const mail of await claim(thaw)) await mailer.send(mail, new AbortController().signal);
    expect(thaw.resend.mails).toHaveLength(1);
    expect(await told(thaw)).toEqual([false]);

    await age(thaw);
    await runNotify(thaw.pool);

    expect(thaw.resend.requests.map((request) => request.replayed)).toEqual([false, true]);
    expect(thaw.resend.mails).toHaveLength(1);
    expect(await told(thaw)).toEqual([true]);
  });

  test("or is told to stop in the middle of a call leaves a mail that arrives once", async ({ thaw }) => {
    thaw.resend.addFault({ kind: "accept_then_hang", times: 1 });
    const stopped = await thaw.startWorker();
    await waitFor("the mail to arrive", async () => thaw.resend.mails.length === 1);
    await stopped.stop();
    expect(await notification(thaw)).toMatchObject({ status: "sealed", failure_code: "application_error" });

    await age(thaw);
    await thaw.startWorker();
    await waitFor("the note", async () => (await told(thaw))[0]);

    expect(thaw.resend.mails).toHaveLength(1);
  });
});

describe("a refusal that every mail would get", () => {
  test("shuts the gate for all workers, costs no attempt, and all mails arrive once when it opens", async ({
    thaw,
  }) => {
    const people = ["a", "b", "c", "d", "e", "f"];
    await givenReady(thaw, ...people);
    thaw.resend.addFault({ kind: "rate_limit_exceeded", retry_after_s: 3, times: 1 });
    await thaw.startWorker();
    await runNotify(thaw.pool);
    await waitFor("all mails", async () => thaw.resend.mails.length === people.length + 1);
    await quiet(thaw.pool);

    const refused_at = thaw.resend.requests.find((request) => request.status === 429)?.at ?? NaN;
    const afterwards = thaw.resend.requests.map((request) => request.at - refused_at);
    // The other lane's call may have been under way.
    expect(afterwards.filter((ms) => ms > 500 && ms < 2_900)).toEqual([]);
    expect(afterwards.filter((ms) => ms >= 2_900).length).toBeGreaterThan(3);
    expect(thaw.resend.mails.flatMap((mail) => mail.to).sort()).toEqual(
      [...people, "jane"].map((name) => `${name}@example.com`),
    );
    const { rows } = await thaw.pool.query("select distinct status, attempts from notifications");
    expect(rows).toEqual([{ status: "sent", attempts: 1 }]);
  });

  test.for([
    ["daily_quota_exceeded", 3600],
    ["invalid_api_key", 300],
    ["domain_not_verified", 300],
  ] as const)(
    "%s: is there for all to see, and mails go out once it is mended",
    async ([kind, seconds], { thaw }) => {
      await givenReady(thaw, "bob", "carl");
      const mended = thaw.resend.addFault({ kind });
      await thaw.startWorker();
      await runNotify(thaw.pool);

      const shut = await gate(thaw);
      expect(shut).toMatchObject({ is_shut: true, reason: expect.stringMatching(/quota|key|domain/i) });
      expect(shut.seconds).toBeGreaterThan(seconds - 60);
      expect(shut.seconds).toBeLessThanOrEqual(seconds);
      const asked = thaw.resend.requests.length;
      expect(asked).toBeLessThan(3);
      await runNotify(thaw.pool);
      expect(thaw.resend.requests).toHaveLength(asked);
      const { rows } = await thaw.pool.query(
        "select distinct status, attempts, uncertain_since from notifications",
      );
      expect(rows).toEqual([{ status: "sealed", attempts: 0, uncertain_since: null }]);

      mended();
      await openGate(thaw);
      await runNotify(thaw.pool);
      expect(thaw.resend.mails.flatMap((mail) => mail.to).sort()).toEqual([
        "bob@example.com",
        "carl@example.com",
        "jane@example.com",
      ]);
    },
  );

  test("does not bring the end of Resend's memory nearer, nor farther", async ({ thaw }) => {
    thaw.resend.addFault({ kind: "accept_then_drop", times: 1 });
    await thaw.startWorker();
    await runNotify(thaw.pool);
    const since = "2026-01-01T00:00:00.000Z";
    await thaw.pool.query("update notifications set uncertain_since = now() - interval '22 hours'");
    const { uncertain_since } = await notification(thaw);
    expect(uncertain_since).not.toEqual(new Date(since));

    thaw.resend.addFault({ kind: "daily_quota_exceeded", times: 1 });
    await age(thaw);
    await runNotify(thaw.pool);

    expect(await gate(thaw)).toMatchObject({ is_shut: true });
    expect(await notification(thaw)).toMatchObject({ status: "sealed", uncertain_since, attempts: 1 });
  });

  test("of the sender loses no mail, and the mended sender is the one that people see", async ({ thaw }) => {
    const wrong = await thaw.startWorker({ MAIL_FROM: "thaw@nowhere" });
    await runNotify(thaw.pool);
    expect(await notification(thaw)).toMatchObject({
      status: "sealed",
      failure_code: "invalid_from_address",
    });
    expect(await gate(thaw)).toMatchObject({ is_shut: true, reason: expect.stringContaining("`from`") });
    await wrong.stop();

    // Somebody finds it some time later; one copy has expired by then, and more has become ready.
    await thaw.pool.query("update notifications set created_at = now() - interval '3 days'");
    await thaw.pool.query("update restores set restore_expires_at = now() - interval '1 hour'");
    await givenFiles(thaw.pool, { email: "jane@example.com", keys: ["new.bin"], status: "restored" });
    await openGate(thaw);
    await thaw.startWorker();
    await runNotify(thaw.pool);

    expect(thaw.resend.mails.map(({ from, to, subject }) => [from, to, subject])).toEqual([
      ["Thaw <old@example.com>", ["jane@example.com"], "1 of your 2 files is ready"],
    ]);
    expect(await told(thaw)).toEqual([true, true]);
    expect(await stuck(thaw)).toEqual([]);
  });

  test("leaves no mail as it was frozen, however many there are", { timeout: 60_000 }, async ({ thaw }) => {
    await givenReady(thaw, ...Array.from({ length: 120 }, (_, index) => `person${index}`));
    const mended = thaw.resend.addFault({ kind: "suspended_api_key" });
    await thaw.startWorker();
    await waitFor("all to be frozen", async () => {
      const { rowCount } = await thaw.pool.query("select from notifications where status = 'sealed'");
      return rowCount === 121;
    });
    await quiet(thaw.pool);
    await thaw.pool.query("update notifications set created_at = now() - interval '5 hours'");
    await thaw.pool.query("update restores set restore_expires_at = now() - interval '1 hour'");
    mended();
    await openGate(thaw);
    await runNotify(thaw.pool);
    await waitFor("all mails", async () => thaw.resend.mails.length === 121, 30_000);

    expect(new Set(thaw.resend.mails.map((mail) => mail.subject))).toEqual(
      new Set(["Your file was restored, but the copy has expired"]),
    );
  });

  test("leaves a started mail unsent when its files are ready by the time the gate opens", async ({
    thaw,
  }) => {
    await thaw.pool.query("delete from restore_requests");
    await givenFiles(thaw.pool, { email: "jane@example.com", keys: ["slow.bin"], status: "pending" });
    const mended = thaw.resend.addFault({ kind: "suspended_api_key" });
    await thaw.startWorker();
    await runNotify(thaw.pool);
    expect(await notification(thaw)).toMatchObject({ kind: "pre", status: "sealed" });

    await thaw.pool.query(
      "update restores set status = 'restored', restore_expires_at = now() + interval '1 day' where s3_key = 'slow.bin'",
    );
    await thaw.pool.query("update notifications set created_at = now() - interval '5 hours'");
    mended();
    await openGate(thaw);
    await runNotify(thaw.pool);

    expect(thaw.resend.mails.map((mail) => mail.subject)).toEqual([
      expect.stringContaining("Your file is ready"),
    ]);
  });
});

describe("a sender that Resend refuses", () => {
  const OLD = "Thaw <old@example.com>";
  const NEW = "Thaw <new@example.com>";
  const arrived = (thaw: Thaw): string[] => thaw.resend.mails.flatMap((mail) => mail.to).toSorted();

  test("and that is ours no more keeps back nobody else's mail", async ({ thaw }) => {
    // Perhaps sent under the old sender: only the same bytes may follow.
    const names = Array.from({ length: 15 }, (_, index) => `old${index}`);
    await givenReady(thaw, ...names);
    const away = thaw.resend.addFault({ kind: "application_error" });
    const old = await thaw.startWorker();
    await waitFor("all to be tried", async () => thaw.resend.requests.length >= 16);
    await quiet(thaw.pool);
    await old.stop();
    away();
    thaw.resend.addFault({ kind: "domain_not_verified", from: OLD });
    await age(thaw);
    await givenReady(thaw, "ann", "bob", "carl");

    await thaw.startWorker({ MAIL_FROM: NEW });
    await runNotify(thaw.pool);
    await waitFor("the good mails", async () => thaw.resend.mails.length >= 3);
    await quiet(thaw.pool);

    expect(arrived(thaw)).toEqual(["ann@example.com", "bob@example.com", "carl@example.com"]);
    expect(await gate(thaw)).toMatchObject({ is_shut: false });
    const { rows } = await thaw.pool.query(
      `select distinct status, failure_code, uncertain_since is not null as has_horizon, attempts,
              attempt_after > now() + interval '30 seconds' as backs_off from notifications where status <> 'sent'`,
    );
    expect(rows).toEqual([
      { status: "sealed", failure_code: "validation_error", has_horizon: true, attempts: 2, backs_off: true },
    ]);
  });

  test("stops the worker that has it, and no other", async ({ thaw }) => {
    thaw.resend.addFault({ kind: "domain_not_verified", from: OLD });
    await thaw.startWorker();
    await runNotify(thaw.pool);
    expect(await gate(thaw)).toMatchObject({ is_shut: true });
    await givenReady(thaw, "ann", "bob");

    const { pool } = thaw;
    await age(thaw);
    const wait = async (sender: string) =>
      (await pool.query("select take_mail_turn('post', $1, '1 second') as wait_ms", [sender])).rows[0]
        .wait_ms;
    expect(await wait(OLD)).toBeNull();
    expect(await wait(NEW)).toBe(0);
    const claimed = async (sender: string) =>
      (await pool.query("select from claim_notifications('post', 1, 'w', true, $1)", [sender])).rowCount;
    expect(await claimed(OLD)).toBe(0);
    expect(await claimed(NEW)).toBe(1);
  });
});

describe("Postgres' clock is set back", () => {
  test("mail goes out within seconds, though its next turn was ten minutes ahead", async ({ thaw }) => {
    await thaw.pool.query(
      "update mail_gate set next_call_at = now() + interval '10 minutes', calls_per_second = 10",
    );
    await thaw.startWorker();
    await waitFor("the mail", async () => thaw.resend.mails.length === 1, 12_000);
    await waitFor("the mark", async () => (await told(thaw)).join() === "true");
  });

  test("and an operator who opens the gate is heard by who waits already", async ({ thaw }) => {
    // A turn that is far ahead for good, as far as a worker can see.
    await thaw.pool.query(
      "create or replace function mail_turn_horizon() returns interval language sql immutable as $$ select interval '1 hour' $$",
    );
    await thaw.pool.query("update mail_gate set next_call_at = now() + interval '10 minutes'");
    await thaw.startWorker();
    await waitFor("a worker to wait for its turn", async () => {
      const { rows } = await thaw.pool.query(
        "select from notifications n, graphile_worker.jobs j where n.status = 'sealed' and j.task_identifier = 'post_notify' and j.locked_at is not null",
      );
      return rows.length > 0;
    });
    await thaw.pool.query("update mail_gate set next_call_at = '-infinity'");
    await waitFor("the mail", async () => thaw.resend.mails.length === 1, 5_000);
  });
});

describe("a refusal of one mail", () => {
  test("fails that mail where everybody can see it, and the others arrive", async ({ thaw }) => {
    await givenReady(thaw, "ann", "bob", "carl");
    const mended = thaw.resend.refuse("bob@example.com");
    await thaw.startWorker();
    await runNotify(thaw.pool);

    expect(thaw.resend.mails.flatMap((mail) => mail.to).sort()).toEqual([
      "ann@example.com",
      "carl@example.com",
      "jane@example.com",
    ]);
    expect(await gate(thaw)).toMatchObject({ is_shut: false });
    expect(await told(thaw)).toEqual([true, false, true, true]);
    const [row, ...others] = await stuck(thaw);
    expect(others).toEqual([]);
    expect(row).toMatchObject({
      email: "bob@example.com",
      problem: "Resend refused a mail",
      failure_code: "validation_error",
    });

    mended();
    await thaw.pool.query("select resend_notification($1)", [row.mail_id]);
    await quiet(thaw.pool);
    expect(thaw.resend.mails[3]?.to).toEqual(["bob@example.com"]);
    expect(await told(thaw)).toEqual([true, true, true, true]);
  });

  test("does not hold up others, though it hangs", async ({ thaw }) => {
    await givenReady(thaw, "ann", "bob", "carl");
    thaw.resend.addFault({ kind: "hang", to: "ann@example.com" });
    await thaw.startWorker();

    await waitFor("all others", async () => thaw.resend.mails.length === 3, 5_000);
    expect(thaw.resend.mails.map((mail) => mail.to)).not.toContainEqual(["ann@example.com"]);
  });
});

describe("processes", () => {
  base(
    "two workers send two hundred mails, each once, and hardly ask for more than Resend takes",
    async ({ databaseUrl, pool }) => {
      const PEOPLE = 200;
      const PER_SECOND = 40;
      const s3 = await startS3StandIn();
      const resend = await startResendStandIn({ requests_per_second: PER_SECOND });
      await givenReady({ pool }, ...Array.from({ length: PEOPLE }, (_, i) => `p${i}`));
      const env = { ...settingsFor(databaseUrl, s3, resend), NOTIFY_QUIET_SECONDS: "0" };
      const workers = [launch(["worker"], env), launch(["worker"], env)];

      await waitFor("all mails", async () => resend.mails.length >= PEOPLE, 60_000);
      await quiet(pool);
      for (const { child } of workers) child.kill("SIGTERM");
      const exits = await Promise.all(workers.map((worker) => worker.end()));

      expect(exits).toEqual([0, 0]);
      expect(new Set(resend.mails.flatMap((mail) => mail.to)).size).toBe(PEOPLE);
      expect(resend.mails).toHaveLength(PEOPLE);
      const { rows } = await pool.query("select distinct status, attempts from notifications");
      expect(rows).toEqual([{ status: "sent", attempts: 1 }]);
      const refused = resend.requests.filter((request) => request.status === 429).length;
      const [first, last] = [resend.requests[0]?.at ?? NaN, resend.requests.at(-1)?.at ?? NaN];
      expect(refused).toBeLessThanOrEqual(workers.length);
      // Far from waiting for the next job after each pause; a busy machine needs some room.
      expect(last - first).toBeLessThan((4 * PEOPLE * 1000) / PER_SECOND);
      await resend.close();
      await s3.close();
    },
    90_000,
  );

  base("no line of the log holds a secret, a mail or an address", async ({ databaseUrl, pool }) => {
    const s3 = await startS3StandIn({ restore_ms: 0 });
    const resend = await startResendStandIn({ api_key: "re_the_very_key" });
    s3.createBucket(BUCKET);
    s3.putObject({ bucket: BUCKET, key: "a.bin", storage_class: "GLACIER" });
    await know(pool, JANE);
    await givenReady({ pool }, "ann", "bob", "carl", "dora", "emil", "fay");
    // Of a mail that cannot be written Postgres quotes the row.
    await pool.query("alter table notifications add constraint poison check (email <> 'fay@example.com')");
    resend.refuse("ann@example.com");
    resend.addFault({ kind: "application_error", to: "bob@example.com" });
    resend.addFault({ kind: "invalid_idempotent_request", to: "carl@example.com" });
    resend.addFault({ kind: "rate_limit_exceeded", to: "emil@example.com", times: 1 });
    const env = { ...settingsFor(databaseUrl, s3, resend), LOG_LEVEL: "debug" };
    const thaw = launch(["migrate", "server", "worker"], env);
    const url = await thaw.url();
    for (const [secret, status] of [
      ["wrong-secret-that-should-not-be-told-either", 401],
      [SECRET, 200],
    ] as const) {
      const answer = await fetch(`${url}/restore/request`, {
        method: "POST",
        headers: { "content-type": "application/json", "x-restore-secret": secret },
        body: JSON.stringify(requestBody("a.bin")),
      });
      expect(answer.status).toBe(status);
    }
    await waitFor("the outcomes", async () => {
      const { rows } = await pool.query(
        "select status::text, count(*)::int from notifications where email <> 'jane@example.com' group by 1 order by 1",
      );
      return rows.map((row) => `${row.status} ${row.count}`).join() === "failed 1,sealed 1,sent 2,unknown 1";
    });
    // A failing job shows its error, with whatever it holds.
    await pool.query("alter function due_people rename to no_due_people");
    await pool.query("select nudge('post_notify')");
    await thaw.says(`"msg":"job failed"`);
    await thaw.says(`"msg":"a mail could not be sealed"`);
    thaw.child.kill("SIGTERM");
    expect(await thaw.end()).toBe(0);

    const text = thaw.output();
    for (const outcome of ["sent", "failed", "unknown", "uncertain", "gate"])
      expect(text).toContain(`"outcome":"${outcome}"`);
    for (const secret of [
      resend.api_key,
      SECRET,
      "wrong-secret",
      "@example.com",
      "Bearer",
      "your file",
      "Your file",
    ])
      expect(text.toLowerCase()).not.toContain(secret.toLowerCase());
    await resend.close();
    await s3.close();
  });
});
