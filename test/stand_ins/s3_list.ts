import type { Restores } from "./s3_restores.ts";
import type { S3Bucket, S3Store, S3Version } from "./s3_store.ts";
import { S3Error } from "./s3_wire.ts";
import { escapeXml } from "./s3_xml.ts";

const NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"';

/** S3 gives no more than this on a page, whatever is asked for. */
const PAGE = 1000;

/** ListObjectsV2, and its elder sister for clients that still speak it (s3cmd). */
export function listObjects(
  store: S3Store,
  restores: Restores,
  bucket: S3Bucket,
  query: Map<string, string>,
  optionalAttributes: string,
): string {
  const v2 = query.get("list-type") === "2";
  const prefix = query.get("prefix") ?? "";
  const delimiter = query.get("delimiter") ?? "";
  const limit = Math.min(PAGE, parseMaxKeys(query.get("max-keys")));
  const encode = query.get("encoding-type") === "url" ? encodeListed : escapeXml;
  const token = query.get("continuation-token");
  const after = v2
    ? token === undefined
      ? (query.get("start-after") ?? "")
      : Buffer.from(token, "base64url").toString("utf8")
    : (query.get("marker") ?? "");

  const keys = store.sortedKeys(bucket);
  let contents = "";
  let prefixes = "";
  let count = 0;
  let last = "";
  let truncated = false;
  for (let i = store.firstKey(bucket, prefix, after); i < keys.length; i += 1) {
    const key = keys[i];
    if (key === undefined || !key.startsWith(prefix)) break;
    const version = bucket.objects.get(key)?.at(-1);
    if (version === undefined || version.delete_marker) continue;
    const cut = delimiter === "" ? -1 : key.indexOf(delimiter, prefix.length);
    const common = cut === -1 ? undefined : key.slice(0, cut + delimiter.length);
    // A page may end on a common prefix; the next one starts behind all of its keys.
    if (common !== undefined && (common === last || (common === after && !query.has("start-after"))))
      continue;
    if (count === limit) {
      truncated = true;
      break;
    }
    count += 1;
    last = common ?? key;
    if (common === undefined) contents += entry(version, restores, encode, optionalAttributes);
    else prefixes += `<CommonPrefixes><Prefix>${encode(common)}</Prefix></CommonPrefixes>`;
  }
  if (limit === 0) truncated = false; // Nothing was asked for, so there is no next page either.

  const tags = [
    `<Name>${escapeXml(bucket.name)}</Name><Prefix>${encode(prefix)}</Prefix>`,
    `<MaxKeys>${limit}</MaxKeys><IsTruncated>${truncated}</IsTruncated>`,
  ];
  if (delimiter !== "") tags.push(`<Delimiter>${encode(delimiter)}</Delimiter>`);
  if (encode === encodeListed) tags.push("<EncodingType>url</EncodingType>");
  if (v2) {
    tags.push(`<KeyCount>${count}</KeyCount>`);
    if (token !== undefined) tags.push(`<ContinuationToken>${escapeXml(token)}</ContinuationToken>`);
    if (truncated) {
      const next = Buffer.from(last).toString("base64url");
      tags.push(`<NextContinuationToken>${next}</NextContinuationToken>`);
    }
  } else {
    tags.push(`<Marker>${encode(after)}</Marker>`);
    if (truncated) tags.push(`<NextMarker>${encode(last)}</NextMarker>`);
  }
  return document("ListBucketResult", tags.join("") + contents + prefixes);
}

/** ListObjectVersions: keys in order, of each the newest version first; a page may end within a key. Without delimiters. */
export function listVersions(
  store: S3Store,
  restores: Restores,
  bucket: S3Bucket,
  query: Map<string, string>,
  optionalAttributes: string,
): string {
  const prefix = query.get("prefix") ?? "";
  const limit = Math.min(PAGE, parseMaxKeys(query.get("max-keys")));
  const encode = query.get("encoding-type") === "url" ? encodeListed : escapeXml;
  const keyMarker = query.get("key-marker") ?? "";
  const versionMarker = query.get("version-id-marker") ?? "";
  if (versionMarker !== "" && keyMarker === "") {
    throw new S3Error(
      400,
      "InvalidArgument",
      "A version-id marker cannot be specified without a key marker.",
    );
  }

  const keys = store.sortedKeys(bucket);
  let entries = "";
  let count = 0;
  let last: S3Version | undefined;
  let truncated = false;
  // A marker of a version is within its key; without one the key is behind us.
  const within = versionMarker === "" ? [] : newestFirst(bucket, keyMarker);
  const rest = within.slice(within.findIndex(({ version_id }) => version_id === versionMarker) + 1);
  const add = (version: S3Version): boolean => {
    if (count === limit) {
      truncated = true;
      return false;
    }
    count += 1;
    last = version;
    entries += versionEntry(version, restores, encode, optionalAttributes);
    return true;
  };
  let goesOn = rest.every(add);
  for (let i = store.firstKey(bucket, prefix, keyMarker); goesOn && i < keys.length; i += 1) {
    const key = keys[i];
    if (key === undefined || !key.startsWith(prefix)) break;
    goesOn = newestFirst(bucket, key).every(add);
  }
  if (limit === 0) truncated = false;

  const tags = [
    `<Name>${escapeXml(bucket.name)}</Name><Prefix>${encode(prefix)}</Prefix>`,
    `<KeyMarker>${encode(keyMarker)}</KeyMarker><VersionIdMarker>${escapeXml(versionMarker)}</VersionIdMarker>`,
    `<MaxKeys>${limit}</MaxKeys><IsTruncated>${truncated}</IsTruncated>`,
  ];
  if (encode === encodeListed) tags.push("<EncodingType>url</EncodingType>");
  if (truncated && last !== undefined) {
    tags.push(`<NextKeyMarker>${encode(last.key)}</NextKeyMarker>`);
    tags.push(`<NextVersionIdMarker>${last.version_id}</NextVersionIdMarker>`);
  }
  return document("ListVersionsResult", tags.join("") + entries);
}

const newestFirst = (bucket: S3Bucket, key: string): S3Version[] =>
  (bucket.objects.get(key) ?? []).toReversed();

function versionEntry(
  version: S3Version,
  restores: Restores,
  encode: (text: string) => string,
  optionalAttributes: string,
): string {
  const isLatest = version.bucket.objects.get(version.key)?.at(-1) === version;
  const head =
    `<Key>${encode(version.key)}</Key><VersionId>${version.version_id}</VersionId><IsLatest>${isLatest}</IsLatest>` +
    `<LastModified>${new Date(version.last_modified).toISOString()}</LastModified>`;
  if (version.delete_marker) return `<DeleteMarker>${head}</DeleteMarker>`;
  const restore = optionalAttributes.includes("RestoreStatus") ? restoreStatus(version, restores) : "";
  return (
    `<Version>${head}<ETag>&quot;${version.etag}&quot;</ETag><Size>${version.size_bytes}</Size>` +
    `<StorageClass>${version.storage_class}</StorageClass>${restore}</Version>`
  );
}

/** The account's buckets. */
export function listBuckets(store: S3Store, ownerId: string): string {
  const buckets = [...store.buckets.keys()].map(
    (name) =>
      `<Bucket><Name>${escapeXml(name)}</Name><CreationDate>2026-01-01T00:00:00.000Z</CreationDate></Bucket>`,
  );
  return document(
    "ListAllMyBucketsResult",
    `<Owner><ID>${ownerId}</ID></Owner><Buckets>${buckets.join("")}</Buckets>`,
  );
}

/** Where a bucket lives; S3 leaves us-east-1 empty. */
export function bucketLocation(bucket: S3Bucket): string {
  return document("LocationConstraint", bucket.region === "us-east-1" ? "" : bucket.region);
}

/** Whether a bucket keeps versions; one that never did has nothing to say. */
export function bucketVersioning(bucket: S3Bucket): string {
  if (bucket.versioning === "off") return document("VersioningConfiguration", "");
  const status = bucket.versioning === "enabled" ? "Enabled" : "Suspended";
  return document("VersioningConfiguration", `<Status>${status}</Status>`);
}

/** Whom a bucket tells of what happens in it. */
export function bucketNotifications(bucket: S3Bucket): string {
  return document("NotificationConfiguration", bucket.notifications);
}

/** What a copy has become. */
export function copyResult({ etag, last_modified }: S3Version): string {
  const at = new Date(last_modified).toISOString();
  return document("CopyObjectResult", `<LastModified>${at}</LastModified><ETag>&quot;${etag}&quot;</ETag>`);
}

function document(name: string, content: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${name} ${NAMESPACE}>${content}</${name}>`;
}

function entry(
  version: S3Version,
  restores: Restores,
  encode: (text: string) => string,
  optionalAttributes: string,
): string {
  const restore = optionalAttributes.includes("RestoreStatus") ? restoreStatus(version, restores) : "";
  return (
    `<Contents><Key>${encode(version.key)}</Key>` +
    `<LastModified>${new Date(version.last_modified).toISOString()}</LastModified>` +
    `<ETag>&quot;${version.etag}&quot;</ETag><Size>${version.size_bytes}</Size>` +
    // Unlike HEAD, a listing names STANDARD too.
    `<StorageClass>${version.storage_class}</StorageClass>${restore}</Contents>`
  );
}

/** Says nothing of Intelligent-Tiering's archive tiers, as S3 does not. */
function restoreStatus(version: S3Version, restores: Restores): string {
  if (restores.header(version) === undefined || version.restore === undefined) return "";
  const running = version.restore.state === "running";
  const expiry =
    version.restore.state === "ready"
      ? `<RestoreExpiryDate>${new Date(version.restore.expires_at).toISOString()}</RestoreExpiryDate>`
      : "";
  return `<RestoreStatus><IsRestoreInProgress>${running}</IsRestoreInProgress>${expiry}</RestoreStatus>`;
}

function parseMaxKeys(text: string | undefined): number {
  if (text === undefined) return PAGE;
  if (/^\d+$/.test(text)) return Number(text);
  throw new S3Error(400, "InvalidArgument", "Provided max-keys not an integer or within integer range");
}

/** encoding-type=url: everything but the slashes, the way S3 writes keys it lists. */
function encodeListed(text: string): string {
  return encodeURIComponent(text).replaceAll("%2F", "/").replaceAll("%20", "+");
}
