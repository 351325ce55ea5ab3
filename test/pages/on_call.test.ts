/** The worst night that an operator may have, from the first screen until all is well again. */
import type { Pool } from "pg";
import { expect } from "vitest";

import { judge, RULES, seriesOf } from "../support/alerts.ts";
import { waitFor } from "../support/database.ts";
import { basic, PASSWORD } from "../support/pages.ts";
import { test } from "../support/processes.ts";
import { MISSING_PROMTOOL } from "../support/promtool.ts";
import { know, query } from "../support/rows.ts";
import { runCommand } from "../support/run_command.ts";
import { BOB, BUCKET, JANE, requestBody } from "../support/thaw.ts";

/** An operator's browser without JavaScript: it follows links, and sends the forms that it is shown. */
function browserOf(url: string) {
  const headers = { authorization: basic("Ada"), "sec-fetch-site": "same-origin" };
  const get = async (path: string): Promise<string> => {
    const response = await fetch(url + path, { headers });
    expect(response.status, path).toBe(200);
    return response.text();
  };
  return {
    get,
    /** Follows the link of that address that the page has. */
    async follow(page: string, address: RegExp): Promise<string> {
      const links = [...page.matchAll(/href="([^"]+)"/g)].map(([, to = ""]) => to.replaceAll("&amp;", "&"));
      const found = links.find((to) => address.test(to));
      expect(found, `a link to ${address} in ${links.join(" ")}`).toBeDefined();
      return get(found ?? "");
    },
    /** Sends the form of a page that says what will happen; the page that it leads to. */
    async confirm(page: string): Promise<string> {
      const [, action = ""] = /<form method="post" action="([^"]+)"/.exec(page) ?? [];
      const fields = [...page.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)"/g)];
      const response = await fetch(url + action, {
        method: "POST",
        headers,
        body: new URLSearchParams(fields.map(([, name = "", value = ""]) => [name, value])),
        redirect: "manual",
      });
      expect(response.status, action).toBe(303);
      return get(response.headers.get("location") ?? "");
    },
  };
}

const headingOf = (page: string): string => /<h1>([\s\S]*?)<\/h1>/.exec(page)?.[1] ?? "";

/** The words of each finding on the first screen. */
const cardsOf = (page: string): string[] =>
  [...page.matchAll(/<li class="finding">([\s\S]*?)<\/li>/g)].map(([, card = ""]) =>
    card.replaceAll(/<[^>]*>/g, " ").replaceAll(/\s+/g, " "),
  );

const until = (what: string, pool: Pool, condition: string): Promise<unknown> =>
  waitFor(
    what,
    async () => (await query(pool, `select (select ${condition}) as is_so`))[0]?.["is_so"] === true,
    30_000,
  );

/** What is wrong: how each place says it, and what to do. */
const TROUBLES = [
  {
    problem: "No worker is alive",
    todo: "npm run worker",
    finding: "no_worker",
    alert: "ThawNoWorker",
  },
  {
    problem: "No mail goes out: ",
    todo: "npm run thaw -- gate open",
    finding: "mail_gate_closed",
    alert: "ThawMailGateClosed",
  },
  {
    problem: "S3 refuses, or cannot be reached",
    todo: "npm run thaw -- retry ID",
    finding: "stuck",
    alert: "ThawStuck",
  },
  {
    problem: "Resend refused a mail",
    todo: "npm run thaw -- resend MAIL_ID",
    finding: "stuck",
    alert: "ThawMailsRefused",
  },
  {
    problem: `Restores of the bucket ${BUCKET} ended, and S3 sent no event of it`,
    todo: `npm run doctor -- ${BUCKET}`,
    finding: "no_events",
    alert: "ThawNoEvents",
  },
];

test(
  "a stuck restore, a refused mail, a closed gate, a dead worker and lost events: each place says so, and what the pages offer ends them",
  { timeout: 180_000 },
  async ({ world, pool, databaseUrl }) => {
    const { s3, resend } = world;
    const front = world.run(["server", "pages"], { OPS_PASSWORD: PASSWORD, PAGES_PORT: "0" });
    const worker = world.run(["worker"]);
    await front.says("pages ready");
    const url = `http://127.0.0.1:${/"pages_port":(\d+)/.exec(front.output())?.[1]}`;
    const browser = browserOf(url);
    const status = () => runCommand(["server/cli/thaw.ts", "status"], { DATABASE_URL: databaseUrl });
    const scrape = async (): Promise<string> => (await fetch(`${url}/metrics`)).text();
    /** What is shown is kept for five seconds, and what is scraped for ten. */
    const firstScreen = async (heading: string): Promise<string> => {
      const isShown = async (): Promise<boolean> => headingOf(await browser.get("/ops")) === heading;
      await waitFor(`"${heading}"`, isShown, 60_000, 200);
      return browser.get("/ops");
    };
    const scrapeWith = async (finding: string): Promise<string> => {
      await waitFor(
        `thaw_findings of ${finding}`,
        async () => (await scrape()).includes(`"${finding}"`),
        30_000,
        200,
      );
      return scrape();
    };

    await know(pool, JANE, "jane@example.com");
    await know(pool, BOB, "bob@example.com");
    /** Somebody has read an archived file: the event as the Lambda sends it. */
    const read = async (key: string, access_key_id = JANE): Promise<void> => {
      s3.putObject({ bucket: BUCKET, key, storage_class: "GLACIER", body: key });
      expect(await front.post("/restore/request", requestBody(key, { access_key_id }))).toMatchObject({
        status: 200,
      });
    };

    await worker.says("worker ready");
    await until("all tasks", pool, "count(succeeded_at) = 5 from job_status");
    await firstScreen("All is well.");
    expect(await status()).toMatchObject({ code: 0, output: expect.stringMatching(/^All is well\.\n/) });
    await waitFor(
      "a worker in the metrics",
      async () => seriesOf(await scrape()).get("thaw_workers_alive") === 1,
      30_000,
    );
    const before = await scrape();

    // S3 has restored three files, and its events get lost; the poll of the next day finds them.
    const lost = ["lost/1.tif", "lost/2.tif", "lost/3.tif"];
    for (const key of lost) await read(key);
    await until("three restores", pool, "count(*) = 3 from restores where status = 'pending'");
    for (const key of lost) s3.finishRestore({ bucket: BUCKET, key });
    await pool.query(
      "update restores set accepted_at = now() - interval '24 hours', last_checked_at = null, attempt_after = now()",
    );
    await pool.query("select nudge('poll_pending_restores')");
    await until("the poll", pool, "count(*) = 3 from restores where status = 'restored'");
    await until(
      "Jane's mail",
      pool,
      "count(*) > 0 from notifications where kind = 'post' and status = 'sent'",
    );

    // A quarter of an hour later the events are lost, and not just late.
    await pool.query(
      "update totals set last_at = last_at - interval '16 minutes' where metric = 'completions_lost'",
    );

    // Resend refuses Bob's address.
    const allowBob = resend.refuse("bob@example.com");
    await read("bob.tif", BOB);
    await until("Bob's mail", pool, "count(*) = 1 from notifications where status = 'failed'");

    // S3 refuses a file, and has done so for twenty minutes.
    const denied = s3.fail({ with: "access_denied", operation: "RestoreObject", key: "locked.tif" });
    await read("locked.tif");
    await until("S3's refusal", pool, "count(*) = 1 from restores where failing_since is not null");
    await pool.query(
      "update restores set failing_since = failing_since - interval '20 minutes' where failing_since is not null",
    );

    // Resend's quota is used up.
    resend.addFault({ kind: "daily_quota_exceeded" });
    await read("more.tif");
    await until("the closed gate", pool, "closed_until > now() + interval '1 minute' from mail_gate");

    worker.child.kill("SIGKILL");
    expect(await worker.end()).toBe("SIGKILL");

    // The first screen.
    const screen = await firstScreen("5 things need you");
    const cards = cardsOf(screen);
    // The command.
    const { code, output } = await status();
    expect(code).toBe(1);
    expect(output).toMatch(/^5 things need you: no worker, mail gate closed, stuck, no events\.\n/);
    // The metrics.
    const after = await scrapeWith("no_worker");
    const scraped_at = Date.now() / 1000;
    const series = seriesOf(after);
    expect(series.get("thaw_workers_alive")).toBe(0);
    expect(series.get("thaw_mail_gate_closed")).toBe(1);
    expect(series.get('thaw_mails{status="failed"}')).toBe(1);
    expect(series.get("thaw_completions_lost_total")).toBe(3);
    expect(series.get('thaw_findings{finding="stuck"}')).toBe(2);
    // The alerts.
    const alerts = TROUBLES.map(({ alert }) => alert);
    if (MISSING_PROMTOOL.length === 0)
      judge(before, after, 32, alerts.toSorted(), scraped_at, "thaw_mail_gate_closed_seconds");
    for (const { problem, todo, finding, alert } of TROUBLES) {
      expect(
        cards.filter((card) => card.includes(problem) && card.includes(todo)),
        problem,
      ).toHaveLength(1);
      const lines = output.split("\n");
      const at = lines.findIndex((line) => line.includes(problem));
      expect(lines[at + 1], problem).toContain(todo);
      expect(series.get(`thaw_findings{finding="${finding}"}`), problem).toBeGreaterThan(0);
      expect(RULES.find((rule) => rule.alert === alert)?.annotations.description, alert).toMatch(
        /npm run|\?/,
      );
    }

    // What is behind it is over, and an operator does on the pages what they say.
    denied.remove();
    resend.clearFaults();
    allowBob();
    world.run(["worker"]);
    const stuck = await browser.follow(screen, /^\/ops\/stuck\?problem=S3/);
    const restore = await browser.follow(stuck, /^\/ops\/restores\/[0-9a-f-]{36}$/);
    expect(restore).toContain("AccessDenied");
    const retried = await browser.confirm(await browser.follow(restore, /confirm\/retry/));
    expect(headingOf(retried)).toContain("locked.tif");
    expect(retried).toContain("Done: <bdi>retry</bdi>");
    const [, audit = ""] = retried.split("<h2>What operators did</h2>");
    expect(audit.replaceAll(/<[^>]*>/g, "")).toMatch(/Ada[\s\S]*retry[\s\S]*S3 is asked again now/);
    await browser.confirm(await browser.follow(screen, /confirm\/open_gate/));
    const refused = await browser.get("/ops/mails?status=failed");
    await browser.confirm(await browser.follow(refused, /confirm\/resend_all/));
    await until(
      "the restore",
      pool,
      "count(*) = 1 from restores where s3_key = 'locked.tif' and status = 'pending'",
    );
    s3.finishRestore({ bucket: BUCKET, key: "locked.tif" });
    expect(await front.post("/restore/completed", { s3_bucket: BUCKET, s3_key: "locked.tif" })).toMatchObject(
      { status: 200 },
    );

    await firstScreen("All is well.");
    expect(await status()).toMatchObject({ code: 0 });
    expect(resend.mails.some(({ to }) => to.includes("bob@example.com"))).toBe(true);
    expect(await query(pool, "select actor, action from operator_actions order by id")).toEqual(
      ["retry", "open the mail gate", "send again"].map((action) => ({ actor: "Ada", action })),
    );
  },
);
