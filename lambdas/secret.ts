/** The secret that the server requires: from the environment, or from AWS. */
import { setTimeout as sleep } from "node:timers/promises";

import { isObject, parseJson, quote } from "./fields.ts";
import { backoff, MAX_TRIES, reasonOf, timeoutWithin } from "./tries.ts";

/** The server's own minimum (server/config.ts); a shorter value is a forgotten placeholder. */
const MIN_SECRET_LENGTH = 32;

/** Cached per process: reading it takes time of an invocation. */
let cached: { arn: string; secret: Promise<string> } | undefined;

/** The secret to send. @throws when the environment names none, or it cannot be read. */
export async function currentSecret(deadline: number): Promise<string> {
  const value = process.env["RESTORE_SECRET"];
  if (value !== undefined && value !== "") return firstSecret(value, "RESTORE_SECRET");
  const arn = process.env["RESTORE_SECRET_ARN"] ?? "";
  if (arn === "") throw new Error("Set RESTORE_SECRET_ARN (in AWS) or RESTORE_SECRET (elsewhere).");

  if (cached?.arn !== arn) {
    const secret = fetchSecret(arn, deadline);
    const entry = { arn, secret };
    cached = entry;
    // Failures are not cached: the next invocation reads again.
    secret.catch(() => {
      if (cached === entry) cached = undefined;
    });
  }
  return cached.secret;
}

/** The secret that replaced `refused`, or undefined when there is none. */
export async function newerSecret(refused: string, deadline: number): Promise<string | undefined> {
  // Of calls that are refused together only the first clears the cache, so the secret is read once.
  const entry = cached;
  if (entry !== undefined && (await entry.secret) === refused && cached === entry) cached = undefined;
  const secret = await currentSecret(deadline);
  return secret === refused ? undefined : secret;
}

/** The server accepts several, separated by commas, while they are rotated; we send the first. */
function firstSecret(value: string, source: string): string {
  const first = value.split(",")[0]?.trim() ?? "";
  // Checked here because fetch would quote a header value that it cannot send, and so log the secret.
  if (!/^[\x21-\x7e]+$/.test(first) || first.length < MIN_SECRET_LENGTH) {
    throw new Error(
      `${source} must be plain text of at least ${MIN_SECRET_LENGTH} ASCII characters without spaces (not JSON).`,
    );
  }
  return first;
}

/**
 * Asks the AWS Parameters and Secrets Lambda Extension, a layer with a local HTTP server, so that the bundle needs no AWS
 * SDK. The extension caches values (300 s by default).
 */
async function fetchSecret(arn: string, deadline: number): Promise<string> {
  const port = process.env["PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"] ?? "2773";
  const isParameter = /^arn:[^:]+:ssm:/.test(arn);
  // GetParameter takes the ARN as a name. A name cut out of the ARN would lose its leading slash.
  const path = isParameter
    ? `/systemsmanager/parameters/get?name=${encodeURIComponent(arn)}&withDecryption=true`
    : `/secretsmanager/get?secretId=${encodeURIComponent(arn)}`;

  let problem = "";
  for (let tries = 1; tries <= MAX_TRIES; tries++) {
    const attempt = await askExtension(`http://localhost:${port}${path}`, deadline);
    // Thrown, not retried: an unusable value stays unusable.
    if ("answer" in attempt) return firstSecret(secretIn(attempt.answer, isParameter), arn);
    problem = attempt.problem;
    const wait_ms = backoff(tries);
    if (Date.now() + wait_ms >= deadline) break;
    if (tries < MAX_TRIES) await sleep(wait_ms);
  }
  const action = isParameter ? "ssm:GetParameter" : "secretsmanager:GetSecretValue";
  throw new Error(
    `Could not read ${arn} through the AWS Parameters and Secrets Lambda Extension on port ${port}: ${problem}. ` +
      `Attach the extension's layer to the function and allow its role ${action}.`,
  );
}

async function askExtension(
  url: string,
  deadline: number,
): Promise<{ answer: string } | { problem: string }> {
  try {
    const response = await fetch(url, {
      headers: { "x-aws-parameters-secrets-token": process.env["AWS_SESSION_TOKEN"] ?? "" },
      redirect: "error",
      signal: AbortSignal.timeout(timeoutWithin(deadline)),
    });
    const answer = await response.text();
    if (response.ok) return { answer };
    // It responds 400 to a wrong name, but also while it is starting: so this is retried.
    return { problem: `it answered ${response.status}: ${quote(answer)}` };
  } catch (error) {
    return { problem: `no answer: ${reasonOf(error)}` };
  }
}

function secretIn(answer: string, isParameter: boolean): string {
  const parsed = parseJson(answer);
  const parameter = isObject(parsed) ? parsed["Parameter"] : undefined;
  const value = isParameter
    ? isObject(parameter) && parameter["Value"]
    : isObject(parsed) && parsed["SecretString"];
  return typeof value === "string" ? value : "";
}
