/** lambdas/README.md beside the template that it tells of: its commands, its policies, its names and its figures. */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { buildLambdas } from "../../lambdas/build.ts";
import { isObject, parseJson, type JsonObject } from "../../lambdas/fields.ts";
import { MISSING_CLIENTS, realClients, type RealClient } from "../stand_ins/real_clients.ts";
import { ROOT } from "../support/root.ts";
import { parseTemplate, render, type Parameters } from "./cloudformation.ts";

const readme = await readFile(join(ROOT, "lambdas/README.md"), "utf8");
const template = parseTemplate(await readFile(join(ROOT, "lambdas/template.yaml"), "utf8"));

/** The lines of indented blocks, each without its indentation, continued ones as one. */
const lines = [...readme.replaceAll(/\\\n\s*/g, "").matchAll(/^ {4,}(\S.*)$/gm)].map(([, line = ""]) => line);

describe("the commands", () => {
  const commands = lines.filter((line) => line.startsWith("aws "));
  /** Nobody listens there: a command that the AWS CLI takes, and sends, says so. */
  const NOWHERE = "http://127.0.0.1:9";
  const TAKEN = "Could not connect to the endpoint URL";
  let clients: RealClient[] = [];
  let directory = "";

  beforeAll(async () => {
    clients = await realClients("aws");
    // Version 2 first: the README asks for it. What came after the one that is here, a newer version 1 may know.
    clients = clients.toSorted((a, b) => b.name.localeCompare(a.name, "en", { numeric: true }));
    directory = await mkdtemp(join(tmpdir(), "thaw-lambdas-readme-"));
    await buildLambdas(join(directory, "dist/lambdas"));
    for (const path of ["lambdas/template.yaml", "test/fixtures/eventbridge_completed.json"]) {
      await cp(join(ROOT, path), join(directory, path));
    }
    await cp(join(ROOT, "lambdas/template.yaml"), join(directory, "dist/thaw.yaml"));
    await writeFile(join(directory, "secret.txt"), "x".repeat(64));
    await mkdir(join(directory, "bin"));
    // The endpoint behind whatever the line says.
    await writeFile(
      join(directory, "bin/aws"),
      `#!/bin/sh\nexec "$AWS_CLI" "$@" --endpoint-url ${NOWHERE}\n`,
      {
        mode: 0o755,
      },
    );
  });
  afterAll(() => rm(directory, { recursive: true }));

  const said = (command: string, client: RealClient): Promise<string> =>
    new Promise((resolve) => {
      execFile(
        "bash",
        ["-c", command],
        {
          cwd: directory,
          env: {
            PATH: `${join(directory, "bin")}:${process.env["PATH"]}`,
            HOME: directory,
            AWS_CLI: client.program,
            AWS_ACCESS_KEY_ID: "AKIAEXAMPLE",
            AWS_SECRET_ACCESS_KEY: "x",
            AWS_REGION: "eu-west-1",
            AWS_DEFAULT_REGION: "eu-west-1",
            AWS_MAX_ATTEMPTS: "1",
            AWS_PAGER: "",
            COMPLETED: "thaw-RestoreCompleted-EXAMPLE",
            DEAD_LETTERS: "arn:aws:sqs:eu-west-1:111122223333:thaw-RestoreRequestedFailures-EXAMPLE",
            DEAD_LETTERS_URL:
              "https://sqs.eu-west-1.amazonaws.com/111122223333/thaw-RestoreRequestedFailures",
            QUEUE: "arn:aws:sqs:eu-west-1:111122223333:thaw-RestoreRequestedQueue-EXAMPLE",
          },
        },
        (_, _out, err) => resolve(err),
      );
    });

  test("are all there is to connect, replay, upgrade and uninstall", () => {
    expect(new Set(commands.map((command) => command.split(" ").slice(1, 3).join(" ")))).toEqual(
      new Set([
        "secretsmanager create-secret",
        "cloudformation package",
        "cloudformation deploy",
        "cloudformation describe-stacks",
        "cloudformation delete-stack",
        "lambda invoke",
        "s3api get-bucket-notification-configuration",
        "s3api put-bucket-notification-configuration",
        "s3api get-object",
        "sqs receive-message",
        "sqs start-message-move-task",
        "sqs list-message-move-tasks",
        "sqs purge-queue",
        "logs tail",
        "logs delete-log-group",
      ]),
    );
  });

  test.for(commands)("the AWS CLI takes %s", { timeout: 120_000 }, async (command, { skip }) => {
    skip(clients.length === 0, MISSING_CLIENTS.join(" "));
    const answers: string[] = [];
    for (const client of clients) {
      const answer = await said(command, client);
      answers.push(`${client.name}: ${answer}`);
      if (answer.includes(TAKEN)) return;
    }
    expect(answers).toEqual([]);
  });

  test("a line that the AWS CLI does not take is found", { timeout: 120_000 }, async ({ skip }) => {
    const [client] = clients;
    if (client === undefined) return skip(MISSING_CLIENTS.join(" "));
    expect(await said("aws sqs list-queues --prefix thaw", client)).not.toContain(TAKEN);
    expect(await said("aws sqs list-queues --queue-name-prefix thaw", client)).toContain(TAKEN);
  });
});

describe("what it names is there", () => {
  const PARAMETERS: Parameters = {
    Buckets: ["my-archive"],
    ThawUrl: "https://thaw.example.com",
    ThawRoleArn: "arn:aws:iam::111122223333:role/thaw",
    SecretArn: "arn:aws:secretsmanager:eu-west-1:111122223333:secret:thaw/restore-secret-a1B2c3",
  };
  const stack = render(template, PARAMETERS);

  test("outputs and alarms", () => {
    const outputs = [...readme.matchAll(/`(Restore(?:Requested|Completed)\w+)`/g)].map((match) => match[1]);
    expect(outputs.length).toBeGreaterThanOrEqual(4);
    for (const name of outputs) expect(Object.keys(stack.Outputs)).toContain(name);
    const alarms = [...readme.matchAll(/`(\w+Alarm)`/g)].map((match) => `RestoreRequested${match[1]}`);
    const known = Object.keys(stack.Resources).filter((name) => /^RestoreRequested\w+Alarm$/.test(name));
    expect(alarms).toEqual(known);
  });

  test("values of parameters, which the template takes", () => {
    const given = [...readme.matchAll(/\b([A-Z]\w+)=([^\s`|]+)/g)].filter(
      ([, name = ""]) => name in template.Parameters,
    );
    expect(given.length).toBeGreaterThanOrEqual(12);
    for (const [, name = "", value = ""] of given) {
      const isList = template.Parameters[name]?.["Type"] === "CommaDelimitedList";
      const text = value.replace(/[,.:]$/, "");
      render(template, { ...PARAMETERS, [name]: isList ? text.split(",") : text });
    }
  });

  test("policies, each valid JSON, with no right for everybody", () => {
    const policies = [...readme.matchAll(/^ {4}\{\n(?: {4}.*\n)* {4}\}$/gm)].map(([block]) => {
      const policy = parseJson(block);
      if (!isObject(policy)) throw new TypeError(`No JSON: ${block}`);
      return policy;
    });
    expect(policies).toHaveLength(2);
    for (const { Version, Statement } of policies) {
      expect(Version).toBe("2012-10-17");
      for (const statement of Statement as JsonObject[]) {
        expect(statement["Effect"]).toBe("Allow");
        expect(JSON.stringify(statement["Principal"] ?? {})).not.toContain('"*"');
      }
    }
    // The names in the key's policy are those that the template gives.
    const { LogGroupName } = stack.Resources["RestoreRequestedLogs"]?.Properties ?? {};
    expect(String(LogGroupName)).toMatch(/^\/aws\/lambda\/thaw-/);
    expect(stack.Resources["Trail"]?.Properties["TrailName"]).toBe("thaw-reads");
  });

  test("figures, as the template has them", () => {
    const of = (name: string, property: string): unknown => stack.Resources[name]?.Properties[property];
    const queue = stack.Resources["RestoreRequestedQueue"]?.Properties ?? {};
    const visibility_s = Number(queue["VisibilityTimeout"]);
    const receives = Number((queue["RedrivePolicy"] as JsonObject)["maxReceiveCount"]);
    const retention_s = Number(queue["MessageRetentionPeriod"]);
    expect(visibility_s).toBe(3 * 60);
    expect(readme).toContain(`tried every three minutes for ${(visibility_s * receives) / 3_600} hours`);
    expect(readme).toContain("is kept until two weeks after it happened");
    expect(of("RestoreRequestedFailures", "MessageRetentionPeriod")).toBe(14 * 86_400);
    expect(readme).toContain("drops silently what is seven days old");
    expect(retention_s).toBe(7 * 86_400);
    const { MaximumConcurrency } = of("RestoreRequestedMapping", "ScalingConfig") as JsonObject;
    const at_once = Number(of("RestoreRequestedMapping", "BatchSize")) * Number(MaximumConcurrency);
    const events = (retention_s - 4 * 86_400) * at_once;
    expect(readme).toContain(`enough for ${Math.floor(events / 1e6)} million events`);

    const alarms = Object.values(stack.Resources).filter(({ Type }) => Type === "AWS::CloudWatch::Alarm");
    const metrics = alarms.flatMap(({ Properties: { Metrics } }) =>
      Array.isArray(Metrics) ? Metrics.filter((metric) => isObject(metric) && "MetricStat" in metric) : [1],
    );
    expect(readme).toContain(`alarms (${metrics.length} metrics)`);
    expect(readme).toContain("ten alarms instead of four");
    expect(alarms).toHaveLength(10);
  });
});
