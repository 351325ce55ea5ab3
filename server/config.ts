import { z } from "zod";

import { isAddress, isDomain, isMailbox } from "./settings/address.ts";
import { databaseUrlProblem } from "./settings/database_url.ts";
import { awsAndResend, HEADER_VALUE, httpUrl, postgres } from "./settings/libraries.ts";
import { TIERS } from "./s3/storage_class.ts";

/** What a process does. Only the settings of its roles are required. */
export type Role = "migrate" | "server" | "worker" | "pages";

/** Digits only: Number() takes " " for 0 and "0x10" for 16. */
const number = (pattern: RegExp, kind: string, from: number, to: number) =>
  z
    .string()
    .refine(
      (text) => pattern.test(text) && Number(text) >= from && Number(text) <= to,
      `must be a ${kind} from ${from} to ${to}`,
    )
    .transform(Number);

const whole = (from: number, to: number) => number(/^\d+$/, "whole number", from, to);

/** Shorter secrets can be guessed. */
const SECRET_LENGTH = 32;

const secrets = z
  .string("is missing: one secret, or several separated by commas")
  .transform((text) => text.split(",").map((secret) => secret.trim()))
  .refine((list) => list.every((secret) => secret.length >= SECRET_LENGTH), {
    message: `each secret must have at least ${SECRET_LENGTH} characters; make one with: openssl rand -hex 32`,
  })
  .refine((list) => list.every((secret) => HEADER_VALUE.test(secret)), {
    message: "use printable ASCII only: it travels in an HTTP header",
  });

/** What fits into an Authorization header (RFC 6750), and cannot be guessed. */
const metricsToken = z
  .string()
  .regex(
    new RegExp(`^[\\w.~+/-]{${SECRET_LENGTH},}=*$`),
    `must have at least ${SECRET_LENGTH} letters, digits or . _ ~ + / -; make one with: openssl rand -hex 32`,
  );

const mailbox = z.string("is missing").refine(isMailbox, "must be an address like 'Thaw <thaw@example.com>'");

const domains = z
  .string()
  .default("")
  .transform((text) =>
    text
      .split(",")
      .map((domain) => domain.trim().toLowerCase())
      .filter((domain) => domain !== ""),
  )
  // Session names are ASCII (AWS). A domain does not include its subdomains.
  .refine(
    (list) => list.every(isDomain),
    "must be domains like example.com, separated by commas: without @, * or a dot at the end, others than ASCII as xn--...",
  );

const accounts = z
  .string()
  .default("")
  .transform((text) =>
    text
      .split(",")
      .map((account) => account.trim())
      .filter((account) => account !== ""),
  )
  .refine(
    (list) => list.every((account) => /^\d{12}$/.test(account)),
    "must be the 12 digits of AWS accounts, separated by commas",
  );

const addresses = z
  .string()
  .default("")
  .transform((text) => [
    ...new Map(
      text
        .split(",")
        .map((address) => address.trim())
        .filter((address) => address !== "")
        .map((address) => [address.toLowerCase(), address]),
    ).values(),
  ])
  .refine(
    (list) => list.every(isAddress),
    "must be bare addresses like ann@example.com, separated by commas",
  );

/** Any password works behind a slow log-in; a short one is guessed all the same. */
const PASSWORD_LENGTH = 16;

const common = z.object({
  DATABASE_URL: z
    .string("is missing: a postgres:// URL, or 'embedded' to try Thaw out")
    .superRefine((text, issues) => {
      const message = text === "embedded" ? null : databaseUrlProblem(text);
      if (message !== null) issues.addIssue({ code: "custom", message });
    }),
  LOG_LEVEL: z.enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"]).default("info"),
  // Debounce of mails: the quiet time before a mail goes out, and the longest wait.
  NOTIFY_QUIET_SECONDS: whole(0, 86_400).default(120),
  NOTIFY_MAX_WAIT_SECONDS: whole(0, 86_400).default(900),
  // The caller who assumes a role chooses the session's name, so no domain is trusted by default.
  SESSION_EMAIL_DOMAINS: domains,
  // The administrators of another account choose any name for their sessions, so none is trusted by default.
  SESSION_ACCOUNTS: accounts,
});

const server = z.object({
  RESTORE_SECRET: secrets,
  // Plain HTTP, so loopback by default; a proxy in front terminates TLS.
  HOST: z.string().default("127.0.0.1"),
  PORT: whole(0, 65_535).default(3000),
});

/**
 * The operator's pages, and /metrics on the same listener. Pages are off without a password: they show addresses and ARNs, and act.
 * Figures name nobody, so a token is not needed for them where there are pages; without either nobody has asked for the listener.
 */
const pages = z.object({
  OPS_PASSWORD: z
    .string()
    .min(
      PASSWORD_LENGTH,
      `must have at least ${PASSWORD_LENGTH} characters; make one with: openssl rand -base64 18`,
    )
    .regex(HEADER_VALUE, "use printable ASCII without spaces: it travels in an HTTP header")
    .optional(),
  METRICS_TOKEN: metricsToken.optional(),
  PAGES_HOST: z.string().default("127.0.0.1"),
  PAGES_PORT: whole(0, 65_535).default(3001),
  PAGES_DATABASE_URL: z
    .string()
    .superRefine((text, issues) => {
      const message = databaseUrlProblem(text);
      if (message !== null) issues.addIssue({ code: "custom", message });
    })
    .optional(),
  // What browsers see before the proxy: forms are taken from this origin only.
  PUBLIC_URL: httpUrl.optional(),
});

/** settings/libraries.ts checks the form of AWS_* and RESEND_*. */
const worker = z.object({
  RESEND_API_KEY: z.string("is missing: see resend.com/api-keys").min(1, "is empty"),
  RESEND_BASE_URL: z.string().optional(),
  MAIL_FROM: mailbox,
  MAIL_REPLY_TO: mailbox.optional(),
  // Who hears of holds and of limits that are nearly used up, and whom readers may ask.
  APPROVERS: addresses,
  // Where APPROVERS find the page of a hold.
  PUBLIC_URL: httpUrl.optional(),
  AWS_REGION: z.string().optional(),
  AWS_ENDPOINT_URL_S3: z.string().optional(),
  // Unset: the identity store is not asked.
  IDENTITY_STORE_ID: z
    .string()
    .regex(
      /^(d-[0-9a-f]{10}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$/,
      "must be the id of an identity store, like d-1234567890 (IAM Identity Center, Settings)",
    )
    .optional(),
  // Identity Center's, which has one home region.
  IDENTITY_STORE_REGION: z.string().optional(),
  AWS_ENDPOINT_URL_IDENTITYSTORE: z.string().optional(),
  S3_FORCE_PATH_STYLE: z.enum(["true", "false"]).default("false"),
  // S3 rounds the end up to the next midnight UTC, so 7 is at least a full week.
  RESTORE_DAYS: whole(1, 365).default(7),
  RESTORE_TIER: z.enum(TIERS).default("Standard"),
  POLL_AFTER_HOURS: number(/^\d+(\.\d+)?$/, "number", 0, 1000).default(23),
  // Unset: closed restores are kept for ever. Not shorter than any queue keeps an event: once the restore is deleted, a
  // late delivery looks like a new read and starts a paid restore.
  RETENTION_DAYS: whole(30, 36_500).optional(),
  // The five tasks, a second run of the two that call S3, and one spare.
  WORKER_CONCURRENCY: whole(1, 100).default(8),
  // Enough to hide S3's latency; beyond it the SDK's CPU cost is the limit (about 500 objects/s on two cores).
  S3_CONCURRENCY: whole(1, 1000).default(50),
});

export type Config = z.infer<typeof common> & {
  server?: z.infer<typeof server>;
  worker?: z.infer<typeof worker>;
  pages?: PagesConfig;
};
export type PagesConfig = z.infer<typeof pages>;
export type ServerConfig = z.infer<typeof server>;
export type WorkerConfig = z.infer<typeof worker>;

/** By which tier and for how long a worker of this environment restores what no policy is about. @throws ConfigError */
export function readRestoreDefaults(
  env: NodeJS.ProcessEnv,
): Pick<WorkerConfig, "RESTORE_TIER" | "RESTORE_DAYS"> {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value?.trim()));
  const result = worker.pick({ RESTORE_TIER: true, RESTORE_DAYS: true }).safeParse(given);
  if (result.success) return result.data;
  throw new ConfigError(
    result.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; "),
  );
}

/** Where a command finds S3, by its caller's own credentials. @throws ConfigError with all problems at once. */
export function readS3Settings(
  env: NodeJS.ProcessEnv,
): Pick<WorkerConfig, "AWS_REGION" | "AWS_ENDPOINT_URL_S3" | "S3_FORCE_PATH_STYLE" | "S3_CONCURRENCY"> {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value?.trim()));
  const result = worker
    .pick({ AWS_REGION: true, AWS_ENDPOINT_URL_S3: true, S3_FORCE_PATH_STYLE: true, S3_CONCURRENCY: true })
    .safeParse({ AWS_REGION: given["AWS_DEFAULT_REGION"], ...given });
  const problems = [result, awsAndResend.safeParse(given)].flatMap(({ error }) => error?.issues ?? []);
  if (result.success && problems.length === 0) return result.data;
  throw new ConfigError(
    `These settings need your attention (server/README.md, "Configuration"):\n${problems
      .map(({ path, message }) => `  ${path.join(".")}: ${message}`)
      .join("\n")}`,
  );
}

/** A problem that the operator can solve; the message says how. */
export class ConfigError extends Error {
  override name = "ConfigError";
}

/** Reads the environment. Empty variables count as absent. @throws ConfigError with all problems at once. */
export function readConfig(env: NodeJS.ProcessEnv, roles: readonly Role[]): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value?.trim()));
  const problems: string[] = [];
  const onlyPages = roles.length > 0 && roles.every((role) => role === "pages");
  // Pages on their own need no more than their own database role.
  if (onlyPages && given["PAGES_DATABASE_URL"] !== undefined)
    given["DATABASE_URL"] = given["PAGES_DATABASE_URL"];
  if (onlyPages && given["OPS_PASSWORD"] === undefined && given["METRICS_TOKEN"] === undefined)
    problems.push(
      "  OPS_PASSWORD: is missing, and so is METRICS_TOKEN: set the first for the pages, the second for /metrics alone",
    );
  const read = <S extends z.ZodType>(schema: S, from: object = given): z.infer<S> | undefined => {
    const result = schema.safeParse(from);
    if (result.success) return result.data;
    problems.push(...result.error.issues.map((issue) => `  ${issue.path.join(".")}: ${issue.message}`));
    return undefined;
  };
  const config = {
    common: read(common),
    server: roles.includes("server") ? read(server) : undefined,
    // The AWS command line reads both; the SDK for JavaScript reads AWS_REGION only.
    worker: roles.includes("worker")
      ? read(worker, { AWS_REGION: given["AWS_DEFAULT_REGION"], ...given })
      : undefined,
    pages: roles.includes("pages") ? read(pages) : undefined,
  };
  read(postgres);
  if (roles.includes("worker")) read(awsAndResend);
  if (
    config.common &&
    config.common.SESSION_ACCOUNTS.length > 0 &&
    config.common.SESSION_EMAIL_DOMAINS.length === 0
  )
    problems.push("  SESSION_EMAIL_DOMAINS: is missing: SESSION_ACCOUNTS is set, and is of no use alone");
  const { IDENTITY_STORE_ID, IDENTITY_STORE_REGION, AWS_REGION } = config.worker ?? {};
  if (IDENTITY_STORE_ID !== undefined && IDENTITY_STORE_REGION === undefined && AWS_REGION === undefined)
    problems.push(
      "  IDENTITY_STORE_REGION: is missing: IDENTITY_STORE_ID is set, and there is no AWS_REGION",
    );
  if (config.common && config.common.NOTIFY_MAX_WAIT_SECONDS < config.common.NOTIFY_QUIET_SECONDS) {
    problems.push("  NOTIFY_MAX_WAIT_SECONDS: must not be less than NOTIFY_QUIET_SECONDS");
  }
  if (problems.length > 0 || config.common === undefined) {
    throw new ConfigError(
      `These settings need your attention (server/README.md, "Configuration"):\n${[...new Set(problems)].join("\n")}`,
    );
  }
  return {
    ...config.common,
    ...(config.server && { server: config.server }),
    ...(config.worker && { worker: config.worker }),
    ...(config.pages && { pages: config.pages }),
  };
}

/**
 * Whose session names are trusted as addresses, as the SQL functions take it (find_person): domains, and the accounts of others
 * (12 digits, which no domain is).
 */
export const trustedSessions = (
  config: Pick<Config, "SESSION_EMAIL_DOMAINS" | "SESSION_ACCOUNTS">,
): string[] => [...config.SESSION_EMAIL_DOMAINS, ...config.SESSION_ACCOUNTS];

/** When a mail goes out: after `quiet` without further news, or `max_wait` after the first. Intervals as Postgres reads them. */
export interface Debounce {
  quiet: string;
  max_wait: string;
}

export function debounceOf(
  config: Pick<Config, "NOTIFY_QUIET_SECONDS" | "NOTIFY_MAX_WAIT_SECONDS">,
): Debounce {
  return {
    quiet: `${config.NOTIFY_QUIET_SECONDS} seconds`,
    max_wait: `${config.NOTIFY_MAX_WAIT_SECONDS} seconds`,
  };
}
