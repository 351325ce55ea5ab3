/** The template that is deployed: which events its rules pass on, and what its roles may do. */
import { globSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";

import { unzipSync } from "fflate";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { buildLambdas } from "../../lambdas/build.ts";
import { isObject, parseJson, type JsonObject } from "../../lambdas/fields.ts";
import { parseTemplate, render, type Parameters, type Resource } from "./cloudformation.ts";
import { matches } from "./event_pattern.ts";
import { ROOT } from "../support/root.ts";

const text = readFileSync(join(ROOT, "lambdas/template.yaml"), "utf8");
const template = parseTemplate(text);

const PARAMETERS: Parameters = {
  Buckets: ["another-archive", "my-archive"],
  ThawUrl: "https://thaw.example.com",
  ThawRoleArn: "arn:aws:iam::111122223333:role/service/thaw",
  SecretArn: "arn:aws:secretsmanager:eu-west-1:111122223333:secret:thaw/restore-secret-a1B2c3",
};
/** Every switch thrown the other way. */
const OTHER_PARAMETERS: Parameters = {
  ...PARAMETERS,
  SecretArn: "arn:aws:ssm:eu-west-1:111122223333:parameter/thaw/restore-secret",
  SecretKmsKeyArn: "arn:aws:kms:eu-west-1:111122223333:key/0a1b2c3d-0000-4000-8000-000000000001",
  ExtensionLayerArn:
    "arn:aws:lambda:eu-west-1:015030872274:layer:AWS-Parameters-and-Secrets-Lambda-Extension-Arm64:11",
  ReservedConcurrency: "0",
  CreateTrail: "false",
  AlarmTopicArn: "arn:aws:sns:eu-west-1:111122223333:alarms",
};

const stack = render(template, PARAMETERS);
const otherStack = render(template, OTHER_PARAMETERS);

const asObject = (value: unknown): JsonObject => {
  if (!isObject(value)) throw new TypeError(`Expected an object, not ${JSON.stringify(value)}.`);
  return value;
};
const asList = (value: unknown): unknown[] => (Array.isArray(value) ? value : [value]);

const ofType = (type: string, resources = stack.Resources): [string, Resource][] =>
  Object.entries(resources).filter(([, { Type }]) => Type === type);

const properties = (name: string): JsonObject => asObject(stack.Resources[name]?.Properties);

describe("the rules", () => {
  /** EventBridge takes a pattern as an object or as text. */
  const patternsFor = (parameters: Parameters): [string, JsonObject][] =>
    ofType("AWS::Events::Rule", render(template, parameters).Resources).map(([name, rule]) => {
      const { EventPattern: pattern } = rule.Properties;
      return [name, asObject(typeof pattern === "string" ? parseJson(pattern) : pattern)];
    });

  const patterns = patternsFor(PARAMETERS);
  const rulesFor = (event: unknown, among = patterns): string[] =>
    among.flatMap(([name, pattern]) => (matches(pattern, event) ? [name] : []));

  const fixtures = Object.fromEntries(
    readdirSync(join(import.meta.dirname, "../fixtures"))
      .filter((name) => name.endsWith(".json"))
      .map((name) => [
        basename(name, ".json"),
        asObject(parseJson(readFileSync(join(import.meta.dirname, "../fixtures", name), "utf8"))),
      ]),
  );

  /** A copy of an event with some of its record changed. */
  const bent = (name: string, change: (detail: JsonObject) => void): JsonObject => {
    const event = structuredClone(asObject(fixtures[name]));
    change(asObject(event["detail"]));
    return event;
  };

  const NOT_FOR_US: Record<string, string> = {
    get_access_denied: "another error",
    get_succeeded: "no error",
    put_object: "reads nothing",
    cloudtrail_other_service: "not S3",
    get_access_point_unresolved: "nothing in it says that the bucket is ours",
    copy_source_access_point_unresolved: "nothing in it says that the bucket is ours",
    eventbridge_initiated: "tells Thaw nothing new",
    eventbridge_expired: "tells Thaw nothing new",
  };

  const ruleOf = (name: string): string[] => {
    if (name in NOT_FOR_US) return [];
    if (name.startsWith("get_")) return ["ReadFailedRule"];
    if (/^(copy|upload_part)_/.test(name)) return ["CopyFailedRule"];
    if (name.startsWith("eventbridge_")) return ["RestoreCompletedRule"];
    // What comes by S3's own notifications, SNS or SQS comes not by EventBridge.
    return /^(notification|sns|sqs)_/.test(name) ? [] : ["a rule that nobody has said"];
  };

  test.each(Object.keys(fixtures))("%s: one rule if it is ours, else none", (name) => {
    expect(rulesFor(fixtures[name])).toEqual(ruleOf(name));
  });

  test("other buckets are none of our business, however similar their names", () => {
    for (const bucket of ["my-arch", "archive", "my-archive-2", "y-archive"]) {
      const others = patternsFor({ ...PARAMETERS, Buckets: [bucket] });
      for (const [name, event] of Object.entries(fixtures)) {
        expect(rulesFor(event, others), `${name} with ${bucket}`).toEqual([]);
      }
    }
  });

  test("each of several buckets is watched", () => {
    for (const Buckets of [["my-archive"], ["my-archive", "b-2", "b.3"], ["a-1", "b-2", "my-archive"]]) {
      const several = patternsFor({ ...PARAMETERS, Buckets });
      for (const [name, event] of Object.entries(fixtures)) {
        expect(rulesFor(event, several), name).toEqual(ruleOf(name));
      }
    }
  });

  test("both errors by which S3 refuses to copy from an archived object", () => {
    for (const errorCode of ["InvalidObjectState", "ObjectNotInActiveTierError"]) {
      expect(rulesFor(bent("copy_source", (detail) => Object.assign(detail, { errorCode })))).toEqual([
        "CopyFailedRule",
      ]);
    }
    const denied = bent("copy_source", (detail) => Object.assign(detail, { errorCode: "AccessDenied" }));
    expect(rulesFor(denied)).toEqual([]);
  });

  test("a call that reads no object is none of our business, whatever its error", () => {
    for (const eventName of ["HeadObject", "PutObject", "RestoreObject", "GetObjectTagging"]) {
      for (const name of ["get_iam_user", "copy_source"]) {
        expect(rulesFor(bent(name, (detail) => Object.assign(detail, { eventName }))), eventName).toEqual([]);
      }
    }
  });

  test("a copy from an alias of an access point, where CloudTrail lists our bucket", () => {
    const copy = bent("copy_source_access_point", (detail) => {
      asObject(detail["requestParameters"])["x-amz-copy-source"] = "analysts-abcdef-s3alias/reports/a.pdf";
    });
    expect(rulesFor(copy)).toEqual(["CopyFailedRule"]);
  });

  test("what Thaw itself does starts nothing, as a role and as a user", () => {
    const role = String(PARAMETERS["ThawRoleArn"]);
    const user = "arn:aws:iam::111122223333:user/alice";
    for (const name of ["get_assumed_role", "copy_source_encoded_whole"]) {
      const own = bent(name, (detail) => {
        const context = asObject(asObject(detail["userIdentity"])["sessionContext"]);
        asObject(context["sessionIssuer"])["arn"] = role;
      });
      expect(rulesFor(own), name).toEqual([]);
    }
    for (const name of ["get_iam_user", "copy_source"]) {
      const others = patternsFor({ ...PARAMETERS, ThawRoleArn: user });
      expect(rulesFor(fixtures[name], others), name).toEqual([]);
    }
  });

  test("patterns of six buckets fit what EventBridge takes", () => {
    const Buckets = Array.from({ length: 6 }, (_, index) => `example-archive-00${index}`);
    for (const [name, rule] of ofType(
      "AWS::Events::Rule",
      render(template, { ...PARAMETERS, Buckets }).Resources,
    )) {
      const { EventPattern: pattern } = rule.Properties;
      const length = typeof pattern === "string" ? pattern.length : JSON.stringify(pattern).length;
      expect(length, name).toBeLessThanOrEqual(2_048);
    }
  });

  test("are matched by something that knows what it does not know", () => {
    for (const matcher of [{ suffix: "x" }, { numeric: [">", 1] }, { "anything-but": { prefix: "x" } }, 1]) {
      expect(() => matches({ source: [matcher] }, { source: "x" })).toThrow(TypeError);
    }
    expect(matches({ a: { b: ["x", { exists: false }] } }, {})).toBe(true);
    expect(matches({ a: { b: [{ "anything-but": "x" }] } }, {})).toBe(false);
    expect(matches({ a: { b: [{ wildcard: "*.c*" }] } }, { a: [{ b: "bc" }, { b: "b.c" }] })).toBe(true);
    expect(matches({ $or: [{ a: ["1"] }, { b: ["2"] }], c: ["3"] }, { a: "1", b: "2", c: "4" })).toBe(false);
  });

  test("each may call its function, and no one else may", () => {
    const allowed = ofType("AWS::Lambda::Permission").map(([, { Properties }]) => Properties);
    const wanted = ofType("AWS::Events::Rule").map(([name, { Properties }]) => {
      const [target, ...others] = asList(Properties["Targets"]).map(asObject);
      expect(others).toEqual([]);
      return {
        Action: "lambda:InvokeFunction",
        FunctionName: String(target?.["Arn"]).replace(".Arn", ""),
        Principal: "events.amazonaws.com",
        SourceArn: `<${name}.Arn>`,
      };
    });
    expect(allowed).toEqual(wanted);
  });
});

describe("the trail", () => {
  const fieldsOf = (): JsonObject => {
    const [selector, ...others] = asList(properties("Trail")["AdvancedEventSelectors"]).map(asObject);
    expect(others).toEqual([]);
    return Object.fromEntries(
      asList(selector?.["FieldSelectors"]).map((field) => {
        const { Field, ...condition } = asObject(field);
        return [String(Field), condition];
      }),
    );
  };

  test("logs the calls that the rules ask for, of the objects in just these buckets", () => {
    expect(fieldsOf()).toEqual({
      eventCategory: { Equals: ["Data"] },
      "resources.type": { Equals: ["AWS::S3::Object"] },
      eventName: { Equals: ["GetObject", "CopyObject", "UploadPartCopy"] },
      // Without the slash "my-archive" would also be the beginning of "my-archive-2".
      "resources.ARN": { StartsWith: ["arn:aws:s3:::another-archive/", "arn:aws:s3:::my-archive/"] },
    });
  });

  test("writes under the name that its bucket's policy expects", () => {
    const { TrailName } = properties("Trail");
    const statements = asList(asObject(properties("TrailLogsPolicy")["PolicyDocument"])["Statement"]);
    expect(statements).toHaveLength(2);
    for (const statement of statements) {
      expect(asObject(asObject(statement)["Condition"])["StringEquals"]).toMatchObject({
        "aws:SourceArn": `arn:aws:cloudtrail:eu-west-1:111122223333:trail/${String(TrailName)}`,
      });
    }
  });

  test("is not made for who has one", () => {
    expect(Object.keys(otherStack.Resources).filter((name) => name.startsWith("Trail"))).toEqual([]);
    expect(Object.keys(otherStack.Outputs).filter((name) => name.startsWith("Trail"))).toEqual([]);
  });
});

describe("references", () => {
  test("lead somewhere, and nothing is declared in vain", () => {
    // An unknown name throws while the stacks above are rendered.
    const used = new Set([...stack.used, ...otherStack.used]);
    const { Parameters, Conditions, Mappings } = template;
    const declared = [Parameters, Conditions, Mappings].flatMap((section) => Object.keys(section));
    expect(declared.filter((name) => !used.has(name))).toEqual([]);
  });

  test("the layer is the region's own, for the functions' architecture, or the one that is given", () => {
    expect(stack.Globals.Function).toMatchObject({
      Architectures: ["arm64"],
      Layers: [
        "arn:aws:lambda:eu-west-1:015030872274:layer:AWS-Parameters-and-Secrets-Lambda-Extension-Arm64:4",
      ],
    });
    expect(otherStack.Globals.Function["Layers"]).toEqual([OTHER_PARAMETERS["ExtensionLayerArn"]]);
    const layers = Object.values(template.Mappings["ExtensionLayer"] ?? {});
    expect(new Set(layers.map(({ Account }) => Account)).size).toBe(layers.length);
    for (const layer of layers) {
      expect(layer).toEqual({
        Account: expect.stringMatching(/^\d{12}$/),
        Version: expect.stringMatching(/^\d+$/),
      });
    }
  });

  test("THAW_URL is https", () => {
    for (const ThawUrl of [
      "http://thaw.example.com",
      "https://user:pass@thaw.example.com",
      "thaw.example.com",
    ]) {
      expect(() => render(template, { ...PARAMETERS, ThawUrl })).toThrow("Parameter ThawUrl");
    }
    render(template, { ...PARAMETERS, ThawUrl: "https://example.com:8443/thaw/" });
  });
});

describe("the functions", () => {
  const functions = ofType("AWS::Serverless::Function");
  let directory = "";
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "thaw-template-"));
    await buildLambdas(directory);
  });
  afterAll(() => rm(directory, { recursive: true }));

  test("are in the zips that the build makes", async () => {
    expect(functions).toHaveLength(2);
    for (const [name, { Properties }] of functions) {
      const uri = String(Properties["CodeUri"]);
      const zip = basename(uri);
      expect(resolve(ROOT, "lambdas", uri), name).toBe(join(ROOT, "dist/lambdas", zip));
      const [file, handler = ""] = String(Properties["Handler"]).split(".");
      const code = unzipSync(readFileSync(join(directory, zip)))[`${file}.mjs`];
      expect(new TextDecoder().decode(code), name).toMatch(
        new RegExp(`^export \\{[^}]*\\b${handler}\\b`, "m"),
      );
    }
  });

  test("get the settings that the code reads, and no secret", () => {
    const code = globSync(join(ROOT, "lambdas/*.ts")).filter((path) => basename(path) !== "build.ts");
    const read = new Set(
      code.flatMap((path) =>
        [...readFileSync(path, "utf8").matchAll(/process\.env\["(\w+)"\]/g)].map((match) => match[1] ?? ""),
      ),
    );
    const left: Record<string, string> = {
      RESTORE_SECRET: "would be the secret itself: for use outside AWS",
      PARAMETERS_SECRETS_EXTENSION_HTTP_PORT: "the extension's own default is right",
      AWS_SESSION_TOKEN: "Lambda sets it",
    };
    expect(asObject(stack.Globals.Function["Environment"])["Variables"]).toEqual({
      THAW_URL: PARAMETERS["ThawUrl"],
      RESTORE_SECRET_ARN: PARAMETERS["SecretArn"],
      // Read by others: the extension and Node.
      SECRETS_MANAGER_TTL: "0",
      SSM_PARAMETER_STORE_TTL: "0",
      NODE_OPTIONS: "--enable-source-maps",
    });
    expect([...read].toSorted()).toEqual(["RESTORE_SECRET_ARN", "THAW_URL", ...Object.keys(left)].toSorted());
    for (const [, { Properties }] of functions) expect(Properties["Environment"]).toBeUndefined();
    // These would put the value into the template that everybody with read access can see.
    expect(text).not.toMatch(/\{\{resolve:|SecretString|GenerateSecretString/);
  });

  test("keep what they could not deliver, as do their rules", () => {
    for (const [name, { Properties }] of functions) {
      const queue = String(asObject(Properties["DeadLetterQueue"])["TargetArn"]);
      const queueName = queue.slice(1).replace(".Arn>", "");
      expect(properties(queueName), name).toEqual({
        SqsManagedSseEnabled: true,
        MessageRetentionPeriod: 1_209_600,
      });
      const rules = ofType("AWS::Events::Rule").filter(
        ([, rule]) => asObject(asList(rule.Properties["Targets"])[0])["Arn"] === `<${name}.Arn>`,
      );
      expect(rules.length).toBeGreaterThan(0);
      for (const [, rule] of rules) {
        expect(asList(rule.Properties["Targets"])[0]).toMatchObject({
          DeadLetterConfig: { Arn: queue },
          RetryPolicy: { MaximumRetryAttempts: 185, MaximumEventAgeInSeconds: 86_400 },
        });
      }
      // Only these rules may write into it; the function itself may by its role.
      const policy = ofType("AWS::SQS::QueuePolicy").filter(([, { Properties }]) =>
        asList(Properties["Queues"]).includes(`<${queueName}>`),
      );
      expect(policy.map(([, { Properties }]) => asObject(Properties["PolicyDocument"])["Statement"])).toEqual(
        [
          [
            {
              Effect: "Allow",
              Action: "sqs:SendMessage",
              Resource: queue,
              Principal: { Service: "events.amazonaws.com" },
              Condition: { ArnEquals: { "aws:SourceArn": expect.anything() } },
            },
          ],
        ],
      );
      const [statement] = asList(asObject(policy[0]?.[1].Properties["PolicyDocument"])["Statement"]);
      const condition = asObject(asObject(asObject(statement)["Condition"])["ArnEquals"]);
      expect(asList(condition["aws:SourceArn"])).toEqual(rules.map(([rule]) => `<${rule}.Arn>`));
    }
  });

  test("are watched: what is left in the queue, and what keeps failing", () => {
    for (const [name, { Properties }] of functions) {
      const queue = String(asObject(Properties["DeadLetterQueue"])["TargetArn"]).replace("Arn", "QueueName");
      const watched = ofType("AWS::CloudWatch::Alarm", otherStack.Resources).filter(([, alarm]) => {
        const value = asObject(asList(alarm.Properties["Dimensions"])[0])["Value"];
        return value === queue || value === `<${name}>`;
      });
      expect(watched.map(([, alarm]) => alarm.Properties["MetricName"])).toEqual([
        "ApproximateNumberOfMessagesVisible",
        "Errors",
      ]);
      for (const [, alarm] of watched) {
        expect(alarm.Properties["AlarmActions"]).toEqual([OTHER_PARAMETERS["AlarmTopicArn"]]);
      }
    }
    for (const [, alarm] of ofType("AWS::CloudWatch::Alarm")) {
      expect(alarm.Properties).not.toHaveProperty("AlarmActions");
    }
  });

  test("have time for their tries, and logs that end", () => {
    expect(Number(stack.Globals.Function["Timeout"])).toBeGreaterThanOrEqual(30);
    for (const [name, { Properties }] of functions) {
      const group = String(asObject(Properties["LoggingConfig"])["LogGroup"]).slice(1, -1);
      expect(properties(group)["RetentionInDays"], name).toBe("90");
    }
    expect(stack.Globals.Function["ReservedConcurrentExecutions"]).toBe("10");
    expect(otherStack.Globals.Function).not.toHaveProperty("ReservedConcurrentExecutions");
  });
});

describe("permissions", () => {
  /** Every statement of every policy, wherever it stands. */
  function statementsIn(value: unknown): JsonObject[] {
    if (Array.isArray(value)) return value.flatMap(statementsIn);
    if (!isObject(value)) return [];
    if (Array.isArray(value["Statement"])) return value["Statement"].map(asObject);
    return Object.values(value).flatMap(statementsIn);
  }

  test("a role may write its log, fill its queue and read the secret: nothing else", () => {
    for (const [parameters, action, service] of [
      [PARAMETERS, "secretsmanager:GetSecretValue", "secretsmanager"],
      [OTHER_PARAMETERS, "ssm:GetParameter", "ssm"],
    ] as const) {
      const SecretKmsKeyArn = String(OTHER_PARAMETERS["SecretKmsKeyArn"]);
      const roles = ofType("AWS::IAM::Role", render(template, { ...parameters, SecretKmsKeyArn }).Resources);
      expect(roles).toHaveLength(2);
      for (const [role, { Properties }] of roles) {
        const name = role.replace("Role", "");
        expect(statementsIn(Properties["Policies"])).toEqual([
          {
            Effect: "Allow",
            Action: ["logs:CreateLogStream", "logs:PutLogEvents"],
            Resource: `<${name}Logs.Arn>`,
          },
          { Effect: "Allow", Action: "sqs:SendMessage", Resource: `<${name}Failures.Arn>` },
          { Effect: "Allow", Action: action, Resource: parameters["SecretArn"] },
          {
            Effect: "Allow",
            Action: "kms:Decrypt",
            Resource: SecretKmsKeyArn,
            Condition: { StringEquals: { "kms:ViaService": `${service}.eu-west-1.amazonaws.com` } },
          },
        ]);
        expect(Properties).not.toHaveProperty("ManagedPolicyArns");
      }
    }
  });

  test("no key of one's own, no right to decrypt", () => {
    const actions = statementsIn(stack.Resources).flatMap(({ Action }) => asList(Action));
    expect(actions).not.toContain("kms:Decrypt");
  });

  test("no wildcards but one, and only AWS's services as principals", () => {
    const wide: Record<string, string> = {
      "<TrailLogs.Arn>/AWSLogs/111122223333/*": "CloudTrail names its files itself",
    };
    const statements = [stack, otherStack].flatMap(({ Resources }) => statementsIn(Resources));
    expect(statements.length).toBeGreaterThan(15);
    for (const statement of statements) {
      expect(JSON.stringify(statement["Action"])).not.toContain("*");
      for (const field of ["NotAction", "NotResource", "NotPrincipal"]) {
        expect(statement).not.toHaveProperty(field);
      }
      const resources = asList(statement["Resource"] ?? []).map(String);
      expect(resources.filter((resource) => resource.includes("*") && !(resource in wide))).toEqual([]);
      if ("Principal" in statement) {
        expect(Object.keys(asObject(statement["Principal"]))).toEqual(["Service"]);
        expect(JSON.stringify(statement["Principal"])).not.toContain("*");
      }
    }
  });

  test("Thaw's own policy: look at the objects, restore them, ask who reads, and no more", () => {
    const policy = asObject(parseJson(readFileSync(join(ROOT, "lambdas/thaw_policy.json"), "utf8")));
    const allowed = statementsIn(policy).map(({ Effect, Action, Resource }) => ({
      Effect,
      Action,
      Resource,
    }));
    expect(allowed).toEqual([
      {
        Effect: "Allow",
        Action: ["s3:GetObject", "s3:GetObjectVersion", "s3:RestoreObject"],
        Resource: ["arn:aws:s3:::amzn-s3-demo-bucket/*"],
      },
      {
        Effect: "Allow",
        Action: ["s3:ListBucket", "s3:GetBucketNotification"],
        Resource: ["arn:aws:s3:::amzn-s3-demo-bucket"],
      },
      // The store's ARN has no more than its id: AWS knows no narrower resource for a right that is off by default.
      {
        Effect: "Allow",
        Action: ["identitystore:DescribeUser", "identitystore:GetUserId"],
        Resource: "*",
      },
    ]);
  });
});
