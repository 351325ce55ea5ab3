/** Mails of very many files are written, marked and taken apart in pages: nobody waits for them, and a crash between two loses nothing. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { startApi } from "../support/api.ts";
import { test as base, waitFor } from "../support/database.ts";
import { givenFiles, quiet, runNotify } from "../support/given_files.ts";
import { one, query } from "../support/rows.ts";
import { JANE, requestBody, startThaw, startWithSmallPages, type Thaw } from "../support/thaw.ts";

const JANE_MAIL = "jane@example.com";

/** No worker yet; pages of four. */
const test = base.extend<{ thaw: Thaw }>({
  thaw: async ({ databaseUrl }, use) => {
    const thaw = await startWithSmallPages(databaseUrl);
    await use(thaw);
    await thaw.stop();
    expect(thaw.lambdaErrors).toEqual([]);
  },
});

const files = (count: number, prefix = "file"): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}-${String(index).padStart(5, "0")}.bin`);

/** The first page of Jane's mail, as a worker writes it that dies then. */
async function begun(pool: Pool, more: Record<string, string> = {}): Promise<string> {
  const id = randomUUID();
  const client = await pool.connect();
  await client.query("begin");
  const page = await one(client, "select * from seal_page($1, 'post', $2, '0', '0')", [id, JANE_MAIL]);
  expect(page).toEqual({ announced: 4, is_full: true });
  await client.query("insert into notifications (id, kind, email) values ($1, 'post', $2)", [id, JANE_MAIL]);
  await client.query("commit");
  client.release();
  if (more["age"] !== undefined)
    await pool.query("update notifications set created_at = now() - $1::interval", [more["age"]]);
  return id;
}

const subjects = (thaw: Thaw): string[] => thaw.resend.mails.map((mail) => mail.subject);

/** Whoever was told, by how many mails. */
const told = (pool: Pool) =>
  one(
    pool,
    `select count(*)::int as requests, count(*) filter (where post_notified)::int as told,
            count(distinct post_notification_id)::int as mails from restore_requests`,
  );

describe("a mail of more files than a page", () => {
  test("is one mail, and all its readers are marked", async ({ thaw }) => {
    await givenFiles(thaw.pool, { email: JANE_MAIL, keys: files(22), status: "restored" });
    await givenFiles(thaw.pool, {
      email: JANE_MAIL,
      keys: files(22),
      status: "restored",
      access_key_id: "AKIASECOND",
    });
    await thaw.startWorker();
    await runNotify(thaw.pool);

    expect(subjects(thaw)).toEqual([expect.stringContaining("Your 22 files are ready")]);
    expect(await told(thaw.pool)).toEqual({ requests: 44, told: 44, mails: 1 });
    expect(await query(thaw.pool, "select from notifications where has_marks_left or body is null")).toEqual(
      [],
    );
  });

  test("whose worker dies between two pages is finished by the next, with what was due then", async ({
    thaw,
  }) => {
    await givenFiles(thaw.pool, { email: JANE_MAIL, keys: files(10), status: "restored" });
    const id = await begun(thaw.pool);
    // Nobody else begins a second one meanwhile, and nobody sends half of one.
    expect(await query(thaw.pool, "select due_people('post', '0', '0', 10)")).toEqual([]);
    expect(await query(thaw.pool, "select from claim_notifications('post', 10)")).toEqual([]);
    await thaw.startWorker();
    await runNotify(thaw.pool);
    expect(thaw.resend.requests).toEqual([]);

    await thaw.pool.query("update notifications set created_at = now() - interval '2 minutes'");
    await runNotify(thaw.pool);

    expect(subjects(thaw)).toEqual([expect.stringContaining("Your 10 files are ready")]);
    expect(thaw.resend.mails[0]?.idempotency_key).toBe(`thaw/${id}`);
    expect(await told(thaw.pool)).toEqual({ requests: 10, told: 10, mails: 1 });
  });

  test("leaves what comes while it is written to the next mail", async ({ thaw }) => {
    await givenFiles(thaw.pool, { email: JANE_MAIL, keys: files(10), status: "restored" });
    await begun(thaw.pool, { age: "2 minutes" });
    await givenFiles(thaw.pool, {
      email: JANE_MAIL,
      keys: files(3, "news"),
      status: "restored",
      age: "1 minute",
    });
    await thaw.startWorker();
    await runNotify(thaw.pool);
    await waitFor("both mails", async () => thaw.resend.mails.length === 2);

    expect(subjects(thaw)).toEqual([
      "10 of your 13 files are ready",
      expect.stringContaining("Your 3 files are ready"),
    ]);
  });

  test("gets one body, and only one that tells of all that is attached", async ({ thaw }) => {
    await givenFiles(thaw.pool, { email: JANE_MAIL, keys: files(8), status: "restored" });
    const id = await begun(thaw.pool);
    const freeze = async (body: string, count: number) =>
      (
        await one(thaw.pool, "select freeze_notification($1, $2, $3, $4) as frozen", [
          id,
          JANE_MAIL,
          body,
          count,
        ])
      )["frozen"] as boolean;
    expect(await freeze("{}", 3)).toBe(false);
    expect(await one(thaw.pool, "select seal_more($1) as attached", [id])).toEqual({ attached: 4 });
    expect(await freeze("{}", 4)).toBe(false);
    expect(await freeze('{"first":true}', 8)).toBe(true);
    expect(await freeze('{"second":true}', 8)).toBe(false);
    expect(await one(thaw.pool, "select seal_more($1) as attached", [id])).toEqual({ attached: 0 });
    expect(await one(thaw.pool, "select body from notifications")).toEqual({ body: '{"first":true}' });
  });

  test("is taken apart page by page when it was never finished, and told anew", async ({ thaw }) => {
    await givenFiles(thaw.pool, { email: JANE_MAIL, keys: files(10), status: "restored" });
    const id = await begun(thaw.pool, { age: "11 minutes" });
    expect(await one(thaw.pool, "select seal_more($1) as attached", [id])).toEqual({ attached: 0 });
    await thaw.startWorker();
    await runNotify(thaw.pool);

    expect(subjects(thaw)).toEqual([expect.stringContaining("Your 10 files are ready")]);
    expect(thaw.resend.mails[0]?.idempotency_key).not.toBe(`thaw/${id}`);
    expect(await query(thaw.pool, "select from announcements")).toHaveLength(10);
  });

  test("that grew old is taken apart page by page, though its worker dies meanwhile", async ({ thaw }) => {
    await givenFiles(thaw.pool, { email: JANE_MAIL, keys: files(10), status: "restored" });
    await thaw.pool.query("update mail_gate set closed_until = now() + interval '1 hour'");
    const worker = await thaw.startWorker();
    await runNotify(thaw.pool);
    await worker.stop();
    await thaw.pool.query("update notifications set created_at = now() - interval '1 hour'");
    await thaw.pool.query("update mail_gate set closed_until = '-infinity'");

    expect(await one(thaw.pool, "select unseal_stale_notifications('post') as more")).toEqual({ more: 1 });
    expect(
      await query(thaw.pool, "select from restore_requests where post_notification_id is null"),
    ).toHaveLength(4);
    // Half of it must not go out, nor be told by a second mail.
    expect(await query(thaw.pool, "select from claim_notifications('post', 10)")).toEqual([]);
    expect(await query(thaw.pool, "select due_people('post', '0', '0', 10)")).toEqual([]);

    await thaw.startWorker();
    await runNotify(thaw.pool);
    expect(subjects(thaw)).toEqual([expect.stringContaining("Your 10 files are ready")]);
    expect(await told(thaw.pool)).toEqual({ requests: 10, told: 10, mails: 1 });
  });

  test("is marked to its end by the next run when its worker dies after the first page", async ({ thaw }) => {
    await givenFiles(thaw.pool, { email: JANE_MAIL, keys: files(10), status: "restored" });
    await thaw.pool.query("update mail_gate set closed_until = now() + interval '1 hour'");
    const worker = await thaw.startWorker();
    await runNotify(thaw.pool);
    await worker.stop();
    await thaw.pool.query("select mark_notification_sent(id, 'resend id') from notifications");
    expect(await told(thaw.pool)).toEqual({ requests: 10, told: 4, mails: 1 });

    await thaw.startWorker();
    await runNotify(thaw.pool);
    expect(await told(thaw.pool)).toEqual({ requests: 10, told: 10, mails: 1 });
    expect(thaw.resend.requests).toEqual([]);
  });
});

base("a look for people who are due costs the same, however many are", async ({ pool }) => {
  const add = (from: number, to: number) =>
    pool.query(
      `with r as (insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, restore_expires_at)
                  select gen_random_uuid(), 'b', 'k' || n, 'restored', now() - interval '5 hours' + n * interval '10 ms', now(), now() + interval '1 day'
                    from generate_series($1::int, $2::int) n returning *)
       insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, requested_at, last_read_at)
       select gen_random_uuid(), id, s3_bucket, s3_key, 'A', 'p' || hashtext(s3_key) % 3000 || '@example.com', true, status, status_at, now() - interval '6 hours', now() from r`,
      [from, to],
    );
  const buffers = async (): Promise<number> => {
    await pool.query("vacuum analyze restores, restore_requests");
    const client = await pool.connect();
    const costs: number[] = [];
    for (let call = 0; call < 3; call++) {
      const plan = await one(
        client,
        "explain (analyze, buffers, format json) select due_people('post', '2 minutes', '15 minutes', 50)",
      );
      const { Plan } = (plan["QUERY PLAN"] as [{ Plan: Record<string, number> }])[0];
      costs.push((Plan["Shared Hit Blocks"] ?? 0) + (Plan["Shared Read Blocks"] ?? 0));
    }
    client.release(true);
    return Math.min(...costs);
  };
  await add(1, 2_000);
  const few = await buffers();
  await add(2_001, 40_000);
  expect(await buffers()).toBeLessThan(1.5 * few);
});

base(
  "fifty thousand files of one person: no other read is refused, and hardly one of theirs",
  { timeout: 180_000 },
  async ({ databaseUrl, pool }) => {
    const FILES = 50_000;
    const thaw = await startThaw(databaseUrl, {
      worker: false,
      env: { NOTIFY_QUIET_SECONDS: "0", NOTIFY_MAX_WAIT_SECONDS: "0" },
    });
    await givenFiles(pool, { email: JANE_MAIL, keys: files(FILES), status: "restored", access_key_id: JANE });
    await pool.query("vacuum analyze");
    const api = await startApi(databaseUrl);
    const answered = { reads: [] as string[], touched: [] as string[] };
    let over = false;
    const others = (async () => {
      for (let n = 0; !over; n++) {
        const answers = await Promise.all([
          api.post("/restore/request", requestBody(`other-${n}.bin`)),
          api.post("/restore/completed", { s3_bucket: "archive", s3_key: `other-${n}.bin` }),
          // Jane reads on, also what is being told; and S3 tells of hers.
          api.post(
            "/restore/request",
            requestBody(files(FILES)[(n * 7919) % FILES] ?? "", {
              event_time: new Date(Date.now() - 7200_000).toISOString(),
            }),
          ),
        ]);
        const [read = "", event = "", hers = ""] = answers.map(({ status, body }) =>
          status === 200 ? "200" : `${status} ${JSON.stringify(body)}`,
        );
        answered.reads.push(read);
        // Rows that the worker is at this very moment.
        answered.touched.push(event, hers);
        await sleep(50);
      }
    })();
    await thaw.startWorker();
    await waitFor(
      "all to be told",
      async () => {
        const { n } = await one(pool, "select count(*)::int as n from restore_requests where post_notified");
        return (n as number) >= FILES;
      },
      150_000,
      500,
    );
    over = true;
    await others;
    await quiet(pool);

    expect(thaw.resend.mails.map((mail) => mail.subject)).toEqual([
      expect.stringContaining("Your 50,000 files are ready"),
    ]);
    expect(answered.reads.filter((answer) => answer !== "200")).toEqual([]);
    expect(answered.reads.length).toBeGreaterThan(50);
    // A page's locks last some 50 ms; on a busy machine one may outlast a caller's 300.
    const refused = answered.touched.filter((answer) => answer !== "200");
    expect(refused.length, refused.join()).toBeLessThanOrEqual(answered.touched.length / 20);
    await api.close();
    await thaw.stop();
  },
);
