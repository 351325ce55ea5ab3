/** The call to Thaw. The functions import only Node's own modules, so that the bundles stay small. */
import { setTimeout as sleep } from "node:timers/promises";

import { isObject, parseJson, quote, textOf, type JsonObject } from "./fields.ts";
import { currentSecret, newerSecret } from "./secret.ts";
import { backoff, deadlineOf, MAX_TRIES, reasonOf, timeoutWithin } from "./tries.ts";

/** Optional fields are left out rather than sent empty. */
export type ThawBody = Record<string, string | undefined>;

export type ThawPath = "/restore/request" | "/restore/completed";

/**
 * Posts one JSON body to Thaw and returns its response.
 *
 * Delivers at least once: a try whose response is lost is repeated, and Thaw recognises repeats. Retries transient errors
 * (network, 429, 5xx) until `deadline`; everything else throws at once, with a message that says what to do. The secret is
 * in no message.
 */
export async function postToThaw(
  path: ThawPath,
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
    // No short last try: a retry earlier than asked keeps an overloaded server down.
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
      // Following would send the secret to the host that the response names.
      redirect: "manual",
      signal: AbortSignal.timeout(timeoutWithin(deadline)),
    });
    // A proxy may echo our headers, and responses are quoted in errors.
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

// Only the origin is quoted: the rest of the address is chosen by the responding host.
function redirectProblem({ status, headers, url }: Response): string {
  const target = URL.parse(headers.get("location") ?? "", url)?.origin ?? "nowhere";
  return `answered ${status}, a redirect to ${target}, which is not followed: it would carry the secret away. Set THAW_URL to the final address.`;
}

/** THAW_URL with our path. @throws unless the secret can be sent there safely. */
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

// URL has normalised every form of an IPv4 address ("127.1", "0x7f.1") to four numbers.
const isLoopback = (hostname: string): boolean =>
  hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);

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
