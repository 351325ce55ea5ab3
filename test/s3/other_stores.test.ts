/** Thaw's S3 side against an S3 that nobody here wrote: moto, whose authors copy what they see of AWS. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  CreateBucketCommand,
  DeleteObjectCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  type S3Client,
  type StorageClass,
} from "@aws-sdk/client-s3";

import { freePort } from "../../server/postgres/embedded/start.ts";
import type { ObjectState } from "../../server/s3/head.ts";
import type { ListedObject } from "../../server/s3/list.ts";
import type { RestoreAnswer } from "../../server/s3/restore_answer.ts";
import { createS3, type S3 } from "../../server/s3/s3.ts";
import { MISSING_MOTO, MOTO } from "../stand_ins/real_clients.ts";
import { personsClient } from "../support/s3_client.ts";
import { waitFor } from "../support/wait_for.ts";

const BUCKET = "archive";
const VERSIONED = "versions";
const KEYS = { awkward: "../a b+c%25//é/日本?#&'\".bin", glacier: "glacier", deep: "deep" };

for (const missing of MISSING_MOTO) test.skip(missing);

describe.skipIf(MOTO === undefined)("moto", () => {
  let server: ChildProcess;
  let url: string;
  let client: S3Client;
  let s3: S3;

  beforeAll(async () => {
    const port = await freePort(0);
    url = `http://127.0.0.1:${port}`;
    server = spawn(MOTO ?? "", ["-H", "127.0.0.1", "-p", String(port)], { stdio: "ignore" });
    await waitFor("moto", async () => (await fetch(url)).ok, 60_000);
    // It restores at once unless told otherwise: now each restore runs until it has been looked at twice.
    const transition = { model_name: "s3::keyrestore", transition: { progression: "manual", times: 2 } };
    const told = await fetch(`${url}/moto-api/state-manager/set-transition`, {
      method: "POST",
      body: JSON.stringify(transition),
    });
    expect(told.status).toBe(201);

    client = personsClient(url, "AKIAOWNER");
    for (const Bucket of [BUCKET, VERSIONED]) await client.send(new CreateBucketCommand({ Bucket }));
    await client.send(
      new PutBucketVersioningCommand({ Bucket: VERSIONED, VersioningConfiguration: { Status: "Enabled" } }),
    );
    process.env["AWS_ACCESS_KEY_ID"] ??= "AKIAOWNER";
    process.env["AWS_SECRET_ACCESS_KEY"] ??= "secret";
    s3 = createS3({
      AWS_REGION: "us-east-1",
      AWS_ENDPOINT_URL_S3: url,
      S3_FORCE_PATH_STYLE: "true",
      S3_CONCURRENCY: 5,
    });
  }, 90_000);

  afterAll(() => {
    s3?.destroy();
    client?.destroy();
    server?.kill("SIGKILL");
  });

  const put = async (Key: string, StorageClass: StorageClass, Bucket = BUCKET): Promise<string> => {
    const { VersionId } = await client.send(
      new PutObjectCommand({ Bucket, Key, StorageClass, Body: createHash("md5").update(Key).digest("hex") }),
    );
    return VersionId ?? "";
  };
  const object = (s3_key: string, s3_bucket = BUCKET, version_id = "") => ({
    s3_bucket,
    s3_key,
    version_id,
    region: null,
  });
  const head = async (of: ReturnType<typeof object>): Promise<ObjectState> =>
    await s3.headObject(of, AbortSignal.timeout(20_000));
  const restore = async (of: ReturnType<typeof object>): Promise<RestoreAnswer> => {
    const facts = await head(of);
    if (facts.state === "gone") throw new Error("gone");
    return await s3.restoreObject(
      { ...of, ...facts },
      { tier: "Bulk", days: 3 },
      AbortSignal.timeout(20_000),
    );
  };

  test.each(["STANDARD", "STANDARD_IA", "ONEZONE_IA", "GLACIER_IR", "INTELLIGENT_TIERING"] as const)(
    "an object of class %s is readable",
    async (storage_class) => {
      await put(storage_class, storage_class);
      expect(await head(object(storage_class))).toMatchObject({
        state: "readable",
        storage_class,
        size_bytes: 32,
        restore_expires_at: null,
      });
    },
  );

  test.each([
    ["GLACIER", KEYS.glacier],
    ["DEEP_ARCHIVE", KEYS.deep],
    ["GLACIER", KEYS.awkward],
  ] as const)(
    "an object of class %s is archived, then restoring, then readable: %s",
    async (storage_class, key) => {
      await put(key, storage_class);
      const of = object(key);
      expect(await head(of)).toMatchObject({ state: "archived", storage_class });
      expect(await restore(of)).toEqual({ answer: "accepted" });
      expect(await head(of)).toMatchObject({ state: "restoring", storage_class });
      const ready = await waitFor("the restored copy", async () => {
        const state = await head(of);
        return state.state === "readable" && state;
      });
      // Whole days from now; moto does not round up to midnight.
      const days = (Number(ready.restore_expires_at) - Date.now()) / 86_400_000;
      expect(days).toBeGreaterThan(2.9);
      expect(days).toBeLessThan(4);
      // A copy exists: HEAD has the last word.
      expect(await restore(of)).toMatchObject({ answer: "look_again" });
    },
  );

  test("what is not archived is not restored, whatever is asked", async () => {
    await put("warm", "STANDARD");
    expect(await restore(object("warm"))).toMatchObject({
      answer: "look_again",
      trouble: { code: "InvalidObjectState" },
    });
  });

  test("versions and delete markers are told apart", async () => {
    const first = await put("k", "GLACIER", VERSIONED);
    const second = await put("k", "STANDARD", VERSIONED);
    expect(await head(object("k", VERSIONED))).toMatchObject({
      state: "readable",
      pinned_version_id: second,
    });
    expect(await head(object("k", VERSIONED, first))).toMatchObject({
      state: "archived",
      pinned_version_id: first,
    });
    const { VersionId: marker = "" } = await client.send(
      new DeleteObjectCommand({ Bucket: VERSIONED, Key: "k" }),
    );
    expect(await head(object("k", VERSIONED))).toEqual({ state: "gone" });
    expect(await head(object("k", VERSIONED, marker))).toEqual({ state: "gone" });
    expect(await head(object("k", VERSIONED, first))).toMatchObject({ state: "archived" });
  });

  test("a prefix is listed as it stands, also by versions", async () => {
    const list = async (s3_bucket: string, versions: boolean): Promise<ListedObject[]> => {
      const found: ListedObject[] = [];
      const place = { s3_bucket, key_prefix: "listed/", versions };
      for await (const page of s3.list(place, AbortSignal.timeout(20_000))) found.push(...page);
      return found;
    };
    for (const name of ["STANDARD", "GLACIER", "DEEP_ARCHIVE", "INTELLIGENT_TIERING"] as const)
      await put(`listed/${name} a+b%20é&<`, name);
    expect(
      (await list(BUCKET, false)).map(({ s3_key, storage_class, state, size_bytes }) => [
        s3_key,
        storage_class,
        state,
        size_bytes,
      ]),
    ).toEqual([
      ["listed/DEEP_ARCHIVE a+b%20é&<", "DEEP_ARCHIVE", "archived", 32],
      ["listed/GLACIER a+b%20é&<", "GLACIER", "archived", 32],
      ["listed/INTELLIGENT_TIERING a+b%20é&<", "INTELLIGENT_TIERING", "maybe", 32],
      ["listed/STANDARD a+b%20é&<", "STANDARD", "readable", 32],
    ]);
    const ids = [await put("listed/k", "GLACIER", VERSIONED), await put("listed/k", "STANDARD", VERSIONED)];
    await client.send(new DeleteObjectCommand({ Bucket: VERSIONED, Key: "listed/k" }));
    expect(await list(VERSIONED, false)).toEqual([]);
    expect((await list(VERSIONED, true)).map(({ version_id, state }) => [version_id, state])).toEqual([
      [ids[1], "readable"],
      [ids[0], "archived"],
    ]);
  });

  test("a missing file is gone, one in a missing bucket is not", async () => {
    expect(await head(object("none"))).toEqual({ state: "gone" });
    await expect(head(object("none", "no-such-bucket"))).rejects.toMatchObject({ name: "NoSuchBucket" });
  });
});
