import { describe, expect } from "vitest";

import { newPool, test as base, waitFor } from "../support/database.ts";
import { launch, type Process } from "../support/processes.ts";
import type { FaultRule, NewObject } from "../stand_ins/s3.ts";
import { BUCKET, requestBody, settingsFor, startThaw, type Thaw, type ThawOptions } from "../support/thaw.ts";

interface Fixtures {
  /** A Thaw whose restores run until told to finish, and that hears nothing from S3's events. */
  start: (options?: ThawOptions) => Promise<Thaw>;
}

const test = base.extend<Fixtures>({
  start: async ({ databaseUrl }, use) => {
    const started: Thaw[] = [];
    await use(async (options = {}) => {
      const thaw = await startThaw(databaseUrl, {
        events: false,
        ...options,
        s3: { restore_ms: Infinity, ...options.s3 },
      });
      started.push(thaw);
      return thaw;
    });
    for (const thaw of started) {
      await thaw.stop();
      expect(thaw.lambdaErrors).toEqual([]);
    }
  },
});

interface Row {
  s3_key: string;
  status: string;
  tier: string | null;
  storage_class: string | null;
  pinned_version_id: string | null;
  restore_expires_at: Date | null;
  failure_code: string | null;
  failure_message: string | null;
  attempts: number;
  /** Seconds until it may be claimed again. */
  wait: number;
}

/** Tells Thaw that these were read. */
async function readAll(thaw: Thaw, keys: string[], more: Record<string, unknown> = {}): Promise<void> {
  const answers = await Promise.all(keys.map((key) => thaw.post("/restore/request", requestBody(key, more))));
  expect(answers.filter((answer) => answer.status !== 200)).toEqual([]);
}

async function rows(thaw: Thaw): Promise<Map<string, Row>> {
  const found = await thaw.pool.query<Row>(
    "select *, extract(epoch from attempt_after - now())::float as wait from restores",
  );
  return new Map(found.rows.map((row) => [row.s3_key, row]));
}

/** Waits until S3's answer about each object is noted: it has moved, or has trouble. */
async function answered(thaw: Thaw): Promise<Map<string, Row>> {
  await waitFor("an answer about each object", async () => {
    const waiting = await thaw.pool.query(
      "select s3_key from restores where status = 'not_started' and failure_code is null",
    );
    return waiting.rowCount === 0;
  });
  return rows(thaw);
}

/** As if the leases and delays had run out. */
async function tryAgain(thaw: Thaw): Promise<void> {
  await thaw.pool.query("update restores set attempt_after = now()");
  await thaw.pool.query("select nudge('trigger_restores')");
}

const restoresOf = (thaw: Thaw, key: string) =>
  thaw.s3.requests
    .filter((request) => request.operation === "RestoreObject" && request.key === key)
    .map(({ tier, days, status }) => ({ tier, days, status }));

const put = (thaw: Thaw, key: string, object: Partial<NewObject> = {}) =>
  thaw.s3.putObject({ bucket: BUCKET, key, storage_class: "GLACIER", body: "x", ...object });

const accepted = (thaw: Thaw, key: string, bucket = BUCKET) =>
  thaw.s3.look({ bucket, key })?.restores_accepted;

/** As a store answers that does not number its requests. */
const NO_IDS = { "x-amz-request-id": undefined, "x-amz-id-2": undefined };

const int = (archive_status?: NewObject["archive_status"]): Partial<NewObject> => ({
  storage_class: "INTELLIGENT_TIERING",
  ...(archive_status && { archive_status }),
});

describe("what an object's class asks for", () => {
  test("each class is asked for with the tier and days that fit it, or not at all", async ({ start }) => {
    const thaw = await start();
    const asked = (tier: string, days?: number) => [{ tier, days, status: 202 }];
    const classes: [string, Partial<NewObject>, string, unknown[]][] = [
      ["flexible", { storage_class: "GLACIER" }, "pending", asked("Standard", 7)],
      ["deep", { storage_class: "DEEP_ARCHIVE" }, "pending", asked("Standard", 7)],
      ["int archive", int("ARCHIVE_ACCESS"), "pending", asked("Standard")],
      ["int deep", int("DEEP_ARCHIVE_ACCESS"), "pending", asked("Standard")],
      ["int active", int(), "restored", []],
      ["standard", { storage_class: "STANDARD" }, "restored", []],
      ["infrequent", { storage_class: "STANDARD_IA" }, "restored", []],
      ["instant", { storage_class: "GLACIER_IR" }, "restored", []],
    ];
    for (const [key, object] of classes) put(thaw, key, object);

    await readAll(
      thaw,
      classes.map(([key]) => key),
    );
    const found = await answered(thaw);

    expect(classes.map(([key]) => [key, found.get(key)?.status, restoresOf(thaw, key)])).toEqual(
      classes.map(([key, , status, requests]) => [key, status, requests]),
    );
    for (const [key, { storage_class = "" }, status] of classes) {
      expect(found.get(key)).toMatchObject({
        storage_class,
        tier: status === "pending" ? "Standard" : null,
        restore_expires_at: null,
        pinned_version_id: "",
        failure_code: null,
        attempts: 0,
      });
    }
  });

  test("Expedited is asked for where the class knows it, elsewhere Standard", async ({ start }) => {
    const thaw = await start({ env: { RESTORE_TIER: "Expedited", RESTORE_DAYS: "3" } });
    put(thaw, "flexible");
    put(thaw, "deep", { storage_class: "DEEP_ARCHIVE" });
    put(thaw, "int archive", int("ARCHIVE_ACCESS"));
    put(thaw, "int deep", int("DEEP_ARCHIVE_ACCESS"));

    await readAll(thaw, ["flexible", "deep", "int archive", "int deep"]);
    const found = await answered(thaw);

    expect([...found].map(([key, { tier }]) => [key, tier]).sort()).toEqual([
      ["deep", "Standard"],
      ["flexible", "Expedited"],
      ["int archive", "Expedited"],
      ["int deep", "Standard"],
    ]);
    expect(restoresOf(thaw, "flexible")).toEqual([{ tier: "Expedited", days: 3, status: 202 }]);
    expect(restoresOf(thaw, "deep")).toEqual([{ tier: "Standard", days: 3, status: 202 }]);
  });

  test("S3 has no room for Expedited: Standard is asked for instead", async ({ start }) => {
    const thaw = await start({ env: { RESTORE_TIER: "Expedited" } });
    thaw.s3.switches.expedited_available = false;
    put(thaw, "k");

    await readAll(thaw, ["k"]);
    const found = await answered(thaw);

    expect(found.get("k")).toMatchObject({ status: "pending", tier: "Standard", failure_code: null });
    expect(restoresOf(thaw, "k").at(-1)).toEqual({ tier: "Standard", days: 7, status: 202 });
    expect(accepted(thaw, "k")).toBe(1);
  });
});

describe("what S3 did before us, or between two calls", () => {
  test("what runs already is waited for, what is readable is not asked for again", async ({ start }) => {
    const thaw = await start();
    const name = (key: string) => ({ bucket: BUCKET, key });
    for (const key of ["running", "readable", "lingering", "missing"]) put(thaw, key);
    thaw.s3.beginRestore(name("running"), { days: 1 });
    for (const key of ["readable", "lingering"]) {
      thaw.s3.beginRestore(name(key), { days: 2 });
      thaw.s3.finishRestore(name(key));
    }
    thaw.s3.ageCopy(name("lingering"), new Date(Date.now() - 1000), { lingers: true });
    thaw.s3.deleteObject(name("missing"));

    await readAll(thaw, ["running", "readable", "lingering", "missing"]);
    const found = await answered(thaw);

    // Somebody else asked, with a tier that we do not know.
    expect(found.get("running")).toMatchObject({ status: "pending", tier: null });
    expect(found.get("readable")).toMatchObject({
      status: "restored",
      restore_expires_at: thaw.s3.look(name("readable"))?.expires_at,
    });
    // S3 still shows the copy, but it has expired.
    expect(found.get("lingering")).toMatchObject({ status: "pending", tier: "Standard" });
    expect(found.get("missing")).toMatchObject({
      status: "failed",
      failure_code: "object_not_found",
      failure_message: "The file is no longer there: it, or the version that was read, has been deleted.",
    });
    expect(
      ["running", "readable", "lingering", "missing"].map((key) => restoresOf(thaw, key).length),
    ).toEqual([0, 0, 1, 0]);
  });

  test("a HEAD that shows no restore never makes an archived object restored", async ({ start }) => {
    // S3 has accepted somebody's restore and does not show it yet.
    const thaw = await start({ s3: { header_lag_ms: 3_600_000 } });
    put(thaw, "k");
    thaw.s3.beginRestore({ bucket: BUCKET, key: "k" }, { days: 1 });

    await readAll(thaw, ["k"]);
    const found = await answered(thaw);

    expect(found.get("k")).toMatchObject({ status: "pending", tier: null });
    expect(restoresOf(thaw, "k").map(({ status }) => status)).toEqual([409]);
    expect(accepted(thaw, "k")).toBe(1);
  });

  test("what changes between HEAD and RestoreObject is looked at again", async ({ start }) => {
    const thaw = await start({ worker: false });
    thaw.s3.createBucket("versioned", { versioning: "enabled" });
    const keys = ["overwritten", "active", "copied", "deleted", "begun"];
    for (const key of keys) put(thaw, key, key === "active" ? int("ARCHIVE_ACCESS") : {});
    const { version_id } = put(thaw, "version", { bucket: "versioned" });
    // Time enough for what changes meanwhile, also on a busy machine.
    thaw.s3.fail({ with: "latency", latency_ms: 4_000, operation: "RestoreObject" });

    await readAll(thaw, keys);
    await readAll(thaw, ["version"], { s3_bucket: "versioned" });
    // All at once, for while two walks wait for S3 nobody claims what comes later.
    await thaw.startWorker();
    await waitFor("all to be asked for", async () => {
      const asked = thaw.s3.requests.filter((request) => request.operation === "RestoreObject");
      return asked.length === keys.length + 1;
    });
    const name = (key: string) => ({ bucket: BUCKET, key });
    put(thaw, "overwritten", { storage_class: "STANDARD" });
    thaw.s3.beginRestore(name("active"));
    thaw.s3.finishRestore(name("active"));
    thaw.s3.beginRestore(name("copied"), { days: 1 });
    thaw.s3.finishRestore(name("copied"));
    thaw.s3.deleteObject(name("deleted"));
    thaw.s3.beginRestore(name("begun"), { days: 1 });
    thaw.s3.deleteObject({ bucket: "versioned", key: "version", version_id });
    // S3's Completed events may be quicker than its answers.
    await waitFor("S3's answers", async () =>
      thaw.s3.requests.every((request) => request.operation !== "RestoreObject" || request.status > 0),
    );
    const found = await answered(thaw);

    const statuses = [...keys, "version"].map((key) => [
      thaw.s3.requests.find((request) => request.operation === "RestoreObject" && request.key === key)?.code,
      found.get(key)?.status,
    ]);
    expect(statuses).toEqual([
      ["InvalidObjectState", "restored"],
      ["ObjectAlreadyInActiveTierError", "restored"],
      [undefined, "restored"], // 200: a copy exists.
      ["NoSuchKey", "failed"],
      ["RestoreAlreadyInProgress", "pending"],
      ["NoSuchVersion", "failed"],
    ]);
    expect(found.get("overwritten")?.restore_expires_at).toBe(null);
    expect(found.get("active")?.restore_expires_at).toBe(null);
    expect(found.get("copied")?.restore_expires_at).toEqual(thaw.s3.look(name("copied"))?.expires_at);
    expect(found.get("deleted")?.failure_code).toBe("object_not_found");
    expect(found.get("begun")?.tier).toBe(null);
  });

  test("an object that S3 calls archived and refuses to restore is tried again later", async ({ start }) => {
    const thaw = await start();
    put(thaw, "k");
    thaw.s3.fail({ with: "error", status: 403, code: "InvalidObjectState", operation: "RestoreObject" });

    await readAll(thaw, ["k"]);
    expect((await answered(thaw)).get("k")).toMatchObject({
      status: "not_started",
      failure_code: "InvalidObjectState",
      attempts: 1,
    });

    thaw.s3.clearFaults();
    await tryAgain(thaw);
    await waitFor("the restore", async () => (await rows(thaw)).get("k")?.status === "pending");
  });
});

describe("versions", () => {
  test("HEAD's version is pinned and asked for, in every kind of bucket", async ({ start }) => {
    const thaw = await start();
    const sent: Record<string, unknown> = {};
    const expected: Record<string, unknown> = {};
    for (const versioning of ["off", "enabled", "suspended"] as const) {
      thaw.s3.createBucket(versioning, { versioning });
      const { version_id } = put(thaw, versioning, { bucket: versioning });
      expected[versioning] = { pinned: version_id ?? "", sent: version_id };
      await readAll(thaw, [versioning], { s3_bucket: versioning });
    }

    for (const [key, row] of await answered(thaw)) {
      const request = thaw.s3.requests.find(
        ({ operation, bucket }) => operation === "RestoreObject" && bucket === key,
      );
      sent[key] = { pinned: row.pinned_version_id, sent: request?.version_id };
      expect(row.status).toBe("pending");
    }
    expect(sent).toEqual(expected);
    expect(expected).toMatchObject({ off: { pinned: "" }, suspended: { pinned: "null" } });
  });

  test("the version that was read is restored, not the one that took its place", async ({ start }) => {
    const thaw = await start();
    thaw.s3.createBucket("versioned", { versioning: "enabled" });
    const older = put(thaw, "k", { bucket: "versioned" });
    put(thaw, "k", { bucket: "versioned", storage_class: "STANDARD" });

    await readAll(thaw, ["k"], { s3_bucket: "versioned", version_id: older.version_id });
    const found = await answered(thaw);

    expect(found.get("k")).toMatchObject({ status: "pending", pinned_version_id: older.version_id });
    expect(new Set(thaw.s3.requests.map((request) => request.version_id))).toEqual(
      new Set([older.version_id]),
    );
    expect(thaw.s3.look({ bucket: "versioned", key: "k", version_id: older.version_id })?.restore).toBe(
      "running",
    );
  });

  test("a version that is gone and a delete marker fail at once, with a sentence", async ({ start }) => {
    const thaw = await start();
    thaw.s3.createBucket("versioned", { versioning: "enabled" });
    thaw.s3.createBucket("suspended", { versioning: "suspended" });
    const gone = put(thaw, "gone", { bucket: "versioned" }).version_id;
    thaw.s3.deleteObject({ bucket: "versioned", key: "gone", version_id: gone });
    put(thaw, "deleted", { bucket: "versioned" });
    thaw.s3.deleteObject({ bucket: "versioned", key: "deleted" });
    put(thaw, "marker", { bucket: "suspended" });
    thaw.s3.deleteObject({ bucket: "suspended", key: "marker" });

    await readAll(thaw, ["gone"], { s3_bucket: "versioned", version_id: gone });
    await readAll(thaw, ["deleted"], { s3_bucket: "versioned" });
    await readAll(thaw, ["marker"], { s3_bucket: "suspended", version_id: "null" });
    const found = await answered(thaw);

    const heads = thaw.s3.requests.filter((request) => request.operation === "HeadObject");
    expect(heads.map(({ key, code, status }) => [key, code, status]).sort()).toEqual([
      ["deleted", "NoSuchKey", 404],
      ["gone", "NoSuchVersion", 404],
      ["marker", "MethodNotAllowed", 405],
    ]);
    for (const row of found.values()) {
      expect(row).toMatchObject({
        status: "failed",
        failure_code: "object_not_found",
        failure_message: expect.stringMatching(/no longer there/),
      });
    }
  });
});

describe("trouble", () => {
  test("denied access is shown on its row and tried again, and the others flow", async ({ start }) => {
    const thaw = await start();
    for (const key of ["no head", "no restore", "fine"]) put(thaw, key);
    thaw.s3.fail({ with: "access_denied", operation: "HeadObject", key: "no head" });
    thaw.s3.fail({ with: "access_denied", operation: "RestoreObject", key: "no restore" });

    await readAll(thaw, ["no head", "no restore", "fine"]);
    const found = await answered(thaw);

    expect(found.get("fine")).toMatchObject({ status: "pending", failure_code: null });
    for (const key of ["no head", "no restore"]) {
      expect(found.get(key)).toMatchObject({
        status: "not_started",
        failure_code: "AccessDenied",
        failure_message: expect.stringMatching(/administrator/),
        attempts: 1,
      });
      expect(found.get(key)?.wait).toBeGreaterThan(40);
      expect(found.get(key)?.wait).toBeLessThanOrEqual(60);
    }

    thaw.s3.clearFaults();
    await tryAgain(thaw);
    await waitFor("access", async () =>
      [...(await rows(thaw)).values()].every((row) => row.status === "pending" && row.failure_code === null),
    );
  });

  test("whatever S3's bad day brings, each object ends restored, asked for once", async ({ start }) => {
    const thaw = await start({ events: true, s3: { restore_ms: 100 } });
    const faults: [string, FaultRule, string][] = [
      ["head busy", { operation: "HeadObject", with: "slow_down" }, "SlowDown"],
      ["head broken", { operation: "HeadObject", with: "internal_error" }, "HTTP500"],
      ["head cut", { operation: "HeadObject", with: "reset" }, "ECONNRESET"],
      ["head lost", { operation: "HeadObject", with: "drop_after_accept" }, "ECONNRESET"],
      ["head proxy", { operation: "HeadObject", with: "garbage" }, "HTTP502"],
      // Without this being noticed it would look like a readable file.
      ["head proxy, 200", { operation: "HeadObject", with: "garbage", status: 200 }, "NotFromS3"],
      ["busy", { operation: "RestoreObject", with: "slow_down" }, "SlowDown"],
      ["broken", { operation: "RestoreObject", with: "internal_error" }, "InternalError"],
      ["away", { operation: "RestoreObject", with: "service_unavailable" }, "ServiceUnavailable"],
      ["cut", { operation: "RestoreObject", with: "reset" }, "ECONNRESET"],
      ["proxy", { operation: "RestoreObject", with: "garbage" }, "HTTP502"],
      ["proxy, 200", { operation: "RestoreObject", with: "garbage", status: 200 }, "NotFromS3"],
      // Without this it would look like a restore that S3 has begun.
      ["proxy, 202", { operation: "RestoreObject", with: "garbage", status: 202 }, "NotFromS3"],
      ["head proxy, 404", { operation: "HeadObject", with: "garbage", status: 404 }, "NotFromS3"],
      ["head proxy, 405", { operation: "HeadObject", with: "garbage", status: 405 }, "NotFromS3"],
      ["head proxy, 403", { operation: "HeadObject", with: "garbage", status: 403 }, "NotFromS3"],
      ["head no method", { operation: "HeadObject", with: "error", status: 405 }, "MethodNotAllowed"],
      ["head partial", { operation: "HeadObject", with: "garbage", status: 206 }, "NotFromS3"],
      ["head unnumbered", { operation: "HeadObject", with: "headers", headers: NO_IDS }, "NotFromS3"],
      [
        "head, no etag",
        {
          operation: "HeadObject",
          with: "headers",
          headers: { etag: undefined, "x-amz-storage-class": undefined },
        },
        "NotFromS3",
      ],
      [
        "not found",
        { operation: "RestoreObject", with: "error", status: 404, code: "NoSuchKey" },
        "NoSuchKey",
      ],
      [
        "version not found",
        { operation: "RestoreObject", with: "error", status: 404, code: "NoSuchVersion" },
        "NoSuchVersion",
      ],
      [
        "not allowed",
        { operation: "RestoreObject", with: "error", status: 405, code: "MethodNotAllowed" },
        "MethodNotAllowed",
      ],
      [
        "active, it says",
        { operation: "RestoreObject", with: "error", status: 403, code: "ObjectAlreadyInActiveTierError" },
        "ObjectAlreadyInActiveTierError",
      ],
      [
        "key off",
        { operation: "RestoreObject", with: "error", status: 400, code: "KMS.DisabledException" },
        "KMS.DisabledException",
      ],
      [
        "no bucket",
        { operation: "RestoreObject", with: "error", status: 404, code: "NoSuchBucket" },
        "NoSuchBucket",
      ],
    ];
    for (const [key, rule] of faults) {
      put(thaw, key);
      thaw.s3.fail({ ...rule, key });
    }
    put(thaw, "lost");
    // Accepted, and nobody hears of it: the repeat is answered with 409.
    thaw.s3.fail({ operation: "RestoreObject", with: "drop_after_accept", key: "lost", times: 1 });

    await readAll(thaw, [...faults.map(([key]) => key), "lost"]);
    const found = await answered(thaw);

    expect(faults.map(([key]) => [key, found.get(key)?.status, found.get(key)?.failure_code])).toEqual(
      faults.map(([key, , code]) => [key, "not_started", code]),
    );

    thaw.s3.clearFaults();
    await tryAgain(thaw);
    await waitFor("all to be restored", async () =>
      [...(await rows(thaw)).values()].every((row) => row.status === "restored" && row.failure_code === null),
    );
    for (const [key] of [...faults, ["lost"] as const]) expect([key, accepted(thaw, key)]).toEqual([key, 1]);
  });

  test("24 hours of trouble without a break: failed, with the last reason", async ({ start }) => {
    const thaw = await start();
    put(thaw, "k");
    thaw.s3.fail({ with: "access_denied" });
    await readAll(thaw, ["k"]);
    await answered(thaw);

    await thaw.pool.query(
      "update restores set attempts = 9, failing_since = now() - interval '23 hours 59 minutes'",
    );
    await tryAgain(thaw);
    await waitFor("the second try", async () => (await rows(thaw)).get("k")?.attempts === 10);
    expect((await rows(thaw)).get("k")?.status).toBe("not_started");

    await thaw.pool.query("update restores set failing_since = now() - interval '24 hours'");
    await tryAgain(thaw);
    await waitFor("the end", async () => (await rows(thaw)).get("k")?.status === "failed");
    expect((await rows(thaw)).get("k")).toMatchObject({ failure_code: "AccessDenied" });
  });

  test("one bad object in a page of a hundred holds up nobody", async ({ start }) => {
    const thaw = await start({ worker: false, env: { S3_CONCURRENCY: "100" } });
    const keys = Array.from({ length: 100 }, (_, index) => `${index}`);
    for (const key of keys) put(thaw, key);
    // A date that Postgres does not know how to read: the whole page's statement fails.
    thaw.s3.beginRestore({ bucket: BUCKET, key: "50" }, { days: 1 });
    thaw.s3.finishRestore({ bucket: BUCKET, key: "50" });
    thaw.s3.ageCopy({ bucket: BUCKET, key: "50" }, new Date("+012000-01-01T00:00:00Z"));
    await readAll(thaw, keys);

    await thaw.startWorker();
    const found = await answered(thaw);

    expect(keys.filter((key) => found.get(key)?.status !== "pending")).toEqual(["50"]);
    expect(found.get("50")).toMatchObject({ status: "not_started", failure_code: "unusable_answer" });
    const failed = await thaw.pool.query("select from graphile_worker.jobs where last_error is not null");
    expect(failed.rowCount).toBe(0);
  });

  test("a call that hangs ends by itself and is repeated; meanwhile the others flow", async ({ start }) => {
    const thaw = await start();
    put(thaw, "hangs");
    put(thaw, "fine");
    thaw.s3.fail({ with: "hang", key: "hangs", operation: "HeadObject", times: 1 });

    await readAll(thaw, ["hangs"]);
    await waitFor("the hanging call", async () => thaw.s3.requests.length === 1);
    await readAll(thaw, ["fine"]);
    await waitFor("the other", async () => (await rows(thaw)).get("fine")?.status === "pending", 5_000);
    expect((await rows(thaw)).get("hangs")?.status).toBe("not_started");

    await waitFor("its end", async () => (await rows(thaw)).get("hangs")?.status === "pending", 20_000);
    expect((await rows(thaw)).get("hangs")?.attempts).toBe(0);
    expect(accepted(thaw, "hangs")).toBe(1);
  });
});

describe("exactly this object", () => {
  test("every key reaches S3 byte for byte", async ({ start }) => {
    const thaw = await start();
    const keys = [
      "a+b c.txt",
      "100%41.txt",
      "%2F%2f",
      "%",
      "émigré/😀.mov",
      "e\u0301",
      "..",
      "../up",
      "a/../b",
      "a/./b",
      "a//b",
      "/lead",
      "//",
      "trail/",
      "question?versionId=1#hash&x=y",
      " spaces ",
      "it's (a) *star*!",
      "tab\tand\nline",
      `back\\slash"quotes"<xml>&amp;`,
      "x".repeat(1024),
      "😀".repeat(256),
    ];
    for (const key of keys) put(thaw, key);

    await readAll(thaw, keys);
    const found = await answered(thaw);

    expect(keys.map((key) => [key, found.get(key)?.status, restoresOf(thaw, key).length])).toEqual(
      keys.map((key) => [key, "pending", 1]),
    );
  });

  test("a bucket in another region is found, told of or not", async ({ start }) => {
    const thaw = await start();
    const regions = { told: "eu-central-1", untold: undefined, misled: "ap-south-1" };
    for (const [key, region] of Object.entries(regions)) {
      thaw.s3.createBucket(key, { region: "eu-central-1" });
      put(thaw, key, { bucket: key });
      await readAll(thaw, [key], { s3_bucket: key, ...(region && { region }) });
    }

    const found = await answered(thaw);

    const redirected = (key: string) =>
      thaw.s3.requests.some((request) => request.key === key && request.status === 301);
    expect(
      Object.keys(regions).map((key) => [
        key,
        found.get(key)?.status,
        accepted(thaw, key, key),
        redirected(key),
      ]),
    ).toEqual([
      ["told", "pending", 1, false],
      ["untold", "pending", 1, true],
      ["misled", "pending", 1, true],
    ]);
  });
});

describe("where a bucket lies", () => {
  test.for([
    { status: 301, told_in: "header" },
    { status: 400, told_in: "header" },
    { status: 400, told_in: "body" },
    { status: 403, told_in: "header" },
  ] as const)(
    "is followed once and remembered, told as $status in the $told_in",
    async (wrong_region, { start }) => {
      const thaw = await start();
      thaw.s3.createBucket("far", { region: "eu-central-1", wrong_region });
      for (const key of ["first", "second", "third"]) put(thaw, key, { bucket: "far" });
      const misled = () => thaw.s3.requests.filter(({ status }) => status === wrong_region.status).length;

      await readAll(thaw, ["first"], { s3_bucket: "far" });
      await answered(thaw);
      // HEAD, and where only a body tells, the call that has one.
      expect(misled()).toBe(wrong_region.told_in === "body" ? 2 : 1);
      await readAll(thaw, ["second", "third"], { s3_bucket: "far", region: "ap-south-1" });
      const found = await answered(thaw);

      expect(misled()).toBe(wrong_region.told_in === "body" ? 2 : 1);
      expect([...found.values()].map(({ status, failure_code }) => [status, failure_code])).toEqual(
        Array.from({ length: 3 }, () => ["pending", null]),
      );
      expect(["first", "second", "third"].map((key) => accepted(thaw, key, "far"))).toEqual([1, 1, 1]);
    },
  );

  test("a 403 from the bucket's own region is no redirect", async ({ start }) => {
    const thaw = await start();
    put(thaw, "k");
    const headers = { "x-amz-bucket-region": "us-east-1" };
    thaw.s3.fail({ with: "error", status: 403, code: "AccessDenied", headers, operation: "HeadObject" });

    await readAll(thaw, ["k"]);

    expect((await answered(thaw)).get("k")).toMatchObject({ failure_code: "AccessDenied" });
    expect(thaw.s3.requests.filter(({ operation }) => operation === "HeadObject")).toHaveLength(1);
  });
});

describe("a class that Thaw does not know", () => {
  test("is restored as S3's own archives are, and never called readable unasked", async ({ start }) => {
    const thaw = await start({ env: { RESTORE_TIER: "Expedited" } });
    const classes = ["location-dmf-v1", "CLOUDTIER", "standard"];
    for (const storage_class of classes) put(thaw, storage_class, { storage_class });

    await readAll(thaw, classes);
    const found = await answered(thaw);

    for (const storage_class of classes) {
      expect(found.get(storage_class)).toMatchObject({ status: "pending", storage_class, tier: "Standard" });
      expect(restoresOf(thaw, storage_class)).toEqual([{ tier: "Standard", days: 7, status: 202 }]);
    }
  });

  test.for([
    [501, "NotImplemented"],
    [405, "MethodNotAllowed"],
    [400, "MalformedXML"],
    [400, "InvalidArgument"],
    [403, "InvalidObjectState"],
    [403, "ObjectAlreadyInActiveTierError"],
  ] as const)(
    "that S3 does not restore is tried again, and why is said: %i %s",
    async ([status, code], { start }) => {
      const thaw = await start();
      put(thaw, "k", { storage_class: "CLOUDTIER" });
      thaw.s3.fail({ with: "error", status, code, operation: "RestoreObject" });

      await readAll(thaw, ["k"]);

      expect((await answered(thaw)).get("k")).toMatchObject({
        status: "not_started",
        failure_code: code,
        failure_message: expect.stringMatching(/does not know its storage class, CLOUDTIER/),
      });
    },
  );

  test("and an archive status that Thaw does not know is asked for without Days", async ({ start }) => {
    const thaw = await start({ env: { RESTORE_TIER: "Expedited" } });
    put(thaw, "k", int("ARCHIVE_ACCESS"));
    thaw.s3.fail({
      with: "headers",
      operation: "HeadObject",
      headers: { "x-amz-archive-status": "COLDEST_ACCESS" },
    });

    await readAll(thaw, ["k"]);

    expect((await answered(thaw)).get("k")).toMatchObject({ status: "pending" });
    expect(restoresOf(thaw, "k")).toEqual([{ tier: "Standard", days: undefined, status: 202 }]);
  });
});

describe("the last word on an object", () => {
  test("is not said in a bucket that is not there", async ({ start }) => {
    const thaw = await start();
    await readAll(thaw, ["k"], { s3_bucket: "nowhere" });

    expect((await answered(thaw)).get("k")).toMatchObject({
      status: "not_started",
      failure_code: "NoSuchBucket",
      failure_message: "The bucket does not exist.",
    });
  });

  test("is HEAD's, where S3 says in a header what it was", async ({ start }) => {
    const thaw = await start();
    for (const key of ["key", "bucket"]) put(thaw, key);
    const minio = (key: string, code: string): FaultRule => ({
      with: "error",
      status: 404,
      code,
      key,
      operation: "HeadObject",
      headers: { "x-minio-error-code": code },
    });
    thaw.s3.fail(minio("key", "NoSuchKey"));
    thaw.s3.fail(minio("bucket", "NoSuchBucket"));

    await readAll(thaw, ["key", "bucket"]);
    const found = await answered(thaw);

    expect(found.get("key")).toMatchObject({ status: "failed", failure_code: "object_not_found" });
    expect(found.get("bucket")).toMatchObject({ status: "not_started", failure_code: "NoSuchBucket" });
  });

  test("is not said while the bucket cannot be asked, and is said once it can", async ({ start }) => {
    const thaw = await start();
    thaw.s3.fail({ with: "internal_error", operation: "ListObjectsV2" });
    await readAll(thaw, ["missing"]);
    expect((await answered(thaw)).get("missing")).toMatchObject({
      status: "not_started",
      failure_code: "InternalError",
    });

    thaw.s3.clearFaults();
    // A bucket's word counts for ten seconds, and so does its silence.
    await waitFor(
      "the verdict",
      async () => {
        await tryAgain(thaw);
        return (await rows(thaw)).get("missing")?.status === "failed";
      },
      20_000,
    );
  });

  test("a copy until nobody knows when is no refusal, and not ready either", async ({ start }) => {
    const thaw = await start();
    put(thaw, "k");
    thaw.s3.beginRestore({ bucket: BUCKET, key: "k" }, { days: 1 });
    thaw.s3.finishRestore({ bucket: BUCKET, key: "k" });
    const unreadable = { "x-amz-restore": 'ongoing-request="false", expiry-date="soon"' };
    thaw.s3.fail({ with: "headers", operation: "HeadObject", headers: unreadable });

    await readAll(thaw, ["k"]);

    expect((await answered(thaw)).get("k")).toMatchObject({
      status: "not_started",
      failure_code: "no_expiry",
      failure_message: expect.stringMatching(/there is a readable copy.* but not until when/),
    });
    expect(restoresOf(thaw, "k").map(({ status }) => status)).toEqual([200]);

    thaw.s3.clearFaults();
    await tryAgain(thaw);
    await waitFor("the date", async () => (await rows(thaw)).get("k")?.status === "restored");
  });
});

describe("why HEAD refuses", () => {
  test.for([
    [400, "ExpiredToken", /expired/],
    [403, "InvalidAccessKeyId", /credentials are not valid/],
    [403, "RequestTimeTooSkewed", /clock/],
    [403, "AccountProblem", /account/],
  ] as const)(
    "is asked of the bucket, once for all its objects: %i %s",
    async ([status, code, sentence], { start }) => {
      const thaw = await start();
      const keys = Array.from({ length: 30 }, (_, index) => `${index}`);
      for (const key of keys) put(thaw, key);
      thaw.s3.fail({ with: "error", status, code });

      await readAll(thaw, keys);
      const found = await answered(thaw);

      for (const row of found.values()) {
        expect(row).toMatchObject({ failure_code: code, failure_message: expect.stringMatching(sentence) });
      }
      expect(thaw.s3.requests.filter(({ operation }) => operation === "ListObjectsV2")).toHaveLength(1);
    },
  );

  test("is told with both causes where the bucket may not be listed", async ({ start }) => {
    const thaw = await start();
    thaw.s3.switches.may_list = false;
    await readAll(thaw, ["missing"]);

    expect((await answered(thaw)).get("missing")).toMatchObject({
      status: "not_started",
      failure_code: "AccessDenied",
      failure_message: expect.stringMatching(/not allowed.*or it has been deleted/),
    });
  });
});

describe("workers", () => {
  test("no more calls are under way at once than S3_CONCURRENCY allows", async ({ start }) => {
    const thaw = await start({ env: { S3_CONCURRENCY: "5" }, s3: { latency_ms: 40 } });
    const keys = Array.from({ length: 60 }, (_, index) => `${index}`);
    for (const key of keys) put(thaw, key);
    let most = 0;
    const look = setInterval(() => {
      most = Math.max(most, thaw.s3.requests.filter((request) => request.status === 0).length);
    }, 2);

    // One by one, so that several jobs walk at once.
    for (const key of keys) await readAll(thaw, [key]);
    const found = await answered(thaw);
    clearInterval(look);

    expect([...found.values()].filter((row) => row.status !== "pending")).toEqual([]);
    expect(most).toBe(5);
  });

  test("a worker that is told to stop leaves a hanging call, and the row no trouble", async ({ start }) => {
    const thaw = await start({ worker: false });
    put(thaw, "k");
    thaw.s3.fail({ with: "hang" });
    await readAll(thaw, ["k"]);
    const worker = await thaw.startWorker();
    await waitFor("the hanging call", async () => thaw.s3.requests.length === 1);

    const asked = performance.now();
    await worker.stop();

    // Its own time-out would take twice as long.
    expect(performance.now() - asked).toBeLessThan(9_000);
    expect((await rows(thaw)).get("k")).toMatchObject({
      status: "not_started",
      failure_code: null,
      attempts: 1,
    });
    thaw.s3.clearFaults();
    await tryAgain(thaw);
    await thaw.startWorker();
    expect((await answered(thaw)).get("k")?.status).toBe("pending");
  });

  test("Postgres breaks off while an answer is noted: the row comes back, and is asked for once", async ({
    start,
    databaseUrl,
  }) => {
    const thaw = await start();
    for (const key of ["k", "later"]) put(thaw, key);
    thaw.s3.fail({ with: "latency", latency_ms: 300, operation: "RestoreObject" });
    await readAll(thaw, ["k"]);
    await waitFor("RestoreObject", async () => restoresOf(thaw, "k").length === 1);

    await withLockedRows(databaseUrl, async () => {
      await waitFor("the note to wait, and to be broken off", async () => {
        const { rowCount } = await thaw.pool.query(
          `select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock' and query like '%settle_restores%'`,
        );
        return rowCount === 1;
      });
    });

    // The worker goes on with others, and finds this one when its lease is over.
    await readAll(thaw, ["later"]);
    await waitFor("the other", async () => (await rows(thaw)).get("later")?.status === "pending");
    expect((await rows(thaw)).get("k")).toMatchObject({ status: "not_started", failure_code: null });
    await tryAgain(thaw);
    await waitFor("the row", async () => (await rows(thaw)).get("k")?.status === "pending");
    expect(accepted(thaw, "k")).toBe(1);
  });

  test("a worker is killed before it could note that S3 accepted: the next one asks S3 for nothing new", async ({
    start,
    databaseUrl,
  }) => {
    const thaw = await start({ worker: false });
    put(thaw, "k");
    thaw.s3.fail({ with: "latency", latency_ms: 300, operation: "RestoreObject" });
    await readAll(thaw, ["k"]);
    const worker = startProcess(thaw, databaseUrl);
    await waitFor("RestoreObject", async () => restoresOf(thaw, "k").length === 1);
    await withLockedRows(databaseUrl, async () => {
      await waitFor("S3 to accept", async () => accepted(thaw, "k") === 1);
      worker.child.kill("SIGKILL");
      await worker.end();
      // Postgres hears of it later: what it had been told to note, it would note.
      await thaw.pool.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and query like '%settle_restores%' and pid <> pg_backend_pid()`,
      );
    });
    expect((await rows(thaw)).get("k")?.status).toBe("not_started");

    await tryAgain(thaw);
    await thaw.startWorker();
    expect((await answered(thaw)).get("k")?.status).toBe("pending");
    expect(accepted(thaw, "k")).toBe(1);
  });

  test("two worker processes share the work, and ask about no object twice", async ({
    start,
    databaseUrl,
  }) => {
    const thaw = await start({ worker: false, s3: { latency_ms: 50 } });
    const workers = [startProcess(thaw, databaseUrl), startProcess(thaw, databaseUrl)];
    for (const worker of workers) await worker.says("worker ready");

    const keys = Array.from({ length: 200 }, (_, index) => `${index}`);
    for (const key of keys) put(thaw, key);
    await readAll(thaw, keys);
    const found = await answered(thaw);
    for (const worker of workers) {
      worker.child.kill("SIGTERM");
      await worker.end();
    }

    expect([...found.values()].filter((row) => row.status !== "pending")).toEqual([]);
    expect(Object.fromEntries(thaw.s3.counts)).toEqual({ "HeadObject 200": 200, "RestoreObject 202": 200 });
    // Who takes how many is chance.
    const asked = workers.map((worker) => worker.output().split("asked S3").length - 1);
    expect(asked.reduce((sum, count) => sum + count, 0)).toBe(200);
  });
});

/** While `meanwhile` runs nobody else can note anything. */
async function withLockedRows(databaseUrl: string, meanwhile: () => Promise<void>): Promise<void> {
  const pool = newPool(databaseUrl);
  const lock = await pool.connect();
  try {
    await lock.query("begin");
    await lock.query("select from restores for update");
    await meanwhile();
  } finally {
    await lock.query("rollback");
    lock.release();
    await pool.end();
  }
}

/** A worker as operators start it. */
const startProcess = (thaw: Thaw, databaseUrl: string): Process =>
  launch(["worker"], {
    ...settingsFor(databaseUrl, thaw.s3, thaw.resend),
    LOG_LEVEL: "info",
    S3_CONCURRENCY: "5",
  });
