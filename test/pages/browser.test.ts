/** The pages in a real browser: on a phone, in the dark, without JavaScript, by keyboard, and to who cannot see them. */
import { mkdirSync, statSync } from "node:fs";

import { afterAll, beforeAll, describe, expect } from "vitest";
import type { Pool } from "pg";

import { listen, type Listening } from "../../server/http/listen.ts";
import {
  launchBrowser,
  violationsOf,
  type Browser,
  type BrowserPage,
  type ContextOptions,
} from "../support/browser.ts";
import { acceptAdmitted, limit, policy, readFiles } from "../support/cost.ts";
import { test as base, waitFor } from "../support/database.ts";
import { operator, PASSWORD } from "../support/pages.ts";
import { ROOT } from "../support/root.ts";
import {
  ago,
  insertNotification,
  insertRead,
  insertRequest,
  JOHN,
  query,
  type Row,
} from "../support/rows.ts";

/** What the pages look like, to be looked at after a run. */
const PICTURES = `${ROOT}/.data/pages`;

const WIDTHS = [320, 700, 1280];
const SCHEMES = ["light", "dark"] as const;

/** Of each picture in README.md: it is read over slow lines, too. */
const MOST_BYTES = 150_000;

/** What makes a page wider than its screen. */
const TOO_WIDE = `document.documentElement.scrollWidth <= window.innerWidth ? [] : [...document.querySelectorAll("body *")]
  .filter((element) => element.getBoundingClientRect().right > window.innerWidth)
  .map((element) => element.outerHTML.slice(0, 120)).concat(String(document.documentElement.scrollWidth))`;

/** What sticks out of its section, into its neighbour or the margin. */
const STICKS_OUT = `[...document.querySelectorAll("main section, main .card")].flatMap((section) =>
  [...section.querySelectorAll("*")]
    .filter((element) => element.getBoundingClientRect().right > section.getBoundingClientRect().right + 1)
    .map((element) => element.outerHTML.slice(0, 120)))`;

let browser: Browser | undefined;
let missing = "";

beforeAll(async () => {
  const launched = await launchBrowser();
  if (typeof launched === "string") {
    missing = launched;
    console.warn(`\nTHE PAGES ARE NOT TESTED IN A BROWSER. ${launched}\n`);
  } else browser = launched;
  mkdirSync(PICTURES, { recursive: true });
  // Unpacking takes ten seconds, on a busy machine a minute.
}, 180_000);
afterAll(() => browser?.close());

interface Site {
  url: string;
  /** Each page by its name. */
  paths: Record<string, string>;
  failed: Row;
}

/** A night on which much goes wrong. */
async function makeTrouble(pool: Pool): Promise<{ paths: Record<string, string>; failed: Row }> {
  // First: it looks at all that is due.
  const held = await makeHolds(pool);
  await insertRead(pool, "not_started", {
    restore: {
      s3_key: "surveys/2019/aerial photos.zip",
      failing_since: ago("3 hours"),
      failure_code: "AccessDenied",
      failure_message: "S3 does not let Thaw restore this file.",
    },
  });
  await insertRead(pool, "not_started", {
    restore: {
      s3_key: "x".repeat(1024),
      failing_since: ago("2 hours"),
      failure_code: "AccessDenied",
      failure_message: "y".repeat(600),
    },
    request: {
      access_key_id: "",
      principal: `arn:aws:sts::111122223333:assumed-role/${"r".repeat(900)}/jane`,
    },
  });
  for (let n = 0; n < 12; n++)
    await insertRead(pool, "pending", {
      restore: { s3_key: `films/2021/reel-${n}.mov`, size_bytes: 3_820_000_000, tier: "Standard" },
    });
  await insertRead(pool, "restored", { restore: { s3_key: "films/holiday.mov", size_bytes: 12_400_000 } });
  const { restore: failed, request } = await insertRead(pool, "failed", {
    restore: { s3_key: "scans/box-07/invoice\u202Efdp.tif" },
  });
  await insertRequest(pool, failed, { access_key_id: JOHN, email: null });
  const mail = await insertNotification(pool, {
    status: "failed",
    created_at: ago("40 minutes"),
    failure_code: "validation_error",
    failure_message: "Resend refuses the address: the domain does not exist.",
  });
  await pool.query("update restore_requests set post_notification_id = $2 where id = $1", [
    request["id"],
    mail["id"],
  ]);
  await pool.query(`
    insert into workers (id, started_at) values ('worker-a4f1', now() - interval '2 days');
    insert into task_runs (task, succeeded_at, failed_at, error)
      select t, now() - interval '48 minutes', case t when 'pre_notify' then now() - interval '47 minutes' end, 'Resend does not answer'
        from unnest(array['resolve_users', 'trigger_restores', 'poll_pending_restores', 'pre_notify', 'post_notify']) t;
    update mail_gate set closed_until = now() + interval '90 minutes', reason = 'Resend: daily_quota_exceeded';
    delete from totals where metric <> 'reads_ignored';
    insert into totals (hour, metric, labels, n)
      select date_trunc('hour', now()) - make_interval(hours => h), m.metric, m.labels::jsonb, m.n * (1 + (h * 7) % 11)
        from generate_series(1, 40) h,
             (values ('reads_opened', '{}', 12), ('restores', '{"result": "restored"}', 10), ('restores', '{"result": "failed"}', 1),
                     ('mails', '{"status": "sent"}', 4)) m (metric, labels, n);
    insert into totals (metric, labels, le, n)
      values ('read_to_readable_seconds', '{"storage_class": "GLACIER", "tier": "Standard"}', 14400, 30),
             ('read_to_readable_seconds', '{"storage_class": "GLACIER", "tier": "Standard"}', 21600, 70)`);
  await pool.query(
    "insert into actions (actor, action, target, restore_id, before, after) values ('Ada', 'retry', $1, $2, '{}', '{\"did\": \"S3 is asked again now\"}')",
    [failed["id"], failed["id"]],
  );
  const id = String(failed["id"]);
  return {
    failed,
    paths: {
      overview: "/ops",
      restores: "/ops/restores",
      failed: "/ops/restores?state=failed",
      restore: `/ops/restores/${id}`,
      stuck: "/ops/stuck",
      search: "/ops/search?q=x",
      mails: "/ops/mails",
      mail: `/ops/mails/${mail["id"]}`,
      held: "/ops/restores?state=held",
      holds: "/ops/holds",
      hold: `/ops/holds/${held}`,
      approve: `/ops/confirm/approve?id=${held}`,
      costs: "/ops/costs",
      workers: "/ops/workers",
      actions: "/ops/actions",
      confirm: `/ops/confirm/retry?id=${id}`,
      problem: "/ops/no-such-page",
    },
  };
}

/** A scanner that reads more than it may, other holds and limits, a month of restores. Returns the scanner's hold. */
async function makeHolds(pool: Pool): Promise<string> {
  await limit(pool, { scope: "person", max_objects: 20, max_cost: 5 });
  await limit(pool, { per: "month", max_cost: 1 });
  await limit(pool, {
    scope: "prefix",
    per: "day",
    s3_bucket: "films",
    key_prefix: "2021/raw/",
    max_bytes: 500e9,
  });
  await policy(pool, "ignore", { s3_bucket: "logs" });
  await policy(pool, "observe", { s3_bucket: "cold" });
  await readFiles(pool, 3, { s3_bucket: "logs" });
  await readFiles(pool, 40, { s3_bucket: "cold" });
  await readFiles(pool, 17, { principal: "arn:aws:iam::123456789012:user/jane" });
  await readFiles(pool, 90, { s3_bucket: "films" });
  await acceptAdmitted(pool);
  await pool.query(`
    update holds set opened_at = now() - interval '26 hours', last_added_at = now() - interval '2 hours';
    insert into holds (person, reason, objects, bytes, estimated_cost) values (repeat('w', 900) || '@example.com', 'beyond a limit', 1234567, 123e12, 98765.4);
    insert into costs (day, person, s3_bucket, folder, storage_class, tier, observed, objects, bytes, cost)
      select current_date, 'person' || n || '@example.com', 'bucket-' || n % 4, repeat('long folder ', n) || '/', 'GLACIER', 'Bulk', n % 3 = 0, n * 1000, n * 1e12, n * 17.5
        from generate_series(1, 12) n`);
  const [hold] = await query(pool, "select id from holds where objects between 2 and 1000");
  return String(hold?.["id"]);
}

/** A night to photograph: five things need somebody, and one restore has had its trouble and is readable. Its id. */
async function makePictures(pool: Pool): Promise<string> {
  for (const [key, hours] of [
    ["surveys/2019/aerial photos.zip", 3],
    ["surveys/2019/north.pdf", 2],
  ] as const)
    await insertRead(pool, "not_started", {
      restore: {
        s3_key: key,
        failing_since: ago(`${hours} hours`),
        failure_code: "AccessDenied",
        failure_message: "S3 does not let Thaw restore this file.",
      },
    });
  const began = await insertNotification(pool, { kind: "pre", status: "sent", sent_at: ago("298 minutes") });
  const ready = await insertNotification(pool, { status: "sent", sent_at: ago("38 minutes") });
  await pool.query("update notifications set created_at = sent_at");
  const told = { pre_notified: true, pre_notification_id: began["id"] };
  for (let reel = 1; reel <= 12; reel++)
    await insertRead(pool, "pending", {
      restore: { s3_key: `films/2021/reel-${reel}.mov`, size_bytes: 3_820_000_000, tier: "Standard" },
      request: told,
    });
  const refused = await insertNotification(pool, {
    status: "failed",
    email: "bob@example.com",
    created_at: ago("40 minutes"),
    failure_code: "validation_error",
    failure_message: "Resend refuses the address: the domain does not exist.",
  });
  await insertRead(pool, "restored", {
    restore: { s3_key: "scans/box-07/0001.tif" },
    request: { access_key_id: JOHN, email: "bob@example.com", post_notification_id: refused["id"] },
  });
  const { restore } = await insertRead(pool, "restored", {
    restore: {
      s3_key: "films/1998/wedding (1+2).mov",
      size_bytes: 12_400_000_000,
      tier: "Standard",
      created_at: ago("7 hours"),
      status_at: ago("40 minutes"),
      accepted_at: ago("5 hours"),
      last_checked_at: ago("40 minutes"),
    },
    request: {
      ...told,
      requested_at: ago("7 hours"),
      read_count: 3,
      post_notified: true,
      post_notification_id: ready["id"],
    },
  });
  const id = String(restore["id"]);
  await pool.query("delete from restore_history where restore_id = $1", [id]);
  for (const [at, from_status, to_status, code, by] of [
    ["420 minutes", null, "not_started", "", "thaw_server"],
    ["419 minutes", "not_started", "not_started", "AccessDenied", "thaw_worker"],
    ["300 minutes", "not_started", "pending", "", "thaw_worker"],
    ["40 minutes", "pending", "restored", "", "thaw_worker"],
  ] as const)
    await pool.query(
      "insert into restore_history (restore_id, at, from_status, to_status, code, by) values ($1, $2, $3, $4, $5, $6)",
      [id, ago(at), from_status, to_status, code, by],
    );
  await pool.query(
    `insert into actions (at, actor, action, target, restore_id, before, after)
       values ($2, 'Ada', 'retry', $1::uuid::text, $1::uuid, '{"status": "not_started", "failure_code": "AccessDenied"}', '{"did": "S3 is asked again now"}')`,
    [id, ago("301 minutes")],
  );
  await pool.query(`
    insert into workers (id, started_at) values ('worker-a4f1', now() - interval '2 days');
    insert into task_runs (task, succeeded_at)
      select t, now() - interval '12 minutes' from unnest(array['resolve_users', 'trigger_restores', 'poll_pending_restores', 'pre_notify', 'post_notify']) t;
    update mail_gate set closed_until = now() + interval '90 minutes', reason = 'Resend''s daily quota is used up';
    delete from totals;
    insert into totals (hour, metric, labels, n, last_at)
      values (date_trunc('hour', now()) - interval '2 hours', 'completions_lost', '{"s3_bucket": "acme-archive"}', 4, now() - interval '2 hours');
    insert into totals (hour, metric, labels, n, last_at)
      select date_trunc('hour', now()) - make_interval(hours => h), m.metric, m.labels::jsonb, m.n * (1 + (h * 7) % 11), now() - make_interval(hours => h)
        from generate_series(0, 40) h,
             (values ('reads', '{}', 14), ('reads_opened', '{}', 12), ('restores', '{"result": "restored"}', 10), ('restores', '{"result": "failed"}', 1),
                     ('mails', '{"status": "sent"}', 4)) m (metric, labels, n);
    insert into totals (metric, labels, le, n)
      values ('read_to_readable_seconds', '{"storage_class": "GLACIER", "tier": "Standard"}', 14400, 30),
             ('read_to_readable_seconds', '{"storage_class": "GLACIER", "tier": "Standard"}', 21600, 70)`);
  return id;
}

const test = base.extend<{ site: Site; open: (options?: Partial<ContextOptions>) => Promise<BrowserPage> }>({
  site: async ({ pool }, use) => {
    const made = await makeTrouble(pool);
    const listening: Listening = await listen(operator(pool).app.fetch, { HOST: "127.0.0.1", PORT: 0 });
    await use({ ...made, url: `http://127.0.0.1:${listening.port}` });
    await listening.close();
  },
  // oxlint-disable-next-line no-empty-pattern
  open: async ({}, use) => {
    const contexts: { close(): Promise<void> }[] = [];
    await use(async (options = {}) => {
      const context = await (browser as Browser).newContext({
        viewport: { width: 1280, height: 900 },
        httpCredentials: { username: "Ada", password: PASSWORD },
        ...options,
      });
      contexts.push(context);
      const page = await context.newPage();
      // What the policy forbids, and what fails in our script.
      page.on("console", (message) => {
        if (message.type() === "error" && !message.text().includes("status of 404"))
          throw new Error(`The browser says: ${message.text()}`);
      });
      page.on("pageerror", (error) => {
        throw error;
      });
      return page;
    });
    for (const context of contexts) await context.close();
  },
});

describe.for(SCHEMES)("in the %s", (colorScheme) => {
  test.for(WIDTHS)(
    "at %i pixels no page is wider than the screen, and axe finds nothing",
    { timeout: 120_000 },
    async (width, { site, open, skip }) => {
      skip(browser === undefined, missing);
      const page = await open({ viewport: { width, height: width === 320 ? 640 : 900 }, colorScheme });

      for (const [name, path] of Object.entries(site.paths)) {
        await page.goto(site.url + path);
        expect(await page.evaluate(TOO_WIDE), name).toEqual([]);
        expect(await page.evaluate(STICKS_OUT), name).toEqual([]);
        expect(await violationsOf(page), name).toEqual([]);
        if (
          [
            "overview",
            "restores",
            "restore",
            "stuck",
            "confirm",
            "holds",
            "hold",
            "approve",
            "costs",
          ].includes(name)
        )
          await page.screenshot({
            path: `${PICTURES}/${name}-${width}-${colorScheme}.png`,
            fullPage: name !== "overview" || width !== 1280,
          });
      }
    },
  );
});

test("at first sight, without scrolling, it says what is wrong, since when, and what to do", async ({
  site,
  open,
  skip,
}) => {
  skip(browser === undefined, missing);
  const page = await open({ viewport: { width: 1280, height: 900 } });
  await page.goto(`${site.url}/ops`);

  for (const words of [
    "need you",
    "No worker is alive",
    "npm run worker",
    "daily_quota_exceeded",
    "S3 refuses",
  ]) {
    const top = await page.evaluate<number>(`(() => {
      const found = [...document.querySelectorAll("h1, h2, p")].find((element) => element.textContent.includes(${JSON.stringify(words)}));
      return found === undefined ? Infinity : found.getBoundingClientRect().bottom;
    })()`);
    expect(top, words).toBeLessThan(900);
  }
});

test("README.md shows its pictures: the first screen, a restore, and a phone in the dark", async ({
  pool,
  open,
  skip,
}) => {
  skip(browser === undefined, missing);
  const id = await makePictures(pool);
  const listening = await listen(operator(pool).app.fetch, { HOST: "127.0.0.1", PORT: 0 });
  try {
    for (const [name, path, width, height, colorScheme, deviceScaleFactor] of [
      ["overview", "/ops", 1040, 650, "light", 1],
      ["restore", `/ops/restores/${id}`, 1040, 1340, "light", 0.75],
      ["phone", "/ops", 360, 740, "dark", 1],
    ] as const) {
      const page = await open({ viewport: { width, height }, colorScheme, deviceScaleFactor });
      await page.goto(`http://127.0.0.1:${listening.port}${path}`);
      expect(await page.locator("h1").textContent()).toMatch(/5 things need you|wedding/);
      const picture = `${PICTURES}/pages_${name}.png`;
      await page.screenshot({ path: picture, fullPage: false });
      expect(statSync(picture).size, picture).toBeLessThan(MOST_BYTES);
    }
  } finally {
    await listening.close();
  }
});

test("works without JavaScript", async ({ pool, site, open, skip }) => {
  skip(browser === undefined, missing);
  const page = await open({ javaScriptEnabled: false });

  await page.goto(`${site.url}/ops/restores/${site.failed["id"]}`);
  await page.locator("a:has-text('Retry')").click();
  await page.locator("button:has-text('Retry')").click();

  expect(await page.content()).toContain("Done: <bdi>retry</bdi>");
  expect(await query(pool, "select actor, action from actions order by id desc limit 1")).toEqual([
    { actor: "Ada", action: "retry" },
  ]);
});

test("works by keyboard alone: skip to the content, open the gate", async ({ pool, site, open, skip }) => {
  skip(browser === undefined, missing);
  const page = await open();
  await page.goto(`${site.url}/ops`);
  const focused = () => page.evaluate<string>("document.activeElement.textContent.trim()");

  await page.keyboard.press("Tab");
  expect(await focused()).toBe("Skip to the content");
  await page.keyboard.press("Enter");
  expect(await page.evaluate("document.activeElement.id")).toBe("main");
  const tabTo = async (text: string): Promise<void> => {
    for (let presses = 0; presses < 20; presses++) {
      await page.keyboard.press("Tab");
      if ((await focused()) === text) return;
    }
    throw new Error(`The Tab key does not lead to "${text}"`);
  };
  await tabTo("Open the gate ...");
  await page.keyboard.press("Enter");
  await page.waitForURL(/confirm/);
  await page.locator("#main").focus();
  await tabTo("Open the gate");
  await page.keyboard.press("Enter");
  await page.waitForURL(/actions/);

  expect(await query(pool, "select is_open from mail_gate_status")).toEqual([{ is_open: true }]);
});

test("renews the overview by itself, says so to a screen reader, and stops when told", async ({
  pool,
  site,
  open,
  skip,
}) => {
  skip(browser === undefined, missing);
  const page = await open();
  await page.clock.install();
  await page.goto(`${site.url}/ops`);
  const before = await page.locator("h1").textContent();
  await pool.query("update mail_gate set closed_until = now()");

  // The figures are kept for five seconds.
  await new Promise((resolve) => setTimeout(resolve, 5_100));
  await page.clock.runFor(31_000);
  await waitFor(
    "the overview to renew itself",
    async () => (await page.locator("h1").textContent()) !== before,
  );
  const after = await page.locator("h1").textContent();
  expect(await page.locator("#said").textContent()).toBe(after);

  await page.locator("#updates").click();
  expect(await page.locator("#updates").textContent()).toBe("Go on updating");
});
