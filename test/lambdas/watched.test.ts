/** Which reads the function passes on: those of our buckets, by readers who are not to be ignored; and all ways to name a copy's source. */
import { readFileSync } from "node:fs";

import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";

import { isObject, type JsonObject } from "../../lambdas/fields.ts";
import { handler } from "../../lambdas/restore_requested.ts";
import { json, listen, type Call } from "../support/stub_server.ts";

const SETTINGS = ["BUCKETS", "IGNORED_PRINCIPALS", "IGNORE_ANONYMOUS", "IGNORE_SERVICES"];

let calls: Call[] = [];
let logged: JsonObject[] = [];

beforeEach(async () => {
  const server = await listen([json(200, { ok: true, id: "1", duplicate: false })]);
  ({ calls } = server);
  logged = [];
  vi.spyOn(console, "log").mockImplementation((line: string) => void logged.push(JSON.parse(line)));
  vi.stubEnv("THAW_URL", server.url);
  vi.stubEnv("RESTORE_SECRET", "the-secret-of-these-tests-0123456789");
  for (const name of SETTINGS) vi.stubEnv(name, "");
  onTestFinished(() => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
  });
});

type Changes = Record<string, unknown>;

/** A fixture whose detail was changed; an object is merged into what is there. */
function event(name: string, changes: Changes = {}): JsonObject {
  const fixture: unknown = JSON.parse(
    readFileSync(new URL(`../fixtures/${name}.json`, import.meta.url), "utf8"),
  );
  const merge = (into: JsonObject, from: Changes): void => {
    for (const [key, value] of Object.entries(from)) {
      const there = into[key];
      if (isObject(value) && isObject(there)) merge(there, value);
      else into[key] = value;
    }
  };
  if (!isObject(fixture) || !isObject(fixture["detail"])) throw new TypeError("another fixture");
  merge(fixture["detail"], changes);
  return fixture;
}

/** "bucket/key" of what was passed on; or "ignored", and why. */
async function passedOn(given: JsonObject): Promise<string> {
  calls.length = 0;
  logged.length = 0;
  await handler(given);
  const [line] = logged;
  if (line?.["outcome"] === "ignored") {
    expect(calls).toEqual([]);
    return `ignored: ${String(line["reason"])}`;
  }
  const body = calls[0]?.body;
  return isObject(body) ? `${String(body["s3_bucket"])}/${String(body["s3_key"])}` : "nothing";
}

const bucket = (name: string): JsonObject => ({ type: "AWS::S3::Bucket", ARN: `arn:aws:s3:::${name}` });
const object = (path: string): JsonObject => ({ type: "AWS::S3::Object", ARN: `arn:aws:s3:::${path}` });

const OURS = "my-archive/reports/2019/summary.pdf";

describe("a copy's source", () => {
  const ACCESS_POINT = "arn:aws:s3:eu-west-1:111122223333:accesspoint/analysts/object";
  test.each([
    ["plain", "my-archive/a/b.txt"],
    ["with a slash in front", "/my-archive/a/b.txt"],
    ["its slash encoded", "my-archive%2Fa/b.txt"],
    ["encoded whole", "%2Fmy-archive%2Fa%2Fb.txt"],
    ["encoded in small letters", "my-archive%2fa%2fb.txt"],
    ["a slash in front, the next one encoded", "/my-archive%2Fa%2Fb.txt"],
    ["a slash in front, the next one encoded in small letters", "/my-archive%2fa/b.txt"],
    ["only the slash in front encoded", "%2Fmy-archive/a/b.txt"],
    ["only the slash in front encoded, in small letters", "%2fmy-archive/a/b.txt"],
    ["an access point", `${ACCESS_POINT}/a/b.txt`],
    ["an access point with a slash in front", `/${ACCESS_POINT}/a/b.txt`],
    ["an access point with its colons encoded", `${ACCESS_POINT.replaceAll(":", "%3A")}/a/b.txt`],
    [
      "an access point with its colons encoded in small letters",
      `${ACCESS_POINT.replaceAll(":", "%3a")}/a/b.txt`,
    ],
    ["an access point encoded whole", encodeURIComponent(`${ACCESS_POINT}/a/b.txt`)],
    [
      "an access point encoded whole, in small letters",
      encodeURIComponent(`/${ACCESS_POINT}/a/b.txt`).replaceAll(/%../g, (code) => code.toLowerCase()),
    ],
    ["an access point's alias", "analysts-0123456789abcdef0123456789abcdef-s3alias/a/b.txt"],
  ])("is read: %s", async (_, source) => {
    vi.stubEnv("BUCKETS", "another-archive,my-archive");
    const copy = event("copy_source", {
      requestParameters: { "x-amz-copy-source": source, bucketName: "elsewhere" },
      resources: [
        bucket("elsewhere"),
        object("elsewhere/x"),
        bucket("my-archive"),
        object("my-archive/a/b.txt"),
      ],
    });
    expect(await passedOn(copy)).toBe("my-archive/a/b.txt");
  });

  test("that is none of our buckets is ignored, even where it goes to one of them", async () => {
    const copy = event("copy_source", {
      requestParameters: { "x-amz-copy-source": "elsewhere/a.txt", bucketName: "my-archive" },
      resources: [bucket("my-archive"), object("my-archive/a.txt")],
    });
    expect(await passedOn(copy)).toBe("elsewhere/a.txt");
    vi.stubEnv("BUCKETS", "my-archive");
    expect(await passedOn(copy)).toBe("ignored: elsewhere is none of BUCKETS");
  });

  test("behind an access point is ours, if one of the buckets listed is", async () => {
    const copy = event("copy_source", {
      requestParameters: { "x-amz-copy-source": `${ACCESS_POINT}/a.txt`, bucketName: "target" },
      resources: ["target", "foreign", "my-archive"].flatMap((name) => [
        bucket(name),
        object(`${name}/a.txt`),
      ]),
    });
    // Without BUCKETS nothing says which of the two it is.
    await expect(passedOn(copy)).rejects.toThrow(/the bucket behind x-amz-copy-source is missing/);
    vi.stubEnv("BUCKETS", "my-archive");
    expect(await passedOn(copy)).toBe("my-archive/a.txt");
    vi.stubEnv("BUCKETS", "foreign");
    expect(await passedOn(copy)).toBe("foreign/a.txt");
  });
});

describe("a read that names several buckets", () => {
  const several = (...names: string[]) =>
    event("get_iam_user", {
      requestParameters: { bucketName: "arn:aws:s3:eu-west-1:111122223333:accesspoint/analysts" },
      resources: names.map(bucket),
    });

  test.each([[["my-archive", "foreign"]], [["foreign", "my-archive"]], [["foreign", "other", "my-archive"]]])(
    "is of the one that is ours, wherever it stands: %j",
    async (names) => {
      vi.stubEnv("BUCKETS", " my-archive , elsewhere");
      expect(await passedOn(several(...names))).toBe(OURS);
    },
  );

  test("is of the one whose object is listed, if more than one is ours", async () => {
    vi.stubEnv("BUCKETS", "my-archive,second");
    const read = event("get_iam_user", {
      resources: [bucket("second"), bucket("my-archive"), object(OURS)],
    });
    expect(await passedOn(read)).toBe(OURS);
  });

  test("is of the one that the request names, if that is ours and none of the others", async () => {
    vi.stubEnv("BUCKETS", "my-archive");
    expect(await passedOn(event("get_iam_user", { resources: [bucket("foreign")] }))).toBe(OURS);
  });

  test("none of which is ours, is ignored; and one that names none is thrown", async () => {
    vi.stubEnv("BUCKETS", "archive,my-archive-2,My-Archive");
    expect(await passedOn(event("get_iam_user"))).toBe("ignored: my-archive is none of BUCKETS");
    await expect(handler(event("get_access_point_unresolved"))).rejects.toThrow(/the bucket .* is missing/);
  });

  test.each(["", " ", ",", " , "])(
    "is watched whatever its bucket when BUCKETS names none: %j",
    async (value) => {
      vi.stubEnv("BUCKETS", value);
      expect(await passedOn(event("get_iam_user"))).toBe(OURS);
    },
  );
});

describe("IGNORED_PRINCIPALS", () => {
  const SESSION =
    "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Reader_0123456789abcdef/jane@example.com";
  const sessions = event("get_assumed_role")["detail"];
  const ROLE = String(
    isObject(sessions) &&
      isObject(sessions["userIdentity"]) &&
      isObject(sessions["userIdentity"]["sessionContext"])
      ? (sessions["userIdentity"]["sessionContext"]["sessionIssuer"] as JsonObject)["arn"]
      : "",
  );

  test("takes a role's ARN for all of its sessions", async () => {
    expect(ROLE).toMatch(/^arn:aws:iam::111122223333:role\/./);
    vi.stubEnv("IGNORED_PRINCIPALS", `arn:aws:iam::111122223333:user/bob, ${ROLE}`);
    expect(await passedOn(event("get_assumed_role"))).toBe(`ignored: ${ROLE} is one of IGNORED_PRINCIPALS`);
  });

  test("takes a user's ARN, and a session's, for itself", async () => {
    vi.stubEnv("IGNORED_PRINCIPALS", `arn:aws:iam::111122223333:user/alice,${SESSION}`);
    expect(await passedOn(event("get_iam_user"))).toMatch(/^ignored: .*user\/alice is one of/);
    expect(await passedOn(event("get_assumed_role"))).toMatch(/^ignored: .*jane@example\.com is one of/);
    expect(await passedOn(event("copy_source"))).toMatch(/^ignored: .*user\/alice is one of/);
  });

  test.each([
    "arn:aws:iam::111122223333:user/ali",
    "arn:aws:iam::111122223333:user/alice2",
    "arn:aws:iam::111122223333:user/*",
    "arn:aws:iam::111122223333:user/Alice",
    "arn:aws:iam::444455556666:user/alice",
    "arn:aws:iam::111122223333:role/alice",
    "alice",
    ",",
  ])("matches whole ARNs only: %s is not alice", async (value) => {
    vi.stubEnv("IGNORED_PRINCIPALS", value);
    expect(await passedOn(event("get_iam_user"))).toBe(OURS);
  });

  test("of Thaw's own role goes before anything that cannot be read", async () => {
    vi.stubEnv("IGNORED_PRINCIPALS", "arn:aws:iam::111122223333:user/alice");
    expect(await passedOn(event("get_iam_user", { requestParameters: {} }))).toMatch(/^ignored/);
  });

  test("leaves nothing out when the reader cannot be read", async () => {
    vi.stubEnv("IGNORED_PRINCIPALS", "arn:aws:iam::111122223333:user/alice");
    vi.stubEnv("IGNORE_ANONYMOUS", "true");
    vi.stubEnv("IGNORE_SERVICES", "true");
    for (const userIdentity of [
      undefined,
      null,
      7,
      [],
      { arn: 7 },
      { sessionContext: { sessionIssuer: [] } },
    ]) {
      expect(await passedOn(event("get_anonymous", { userIdentity: undefined }))).toBe(OURS);
      const read = event("get_anonymous");
      (read["detail"] as JsonObject)["userIdentity"] = userIdentity;
      expect(await passedOn(read)).toBe(OURS);
    }
  });
});

describe.each([
  ["IGNORE_ANONYMOUS", "get_anonymous"],
  ["IGNORE_SERVICES", "get_aws_service"],
])("%s", (name, ignored) => {
  const READERS = [
    "get_anonymous",
    "get_aws_service",
    "get_iam_user",
    "get_other_account",
    "get_assumed_role",
    "get_root",
    "get_identity_center_user",
    "get_unknown_identity",
    "get_presigned_url",
  ];

  test(`leaves out ${ignored}, and no other reader`, async () => {
    for (const value of ["", "false", "true"]) {
      vi.stubEnv(name, value);
      for (const reader of READERS) {
        const expected = value === "true" && reader === ignored ? /^ignored: an? / : /^my-archive\//;
        expect(await passedOn(event(reader)), `${reader} with ${value}`).toMatch(expected);
      }
    }
  });
});

test("IGNORE_SERVICES takes roles that are linked to a service, and CloudFront as an account, for services", async () => {
  const linked = event("get_assumed_role", {
    userIdentity: { sessionContext: { sessionIssuer: { userName: "AWSServiceRoleForBackup" } } },
  });
  const cloudFront = event("get_other_account", { userIdentity: { accountId: "CloudFront" } });
  for (const read of [linked, cloudFront]) {
    vi.stubEnv("IGNORE_SERVICES", "false");
    expect(await passedOn(read)).toMatch(/^my-archive\//);
    vi.stubEnv("IGNORE_SERVICES", "true");
    expect(await passedOn(read)).toMatch(/^ignored: a read by a service of AWS/);
  }
});

test("IGNORE_ANONYMOUS knows the older name, too; IGNORE_SERVICES leaves people their queries through a service", async () => {
  vi.stubEnv("IGNORE_ANONYMOUS", "true");
  vi.stubEnv("IGNORE_SERVICES", "true");
  const older = event("get_anonymous", { userIdentity: { accountId: "ANONYMOUS_PRINCIPAL" } });
  expect(await passedOn(older)).toMatch(/^ignored/);
  const throughAthena = event("get_assumed_role", { userIdentity: { invokedBy: "athena.amazonaws.com" } });
  expect(await passedOn(throughAthena)).toMatch(/^my-archive\//);
});
