/** What callers of the two routes and of the probes get, byte for byte. */
import { randomUUID } from "node:crypto";
import { gzipSync } from "node:zlib";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { captureLog, head, MINIMAL, raw, SECOND_SECRET, startApi, test, type Api } from "../support/api.ts";
import { postTo, testApp } from "../support/app.ts";
import { know } from "../support/rows.ts";
import { BUCKET, JANE, requestBody, SECRET } from "../support/thaw.ts";

const ROUTES = ["/restore/request", "/restore/completed"] as const;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const issue = (field: string, message: unknown = expect.any(String)) => ({
  error: {
    code: "invalid_request",
    message: "The body is not what this route takes.",
    issues: [{ field, message }],
  },
});

describe("a read that failed", () => {
  test("is taken with all its fields, and stored as they were sent", async ({ api, pool }) => {
    const body = {
      s3_bucket: BUCKET,
      s3_key: "films/holiday 1.mov",
      access_key_id: JANE,
      version_id: "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo",
      event_id: randomUUID(),
      event_time: new Date().toISOString(),
      principal_arn: "arn:aws:iam::123456789012:user/Jané",
      account_id: "123456789012",
      source_identity: " Jané ",
      region: "eu-central-1",
    };

    const answer = await api.post("/restore/request", body);

    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("application/json");
    expect(answer.body).toEqual({ ok: true, id: expect.stringMatching(UUID), duplicate: false });
    const { rows } = await pool.query(
      "select q.*, r.region from restore_requests q join restores r on r.id = q.restore_id",
    );
    expect(rows).toMatchObject([
      {
        id: answer.body.id,
        s3_bucket: body.s3_bucket,
        s3_key: body.s3_key,
        access_key_id: body.access_key_id,
        version_id: body.version_id,
        last_event_id: body.event_id,
        last_read_at: new Date(body.event_time),
        principal: body.principal_arn,
        account_id: body.account_id,
        source_identity: body.source_identity,
        region: body.region,
        restore_status: "not_started",
      },
    ]);
  });

  test("needs a bucket and a key, and no more", async ({ api, pool }) => {
    const answer = await api.post("/restore/request", MINIMAL);

    expect(answer).toMatchObject({ status: 200, body: { ok: true, duplicate: false } });
    const { rows } = await pool.query("select version_id, access_key_id from restore_requests");
    expect(rows).toEqual([{ version_id: "", access_key_id: "" }]);
  });

  test("that is only a look answers the id that its request will have, and is none yet", async ({
    api,
    pool,
  }) => {
    const body = requestBody("a", { evidence: "looked" });
    const first = await api.post("/restore/request", body);
    const second = await api.post("/restore/request", body);

    expect(first).toMatchObject({
      status: 200,
      body: { ok: true, id: expect.stringMatching(UUID), duplicate: false },
    });
    expect(second.body).toEqual({ ok: true, id: first.body.id, duplicate: true });
    expect((await pool.query("select id from looks")).rows).toEqual([{ id: first.body.id }]);
    expect((await pool.query("select from restore_requests")).rowCount).toBe(0);
    // What is refused says so by default.
    const refused = await api.post("/restore/request", requestBody("b", { evidence: "refused" }));
    expect((await pool.query("select id from restore_requests")).rows).toEqual([{ id: refused.body.id }]);
  });

  test("answers a repeat with the first one's id", async ({ api, pool }) => {
    const body = requestBody("a");
    const first = await api.post("/restore/request", body);
    const second = await api.post("/restore/request", body);

    expect(second.body).toEqual({ ok: true, id: first.body.id, duplicate: true });
    expect((await pool.query("select from restore_requests")).rowCount).toBe(1);
  });

  test("does not differ for times of the same moment in other zones and precisions", async ({
    api,
    pool,
  }) => {
    const times = [
      "2025-03-30T01:30:00Z",
      "2025-03-30T03:30:00+02:00",
      "2025-03-29T02:30:00.000000000-23:00",
    ];
    for (const [index, event_time] of times.entries()) {
      expect(await api.post("/restore/request", requestBody(`${index}`, { event_time }))).toMatchObject({
        status: 200,
      });
    }
    const { rows } = await pool.query("select distinct last_read_at from restore_requests");
    expect(rows).toEqual([{ last_read_at: new Date("2025-03-30T01:30:00Z") }]);
  });
});

describe("a completed restore", () => {
  test("asks S3 for whoever waits, and believes nothing of what it says", async ({ api, pool }) => {
    await api.post("/restore/request", requestBody("a"));
    const body = {
      ...MINIMAL,
      version_id: "",
      restore_expires_at: new Date(Date.now() + 86_400_000).toISOString(),
      event_time: new Date().toISOString(),
      event_id: randomUUID(),
    };

    expect((await api.post("/restore/completed", body)).body).toEqual({ ok: true, updated: 1 });
    expect((await api.post("/restore/completed", body)).body).toEqual({ ok: true, updated: 1 });
    const { rows } = await pool.query(
      "select status, restore_expires_at, head_wanted_at is not null as is_asked from restores",
    );
    expect(rows).toEqual([{ status: "not_started", restore_expires_at: null, is_asked: true }]);
  });

  test("that nobody asked for is no error", async ({ api }) => {
    const answer = await api.post("/restore/completed", MINIMAL);

    expect(answer).toMatchObject({ status: 200, body: { ok: true, updated: 0 } });
  });
});

describe("keys are bytes", () => {
  const KEYS = [
    "a+b",
    "%41",
    "a b",
    " ",
    "/a",
    "a//b",
    "../..",
    "a/../b",
    "a/./b",
    "🎞️/👩‍👩‍👧",
    "\u00e9",
    "e\u0301",
    "__proto__",
    "constructor",
    "null",
    "a\nb\r\tc\u0001",
    "\u202egnp.exe",
    "\ufeffbom",
    "'; drop table restores; --",
    "\\u0000",
    "\u{10ffff}",
    "\uffff",
    "x".repeat(1024),
    "é".repeat(512),
  ];

  test("every one is stored as it was sent, twins apart", async ({ api, pool }) => {
    const answers = await Promise.all(KEYS.map((key) => api.post("/restore/request", requestBody(key))));

    expect(answers.map((answer) => answer.status)).toEqual(KEYS.map(() => 200));
    const { rows } = await pool.query("select convert_to(s3_key, 'UTF8') as bytes from restores");
    expect(rows.map((row) => row.bytes.toString("hex")).toSorted()).toEqual(
      KEYS.map((key) => Buffer.from(key).toString("hex")).toSorted(),
    );
  });

  test("the escaped and the plain form of a character are one key", async ({ api, pool }) => {
    const plain = await api.post("/restore/request", `{"s3_bucket":"${BUCKET}","s3_key":"é🎞"}`);
    const escaped = await api.post(
      "/restore/request",
      `{"s3_bucket":"${BUCKET}","s3_key":"\\u00e9\\ud83c\\udf9e"}`,
    );

    expect(escaped.body).toMatchObject({ id: plain.body.id, duplicate: true });
    expect((await pool.query("select from restores")).rowCount).toBe(1);
  });
});

describe("a body that cannot be right", () => {
  const LONE = String.raw`"\ud800"`;
  const NUL = String.raw`"a\u0000"`;
  const TIMES = {
    without_zone: '"2026-11-20T10:15:30"',
    day_only: '"2026-11-20"',
    epoch: "1763633730",
    year_0: '"0000-01-01T00:00:00Z"',
    year_10000: '"9999-12-31T23:59:59-23:59"',
    nonsense: '"yesterday"',
    february_30: '"2026-02-30T10:15:30Z"',
    empty: '""',
  };
  const times = (field: string) =>
    Object.fromEntries(Object.entries(TIMES).map(([what, json]) => [`${field} ${what}`, [field, json]]));
  const long = (bytes: number) => JSON.stringify("x".repeat(bytes));

  /** Title: the field, and what it holds, as JSON text; undefined: left out. */
  const EITHER: Record<string, [string, string | undefined]> = {
    "s3_bucket missing": ["s3_bucket", undefined],
    "s3_bucket null": ["s3_bucket", "null"],
    "s3_bucket empty": ["s3_bucket", '""'],
    "s3_bucket of two letters": ["s3_bucket", '"ab"'],
    "s3_bucket too long": ["s3_bucket", long(256)],
    "s3_bucket with a slash": ["s3_bucket", '"a/../b"'],
    "s3_bucket with a line break": ["s3_bucket", '"archive\\n"'],
    "s3_bucket with a host": ["s3_bucket", '"evil.example#"'],
    "s3_bucket not ASCII": ["s3_bucket", '"archivé"'],
    "s3_key missing": ["s3_key", undefined],
    "s3_key null": ["s3_key", "null"],
    "s3_key a number": ["s3_key", "7"],
    "s3_key a list": ["s3_key", '["a"]'],
    "s3_key empty": ["s3_key", '""'],
    "s3_key with NUL": ["s3_key", NUL],
    "s3_key with a lone surrogate": ["s3_key", LONE],
    "s3_key with surrogates in the wrong order": ["s3_key", String.raw`"\udc00\ud800"`],
    "s3_key of 1,025 bytes": ["s3_key", long(1025)],
    "s3_key of 513 x é": ["s3_key", JSON.stringify("é".repeat(513))],
    "version_id null": ["version_id", "null"],
    "version_id with NUL": ["version_id", NUL],
    "version_id with a lone surrogate": ["version_id", LONE],
    "version_id of 1,025 bytes": ["version_id", long(1025)],
    "event_id a number": ["event_id", "1"],
    "event_id with NUL": ["event_id", NUL],
    "event_id with a lone surrogate": ["event_id", LONE],
    "event_id too long": ["event_id", long(257)],
    ...(times("event_time") as Record<string, [string, string]>),
    "a misspelt field": ["versionId", '"1"'],
    "__proto__ as a field": ["__proto__", '{"s3_key":"b"}'],
  };
  const REQUEST: Record<string, [string, string]> = {
    "access_key_id with a space": ["access_key_id", '"AKIA 1"'],
    "access_key_id a number": ["access_key_id", "1"],
    "access_key_id too long": ["access_key_id", long(129)],
    "access_key_id with a line break": ["access_key_id", '"AKIA\\n"'],
    "principal_arn with NUL": ["principal_arn", NUL],
    "principal_arn with a lone surrogate": ["principal_arn", LONE],
    "principal_arn too long": ["principal_arn", long(2049)],
    "principal_arn that is an order's": ["principal_arn", '"Mailto:jane@example.com"'],
    "principal_id that is an order's": ["principal_id", '"mailto:jane@example.com"'],
    "source_identity with NUL": ["source_identity", NUL],
    "source_identity with a lone surrogate": ["source_identity", LONE],
    "source_identity too long": ["source_identity", long(257)],
    "account_id a number": ["account_id", "123456789012"],
    "account_id with NUL": ["account_id", NUL],
    "account_id too long": ["account_id", long(65)],
    "region with a host": ["region", '"us-east-1.evil.example"'],
    "region with capitals": ["region", '"US-EAST-1"'],
    "region empty": ["region", '""'],
    "region too long": ["region", JSON.stringify(`us-${"e".repeat(60)}`)],
    "evidence of another kind": ["evidence", '"heard"'],
    "evidence empty": ["evidence", '""'],
    "evidence null": ["evidence", "null"],
    "restore_expires_at, of the other route": ["restore_expires_at", '"2026-11-20T10:15:30Z"'],
  };
  const COMPLETED: Record<string, [string, string]> = {
    ...(times("restore_expires_at") as Record<string, [string, string]>),
    "access_key_id, of the other route": ["access_key_id", '"AKIA1"'],
    "evidence, of the other route": ["evidence", '"looked"'],
  };

  const bodyWith = (field: string, json: string | undefined): string =>
    `{${Object.entries({ s3_bucket: '"archive"', s3_key: '"a"', [field]: json })
      .concat(field === "__proto__" ? [["__proto__", json]] : [])
      .filter(([, value]) => typeof value === "string")
      .map(([name, value]) => `"${name}":${value as string}`)
      .join()}}`;

  const cases = ROUTES.flatMap((route) =>
    Object.entries({ ...EITHER, ...(route === "/restore/request" ? REQUEST : COMPLETED) }).map(
      ([title, [field, json]]) => ({ route, title, field, body: bodyWith(field, json) }),
    ),
  );

  test("is refused with the field's name, and stores nothing", async ({ api, pool }) => {
    const outcomes = await Promise.all(
      cases.map(async ({ route, body }) => {
        const answer = await api.post(route, body);
        const fields = answer.body.error?.issues?.map((found: { field: string }) => found.field);
        return [answer.status, answer.body.error?.code, ...new Set(fields)];
      }),
    );

    const named = cases.map(({ route, title }, index) => [`${route} ${title}`, ...(outcomes[index] ?? [])]);
    expect(named).toEqual(
      cases.map(({ route, title, field }) => [`${route} ${title}`, 400, "invalid_request", field]),
    );
    expect((await pool.query("select from restores")).rowCount).toBe(0);
    expect((await pool.query("select from graphile_worker.jobs")).rowCount).toBe(0);
  });

  test("is told in words that help", async ({ api }) => {
    const answers = await Promise.all([
      api.post("/restore/request", { s3_bucket: BUCKET }),
      api.post("/restore/request", { ...MINIMAL, s3_key: 7 }),
      api.post("/restore/request", { ...MINIMAL, s3_key: "" }),
      api.post("/restore/request", { ...MINIMAL, s3_key: "é".repeat(513) }),
      api.post("/restore/request", { ...MINIMAL, s3_bucket: "a/b" }),
      api.post("/restore/request", { ...MINIMAL, event_time: "2026-11-20T10:15:30" }),
      api.post("/restore/request", { ...MINIMAL, key: "b" }),
    ]);

    expect(answers.map((answer) => answer.body)).toEqual([
      issue("s3_key", "is missing"),
      issue("s3_key", "must be a string"),
      issue("s3_key", "must not be empty"),
      issue("s3_key", "must not be longer than 1024 bytes"),
      issue("s3_bucket", "must be the name of an S3 bucket"),
      issue("event_time", "must be an ISO 8601 time with zone, like 2026-11-20T10:15:30Z"),
      issue("key", "is not a field of this route"),
    ]);
  });

  test("is told everything that is wrong with it at once", async ({ api }) => {
    const { body } = await api.post("/restore/request", {
      s3_bucket: "",
      region: "x",
      event_time: 1,
      more: 1,
    });

    expect(body.error.issues.map((found: { field: string }) => found.field).toSorted()).toEqual([
      "event_time",
      "more",
      "region",
      "s3_bucket",
      "s3_key",
    ]);
  });

  const NOT_JSON: Record<string, [string | Uint8Array, string]> = {
    nothing: ["", "The body is not valid JSON."],
    "half an object": ['{"s3_bucket":"archive"', "The body is not valid JSON."],
    "something behind it": [`${JSON.stringify(MINIMAL)}{}`, "The body is not valid JSON."],
    "an unquoted name": ["{s3_key: 1}", "The body is not valid JSON."],
    "Latin-1": [
      Buffer.from('{"s3_bucket":"archive","s3_key":"\xe9"}', "latin1"),
      "The body is not valid UTF-8.",
    ],
    "a surrogate in UTF-8": [
      Buffer.concat([
        Buffer.from('{"s3_bucket":"archive","s3_key":"'),
        Buffer.from("eda080", "hex"),
        Buffer.from('"}'),
      ]),
      "The body is not valid UTF-8.",
    ],
    "UTF-16": [Buffer.from(`\ufeff${JSON.stringify(MINIMAL)}`, "utf16le"), "The body is not valid UTF-8."],
    "30,000 lists in each other": ["[".repeat(30_000), "The body is not valid JSON."],
  };

  for (const [what, [body, message]] of Object.entries(NOT_JSON)) {
    test(`is refused when it is ${what}`, async ({ api }) => {
      expect(await api.post("/restore/request", body)).toMatchObject({
        status: 400,
        body: { error: { code: "invalid_request", message } },
      });
    });
  }

  for (const body of [
    "null",
    "[]",
    '"a"',
    "7",
    "true",
    `[${JSON.stringify(MINIMAL)}]`,
    `${"[".repeat(30_000)}${"]".repeat(30_000)}`,
  ]) {
    test(`is refused when it is JSON but no object: ${body.slice(0, 20)}`, async ({ api }) => {
      expect(await api.post("/restore/request", body)).toMatchObject({
        status: 400,
        body: issue("", "must be a JSON object"),
      });
    });
  }

  test("counts a field that comes twice as it came last", async ({ api, pool }) => {
    const answer = await api.post("/restore/request", `{"s3_key":"b",${JSON.stringify(MINIMAL).slice(1)}`);

    expect(answer.status).toBe(200);
    expect((await pool.query("select s3_key from restores")).rows).toEqual([{ s3_key: "a" }]);
  });

  test("is refused when it is compressed", async ({ api }) => {
    const zipped = gzipSync(JSON.stringify(MINIMAL));

    expect(await api.post("/restore/request", zipped, { "content-encoding": "gzip" })).toMatchObject({
      status: 400,
      body: { error: { code: "invalid_request" } },
    });
  });

  test("may begin with a byte order mark", async ({ api }) => {
    const answer = await api.post("/restore/request", `\ufeff${JSON.stringify(MINIMAL)}`);

    expect(answer.status).toBe(200);
  });
});

describe("content type", () => {
  const type = async (api: Api, contentType: string | undefined, route: (typeof ROUTES)[number]) => {
    const body = Buffer.from(JSON.stringify(MINIMAL));
    return raw(
      api.port,
      head(
        {
          "x-restore-secret": SECRET,
          ...(contentType && { "content-type": contentType }),
          "content-length": `${body.length}`,
        },
        `POST ${route} HTTP/1.1`,
      ) + body,
    );
  };

  test.for(ROUTES)("JSON in UTF-8 is taken, however it is spelt (%s)", async (route, { api }) => {
    for (const given of [
      "application/json",
      "application/json; charset=utf-8",
      "Application/JSON;charset=UTF-8",
      'application/json ; charset="utf-8" ',
    ]) {
      expect(await type(api, given, route)).toMatch(/^HTTP\/1.1 200 /);
    }
  });

  test.for(ROUTES)("anything else is refused (%s)", async (route, { api, pool }) => {
    for (const given of [
      undefined,
      "text/plain",
      "application/x-www-form-urlencoded",
      "application/jsonp",
      "application/json; charset=iso-8859-1",
      "application/json, text/plain",
      "application/json; charset=utf-8\r\ncontent-type: text/plain",
    ]) {
      const answer = await type(api, given, route);
      expect(answer).toMatch(/^HTTP\/1.1 415 /);
      expect(answer).toContain('{"error":{"code":"unsupported_media_type","message":"');
    }
    expect((await pool.query("select from restores")).rowCount).toBe(0);
  });
});

describe("a body that is too large", () => {
  const HUGE = 10 * 1024 * 1024;

  test("is refused by its announced length, before it is sent", async ({ api }) => {
    for (const route of ROUTES) {
      const answer = await raw(
        api.port,
        head(
          { "x-restore-secret": SECRET, "content-type": "application/json", "content-length": `${HUGE}` },
          `POST ${route} HTTP/1.1`,
        ),
      );

      expect(answer).toMatch(/^HTTP\/1.1 413 /);
      expect(answer).toContain(
        '{"error":{"code":"too_large","message":"The body must not be larger than 65536 bytes."}}',
      );
    }
  });

  test("is refused in chunks, before it ends", async ({ api }) => {
    const chunk = `10000\r\n${"x".repeat(0x10000)}\r\n`;
    for (const route of ROUTES) {
      const answer = await raw(
        api.port,
        head(
          {
            "x-restore-secret": SECRET,
            "content-type": "application/json",
            "transfer-encoding": "chunked",
          },
          `POST ${route} HTTP/1.1`,
        ) +
          chunk +
          chunk,
      );

      expect(answer).toMatch(/^HTTP\/1.1 413 /);
    }
  });

  test("may have exactly the limit", async ({ api }) => {
    const json = JSON.stringify(MINIMAL);

    expect(await api.post("/restore/request", json + " ".repeat(65_536 - json.length))).toMatchObject({
      status: 200,
    });
    expect(await api.post("/restore/request", json + " ".repeat(65_537 - json.length))).toMatchObject({
      status: 413,
    });
  });
});

describe("the secret", () => {
  const BARE = { error: { code: "unauthorized", message: "unauthorized" } };

  test("both of two are taken while they are rotated", async ({ api }) => {
    for (const secret of [SECRET, SECOND_SECRET]) {
      expect(await api.post("/restore/request", MINIMAL, { "x-restore-secret": secret })).toMatchObject({
        status: 200,
      });
    }
  });

  test("any other gets the same bare answer, whatever the body", async ({ api, pool }) => {
    const wrong = [
      "",
      "x",
      SECRET.slice(1),
      `${SECRET}x`,
      SECRET.toUpperCase(),
      `${SECRET},${SECOND_SECRET}`,
      `Bearer ${SECRET}`,
      "x".repeat(4_000),
      "\u00e9".repeat(40),
    ];
    for (const secret of wrong) {
      for (const body of [MINIMAL, "not JSON"]) {
        const answer = await api.post("/restore/request", body, { "x-restore-secret": secret });
        expect({ status: answer.status, body: answer.body }).toEqual({ status: 401, body: BARE });
      }
    }
    for (const lines of ["", `x-restore-secret: ${SECRET}\r\nx-restore-secret: ${SECRET}\r\n`]) {
      const answer = await raw(
        api.port,
        `POST /restore/completed HTTP/1.1\r\nhost: thaw\r\ncontent-length: 0\r\n${lines}\r\n`,
      );
      expect(answer).toMatch(/^HTTP\/1.1 401 /);
      expect(answer.split("\r\n\r\n")[1]).toBe(JSON.stringify(BARE));
    }
    expect((await pool.query("select from restores")).rowCount).toBe(0);
  });

  test("is asked for before the body is read", async ({ api }) => {
    for (const framing of [{ "content-length": "1000000000" }, { "transfer-encoding": "chunked" }]) {
      const answer = await raw(
        api.port,
        head({ "x-restore-secret": "wrong", "content-type": "application/json", ...framing }),
      );
      expect(answer).toMatch(/^HTTP\/1.1 401 /);
    }
  });

  test("is asked for before routes and methods are told apart", async ({ api }) => {
    for (const [method, path] of [
      ["GET", "/restore/request"],
      ["POST", "/restore/nothing"],
      ["POST", "/restore"],
    ] as const) {
      expect((await fetch(api.url + path, { method })).status).toBe(401);
    }
  });
});

describe("other routes and methods", () => {
  const ask = async (api: Api, method: string, path: string) => {
    const response = await fetch(api.url + path, { method, headers: { "x-restore-secret": SECRET } });
    const body = await response.text();
    return { status: response.status, allow: response.headers.get("allow"), body };
  };

  test("are not there", async ({ api }) => {
    for (const [method, path] of [
      ["GET", "/"],
      ["POST", "/restore/request/"],
      ["POST", "/restore/Request"],
      ["POST", "/restore/request%2F"],
      ["POST", "/restore//request"],
      ["POST", "/restore/%zz"],
      ["POST", "/restore/%ff%00"],
      ["POST", "/restore/other"],
      ["GET", "/restore/__proto__"],
    ] as const) {
      expect({ path, ...(await ask(api, method, path)) }).toEqual({
        path,
        status: 404,
        allow: null,
        body: '{"error":{"code":"not_found","message":"There is no such route."}}',
      });
    }
  });

  test("of a path that is there say which one it takes", async ({ api }) => {
    for (const path of ROUTES) {
      for (const method of ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
        const message = '{"error":{"code":"method_not_allowed","message":"This route takes POST."}}';
        expect({ path, method, ...(await ask(api, method, path)) }).toEqual({
          path,
          method,
          status: 405,
          allow: "POST",
          body: method === "HEAD" ? "" : message,
        });
      }
    }
    for (const path of ["/healthz", "/readyz"]) {
      expect(await ask(api, "POST", path)).toMatchObject({ status: 405, allow: "GET, HEAD" });
      expect(await ask(api, "HEAD", path)).toMatchObject({ status: 200, body: "" });
    }
  });
});

describe("a request is known by its id", () => {
  const CHOSEN = "11111111-1111-4111-8111-111111111111";

  /** One of each answer, with the status it gets. */
  const ANSWERS: [number, string, unknown, Record<string, string>?][] = [
    [200, "/restore/request", requestBody("films/a b.mov")],
    [200, "/restore/completed", MINIMAL],
    [400, "/restore/request", "{"],
    [401, "/restore/request", MINIMAL, { "x-restore-secret": "wrong" }],
    [404, "/restore/nothing", MINIMAL],
    [404, "/", MINIMAL],
    [405, "/healthz", MINIMAL],
    [413, "/restore/request", "x".repeat(70_000)],
    [415, "/restore/request", MINIMAL, { "content-type": "text/plain" }],
  ];

  test("which is in every answer, on its one line in the log, and ours to choose", async ({
    databaseUrl,
    pool,
  }) => {
    const { log, lines } = captureLog();
    const api = await startApi(databaseUrl, { log });
    const ids: (string | null)[] = [];
    for (const [status, path, body, headers] of ANSWERS) {
      const answer = await api.post(path, body, { "x-request-id": CHOSEN, ...headers });
      expect({ path, status: answer.status }).toEqual({ path, status });
      ids.push(answer.headers.get("x-request-id"));
    }
    await pool.query("alter table restores add constraint poison check (s3_key <> 'poison')");
    const failed = await api.post("/restore/request", requestBody("poison"));
    expect(failed.status).toBe(500);
    ids.push(failed.headers.get("x-request-id"));
    await api.close();

    expect(ids).toEqual(ids.map(() => expect.stringMatching(UUID)));
    expect(new Set([CHOSEN, ...ids]).size).toBe(ids.length + 1);
    expect(lines().map(({ request_id, status }) => [request_id, status])).toEqual(
      ids.map((id, index) => [id, ANSWERS[index]?.[0] ?? 500]),
    );
  });

  test("and by which its row goes", async ({ api, pool }) => {
    const body = requestBody("a");
    const first = await api.post("/restore/request", body);
    const repeat = await api.post("/restore/request", body);

    expect(first.headers.get("x-request-id")).toBe(first.body.id);
    expect(repeat.headers.get("x-request-id")).not.toBe(first.body.id);
    expect((await pool.query("select id from restore_requests")).rows).toEqual([{ id: first.body.id }]);
  });
});

describe("the log", () => {
  test("has what finds the event, and the reason when it fails", async ({ databaseUrl, pool }) => {
    const { log, lines } = captureLog();
    const api = await startApi(databaseUrl, { log });
    const good = requestBody("films/a b\n.mov", { principal_arn: "arn:of-jane" });
    await api.post("/restore/request", good);
    await pool.query("alter table restores add constraint poison check (s3_key <> 'poison')");
    const bad = requestBody("poison");
    await api.post("/restore/request", bad);
    await api.post("/restore/request", { ...good, more: 1 });
    await api.close();

    const line = {
      time: expect.any(String),
      request_id: expect.stringMatching(UUID),
      method: "POST",
      path: "/restore/request",
      ms: expect.any(Number),
    };
    const event = ({ event_id, s3_bucket, s3_key }: typeof good) => ({ event_id, s3_bucket, s3_key });
    expect(lines()).toEqual([
      { ...line, ...event(good), level: "info", status: 200, msg: "request" },
      {
        ...line,
        ...event(bad),
        level: "error",
        status: 500,
        msg: "a request failed",
        err: expect.objectContaining({ code: "23514", constraint: "poison" }),
      },
      { ...line, level: "info", status: 400, msg: "request" },
    ]);
  });

  test("never has a secret, wherever it was sent, nor who somebody is", async ({ databaseUrl, pool }) => {
    // Postgres then fails, and quotes the row that it refuses.
    await pool.query("alter table restore_requests add constraint poison check (s3_key <> 'poison')");
    await know(pool, JANE);
    const { log, text, lines } = captureLog();
    const api = await startApi(databaseUrl, { log });
    const reader = { principal_arn: "arn:of-jane", source_identity: "jane@example.com" };
    const sent: [string, unknown, Record<string, string>?][] = [
      ["/restore/request", requestBody("a", reader)],
      ["/restore/request", requestBody("poison", reader)],
      ["/restore/request", "{", { "x-restore-secret": SECOND_SECRET }],
      ["/restore/request", MINIMAL, { "x-restore-secret": "", authorization: `Bearer ${SECRET}` }],
      ["/restore/request", MINIMAL, { "x-restore-secret": `${SECRET},${SECOND_SECRET}` }],
      ["/restore/request", MINIMAL, { "x-request-id": SECRET, "user-agent": SECRET, cookie: SECRET }],
      [`/restore/request?secret=${SECRET}`, MINIMAL],
      [`/restore/request/${SECRET}`, MINIMAL],
      [`/${SECRET}`, MINIMAL],
      ["/restore/request", { ...MINIMAL, secret: SECRET }],
      ["/restore/request", { ...MINIMAL, [SECRET]: "" }],
      ["/restore/request", `${SECRET}${JSON.stringify(MINIMAL)}`],
      ["/restore/request", { ...MINIMAL, region: SECRET, version_id: SECRET, event_id: SECRET }],
    ];
    for (const [path, body, headers] of sent) await api.post(path, body, headers);
    await api.close();

    expect(lines()).toHaveLength(sent.length);
    for (const word of [SECRET, SECOND_SECRET, "arn:of-jane", "jane@example.com", JANE]) {
      expect(text()).not.toContain(word);
    }
  });

  test("is cleared of what would tell a secret or a person, should somebody log it one day", () => {
    const { log, text } = captureLog();
    const secret = "jane@example.com";
    const refused = Object.assign(new Error("refused"), {
      detail: `(${secret})`,
      where: `JSON data: ${secret}`,
    });
    log.error({
      err: refused,
      headers: { authorization: secret, "x-restore-secret": secret },
      database: { password: secret, connectionString: secret },
    });

    expect(text()).toContain('"message":"refused"');
    expect(text()).not.toContain(secret);
  });

  test("is not filled by probes", async ({ databaseUrl }) => {
    const { log, text } = captureLog();
    const api = await startApi(databaseUrl, { log });
    await api.get("/healthz");
    await api.get("/readyz");
    await api.close();

    expect(text()).toBe("");
  });
});

describe("many at once", () => {
  test("are committed together, and each gets its own id", async ({ api, pool }) => {
    const keys = Array.from({ length: 200 }, (_, index) => `film ${index}`);
    const answers = await Promise.all(keys.map((key) => api.post("/restore/request", requestBody(key))));

    expect(answers.filter((answer) => answer.status !== 200)).toEqual([]);
    const { rows } = await pool.query<{ id: string; s3_key: string; xmin: string }>(
      "select id, s3_key, xmin::text from restore_requests",
    );
    const keyOf = new Map(rows.map((row) => [row.id, row.s3_key]));
    expect(answers.map((answer) => keyOf.get(answer.body.id))).toEqual(keys);
    // How many together, is a matter of who is faster; without it, each would have a commit of its own.
    expect(new Set(rows.map((row) => row.xmin)).size).toBeLessThan(keys.length * 0.8);
  });

  test("one that Postgres refuses does not spoil the others", async ({ api, pool }) => {
    await pool.query("alter table restores add constraint poison check (s3_key <> 'poison')");
    const answers = await Promise.all(
      ["a", "poison", "b"].map((key) => api.post("/restore/request", requestBody(key))),
    );

    expect(answers.map((answer) => answer.status)).toEqual([200, 500, 200]);
    expect(answers[1]?.body).toEqual({ error: { code: "internal", message: "Internal error." } });
  });

  /** Takes each query, and never answers. */
  const SILENT_POSTGRES = { query: () => new Promise(() => undefined) } as unknown as Pool;

  test("hear within two seconds that Postgres says nothing, whatever the time-outs of its driver", async () => {
    const app = testApp(SILENT_POSTGRES);
    for (const route of ROUTES) {
      const began = performance.now();
      const response = await postTo(app, route, MINIMAL);

      expect(response.status).toBe(503);
      expect(response.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
      expect(performance.now() - began).toBeLessThan(2_800);
    }
  });

  test("beyond what may wait are sent away, and nobody waits for long", async () => {
    const app = testApp(SILENT_POSTGRES);
    const began = performance.now();
    const answers = await Promise.all(
      Array.from({ length: 6_000 }, async () => {
        const response = await postTo(app, "/restore/request", MINIMAL);
        return {
          status: response.status,
          retry_after: response.headers.get("retry-after"),
          ...((await response.json()) as { error: { message: string } }).error,
        };
      }),
    );

    expect(performance.now() - began).toBeLessThan(10_000);
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([503]));
    expect(new Set(answers.map((answer) => answer.retry_after))).toEqual(new Set(["5"]));
    const sentAway = answers.filter((answer) => answer.message.startsWith("Too many requests"));
    expect(sentAway.length).toBeGreaterThan(500);
    expect(sentAway.length).toBeLessThan(1_500);
  });
});

describe("the probes", () => {
  test("say yes while all is well", async ({ api }) => {
    expect(await api.get("/healthz")).toMatchObject({ status: 200, body: { ok: true } });
    expect(await api.get("/readyz")).toMatchObject({ status: 200, body: { ok: true } });
  });

  test("tell an unmigrated database from an absent one", async ({ databaseUrl, pool, api }) => {
    await pool.query("delete from thaw_migrations where name = 'views.sql'");
    expect(await api.get("/readyz")).toMatchObject({
      status: 503,
      body: { ok: false, reason: expect.stringMatching(/lacks sql\/views.sql .*npm run migrate/) },
    });

    const gone = new URL(databaseUrl);
    gone.port = "1";
    const away = await startApi(gone.href);
    expect(await away.get("/healthz")).toMatchObject({ status: 200, body: { ok: true } });
    const answer = await away.get("/readyz");
    expect(answer).toMatchObject({ status: 503, body: { ok: false, reason: "Postgres does not answer." } });
    await away.close();
  });

  test("say when the process stops", async ({ databaseUrl }) => {
    const stopping = await startApi(databaseUrl, { notReady: () => Promise.resolve("stopping") });

    expect(await stopping.get("/readyz")).toMatchObject({
      status: 503,
      body: { ok: false, reason: "stopping" },
    });
    await stopping.close();
  });
});
