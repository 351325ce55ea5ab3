/** SendMessage over HTTP, by SQS's JSON protocol: checks the signature, and refuses what SQS refuses. */
import { createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";

import { isObject } from "../../lambdas/fields.ts";
import type { StandInQueue } from "./sqs.ts";

/** Of the function's role, as Lambda puts them into its environment. */
export const CREDENTIALS = {
  AWS_REGION: "eu-west-1",
  AWS_ACCESS_KEY_ID: "ASIAEXAMPLEFUNCTION1",
  AWS_SECRET_ACCESS_KEY: "the-secret-access-key-of-the-function",
  AWS_SESSION_TOKEN: "the-session-token-of-the-function",
};

/** Body and attributes together. */
const MAX_BYTES = 1_048_576;
// oxlint-disable-next-line no-control-regex
const NOT_ALLOWED = /[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/u;

/** What SQS does instead of taking a message. */
export type Fault = "throttle" | "cut" | "nonsense" | "hang";

export interface SqsServer {
  urlOf(queue: StandInQueue): string;
  /** Taken by the next calls in turn, then all is well again. */
  faults: Fault[];
  /** Calls that came here, refused ones too. */
  calls: number;
  close(): Promise<void>;
}

export async function startSqsServer(...queues: StandInQueue[]): Promise<SqsServer> {
  const faults: Fault[] = [];
  const server = createServer((request, response) => void answer(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const urlOf = ({ name }: StandInQueue): string => `${origin}/111122223333/${name}`;
  const running: SqsServer = {
    urlOf,
    faults,
    calls: 0,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request);
    running.calls++;
    const send = (status: number, value: unknown): void =>
      void response
        .writeHead(status, { "content-type": "application/x-amz-json-1.0" })
        .end(JSON.stringify(value));
    const refuse = (status: number, type: string, message: string): void =>
      send(status, { __type: `com.amazonaws.sqs#${type}`, message });
    switch (faults.shift()) {
      case "throttle":
        return refuse(400, "RequestThrottled", "Request is throttled.");
      case "cut":
        response.destroy();
        return;
      case "nonsense":
        response.end("<html>");
        return;
      case "hang":
        return;
      case undefined:
    }
    const problem = signatureProblem(request, body);
    if (problem !== undefined) return refuse(403, "InvalidSignatureException", problem);
    if (request.headers["x-amz-target"] !== "AmazonSQS.SendMessage") {
      return refuse(400, "InvalidAction", "Only SendMessage is here.");
    }
    const message: unknown = JSON.parse(body);
    if (!isObject(message)) return refuse(400, "InvalidParameterValue", "no object");
    const queue = queues.find((one) => urlOf(one) === message["QueueUrl"]);
    if (queue === undefined) return refuse(400, "QueueDoesNotExist", "The specified queue does not exist.");
    const attributes = attributesOf(message["MessageAttributes"]);
    const sent = message["MessageBody"];
    if (attributes === undefined || typeof sent !== "string" || sent === "") {
      return refuse(400, "InvalidParameterValue", "A body or an attribute is missing or empty.");
    }
    const all = [sent, ...Object.entries(attributes).flat()].join("");
    if (Buffer.byteLength(all) > MAX_BYTES) return refuse(400, "InvalidParameterValue", "It is too long.");
    if (NOT_ALLOWED.test(all)) return refuse(400, "InvalidMessageContents", "It has a character too many.");
    const MessageId = queue.send(sent, attributes);
    send(200, { MessageId, MD5OfMessageBody: createHash("md5").update(sent).digest("hex") });
  }
  return running;
}

/** At most ten, none of them empty; undefined when one is not as it must be. */
function attributesOf(given: unknown): Record<string, string> | undefined {
  if (given === undefined) return {};
  if (!isObject(given) || Object.keys(given).length > 10) return undefined;
  const attributes: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    if (!isObject(value) || value["DataType"] !== "String") return undefined;
    const textValue = value["StringValue"];
    if (typeof textValue !== "string" || textValue === "" || !/^[\w.-]{1,256}$/.test(name)) return undefined;
    attributes[name] = textValue;
  }
  return attributes;
}

const sha256 = (value: string): string => createHash("sha256").update(value).digest("hex");
const hmac = (key: string | Buffer, value: string): Buffer =>
  createHmac("sha256", key).update(value).digest();

/** Signature Version 4, as AWS documents it ("Create a signed AWS API request"). */
function signatureProblem({ method, url, headers }: IncomingMessage, body: string): string | undefined {
  const [, key, date, region, signed, signature] =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/sqs\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
      headers.authorization ?? "",
    ) ?? [];
  if (signed === undefined || date === undefined || region === undefined) return "no signature";
  if (key !== CREDENTIALS.AWS_ACCESS_KEY_ID || region !== CREDENTIALS.AWS_REGION)
    return "another key or Region";
  if (headers["x-amz-security-token"] !== CREDENTIALS.AWS_SESSION_TOKEN) return "another session token";
  const names = signed.split(";");
  for (const name of ["host", "x-amz-date", "x-amz-security-token", "x-amz-target"]) {
    if (!names.includes(name)) return `${name} is not signed`;
  }
  const at = String(headers["x-amz-date"]);
  const signedAt = Date.parse(at.replace(/^(....)(..)(..T..)(..)(..)Z$/, "$1-$2-$3:$4:$5Z"));
  if (!(Math.abs(Date.now() - signedAt) < 15 * 60_000)) return "Signature expired.";
  const canonical = [
    method,
    url,
    "",
    ...names.map((name) => `${name}:${String(headers[name]).trim()}`),
    "",
    signed,
    sha256(body),
  ].join("\n");
  const scope = `${date}/${region}/sqs/aws4_request`;
  const toSign = ["AWS4-HMAC-SHA256", at, scope, sha256(canonical)].join("\n");
  const signingKey = [region, "sqs", "aws4_request"].reduce(
    (derived, part) => hmac(derived, part),
    hmac(`AWS4${CREDENTIALS.AWS_SECRET_ACCESS_KEY}`, date),
  );
  return hmac(signingKey, toSign).toString("hex") === signature ? undefined : "The signature does not match.";
}
