import { Resend } from "resend";

import type { WorkerConfig } from "../config.ts";
import { withTimeLimit } from "../time_limit.ts";

/** A claimed notification, as `claim_notifications` returns it. */
export interface ClaimedMail {
  id: string;
  claim_id: string;
  email: string;
  /** The frozen JSON that Resend gets. */
  body: string;
  /** Since when it may have been sent already, before this claim; null: certainly not sent. */
  uncertain_since_before: Date | null;
  /** The rate limit by which its send slot was reserved. */
  calls_per_second: number;
}

/** The outcome of one send. */
export type MailAnswer =
  | { outcome: "sent"; resend_id: string }
  /** Time-out, reset, 5xx: perhaps sent. A retry must have the same key and body. */
  | { outcome: "uncertain"; code: string; message: string }
  /** Certainly not sent, for a reason that concerns every mail (rate, quota, key), or every one of this sender. */
  | { outcome: "gate"; wait_seconds: number; code: string; message: string; for_sender?: true }
  /** Certainly not sent, perhaps because of a former sender in its frozen body: concerns this mail only. */
  | { outcome: "refused"; code: string; message: string }
  /** Certainly not sent, and never will be: a bad address. */
  | { outcome: "failed"; code: string; message: string }
  /** Resend knows this idempotency key with another body: a mail was sent under it. */
  | { outcome: "unknown"; code: string; message: string };

export interface Mailer {
  send(mail: ClaimedMail, signal: AbortSignal): Promise<MailAnswer & { calls_per_second: number | null }>;
}

/** Well below the lease of a minute, so that no other worker sends the mail meanwhile. */
export const SEND_TIMEOUT_MS = 20_000;

/** A revoked key or an unverified domain needs a person; retry this often. */
const MISCONFIGURED_WAIT_SECONDS = 300;

/** Resend's daily quota resets at 00:00 UTC: an hourly retry is enough. Also the longest wait that we obey. */
const QUOTA_WAIT_SECONDS = 3600;

/** Resend's limits count per second, and it usually says how long to wait. */
const RATE_WAIT_SECONDS = 1;

/** The sender as fields of Resend's request. */
export const senderOf = (
  settings: Partial<Pick<WorkerConfig, "MAIL_FROM" | "MAIL_REPLY_TO">>,
): { from?: string; reply_to?: string } => ({
  ...(settings.MAIL_FROM !== undefined && { from: settings.MAIL_FROM }),
  ...(settings.MAIL_REPLY_TO !== undefined && { reply_to: settings.MAIL_REPLY_TO }),
});

/** @throws when no HTTP header can carry the key; the error quotes it. */
export const resendClient = (settings: Pick<WorkerConfig, "RESEND_API_KEY" | "RESEND_BASE_URL">): Resend =>
  new Resend(settings.RESEND_API_KEY, {
    ...(settings.RESEND_BASE_URL !== undefined && { baseUrl: settings.RESEND_BASE_URL }),
  });

/** Sends through Resend, and interprets its responses (source: resend.com/docs, errors, idempotency keys, rate limits). */
export function createMailer(
  settings: Pick<WorkerConfig, "RESEND_API_KEY" | "RESEND_BASE_URL"> &
    Partial<Pick<WorkerConfig, "MAIL_FROM" | "MAIL_REPLY_TO">>,
  timeout_ms = SEND_TIMEOUT_MS,
): Mailer {
  const resend = resendClient(settings);
  const sender = senderOf(settings);
  return {
    async send(mail, signal) {
      const body = JSON.parse(mail.body) as typeof sender;
      const { data, error, headers } = await withTimeLimit(timeout_ms, signal, (limited) =>
        resend.post<{ id: string }>("/emails", body, {
          // Ours and constant: Resend answers a repeat with the first mail's id and sends nothing.
          idempotencyKey: `thaw/${mail.id}`,
          signal: limited,
        }),
      );
      const calls_per_second = limitOf(headers);
      if (error === null && typeof data?.id === "string") {
        return { outcome: "sent", resend_id: data.id, calls_per_second };
      }
      // The frozen body may have a former sender of ours.
      const isOurs =
        sender.from === undefined || (body.from === sender.from && body.reply_to === sender.reply_to);
      return { ...meaningOf(error, headers, isOurs), calls_per_second };
    },
  };
}

/** Refusals that a setting of ours causes, not the mail: no mail may fail because of them. */
const OUR_KEY = /api[ _]key/i;
const OUR_SENDER = /`(from|reply_to)`|domain|invalid_from_address/i;
const OUR_SETTING = /`(from|reply_to)`|api key/i;

/** By status first: the names differ between Resend's documents and its client. */
function meaningOf(
  // As it came over the wire, whatever the client's types say.
  error: { name?: unknown; message?: unknown; statusCode?: unknown } | null,
  headers: Record<string, string> | null,
  isOurSender: boolean,
): MailAnswer {
  const code = textOr(error?.name, "no_answer");
  const message = textOr(error?.message, "Resend's answer could not be read.");
  const uncertain: MailAnswer = { outcome: "uncertain", code, message };
  const gate = (wait_seconds: number) => ({ outcome: "gate" as const, wait_seconds, code, message });
  const status = Number(error?.statusCode);
  switch (status) {
    case 429:
      return gate(
        retryAfter(headers) ?? (code.endsWith("quota_exceeded") ? QUOTA_WAIT_SECONDS : RATE_WAIT_SECONDS),
      );
    // The account, or a RESEND_BASE_URL that leads elsewhere.
    case 402:
    case 404:
    case 405:
      return gate(MISCONFIGURED_WAIT_SECONDS);
    case 408:
      return uncertain;
    case 409:
      return code === "invalid_idempotent_request" ? { outcome: "unknown", code, message } : uncertain;
  }
  // No response, or a fault of Resend's. The client says application_error also for a page that is not Resend's JSON: the
  // 403 of a proxy or firewall proves nothing.
  if (!(status >= 400 && status < 500) || code === "application_error") return uncertain;
  if (status !== 401 && status !== 403 && code !== "invalid_from_address" && !OUR_SETTING.test(message))
    return { outcome: "failed", code, message };
  const reason = `${code} ${message}`;
  if (!isOurSender && !OUR_KEY.test(reason)) return { outcome: "refused", code, message };
  return {
    ...gate(MISCONFIGURED_WAIT_SECONDS),
    ...(OUR_SENDER.test(reason) && !OUR_KEY.test(reason) && { for_sender: true }),
  };
}

const textOr = (value: unknown, otherwise: string): string => (typeof value === "string" ? value : otherwise);

const retryAfter = (headers: Record<string, string> | null): number | undefined => {
  const seconds = Number(headers?.["retry-after"]);
  return seconds > 0 ? Math.min(seconds, QUOTA_WAIT_SECONDS) : undefined;
};

/** Resend's rate limit, in calls per second; every response states it. */
const limitOf = (headers: Record<string, string> | null): number | null => {
  const calls = Number(headers?.["ratelimit-limit"]);
  return calls > 0 && calls < Infinity ? calls : null;
};
