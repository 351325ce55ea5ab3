/** What operators see and do. */
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";

import { describe, expect } from "vitest";

import { createLog } from "../../server/log.ts";
import { duration, plain } from "../../server/pages/text.ts";
import { csvCell } from "../../server/wording/csv.ts";
import { PAGES_QUERY_TIMEOUT_MS } from "../../server/pages/queries.ts";
import { createPool } from "../../server/postgres/pool.ts";
import { newPool, test } from "../support/database.ts";
import { operator } from "../support/pages.ts";
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
  reload,
  tell,
  type Row,
  type State,
} from "../support/rows.ts";
import { BUCKET, JANE } from "../support/thaw.ts";

const headingOf = (text: string): string => /<h1>([\s\S]*?)<\/h1>/.exec(text)?.[1] ?? "";

describe("the first screen", () => {
  test("says that all is well when a worker lives and nothing is stuck", async ({ pool }) => {
    const holder = await pool.connect();
    await pool.query("insert into workers (id) values ('worker-1')");
    await holder.query("select pg_advisory_lock(worker_lock('worker-1'))");

    const { text } = await operator(pool).get("/ops");

    expect(headingOf(text)).toBe("All is well.");
    expect(text).toContain("1 alive");
    holder.release(true);
  });

  test("says what needs somebody, since when, and what to do", async ({ pool }) => {
    const stuck = await insertRead(pool, "not_started", {
      restore: {
        failing_since: ago("3 hours"),
        failure_code: "AccessDenied",
        failure_message: "S3 does not let Thaw read it.",
      },
    });
    await pool.query(
      "update mail_gate set closed_until = now() + interval '2 hours', reason = 'Resend: quota exceeded'",
    );
    const pages = operator(pool);

    const { text } = await pages.get("/ops");

    expect(headingOf(text)).toBe("3 things need you");
    expect(text).toContain("No worker is alive");
    expect(text).toContain("Resend: quota exceeded");
    expect(text).toContain("S3 refuses, or cannot be reached");
    expect(text).toContain("3 h ago");
    expect(text).toContain('href="/ops/confirm/open_gate"');
    const [, list = ""] = /href="(\/ops\/stuck\?[^"]+)"/.exec(text) ?? [];
    const stuckPage = await pages.get(list);
    expect(stuckPage.text).toContain("AccessDenied");
    expect(stuckPage.text).toContain(`/ops/restores/${stuck.restore["id"]}`);
  });

  test("shows the rest when so much is stuck that it cannot be counted in time", async ({ pool }) => {
    await insertRead(pool, "not_started", {
      restore: { failing_since: ago("3 hours"), failure_code: "AccessDenied", failure_message: "No." },
    });
    // As if counting took too long.
    const tooSlow = Object.assign(new Error("canceling statement due to statement timeout"), {
      code: "57014",
    });
    const slow = Object.create(pool, {
      query: {
        value: (text: string, values: unknown[]) =>
          /from findings order/.test(text) ? Promise.reject(tooSlow) : pool.query(text, values),
      },
    }) as typeof pool;
    const pages = operator(slow);

    const { text } = await pages.get("/ops");
    expect(headingOf(text)).toBe("2 things need you");
    expect(text).toContain("No worker is alive");
    expect(text).toContain("So many requests are stuck");
    expect((await pages.get("/ops/stuck")).text).toContain("AccessDenied");
  });

  test("is read from the database once, however many look", async ({ pool }) => {
    let asked = 0;
    const counting = Object.create(pool, {
      query: {
        value: (text: string, values: unknown[]) => {
          if (text.includes("from findings")) asked++;
          return pool.query(text, values);
        },
      },
    }) as typeof pool;
    const pages = operator(counting);

    await Promise.all(Array.from({ length: 20 }, () => pages.get("/ops")));

    expect(asked).toBe(1);
  });
});

describe("a list of restores", () => {
  test("goes on page by page, also where many have the same time", async ({ pool }) => {
    const at = ago("2 hours");
    const ids = new Set<string>();
    for (let n = 0; n < 120; n++) {
      const { id } = await insertRestore(pool, "pending", { s3_key: `film-${n}`, status_at: at });
      ids.add(id as string);
    }
    const pages = operator(pool);

    for (const order of ["", "oldest"]) {
      const seen: string[] = [];
      let path = `/ops/restores?state=open&order=${order}`;
      for (let page = 0; page < 3; page++) {
        const { text } = await pages.get(path);
        seen.push(
          ...[...text.matchAll(/href="\/ops\/restores\/([0-9a-f-]{36})"/g)].map(([, id]) => id ?? ""),
        );
        path = (/rel="next" href="([^"]+)"/.exec(text)?.[1] ?? "").replaceAll("&amp;", "&");
      }
      expect(path).toBe("");
      expect(seen).toHaveLength(120);
      expect(new Set(seen)).toEqual(ids);
    }
  });

  test("is filtered by state and by day", async ({ pool }) => {
    await insertRestore(pool, "failed", { s3_key: "old", status_at: new Date("2026-03-01T23:59:59Z") });
    await insertRestore(pool, "failed", { s3_key: "young", status_at: new Date("2026-03-02T00:00:00Z") });
    await insertRestore(pool, "closed", { s3_key: "over" });
    const pages = operator(pool);
    const keys = async (search: string): Promise<string[]> =>
      [...(await pages.get(`/ops/restores?${search}`)).text.matchAll(/s3:\/\/archive\/(\w+)/g)].map(
        ([, key]) => key ?? "",
      );

    expect(await keys("")).toEqual(["young", "old"]);
    expect(await keys("state=failed&to=2026-03-01")).toEqual(["old"]);
    expect(await keys("state=failed&from=2026-03-02")).toEqual(["young"]);
    expect(await keys("state=closed")).toEqual(["over"]);
    expect(await keys("state=pending")).toEqual([]);
    expect((await pages.get("/ops/restores?state=bogus")).status).toBe(404);
    // What cannot be a day or a place in the list is left out.
    expect(await keys("state=failed&from=x&after=y")).toEqual(["young", "old"]);
  });

  test("comes as CSV", async ({ pool }) => {
    await insertRead(pool, "failed");
    const { text, headers } = await operator(pool).get("/ops/restores.csv?state=failed");

    expect(headers.get("content-disposition")).toBe('attachment; filename="restores.csv"');
    const lines = text.split("\r\n");
    expect(lines[0]).toMatch(/^"id","s3_bucket"/);
    expect(lines[1]).toContain('"film.mov"');
    expect(lines[1]).toContain('"jane@example.com"');
    expect(lines).toHaveLength(3);
  });
});

describe("the search box", () => {
  test("finds a restore by the id of its request, its own id, its path, and a mail by its id", async ({
    pool,
  }) => {
    const { restore, request } = await insertRead(pool, "restored");
    const mail = await tell(pool, request);
    const pages = operator(pool);
    const to = async (q: string) =>
      (await pages.get(`/ops/search?q=${encodeURIComponent(q)}`)).headers.get("location");

    const page = `/ops/restores/${restore["id"]}`;
    expect(await to(request["id"] as string)).toBe(page);
    expect(await to(restore["id"] as string)).toBe(page);
    expect(await to(`s3://${BUCKET}/film.mov`)).toBe(page);
    expect(await to(mail["id"] as string)).toBe(`/ops/mails/${mail["id"]}`);
    expect((await pages.get(`/ops/search?q=${randomUUID()}`)).status).toBe(404);
  });

  test("finds reads by the beginning of a key, an address, an access key, an ARN", async ({ pool }) => {
    const arn = "arn:aws:sts::111122223333:assumed-role/reader/jane";
    await insertRead(pool, "pending", { request: { principal: arn, email: "Jane@example.com" } });
    await insertRead(pool, "pending", {
      restore: { s3_key: "other.mov" },
      request: { access_key_id: JOHN, email: "john@example.com" },
    });
    const pages = operator(pool);
    const keys = async (q: string): Promise<string[]> =>
      [
        ...(await pages.get(`/ops/search?q=${encodeURIComponent(q)}`)).text.matchAll(
          /<bdi>s3:\/\/archive\/([\w.]+)/g,
        ),
      ].map(([, key]) => key ?? "");

    for (const q of [
      "film",
      `s3://${BUCKET}/fi*`,
      "jane@EXAMPLE.com",
      "mailto:jane@example.com",
      JANE,
      arn,
      "arn:aws:sts::111122223333:*",
    ])
      expect(await keys(q), q).toEqual(["film.mov"]);
    expect(await keys(`s3://${BUCKET}/`)).toHaveLength(2);
    for (const q of ["%", "nobody@example.com", "AKIANOBODY0000000001", "arn:aws:iam::1:user/x", "\u0000"])
      expect(await keys(q), q).toEqual([]);
  });

  test("goes on page by page, by name or from the newest on, past every restore once", async ({ pool }) => {
    const arn = "arn:aws:sts::111122223333:assumed-role/reader/jane";
    const wanted = new Set<string>();
    const add = async (restore: Row, state: State = "closed"): Promise<void> => {
      const { restore: made } = await insertRead(pool, state, {
        restore,
        request: { principal: arn, email: "Jane@example.com", requested_at: ago("2 hours") },
      });
      wanted.add(made["id"] as string);
    };
    // In the order of bytes Z comes before a, and é after them; a language sorts otherwise.
    for (const key of ["films/Z", "films/a", "films/é", "films/\u{10FFFF}"]) {
      for (let n = 0; n < 15; n++) await add({ s3_key: `${key}${n}` });
      await add({ s3_key: `${key}1` }, "pending");
      await add({ s3_key: `${key}1`, version_id: "v" }, "failed");
    }
    // Restored again and again.
    for (let n = 0; n < 60; n++) await add({ s3_key: "films/a1" });
    await add({ s3_key: "films/x", s3_bucket: "other" });
    await insertRestore(pool, "pending", { s3_key: "film" });
    await insertRestore(pool, "pending", { s3_key: "filmt" });
    const pages = operator(pool);
    const walk = async (q: string): Promise<string[]> => {
      const seen: string[] = [];
      let path = `/ops/search?q=${encodeURIComponent(q)}`;
      while (path !== "") {
        const { text } = await pages.get(path);
        seen.push(
          ...[...text.matchAll(/href="\/ops\/restores\/([0-9a-f-]{36})"/g)].map(([, id]) => id ?? ""),
        );
        path = (/rel="next" href="([^"]+)"/.exec(text)?.[1] ?? "").replaceAll("&amp;", "&");
      }
      return seen;
    };

    for (const q of ["films/", "s3://*", "jane@example.com", JANE, arn, "arn:aws:sts::*"]) {
      const seen = (await walk(q)).filter((id) => wanted.has(id));
      expect(seen, q).toHaveLength(wanted.size);
      expect(new Set(seen), q).toEqual(wanted);
    }
    expect(await walk("films/")).toHaveLength(wanted.size);
    expect(await walk(`s3://${BUCKET}/films/`)).toHaveLength(wanted.size - 1);
    expect(await walk(`s3://${BUCKET}/films/a1*`)).toHaveLength(68);
  });
});

describe("the page of a restore", () => {
  test("shows its history, what S3 said, its readers, their mails, and what operators did", async ({
    pool,
  }) => {
    const { restore, request } = await insertRead(pool, "pending");
    await insertRequest(pool, restore, { access_key_id: JOHN, email: null, user_resolved: true });
    const mail = await tell(pool, request);
    await pool.query(
      `update restores set status = 'failed', status_at = now(), failure_code = 'NoSuchKey', failure_message = 'It was deleted.' where id = $1`,
      [restore["id"]],
    );
    const { text } = await operator(pool).get(`/ops/restores/${restore["id"]}`);

    expect(headingOf(text)).toContain(`s3://${BUCKET}/film.mov`);
    for (const part of [
      "NoSuchKey",
      "It was deleted.",
      JANE,
      JOHN,
      "nobody known",
      `/ops/mails/${mail["id"]}`,
      "→ failed",
    ])
      expect(text).toContain(part);
    expect((await operator(pool).get(`/ops/mails/${mail["id"]}`)).text).toContain("film.mov");
  });

  test("of one that is not there says so", async ({ pool }) => {
    for (const path of [`/ops/restores/${randomUUID()}`, "/ops/restores/1", "/ops/mails/x"]) {
      const { status, text } = await operator(pool).get(path);
      expect(status).toBe(404);
      expect(text).toContain("There is no such page");
    }
  });
});

describe("an action", () => {
  const actions = (pool: Parameters<typeof query>[0]) =>
    query(pool, "select actor, action, target from actions order by id");

  test("retries a restore, leaves who did it, and shows what it did", async ({ pool }) => {
    const { restore } = await insertRead(pool, "failed");
    const pages = operator(pool, { name: "Ada Löwe" });

    const answer = await pages.post("/ops/act/retry", { id: restore["id"] as string });

    expect(answer.status).toBe(303);
    expect(await actions(pool)).toEqual([{ actor: "Ada Löwe", action: "retry", target: restore["id"] }]);
    expect(await query(pool, "select status from restores where closed_at is null")).toEqual([
      { status: "not_started" },
    ]);
    const { text } = await pages.get(answer.headers.get("location") ?? "");
    expect(text).toContain("Done: <bdi>retry</bdi>");
    expect(text).toContain("a new restore begins");
    // The history has the name, too.
    expect(await query(pool, "select distinct by from restore_steps where by <> session_user")).toEqual([
      { by: "Ada Löwe" },
    ]);
  });

  test("that no longer applies says why, and leaves nothing", async ({ pool }) => {
    const { restore } = await insertRead(pool, "closed");
    const pages = operator(pool);

    const retried = await pages.post("/ops/act/retry", { id: restore["id"] as string });
    expect(retried.status).toBe(409);
    expect(retried.text).toContain("this restore is closed");
    const given_up = await pages.post("/ops/act/give_up", { id: restore["id"] as string });
    expect(given_up.status).toBe(409);
    expect(given_up.text).toContain("there is nothing to give up");
    expect(await actions(pool)).toEqual([]);
  });

  test("gives a restore up", async ({ pool }) => {
    const { restore } = await insertRead(pool, "pending");
    expect((await operator(pool).post("/ops/act/give_up", { id: restore["id"] as string })).status).toBe(303);
    expect(await reload(pool, restore)).toMatchObject({ status: "failed", failure_code: "given_up" });
    expect(await actions(pool)).toMatchObject([{ actor: "Ada", action: "give up" }]);
  });

  test("sends a mail again, or notes what became of one", async ({ pool }) => {
    const mails = [];
    for (let n = 0; n < 3; n++)
      mails.push(
        await insertNotification(pool, { status: "unknown", failure_message: "Resend did not answer." }),
      );
    const pages = operator(pool);

    for (const [index, action] of ["resend", "was_sent", "was_not_sent"].entries()) {
      const id = mails[index]?.["id"] as string;
      const answer = await pages.post(`/ops/act/${action}`, { id });
      expect(answer.status, action).toBe(303);
      expect((await pages.get(answer.headers.get("location") ?? "")).text).toContain("Done:");
      expect((await pages.post(`/ops/act/${action}`, { id })).status, action).toBe(409);
    }
    const rows = await query(pool, "select status, superseded_by is not null as again from notifications");
    expect(rows.filter((row) => row["again"] === true)).toHaveLength(2);
    expect(rows.filter((row) => row["status"] === "sent")).toHaveLength(1);
    expect((await actions(pool)).every((row) => row["actor"] === "Ada")).toBe(true);
  });

  /** What the form of a page sends. */
  const fieldsOf = (text: string): Record<string, string> =>
    Object.fromEntries(
      [...text.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)"/g)].map(([, name, value]) => [
        name ?? "",
        value ?? "",
      ]),
    );

  test("does nothing when what was confirmed has changed by then", async ({ pool }) => {
    const pages = operator(pool);
    const { restore } = await insertRead(pool, "pending");
    const mail = await insertNotification(pool, { status: "unknown", failure_message: "no answer" });
    const asked = new Map<string, Record<string, string>>();
    for (const [action, id] of [
      ["retry", restore["id"]],
      ["resend", mail["id"]],
    ])
      asked.set(action as string, fieldsOf((await pages.get(`/ops/confirm/${action}?id=${id}`)).text));
    // By now a retry would begin a new restore, which costs money; and somebody has found out that the mail was sent.
    await pool.query("select give_up_restore($1), resolve_notification($2, true)", [
      restore["id"],
      mail["id"],
    ]);
    const before = await query(pool, "select * from restores, notifications");

    for (const [action, fields] of asked) {
      const answer = await pages.post(`/ops/act/${action}`, fields);
      expect(answer.status, action).toBe(409);
      expect(answer.text).toContain("It has changed since the page that you confirmed");
    }
    expect(await query(pool, "select * from restores, notifications")).toEqual(before);
    expect((await actions(pool)).map(({ actor }) => actor)).not.toContain("Ada");
    const again = fieldsOf((await pages.get(`/ops/confirm/retry?id=${restore["id"]}`)).text);
    expect((await pages.post("/ops/act/retry", again)).status).toBe(303);
  });

  test("opens the closing of the gate that was confirmed, and no other", async ({ pool }) => {
    const pages = operator(pool);
    await pool.query("select pause_mail('10 minutes', 'rate limit')");
    const fields = fieldsOf((await pages.get("/ops/confirm/open_gate")).text);
    await pool.query("select close_mail_gate(null, 'restored from a backup')");

    expect((await pages.post("/ops/act/open_gate", fields)).status).toBe(409);
    expect(await one(pool, "select reason from mail_gate_status")).toEqual({
      reason: "restored from a backup",
    });
    const now = fieldsOf((await pages.get("/ops/confirm/open_gate")).text);
    expect((await pages.post("/ops/act/open_gate", now)).status).toBe(303);
    expect(await one(pool, "select is_open from mail_gate_status")).toEqual({ is_open: true });
  });

  test("on all that match leaves out what came into that state since, and counts what it did", async ({
    pool,
  }) => {
    const pages = operator(pool);
    const first = await insertRead(pool, "failed", { restore: { s3_key: "first" } });
    await insertRead(pool, "failed", { restore: { s3_key: "second" } });
    const asked = fieldsOf((await pages.get("/ops/confirm/retry_all?state=failed")).text);
    await pool.query("select retry_restore($1)", [first.restore["id"]]);
    await insertRead(pool, "failed", { restore: { s3_key: "later", status_at: new Date() } });

    expect((await pages.post("/ops/act/retry_all", asked)).status).toBe(303);
    expect(
      await query(pool, "select s3_key from restores where status = 'failed' and closed_at is null"),
    ).toEqual([{ s3_key: "later" }]);
    expect((await actions(pool)).filter(({ actor }) => actor === "Ada")).toHaveLength(1);
  });

  test("opens the mail gate", async ({ pool }) => {
    await pool.query("update mail_gate set closed_until = now() + interval '1 hour', reason = 'quota'");
    const pages = operator(pool);
    expect((await pages.get("/ops/confirm/open_gate")).text).toContain("quota");
    expect((await pages.post("/ops/act/open_gate", {})).status).toBe(303);
    expect(await one(pool, "select is_open from mail_gate_status")).toEqual({ is_open: true });
    // It is open now: nothing to do.
    expect((await pages.post("/ops/act/open_gate", {})).status).toBe(409);
    expect(await actions(pool)).toHaveLength(1);
  });

  test("on all that match counts them again, and does nothing when there are more by then", async ({
    pool,
  }) => {
    for (let n = 0; n < 3; n++) await insertRead(pool, "failed", { restore: { s3_key: `film-${n}` } });
    const pages = operator(pool);
    const asked = await pages.get("/ops/confirm/retry_all?state=failed");
    expect(asked.text).toContain("Retry 3 restores");
    await insertRead(pool, "failed", { restore: { s3_key: "one more" } });

    const refused = await pages.post("/ops/act/retry_all", { state: "failed", count: "3" });
    expect(refused.status).toBe(409);
    expect(refused.text).toContain("Now 4 restores match");
    expect(await actions(pool)).toEqual([]);

    const done = await pages.post("/ops/act/retry_all", { state: "failed", count: "4" });
    expect(done.status).toBe(303);
    expect(await actions(pool)).toHaveLength(4);
    expect((await pages.get(done.headers.get("location") ?? "")).text).toContain("Done: <bdi>retry</bdi>");
  });

  test("on all mails that Resend refused, or may have sent, sends again those that may be, and leaves a row for each", async ({
    pool,
  }) => {
    const failed = {
      status: "failed",
      failure_code: "validation_error",
      failure_message: "No such mailbox.",
    };
    const [one_of, other] = [await insertNotification(pool, failed), await insertNotification(pool, failed)];
    // Neither a mail that waits, nor one that was sent again already, nor one of a person who was erased.
    await insertNotification(pool, { status: "sealed" });
    await insertNotification(pool, { ...failed, superseded_by: one_of["id"] });
    await insertNotification(pool, { ...failed, failure_code: "erased" });
    await insertNotification(pool, { status: "unknown", failure_message: "Perhaps." });
    const pages = operator(pool);
    for (const [path, offered] of [
      ["/ops/mails", false],
      ["/ops/mails?status=waiting", false],
      ["/ops/mails?status=failed", true],
      ["/ops/mails?status=unknown", true],
    ] as const)
      expect((await pages.get(path)).text.includes("/ops/confirm/resend_all"), path).toBe(offered);
    const asked = await pages.get("/ops/confirm/resend_all?status=failed");
    expect(headingOf(asked.text)).toBe("Send 2 mails again?");
    await insertNotification(pool, failed);

    const refused = await pages.post("/ops/act/resend_all", { status: "failed", count: "2" });
    expect(refused.status).toBe(409);
    expect(refused.text).toContain("Now 3 mails match");
    expect(await actions(pool)).toEqual([]);

    const done = await pages.post("/ops/act/resend_all", { status: "failed", count: "3" });
    expect(done.status).toBe(303);
    expect((await pages.get(done.headers.get("location") ?? "")).text).toContain(
      "Done: <bdi>send again</bdi>",
    );
    const left = await actions(pool);
    expect(left).toHaveLength(3);
    expect(left).toEqual(
      expect.arrayContaining(
        [one_of, other].map(({ id }) => ({ actor: "Ada", action: "send again", target: id as string })),
      ),
    );
    // Nothing is left of them, and the unclear one was not touched.
    expect((await pages.post("/ops/act/resend_all", { status: "failed", count: "9" })).status).toBe(409);
    expect((await pages.post("/ops/act/resend_all", { status: "sealed", count: "9" })).status).toBe(404);
    expect(await one(pool, "select count(*)::int as n from notifications where status = 'sealed'")).toEqual({
      n: 4,
    });
    expect(await one(pool, "select superseded_by from notifications where status = 'unknown'")).toEqual({
      superseded_by: null,
    });
  });

  test("on what is stuck works on the restores behind it", async ({ pool }) => {
    await insertRead(pool, "not_started", {
      restore: {
        failing_since: ago("3 hours"),
        failure_code: "AccessDenied",
        failure_message: "No.",
        attempt_after: ahead("1 hours"),
      },
    });
    const problem = "S3 refuses, or cannot be reached";
    const pages = operator(pool);
    expect((await pages.get(`/ops/stuck?problem=${encodeURIComponent(problem)}`)).text).toContain(
      "/ops/confirm/retry_all?problem=",
    );
    expect((await pages.post("/ops/act/retry_all", { problem, count: "1" })).status).toBe(303);
    expect(await actions(pool)).toMatchObject([{ action: "retry" }]);
  });
});

describe("hostile names", () => {
  const NAMES = [
    `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`,
    "invoice\u202Efdp.exe",
    "a\nb\tc\u0007d",
    `=HYPERLINK("http://evil.example","x")`,
    "ž".repeat(512),
    "javascript:alert(1)",
  ];

  test.for(NAMES)("%j is inert and readable on every page and in CSV", async (name, { pool }) => {
    const text = { failure_code: name.slice(0, 100), failure_message: name };
    const { restore, request } = await insertRead(pool, "not_started", {
      restore: { s3_key: name, version_id: name.slice(0, 200), failing_since: ago("2 hours"), ...text },
      request: { access_key_id: "", principal: name },
    });
    const mail = await insertNotification(pool, { status: "failed", ...text });
    await pool.query("update restore_requests set pre_notification_id = $2 where id = $1", [
      request["id"],
      mail["id"],
    ]);
    await pool.query("insert into workers (id) values ($1)", [name]);
    await pool.query("insert into task_runs (task, failed_at, error) values ('pre_notify', now(), $1)", [
      name,
    ]);
    await pool.query(
      "update mail_gate set closed_until = now() + interval '1 hour', reason = $1, sender = $1",
      [name],
    );
    await pool.query(
      "insert into actions (actor, action, target, restore_id, after) values ($1, $1, $1, $2, jsonb_build_object('did', $1::text))",
      [name, restore["id"]],
    );
    const pages = operator(pool);

    const q = encodeURIComponent(name);
    for (const path of [
      "/ops",
      "/ops/restores",
      `/ops/restores/${restore["id"]}`,
      "/ops/stuck",
      `/ops/stuck?problem=${q}`,
      `/ops/search?q=${q}`,
      `/ops/search?q=s3://${BUCKET}/${q}x`,
      "/ops/mails",
      `/ops/mails/${mail["id"]}`,
      "/ops/workers",
      "/ops/actions",
      `/ops/confirm/retry?id=${restore["id"]}`,
    ]) {
      const page = await pages.get(path);
      expect(page.status, path).toBe(200);
      expect(page.text, path).not.toMatch(/<script>|<img|[\u202E]|href="javascript:/);
      expect(page.text, path).not.toContain("\u0007");
      // Nothing but our own addresses.
      for (const [, to] of page.text.matchAll(/(?:href|action|src)="([^"]*)"/g))
        expect(to).toMatch(/^(\/ops|#main)/);
    }
    expect((await pages.get(`/ops/confirm/retry_all?problem=${q}`)).status).toBe(404);
    const shown = (await pages.get(`/ops/restores/${restore["id"]}`)).text;
    if (name.includes("\u202E"))
      expect(shown).toContain('invoice<span class="invisible">U+202E</span>fdp.exe');
    if (name.startsWith("ž")) expect(shown).toContain(name);

    for (const path of ["/ops/restores.csv", "/ops/mails.csv"]) {
      const { text: file } = await pages.get(path);
      expect(file.split("\r\n"), path).toHaveLength(3);
      expect(file).not.toMatch(/(^|,)"?\s*[=+\-@]/m);
      for (const hidden of ["\u202E", "\u0007", "\t"]) expect(file).not.toContain(hidden);
    }
  });
});

describe("when the database", () => {
  test("is well and all connections are busy, a page does not say that Postgres is away", async ({
    pool,
    databaseUrl,
  }) => {
    const busy = createPool(
      databaseUrl,
      { name: "pages", max: 1, query_timeout_ms: PAGES_QUERY_TIMEOUT_MS },
      createLog("silent"),
    );
    const held = await busy.connect();
    try {
      for (const path of ["/ops/restores", "/ops/stuck"]) {
        const page = await operator(busy).get(path);
        expect(page.status).toBe(503);
        expect(page.text).toContain("Too many pages at once");
        expect(page.text).not.toContain("nothing is restored");
      }
    } finally {
      held.release();
      await busy.end();
    }
    expect((await operator(pool).get("/ops/restores")).status).toBe(200);
  });

  test("does not answer in time, the page says so", async ({ pool, databaseUrl }) => {
    const log = createLog("silent");
    const slow = createPool(
      databaseUrl,
      { name: "pages", max: 5, query_timeout_ms: PAGES_QUERY_TIMEOUT_MS },
      log,
    );
    const locker = await pool.connect();
    await locker.query("begin; lock table restores in access exclusive mode");
    const pages = operator(slow, { log });

    const list = await pages.get("/ops/restores");
    expect(list.status).toBe(503);
    expect(list.text).toContain("This took too long");
    // The overview shows what it can.
    const { status, text } = await pages.get("/ops");
    expect(status).toBe(200);
    expect(text).toContain("This took longer than 3 seconds");
    expect(text).toContain("The gate is open");

    await locker.query("rollback");
    locker.release();
    expect((await pages.get("/ops/restores")).status).toBe(200);
    await slow.end();
  });

  test("is away, every page says so, and works again when it is back", async ({ databaseUrl }) => {
    // A port where nobody listens.
    const server = createServer();
    const port = await new Promise<number>((resolve) => {
      server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port));
    });
    await new Promise((resolve) => server.close(resolve));
    const url = Object.assign(new URL(databaseUrl), { hostname: "127.0.0.1", port: String(port) }).href;
    const away = newPool(url);
    const pages = operator(away);

    for (const path of [
      "/ops",
      "/ops/restores",
      "/ops/workers",
      "/ops/actions",
      `/ops/restores/${randomUUID()}`,
    ]) {
      const { status, text } = await pages.get(path);
      expect(status, path).toBe(503);
      expect(text).toContain("Postgres does not answer");
      expect(text).not.toContain(String(port));
    }
    expect((await pages.post("/ops/act/open_gate", {})).status).toBe(503);
    await away.end();
  });

  test("lacks what this build needs, the page says what to run", async ({ pool }) => {
    await pool.query("drop view restore_details");
    const { status, text } = await operator(pool).get("/ops/restores");
    expect(status).toBe(503);
    expect(text).toContain("npm run migrate");
  });
});

describe("texts", () => {
  test("are times as people say them", () => {
    expect([0, 59, 61, 3600, 5400, 90_000, 864_000].map(duration)).toEqual([
      "0 s",
      "59 s",
      "1 min",
      "1 h",
      "1 h 30 min",
      "1 d 1 h",
      "10 d",
    ]);
  });

  test("of a CSV cell never start a formula", () => {
    for (const text of ["=1+1", "+1", "-1", "@a", "\t=1", " =1", "\r=1"])
      expect(csvCell(text), text).toMatch(/^"'/);
    expect(csvCell('a "b", c')).toBe('"a ""b"", c"');
    expect(csvCell(-1)).toBe('"-1"');
    expect(plain("a\u0000\u00ADb c")).toBe("a[U+0000][U+00AD]b c");
  });
});

test("in the templates every attribute is quoted, and nothing is raw", () => {
  const directory = `${ROOT}/server/pages`;
  for (const file of readdirSync(directory).filter((name) => name.endsWith(".ts"))) {
    const source = readFileSync(`${directory}/${file}`, "utf8");
    expect(source, file).not.toMatch(/\b[a-z-]+=\$\{(?!.*`\))/);
    expect(source, file).not.toMatch(/\braw\(|\bstyle="|\bon[a-z]+="/);
  }
});
