import type { IncomingHttpHeaders } from "node:http";
import { ACCOUNT_ID, defaultIdentity, readEvent, type S3Event } from "./s3_events.ts";
import {
  bucketLocation,
  bucketNotifications,
  bucketVersioning,
  copyResult,
  listBuckets,
  listObjects,
  listVersions,
} from "./s3_list.ts";
import type { S3Request } from "./s3_log.ts";
import { parseRestoreOrder } from "./s3_restore_request.ts";
import { isArchived, type Restores } from "./s3_restores.ts";
import { type S3Bucket, type S3Store, type S3Version, visibleVersionId } from "./s3_store.ts";
import {
  accessDenied,
  errorXml,
  parseCopySource,
  type S3Answer,
  S3Error,
  type S3Signer,
  type S3Target,
} from "./s3_wire.ts";

/** What the operations work on. */
export interface S3Api {
  store: S3Store;
  restores: Restores;
  switches: { may_list: boolean };
  restores_per_second: number | undefined;
  records_heads: boolean;
  identify: ((accessKeyId: string | undefined) => Record<string, unknown> | undefined) | undefined;
  emit: (event: S3Event) => void;
}

/** One request, read. */
export interface S3Call {
  seen: S3Request;
  target: S3Target;
  signer: S3Signer;
  body: string;
  request_id: string;
  headers: IncomingHttpHeaders;
}

const ZEROS = Buffer.alloc(65_536);

/** What may stand in a listing's query; anything else (policy, cors ...) asks something else. */
const LISTING =
  /^(list-type|prefix|delimiter|marker|max-keys|encoding-type|continuation-token|start-after|fetch-owner|x-id|X-Amz-.*)$/;

const LISTING_VERSIONS =
  /^(versions|prefix|key-marker|version-id-marker|max-keys|encoding-type|x-id|X-Amz-.*)$/;

/** The operations of S3 that a restore service and its readers use. */
export class S3Operations {
  private api: S3Api;
  /** RestoreObject requests that may still be made just now, and as of when. */
  private allowance: number;
  private allowanceAt = Date.now();

  constructor(api: S3Api) {
    this.api = api;
    this.allowance = api.restores_per_second ?? 0;
  }

  /** S3's name for what a request asks. */
  name(method: string, { bucket, key, query }: S3Target, copiesFrom: boolean): string {
    if (bucket === undefined) return method === "GET" ? "ListBuckets" : "Unknown";
    if (key === undefined) {
      if (method === "HEAD") return "HeadBucket";
      if (method !== "GET") return "Unknown";
      if (query.has("location")) return "GetBucketLocation";
      if (query.has("versioning")) return "GetBucketVersioning";
      if (query.has("notification")) return "GetBucketNotificationConfiguration";
      if (query.has("versions")) {
        return [...query.keys()].every((name) => LISTING_VERSIONS.test(name))
          ? "ListObjectVersions"
          : "Unknown";
      }
      if ([...query.keys()].some((name) => !LISTING.test(name))) return "Unknown";
      return query.get("list-type") === "2" ? "ListObjectsV2" : "ListObjects";
    }
    if (method === "HEAD") return "HeadObject";
    if (method === "POST" && query.has("restore")) return "RestoreObject";
    const subresource = ["acl", "tagging", "attributes", "uploadId", "torrent"].some((name) =>
      query.has(name),
    );
    if (subresource) return "Unknown";
    if (method === "GET") return "GetObject";
    // Objects are made from the inside; over HTTP a PUT can only be a copy.
    return method === "PUT" && copiesFrom ? "CopyObject" : "Unknown";
  }

  /** Does it, or throws the S3Error that S3 would answer with. */
  perform(call: S3Call): S3Answer {
    const { seen, target } = call;
    const { store, restores } = this.api;
    if (seen.operation === "ListBuckets") return xml(listBuckets(store, ACCOUNT_ID));
    if (seen.operation === "Unknown") {
      const message = "A header or operation you asked for implies functionality that is not implemented";
      throw new S3Error(501, "NotImplemented", message);
    }
    const bucket = this.enter(call);
    switch (seen.operation) {
      case "HeadObject":
        return this.headObject(call, bucket);
      case "GetObject":
        return this.getObject(call, bucket);
      case "RestoreObject":
        return this.restoreObject(call, bucket);
      case "CopyObject":
        return this.copyObject(call, bucket);
      case "HeadBucket":
        return { status: 200, headers: { "x-amz-bucket-region": bucket.region } };
      case "GetBucketLocation":
        return xml(bucketLocation(bucket));
      case "GetBucketVersioning":
        return xml(bucketVersioning(bucket));
      case "GetBucketNotificationConfiguration":
        return xml(bucketNotifications(bucket));
      default: {
        if (!this.api.switches.may_list) throw accessDenied();
        const attributes = String(call.headers["x-amz-optional-object-attributes"] ?? "");
        if (seen.operation === "ListObjectVersions") {
          return xml(listVersions(store, restores, bucket, target.query, attributes));
        }
        return xml(listObjects(store, restores, bucket, target.query, attributes));
      }
    }
  }

  /** What every call has to pass before its object is looked for. */
  private enter({ seen, target, signer, headers }: S3Call): S3Bucket {
    const bucket = this.api.store.bucket(target.bucket ?? "");
    const { region } = bucket;
    if (signer.region !== undefined && signer.region !== region && seen.operation !== "GetBucketLocation") {
      throw wrongRegion(bucket, signer.region);
    }
    const owner = headers["x-amz-expected-bucket-owner"];
    if (owner !== undefined && owner !== ACCOUNT_ID) throw accessDenied();
    if (bucket.requester_pays && headers["x-amz-request-payer"] !== "requester") throw accessDenied();
    if (Buffer.byteLength(target.key ?? "") > 1024) {
      throw new S3Error(400, "KeyTooLongError", "Your key is too long");
    }
    return bucket;
  }

  /** The object a call is about, or S3's word for why there is none. */
  private version({ seen }: S3Call, bucket: S3Bucket, target: S3Target): S3Version {
    const key = target.key ?? "";
    const versionId = target.query.get("versionId");
    if (versionId !== undefined && versionId !== "null" && !/^[\w.]{32}$/.test(versionId)) {
      const fields = { ArgumentName: "versionId", ArgumentValue: versionId };
      throw new S3Error(400, "InvalidArgument", "Invalid version id specified", fields);
    }
    const version = this.api.store.find(bucket, key, versionId);
    if (version?.delete_marker === true) {
      const headers = { "x-amz-delete-marker": "true", "x-amz-version-id": version.version_id };
      if (versionId === undefined) {
        throw new S3Error(404, "NoSuchKey", "The specified key does not exist.", { Key: key }, headers);
      }
      const message = "The specified method is not allowed against this resource.";
      const fields = { Method: seen.method, ResourceType: "DeleteMarker" };
      throw new S3Error(405, "MethodNotAllowed", message, fields, { ...headers, Allow: "DELETE" });
    }
    if (version !== undefined) return version;
    // Whoever may not list must not learn from the answer which keys exist.
    if (!this.api.switches.may_list) throw accessDenied();
    if (versionId === undefined) {
      throw new S3Error(404, "NoSuchKey", "The specified key does not exist.", { Key: key });
    }
    const fields = { Key: key, VersionId: versionId };
    throw new S3Error(404, "NoSuchVersion", "The specified version does not exist.", fields);
  }

  private headObject(call: S3Call, bucket: S3Bucket): S3Answer {
    const version = this.version(call, bucket, call.target);
    const headers = this.objectHeaders(version);
    headers["Content-Length"] = String(version.size_bytes);
    if (this.api.records_heads) this.record(call, version, undefined, 0);
    return { status: 200, headers };
  }

  private getObject(call: S3Call, bucket: S3Bucket): S3Answer {
    const version = this.version(call, bucket, call.target);
    if (isArchived(version)) {
      const message = "The operation is not valid for the object's storage class";
      const { storage_class: StorageClass, archive_status: AccessTier } = version;
      throw this.refuseRead(
        call,
        version,
        new S3Error(403, "InvalidObjectState", message, { StorageClass, AccessTier }),
      );
    }
    const headers = this.objectHeaders(version);
    const range = readRange(call.headers.range, version.size_bytes);
    headers["Content-Length"] = String(range.end - range.start);
    if (range.partial) {
      headers["Content-Range"] = `bytes ${range.start}-${range.end - 1}/${version.size_bytes}`;
    }
    const status = range.partial ? 206 : 200;
    if (version.body === undefined) return { status, headers, stream: zeros(range.end - range.start) };
    return { status, headers, body: version.body.subarray(range.start, range.end) };
  }

  /**
   * The API reference names ObjectNotInActiveTierError for an archived source; recorded is InvalidObjectState, with a
   * message of its own (s3tools/s3cmd #193).
   */
  private copyObject(call: S3Call, bucket: S3Bucket): S3Answer {
    const key = call.target.key ?? "";
    const source = String(call.headers["x-amz-copy-source"]);
    const from = parseCopySource(source);
    const version = this.version(call, this.api.store.bucket(from.bucket ?? ""), from);
    if (isArchived(version)) {
      const message = "Operation is not valid for the source object's storage class";
      const error = new S3Error(403, "InvalidObjectState", message);
      throw this.refuseRead(call, version, error, { bucket, key, source });
    }
    const { body, size_bytes } = version;
    const content = body === undefined ? { size_bytes } : { body: body.toString() };
    return xml(copyResult(this.api.store.put({ bucket: bucket.name, key, ...content })));
  }

  /** An archived object was to be read, or copied from: CloudTrail hears of it. */
  private refuseRead(
    call: S3Call,
    version: S3Version,
    error: S3Error,
    copy?: { bucket: S3Bucket; key: string; source: string },
  ): S3Error {
    this.record(call, version, error.message, errorXml(error, call.request_id).length, copy);
    return error;
  }

  private record(
    call: S3Call,
    version: S3Version,
    error_message: string | undefined,
    bytes_sent: number,
    copy?: { bucket: S3Bucket; key: string; source: string },
  ): void {
    const accessKeyId = call.signer.access_key_id;
    const event = readEvent(version, {
      request_id: call.request_id,
      error_message,
      copy,
      bytes_sent,
      signer: call.signer,
      query: call.target.query,
      user_agent: call.headers["user-agent"],
      user_identity: this.api.identify?.(accessKeyId) ?? defaultIdentity(accessKeyId),
    });
    this.api.emit(event);
  }

  private restoreObject(call: S3Call, bucket: S3Bucket): S3Answer {
    this.spendAllowance();
    const order = parseRestoreOrder(call.body);
    call.seen.tier = order.tier;
    if (order.days !== undefined) call.seen.days = order.days;
    const version = this.version(call, bucket, call.target);
    const status = this.api.restores.begin(version, order);
    call.seen.accepted = status === 202;
    return { status, headers: {} };
  }

  /** At most one second's worth at once, refilled as time goes by. */
  private spendAllowance(): void {
    const rate = this.api.restores_per_second;
    if (rate === undefined) return;
    const now = Date.now();
    this.allowance = Math.min(rate, this.allowance + ((now - this.allowanceAt) * rate) / 1000);
    this.allowanceAt = now;
    if (this.allowance < 1) throw new S3Error(503, "SlowDown", "Please reduce your request rate.");
    this.allowance -= 1;
  }

  private objectHeaders(version: S3Version): Record<string, string> {
    const headers: Record<string, string> = {
      "Last-Modified": new Date(version.last_modified).toUTCString(),
      ETag: `"${version.etag}"`,
      "Accept-Ranges": "bytes",
      "Content-Type": "binary/octet-stream",
    };
    const versionId = visibleVersionId(version);
    if (versionId !== undefined) headers["x-amz-version-id"] = versionId;
    if (version.storage_class !== "STANDARD") headers["x-amz-storage-class"] = version.storage_class;
    if (version.archive_status !== undefined) headers["x-amz-archive-status"] = version.archive_status;
    const restore = this.api.restores.header(version);
    if (restore !== undefined) headers["x-amz-restore"] = restore;
    return headers;
  }
}

function wrongRegion({ name, region, wrong_region }: S3Bucket, signed_for: string): S3Error {
  const headers = wrong_region.told_in === "header" ? { "x-amz-bucket-region": region } : {};
  switch (wrong_region.status) {
    case 301: {
      const message =
        "The bucket you are attempting to access must be addressed using the specified endpoint. " +
        "Please send all future requests to this endpoint.";
      const fields = { Endpoint: `s3.${region}.amazonaws.com`, Bucket: name };
      return new S3Error(301, "PermanentRedirect", message, fields, headers);
    }
    case 400: {
      const message = `The authorization header is malformed; the region '${signed_for}' is wrong; expecting '${region}'`;
      return new S3Error(400, "AuthorizationHeaderMalformed", message, { Region: region }, headers);
    }
    case 403:
      return new S3Error(403, "AccessDenied", "Access Denied", {}, headers);
  }
}

function xml(body: string): S3Answer {
  return { status: 200, headers: { "Content-Type": "application/xml" }, body };
}

/** One range of bytes, end excluded; anything S3 does not understand means the whole object. */
function readRange(
  header: string | undefined,
  size: number,
): { start: number; end: number; partial: boolean } {
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "") ?? [];
  if (from === undefined || to === undefined || (from === "" && to === "")) {
    return { start: 0, end: size, partial: false };
  }
  const start = from === "" ? Math.max(0, size - Number(to)) : Number(from);
  const end = from === "" || to === "" ? size : Math.min(size, Number(to) + 1);
  if (start < end) return { start, end, partial: true };
  throw new S3Error(416, "InvalidRange", "The requested range is not satisfiable");
}

/** The content of an object that was given a size only. */
function* zeros(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= ZEROS.length) {
    yield left >= ZEROS.length ? ZEROS : ZEROS.subarray(0, left);
  }
}
