/** The template that is deployed: which events its rules pass on, and what its roles may do. */
import { globSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";

import { unzipSync } from "fflate";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { buildLambdas } from "../../lambdas/build.ts";
import { isObject, parseJson, type JsonObject } from "../../lambdas/fields.ts";
import {
  creationOrder,
  parseTemplate,
  render,
  type Parameters,
  type Rendered,
  type Resource,
} from "./cloudformation.ts";
import { matches } from "./event_pattern.ts";
import { ROOT } from "../support/root.ts";

const text = readFileSync(join(ROOT, "lambdas/template.yaml"), "utf8");
const template = parseTemplate(text);
/** As the release before had it: without queues. */
const previousTemplate = parseTemplate(
  readFileSync(join(ROOT, "test/fixtures/previous_release/template.yaml"), "utf8"),
);

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
  MaximumConcurrency: "20",
  CreateTrail: "false",
  AlarmTopicArn: "arn:aws:sns:eu-west-1:111122223333:alarms",
  WatchAwsCli: "true",
  IgnoredPrincipals: ["arn:aws:iam::111122223333:role/scanner", "arn:aws:iam::111122223333:user/backup"],
  IgnoreAnonymous: "true",
  IgnoreServices: "true",
  KmsKeyArn: "arn:aws:kms:eu-west-1:111122223333:key/0a1b2c3d-0000-4000-8000-000000000002",
  SubnetIds: ["subnet-0a1b", "subnet-0c2d"],
  SecurityGroupIds: ["sg-0e3f"],
};
/** What only a trail uses. */
const TRAIL_PARAMETERS: Parameters = {
  ...OTHER_PARAMETERS,
  CreateTrail: "true",
  TrailPrefixes: ["my-archive/2019/", "another-archive/"],
  TrailIgnoredArns: ["arn:aws:sts::111122223333:assumed-role/application/"],
};

const stack = render(template, PARAMETERS);
const otherStack = render(template, OTHER_PARAMETERS);
const trailStack = render(template, TRAIL_PARAMETERS);

const asObject = (value: unknown): JsonObject => {
  if (!isObject(value)) throw new TypeError(`Expected an object, not ${JSON.stringify(value)}.`);
  return value;
};
const asList = (value: unknown): unknown[] => (Array.isArray(value) ? value : [value]);

const ofType = (type: string, resources = stack.Resources): [string, Resource][] =>
  Object.entries(resources).filter(([, { Type }]) => Type === type);

const properties = (name: string, of = stack): JsonObject => asObject(of.Resources[name]?.Properties);

const targetsOf = ({ Properties }: Resource): JsonObject[] => asList(Properties["Targets"]).map(asObject);

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
    // Only where WatchAwsCli is on.
    if (name.startsWith("head_")) return [];
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
        // The source of a copy is the function's to read: see BUCKETS.
        const expected = rulesFor(event).includes("CopyFailedRule") && !name.includes("access_point");
        expect(rulesFor(event, others), `${name} with ${bucket}`).toEqual(expected ? ["CopyFailedRule"] : []);
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

  test("a copy, however its source is written", () => {
    const copyOf = (source: string): string[] =>
      rulesFor(
        bent("copy_source", (detail) => {
          asObject(detail["requestParameters"])["x-amz-copy-source"] = source;
        }),
      );
    for (const slash of ["/", "%2F", "%2f"]) {
      for (const start of ["", slash]) {
        for (const source of [`${start}my-archive${slash}a%20b.pdf`, `${start}%6Dy-archive${slash}a.pdf`]) {
          expect(copyOf(source), source).toEqual(["CopyFailedRule"]);
        }
        // Nothing says whose the access point is: CloudTrail lists only where the copy goes.
        const colon = slash === "/" ? ":" : slash.replace(/2[Ff]/, slash === "%2F" ? "3A" : "3a");
        const arn = ["arn", "aws", "s3", "eu-west-1", "111122223333", "accesspoint"].join(colon);
        const behind = `${start}${arn}${slash}analysts${slash}object${slash}a.pdf`;
        expect(copyOf(behind), behind).toEqual([]);
      }
      expect(copyOf(`analysts-abcdef-s3alias${slash}a.pdf`)).toEqual([]);
    }
    // A bucket whose name begins like an ARN is a bucket.
    expect(copyOf("%2Farnold-archive%2Fa.pdf")).toEqual(["CopyFailedRule"]);
  });

  describe("of what aws s3 cp and mv look at", () => {
    const looking = patternsFor({ ...PARAMETERS, WatchAwsCli: "true" });
    const START =
      "aws-cli/2.36.7 md/awscrt#1.0 ua/2.1 os/linux md/arch#x86_64 lang/python#3.13 md/prompt#off ";
    const look = (userAgent: string, change: (detail: JsonObject) => void = () => undefined): JsonObject =>
      bent("get_assumed_role", (detail) => {
        Object.assign(detail, { eventName: "HeadObject", userAgent });
        delete detail["errorCode"];
        delete detail["errorMessage"];
        change(detail);
      });

    test.each(["md/command#s3.cp", "md/command#s3.mv", "command/s3.cp", "command/s3.mv"])(
      "%s, in brackets and without",
      (command) => {
        for (const agent of [`[${START}${command}]`, `${START}${command}`]) {
          expect(rulesFor(look(agent), looking)).toEqual(["AwsCliLookedRule"]);
          expect(rulesFor(look(agent))).toEqual([]);
        }
      },
    );

    test("and of nothing else: other commands, other programs, refusals, other buckets, Thaw itself", () => {
      const AGENT = `[${START}md/command#s3.cp]`;
      for (const agent of [
        `[${START}md/command#s3.sync]`,
        `[${START}md/command#s3.ls]`,
        `[${START}md/command#s3api.head-object]`,
        "[aws-cli/1.45.11 md/Botocore#1.43.11 ua/2.1 os/linux]",
        "mountpoint-s3/1.2 mountpoint-s3-client/0.3",
        "[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12]",
        `[${START}md/command#s3.cp] other/1.0`,
      ]) {
        expect(rulesFor(look(agent), looking), agent).toEqual([]);
      }
      const changes: ((detail: JsonObject) => void)[] = [
        (detail) => Object.assign(detail, { errorCode: "AccessDenied" }),
        (detail) => Object.assign(detail, { eventName: "GetObjectAttributes" }),
        (detail) => {
          asObject(detail["requestParameters"])["bucketName"] = "my-archive-2";
          detail["resources"] = [];
        },
        (detail) => {
          const context = asObject(asObject(detail["userIdentity"])["sessionContext"]);
          asObject(context["sessionIssuer"])["arn"] = PARAMETERS["ThawRoleArn"];
        },
      ];
      for (const change of changes) expect(rulesFor(look(AGENT, change), looking)).toEqual([]);
    });
  });

  test("what is to be ignored does not even come; everything else does", () => {
    const service = bent("get_assumed_role", (detail) => {
      const context = asObject(asObject(detail["userIdentity"])["sessionContext"]);
      asObject(context["sessionIssuer"])["userName"] = "AWSServiceRoleForMacie";
    });
    // As published of reads through CloudFront's origin access identity.
    const cloudfront = bent("get_other_account", (detail) => {
      Object.assign(asObject(detail["userIdentity"]), { accountId: "CloudFront" });
    });
    const role =
      "arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Reader_0123456789abcdef";
    const older = bent("get_anonymous", (detail) => {
      Object.assign(asObject(detail["userIdentity"]), { accountId: "ANONYMOUS_PRINCIPAL" });
    });
    const events: Record<string, JsonObject> = { ...fixtures, service, cloudfront, older };
    const cases: [Parameters, Record<string, JsonObject>][] = [
      [{ IgnoreAnonymous: "true" }, { get_anonymous: asObject(fixtures["get_anonymous"]), older }],
      [
        { IgnoreServices: "true" },
        { get_aws_service: asObject(fixtures["get_aws_service"]), service, cloudfront },
      ],
      [
        { IgnoredPrincipals: ["arn:aws:iam::111122223333:user/alice", role] },
        Object.fromEntries(
          Object.entries(events).filter(([, event]) => {
            if (rulesFor(event).length === 0) return false;
            const said = JSON.stringify(event);
            return said.includes('"arn:aws:iam::111122223333:user/alice"') || said.includes(`"${role}"`);
          }),
        ),
      ],
    ];
    for (const [parameters, ignored] of cases) {
      expect(Object.keys(ignored).length).toBeGreaterThan(0);
      const rules = patternsFor({ ...PARAMETERS, ...parameters });
      for (const [name, event] of Object.entries(events)) {
        const expected = name in ignored ? [] : rulesFor(event);
        expect(rulesFor(event, rules), `${name} with ${JSON.stringify(parameters)}`).toEqual(expected);
      }
      for (const event of Object.values(ignored)) expect(rulesFor(event)).toHaveLength(1);
    }
  });

  test("principals to ignore are whole ARNs", () => {
    for (const arn of ["arn:aws:iam::111122223333:role/scan*", "alice", "arn:aws:s3:::my-archive"]) {
      const given = { ...PARAMETERS, IgnoredPrincipals: [arn] };
      expect(() => render(template, given), arn).toThrow("Parameter IgnoredPrincipals");
    }
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

  test("patterns of twelve buckets of thirty characters fit what EventBridge takes", () => {
    const Buckets = Array.from({ length: 12 }, (_, index) => `example-archive-of-documents-${10 + index}`);
    expect(Buckets[0]).toHaveLength(31);
    const { Resources } = render(template, {
      ...OTHER_PARAMETERS,
      Buckets,
      IgnoredPrincipals: ["arn:aws:iam::111122223333:role/scanner"],
    });
    for (const [name, rule] of ofType("AWS::Events::Rule", Resources)) {
      expect(JSON.stringify(rule.Properties["EventPattern"]).length, name).toBeLessThanOrEqual(2_048);
    }
  });

  test("are matched by something that knows what it does not know", () => {
    for (const matcher of [
      { "equals-ignore-case": "x" },
      { numeric: [">", 1] },
      { "anything-but": { "equals-ignore-case": "x" } },
      { "anything-but": [] },
      { suffix: "" },
      1,
    ]) {
      expect(() => matches({ source: [matcher] }, { source: "x" })).toThrow(TypeError);
    }
    expect(matches({ a: { b: ["x", { exists: false }] } }, {})).toBe(true);
    expect(matches({ a: { b: [{ "anything-but": "x" }] } }, {})).toBe(false);
    expect(matches({ a: [{ "anything-but": ["x", "y"] }] }, { a: "y" })).toBe(false);
    expect(matches({ a: [{ "anything-but": { wildcard: ["x*", "*y"] } }] }, { a: "zy" })).toBe(false);
    expect(matches({ a: [{ "anything-but": { prefix: "x" } }] }, { a: "yx" })).toBe(true);
    expect(matches({ a: [{ suffix: "x]" }, { suffix: "x" }] }, { a: "y x]" })).toBe(true);
    expect(matches({ a: { b: [{ wildcard: "*.c*" }] } }, { a: [{ b: "bc" }, { b: "b.c" }] })).toBe(true);
    expect(matches({ $or: [{ a: ["1"] }, { b: ["2"] }], c: ["3"] }, { a: "1", b: "2", c: "4" })).toBe(false);
  });

  test("each fills the queue of its function, and may still call the function itself", () => {
    for (const { Resources } of [stack, otherStack]) {
      const allowed = ofType("AWS::Lambda::Permission", Resources).map(([, { Properties }]) => Properties);
      const wanted = ofType("AWS::Events::Rule", Resources).map(([name, rule]) => {
        const [target, ...others] = targetsOf(rule);
        expect(others).toEqual([]);
        const kind = name === "RestoreCompletedRule" ? "RestoreCompleted" : "RestoreRequested";
        expect(target).toEqual({
          Id: kind === "RestoreCompleted" ? "restore-completed" : "restore-requested",
          Arn: `<${kind}Queue.Arn>`,
          DeadLetterConfig: { Arn: `<${kind}Failures.Arn>` },
          RetryPolicy: { MaximumRetryAttempts: 185, MaximumEventAgeInSeconds: 86_400 },
        });
        return {
          Action: "lambda:InvokeFunction",
          FunctionName: `<${kind}>`,
          Principal: "events.amazonaws.com",
          SourceArn: `<${name}.Arn>`,
        };
      });
      expect(allowed).toEqual(wanted);
    }
  });
});

describe("the trail", () => {
  const selectorsOf = (of: Rendered): JsonObject[] =>
    asList(properties("Trail", of)["AdvancedEventSelectors"]).map((selector) =>
      Object.fromEntries(
        asList(asObject(selector)["FieldSelectors"]).map((field) => {
          const { Field, ...condition } = asObject(field);
          return [String(Field), condition];
        }),
      ),
    );

  test("logs the calls that the rules ask for, of the objects in just these buckets", () => {
    expect(selectorsOf(stack)).toEqual([
      {
        eventCategory: { Equals: ["Data"] },
        "resources.type": { Equals: ["AWS::S3::Object"] },
        eventName: { Equals: ["GetObject", "CopyObject", "UploadPartCopy"] },
        // Without the slash "my-archive" would also be the beginning of "my-archive-2".
        "resources.ARN": { StartsWith: ["arn:aws:s3:::another-archive/", "arn:aws:s3:::my-archive/"] },
      },
    ]);
  });

  test("can be narrowed to prefixes and readers, and logs people's looks only", () => {
    const StartsWith = ["arn:aws:s3:::my-archive/2019/", "arn:aws:s3:::another-archive/"];
    const NotStartsWith = ["arn:aws:sts::111122223333:assumed-role/application/"];
    expect(selectorsOf(trailStack)).toEqual([
      {
        eventCategory: { Equals: ["Data"] },
        "resources.type": { Equals: ["AWS::S3::Object"] },
        eventName: { Equals: ["GetObject", "CopyObject", "UploadPartCopy"] },
        "resources.ARN": { StartsWith },
        "userIdentity.arn": { NotStartsWith },
      },
      {
        eventCategory: { Equals: ["Data"] },
        "resources.type": { Equals: ["AWS::S3::Object"] },
        eventName: { Equals: ["HeadObject"] },
        "resources.ARN": { StartsWith },
        "userIdentity.arn": {
          StartsWith: [
            "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_",
            "arn:aws:iam::111122223333:user/",
          ],
          NotStartsWith,
        },
      },
    ]);
    for (const prefix of ["my-archive", "/2019", "s3://my-archive/2019/"]) {
      expect(() => render(template, { ...PARAMETERS, TrailPrefixes: [prefix] })).toThrow("TrailPrefixes");
    }
  });

  test("writes under the name that its bucket's policy expects, which CloudTrail takes", () => {
    for (const [stackName, name] of [
      ["thaw", "thaw-reads"],
      ["my--thaw", "my-thaw-reads"],
      ["thaw-", "thaw-reads"],
    ] as const) {
      const named = render(template, PARAMETERS, { "AWS::StackName": stackName });
      expect(properties("Trail", named)["TrailName"]).toBe(name);
      const statements = asList(
        asObject(properties("TrailLogsPolicy", named)["PolicyDocument"])["Statement"],
      );
      expect(statements).toHaveLength(3);
      for (const statement of statements.slice(0, 2)) {
        expect(asObject(asObject(statement)["Condition"])["StringEquals"]).toMatchObject({
          "aws:SourceArn": `arn:aws:cloudtrail:eu-west-1:111122223333:trail/${name}`,
        });
      }
    }
  });

  test("keeps versions in its bucket, for a while, and refuses plain HTTP", () => {
    const [allowAcl, allowPut, deny] = asList(
      asObject(properties("TrailLogsPolicy")["PolicyDocument"])["Statement"],
    );
    expect([allowAcl, allowPut].map((statement) => asObject(statement)["Effect"])).toEqual([
      "Allow",
      "Allow",
    ]);
    expect(deny).toEqual({
      Effect: "Deny",
      Action: "s3:*",
      Resource: ["<TrailLogs.Arn>", "<TrailLogs.Arn>/*"],
      Principal: "*",
      Condition: { Bool: { "aws:SecureTransport": "false" } },
    });
    const { VersioningConfiguration, LifecycleConfiguration } = properties("TrailLogs");
    expect(VersioningConfiguration).toEqual({ Status: "Enabled" });
    const [expire] = asList(asObject(LifecycleConfiguration)["Rules"]);
    expect(expire).toMatchObject({
      ExpirationInDays: "90",
      NoncurrentVersionExpiration: { NoncurrentDays: 30 },
    });
  });

  test("is not made for who has one", () => {
    expect(Object.keys(otherStack.Resources).filter((name) => name.startsWith("Trail"))).toEqual([]);
    expect(Object.keys(otherStack.Outputs).filter((name) => name.startsWith("Trail"))).toEqual([]);
  });
});

describe("references", () => {
  test("lead somewhere, and nothing is declared in vain", () => {
    // An unknown name throws while the stacks above are rendered.
    const used = new Set([...stack.used, ...otherStack.used, ...trailStack.used]);
    const { Parameters, Conditions, Mappings } = template;
    const declared = [Parameters, Conditions, Mappings].flatMap((section) => Object.keys(section));
    expect(declared.filter((name) => !used.has(name))).toEqual([]);
  });

  test("no resource waits for itself, and a rule waits for its queue, who reads it and who may fill it", () => {
    for (const rendered of [stack, otherStack, trailStack]) {
      const order = creationOrder(rendered);
      for (const [name, rule] of ofType("AWS::Events::Rule", rendered.Resources)) {
        const queue = String(targetsOf(rule)[0]?.["Arn"]).slice(1).replace("Queue.Arn>", "");
        for (const before of ["Queue", "Failures", "QueuePolicy", "FailuresPolicy", "Mapping", "Role", ""]) {
          expect(order.indexOf(`${queue}${before}`), `${name}: ${queue}${before}`).toBeGreaterThan(-1);
          expect(order.indexOf(name)).toBeGreaterThan(order.indexOf(`${queue}${before}`));
        }
      }
    }
    const circular = structuredClone(template);
    asObject(circular.Resources["RestoreRequestedQueuePolicy"])["DependsOn"] = "ReadFailedRule";
    expect(() => creationOrder(render(circular, PARAMETERS))).toThrow("A cycle");
  });

  test("the layer is the region's own, for the functions' architecture, or the one that is given", () => {
    expect(stack.Globals.Function).toMatchObject({
      Architectures: ["arm64"],
      Layers: [
        "arn:aws:lambda:eu-west-1:015030872274:layer:AWS-Parameters-and-Secrets-Lambda-Extension-Arm64:101",
      ],
    });
    expect(otherStack.Globals.Function["Layers"]).toEqual([OTHER_PARAMETERS["ExtensionLayerArn"]]);
    const layers = Object.entries(template.Mappings["ExtensionLayer"] ?? {});
    // All Regions of the partition where the layer is.
    expect(layers.length).toBeGreaterThanOrEqual(34);
    const accounts = layers.map(([region, layer]) => {
      // Whole, for a tool may take the quotes off an account's number, and its leading zero with them.
      expect(layer).toEqual({ Arn: expect.any(String) });
      const [, account] =
        new RegExp(
          `^arn:aws:lambda:${region}:(\\d{12}):layer:AWS-Parameters-and-Secrets-Lambda-Extension-Arm64:\\d+$`,
        ).exec(String(layer["Arn"])) ?? [];
      return account;
    });
    expect(new Set(accounts).size).toBe(layers.length);
    expect(accounts).not.toContain(undefined);
    // AWS did not change an account, so what the table of before said of one must still hold.
    for (const [region, { Account }] of Object.entries(previousTemplate.Mappings["ExtensionLayer"] ?? {})) {
      expect(String(template.Mappings["ExtensionLayer"]?.[region]?.["Arn"])).toContain(
        `:${String(Account)}:`,
      );
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
      AWS_REGION: "Lambda sets it",
      AWS_ACCESS_KEY_ID: "Lambda sets it",
      AWS_SECRET_ACCESS_KEY: "Lambda sets it",
    };
    expect(asObject(stack.Globals.Function["Environment"])["Variables"]).toEqual({
      THAW_URL: PARAMETERS["ThawUrl"],
      RESTORE_SECRET_ARN: PARAMETERS["SecretArn"],
      // Read by others: the extension and Node.
      SECRETS_MANAGER_TTL: "0",
      SSM_PARAMETER_STORE_TTL: "0",
      NODE_OPTIONS: "--enable-source-maps",
    });
    const own = (name: string, of: Rendered): unknown =>
      asObject(properties(name, of)["Environment"])["Variables"];
    const ROLE = String(PARAMETERS["ThawRoleArn"]);
    expect(own("RestoreRequested", stack)).toEqual({
      BUCKETS: "another-archive,my-archive",
      IGNORED_PRINCIPALS: ROLE,
      IGNORE_ANONYMOUS: "false",
      IGNORE_SERVICES: "false",
      DEAD_LETTER_QUEUE_URL: "<RestoreRequestedFailures>",
    });
    expect(own("RestoreRequested", otherStack)).toMatchObject({
      IGNORED_PRINCIPALS: `${ROLE},arn:aws:iam::111122223333:role/scanner,arn:aws:iam::111122223333:user/backup`,
      IGNORE_ANONYMOUS: "true",
      IGNORE_SERVICES: "true",
    });
    expect(own("RestoreCompleted", stack)).toEqual({
      DEAD_LETTER_QUEUE_URL: "<RestoreCompletedFailures>",
    });
    const set = new Set([
      "RESTORE_SECRET_ARN",
      "THAW_URL",
      ...Object.keys(asObject(own("RestoreRequested", stack))),
    ]);
    for (const name of read) expect([...set, ...Object.keys(left)]).toContain(name);
    // These would put the value into the template that everybody with read access can see.
    expect(text).not.toMatch(/\{\{resolve:|SecretString|GenerateSecretString/);
  });

  test("have time for their tries, and logs that end and outlive them", () => {
    expect(Number(stack.Globals.Function["Timeout"])).toBeGreaterThanOrEqual(30);
    for (const [name, { Properties }] of functions) {
      const group = String(asObject(Properties["LoggingConfig"])["LogGroup"]).slice(1, -1);
      expect(properties(group)["RetentionInDays"], name).toBe("90");
      expect(stack.Resources[group]).toMatchObject({
        // Its name is fixed: kept after a failed creation it would be in the way of the next.
        DeletionPolicy: "RetainExceptOnCreate",
        UpdateReplacePolicy: "Retain",
      });
    }
  });

  test("reserve no concurrency, which small accounts do not have", () => {
    for (const { Globals, Resources } of [stack, otherStack]) {
      expect(JSON.stringify([Globals, Resources])).not.toContain("ReservedConcurrentExecutions");
    }
  });

  test("can run in a VPC, and only then may make network interfaces", () => {
    expect(stack.Globals.Function).not.toHaveProperty("VpcConfig");
    expect(otherStack.Globals.Function["VpcConfig"]).toEqual({
      SubnetIds: OTHER_PARAMETERS["SubnetIds"],
      SecurityGroupIds: OTHER_PARAMETERS["SecurityGroupIds"],
    });
    expect(JSON.stringify(stack.Resources)).not.toContain("ec2:");
  });
});

const KINDS = ["RestoreRequested", "RestoreCompleted"] as const;

describe("the queues", () => {
  const numbers = (of: JsonObject): { visibility_s: number; retention_s: number; receives: number } => ({
    visibility_s: Number(of["VisibilityTimeout"]),
    retention_s: Number(of["MessageRetentionPeriod"]),
    receives: Number(asObject(of["RedrivePolicy"])["maxReceiveCount"]),
  });
  const DAY_S = 86_400;

  test.each(KINDS)(
    "%s: carry a read over two days without Thaw, and then into the dead-letter queue",
    (kind) => {
      const queue = properties(`${kind}Queue`);
      const { visibility_s, retention_s, receives } = numbers(queue);
      expect(asObject(queue["RedrivePolicy"])["deadLetterTargetArn"]).toBe(`<${kind}Failures.Arn>`);
      // Lambda DG: six times the time-out, so that a slow batch does not return while it is worked on.
      expect(visibility_s).toBeGreaterThanOrEqual(6 * Number(stack.Globals.Function["Timeout"]));
      // SQS's limits.
      expect(receives).toBeLessThanOrEqual(1_000);
      expect(visibility_s).toBeLessThanOrEqual(12 * 3_600);

      const tried_s = visibility_s * receives;
      expect(tried_s).toBeGreaterThanOrEqual(2 * DAY_S);
      expect(tried_s).toBeLessThan(retention_s);
      // The clock of the dead-letter queue runs from the first sending: there must be time left to notice and replay.
      const kept_s = Number(properties(`${kind}Failures`)["MessageRetentionPeriod"]);
      expect(kept_s).toBeLessThanOrEqual(14 * DAY_S);
      expect(kept_s - retention_s).toBeGreaterThanOrEqual(7 * DAY_S);
    },
  );

  test.each(KINDS)("%s: no message expires unseen, however many wait", (kind) => {
    const { visibility_s, retention_s, receives } = numbers(properties(`${kind}Queue`));
    const { BatchSize, ScalingConfig } = properties(`${kind}Mapping`);
    const at_once = Number(BatchSize) * Number(asObject(ScalingConfig)["MaximumConcurrency"]);
    /** How long one turn over all messages takes, when each batch takes so many seconds to fail. */
    const turn_s = (messages: number, failing_s: number): number =>
      Math.max(visibility_s, (messages * failing_s) / at_once);
    // By the count of receives alone a large backlog would expire: its thousandth turn comes after its end. That is
    // why the functions give up by themselves what fails when it is four days old (lambdas/deliver.ts).
    expect(turn_s(10_000, 1) * receives).toBeLessThan(retention_s);
    expect(turn_s(100_000, 1) * receives).toBeGreaterThan(retention_s);
    const GIVEN_UP_S = 4 * DAY_S;
    // So a message is seen once more between that age and its end, if one turn is shorter than what is left: with a
    // Thaw that refuses connections (a second for a batch), and with one that hangs (the functions' 20 seconds).
    const left_s = retention_s - GIVEN_UP_S;
    expect(turn_s(12_000_000, 1)).toBeLessThan(left_s);
    expect(turn_s(600_000, 20)).toBeLessThan(left_s);
    // What is given up is old, and has what is left of the dead-letter queue's time: most of a week at the least.
    const kept_s = Number(properties(`${kind}Failures`)["MessageRetentionPeriod"]);
    expect(kept_s).toBeGreaterThanOrEqual(retention_s + 7 * DAY_S);
    // And patience by the clock is no shorter than that by the count.
    expect(GIVEN_UP_S).toBeGreaterThan(visibility_s * receives);
  });

  test.each(KINDS)("%s: are read in batches, of which what failed returns", (kind) => {
    expect(properties(`${kind}Mapping`)).toEqual({
      EventSourceArn: `<${kind}Queue.Arn>`,
      FunctionName: `<${kind}>`,
      BatchSize: 10,
      FunctionResponseTypes: ["ReportBatchItemFailures"],
      ScalingConfig: { MaximumConcurrency: "5" },
    });
    expect(properties(`${kind}Mapping`, otherStack)).toMatchObject({
      ScalingConfig: { MaximumConcurrency: "20" },
    });
    for (const MaximumConcurrency of ["1", "1001"]) {
      expect(() => render(template, { ...PARAMETERS, MaximumConcurrency })).toThrow("MaximumConcurrency");
    }
  });

  test.each(KINDS)("%s: are encrypted, by SQS or by the key that is given, and outlive the stack", (kind) => {
    for (const name of [`${kind}Queue`, `${kind}Failures`]) {
      expect(stack.Resources[name]).toMatchObject({
        DeletionPolicy: "Retain",
        UpdateReplacePolicy: "Retain",
      });
      expect(properties(name)["SqsManagedSseEnabled"]).toBe(true);
      expect(properties(name)).not.toHaveProperty("KmsMasterKeyId");
      expect(properties(name, otherStack)["KmsMasterKeyId"]).toBe(OTHER_PARAMETERS["KmsKeyArn"]);
      expect(properties(name, otherStack)).not.toHaveProperty("SqsManagedSseEnabled");
    }
  });

  test.each(KINDS)("%s: take events of this account's own rules, and nothing over plain HTTP", (kind) => {
    const rules = (of: Rendered): string[] =>
      ofType("AWS::Events::Rule", of.Resources)
        .filter(([, rule]) => targetsOf(rule)[0]?.["Arn"] === `<${kind}Queue.Arn>`)
        .map(([name]) => name);
    for (const queue of [`${kind}Queue`, `${kind}Failures`]) {
      const { Queues, PolicyDocument } = properties(`${queue}Policy`);
      expect(Queues).toEqual([`<${queue}>`]);
      const statements = asList(asObject(PolicyDocument)["Statement"]).map(asObject);
      const condition = asObject(statements[0]?.["Condition"]);
      expect(statements[0]).toEqual({
        Effect: "Allow",
        Action: "sqs:SendMessage",
        Resource: `<${queue}.Arn>`,
        Principal: { Service: "events.amazonaws.com" },
        Condition: {
          StringEquals: { "aws:SourceAccount": "111122223333" },
          ArnLike: { "aws:SourceArn": expect.any(Array) },
        },
      });
      const patterns = asList(asObject(condition["ArnLike"])["aws:SourceArn"]).map(String);
      // CloudFormation's names: the stack's, shortened where it is long, the logical ID and letters.
      for (const each of [stack, otherStack]) {
        for (const rule of rules(each)) {
          for (const name of ["thaw", "a-very-long-name-of-a-s"]) {
            const arn = `arn:aws:events:eu-west-1:111122223333:rule/${name}-${rule}-1ABCDEF2GHIJK`;
            const found = patterns.filter((pattern) => isLike(pattern, arn));
            expect(found, arn).toHaveLength(1);
            expect(patterns.filter((pattern) => isLike(pattern, arn.replace(":1111", ":2222")))).toEqual([]);
          }
        }
      }
      expect(patterns).toHaveLength(rules(otherStack).length);
      expect(
        patterns.filter((one) => isLike(one, "arn:aws:events:eu-west-1:111122223333:rule/other")),
      ).toEqual([]);
      expect(statements.at(-1)).toEqual({
        Effect: "Deny",
        Action: "sqs:*",
        Resource: `<${queue}.Arn>`,
        Principal: "*",
        Condition: { Bool: { "aws:SecureTransport": "false" } },
      });
      // One more for S3 itself, which can announce finished restores without EventBridge.
      const s3 = statements.slice(1, -1);
      expect(s3.map(({ Principal }) => Principal)).toEqual(
        queue === "RestoreCompletedQueue" ? [{ Service: "s3.amazonaws.com" }] : [],
      );
      for (const { Condition } of s3) {
        expect(Condition).toEqual({
          StringEquals: { "aws:SourceAccount": "111122223333" },
          ArnEquals: { "aws:SourceArn": ["arn:aws:s3:::another-archive", "arn:aws:s3:::my-archive"] },
        });
      }
    }
  });
});

/** IAM's ArnLike: each part by itself. */
const isLike = (pattern: string, arn: string): boolean => {
  const parts = pattern
    .split(":")
    .map((part) => part.replaceAll(/[^\w*]/g, String.raw`\$&`).replaceAll("*", "[^:]*"));
  return new RegExp(`^${parts.join(":")}$`).test(arn);
};

describe("an update of a stack that had no queues", () => {
  const before = render(previousTemplate, PARAMETERS);
  const direct = render(template, { ...PARAMETERS, Delivery: "direct" });
  const targets = (of: Rendered): JsonObject[] =>
    ofType("AWS::Events::Rule", of.Resources).flatMap(([, rule]) => targetsOf(rule));

  test("first brings queues and code that reads them, while events go the way they went", () => {
    expect(targets(direct)).toEqual(targets(before));
    for (const kind of KINDS) {
      expect(Object.keys(direct.Resources)).toEqual(
        expect.arrayContaining([`${kind}Queue`, `${kind}QueuePolicy`, `${kind}Mapping`]),
      );
    }
  });

  test("then moves the targets, and nothing else, so that going back brings no old code to a queue", () => {
    const moved = structuredClone(direct.Resources);
    for (const [name, rule] of ofType("AWS::Events::Rule", moved)) {
      const kind = name === "RestoreCompletedRule" ? "RestoreCompleted" : "RestoreRequested";
      for (const target of targetsOf(rule)) target["Arn"] = `<${kind}Queue.Arn>`;
    }
    expect(moved).toEqual(stack.Resources);
    expect(stack.Globals).toEqual(direct.Globals);
    expect(targets(stack)).not.toEqual(targets(direct));
  });

  test.each(["direct", "queues"])(
    "%s: keeps what is under way: dead letters, retries, rights",
    (Delivery) => {
      const after = render(template, { ...PARAMETERS, Delivery });
      for (const [name, resource] of Object.entries(before.Resources)) {
        expect(after.Resources[name]?.Type, name).toBe(resource.Type);
        // Another name is another resource: it would be replaced, and what it holds left behind.
        for (const fixed of ["LogGroupName", "TrailName", "QueueName", "FunctionName", "Name"]) {
          expect(after.Resources[name]?.Properties[fixed], `${name}.${fixed}`).toBe(
            resource.Properties[fixed],
          );
        }
      }
      for (const [name, { Properties }] of ofType("AWS::Serverless::Function", before.Resources)) {
        expect(properties(name, after)["DeadLetterQueue"]).toEqual(Properties["DeadLetterQueue"]);
      }
      for (const [name, permission] of ofType("AWS::Lambda::Permission", before.Resources)) {
        expect(after.Resources[name]).toEqual(permission);
      }
      expect(after.Globals.Function["EventInvokeConfig"]).toEqual(
        before.Globals.Function["EventInvokeConfig"],
      );
      for (const kind of KINDS) {
        expect(properties(`${kind}Failures`, after)).toEqual(properties(`${kind}Failures`, before));
      }
      for (const name of Object.keys(before.Outputs)) {
        expect(after.Outputs[name]?.["Value"], name).toEqual(before.Outputs[name]?.["Value"]);
      }
    },
  );
});

describe("the alarms", () => {
  const METRICS: Record<string, string[]> = {
    FailuresAlarm: ["AWS/SQS ApproximateNumberOfMessagesVisible Failures"],
    ErrorsAlarm: ["AWS/Lambda Errors "],
    RetriesAlarm: ["AWS/SQS NumberOfMessagesReceived Queue", "AWS/SQS NumberOfMessagesDeleted Queue"],
    AgeAlarm: ["AWS/SQS ApproximateAgeOfOldestMessage Queue"],
  };
  /** Whether silence may end, or keep quiet, an alarm; the template says why. */
  const SILENCE: Record<string, string> = {
    FailuresAlarm: "ignore",
    ErrorsAlarm: "notBreaching",
    RetriesAlarm: "notBreaching",
    AgeAlarm: "ignore",
    LossAlarm: "notBreaching",
  };

  const metricsOf = ({ Properties }: Resource): string[] =>
    (Array.isArray(Properties["Metrics"])
      ? Properties["Metrics"].map(asObject).flatMap((metric) => {
          if (metric["MetricStat"] === undefined) return [];
          expect(metric["ReturnData"]).toBe(false);
          return [asObject(asObject(metric["MetricStat"])["Metric"])];
        })
      : [Properties]
    ).map(
      ({ Namespace, MetricName, Dimensions }) =>
        `${String(Namespace)} ${String(MetricName)} ${String(asObject(asList(Dimensions)[0])["Value"])}`,
    );

  test.each(KINDS)("%s: watch what is left, what fails, what nobody reads, and loss itself", (kind) => {
    for (const each of [stack, otherStack]) {
      const alarms = ofType("AWS::CloudWatch::Alarm", each.Resources).filter(([name]) =>
        name.startsWith(kind),
      );
      expect(alarms.map(([name]) => name.slice(kind.length))).toEqual(Object.keys(SILENCE));
      for (const [name, alarm] of alarms) {
        const what = name.slice(kind.length);
        expect(alarm.Properties["TreatMissingData"], name).toBe(SILENCE[what]);
        expect(alarm.Properties["ComparisonOperator"]).toBe("GreaterThanThreshold");
        const expected =
          METRICS[what]?.map((metric) =>
            metric.replace(/(Failures|Queue)$/, `<${kind}$1.QueueName>`).replace(/ $/, ` <${kind}>`),
          ) ?? lossesOf(each, kind);
        expect(metricsOf(alarm).toSorted(), name).toEqual(expected.toSorted());
        // CloudWatch takes ten in one alarm.
        expect(expected.length).toBeLessThanOrEqual(10);
      }
    }
  });

  const lossesOf = (of: Rendered, kind: string): string[] => [
    ...ofType("AWS::Events::Rule", of.Resources)
      .filter(([, rule]) => targetsOf(rule)[0]?.["Arn"] === `<${kind}Queue.Arn>`)
      .flatMap(([rule]) => [
        `AWS/Events FailedInvocations <${rule}>`,
        `AWS/Events InvocationsFailedToBeSentToDlq <${rule}>`,
      ]),
    `AWS/Lambda DeadLetterErrors <${kind}>`,
    `AWS/Lambda AsyncEventsDropped <${kind}>`,
  ];

  test("fire for one message that keeps failing, and soon", () => {
    for (const kind of KINDS) {
      const { Threshold, EvaluationPeriods, Metrics } = properties(`${kind}RetriesAlarm`);
      const period_s = Number(asObject(asObject(asList(Metrics)[1])["MetricStat"])["Period"]);
      const receives = period_s / Number(properties(`${kind}Queue`)["VisibilityTimeout"]);
      expect(receives).toBeGreaterThan(Number(Threshold));
      expect(period_s * Number(EvaluationPeriods)).toBeLessThanOrEqual(1_800);
      // SQS leaves a message out of the age of the oldest once it was received three times: an alarm on the age must
      // not be what an outage is heard by, nor be what every failure sets off.
      const age = properties(`${kind}AgeAlarm`);
      expect(Number(age["Threshold"])).toBeGreaterThan(
        3 * Number(properties(`${kind}Queue`)["VisibilityTimeout"]),
      );
    }
  });

  test("tell the topic, and the stack says so when there is none", () => {
    for (const [, { Properties }] of ofType("AWS::CloudWatch::Alarm", otherStack.Resources)) {
      expect(Properties["AlarmActions"]).toEqual([OTHER_PARAMETERS["AlarmTopicArn"]]);
    }
    for (const [, { Properties }] of ofType("AWS::CloudWatch::Alarm")) {
      expect(Properties).not.toHaveProperty("AlarmActions");
    }
    expect(Object.keys(stack.Outputs)).toContain("NobodyHearsAlarms");
    expect(Object.keys(otherStack.Outputs)).not.toContain("NobodyHearsAlarms");
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

  test("a role may write its log, read one queue, fill another and read the secret: nothing else", () => {
    for (const [parameters, action, service] of [
      [PARAMETERS, "secretsmanager:GetSecretValue", "secretsmanager"],
      [{ ...PARAMETERS, SecretArn: String(OTHER_PARAMETERS["SecretArn"]) }, "ssm:GetParameter", "ssm"],
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
          {
            Effect: "Allow",
            Action: ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
            Resource: `<${name}Queue.Arn>`,
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

  test("with a key of one's own for the queues, a role may use it through SQS; in a VPC, make interfaces", () => {
    for (const [, { Properties }] of ofType("AWS::IAM::Role", otherStack.Resources)) {
      expect(statementsIn(Properties["Policies"]).slice(5)).toEqual([
        {
          Effect: "Allow",
          Action: ["kms:Decrypt", "kms:GenerateDataKey"],
          Resource: OTHER_PARAMETERS["KmsKeyArn"],
          Condition: { StringEquals: { "kms:ViaService": "sqs.eu-west-1.amazonaws.com" } },
        },
        {
          Effect: "Allow",
          Action: expect.arrayContaining(["ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"]),
          Resource: "*",
        },
      ]);
    }
  });

  test("the key that is given encrypts queues, logs and trail", () => {
    const key = OTHER_PARAMETERS["KmsKeyArn"];
    for (const [, { Properties }] of ofType("AWS::Logs::LogGroup", trailStack.Resources)) {
      expect(Properties["KmsKeyId"]).toBe(key);
    }
    expect(properties("Trail", trailStack)["KMSKeyId"]).toBe(key);
    expect(JSON.stringify(properties("TrailLogs", trailStack)["BucketEncryption"])).toContain(String(key));
    expect(JSON.stringify([stack.Resources, stack.Globals])).not.toMatch(/kms/i);
  });

  test("no key of one's own, no right to decrypt", () => {
    const actions = statementsIn(stack.Resources).flatMap(({ Action }) => asList(Action));
    expect(actions).not.toContain("kms:Decrypt");
  });

  test("no wildcards but one, and only AWS's services as principals", () => {
    const wide: Record<string, string> = {
      "<TrailLogs.Arn>/AWSLogs/111122223333/*": "CloudTrail names its files itself",
      "*": "interfaces in a VPC have no names before they are made",
    };
    const all = [stack, otherStack, trailStack].flatMap(({ Resources }) => statementsIn(Resources));
    const statements = all.filter(({ Effect }) => Effect === "Allow");
    expect(statements.length).toBeGreaterThan(30);
    // What is denied may be denied to everybody.
    const denied = all.filter((statement) => !statements.includes(statement));
    for (const { Effect, Principal } of denied)
      expect({ Effect, Principal }).toEqual({ Effect: "Deny", Principal: "*" });
    for (const statement of statements) {
      if (statement["Resource"] === "*")
        expect(JSON.stringify(statement["Action"])).toMatch(/^\["ec2:\w+"(,"ec2:\w+")*\]$/);
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
        Action: ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketNotification"],
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
