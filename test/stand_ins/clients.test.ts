/**
 * Clients that nobody here wrote, against our S3: what they make of its answers is what they make of the real one's, and
 * what they send is what a person with an archived file sends.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";

import { isObject } from "../../lambdas/fields.ts";
import { folderCommand } from "../../server/wording/fetch_command.ts";
import { type Ended, MISSING_CLIENTS, realClients, runClient } from "./real_clients.ts";
import { type S3Event, type S3StandIn, startS3StandIn } from "./s3.ts";
import { copyExpiry } from "./s3_restores.ts";

const AWS = await realClients("aws");
const BOTO3 = await realClients("boto3");
const RCLONE = await realClients("rclone");
const S3CMD = await realClients("s3cmd");

/** A start of Python and its libraries takes seconds on a busy machine. */
const SLOW = { timeout: 120_000 };

let s3: S3StandIn;
let events: S3Event[];
let dir: string;

beforeEach(async () => {
  events = [];
  s3 = await startS3StandIn({ restore_ms: Infinity, onEvent: (event) => events.push(event) });
  s3.createBucket("b");
  s3.putObject({ bucket: "b", key: "warm", body: "warm" });
  s3.putObject({ bucket: "b", key: "glacier", storage_class: "GLACIER", body: "glacier" });
  s3.putObject({ bucket: "b", key: "deep", storage_class: "DEEP_ARCHIVE", body: "deep" });
  for (const archive_status of ["ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"] as const) {
    const storage_class = "INTELLIGENT_TIERING";
    s3.putObject({ bucket: "b", key: archive_status, storage_class, archive_status, body: "tiered" });
  }
  s3.putObject({ bucket: "b", key: "running", storage_class: "GLACIER" });
  s3.beginRestore({ bucket: "b", key: "running" }, { days: 3 });
  s3.putObject({ bucket: "b", key: "copy", storage_class: "GLACIER", body: "copy" });
  s3.beginRestore({ bucket: "b", key: "copy" }, { days: 3 });
  s3.finishRestore({ bucket: "b", key: "copy" });
  dir = await mkdtemp(join(tmpdir(), "thaw-clients-"));
});

afterEach(async () => {
  await s3.close();
  await rm(dir, { recursive: true });
});

/** Requests since the last look: operation, status, key. */
function sent(): string[] {
  const requests = s3.requests.map(({ operation, status, key }) => `${operation} ${status} ${key ?? ""}`);
  s3.clearRequests();
  return requests.map((request) => request.trim());
}

/** Every key that has ever been somebody's trouble. */
const KEYS = [
  "a b",
  "a+b",
  "a%20b",
  "100%",
  "日本/é.bin",
  "e\u0301",
  "😀",
  "//x",
  "a//b",
  "a/",
  "../x",
  "a/../b",
  "./y",
  "x/.",
  "tab\tq",
  "line\nq",
  "q\"<&>'",
  "~!*'()$@,;:=?#[]|\\^`{}",
];

const UNTIL = () => new Date(copyExpiry(Date.now(), 3));
const READY = () => `ongoing-request="false", expiry-date="${UNTIL().toUTCString()}"`;

for (const missing of MISSING_CLIENTS) test.skip(missing);

type Answer = Record<string, unknown>;
type Call = [operation: string, args: Record<string, unknown>];

describe.each(BOTO3)("$name", (boto3) => {
  const make = async (...calls: Call[]): Promise<Answer[]> => {
    const input = JSON.stringify({ url: s3.url, calls });
    const { status, stdout, stderr } = await runClient(boto3, [join(import.meta.dirname, "boto3_calls.py")], {
      input,
    });
    expect(stderr).toBe("");
    expect(status).toBe(0);
    return JSON.parse(stdout) as Answer[];
  };
  const named = (Key: string, more: object = {}) => ({ Bucket: "b", Key, ...more });
  const restore = (key: string, RestoreRequest: object): Call => [
    "restore_object",
    named(key, { RestoreRequest }),
  ];
  const tier = (Tier: string) => ({ GlacierJobParameters: { Tier } });

  test("knows each refused read by its name, its class and its tier", SLOW, async () => {
    const archived = { raised: "InvalidObjectState", code: "InvalidObjectState", status: 403 };
    expect(
      await make(
        ["get_object", named("glacier")],
        ["get_object", named("deep")],
        ["get_object", named("running")],
        ["get_object", named("ARCHIVE_ACCESS")],
        ["get_object", named("DEEP_ARCHIVE_ACCESS")],
        ["get_object", named("none")],
        ["get_object", { Bucket: "none", Key: "none" }],
        ["head_object", named("none")],
        ["head_object", { Bucket: "none", Key: "none" }],
      ),
    ).toEqual([
      { ...archived, StorageClass: "GLACIER" },
      { ...archived, StorageClass: "DEEP_ARCHIVE" },
      { ...archived, StorageClass: "GLACIER" },
      { ...archived, StorageClass: "INTELLIGENT_TIERING", AccessTier: "ARCHIVE_ACCESS" },
      { ...archived, StorageClass: "INTELLIGENT_TIERING", AccessTier: "DEEP_ARCHIVE_ACCESS" },
      { raised: "NoSuchKey", code: "NoSuchKey", status: 404 },
      { raised: "NoSuchBucket", code: "NoSuchBucket", status: 404 },
      // HEAD has no body to name it in.
      { raised: "ClientError", code: "404", status: 404 },
      { raised: "ClientError", code: "404", status: 404 },
    ]);
  });

  test("sees in HEAD how an object stands", SLOW, async () => {
    const heads = await make(
      ...["warm", "glacier", "running", "copy", "ARCHIVE_ACCESS"].map((key): Call => [
        "head_object",
        named(key),
      ]),
    );
    expect(
      heads.map(({ StorageClass, ArchiveStatus, Restore }) => [StorageClass, ArchiveStatus, Restore]),
    ).toEqual([
      [undefined, undefined, undefined],
      ["GLACIER", undefined, undefined],
      ["GLACIER", undefined, 'ongoing-request="true"'],
      ["GLACIER", undefined, READY()],
      ["INTELLIGENT_TIERING", "ARCHIVE_ACCESS", undefined],
    ]);
  });

  test("restores each class as it must be asked, and is refused any other way", SLOW, async () => {
    const malformed = { raised: "ClientError", code: "MalformedXML", status: 400 };
    const invalid = { raised: "ClientError", code: "InvalidArgument", status: 400 };
    const running = { raised: "ClientError", code: "RestoreAlreadyInProgress", status: 409 };
    const cases: [Call, Answer][] = [
      [["restore_object", named("glacier")], malformed],
      [restore("glacier", {}), malformed],
      [restore("glacier", { Days: 1, Tier: "Bulk" }), malformed],
      [restore("deep", { Days: 1, ...tier("Expedited") }), invalid],
      [restore("ARCHIVE_ACCESS", { Days: 1 }), invalid],
      [restore("DEEP_ARCHIVE_ACCESS", tier("Expedited")), invalid],
      [
        restore("warm", { Days: 1 }),
        { raised: "InvalidObjectState", code: "InvalidObjectState", status: 403, StorageClass: "STANDARD" },
      ],
      [restore("none", { Days: 1 }), { raised: "NoSuchKey", code: "NoSuchKey", status: 404 }],
      [restore("glacier", { Days: 1, ...tier("Expedited") }), { status: 202 }],
      [restore("deep", { Days: 1, ...tier("Bulk") }), { status: 202 }],
      // Faster, and nothing else changed.
      [restore("deep", { Days: 1, ...tier("Standard") }), { status: 202 }],
      [restore("deep", { Days: 1 }), running],
      [restore("deep", { Days: 2, ...tier("Standard") }), running],
      [restore("ARCHIVE_ACCESS", {}), { status: 202 }],
      [restore("DEEP_ARCHIVE_ACCESS", tier("Bulk")), { status: 202 }],
      [restore("copy", { Days: 5 }), { status: 200 }],
    ];
    const answers = await make(...cases.map(([call]) => call));
    for (const [index, [call, answer]] of cases.entries()) {
      expect(answers[index], JSON.stringify(call)).toEqual(answer);
    }
  });

  test(
    "reads what has been restored, and is told that a tiered object needs no restore any more",
    SLOW,
    async () => {
      s3.beginRestore({ bucket: "b", key: "ARCHIVE_ACCESS" });
      s3.finishRestore({ bucket: "b", key: "ARCHIVE_ACCESS" });
      const [copy, tiered, again] = await make(
        ["get_object", named("copy")],
        ["get_object", named("ARCHIVE_ACCESS")],
        restore("ARCHIVE_ACCESS", {}),
      );
      expect(copy).toMatchObject({ Body: "copy", StorageClass: "GLACIER", Restore: READY() });
      expect(tiered).toMatchObject({ Body: "tiered", StorageClass: "INTELLIGENT_TIERING" });
      expect(tiered).not.toHaveProperty("Restore");
      const code = "ObjectAlreadyInActiveTierError";
      expect(again).toEqual({ raised: code, code, status: 403 });
    },
  );

  test(
    "copies from no archived object, which CloudTrail hears of, and from a restored one",
    SLOW,
    async () => {
      s3.createBucket("to");
      s3.putObject({ bucket: "b", key: "a b+c/é%?", storage_class: "GLACIER" });
      const copy = (Key: string): Call => [
        "copy_object",
        { Bucket: "to", Key: "x", CopySource: { Bucket: "b", Key } },
      ];
      const refused = { raised: "InvalidObjectState", code: "InvalidObjectState", status: 403 };
      events.length = 0;
      expect(await make(copy("a b+c/é%?"), copy("ARCHIVE_ACCESS"), copy("none"))).toEqual([
        refused,
        refused,
        { raised: "NoSuchKey", code: "NoSuchKey", status: 404 },
      ]);
      expect(events).toHaveLength(2);
      expect(events[0]?.detail).toMatchObject({
        eventName: "CopyObject",
        errorCode: "InvalidObjectState",
        readOnly: false,
        requestParameters: {
          bucketName: "to",
          key: "x",
          "x-amz-copy-source": expect.stringMatching(/^b\/a%20b%2Bc\/%C3%A9%25%3F$/),
        },
        resources: [{ ARN: "arn:aws:s3:::to/x" }, { ARN: "arn:aws:s3:::to" }],
      });

      const [copied, read] = await make(copy("copy"), ["get_object", { Bucket: "to", Key: "x" }]);
      expect(copied).toMatchObject({
        status: 200,
        CopyObjectResult: { ETag: expect.stringMatching(/^"[0-9a-f]{32}"$/) },
      });
      expect(read).toMatchObject({ Body: "copy" });
    },
  );

  test("lists and reads awkward keys as they were meant", SLOW, async () => {
    for (const key of KEYS) s3.putObject({ bucket: "b", key: `k/${key}`, body: key });
    const [listing] = await make(["list_objects_v2", { Bucket: "b", Prefix: "k/" }]);
    const contents = (listing?.["Contents"] ?? []) as { Key: string }[];
    expect(contents.map(({ Key }) => Key.slice(2)).toSorted()).toEqual(KEYS.toSorted());
    const read = await make(...KEYS.map((key): Call => ["get_object", named(`k/${key}`)]));
    expect(read.map(({ Body }) => Body)).toEqual(KEYS);
  });

  test("tells versions and delete markers apart", SLOW, async () => {
    s3.createBucket("v", { versioning: "enabled" });
    const { version_id: first } = s3.putObject({ bucket: "v", key: "k", storage_class: "GLACIER" });
    s3.putObject({ bucket: "v", key: "k", body: "second" });
    s3.putObject({ bucket: "v", key: "deleted", storage_class: "GLACIER" });
    s3.deleteObject({ bucket: "v", key: "deleted" });
    const of = (Key: string, more: object = {}) => ({ Bucket: "v", Key, ...more });
    const answers = await make(
      ["get_object", of("k")],
      ["head_object", of("k", { VersionId: first })],
      ["get_object", of("k", { VersionId: first })],
      ["restore_object", of("k", { VersionId: first, RestoreRequest: { Days: 1 } })],
      ["get_object", of("deleted")],
      ["head_object", of("deleted")],
      ["get_object", of("k", { VersionId: "x".repeat(32) })],
      ["get_object", of("k", { VersionId: "no version" })],
    );
    expect(answers).toMatchObject([
      { status: 200, Body: "second" },
      { status: 200, VersionId: first, StorageClass: "GLACIER" },
      { raised: "InvalidObjectState", status: 403, StorageClass: "GLACIER" },
      { status: 202 },
      { raised: "NoSuchKey", status: 404 },
      { code: "404", status: 404 },
      { code: "NoSuchVersion", status: 404 },
      { code: "InvalidArgument", status: 400 },
    ]);
  });

  test("follows S3's word to another region, where it gives one", SLOW, async () => {
    const region = "eu-central-1";
    s3.createBucket("moved", { region });
    s3.createBucket("malformed", { region, wrong_region: { status: 400, told_in: "body" } });
    s3.createBucket("denied", { region, wrong_region: { status: 403, told_in: "body" } });
    for (const bucket of ["moved", "malformed", "denied"])
      s3.putObject({ bucket, key: "k", storage_class: "GLACIER" });
    const request = (Bucket: string): Call => [
      "restore_object",
      { Bucket, Key: "k", RestoreRequest: { Days: 1 } },
    ];
    const answers = await make(request("moved"), request("malformed"), request("denied"));
    expect(answers).toMatchObject([{ status: 202 }, { status: 202 }, { code: "AccessDenied", status: 403 }]);
    expect(sent().filter((request) => !request.startsWith("HeadBucket"))).toEqual([
      "RestoreObject 301 k",
      "RestoreObject 202 k",
      "RestoreObject 400 k",
      "RestoreObject 202 k",
      "RestoreObject 403 k",
    ]);
  });

  test("lists how restores stand", SLOW, async (context) => {
    const input = { Bucket: "b", OptionalObjectAttributes: ["RestoreStatus"] };
    const [listing] = await make(["list_objects_v2", input]);
    if (listing?.["too_old"] !== undefined) return context.skip(`${boto3.name} is older than RestoreStatus`);
    const contents = (listing?.["Contents"] ?? []) as Answer[];
    const stands = Object.fromEntries(
      contents.map((o) => [o["Key"], [o["StorageClass"], o["RestoreStatus"]]]),
    );
    expect(stands).toMatchObject({
      warm: ["STANDARD", undefined],
      glacier: ["GLACIER", undefined],
      running: ["GLACIER", { IsRestoreInProgress: true }],
      copy: [
        "GLACIER",
        { IsRestoreInProgress: false, RestoreExpiryDate: UNTIL().toISOString().replace(".000Z", "+00:00") },
      ],
    });
  });
});

describe.each(AWS)("$name", (aws) => {
  const cli = async (...args: string[]): Promise<Ended> =>
    await runClient(aws, ["--endpoint-url", s3.url, ...args], { cwd: dir });
  /** Its one message, without what comes and goes with versions. */
  const said = ({ stderr }: Ended): string => stderr.trim().replace(" (reached max retries: 0)", "");

  test("says what S3 refused, and shows in HEAD how an object stands", SLOW, async () => {
    const get = await cli("s3api", "get-object", "--bucket", "b", "--key", "glacier", "out");
    expect(get.status).not.toBe(0);
    expect(said(get)).toMatch(
      /\(InvalidObjectState\) when calling the GetObject operation: The operation is not valid for the object's storage class/,
    );
    const head = await cli("s3api", "head-object", "--bucket", "b", "--key", "copy");
    expect(JSON.parse(head.stdout)).toMatchObject({
      StorageClass: "GLACIER",
      Restore: READY(),
      ContentLength: 4,
    });
    const order = ["--restore-request", '{"Days":3,"GlacierJobParameters":{"Tier":"Bulk"}}'];
    expect(await cli("s3api", "restore-object", "--bucket", "b", "--key", "glacier", ...order)).toMatchObject(
      { status: 0, stderr: "" },
    );
    const again = await cli("s3api", "restore-object", "--bucket", "b", "--key", "glacier", ...order);
    expect(said(again)).toMatch(/\(RestoreAlreadyInProgress\)/);
    expect(s3.requests.at(-2)).toMatchObject({
      operation: "RestoreObject",
      status: 202,
      tier: "Bulk",
      days: 3,
    });
  });

  test(
    "gives up after HEAD when it is to copy an archived object, and no GET tells of it",
    SLOW,
    async () => {
      const keys = ["deep", "glacier", "running"];
      for (const ended of await Promise.all(keys.map(async (key) => cli("s3", "cp", `s3://b/${key}`, ".")))) {
        expect(ended.status).toBe(2);
        expect(said(ended)).toContain("Object is of storage class GLACIER");
      }
      expect(sent().toSorted()).toEqual(keys.map((key) => `HeadObject 200 ${key}`));
      expect(events.filter((event) => event["detail-type"] === "AWS API Call via CloudTrail")).toEqual([]);
    },
  );

  test.each([
    { args: ["s3://b/glacier", "-"], key: "glacier" },
    { args: ["s3://b/glacier", ".", "--force-glacier-transfer"], key: "glacier" },
    { args: ["s3://b/ARCHIVE_ACCESS", "."], key: "ARCHIVE_ACCESS" },
  ])("does send the GET that fails for: s3 cp $args", SLOW, async ({ args, key }) => {
    const ended = await cli("s3", "cp", ...args);
    expect(ended.status).toBe(1);
    expect(said(ended)).toContain("(InvalidObjectState)");
    expect(sent()).toEqual([`HeadObject 200 ${key}`, `GetObject 403 ${key}`]);
  });

  test("lists versions page by page, delete markers apart, as they were written", SLOW, async () => {
    s3.createBucket("v", { versioning: "enabled" });
    const put = (key: string): string | undefined => s3.putObject({ bucket: "v", key }).version_id;
    const ids = [...Array.from({ length: 5 }, () => put("a+b é")), put("z"), put("z")];
    s3.deleteObject({ bucket: "v", key: "z" });
    const { stdout } = await cli("s3api", "list-object-versions", "--bucket", "v", "--page-size", "2");
    const { Versions, DeleteMarkers } = JSON.parse(stdout) as Record<string, Record<string, unknown>[]>;
    expect(Versions?.map(({ Key, VersionId }) => [Key, VersionId])).toEqual(
      [4, 3, 2, 1, 0, 6, 5].map((at) => [at < 5 ? "a+b é" : "z", ids[at]]),
    );
    expect(DeleteMarkers?.map(({ Key, IsLatest }) => [Key, IsLatest])).toEqual([["z", true]]);
    expect(sent()).toEqual(Array.from({ length: 4 }, () => "ListObjectVersions 200"));
  });

  test("copies a restored object alone, and leaves it out of a folder", SLOW, async () => {
    expect(await cli("s3", "cp", "s3://b/copy", "alone")).toMatchObject({ status: 0 });
    expect(await readFile(join(dir, "alone"), "utf8")).toBe("copy");
    sent();
    await cli("s3", "cp", "s3://b/", ".", "--recursive");
    const requests = sent();
    expect(requests[0]).toBe("ListObjectsV2 200");
    expect(requests.slice(1).toSorted()).toEqual([
      "GetObject 200 warm",
      "GetObject 403 ARCHIVE_ACCESS",
      "GetObject 403 DEEP_ARCHIVE_ACCESS",
    ]);
  });

  test(
    "copies a folder of restored objects by the command of our mails, and no other way",
    SLOW,
    async () => {
      const files = ["f/1", "f/2"].map((s3_key) => ({ s3_bucket: "b", s3_key, version_id: "" }));
      for (const [index, { s3_key: key }] of files.entries()) {
        const storage_class = index === 0 ? "GLACIER" : "DEEP_ARCHIVE";
        s3.putObject({ bucket: "b", key, storage_class, body: key });
        s3.beginRestore({ bucket: "b", key }, { days: 3 });
        s3.finishRestore({ bucket: "b", key });
      }
      await cli("s3", "sync", "s3://b/f/", ".");
      expect(sent()).toEqual(["ListObjectsV2 200"]);
      const [, ...args] = (folderCommand(files, true) ?? "").replaceAll("'", "").split(" ");
      expect(await cli(...args)).toMatchObject({ status: 0 });
      for (const { s3_key } of files)
        expect(await readFile(join(dir, s3_key.replace("f/", "")), "utf8")).toBe(s3_key);
    },
  );

  test("finds another region's bucket by S3's word", SLOW, async () => {
    const region = "eu-central-1";
    s3.createBucket("moved", { region });
    s3.createBucket("malformed", { region, wrong_region: { status: 400, told_in: "header" } });
    for (const bucket of ["moved", "malformed"]) {
      s3.putObject({ bucket, key: "k", storage_class: "GLACIER" });
      const head = await cli("s3api", "head-object", "--bucket", bucket, "--key", "k");
      expect(JSON.parse(head.stdout), bucket).toMatchObject({ StorageClass: "GLACIER" });
    }
    expect(sent()).toEqual(["HeadObject 301 k", "HeadObject 200 k", "HeadObject 400 k", "HeadObject 200 k"]);
  });

  test("reads an awkward key", SLOW, async () => {
    const key = "../a b+c%25//é/日本?#&'\".bin";
    s3.putObject({ bucket: "b", key, body: "found" });
    expect(await cli("s3", "cp", `s3://b/${key}`, "-")).toMatchObject({ stdout: "found", status: 0 });
    s3.putObject({ bucket: "b", key: `${key}2`, storage_class: "GLACIER" });
    await cli("s3api", "get-object", "--bucket", "b", "--key", `${key}2`, "out");
    expect(events.at(-1)?.detail).toMatchObject({ requestParameters: { key: `${key}2` } });
  });

  test("names the command at the end of its User-Agent from version 2 on", SLOW, async () => {
    const agents: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      agents.push(request.headers["user-agent"]);
      response.writeHead(404, { "x-amz-request-id": "0" }).end();
    });
    await new Promise<void>((resolve) => {
      server.listen(0, "127.0.0.1", resolve);
    });
    onTestFinished(() => void server.close());
    const address = server.address();
    const port = isObject(address) ? String(address["port"]) : "";
    await runClient(aws, ["--endpoint-url", `http://127.0.0.1:${port}`, "s3", "cp", "s3://b/k", "."], {
      cwd: dir,
    });
    expect(agents).toHaveLength(1);
    if (aws.name.startsWith("aws-cli/1.")) expect(agents[0]).not.toMatch(/command/);
    else expect(agents[0]).toMatch(/ (md\/command#|command\/)s3\.cp$/);
  });
});

describe.each(RCLONE)("$name", (rclone) => {
  const cli = async (...args: string[]): Promise<Ended> => {
    const options = {
      provider: "AWS",
      endpoint: s3.url,
      env_auth: "true",
      region: "us-east-1",
      force_path_style: "true",
    };
    const env = Object.fromEntries(
      Object.entries(options).map(([name, value]) => [`RCLONE_S3_${name.toUpperCase()}`, value]),
    );
    return await runClient(rclone, ["--retries=1", "--low-level-retries=1", "-q", ...args], {
      cwd: dir,
      env,
    });
  };

  test("says that an archived object has to be restored first, after a GET that fails", SLOW, async () => {
    const ended = await cli("copyto", ":s3:b/glacier", "out");
    expect(ended.stderr).toContain("Object in GLACIER, restore first");
    expect(sent().filter((request) => request.startsWith("GetObject"))).toEqual(["GetObject 403 glacier"]);
  });

  test("restores a folder and reads awkward keys", SLOW, async () => {
    s3.putObject({ bucket: "b", key: "old/a b+c%25/é", storage_class: "DEEP_ARCHIVE" });
    const ended = await cli("backend", "restore", ":s3:b/old", "-o", "priority=Bulk", "-o", "lifetime=3");
    expect(ended.stdout).toContain('"Status": "OK"');
    expect(s3.requests.at(-1)).toMatchObject({ status: 202, tier: "Bulk", days: 3, key: "old/a b+c%25/é" });
    s3.putObject({ bucket: "b", key: "k/a b+c%25/日本/x", body: "found" });
    expect(await cli("cat", ":s3:b/k/a b+c%25/日本/x")).toMatchObject({ stdout: "found" });
  });
});

describe.each(S3CMD)("$name", (s3cmd) => {
  const cli = async (...args: string[]): Promise<Ended> => {
    const { host } = new URL(s3.url);
    const own = [
      "--no-ssl",
      `--host=${host}`,
      `--host-bucket=${host}`,
      "--config=/dev/null",
      "--access_key=AKIAREADER",
      "--secret_key=x",
    ];
    return await runClient(s3cmd, [...own, ...args], { cwd: dir });
  };

  test("says what S3 refused", SLOW, async () => {
    const ended = await cli("get", "s3://b/glacier", "out");
    expect(ended.status).not.toBe(0);
    expect(ended.stderr).toContain(
      "403 (InvalidObjectState): The operation is not valid for the object's storage class",
    );
    expect(sent()).toContain("GetObject 403 glacier");
  });

  test("restores, and is refused Days for a tiered object", SLOW, async () => {
    const order = ["restore", "--restore-days=3", "--restore-priority=bulk"];
    expect(await cli(...order, "s3://b/glacier")).toMatchObject({ status: 0 });
    expect(s3.requests.at(-1)).toMatchObject({ status: 202, tier: "Bulk", days: 3 });
    expect((await cli(...order, "s3://b/ARCHIVE_ACCESS")).stderr).toContain("not subject to restore expiry");
  });
});
