import { randomUUID } from "node:crypto";

import {
  GetBucketNotificationConfigurationCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  RestoreObjectCommand,
  type GetBucketNotificationConfigurationCommandOutput,
  type HeadObjectCommandOutput,
  type S3Client,
} from "@aws-sdk/client-s3";

import { CALL_TIMEOUT_MS, counted, fail, LATE, ok, skip, warn, within, type Finding } from "./finding.ts";
import { reasonOf } from "../../log.ts";
import { readHead, timeAtS3, type ObjectState } from "../../s3/s3.ts";
import { answerOf, isSigned } from "../../s3/answer.ts";
import { NoCredentials, type S3Clients } from "../../s3/clients.ts";
import { BUCKET_NAME } from "../../s3/names.ts";
import { isUnknownArchive } from "../../s3/storage_class.ts";
import { refusesCredentials } from "../../s3/trouble.ts";

export const NAME_ONE = "Name one: npm run doctor -- my-bucket";

/** Returns whether S3 can be called. */
export async function* checkAws(s3: S3Client): AsyncGenerator<Finding, boolean> {
  const region = await within(s3.config.region()).catch(() => undefined);
  yield region === undefined
    ? fail("AWS region", "none is set", "Set AWS_REGION, to any region: a bucket's own is found by itself")
    : ok("AWS region", region);

  const missing = await within(s3.config.credentials()).then(() => undefined, reasonOf);
  yield missing === undefined
    ? ok("AWS credentials", "found")
    : fail(
        "AWS credentials",
        `none (${missing})`,
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (temporary ones: AWS_SESSION_TOKEN too) or AWS_PROFILE, or give this machine a role",
      );
  return region !== undefined && missing === undefined;
}

const NAMED = new RegExp(`^(?:s3://)?(${BUCKET_NAME})(?:/(.*))?$`, "su");

/** `bucket`, `bucket/key` or `s3://bucket/key`: the buckets, each with its keys. */
export function bucketsNamed(names: string[]): { buckets: Map<string, string[]>; problems: Finding[] } {
  const buckets = new Map<string, string[]>();
  const problems: Finding[] = [];
  for (const name of names) {
    const [, bucket, key = ""] = NAMED.exec(name) ?? [];
    if (bucket === undefined) {
      problems.push(
        fail(name, "is no bucket's name", "Name it as S3 does: my-bucket, or my-bucket/a/key.bin"),
      );
    } else {
      buckets.set(bucket, [...(buckets.get(bucket) ?? []), ...(key === "" ? [] : [key])]);
    }
  }
  return { buckets, problems };
}

/** The result of one call: its output, or S3's refusal. */
type Outcome<T> = { output: T } | Refusal;
interface Refusal {
  code: string;
  status: number;
  region: string | undefined;
  /** Whether S3 itself responded. */
  signed: boolean;
}

interface Options {
  abortSignal: AbortSignal;
}

async function ask<T extends { $metadata: object }>(
  s3: S3Clients,
  bucket: string,
  call: (client: S3Client, options: Options) => Promise<T>,
): Promise<Outcome<T>> {
  const abortSignal = AbortSignal.timeout(CALL_TIMEOUT_MS);
  try {
    const output = await within(s3.ask(bucket, null, abortSignal, (client) => call(client, { abortSignal })));
    if (isSigned(output.$metadata)) return { output };
    return { code: "no request id", status: 200, region: undefined, signed: false };
  } catch (error) {
    const answer = answerOf(error);
    const reason = (): string =>
      abortSignal.aborted ? LATE : reasonOf(error instanceof NoCredentials ? error.cause : error);
    return {
      code: answer === undefined ? reason() : (answer.code ?? "no code"),
      status: answer?.status ?? 0,
      region: answer?.headers["x-amz-bucket-region"],
      signed: answer?.signed ?? false,
    };
  }
}

/** One bucket, as Thaw's own credentials see it. Changes nothing, restores nothing. */
export async function checkBucket(s3: S3Clients, bucket: string, keys: string[]): Promise<Finding[]> {
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
    await checkNotifications(s3, bucket),
    ...(await Promise.all(keys.map((key) => checkKey(s3, bucket, key)))).flat(),
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

/** Without these events a restored file is noticed by the poll only, up to a day late. */
async function checkNotifications(s3: S3Clients, bucket: string): Promise<Finding> {
  const what = `bucket ${bucket}, events`;
  const answer = await ask(s3, bucket, (client, options) =>
    client.send(new GetBucketNotificationConfigurationCommand({ Bucket: bucket }), options),
  );
  if ("code" in answer) {
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
  if (output.EventBridgeConfiguration !== undefined) return ok(what, "go to EventBridge");
  const others = targetsOf(output);
  if (others.some(({ Events }) => Events?.some((event) => /^s3:ObjectRestore:(\*|Completed)$/.test(event)))) {
    return ok(what, "restores are told by the bucket's own notifications, not by EventBridge");
  }
  return fail(
    what,
    "do not go to EventBridge: Thaw learns of finished restores up to a day late",
    `Turn them on: aws s3api put-bucket-notification-configuration --bucket ${bucket} --notification-configuration '{"EventBridgeConfiguration":{}}'. Mind: this replaces the whole configuration, ` +
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

async function checkKey(s3: S3Clients, bucket: string, key: string): Promise<Finding[]> {
  const what = `file ${bucket}/${key}`;
  const head = await ask(s3, bucket, async (client, options) => {
    const output = await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }), options);
    return { ...output, now: timeAtS3(client) };
  });
  if ("output" in head) {
    const { now, ...output } = head.output;
    return [stateOf(what, readHead(output, now)), await checkRestore(s3, bucket, key, output)];
  }
  const restoring = skip(`${what}, restoring`, "HEAD tells nothing of it");
  if (head.status === 404 && head.signed)
    return [fail(what, "is not there", "Check its key: case and spaces count"), restoring];
  return [
    head.status === 403
      ? fail(
          what,
          "Thaw may not look at it",
          `Allow Thaw's role s3:GetObject on arn:aws:s3:::${bucket}/* (without s3:ListBucket it may also just not be there)`,
        )
      : fail(
          what,
          `S3 answers ${head.status} (${head.code})`,
          "Try again; see the bucket's encryption if it stays",
        ),
    restoring,
  ];
}

function stateOf(what: string, object: ObjectState): Finding {
  if (object.state === "gone") return fail(what, "is not there", "Check its key");
  const { storage_class, archive_status } = object;
  const until =
    object.state === "readable" && object.restore_expires_at !== null
      ? ` until ${object.restore_expires_at.toISOString()}`
      : "";
  const found = `${[storage_class, archive_status].filter(Boolean).join(" ")}, ${object.state}${until}`;
  return isUnknownArchive(object)
    ? warn(
        what,
        `${found}: Thaw does not know this class, so it counts as archived`,
        "Read the file, and see whether this store restores it when Thaw asks",
      )
    : ok(what, found);
}

/** Classes that S3 never restores. With any other class the call could start a paid restore. */
const NEVER_RESTORED = new Set(["STANDARD", "STANDARD_IA", "ONEZONE_IA", "GLACIER_IR", "REDUCED_REDUNDANCY"]);

/**
 * S3 has no dry run of a restore. But it refuses to restore a file that is not archived: with InvalidObjectState if the caller
 * may restore, with AccessDenied if not.
 */
async function checkRestore(
  s3: S3Clients,
  bucket: string,
  key: string,
  head: HeadObjectCommandOutput,
): Promise<Finding> {
  const what = `file ${bucket}/${key}, restoring`;
  if (!NEVER_RESTORED.has(head.StorageClass ?? "STANDARD")) {
    return skip(
      what,
      `s3:RestoreObject cannot be checked without cost on this class. Name a file beside it that is not archived`,
    );
  }
  const answer = await ask(s3, bucket, (client, options) =>
    client.send(
      new RestoreObjectCommand({
        Bucket: bucket,
        Key: key,
        // The version that HEAD reported: a newer one may have another class.
        ...(head.VersionId !== undefined && { VersionId: head.VersionId }),
        RestoreRequest: { Days: 1, GlacierJobParameters: { Tier: "Bulk" } },
      }),
      options,
    ),
  );
  const code = "code" in answer ? answer.code : "no refusal";
  if (code === "InvalidObjectState") return ok(what, "allowed (S3 refuses it for the file's class only)");
  // About the call, not the file: HEAD has just found it.
  if (code === "NotImplemented" || code === "MethodNotAllowed") {
    return fail(
      what,
      `this store does not know RestoreObject (${code}): nothing can be restored`,
      "See whether a newer version of it does",
    );
  }
  return code === "AccessDenied"
    ? fail(
        what,
        "s3:RestoreObject is missing: nothing can be restored",
        `Allow it to Thaw's role on arn:aws:s3:::${bucket}/*`,
      )
    : warn(what, `S3 answers ${code}, which does not tell whether it is allowed`, "Try another file");
}
