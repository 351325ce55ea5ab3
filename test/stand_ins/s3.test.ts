import { type IncomingHttpHeaders, request } from "node:http";
import {
  CopyObjectCommand,
  GetBucketLocationCommand,
  GetBucketVersioningCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListBucketsCommand,
  ListObjectsCommand,
  ListObjectsV2Command,
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
  NoSuchKey,
  ObjectAlreadyInActiveTierError,
  RestoreObjectCommand,
  type RestoreRequest,
  type S3Client,
  S3ServiceException,
  InvalidObjectState,
} from "@aws-sdk/client-s3";
import { afterEach, describe, expect, test } from "vitest";
import { type S3Event, type S3StandIn, type S3StandInOptions, startS3StandIn } from "./s3.ts";
import { copyExpiry } from "./s3_restores.ts";
import { personsClient } from "../support/s3_client.ts";

const open: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).toReversed()) await close();
});

/** A stand-in with one bucket "b" whose restores wait for finishRestore, and an SDK that tries once. */
async function setup(options: S3StandInOptions = {}, bucket: Parameters<S3StandIn["createBucket"]>[1] = {}) {
  const events: S3Event[] = [];
  const s3 = await startS3StandIn({
    restore_ms: Infinity,
    onEvent: (event) => events.push(event),
    ...options,
  });
  s3.createBucket("b", bucket);
  const client = newClient(s3.url);
  open.push(
    async () => s3.close(),
    () => client.destroy(),
  );
  return {
    s3,
    client,
    events,
    head: async (key: string, versionId?: string) => headObject(client, named(key, versionId)),
    get: async (key: string, versionId?: string) => {
      const answer = await client.send(new GetObjectCommand(named(key, versionId)));
      return (await answer.Body?.transformToString()) ?? "";
    },
    restore: async (key: string, order?: RestoreRequest, versionId?: string) => {
      const input = { ...named(key, versionId), ...(order === undefined ? {} : { RestoreRequest: order }) };
      const answer = await client.send(new RestoreObjectCommand(input));
      return answer.$metadata.httpStatusCode;
    },
  };
}

/** An object of bucket "b", by version or not. */
function named(
  key: string,
  versionId: string | undefined,
): { Bucket: string; Key: string; VersionId?: string } {
  return { Bucket: "b", Key: key, ...(versionId === undefined ? {} : { VersionId: versionId }) };
}

async function headObject(client: S3Client, input: { Bucket: string; Key: string }) {
  return client.send(new HeadObjectCommand(input));
}

function newClient(
  url: string,
  more: { followRegionRedirects?: boolean; maxAttempts?: number } = {},
): S3Client {
  return personsClient(url, "AKIAREADER", more);
}

/** The error a call ends in; a call that succeeds fails the test. */
async function failure(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => {
      throw new Error("the call succeeded");
    },
    (error: unknown) => error,
  );
}

/** S3's refusal of a call. */
async function refusal(call: Promise<unknown>): Promise<S3ServiceException> {
  const error = await failure(call);
  if (error instanceof S3ServiceException) return error;
  throw error;
}

/** The storage class and tier that a refused read names. */
async function archivedAs(call: Promise<unknown>): Promise<[string | undefined, string | undefined]> {
  const error = await refusal(call);
  if (error instanceof InvalidObjectState) return [error.StorageClass, error.AccessTier];
  throw error;
}

/** What a caller can tell an error by. */
async function nameAndStatus(call: Promise<unknown>): Promise<[string, number | undefined]> {
  const error = await refusal(call);
  return [error.name, error.$metadata?.httpStatusCode];
}

/** What comes by itself comes within this even on a busy machine. */
const SOON = { timeout: 10_000, interval: 20 };
const DAYS = { Days: 3 };
const tier = (Tier: "Expedited" | "Standard" | "Bulk") => ({ GlacierJobParameters: { Tier } });
const midnightIn3Days = () => new Date(copyExpiry(Date.now(), 3));

describe("what a restore needs, by class", () => {
  const archived = [
    { storage_class: "GLACIER", expedited: true, days: true },
    { storage_class: "DEEP_ARCHIVE", expedited: false, days: true },
    { storage_class: "INTELLIGENT_TIERING", archive_status: "ARCHIVE_ACCESS", expedited: true, days: false },
    {
      storage_class: "INTELLIGENT_TIERING",
      archive_status: "DEEP_ARCHIVE_ACCESS",
      expedited: false,
      days: false,
    },
  ] as const;

  for (const { expedited, days, ...kind } of archived) {
    const name = "archive_status" in kind ? kind.archive_status : kind.storage_class;
    const right = days ? DAYS : {};

    test(`${name}: Bulk, Standard and no tier are accepted`, async () => {
      const { s3, restore } = await setup();
      for (const [key, order] of Object.entries({ a: tier("Bulk"), b: tier("Standard"), c: {} })) {
        s3.putObject({ bucket: "b", key, ...kind });
        expect(await restore(key, { ...right, ...order })).toBe(202);
      }
      expect(s3.requests.map(({ tier, days }) => ({ tier, days }))).toEqual(
        ["Bulk", "Standard", "Standard"].map((tier) => ({ tier, days: days ? 3 : undefined })),
      );
    });

    test(`${name}: Expedited is ${expedited ? "accepted" : "refused"}`, async () => {
      const { s3, restore } = await setup();
      s3.putObject({ bucket: "b", key: "k", ...kind });
      const call = restore("k", { ...right, ...tier("Expedited") });
      if (expedited) {
        expect(await call).toBe(202);
      } else {
        const error = await refusal(call);
        expect(error.$metadata.httpStatusCode).toBe(400);
        expect(error.message).toBe("Retrieval option is not supported by this storage class");
      }
    });

    test(`${name}: Days are ${days ? "required" : "forbidden"}`, async () => {
      const { s3, restore } = await setup();
      s3.putObject({ bucket: "b", key: "k", ...kind });
      if (days) {
        expect(await nameAndStatus(restore("k", {}))).toEqual(["MalformedXML", 400]);
        expect(await nameAndStatus(restore("k", tier("Bulk")))).toEqual(["MalformedXML", 400]);
      } else {
        const error = await refusal(restore("k", DAYS));
        expect([error.name, error.$metadata.httpStatusCode]).toEqual(["InvalidArgument", 400]);
        expect(error.message).toContain("INTELLIGENT_TIERING objects are not subject to restore expiry");
      }
      expect(s3.look({ bucket: "b", key: "k" })?.restore).toBe("none");
    });
  }

  test("a body that is absent, or has a Tier beside Days, or no whole day, is MalformedXML", async () => {
    const { s3, restore } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    for (const order of [undefined, { Days: 1, Tier: "Bulk" as const }, { Days: 0 }, { Days: 1.5 }]) {
      expect(await nameAndStatus(restore("k", order))).toEqual(["MalformedXML", 400]);
    }
    expect(s3.requests.every((seen) => seen.accepted === undefined)).toBe(true);
  });

  test.each([
    ["cut short", "<RestoreRequest><Days>1</Days>"],
    ["two of a kind", "<RestoreRequest><Days>1</Days><Days>1</Days></RestoreRequest>"],
    ["another document", "<Restore><Days>1</Days></Restore>"],
    ["an unknown tier", restoreXml("<GlacierJobParameters><Tier>Fast</Tier></GlacierJobParameters>")],
    ["no tier", restoreXml("<GlacierJobParameters/>")],
    ["a SELECT restore", restoreXml("<Type>SELECT</Type>")],
    ["no XML", "Days=1"],
  ])("a body with %s is MalformedXML", async (_, body) => {
    const { s3 } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    expect(await raw(s3, "POST", "/b/k?restore", body)).toMatchObject({ status: 400 });
    expect(s3.requests.at(-1)?.code).toBe("MalformedXML");
    const right =
      '<?xml version="1.0"?>\n<s3:RestoreRequest xmlns:s3="x">\n <s3:Days> 1 </s3:Days>\n</s3:RestoreRequest>';
    expect(await raw(s3, "POST", "/b/k?restore", right)).toMatchObject({ status: 202 });
  });

  test("an active Intelligent-Tiering object is ObjectAlreadyInActiveTierError", async () => {
    const { s3, restore } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "INTELLIGENT_TIERING" });
    const error = await refusal(restore("k", {}));
    expect(error).toBeInstanceOf(ObjectAlreadyInActiveTierError);
    expect(error.$metadata.httpStatusCode).toBe(403);
  });

  test.each(["STANDARD", "STANDARD_IA", "ONEZONE_IA", "GLACIER_IR", "REDUCED_REDUNDANCY"])(
    "%s cannot be restored",
    async (storage_class) => {
      const { s3, restore } = await setup();
      s3.putObject({ bucket: "b", key: "k", storage_class });
      const error = await refusal(restore("k", DAYS));
      expect(error).toBeInstanceOf(InvalidObjectState);
      expect(error.$metadata.httpStatusCode).toBe(403);
      expect(error.message).toBe("Restore is not allowed for the object's current storage class");
    },
  );
});

describe("result codes of a restore", () => {
  test("202 at first, 409 while it runs, 200 once a copy exists, whose expiry moves", async () => {
    const { s3, restore, head } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    expect(await restore("k", { Days: 1 })).toBe(202);
    expect(await nameAndStatus(restore("k", { Days: 1 }))).toEqual(["RestoreAlreadyInProgress", 409]);
    expect(s3.finishRestore({ bucket: "b", key: "k" })).toBe(true);
    expect(await restore("k", DAYS)).toBe(200);
    expect((await head("k")).Restore).toBe(
      `ongoing-request="false", expiry-date="${midnightIn3Days().toUTCString()}"`,
    );
    expect(s3.look({ bucket: "b", key: "k" })?.restores_accepted).toBe(1);
    expect(s3.requests.map((seen) => seen.accepted)).toEqual([true, undefined, false, undefined]);
  });

  test("only a faster tier with the same Days speeds a restore up", async () => {
    const { s3, restore } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    await restore("k", { ...DAYS, ...tier("Bulk") });
    const repeats = { same: tier("Bulk"), longer: { Days: 4, ...tier("Standard") } };
    for (const order of Object.values(repeats)) {
      expect(await nameAndStatus(restore("k", { ...DAYS, ...order }))).toEqual([
        "RestoreAlreadyInProgress",
        409,
      ]);
    }
    expect(await restore("k", { ...DAYS, ...tier("Standard") })).toBe(202);
    expect(await nameAndStatus(restore("k", { ...DAYS, ...tier("Bulk") }))).toEqual([
      "RestoreAlreadyInProgress",
      409,
    ]);
  });

  test("an expiry is rounded up to the next midnight UTC", () => {
    expect(new Date(copyExpiry(Date.parse("2026-10-15T10:30:00Z"), 3))).toEqual(
      new Date("2026-10-19T00:00:00Z"),
    );
  });

  test("Expedited without capacity is a 503 of its own", async () => {
    const { s3, restore } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    s3.switches.expedited_available = false;
    expect(await nameAndStatus(restore("k", { ...DAYS, ...tier("Expedited") }))).toEqual([
      "GlacierExpeditedRetrievalNotAvailable",
      503,
    ]);
    expect(await restore("k", { ...DAYS, ...tier("Standard") })).toBe(202);
  });

  test("more restores than allowed in a second are told to slow down", async () => {
    const { s3, restore } = await setup({ restores_per_second: 2 });
    const calls = Array.from({ length: 20 }, async (_, i) => {
      s3.putObject({ bucket: "b", key: `${i}`, storage_class: "GLACIER" });
      return restore(`${i}`, DAYS).catch((error: Error) => error.name);
    });
    const results = await Promise.all(calls);
    expect(results.filter((result) => result === 202).length).toBeGreaterThanOrEqual(2);
    expect(results.filter((result) => result === "SlowDown").length).toBeGreaterThanOrEqual(10);
  });

  test("what is not there is named exactly", async () => {
    const { s3, restore, get } = await setup({}, { versioning: "enabled" });
    const { version_id: kept } = s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    const never = "0".repeat(32);
    expect(await nameAndStatus(restore("missing", DAYS))).toEqual(["NoSuchKey", 404]);
    expect(await refusal(get("missing"))).toBeInstanceOf(NoSuchKey);
    expect(await nameAndStatus(restore("k", DAYS, never))).toEqual(["NoSuchVersion", 404]);
    expect(await nameAndStatus(restore("k", DAYS, "junk"))).toEqual(["InvalidArgument", 400]);

    s3.deleteObject({ bucket: "b", key: "k" });
    expect(await nameAndStatus(restore("k", DAYS))).toEqual(["NoSuchKey", 404]);
    expect(await restore("k", DAYS, kept)).toBe(202);
  });

  test("a missing bucket is NoSuchBucket", async () => {
    const { client } = await setup();
    const call = client.send(new RestoreObjectCommand({ Bucket: "none", Key: "k", RestoreRequest: DAYS }));
    expect(await nameAndStatus(call)).toEqual(["NoSuchBucket", 404]);
  });

  test("requester-pays buckets and foreign owners are denied", async () => {
    const { s3, client, restore } = await setup({}, { requester_pays: true });
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    expect(await nameAndStatus(restore("k", DAYS))).toEqual(["AccessDenied", 403]);
    const input = { Bucket: "b", Key: "k", RestoreRequest: DAYS, RequestPayer: "requester" } as const;
    const foreign = client.send(new RestoreObjectCommand({ ...input, ExpectedBucketOwner: "999999999999" }));
    expect(await nameAndStatus(foreign)).toEqual(["AccessDenied", 403]);
    expect((await client.send(new RestoreObjectCommand(input))).$metadata.httpStatusCode).toBe(202);
  });
});

describe("what HEAD and GET show", () => {
  for (const storage_class of ["GLACIER", "DEEP_ARCHIVE"]) {
    test(`${storage_class}: archived, restoring, restored, expired`, async () => {
      const { s3, restore, head, get } = await setup();
      const o = { bucket: "b", key: "k" };
      s3.putObject({ ...o, storage_class, body: "cold" });

      const archived = await head("k");
      expect(archived).toMatchObject({ StorageClass: storage_class, ContentLength: 4 });
      expect(archived.Restore).toBeUndefined();
      expect(archived.VersionId).toBeUndefined();
      expect(await archivedAs(get("k"))).toEqual([storage_class, undefined]);

      await restore("k", DAYS);
      expect((await head("k")).Restore).toBe('ongoing-request="true"');
      expect(await nameAndStatus(get("k"))).toEqual(["InvalidObjectState", 403]);

      s3.finishRestore(o);
      const restored = await head("k");
      expect(restored.StorageClass).toBe(storage_class);
      expect(restored.Restore).toBe(
        `ongoing-request="false", expiry-date="${midnightIn3Days().toUTCString()}"`,
      );
      expect(await get("k")).toBe("cold");

      // S3 shows an expired copy for a while; it is of no use by then.
      const yesterday = new Date(Math.floor(Date.now() / 1000) * 1000 - 86_400_000);
      s3.ageCopy(o, yesterday, { lingers: true });
      expect((await head("k")).Restore).toContain(yesterday.toUTCString());
      expect(await nameAndStatus(get("k"))).toEqual(["InvalidObjectState", 403]);

      s3.ageCopy(o, yesterday);
      expect((await head("k")).Restore).toBeUndefined();
      expect(await restore("k", DAYS)).toBe(202);
    });
  }

  for (const archive_status of ["ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"] as const) {
    test(`${archive_status}: archived, restoring, readable for good`, async () => {
      const { s3, restore, head, get } = await setup();
      const o = { bucket: "b", key: "k" };
      s3.putObject({ ...o, storage_class: "INTELLIGENT_TIERING", archive_status, body: "cold" });
      expect(await head("k")).toMatchObject({
        StorageClass: "INTELLIGENT_TIERING",
        ArchiveStatus: archive_status,
      });
      expect(await archivedAs(get("k"))).toEqual(["INTELLIGENT_TIERING", archive_status]);

      await restore("k", {});
      expect(await head("k")).toMatchObject({
        ArchiveStatus: archive_status,
        Restore: 'ongoing-request="true"',
      });
      s3.finishRestore(o);
      const readable = await head("k");
      expect([readable.ArchiveStatus, readable.Restore]).toEqual([undefined, undefined]);
      expect(await get("k")).toBe("cold");
      expect(await nameAndStatus(restore("k", {}))).toEqual(["ObjectAlreadyInActiveTierError", 403]);
    });
  }

  test("STANDARD has no class header; other readable classes have; all are read", async () => {
    const { s3, head, get } = await setup();
    s3.putObject({ bucket: "b", key: "k", body: "warm" });
    expect((await head("k")).StorageClass).toBeUndefined();
    for (const storage_class of ["STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"]) {
      s3.putObject({ bucket: "b", key: "k", storage_class, body: "warm" });
      expect((await head("k")).StorageClass).toBe(storage_class);
      expect(await get("k")).toBe("warm");
    }
  });

  test("content of a given size is sent whole, or the part asked for", async () => {
    const { s3, client, get } = await setup();
    s3.putObject({ bucket: "b", key: "big", size_bytes: 200_000 });
    expect(await get("big")).toHaveLength(200_000);
    const part = new GetObjectCommand({ Bucket: "b", Key: "big", Range: "bytes=10-19" });
    const answer = await client.send(part);
    expect(await answer.Body?.transformToString()).toHaveLength(10);
    expect(answer.ContentRange).toBe("bytes 10-19/200000");
  });

  test("HEAD names no error, only a status and the delete marker", async () => {
    const { s3, head } = await setup({}, { versioning: "enabled" });
    expect(await nameAndStatus(head("missing"))).toEqual(["NotFound", 404]);
    s3.putObject({ bucket: "b", key: "k" });
    s3.deleteObject({ bucket: "b", key: "k" });
    const error = await refusal(head("k"));
    expect([error.name, error.$metadata.httpStatusCode]).toEqual(["NotFound", 404]);
    const headers = error.$response?.headers ?? {};
    expect(headers["x-amz-delete-marker"]).toBe("true");
    const marker = headers["x-amz-version-id"] ?? "";
    expect((await refusal(head("k", marker))).$metadata.httpStatusCode).toBe(405);
    expect((await refusal(head("k", "junk"))).$metadata.httpStatusCode).toBe(400);
    expect(s3.requests.at(-2)?.code).toBe("MethodNotAllowed");
  });

  test("without s3:ListBucket a missing key looks denied", async () => {
    const { s3, head, restore } = await setup();
    s3.switches.may_list = false;
    expect((await refusal(head("missing"))).$metadata.httpStatusCode).toBe(403);
    expect(await nameAndStatus(restore("missing", DAYS))).toEqual(["AccessDenied", 403]);
  });

  test("a lag hides the restore header for a while after the 202", async () => {
    const { s3, head, restore } = await setup({ header_lag_ms: 1000 });
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    await restore("k", DAYS);
    expect((await head("k")).Restore).toBeUndefined();
    expect(await nameAndStatus(restore("k", DAYS))).toEqual(["RestoreAlreadyInProgress", 409]);
    await expect.poll(async () => (await head("k")).Restore, SOON).toBe('ongoing-request="true"');
  });

  test("a lost restore leaves an archived object", async () => {
    const { s3, head, restore, events } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    await restore("k", DAYS);
    expect(s3.loseRestore({ bucket: "b", key: "k" })).toBe(true);
    expect((await head("k")).Restore).toBeUndefined();
    expect(await restore("k", DAYS)).toBe(202);
    expect(events.map((event) => event["detail-type"])).toEqual([
      "Object Restore Initiated",
      "Object Restore Initiated",
    ]);
  });

  test("a lost restore's time does not count for the next one", async () => {
    const durations = [300, Infinity, 300];
    const { s3, restore } = await setup({ restore_ms: () => durations.shift() ?? 0 });
    for (const key of ["k", "clock"]) s3.putObject({ bucket: "b", key, storage_class: "GLACIER" });
    await restore("k", DAYS);
    s3.loseRestore({ bucket: "b", key: "k" });
    await restore("k", DAYS);
    await restore("clock", DAYS);
    await expect.poll(() => s3.look({ bucket: "b", key: "clock" })?.restore, SOON).toBe("ready");
    expect(s3.look({ bucket: "b", key: "k" })?.restore).toBe("running");
  });
});

describe("versions", () => {
  test("each has its own restore, and an overwrite leaves the older one's alone", async () => {
    const { s3, head, restore, get } = await setup({}, { versioning: "enabled" });
    const o = { bucket: "b", key: "k", storage_class: "GLACIER" };
    const { version_id: first = "" } = s3.putObject({ ...o, body: "first" });
    expect((await head("k")).VersionId).toBe(first);
    await restore("k", DAYS, first);
    const { version_id: second = "" } = s3.putObject({ ...o, body: "second" });
    expect(second).not.toBe(first);
    expect((await head("k")).Restore).toBeUndefined();
    expect((await head("k", first)).Restore).toBe('ongoing-request="true"');
    s3.finishRestore({ ...o, version_id: first });
    expect(await get("k", first)).toBe("first");
    expect(await nameAndStatus(get("k"))).toEqual(["InvalidObjectState", 403]);
  });

  test("an overwrite without versions ends the restore, and no Completed event follows", async () => {
    const { s3, head, restore, events } = await setup({ restore_ms: 300 });
    const { etag } = s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    await restore("k", DAYS);
    expect(s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" }).etag).not.toBe(etag);
    expect((await head("k")).Restore).toBeUndefined();
    // A second restore that does finish shows that the first one's time was over by then.
    s3.putObject({ bucket: "b", key: "other", storage_class: "GLACIER" });
    await restore("other", DAYS);
    await expect.poll(() => s3.look({ bucket: "b", key: "other" })?.restore, SOON).toBe("ready");
    expect(events.filter((event) => event["detail-type"] === "Object Restore Completed")).toHaveLength(1);
  });

  test("a suspended bucket has one version, called null", async () => {
    const { s3, head, events, restore } = await setup({}, { versioning: "suspended" });
    expect(s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" }).version_id).toBe("null");
    expect((await head("k")).VersionId).toBe("null");
    expect((await head("k", "null")).VersionId).toBe("null");
    await restore("k", DAYS);
    expect(events[0]?.detail).toMatchObject({ object: { "version-id": "null" } });
  });

  test("a deleted version is gone for good", async () => {
    const { s3, head, get } = await setup({}, { versioning: "enabled" });
    const { version_id: first = "" } = s3.putObject({ bucket: "b", key: "k", body: "first" });
    const { version_id: second = "" } = s3.putObject({ bucket: "b", key: "k", body: "second" });
    s3.deleteObject({ bucket: "b", key: "k", version_id: second });
    expect(await get("k")).toBe("first");
    expect((await head("k")).VersionId).toBe(first);
    expect(await nameAndStatus(get("k", second))).toEqual(["NoSuchVersion", 404]);
  });
});

describe("keys", () => {
  const keys = [
    "plain",
    "a+b",
    "a b",
    "%41",
    "%2541",
    "100%",
    "😀/ü",
    "u\u0308", // Not the same key as ü.
    "..",
    "../up",
    "a/../b",
    "./a",
    "a//b",
    "/leading",
    "//",
    "trailing/",
    "a?b=c&d#e",
    "quote\"'<&>;:=@,",
    "tab\tnewline\n",
    "ÿ".repeat(512),
  ];

  test.each(keys.map((key) => [key]))("%j arrives as it was meant", async (key) => {
    const { s3, head, get, restore, events, client } = await setup();
    s3.putObject({ bucket: "b", key, storage_class: "GLACIER", body: key });
    expect((await head(key)).ContentLength).toBe(Buffer.byteLength(key));
    expect(await nameAndStatus(get(key))).toEqual(["InvalidObjectState", 403]);
    expect(await restore(key, DAYS)).toBe(202);
    s3.finishRestore({ bucket: "b", key });
    expect(await get(key)).toBe(key);
    expect(new Set(s3.requests.map((seen) => seen.key))).toEqual(new Set([key]));
    const [read, initiated, completed] = events.map((event) => event.detail);
    expect(read).toMatchObject({ requestParameters: { key } });
    expect(initiated).toMatchObject({ object: { key } });
    expect(completed).toMatchObject({ object: { key } });
    const listed = await client.send(new ListObjectsV2Command({ Bucket: "b" }));
    expect(listed.Contents?.map((object) => object.Key)).toEqual([key]);
  });

  test("a bare + in a path is a space to S3, and a broken escape no URI", async () => {
    const { s3 } = await setup();
    s3.putObject({ bucket: "b", key: "a b" });
    expect(await raw(s3, "HEAD", "/b/a+b")).toMatchObject({ status: 200 });
    expect(await raw(s3, "GET", "/b/%zz")).toMatchObject({ status: 400 });
  });

  test("a key longer than 1,024 bytes is refused", async () => {
    const { get } = await setup();
    expect(await nameAndStatus(get("ÿ".repeat(513)))).toEqual(["KeyTooLongError", 400]);
  });
});

describe("events", () => {
  test("a restore tells Initiated, Completed and Expired, once each and in S3's form", async () => {
    const { s3, restore, events } = await setup({}, { versioning: "enabled", region: "us-east-1" });
    const o = { bucket: "b", key: "a b+c%41" };
    const { version_id, etag } = s3.putObject({ ...o, storage_class: "GLACIER", body: "12345" });
    await restore(o.key, DAYS);
    await refusal(restore(o.key, DAYS));
    s3.finishRestore(o);
    await restore(o.key, DAYS); // 200: nothing is retrieved, nothing is told.
    s3.expireCopy(o);

    const object = { key: o.key, size: 5, etag, "version-id": version_id };
    const [initiated, completed, expired, ...more] = events;
    expect(more).toEqual([]);
    expect(initiated).toEqual({
      version: "0",
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      "detail-type": "Object Restore Initiated",
      source: "aws.s3",
      account: "111122223333",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      region: "us-east-1",
      resources: ["arn:aws:s3:::b"],
      detail: {
        version: "0",
        bucket: { name: "b" },
        object,
        "request-id": expect.stringMatching(/^[0-9A-Z]{16}$/),
        requester: "111122223333",
        "source-ip-address": "127.0.0.1",
        "source-storage-class": "GLACIER",
      },
    });
    expect(completed).toMatchObject({ "detail-type": "Object Restore Completed" });
    expect(completed?.detail).toEqual({
      version: "0",
      bucket: { name: "b" },
      object,
      "request-id": expect.any(String),
      requester: "s3.amazonaws.com",
      "restore-expiry-time": midnightIn3Days().toISOString().replace(".000", ""),
      "source-storage-class": "GLACIER",
    });
    expect(expired).toMatchObject({ "detail-type": "Object Restore Expired" });
    expect(expired?.detail).toEqual({
      version: "0",
      bucket: { name: "b" },
      object: { key: o.key, etag, "version-id": version_id },
      "request-id": expect.any(String),
      requester: "s3.amazonaws.com",
    });
  });

  test("no version-id without versions, no expiry for Intelligent-Tiering", async () => {
    const { s3, restore, events } = await setup();
    const o = { bucket: "b", key: "k" };
    s3.putObject({ ...o, storage_class: "INTELLIGENT_TIERING", archive_status: "ARCHIVE_ACCESS" });
    await restore("k", {});
    s3.finishRestore(o);
    expect(events).toHaveLength(2);
    for (const { detail } of events) expect(detail).not.toHaveProperty(["object", "version-id"]);
    expect(events[1]?.detail).not.toHaveProperty("restore-expiry-time");
    expect(events[1]?.detail).toMatchObject({ "source-storage-class": "INTELLIGENT_TIERING" });
  });

  test("a refused GET, and nothing else, is told as CloudTrail tells it", async () => {
    const { s3, get, head, events } = await setup();
    s3.putObject({ bucket: "b", key: "cold", storage_class: "GLACIER" });
    s3.putObject({ bucket: "b", key: "warm" });
    await refusal(get("cold"));
    await refusal(get("missing"));
    await get("warm");
    await head("cold");
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({
      "detail-type": "AWS API Call via CloudTrail",
      source: "aws.s3",
      resources: [],
      detail: {
        eventSource: "s3.amazonaws.com",
        eventName: "GetObject",
        errorCode: "InvalidObjectState",
        userIdentity: { type: "IAMUser", accessKeyId: "AKIAREADER" },
        requestParameters: { bucketName: "b", key: "cold" },
        resources: [
          { type: "AWS::S3::Object", ARN: "arn:aws:s3:::b/cold" },
          { type: "AWS::S3::Bucket", ARN: "arn:aws:s3:::b" },
        ],
      },
    });
    expect(events[0]?.detail).not.toHaveProperty("requestParameters.versionId");
  });

  test("a copy from an archived object is refused, and told as CloudTrail tells it", async () => {
    const { s3, client, get, events } = await setup({}, { versioning: "enabled" });
    const { version_id } = s3.putObject({ bucket: "b", key: "a b+c/é%?", storage_class: "DEEP_ARCHIVE" });
    s3.putObject({ bucket: "b", key: "warm", body: "warm" });
    const copy = async (source: string, key = "copy") =>
      client.send(new CopyObjectCommand({ Bucket: "b", Key: key, CopySource: source }));
    const source = `b/${encodeURIComponent("a b+c/é%?")}?versionId=${version_id}`;
    expect(await nameAndStatus(copy(source))).toEqual(["InvalidObjectState", 403]);
    expect(await nameAndStatus(copy("b/none"))).toEqual(["NoSuchKey", 404]);
    expect(await nameAndStatus(copy("none/none"))).toEqual(["NoSuchBucket", 404]);
    expect((await copy("/b/warm")).CopyObjectResult?.ETag).toMatch(/^"[0-9a-f]{32}"$/);
    expect(await get("copy")).toBe("warm");
    expect(events).toHaveLength(1);
    expect(events[0]?.detail).toMatchObject({
      eventName: "CopyObject",
      errorCode: "InvalidObjectState",
      errorMessage: "Operation is not valid for the source object's storage class",
      readOnly: false,
      requestParameters: { bucketName: "b", key: "copy", "x-amz-copy-source": source },
      resources: [{ ARN: "arn:aws:s3:::b/copy" }, { ARN: "arn:aws:s3:::b" }],
    });
  });

  test("the reader is whom the access key stands for; a GET by version names it", async () => {
    const userIdentity = { type: "AssumedRole", principalId: "AROA:jane@example.com" };
    const { s3, get, events } = await setup({ identify: () => userIdentity }, { versioning: "enabled" });
    const { version_id } = s3.putObject({ bucket: "b", key: "k", storage_class: "DEEP_ARCHIVE" });
    await refusal(get("k", version_id));
    expect(events[0]?.detail).toMatchObject({
      userIdentity,
      requestParameters: { versionId: version_id },
    });
  });

  test("a presigned URL's reader is its signer; an unsigned one is anonymous", async () => {
    const { s3, events } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    const credential = "AKIASIGNER%2F20261120%2Fus-east-1%2Fs3%2Faws4_request";
    await raw(s3, "GET", `/b/k?X-Amz-Credential=${credential}&X-Amz-Expires=60&X-Amz-Signature=5ec2e7`);
    await raw(s3, "GET", "/b/k");
    expect(events.map((event) => event.detail)).toMatchObject([
      {
        userIdentity: { accessKeyId: "AKIASIGNER" },
        requestParameters: { "X-Amz-Expires": "60" },
        additionalEventData: { AuthenticationMethod: "QueryString" },
      },
      { userIdentity: { type: "AWSAccount", accountId: "anonymous" } },
    ]);
    expect(JSON.stringify(events)).not.toContain("5ec2e7");
  });

  test("a restore finishes by itself after restore_ms, and a copy expires by itself", async () => {
    const { s3, restore, events } = await setup({
      restore_ms: ({ tier }) => (tier === "Bulk" ? Infinity : 20),
    });
    const o = { bucket: "b", key: "k" };
    s3.putObject({ ...o, storage_class: "GLACIER" });
    await restore("k", { ...DAYS, ...tier("Bulk") });
    await restore("k", { ...DAYS, ...tier("Expedited") });
    await expect.poll(() => events.at(-1)?.["detail-type"], SOON).toBe("Object Restore Completed");
    s3.ageCopy(o, new Date(Date.now() + 100));
    await expect.poll(() => events.at(-1)?.["detail-type"], SOON).toBe("Object Restore Expired");
    expect(events).toHaveLength(3);
  });

  test("a restore begun by somebody else is told too", async () => {
    const { s3, events, head } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    s3.beginRestore({ bucket: "b", key: "k" }, { days: 1 });
    expect((await head("k")).Restore).toBe('ongoing-request="true"');
    expect(events).toHaveLength(1);
    expect(() => s3.beginRestore({ bucket: "b", key: "k" }, { days: 1 })).toThrow("already in progress");
  });
});

describe("bad days", () => {
  const answers = [
    { with: "slow_down", name: "SlowDown", status: 503 },
    { with: "internal_error", name: "InternalError", status: 500 },
    { with: "service_unavailable", name: "ServiceUnavailable", status: 503 },
    { with: "access_denied", name: "AccessDenied", status: 403 },
  ] as const;
  test.each(answers)("$with is $status $name, and HEAD shows the status only", async (o) => {
    const { s3, restore, head } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    const fault = s3.fail({ with: o.with });
    expect(await nameAndStatus(restore("k", DAYS))).toEqual([o.name, o.status]);
    expect((await refusal(head("k"))).$metadata.httpStatusCode).toBe(o.status);
    expect(fault.struck).toBe(2);
    expect(s3.look({ bucket: "b", key: "k" })?.restore).toBe("none");
    fault.remove();
    expect(await restore("k", DAYS)).toBe(202);
  });

  test("any other code can be scripted", async () => {
    const { s3, restore } = await setup();
    s3.fail({ with: "error", status: 400, code: "ThrottlingException", message: "Rate exceeded" });
    expect(await nameAndStatus(restore("k", DAYS))).toEqual(["ThrottlingException", 400]);
  });

  test("a rule strikes what it names, and as often as it says", async () => {
    const { s3, restore, head } = await setup();
    for (const key of ["x/1", "x/2", "y/1"]) s3.putObject({ bucket: "b", key, storage_class: "GLACIER" });
    s3.fail({ with: "internal_error", operation: "RestoreObject", bucket: "b", key_prefix: "x/", times: 1 });
    s3.fail({ with: "access_denied", key: "x/2", operation: "RestoreObject" });
    expect(await restore("y/1", DAYS)).toBe(202);
    await head("x/1");
    expect(await nameAndStatus(restore("x/1", DAYS))).toEqual(["InternalError", 500]);
    expect(await restore("x/1", DAYS)).toBe(202);
    expect(await nameAndStatus(restore("x/2", DAYS))).toEqual(["AccessDenied", 403]);
    s3.clearFaults();
    expect(await restore("x/2", DAYS)).toBe(202);
  });

  test("chance comes from the seed", async () => {
    const first = await statusesBySeed(7);
    expect(await statusesBySeed(7)).toBe(first);
    expect(await statusesBySeed(8)).not.toBe(first);
    expect(first).toContain("200");
    expect(first).toContain("500");
  });

  test("the SDK retries over a single failure", async () => {
    const { s3 } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    s3.fail({ with: "internal_error", times: 1 });
    const patient = newClient(s3.url, { maxAttempts: 3 });
    open.push(() => patient.destroy());
    await headObject(patient, { Bucket: "b", Key: "k" });
    expect(s3.requests.map((seen) => seen.status)).toEqual([500, 200]);
  });

  test("a hanging request ends when the client gives up", async () => {
    const { s3, client } = await setup();
    s3.putObject({ bucket: "b", key: "k" });
    s3.fail({ with: "hang", times: 1 });
    const patience = new AbortController();
    const command = new HeadObjectCommand({ Bucket: "b", Key: "k" });
    const call = failure(client.send(command, { abortSignal: patience.signal }));
    await expect.poll(() => s3.counts.get("HeadObject 0"), SOON).toBe(1);
    patience.abort();
    expect(await call).toMatchObject({ name: "AbortError" });
    await headObject(client, { Bucket: "b", Key: "k" });
  });

  test("close() ends hanging requests at once", async () => {
    const { s3, head } = await setup();
    s3.fail({ with: "hang" });
    const call = failure(head("k"));
    await expect.poll(() => s3.requests.length, SOON).toBe(1);
    const started = Date.now();
    await s3.close();
    expect(Date.now() - started).toBeLessThan(1000);
    expect(await call).toMatchObject({ code: "ECONNRESET" });
  });

  test("reset cuts the line with nothing done", async () => {
    const { s3, restore } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    s3.fail({ with: "reset", times: 1 });
    expect(await failure(restore("k", DAYS))).toMatchObject({ code: "ECONNRESET" });
    expect(s3.look({ bucket: "b", key: "k" })?.restore).toBe("none");
  });

  test("drop_after_accept cuts the line with everything done", async () => {
    const { s3, restore, events } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    s3.fail({ with: "drop_after_accept", operation: "RestoreObject", times: 1 });
    expect(await failure(restore("k", DAYS))).toMatchObject({ code: "ECONNRESET" });
    expect(s3.requests[0]).toMatchObject({ accepted: true, status: 0, fault: "drop_after_accept" });
    expect(events).toHaveLength(1);
    expect(await nameAndStatus(restore("k", DAYS))).toEqual(["RestoreAlreadyInProgress", 409]);
  });

  test("garbage is HTML: 502, or a 200 that only looks like success", async () => {
    const { s3, restore } = await setup();
    s3.putObject({ bucket: "b", key: "k", storage_class: "GLACIER" });
    s3.fail({ with: "garbage", times: 1 });
    // Not even an S3ServiceException: the SDK trips over the HTML and throws a plain Error.
    expect(await failure(restore("k", DAYS))).toMatchObject({
      name: "Error",
      $metadata: { httpStatusCode: 502 },
    });
    s3.fail({ with: "garbage", status: 200, times: 1 });
    expect(await restore("k", DAYS)).toBe(200);
    expect(s3.look({ bucket: "b", key: "k" })?.restore).toBe("none");
  });

  test("latency delays and then goes on", async () => {
    const { s3, head } = await setup();
    s3.putObject({ bucket: "b", key: "k" });
    s3.fail({ with: "latency", latency_ms: 150, times: 1 });
    const started = performance.now();
    await head("k");
    expect(performance.now() - started).toBeGreaterThanOrEqual(145);
    expect(s3.requests[0]).toMatchObject({ fault: "latency", status: 200 });
  });
});

describe("regions", () => {
  test("another region's bucket redirects, and names its region", async () => {
    const { s3, client } = await setup();
    s3.createBucket("far", { region: "eu-west-1" });
    s3.putObject({ bucket: "far", key: "k", storage_class: "GLACIER" });
    const order = { Bucket: "far", Key: "k", RestoreRequest: DAYS };
    const error = await refusal(client.send(new RestoreObjectCommand(order)));
    expect([error.name, error.$metadata.httpStatusCode]).toEqual(["PermanentRedirect", 301]);
    const headers = error.$response?.headers ?? {};
    expect(headers["x-amz-bucket-region"]).toBe("eu-west-1");

    const roaming = newClient(s3.url, { followRegionRedirects: true });
    open.push(() => roaming.destroy());
    expect((await headObject(roaming, { Bucket: "far", Key: "k" })).StorageClass).toBe("GLACIER");
    expect((await roaming.send(new RestoreObjectCommand(order))).$metadata.httpStatusCode).toBe(202);
  });
});

describe("wire form", () => {
  test("an error is S3's document, with the ids in headers and body", async () => {
    const { s3 } = await setup();
    s3.putObject({ bucket: "b", key: "<&>", storage_class: "GLACIER" });
    const { status, headers, text } = await raw(s3, "GET", "/b/%3C%26%3E");
    expect(status).toBe(403);
    expect(headers).toMatchObject({ "content-type": "application/xml", server: "AmazonS3" });
    expect(text).toMatch(
      /^<\?xml version="1.0" encoding="UTF-8"\?>\n<Error><Code>InvalidObjectState<\/Code><Message>[^<]+<\/Message><StorageClass>GLACIER<\/StorageClass><RequestId>[0-9A-Z]{16}<\/RequestId><HostId>[^<]+<\/HostId><\/Error>$/,
    );
    expect(text).toContain(`<RequestId>${String(headers["x-amz-request-id"])}</RequestId>`);
    expect((await raw(s3, "GET", "/b/%3C%26%3E2")).text).toContain("<Key>&lt;&amp;&gt;2</Key>");
    expect(await raw(s3, "HEAD", "/b/missing")).toMatchObject({ status: 404, text: "" });
  });

  test("what the stand-in cannot do is NotImplemented", async () => {
    const { s3 } = await setup();
    expect(await raw(s3, "PUT", "/b/k", "content")).toMatchObject({ status: 501 });
    expect(await raw(s3, "GET", "/b/k?acl")).toMatchObject({ status: 501 });
    expect(await raw(s3, "GET", "/b?policy")).toMatchObject({ status: 501 });
  });

  test("buckets tell their place and their versioning", async () => {
    const { s3, client } = await setup({}, { versioning: "suspended" });
    s3.createBucket("far", { region: "eu-west-1" });
    const location = await client.send(new GetBucketLocationCommand({ Bucket: "far" }));
    expect(location.LocationConstraint).toBe("eu-west-1");
    const versioning = await client.send(new GetBucketVersioningCommand({ Bucket: "b" }));
    expect(versioning.Status).toBe("Suspended");
    const buckets = await client.send(new ListBucketsCommand({}));
    expect(buckets.Buckets?.map((bucket) => bucket.Name)).toEqual(["b", "far"]);
    await client.send(new HeadBucketCommand({ Bucket: "b" }));
    expect(await nameAndStatus(client.send(new HeadBucketCommand({ Bucket: "none" })))).toEqual([
      "NotFound",
      404,
    ]);
  });
});

describe("listing", () => {
  test("pages of 1,000 in byte order, with the state of restores when asked", async () => {
    const { s3, client } = await setup();
    const keys = Array.from({ length: 2500 }, (_, i) => `k${i}`);
    keys.push("\uFFEE", "😀"); // UTF-16 would put the second one first.
    for (const key of keys) s3.putObject({ bucket: "b", key, storage_class: "GLACIER" });
    s3.beginRestore({ bucket: "b", key: "k0" }, { days: 3 });
    s3.beginRestore({ bucket: "b", key: "k1" }, { days: 3 });
    s3.finishRestore({ bucket: "b", key: "k1" });

    const found = [];
    let token: string | undefined;
    do {
      const page = await client.send(
        new ListObjectsV2Command({
          Bucket: "b",
          OptionalObjectAttributes: ["RestoreStatus"],
          ...(token === undefined ? {} : { ContinuationToken: token }),
        }),
      );
      expect(page.Contents?.length).toBeLessThanOrEqual(1000);
      found.push(...(page.Contents ?? []));
      token = page.NextContinuationToken;
    } while (token !== undefined);
    const sorted = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(found.map((object) => object.Key)).toEqual(sorted);
    expect(found[0]).toMatchObject({
      StorageClass: "GLACIER",
      RestoreStatus: { IsRestoreInProgress: true },
    });
    expect(found[1]?.RestoreStatus).toEqual({
      IsRestoreInProgress: false,
      RestoreExpiryDate: midnightIn3Days(),
    });
    expect(found[2]?.RestoreStatus).toBeUndefined();
  });

  test("versions: newest first, delete markers apart, over pages that end within a key", async () => {
    const { s3, client } = await setup({}, { versioning: "enabled" });
    const wanted: string[] = [];
    for (const key of ["a+ b", "c", "é"]) {
      const ids = Array.from(
        { length: 3 },
        () => s3.putObject({ bucket: "b", key, storage_class: "GLACIER" }).version_id ?? "",
      );
      wanted.push(...ids.toReversed().map((id) => `${key} ${id}`));
    }
    s3.deleteObject({ bucket: "b", key: "c" });
    s3.beginRestore({ bucket: "b", key: "é" }, { days: 3 });
    for (const EncodingType of [undefined, "url"] as const) {
      const found: string[] = [];
      const markers: unknown[] = [];
      let from: { KeyMarker?: string | undefined; VersionIdMarker?: string | undefined } | undefined = {};
      while (from !== undefined) {
        const page: ListObjectVersionsCommandOutput = await client.send(
          new ListObjectVersionsCommand({ Bucket: "b", MaxKeys: 2, EncodingType, ...from }),
        );
        const plain = (key = ""): string =>
          EncodingType === "url" ? decodeURIComponent(key.replaceAll("+", " ")) : key;
        found.push(...(page.Versions ?? []).map(({ Key, VersionId }) => `${plain(Key)} ${VersionId}`));
        markers.push(...(page.DeleteMarkers ?? []).map(({ Key, IsLatest }) => [plain(Key), IsLatest]));
        expect((page.Versions ?? []).map(({ RestoreStatus }) => RestoreStatus)).not.toContainEqual(
          expect.anything(),
        );
        from =
          page.IsTruncated === true
            ? { KeyMarker: plain(page.NextKeyMarker), VersionIdMarker: page.NextVersionIdMarker }
            : undefined;
      }
      expect([found, markers]).toEqual([wanted, [["c", true]]]);
    }
    const asked = await client.send(
      new ListObjectVersionsCommand({
        Bucket: "b",
        Prefix: "é",
        OptionalObjectAttributes: ["RestoreStatus"],
      }),
    );
    expect(asked.Versions?.map(({ RestoreStatus }) => RestoreStatus?.IsRestoreInProgress)).toEqual([
      true,
      undefined,
      undefined,
    ]);
    expect(
      await nameAndStatus(client.send(new ListObjectVersionsCommand({ Bucket: "b", VersionIdMarker: "x" }))),
    ).toEqual(["InvalidArgument", 400]);
  });

  test("prefix and delimiter fold keys, also over pages; deleted ones are not listed", async () => {
    const { s3, client } = await setup({}, { versioning: "enabled" });
    for (const key of ["a/1", "a/2", "b/1", "c", "d/1"]) s3.putObject({ bucket: "b", key });
    s3.deleteObject({ bucket: "b", key: "d/1" });
    const found: (string | undefined)[] = [];
    let token: string | undefined;
    do {
      const page = await client.send(
        new ListObjectsV2Command({
          Bucket: "b",
          Delimiter: "/",
          MaxKeys: 1,
          ...(token === undefined ? {} : { ContinuationToken: token }),
        }),
      );
      found.push(...(page.CommonPrefixes ?? []).map((common) => common.Prefix));
      found.push(...(page.Contents ?? []).map((object) => object.Key));
      token = page.NextContinuationToken;
    } while (token !== undefined);
    expect(found).toEqual(["a/", "b/", "c"]);
    const whole = await client.send(new ListObjectsV2Command({ Bucket: "b", Delimiter: "/" }));
    expect(whole.CommonPrefixes).toEqual([{ Prefix: "a/" }, { Prefix: "b/" }]);
    const older = await client.send(new ListObjectsCommand({ Bucket: "b", Marker: "a/1", MaxKeys: 2 }));
    expect(older.Contents?.map((object) => object.Key)).toEqual(["a/2", "b/1"]);
    expect(older.NextMarker).toBe("b/1");
    s3.putObject({ bucket: "b", key: "z é+%" });
    s3.putObject({ bucket: "b", key: "\u0001\r" });
    expect((await raw(s3, "GET", "/b?list-type=2")).text).toContain("<Key>&#x1;&#xd;</Key>");
    const encoded = await raw(s3, "GET", "/b?list-type=2&start-after=z&encoding-type=url");
    expect(encoded.text).toContain("<Key>z+%C3%A9%2B%25</Key>");
    const under = await client.send(new ListObjectsV2Command({ Bucket: "b", Prefix: "a/" }));
    expect(under.Contents?.map((object) => object.Key)).toEqual(["a/1", "a/2"]);
  });
});

describe("the log", () => {
  test("keeps the newest requests and all counts", async () => {
    const { s3, head } = await setup({ keep_requests: 10 });
    s3.putObject({ bucket: "b", key: "k" });
    for (let i = 0; i < 25; i += 1) await head("k");
    expect(s3.requests.length).toBeLessThanOrEqual(10);
    expect(s3.counts.get("HeadObject 200")).toBe(25);
    expect(s3.requests.at(-1)).toMatchObject({
      method: "HEAD",
      operation: "HeadObject",
      bucket: "b",
      key: "k",
      access_key_id: "AKIAREADER",
      status: 200,
    });
    s3.clearRequests();
    expect([s3.requests.length, s3.counts.size]).toEqual([0, 0]);
  });
});

/** What forty reads meet when every second one should fail. */
async function statusesBySeed(seed: number): Promise<string> {
  const { s3, head } = await setup({ seed });
  s3.putObject({ bucket: "b", key: "k" });
  s3.fail({ with: "internal_error", probability: 0.5 });
  for (let i = 0; i < 40; i += 1) await head("k").catch(() => {});
  return s3.requests.map((seen) => seen.status).join(" ");
}

/** A RestoreRequest with Days and something more. */
function restoreXml(more: string): string {
  return `<RestoreRequest><Days>1</Days>${more}</RestoreRequest>`;
}

/** A request that no SDK would send. */
async function raw(s3: S3StandIn, method: string, path: string, body = ""): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const call = request({ host: "127.0.0.1", port: s3.port, method, path }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text }));
    });
    call.on("error", reject);
    call.end(body);
  });
}

interface RawAnswer {
  status: number | undefined;
  headers: IncomingHttpHeaders;
  text: string;
}
