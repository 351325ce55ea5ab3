import { readFileSync, readdirSync } from "node:fs";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { handler as restoreCompleted } from "../../lambdas/restore_completed.ts";
import { handler as restoreRequested } from "../../lambdas/restore_requested.ts";
import { isObject, type JsonObject } from "../../lambdas/fields.ts";
import {
  restoreCompleted as completedSchema,
  restoreRequest as requestSchema,
} from "../../server/http/input.ts";
import { closedPort, hang, json, listen, type Answer, type Call } from "../support/stub_server.ts";

const SECRET = "the-secret-of-these-tests-0123456789";
const OTHER_SECRET = "another-secret-of-these-tests-9876543210";

const fixture = (name: string): JsonObject =>
  JSON.parse(readFileSync(new URL(`../fixtures/${name}.json`, import.meta.url), "utf8"));

/** A list is one too, by its indexes. */
const isPart = (value: unknown): value is JsonObject => isObject(value) || Array.isArray(value);

const asObject = (value: unknown): JsonObject => {
  if (!isPart(value)) throw new TypeError("The fixture has another shape.");
  return value;
};

/** The record inside an EventBridge envelope, to bend. */
const detailOf = (event: JsonObject) => asObject(event["detail"]);

const firstRecord = (event: JsonObject) =>
  asObject(Array.isArray(event["Records"]) ? event["Records"][0] : undefined);

/** As Lambda's second argument: how long the invocation may still run. */
const within = (remaining_ms: number) => ({ getRemainingTimeInMillis: () => remaining_ms });

const ok = json(200, { ok: true, id: "1", duplicate: false, updated: 1 });

/** Thaw, as far as the functions see it. */
async function thaw(...answers: Answer[]): Promise<Call[]> {
  const { url, calls } = await listen(answers.length === 0 ? [ok] : answers);
  vi.stubEnv("THAW_URL", url);
  return calls;
}

const failure = async (work: Promise<unknown>): Promise<string> => {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Error)) throw new TypeError("It was expected to throw an Error.");
  return error.message;
};

/** Some event, to see what becomes of the call that it causes. */
const send = (remaining_ms = 30_000) => restoreRequested(fixture("get_iam_user"), within(remaining_ms));

let logged: string[] = [];
const outcomes = () => logged.map((line) => String(asObject(JSON.parse(line))["outcome"]));
const keysOf = (calls: Call[]) => calls.map(({ body }) => String(asObject(body)["s3_key"]));

beforeEach(() => {
  logged = [];
  vi.spyOn(console, "log").mockImplementation((line: string) => void logged.push(line));
  vi.stubEnv("THAW_URL", "");
  vi.stubEnv("RESTORE_SECRET", SECRET);
  vi.stubEnv("RESTORE_SECRET_ARN", "");
  // Whatever a test has provoked: no line may hold a secret.
  onTestFinished(() => {
    expect(logged.join("\n")).not.toContain(SECRET);
    expect(logged.join("\n")).not.toContain(OTHER_SECRET);
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
  });
});

/** The bodies of the calls that a fixture causes; "ignored" for none; else what the error says. */
type Expectation = object[] | "ignored" | RegExp;

const ALICE = {
  access_key_id: "AKIAEXAMPLEALICE0001",
  principal_arn: "arn:aws:iam::111122223333:user/alice",
  principal_id: "AIDAEXAMPLEALICE00001",
};
const JANE = {
  access_key_id: "ASIAEXAMPLEREADER001",
  principal_arn:
    "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Reader_0123456789abcdef/jane@example.com",
  principal_id: "AROAEXAMPLEREADER0001:jane@example.com",
};
const SUMMARY = { s3_bucket: "my-archive", s3_key: "reports/2019/summary.pdf" };

/** Strict about what is there and what is not: a field that is not named here must not be sent. */
const read = (name: string, rest: object): object[] => [
  {
    ...SUMMARY,
    event_id: detailOf(fixture(name))["eventID"],
    event_time: "2026-11-20T10:15:30Z",
    account_id: "111122223333",
    region: "eu-west-1",
    ...rest,
  },
];

const without = (bodies: object[], ...names: string[]): object[] =>
  bodies.map((body) => Object.fromEntries(Object.entries(body).filter(([name]) => !names.includes(name))));

/** A copy's event names the region of the destination, which is not the archived object's. */
const copied = (name: string, rest: object): object[] => without(read(name, { ...ALICE, ...rest }), "region");

const READS: Record<string, Expectation> = {
  get_iam_user: read("get_iam_user", ALICE),
  get_assumed_role: read("get_assumed_role", { ...JANE, s3_key: "a/b c+d%20é.txt" }),
  get_source_identity: read("get_source_identity", {
    ...JANE,
    principal_arn: "arn:aws:sts::111122223333:assumed-role/Analyst/build-42",
    principal_id: "AROAEXAMPLEREADER0001:build-42",
    source_identity: "kim@example.com",
    s3_key: "a/b c+d%20é.txt",
  }),
  get_role_session_of_machine: read("get_role_session_of_machine", {
    access_key_id: "ASIAEXAMPLEBATCH0001",
    principal_arn: "arn:aws:sts::111122223333:assumed-role/batch/i-0123456789abcdef0",
    principal_id: "AROAEXAMPLEBATCH00001:i-0123456789abcdef0",
  }),
  get_federated_user: read("get_federated_user", {
    access_key_id: "ASIAEXAMPLEBOB000001",
    principal_arn: "arn:aws:sts::111122223333:federated-user/bob",
    principal_id: "111122223333:bob",
  }),
  get_identity_center_user: read("get_identity_center_user", {
    principal_arn: "arn:aws:identitystore:::user/94d00cd8-e9e6-4810-b177-b08e84725435",
    on_behalf_of: "94d00cd8-e9e6-4810-b177-b08e84725435",
  }),
  get_root: read("get_root", {
    principal_arn: "arn:aws:iam::111122223333:root",
    principal_id: "111122223333",
  }),
  get_other_account: read("get_other_account", {
    account_id: "444455556666",
    principal_id: "AIDAEXAMPLESTRANGER01",
    event_id: "5ha7ed00-0000-4000-8000-000000000001",
  }),
  get_anonymous: without(
    read("get_anonymous", { event_id: "5ha7ed00-0000-4000-8000-000000000002" }),
    "account_id",
  ),
  get_aws_service: without(read("get_aws_service", {}), "account_id"),
  get_web_identity_user: without(
    read("get_web_identity_user", {
      principal_id: "accounts.google.com:application-id.apps.googleusercontent.com:user-id",
    }),
    "account_id",
  ),
  get_unknown_identity: without(read("get_unknown_identity", {}), "account_id"),
  get_presigned_url: read("get_presigned_url", ALICE),
  get_range: read("get_range", ALICE),
  get_version: read("get_version", { ...ALICE, version_id: "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY" }),
  get_access_point_arn: read("get_access_point_arn", ALICE),
  get_access_point_alias: read("get_access_point_alias", ALICE),
  get_access_point_unresolved: /the bucket .* is missing/,
  get_no_resources: read("get_no_resources", ALICE),
  get_access_denied: "ignored",
  get_succeeded: "ignored",
  get_unreadable: /requestParameters is missing/,
  put_object: "ignored",
  cloudtrail_other_service: "ignored",
  copy_source: copied("copy_source", {}),
  copy_source_encoded: copied("copy_source_encoded", {
    s3_key: "a/b c+d ?versionId=xé.txt",
    version_id: "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY",
  }),
  copy_source_encoded_whole: copied("copy_source_encoded_whole", {
    ...JANE,
    version_id: "3HL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY",
  }),
  copy_source_access_point: copied("copy_source_access_point", {}),
  copy_source_same_access_point: copied("copy_source_same_access_point", {}),
  copy_source_access_point_unresolved: /the bucket behind x-amz-copy-source is missing/,
  copy_source_malformed: /x-amz-copy-source is not URL-encoded/,
  upload_part_copy: copied("upload_part_copy", { s3_key: "videos/big.mov" }),
};

const EXPIRY = "2026-11-28T00:00:00Z";
const VERSION = "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e";
const byEventBridge = (serial: number, rest: object = {}): object => ({
  ...SUMMARY,
  event_id: `6924de0d-13e2-6bbf-c0c1-${String(serial).padStart(12, "0")}`,
  event_time: "2026-11-20T15:00:00Z",
  restore_expires_at: EXPIRY,
  ...rest,
});
const byNotification = (rest: object = {}): object => ({
  ...SUMMARY,
  event_id: "C3D13FE58DE4C810/0055AED6DCD90281E5",
  event_time: "2026-11-20T15:00:00.000Z",
  restore_expires_at: "2026-11-28T00:00:00.000Z",
  ...rest,
});
const NOTIFICATION = [byNotification({ s3_key: "a/b c+d%20é.txt" })];
const TWO_NOTIFICATIONS = [
  byNotification({ s3_key: "one.txt", event_id: "C3D13FE58DE4C810/0055AED6DCD90281E6" }),
  byNotification({ s3_key: "two.txt", event_id: "C3D13FE58DE4C811/0055AED6DCD90281E7" }),
];

const COMPLETIONS: Record<string, Expectation> = {
  eventbridge_completed: [byEventBridge(1)],
  eventbridge_completed_versioned: [byEventBridge(2, { version_id: VERSION })],
  eventbridge_completed_literal_key: [byEventBridge(3, { s3_key: "a/b c+d%20é.txt" })],
  eventbridge_completed_intelligent_tiering: without([byEventBridge(4)], "restore_expires_at"),
  eventbridge_initiated: "ignored",
  eventbridge_expired: "ignored",
  eventbridge_unreadable: /object is missing/,
  notification_completed: NOTIFICATION,
  notification_completed_prefixed: [byNotification({ version_id: VERSION })],
  notification_two_records: TWO_NOTIFICATIONS,
  notification_initiated: "ignored",
  notification_expired: "ignored",
  notification_test_event: "ignored",
  notification_malformed_key: /s3\.object\.key is not URL-encoded: 100%\.txt/,
  sns_notification: NOTIFICATION,
  sns_eventbridge: [byEventBridge(1)],
  sqs_notification: NOTIFICATION,
  sqs_eventbridge: [byEventBridge(1)],
  sqs_sns_notification: NOTIFICATION,
  sqs_sns_eventbridge: [byEventBridge(1)],
  sqs_test_event: "ignored",
};

/** Has a test of its own below. */
const ELSEWHERE = ["sqs_mixed_batch"];

/** `aws s3 cp` of one file, CLI 2: the only trace that it leaves. */
const headBy = (userAgent: unknown, more: JsonObject = {}): JsonObject => {
  const event = fixture("get_iam_user");
  const detail = { ...detailOf(event), eventName: "HeadObject", userAgent };
  return { ...event, detail: { ...detail, errorCode: undefined, errorMessage: undefined, ...more } };
};
const CLI_2 =
  "aws-cli/2.36.17 md/awscrt#0.29.2 ua/2.1 os/linux#6.1.0 md/arch#x86_64 lang/python#3.14.4 md/pyimpl#CPython m/E,b cfg/retry-mode#standard md/installer#exe sid/0123456789ab md/prompt#off md/command#";
const OLD_CLI_2 = "aws-cli/2.9.19 Python/3.11.2 Linux/6.1.0 source/x86_64.debian.12 prompt/off command/";

describe("a HEAD", () => {
  test.each(
    [CLI_2, OLD_CLI_2].flatMap((cli) =>
      ["s3.cp", "s3.mv"].flatMap((command) => [`[${cli}${command}]`, `${cli}${command}`]),
    ),
  )("by %s is a look", async (userAgent) => {
    const calls = await thaw();
    await restoreRequested(headBy(userAgent));
    expect(calls.map(({ body }) => body)).toEqual(read("get_iam_user", { ...ALICE, evidence: "looked" }));
    expect(requestSchema.safeParse(calls[0]?.body).error).toBeUndefined();
    expect(outcomes()).toEqual(["sent"]);
  });

  test.each(
    [
      ...["s3.sync", "s3.ls", "s3.rm", "s3.cp2", "s3api.head-object", "s3.cp md/more"].map(
        (command) => `[${CLI_2}${command}]`,
      ),
      "[aws-cli/1.16.96 Python/2.7.12 Linux/4.4.0 botocore/1.12.86]",
      "[Boto3/1.43.11 md/Botocore#1.43.11 ua/2.1]",
      "[my-tool command#s3.cp extra]",
      "[my-tool/1 xcommand/s3.cp]",
      "[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12]",
      "",
      undefined,
      null,
      7,
    ].map((userAgent) => ({ userAgent })),
  )("by another client is ignored: $userAgent", async ({ userAgent }) => {
    const calls = await thaw();
    await restoreRequested(headBy(userAgent));
    expect(calls).toEqual([]);
    expect(outcomes()).toEqual(["ignored"]);
  });

  test("that failed is ignored, for the CLI saw no class", async () => {
    const calls = await thaw();
    for (const errorCode of ["NoSuchKey", "AccessDenied", "InvalidObjectState"])
      await restoreRequested(headBy(`[${CLI_2}s3.cp]`, { errorCode }));
    expect(calls).toEqual([]);
    expect(outcomes()).toEqual(["ignored", "ignored", "ignored"]);
  });

  test("of a version, or through an access point, names the object that it means", async () => {
    const calls = await thaw();
    const requestParameters = {
      bucketName: "arn:aws:s3:eu-west-1:111122223333:accesspoint/analysts",
      key: "a b+c%20.txt",
      versionId: "v1",
    };
    await restoreRequested(headBy(`[${CLI_2}s3.cp]`, { requestParameters }));
    expect(calls[0]?.body).toMatchObject({
      s3_bucket: "my-archive",
      s3_key: "a b+c%20.txt",
      version_id: "v1",
      evidence: "looked",
    });
  });

  test("that cannot be read is thrown", async () => {
    await thaw();
    expect(await failure(restoreRequested(headBy(`[${CLI_2}s3.cp]`, { requestParameters: null })))).toMatch(
      /requestParameters is missing/,
    );
  });
});

test("every fixture has its expectation", () => {
  const names = readdirSync(new URL("../fixtures/", import.meta.url))
    .filter((name) => name.endsWith(".json"))
    .map((name) => name.slice(0, -".json".length));
  expect(names.sort()).toEqual([...Object.keys(READS), ...Object.keys(COMPLETIONS), ...ELSEWHERE].sort());
});

describe.each([
  {
    name: "restore_requested",
    handler: restoreRequested,
    path: "/restore/request",
    schema: requestSchema,
    table: READS,
  },
  {
    name: "restore_completed",
    handler: restoreCompleted,
    path: "/restore/completed",
    schema: completedSchema,
    table: COMPLETIONS,
  },
])("$name", ({ name, handler, path, schema, table }) => {
  test.each(Object.entries(table))("%s", async (event, expected) => {
    const calls = await thaw();
    const run = handler(fixture(event));

    if (expected instanceof RegExp) {
      expect(await failure(run)).toMatch(expected);
      expect(outcomes()).toContain("failed");
      return;
    }
    const result = await run;
    if (event.startsWith("sqs_")) expect(result).toEqual({ batchItemFailures: [] });

    const bodies = expected === "ignored" ? [] : expected;
    expect(calls.map(({ body }) => body)).toEqual(bodies);
    for (const call of calls) {
      expect(call.method).toBe("POST");
      expect(call.path).toBe(path);
      // The server refuses what it does not know; then each event would end in the dead-letter queue.
      expect(schema.safeParse(call.body).error).toBeUndefined();
      expect(call.headers["x-restore-secret"]).toBe(SECRET);
      expect(call.headers["content-type"]).toBe("application/json");
    }
    expect(outcomes()).toEqual(expected === "ignored" ? ["ignored"] : bodies.map(() => "sent"));
    for (const line of logged) expect(JSON.parse(line)).toMatchObject({ lambda: name });
  });

  test.each([
    { event: undefined },
    { event: null },
    { event: "" },
    { event: 1 },
    { event: [] },
    { event: {} },
    { event: { Records: [] } },
    { event: { Type: "SubscriptionConfirmation", Token: "2336412f37", Message: "You have chosen ..." } },
    { event: { "detail-type": "Scheduled Event", source: "aws.events", detail: {} } },
  ])("an event that holds nothing of S3 is ignored: %j", async ({ event }) => {
    const calls = await thaw();
    await handler(event);
    expect(calls).toEqual([]);
    expect(outcomes()).toEqual(["ignored"]);
  });

  const [own] = table === READS ? ["get_iam_user"] : ["eventbridge_completed"];
  const event = fixture(own ?? "");
  test.each([
    ["a text that is no JSON", "text"],
    ["Kinesis", { Records: [{ eventSource: "aws:kinesis", kinesis: { data: "eyJ9" } }] }],
    ["a subscription to CloudWatch Logs", { awslogs: { data: "H4sIAAAAAAAA" } }],
    ["what a rule with an InputPath sends", event["detail"]],
    ["what an input transformer made of it", { read: event }],
    ["a file of CloudTrail's", { Records: [event["detail"]] }],
    ["SNS without a message", { Records: [{ EventSource: "aws:sns", Sns: {} }] }],
    ["SNS in SQS without a message", { Type: "Notification" }],
    ["EventBridge without a type", { ...event, "detail-type": 1 }],
    ["a destination's record of another form", { requestPayload: { read: event } }],
    ["a web request", { requestContext: { http: { method: "POST" } }, body: JSON.stringify(event) }],
  ])("what may hold an event, and cannot be understood, is thrown: %s", async (_, unknown) => {
    const calls = await thaw();
    expect(await failure(handler(unknown))).toMatch(/^Unreadable event: /);
    expect(calls).toEqual([]);
    expect(outcomes()).toEqual(["failed"]);
  });

  const text = JSON.stringify(event);
  const sns = { Type: "Notification", MessageId: "1", Message: text };
  const failedInvocation = {
    version: "1.0",
    timestamp: "2026-11-20T10:20:30.000Z",
    requestContext: { requestId: "2", condition: "RetriesExhausted", approximateInvokeCount: 3 },
    responseContext: { statusCode: 200, executedVersion: "$LATEST", functionError: "Unhandled" },
    responsePayload: { errorMessage: "no answer" },
  };
  const message = (body: unknown, messageId = "m1") => ({ messageId, eventSource: "aws:sqs", body });
  test.each([
    ["SQS", { Records: [message(text)] }, { batchItemFailures: [] }],
    ["SNS", { Records: [{ EventSource: "aws:sns", Sns: { Message: text } }] }, undefined],
    ["SNS in SQS", { Records: [message(JSON.stringify(sns))] }, { batchItemFailures: [] }],
    ["SNS by hand", sns, undefined],
    ["a Lambda destination", { ...failedInvocation, requestPayload: event }, undefined],
    [
      "a Lambda destination in SQS",
      { Records: [message(JSON.stringify({ ...failedInvocation, requestPayload: event }))] },
      { batchItemFailures: [] },
    ],
    [
      "a Lambda destination of a batch that failed",
      { ...failedInvocation, requestPayload: { Records: [message(text)] } },
      undefined,
    ],
    ["a Pipe from SQS", [message(text)], { batchItemFailures: [] }],
    ["a Pipe that sends the bodies", [event], undefined],
    ["a Pipe that sends the bodies as text", [text], undefined],
    ["a message taken from a queue by hand", message(text), undefined],
    ["text", text, undefined],
  ])("an event is found in %s", async (_, wrapped, answer) => {
    const calls = await thaw();
    expect(await handler(wrapped)).toEqual(answer);
    const direct = await thaw();
    await handler(event);
    expect(calls.map(({ body }) => body)).toEqual(direct.map(({ body }) => body));
    expect(outcomes()).toEqual(["sent", "sent"]);
  });

  test("of a batch of SQS only what failed comes back", async () => {
    const calls = await thaw();
    const Records = [
      message(text, "good"),
      message("no JSON", "no JSON"),
      message("", "empty"),
      message(undefined, "no body"),
      message(JSON.stringify({ read: event }), "unknown"),
      message(JSON.stringify({ Type: "Notification", Message: "no JSON" }), "no JSON in SNS"),
      message(JSON.stringify({ "detail-type": "Scheduled Event", source: "aws.events" }), "nobody's"),
    ];
    const result = await handler({ Records });
    expect(result?.batchItemFailures.map(({ itemIdentifier }) => itemIdentifier)).toEqual([
      "no JSON",
      "empty",
      "no body",
      "unknown",
      "no JSON in SNS",
    ]);
    expect(calls).toHaveLength(1);
    expect(outcomes().toSorted()).toEqual([...Array(5).fill("failed"), "ignored", "sent"]);
  });

  test("a batch that is not all of SQS goes on as far as it can be understood, and is thrown as a whole", async () => {
    const calls = await thaw();
    const Records = [message(text), { eventSource: "aws:kinesis" }];
    expect(await failure(handler({ Records }))).toMatch(/^Unreadable event: neither of EventBridge/);
    expect(calls).toHaveLength(1);
  });

  test("the other function's events are ignored", async () => {
    const calls = await thaw();
    await handler(fixture(table === READS ? "eventbridge_completed" : "get_iam_user"));
    expect(calls).toEqual([]);
    expect(outcomes()).toEqual(["ignored"]);
  });
});

describe("events that should be ours but are garbled are thrown", () => {
  test.each([
    ["no detail", (event: JsonObject) => delete event["detail"], /detail is missing/],
    ["no key", (event: JsonObject) => (detailOf(event)["requestParameters"] = {}), /key is missing/],
    ["no id", (event: JsonObject) => delete detailOf(event)["eventID"], /eventID is missing/],
    ["no time", (event: JsonObject) => delete detailOf(event)["eventTime"], /eventTime is missing/],
    [
      "a time that is none",
      (event: JsonObject) => (detailOf(event)["eventTime"] = "today"),
      /not a UTC time/,
    ],
    [
      "a new major version",
      (event: JsonObject) => (detailOf(event)["eventVersion"] = "2.0"),
      /eventVersion 2\.0/,
    ],
  ])("failed read with %s", async (_, bend, message) => {
    const calls = await thaw();
    const event = fixture("get_iam_user");
    bend(event);
    expect(await failure(restoreRequested(event))).toMatch(message);
    expect(calls).toEqual([]);
    expect(outcomes()).toEqual(["failed"]);
  });

  test.each([
    ["no bucket", (event: JsonObject) => delete detailOf(event)["bucket"], /bucket is missing/],
    ["an empty key", (event: JsonObject) => (detailOf(event)["object"] = { key: "" }), /key is missing/],
    ["no time", (event: JsonObject) => delete event["time"], /time is missing/],
    [
      "an expiry that is none",
      (event: JsonObject) => (detailOf(event)["restore-expiry-time"] = 7),
      /restore-expiry-time is not a UTC time/,
    ],
  ])("finished restore with %s", async (_, bend, message) => {
    const calls = await thaw();
    const event = fixture("eventbridge_completed");
    bend(event);
    expect(await failure(restoreCompleted(event))).toMatch(message);
    expect(calls).toEqual([]);
    expect(outcomes()).toEqual(["failed"]);
  });
});

describe("a field of a wrong kind", () => {
  const WRONG = [7, true, ["x"], { text: "x" }];
  const bend = (event: JsonObject, path: string, value: unknown): JsonObject => {
    const names = path.split(".");
    const parent = names.slice(0, -1).reduce((part, name) => asObject((part[name] ??= {})), event);
    parent[names.at(-1) ?? ""] = value;
    return event;
  };

  test.each([
    ["get_version", "detail.requestParameters.bucketName"],
    ["get_version", "detail.requestParameters.key"],
    ["get_version", "detail.requestParameters.versionId"],
    ["get_version", "detail.requestParameters"],
    ["get_version", "detail.eventTime"],
    ["get_version", "detail.eventID"],
    ["get_version", "detail.eventVersion"],
    ["get_version", "detail.eventSource"],
    ["get_version", "detail.eventName"],
    ["get_version", "detail.errorCode"],
    ["get_version", "detail"],
    ["get_version", "source"],
    ["get_version", "detail-type"],
    ["copy_source", "detail.requestParameters.x-amz-copy-source"],
    ["copy_source_same_access_point", "detail.requestParameters.bucketName"],
  ])("is thrown where it decides which object was read, or whether one was: %s, %s", async (name, path) => {
    const calls = await thaw();
    for (const value of WRONG) {
      expect(
        await failure(restoreRequested(bend(fixture(name), path, value))),
        JSON.stringify(value),
      ).toMatch(/^Unreadable event: /);
    }
    expect(calls).toEqual([]);
  });

  test.each([
    ["eventbridge_completed_versioned", "detail.bucket.name"],
    ["eventbridge_completed_versioned", "detail.bucket"],
    ["eventbridge_completed_versioned", "detail.object.key"],
    ["eventbridge_completed_versioned", "detail.object.version-id"],
    ["eventbridge_completed_versioned", "detail.object"],
    ["eventbridge_completed_versioned", "detail"],
    ["eventbridge_completed_versioned", "source"],
    ["eventbridge_completed_versioned", "detail-type"],
    ["eventbridge_completed_versioned", "time"],
    ["notification_completed_prefixed", "Records.0.s3.bucket.name"],
    ["notification_completed_prefixed", "Records.0.s3.object.key"],
    ["notification_completed_prefixed", "Records.0.s3.object.versionId"],
    ["notification_completed_prefixed", "Records.0.s3"],
    ["notification_completed_prefixed", "Records.0.eventName"],
    ["notification_completed_prefixed", "Records.0.eventTime"],
    ["notification_completed_prefixed", "Records.0.eventVersion"],
  ])("is thrown where it decides which object is restored, or whether one is: %s, %s", async (name, path) => {
    const calls = await thaw();
    for (const value of WRONG) {
      expect(
        await failure(restoreCompleted(bend(fixture(name), path, value))),
        JSON.stringify(value),
      ).toMatch(/^Unreadable event: /);
    }
    expect(calls).toEqual([]);
  });

  test.each([
    ["get_iam_user", "detail.userIdentity.accessKeyId", "access_key_id"],
    ["get_iam_user", "detail.userIdentity.arn", "principal_arn"],
    ["get_iam_user", "detail.userIdentity.accountId", "account_id"],
    ["get_iam_user", "detail.userIdentity.principalId", "principal_id"],
    ["get_iam_user", "detail.awsRegion", "region"],
    ["get_source_identity", "detail.userIdentity.sessionContext.sourceIdentity", "source_identity"],
    ["get_source_identity", "detail.userIdentity.sessionContext", "source_identity"],
    ["get_identity_center_user", "detail.userIdentity.onBehalfOf.userId", "principal_arn on_behalf_of"],
    ["get_identity_center_user", "detail.userIdentity.onBehalfOf", "principal_arn on_behalf_of"],
  ])("is left out where it only says who reads, or where to ask first: %s, %s", async (name, path, names) => {
    const fields = names.split(" ");
    for (const value of WRONG) {
      const calls = await thaw();
      await restoreRequested(fixture(name));
      await restoreRequested(bend(fixture(name), path, value));
      const [whole, bent] = calls.map(({ body }) => asObject(body));
      for (const field of fields) expect(whole?.[field]).toBeTypeOf("string");
      expect(bent).toEqual(without([whole ?? {}], ...fields)[0]);
    }
  });

  test("principals that are none, and ids longer than Thaw takes, are left out", async () => {
    const calls = await thaw();
    for (const id of ["anonymous", "ANONYMOUS_PRINCIPAL", "UNKNOWN", "", "x".repeat(257), "é".repeat(129)])
      await restoreRequested(bend(fixture("get_other_account"), "detail.userIdentity.principalId", id));
    expect(calls).toHaveLength(6);
    for (const { body } of calls) expect(asObject(body)).not.toHaveProperty("principal_id");
  });

  test("the user of Identity Center is told also of a role's session", async () => {
    const calls = await thaw();
    const onBehalfOf = { userId: "94d00cd8-e9e6-4810-b177-b08e84725435", identityStoreArn: "arn:x" };
    await restoreRequested(bend(fixture("get_assumed_role"), "detail.userIdentity.onBehalfOf", onBehalfOf));
    expect(asObject(calls[0]?.body)).toMatchObject({ ...JANE, on_behalf_of: onBehalfOf.userId });
  });

  test("is left out where it only names the event, and no one is named by it", async () => {
    const calls = await thaw();
    for (const value of WRONG) await restoreCompleted(bend(fixture("eventbridge_completed"), "id", value));
    expect(calls).toHaveLength(WRONG.length);
    for (const { body } of calls) expect(asObject(body)).not.toHaveProperty("event_id");
  });
});

describe("several at once", () => {
  test("a record that cannot be read holds up no other", async () => {
    const calls = await thaw();
    await failure(restoreCompleted(fixture("notification_malformed_key")));
    expect(keysOf(calls)).toEqual(["fine.txt"]);
  });

  test("only the SQS messages that failed come back", async () => {
    const calls = await thaw((response, call) => {
      (keysOf([call])[0] === "two.txt"
        ? json(400, { error: { code: "invalid_request", message: "no" } })
        : ok)(response, call);
    });
    const result = await restoreCompleted(fixture("sqs_mixed_batch"));
    expect(result?.batchItemFailures.map(({ itemIdentifier }) => itemIdentifier).sort()).toEqual([
      "059f36b4-87a3-44ab-83d2-000000000002", // no JSON
      "059f36b4-87a3-44ab-83d2-000000000003", // a key that cannot be decoded
      "059f36b4-87a3-44ab-83d2-000000000005", // of its two records Thaw refused one
    ]);
    expect(keysOf(calls).sort()).toEqual(["one.txt", SUMMARY.s3_key, "two.txt"]);
    expect(outcomes().sort()).toEqual(["failed", "failed", "failed", "ignored", "sent", "sent"]);
  });

  test("a large batch arrives whole, ten at a time", async () => {
    let open = 0;
    let most = 0;
    const calls = await thaw((response, call) => {
      most = Math.max(most, ++open);
      setTimeout(() => {
        open--;
        ok(response, call);
      }, 20);
    });
    const record = firstRecord(fixture("sqs_eventbridge"));
    const Records = Array.from({ length: 45 }, (_, index) => ({ ...record, messageId: `message-${index}` }));
    expect(await restoreCompleted({ Records })).toEqual({ batchItemFailures: [] });
    expect(calls).toHaveLength(45);
    expect(most).toBe(10);
  });

  test("an SQS message without an id fails the batch, so that all of it comes back", async () => {
    await thaw();
    const event = fixture("sqs_eventbridge");
    delete firstRecord(event)["messageId"];
    expect(await failure(restoreCompleted(event))).toMatch(/messageId is missing/);
  });
});

describe("delivery", () => {
  test.each([
    ["503", json(503, {})],
    ["500 with a page", ((response) => void response.writeHead(500).end("<html>")) satisfies Answer],
    ["408", json(408, {})],
    ["429", json(429, {})],
    ["a cut connection", ((response) => void response.destroy()) satisfies Answer],
    [
      "a cut answer",
      ((response) => {
        response.writeHead(200, { "content-length": "100" }).write("{");
        setTimeout(() => response.destroy(), 10);
      }) satisfies Answer,
    ],
  ])("%s passes: the same body is sent again", async (_, bad) => {
    const calls = await thaw(bad, ok);
    await send();
    expect(calls).toHaveLength(2);
    expect(calls[1]?.body).toEqual(calls[0]?.body);
    expect(outcomes()).toEqual(["sent"]);
  });

  test("Retry-After is obeyed, in seconds and as a date", async () => {
    const times: number[] = [];
    const timed =
      (answer: Answer): Answer =>
      (response, call) => {
        times.push(Date.now());
        answer(response, call);
      };
    await thaw(
      timed(json(503, {}, { "retry-after": "1" })),
      timed((response, call) =>
        json(429, {}, { "retry-after": new Date(Date.now() + 2_000).toUTCString() })(response, call),
      ),
      timed(ok),
    );
    await send();
    const [first = 0, second = 0, third = 0] = times;
    expect(second - first).toBeGreaterThanOrEqual(990);
    // The date has whole seconds, so up to one second of it is gone already.
    expect(third - second).toBeGreaterThanOrEqual(990);
  });

  test("a Retry-After beyond the time left is not waited for, and not cut short", async () => {
    const calls = await thaw(json(503, { error: "busy" }, { "retry-after": "60" }));
    const started = Date.now();
    expect(await failure(send())).toMatch(/answered 503: .*busy.*no time left/);
    expect(calls).toHaveLength(1);
    expect(Date.now() - started).toBeLessThan(1_000);
  });

  test("a server that stays down is given up after a few tries", async () => {
    const calls = await thaw(json(503, {}));
    expect(await failure(send())).toMatch(/answered 503: .*gave up after 4 tries/);
    expect(calls).toHaveLength(4);
  });

  test("a refused connection is tried again, then named", async () => {
    vi.stubEnv("THAW_URL", `http://127.0.0.1:${await closedPort()}`);
    expect(await failure(send())).toMatch(/no answer: .*ECONNREFUSED.*gave up after 4 tries/);
    expect(outcomes()).toEqual(["failed"]);
  });

  test("a hang ends when the try's time is over, and the next try succeeds", async () => {
    const calls = await thaw(hang, ok);
    await send();
    expect(calls).toHaveLength(2);
  });

  test.each([
    ["before the answer", hang],
    ["amid the answer", ((response) => void response.writeHead(200).write("{")) satisfies Answer],
  ])("a hang %s ends before Lambda would end us", async (_, answer) => {
    await thaw(answer);
    const started = Date.now();
    expect(await failure(send(1_500))).toMatch(/no answer: timed out/);
    expect(Date.now() - started).toBeLessThan(1_500);
  });

  test("400 is final and says what is wrong", async () => {
    const issues = [{ field: "s3_key", message: "must not be longer than 1024 bytes" }];
    const calls = await thaw(json(400, { error: { code: "invalid_request", message: "Bad body.", issues } }));
    expect(await failure(send())).toMatch(
      /refused as invalid \(400\): Bad body\. .*s3_key.*longer than 1024 bytes/,
    );
    expect(calls).toHaveLength(1);
  });

  test("401 is final and says that the secret differs", async () => {
    const calls = await thaw(json(401, { error: { code: "unauthorized", message: "Unauthorized." } }));
    expect(await failure(send())).toMatch(/the secret differs \(401\)/);
    expect(calls).toHaveLength(1);
  });

  test.each([404, 413, 415])("%i is final", async (status) => {
    const calls = await thaw(json(status, {}));
    expect(await failure(send())).toContain(String(status));
    expect(calls).toHaveLength(1);
  });

  test("200 from somebody who is not Thaw is a failure, not a delivery", async () => {
    await thaw((response) => void response.end("<h1>It works!</h1>"));
    expect(await failure(send())).toMatch(/not as Thaw does: <h1>It works!.*Check THAW_URL/);
  });

  test.each([301, 302, 307, 308])("a redirect (%i) is not followed", async (status) => {
    const elsewhere = await listen([ok]);
    const calls = await thaw(json(status, {}, { location: `${elsewhere.url}/restore/request` }));
    expect(await failure(send())).toContain(`a redirect to ${elsewhere.url}, which is not followed`);
    expect(calls).toHaveLength(1);
    expect(elsewhere.calls).toEqual([]);
  });

  test("an answer that echoes the secret is quoted without it", async () => {
    await thaw((response, call) => void response.end(JSON.stringify(call.headers)));
    const message = await failure(send());
    expect(message).toContain("[secret]");
    expect(message).not.toContain(SECRET);
  });
});

describe("THAW_URL", () => {
  test.each(["", "/", "/behind/a/path", "/behind/a/path/"])("may have a path: %j", async (path) => {
    const { url, calls } = await listen([ok]);
    vi.stubEnv("THAW_URL", url + path);
    await send();
    expect(calls[0]?.path).toBe(`${path.replace(/\/$/, "")}/restore/request`);
  });

  test.each([
    "http://thaw.example.com",
    "http://10.0.0.1:3000",
    "http://0.0.0.0:3000",
    "http://127.0.0.1.example.com",
    "http://localhost.example.com",
    "http://localhost@thaw.example.com",
    "http://[::2]",
    "ftp://127.0.0.1",
    "file:///etc/hostname",
    "https://user:password@thaw.example.com",
    "thaw.example.com",
    "",
  ])("is refused before anything is sent: %j", async (url) => {
    const requested: unknown[] = [];
    const note = (request: unknown): void => void requested.push(request);
    subscribe("http.client.request.start", note);
    onTestFinished(() => void unsubscribe("http.client.request.start", note));
    vi.stubEnv("THAW_URL", url);
    const message = await failure(send());
    expect(message).toMatch(/THAW_URL/);
    expect(message).not.toContain("password@");
    expect(requested).toEqual([]);
    // It would be seen here.
    await thaw();
    await send();
    expect(requested).toHaveLength(1);
  });

  test.each([
    "http://127.0.0.1",
    "http://127.9.9.9",
    "http://127.1",
    "http://localhost",
    "http://[::1]",
    "https://127.0.0.1",
  ])("may name this machine: %s", async (host) => {
    vi.stubEnv("THAW_URL", `${host}:${await closedPort()}`);
    expect(await failure(send(600))).toMatch(/no answer: .*E(CONNREFUSED|ADDRNOTAVAIL)/);
  });
});

const secretArn = (name: string) => `arn:aws:secretsmanager:eu-west-1:111122223333:secret:${name}-AbCdEf`;

/** The extension's answers; the ARN differs per test because a process keeps what it has read. */
async function extension(arn: string, ...answers: Answer[]): Promise<Call[]> {
  const { port, calls } = await listen(answers);
  vi.stubEnv("RESTORE_SECRET", "");
  vi.stubEnv("RESTORE_SECRET_ARN", arn);
  vi.stubEnv("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", String(port));
  vi.stubEnv("AWS_SESSION_TOKEN", "the-session-token");
  return calls;
}
const inSecretsManager = (secret: string) => json(200, { ARN: "arn", SecretString: secret });
const accepting =
  (secret: string): Answer =>
  (response, call) =>
    (call.headers["x-restore-secret"] === secret ? ok : json(401, {}))(response, call);

describe("the secret", () => {
  test("comes from Secrets Manager through the extension, and is read once", async () => {
    const arn = secretArn("once");
    const asked = await extension(arn, inSecretsManager(SECRET));
    const calls = await thaw(accepting(SECRET));
    await Promise.all([send(), send(), send()]);
    expect(calls).toHaveLength(3);
    expect(asked).toHaveLength(1);
    expect(asked[0]?.path).toBe(`/secretsmanager/get?secretId=${encodeURIComponent(arn)}`);
    expect(asked[0]?.headers["x-aws-parameters-secrets-token"]).toBe("the-session-token");
  });

  test("comes from the Parameter Store, decrypted, under its whole ARN", async () => {
    const arn = "arn:aws:ssm:eu-west-1:111122223333:parameter/thaw/secret";
    const asked = await extension(arn, json(200, { Parameter: { Value: SECRET } }));
    await thaw(accepting(SECRET));
    await send();
    expect(asked[0]?.path).toBe(
      `/systemsmanager/parameters/get?name=${encodeURIComponent(arn)}&withDecryption=true`,
    );
  });

  test("is read again, once for all, when the server refuses it: it was rotated", async () => {
    const asked = await extension(
      secretArn("rotated"),
      inSecretsManager(OTHER_SECRET),
      inSecretsManager(SECRET),
    );
    const calls = await thaw(accepting(SECRET));
    await Promise.all([send(), send(), send()]);
    expect(asked).toHaveLength(2);
    expect(calls).toHaveLength(6);
    await send();
    expect(asked).toHaveLength(2);
    expect(calls).toHaveLength(7);
  });

  test("that stays refused is not sent again and again", async () => {
    const asked = await extension(secretArn("wrong"), inSecretsManager(OTHER_SECRET));
    const calls = await thaw(json(401, {}));
    expect(await failure(send())).toMatch(/the secret differs/);
    expect(asked).toHaveLength(2);
    expect(calls).toHaveLength(1);
  });

  test("is asked for again while the extension starts", async () => {
    const asked = await extension(
      secretArn("starting"),
      json(400, "not ready to serve traffic, please wait"),
      inSecretsManager(SECRET),
    );
    await thaw(accepting(SECRET));
    await send();
    expect(asked).toHaveLength(2);
  });

  test("that cannot be read fails with what to do, and is asked for again by the next event", async () => {
    const bad = json(400, "AccessDeniedException");
    await extension(secretArn("denied"), bad, bad, bad, bad, inSecretsManager(SECRET));
    const calls = await thaw(ok);
    expect(await failure(send())).toMatch(/AccessDeniedException.*Attach.*secretsmanager:GetSecretValue/);
    expect(calls).toEqual([]);
    await send();
    expect(calls).toHaveLength(1);
  });

  test("is the first of several", async () => {
    vi.stubEnv("RESTORE_SECRET", ` ${SECRET} , ${OTHER_SECRET}\n`);
    const calls = await thaw(ok);
    await send();
    expect(calls[0]?.headers["x-restore-secret"]).toBe(SECRET);
  });

  test.each([
    ["too short", "short"],
    ["JSON", JSON.stringify({ RESTORE_SECRET: `${SECRET} ${SECRET}` })],
    ["two lines", `${SECRET}\n${SECRET}`],
    ["not ASCII", `${SECRET}é`],
    ["a blank list", ` , ${SECRET}`],
  ])("is refused, unquoted, when it is %s", async (_, value) => {
    vi.stubEnv("RESTORE_SECRET", value);
    const calls = await thaw(ok);
    const message = await failure(send());
    expect(message).toMatch(/RESTORE_SECRET must be plain text/);
    expect(message).not.toContain(SECRET);
    expect(calls).toEqual([]);
  });

  test("that is not configured is asked for", async () => {
    vi.stubEnv("RESTORE_SECRET", "");
    await thaw(ok);
    expect(await failure(send())).toMatch(/Set RESTORE_SECRET_ARN/);
  });
});
