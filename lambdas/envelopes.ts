/**
 * Unwraps the input of a function: SQS, SNS, SNS in SQS, the lists of EventBridge Pipes, and Lambda's records of failed
 * invocations (destinations).
 *
 * AWS deletes the event when a function returns. So only what certainly has no event of S3 in it is "nothing"; anything
 * else that is unknown is "unreadable", and returns to AWS.
 */
import { isObject, parseJson, required, textOf, type JsonObject } from "./fields.ts";

/** The two formats of an event of S3. */
export interface AwsEvent {
  form: "eventbridge" | "notification";
  event: JsonObject;
}

export type Unwrapped =
  | AwsEvent
  | { form: "nothing"; reason: string }
  | { form: "unreadable"; reason: string };

const nothing = (reason: string): Unwrapped => ({ form: "nothing", reason });
const unreadable = (reason: string): Unwrapped => ({ form: "unreadable", reason });

/** All events in a message, nested wrappers included. */
export function* unwrap(message: unknown): Generator<Unwrapped> {
  if (typeof message === "string" && message !== "") yield* unwrapText(message, "the event");
  else if (Array.isArray(message)) yield* unwrapList(message);
  else if (isObject(message)) yield* unwrapObject(message);
  else yield nothing("not an event");
}

function* unwrapObject(message: JsonObject): Generator<Unwrapped> {
  // Of EventBridge itself; a name of another type is refused by the reader.
  if ("detail-type" in message) yield { form: "eventbridge", event: message };
  else if (message["eventSource"] === "aws:s3") yield { form: "notification", event: message };
  else if (message["eventSource"] === "aws:sqs") yield* unwrapText(message["body"], "the SQS body");
  else if (message["EventSource"] === "aws:sns") {
    yield* unwrapText(isObject(message["Sns"]) && message["Sns"]["Message"], "the SNS message");
  }
  // SNS in SQS. With raw delivery there is no such wrapper.
  else if (message["Type"] === "Notification") yield* unwrapText(message["Message"], "the SNS message");
  // Sent once, when a queue is subscribed or notifications are switched on.
  else if (message["Type"] === "SubscriptionConfirmation") yield nothing("SubscriptionConfirmation");
  else if (message["Event"] === "s3:TestEvent") yield nothing("s3:TestEvent");
  else if (Array.isArray(message["Records"])) yield* unwrapList(message["Records"]);
  // The input of an asynchronous invocation, whatever its outcome.
  else if ("requestPayload" in message) yield* unwrap(message["requestPayload"]);
  else if (Object.keys(message).length === 0) yield nothing("an empty event");
  else yield unreadable("neither of EventBridge, S3, SQS, SNS nor of a Lambda destination");
}

function* unwrapList(messages: unknown[]): Generator<Unwrapped> {
  if (messages.length === 0) yield nothing("an empty list");
  for (const message of messages) yield* unwrap(message);
}

function* unwrapText(text: unknown, name: string): Generator<Unwrapped> {
  const message = typeof text === "string" ? parseJson(text) : undefined;
  if (message === undefined) yield unreadable(`${name} is no JSON`);
  else yield* unwrap(message);
}

export interface SqsMessage {
  messageId: string;
  body: unknown;
  /** When it came into the queue, in ms; undefined when that is not told. */
  sent_at: number | undefined;
}

/** The messages of a batch from SQS, by Lambda or by EventBridge Pipes; undefined when the event came another way. */
export function sqsBatch(event: unknown): SqsMessage[] | undefined {
  const records: unknown = isObject(event) ? event["Records"] : event;
  if (!Array.isArray(records) || records.length === 0) return undefined;
  const messages = records.filter(isObject).filter((record) => record["eventSource"] === "aws:sqs");
  // Records of another kind have no id by which they alone could be returned.
  if (messages.length < records.length) return undefined;
  return messages.map((message) => ({
    messageId: required(textOf(message["messageId"]), "messageId"),
    body: message["body"],
    sent_at: sentAt(message["attributes"]),
  }));
}

function sentAt(attributes: unknown): number | undefined {
  const text = isObject(attributes) ? textOf(attributes["SentTimestamp"]) : undefined;
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
