/** /metrics against rows, the alert rules against Prometheus' own judge, and both files against what is really served. */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import type { Hono } from "hono";
import { Client, type Pool } from "pg";
import { describe, expect } from "vitest";
import { stringify } from "yaml";

import { createLog } from "../../server/log.ts";
import { expose } from "../../server/pages/exposition.ts";
import { createReader } from "../../server/pages/figures.ts";
import { metricsRoutes } from "../../server/pages/metrics.ts";
import { createPool } from "../../server/postgres/pool.ts";
import { addOpen, costOf } from "../bench/figures/history.ts";
import { acceptAdmitted, GIB, limit, policy, readFiles } from "../support/cost.ts";
import { ALERTS, judge, minutesOf, RULES, seriesOf } from "../support/alerts.ts";
import { newPool, test as base, waitFor } from "../support/database.ts";
import { MISSING_PROMTOOL, promtool } from "../support/promtool.ts";
import { ROOT } from "../support/root.ts";
import {
  ago,
  ahead,
  insertNotification,
  insertRead,
  insertRequest,
  insertRestore,
  JOHN,
  one,
  query,
  read,
  type Row,
  WAITS,
} from "../support/rows.ts";
import { startTcpProxy } from "../support/tcp_proxy.ts";

const TOKEN = "a-token-for-prometheus-of-32-characters";
const DASHBOARD = join(ROOT, "server/pages/dashboard.json");

const appOn = (pool: Pool, token?: string): Hono => metricsRoutes({ pool, token, log: createLog("silent") });

/** By an app of its own, so that nothing is remembered. */
async function scrape(pool: Pool, app = appOn(pool)): Promise<string> {
  const response = await app.request("/metrics");
  expect(response.status).toBe(200);
  return response.text();
}

/** What can be asked for: a histogram is three names. */
function namesIn(text: string): Set<string> {
  const names = [...text.matchAll(/^# TYPE (\w+) (\w+)$/gm)].flatMap(([, name = "", type]) =>
    type === "histogram" ? ["_bucket", "_sum", "_count"].map((part) => `${name}${part}`) : [name],
  );
  return new Set(names);
}

/** A worker lives, and its tasks have done their work. */
const test = base.extend<{ healthy: Pool; endWorker: () => Promise<void> }>({
  endWorker: async ({ databaseUrl }, use) => {
    const pool = newPool(databaseUrl);
    const client = await pool.connect();
    await client.query("select enter_worker('lives')");
    await client.query(
      `select note_task_run(t) from unnest(array['resolve_users', 'trigger_restores', 'poll_pending_restores', 'pre_notify', 'post_notify']) t`,
    );
    let ended = false;
    const end = async (): Promise<void> => {
      if (!ended) client.release(true);
      ended = true;
    };
    await use(end);
    await end();
    await pool.end();
  },
  healthy: async ({ pool, endWorker }, use) => {
    expect(endWorker).toBeDefined();
    await use(pool);
  },
});

/** pending -> restored, as the worker does it, after so long. */
async function restore(
  pool: Pool,
  key: string,
  more: { created_at?: Date; event?: boolean; storage_class?: string } = {},
): Promise<Row> {
  const row = await insertRestore(pool, "pending", {
    s3_key: key,
    created_at: more.created_at ?? ago("1 hours"),
    tier: "Standard",
    size_bytes: 1000,
    storage_class: more.storage_class ?? "GLACIER",
  });
  if (more.event === true)
    await pool.query("select * from complete_restores($1, $2)", [
      JSON.stringify([{ id: randomUUID(), s3_bucket: row["s3_bucket"], s3_key: key }]),
      WAITS,
    ]);
  await pool.query(
    "update restores set status = 'restored', status_at = now(), head_wanted_at = null, restore_expires_at = $2 where id = $1",
    [row["id"], ahead("7 days")],
  );
  return row;
}

async function restoreMany(pool: Pool, count: number): Promise<void> {
  for (let n = 0; n < count; n++) await restore(pool, `lost/${n}`);
}

describe("a scrape", () => {
  test("counts what happened, exactly", async ({ healthy: pool }) => {
    await read(pool, { s3_key: "new.bin" });
    await restore(pool, "a.bin", { created_at: ago("90 minutes") });
    await restore(pool, "b.bin", { created_at: ago("90 minutes"), event: true });
    await restore(pool, "c.bin", { created_at: ago("50 hours") });
    await pool.query(
      "update restores set status = 'failed', failure_code = 'gone', failure_message = 'Gone.' where s3_key = 'new.bin'",
    );
    const mail = await insertNotification(pool);
    await pool.query("update notifications set status = 'sent', sent_at = now() where id = $1", [mail["id"]]);

    const series = seriesOf(await scrape(pool));
    const glacier = 'storage_class="GLACIER",tier="Standard"';
    const of = (name: string): number | undefined => series.get(name);
    expect(of("thaw_restores_opened_total")).toBe(4);
    expect(of('thaw_restores_total{result="restored",tier="Standard"}')).toBe(3);
    expect(of('thaw_restores_total{result="failed",tier=""}')).toBe(1);
    expect(of('thaw_restores_total{result="failed",tier="Bulk"}')).toBe(0);
    expect(of("thaw_restore_bytes_total")).toBe(3000);
    expect(of("thaw_completion_events_total")).toBe(1);
    expect(of("thaw_completions_lost_total")).toBe(2);
    expect(of("thaw_false_ready_total")).toBe(0);
    expect(of("thaw_duplicate_announcements_total")).toBe(0);
    expect(of('thaw_mails_total{kind="post",status="sent"}')).toBe(1);
    expect(of(`thaw_read_to_readable_seconds_bucket{${glacier},le="3600"}`)).toBe(0);
    expect(of(`thaw_read_to_readable_seconds_bucket{${glacier},le="7200"}`)).toBe(2);
    expect(of(`thaw_read_to_readable_seconds_bucket{${glacier},le="172800"}`)).toBe(2);
    expect(of(`thaw_read_to_readable_seconds_bucket{${glacier},le="+Inf"}`)).toBe(3);
    expect(of(`thaw_read_to_readable_seconds_count{${glacier}}`)).toBe(3);
    const seconds = 2 * 5400 + 50 * 3600;
    expect(of(`thaw_read_to_readable_seconds_sum{${glacier}}`)).toBeGreaterThanOrEqual(seconds);
    expect(of(`thaw_read_to_readable_seconds_sum{${glacier}}`)).toBeLessThan(seconds + 30);
    // This mail told of no file.
    expect(of("thaw_ready_to_mail_seconds_count")).toBe(0);
    expect(of('thaw_restores_open{state="restored"}')).toBe(3);
    expect(of('thaw_restores_open{state="failed"}')).toBe(1);
    expect(of("thaw_workers_alive")).toBe(1);
    expect(of("thaw_database_up")).toBe(1);
  });

  test("has the time from ready to mail of the oldest file of each mail", async ({ healthy: pool }) => {
    const mail = await insertNotification(pool);
    for (const [key, at] of [
      ["old", "40 minutes"],
      ["new", "1 minutes"],
    ] as const) {
      await insertRead(pool, "restored", {
        restore: { s3_key: key, status_at: ago(at) },
        request: { post_notification_id: mail["id"] },
      });
    }
    await pool.query("update notifications set status = 'sent', sent_at = now() where id = $1", [mail["id"]]);

    const series = seriesOf(await scrape(pool));
    expect(series.get('thaw_ready_to_mail_seconds_bucket{le="1800"}')).toBe(0);
    expect(series.get('thaw_ready_to_mail_seconds_bucket{le="3600"}')).toBe(1);
    expect(series.get("thaw_ready_to_mail_seconds_sum")).toBeGreaterThanOrEqual(2400);
  });

  test("has no such time of a mail of which an operator says that it was sent: nobody knows when", async ({
    healthy: pool,
  }) => {
    const mail = await insertNotification(pool, { status: "unknown", failure_message: "no answer" });
    await insertRead(pool, "restored", {
      restore: { status_at: ago("3 days") },
      request: { post_notification_id: mail["id"] },
    });
    await pool.query("select resolve_notification($1, true)", [mail["id"]]);

    const series = seriesOf(await scrape(pool));
    expect(series.get('thaw_mails_total{kind="post",status="sent"}')).toBe(1);
    expect(series.get("thaw_ready_to_mail_seconds_count")).toBe(0);
  });

  test("puts a time into the bucket that ends with it", async ({ pool }) => {
    const { found } = await one(
      pool,
      "select array(select bucket_of(s) from unnest(array[-1, 0, 60, 60.001, 300, 172800, 172801]::double precision[]) s) as found",
    );
    expect(found).toEqual([60, 60, 60, 300, 300, 172_800, Infinity]);
  });

  test("says how old the oldest is, also of what S3 refuses", async ({ healthy: pool }) => {
    for (let n = 0; n < 200; n++)
      await insertRestore(pool, "not_started", { s3_key: `n${n}`, status_at: ago("10 minutes") });
    await insertRestore(pool, "not_started", {
      s3_key: "refused",
      status_at: ago("20 hours"),
      attempt_after: ahead("1 hours"),
      failing_since: ago("19 hours"),
      failure_code: "AccessDenied",
      failure_message: "No.",
    });
    await insertRead(pool, "pending", {
      restore: { s3_key: "p", accepted_at: ago("30 hours") },
      request: { requested_at: ago("30 hours") },
    });
    await insertNotification(pool, { created_at: ago("2 hours"), attempt_after: ahead("1 hours") });

    const series = seriesOf(await scrape(pool));
    const near = (name: string, seconds: number): void => {
      expect.soft(series.get(name), name).toBeGreaterThan(seconds - 5);
      expect.soft(series.get(name), name).toBeLessThan(seconds + 60);
    };
    near('thaw_oldest_waiting_seconds{state="not_started"}', 20 * 3600);
    near('thaw_oldest_waiting_seconds{state="pending"}', 30 * 3600);
    near('thaw_mail_oldest_due_seconds{kind="pre"}', 3600);
    near('thaw_mail_oldest_due_seconds{kind="post"}', 7200);
    expect(series.get('thaw_requests_untold{kind="pre"}')).toBe(1);
    expect(series.get('thaw_mails{status="sealed"}')).toBe(1);
    expect(series.get('thaw_restores_open{state="not_started"}')).toBe(201);
  });

  test("is the same from two processes", async ({ healthy: pool }) => {
    await restoreMany(pool, 3);
    await read(pool, { s3_key: "waits" });
    const [first, second] = await Promise.all([scrape(pool), scrape(pool)]);
    const AGES = /^thaw_(oldest_\w+|mail_oldest_due)_seconds/;
    const figures = (text: string): string[] => text.split("\n").filter((line) => !AGES.test(line));
    expect(figures(first).length).toBeGreaterThan(100);
    expect(figures(second)).toEqual(figures(first));
  });

  test("asks the database once for all who come within ten seconds", async ({ healthy: pool }) => {
    let asked = 0;
    pool.on("acquire", () => asked++);
    const app = appOn(pool);
    const texts = await Promise.all(Array.from({ length: 20 }, () => scrape(pool, app)));
    texts.push(await scrape(pool, app));
    expect(new Set(texts).size).toBe(1);
    expect(asked).toBe(1);
  });

  test("escapes what S3 says", async ({ healthy: pool }) => {
    await restore(pool, "a", { storage_class: 'A"B\\C\nD' });
    const text = await scrape(pool);
    expect(text).toContain(
      String.raw`thaw_read_to_readable_seconds_count{storage_class="A\"B\\C\nD",tier="Standard"} 1`,
    );
    expect(seriesOf(text).size).toBeGreaterThan(50);
  });

  test("names no person, key, bucket or file", async ({ healthy: pool }) => {
    await insertRead(pool, "failed", {
      restore: { s3_bucket: "secret-bucket", s3_key: "secret-key" },
      request: { email: "secret@example.com", access_key_id: "AKIASECRET" },
    });
    expect(await scrape(pool)).not.toMatch(/secret/i);
  });

  test("says what waits for approval, how much of limits is used, and what restores cost, without a name", async ({
    healthy: pool,
  }) => {
    await limit(pool, { scope: "person", max_objects: 4 });
    await limit(pool, {
      scope: "prefix",
      per: "month",
      s3_bucket: "films",
      key_prefix: "secret/",
      max_bytes: 8 * GIB,
    });
    await policy(pool, "observe", { s3_bucket: "cold" });
    await policy(pool, "ignore", { s3_bucket: "logs", principal: "jane.secret@example.com" });
    await policy(pool, "ignore", { s3_bucket: "secret-logs" });
    await readFiles(pool, 2, { s3_bucket: "cold" });
    await readFiles(pool, 1, { s3_bucket: "secret-logs" });
    await readFiles(pool, 2, {
      s3_bucket: "films",
      s3_key: "secret/a",
      principal: "arn:aws:iam::123456789012:user/secret",
    });
    await readFiles(pool, 10);
    await acceptAdmitted(pool);
    await query(pool, "update holds set opened_at = now() - interval '90 minutes'");

    const text = await scrape(pool);
    const series = seriesOf(text);
    const of = (name: string): number | undefined => series.get(name);
    expect(of("thaw_holds_open")).toBe(1);
    expect(of("thaw_held_objects")).toBe(6);
    expect(of("thaw_hold_oldest_seconds")).toBeGreaterThanOrEqual(5400);
    expect(of("thaw_hold_oldest_seconds")).toBeLessThan(5460);
    expect(of('thaw_restores_open{state="held"}')).toBe(6);
    expect(of('thaw_restores_open{state="not_started"}')).toBe(0);
    expect(of('thaw_oldest_waiting_seconds{state="not_started"}')).toBe(0);
    expect(of('thaw_limit_used_ratio{limit="1",per="day",scope="person"}')).toBe(1);
    expect(of('thaw_limit_used_ratio{limit="2",per="month",scope="prefix"}')).toBe(0.125);
    const each = 0.00005 + 0.01 + (0.023 * 7) / 30;
    expect(
      of('thaw_estimated_cost_dollars_total{observed="false",storage_class="GLACIER",tier="Standard"}'),
    ).toBeCloseTo(5 * each, 9);
    expect(
      of('thaw_estimated_cost_dollars_total{observed="true",storage_class="GLACIER",tier="Standard"}'),
    ).toBeCloseTo(2 * each, 9);
    expect(
      of('thaw_estimated_cost_dollars_total{observed="true",storage_class="DEEP_ARCHIVE",tier="Bulk"}'),
    ).toBe(0);
    expect(of('thaw_restores_total{result="observed",tier="Standard"}')).toBe(2);
    expect(of('thaw_restores_total{result="failed",tier="Standard"}')).toBe(0);
    expect(of("thaw_reads_ignored_total")).toBe(1);
    expect(of('thaw_findings{finding="holds_open"}')).toBe(1);
    expect(text).not.toMatch(/secret|scanner/);
  });

  test("needs what operators may read, and no table", async ({ healthy: pool }) => {
    const role = `reads_${randomUUID().replaceAll("-", "")}`;
    await pool.query(`create role ${role}; grant select on gauges, hourly_totals, stuck_requests to ${role};
      grant execute on function is_untold_pre, is_untold_post, old_transactions to ${role};
      grant usage on schema graphile_worker to ${role}; grant select on graphile_worker.jobs to ${role}`);
    const client = await pool.connect();
    try {
      await client.query(`set role ${role}`);
      await client.query("select * from gauges");
      await client.query("select time_buckets(), h.* from hourly_totals h");
      await expect(client.query("select from restores")).rejects.toThrow(/permission denied/);
    } finally {
      await client.query("reset role");
      client.release();
      await pool.query(`drop owned by ${role}; drop role ${role}`);
    }
  });

  test("pleases promtool", async ({ healthy: pool, skip }) => {
    skip(MISSING_PROMTOOL.length > 0, MISSING_PROMTOOL[0]);
    await restoreMany(pool, 3);
    expect(promtool(["check", "metrics"], {}, await scrape(pool))).toEqual({ status: 0, output: "" });
  });
});

describe("a token", () => {
  test("is asked for when it is set, and compared whole", async ({ pool }) => {
    const app = appOn(pool, TOKEN);
    const ask = (authorization?: string) =>
      app.request("/metrics", authorization === undefined ? {} : { headers: { authorization } });
    for (const wrong of [
      undefined,
      "",
      TOKEN,
      "Bearer",
      "Bearer ",
      `Bearer ${TOKEN}x`,
      `Bearer ${TOKEN.slice(0, -1)}`,
      `Basic ${TOKEN}`,
      "Bearer é",
    ]) {
      const response = await ask(wrong);
      expect(response.status, wrong).toBe(401);
      expect(await response.text()).toBe("unauthorized\n");
    }
    expect((await ask(`Bearer ${TOKEN}`)).status).toBe(200);
    expect((await app.request("/metrics", { method: "HEAD" })).status).toBe(401);
  });

  test("is not needed when none is set", async ({ pool }) => {
    const response = await appOn(pool).request("/metrics");
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(response.headers.get("cache-control")).toBe("no-store");
  });
});

describe("while Postgres is away", () => {
  const AWAY = ["thaw_database_up"];

  const expectAway = async (pool: Pool): Promise<void> => {
    const started = performance.now();
    const series = seriesOf(await scrape(pool));
    expect(performance.now() - started).toBeLessThan(2_500);
    // Nothing that may be out of date.
    expect([...series.keys()].filter((name) => !name.startsWith("thaw_build_info"))).toEqual(AWAY);
    expect(series.get("thaw_database_up")).toBe(0);
  };

  test.for(["freeze", "mute", "forget"] as const)(
    "a scrape says so within 2.5 seconds, and it comes back (%s)",
    async (how, { databaseUrl }) => {
      await using proxy = await startTcpProxy(databaseUrl);
      const pool = createPool(
        proxy.url,
        { name: "pages", max: 2, query_timeout_ms: 3_000 },
        createLog("silent"),
      );
      expect(seriesOf(await scrape(pool)).get("thaw_database_up")).toBe(1);
      proxy[how]();
      await expectAway(pool);
      proxy.melt();
      await waitFor("figures", async () => seriesOf(await scrape(pool)).get("thaw_database_up") === 1);
      await pool.end();
    },
  );

  test("a port where nothing listens is told at once", async () => {
    const pool = createPool(
      "postgres://thaw@127.0.0.1:1/thaw",
      { name: "pages", max: 1, query_timeout_ms: 3_000 },
      createLog("silent"),
    );
    await expectAway(pool);
    await pool.end();
  });

  test("a query that takes too long is given up, and its connection with it", async ({
    databaseUrl,
    pool,
  }) => {
    const pages = createPool(
      databaseUrl,
      { name: "pages", max: 1, query_timeout_ms: 10_000 },
      createLog("silent"),
    );
    const blocker = new Client({ connectionString: databaseUrl });
    blocker.on("error", () => undefined);
    await blocker.connect();
    await blocker.query("begin; lock table mail_gate in access exclusive mode");
    await expectAway(pages);
    await waitFor("the end of the query", async () => {
      const { rowCount } = await pool.query(
        "select from pg_stat_activity where application_name = 'pages' and state <> 'idle'",
      );
      return rowCount === 0;
    });
    await blocker.end();
    expect(seriesOf(await scrape(pages)).get("thaw_database_up")).toBe(1);
    await pages.end();
  });
});

describe("what is counted", () => {
  const counted = (series: Map<string, number>): [string, number][] =>
    [...series].filter(([name]) => /_(total|bucket|sum|count)(\{|$)/.test(name)).toSorted();

  test("survives retention, and being added up by hour and by day", async ({ healthy: pool }) => {
    const reader = createReader(pool);
    const figures = async (): Promise<[string, number][]> =>
      counted(seriesOf(await expose(await reader(), {})));
    for (let n = 0; n < 6; n++) await restore(pool, `r${n}`);
    await query(
      pool,
      "update restores set status_at = now() - interval '100 days', restore_expires_at = now() - interval '50 days'",
    );
    await query(pool, "update restores set closed_at = now() - interval '50 days'");
    // As if half of it had happened long ago, in two hours of one day, and a part three days ago.
    await query(
      pool,
      "update totals set hour = date_trunc('day', now(), 'UTC') - interval '40 days' + (id % 2) * interval '5 hours' where id % 3 = 0",
    );
    await query(
      pool,
      "update totals set hour = date_trunc('hour', now(), 'UTC') - interval '80 hours' where id % 3 = 1",
    );
    const rows = async (): Promise<number> =>
      Number((await one(pool, "select count(*) as n from totals"))["n"]);
    const [before, before_rows] = [await figures(), await rows()];
    expect(before.filter(([, value]) => value > 0).length).toBeGreaterThan(10);

    const { saved } = await one(pool, "select add_totals_up() as saved");
    expect(saved).toBeGreaterThan(3);
    expect(await rows()).toBe(before_rows - saved);
    expect((await one(pool, "select add_totals_up() as saved"))["saved"]).toBe(0);
    const days = await query(
      pool,
      "select distinct date_trunc('day', hour, 'UTC') <> hour as is_hour from totals where hour < now() - interval '39 days' and metric = 'reads_opened'",
    );
    expect(days.length).toBeLessThanOrEqual(1);
    expect((await one(pool, "select forget_old_restores('30 days', 100) as n"))["n"]).toBe(6);
    expect(await query(pool, "select from restores")).toEqual([]);
    expect(await query(pool, "select from restore_history")).toEqual([]);

    // By the process that remembers the sums of old hours, and by one that does not.
    expect(await figures()).toEqual(before);
    expect(counted(seriesOf(await scrape(pool)))).toEqual(before);
  });

  test("goes on where it was", async ({ healthy: pool }) => {
    const reader = createReader(pool);
    const accepted = async (): Promise<number | undefined> =>
      seriesOf(await expose(await reader(), {})).get("thaw_restores_opened_total");
    await read(pool, { s3_key: "a" });
    expect(await accepted()).toBe(1);
    await query(pool, "update totals set hour = hour - interval '10 days'");
    await read(pool, { s3_key: "b" });
    // Another process has not read the old hours yet.
    expect(seriesOf(await scrape(pool)).get("thaw_restores_opened_total")).toBe(2);
    await query(pool, "select add_totals_up()");
    expect(seriesOf(await scrape(pool)).get("thaw_restores_opened_total")).toBe(2);
  });

  test("is one for the mail that tells a person twice of one file", async ({ healthy: pool }) => {
    await toldTwice(pool);
    expect(seriesOf(await scrape(pool)).get("thaw_duplicate_announcements_total")).toBe(1);
  });

  test("is none for a mail that an operator sends again", async ({ healthy: pool }) => {
    const mail = await insertNotification(pool);
    const { restore: of } = await insertRead(pool, "restored", {
      request: { post_notification_id: mail["id"] },
    });
    await pool.query("insert into announcements values ($1, 'post', 'jane@example.com', $2)", [
      of["id"],
      mail["id"],
    ]);
    await pool.query("update notifications set status = 'sent', sent_at = now()");
    const { again } = await one(pool, "select resend_notification($1) as again", [mail["id"]]);
    await pool.query("update notifications set status = 'sent', sent_at = now() where id = $1", [again]);
    const series = seriesOf(await scrape(pool));
    expect(series.get('thaw_mails_total{kind="post",status="sent"}')).toBe(2);
    expect(series.get("thaw_duplicate_announcements_total")).toBe(0);
  });
});

/** Two keys of Jane's read one file, and somebody attached the second to a mail of its own. */
async function toldTwice(pool: Pool): Promise<void> {
  const [first, second] = [
    await insertNotification(pool, { status: "sent", sent_at: ago("5 minutes") }),
    await insertNotification(pool),
  ];
  const { restore: of } = await insertRead(pool, "restored", {
    restore: { status_at: ago("10 minutes") },
    request: { post_notification_id: first["id"], post_notified: true },
  });
  await pool.query("insert into announcements values ($1, 'post', 'jane@example.com', $2)", [
    of["id"],
    first["id"],
  ]);
  await insertRequest(pool, of, { access_key_id: JOHN, post_notification_id: second["id"] });
  await pool.query("update notifications set status = 'sent', sent_at = now() where id = $1", [second["id"]]);
}

describe("its cost", () => {
  test(
    "does not grow with what is open, nor with what is over",
    { timeout: 120_000 },
    async ({ healthy: pool }) => {
      for (const table of ["restores", "restore_requests"])
        await pool.query(`alter table ${table} set (autovacuum_enabled = off)`);
      const cost = async () => {
        const client = await pool.connect();
        await client.query("set enable_seqscan = off; set jit = off");
        const found = await costOf(client, "select * from gauges");
        client.release(true);
        return found;
      };
      // Statistics of empty tables.
      await pool.query("vacuum analyze");
      // More of each state than are counted.
      await addOpen(pool, 48_000, false);
      await insertClosed(pool, 1_000);
      const few = await cost();
      await pool.query("truncate restores, restore_requests cascade");
      await addOpen(pool, 96_000, false);
      await insertClosed(pool, 60_000);
      const many = [await cost()];
      await pool.query("vacuum analyze");
      many.push(await cost());
      console.log(
        `buffers of a scrape: ${few.buffers}; more open and closed: ${many.map(({ buffers }) => buffers).join()}`,
      );
      // Of jobs there are a handful, whatever waits.
      for (const { scanned } of [few, ...many])
        expect.soft(scanned.filter((table) => table !== "_private_jobs")).toEqual([]);
      // Six counts of 10,000 at most. Before a vacuum each looks at its rows as well.
      expect(many[0]?.buffers).toBeLessThan(20_000);
      expect(many[1]?.buffers).toBeLessThan(1_000);
    },
  );

  const insertClosed = (pool: Pool, count: number) =>
    pool.query(
      `with n as (select n, gen_random_uuid() as restore, now() - interval '30 days' as at from generate_series(1, $1::int) n),
       r as (insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, pinned_version_id, restore_expires_at, closed_at, created_at)
             select restore, 'bench', 'old' || n, 'restored', at, at, '', at + interval '7 days', at + interval '7 days', at from n)
       insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, user_resolved, restore_status, status_at, requested_at, last_read_at)
       select gen_random_uuid(), restore, 'bench', 'old' || n, 'AKIA' || n % 5000, true, 'restored', at, at, at from n`,
      [count],
    );
});

interface Panel {
  title: string;
  description: string;
  datasource: { uid: string };
  targets: { expr: string; datasource: { uid: string } }[];
}

const dashboard = JSON.parse(readFileSync(DASHBOARD, "utf8")) as {
  id: null;
  uid: string;
  templating: { list: { name: string; type: string; query: string }[] };
  panels: Panel[];
};

const expressions = [
  ...RULES.map(({ expr }) => expr),
  ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
];

const metricsIn = (expr: string): string[] => [...expr.matchAll(/\bthaw_\w+/g)].map(([name]) => name);

describe("the rules and the dashboard", () => {
  test("name only metrics that are served, and each in one of them", async ({ healthy: pool }) => {
    // A finding and a last read, which are missing otherwise.
    await read(pool);
    await query(pool, "select close_mail_gate('1 hour', 'to look')");
    await restoreMany(pool, 1);
    await limit(pool, { max_objects: 1 });
    const text = await scrape(pool);
    const served = namesIn(text);
    const named = new Set(expressions.flatMap(metricsIn));
    expect(named.size).toBeGreaterThan(20);
    expect([...named].filter((name) => !served.has(name))).toEqual([]);
    // With rows of their own, so that a query finds something.
    const series = new Set([...seriesOf(text).keys()].map((name) => name.replace(/\{.*/s, "")));
    expect([...named].filter((name) => !series.has(name))).toEqual([]);
    const unused = [...served].filter(
      (name) => !named.has(name) && !/_(sum|count)$|^thaw_(build_info|task_last_failure_)/.test(name),
    );
    expect(unused).toEqual([]);
  });

  test("never add up what every process serves alike", () => {
    for (const expr of expressions) {
      for (const [all, by = "", inner] of expr.matchAll(/\bsum(?: by \(([^)]*)\))? \((\w+)/g))
        expect(by.includes("instance") || inner === "max", `${all} in ${expr}`).toBe(true);
      // Each metric is inside of something that takes one process's.
      expect(expr).toMatch(/\b(max|absent)\b/);
    }
  });

  test("say what is wrong and what to do", () => {
    for (const { alert, labels, annotations } of RULES) {
      expect(alert).toMatch(/^Thaw[A-Z]\w+$/);
      expect(["critical", "warning"]).toContain(labels.severity);
      expect(annotations.summary, alert).not.toBe("");
      expect(annotations.description, alert).not.toBe("");
    }
    for (const { title, description } of dashboard.panels) expect(description, title).not.toBe("");
  });

  test("have a rule for each finding", async ({ pool }) => {
    const { definition } = await one(pool, "select pg_get_viewdef('findings'::regclass) as definition");
    const findings = [...(definition as string).matchAll(/'([a-z_]+)'::text(?: AS finding)?,\s/g)].map(
      ([, name = ""]) => name,
    );
    expect(findings).toEqual(
      expect.arrayContaining(["no_worker", "mail_gate_closed", "stuck", "old_transaction"]),
    );
    const [other = ""] = /finding!~"[^"]*"/.exec(RULES.map(({ expr }) => expr).join()) ?? [];
    const others = other.slice('finding!~"'.length, -1).split("|");
    expect(others.length).toBeGreaterThanOrEqual(8);
    // What the last rule leaves out, another one names: by its finding, or by its metric.
    const METRIC_OF: Record<string, string> = {
      no_worker: "thaw_workers_alive",
      mail_gate_closed: "thaw_mail_gate_closed",
      task_late: "thaw_task_last_success_timestamp_seconds",
      old_transaction: "thaw_oldest_transaction_seconds",
      holds_open: "thaw_hold_oldest_seconds",
      limit_used: "thaw_limit_used_ratio",
    };
    for (const finding of others) {
      const needle = METRIC_OF[finding] ?? `finding="${finding}"`;
      expect(
        RULES.some(({ expr }) => expr.includes(needle)),
        finding,
      ).toBe(true);
      expect(findings, finding).toContain(finding);
    }
  });

  test("can be provisioned: no id, and the data source is a variable", () => {
    expect(dashboard.id).toBeNull();
    expect(dashboard.uid).toBe("thaw");
    expect(dashboard.templating.list).toMatchObject([
      { name: "datasource", type: "datasource", query: "prometheus" },
    ]);
    for (const { title, datasource, targets } of dashboard.panels) {
      for (const { uid } of [datasource, ...targets.map((target) => target.datasource)])
        expect(uid, title).toBe("${datasource}");
    }
  });

  test("are taken by promtool", ({ skip }) => {
    skip(MISSING_PROMTOOL.length > 0, MISSING_PROMTOOL[0]);
    const panels = dashboard.panels
      .flatMap(({ targets }) => targets)
      .map(({ expr }, index) => ({ record: `panel:${index}`, expr }));
    const files = { "panels.yml": stringify({ groups: [{ name: "panels", rules: panels }] }) };
    expect(promtool(["check", "rules", ALERTS])).toMatchObject({ status: 0 });
    expect(promtool(["check", "rules", "panels.yml"], files)).toMatchObject({
      status: 0,
      output: expect.stringContaining("rules found"),
    });
  });
});

interface Trouble {
  happens: (pool: Pool, endWorker: () => Promise<void>) => Promise<unknown>;
  /** What fires besides it: one fault can be seen from two sides. */
  also?: string[];
  /** The scrape afterwards, where it is not one of this database. */
  scrape?: (pool: Pool) => Promise<string>;
  grows?: string;
  /** Until what grows is old enough. */
  minutes?: number;
}

const noReaders = { email: null, user_resolved: true };

const TROUBLES: Record<string, Trouble> = {
  ThawNotScraped: { happens: async () => undefined, scrape: async () => "" },
  ThawDatabaseDown: {
    happens: async () => undefined,
    scrape: async () => {
      const pool = createPool(
        "postgres://thaw@127.0.0.1:1/thaw",
        { name: "pages", max: 1, query_timeout_ms: 1_000 },
        createLog("silent"),
      );
      const text = await scrape(pool);
      await pool.end();
      return text;
    },
  },
  ThawNoWorker: {
    happens: async (pool, endWorker) => {
      await endWorker();
      await waitFor(
        "the end of the worker's connection",
        async () => (await query(pool, "select from worker_status where is_alive")).length === 0,
      );
    },
  },
  ThawStuck: {
    happens: (pool) =>
      insertRead(pool, "not_started", {
        restore: { status_at: ago("20 minutes"), attempt_after: ago("20 minutes") },
        request: noReaders,
      }),
  },
  ThawRestoresWait: {
    happens: (pool) =>
      insertRead(pool, "not_started", {
        restore: { status_at: ago("2 hours"), attempt_after: ahead("1 hours") },
        request: noReaders,
      }),
  },
  ThawMailsOverdue: {
    happens: (pool) =>
      insertRead(pool, "pending", {
        restore: { status_at: ago("40 minutes") },
        request: { requested_at: ago("40 minutes") },
      }),
    also: ["ThawStuck"],
  },
  ThawMailGateClosed: {
    happens: (pool) => query(pool, "select close_mail_gate('1 hour', 'The key was revoked.')"),
    grows: "thaw_mail_gate_closed_seconds",
    minutes: 31,
  },
  ThawMailsRefused: {
    happens: (pool) => insertNotification(pool, { status: "failed", failure_message: "No such mailbox." }),
  },
  ThawTaskFails: { happens: (pool) => query(pool, "select note_task_run('pre_notify', 'It broke.')") },
  ThawTaskLate: {
    happens: (pool) =>
      query(
        pool,
        "update task_runs set succeeded_at = now() - interval '16 minutes' where task = 'post_notify'",
      ),
  },
  ThawNoReads: {
    happens: async (pool) => {
      await insertRead(pool, "closed", { request: { ...noReaders, requested_at: ago("3 days") } });
      // Three hours with a read in each, and then none.
      await query(
        pool,
        "insert into totals (hour, metric, n, last_at) select at, 'reads', 1, at from (select now() - interval '3 days' - ago * interval '1 hour' as at from generate_series(0, 2) ago) h",
      );
    },
  },
  ThawNoEvents: {
    happens: async (pool) => {
      await restoreMany(pool, 3);
      // Until then the events may only be late.
      await query(
        pool,
        "update totals set last_at = last_at - interval '16 minutes' where metric = 'completions_lost'",
      );
    },
  },
  ThawEventsLost: {
    happens: async (pool) => {
      await restoreMany(pool, 12);
      await restore(pool, "told", { event: true });
    },
  },
  ThawFalseReady: {
    happens: async (pool) => {
      const { id } = await restore(pool, "gone", { event: true });
      await query(pool, "update restores set closed_at = now() where id = $1", [id]);
    },
  },
  ThawToldTwice: { happens: toldTwice },
  ThawOldTransaction: {
    happens: async (pool) => {
      // No pool waits for its end: the database is dropped under it.
      const client = new Client({ connectionString: pool.options.connectionString });
      client.on("error", () => undefined);
      await client.connect();
      await client.query("begin");
      await client.query("select pg_current_xact_id()");
      await waitFor(
        "some age",
        async () => (seriesOf(await scrape(pool)).get("thaw_oldest_transaction_seconds") ?? 0) > 0.2,
      );
    },
    grows: "thaw_oldest_transaction_seconds",
    minutes: 61,
  },
  ThawHoldWaits: {
    happens: (pool) =>
      query(
        pool,
        "insert into holds (person, reason, objects, opened_at) values ('jane@example.com', 'beyond a limit', 3, now() - interval '2 hours')",
      ),
  },
  ThawLimitNearlyUsed: {
    happens: async (pool) => {
      await limit(pool, { scope: "person", max_objects: 5 });
      await readFiles(pool, 4);
      await acceptAdmitted(pool);
    },
  },
  ThawNeedsSomebody: {
    happens: async (pool) => {
      const { definition } = await one(pool, "select pg_get_viewdef('findings'::regclass) as definition");
      await query(
        pool,
        `create or replace view findings as ${(definition as string).replace(/;\s*$/, "").replace(/ORDER BY [^)]*$/, "")}
        union all select 99, 'not_known_yet', 'Something else is wrong.', now(), 1, 'Look at it.'`,
      );
    },
  },
};

describe("an alert fires", () => {
  test("never while all is well", async ({ healthy: pool, skip }) => {
    skip(MISSING_PROMTOOL.length > 0, MISSING_PROMTOOL[0]);
    await read(pool);
    await restore(pool, "a", { event: true });
    const text = await scrape(pool);
    for (const minutes of [1, 10, 90]) judge(text, text, minutes, [], Date.now() / 1000);
  });

  test("and there is a trouble here for each", () => {
    expect(Object.keys(TROUBLES).toSorted()).toEqual(RULES.map(({ alert }) => alert).toSorted());
  });

  test.for(Object.keys(TROUBLES))(
    "%s, on rows that have that trouble, and not before its time",
    async (alert, { healthy: pool, endWorker, skip }) => {
      skip(MISSING_PROMTOOL.length > 0, MISSING_PROMTOOL[0]);
      const { happens, also = [], grows, minutes = 0, ...trouble } = TROUBLES[alert] as Trouble;
      const before = await scrape(pool);
      await happens(pool, endWorker);
      const scraped_at = Date.now() / 1000;
      const after = await (trouble.scrape ?? scrape)(pool);
      const rule = RULES.find((known) => known.alert === alert);
      const until = minutes + minutesOf(rule);
      judge(before, after, until, [alert, ...also].toSorted(), scraped_at, grows);
      if (until > 2) judge(before, after, until - 4, [], scraped_at, grows);
    },
  );
});
