/** What both functions do: unwrap the input, read each event, post it to Thaw, log the outcome. */
import { sqsBatch, unwrap, type AwsEvent, type Unwrapped } from "./envelopes.ts";
import type { JsonObject } from "./fields.ts";
import { log, messageOf } from "./log.ts";
import { postToThaw, type ThawBody, type ThawPath } from "./thaw_client.ts";
import { deadlineOf, type InvocationContext } from "./tries.ts";

/** A full SQS batch at once would open more connections than a small Thaw can serve. */
const CONCURRENCY = 10;

/** What differs between the two functions. */
export interface Translation {
  lambda: string;
  path: ThawPath;
  /** The body to post, or why the event is ignored. @throws when it may concern us and cannot be read. */
  read: (event: AwsEvent) => { body: ThawBody } | { ignored: string };
  /** The id by which an operator finds the event, also when it cannot be read. */
  idOf: (event: AwsEvent) => string | undefined;
  /** The fields of Thaw's response to log. */
  answers: readonly string[];
}

/** Lambda's partial batch response: only these messages return to the queue. */
export interface SqsBatchResponse {
  batchItemFailures: { itemIdentifier: string }[];
}

/** @throws for what cannot be read or delivered: AWS retries it, then keeps it in the dead-letter queue. */
export async function deliver(
  translation: Translation,
  event: unknown,
  context?: InvocationContext,
): Promise<SqsBatchResponse | undefined> {
  const deadline = deadlineOf(context);
  const messages = sqsBatch(event);
  if (messages === undefined) {
    await deliverAll(translation, event, deadline);
    return undefined;
  }
  const batchItemFailures: SqsBatchResponse["batchItemFailures"] = [];
  await forEachBounded(messages, async ({ messageId, body }) => {
    try {
      // A body is text: an empty one is unreadable, not "nothing".
      await deliverAll(translation, { eventSource: "aws:sqs", body }, deadline);
    } catch {
      // Already logged; the message's own retries and dead-letter queue take it from here.
      batchItemFailures.push({ itemIdentifier: messageId });
    }
  });
  return { batchItemFailures };
}

/** Sends all, then throws what failed: one bad record does not block the others. */
async function deliverAll(translation: Translation, message: unknown, deadline: number): Promise<void> {
  const failures: unknown[] = [];
  await forEachBounded([...unwrap(message)], async (unwrapped) => {
    await deliverOne(translation, unwrapped, deadline).catch((error: unknown) => failures.push(error));
  });
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1) throw new Error(failures.map(messageOf).join(" | "));
}

async function deliverOne(
  { lambda, path, read, idOf, answers }: Translation,
  unwrapped: Unwrapped,
  deadline: number,
): Promise<void> {
  let subject: JsonObject = {};
  try {
    if (unwrapped.form === "nothing") {
      log({ lambda, outcome: "ignored", reason: unwrapped.reason });
      return;
    }
    if (unwrapped.form === "unreadable") throw new Error(`Unreadable event: ${unwrapped.reason}.`);
    subject = { event_id: idOf(unwrapped) };
    const reading = read(unwrapped);
    if ("ignored" in reading) {
      log({ lambda, outcome: "ignored", reason: reading.ignored });
      return;
    }
    const { s3_bucket, s3_key } = reading.body;
    subject = { ...subject, s3_bucket, s3_key };
    const answer = await postToThaw(path, reading.body, deadline);
    const told = Object.fromEntries(answers.map((name) => [name, answer[name]]));
    log({ lambda, outcome: "sent", ...subject, ...told });
  } catch (error) {
    log({ lambda, outcome: "failed", ...subject, reason: messageOf(error) });
    throw error;
  }
}

/** Runs `work` on every item, a few at a time: all workers draw from one iterator. */
async function forEachBounded<T>(items: T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const rest = items.values();
  const workers = Array.from({ length: Math.min(CONCURRENCY, items.length) }, async () => {
    for (const item of rest) await work(item);
  });
  await Promise.all(workers);
}
