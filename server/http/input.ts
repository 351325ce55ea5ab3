import { z } from "zod";

import { BUCKET_NAME, REGION_NAME } from "../s3/names.ts";

/**
 * What callers may send. Keys are bytes to us: never normalised, never decoded; what cannot be stored byte for
 * byte is refused. Unknown fields are refused too: a misspelt version_id must not restore another version.
 */

/** Zod's own message does not say that the field is missing. */
const string = () =>
  z.string({ error: ({ input }) => (input === undefined ? "is missing" : "must be a string") });

const text = (max_bytes: number) =>
  string()
    .refine((value) => Buffer.byteLength(value) <= max_bytes, {
      message: `must not be longer than ${max_bytes} bytes`,
    })
    .refine((value) => value.isWellFormed(), { message: "must not contain a lone surrogate" })
    .refine((value) => !value.includes("\0"), { message: "must not contain NUL" });

/** mailto: is the reader of an order (sql/orders.sql), which only operators make. */
const who = (max_bytes: number) =>
  text(max_bytes).refine((value) => !/^mailto:/i.test(value), {
    message: "must be what AWS names, not an address",
  });

const filled = (max_bytes: number) => text(max_bytes).min(1, "must not be empty");

const bucket = string().regex(new RegExp(`^${BUCKET_NAME}$`), "must be the name of an S3 bucket");

/** Zod accepts times that Postgres does not (year 0, +23:00, endless fractions), so they are normalised to UTC. */
const time = z.iso
  .datetime({ offset: true, error: "must be an ISO 8601 time with zone, like 2026-11-20T10:15:30Z" })
  .transform((value) => new Date(value))
  .refine((value) => value.getUTCFullYear() >= 1970 && value.getUTCFullYear() <= 9999, {
    message: "must lie between the years 1970 and 9999",
  })
  .transform((value) => value.toISOString());

/** S3 allows 1,024 bytes for keys and version ids; IAM 2,048 characters for an ARN. */
const object = {
  s3_bucket: bucket,
  s3_key: filled(1024),
  version_id: text(1024).optional(),
  event_id: text(256).optional(),
  event_time: time.optional(),
};

const body = <Fields extends z.ZodRawShape>(fields: Fields) =>
  z.strictObject(fields, {
    error: ({ code }) => (code === "invalid_type" ? "must be a JSON object" : undefined),
  });

export const restoreRequest = body({
  ...object,
  access_key_id: string()
    .regex(/^[\w-]{0,128}$/, "must be an AWS access key id")
    .optional(),
  principal_arn: who(2048).optional(),
  account_id: text(64).optional(),
  source_identity: text(256).optional(),
  principal_id: who(256).optional(),
  on_behalf_of: text(256).optional(),
  region: string().regex(REGION_NAME, "must be an AWS region like eu-central-1").optional(),
  // refused: S3 refused the read. looked: a tool looked by HEAD and gave up, which proves nothing; Thaw asks S3 itself.
  evidence: z.enum(["refused", "looked"], { error: 'must be "refused" or "looked"' }).optional(),
});

export const restoreCompleted = body({ ...object, restore_expires_at: time.optional() });

export type RestoreRequest = z.infer<typeof restoreRequest>;
export type RestoreCompleted = z.infer<typeof restoreCompleted>;
