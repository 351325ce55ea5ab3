/** Who may see the pages and act by them, tried on every registered route. */
import { randomUUID } from "node:crypto";

import { describe, expect } from "vitest";

import { createLog } from "../../server/log.ts";
import { newPool, test, waitFor } from "../support/database.ts";
import { basic, operator, PASSWORD, type Operator } from "../support/pages.ts";
import { limit, readFiles } from "../support/cost.ts";
import { everything, insertNotification, insertRead, insertRow, one, query } from "../support/rows.ts";

/** Each route of the app, with an id and an action filled in. */
const routesOf = ({ app }: Operator): { method: string; path: string }[] => {
  const routes = app.routes
    .filter(({ path }) => !path.includes("*"))
    .map(({ method, path }) => ({
      method,
      path: path.replace(":id", randomUUID()).replace(":action", "retry"),
    }));
  expect(routes.length).toBeGreaterThan(15);
  return routes;
};

describe("every route", () => {
  test("asks for a password, and says nothing without it", async ({ pool }) => {
    const pages = operator(pool);
    await insertRead(pool, "failed");

    for (const { method, path } of [...routesOf(pages), { method: "GET", path: "/ops/no-such-page" }]) {
      for (const name of method === "ALL" ? ["GET", "POST", "PUT"] : [method, "HEAD"]) {
        const response = await pages.app.request(path, { method: name });
        expect(response.status, `${name} ${path}`).toBe(401);
        expect(response.headers.get("www-authenticate")).toBe('Basic realm="Thaw"');
        expect(await response.text()).not.toMatch(/film|jane/);
      }
    }
  });

  test("refuses a wrong password, a password alone, and a name that would not show", async ({ pool }) => {
    const pages = operator(pool);

    for (const authorization of [
      basic("Ada", `${PASSWORD}x`),
      basic("Ada", ""),
      basic("", PASSWORD),
      basic("Ada\u202E", PASSWORD),
      `Bearer ${PASSWORD}`,
      "Basic !!!",
    ]) {
      const response = await pages.app.request("/ops", { headers: { authorization } });
      expect(response.status, authorization).toBe(401);
    }
    expect((await pages.get("/ops")).status).toBe(200);
  });

  test("has headers that keep others out, and is not kept by browsers", async ({ pool }) => {
    const pages = operator(pool);

    for (const path of ["/ops", "/ops/restores", "/ops/no-such-page"]) {
      const { headers } = await pages.get(path);
      expect(headers.get("content-security-policy")).toBe(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
      );
      expect(headers.get("referrer-policy")).toBe("same-origin");
      expect(headers.get("x-frame-options")).toBe("DENY");
      expect(headers.get("cache-control")).toBe("no-store");
    }
    const [, style = ""] = /href="([^"]+\.css)"/.exec((await pages.get("/ops")).text) ?? [];
    const css = await pages.get(style);
    expect(css.status).toBe(200);
    expect(css.headers.get("cache-control")).toContain("immutable");
  });
});

test("failed log-ins are answered one after the other, and logged without the password", async ({ pool }) => {
  const lines: string[] = [];
  const pages = operator(pool, {
    log: createLog("info", { write: (line: string) => void lines.push(line) }),
  });
  const began = performance.now();

  const wrong = "not-the-password-at-all";
  await Promise.all(
    ["Ada", wrong, PASSWORD].map(async (name) =>
      pages.app.request("/ops", { headers: { authorization: basic(name, wrong) } }),
    ),
  );

  expect(performance.now() - began).toBeGreaterThan(1400);
  expect(lines).toHaveLength(3);
  const log = lines.join("");
  expect(log).toContain('"user":"Ada"');
  expect(log).not.toContain(wrong);
  expect(log).not.toContain(PASSWORD);
  // The right one does not wait.
  const again = performance.now();
  expect((await pages.get("/ops/workers")).status).toBe(200);
  expect(performance.now() - again).toBeLessThan(400);
});

test("a flood of failed log-ins does not fill the log: those that do not wait are counted", async ({
  pool,
}) => {
  const lines: string[] = [];
  const pages = operator(pool, {
    log: createLog("info", { write: (line: string) => void lines.push(line) }),
  });
  const guess = async () => pages.app.request("/ops", { headers: { authorization: basic("Eve", "x") } });

  const flood = await Promise.all(Array.from({ length: 300 }, guess).slice(20));
  expect(flood).toHaveLength(280);
  expect(new Set(flood.map(({ status }) => status))).toEqual(new Set([401]));
  expect(lines).toHaveLength(20);
  await waitFor("a log-in that waits again", async () => {
    void guess();
    return lines.length > 20;
  });
  expect(JSON.parse(lines[20] ?? "")["others_since_the_last_line"]).toBeGreaterThanOrEqual(280);
});

describe("an action", () => {
  const FORM = { "content-type": "application/x-www-form-urlencoded", authorization: basic("Ada") };

  test("is refused from another site, whatever the browser tells of it", async ({ pool }) => {
    const pages = operator(pool, { public_url: "https://thaw.example.com" });
    const { restore } = await insertRead(pool, "pending");
    const before = await everything(pool);
    const body = `id=${restore["id"]}`;

    for (const from of [
      { origin: "https://evil.example" },
      { origin: "null" },
      { origin: "https://thaw.example.com.evil.example", "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-site" },
      {},
    ] as Record<string, string>[]) {
      const response = await pages.app.request("/ops/act/retry", {
        method: "POST",
        headers: { ...FORM, ...from },
        body,
      });
      expect(response.status, JSON.stringify(from)).toBe(403);
    }
    expect(await everything(pool)).toEqual(before);

    // Behind the proxy the server sees another address than the browser.
    const ours = await pages.app.request("/ops/act/retry", {
      method: "POST",
      headers: { ...FORM, origin: "https://thaw.example.com" },
      body,
    });
    expect(ours.status).toBe(303);
  });

  test("is never done by a link", async ({ pool }) => {
    const pages = operator(pool);
    const { restore } = await insertRead(pool, "failed");
    const mail = await insertNotification(pool, { status: "unknown", failure_message: "no answer" });
    const hold = await insertRow(pool, "holds", { person: "jane@example.com", reason: "beyond a limit" });
    const before = await everything(pool);

    for (const action of [
      "retry",
      "give_up",
      "resend",
      "was_sent",
      "was_not_sent",
      "open_gate",
      "approve",
      "refuse",
      "retry_all",
      "resend_all",
      "give_up_all",
    ]) {
      const on = ["resend", "was_sent", "was_not_sent"].includes(action) ? mail : restore;
      const id = ["approve", "refuse"].includes(action) ? hold["id"] : on["id"];
      const query = `?id=${id}&state=failed&status=unknown&count=9`;
      for (const method of ["GET", "HEAD", "PUT", "DELETE"]) {
        const response = await pages.app.request(`/ops/act/${action}${query}`, {
          method,
          headers: { ...FORM, "sec-fetch-site": "same-origin" },
        });
        expect(response.status, `${method} ${action}`).toBe(405);
      }
      const asked = await pages.get(`/ops/confirm/${action}${query}`);
      expect(asked.status, action).toBe(200);
      expect(asked.text).toContain("What will happen");
    }
    expect(await everything(pool)).toEqual(before);
    expect(await query(pool, "select from actions")).toEqual([]);
  });

  test("that does not exist, or is for nothing that exists, changes nothing", async ({ pool }) => {
    const pages = operator(pool);
    const before = await everything(pool);

    for (const action of ["drop", "constructor", "toString"])
      expect((await pages.post(`/ops/act/${action}`, {})).status).toBe(404);
    for (const id of ["", "1", "'; drop table restores; --", randomUUID()])
      expect((await pages.post("/ops/act/retry", { id })).status, id).toBe(404);
    expect((await pages.post("/ops/act/retry_all", { state: "closed", count: "5" })).status).toBe(404);
    expect((await pages.post("/ops/act/retry", { id: "x".repeat(20_000) })).status).toBe(413);
    expect(await everything(pool)).toEqual(before);
  });
});

test("a role that may only look is offered no action, and none works", async ({ pool, databaseUrl }) => {
  const { restore } = await insertRead(pool, "failed");
  await limit(pool, { scope: "person", max_objects: 1 });
  await readFiles(pool, 2);
  const { id: hold } = await one(pool, "select id from holds");
  await pool.query(`do $$ begin
    if to_regrole('pages_reader') is null then create role pages_reader login password 'pages_reader'; end if; end $$`);
  await pool.query(`grant select on untold_requests, stuck_requests, request_status, mail_status, mail_gate_status, worker_status, job_status,
    findings, restore_steps, operator_actions, hourly_totals, oldest_waiting, read_silence, restore_overview, restore_details, restore_readers, unsent_mails, times_to_readable, hold_list, hold_overview, limit_status, cost_by_person,
    cost_by_bucket, cost_by_prefix, cost_by_class to pages_reader;
    grant execute on function old_transactions to pages_reader;
    grant usage on schema graphile_worker to pages_reader; grant select on graphile_worker.jobs to pages_reader`);
  const url = Object.assign(new URL(databaseUrl), {
    username: "pages_reader",
    password: "pages_reader",
  }).href;
  const reading = newPool(url);
  try {
    const pages = operator(reading);
    const before = await everything(pool);

    for (const path of [
      "/ops",
      `/ops/restores/${restore["id"]}`,
      "/ops/restores?state=failed",
      "/ops/stuck",
      "/ops/mails",
      "/ops/holds",
      `/ops/holds/${hold}`,
      "/ops/costs",
      "/ops/workers",
    ]) {
      const page = await pages.get(path);
      expect(page.status, path).toBe(200);
      expect(page.text).toContain("may only look");
      expect(page.text).not.toMatch(/\/ops\/(confirm|act)\//);
    }
    expect((await pages.get(`/ops/confirm/retry?id=${restore["id"]}`)).status).toBe(403);
    expect((await pages.post("/ops/act/retry", { id: restore["id"] as string })).status).toBe(403);
    expect((await pages.post("/ops/act/approve", { id: hold, seen: "1" })).status).toBe(403);
    expect(await query(pool, "select status from holds")).toEqual([{ status: "open" }]);
    expect(await everything(pool)).toEqual(before);
  } finally {
    await reading.end();
    await pool.query("drop owned by pages_reader");
  }
});
