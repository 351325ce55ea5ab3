/** The pages as operators run them: a process. */
import { expect } from "vitest";

import { waitFor } from "../support/database.ts";
import { basic, PASSWORD } from "../support/pages.ts";
import { test, type Process } from "../support/processes.ts";

const pagesUrl = async (process: Process): Promise<string> => {
  await process.says("pages ready");
  return `http://127.0.0.1:${/"pages_port":(\d+)/.exec(process.output())?.[1]}/ops`;
};

test("npm start serves them on a port of their own when there is a password", async ({ world }) => {
  const thaw = world.run(["migrate", "server", "worker", "pages"], {
    OPS_PASSWORD: PASSWORD,
    PAGES_PORT: "0",
  });
  const url = await pagesUrl(thaw);

  const page = await fetch(url, { headers: { authorization: basic("Ada") } });
  expect(page.status).toBe(200);
  expect(await page.text()).toContain("1 alive");
  // The server for events has no pages, and the pages take no events.
  expect((await fetch(`${await thaw.url()}/ops`)).status).toBe(404);
  expect((await fetch(url.replace("/ops", "/restore/request"), { method: "POST" })).status).toBe(404);
  thaw.child.kill("SIGTERM");
  expect(await thaw.end()).toBe(0);
  expect(thaw.output()).not.toContain(PASSWORD);
});

test("without a password they are off, and the log says so once", async ({ world }) => {
  const thaw = world.run(["migrate", "server", "pages"]);
  await thaw.url();
  await thaw.says("the operator's pages are off; set OPS_PASSWORD to have them");
  expect(thaw.output().match(/OPS_PASSWORD/g)).toHaveLength(1);
  expect(thaw.output()).not.toContain("pages ready");
});

const TOKEN = "x".repeat(32);

test("with a token and no password there are figures and no pages", async ({ world }) => {
  const pages = world.run(["pages"], { METRICS_TOKEN: TOKEN, PAGES_PORT: "0" });
  await pages.says("metrics ready");
  const url = `http://127.0.0.1:${/"pages_port":(\d+)/.exec(pages.output())?.[1]}`;

  expect((await fetch(`${url}/metrics`)).status).toBe(401);
  const scraped = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } });
  expect(await scraped.text()).toContain("\nthaw_database_up 1\n");
  for (const path of ["/", "/ops", "/ops/restores", "/ops/act/open_gate"])
    expect((await fetch(url + path, { headers: { authorization: basic("Ada", "") } })).status, path).toBe(
      404,
    );
  pages.child.kill("SIGTERM");
  expect(await pages.end()).toBe(0);
  expect(pages.output()).not.toContain(TOKEN);
});

test("figures come in time while pages wait for a lock, and do not say that Postgres is away", async ({
  world,
  pool,
}) => {
  const pages = world.run(["pages"], { OPS_PASSWORD: PASSWORD, PAGES_PORT: "0" });
  const url = await pagesUrl(pages);
  const locker = await pool.connect();
  try {
    await locker.query("begin; lock table actions in access exclusive mode");
    const slow = Array.from({ length: 12 }, () =>
      fetch(`${url}/actions`, { headers: { authorization: basic("Ada") } }),
    );
    await waitFor("all connections to wait", async () => {
      const { rowCount } = await pool.query(
        "select from pg_stat_activity where application_name = 'thaw pages' and wait_event_type = 'Lock'",
      );
      return rowCount === 5;
    });
    const scraped = await fetch(url.replace("/ops", "/metrics"));
    expect(await scraped.text()).toContain("\nthaw_database_up 1\n");
    expect(new Set((await Promise.all(slow)).map(({ status }) => status))).toEqual(new Set([503]));
  } finally {
    locker.release(true);
  }
});

test("that the pages' own role is refused says nothing about the Postgres of all else", async ({
  world,
  databaseUrl,
}) => {
  const refused = Object.assign(new URL(databaseUrl), { username: "nobody_such" }).href;
  const thaw = world.run(["migrate", "server", "pages"], {
    OPS_PASSWORD: PASSWORD,
    PAGES_PORT: "0",
    PAGES_DATABASE_URL: refused,
  });
  const page = await fetch(await pagesUrl(thaw), { headers: { authorization: basic("Ada") } });
  expect(page.status).toBe(503);
  await thaw.says("Postgres is lost");
  expect(thaw.output()).toMatch(/"process":"pages","reason":[^\n]*"msg":"Postgres is lost"/);
  expect((await fetch(`${await thaw.url()}/readyz`)).status).toBe(200);
});

test("npm run pages without a password says what is missing and ends", async ({ world }) => {
  const pages = world.run(["pages"]);
  expect(await pages.end()).toBe(1);
  expect(pages.output()).toContain("OPS_PASSWORD: is missing, and so is METRICS_TOKEN");
});

test("alone they start while Postgres is away, and say so on the page", async ({ world }) => {
  const pages = world.run(["pages"], {
    OPS_PASSWORD: PASSWORD,
    PAGES_PORT: "0",
    PAGES_DATABASE_URL: "postgres://thaw@127.0.0.1:1/thaw",
  });
  const page = await fetch(await pagesUrl(pages), { headers: { authorization: basic("Ada") } });
  expect(page.status).toBe(503);
  expect(await page.text()).toContain("Postgres does not answer");
});
