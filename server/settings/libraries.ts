import { existsSync } from "node:fs";

import { z } from "zod";

/**
 * What the AWS SDK, Resend's client and pg read from the environment by themselves. Checked here, because a typo would
 * otherwise become an obscure error of each file and mail ("invalid character in header", "getaddrinfo ENOTFOUND
 * s3.US-EAST-1...").
 */

/** Sent in an HTTP header, which a pasted newline, space or invisible character makes invalid. */
export const HEADER_VALUE = /^[\x21-\x7e]+$/;

const inHeader = z
  .string()
  .regex(HEADER_VALUE, "has a space, a line break or an invisible character in it: paste it again");

/** `localhost:9000` is a URL too, with the scheme "localhost:". */
export const httpUrl = z
  .string()
  .refine(
    (text) => /^https?:\/\/[^\s/]/i.test(text) && !/[^\x21-\x7e]/.test(text) && URL.canParse(text),
    "must be a URL that begins with http:// or https://",
  );

/** Becomes part of a host name: s3.eu-central-1.amazonaws.com. */
const region = z.string().regex(/^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$/, "must be a region like eu-central-1");

const file = z.string().refine((path) => existsSync(path), "names a file that is not there");

const flag = z.string().regex(/^(true|false)$/, "must be true or false");

/** The name of a profile or an ARN: an invisible character would make it another one. */
const plain = z
  .string()
  .regex(
    /^[^\p{C}\s](?:[^\p{C}]*[^\p{C}\s])?$/u,
    "has a space, a line break or an invisible character at its ends or in it",
  );

/** What AWS calls its regions; other stores may call theirs RegionOne. */
const AWS_REGION = /^[a-z]{2,}(-[a-z]+)+-\d+$/;

/** For workers. */
export const awsAndResend = z
  .object({
    AWS_REGION: region,
    AWS_DEFAULT_REGION: region,
    AWS_ACCESS_KEY_ID: inHeader,
    AWS_SECRET_ACCESS_KEY: inHeader,
    AWS_SESSION_TOKEN: inHeader,
    AWS_PROFILE: plain,
    AWS_ROLE_ARN: plain.regex(/^arn:/, "must be the ARN of a role"),
    AWS_WEB_IDENTITY_TOKEN_FILE: file,
    AWS_CONTAINER_AUTHORIZATION_TOKEN: inHeader,
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: file,
    AWS_CONTAINER_CREDENTIALS_FULL_URI: httpUrl,
    AWS_ENDPOINT_URL: httpUrl,
    AWS_ENDPOINT_URL_S3: httpUrl,
    AWS_ENDPOINT_URL_STS: httpUrl,
    AWS_ENDPOINT_URL_IDENTITYSTORE: httpUrl,
    IDENTITY_STORE_REGION: region.regex(
      AWS_REGION,
      "must be a region of AWS, in small letters: eu-central-1",
    ),
    AWS_MAX_ATTEMPTS: z.string().regex(/^[1-9]\d?$/, "must be a whole number from 1 to 99"),
    AWS_RETRY_MODE: z.string().regex(/^(standard|adaptive)$/, "must be standard or adaptive"),
    AWS_USE_FIPS_ENDPOINT: flag,
    AWS_USE_DUALSTACK_ENDPOINT: flag,
    RESEND_API_KEY: inHeader,
    RESEND_BASE_URL: httpUrl,
    RESEND_USER_AGENT: z.string().regex(/^[\x20-\x7e]+$/, "must be printable ASCII"),
  })
  .partial()
  .superRefine((given, context) => {
    const needs = (name: keyof typeof given, other: keyof typeof given): void => {
      if (given[name] === undefined || given[other] !== undefined) return;
      context.addIssue({
        code: "custom",
        path: [other],
        message: `is missing: ${name} is set, and is of no use alone`,
      });
    };
    const own_store = given.AWS_ENDPOINT_URL_S3 ?? given.AWS_ENDPOINT_URL;
    for (const name of ["AWS_REGION", "AWS_DEFAULT_REGION"] as const) {
      const text = given[name];
      if (text === undefined || !region.safeParse(text).success) continue;
      if (own_store !== undefined || AWS_REGION.test(text)) continue;
      const message = /-\d+[a-z]$/.test(text)
        ? "is a zone: leave out the letter at its end"
        : "must be a region of AWS, in small letters: eu-central-1";
      context.addIssue({ code: "custom", path: [name], message });
    }
    needs("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
    needs("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID");
    needs("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID");
    needs("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN");
  });

/** For all processes. pg uses these where DATABASE_URL says nothing; with an unknown mode it uses no TLS. */
export const postgres = z
  .object({
    PGSSLMODE: z
      .string()
      .regex(
        /^(disable|prefer|require|verify-ca|verify-full|no-verify)$/,
        "must be disable, prefer, require, verify-ca, verify-full or no-verify",
      ),
    PGPORT: z.string().regex(/^\d{1,5}$/, "must be a whole number"),
    PGCONNECT_TIMEOUT: z.string().regex(/^\d+$/, "must be a whole number"),
  })
  .partial();
