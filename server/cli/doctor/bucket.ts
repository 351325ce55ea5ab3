import { randomUUID } from "node:crypto";

import {
  GetBucketNotificationConfigurationCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  type GetBucketNotificationConfigurationCommandOutput,
} from "@aws-sdk/client-s3";

import type { S3Clients } from "../../s3/clients.ts";
import { refusesCredentials } from "../../s3/trouble.ts";
import { checkFile } from "./file.ts";
import { counted, fail, ok, skip, warn, type Finding } from "./finding.ts";
import { ask, type Refusal } from "./s3_call.ts";

/** One bucket, as Thaw's own credentials see it. Changes nothing, restores nothing. */
export async function checkBucket(
  s3: S3Clients,
  bucket: string,
  keys: string[],
  silence: Silence | undefined,
): Promise<Finding[]> {
  const name = `bucket ${bucket}`;
  const head = await ask(s3, bucket, (client, options) =>
    client.send(new HeadBucketCommand({ Bucket: bucket }), options),
  );
  const responds = "output" in head || (head.signed && (head.status === 403 || head.status === 400));
  if (!responds) return unreachable(name, head);

  // Permissions may hold for one folder only: look where the file is that was named.
  const folder = /^(.*\/)?/su.exec(keys[0] ?? "")?.[0] ?? "";
  const list = await ask(s3, bucket, (client, options) =>
    client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: folder, MaxKeys: 1 }), options),
  );
  if ("code" in list && list.code !== "AccessDenied") return unreachable(name, list);
  const region = "output" in head ? head.output.BucketRegion : head.region;
  const may_list = "output" in list;
  return [
    ok(name, `exists${region === undefined ? "" : `, in ${region}`}`),
    may_list
      ? ok(`${name}, listing`, "allowed")
      : warn(
          `${name}, listing`,
          "s3:ListBucket is missing, so that a deleted file looks like a forbidden one",
          `Allow Thaw's role s3:ListBucket on arn:aws:s3:::${bucket}`,
        ),
    await checkMissing(s3, bucket, folder, may_list),
    await checkNotifications(s3, bucket, silence),
    ...(await Promise.all(keys.map((key) => checkFile(s3, bucket, key)))).flat(),
    ...(keys.length > 0
      ? []
      : [
          skip(
            `${name}, restoring`,
            `s3:RestoreObject can be checked on a file that is not archived. Name one: npm run doctor -- ${bucket}/its/key`,
          ),
        ]),
  ];
}

function unreachable(name: string, { code, status, signed }: Refusal): Finding[] {
  const problem = (): Finding => {
    if (status > 0 && status < 500 && !signed) {
      return fail(
        name,
        `something else than S3 answers ${status}: without the request id that S3 and its like send`,
        "Check AWS_ENDPOINT_URL_S3, and what lies between here and there",
      );
    }
    if (status === 404) return fail(name, "does not exist", "Check its name, and whose account it is in");
    if (refusesCredentials(code)) {
      return fail(name, `S3 refuses the credentials (${code})`, "Renew Thaw's AWS credentials");
    }
    return status === 0
      ? fail(
          name,
          `S3 does not answer (${code})`,
          "Check this machine's network, and AWS_ENDPOINT_URL_S3 if set",
        )
      : fail(
          name,
          `S3 answers ${status} (${code})`,
          "Check the bucket's name, AWS_REGION and this machine's clock",
        );
  };
  return [problem(), skip(`${name}, all else`, "the bucket cannot be asked")];
}

/** Thaw distinguishes "deleted" from "denied" by this. */
async function checkMissing(
  s3: S3Clients,
  bucket: string,
  folder: string,
  may_list: boolean,
): Promise<Finding> {
  const what = `bucket ${bucket}, a missing file`;
  const head = await ask(s3, bucket, (client, options) =>
    client.send(
      new HeadObjectCommand({ Bucket: bucket, Key: `${folder}thaw-doctor-${randomUUID()}` }),
      options,
    ),
  );
  if ("output" in head) return ok(what, "is not missing");
  if (head.status === 404 && head.signed) return ok(what, "is 404");
  if (head.status !== 403) return warn(what, `S3 answers ${head.status} (${head.code})`, "Try again later");
  return may_list
    ? fail(
        what,
        "is 403 and not 404: s3:GetObject is missing, which HEAD needs",
        `Allow Thaw's role s3:GetObject on arn:aws:s3:::${bucket}/* (if it is allowed for a folder only, name a file there: npm run doctor -- ${bucket}/folder/key)`,
      )
    : skip(what, "is 403 without s3:ListBucket");
}

/** Restores of this bucket have ended, and no event of it has come. */
export interface Silence {
  lost: number;
  since: Date;
}

const silent = (silence: Silence | undefined): string =>
  silence === undefined
    ? ""
    : `: since ${silence.since.toISOString().slice(0, 16).replace("T", " ")} UTC ${counted(silence.lost, "restore")} ended, and none was told of`;

/** Events that leave S3 and do not arrive. */
const ON_THE_WAY =
  "If they were turned on only now, this passes with the next one. Else look where they end: the rule's metrics (CloudWatch, AWS/Events), the queue and its dead-letter queue, the log of restore_completed (lambdas/README.md)";

/** Without these events a restored file is noticed when its expected time is over, and then at growing intervals. */
async function checkNotifications(
  s3: S3Clients,
  bucket: string,
  silence: Silence | undefined,
): Promise<Finding> {
  const what = `bucket ${bucket}, events`;
  const turn_on = `aws s3api put-bucket-notification-configuration --bucket ${bucket} --notification-configuration '{"EventBridgeConfiguration":{}}'`;
  const answer = await ask(s3, bucket, (client, options) =>
    client.send(new GetBucketNotificationConfigurationCommand({ Bucket: bucket }), options),
  );
  if ("code" in answer) {
    if (silence !== undefined) {
      return fail(
        what,
        `do not arrive${silent(silence)}`,
        `See whether they are on: aws s3api get-bucket-notification-configuration --bucket ${bucket}. If it shows nothing, turn them on: ${turn_on}. If they are: ${ON_THE_WAY}`,
      );
    }
    return answer.code === "AccessDenied"
      ? warn(
          what,
          "s3:GetBucketNotification is missing, so that this cannot be checked",
          `Allow it to Thaw's role on arn:aws:s3:::${bucket}, or look yourself: aws s3api get-bucket-notification-configuration --bucket ${bucket}`,
        )
      : warn(
          what,
          `S3 answers ${answer.status} (${answer.code})`,
          "Look whether this store sends events at all",
        );
  }
  const { output } = answer;
  if (output.EventBridgeConfiguration !== undefined)
    return silence === undefined
      ? ok(what, "go to EventBridge")
      : fail(what, `go to EventBridge, and do not arrive here${silent(silence)}`, ON_THE_WAY);
  const others = targetsOf(output);
  if (others.some(({ Events }) => Events?.some((event) => /^s3:ObjectRestore:(\*|Completed)$/.test(event)))) {
    return silence === undefined
      ? ok(what, "restores are told by the bucket's own notifications, not by EventBridge")
      : fail(
          what,
          `restores are told by the bucket's own notifications, which do not arrive here${silent(silence)}`,
          "Look where they end: the queue, topic or function that get-bucket-notification-configuration names, and its log",
        );
  }
  return fail(
    what,
    `do not go to EventBridge, so that people hear late of finished restores${silent(silence)}`,
    `Turn them on: ${turn_on}. Mind: this replaces the whole configuration, ` +
      (others.length === 0
        ? "which is empty now"
        : `so add EventBridgeConfiguration to the ${counted(others.length, "entry").replace("entrys", "entries")} that get-bucket-notification-configuration shows`),
  );
}

const targetsOf = (
  output: GetBucketNotificationConfigurationCommandOutput,
): { Events?: string[] | undefined }[] => [
  ...(output.LambdaFunctionConfigurations ?? []),
  ...(output.QueueConfigurations ?? []),
  ...(output.TopicConfigurations ?? []),
];
