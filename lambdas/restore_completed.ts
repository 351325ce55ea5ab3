/**
 * Tells Thaw that S3 has finished a restore.
 *
 * Reads both formats, EventBridge and event notifications, each direct or wrapped (envelopes.ts). S3 delivers at least
 * once and in any order, and also reports restores that other clients started: Thaw takes each event as a hint, and asks
 * S3. An event that is ours but cannot be read or delivered is thrown: AWS repeats it.
 */
import { deliver, type SqsBatchResponse, type Translation } from "./deliver.ts";
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

/** Each finished restore in the event becomes one `POST /restore/completed`. */
export async function handler(
  event: unknown,
  context?: InvocationContext,
): Promise<SqsBatchResponse | undefined> {
  return await deliver(TRANSLATION, event, context);
}

const TRANSLATION: Translation = {
  lambda: "restore_completed",
  path: "/restore/completed",
  answers: ["updated"],
  read: ({ form, event }) => (form === "eventbridge" ? fromEventBridge(event) : fromNotification(event)),
  idOf: ({ form, event }) => (form === "eventbridge" ? textOf(event["id"]) : notificationId(event)),
};

type Reading = { body: ThawBody } | { ignored: string };

/** EventBridge writes the key as it is. */
function fromEventBridge(event: JsonObject): Reading {
  const type = required(textIn(event, "detail-type"), "detail-type");
  // Initiated and Expired have no news: Thaw started the restore itself, and Completed has the expiry.
  if (type !== "Object Restore Completed") return { ignored: type };
  if (required(textIn(event, "source"), "source") !== "aws.s3") return { ignored: "not an event of S3" };
  const detail = objectIn(event, "detail");
  const object = objectIn(detail, "object");
  return {
    body: {
      s3_bucket: required(textIn(objectIn(detail, "bucket"), "name"), "bucket.name"),
      s3_key: required(textIn(object, "key"), "object.key"),
      // Only versioned buckets have it.
      version_id: textIn(object, "version-id"),
      // Intelligent-Tiering brings objects back for good: no expiry.
      restore_expires_at: timeOf(detail["restore-expiry-time"], "restore-expiry-time"),
      event_time: required(timeOf(event["time"], "time"), "time"),
      event_id: textOf(event["id"]),
    },
  };
}

/** Event notifications write the key as a form field: "+" is a space, "%2B" a plus. */
function fromNotification(record: JsonObject): Reading {
  // The documentation's names have the prefix, real records do not.
  const type = required(textIn(record, "eventName"), "eventName").replace(/^s3:/, "");
  if (type !== "ObjectRestore:Completed") return { ignored: type };
  if (!String(record["eventVersion"]).startsWith("2.")) {
    throw unreadable(`eventVersion ${String(record["eventVersion"])} is not known`);
  }
  const s3 = objectIn(record, "s3");
  const object = objectIn(s3, "object");
  const glacier = isObject(record["glacierEventData"]) ? record["glacierEventData"] : {};
  const restore = isObject(glacier["restoreEventData"]) ? glacier["restoreEventData"] : {};
  return {
    body: {
      s3_bucket: required(textIn(objectIn(s3, "bucket"), "name"), "s3.bucket.name"),
      s3_key: decodeForm(required(textIn(object, "key"), "s3.object.key"), "s3.object.key"),
      version_id: textIn(object, "versionId"),
      restore_expires_at: timeOf(restore["lifecycleRestorationExpiryTime"], "lifecycleRestorationExpiryTime"),
      event_time: required(timeOf(record["eventTime"], "eventTime"), "eventTime"),
      event_id: notificationId(record),
    },
  };
}

/** Notifications carry no id of their own; these two parts are the same in every repeat. */
function notificationId(record: JsonObject): string | undefined {
  const of = (parent: unknown, name: string): unknown => (isObject(parent) ? parent[name] : undefined);
  const parts = [
    textOf(of(record["responseElements"], "x-amz-request-id")),
    textOf(of(of(record["s3"], "object"), "sequencer")),
  ];
  return parts.filter((part) => part !== undefined).join("/") || undefined;
}
