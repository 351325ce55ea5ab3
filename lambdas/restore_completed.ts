/**
 * Tells Thaw that S3 has finished a restore.
 *
 * Understands both ways in which S3 tells of it, EventBridge and event notifications, each direct or
 * wrapped in SNS, SQS, or SNS in SQS. S3 delivers at least once and in any order, and also tells of
 * restores that others asked for: Thaw takes each for a hint, and asks S3. What is ours but cannot be read or delivered comes back.
 */
import { decodeForm, isObject, parseJson, required, textOf, timeOf, type JsonObject } from "./fields.ts";
import { log, messageOf } from "./log.ts";
import { postToThaw, type ThawBody } from "./thaw_client.ts";
import { deadlineOf, type InvocationContext } from "./tries.ts";

const LAMBDA = "restore_completed";

/** A full SQS batch at once would ask for more connections than a small Thaw has to give. */
const CONCURRENCY = 10;

/** What Lambda wants to hear for SQS: only these messages go back into the queue. */
export interface SqsBatchResponse {
  batchItemFailures: { itemIdentifier: string }[];
}

/** Each finished restore in the event becomes one `POST /restore/completed`. */
export async function handler(
  event: unknown,
  context?: InvocationContext,
): Promise<SqsBatchResponse | undefined> {
  const deadline = deadlineOf(context);
  const messages = sqsMessages(event);
  if (messages === undefined) {
    await deliverAll(noticesIn(event), deadline);
    return undefined;
  }
  const batchItemFailures: SqsBatchResponse["batchItemFailures"] = [];
  await forEachBounded(messages, async ({ messageId, body }) => {
    try {
      await deliverAll(noticesInText(body, "the SQS body"), deadline);
    } catch {
      // Already logged; the message's own retries and dead-letter queue take it from here.
      batchItemFailures.push({ itemIdentifier: messageId });
    }
  });
  return { batchItemFailures };
}

/** The messages of an SQS batch, or undefined when the event came another way. */
function sqsMessages(event: unknown): { messageId: string; body: unknown }[] | undefined {
  const records: unknown[] = isObject(event) && Array.isArray(event["Records"]) ? event["Records"] : [];
  const messages = records.filter(isObject).filter((record) => record["eventSource"] === "aws:sqs");
  if (messages.length === 0) return undefined;
  return messages.map((message) => ({
    messageId: required(textOf(message["messageId"]), "messageId"),
    body: message["body"],
  }));
}

/** Sends what there is to send, then throws for whatever failed: one bad record holds up no other. */
async function deliverAll(notices: Notice[], deadline: number): Promise<void> {
  const failures: string[] = [];
  await forEachBounded(notices, async (read) => {
    let subject: JsonObject = {};
    try {
      const reading = read();
      if ("ignored" in reading) {
        log({ lambda: LAMBDA, outcome: "ignored", reason: reading.ignored });
        return;
      }
      const { event_id, s3_bucket, s3_key } = reading.body;
      subject = { event_id, s3_bucket, s3_key };
      const { updated } = await postToThaw("/restore/completed", reading.body, deadline);
      log({ lambda: LAMBDA, outcome: "sent", ...subject, updated });
    } catch (error) {
      log({ lambda: LAMBDA, outcome: "failed", ...subject, reason: messageOf(error) });
      failures.push(messageOf(error));
    }
  });
  if (failures.length > 0) throw new Error(failures.join(" | "));
}

/** One thing that S3 said; reading it throws when it is ours but garbled. */
type Notice = () => { body: ThawBody } | { ignored: string };

const ignored = (reason: string): Notice[] => [() => ({ ignored: reason })];

/** Unwraps a message of any of the known forms. */
function noticesIn(message: unknown): Notice[] {
  if (!isObject(message)) return ignored("not an event");
  if (typeof message["detail-type"] === "string") return [() => fromEventBridge(message)];
  // SNS in SQS. With raw delivery there is no such wrapper.
  if (message["Type"] === "Notification") return noticesInText(message["Message"], "the SNS message");
  // Sent once when notifications are switched on.
  if (message["Event"] === "s3:TestEvent") return ignored("s3:TestEvent");
  const records: unknown[] = Array.isArray(message["Records"]) ? message["Records"] : [];
  return records.length === 0 ? ignored("neither EventBridge, SNS nor S3") : records.flatMap(noticesInRecord);
}

function noticesInRecord(record: unknown): Notice[] {
  if (isObject(record)) {
    if (record["eventSource"] === "aws:s3") return [() => fromNotification(record)];
    if (record["EventSource"] === "aws:sns") {
      return noticesInText(isObject(record["Sns"]) && record["Sns"]["Message"], "the SNS message");
    }
  }
  return ignored("a record neither of S3 nor of SNS");
}

function noticesInText(text: unknown, name: string): Notice[] {
  const message = typeof text === "string" ? parseJson(text) : undefined;
  return message === undefined ? [() => required<never>(undefined, `JSON in ${name}`)] : noticesIn(message);
}

/** EventBridge writes the key as it is. */
function fromEventBridge(event: JsonObject): ReturnType<Notice> {
  const type = String(event["detail-type"]);
  // Initiated and Expired tell nothing that Thaw does not know: it asked, and Completed named the end.
  if (event["source"] !== "aws.s3" || type !== "Object Restore Completed") return { ignored: type };
  const detail = objectIn(event, "detail");
  const object = objectIn(detail, "object");
  return {
    body: {
      s3_bucket: required(textOf(objectIn(detail, "bucket")["name"]), "bucket.name"),
      s3_key: required(textOf(object["key"]), "object.key"),
      // Only versioned buckets have it.
      version_id: textOf(object["version-id"]),
      // Intelligent-Tiering brings objects back for good: no expiry.
      restore_expires_at: timeOf(detail["restore-expiry-time"], "restore-expiry-time"),
      event_time: required(timeOf(event["time"], "time"), "time"),
      event_id: textOf(event["id"]),
    },
  };
}

/** Event notifications write the key as a form field: "+" is a space, "%2B" a plus. */
function fromNotification(record: JsonObject): ReturnType<Notice> {
  // The documentation's names have the prefix, real records do not.
  const type = String(record["eventName"]).replace(/^s3:/, "");
  if (type !== "ObjectRestore:Completed") return { ignored: type };
  if (!String(record["eventVersion"]).startsWith("2.")) {
    throw new Error(`Unreadable event: eventVersion ${String(record["eventVersion"])} is not known.`);
  }
  const s3 = objectIn(record, "s3");
  const object = objectIn(s3, "object");
  const glacier = isObject(record["glacierEventData"]) ? record["glacierEventData"] : {};
  const restore = isObject(glacier["restoreEventData"]) ? glacier["restoreEventData"] : {};
  return {
    body: {
      s3_bucket: required(textOf(objectIn(s3, "bucket")["name"]), "s3.bucket.name"),
      s3_key: decodeForm(required(textOf(object["key"]), "s3.object.key"), "s3.object.key"),
      version_id: textOf(object["versionId"]),
      restore_expires_at: timeOf(restore["lifecycleRestorationExpiryTime"], "lifecycleRestorationExpiryTime"),
      event_time: required(timeOf(record["eventTime"], "eventTime"), "eventTime"),
      event_id: notificationId(record, object),
    },
  };
}

/** Notifications carry no id of their own; these two parts are the same in every repeat. */
function notificationId(record: JsonObject, object: JsonObject): string | undefined {
  const response = isObject(record["responseElements"]) ? record["responseElements"] : {};
  const parts = [textOf(response["x-amz-request-id"]), textOf(object["sequencer"])];
  return parts.filter((part) => part !== undefined).join("/") || undefined;
}

function objectIn(parent: JsonObject, name: string): JsonObject {
  const value = parent[name];
  return required(isObject(value) ? value : undefined, name);
}

/** Runs `work` on every item, a few at a time: all workers draw from one iterator. */
async function forEachBounded<T>(items: T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values();
  const workers = Array.from({ length: Math.min(CONCURRENCY, items.length) }, async () => {
    for (const item of rest) await work(item);
  });
  await Promise.all(workers);
}
