/** The call to Thaw. */
import type { IncomingHttpHeaders } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

import { Permanent, Unreachable } from "./failures.ts";
import { isObject, parseJson, quote, textOf, type JsonObject } from "./fields.ts";
import { post, type Answer } from "./post.ts";
import { currentSecret, newerSecret } from "./secret.ts";
import { backoff, deadlineOf, MAX_TRIES, reasonOf } from "./tries.ts";
import { safeUrl } from "./urls.ts";

/** Optional fields are left out rather than sent empty. */
export type ThawBody = Record<string, string | undefined>;

export type ThawPath = "/restore/request" | "/restore/completed";

/**
 * Posts one JSON body to Thaw and returns its response.
 *
 * Delivers at least once: a try whose response is lost is repeated, and Thaw recognises repeats. Retries transient errors
 * (network, 408, 429, 5xx) until `retry_until`; everything else throws at once, with a message that says what to do. The secret
 * is in no message.
 *
 * @throws Permanent when Thaw refuses this very event, Unreachable when it would take no other one either; else an Error.
 */
export async function postToThaw(
  path: ThawPath,
  body: ThawBody,
  deadline: number = deadlineOf(),
  retry_until: number = deadline,
): Promise<JsonObject> {
  const url = thawUrl(path);
  const text = JSON.stringify(body);
  let secret = await reachable(currentSecret(deadline));
  let refreshed = false;

  for (let tries = 1; ; tries++) {
    const attempt = await tryOnce(url, text, secret, deadline);
    if (attempt.kind === "done") return attempt.answer;

    // The secret may have been rotated since this process read it; a second refusal is final.
    if (attempt.kind === "unauthorized" && !refreshed) {
      const newer = await reachable(newerSecret(secret, deadline));
      refreshed = true;
      if (newer !== undefined) {
        secret = newer;
        continue;
      }
    }
    const problem = `POST ${url.href}: ${attempt.problem}`;
    if (attempt.kind === "refused") throw new Permanent("REFUSED", problem);
    if (attempt.kind === "unauthorized" || attempt.kind === "misconfigured") throw new Unreachable(problem);
    const failed = attempt.kind === "silent" ? Unreachable : Error;
    if (tries >= MAX_TRIES) throw new failed(`${problem} (gave up after ${tries} tries)`);
    const wait_ms = attempt.wait_ms ?? backoff(tries);
    // No short last try: a retry earlier than asked keeps an overloaded server down.
    if (Date.now() + wait_ms >= retry_until) throw new failed(`${problem} (no time left for another try)`);
    await sleep(wait_ms);
  }
}

/** Without a secret no event gets through. */
const reachable = <T>(secret: Promise<T>): Promise<T> =>
  secret.catch((error: unknown) => {
    throw new Unreachable(reasonOf(error), { cause: error });
  });

type Attempt =
  | { kind: "done"; answer: JsonObject }
  /** Passing: no whole answer, or one that asks for another try. */
  | { kind: "silent" | "busy"; problem: string; wait_ms?: number | undefined }
  /** Final, for this event alone. */
  | { kind: "refused"; problem: string }
  /** Final, for all events. */
  | { kind: "unauthorized"; problem: string }
  | { kind: "misconfigured"; problem: string };

async function tryOnce(url: URL, text: string, secret: string, deadline: number): Promise<Attempt> {
  let response: Answer;
  try {
    const headers = { "content-type": "application/json", "x-restore-secret": secret };
    // It follows no redirect, which would send the secret to the host that the response names.
    response = await post(url, headers, text, deadline);
  } catch (error) {
    return { kind: "silent", problem: `no answer: ${reasonOf(error)}` };
  }

  const { status, headers } = response;
  // A proxy may echo our headers, and responses are quoted in errors.
  const answer = response.text.replaceAll(secret, "[secret]");
  // 408: the body came too slowly, which happens to anybody on a busy machine, and nothing was taken.
  if (status === 408 || status === 429 || status >= 500) {
    return { kind: "busy", problem: `answered ${status}: ${quote(answer)}`, wait_ms: retryAfter(headers) };
  }
  if (status >= 200 && status < 300) {
    const parsed = parseJson(answer);
    if (isObject(parsed) && parsed["ok"] === true) return { kind: "done", answer: parsed };
    return {
      kind: "misconfigured",
      problem: `answered ${status}, but not as Thaw does: ${quote(answer)}. Check THAW_URL.`,
    };
  }
  switch (status) {
    case 400:
    case 413:
    case 422: {
      const issues = issuesIn(answer);
      // A proxy has refusals of its own, and those are not the event's fault.
      if (issues === undefined) break;
      return {
        kind: "refused",
        problem: `refused as invalid (${status}): ${issues}. Repeating it will not help.`,
      };
    }
    case 401:
      return {
        kind: "unauthorized",
        problem:
          "the secret differs (401). Set RESTORE_SECRET, or what RESTORE_SECRET_ARN names, to one that the server accepts.",
      };
    case 404:
      return { kind: "misconfigured", problem: "no such route (404). Check the host and path of THAW_URL." };
  }
  return {
    kind: "misconfigured",
    problem: status < 400 ? redirectProblem(url, status, headers) : `answered ${status}: ${quote(answer)}`,
  };
}

// Only the origin is quoted: the rest of the address is chosen by the responding host.
function redirectProblem(url: URL, status: number, { location }: IncomingHttpHeaders): string {
  const target = URL.parse(location ?? "", url.href)?.origin ?? "nowhere";
  return `answered ${status}, a redirect to ${target}, which is not followed: it would carry the secret away. Set THAW_URL to the final address.`;
}

/** THAW_URL with our path. @throws unless the secret can be sent there safely. */
function thawUrl(path: string): URL {
  const base = safeUrl("THAW_URL");
  return new URL(base.pathname.replace(/\/+$/, "") + path, base.origin);
}

/** Retry-After holds seconds or a date; anything else counts as absent. */
function retryAfter(headers: IncomingHttpHeaders): number | undefined {
  const value = headers["retry-after"]?.trim();
  if (value === undefined || value === "") return undefined;
  if (/^\d+$/.test(value)) return Number(value) * 1_000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now());
}

/** Thaw's own codes for a body that it will never take (server/http/errors.ts). */
const REFUSALS = new Set(["invalid_request", "too_large", "unprocessable"]);

/** What Thaw says is wrong with the body, field by field; undefined when it is not Thaw that speaks. */
function issuesIn(answer: string): string | undefined {
  const parsed = parseJson(answer);
  const error = isObject(parsed) ? parsed["error"] : undefined;
  if (!isObject(error) || !REFUSALS.has(textOf(error["code"]) ?? "")) return undefined;
  const message = textOf(error["message"]) ?? "no message";
  return error["issues"] === undefined ? message : `${message} ${quote(JSON.stringify(error["issues"]))}`;
}
