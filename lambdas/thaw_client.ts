/**
 * What both functions share: the call to Thaw with its retries, the secret, the reading of unknown
 * events and the log line. Nothing but Node's own modules, so that the bundles stay small.
 */
import { setTimeout as sleep } from "node:timers/promises";

/** Thaw answers within 2 s even when its database is away, so a longer silence is no answer. */
const TRY_TIMEOUT_MS = 5_000;
/** A restart of the server lasts a second or two; what lasts longer is left to AWS's own retries. */
const MAX_TRIES = 4;
/** Below the 30 s that a function is given, so that the failure is ours and carries its reason. */
const BUDGET_MS = 20_000;
/** Kept back from the time Lambda leaves us, to log and to throw. */
const RESERVE_MS = 500;
/** The first wait between tries; each further one doubles. */
const BACKOFF_MS = 200;
/** An error page is quoted, not reprinted. */
const MAX_QUOTE_LENGTH = 500;
/** What the server demands of its secrets; a shorter one is a placeholder that somebody forgot. */
const MIN_SECRET_LENGTH = 32;

/** The one thing we need of Lambda's second argument. */
export interface InvocationContext {
  getRemainingTimeInMillis(): number;
}

/** When (in `Date.now()` time) an invocation must have its answers. */
export function deadlineOf(context?: InvocationContext): number {
  const remaining_ms = context?.getRemainingTimeInMillis() ?? Infinity;
  return Date.now() + Math.max(0, Math.min(BUDGET_MS, remaining_ms - RESERVE_MS));
}

/** Optional fields are left out rather than sent empty. */
export type ThawBody = Record<string, string | undefined>;

/**
 * Posts one JSON body to Thaw and returns its answer.
 *
 * Delivers at least once: a try whose answer got lost is repeated, and Thaw recognises repeats.
 * Retries what passes by itself (network, 429, 5xx) until `deadline`; everything else throws at once,
 * with a message that says what to do. The secret is in no message.
 */
export async function postToThaw(
  path: "/restore/request" | "/restore/completed",
  body: ThawBody,
  deadline: number = deadlineOf(),
): Promise<JsonObject> {
  const url = thawUrl(path);
  const text = JSON.stringify(body);
  let secret = await currentSecret(deadline);
  let refreshed = false;

  for (let tries = 1; ; tries++) {
    const attempt = await tryOnce(url, text, secret, deadline);
    if (attempt.kind === "done") return attempt.answer;

    // The secret may have been rotated since this process read it; a second refusal is final.
    if (attempt.kind === "unauthorized" && !refreshed) {
      const newer = await newerSecret(secret, deadline);
      refreshed = true;
      if (newer !== undefined) {
        secret = newer;
        continue;
      }
    }
    const problem = `POST ${url.href}: ${attempt.problem}`;
    if (attempt.kind !== "passing") throw new Error(problem);
    if (tries >= MAX_TRIES) throw new Error(`${problem} (gave up after ${tries} tries)`);
    const wait_ms = attempt.wait_ms ?? backoff(tries);
    // Not even a short last try: coming back earlier than asked keeps an overloaded server down.
    if (Date.now() + wait_ms >= deadline) throw new Error(`${problem} (no time left for another try)`);
    await sleep(wait_ms);
  }
}

type Attempt =
  | { kind: "done"; answer: JsonObject }
  | { kind: "passing"; problem: string; wait_ms?: number | undefined }
  | { kind: "unauthorized" | "final"; problem: string };

async function tryOnce(url: URL, text: string, secret: string, deadline: number): Promise<Attempt> {
  let response: Response;
  let answer: string;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", "x-restore-secret": secret },
      body: text,
      // Following would hand the secret to whoever the answer names.
      redirect: "manual",
      signal: AbortSignal.timeout(timeoutWithin(deadline)),
    });
    // Something in between may echo our headers, and answers are quoted in errors.
    answer = (await response.text()).replaceAll(secret, "[secret]");
  } catch (error) {
    return { kind: "passing", problem: `no answer: ${reasonOf(error)}` };
  }

  const { status } = response;
  if (status === 429 || status >= 500) {
    return {
      kind: "passing",
      problem: `answered ${status}: ${quote(answer)}`,
      wait_ms: retryAfter(response),
    };
  }
  if (response.ok) {
    const parsed = parseJson(answer);
    if (isObject(parsed) && parsed["ok"] === true) return { kind: "done", answer: parsed };
    return {
      kind: "final",
      problem: `answered ${status}, but not as Thaw does: ${quote(answer)}. Check THAW_URL.`,
    };
  }
  switch (status) {
    case 400:
      return {
        kind: "final",
        problem: `refused as invalid (400): ${issuesIn(answer)}. Repeating it will not help.`,
      };
    case 401:
      return {
        kind: "unauthorized",
        problem:
          "the secret differs (401). Set RESTORE_SECRET, or what RESTORE_SECRET_ARN names, to one that the server accepts.",
      };
    case 404:
      return { kind: "final", problem: "no such route (404). Check the host and path of THAW_URL." };
    default:
      return {
        kind: "final",
        problem: status < 400 ? redirectProblem(response) : `answered ${status}: ${quote(answer)}`,
      };
  }
}

// Only the origin is named: the rest of the address is what somebody else chose to write there.
function redirectProblem({ status, headers, url }: Response): string {
  const target = URL.parse(headers.get("location") ?? "", url)?.origin ?? "nowhere";
  return `answered ${status}, a redirect to ${target}, which is not followed: it would carry the secret away. Set THAW_URL to the final address.`;
}

/** THAW_URL with our path; throws unless the secret can travel there safely. */
function thawUrl(path: string): URL {
  const value = process.env["THAW_URL"] ?? "";
  const base = URL.parse(value);
  // The value is not quoted: it may hold a password.
  if (base === null) throw new Error("THAW_URL is missing or no URL. Set it to https://<host of Thaw>.");
  if (base.username !== "" || base.password !== "") {
    throw new Error("THAW_URL must not hold a user name or password.");
  }
  if (base.protocol !== "https:" && !(base.protocol === "http:" && isLoopback(base.hostname))) {
    throw new Error(
      `THAW_URL must begin with https:// (it begins with ${base.protocol}//): the secret never travels over plain HTTP, except to this very machine.`,
    );
  }
  return new URL(base.pathname.replace(/\/+$/, "") + path, base.origin);
}

// URL has brought every spelling of an IPv4 address ("127.1", "0x7f.1") into dotted form by now.
const isLoopback = (hostname: string): boolean =>
  hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);

/** Full jitter over the upper half: many functions that failed together must not return together. */
const backoff = (tries: number): number => BACKOFF_MS * 2 ** (tries - 1) * (0.5 + Math.random() / 2);

const timeoutWithin = (deadline: number): number =>
  Math.max(1, Math.min(TRY_TIMEOUT_MS, Math.floor(deadline - Date.now())));

/** Retry-After holds seconds or a date; anything else counts as absent. */
function retryAfter(response: Response): number | undefined {
  const value = response.headers.get("retry-after")?.trim();
  if (value === undefined || value === "") return undefined;
  if (/^\d+$/.test(value)) return Number(value) * 1_000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}

/** What Thaw says is wrong with the body, field by field. */
function issuesIn(answer: string): string {
  const parsed = parseJson(answer);
  const error = isObject(parsed) ? parsed["error"] : undefined;
  if (!isObject(error)) return quote(answer);
  const message = textOf(error["message"]) ?? "no message";
  return error["issues"] === undefined ? message : `${message} ${quote(JSON.stringify(error["issues"]))}`;
}

const quote = (text: string): string =>
  text.length > MAX_QUOTE_LENGTH ? `${text.slice(0, MAX_QUOTE_LENGTH)}...` : text || "(empty)";

/** fetch says only "fetch failed"; the cause knows why. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return "timed out";
  const { cause } = error;
  if (!(cause instanceof Error)) return error.message;
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : cause.name;
  return cause.message.includes(code) ? cause.message : `${code} ${cause.message}`.trim();
}

// The secret

/** Read once per process: an invocation that has to ask again pays for it in time. */
let cached: { arn: string; secret: Promise<string> } | undefined;

async function currentSecret(deadline: number): Promise<string> {
  const value = process.env["RESTORE_SECRET"];
  if (value !== undefined && value !== "") return firstSecret(value, "RESTORE_SECRET");
  const arn = process.env["RESTORE_SECRET_ARN"] ?? "";
  if (arn === "") throw new Error("Set RESTORE_SECRET_ARN (in AWS) or RESTORE_SECRET (elsewhere).");

  if (cached?.arn !== arn) {
    const secret = fetchSecret(arn, deadline);
    const entry = { arn, secret };
    cached = entry;
    // A failure is not worth keeping: the next invocation asks again.
    secret.catch(() => {
      if (cached === entry) cached = undefined;
    });
  }
  return cached.secret;
}

/** The secret that replaced `refused`, or undefined when there is none. */
async function newerSecret(refused: string, deadline: number): Promise<string | undefined> {
  // Calls that are refused together ask once: the first one to come here empties the cache.
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
 * Asks the AWS Parameters and Secrets Lambda Extension, a layer that answers on this machine: so the
 * bundle needs no AWS SDK. The extension keeps values itself (300 s unless told otherwise).
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
    // Outside the retries: a value that cannot be used stays so.
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
    // It says 400 to a wrong name, but also while it is still starting: so this is tried again.
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

// Reading what comes from outside

/** Parsed JSON of which nothing is known but that it is an object. */
export type JsonObject = Record<string, unknown>;

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The text, or undefined where AWS left a field out or empty. */
export const textOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined;

/** The parsed text, or undefined when it is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A field that an event of ours must have; without it the event belongs into the dead-letter queue. */
export function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new Error(`Unreadable event: ${name} is missing or of the wrong kind.`);
  return value;
}

/** A time as AWS writes it, or undefined when it is absent; throws when it is no time. */
export function timeOf(value: unknown, name: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (
    typeof value === "string" &&
    /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value) &&
    !Number.isNaN(Date.parse(value))
  ) {
    return value;
  }
  throw new Error(`Unreadable event: ${name} is not a UTC time: ${quote(JSON.stringify(value))}.`);
}

/** Undoes form encoding ("+" is a space); throws on a stray "%". */
export function decodeForm(text: string, name: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw new Error(`Unreadable event: ${name} is not URL-encoded: ${quote(text)}.`);
  }
}

/** One line per event, so that a log query finds each one's fate. */
export function log(line: { lambda: string; outcome: "sent" | "ignored" | "failed" } & JsonObject): void {
  console.log(JSON.stringify(line));
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
