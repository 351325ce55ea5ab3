/** `npm run thaw`: what operators type, what it changes, what it writes, and how it ends. */
import { execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Pool } from "pg";
import { describe, expect, test as plain } from "vitest";

import { MAIL_SAMPLES } from "../../server/cli/mail_samples.ts";
import { limit, readFiles } from "../support/cost.ts";
import { test } from "../support/database.ts";
import { baseEnv } from "../support/fast_run.ts";
import { test as withRoles } from "../support/roles.ts";
import { ROOT } from "../support/root.ts";
import {
  ago,
  insertNotification,
  insertRead,
  insertRequest,
  insertRestore,
  know,
  one,
  query,
  reload,
  tell,
  type Row,
} from "../support/rows.ts";
import { runCommand } from "../support/run_command.ts";
import { startTcpProxy } from "../support/tcp_proxy.ts";
import { JANE } from "../support/thaw.ts";
import { atTerminal, jsonLines, thaw, type Ended } from "../support/thaw_command.ts";
import { withFile } from "../support/users_command.ts";

const actions = (pool: Pool): Promise<Row[]> =>
  query(pool, "select actor, action, target, restore_id from operator_actions order by id");

/** On a connection of its own, which is closed afterwards, whatever happens. */
async function onConnection<T>(pool: Pool, statements: string[], work: () => Promise<T>): Promise<T> {
  const client = await pool.connect();
  try {
    for (const statement of statements) await client.query(statement);
    return await work();
  } finally {
    client.release(true);
  }
}

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

const actorOf = async (pool: Pool): Promise<string> =>
  `anna (${(await one(pool, "select session_user as role"))["role"]})`;

describe("status", () => {
  test("says that all is well, and ends with 0, while a worker lives and nothing is stuck", async ({
    databaseUrl,
    pool,
  }) => {
    const { request } = await insertRead(pool, "restored");
    await tell(pool, request);
    const { exit, out, err } = await onConnection(pool, ["select enter_worker('worker 1')"], () =>
      thaw(databaseUrl, "status"),
    );

    expect(out.split("\n")[0]).toBe("All is well.");
    expect(out).toMatch(/^restored +1 +\d{4}-\d\d-\d\d \d\d:\d\d UTC$/m);
    expect(out).toMatch(/^trigger_restores +-? /m);
    expect(out).toContain("Workers alive: 1.");
    expect(out).toContain("Mail goes out, at most ");
    expect([exit, err]).toEqual([0, ""]);
  });

  test("shows what waits for approval and how much of limits is used, also as JSON", async ({
    databaseUrl,
    pool,
  }) => {
    await limit(pool, { scope: "person", max_objects: 2 });
    await readFiles(pool, 5);
    const { id } = await one(pool, "select id from holds");

    const { exit, out } = await thaw(databaseUrl, "status");
    expect(exit).toBe(1);
    expect(out).toContain("A burst of reads waits for approval: 3 objects, estimated at $0.05.");
    expect(out).toMatch(
      new RegExp(`^${id} +arn:aws:sts::\\S+/scanner +3 +3\\.2 GB +\\$0\\.05 +\\d{4}-`, "m"),
    );
    expect(out).toMatch(/^2 objects per day for each person +\S+\/scanner +100 %$/m);
    expect(out).not.toMatch(/stuck|infinity/i);

    const records = jsonLines((await thaw(databaseUrl, "status --json")).out);
    expect(records).toContainEqual(expect.objectContaining({ kind: "hold", id, objects: "3" }));
    expect(records).toContainEqual(expect.objectContaining({ kind: "limit", used: 1 }));
  });

  test("names first what needs you, then each with since when and what to do, and ends with 1", async ({
    databaseUrl,
    pool,
  }) => {
    await pool.query(
      "update mail_gate set closed_until = now() + interval '3 hours', reason = 'quota used up'",
    );
    const { request } = await insertRead(pool, "not_started", {
      restore: {
        failing_since: ago("3 hours"),
        attempt_after: new Date(),
        failure_code: "AccessDenied",
        failure_message: "No.",
      },
    });

    const { exit, out } = await thaw(databaseUrl, "status");

    expect(out.split("\n")[0]).toMatch(/^3 things need you: no worker, mail gate closed, stuck\.$/);
    expect(out).toMatch(/^1\. No worker is alive.*\n {3}Start one: npm run worker$/m);
    expect(out).toMatch(/^2\. No mail goes out: quota used up.*\n {3}.*: npm run thaw -- gate open$/m);
    expect(out).toMatch(
      /^3\. S3 refuses, or cannot be reached\. \(since \d{4}-.* UTC\)\n {3}.*: npm run thaw -- retry ID$/m,
    );
    expect(out).toMatch(
      new RegExp(`^${request["id"]}  s3://archive/film\\.mov  .*\\(AccessDenied\\) .* No\\.$`, "m"),
    );
    expect(out).toMatch(/^No mail goes out since \d{4}-.* UTC, until \d{4}-.* UTC: quota used up\.$/m);
    expect(out).toMatch(/^S3 to accept the restore +\d{4}/m);
    expect(exit).toBe(1);
  });

  test("with --json is one object per line, with times in ISO 8601", async ({ databaseUrl, pool }) => {
    await insertRead(pool, "not_started", {
      restore: { failing_since: ago("3 hours"), failure_code: "SlowDown", failure_message: "Later." },
    });
    await pool.query("insert into task_runs (task, succeeded_at) values ('pre_notify', now())");

    const { exit, out } = await thaw(databaseUrl, "status --json");

    const lines = jsonLines(out);
    expect(lines[0]).toEqual({
      kind: "status",
      ok: false,
      verdict: expect.stringContaining("2 things need you: no worker, stuck."),
    });
    expect(new Set(lines.map(({ kind }) => kind as string))).toEqual(
      new Set([
        "status",
        "finding",
        "stuck",
        "open_restores",
        "oldest_waiting",
        "task",
        "workers",
        "mail_gate",
      ]),
    );
    expect(lines.find(({ finding }) => finding === "stuck")).toEqual({
      kind: "finding",
      finding: "stuck",
      problem: "S3 refuses, or cannot be reached.",
      since: expect.stringMatching(ISO),
      count: 1,
      what_to_do: expect.stringMatching(/./),
    });
    expect(lines.find(({ kind, task }) => kind === "task" && task === "pre_notify")).toMatchObject({
      succeeded_at: expect.stringMatching(ISO),
      waiting: 0,
      failed: 0,
    });
    expect(lines.at(-1)).toMatchObject({ kind: "mail_gate", is_open: true });
    expect(exit).toBe(1);
  });

  test("is red where something is wrong, on a terminal alone", async ({ databaseUrl }) => {
    const { out } = await thaw(databaseUrl, "status", { colours: true });
    expect(out.split("\n")[0]).toBe("\u001B[31m1 thing needs you: no worker.\u001B[39m");
    expect((await thaw(databaseUrl, "status")).out).not.toContain("\u001B");
  });
});

test("names from outside are shown on one line, and neither move nor turn what a terminal shows", async ({
  databaseUrl,
  pool,
}) => {
  const s3_key = "a\n0. All is well.\u001B[2J\u009B31m\u202Egnp.exe\u2066\u00AD\u200B\t日本 é";
  const { request } = await insertRead(pool, "not_started", {
    restore: { s3_key, failing_since: ago("3 hours"), failure_code: "X\u001B[1m", failure_message: "\u202E" },
    request: { email: "jane@example.com" },
  });
  // Of a person in psql.
  await pool.query("update mail_gate set closed_until = 'infinity', reason = E'see\\n\\u202E\\u001b]0;x'");
  const unsafe = /[^\P{C}\n]|[\p{Zl}\p{Zp}]/u;

  const status = await thaw(databaseUrl, "status");
  expect(status.out).not.toMatch(unsafe);
  expect(status.out).toContain(
    "s3://archive/a\\u{a}0. All is well.\\u{1b}[2J\\u{9b}31m\\u{202e}gnp.exe\\u{2066}\\u{ad}\\u{200b}\\u{9}日本 é  ",
  );
  expect(status.out).toContain("until somebody opens it: see\\u{a}\\u{202e}\\u{1b}]0;x.");
  expect(status.out).not.toMatch(/^0\. All is well/m);

  const json = await thaw(databaseUrl, "status --json");
  expect(json.out).not.toMatch(unsafe);
  expect(jsonLines(json.out).find(({ kind }) => kind === "stuck")).toMatchObject({ s3_key });
  expect(jsonLines(json.out).at(-1)).toMatchObject({ closed_until: "infinity" });

  for (const words of [`retry ${request["id"]}`, "retry \u001B]0;x", "\u202Estatus", "gate \u001B[2J"]) {
    const { out, err, asked } = await thaw(databaseUrl, words, { answer: "no" });
    expect(out + err + asked.join("\n")).not.toMatch(unsafe);
  }
});

describe("retry", () => {
  const stuck = async (pool: Pool): Promise<{ restore: Row; request: Row }> =>
    insertRead(pool, "not_started", {
      restore: { failing_since: ago("3 hours"), failure_code: "SlowDown", failure_message: "Later." },
    });

  test("takes the id of a restore, of a request, or the beginning of one, and leaves an action", async ({
    databaseUrl,
    pool,
  }) => {
    const { restore, request } = await stuck(pool);
    const id = restore["id"] as string;
    for (const typed of [id, request["id"], id.slice(0, 8), id.toUpperCase().slice(0, 13)]) {
      await pool.query("update restores set failing_since = now()");
      const { exit, out, err } = await thaw(databaseUrl, `retry ${typed} --yes`);
      expect(out).toMatch(/^s3:\/\/archive\/film\.mov \(not_started\).*: S3 is asked again now\.\n$/);
      expect([exit, err]).toEqual([0, ""]);
      expect((await reload(pool, restore))["failing_since"]).toBeNull();
    }
    const actor = await actorOf(pool);
    expect(await actions(pool)).toEqual(
      Array.from({ length: 4 }, () => ({ actor, action: "retry", target: id, restore_id: id })),
    );
  });

  test("with --json tells what it did as an object", async ({ databaseUrl, pool }) => {
    const { restore } = await stuck(pool);
    const { out } = await thaw(databaseUrl, `retry ${restore["id"]} --yes --json`);
    expect(jsonLines(out)).toEqual([{ id: restore["id"], did: "S3 is asked again now" }]);
  });

  test("asks on a terminal, and changes nothing without a yes", async ({ databaseUrl, pool }) => {
    const { restore } = await stuck(pool);
    for (const answer of ["", "n", "retry", "yesterday"]) {
      const { exit, err, asked } = await thaw(databaseUrl, `retry ${restore["id"]}`, { answer });
      expect(asked).toEqual(["Retry s3://archive/film.mov (not_started)? [y/N] "]);
      expect([exit, err]).toEqual([1, "Nothing was changed.\n"]);
    }
    expect(await actions(pool)).toEqual([]);
    expect(await thaw(databaseUrl, `retry ${restore["id"]}`, { answer: " Y" })).toMatchObject({ exit: 0 });
    expect(await actions(pool)).toHaveLength(1);
  });

  test("ends with 2 where nobody can be asked and --yes is missing", async ({ databaseUrl, pool }) => {
    const { restore } = await stuck(pool);
    const { exit, err } = await thaw(databaseUrl, `retry ${restore["id"]}`);
    expect(err).toMatch(/^No terminal can answer here: add --yes\. Nothing was changed\./);
    expect(exit).toBe(2);
    expect(await actions(pool)).toEqual([]);
  });

  test("ends with 2 for what is no id, or begins several, with 3 for an id of nothing or of a mail", async ({
    databaseUrl,
    pool,
  }) => {
    const ids = ["01234567-0000-4000-8000-000000000001", "01234567-0000-4000-8000-000000000002"];
    for (const id of ids) await insertRestore(pool, "pending", { id, s3_key: id });
    const mail = await insertNotification(pool, {
      status: "failed",
      failure_code: "x",
      failure_message: "x",
    });
    for (const [typed, exit, message] of [
      ["film.mov", 2, /film\.mov is no id: give the one that status shows, or at least its first 8/],
      ["0123456", 2, /is no id/],
      ["01234567", 2, new RegExp(`begins several ids; give more of it:\\n.*${ids[0]}.*\\n.*${ids[1]}`)],
      ["76543210", 3, /^There is no restore or request 76543210\./],
      [randomUUID(), 3, /^There is no restore or request /],
      [mail["id"], 3, /is not a restore or request but a mail: see resend and resolve/],
    ] as const) {
      const ended = await thaw(databaseUrl, `retry ${typed} --yes`);
      expect(ended.err).toMatch(message);
      expect(ended.exit, String(typed)).toBe(exit);
    }
    expect(await thaw(databaseUrl, `retry ${ids[1]?.slice(0, -1)}2 --yes`)).toMatchObject({ exit: 0 });
  });

  test("ends with 4 of a closed restore", async ({ databaseUrl, pool }) => {
    const { restore } = await insertRead(pool, "closed");
    const { exit, out } = await thaw(databaseUrl, `retry ${restore["id"]} --yes`);
    expect(out).toContain("this restore is closed");
    expect(exit).toBe(4);
  });
});

describe("two operators at once", () => {
  /** Anna is asked; before she says yes, `meanwhile` happens. */
  const thawWhile = (databaseUrl: string, words: string, meanwhile: () => Promise<unknown>): Promise<Ended> =>
    thaw(databaseUrl, words, {
      ask: async () => {
        await meanwhile();
        return "y";
      },
    });

  test("change what the other has been asked about: nothing more is done", async ({ databaseUrl, pool }) => {
    const { restore } = await insertRead(pool, "pending");
    const mail = await insertNotification(pool, {
      status: "unknown",
      failure_code: "x",
      failure_message: "x",
    });
    await pool.query("select pause_mail('10 minutes', 'rate limit')");
    for (const [words, change] of [
      [`retry ${restore["id"]}`, `select give_up_restore('${restore["id"]}')`],
      [`resend ${mail["id"]}`, `select resolve_notification('${mail["id"]}', true)`],
      ["gate open", "select close_mail_gate(null, 'restored from a backup')"],
    ] as const) {
      const { exit, out, err } = await thawWhile(databaseUrl, words, () => pool.query(change));
      expect([exit, out], words).toEqual([4, ""]);
      expect(err).toContain("It has changed since the question was asked. Nothing was changed");
    }
    expect(await reload(pool, restore)).toMatchObject({ status: "failed", closed_at: null });
    expect(await query(pool, "select from notifications")).toHaveLength(1);
    expect(await one(pool, "select reason from mail_gate_status")).toEqual({
      reason: "restored from a backup",
    });
    expect((await actions(pool)).map(({ actor }) => actor)).not.toContain(await actorOf(pool));
  });

  test("give one restore up: it ends once, and the second hears so", async ({ databaseUrl, pool }) => {
    const { restore } = await insertRead(pool, "pending");
    const ended = await Promise.all([
      thaw(databaseUrl, `give-up ${restore["id"]} --yes`),
      thaw(databaseUrl, `give-up ${restore["id"]} --yes`),
    ]);
    expect(ended.map(({ exit }) => exit).toSorted()).toEqual([0, 4]);
    expect(await actions(pool)).toHaveLength(1);
    expect(await query(pool, "select from restore_steps where to_status = 'failed'")).toHaveLength(1);
  });
});

test("Postgres goes away at the question: it ends with 5, and nothing was changed", async ({
  databaseUrl,
  pool,
}) => {
  const proxy = await startTcpProxy(databaseUrl);
  const { restore } = await insertRead(pool, "pending");
  const { exit, err } = await thaw(proxy.url, `give-up ${restore["id"]}`, {
    ask: async () => {
      await proxy[Symbol.asyncDispose]();
      return "y";
    },
  });
  expect(err).toMatch(/^Postgres cannot be used: .*Check DATABASE_URL/);
  expect(exit).toBe(5);
  expect(await reload(pool, restore)).toMatchObject({ status: "pending" });
  expect(await actions(pool)).toEqual([]);
});

test("give-up ends a restore, once", async ({ databaseUrl, pool }) => {
  const { restore, request } = await insertRead(pool, "pending");
  const { exit, out } = await thaw(databaseUrl, `give-up ${request["id"]}`, { answer: "y" });
  expect(out).toContain("given up; its readers are told");
  expect(exit).toBe(0);
  expect(await reload(pool, restore)).toMatchObject({ status: "failed", failure_code: "given_up" });
  expect(await actions(pool)).toMatchObject([{ actor: await actorOf(pool), action: "give up" }]);
  const [step] = await query(pool, "select by from restore_steps where to_status = 'failed'");
  expect(step).toEqual({ by: await actorOf(pool) });

  const again = await thaw(databaseUrl, `give-up ${request["id"]} --yes`);
  expect(again.err).toMatch(/^Restore \S+ is failed, there is nothing to give up\.\n/);
  expect(again.exit).toBe(4);
});

describe("a mail", () => {
  const FAILED = { status: "failed", failure_code: "validation_error", failure_message: "No such address." };
  const mailOf = async (pool: Pool, more: Row): Promise<{ mail: Row; request: Row }> => {
    const mail = await insertNotification(pool, more);
    const { request } = await insertRead(pool, "restored", {
      request: { post_notification_id: mail["id"], post_notified: more["status"] === "sent" },
    });
    return { mail, request };
  };

  test("is sent again by resend, by its own id or that of a request that it tells of", async ({
    databaseUrl,
    pool,
  }) => {
    const { mail, request } = await mailOf(pool, FAILED);
    const { exit, out, asked } = await thaw(databaseUrl, `resend ${(mail["id"] as string).slice(0, 12)}`, {
      answer: "y",
    });
    expect(asked[0]).toBe(
      "Send the post mail to jane@example.com (failed) once more? If it did arrive, the person gets it twice. [y/N] ",
    );
    const [newer] = await query(pool, "select id from notifications where status = 'sealed'");
    expect(out).toContain(`sent again, as ${newer?.["id"]}.`);
    expect(exit).toBe(0);
    expect(await actions(pool)).toMatchObject([
      { actor: await actorOf(pool), action: "send again", target: mail["id"] },
    ]);

    const waiting = await thaw(databaseUrl, `resend ${request["id"]} --yes`);
    expect(waiting.err).toMatch(/^Notification \S+ is still being sent .*\. Wait for it to be sent/);
    expect(waiting.exit).toBe(4);
    expect((await thaw(databaseUrl, `resend ${mail["id"]} --yes`)).exit).toBe(4);
  });

  test("cannot be sent again before it was written, nor of a restore", async ({ databaseUrl, pool }) => {
    const restore = await insertRestore(pool, "pending");
    const request = await insertRequest(pool, restore);
    const none = await thaw(databaseUrl, `resend ${request["id"]} --yes`);
    expect(none.err).toMatch(
      /^No mail has been written yet about s3:\/\/archive\/film\.mov \(pending\), read by jane/,
    );
    expect(none.exit).toBe(4);
    const other = await thaw(databaseUrl, `resend ${restore["id"]} --yes`);
    expect(other.err).toMatch(/is not a mail or request but a restore: see retry and give-up/);
    expect(other.exit).toBe(3);
  });

  test("of unknown outcome is resolved either way", async ({ databaseUrl, pool }) => {
    const UNKNOWN = { status: "unknown", failure_code: "unknown_outcome", failure_message: "Perhaps." };
    const { mail: sent } = await mailOf(pool, UNKNOWN);
    const lost = await insertNotification(pool, UNKNOWN);
    for (const flags of ["", " --sent --not-sent"]) {
      const ended = await thaw(databaseUrl, `resolve ${sent["id"]} --yes${flags}`);
      expect(ended.err).toMatch(/^Say either --sent or --not-sent\./);
      expect(ended.exit).toBe(2);
    }
    expect((await thaw(databaseUrl, `resolve ${sent["id"]} --sent --yes`)).out).toMatch(
      /: noted as sent\.\n$/,
    );
    expect((await thaw(databaseUrl, `resolve ${lost["id"]} --not-sent --yes`)).out).toMatch(
      /: sent again, as /,
    );
    expect((await thaw(databaseUrl, `resolve ${sent["id"]} --sent --yes`)).exit).toBe(4);
    expect(await query(pool, "select status::text from notifications where id = $1", [sent["id"]])).toEqual([
      { status: "sent" },
    ]);
    expect((await actions(pool)).map(({ action }) => action as string)).toContain("resolve");
  });
});

test("gate shows, closes and opens the mail gate", async ({ databaseUrl, pool }) => {
  expect(await thaw(databaseUrl, "gate")).toMatchObject({
    exit: 0,
    out: expect.stringMatching(/^Mail goes out, at most \d+ a second\.\n$/),
  });
  for (const [words, message] of [
    ["gate close --for 2weeks --reason x --yes", /^Say for how long/],
    ["gate close --for 0h --reason x --yes", /^Say for how long/],
    ["gate close --for 2h --yes", /^Say why/],
    ["gate close --yes", /^Say why/],
  ] as const) {
    const { exit, err } = await thaw(databaseUrl, words);
    expect(err).toMatch(message);
    expect(exit, words).toBe(2);
  }
  expect(await actions(pool)).toEqual([]);

  const closed = await thaw(databaseUrl, "gate close --for 2h --reason maintenance --yes");
  expect(closed.out).toMatch(/^Closed until \d{4}-\d\d-\d\d \d\d:\d\d UTC\.\n$/);
  const { hours } = await one(
    pool,
    "select round(extract(epoch from closed_until - now()) / 3600)::int as hours from mail_gate",
  );
  expect(hours).toBe(2);
  expect((await thaw(databaseUrl, "gate")).out).toMatch(
    /^No mail goes out since \S+ \S+ UTC, until \S+ \S+ UTC: maintenance\.\n$/,
  );
  expect(jsonLines((await thaw(databaseUrl, "gate --json")).out)).toEqual([
    expect.objectContaining({
      is_open: false,
      reason: "maintenance",
      closed_until: expect.stringMatching(ISO),
    }),
  ]);

  const opened = await thaw(databaseUrl, "gate open", { answer: "yes" });
  expect(opened.asked[0]).toMatch(/^No mail goes out since .*, until .*: maintenance\. Open it\? \[y\/N\] $/);
  expect(opened.out).toMatch(/^Opened; it was shut until .*maintenance\.\n$/);
  expect((await thaw(databaseUrl, "gate --json")).out).toContain('"is_open":true');
  expect(await actions(pool)).toMatchObject([
    { actor: await actorOf(pool), action: "close the mail gate" },
    { actor: await actorOf(pool), action: "open the mail gate" },
  ]);
});

test("gate close without a time holds all mail back until somebody opens it, and status tells of it", async ({
  databaseUrl,
}) => {
  const closed = await thaw(databaseUrl, "gate close --reason maintenance", { answer: "y" });
  expect(closed.asked).toEqual(["Hold all mail back until somebody opens the gate? [y/N] "]);
  expect(closed.out).toBe("Closed until somebody opens it.\n");
  expect((await thaw(databaseUrl, "status")).out).toMatch(
    /No mail goes out: maintenance\. \(since .*\)\n {3}Once .*: npm run thaw -- gate open$/m,
  );
  expect((await thaw(databaseUrl, "gate open --yes")).exit).toBe(0);
  expect((await thaw(databaseUrl, "gate")).out).toMatch(/^Mail goes out/);
});

describe("users", () => {
  test("import, list and check write objects with --json; an import leaves an action, an empty one none", async ({
    databaseUrl,
    pool,
  }) => {
    await withFile(`access_key_id,email\n${JANE},jane@example.com\n`, async (file) => {
      expect(jsonLines((await thaw(databaseUrl, `users import ${file} --json`)).out)).toEqual([
        { read: 1, added: 1, changed: 0 },
        { resolved: 0 },
      ]);
      await thaw(databaseUrl, `users import ${file}`);
    });
    expect(await actions(pool)).toEqual([
      { actor: await actorOf(pool), action: "import users", target: "the maps", restore_id: null },
    ]);
    expect(jsonLines((await thaw(databaseUrl, "users list --json")).out)).toEqual([
      { id: JANE, email: "jane@example.com", problem: null },
    ]);
    expect(jsonLines((await thaw(databaseUrl, `users check ${JANE} --json`)).out)).toEqual([
      { id: JANE, email: "jane@example.com", resolved_by: "access_key" },
      { open_requests: 0, without_address: 0 },
    ]);
    expect((await thaw(databaseUrl, "users import /no/such/file")).exit).toBe(1);
  });

  test("remove takes an entry out of the map, and says when it is not there", async ({
    databaseUrl,
    pool,
  }) => {
    await know(pool, JANE);
    expect((await thaw(databaseUrl, `users remove ${JANE}`)).exit).toBe(2);
    expect(await thaw(databaseUrl, `users remove ${JANE}`, { answer: "y" })).toMatchObject({ exit: 0 });
    expect(await query(pool, "select id from map_entries")).toEqual([]);
    expect(await thaw(databaseUrl, `users remove ${JANE} --yes`)).toMatchObject({ exit: 3 });
    expect(await actions(pool)).toMatchObject([{ actor: await actorOf(pool) }]);
  });

  test("erase wants the address typed, and takes it out of requests and mails", async ({
    databaseUrl,
    pool,
  }) => {
    await know(pool, JANE);
    const { restore } = await insertRead(pool, "pending");
    await insertNotification(pool, { status: "sent", sent_at: ago("1 hours") });
    const left = async (): Promise<number> => {
      const { n } = await one(
        pool,
        `select (select count(*) from restore_requests where email = 'jane@example.com')
              + (select count(*) from notifications where email = 'jane@example.com')
              + (select count(*) from map_entries where email = 'jane@example.com') as n`,
      );
      return Number(n);
    };

    const without = await thaw(databaseUrl, "users erase jane@example.com");
    expect(without.err).toMatch(/add --confirm=jane@example\.com/);
    expect(without.exit).toBe(2);
    for (const answer of ["y", "", "john@example.com"]) {
      const { exit, asked } = await thaw(databaseUrl, "users erase jane@example.com", { answer });
      expect(asked[0]).toMatch(/^This cannot be undone.*Type the address to erase it:/);
      expect(exit).toBe(1);
    }
    expect((await thaw(databaseUrl, "users erase jane@example.com --confirm=jane")).exit).toBe(1);
    expect(await left()).toBe(3);

    const erased = await thaw(databaseUrl, "users erase jane@example.com --confirm=jane@example.com");
    expect(erased).toMatchObject({ exit: 0, err: "" });
    expect(await left()).toBe(0);
    expect(await reload(pool, restore)).toMatchObject({ status: "pending" });
    expect(
      await thaw(databaseUrl, "users erase jane@example.com", { answer: "jane@example.com" }),
    ).toMatchObject({ exit: 3 });
  });
});

describe("mails preview", () => {
  test("writes each kind of mail that there is, as HTML and text, and a page of them; without a database", async ({
    pool,
  }) => {
    const directory = mkdtempSync(join(tmpdir(), "thaw-preview-"));
    try {
      const { exit, out } = await thaw("", `mails preview --out ${directory}/new --json`, { env: {} });
      expect(exit).toBe(0);
      const lines = jsonLines(out);
      expect(lines.at(-1)).toEqual({ name: "index", file: join(directory, "new/index.html") });
      const names = Object.keys(MAIL_SAMPLES);
      expect(readdirSync(join(directory, "new")).toSorted()).toEqual(
        [...names.flatMap((name) => [`${name}.html`, `${name}.txt`]), "index.html"].toSorted(),
      );
      const index = readFileSync(join(directory, "new/index.html"), "utf8");
      for (const { name, subject } of lines.slice(0, -1)) {
        expect(index).toContain(`src="${name}.html"`);
        expect(readFileSync(join(directory, `new/${name}.html`), "utf8")).toContain("<!doctype html>");
        expect(subject).toMatch(/./);
      }
      expect(readFileSync(join(directory, "new/hostile_names.html"), "utf8")).not.toMatch(/<b>|\u202E/);
    } finally {
      rmSync(directory, { recursive: true });
    }
    const kinds = await query(pool, "select unnest(enum_range(null::notification_kind))::text as kind");
    expect(new Set(Object.values(MAIL_SAMPLES).map(({ kind }) => kind as string))).toEqual(
      new Set(kinds.map(({ kind }) => kind as string)),
    );
  });
});

describe("help", () => {
  const typed = (words: string): Promise<Ended> => thaw("", words, { env: {} });
  const NAMES = [
    [
      "status",
      "doctor",
      "restore",
      "retry",
      "resend",
      "give-up",
      "resolve",
      "gate",
      "gate open",
      "gate close",
    ],
    ["users import", "users list", "users check", "users remove", "users erase", "mails preview"],
  ].flat();

  plain.for(NAMES)("%s -h has examples first, then options, and needs no database", async (name) => {
    for (const flag of ["-h", "--help"]) {
      const { exit, out, err } = await typed(`${name} ${flag}`);
      expect(out.indexOf(`npm run thaw -- ${name}`)).toBeGreaterThan(0);
      expect(out.indexOf(`Usage: npm run thaw -- ${name} `)).toBeGreaterThan(
        out.indexOf(`npm run thaw -- ${name}`),
      );
      expect(out).toMatch(/--json {2,}one JSON object per line/);
      expect(out).toContain("Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not in that state");
      expect([exit, err]).toEqual([0, ""]);
    }
  });

  plain("lists all commands, on stdout when asked for, else on stderr with 2", async () => {
    const asked = await typed("-h");
    for (const name of NAMES) expect(asked.out).toContain(`npm run thaw -- ${name}`);
    expect(asked.exit).toBe(0);
    expect(await thaw("", "", { env: {} })).toMatchObject({ exit: 2, out: "", err: asked.out });
    const users = await typed("users");
    expect(users.exit).toBe(2);
    expect(users.err).toContain("npm run thaw -- users erase ADDRESS");
    expect(users.err).not.toContain("npm run thaw -- status");
  });

  plain.for<[words: string, message: string]>([
    ["stauts", "There is no command stauts. Did you mean: npm run thaw -- status"],
    ["retyr x", "There is no command retyr. Did you mean: npm run thaw -- retry"],
    ["giveup 1", "There is no command giveup. Did you mean: npm run thaw -- give-up"],
    ["user list", "There is no command user. Did you mean: npm run thaw -- users"],
    ["users delte", "There is no command users delte."],
    ["users lisst", "There is no command users lisst. Did you mean: npm run thaw -- users list"],
    ["frobnicate", "There is no command frobnicate.\n"],
    ["retry", "ID is missing.\n"],
    ["retry 1 2", "2 is one argument too many.\n"],
    ["status --josn", "Unknown option '--josn'"],
    ["gate close --for", "Option '--for <value>' argument missing"],
  ])("%s: %s", async ([words, message]) => {
    const { exit, out, err } = await typed(words);
    expect(err.startsWith(message), err).toBe(true);
    expect([exit, out]).toEqual([2, ""]);
  });
});

describe("a database", () => {
  test("that is away ends with 5, in one sentence without the password", async () => {
    const url = "postgres://thaw:open-sesame@127.0.0.1:1/thaw";
    for (const words of ["status", "retry 01234567 --yes", "gate", "users list"]) {
      const { exit, out, err } = await thaw(url, words);
      expect(err).toMatch(/^Postgres cannot be used: .*ECONNREFUSED.*\. Check DATABASE_URL.*\.\n$/);
      expect(err).not.toContain("sesame");
      expect([exit, out]).toEqual([5, ""]);
    }
  });

  test("with another password ends with 5, and one that is not named with 1", async ({ databaseUrl }) => {
    const url = Object.assign(new URL(databaseUrl), { password: "wrong" });
    expect(await thaw(url.href, "status")).toMatchObject({ exit: 5 });
    expect(await thaw("", "status", { env: {} })).toMatchObject({
      exit: 1,
      err: expect.stringContaining("DATABASE_URL: is missing"),
    });
  });

  test("that was not migrated ends with 1, and with what to run", async ({ databaseUrl, pool }) => {
    await pool.query("delete from thaw_migrations where name = 'views.sql'");
    expect(await thaw(databaseUrl, "status")).toMatchObject({
      exit: 1,
      err: "The database lacks sql/views.sql of this build. Run: npm run migrate\n",
    });
  });

  test("where somebody holds a lock ends with 1, and says so", async ({ databaseUrl, pool }) => {
    const { request } = await insertRead(pool, "restored", {});
    const mail = await insertNotification(pool, {
      status: "failed",
      failure_code: "x",
      failure_message: "x",
    });
    await pool.query("update restore_requests set post_notification_id = $2 where id = $1", [
      request["id"],
      mail["id"],
    ]);
    const { exit, err } = await onConnection(
      pool,
      ["begin", "select pg_advisory_xact_lock(forget_lock())"],
      () => thaw(databaseUrl, `resend ${mail["id"]} --yes`),
    );
    expect(err).toMatch(/^Postgres did not get it done in time .*Try again\.\n$/);
    expect(exit).toBe(1);
    expect(await actions(pool)).toEqual([]);
  });
});

describe("database roles", () => {
  withRoles(
    "thaw_operator runs all commands but users list, thaw_reader those that look",
    async ({ migrated: roles }) => {
      const owner = roles.as("thaw_migrator");
      const [one, two] = [randomUUID(), randomUUID()];
      for (const id of [one, two]) await insertRestore(owner, "not_started", { id, s3_key: id });
      await insertNotification(owner, { id: one, status: "failed", failure_code: "x", failure_message: "x" });
      await insertNotification(owner, {
        id: two,
        status: "unknown",
        failure_code: "x",
        failure_message: "x",
      });

      const operator = roles.urlOf("thaw_operator");
      await withFile(`access_key_id,email\n${JANE},jane@example.com\n`, async (file) => {
        for (const [words, exit] of [
          ["status", 1],
          [`retry ${one} --yes`, 0],
          [`give-up ${two} --yes`, 0],
          [`resend ${one} --yes`, 0],
          [`resolve ${two} --sent --yes`, 0],
          ["gate close --for 1h --reason test --yes", 0],
          ["gate", 0],
          ["gate open --yes", 0],
          [`users import ${file}`, 0],
          [`users check ${JANE}`, 0],
          ["users check arn:aws:iam::111122223333:role/R", 0],
          [`users remove ${JANE} --yes`, 0],
          ["users erase john@example.com --confirm=john@example.com", 3],
        ] as const) {
          const ended = await thaw(operator, words);
          expect(ended.exit, `${words}\n${ended.err}`).toBe(exit);
        }
      });
      expect(await query(owner, "select distinct actor, role from actions")).toEqual([
        { actor: "anna (thaw_operator)", role: "thaw_operator" },
      ]);

      const reader = roles.urlOf("thaw_reader");
      expect(await thaw(reader, "status")).toMatchObject({ exit: 1, err: "" });
      expect(await thaw(reader, "gate")).toMatchObject({ exit: 0, err: "" });
      const FORBIDDEN =
        /^The database role in DATABASE_URL may not do this \(permission denied.*thaw_operator/;
      for (const [url, words] of [
        [reader, `retry ${one} --yes`],
        [reader, "gate open --yes"],
        [reader, `users remove ${JANE} --yes`],
        [operator, "users list"],
        [roles.urlOf("thaw_server"), "status"],
      ] as const) {
        const ended = await thaw(url, words);
        expect(ended.err, words).toMatch(FORBIDDEN);
        expect(ended.exit).toBe(1);
      }
    },
  );
});

describe("as a process", () => {
  const env = (databaseUrl: string) => ({ ...baseEnv(), DATABASE_URL: databaseUrl });
  const THAW = join(ROOT, "server/cli/thaw.ts");

  test("writes results to stdout, all else to stderr, and ends with the exit code", async ({
    databaseUrl,
    pool,
  }) => {
    const { restore } = await insertRead(pool, "pending");
    const ran = (...words: string[]) =>
      new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
        execFile(
          process.execPath,
          [THAW, ...words],
          { cwd: tmpdir(), env: env(databaseUrl) },
          (error, stdout, stderr) => resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
        );
      });
    const status = await ran("status");
    expect(status).toMatchObject({ code: 1, stderr: "" });
    expect(status.stdout).toMatch(/^2 things need you: no worker, stuck\.\n/);
    // No terminal is there.
    expect(await ran("retry", restore["id"] as string)).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringContaining("add --yes"),
    });
    expect(await ran("give-up", restore["id"] as string, "--yes")).toMatchObject({ code: 0, stderr: "" });
    const [done] = await actions(pool);
    expect(done?.["actor"]).toMatch(/^\S+ \(\S+\)$/);
  });

  test("ends quietly, with its exit code, when nobody reads it to the end", async ({ databaseUrl }) => {
    const child = spawn(process.execPath, [THAW, "status"], {
      cwd: tmpdir(),
      env: env(databaseUrl),
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.destroy();
    let stderr = "";
    child.stderr.on("data", (chunk) => (stderr += String(chunk)));
    const code = await new Promise((resolve) => child.once("close", resolve));
    expect([code, stderr]).toEqual([1, ""]);
  });

  test.skipIf(process.platform !== "linux")(
    "asks at a real terminal, and takes Ctrl-C and Ctrl-D for a no",
    async ({ databaseUrl, pool }) => {
      const { restore } = await insertRead(pool, "pending");
      for (const key of ["\u0003", "\u0004", "n\n"]) {
        const { code, output } = await atTerminal(`give-up ${restore["id"]}`, env(databaseUrl), key);
        expect(output).toContain("Nothing was changed.");
        expect(code).toBe(1);
      }
      expect(await reload(pool, restore)).toMatchObject({ status: "pending" });
      const { code, output } = await atTerminal(`give-up ${restore["id"]}`, env(databaseUrl), "y\n");
      expect(output).toContain("given up; its readers are told");
      expect(code).toBe(0);
    },
  );

  test.skipIf(process.platform !== "linux")(
    "has colours on a terminal, and none with NO_COLOR",
    async ({ databaseUrl }) => {
      const plainly = await atTerminal("status", { ...env(databaseUrl), NO_COLOR: "1" }, "");
      expect(plainly.output).toMatch(/^1 thing needs you/);
      expect(plainly.output).not.toContain("\u001B");
      const colourful = await atTerminal("status", env(databaseUrl), "");
      expect(colourful.output.startsWith("\u001B[31m1 thing needs you")).toBe(true);
    },
  );

  test("of the doctor writes objects with --json", async ({ databaseUrl }) => {
    const { code, output } = await runCommand(["server/cli/thaw.ts", "doctor", "--json"], {
      DATABASE_URL: databaseUrl,
      AWS_EC2_METADATA_DISABLED: "true",
      AWS_CONFIG_FILE: "/dev/null",
      AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
    });
    const lines = jsonLines(output);
    expect(lines[0]).toMatchObject({
      level: "fail",
      what: "settings",
      todo: expect.stringContaining("Set these"),
    });
    expect(lines).toContainEqual({ level: "ok", what: "database", found: "migrated, and current" });
    expect(code).toBe(1);
  });
});
