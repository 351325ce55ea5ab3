import { S3ServiceException } from "@aws-sdk/client-s3";

/** Why S3 did not do what we asked: a code to search for, and a sentence for the person who waits. */
export interface Trouble {
  code: string;
  message: string;
}

const DENIED =
  "Thaw is not allowed to read or restore this file. An administrator must give Thaw's role access to it.";

/** By S3's own code, where it has one. */
const SENTENCES: Record<string, string> = {
  AccessDenied: DENIED,
  AllAccessDisabled: DENIED,
  InvalidAccessKeyId: "Thaw's own AWS credentials are not valid. An administrator must renew them.",
  SignatureDoesNotMatch: "Thaw's own AWS credentials are not valid. An administrator must renew them.",
  ExpiredToken: "Thaw's own AWS credentials have expired. An administrator must renew them.",
  RequestTimeTooSkewed: "The clock of Thaw's machine is wrong. An administrator must set it (NTP).",
  CredentialsProviderError: "Thaw has no AWS credentials. An administrator must give it some.",
  NoSuchBucket: "The bucket does not exist.",
  PermanentRedirect:
    "The bucket lies in another region than Thaw was told. An administrator must look at it.",
  SlowDown: "S3 is busy. Thaw tries again by itself.",
  ThrottlingException: "S3 is busy. Thaw tries again by itself.",
  MalformedXML: "S3 did not understand Thaw's request. An administrator should report this.",
  InvalidArgument: "S3 did not understand Thaw's request. An administrator should report this.",
  NotFromS3: "Something else than S3 answered, perhaps a proxy. Thaw tries again by itself.",
};

/**
 * HEAD errors carry no body, hence no code of S3's: the status must do. 403 is also what S3 answers for a
 * missing file to who may not list the bucket.
 */
const BY_STATUS: Record<number, Trouble> = {
  301: { code: "PermanentRedirect", message: SENTENCES["PermanentRedirect"] as string },
  400: {
    code: "BadRequest",
    message:
      "S3 refuses to look at this file: it is encrypted with a customer's own key, or Thaw's AWS credentials have expired.",
  },
  403: { code: "AccessDenied", message: DENIED },
  // S3's only other 503, ServiceUnavailable, asks for the same.
  503: { code: "SlowDown", message: SENTENCES["SlowDown"] as string },
};

const NO_ANSWER = "S3 did not answer. Thaw tries again by itself.";

/** What went wrong, from anything the SDK throws. Decides by `name` (never `Code`), then by status. */
export function troubleOf(error: unknown): Trouble {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  const sentence = SENTENCES[name];
  if (sentence !== undefined) return { code: name, message: sentence };
  // The SDK notes the status on its own errors as well: an answer that it cannot read is still an answer.
  const { $metadata, code } = (error ?? {}) as { $metadata?: { httpStatusCode?: number }; code?: unknown };
  const status = $metadata?.httpStatusCode;
  if (status !== undefined) {
    if (BY_STATUS[status] !== undefined) return BY_STATUS[status];
    const named = error instanceof S3ServiceException && /^[A-Z][A-Za-z]+$/.test(name) && name !== "Unknown";
    const code = named ? name : `HTTP${status}`;
    return { code, message: `S3 answered ${status} (${code}). Thaw tries again by itself.` };
  }
  // Node's own network errors: ECONNREFUSED, ECONNRESET, ENOTFOUND.
  if (typeof code === "string") return { code, message: NO_ANSWER };
  if (name === "AbortError" || name === "TimeoutError") return { code: "Timeout", message: NO_ANSWER };
  return { code: name, message: `Thaw cannot ask S3 (${message}). An administrator must look at it.` };
}
