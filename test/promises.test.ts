/** The promises of the README, one test each: broken code must break its test. */
import { expect } from "vitest";

import { test, waitFor } from "./support/database.ts";
import { launch } from "./support/processes.ts";
import { startResendStandIn } from "./stand_ins/resend.ts";
import { startS3StandIn } from "./stand_ins/s3.ts";
import { SPENDING_IS_WRONG } from "./support/cost.ts";
import { know } from "./support/rows.ts";
import { BUCKET, JANE, SECRET, requestBody, settingsFor, startThaw } from "./support/thaw.ts";

test("1. what was answered with 2xx survives kill -9, and its reader is told", async ({
  databaseUrl,
  pool,
}) => {
  const s3 = await startS3StandIn({ restore_ms: 0 });
  const resend = await startResendStandIn();
  s3.createBucket(BUCKET);
  s3.putObject({ bucket: BUCKET, key: "a.bin", storage_class: "GLACIER" });
  await know(pool, JANE);
  const env = { ...settingsFor(databaseUrl, s3, resend), LOG_LEVEL: "info" };

  const first = launch(["server", "worker"], env);
  const answer = await first.post("/restore/request", requestBody("a.bin"));
  first.child.kill("SIGKILL");
  expect(answer.status).toBe(200);

  const second = launch(["server", "worker"], env);
  // Minutes pass: leases of the dead end, and the poll finds what no event told.
  await waitFor("the ready mail", async () => {
    await pool.query(
      "update restores set attempt_after = now(), head_wanted_at = now(), accepted_at = accepted_at - interval '1 hour' where status in ('not_started', 'pending')",
    );
    await pool.query("select nudge('trigger_restores'), nudge('poll_pending_restores')");
    return resend.mails.some((mail) => mail.subject.includes("ready"));
  });
  second.child.kill("SIGKILL");
  expect(resend.mails.filter((mail) => mail.subject.includes("ready"))).toHaveLength(1);
  await s3.close();
  await resend.close();
});

test("2. each announcement arrives once, though Resend takes mails and loses its answers", async ({
  databaseUrl,
}) => {
  const thaw = await startThaw(databaseUrl, { env: { NOTIFY_QUIET_SECONDS: "0" } });
  const people = Array.from({ length: 12 }, (_, index) => `person${index}`);
  thaw.archive("a.bin");
  for (const kind of [
    "accept_then_drop",
    "accept_then_truncate",
    "accept_then_html",
    "reset",
    "application_error",
  ] as const) {
    thaw.resend.addFault({ kind, times: 4 });
  }
  for (const person of people) {
    await thaw.know(`AKIA${person}`, `${person}@example.com`);
    await thaw.post("/restore/request", requestBody("a.bin", { access_key_id: `AKIA${person}` }));
  }
  await waitFor(
    "all marks",
    async () => {
      // Back-off, quicker.
      await thaw.pool.query(
        "update notifications set attempt_after = now() where failure_code is not null and status = 'sealed'",
      );
      await thaw.pool.query("select nudge('pre_notify'), nudge('post_notify')");
      const { rowCount } = await thaw.pool.query("select from restore_requests where post_notified");
      return rowCount === people.length;
    },
    25_000,
  );
  await waitFor(
    "no mail under way",
    async () => (await thaw.pool.query("select from notifications where status <> 'sent'")).rowCount === 0,
  );

  const { rows } = await thaw.pool.query<{ id: string; kind: string }>("select id, kind from notifications");
  // What was delivered is what was announced, each once.
  expect(thaw.resend.mails.map((mail) => mail.idempotency_key).toSorted()).toEqual(
    rows.map(({ id }) => `thaw/${id}`).toSorted(),
  );
  for (const person of people) {
    const ready = thaw.resend.mails.filter(
      (mail) => mail.to[0] === `${person}@example.com` && mail.subject.includes("ready"),
    );
    expect(ready).toHaveLength(1);
  }
  expect(thaw.resend.requests.filter((request) => request.replayed).length).toBeGreaterThan(0);
  await thaw.stop();
});

test("3. never a false ready: only HEAD, asked by Thaw itself, makes a file restored", async ({
  databaseUrl,
}) => {
  const thaw = await startThaw(databaseUrl, {
    s3: { restore_ms: Infinity },
    env: { NOTIFY_QUIET_SECONDS: "0" },
  });
  await thaw.know(JANE, "jane@example.com");
  thaw.archive("a.bin");
  await thaw.read("a.bin");
  await waitFor(
    "pending",
    async () => (await thaw.pool.query("select from restores where status = 'pending'")).rowCount === 1,
  );

  const completed = { s3_bucket: BUCKET, s3_key: "a.bin" };
  const in_a_week = new Date(Date.now() + 7 * 86_400_000).toISOString();
  // Forged, early, late, mixed up: whoever has the secret may say these, in the form that S3's own events have.
  const lies: [Record<string, unknown>, number][] = [
    [completed, 1],
    [{ ...completed, restore_expires_at: in_a_week, event_time: new Date().toISOString() }, 1],
    [{ ...completed, restore_expires_at: "9999-12-31T00:00:00Z" }, 1],
    [{ ...completed, version_id: "of-another-version", restore_expires_at: in_a_week }, 1],
    [{ ...completed, restore_expires_at: new Date(Date.now() - 1000).toISOString() }, 1],
    [{ ...completed, event_time: new Date(Date.now() - 3_600_000).toISOString() }, 1],
    [{ ...completed, s3_key: "b.bin", restore_expires_at: in_a_week }, 0],
    [{ ...completed, s3_bucket: "another", restore_expires_at: in_a_week }, 0],
  ];
  for (const [lie, updated] of lies) {
    await thaw.pool.query("update restores set last_checked_at = null");
    expect((await thaw.post("/restore/completed", lie)).body).toEqual({ ok: true, updated });
    if (updated > 0) {
      await waitFor(
        "S3 to be asked",
        async () =>
          (await thaw.pool.query("select from restores where last_checked_at is not null")).rowCount === 1,
      );
    }
    expect((await thaw.pool.query("select status from restores")).rows).toEqual([{ status: "pending" }]);
  }
  expect(thaw.resend.mails.filter((mail) => mail.subject.includes("ready"))).toEqual([]);

  thaw.s3.finishRestore({ bucket: BUCKET, key: "a.bin" });
  await waitFor("the ready mail", () =>
    Promise.resolve(thaw.resend.mails.some((mail) => mail.subject.includes("ready"))),
  );
  const expires_at = thaw.s3.look({ bucket: BUCKET, key: "a.bin" })?.expires_at;
  expect((await thaw.pool.query("select restore_expires_at from restores")).rows).toEqual([
    { restore_expires_at: expires_at },
  ]);
  await thaw.stop();
});

test("4. one bad object, person or mail holds up nobody else", async ({ databaseUrl }) => {
  const thaw = await startThaw(databaseUrl, { env: { NOTIFY_QUIET_SECONDS: "0" } });
  thaw.resend.refuse("refused@example.com");
  thaw.s3.fail({ bucket: BUCKET, key: "hangs", with: "hang" });
  thaw.s3.fail({ bucket: BUCKET, key: "denied", with: "access_denied" });
  const readers = { hangs: "a", denied: "b", fine: "c", "refused reader": "refused", "fine too": "d" };
  for (const [key, person] of Object.entries(readers)) {
    thaw.archive(key);
    await thaw.know(`AKIA-${person}`, `${person}@example.com`);
    await thaw.post("/restore/request", requestBody(key, { access_key_id: `AKIA-${person}` }));
  }
  const ready = (person: string) =>
    thaw.resend.mails.some(
      (mail) => mail.to[0] === `${person}@example.com` && mail.subject.includes("ready"),
    );
  await waitFor("the others' mails", () => Promise.resolve(ready("c") && ready("d")), 9_000);
  await waitFor(
    "the refusal",
    async () => (await thaw.pool.query("select from notifications where status = 'failed'")).rowCount !== 0,
  );
  expect(thaw.resend.mails.map((mail) => mail.to[0])).not.toContain("refused@example.com");
  await thaw.stop();
});

test("5. one accepted RestoreObject per restore, though S3's answer is lost and many wait", async ({
  databaseUrl,
}) => {
  const thaw = await startThaw(databaseUrl, { s3: { restore_ms: 60_000 } });
  thaw.s3.fail({ operation: "RestoreObject", with: "drop_after_accept", times: 5 });
  thaw.archive("a.bin");
  await Promise.all(
    Array.from({ length: 50 }, (_, index) =>
      thaw.post("/restore/request", requestBody("a.bin", { access_key_id: `AKIA${index}` })),
    ),
  );
  await waitFor("pending", async () => {
    await thaw.pool.query("update restores set attempt_after = now() where failure_code is not null");
    await thaw.pool.query("select nudge('trigger_restores')");
    return (
      (await thaw.pool.query("select from restore_requests where restore_status = 'pending'")).rowCount === 50
    );
  });
  expect(thaw.s3.look({ bucket: BUCKET, key: "a.bin" })?.restores_accepted).toBe(1);
  await thaw.stop();
});

test("6. bad input changes nothing, a wrong secret gets a bare 401, and no log holds a secret", async ({
  databaseUrl,
  pool,
}) => {
  const s3 = await startS3StandIn();
  const resend = await startResendStandIn({ api_key: "re_a_key_that_must_not_show" });
  const thaw = launch(["server", "worker"], {
    ...settingsFor(databaseUrl, s3, resend),
    LOG_LEVEL: "trace",
  });

  const bad = await thaw.post("/restore/request", { s3_bucket: BUCKET, s3_key: "" });
  expect(bad.status).toBe(400);
  expect(bad.body).toMatchObject({
    error: { code: "invalid_request", issues: [{ field: "s3_key" }] },
  });
  const wrong = await fetch(`${await thaw.url()}/restore/request`, {
    method: "POST",
    headers: { "x-restore-secret": `${SECRET}x` },
    body: "{}",
  });
  expect(wrong.status).toBe(401);
  expect(await wrong.json()).toEqual({ error: { code: "unauthorized", message: "unauthorized" } });
  expect((await pool.query("select from restore_requests")).rowCount).toBe(0);

  expect((await thaw.post("/restore/request", requestBody("a.bin"))).status).toBe(200);
  await thaw.says("asked S3");
  thaw.child.kill("SIGTERM");
  expect(await thaw.end()).toBe(0);
  const everything = thaw.output();
  expect(everything).toContain("/restore/request");
  for (const secret of [SECRET, resend.api_key, new URL(databaseUrl).password])
    expect(everything).not.toContain(secret);
  await s3.close();
  await resend.close();
});

test("7. beyond a limit no RestoreObject is sent that nobody approved, whatever S3 answers", async ({
  databaseUrl,
}) => {
  const thaw = await startThaw(databaseUrl, { worker: false, s3: { restore_ms: 60_000 } });
  await thaw.pool.query("insert into limits (scope, per, max_objects) values ('person', 'day', 20)");
  const keys = Array.from({ length: 50 }, (_, index) => `scan/${index}`);
  for (const key of keys) thaw.archive(key);
  for (const fault of ["slow_down", "access_denied", "internal_error", "drop_after_accept", "reset"] as const)
    thaw.s3.fail({ operation: "RestoreObject", with: fault, times: 3, probability: 0.5 });
  for (let worker = 0; worker < 3; worker++) await thaw.startWorker({ S3_CONCURRENCY: 5 });
  await Promise.all(
    keys.map((key, index) =>
      thaw.post(
        "/restore/request",
        // A scanner has a session and a key for each file; it is one all the same.
        requestBody(key, {
          access_key_id: `ASIA${index}`,
          principal_arn: `arn:aws:sts::123456789012:assumed-role/scanner/${index}`,
        }),
      ),
    ),
  );
  const accepted = (): number[] =>
    keys.map((key) => thaw.s3.look({ bucket: BUCKET, key })?.restores_accepted ?? 0);
  const allAre = (what: string): Promise<unknown> =>
    waitFor(
      what,
      async () => {
        await thaw.pool.query(
          "update restores set attempt_after = now() where failure_code is not null and claim_id is null",
        );
        await thaw.pool.query("select nudge('trigger_restores')");
        return (
          (
            await thaw.pool.query(
              "select from restores where status = 'not_started' and attempt_after < 'infinity'",
            )
          ).rowCount === 0
        );
      },
      25_000,
    );
  await allAre("pending or held");
  expect(accepted().filter((times) => times === 1)).toHaveLength(20);
  expect(accepted().filter((times) => times > 1)).toEqual([]);
  expect((await thaw.pool.query("select objects::integer from holds")).rows).toEqual([{ objects: 30 }]);

  await thaw.pool.query("select approve_hold(id, 'ann', 30) from holds");
  await waitFor("all to be accepted", async () => {
    await allAre("pending");
    return accepted().every((times) => times === 1);
  });
  expect((await thaw.pool.query(SPENDING_IS_WRONG)).rows).toEqual([]);
  await thaw.stop();
});
