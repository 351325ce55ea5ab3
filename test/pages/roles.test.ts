/** The pages as sql/README.md sets them up: a process with a database role of its own, that owns nothing. */
import type { Pool } from "pg";
import { expect } from "vitest";

import { ACTIONS } from "../../server/pages/actions.ts";
import { ASSETS } from "../../server/pages/assets.ts";
import { basic, operator, PASSWORD } from "../support/pages.ts";
import type { Process, World } from "../support/processes.ts";
import { type RoleName, type Roles, test } from "../support/roles.ts";
import { ago, insertNotification, insertRead, insertRow, query, type Row } from "../support/rows.ts";

interface Seen {
  status: number;
  text: string;
  location: string;
}

interface Pages {
  process: Process;
  get(path: string): Promise<Seen>;
  post(path: string, fields: Record<string, string>): Promise<Seen>;
}

async function pagesAs(world: World, roles: Roles, role: RoleName): Promise<Pages> {
  const process = world.run(["pages"], {
    OPS_PASSWORD: PASSWORD,
    PAGES_PORT: "0",
    PAGES_DATABASE_URL: roles.urlOf(role),
  });
  await process.says("pages ready");
  const url = `http://127.0.0.1:${/"pages_port":(\d+)/.exec(process.output())?.[1]}`;
  const ask = async (path: string, more: RequestInit): Promise<Seen> => {
    const response = await fetch(url + path, {
      redirect: "manual",
      ...more,
      headers: { authorization: basic("Ada"), origin: url },
    });
    return {
      status: response.status,
      text: await response.text(),
      location: response.headers.get("location") ?? "",
    };
  };
  return {
    process,
    get: (path) => ask(path, {}),
    post: (path, fields) => ask(path, { method: "POST", body: new URLSearchParams(fields) }),
  };
}

/** A restore and a mail for each action, and a shut gate. */
async function fill(owner: Pool): Promise<Record<string, string>> {
  const failing = { failing_since: ago("3 hours"), failure_code: "AccessDenied", failure_message: "No." };
  const read = async (state: Parameters<typeof insertRead>[1], s3_key: string, restore: Row = {}) =>
    (await insertRead(owner, state, { restore: { s3_key, ...restore } })).restore["id"] as string;
  const mail = async (status: string) =>
    (await insertNotification(owner, { status, failure_message: "why" }))["id"] as string;
  const hold = async (person: string) =>
    (await insertRow(owner, "holds", { person, reason: "a policy asks for approval" }))["id"] as string;
  await read("not_started", "stuck", failing);
  await read("pending", "pending");
  await mail("unknown");
  await owner.query("select close_mail_gate('1 hour', 'to look')");
  return {
    retry: `?id=${await read("failed", "retry")}`,
    give_up: `?id=${await read("pending", "give up")}`,
    resend: `?id=${await mail("failed")}`,
    was_sent: `?id=${await mail("unknown")}`,
    was_not_sent: `?id=${await mail("unknown")}`,
    approve: `?id=${await hold("AKIAA")}`,
    refuse: `?id=${await hold("AKIAB")}`,
    open_gate: "",
    retry_all: "?problem=S3 refuses, or cannot be reached",
    give_up_all: "?state=pending",
    resend_all: "?status=unknown",
  };
}

const everyPage = (restore: string, mail: string, hold: string): string[] => [
  "/ops",
  "/ops/restores",
  "/ops/restores?state=closed&order=oldest&from=2026-01-01&to=2026-12-31",
  "/ops/restores.csv",
  `/ops/restores/${restore}`,
  "/ops/stuck",
  "/ops/stuck?problem=S3 refuses, or cannot be reached",
  "/ops/search",
  "/ops/search?q=film*",
  "/ops/search?q=jane@example.com",
  "/ops/search?q=arn:aws:iam::1:*",
  "/ops/search?q=s3://archive/nothing",
  "/ops/mails",
  "/ops/mails?status=unknown",
  "/ops/mails.csv",
  `/ops/mails/${mail}`,
  "/ops/holds",
  `/ops/holds/${hold}`,
  "/ops/costs",
  "/ops/costs.csv?by=person&month=2026-11",
  "/ops/workers",
  "/ops/actions",
  "/metrics",
  ...ASSETS.map(({ name }) => `/ops/assets/${name}`),
];

const fieldsOf = (text: string): Record<string, string> =>
  Object.fromEntries(
    [...text.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)"/g)].map(([, name, value]) => [
      name ?? "",
      value ?? "",
    ]),
  );

const idIn = (address = ""): string => address.replace("?id=", "");

test("thaw_operator sees every page and does every action, and each is in actions with that role", async ({
  migrated: roles,
  world,
}) => {
  const owner = roles.as("thaw_migrator");
  const targets = await fill(owner);
  const pages = await pagesAs(world, roles, "thaw_operator");

  const paths = everyPage(idIn(targets["retry"]), idIn(targets["resend"]), idIn(targets["approve"]));
  for (const path of paths) {
    const page = await pages.get(path);
    expect(page.status, path).toBe(200);
    expect(page.text, path).not.toContain("may only look");
  }
  expect((await pages.get("/metrics")).text).toContain("\nthaw_database_up 1\n");
  // None is left out.
  const routes = operator(owner).app.routes.filter(
    ({ method, path }) => method === "GET" && path.startsWith("/ops") && !path.includes(":action"),
  );
  for (const { path } of routes) {
    const pattern = new RegExp(`^${path.replaceAll(".", "\\.").replace(":id", "[^/]+")}$`);
    expect(
      paths.some((tried) => pattern.test(tried.split("?")[0] ?? "")),
      path,
    ).toBe(true);
  }

  expect(Object.keys(targets)).toEqual(Object.keys(ACTIONS));
  for (const [action, target] of Object.entries(targets)) {
    const asked = await pages.get(`/ops/confirm/${action}${target}`);
    expect(asked.status, action).toBe(200);
    const done = await pages.post(`/ops/act/${action}`, fieldsOf(asked.text));
    expect(done.status, `${action}: ${done.text}`).toBe(303);
    expect((await pages.get(done.location)).text, action).toContain("Done:");
  }
  expect(
    await query(owner, "select distinct actor, role from actions where action <> 'close the mail gate'"),
  ).toEqual([{ actor: "Ada", role: "thaw_operator" }]);
  expect(await query(owner, "select from actions where role = 'thaw_operator'")).toHaveLength(12);
  expect(pages.process.output()).not.toMatch(/"level":"(warn|error|fatal)"/);
});

test("thaw_reader sees every page, is offered no action, and none works", async ({
  migrated: roles,
  world,
}) => {
  const owner = roles.as("thaw_migrator");
  const targets = await fill(owner);
  const pages = await pagesAs(world, roles, "thaw_reader");
  const everything = async () => [
    await query(owner, "select * from restores order by id"),
    await query(owner, "select * from notifications order by id"),
    await query(owner, "select * from actions order by id"),
  ];
  const before = await everything();

  for (const path of everyPage(idIn(targets["retry"]), idIn(targets["resend"]), idIn(targets["approve"]))) {
    const page = await pages.get(path);
    expect(page.status, path).toBe(200);
    expect(page.text, path).not.toMatch(/\/ops\/(confirm|act)\//);
  }
  expect((await pages.get("/ops")).text).toContain("by the database role <b>thaw_reader</b>");
  expect((await pages.get("/metrics")).text).toContain("\nthaw_database_up 1\n");
  for (const [action, target] of Object.entries(targets)) {
    expect((await pages.get(`/ops/confirm/${action}${target}`)).status, action).toBe(403);
    const fields = { id: idIn(target), state: "pending", count: "9" };
    expect((await pages.post(`/ops/act/${action}`, fields)).status, action).toBe(403);
  }
  expect(await everything()).toEqual(before);
  expect(pages.process.output()).not.toMatch(/"level":"(warn|error|fatal)"/);
});
