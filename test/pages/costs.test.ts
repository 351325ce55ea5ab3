/** Holds, limits and estimates on the operator's pages. */
import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { acceptAdmitted, admitDue, limit, policy, readFiles, SCANNER as SESSIONS } from "../support/cost.ts";
import { test } from "../support/database.ts";
import { operator } from "../support/pages.ts";
import { insertRequest, insertRow, JOHN, one, query, type Row } from "../support/rows.ts";

/** The role, without its sessions. */
const SCANNER = SESSIONS.slice(0, -1);

const theHold = (pool: Pool): Promise<Row> => one(pool, "select * from holds");
const MONTH = new Date().toISOString().slice(0, 7);

/** The text of a page as it is read: without tags, in one line. */
const words = (text: string): string =>
  text
    .replace(/<[^>]+>/g, " ")
    .replace(/\s+/g, " ")
    .replace(/ ([.,])/g, "$1");

describe("a held burst", () => {
  test("is on the first screen, in the list and on a page of its own: who, why, how much, since when", async ({
    pool,
  }) => {
    await limit(pool, { scope: "person", max_objects: 2 });
    await readFiles(pool, 5);
    const hold = await theHold(pool);
    const { id: restore_id } = await one(
      pool,
      "select * from restores where hold_id is not null order by id limit 1",
    );
    await insertRequest(pool, { id: restore_id }, { access_key_id: JOHN, email: "john@example.com" });
    const pages = operator(pool);

    const first = await pages.get("/ops");
    expect(words(first.text)).toContain(
      "A burst of reads waits for approval: 3 objects, estimated at $0.05.",
    );
    expect(first.text).toContain('href="/ops/holds"');
    expect(words(first.text)).toMatch(/waits for approval 3 /);

    const list = await pages.get("/ops/holds");
    expect(list.text).toContain(`href="/ops/holds/${hold["id"]}"`);
    for (const part of [SCANNER, "Beyond the limit of 2 objects per day for each person", "3.2 GB", "$0.05"])
      expect(words(list.text)).toContain(part);

    const page = await pages.get(`/ops/holds/${hold["id"]}`);
    for (const part of [
      SCANNER,
      "waits for approval",
      "3.2 GB",
      "$0.05",
      "scans/0002.tif",
      "session-2",
      "john@example.com",
    ])
      expect(words(page.text), part).toContain(part);
    expect(page.text).toContain(`/ops/confirm/approve?id=${hold["id"]}`);
    expect(page.text).not.toMatch(/infinity/i);

    // Its files say so, and where to decide.
    const file = await pages.get(`/ops/restores/${restore_id}`);
    expect(words(file.text)).toContain("S3 is not asked before somebody approves it.");
    expect(file.text).toContain(`href="/ops/holds/${hold["id"]}"`);
    expect(file.text).not.toContain("/ops/confirm/retry");
    expect(file.text).not.toMatch(/infinity|Not taken before/i);
    // A list of its own, and among all that are open.
    for (const [state, count] of [
      ["held", 3],
      ["open", 5],
      ["not_started", 2],
    ] as const)
      expect(
        [
          ...(await pages.get(`/ops/restores?state=${state}`)).text.matchAll(
            /href="\/ops\/restores\/[0-9a-f-]{36}"/g,
          ),
        ],
        state,
      ).toHaveLength(count);
    expect(words((await pages.get("/ops/search?q=scans/")).text).match(/waits for approval/g)).toHaveLength(
      3,
    );
    expect((await pages.get(`/ops/search?q=${hold["id"]}`)).headers.get("location")).toBe(
      `/ops/holds/${hold["id"]}`,
    );
  });

  test("is approved by who saw all of it, by name, once", async ({ pool }) => {
    await policy(pool, "hold");
    await readFiles(pool, 2);
    const { id } = await theHold(pool);
    const pages = operator(pool, { name: "Ada Löwe" });
    const asked = await pages.get(`/ops/confirm/approve?id=${id}`);
    expect(words(asked.text)).toContain("2 objects, 2.1 GB, an estimated $0.03");
    expect(asked.text).toContain('name="seen" value="2"');
    await readFiles(pool, 1, { s3_key: "one more" });

    const refused = await pages.post("/ops/act/approve", { id, seen: "2" });
    expect(refused.status).toBe(409);
    expect(refused.text).toContain("has grown to 3 objects");
    for (const seen of ["", "-1", "x", "1e9"])
      expect((await pages.post("/ops/act/approve", { id, seen })).status, seen).toBe(409);
    expect(await theHold(pool)).toMatchObject({ status: "open" });

    const done = await pages.post("/ops/act/approve", { id, seen: "3" });
    expect(done.status).toBe(303);
    const shown = await pages.get(done.headers.get("location") ?? "");
    expect(words(shown.text)).toContain("Done: approve, by Ada Löwe");
    expect(words(shown.text)).toMatch(/ status: approved .* objects: 3, estimated cost: 0\.\d{4} /);
    expect(await theHold(pool)).toMatchObject({ status: "approved", decided_by: "Ada Löwe" });
    expect(await query(pool, "select actor, action, target from actions")).toEqual([
      { actor: "Ada Löwe", action: "approve", target: id },
    ]);
    expect((await pages.get("/ops/actions")).text).toContain(`href="/ops/holds/${id}"`);

    const again = await pages.post("/ops/act/refuse", { id });
    expect(again.status).toBe(409);
    expect(again.text).toContain("is approved already, by Ada Löwe");
    expect((await pages.get(`/ops/holds/${id}`)).text).not.toContain("/ops/confirm/");
    expect((await pages.get("/ops/holds")).text).not.toContain(id);
    expect((await pages.get("/ops/holds?decided=yes")).text).toContain(id);
  });

  test("is refused, and its files say why they failed", async ({ pool }) => {
    await policy(pool, "hold");
    await readFiles(pool, 2);
    const { id } = await theHold(pool);
    const pages = operator(pool);
    expect((await pages.get(`/ops/confirm/refuse?id=${id}`)).text).toContain("told by mail");
    expect((await pages.post("/ops/act/refuse", { id })).status).toBe(303);
    while ((await one(pool, "select settle_holds(100) as n"))["n"] > 0);

    expect(await theHold(pool)).toMatchObject({ status: "refused", decided_by: "Ada" });
    const { text } = await pages.get(`/ops/holds/${id}`);
    expect(words(text)).toContain("scans/0000.tif failed");
    expect((await pages.get("/ops/restores?state=failed")).text).toContain("The restore was not approved.");
  });

  test("of very many files is read page by page", async ({ pool }) => {
    await policy(pool, "hold");
    await readFiles(pool, 120);
    const { id } = await theHold(pool);
    const pages = operator(pool);
    const seen: string[] = [];
    let path = `/ops/holds/${id}`;
    for (let page = 0; page < 3; page++) {
      const { text } = await pages.get(path);
      seen.push(...[...text.matchAll(/href="\/ops\/restores\/([0-9a-f-]{36})"/g)].map(([, one = ""]) => one));
      path = (/rel="next" href="([^"]+)"/.exec(text)?.[1] ?? "").replaceAll("&amp;", "&");
    }
    expect(path).toBe("");
    expect(new Set(seen).size).toBe(120);
    expect(seen).toHaveLength(120);
  });

  test("is one of many, the oldest first, and none is left out between the pages", async ({ pool }) => {
    await pool.query(
      "insert into holds (person, reason, objects) select 'p' || n || '@example.com', 'beyond a limit', n from generate_series(1, 120) n",
    );
    for (const decided of ["", "?decided=yes"]) {
      const pages = operator(pool);
      const seen: string[] = [];
      let path = `/ops/holds${decided}`;
      for (let page = 0; page < 3; page++) {
        const { text } = await pages.get(path);
        seen.push(...[...text.matchAll(/href="\/ops\/holds\/([0-9a-f-]{36})"/g)].map(([, one = ""]) => one));
        path = (/rel="next" href="([^"]+)"/.exec(text)?.[1] ?? "").replaceAll("&amp;", "&");
      }
      expect(path).toBe("");
      expect(new Set(seen).size).toBe(120);
      await pool.query("update holds set status = 'refused', decided_at = now(), decided_by = 'ann'");
    }
  });

  test("that is not there says so", async ({ pool }) => {
    const pages = operator(pool);
    for (const path of [
      `/ops/holds/${randomUUID()}`,
      "/ops/holds/1",
      `/ops/confirm/approve?id=${randomUUID()}`,
    ])
      expect((await pages.get(path)).status, path).toBe(404);
    expect((await pages.post("/ops/act/approve", { id: randomUUID(), seen: "9" })).status).toBe(404);
  });

  test("is left alone by what is done to all restores of a list", async ({ pool }) => {
    await limit(pool, { scope: "person", max_objects: 1 });
    await readFiles(pool, 4);
    const pages = operator(pool);
    expect((await pages.get("/ops/restores?state=held")).text).not.toContain("/ops/confirm/");
    expect((await pages.get("/ops/confirm/retry_all?state=held")).status).toBe(404);
    expect(words((await pages.get("/ops/confirm/retry_all?state=open")).text)).toContain("Retry 1 restore");
    expect((await pages.post("/ops/act/retry_all", { state: "not_started", count: "4" })).status).toBe(303);
    expect((await admitDue(pool)).map(({ decision }) => decision)).toEqual(["go"]);
    expect(await theHold(pool)).toMatchObject({ status: "open", objects: "3" });

    const { id } = await one(pool, "select id from restores where hold_id is not null limit 1");
    const answer = await pages.post("/ops/act/retry", { id });
    expect(answer.status).toBe(409);
    expect(answer.text).toContain("this restore waits for approval, so S3 is not asked");
    expect((await pages.get(`/ops/confirm/retry?id=${id}`)).text).toContain(
      "Nothing: this restore waits for approval.",
    );
  });
});

describe("the page of costs", () => {
  test("shows each limit with a bar and in words, those first who have used most", async ({ pool }) => {
    await limit(pool, { scope: "person", max_objects: 4 });
    await limit(pool, { scope: "all", per: "month", max_cost: 100 });
    await limit(pool, { scope: "prefix", s3_bucket: "archive", key_prefix: "scans/", max_bytes: 0 });
    await readFiles(pool, 3, { s3_bucket: "films" });
    await readFiles(pool, 5, {
      s3_bucket: "more-films",
      principal: "arn:aws:iam::123456789012:user/jane",
    });
    const { text } = await operator(pool).get("/ops/costs");

    expect(text).toContain(`<title>4 objects per day for each person, ${SCANNER}: 75 %</title>`);
    expect(text).toContain('<rect class="one" width="75.0" height="10" />');
    expect(words(text)).toMatch(
      /4 objects per day for each person arn:aws:iam::123456789012:user\/jane .*used up \(100 %\)/,
    );
    expect(text.indexOf("user/jane")).toBeLessThan(text.indexOf(SCANNER));
    expect(words(text)).toContain("$100.00 per month for all all together");
    expect(words(text)).toContain("under s3://archive/scans/ all together");
    expect(words(text)).toMatch(/estimates by published prices/i);
  });

  test("shows who and what cost most in a month, observed apart, and the same as CSV", async ({ pool }) => {
    await policy(pool, "observe", { s3_bucket: "cold" });
    await policy(pool, "ignore", { s3_bucket: "logs", principal: `${SCANNER}/*` });
    await readFiles(pool, 2, { s3_bucket: "cold" });
    await readFiles(pool, 1, { s3_bucket: "logs" });
    await readFiles(pool, 3);
    await acceptAdmitted(pool);
    const pages = operator(pool);

    const { text } = await pages.get("/ops/costs");
    expect(words(text)).toContain("Restored: 3 objects, 3.2 GB, an estimate of $0.05.");
    expect(words(text)).toContain(
      "Only observed: 2 objects, 2.1 GB; to restore them would have cost an estimate of $0.03.",
    );
    expect(words(text)).toContain(`${SCANNER} 3 3.2 GB $0.05 2 2.1 GB $0.03`);
    expect(words(text)).toContain("s3://cold 0 0 bytes $0.00 2 2.1 GB $0.03");
    expect(words(text)).toMatch(/s3:\/\/\w+\/scans\/ 3 3\.2 GB \$0\.05 0/);
    expect(words(text)).toContain(`s3://logs/ ${SCANNER}/* 1`);

    for (const by of ["person", "bucket", "prefix"]) {
      const file = await pages.get(`/ops/costs.csv?by=${by}&month=${MONTH}`);
      expect(file.headers.get("content-disposition")).toBe(
        `attachment; filename="costs-by-${by}-${MONTH}.csv"`,
      );
      const [head = "", ...lines] = file.text.trim().split("\r\n");
      expect(head).toBe(
        `"month","${by}","restored_objects","restored_bytes","restored_estimate_usd","observed_objects","observed_bytes","observed_estimate_usd"`,
      );
      expect(lines).toHaveLength(by === "person" ? 1 : 2);
      if (by === "person")
        expect(lines[0]).toBe(`"${MONTH}","${SCANNER}","3","3221225472","0.05","2","2147483648","0.03"`);
    }
    // Another month has nothing; what is no month is this one.
    expect(words((await pages.get("/ops/costs?month=2020-02")).text)).toContain("Restored: 0 objects");
    for (const month of ["2020-13", "x", "'; drop table costs; --"])
      expect((await pages.get(`/ops/costs?month=${encodeURIComponent(month)}`)).text).toContain(
        `Restores of ${MONTH}`,
      );
  });

  test("says how to set a limit where there is none", async ({ pool }) => {
    expect((await operator(pool).get("/ops/costs")).text).toContain("There is no limit.");
  });
});

describe("hostile names", () => {
  test.for([
    `<script>alert(1)</script>"'>`,
    "invoice\u202Efdp.exe",
    `=HYPERLINK("http://evil.example","x")`,
    "a\u0007\tb",
  ])("%j are inert where money is shown", async (name, { pool }) => {
    const { id } = await insertRow(pool, "holds", { person: name, reason: name, objects: 1 });
    await insertRow(pool, "holds", {
      person: name,
      reason: name,
      status: "refused",
      decided_at: new Date(),
      decided_by: name,
    });
    await limit(pool, { scope: "prefix", s3_bucket: "b", key_prefix: name, max_objects: 1 });
    await pool.query(
      "insert into spending (limit_id, subject, period, objects, warned_at) select id, $1, period_of('day', now()), 1, now() from limits",
      [name],
    );
    await pool.query(
      "insert into costs (day, person, s3_bucket, folder, storage_class, tier, observed, objects, bytes, cost) values (current_date, $1, $1, $1, 'GLACIER', 'Bulk', false, 1, 1, 1)",
      [name],
    );
    await pool.query(
      "insert into totals (metric, labels, n) values ('reads_ignored', jsonb_build_object('s3_bucket', $1::text, 'key_prefix', $1::text, 'principal', $1::text), 1)",
      [name],
    );
    const pages = operator(pool);
    for (const path of [
      "/ops",
      "/ops/holds",
      "/ops/holds?decided=yes",
      `/ops/holds/${id}`,
      `/ops/confirm/approve?id=${id}`,
      "/ops/costs",
    ]) {
      const page = await pages.get(path);
      expect(page.status, path).toBe(200);
      expect(page.text, path).not.toMatch(/<script>/);
      for (const hidden of ["\u202E", "\u0007"]) expect(page.text, path).not.toContain(hidden);
    }
    for (const by of ["person", "bucket", "prefix"]) {
      const { text } = await pages.get(`/ops/costs.csv?by=${by}`);
      expect(text.split("\r\n")).toHaveLength(3);
      expect(text).not.toMatch(/(^|,)"?\s*[=+\-@]/m);
    }
  });
});
