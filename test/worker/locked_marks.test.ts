/** A request that somebody keeps locked holds up its own mail's marks, and nobody else's mail. */

import { Client, type Pool } from "pg";
import { expect } from "vitest";

import { test as base, waitFor } from "../support/database.ts";
import { givenFiles, runNotify } from "../support/given_files.ts";
import { one, query } from "../support/rows.ts";
import { startWithSmallPages, type Thaw } from "../support/thaw.ts";

const JANE_MAIL = "jane@example.com";
const BOB_MAIL = "bob@example.com";

/** No worker yet; pages of four; somebody's open psql. */
const test = base.extend<{ thaw: Thaw; psql: Client }>({
  thaw: async ({ databaseUrl }, use) => {
    const thaw = await startWithSmallPages(databaseUrl);
    await use(thaw);
    await thaw.stop();
  },
  psql: async ({ databaseUrl }, use) => {
    const psql = new Client({ connectionString: databaseUrl });
    await psql.connect();
    await use(psql);
    await psql.end();
  },
});

const files = (count: number, prefix: string): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}-${index}.bin`);

/** Seals a mail to Jane of `count` files, while the gate is shut. */
async function sealed(thaw: Thaw, count: number): Promise<string> {
  await givenFiles(thaw.pool, { email: JANE_MAIL, keys: files(count, "jane"), status: "restored" });
  await thaw.pool.query("update mail_gate set closed_until = now() + interval '1 hour'");
  const worker = await thaw.startWorker();
  await runNotify(thaw.pool);
  await worker.stop();
  await thaw.pool.query("update mail_gate set closed_until = '-infinity'");
  return (await one(thaw.pool, "select id from notifications"))["id"] as string;
}

async function lockOne(psql: Client): Promise<void> {
  await psql.query("begin");
  await psql.query("select from restore_requests where s3_key = 'jane-5.bin' for update");
}

const bobHears = async (thaw: Thaw): Promise<void> => {
  await givenFiles(thaw.pool, { email: BOB_MAIL, keys: ["bob.bin"], status: "restored" });
  await thaw.startWorker();
  await thaw.pool.query("select nudge('post_notify')");
  await waitFor(
    "Bob's mail",
    async () => thaw.resend.mails.some((mail) => mail.to.includes(BOB_MAIL)),
    12_000,
  );
};

const marked = async (pool: Pool): Promise<number> =>
  (await query(pool, "select from restore_requests where post_notified and email = 'jane@example.com'"))
    .length;

test("of a mail that is sent and not marked to its end", { timeout: 60_000 }, async ({ thaw, psql }) => {
  const id = await sealed(thaw, 10);
  await thaw.pool.query("select mark_notification_sent($1, 'resend id')", [id]);
  await lockOne(psql);
  await bobHears(thaw);
  await waitFor("all others to be marked", async () => (await marked(thaw.pool)) === 9, 5_000);

  await psql.query("rollback");
  await runNotify(thaw.pool);
  expect(await marked(thaw.pool)).toBe(10);
  expect(await query(thaw.pool, "select from notifications where has_marks_left")).toEqual([]);
});

test("of a mail that is being sent", { timeout: 60_000 }, async ({ thaw, psql }) => {
  await sealed(thaw, 10);
  await thaw.pool.query("update notifications set created_at = now() + interval '5 minutes'");
  await lockOne(psql);
  await bobHears(thaw);
  await waitFor(
    "Jane's mail to count as sent",
    async () =>
      (await one(thaw.pool, "select status::text from notifications where lower(email) = $1", [JANE_MAIL]))[
        "status"
      ] === "sent",
    12_000,
  );
  expect(thaw.resend.requests).toHaveLength(2);
  await psql.query("rollback");
  await runNotify(thaw.pool);
  expect(await marked(thaw.pool)).toBe(10);
});

test("of a mail that grew old", { timeout: 60_000 }, async ({ thaw, psql }) => {
  await sealed(thaw, 10);
  await thaw.pool.query("update notifications set created_at = now() - interval '1 hour'");
  await lockOne(psql);
  await bobHears(thaw);
  // Half of hers must not go out.
  expect(thaw.resend.mails).toHaveLength(1);

  await psql.query("rollback");
  await runNotify(thaw.pool);
  await waitFor("Jane's mail", async () => thaw.resend.mails.length === 2);
  expect(thaw.resend.mails[1]?.subject).toContain("Your 10 files are ready");
});

test("which nobody keeps: all are marked with the mail, and no job waits to go on", async ({ thaw }) => {
  const id = await sealed(thaw, 3);
  await thaw.pool.query("delete from graphile_worker._private_jobs");
  expect(await one(thaw.pool, "select mark_notification_sent($1, 'resend id') as more", [id])).toEqual({
    more: false,
  });
  expect(await marked(thaw.pool)).toBe(3);
  expect(await query(thaw.pool, "select from notifications where has_marks_left")).toEqual([]);
  expect(await query(thaw.pool, "select from graphile_worker.jobs")).toEqual([]);
});
