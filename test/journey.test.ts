import { describe, expect } from "vitest";

import { test as base, waitFor } from "./support/database.ts";
import { BOB, BUCKET, JANE, requestBody, startThaw, type Thaw } from "./support/thaw.ts";

const NOBODY = "AKIANOBODY0000000001";

const test = base.extend<{ thaw: Thaw }>({
  thaw: async ({ databaseUrl }, use) => {
    // Restores end when the test says so.
    const thaw = await startThaw(databaseUrl, { s3: { restore_ms: Infinity } });
    await use(thaw);
    await thaw.stop();
    expect(thaw.lambdaErrors).toEqual([]);
  },
});

const subjects = (thaw: Thaw): string[] =>
  thaw.resend.mails.map((mail) => `${mail.to.join()}: ${mail.subject}`);

const mails = (thaw: Thaw, count: number) =>
  waitFor(`${count} mails`, () => Promise.resolve(thaw.resend.mails.length >= count && thaw.resend.mails));

const finish = (thaw: Thaw, key: string): void => {
  expect(thaw.s3.finishRestore({ bucket: BUCKET, key })).toBe(true);
};

const restoresAccepted = (thaw: Thaw): number =>
  thaw.s3.requests.filter((request) => request.accepted).length;

const count = async (thaw: Thaw, what: string): Promise<number> =>
  Number((await thaw.pool.query<{ count: string }>(`select count(*) from ${what}`)).rows[0]?.count);

describe("the journey of a read", () => {
  test("a failed read is restored, its reader is told twice, and can read", async ({ thaw }) => {
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("films/holiday 1.mov");

    expect(await thaw.read("films/holiday 1.mov")).toBe("InvalidObjectState");
    await mails(thaw, 1);
    finish(thaw, "films/holiday 1.mov");
    await mails(thaw, 2);

    expect(subjects(thaw)).toEqual([
      expect.stringMatching(/^jane@example.com: Your file is being restored/),
      expect.stringMatching(/^jane@example.com: Your file is ready/),
    ]);
    expect(await thaw.read("films/holiday 1.mov")).toBe("");
    expect(restoresAccepted(thaw)).toBe(1);
    await waitFor("the mark", () => count(thaw, "restore_requests where post_notified").then((n) => n === 1));
    const { rows } = await thaw.pool.query("select * from restore_requests");
    expect(rows).toMatchObject([
      {
        restore_status: "restored",
        pre_notified: true,
        post_notified: true,
        email: "jane@example.com",
        read_count: 1,
      },
    ]);
    expect(rows[0]).toMatchObject({ restored_at: expect.any(Date) });
  });

  test("ten files of one person: one restore each, one mail when they begin, one when they are ready", async ({
    thaw,
  }) => {
    await thaw.know(JANE, "jane@example.com");
    const keys = Array.from({ length: 10 }, (_, index) => `scans/${index}.tif`);
    for (const key of keys) thaw.archive(key);
    for (const key of keys) await thaw.read(key);
    await mails(thaw, 1);
    for (const key of keys) finish(thaw, key);
    await mails(thaw, 2);

    expect(subjects(thaw)).toEqual([
      expect.stringContaining("Your 10 files are being restored"),
      expect.stringContaining("Your 10 files are ready"),
    ]);
    for (const mail of thaw.resend.mails) {
      for (const key of keys) expect(mail.text).toContain(`s3://${BUCKET}/${key}`);
    }
    expect(restoresAccepted(thaw)).toBe(10);
  });

  test("forty repeats of one read add a count and nothing else", async ({ thaw }) => {
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("a.bin");
    for (let read = 0; read < 41; read++) await thaw.read("a.bin");
    await mails(thaw, 1);
    finish(thaw, "a.bin");
    await mails(thaw, 2);
    // Whatever a repeat might have caused would be due by the time another person's mail has come.
    await thaw.know(BOB, "bob@example.com");
    thaw.archive("b.bin");
    await thaw.read("b.bin", BOB);
    await mails(thaw, 3);

    expect(subjects(thaw)[2]).toMatch(/^bob/);
    expect(restoresAccepted(thaw)).toBe(2);
    const { rows } = await thaw.pool.query("select s3_key, read_count from restore_requests order by s3_key");
    expect(rows).toEqual([
      { s3_key: "a.bin", read_count: 41 },
      { s3_key: "b.bin", read_count: 1 },
    ]);
  });

  test("a second reader gets mails of their own and causes no second restore", async ({ thaw }) => {
    await thaw.know(JANE, "jane@example.com");
    await thaw.know(BOB, "bob@example.com");
    thaw.archive("a.bin");
    await thaw.read("a.bin");
    await mails(thaw, 1);
    await thaw.read("a.bin", BOB);
    await mails(thaw, 2);
    finish(thaw, "a.bin");
    await mails(thaw, 4);

    expect(subjects(thaw).toSorted()).toEqual([
      expect.stringMatching(/^bob@example.com: Your file is being restored/),
      expect.stringMatching(/^bob@example.com: Your file is ready/),
      expect.stringMatching(/^jane@example.com: Your file is being restored/),
      expect.stringMatching(/^jane@example.com: Your file is ready/),
    ]);
    expect(restoresAccepted(thaw)).toBe(1);
  });

  test("an unknown key's file is restored and nobody is mailed, until the map knows the key", async ({
    thaw,
  }) => {
    thaw.archive("a.bin");
    await thaw.read("a.bin", NOBODY);
    await waitFor("the restore", () => Promise.resolve(restoresAccepted(thaw) === 1));
    finish(thaw, "a.bin");
    await waitFor("resolved to nobody", () =>
      count(
        thaw,
        "restore_requests where restore_status = 'restored' and user_resolved and email is null",
      ).then((n) => n === 1),
    );
    // A whole mail for somebody else passes by: time enough for a wrong one to show.
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("b.bin");
    await thaw.read("b.bin");
    expect((await mails(thaw, 1)).map((mail) => mail.to)).toEqual([["jane@example.com"]]);

    await thaw.know(NOBODY, "late@example.com");
    await thaw.pool.query("select nudge('resolve_users')"); // As crontab does every five minutes.
    await mails(thaw, 2);
    expect(subjects(thaw)[1]).toMatch(/^late@example.com: Your file is ready/);
  });

  base(
    "a steady stream of reads gets a mail at least every NOTIFY_MAX_WAIT_SECONDS",
    async ({ databaseUrl }) => {
      const thaw = await startThaw(databaseUrl, {
        s3: { restore_ms: Infinity },
        env: { NOTIFY_MAX_WAIT_SECONDS: "2" },
      });
      await thaw.know(JANE, "jane@example.com");
      const began = Date.now();
      // A new file every quarter of a second never leaves a quiet second; the longest wait is two.
      for (let index = 0; Date.now() - began < 9_000; index++) {
        thaw.archive(`stream/${index}`);
        await thaw.read(`stream/${index}`);
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
      const sent = thaw.resend.mails.map((mail) => (mail.at.getTime() - began) / 1000);
      expect(sent.length).toBeGreaterThanOrEqual(2);
      // Two seconds, two for graphile-worker's look at future jobs, and slack for a busy machine.
      for (const [index, at] of sent.entries()) expect(at - (sent[index - 1] ?? 0)).toBeLessThan(6);
      expect(subjects(thaw).every((subject) => subject.includes("being restored"))).toBe(true);
      await thaw.stop();
    },
  );

  test("a HEAD without x-amz-restore never makes an archived object restored", async ({ thaw }) => {
    await thaw.know(JANE, "jane@example.com");
    thaw.archive("a.bin");
    await thaw.read("a.bin");
    await mails(thaw, 1);
    // S3 forgets the restore: HEAD says GLACIER and nothing else. Polled at once, and again when the grace is over.
    thaw.s3.loseRestore({ bucket: BUCKET, key: "a.bin" });
    await thaw.pool.query(
      "update restores set head_wanted_at = now(), accepted_at = now() - interval '1 day'",
    );
    await thaw.pool.query("select nudge('poll_pending_restores')");
    await waitFor("the second restore", () => Promise.resolve(restoresAccepted(thaw) === 2));

    expect(await count(thaw, "restores where status = 'restored'")).toBe(0);
    finish(thaw, "a.bin");
    await mails(thaw, 2);
    expect(subjects(thaw)).toEqual([
      expect.stringContaining("being restored"),
      expect.stringContaining("ready"),
    ]);
  });
});

describe("what could be told wrongly, or late", () => {
  test("a file that is deleted while its version is restored is not called ready", async ({ thaw }) => {
    await thaw.know(JANE, "jane@example.com");
    thaw.s3.createBucket("versioned", { versioning: "enabled" });
    const file = { bucket: "versioned", key: "report.pdf" };
    const { version_id } = thaw.s3.putObject({ ...file, storage_class: "GLACIER" });
    await thaw.post("/restore/request", { ...requestBody(file.key), s3_bucket: file.bucket });
    await mails(thaw, 1);
    thaw.s3.deleteObject(file); // Leaves a delete marker; S3 goes on restoring what lies behind it.
    expect(thaw.s3.finishRestore({ ...file, version_id: version_id ?? "" })).toBe(true);
    await mails(thaw, 2);
    expect(subjects(thaw)).toEqual([
      expect.stringContaining("being restored"),
      expect.stringContaining("could not be restored"),
    ]);
  });

  base("a backlog of restores does not hold up the mails", async ({ databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, {
      s3: { restore_ms: Infinity, latency_ms: 300 },
      env: { S3_CONCURRENCY: "2" },
      worker: false,
    });
    await thaw.know(JANE, "jane@example.com");
    await thaw.post("/restore/request", requestBody("ready"));
    await thaw.pool.query(`
      update restores set status = 'restored', status_at = now() - interval '10 minutes', restore_expires_at = now() + interval '6 days'`);
    await thaw.pool.query("update restore_requests set requested_at = now() - interval '10 minutes'");
    for (let index = 0; index < 60; index++) {
      thaw.archive(`backlog/${index}`);
      await thaw.post("/restore/request", requestBody(`backlog/${index}`, { access_key_id: NOBODY }));
    }
    await thaw.startWorker();
    await mails(thaw, 1);
    expect(subjects(thaw)).toEqual([expect.stringContaining("Your file is ready")]);
    expect(await count(thaw, "restores where status = 'not_started'")).toBeGreaterThan(20);
    await thaw.stop();
  });
});

describe("with every nudge lost", () => {
  test("the five recurring tasks alone bring every row to its end", async ({ databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, { s3: { restore_ms: 0 }, events: false, worker: false });
    // Cron's jobs have a key, nudges have none: those never reach the queue.
    await thaw.pool.query(`
      create function lose_nudges() returns trigger language plpgsql as $$
        begin if new.key is null then return null; end if; return new; end $$;
      create trigger lose_nudges before insert on graphile_worker._private_jobs for each row execute function lose_nudges()`);
    const cron = (): Promise<unknown> =>
      thaw.pool.query(`select graphile_worker.add_job(t, job_key := 'cron_' || t)
        from unnest(array['resolve_users', 'trigger_restores', 'pre_notify', 'post_notify', 'poll_pending_restores']) t`);
    await thaw.know(JANE, "jane@example.com");
    for (const key of ["asked", "in doubt", "deleted", "of somebody unknown"]) thaw.archive(key);
    await thaw.post("/restore/request", requestBody("asked"));
    await thaw.post("/restore/request", requestBody("in doubt"));
    await thaw.post("/restore/request", requestBody("deleted"));
    await thaw.post("/restore/request", requestBody("of somebody unknown", { access_key_id: NOBODY }));
    thaw.s3.deleteObject({ bucket: BUCKET, key: "deleted" });
    await thaw.startWorker();

    await waitFor(
      "the end of every row",
      async () => {
        await cron();
        // Hours pass: S3 is done, nobody told us, and the poll is due.
        await thaw.pool.query(
          "update restores set accepted_at = now() - interval '1 day' where status = 'pending'",
        );
        return (
          (await count(
            thaw,
            "restore_requests where restore_status in ('restored', 'failed') and (post_notified or email is null)",
          )) === 4
        );
      },
      25_000,
    );
    const { rows } = await thaw.pool.query(
      "select s3_key, restore_status from restore_requests order by s3_key",
    );
    expect(rows).toEqual([
      { s3_key: "asked", restore_status: "restored" },
      { s3_key: "deleted", restore_status: "failed" },
      { s3_key: "in doubt", restore_status: "restored" },
      { s3_key: "of somebody unknown", restore_status: "restored" },
    ]);
    // A running job may lose its key to the next one of cron; nothing else has none.
    expect(await count(thaw, "graphile_worker.jobs where key is null and locked_at is null")).toBe(0);
    await thaw.stop();
  });
});

describe("a worker that starts continues from every state", () => {
  /** What a dead process may have left behind: rows in one state, no job, no lease that still holds. */
  const states: Record<string, { leave: string; last: RegExp }> = {
    "not_started, never claimed": { leave: "select", last: /ready/ },
    "not_started, claimed by a dead worker": {
      leave: "update restores set attempts = 1, attempt_after = now() - interval '1 second'",
      last: /ready/,
    },
    "not_started, in back-off that is over": {
      leave:
        "update restores set attempts = 3, failing_since = now(), failure_code = 'SlowDown', failure_message = 'S3 is busy.'",
      last: /ready/,
    },
    "pending, its Completed event lost": {
      leave:
        "update restores set status = 'pending', status_at = now(), accepted_at = now() - interval '1 day', pinned_version_id = ''",
      last: /ready/,
    },
    "pending, doubted": {
      leave: `update restores set status = 'pending', status_at = now(), accepted_at = now() - interval '1 hour', head_wanted_at = now(), pinned_version_id = ''`,
      last: /ready/,
    },
    "restored, nobody told": {
      leave:
        "update restores set status = 'restored', status_at = now(), restore_expires_at = now() + interval '6 days'",
      last: /ready/,
    },
    "failed, nobody told": {
      leave:
        "update restores set status = 'failed', status_at = now(), failure_code = 'object_not_found', failure_message = 'The file is gone.'",
      last: /could not be restored/,
    },
    "restored, the mail sealed and not sent": {
      leave: `update restores set status = 'restored', status_at = now(), restore_expires_at = now() + interval '6 days';
        insert into notifications (id, kind, email, body) values ('00000000-0000-4000-8000-000000000001', 'post', 'jane@example.com',
          '{"from":"thaw@example.com","to":["jane@example.com"],"subject":"Your file is ready","text":"ready"}');
        insert into announcements select id, 'post', 'jane@example.com', '00000000-0000-4000-8000-000000000001' from restores;
        update restore_requests set post_notification_id = '00000000-0000-4000-8000-000000000001'`,
      last: /ready/,
    },
  };
  for (const [state, { leave, last }] of Object.entries(states)) {
    base(state, async ({ databaseUrl }) => {
      const thaw = await startThaw(databaseUrl, { s3: { restore_ms: 0 }, worker: false });
      await thaw.know(JANE, "jane@example.com");
      thaw.archive("a.bin");
      await thaw.post("/restore/request", requestBody("a.bin"));
      await thaw.pool.query(leave);
      if (leave.includes("'pending'"))
        thaw.s3.beginRestore({ bucket: BUCKET, key: "a.bin" }, { days: 7, tier: "Standard" });
      // Some time passed: what windows there were are over.
      await thaw.pool.query("update restores set status_at = status_at - interval '1 minute'");
      await thaw.pool.query("update restore_requests set requested_at = requested_at - interval '1 minute'");
      await thaw.pool.query("delete from graphile_worker._private_jobs");

      await thaw.startWorker();
      await waitFor("the end", () =>
        count(thaw, "restore_requests where post_notified").then((n) => n === 1),
      );
      expect(subjects(thaw).at(-1)).toMatch(last);
      expect(thaw.resend.mails.filter((mail) => last.test(mail.subject))).toHaveLength(1);
      await thaw.stop();
      expect(thaw.lambdaErrors).toEqual([]);
    });
  }
});
