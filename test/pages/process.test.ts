/** The pages as operators run them: a process. */
import { expect } from "vitest";

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

test("npm run pages without a password says what is missing and ends", async ({ world }) => {
  const pages = world.run(["pages"]);
  expect(await pages.end()).toBe(1);
  expect(pages.output()).toContain("OPS_PASSWORD: is missing");
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
