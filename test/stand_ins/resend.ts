import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { inboxPage } from "./inbox.ts";
import { seededRandom } from "./random.ts";

/** One mail that a person would now have. */
export interface DeliveredMail {
  id: string;
  at: Date;
  idempotency_key: string | undefined;
  from: string;
  to: string[];
  subject: string;
  /** Empty when the mail came without that part. */
  html: string;
  text: string;
  cc?: string[];
  bcc?: string[];
  reply_to?: string[];
  tags?: { name: string; value: string }[];
  headers?: Record<string, unknown>;
  /** The request body as it came, so that a repeat can be compared byte by byte. */
  body: string;
}

/** One call of the API, noted when it arrives. */
export interface ResendRequest {
  /** Milliseconds since the epoch, for measuring pauses between tries. */
  at: number;
  idempotency_key?: string;
  /** The recipients, as far as the body named any. */
  to: string[];
  /** "dropped": the caller got no whole answer (or none yet). */
  status: number | "dropped";
  /** Resend's name of the error, if one was told. */
  name?: string;
  /** The id of an earlier delivery was given again. */
  replayed: boolean;
  /** This call put a mail into the inbox, whatever the caller was told. */
  delivered: boolean;
  /** The scripted fault that this call met. */
  fault?: FaultKind;
}

/** Answered before anything happened: no mail, no key kept. */
const REFUSALS = {
  rate_limit_exceeded: [429, "rate_limit_exceeded", "Too many requests."],
  daily_quota_exceeded: [429, "daily_quota_exceeded", "You have reached your daily email quota."],
  monthly_quota_exceeded: [429, "monthly_quota_exceeded", "You have reached your monthly email quota."],
  invalid_api_key: [403, "invalid_api_key", "API key is invalid."],
  restricted_api_key: [401, "restricted_api_key", "This API key may not do that."],
  suspended_api_key: [403, "suspended_api_key", "This API key is suspended."],
  // Resend has no name of its own for this one.
  domain_not_verified: [403, "validation_error", "The domain is not verified. Please add and verify it."],
  invalid_idempotent_request: [
    409,
    "invalid_idempotent_request",
    "This key came with another payload before.",
  ],
  concurrent_idempotent_requests: [409, "concurrent_idempotent_requests", "This key is in use right now."],
  application_error: [500, "application_error", "An unexpected error occurred."],
  service_unavailable: [503, "service_unavailable", "Please try again later."],
} as const satisfies Record<string, readonly [number, string, string]>;

type RefusalKind = keyof typeof REFUSALS;

/** Met before the mail is looked at. */
type EarlyKind = RefusalKind | "hang" | "reset" | "html_502" | "slow";

/** Met when the mail is accepted: what makes a caller's repeat dangerous. */
type LateKind = "accept_then_drop" | "accept_then_hang" | "accept_then_truncate" | "accept_then_html";

/**
 * What can go wrong. `hang`, `reset`, `html_502` and Resend's own error names leave nothing behind;
 * the `accept_then_*` kinds deliver (or replay) and then spoil the answer; `slow` only takes
 * `delay_ms` longer, with its key in use meanwhile.
 */
export type FaultKind = EarlyKind | LateKind;

interface Rule<Kind extends FaultKind> {
  kind: Kind;
  /** Only calls with this recipient. */
  to?: string;
  /** Only calls with this sender, as the body names it. */
  from?: string;
  /** How often it happens before the rule is spent; without it, until removed. */
  times?: number;
  /** Chance from 0 to 1 for each call that fits; 1 unless told. */
  probability?: number;
  /** Sent as `retry-after` with a refusal; the rate limit says 1 unless told. */
  retry_after_s?: number;
  /** Of `slow`. */
  delay_ms?: number;
  /** Another status for a refusal: Resend's pages and its answers differ in some (401 and 403). */
  status?: number;
}

/** A scripted fault: of all that fit a call, the one added first happens to it. */
export type Fault = Rule<EarlyKind> | Rule<LateKind>;

/** May be changed while it runs. */
export interface ResendLimits {
  requests_per_second: number;
  /** Between taking a mail and having delivered it; the key is in use for that long. */
  latency_ms: number;
  key_life_ms: number;
}

/** What the dashboard says; may be changed while it runs. */
export interface ResendAccount {
  /** "sending": the key may send and nothing else, as production's should. */
  access: "sending" | "full";
  domains: { name: string; status: string }[];
}

/** A running stand-in for Resend. */
export interface ResendStandIn {
  /** Base URL for the SDK (`RESEND_BASE_URL`). */
  url: string;
  /** The page for people. */
  inboxUrl: string;
  /** The only key it lets in. */
  api_key: string;
  /** What really went out, in order, each once. */
  mails: DeliveredMail[];
  /** Every call of POST /emails, in order of arrival. */
  requests: ResendRequest[];
  limits: ResendLimits;
  account: ResendAccount;
  /** Adds a rule behind the others. Call the result to remove it. */
  addFault: (fault: Fault) => () => void;
  /** Removes all rules: the weather is fine again. */
  clearFaults: () => void;
  /** Answers 422 for every mail to this address. Call the result to allow it again. */
  refuse: (address: string) => () => void;
  /** Makes all remembered keys older, as if that much time had passed. */
  ageKeys: (by_ms: number) => void;
  /** Forgets mails (those on their way too), calls, keys, faults and refused addresses; limits stay. */
  clear: () => void;
  /** Ends all connections, hanging ones too. Nothing is delivered afterwards. */
  close: () => Promise<void>;
}

/** How to start one. */
export interface ResendStandInOptions {
  api_key?: string;
  /** 0, any free one, unless told. */
  port?: number;
  latency_ms?: number;
  /** 10,000 unless told: out of the way. */
  requests_per_second?: number;
  /** Repeats the same dice for faults with a probability. */
  seed?: number;
  /** 24 h unless told, as Resend says. */
  key_life_ms?: number;
}

interface Answer {
  status: number;
  body: string;
  name?: string;
  type?: string;
  headers?: Record<string, string>;
}

interface KeptKey {
  body: string;
  at: number;
  /** Null while the first call with this key is under way. */
  mail_id: string | null;
}

type Fields = Omit<DeliveredMail, "id" | "at" | "idempotency_key" | "body">;

const HTML_ERROR = "<!doctype html><html><body><h1>502 Bad Gateway</h1><hr>cloudflare</body></html>";

/**
 * Starts a stand-in that treats the real SDK as Resend does: keys, limits, refusals, and the ways in
 * which an answer gets lost. Everything lives in memory, on 127.0.0.1.
 */
export async function startResendStandIn(options: ResendStandInOptions = {}): Promise<ResendStandIn> {
  const api_key = options.api_key ?? "re_stand_in";
  const limits: ResendLimits = {
    requests_per_second: options.requests_per_second ?? 10_000,
    latency_ms: options.latency_ms ?? 0,
    key_life_ms: options.key_life_ms ?? 24 * 60 * 60 * 1000,
  };
  const account: ResendAccount = {
    access: "sending",
    domains: [{ name: "example.com", status: "verified" }],
  };
  const mails: DeliveredMail[] = [];
  const requests: ResendRequest[] = [];
  const keys = new Map<string, KeptKey>();
  const refused = new Set<string>();
  const random = seededRandom(options.seed ?? 1);
  const earlyFaults = faultList<EarlyKind>(random);
  const lateFaults = faultList<LateKind>(random);
  let rateLimit = countPerSecond(limits);
  let stopping = new AbortController();

  async function takeMail(request: IncomingMessage, response: ServerResponse, body: string): Promise<void> {
    const key = request.headers["idempotency-key"]?.toString();
    const json = parseJson(body);
    const noted: ResendRequest = {
      at: Date.now(),
      ...(key !== undefined && { idempotency_key: key }),
      to: recipientsOf(json),
      status: "dropped",
      replayed: false,
      delivered: false,
    };
    requests.push(noted);
    const sender = (json as { from?: unknown } | null | undefined)?.from;

    const quota = rateLimit();
    const reply = (answer: Answer): void => {
      if (response.destroyed) return; // The caller has gone: it stays "dropped".
      noted.status = answer.status;
      if (answer.name !== undefined) noted.name = answer.name;
      send(response, { ...answer, headers: { ...quota.headers, ...answer.headers } });
    };

    const denied = checkKey(request.headers.authorization, api_key) ?? quota.exceeded;
    if (denied !== undefined) return reply(denied);

    const early = earlyFaults.meet(noted.to, sender);
    if (early !== undefined) {
      noted.fault = early.kind;
      if (early.kind === "hang") return; // Until the caller goes, or close().
      if (early.kind === "reset") return void request.socket.resetAndDestroy();
      if (early.kind === "html_502") return reply({ status: 502, body: HTML_ERROR, type: "text/html" });
      if (early.kind !== "slow") return reply(refusal({ ...early, kind: early.kind }));
    }

    const answer = await accept(key, body, json, noted, early?.delay_ms ?? 0);
    const late = answer.status === 200 ? lateFaults.meet(noted.to, sender) : undefined;
    if (late === undefined) return reply(answer);
    noted.fault = late.kind;
    switch (late.kind) {
      case "accept_then_hang":
        return;
      case "accept_then_drop":
        return void request.socket.destroy();
      case "accept_then_html":
        return reply({ status: 200, body: HTML_ERROR, type: "text/html" });
      case "accept_then_truncate":
        response.writeHead(200, {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(answer.body),
        });
        return void response.write(answer.body.slice(0, -10), () => request.socket.destroy());
    }
  }

  /** Takes one mail, or tells why not. Goes on when the caller leaves, as the real one would. */
  async function accept(
    key: string | undefined,
    body: string,
    json: unknown,
    noted: ResendRequest,
    slow_ms: number,
  ): Promise<Answer> {
    if (key !== undefined && (key.length < 1 || key.length > 256)) {
      return problem(400, "invalid_idempotency_key", "The key must be between 1-256 chars.");
    }
    const fields = readFields(json);
    if ("status" in fields) return fields;

    const kept = key === undefined ? undefined : keys.get(key);
    if (kept !== undefined && (kept.mail_id === null || Date.now() - kept.at < limits.key_life_ms)) {
      // By value: the order of the fields and the spacing do not count.
      if (kept.body !== body && !isDeepStrictEqual(parseJson(kept.body), json)) {
        return refusal({ kind: "invalid_idempotent_request" });
      }
      if (kept.mail_id === null) return refusal({ kind: "concurrent_idempotent_requests" });
      noted.replayed = true;
      return { status: 200, body: JSON.stringify({ id: kept.mail_id }) };
    }

    const bad = noted.to.find((address) => refused.has(address));
    if (bad !== undefined)
      return problem(422, "validation_error", `Invalid \`to\` field. ${bad} is refused.`);

    const mine: KeptKey = { body, at: Date.now(), mail_id: null };
    if (key !== undefined) keys.set(key, mine);
    const wait_ms = limits.latency_ms + slow_ms;
    if (wait_ms > 0) await delay(wait_ms, undefined, { signal: stopping.signal });

    const mail = { id: randomUUID(), at: new Date(), idempotency_key: key, ...fields, body };
    mails.push(mail);
    mine.mail_id = mail.id;
    mine.at = Date.now();
    noted.delivered = true;
    return { status: 200, body: JSON.stringify({ id: mail.id }) };
  }

  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("error", () => {}); // The caller broke off; nobody is left to answer.
    request.on("end", () => {
      const url = URL.parse(`http://127.0.0.1${request.url}`);
      if (url === null) return send(response, problem(400, "validation_error", "No such URL."));
      if (request.method === "POST" && url.pathname === "/emails") {
        const { signal } = stopping;
        takeMail(request, response, Buffer.concat(chunks).toString()).catch((error: unknown) => {
          response.destroy();
          // close() or clear() cut a wait short. Anything else must not pass for a lost answer.
          if (!signal.aborted) throw error;
        });
        return;
      }
      const page = request.method === "GET" ? inboxPage(mails, url) : undefined;
      send(response, page ?? otherEndpoint(request, url, api_key, account));
    });
  });
  // Node's 5 s would now and then cut a connection just as the caller reuses it: a fault nobody scripted.
  server.keepAliveTimeout = 10 * 60 * 1000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port ?? 0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The stand-in listens on no port.");
  const url = `http://127.0.0.1:${address.port}`;

  return {
    url,
    inboxUrl: `${url}/inbox`,
    api_key,
    mails,
    requests,
    limits,
    account,
    addFault: (fault) => (isLate(fault) ? lateFaults.add(fault) : earlyFaults.add(fault)),
    clearFaults: () => {
      earlyFaults.clear();
      lateFaults.clear();
    },
    refuse: (address) => {
      refused.add(bareAddress(address));
      return () => void refused.delete(bareAddress(address));
    },
    ageKeys: (by_ms) => {
      for (const kept of keys.values()) kept.at -= by_ms;
    },
    clear: () => {
      // Else a mail of the last test would arrive in the next one.
      stopping.abort();
      stopping = new AbortController();
      mails.length = 0;
      requests.length = 0;
      earlyFaults.clear();
      lateFaults.clear();
      keys.clear();
      rateLimit = countPerSecond(limits);
      refused.clear();
    },
    close: async () => {
      stopping.abort();
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Rules in the order they were added. */
function faultList<Kind extends FaultKind>(random: () => number) {
  let rules: { rule: Rule<Kind>; left: number }[] = [];
  return {
    add(rule: Rule<Kind>): () => void {
      const added = { rule, left: rule.times ?? Infinity };
      rules.push(added);
      return () => {
        rules = rules.filter((other) => other !== added);
      };
    },
    /** The rule that happens to a call with these recipients and this sender, if any. */
    meet(to: string[], from: unknown): Rule<Kind> | undefined {
      const met = rules.find(
        ({ rule, left }) =>
          left > 0 &&
          (rule.to === undefined || to.includes(bareAddress(rule.to))) &&
          (rule.from === undefined || rule.from === from) &&
          (rule.probability === undefined || random() < rule.probability),
      );
      if (met !== undefined) met.left -= 1;
      return met?.rule;
    },
    clear(): void {
      rules = [];
    },
  };
}

/** Counts calls in windows of one second, as the `ratelimit-*` headers tell it. */
function countPerSecond(limits: ResendLimits) {
  let started = -Infinity;
  let used = 0;
  return (): { headers: Record<string, string>; exceeded: Answer | undefined } => {
    const now = performance.now();
    if (now - started >= 1000) {
      started = now;
      used = 0;
    }
    const isOver = used >= limits.requests_per_second;
    if (!isOver) used += 1;
    // In this order: adding 1000 first can round up to a second too many.
    const reset = String(Math.ceil((1000 - (now - started)) / 1000));
    return {
      headers: {
        "ratelimit-limit": String(limits.requests_per_second),
        // The limit may have been lowered since.
        "ratelimit-remaining": String(Math.max(0, limits.requests_per_second - used)),
        "ratelimit-reset": reset,
      },
      exceeded: isOver ? refusal({ kind: "rate_limit_exceeded", retry_after_s: Number(reset) }) : undefined,
    };
  };
}

function checkKey(authorization: string | undefined, api_key: string): Answer | undefined {
  if (authorization === undefined || !/^Bearer \S/.test(authorization)) {
    return problem(401, "missing_api_key", "Missing API key in the authorization header.");
  }
  return authorization === `Bearer ${api_key}` ? undefined : refusal({ kind: "invalid_api_key" });
}

function otherEndpoint(request: IncomingMessage, url: URL, api_key: string, account: ResendAccount): Answer {
  const denied = checkKey(request.headers.authorization, api_key);
  if (denied !== undefined) return denied;
  const isDomains = url.pathname === "/domains";
  if (request.method === "GET" && (isDomains || url.pathname.startsWith("/emails"))) {
    return isDomains && account.access === "full"
      ? domainsPage(account, url)
      : refusal({ kind: "restricted_api_key" });
  }
  if (url.pathname === "/emails") return problem(405, "method_not_allowed", "Method is not allowed.");
  return problem(404, "not_found", "The stand-in knows POST /emails, GET /domains and the inbox.");
}

function domainsPage({ domains }: ResendAccount, url: URL): Answer {
  const start = domains.findIndex(({ name }) => name === url.searchParams.get("after")) + 1;
  const end = start + Number(url.searchParams.get("limit") ?? domains.length);
  const data = domains.slice(start, end).map(({ name, status }) => ({ id: name, name, status }));
  return {
    status: 200,
    body: JSON.stringify({ object: "list", has_more: end < domains.length, data }),
  };
}

const isLate = (fault: Fault): fault is Rule<LateKind> => fault.kind.startsWith("accept_then_");

function problem(statusCode: number, name: string, message: string): Answer {
  return { status: statusCode, name, body: JSON.stringify({ statusCode, name, message }) };
}

function refusal(fault: Rule<RefusalKind>): Answer {
  const [status, name, message] = REFUSALS[fault.kind];
  const retry_after_s = fault.retry_after_s ?? (fault.kind === "rate_limit_exceeded" ? 1 : undefined);
  return {
    ...problem(fault.status ?? status, name, message),
    ...(retry_after_s !== undefined && { headers: { "retry-after": String(retry_after_s) } }),
  };
}

function send(response: ServerResponse, answer: Answer): void {
  response.writeHead(answer.status, {
    "content-type": answer.type ?? "application/json",
    "content-length": Buffer.byteLength(answer.body),
    ...answer.headers,
  });
  response.end(answer.body);
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const asList = (value: unknown): unknown[] =>
  value === undefined || value === null ? [] : Array.isArray(value) ? value : [value];

/** "Ann <Ann@example.com>" and "ann@example.com" are one recipient. */
const bareAddress = (address: string): string =>
  (/<([^<>]*)>$/.exec(address.trim())?.[1] ?? address).trim().toLowerCase();

function recipientsOf(json: unknown): string[] {
  return asList(isRecord(json) ? json["to"] : undefined).flatMap((to) =>
    typeof to === "string" ? [bareAddress(to)] : [],
  );
}

/** Local part in ASCII, a domain with a dot: not all of RFC 5321, but what a typing error breaks. */
const ADDRESS = /^[!#-'*+\-/-9=?A-Z^-~.]{1,64}@[^\s@<>(),;:"[\]\\.]+(\.[^\s@<>(),;:"[\]\\.]+)+$/;

function isAddress(value: unknown): value is string {
  if (typeof value !== "string" || value.length > 1000 || /[\r\n]/.test(value)) return false;
  const address = /^[^<>]*<([^<>]+)>$/.exec(value.trim())?.[1] ?? value;
  return ADDRESS.test(address) && address.length <= 254 && !/^\.|\.\.|\.@/.test(address);
}

const invalidAddress = (field: string, name = "validation_error"): Answer =>
  problem(
    422,
    name,
    `Invalid \`${field}\` field. Use \`email@example.com\` or \`Name <email@example.com>\`.`,
  );

const missing = (field: string): Answer => problem(422, "missing_required_field", `Missing ${field} field.`);

/** The body's fields in one shape, or Resend's first complaint about them. */
function readFields(json: unknown): Fields | Answer {
  if (!isRecord(json)) return problem(400, "validation_error", "The body is not a JSON object.");
  const { from, subject, tags, headers, ...rest } = json;

  if (from === undefined || from === null || from === "") return missing("`from`");
  if (!isAddress(from)) return invalidAddress("from", "invalid_from_address");

  const to = asList(rest["to"]);
  if (to.length === 0) return missing("`to`");
  if (to.length > 50) return problem(422, "validation_error", "The `to` field has more than 50 addresses.");
  if (!to.every(isAddress)) return invalidAddress("to");

  const others: Pick<Fields, "cc" | "bcc" | "reply_to"> = {};
  for (const field of ["cc", "bcc", "reply_to"] as const) {
    const addresses = asList(rest[field]);
    if (!addresses.every(isAddress)) return invalidAddress(field);
    if (addresses.length > 0) others[field] = addresses;
  }

  if (typeof subject !== "string" || subject === "") return missing("`subject`");
  if (/[\r\n]/.test(subject)) return problem(422, "validation_error", "Line breaks in the `subject` field.");

  const html = rest["html"] ?? "";
  const text = rest["text"] ?? "";
  if (typeof html !== "string" || typeof text !== "string") {
    return problem(422, "validation_error", "`html` and `text` must be strings.");
  }
  if (html === "" && text === "") return missing("`html` or `text`");

  const labels = asList(tags);
  if (!labels.every(isTag)) {
    return problem(422, "validation_error", "Tags take ASCII letters, digits, underscores and dashes only.");
  }

  return {
    from,
    to,
    subject,
    html,
    text,
    ...others,
    ...(labels.length > 0 && { tags: labels }),
    ...(isRecord(headers) && { headers }),
  };
}

function isTag(tag: unknown): tag is { name: string; value: string } {
  if (!isRecord(tag)) return false;
  return [tag["name"], tag["value"]].every((part) => typeof part === "string" && /^[\w-]{1,256}$/.test(part));
}
