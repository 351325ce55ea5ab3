/**
 * Puts a message into the dead-letter queue at once, instead of trying it for days: one that will never be delivered, or
 * one that its queue will soon drop.
 *
 * As SQS itself would: the body unchanged, so that a redrive brings it back as an ordinary message; the reason as attributes,
 * named as Lambda names those of its own dead letters.
 */
import { AwsV4Signer } from "aws4fetch";

import type { SqsMessage } from "./envelopes.ts";
import type { DeadLetterReason } from "./failures.ts";
import { isObject, parseJson, quote, textOf } from "./fields.ts";
import { post } from "./post.ts";
import { reasonOf } from "./tries.ts";
import { safeUrl } from "./urls.ts";

/** What an attribute of a message cannot hold. */
// oxlint-disable-next-line no-control-regex
const NOT_IN_XML = /[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu;

/** Into the queue of DEAD_LETTER_QUEUE_URL. @throws unless SQS has confirmed it. */
export async function keepAsDeadLetter(
  { messageId, body }: SqsMessage,
  reason: DeadLetterReason,
  deadline: number,
): Promise<void> {
  if (typeof body !== "string") throw new Error("A message without a body cannot be sent.");
  const attribute = (text: string) => ({
    DataType: "String",
    StringValue: text.replaceAll(NOT_IN_XML, "?"),
  });
  await sendMessage(
    {
      QueueUrl: process.env["DEAD_LETTER_QUEUE_URL"],
      MessageBody: body,
      MessageAttributes: {
        ErrorCode: attribute(reason.code),
        ErrorMessage: attribute(quote(reason.message)),
        OriginalMessageId: attribute(messageId),
      },
    },
    deadline,
  );
}

/** One try: if it fails, the message returns to its queue and comes here again. */
async function sendMessage(message: Record<string, unknown>, deadline: number): Promise<void> {
  const url = new URL("/", safeUrl("DEAD_LETTER_QUEUE_URL"));
  const body = JSON.stringify(message);
  const signed = await new AwsV4Signer({
    url: url.href,
    method: "POST",
    headers: { "content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.SendMessage" },
    body,
    service: "sqs",
    // All of these are set by Lambda.
    region: process.env["AWS_REGION"] ?? "",
    accessKeyId: process.env["AWS_ACCESS_KEY_ID"] ?? "",
    secretAccessKey: process.env["AWS_SECRET_ACCESS_KEY"] ?? "",
    sessionToken: process.env["AWS_SESSION_TOKEN"] ?? "",
  }).sign();
  const { status, text } = await post(url, Object.fromEntries(signed.headers), body, deadline).catch(
    (error: unknown) => {
      throw new Error(`The dead-letter queue gave no answer: ${reasonOf(error)}`, { cause: error });
    },
  );
  const answer = parseJson(text);
  if (status !== 200 || !isObject(answer) || textOf(answer["MessageId"]) === undefined) {
    throw new Error(`The dead-letter queue answered ${status}: ${quote(text)}`);
  }
}
