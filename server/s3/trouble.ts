import { S3ServiceException } from "@aws-sdk/client-s3";

import { answerOf, NotFromS3 } from "./answer.ts";
import { NoCredentials } from "./clients.ts";

/** Why S3 did not do what we asked: a code to search for, and a sentence for the person who waits. */
export interface Trouble {
  code: string;
  message: string;
}

const DENIED =
  "Thaw is not allowed to read or restore this file. An administrator must give Thaw's role access to it.";
const BAD_CREDENTIALS = "Thaw's own AWS credentials are not valid. An administrator must renew them.";
const OLD_CREDENTIALS = "Thaw's own AWS credentials have expired. An administrator must renew them.";
const ACCOUNT =
  "AWS has closed the account of this file, or of Thaw, to such requests. An administrator must look at it.";
const ELSEWHERE = "The bucket lies in another region than Thaw was told. An administrator must look at it.";
const BUSY = "S3 is busy. Thaw tries again by itself.";
const NOT_UNDERSTOOD = "S3 did not understand Thaw's request. An administrator should report this.";
const NOT_KNOWN = "This store does not know how to restore files. An administrator must look at it.";
const NO_S3 =
  "Something else than S3 answered, perhaps a proxy, or Thaw asks at a wrong address. Thaw tries again by itself.";
const NO_ANSWER = "S3 did not answer. Thaw tries again by itself.";

/** By S3's own code, where it has one. */
const SENTENCES: Record<string, string> = {
  AccessDenied: DENIED,
  AllAccessDisabled: DENIED,
  InvalidAccessKeyId: BAD_CREDENTIALS,
  SignatureDoesNotMatch: BAD_CREDENTIALS,
  InvalidToken: BAD_CREDENTIALS,
  ExpiredToken: OLD_CREDENTIALS,
  TokenRefreshRequired: OLD_CREDENTIALS,
  AccountProblem: ACCOUNT,
  NotSignedUp: ACCOUNT,
  RequestTimeTooSkewed: "The clock of Thaw's machine is wrong. An administrator must set it (NTP).",
  NoSuchBucket: "The bucket does not exist.",
  PermanentRedirect: ELSEWHERE,
  IllegalLocationConstraintException: ELSEWHERE,
  AuthorizationHeaderMalformed:
    "S3 does not accept Thaw's region or access key. An administrator must look at AWS_REGION and AWS_ACCESS_KEY_ID.",
  SlowDown: BUSY,
  ServiceUnavailable: BUSY,
  ThrottlingException: BUSY,
  RequestTimeout: "The connection to S3 broke off. Thaw tries again by itself.",
  MalformedXML: NOT_UNDERSTOOD,
  InvalidArgument: NOT_UNDERSTOOD,
  InvalidRequest: NOT_UNDERSTOOD,
  NotImplemented: NOT_KNOWN,
  MethodNotAllowed: NOT_KNOWN,
};

/** Whether a code of S3's means that no call with these credentials can succeed. */
export const refusesCredentials = (code: string): boolean =>
  SENTENCES[code] === BAD_CREDENTIALS || SENTENCES[code] === OLD_CREDENTIALS;

/** Families of codes: KMS's, which S3 passes on, and the limits. */
function sentenceFor(code: string): string | undefined {
  if (code.startsWith("KMS.")) {
    return `The key that this file is encrypted with cannot be used (${code}). An administrator must look at it in AWS KMS.`;
  }
  return SENTENCES[code] ?? (code.endsWith("LimitExceeded") ? BUSY : undefined);
}

/** By status, where there is no code: responses to HEAD have no body. */
const BY_STATUS: Record<number, Trouble> = {
  301: { code: "PermanentRedirect", message: ELSEWHERE },
  400: {
    code: "BadRequest",
    message:
      "S3 refuses to look at this file: it is encrypted with a customer's own key, or Thaw's AWS credentials have expired.",
  },
  403: {
    code: "AccessDenied",
    // S3 distinguishes the two only for callers who may list the bucket.
    message:
      "Thaw is not allowed to look at this file, or it has been deleted and Thaw may not list its bucket. An administrator must give Thaw's role s3:GetObject and s3:ListBucket.",
  },
  405: { code: "MethodNotAllowed", message: NOT_KNOWN },
  501: { code: "NotImplemented", message: NOT_KNOWN },
  503: { code: "SlowDown", message: BUSY },
};

/** What anything that the SDK throws means. */
export function troubleOf(error: unknown): Trouble {
  const provider = providerError(error);
  if (provider !== undefined) return withoutCredentials(provider);
  if (error instanceof NotFromS3) return { code: error.name, message: NO_S3 };
  const answer = answerOf(error);
  if (answer !== undefined) {
    const { status, code, signed } = answer;
    if (code === undefined && !signed && status < 500) return { code: "NotFromS3", message: NO_S3 };
    if (code === undefined && BY_STATUS[status] !== undefined) return BY_STATUS[status];
    const named = code ?? `HTTP${status}`;
    const message = sentenceFor(named) ?? `S3 answered ${status} (${named}). Thaw tries again by itself.`;
    return { code: named, message };
  }
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  // Node's own network errors: ECONNREFUSED, ECONNRESET, ENOTFOUND.
  const { code } = (error ?? {}) as { code?: unknown };
  if (typeof code === "string") return { code, message: NO_ANSWER };
  if (name === "AbortError" || name === "TimeoutError") return { code: "Timeout", message: NO_ANSWER };
  return { code: name, message: `Thaw cannot ask S3 (${message}). An administrator must look at it.` };
}

/** The credentials provider's error, also when credentials expire during a call. STS is a service of its own. */
function providerError(error: unknown): unknown {
  if (error instanceof NoCredentials) return error.cause ?? error;
  const { name, $fault } = (error ?? {}) as { name?: unknown; $fault?: unknown };
  const others = $fault !== undefined && !(error instanceof S3ServiceException);
  return others || name === "CredentialsProviderError" || name === "TokenProviderError" ? error : undefined;
}

/** Longer messages of a provider are a program's output. */
const MAX_MESSAGE_LENGTH = 200;

/** With a code of its own, since the provider's AccessDenied is not S3's, and the provider's message as the reason. */
function withoutCredentials(cause: unknown): Trouble {
  const { name, message } = cause instanceof Error ? cause : new Error(String(cause));
  // Node puts the whole command line there, and a credential_process may have a secret in it.
  const words = message.startsWith("Command failed") ? "credential_process failed" : message;
  const told = `${name}: ${words}`.replaceAll(/\p{Cc}+/gu, " ").slice(0, MAX_MESSAGE_LENGTH);
  return {
    code: "CredentialsProviderError",
    message: `Thaw has no AWS credentials (${told}). An administrator must give it some.`,
  };
}
