/**
 * Whatever a caller sends: what is answered 200 is stored byte for byte, what is answered 4xx leaves nothing,
 * and no key is another by the time S3 hears of it. A failure prints its seed and its smallest example.
 */
import * as fc from "fast-check";
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { createS3 } from "../../server/s3/s3.ts";
import { MINIMAL, test } from "../support/api.ts";
import { everything, one, query, type Row } from "../support/rows.ts";
import { startS3StandIn } from "../stand_ins/s3.ts";
import { BUCKET, JANE } from "../support/thaw.ts";

/** Bytes that somebody on the way may fold, decode, trim, normalise, cut at or choke on. */
const TRAPS = [
  "./+%?#;&= \\'\"<>*!()~@:,$|[]{}^`\0\t\r\n\u0001\u007f\u0085".split(""),
  ["..", "//", "/./", "/../", "%41", "%2F", "%2e%2e", "%00", "\\u0000", "versionId=x", "?restore"],
  ["é", "e\u0301", "ﬁ", "ß", "İ", "\u200d", "\u202e", "\u2028", "\ufeff", "\u00a0", "\ufffd", "\uffff"],
  ["🎞️", "👩‍👩‍👧", "\u{10ffff}", "\ud800", "\udc00", "\udc00\ud800", "__proto__", "null"],
].flat();

const anyUnit = fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit));

/** Some can be keys, others not. */
const anyKey = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.array(fc.constantFrom(...TRAPS), { maxLength: 8 }).map((parts) => parts.join("")),
  },
  { weight: 2, arbitrary: fc.string({ unit: "grapheme" }) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 300 }) },
  { weight: 1, arbitrary: fc.array(anyUnit, { maxLength: 300 }).map((units) => units.join("")) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.constantFrom("x", "é", "水", "🎞", " ", "/", "%"), fc.integer({ min: 1000, max: 1100 }))
      .map(([letter, bytes]) => letter.repeat(bytes / Buffer.byteLength(letter))),
  },
);

const isText = (text: string, max_bytes: number): boolean =>
  text.isWellFormed() && !text.includes("\0") && Buffer.byteLength(text) <= max_bytes;
const isKey = (text: string): boolean => isText(text, 1024) && text !== "";

const goodKey = anyKey.filter(isKey);
const goodText = (max_bytes: number) => anyKey.filter((text) => isText(text, max_bytes));

/** The same JSON in other bytes: each letter of each text as an escape. */
const escaped = (json: string): string =>
  json.replaceAll(/"((?:[^"\\]|\\.)*)"/g, (text) => {
    const units = (JSON.parse(text) as string).split("");
    return `"${units.map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("")}"`;
  });

const spelling = fc.constantFrom((json: string) => json, escaped);

/** All that a request can leave behind. */
const leftovers = (pool: Pool): Promise<Row> =>
  one(
    pool,
    `select (select count(*) from restores) as restores, (select sum(read_count) from restore_requests) as reads,
            (select count(*) from graphile_worker.jobs) as jobs, (select count(*) from notifications) as mails`,
  );

const STORED = [
  "s3_bucket",
  "s3_key",
  "version_id",
  "access_key_id",
  "principal",
  "source_identity",
  "account_id",
  "last_event_id",
];

const stored = (pool: Pool, ids: string[]): Promise<Row[]> =>
  query(
    pool,
    `select id, ${STORED.map(
      (column) => `encode(convert_to(${column}, 'UTF8'), 'hex') as ${column}`,
    ).join()} from restore_requests where id = any ($1)`,
    [ids],
  );

const hex = (text = ""): string => Buffer.from(text, "utf8").toString("hex");

describe("POST /restore/request", () => {
  test("takes every key that can be one, as it is, and no other", async ({ api, pool }) => {
    const known = new Map<string, string>();

    await fc.assert(
      fc.asyncProperty(fc.array(anyKey, { maxLength: 12 }), spelling, async (keys, spell) => {
        const answers = await Promise.all(
          keys.map((s3_key) => api.post("/restore/request", spell(JSON.stringify({ ...MINIMAL, s3_key })))),
        );

        expect(answers.map((answer) => answer.status)).toEqual(keys.map((key) => (isKey(key) ? 200 : 400)));
        const ids = new Map(
          keys.flatMap((key, index) => (isKey(key) ? [[answers[index]?.body.id as string, key]] : [])),
        );
        for (const [id, key] of ids) {
          expect(known.get(key) ?? id).toBe(id);
          known.set(key, id);
        }
        const rows = await stored(pool, [...ids.keys()]);
        expect(new Map(rows.map((row) => [row["id"], row["s3_key"]]))).toEqual(
          new Map([...ids].map(([id, key]) => [id, hex(key)])),
        );
        expect((await leftovers(pool))["restores"]).toBe(`${known.size}`);
      }),
      { numRuns: 300 },
    );
    expect(known.size).toBeGreaterThan(100);
  });

  test("takes every field as it is", async ({ api, pool }) => {
    const good = fc.record(
      {
        s3_bucket: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{1,40}[A-Za-z0-9]$/),
        s3_key: goodKey,
        version_id: goodText(1024),
        access_key_id: fc.stringMatching(/^[\w-]{0,128}$/),
        principal_arn: goodText(2048),
        source_identity: goodText(256),
        account_id: goodText(64),
        event_id: goodText(256),
        region: fc.constantFrom("eu-central-1", "us-gov-west-1"),
        event_time: fc
          .date({ min: new Date(0), noInvalidDate: true, max: new Date() })
          .map((at) => at.toISOString()),
      },
      { requiredKeys: ["s3_bucket", "s3_key"] },
    );

    await fc.assert(
      fc.asyncProperty(good, spelling, async (body, spell) => {
        const answer = await api.post("/restore/request", spell(JSON.stringify(body)));
        // Of a repeat (by key, or by principal) the first one's stands.
        const first = (text?: string) => (answer.body.duplicate ? expect.any(String) : hex(text));

        expect(answer.status).toBe(200);
        expect(await stored(pool, [answer.body.id])).toEqual([
          {
            id: answer.body.id,
            s3_bucket: hex(body.s3_bucket),
            s3_key: hex(body.s3_key),
            version_id: hex(body.version_id),
            access_key_id: hex(body.access_key_id),
            principal: first(body.principal_arn),
            source_identity: first(body.source_identity),
            account_id: first(body.account_id),
            last_event_id: body.event_id === undefined ? null : hex(body.event_id),
          },
        ]);
      }),
      { numRuns: 500 },
    );
  });
});

/** Other keys that somebody on the way may make of one. */
const twinsOf = (key: string): string[] =>
  [
    key.normalize("NFC"),
    key.normalize("NFD"),
    key.trim(),
    key.toLowerCase(),
    key.replaceAll("+", " "),
    key.replaceAll("//", "/"),
    key.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, code: string) => String.fromCharCode(parseInt(code, 16))),
  ].filter((twin) => twin !== key && isKey(twin));

describe("POST /restore/completed", () => {
  test("has S3 asked about the key that it names, and about no twin of it", async ({ api, pool }) => {
    const complete = async (s3_key: string, spell = (json: string) => json): Promise<number> => {
      const restore_expires_at = new Date(Date.now() + 86_400_000).toISOString();
      const body = JSON.stringify({ ...MINIMAL, s3_key, restore_expires_at });
      return (await api.post("/restore/completed", spell(body))).body.updated;
    };

    await fc.assert(
      fc.asyncProperty(goodKey, spelling, async (key, spell) => {
        await pool.query("truncate restores cascade");
        await api.post("/restore/request", { ...MINIMAL, s3_key: key });

        for (const twin of twinsOf(key)) expect([twin, await complete(twin)]).toEqual([twin, 0]);
        // Asked for as well: each hears of its own.
        for (const twin of twinsOf(key)) await api.post("/restore/request", { ...MINIMAL, s3_key: twin });
        expect(await complete(key, spell)).toBe(1);
        expect(
          await query(
            pool,
            "select encode(convert_to(s3_key, 'UTF8'), 'hex') as key from restores where head_wanted_at is not null",
          ),
        ).toEqual([{ key: hex(key) }]);
      }),
      { numRuns: 150, examples: [["e\u0301 +%41//", (json: string) => json]] },
    );
  });
});

describe("a body that is broken", () => {
  const good = fc.record({
    s3_bucket: fc.constant(BUCKET),
    s3_key: goodKey,
    event_id: fc.uuid(),
    event_time: fc.constant("2026-11-20T10:15:30Z"),
    version_id: goodText(64),
  });
  const field = fc.constantFrom(
    "s3_bucket",
    "s3_key",
    "version_id",
    "event_id",
    "event_time",
    "more",
    "__proto__",
  );
  const bytes = (max: number) => fc.uint8Array({ maxLength: max }).map((list) => Buffer.from(list));

  const anyBody: fc.Arbitrary<Buffer> = fc.oneof(
    bytes(60),
    fc.json({ maxDepth: 3 }).map((json) => Buffer.from(json)),
    // A field of another kind.
    fc
      .tuple(good, field, fc.jsonValue())
      .map(([body, name, value]) =>
        Buffer.from(
          JSON.stringify({ ...body, ...JSON.parse(`{${JSON.stringify(name)}:${JSON.stringify(value)}}`) }),
        ),
      ),
    // A text in the wrong place.
    fc
      .tuple(good, field, anyKey)
      .map(([body, name, value]) => Buffer.from(JSON.stringify({ ...body, [name]: value }))),
    // A field less.
    fc.tuple(good, field).map(([body, name]) => {
      const { [name as "s3_key"]: _, ...rest } = body;
      return Buffer.from(JSON.stringify(rest));
    }),
    // Some bytes others.
    fc.tuple(good, fc.nat(400), fc.nat(4), bytes(4)).map(([body, at, less, more]) => {
      const json = Buffer.from(JSON.stringify(body));
      const from = at % json.length;
      return Buffer.concat([json.subarray(0, from), more, json.subarray(from + less)]);
    }),
  );

  /** As JavaScript reads it; null: no UTF-8, or no JSON object. */
  const read = (body: Buffer): Record<string, string> | null => {
    try {
      const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
      return typeof value === "object" ? value : null;
    } catch {
      return null;
    }
  };

  test("is refused and leaves nothing, or is taken for what it says", async ({ api, pool }) => {
    const counts = { 200: 0, 400: 0 };

    await fc.assert(
      fc.asyncProperty(anyBody, async (body) => {
        const before = await leftovers(pool);
        const answer = await api.post("/restore/request", body);
        expect([200, 400]).toContain(answer.status);
        counts[answer.status as 200 | 400]++;

        if (answer.status === 400) {
          expect(answer.body.error.code).toBe("invalid_request");
          expect(await leftovers(pool)).toEqual(before);
        } else {
          const said = read(body);
          expect(await stored(pool, [answer.body.id])).toMatchObject([
            {
              s3_bucket: hex(said?.["s3_bucket"]),
              s3_key: hex(said?.["s3_key"]),
              version_id: hex(said?.["version_id"]),
            },
          ]);
        }
      }),
      { numRuns: 1500 },
    );
    expect(Math.min(...Object.values(counts))).toBeGreaterThan(50);
  });

  test("completes nothing", async ({ api, pool }) => {
    await api.post("/restore/request", { ...MINIMAL, access_key_id: JANE });
    const before = await everything(pool);

    await fc.assert(
      fc.asyncProperty(anyBody, async (body) => {
        // What is said of other objects is no news either.
        fc.pre(read(body)?.["s3_key"] !== MINIMAL.s3_key);
        const answer = await api.post("/restore/completed", body);
        expect(answer.status === 400 || answer.body.updated === 0).toBe(true);
      }),
      { numRuns: 600 },
    );
    expect(await everything(pool)).toEqual(before);
  });
});

test("S3 hears every key as it was read", async () => {
  const stand_in = await startS3StandIn();
  stand_in.createBucket(BUCKET, { versioning: "enabled" });
  process.env["AWS_ACCESS_KEY_ID"] = "AKIATHAW000000000001";
  process.env["AWS_SECRET_ACCESS_KEY"] = "secret";
  const s3 = createS3({
    AWS_REGION: "us-east-1",
    AWS_ENDPOINT_URL_S3: stand_in.url,
    S3_FORCE_PATH_STYLE: "true",
    S3_CONCURRENCY: 5,
  });
  const signal = AbortSignal.timeout(60_000);

  await fc.assert(
    fc.asyncProperty(goodKey, async (s3_key) => {
      const { version_id = "" } = stand_in.putObject({
        bucket: BUCKET,
        key: s3_key,
        storage_class: "GLACIER",
      });
      for (const named of ["", version_id]) {
        stand_in.clearRequests();
        const object = { s3_bucket: BUCKET, s3_key, version_id: named, region: null };
        const head = await s3.headObject(object, signal);
        expect(head.state).toBe(named === "" ? "archived" : "restoring");
        if (head.state === "gone") return;
        await s3.restoreObject({ ...object, ...head }, { tier: "Standard", days: 7 }, signal);

        expect(stand_in.requests).toMatchObject([
          { operation: "HeadObject", bucket: BUCKET, key: s3_key, ...(named && { version_id }) },
          { operation: "RestoreObject", bucket: BUCKET, key: s3_key, version_id },
        ]);
      }
    }),
    { numRuns: 500 },
  );
  s3.destroy();
  await stand_in.close();
});
