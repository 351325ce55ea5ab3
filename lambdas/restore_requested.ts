/**
 * Tells Thaw of a read that failed because the object is archived, and of a look that may have found it so.
 *
 * Given "AWS API Call via CloudTrail" of EventBridge, direct or wrapped (envelopes.ts). CloudTrail delivers at least
 * once, late and in any order; Thaw judges by `event_id` and `event_time`. An event that is ours but cannot be read or
 * delivered is thrown: AWS repeats it, then keeps it in the dead-letter queue.
 */
import { deliver, type SqsBatchResponse, type Translation } from "./deliver.ts";
import type { AwsEvent } from "./envelopes.ts";
import { unreadable } from "./failures.ts";
import {
  decodeForm,
  isObject,
  objectIn,
  required,
  textIn,
  textOf,
  timeOf,
  type JsonObject,
} from "./fields.ts";
import type { ThawBody } from "./thaw_client.ts";
import type { InvocationContext } from "./tries.ts";
import { ignoredReader, isWatched } from "./watched.ts";

/** S3's codes for "archived". Its message is for people and may change. */
const ARCHIVED: Readonly<Record<string, readonly string[]>> = {
  GetObject: ["InvalidObjectState"],
  // The archived object is the source of the copy; S3 has two codes for that.
  CopyObject: ["InvalidObjectState", "ObjectNotInActiveTierError"],
  UploadPartCopy: ["InvalidObjectState", "ObjectNotInActiveTierError"],
};

/**
 * `aws s3 cp` and `mv` of one file (CLI 2): they ask HEAD, see the class, and give up without a GET. Nothing in the event tells
 * whether the object is archived; Thaw asks S3. `--dryrun` sends the same HEAD, so it cannot be told apart. The HEAD of
 * `cp ... -` and `--force-glacier-transfer` is followed by a GET with an event of its own: Thaw makes one request of both.
 *
 * The agent ends in the command, in brackets or not; before CLI 2.15.51 without "md/" and with a slash.
 */
const GIVES_UP_AFTER_HEAD = /\bcommand[#/]s3\.(?:cp|mv)\]?$/;

/** Each failed read in the event becomes one `POST /restore/request`. */
export async function handler(
  event: unknown,
  context?: InvocationContext,
): Promise<SqsBatchResponse | undefined> {
  return await deliver(TRANSLATION, event, context);
}

const TRANSLATION: Translation = {
  lambda: "restore_requested",
  path: "/restore/request",
  answers: ["id", "duplicate"],
  read: (event) => {
    const detail = failedRead(event);
    if (typeof detail === "string") return { ignored: detail };
    const ignored = ignoredReader(identityIn(detail));
    if (ignored !== undefined) return { ignored };
    const body = requestBody(detail);
    return isWatched(body.s3_bucket) ? { body } : { ignored: `${body.s3_bucket} is none of BUCKETS` };
  },
  idOf: ({ event }) => (isObject(event["detail"]) ? eventId(event["detail"]) : undefined),
};

/** The owner's and the reader's account each get the event under an eventID of its own. */
const eventId = (detail: JsonObject): string | undefined =>
  textOf(detail["sharedEventID"]) ?? textOf(detail["eventID"]);

const identityIn = (detail: JsonObject): JsonObject =>
  isObject(detail["userIdentity"]) ? detail["userIdentity"] : {};

/** The CloudTrail record of a read that found its object archived, or of a look that may have; or why the event is ignored. */
function failedRead({ form, event }: AwsEvent): JsonObject | string {
  if (form === "notification") return "an event notification: S3 sends none for a read";
  const type = required(textIn(event, "detail-type"), "detail-type");
  if (type !== "AWS API Call via CloudTrail") return type;
  // Where the envelope names another service, its record is not ours to read.
  const service = textIn(event, "source");
  if (service !== undefined && service !== "aws.s3") return "not an event of S3";
  const detail = objectIn(event, "detail");
  if (required(textIn(detail, "eventSource"), "eventSource") !== "s3.amazonaws.com")
    return "not an event of S3";
  const eventName = required(textIn(detail, "eventName"), "eventName");
  const reason = eventName === "HeadObject" ? whyNoLook(detail) : whyNoFailedRead(eventName, detail);
  return reason ?? detail;
}

function whyNoFailedRead(eventName: string, detail: JsonObject): string | undefined {
  const errors = Object.hasOwn(ARCHIVED, eventName) ? ARCHIVED[eventName] : undefined;
  if (errors === undefined) return `${eventName} reads no object`;
  const errorCode = textIn(detail, "errorCode");
  if (errorCode === undefined) return `${eventName} succeeded`;
  return errors.includes(errorCode)
    ? undefined
    : `${eventName} failed with ${errorCode}, not for being archived`;
}

function whyNoLook(detail: JsonObject): string | undefined {
  if (textIn(detail, "errorCode") !== undefined) return "HeadObject failed";
  return GIVES_UP_AFTER_HEAD.test(textOf(detail["userAgent"]) ?? "")
    ? undefined
    : "HeadObject by another client than aws s3 cp and mv";
}

/** A field about the reader is left out if of a wrong type: the file is restored anyway. @throws for one about the object. */
function requestBody(detail: JsonObject): ThawBody & ArchivedObject {
  // Only a new major version can break this reader.
  if (!String(detail["eventVersion"]).startsWith("1.")) {
    throw unreadable(`eventVersion ${String(detail["eventVersion"])} is not known`);
  }
  const identity = identityIn(detail);
  const account = textOf(identity["accountId"]);
  return {
    ...archivedObject(detail),
    access_key_id: textOf(identity["accessKeyId"]),
    event_id: required(eventId(detail), "eventID"),
    event_time: required(timeOf(detail["eventTime"], "eventTime"), "eventTime"),
    principal_arn: principalArn(identity),
    source_identity: sourceIdentity(identity),
    principal_id: principalId(identity),
    on_behalf_of: isObject(identity["onBehalfOf"]) ? within256(identity["onBehalfOf"]["userId"]) : undefined,
    // "anonymous" may be here too, and is no account.
    account_id: account !== undefined && /^\d{12}$/.test(account) ? account : undefined,
    evidence: detail["eventName"] === "HeadObject" ? "looked" : undefined,
  };
}

/** The person who assumed the role, if the identity provider told AWS (sts:SourceIdentity). */
function sourceIdentity(identity: JsonObject): string | undefined {
  const session = identity["sessionContext"];
  return isObject(session) ? textOf(session["sourceIdentity"]) : undefined;
}

/** What AWS writes where there is no principal. */
const NO_PRINCIPAL = new Set(["anonymous", "ANONYMOUS_PRINCIPAL", "UNKNOWN"]);

/** IAM's id of the reader, with the session's name where there is one: all that names a reader of another account. */
function principalId(identity: JsonObject): string | undefined {
  const id = within256(identity["principalId"]);
  return id === undefined || NO_PRINCIPAL.has(id) ? undefined : id;
}

/** Thaw takes no more; the ids of web identities may be longer, and no map can have them. */
function within256(value: unknown): string | undefined {
  const text = textOf(value);
  return text !== undefined && Buffer.byteLength(text) <= 256 ? text : undefined;
}

/** The reader's ARN. Anonymous readers, other accounts and AWS's services have none. */
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
  /** The bucket's; left out for copies, whose event has only the destination's. */
  region?: string | undefined;
}

function archivedObject(detail: JsonObject): ArchivedObject {
  const parameters = objectIn(detail, "requestParameters");
  const resources = resourcesOf(detail);
  if (detail["eventName"] !== "GetObject" && detail["eventName"] !== "HeadObject")
    return copySource(parameters, resources);
  const named = plainBucket(textIn(parameters, "bucketName"));
  // Taken as it is: CloudTrail writes the key literally, "+" and "%" included.
  const s3_key = required(textIn(parameters, "key"), "requestParameters.key");
  // The request may name an access point; then only the resources name its bucket.
  const buckets = named === undefined ? resources.buckets : [...resources.buckets, named];
  return {
    s3_bucket: required(bucketOf(s3_key, buckets, resources), "the bucket (resources, bucketName)"),
    s3_key,
    version_id: textIn(parameters, "versionId"),
    // Only a first guess: S3 itself says where the bucket is.
    region: textOf(detail["awsRegion"]),
  };
}

/** The buckets, and the objects as "bucket/key", that the CloudTrail record lists. */
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

/** Of several buckets, the one that is watched and has the key among the objects listed, or as much of that as there is. */
function bucketOf(key: string, buckets: string[], { objects }: Resources): string | undefined {
  const watched = buckets.filter(isWatched);
  return watched.find((bucket) => objects.includes(`${bucket}/${key}`)) ?? watched[0] ?? buckets[0];
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
  const header = required(textIn(parameters, "x-amz-copy-source"), "x-amz-copy-source");
  // Cut before decoding: a "?" that belongs to the key is still "%3F" here.
  const [, path = "", version] = /^(.*?)(?:\?versionId=([^?]*))?$/s.exec(header) ?? [];
  // S3 reads a bare "+" in this header as a space.
  const source = decodeForm(path, "x-amz-copy-source").replace(/^\//, "");
  // Version ids contain pluses, which some callers do not encode, but never spaces.
  const version_id = textOf(version && decodeForm(version.replaceAll("+", "%2B"), "x-amz-copy-source"));

  const [, accessPoint, keyBehind] = /^(arn:[^/]+\/[^/]+)\/object\/(.+)$/s.exec(source) ?? [];
  const [, bucket, key] = accessPoint === undefined ? (/^([^/]+)\/(.+)$/s.exec(source) ?? []) : [];
  const s3_key = required(keyBehind ?? key, "the key in x-amz-copy-source");
  const s3_bucket =
    plainBucket(bucket) ?? bucketBehind(accessPoint ?? bucket ?? "", s3_key, parameters, resources);
  return { s3_bucket: required(s3_bucket, "the bucket behind x-amz-copy-source"), s3_key, version_id };
}

/** The bucket of an access point that is copied from, if the listed resources leave only one. */
function bucketBehind(
  accessPoint: string,
  key: string,
  parameters: JsonObject,
  { buckets, objects }: Resources,
): string | undefined {
  const destination = textIn(parameters, "bucketName");
  const holding = buckets.filter((bucket) => objects.includes(`${bucket}/${key}`));
  // Copied within one access point: then the destination's bucket is the source's.
  const candidates = destination === accessPoint ? buckets : holding.filter((name) => name !== destination);
  const watched = candidates.filter(isWatched);
  const sources = watched.length === 0 ? candidates : watched;
  return new Set(sources).size === 1 ? sources[0] : undefined;
}
