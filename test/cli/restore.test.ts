/** `npm run thaw -- restore`: what it shows, what it hands in, and how it ends. */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { describe, expect, test as plain } from "vitest";

import { test as base, waitFor } from "../support/database.ts";
import { baseEnv } from "../support/fast_run.ts";
import { limit } from "../support/cost.ts";
import { test as withRoles } from "../support/roles.ts";
import { ROOT } from "../support/root.ts";
import { aRead, know, one, query, requestRestores, type Row } from "../support/rows.ts";
import { startTcpProxy } from "../support/tcp_proxy.ts";
import { BUCKET, JANE, startThaw } from "../support/thaw.ts";
import { atTerminal, jsonLines, thaw, type Ended } from "../support/thaw_command.ts";
import { startS3StandIn, type S3StandIn } from "../stand_ins/s3.ts";

const PERSON = "jane@example.com";
const READER = `mailto:${PERSON}`;

interface World {
  s3: S3StandIn;
  env: Record<string, string>;
  /** Runs `thaw restore`; `for` is given unless another one is. */
  order: (words: string | string[], io?: Parameters<typeof thaw>[2]) => Promise<Ended>;
  /** A file with that content. */
  file: (content: string | Uint8Array) => string;
}

const test = base.extend<{ world: World }>({
  world: async ({ databaseUrl }, use) => {
    const s3 = await startS3StandIn({ restore_ms: Infinity });
    const directory = await mkdtemp(join(tmpdir(), "thaw-order-"));
    s3.createBucket(BUCKET);
    const env = {
      DATABASE_URL: databaseUrl,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "AKIAOPERATOR00000001",
      AWS_SECRET_ACCESS_KEY: "secret",
      AWS_ENDPOINT_URL_S3: s3.url,
      S3_FORCE_PATH_STYLE: "true",
      // Longer than two pages of restores are ever apart here.
      NOTIFY_QUIET_SECONDS: "5",
      NOTIFY_MAX_WAIT_SECONDS: "300",
    };
    // The SDK reads its credentials from the process.
    Object.assign(process.env, {
      AWS_ACCESS_KEY_ID: env.AWS_ACCESS_KEY_ID,
      AWS_SECRET_ACCESS_KEY: env.AWS_SECRET_ACCESS_KEY,
    });
    let files = 0;
    try {
      await use({
        s3,
        env,
        order: (words, io = {}) => {
          const typed = typeof words === "string" ? words.split(" ") : words;
          const whom = typed.includes("--for") ? [] : ["--for", PERSON];
          return thaw(databaseUrl, ["restore", ...typed, ...whom], { env, ...io });
        },
        file(content) {
          files += 1;
          const path = join(directory, `list-${files}`);
          writeFileSync(path, content);
          return path;
        },
      });
    } finally {
      await s3.close();
      await rm(directory, { recursive: true });
    }
  },
});

const GB = 2 ** 30;
const put = (s3: S3StandIn, key: string, storage_class = "GLACIER", more: Row = {}): void =>
  void s3.putObject({ bucket: BUCKET, key, storage_class, size_bytes: GB, ...more });

const requests = (pool: Parameters<typeof query>[0]): Promise<Row[]> =>
  query(
    pool,
    `select s3_key, version_id, reader, access_key_id, email, resolved_by::text as resolved_by, restore_status, read_count
       from restore_requests order by s3_key, version_id, reader`,
  );
const keys = async (pool: Parameters<typeof query>[0]): Promise<string[]> =>
  (await requests(pool)).map(({ s3_key }) => s3_key as string);

describe("a prefix", () => {
  test("is looked over: classes, sizes, times and cost, what is readable and what is under way; then asked, and handed in", async ({
    world: { s3, order },
    pool,
  }) => {
    for (const key of ["films/a", "films/b"]) put(s3, key);
    put(s3, "films/deep", "DEEP_ARCHIVE");
    for (const name of ["STANDARD", "STANDARD_IA", "ONEZONE_IA", "GLACIER_IR", "REDUCED_REDUNDANCY"])
      put(s3, `films/${name}`, name);
    put(s3, "films/tiered", "INTELLIGENT_TIERING");
    put(s3, "films/running");
    s3.beginRestore({ bucket: BUCKET, key: "films/running" }, { days: 1 });
    put(s3, "films/ready");
    s3.beginRestore({ bucket: BUCKET, key: "films/ready" }, { days: 1 });
    s3.finishRestore({ bucket: BUCKET, key: "films/ready" });
    put(s3, "other/c");
    put(s3, "films/read");
    await know(pool, JANE, "bob@example.com");
    await requestRestores(pool, aRead({ s3_key: "films/read" }));

    const dry = await order("s3://archive/films/ --dry-run");
    expect(dry.err).toBe("");
    expect(dry.out).toContain(
      "s3://archive/films/: 3 files of 12 to restore for jane@example.com, 3.2 GB, an estimated $0.06.",
    );
    expect(dry.out).toMatch(/^GLACIER +2 +2\.1 GB +Standard +7 +3 to 5 hours +\$0\.03 +restored$/m);
    expect(dry.out).toMatch(/^DEEP_ARCHIVE +1 +1\.1 GB +Standard +7 +up to 12 hours +\$0\.03 +restored$/m);
    expect(dry.out).toContain("6 files are readable already.");
    expect(dry.out).toContain("2 files are being restored already, which costs nothing more");
    expect(dry.out).toContain("1 file in Intelligent-Tiering: a list does not say");
    expect(dry.out).toMatch(/by the prices of us-east-1 \(\d{4}-\d\d-\d\d\)/);
    expect(dry.out).toContain("Nothing was ordered: this was a dry run.");
    expect(dry.exit).toBe(0);
    expect(await keys(pool)).toEqual(["films/read"]);

    const no = await order("s3://archive/films/", { answer: "n" });
    expect(no.asked).toEqual([
      "Restore 3 files (3.2 GB, an estimated $0.06) of s3://archive/films/ for jane@example.com? [y/N] ",
    ]);
    expect([no.exit, no.err]).toEqual([1, "Nothing was changed.\n"]);
    expect(await keys(pool)).toEqual(["films/read"]);

    const yes = await order("s3://archive/films/ --yes");
    expect(yes.out).toContain("Handed in: 6 files for jane@example.com");
    expect([yes.exit, yes.err]).toEqual([0, ""]);
    // Of the tiered one a row is made only when HEAD shows it as archived.
    const rows = (await requests(pool)).filter(
      ({ reader, s3_key }) => reader === READER && s3_key !== "films/tiered",
    );
    expect(rows.map(({ s3_key }) => s3_key as string)).toEqual([
      "films/a",
      "films/b",
      "films/deep",
      "films/read",
      "films/running",
    ]);
    for (const row of rows)
      expect(row).toMatchObject({ access_key_id: "", email: PERSON, resolved_by: "named", read_count: 1 });
    const [done, ...others] = await query(pool, "select actor, action, target, after from actions");
    expect(others).toEqual([]);
    expect(done).toMatchObject({
      actor: expect.stringMatching(/^anna \(/),
      action: "order restores",
      target: "s3://archive/films/",
      after: { for: PERSON, objects: 3, bytes: 3 * GB, maybe: 1, joined: 2, readable: 6, handed_in: 6 },
    });
  });

  test("ordered again hands in nothing twice", async ({ world: { s3, order }, pool }) => {
    for (const key of ["a", "b", "c"]) put(s3, key);
    await order("s3://archive --yes");
    put(s3, "d");
    const again = await order("s3://archive --yes");
    expect(again.out).toContain("1 file of 4 to restore");
    expect(again.out).toContain(
      "3 files were ordered for jane@example.com before, and are under way, or wait for approval.",
    );
    expect((await requests(pool)).map(({ s3_key, read_count }) => [s3_key, read_count])).toEqual([
      ["a", 1],
      ["b", 1],
      ["c", 1],
      ["d", 1],
    ]);
    const third = await order("s3://archive");
    expect(third.out).toContain("There is nothing to order.");
    expect([third.exit, third.asked]).toEqual([0, []]);
  });

  test("without a slash at its end says that it is more than the folder of that name", async ({
    world: { s3, order },
  }) => {
    for (const key of ["films/2019/a", "films/2019/b", "films/2019-old/c", "films/2019.mov"]) put(s3, key);
    const says =
      "2 files of these are not in the folder s3://archive/films/2019/. For that alone, end the prefix in /.";
    expect((await order("s3://archive/films/2019 --dry-run")).out).toContain(says);
    for (const prefix of ["films/2019/", "films/2019-", "films/2019/a", ""])
      expect((await order(`s3://archive/${prefix} --dry-run`)).out, prefix).not.toContain(
        "not in the folder",
      );
  });

  test("with --versions orders each version, and no delete marker", async ({
    world: { s3, order },
    pool,
  }) => {
    s3.createBucket("kept", { versioning: "enabled" });
    const ids = Array.from(
      { length: 3 },
      () => s3.putObject({ bucket: "kept", key: "k", storage_class: "GLACIER" }).version_id,
    );
    s3.deleteObject({ bucket: "kept", key: "k" });
    const current = await order("s3://kept/ --yes");
    expect([current.exit, current.err]).toEqual([3, "There is nothing under s3://kept/.\n"]);
    expect((await order("s3://kept/ --versions --yes")).exit).toBe(0);
    expect((await requests(pool)).map(({ version_id }) => version_id as string)).toEqual(ids.toSorted());
  });

  test("has any key and any number of pages", async ({ world: { s3, order }, pool }) => {
    s3.createBucket("many", { versioning: "enabled" });
    const awkward = ["a+b c%20é/日本?#&'\"<>", "line\nbreak\r", "\u0001\u2028", " ", "//"];
    for (const key of awkward) put(s3, key);
    for (let i = 0; i < 2100; i++) put(s3, `n/${i}`);
    expect((await order("s3://archive/ --yes --json")).exit).toBe(0);
    expect((await keys(pool)).toSorted()).toEqual(
      [...awkward, ...Array.from({ length: 2100 }, (_, i) => `n/${i}`)].toSorted(),
    );
    // Of versions a page ends within a key.
    for (let i = 0; i < 2100; i++)
      s3.putObject({ bucket: "many", key: i % 2 === 0 ? "a+ é" : "\u0001", storage_class: "GLACIER" });
    expect((await order("s3://many/ --versions --yes")).out).toContain("Handed in: 2,100 files");
    const { n } = await one(
      pool,
      "select count(distinct (s3_key, version_id))::int as n from restores where s3_bucket = 'many'",
    );
    expect(n).toBe(2100);
  });

  test("has a key with NUL, which Postgres cannot keep: it is left out and told, the others are ordered", async ({
    world: { s3, order },
    pool,
  }) => {
    for (const key of ["a", "b\0", "c"]) put(s3, key);
    const ended = await order("s3://archive/ --yes");
    expect(ended).toMatchObject({ exit: 0, err: "" });
    expect(ended.out).toContain("1 file has NUL in its key, and is left out");
    expect(await keys(pool)).toEqual(["a", "c"]);
  });

  test("is listed on where S3 throttles, breaks off, or sends to another region", async ({
    world: { s3, order },
    pool,
  }) => {
    s3.createBucket("far", { region: "eu-west-1" });
    s3.putObject({ bucket: "far", key: "k", storage_class: "GLACIER" });
    // More often than the SDK tries by itself.
    s3.fail({ with: "slow_down", operation: "ListObjectsV2", times: 4 });
    expect((await order("s3://far/ --yes")).exit).toBe(0);
    expect(await one(pool, "select s3_bucket, region from restores")).toEqual({
      s3_bucket: "far",
      region: "eu-west-1",
    });
  });

  test("that cannot be listed says what to do", async ({ world: { s3, order }, pool }) => {
    const none = await order("s3://no-such-bucket/ --yes");
    expect([none.exit, none.err]).toEqual([
      3,
      "There is no bucket no-such-bucket. Check its name, and the account.\n",
    ]);
    s3.switches.may_list = false;
    const denied = await order("s3://archive/films/ --yes");
    expect(denied.err).toBe(
      "Your AWS credentials may not list s3://archive/films/. Add this to their policy, or take others (AWS_PROFILE):\n" +
        '  {"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::archive"}\n',
    );
    expect(denied.exit).toBe(1);
    expect((await order("s3://archive/films/ --versions --yes")).err).toContain(
      '"Action":"s3:ListBucketVersions"',
    );
    s3.switches.may_list = true;
    // Not the end of the list, nor an empty one.
    const proxy = s3.fail({ with: "garbage", status: 200, operation: "ListObjectsV2" });
    const strange = await order("s3://archive/films/ --yes");
    expect([strange.exit, strange.err]).toEqual([1, expect.stringMatching(/^S3 did not let us list /)]);
    proxy.remove();
    const empty = await order("s3://archive/films/ --yes");
    expect([empty.exit, empty.err]).toEqual([3, "There is nothing under s3://archive/films/.\n"]);
    expect(await query(pool, "select from actions")).toEqual([]);
  });

  test("without a terminal needs --yes, and shows first what it would do", async ({
    world: { s3, order },
    pool,
  }) => {
    put(s3, "a");
    const { exit, err, out } = await order("s3://archive/");
    expect([exit, err]).toEqual([2, expect.stringContaining("add --yes")]);
    expect(out).toContain("1 file of 1 to restore");
    expect(await keys(pool)).toEqual([]);
  });

  test("with --json is one object per line", async ({ world: { s3, order } }) => {
    put(s3, "a");
    put(s3, "b", "STANDARD");
    const lines = jsonLines((await order("s3://archive/ --yes --json")).out);
    expect(lines).toEqual([
      expect.objectContaining({ kind: "plan", for: PERSON, objects: 1, bytes: GB, readable: 1, joined: 0 }),
      expect.objectContaining({ kind: "class", storage_class: "GLACIER", objects: 1, action: "restore" }),
      { kind: "order", for: PERSON, handed_in: 1, ignored: 0, failed: 0, of: 1, ok: true },
    ]);
  });
});

describe("policies and limits", () => {
  test("are shown before, and hold as for any read", async ({ world: { s3, order }, pool }) => {
    for (const key of ["vault/a", "scan/a", "look/a", "raw/a", "raw/b", "x/a"]) put(s3, key);
    await pool.query(`insert into policies (s3_bucket, key_prefix, principal, action, tier, days) values
      ('archive', 'vault/', '*', 'hold', null, null), ('archive', 'scan/', '${PERSON}', 'ignore', null, null),
      ('archive', 'look/', '*', 'observe', null, null), ('archive', 'raw/', '*', 'restore', 'Bulk', 3)`);
    await limit(pool, { scope: "person", max_objects: 2 });

    const { exit, out } = await order("s3://archive/ --yes");
    expect(exit).toBe(0);
    expect(out).toMatch(/^GLACIER +2 +2\.1 GB +Bulk +3 +5 to 12 hours +under \$0\.01 +restored$/m);
    expect(out).toMatch(/^GLACIER +1 .* held for approval, by a policy$/m);
    expect(out).toMatch(/^GLACIER +1 .* only observed, by a policy/m);
    expect(out).toContain("1 file is left out: a policy ignores jane@example.com there.");
    expect(out).toContain(
      "Beyond the limit of 2 objects per day for each person (2 objects left): what is beyond waits for approval",
    );
    expect(await keys(pool)).toEqual(["look/a", "raw/a", "raw/b", "vault/a", "x/a"]);
  });

  test("the estimate is the one that a restore is charged", async ({
    world: { s3, order, env },
    pool,
    databaseUrl,
  }) => {
    for (let i = 0; i < 7; i++) put(s3, `a${i}`, "GLACIER", { size_bytes: 3.5 * GB });
    put(s3, "b", "DEEP_ARCHIVE", { size_bytes: 12.5 * GB });
    // Which only HEAD shows as archived; by Standard it costs nothing.
    put(s3, "c", "INTELLIGENT_TIERING", { archive_status: "DEEP_ARCHIVE_ACCESS" });
    const [plan] = jsonLines((await order("s3://archive/ --yes --json")).out);
    const running = await startThaw(databaseUrl, { env });
    try {
      await waitFor("all pending", async () => {
        const { n } = await one(pool, "select count(*)::int as n from restores where status = 'pending'");
        return n === 9;
      });
    } finally {
      await running.stop();
    }
    const { cost } = await one(pool, "select sum(estimated_cost)::float8 as cost from restores");
    expect(plan?.["estimated_cost"]).toBeCloseTo(cost, 9);
    const { out } = await order("s3://archive/");
    expect(out).toContain("9 files were ordered for jane@example.com before");
    const costs = await thaw(databaseUrl, "cost --by person");
    expect(costs.out).toMatch(new RegExp(`^${PERSON} +9 `, "m"));
  });
});

describe("a list", () => {
  const CLASSES = ["GLACIER", "DEEP_ARCHIVE", "STANDARD"];
  const fill = (s3: S3StandIn): void => {
    for (const name of CLASSES) put(s3, `${name} a+b%20c,é`, name);
    put(s3, "tiered", "INTELLIGENT_TIERING", { archive_status: "DEEP_ARCHIVE_ACCESS" });
    put(s3, "frequent", "INTELLIGENT_TIERING");
  };
  const utf16 = (text: string): Buffer => Buffer.from(`\uFEFF${text}`, "utf16le");

  test.for([
    ["s3:// URLs", (rows: string[]) => rows.map((key) => `s3://archive/${key}\n`).join("")],
    [
      "with CRLF, empty lines and a BOM",
      (rows: string[]) => `\uFEFF${rows.map((key) => `s3://archive/${key}\r\n\r\n`).join("")}`,
    ],
    ["without a last line break", (rows: string[]) => rows.map((key) => `s3://archive/${key}`).join("\n")],
    ["CSV", (rows: string[]) => rows.map((key) => `archive,"${key}"\n`).join("")],
    [
      "CSV with a version that is empty",
      (rows: string[]) => rows.map((key) => `"archive","${key}",""\r\n`).join(""),
    ],
    [
      "CSV with names of columns, in any order",
      (rows: string[]) => `Size,Key,Bucket\n${rows.map((key) => `1,"${key}",archive\n`).join("")}`,
    ],
    ["in UTF-16", (rows: string[]) => utf16(rows.map((key) => `s3://archive/${key}\r\n`).join(""))],
  ] as const)(
    "%s: each file is looked at by HEAD",
    async ([, write], { world: { s3, order, file }, pool }) => {
      fill(s3);
      const named = [...CLASSES.map((name) => `${name} a+b%20c,é`), "tiered", "frequent", "missing"];
      const { exit, out } = await order(["--manifest", file(write(named)), "--yes"]);
      expect(out).toMatch(
        /: 3 files of 6 to restore for jane@example\.com, 3\.2 GB, an estimated \$0\.04\.$/m,
      );
      expect(out).toMatch(/^DEEP_ARCHIVE_ACCESS +1 +1\.1 GB +Standard +for good +up to 12 hours +\$0\.00/m);
      expect(out).toContain("2 files are readable already.");
      expect(out).toContain("1 file is not there, and left out");
      expect(out).toContain("3 files of the list have keys with %XX in it, taken as it is.");
      expect(await keys(pool)).toEqual(["DEEP_ARCHIVE a+b%20c,é", "GLACIER a+b%20c,é", "tiered"]);
      expect(exit).toBe(0);
    },
  );

  test("of S3 Inventory is decoded with --url-encoded, and not without", async ({
    world: { s3, order, file },
    pool,
  }) => {
    put(s3, "a b+c%25/é");
    const inventory = file('"archive","a+b%2Bc%2525/%C3%A9"\n');
    expect((await order(["--manifest", inventory, "--yes"])).out).toContain("1 file is not there");
    expect((await order(["--manifest", inventory, "--url-encoded", "--yes"])).exit).toBe(0);
    expect(await keys(pool)).toEqual(["a b+c%25/é"]);
  });

  test("names versions", async ({ world: { s3, order, file }, pool }) => {
    s3.createBucket("kept", { versioning: "enabled" });
    const versions = Array.from(
      { length: 2 },
      () => s3.putObject({ bucket: "kept", key: "k", storage_class: "GLACIER" }).version_id ?? "",
    );
    s3.putObject({ bucket: "kept", key: "k" });
    const list = file(`kept,k\n${versions.map((version) => `kept,k,${version}\n`).join("")}`);
    expect((await order(["--manifest", list, "--yes"])).out).toContain("1 file is readable already.");
    expect((await requests(pool)).map(({ version_id }) => version_id as string)).toEqual(versions.toSorted());
  });

  test("with bad lines is refused whole, all of them told with their numbers", async ({
    world: { s3, order, file },
    pool,
  }) => {
    put(s3, "a");
    const urls = await order([
      "--manifest",
      file(
        `s3://archive/a\nhttps://archive/b\ns3://archive/\n\ns3://b_/x\ns3://archive/${"k".repeat(1025)}\n`,
      ),
      "--yes",
    ]);
    expect(urls.exit).toBe(1);
    expect(urls.err).toMatch(
      /^Nothing was ordered from .*:\n {2}line 2: 'https:\/\/archive\/b' is no s3:\/\/bucket\/key\n {2}line 3: the key is missing\n {2}line 5: 'b_' is no bucket's name\n {2}line 6: the key is longer than 1024 bytes\n$/,
    );
    const csv = await order(["--manifest", file("archive,a\nonly-one\narchive,b,c,d\narchive,\n"), "--yes"]);
    expect(csv.err).toMatch(
      /line 2: 'only-one' is neither .*\n {2}line 3: 4 fields, .*\n {2}line 4: the key is missing\n$/,
    );
    const forged = await order(["--manifest", file('archive,a\n"b\n  line 9: c",d\n'), "--yes"]);
    expect(forged.err).toContain("line 3: 'b\\u{a}  line 9: c' is no bucket's name\n");
    const encoded = await order(["--manifest", file("archive,%zz\narchive,%C3\n"), "--url-encoded"]);
    expect(encoded.err).toMatch(/line 1: '%zz' is not URL-encoded.*\n {2}line 2: '%C3' is not/);
    const many = await order(["--manifest", file("s3://archive/a\n".concat("x\n".repeat(50_000)))]);
    expect(many.err).toMatch(/line 21: .*\n {2}and 49980 more\n$/);
    for (const [bytes, says] of [
      [Buffer.from([0x1f, 0x8b, 8, 0]), "gunzip"],
      [Buffer.from([0x73, 0x33, 0xff, 0x0a]), "neither UTF-8 nor UTF-16"],
      [Buffer.from("s3://archive/a\n", "utf16le"), "without its byte order mark"],
      [Buffer.from('archive,"a\n'), "nor a CSV file"],
    ] as const) {
      const ended = await order(["--manifest", file(bytes)]);
      expect([ended.exit, ended.err]).toEqual([1, expect.stringContaining(says)]);
    }
    const empty = await order(["--manifest", file("\n")]);
    expect([empty.exit, empty.err]).toEqual([3, expect.stringContaining("There is nothing in ")]);
    expect((await order("--manifest /no/such/file")).err).toContain("Cannot read /no/such/file");
    expect(await keys(pool)).toEqual([]);
    expect(s3.requests).toEqual([]);
  });

  test("that names a file twice has it restored once", async ({ world: { s3, order, file }, pool }) => {
    put(s3, "a");
    put(s3, "b");
    const list = file("s3://archive/a\ns3://archive/b\n".repeat(300));
    expect((await order(["--manifest", list, "--yes"])).exit).toBe(0);
    expect((await requests(pool)).map(({ s3_key, read_count }) => [s3_key, read_count])).toEqual([
      ["a", 1],
      ["b", 1],
    ]);
  });

  test("whose key has a comma without quotes says what was taken for a version", async ({
    world: { s3, order, file },
  }) => {
    put(s3, "a,b");
    const ended = await order(["--manifest", file("archive,a,b\n"), "--yes"]);
    expect(ended.exit).toBe(1);
    expect(ended.err).toMatch(
      /look at s3:\/\/archive\/a, version b \(line 1 of the list\): BadRequest\. .*A key with a comma needs quotes around it\.\n$/,
    );
  });

  test("says what S3 refuses to look at", async ({ world: { s3, order, file } }) => {
    put(s3, "a");
    s3.fail({ with: "access_denied", operation: "HeadObject" });
    const { exit, err } = await order(["--manifest", file("s3://archive/a\n"), "--yes"]);
    expect(err).toContain("may not look at s3://archive/a (line 1 of the list)");
    expect(err).toContain('{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::archive/*"}');
    expect(exit).toBe(1);
  });
});

describe("as a process", () => {
  const THAW = join(ROOT, "server/cli/thaw.ts");
  const MANY = 20_000;
  const fill = (s3: S3StandIn): void => {
    for (let i = 0; i < MANY; i++) put(s3, `n/${i}`);
  };

  interface Running {
    interrupt(): void;
    output(): string;
    code: Promise<number | null>;
  }

  const start = (env: Record<string, string>, ...words: string[]): Running => {
    const child = spawn(process.execPath, [THAW, "restore", "s3://archive/", "--for", PERSON, ...words], {
      cwd: tmpdir(),
      env: { ...baseEnv(), ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk) => (output += String(chunk)));
    return {
      interrupt: () => void child.kill("SIGINT"),
      output: () => output,
      code: new Promise((resolve) => {
        child.once("close", resolve);
      }),
    };
  };

  test("Ctrl-C says what was handed in, and the same command hands in the rest, nothing twice", async ({
    world: { s3, env },
    pool,
  }) => {
    fill(s3);
    const running = start(env, "--yes");
    const client = await pool.connect();
    try {
      await waitFor("the order", async () => (await query(pool, "select from actions")).length === 1, 60_000);
      // It counts in this row what it has handed in: now it has to wait.
      await client.query("begin");
      await client.query("select from actions for update");
      running.interrupt();
      await client.query("commit");
    } finally {
      client.release(true);
    }
    expect(await running.code).toBe(1);
    const [, handed_in] =
      /^Stopped\. ([\d,]+) files of 20,000 were handed in, and are being restored\. For the rest, give the same command again: nothing is restored, or told, twice\.$/m.exec(
        running.output(),
      ) ?? [undefined, running.output()];
    const { n } = await one(pool, "select count(*)::int as n from restore_requests");
    expect(handed_in).toBe(n.toLocaleString("en-US"));
    expect(n).toBeLessThan(MANY);
    expect(await one(pool, "select after -> 'handed_in' as n from actions")).toEqual({ n });

    const again = start(env, "--yes");
    expect(await again.code, again.output()).toBe(0);
    expect(again.output()).toContain(`${(MANY - n).toLocaleString("en-US")} files of 20,000 to restore`);
    expect(
      await one(pool, "select count(*)::int as n, max(read_count) as reads from restore_requests"),
    ).toEqual({ n: MANY, reads: 1 });
    // Where no terminal is, nothing draws.
    // oxlint-disable-next-line no-control-regex
    expect(again.output()).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  });

  test("Ctrl-C while it looks orders nothing", async ({ world: { s3, env }, pool }) => {
    put(s3, "a");
    s3.fail({ with: "hang", operation: "ListObjectsV2" });
    const running = start(env, "--yes");
    await waitFor("the list", async () => s3.requests.length > 0, 30_000);
    running.interrupt();
    expect(await running.code).toBe(1);
    expect(running.output()).toBe("Stopped. Nothing was ordered.\n");
    expect(await query(pool, "select from actions")).toEqual([]);
  });

  test.skipIf(process.platform !== "linux")(
    "draws a bar on a terminal, and takes it away",
    async ({ world: { s3, env }, pool }) => {
      fill(s3);
      const { code, output } = await atTerminal(
        `restore s3://archive/ --for ${PERSON}`,
        { ...baseEnv(), ...env },
        "y\n",
      );
      // Each line drawn, and what is written over the last one.
      const drawn = output.split("\r\u001B[2K");
      expect(drawn.filter((line) => /^[\d,]+ files looked at$/.test(line))).not.toEqual([]);
      expect(
        drawn.filter((line) => /^\[#*-*\] \d+ %.* {2}[\d,]+ of 20,000 files handed in$/.test(line)),
      ).not.toEqual([]);
      expect(drawn.at(-1)).toMatch(/^Handed in: 20,000 files for jane@example\.com/);
      expect(code).toBe(0);
      expect(await one(pool, "select count(*)::int as n from restores")).toEqual({ n: MANY });
    },
  );
});

withRoles(
  "thaw_operator may order, thaw_reader and thaw_server may not",
  async ({ migrated: roles, world: { s3 } }) => {
    put(s3, "a");
    Object.assign(process.env, {
      AWS_ACCESS_KEY_ID: "AKIAOPERATOR00000001",
      AWS_SECRET_ACCESS_KEY: "secret",
    });
    const env = (role: Parameters<typeof roles.urlOf>[0]): Record<string, string> => ({
      DATABASE_URL: roles.urlOf(role),
      AWS_REGION: "us-east-1",
      AWS_ENDPOINT_URL_S3: s3.url,
      S3_FORCE_PATH_STYLE: "true",
    });
    const words = ["restore", "s3://archive/", "--for", PERSON, "--yes"];
    for (const role of ["thaw_reader", "thaw_server"] as const) {
      const { exit, err } = await thaw("", words, { env: env(role) });
      expect([exit, err]).toEqual([1, expect.stringContaining("Connect as thaw_operator")]);
    }
    const ended = await thaw("", words, { env: env("thaw_operator") });
    expect([ended.exit, ended.err]).toEqual([0, ""]);
    const owner = roles.as("thaw_migrator");
    expect(await one(owner, "select actor, role from actions")).toEqual({
      actor: "anna (thaw_operator)",
      role: "thaw_operator",
    });
    expect(await one(owner, "select by from restore_history")).toEqual({ by: "anna (thaw_operator)" });
    // Whose reads they are is what was noted, whatever else is handed in.
    const operator = roles.as("thaw_operator");
    const { id } = await one(operator, "select open_order($1, 'x', '{}') as id", [PERSON]);
    const read = aRead({ s3_key: "b", principal: "arn:aws:iam::111122223333:user/bob" });
    await operator.query("select order_restores($1, $2, '{}')", [id, JSON.stringify([read])]);
    expect(await query(owner, "select distinct reader from restore_requests")).toEqual([{ reader: READER }]);
    await expect(operator.query("select order_restores(999, '[]', '{}')")).rejects.toMatchObject({
      code: "P0002",
    });
    await expect(operator.query("select open_order('jane', 'x', '{}')")).rejects.toMatchObject({
      code: "22023",
    });
  },
);

describe("what goes wrong on the way", () => {
  test("one file whose row is locked is left out, told, and handed in by the next try", async ({
    world: { s3, order },
    pool,
  }) => {
    for (let i = 0; i < 10; i++) put(s3, `k${i}`);
    await requestRestores(pool, aRead({ s3_key: "k4" }));
    const client = await pool.connect();
    try {
      await client.query("begin");
      await client.query("select from restores where s3_key = 'k4' for update");
      const { exit, out } = await order("s3://archive/ --yes");
      expect(out).toMatch(
        /^9 files of 10 were handed in, .* 1 file could not be: .*lock.* For the rest, give the same/m,
      );
      expect(exit).toBe(1);
    } finally {
      client.release(true);
    }
    const { exit, out } = await order("s3://archive/ --yes");
    expect(out).toContain("9 files were ordered for jane@example.com before");
    expect(exit).toBe(0);
    expect((await requests(pool)).filter(({ reader }) => reader === READER)).toHaveLength(10);
  });

  test("Postgres goes away: what was handed in is told, and the next try hands in the rest", async ({
    world: { s3, order, env },
    pool,
    databaseUrl,
  }) => {
    for (let i = 0; i < 5000; i++) put(s3, `n/${i}`);
    const proxy = await startTcpProxy(databaseUrl);
    const ordered = order("s3://archive/ --yes", { env: { ...env, DATABASE_URL: proxy.url } });
    const client = await pool.connect();
    try {
      await waitFor("the order", async () => (await query(pool, "select from actions")).length === 1, 60_000);
      await client.query("begin");
      await client.query("select from actions for update");
      await proxy[Symbol.asyncDispose]();
    } finally {
      client.release(true);
    }
    const { exit, out, err } = await ordered;
    expect(out).toMatch(
      /^Stopped\. [\d,]+ files? of 5,000 (was|were) handed in, .* give the same command again/m,
    );
    expect(err).toMatch(/^Postgres cannot be used: /);
    expect(exit).toBe(5);
    expect((await order("s3://archive/ --yes")).exit).toBe(0);
    expect(
      await one(pool, "select count(*)::int as n, max(read_count) as reads from restore_requests"),
    ).toEqual({ n: 5000, reads: 1 });
  });

  test("whose person is erased meanwhile, hands in no more", async ({ pool }) => {
    const { id } = await one(pool, "select open_order($1, 's3://archive/', '{}') as id", [PERSON]);
    const page = (s3_key: string): unknown[] => [id, JSON.stringify([aRead({ s3_key })])];
    await pool.query("select order_restores($1, $2, '{}')", page("a"));
    while ((await one(pool, "select erase_person($1) as rows", [PERSON]))["rows"] > 0);
    await expect(pool.query("select order_restores($1, $2, '{}')", page("b"))).rejects.toMatchObject({
      code: "55000",
    });
    const [row, ...others] = await requests(pool);
    expect(others).toEqual([]);
    expect(row).toMatchObject({ email: null, reader: expect.stringMatching(/^mailto:erased-[0-9a-f]{8}$/) });
    await pool.query("update second_look set started_at = '-infinity'");
    await pool.query("select resolve_requests(10, '{}')");
    expect(await requests(pool)).toMatchObject([{ email: null }]);
  });

  test("what failed within a day is not ordered again", async ({ world: { s3, order }, pool }) => {
    put(s3, "a");
    await order("s3://archive/ --yes");
    await pool.query(
      "update restores set status = 'failed', status_at = now(), failure_code = 'x', failure_message = 'x'",
    );
    const { exit, out } = await order("s3://archive/ --yes");
    expect(out).toContain("1 file failed within the last day, and is not tried again by an order");
    expect([exit, out]).toEqual([0, expect.stringContaining("There is nothing to order.")]);
  });
});

test("what waits for approval for somebody else is joined, and told so", async ({
  world: { s3, order },
  pool,
}) => {
  for (const key of ["a", "b"]) put(s3, key);
  const [held] = await query(pool, "insert into holds (person, reason) values ('x', 'x') returning id");
  await requestRestores(pool, aRead({ s3_key: "a" }));
  await pool.query("update restores set hold_id = $1, attempt_after = 'infinity'", [held?.["id"]]);
  const { out } = await order("s3://archive/ --yes");
  expect(out).toContain("1 file of 2 to restore");
  expect(out).toContain(
    "1 file waits for approval already (npm run thaw -- hold list): jane@example.com will",
  );
  expect((await order("s3://archive/")).out).toContain(
    "2 files were ordered for jane@example.com before, and are under way, or wait for approval.",
  );
});

test("an order is one mail when it begins, and one when its files are ready", async ({
  world: { s3, order, env },
  pool,
  databaseUrl,
}) => {
  for (let i = 0; i < 1500; i++) put(s3, `k${i}`);
  const running = await startThaw(databaseUrl, { env });
  const mails = () => running.resend.mails;
  try {
    expect((await order("s3://archive/ --yes")).exit).toBe(0);
    await waitFor("the first mail", async () => mails().length === 1, 60_000);
    for (let i = 0; i < 1500; i++) s3.finishRestore({ bucket: BUCKET, key: `k${i}` });
    await pool.query("update restores set head_wanted_at = now(), attempt_after = now()");
    await pool.query("select nudge('poll_pending_restores')");
    await waitFor("the second mail", async () => mails().length === 2, 60_000);
    expect(mails().map(({ to, subject }) => [to, subject])).toEqual([
      [[PERSON], expect.stringContaining("1,500 files")],
      [[PERSON], expect.stringContaining("1,500 files")],
    ]);
  } finally {
    await running.stop();
  }
});

plain("what is typed wrong is told with 2, before anything is asked", async () => {
  for (const [words, says] of [
    ["", "either s3://bucket/prefix, or --manifest FILE"],
    ["s3://a/b --manifest f --for a@example.com", "either s3://bucket/prefix, or --manifest FILE"],
    ["s3://a/b s3://a/c --for a@example.com", "one argument too many"],
    ["s3://a/b", "--for jane@example.com"],
    ["s3://a/b --for jane", "one bare address"],
    ["s3://* --for a@example.com", "no place in S3"],
    ["a/b --for a@example.com", "no place in S3"],
    ["s3://a/b --url-encoded --for a@example.com", "--url-encoded is for a list"],
    ["--manifest f --versions --for a@example.com", "--versions is for a prefix"],
  ] as const) {
    const ended = await thaw("postgres://nobody@127.0.0.1:1/none", `restore ${words}`.trim());
    expect([ended.exit, ended.err], words).toEqual([2, expect.stringContaining(says)]);
  }
});
