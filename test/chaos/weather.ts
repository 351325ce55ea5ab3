/** What goes wrong, and when: decided from the seed before it begins. */
import type { Fault as ResendFault } from "../stand_ins/resend.ts";
import type { FaultRule } from "../stand_ins/s3.ts";

export type Blow =
  | { at_ms: number; what: "kill" | "terminate"; process: number }
  /** Longer than the lease, which lasts a second in a storm. */
  | { at_ms: number; what: "pause"; process: number; for_ms: number }
  | { at_ms: number; what: "stop postgres"; mode: "immediate" | "fast"; for_ms: number };

/** Blows until `until_ms`, one every second and a half or so; Postgres about every six seconds, as others stop theirs. */
export function planBlows(random: () => number, processes: number, until_ms: number): Blow[] {
  const blows: Blow[] = [];
  let next_postgres_ms = 6_000;
  for (let at_ms = 1_000; at_ms < until_ms; at_ms += 700 + random() * 1_600) {
    const process = Math.floor(random() * processes);
    if (at_ms >= next_postgres_ms) {
      const mode = random() < 0.5 ? "immediate" : "fast";
      blows.push({ at_ms, what: "stop postgres", mode, for_ms: random() * 2_000 });
      next_postgres_ms = at_ms + 4_000 + random() * 4_000;
      continue;
    }
    const dice = random();
    if (dice < 0.4) blows.push({ at_ms, what: "kill", process });
    else if (dice < 0.75) blows.push({ at_ms, what: "pause", process, for_ms: 2_000 + random() * 4_000 });
    else blows.push({ at_ms, what: "terminate", process });
  }
  return blows;
}

/** "kill worker", "pause server", "stop postgres fast". */
export const kindOf = (blow: Blow, names: string[]): string =>
  blow.what === "stop postgres"
    ? `${blow.what} ${blow.mode}`
    : `${blow.what} ${names[blow.process]?.split(" ")[0]}`;

/** Each call meets at most one of these. Those that hang are few: each holds its caller for many seconds. */
const S3_FAULTS: FaultRule[] = [
  { with: "hang", times: 3, probability: 0.01 },
  { with: "slow_down", probability: 0.05 },
  { with: "internal_error", probability: 0.03 },
  { with: "reset", probability: 0.03 },
  { with: "drop_after_accept", probability: 0.06 },
  { with: "garbage", probability: 0.02 },
  { with: "garbage", status: 200, probability: 0.02 },
  { with: "latency", latency_ms: 150, probability: 0.2 },
];

const RESEND_FAULTS: ResendFault[] = [
  { kind: "hang", times: 1, probability: 0.02 },
  { kind: "slow", delay_ms: 1_500, probability: 0.08 },
  { kind: "rate_limit_exceeded", retry_after_s: 1, probability: 0.04 },
  { kind: "application_error", probability: 0.08 },
  { kind: "service_unavailable", probability: 0.04 },
  { kind: "html_502", probability: 0.05 },
  { kind: "reset", probability: 0.06 },
  { kind: "accept_then_hang", times: 1, probability: 0.02 },
  { kind: "accept_then_drop", probability: 0.15 },
  { kind: "accept_then_truncate", probability: 0.06 },
  { kind: "accept_then_html", probability: 0.05 },
];

export interface Weather {
  /** Whether processes and Postgres are struck. */
  blows: boolean;
  s3: FaultRule[];
  resend: ResendFault[];
  /** Lasts until so many mail calls were spoiled, however slow the machine. */
  spoiled_mail_calls?: number;
}

/** Four in ten of the spoiled mail calls were taken all the same: enough of them are repeated. */
export const WORST: Weather = { blows: true, s3: S3_FAULTS, resend: RESEND_FAULTS, spoiled_mail_calls: 40 };

/** Nothing but mails whose fate is unclear. */
export const LOST_ANSWERS: Weather = {
  blows: false,
  s3: [],
  resend: [
    { kind: "accept_then_drop", probability: 0.3 },
    { kind: "reset", probability: 0.3 },
  ],
  spoiled_mail_calls: 20,
};
