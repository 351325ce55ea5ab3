/**
 * Which reads concern us, by the same settings as the EventBridge rules of template.yaml: for events that come another way
 * (a rule or a bus of yours, a replay), and for what a rule cannot tell apart. What is not set leaves nothing out.
 */
import { isObject, textOf, type JsonObject } from "./fields.ts";

const listOf = (value = ""): string[] =>
  value
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");

/** Whether BUCKETS names it. Without BUCKETS, every bucket is watched. */
export function isWatched(bucket: string): boolean {
  const buckets = listOf(process.env["BUCKETS"]);
  return buckets.length === 0 || buckets.includes(bucket);
}

/** Older events of S3 have the second. */
const ANONYMOUS = new Set(["anonymous", "ANONYMOUS_PRINCIPAL"]);

/** Why this reader's reads are to be left alone, or undefined. */
export function ignoredReader(identity: JsonObject): string | undefined {
  const session = isObject(identity["sessionContext"]) ? identity["sessionContext"] : {};
  const issuer = isObject(session["sessionIssuer"]) ? session["sessionIssuer"] : {};
  const principals = listOf(process.env["IGNORED_PRINCIPALS"]);
  // The arn of a role's session ends with the session's name; the role's own is its issuer's.
  for (const arn of [textOf(identity["arn"]), textOf(issuer["arn"])]) {
    if (arn !== undefined && principals.includes(arn)) return `${arn} is one of IGNORED_PRINCIPALS`;
  }
  if (process.env["IGNORE_ANONYMOUS"] === "true" && ANONYMOUS.has(textOf(identity["accountId"]) ?? "")) {
    return "an anonymous read (IGNORE_ANONYMOUS)";
  }
  if (process.env["IGNORE_SERVICES"] === "true" && isService(identity, issuer)) {
    return `a read by ${textOf(identity["invokedBy"]) ?? "a service of AWS"} (IGNORE_SERVICES)`;
  }
  return undefined;
}

/**
 * A service reads as itself, by a role that is linked to it, or (CloudFront's older way) as an account. A person's query
 * through a service is none of these.
 */
const isService = (identity: JsonObject, issuer: JsonObject): boolean =>
  identity["type"] === "AWSService" ||
  identity["accountId"] === "CloudFront" ||
  (textOf(issuer["userName"]) ?? "").startsWith("AWSServiceRoleFor");
