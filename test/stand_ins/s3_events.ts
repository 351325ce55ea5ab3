import { randomUUID } from "node:crypto";
import { type S3Bucket, type S3Version, visibleVersionId } from "./s3_store.ts";
import type { S3Signer } from "./s3_wire.ts";

export const ACCOUNT_ID = "111122223333";

/** The envelope EventBridge puts around everything. */
interface Envelope<Type extends string, Detail> {
  version: "0";
  id: string;
  "detail-type": Type;
  source: "aws.s3";
  account: string;
  time: string;
  region: string;
  resources: string[];
  detail: Detail;
}

/** What S3 says of a restore. The key is plain text, and absent fields are absent, not null. */
export interface RestoreDetail {
  version: "0";
  bucket: { name: string };
  object: { key: string; size?: number; etag: string; "version-id"?: string };
  "request-id": string;
  requester: string;
  "source-ip-address"?: string;
  "restore-expiry-time"?: string;
  "source-storage-class"?: string;
}

export type RestoreEventType =
  | "Object Restore Initiated"
  | "Object Restore Completed"
  | "Object Restore Expired";

/** The parts of a CloudTrail record that a reader may want to name; the rest is passed on as is. */
export interface ReadDetail {
  eventTime: string;
  eventName: "GetObject" | "CopyObject" | "HeadObject";
  awsRegion: string;
  /** A HEAD is recorded where it succeeds. */
  errorCode?: "InvalidObjectState";
  errorMessage?: string;
  userIdentity: Record<string, unknown>;
  requestParameters: Record<string, string>;
  eventID: string;
  [field: string]: unknown;
}

export type S3RestoreEvent = Envelope<RestoreEventType, RestoreDetail>;
export type S3ReadEvent = Envelope<"AWS API Call via CloudTrail", ReadDetail>;
export type S3Event = S3RestoreEvent | S3ReadEvent;

/** Object Restore Initiated / Completed / Expired, as S3 sends them to EventBridge. */
export function restoreEvent(
  type: RestoreEventType,
  version: S3Version,
  requestId: string,
  expiresAt?: number,
): S3RestoreEvent {
  const object: RestoreDetail["object"] = { key: version.key, etag: version.etag };
  // The Expired event alone leaves the size out.
  if (type !== "Object Restore Expired") object.size = version.size_bytes;
  const versionId = visibleVersionId(version);
  if (versionId !== undefined) object["version-id"] = versionId;
  const detail: RestoreDetail = {
    version: "0",
    bucket: { name: version.bucket.name },
    object,
    "request-id": requestId,
    requester: type === "Object Restore Initiated" ? ACCOUNT_ID : "s3.amazonaws.com",
  };
  if (type === "Object Restore Initiated") detail["source-ip-address"] = "127.0.0.1";
  if (expiresAt !== undefined) detail["restore-expiry-time"] = isoSeconds(expiresAt);
  if (type !== "Object Restore Expired") detail["source-storage-class"] = version.storage_class;
  return envelope(type, version, [`arn:aws:s3:::${version.bucket.name}`], detail);
}

/**
 * One read of an archived object, or one copy from it, refused, or a HEAD: what a trail with data events sends to EventBridge. A
 * copy's record names where the copy goes; where it comes from stands in `x-amz-copy-source` alone.
 */
export function readEvent(
  version: S3Version,
  request: {
    request_id: string;
    /** Undefined: a HEAD that succeeded. */
    error_message: string | undefined;
    bytes_sent: number;
    /** Set for a copy. */
    copy: { bucket: S3Bucket; key: string; source: string } | undefined;
    signer: S3Signer;
    /** The request's query: a presigned URL's parameters are recorded with the rest. */
    query: Map<string, string>;
    user_agent: string | undefined;
    user_identity: Record<string, unknown>;
  },
): S3ReadEvent {
  const { copy, error_message } = request;
  const key = copy?.key ?? version.key;
  const { name: bucketName, region } = copy?.bucket ?? version.bucket;
  const host = `${bucketName}.s3.${region}.amazonaws.com`;
  const parameters: Record<string, string> = { bucketName, Host: host, key };
  if (copy !== undefined) parameters["x-amz-copy-source"] = copy.source;
  for (const [name, value] of request.query) {
    // A signature is a secret for as long as the URL lives, and CloudTrail leaves it out.
    if (name === "X-Amz-Signature" || name === "X-Amz-Security-Token") continue;
    parameters[name] = value;
  }
  const arn = `arn:aws:s3:::${bucketName}`;
  return envelope("AWS API Call via CloudTrail", version, [], {
    eventVersion: "1.11",
    userIdentity: request.user_identity,
    eventTime: isoSeconds(Date.now()),
    eventSource: "s3.amazonaws.com",
    eventName: error_message === undefined ? "HeadObject" : copy === undefined ? "GetObject" : "CopyObject",
    awsRegion: region,
    sourceIPAddress: "127.0.0.1",
    userAgent: `[${request.user_agent ?? "-"}]`,
    ...(error_message !== undefined && { errorCode: "InvalidObjectState", errorMessage: error_message }),
    requestParameters: parameters,
    responseElements: null,
    additionalEventData: {
      SignatureVersion: "SigV4",
      CipherSuite: "TLS_AES_128_GCM_SHA256",
      bytesTransferredIn: 0,
      AuthenticationMethod: request.signer.presigned ? "QueryString" : "AuthHeader",
      bytesTransferredOut: request.bytes_sent,
    },
    requestID: request.request_id,
    eventID: randomUUID(),
    readOnly: copy === undefined,
    resources: [
      { type: "AWS::S3::Object", ARN: `${arn}/${key}` },
      { accountId: ACCOUNT_ID, type: "AWS::S3::Bucket", ARN: arn },
    ],
    eventType: "AwsApiCall",
    managementEvent: false,
    recipientAccountId: ACCOUNT_ID,
    eventCategory: "Data",
    tlsDetails: {
      tlsVersion: "TLSv1.3",
      cipherSuite: "TLS_AES_128_GCM_SHA256",
      clientProvidedHostHeader: host,
    },
  });
}

/** The userIdentity of an access key nobody has described: an IAM user named like the key. */
export function defaultIdentity(accessKeyId: string | undefined): Record<string, unknown> {
  if (accessKeyId === undefined) return { type: "AWSAccount", principalId: "", accountId: "anonymous" };
  return {
    type: "IAMUser",
    principalId: `AIDA${accessKeyId.slice(4)}`,
    arn: `arn:aws:iam::${ACCOUNT_ID}:user/${accessKeyId}`,
    accountId: ACCOUNT_ID,
    accessKeyId,
    userName: accessKeyId,
  };
}

function envelope<Type extends string, Detail>(
  type: Type,
  version: S3Version,
  resources: string[],
  detail: Detail,
): Envelope<Type, Detail> {
  return {
    version: "0",
    id: randomUUID(),
    "detail-type": type,
    source: "aws.s3",
    account: ACCOUNT_ID,
    time: isoSeconds(Date.now()),
    region: version.bucket.region,
    resources,
    detail,
  };
}

/** Events carry whole seconds: 2021-11-12T00:00:00Z. */
function isoSeconds(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}
