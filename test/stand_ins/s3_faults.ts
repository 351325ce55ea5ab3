import { seededRandom } from "./random.ts";
import { accessDenied, S3Error } from "./s3_wire.ts";

/** What goes wrong. */
export type FaultKind =
  | "slow_down" // 503, as when asked too often.
  | "internal_error" // 500.
  | "service_unavailable" // 503.
  | "access_denied" // 403.
  | "error" // Any status and code: give them with the rule, and headers if it has some of its own.
  | "headers" // All is done, and answered with other headers than S3's: give them with the rule.
  | "hang" // No answer until the client goes or the stand-in closes.
  | "reset" // The connection is cut before anything is done.
  | "drop_after_accept" // Everything is done, and the connection cut before the answer.
  | "garbage" // HTML and no header of S3's, as some web server on the way sends it; status 502, or the rule's.
  | "latency"; // latency_ms later the request goes on as usual.

/** A bad day: which requests it strikes (all that it does not narrow), how, and how often. */
export interface FaultRule {
  with: FaultKind;
  operation?: string;
  bucket?: string;
  key?: string;
  key_prefix?: string;
  /** How many requests it strikes before it is used up; without it, until removed. */
  times?: number;
  /** Strikes each matching request with this probability (0 to 1). */
  probability?: number;
  latency_ms?: number;
  status?: number;
  code?: string;
  message?: string;
  /** By name in small letters; undefined takes one of S3's away. */
  headers?: Record<string, string | undefined>;
}

/** A rule in force. */
export interface Fault {
  readonly rule: FaultRule;
  /** How many requests it has struck. */
  struck: number;
  remove(): void;
}

/** What a request has to go through. */
export interface Verdict {
  delay_ms: number;
  fault: FaultRule | undefined;
}

const HARMLESS: Verdict = { delay_ms: 0, fault: undefined };

/** The rules in force. Dice come from a seed, so that a bad run can be run again. */
export class Faults {
  private rules: Fault[] = [];
  private random: () => number;

  constructor(seed: number) {
    this.random = seededRandom(seed);
  }

  add(rule: FaultRule): Fault {
    const fault: Fault = {
      rule,
      struck: 0,
      remove: () => {
        this.rules = this.rules.filter((other) => other !== fault);
      },
    };
    this.rules.push(fault);
    return fault;
  }

  clear(): void {
    this.rules = [];
  }

  /** The first rule that strikes decides; delays add up on the way to it. */
  strike(request: { operation: string; bucket: string | undefined; key: string | undefined }): Verdict {
    if (this.rules.length === 0) return HARMLESS;
    let delay = 0;
    for (const fault of this.rules) {
      const { rule } = fault;
      if (rule.operation !== undefined && rule.operation !== request.operation) continue;
      if (rule.bucket !== undefined && rule.bucket !== request.bucket) continue;
      if (rule.key !== undefined && rule.key !== request.key) continue;
      if (rule.key_prefix !== undefined && request.key?.startsWith(rule.key_prefix) !== true) continue;
      if (rule.probability !== undefined && this.random() >= rule.probability) continue;
      fault.struck += 1;
      if (rule.times !== undefined && fault.struck >= rule.times) fault.remove();
      delay += rule.latency_ms ?? 0;
      if (rule.with !== "latency") return { delay_ms: delay, fault: rule };
    }
    return { delay_ms: delay, fault: undefined };
  }
}

/** The refusal a rule stands for; undefined for those that do not answer with one. */
export function faultError(rule: FaultRule): S3Error | undefined {
  switch (rule.with) {
    case "slow_down":
      return new S3Error(503, "SlowDown", "Please reduce your request rate.");
    case "internal_error":
      return new S3Error(500, "InternalError", "We encountered an internal error. Please try again.");
    case "service_unavailable":
      return new S3Error(503, "ServiceUnavailable", "Service is unable to handle request.");
    case "access_denied":
      return accessDenied();
    case "error":
      return new S3Error(
        rule.status ?? 500,
        rule.code ?? "InternalError",
        rule.message ?? "Scripted error.",
        {},
        rule.headers,
      );
    case "headers":
    case "hang":
    case "reset":
    case "drop_after_accept":
    case "garbage":
    case "latency":
      return undefined;
  }
}
