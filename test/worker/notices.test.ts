/** Mails about what waits for approval, and about limits that are nearly used up. */
import { describe, expect } from "vitest";

import { test as base, waitFor } from "../support/database.ts";
import { givenFiles, quiet, runNotify } from "../support/given_files.ts";
import { isWaitedFor, query, type Row } from "../support/rows.ts";
import { BOB, BUCKET, JANE, startThaw, type Thaw, type ThawOptions } from "../support/thaw.ts";

const ANN = "ann@example.com";
const LI = "li@example.com";

/** Jane and Bob read, Ann and Li approve; mails are due at once, and restores end when the test says so. */
const test = base.extend<{ start: (options?: ThawOptions) => Promise<Thaw> }>({
  start: async ({ databaseUrl }, use) => {
    const thaws: Thaw[] = [];
    await use(async ({ env, ...options } = {}) => {
      const thaw = await startThaw(databaseUrl, {
        s3: { restore_ms: Infinity },
        ...options,
        env: {
          NOTIFY_QUIET_SECONDS: "0",
          NOTIFY_MAX_WAIT_SECONDS: "0",
          APPROVERS: `${ANN}, ${LI}`,
          ...env,
        },
      });
      thaws.push(thaw);
      await thaw.know(JANE, "jane@example.com");
      await thaw.know(BOB, "bob@example.com");
      if (options.worker !== false) await quiet(thaw.pool);
      return thaw;
    });
    for (const thaw of thaws) {
      await thaw.stop();
      expect(thaw.lambdaErrors).toEqual([]);
    }
  },
});

const limit = (thaw: Thaw, max_objects: number, scope = "person"): Promise<Row[]> =>
  query(thaw.pool, "insert into limits (scope, per, max_objects) values ($1, 'day', $2)", [
    scope,
    max_objects,
  ]);

const holdAll = (thaw: Thaw): Promise<Row[]> =>
  query(thaw.pool, "insert into policies (s3_bucket, action) values ('*', 'hold')");

async function readAll(thaw: Thaw, keys: string[], access_key_id = JANE): Promise<void> {
  for (const key of keys) thaw.archive(key);
  await Promise.all(keys.map((key) => thaw.read(key, access_key_id)));
}

const held = (thaw: Thaw, count: number): Promise<unknown> =>
  waitFor("restores to be held", async () => {
    const rows = await query(thaw.pool, "select from restores where hold_id is not null");
    return rows.length === count;
  });

const keys = (count: number, prefix = "file"): string[] =>
  Array.from({ length: count }, (_, n) => `${prefix}-${n}.bin`);

const subjects = (thaw: Thaw): string[] =>
  thaw.resend.mails.map((mail) => `${mail.to.join()}: ${mail.subject}`).toSorted();

const mailTo = (thaw: Thaw, address: string, subject: RegExp) =>
  thaw.resend.mails.find((mail) => mail.to.includes(address) && subject.test(mail.subject));

const decide = (thaw: Thaw, how: "approve" | "refuse"): Promise<Row[]> =>
  query(thaw.pool, `select ${how}_hold(id, 'ann') from holds where status = 'open'`);

const prose = (mail: { text: string } | undefined): string => mail?.text.replace(/\s+/g, " ") ?? "";

describe("what waits for approval", () => {
  test("is told to its reader and to each approver, once, with whom to ask and how to decide", async ({
    start,
  }) => {
    const thaw = await start();
    await holdAll(thaw);
    await readAll(thaw, ["a.bin", "b.bin"]);
    await held(thaw, 2);
    await runNotify(thaw.pool);
    // More of the same, and another reader of the same file.
    await readAll(thaw, ["c.bin"]);
    await thaw.read("a.bin", BOB);
    await held(thaw, 3);
    await runNotify(thaw.pool);

    expect(
      subjects(thaw).map((subject) => subject.replace(/(Your )?(\d )?files? needs?/, "FILES need")),
    ).toEqual([
      expect.stringMatching(
        /^ann@example\.com: \d files? waits? for approval: \d+ bytes, an estimate of under \$0\.01$/,
      ),
      expect.stringMatching(/^bob@example\.com: FILES need approval: 17 bytes/),
      expect.stringMatching(/^jane@example\.com: FILES need approval/),
      expect.stringMatching(/^li@example\.com: \d files? waits? for approval/),
    ]);
    const [{ id }] = (await query(thaw.pool, "select id from holds")) as [Row];
    const approval = prose(mailTo(thaw, ANN, /wait/));
    expect(approval).toContain("jane@example.com has read");
    expect(approval).toContain("a policy asks for approval");
    expect(approval).toContain(`npm run thaw -- hold approve ${id}`);
    expect(approval).toContain("s3://archive/a.bin");
    const reader = prose(mailTo(thaw, "bob@example.com", /need/));
    expect(reader).toContain(`Whom to ask: ${ANN} or ${LI}.`);
    expect(reader).toContain("s3://archive/a.bin");
    expect(reader).not.toContain("b.bin");
  });

  test("waits for the burst to end, though it was opened a while ago", async ({ start }) => {
    const thaw = await start({ env: { NOTIFY_QUIET_SECONDS: "2", NOTIFY_MAX_WAIT_SECONDS: "600" } });
    await holdAll(thaw);
    await readAll(thaw, keys(1));
    await held(thaw, 1);
    await readAll(thaw, keys(6));
    await held(thaw, 6);
    await waitFor("the mails", async () => thaw.resend.mails.length === 3);
    expect(subjects(thaw)).toEqual([
      expect.stringMatching(/^ann@example\.com: 6 files wait for approval/),
      expect.stringMatching(/^jane@example\.com: Your 6 files need approval/),
      expect.stringMatching(/^li@example\.com: 6 files wait for approval/),
    ]);
  });

  test("and is decided before anybody was told brings no mail of it", async ({ start }) => {
    const thaw = await start({ env: { NOTIFY_QUIET_SECONDS: "600", NOTIFY_MAX_WAIT_SECONDS: "600" } });
    await holdAll(thaw);
    await readAll(thaw, keys(2));
    await held(thaw, 2);
    await decide(thaw, "approve");
    await runNotify(thaw.pool);
    expect(thaw.resend.mails).toEqual([]);
    expect(await query(thaw.pool, "select from notices where sealed_at is null")).toEqual([]);
  });

  test("is restored and told as ever once it is approved", async ({ start }) => {
    const thaw = await start();
    await limit(thaw, 2);
    await readAll(thaw, keys(5));
    await held(thaw, 3);
    await waitFor(
      "both approvers' mails",
      async () => subjects(thaw).filter((s) => /wait for/.test(s)).length === 2,
    );
    await decide(thaw, "approve");
    await waitFor("all to be restored", async () => {
      const rows = await query(thaw.pool, "select from restores where status = 'pending'");
      return rows.length === 5;
    });
    await runNotify(thaw.pool);
    for (const key of keys(5)) thaw.s3.finishRestore({ bucket: BUCKET, key });
    await waitFor("all to be ready", async () => {
      const rows = await query(thaw.pool, "select from restore_requests where not post_notified");
      return rows.length === 0;
    });

    const jane = subjects(thaw).filter((subject) => subject.startsWith("jane"));
    // In as many mails as the restores began apart.
    const counted = jane
      .map((subject) => /Your (?:(\d) files are|file is) being restored/.exec(subject))
      .reduce((sum, found) => sum + (found === null ? 0 : Number(found[1] ?? 1)), 0);
    expect(counted).toBe(5);
    expect(jane.filter((subject) => / need/.test(subject))).toHaveLength(1);
  });

  test("and is refused fails with whom to ask, and no word that it was begun", async ({ start }) => {
    const thaw = await start();
    await holdAll(thaw);
    await readAll(thaw, keys(2));
    await held(thaw, 2);
    await runNotify(thaw.pool);
    await decide(thaw, "refuse");
    await waitFor("the answer", async () => mailTo(thaw, "jane@example.com", /could not/) !== undefined);

    const mail = prose(mailTo(thaw, "jane@example.com", /could not/));
    expect(mail).toContain("The restore was not approved. (Code: not_approved)");
    expect(mail).toContain(
      `ask ${ANN} or ${LI}. A read later than 24 hours after this asks for approval once more`,
    );
    expect(mail).not.toContain("once the cause is put right");
    expect(subjects(thaw).filter((subject) => /being restored/.test(subject))).toEqual([]);
    expect(thaw.s3.counts.get("RestoreObject 202")).toBeUndefined();
  });

  test("is counted for itself in a mail about other files", async ({ start }) => {
    const thaw = await start();
    await holdAll(thaw);
    await readAll(thaw, keys(2, "held"));
    await held(thaw, 2);
    await givenFiles(thaw.pool, { email: "jane@example.com", keys: keys(3, "ready"), status: "restored" });
    await givenFiles(thaw.pool, { email: "jane@example.com", keys: keys(1, "coming"), status: "pending" });
    await runNotify(thaw.pool);

    const mail = mailTo(thaw, "jane@example.com", /ready/);
    expect(mail?.subject).toBe("3 of your 6 files are ready");
    expect(prose(mail)).toContain("One more file is still being restored.");
    expect(prose(mail)).toContain("2 more files wait for approval");
  });

  test("is told to a reader who becomes known while it waits", async ({ start }) => {
    const thaw = await start();
    await holdAll(thaw);
    await readAll(thaw, keys(1), "AKIANOBODYKNOWS");
    await held(thaw, 1);
    await runNotify(thaw.pool);
    expect(subjects(thaw).map((subject) => subject.split(":")[0])).toEqual([ANN, LI]);
    await query(thaw.pool, "select * from import_users($1)", [
      JSON.stringify([{ id: "AKIANOBODYKNOWS", email: "eve@example.com" }]),
    ]);
    await query(thaw.pool, "select nudge('resolve_users')");
    await waitFor("Eve's mail", async () => mailTo(thaw, "eve@example.com", /needs approval/) !== undefined);
  });

  test("stays to be told while there are no approvers, and is told once there are", async ({ start }) => {
    const thaw = await start({ env: { APPROVERS: "" } });
    await holdAll(thaw);
    await readAll(thaw, keys(1));
    await held(thaw, 1);
    await runNotify(thaw.pool);
    expect(subjects(thaw)).toEqual([expect.stringContaining("jane@example.com: Your file needs approval")]);
    expect(prose(thaw.resend.mails[0])).toContain("Whom to ask: whoever looks after Thaw.");

    await thaw.startWorker({ APPROVERS: [ANN] });
    await waitFor("Ann's mail", async () => {
      await query(thaw.pool, "select nudge('pre_notify')");
      return mailTo(thaw, ANN, /waits for approval/) !== undefined;
    });
  });
});

describe("a mail about a hold that is not sent for long", () => {
  /** Sealed while the gate is shut, eleven minutes ago. */
  async function stale(thaw: Thaw): Promise<void> {
    await query(thaw.pool, "select close_mail_gate(null, 'maintenance')");
    await holdAll(thaw);
    await readAll(thaw, keys(2));
    await held(thaw, 2);
    await runNotify(thaw.pool);
    await waitFor("the mails to be sealed", async () => {
      const rows = await query(thaw.pool, "select from notifications where status = 'sealed'");
      return rows.length === 3;
    });
    await query(thaw.pool, "update notifications set created_at = now() - interval '11 minutes'");
  }

  test("is written anew if it is still true, for whom it was not sent to", async ({ start }) => {
    const thaw = await start({ worker: false });
    const worker = await thaw.startWorker();
    await quiet(thaw.pool);
    await stale(thaw);
    // Li's was sent before the gate was shut.
    await query(thaw.pool, "update notifications set status = 'sent', sent_at = now() where email = $1", [
      LI,
    ]);
    const old = await query(thaw.pool, "select id from notifications where status = 'sealed'");
    await readAll(thaw, ["one-more.bin"]);
    await held(thaw, 3);
    await query(thaw.pool, "select open_mail_gate()");
    await waitFor("the mails", async () => thaw.resend.mails.length === 2);
    await quiet(thaw.pool);
    await worker.stop();

    expect(subjects(thaw)).toEqual([
      expect.stringContaining("ann@example.com: 3 files wait for approval"),
      expect.stringContaining("jane@example.com: Your 3 files need approval"),
    ]);
    expect(
      await query(thaw.pool, "select from notifications where id = any ($1)", [
        old.map(({ id }) => id as string),
      ]),
    ).toEqual([]);
  });

  test("is never sent if somebody has decided meanwhile", async ({ start }) => {
    const thaw = await start();
    await stale(thaw);
    await decide(thaw, "approve");
    await waitFor("the restores to begin", async () => thaw.s3.counts.get("RestoreObject 202") === 2);
    // A run that is under way has looked for stale mails already.
    await quiet(thaw.pool);
    await query(thaw.pool, "select open_mail_gate()");
    await runNotify(thaw.pool);
    await waitFor("the started mail", async () => thaw.resend.mails.length > 0);
    expect(subjects(thaw)).toEqual([
      expect.stringContaining("jane@example.com: Your 2 files are being restored"),
    ]);
  });

  test("that an operator sends again stays the only one of its notice", async ({ start }) => {
    const thaw = await start();
    await holdAll(thaw);
    await readAll(thaw, keys(1));
    await waitFor("the mails", async () => thaw.resend.mails.length === 3);
    await quiet(thaw.pool);
    await query(thaw.pool, "select resend_notification(id) from notifications where email = $1", [ANN]);
    await waitFor("the repeat", async () => thaw.resend.mails.length === 4);
    await query(thaw.pool, "update notices set sealed_at = null");
    await runNotify(thaw.pool);
    expect(thaw.resend.mails).toHaveLength(4);
  });
});

describe("a mail about a hold", () => {
  test("that cannot be written stays due, and keeps back no other", async ({ start }) => {
    const thaw = await start();
    await query(
      thaw.pool,
      `create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no room' using errcode = 'check_violation'; end $$`,
    );
    await query(
      thaw.pool,
      "create trigger refuse before insert on notifications for each row when (new.kind::text = 'approval') execute function refuse()",
    );
    await holdAll(thaw);
    await readAll(thaw, keys(1));
    await held(thaw, 1);
    await runNotify(thaw.pool);
    expect(subjects(thaw)).toEqual([expect.stringContaining("jane@example.com")]);
    expect(await query(thaw.pool, "select kind::text from notices where sealed_at is null")).toEqual([
      { kind: "approval" },
    ]);

    await query(thaw.pool, "drop trigger refuse on notifications");
    await runNotify(thaw.pool);
    expect(subjects(thaw).map((subject) => subject.split(":")[0])).toEqual([ANN, "jane@example.com", LI]);
  });

  test("is not written while somebody decides, and not at all when they have", async ({ start }) => {
    const thaw = await start({ env: { NOTIFY_QUIET_SECONDS: "1", NOTIFY_MAX_WAIT_SECONDS: "1" } });
    await holdAll(thaw);
    const client = await thaw.pool.connect();
    try {
      await readAll(thaw, keys(1));
      await held(thaw, 1);
      await client.query("begin");
      await client.query("select refuse_hold(id, 'ann') from holds");
      await waitFor("the mail to wait for the decision", () => isWaitedFor(thaw.pool));
      await client.query("commit");
    } finally {
      client.release(true);
    }
    await waitFor("the answer", async () => {
      await query(thaw.pool, "select nudge('post_notify')");
      return mailTo(thaw, "jane@example.com", /could not/) !== undefined;
    });
    await runNotify(thaw.pool);
    expect(thaw.resend.mails).toHaveLength(1);
  });
});

describe("a limit that is nearly used up", () => {
  test("is told to each approver once in its period, with what is left", async ({ start }) => {
    const thaw = await start();
    await limit(thaw, 10);
    await readAll(thaw, keys(7));
    await waitFor("the restores", async () => thaw.s3.counts.get("RestoreObject 202") === 7);
    await runNotify(thaw.pool);
    expect(subjects(thaw).filter((subject) => !subject.startsWith("jane"))).toEqual([]);
    for (const more of ["x1", "x2"]) {
      await readAll(thaw, [more]);
      await runNotify(thaw.pool);
    }
    await waitFor(
      "the warnings",
      async () => subjects(thaw).filter((s) => /A limit is/.test(s)).length === 2,
    );
    await quiet(thaw.pool);

    expect(subjects(thaw).filter((subject) => !subject.startsWith("jane"))).toEqual([
      expect.stringMatching(/^ann@example\.com: A limit is [89]0 % used up today: [89] of 10 files$/),
      expect.stringMatching(/^li@example\.com: A limit is [89]0 % used up today: [89] of 10 files$/),
    ]);
    const mail = prose(mailTo(thaw, ANN, /limit/));
    expect(mail).toContain("by jane@example.com");
    expect(mail).toMatch(/begins anew on .* 00:00 UTC/);
  });

  test("and was changed before anybody was told is not told", async ({ start }) => {
    const thaw = await start({ env: { NOTIFY_QUIET_SECONDS: "600", NOTIFY_MAX_WAIT_SECONDS: "600" } });
    await limit(thaw, 2, "all");
    await readAll(thaw, keys(2));
    await waitFor("the warning", async () => (await query(thaw.pool, "select from notices")).length === 1);
    await query(thaw.pool, "update limits set max_objects = 100");
    await runNotify(thaw.pool);
    expect(await query(thaw.pool, "select from notices where sealed_at is null")).toEqual([]);
    expect(await query(thaw.pool, "select from notifications where notice_id is not null")).toEqual([]);
  });
});
