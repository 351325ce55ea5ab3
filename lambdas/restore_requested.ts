/**
 * Tells Thaw of a read that failed because the object is archived.
 *
 * Invoked by EventBridge with "AWS API Call via CloudTrail". CloudTrail delivers at least once, late
 * and in any order; Thaw judges by `event_id` and `event_time`. An event that is ours but cannot be
 * read or delivered is thrown: AWS repeats it, then keeps it in the dead-letter queue.
 */
import { decodeForm, isObject, required, textOf, timeOf, type JsonObject } from "./fields.ts";
import { log, messageOf } from "./log.ts";
import { postToThaw, type ThawBody } from "./thaw_client.ts";
import { deadlineOf, type InvocationContext } from "./tries.ts";

const LAMBDA = "restore_requested";

/** The errors by which S3 says "archived". Its message is for people and may change. */
const ARCHIVED: Readonly<Record<string, readonly string[]>> = {
  GetObject: ["InvalidObjectState"],
  // Here the archived object is the one that is copied from; S3 knows two words for that.
  CopyObject: ["InvalidObjectState", "ObjectNotInActiveTierError"],
  UploadPartCopy: ["InvalidObjectState", "ObjectNotInActiveTierError"],
};

/** One CloudTrail event in, at most one `POST /restore/request` out. */
export async function handler(event: unknown, context?: InvocationContext): Promise<void> {
  const deadline = deadlineOf(context);
  let subject: JsonObject = {};
  try {
    const detail = failedRead(event);
    if (typeof detail === "string") {
      log({ lambda: LAMBDA, outcome: "ignored", reason: detail });
      return;
    }
    // The owner's and the reader's account each get the event under an eventID of its own.
    const event_id = textOf(detail["sharedEventID"]) ?? textOf(detail["eventID"]);
    subject = { event_id };
    const body = requestBody(detail, event_id);
    subject = { event_id, s3_bucket: body["s3_bucket"], s3_key: body["s3_key"] };
    const { id, duplicate } = await postToThaw("/restore/request", body, deadline);
    log({ lambda: LAMBDA, outcome: "sent", ...subject, id, duplicate });
  } catch (error) {
    log({ lambda: LAMBDA, outcome: "failed", ...subject, reason: messageOf(error) });
    throw error;
  }
}

/** The CloudTrail record of a read that found its object archived, or why this is none. */
function failedRead(event: unknown): JsonObject | string {
  if (!isObject(event) || event["detail-type"] !== "AWS API Call via CloudTrail") {
    return "not a CloudTrail event from EventBridge";
  }
  const { detail } = event;
  // The envelope says S3: then a record that is not there is a loss, not somebody else's event.
  if (!isObject(detail)) {
    if (event["source"] === "aws.s3") throw new Error("Unreadable event: detail is missing.");
    return "not an event of S3";
  }
  if (detail["eventSource"] !== "s3.amazonaws.com") return "not an event of S3";
  const eventName = String(detail["eventName"]);
  const errors = Object.hasOwn(ARCHIVED, eventName) ? ARCHIVED[eventName] : undefined;
  if (errors === undefined) return `${eventName} reads no object`;
  const errorCode = textOf(detail["errorCode"]);
  if (errorCode === undefined) return `${eventName} succeeded`;
  if (!errors.includes(errorCode)) return `${eventName} failed with ${errorCode}, not for being archived`;
  return detail;
}

function requestBody(detail: JsonObject, event_id: string | undefined): ThawBody {
  // Only the major number tells of changes that break readers.
  if (!String(detail["eventVersion"]).startsWith("1.")) {
    throw new Error(`Unreadable event: eventVersion ${String(detail["eventVersion"])} is not known.`);
  }
  const identity = isObject(detail["userIdentity"]) ? detail["userIdentity"] : {};
  const account = textOf(identity["accountId"]);
  return {
    ...archivedObject(detail),
    access_key_id: textOf(identity["accessKeyId"]),
    event_id: required(event_id, "eventID"),
    event_time: required(timeOf(detail["eventTime"], "eventTime"), "eventTime"),
    principal_arn: principalArn(identity),
    source_identity: sourceIdentity(identity),
    // "anonymous" stands here too, and is no account.
    account_id: account !== undefined && /^\d{12}$/.test(account) ? account : undefined,
  };
}

/** Who took on the role, where the identity provider told AWS so (sts:SourceIdentity). */
function sourceIdentity(identity: JsonObject): string | undefined {
  const session = identity["sessionContext"];
  return isObject(session) ? textOf(session["sourceIdentity"]) : undefined;
}

/** Who reads, as an ARN. Anonymous readers, other accounts and AWS's services have none. */
function principalArn(identity: JsonObject): string | undefined {
  const arn = textOf(identity["arn"]);
  if (arn !== undefined) return arn;
  // An Identity Center user has no arn here; the resource ARN that IAM policies use names the person.
  const onBehalfOf = identity["onBehalfOf"];
  if (identity["type"] !== "IdentityCenterUser" || !isObject(onBehalfOf)) return undefined;
  const user = textOf(onBehalfOf["userId"]);
  const partition = textOf(onBehalfOf["identityStoreArn"])?.split(":")[1] ?? "aws";
  return user === undefined ? undefined : `arn:${partition}:identitystore:::user/${user}`;
}

interface ArchivedObject {
  s3_bucket: string;
  s3_key: string;
  version_id?: string | undefined;
  /** The bucket's; left out for copies, whose event tells only where they go. */
  region?: string | undefined;
}

function archivedObject(detail: JsonObject): ArchivedObject {
  const parameters = required(
    isObject(detail["requestParameters"]) ? detail["requestParameters"] : undefined,
    "requestParameters",
  );
  const resources = resourcesOf(detail);
  if (detail["eventName"] !== "GetObject") return copySource(parameters, resources);
  const named = textOf(parameters["bucketName"]);
  return {
    // The request may name an access point; only the resources then tell the bucket behind it.
    s3_bucket: resources.buckets[0] ?? required(plainBucket(named), "the bucket (resources, bucketName)"),
    // Taken as it is: CloudTrail writes the key literally, "+" and "%" included.
    s3_key: required(textOf(parameters["key"]), "requestParameters.key"),
    version_id: textOf(parameters["versionId"]),
    region: textOf(detail["awsRegion"]),
  };
}

/** Bucket names, and objects as "bucket/key", that CloudTrail says were touched. */
interface Resources {
  buckets: string[];
  objects: string[];
}

function resourcesOf(detail: JsonObject): Resources {
  const listed: unknown[] = Array.isArray(detail["resources"]) ? detail["resources"] : [];
  const named = (type: string): string[] =>
    listed.flatMap((resource) => {
      if (!isObject(resource) || resource["type"] !== type) return [];
      return /^arn:[^:]+:s3:::(.+)$/s.exec(textOf(resource["ARN"]) ?? "")?.[1] ?? [];
    });
  return { buckets: named("AWS::S3::Bucket"), objects: named("AWS::S3::Object") };
}

/** The name, unless it is an access point's: its ARN, or the alias that S3 makes for it. */
function plainBucket(name: string | undefined): string | undefined {
  return name === undefined || /:|-s3alias$|--ol-s3$|\.mrap$/.test(name) ? undefined : name;
}

/**
 * `x-amz-copy-source`: "bucket/key" or "<access point ARN>/object/key", with or without a leading
 * slash, URL-encoded in part or whole, then perhaps "?versionId=".
 */
function copySource(parameters: JsonObject, resources: Resources): ArchivedObject {
  const header = required(textOf(parameters["x-amz-copy-source"]), "x-amz-copy-source");
  // Cut before decoding: a "?" that belongs to the key is still "%3F" here.
  const [, path = "", version] = /^(.*?)(?:\?versionId=([^?]*))?$/s.exec(header) ?? [];
  // S3 reads a bare "+" in this header as a space.
  const source = decodeForm(path, "x-amz-copy-source").replace(/^\//, "");
  // Version ids hold pluses, which some callers leave as they are, but never spaces.
  const version_id = textOf(version && decodeForm(version.replaceAll("+", "%2B"), "x-amz-copy-source"));

  const [, accessPoint, keyBehind] = /^(arn:[^/]+\/[^/]+)\/object\/(.+)$/s.exec(source) ?? [];
  const [, bucket, key] = accessPoint === undefined ? (/^([^/]+)\/(.+)$/s.exec(source) ?? []) : [];
  const s3_key = required(keyBehind ?? key, "the key in x-amz-copy-source");
  const s3_bucket =
    plainBucket(bucket) ?? bucketBehind(accessPoint ?? bucket ?? "", s3_key, parameters, resources);
  return { s3_bucket: required(s3_bucket, "the bucket behind x-amz-copy-source"), s3_key, version_id };
}

/** The bucket of an access point that is copied from, as far as the listed resources give it away. */
function bucketBehind(
  accessPoint: string,
  key: string,
  parameters: JsonObject,
  { buckets, objects }: Resources,
): string | undefined {
  const destination = textOf(parameters["bucketName"]);
  const holding = buckets.filter((bucket) => objects.includes(`${bucket}/${key}`));
  // Copied within one access point: then the destination's bucket is the source's.
  const candidates = destination === accessPoint ? buckets : holding.filter((name) => name !== destination);
  return new Set(candidates).size === 1 ? candidates[0] : undefined;
}
