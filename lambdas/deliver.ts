/** What both functions do: unwrap the input, read each event, post it to Thaw, log the outcome. */
import { CircuitBreaker } from "./circuit_breaker.ts";
import { keepAsDeadLetter } from "./dead_letters.ts";
import { sqsBatch, unwrap, type AwsEvent, type SqsMessage, type Unwrapped } from "./envelopes.ts";
import { Permanent, unreadable, Unsent, type DeadLetterReason } from "./failures.ts";
import type { JsonObject } from "./fields.ts";
import { log, messageOf } from "./log.ts";
import { postToThaw, type ThawBody, type ThawPath } from "./thaw_client.ts";
import { deadlineOf, RETRY_QUEUED_WITHIN_MS, type InvocationContext } from "./tries.ts";

/** A full SQS batch at once would open more connections than a small Thaw can serve. */
const CONCURRENCY = 10;

/**
 * A queue drops what is older than its retention (7 days), silently, and SQS counts receives, not time: with a large backlog
 * a message may never be received often enough for the dead-letter queue. Three days are enough to come by each once more.
 */
const GIVE_UP_AFTER_MS = 4 * 24 * 3_600_000;

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

/** How a body gets to Thaw. */
type Send = (path: ThawPath, body: ThawBody) => Promise<JsonObject>;

/** @throws for what cannot be read or delivered: AWS retries it, then keeps it in the dead-letter queue. */
export async function deliver(
  translation: Translation,
  event: unknown,
  context?: InvocationContext,
): Promise<SqsBatchResponse | undefined> {
  const deadline = deadlineOf(context);
  const messages = sqsBatch(event);
  if (messages !== undefined) return await deliverBatch(translation, messages, deadline);
  const failures = await deliverEvents(translation, event, (path, body) => postToThaw(path, body, deadline));
  if (failures.length > 0) throw together(failures);
  return undefined;
}

/**
 * A message that was not delivered returns to its queue, which tries it again. One that never will be is put into the
 * dead-letter queue, and returns only if that fails.
 *
 * @throws when all of them return: to Lambda, a batch with failures is a success, and only an error counts in its metric
 * and makes it slow down.
 */
async function deliverBatch(
  translation: Translation,
  messages: SqsMessage[],
  deadline: number,
): Promise<SqsBatchResponse> {
  const { lambda } = translation;
  const breaker = new CircuitBreaker();
  const send: Send = (path, body) =>
    breaker.pass(({ retry }) => {
      const now = Date.now();
      if (now >= deadline) throw new Unsent("not sent, because the time of this invocation is over");
      return postToThaw(path, body, deadline, retry ? Math.min(deadline, now + RETRY_QUEUED_WITHIN_MS) : now);
    });
  const returning = new Map<SqsMessage, unknown>();
  await forEachBounded(messages, async (message) => {
    // A body is text: an empty one is unreadable, not "nothing".
    const sent = { eventSource: "aws:sqs", body: message.body };
    const failures = await deliverEvents(translation, sent, send);
    if (failures.length === 0) return;
    const reason = reasonToGiveUp(message, failures);
    try {
      if (reason === undefined) throw together(failures);
      await giveUp(lambda, message, reason, deadline);
    } catch (error) {
      returning.set(message, error);
    }
  });
  if (returning.size === 0) return { batchItemFailures: [] };

  const reasons = [...returning.values()];
  const unsent = reasons.filter((error) => error instanceof Unsent);
  // One line for all of them: they have nothing to tell one by one.
  if (unsent[0] !== undefined) {
    log({ lambda, outcome: "failed", messages: unsent.length, reason: unsent[0].message });
  }
  if (returning.size === messages.length) {
    throw new Error(`All ${messages.length} messages return to the queue: ${messageOf(together(reasons))}`);
  }
  const ids = new Set([...returning.keys()].map(({ messageId }) => messageId));
  return { batchItemFailures: [...ids].map((itemIdentifier) => ({ itemIdentifier })) };
}

function reasonToGiveUp(
  { sent_at = Infinity }: SqsMessage,
  failures: unknown[],
): DeadLetterReason | undefined {
  // A message returns as a whole: as long as one of its events may still be delivered, so do the others.
  const passing = failures.filter((error) => !(error instanceof Permanent));
  if (passing.length > 0 && Date.now() - sent_at < GIVE_UP_AFTER_MS) return undefined;
  const { message } = together(failures);
  if (passing.length > 0) return { code: "TOO_OLD", message: `not delivered in four days: ${message}` };
  return { code: failures[0] instanceof Permanent ? failures[0].code : "REFUSED", message };
}

/** Into the dead-letter queue. @throws unless it is there. */
async function giveUp(
  lambda: string,
  message: SqsMessage,
  reason: DeadLetterReason,
  deadline: number,
): Promise<void> {
  const message_id = message.messageId;
  // Without a queue of our own to put it into, SQS moves the message when it has returned often enough.
  if ((process.env["DEAD_LETTER_QUEUE_URL"] ?? "") === "") throw new Error(reason.message);
  try {
    await keepAsDeadLetter(message, reason, deadline);
  } catch (error) {
    log({ lambda, outcome: "failed", message_id, reason: messageOf(error) });
    throw error;
  }
  log({ lambda, outcome: "dead_letter", message_id, reason: reason.message });
}

/** Sends all events in a message, and returns what failed: one bad record does not block the others. */
async function deliverEvents(translation: Translation, message: unknown, send: Send): Promise<unknown[]> {
  const failures: unknown[] = [];
  await forEachBounded([...unwrap(message)], async (unwrapped) => {
    await deliverOne(translation, unwrapped, send).catch((error: unknown) => failures.push(error));
  });
  return failures;
}

/** One error for several. */
function together(failures: unknown[]): Error {
  const [first] = failures;
  if (failures.length === 1 && first instanceof Error) return first;
  return new Error([...new Set(failures.map(messageOf))].join(" | "));
}

async function deliverOne(
  { lambda, path, read, idOf, answers }: Translation,
  unwrapped: Unwrapped,
  send: Send,
): Promise<void> {
  let subject: JsonObject = {};
  try {
    if (unwrapped.form === "nothing") {
      log({ lambda, outcome: "ignored", reason: unwrapped.reason });
      return;
    }
    if (unwrapped.form === "unreadable") throw unreadable(unwrapped.reason);
    subject = { event_id: idOf(unwrapped) };
    const reading = read(unwrapped);
    if ("ignored" in reading) {
      log({ lambda, outcome: "ignored", ...subject, reason: reading.ignored });
      return;
    }
    const { s3_bucket, s3_key } = reading.body;
    subject = { ...subject, s3_bucket, s3_key };
    const answer = await send(path, reading.body);
    const told = Object.fromEntries(answers.map((name) => [name, answer[name]]));
    log({ lambda, outcome: "sent", ...subject, ...told });
  } catch (error) {
    if (!(error instanceof Unsent)) log({ lambda, outcome: "failed", ...subject, reason: messageOf(error) });
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
