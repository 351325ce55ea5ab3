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
  CredentialsProviderError: "Thaw has no AWS credentials. An administrator must give it some.",
  NoSuchBucket: "The bucket does not exist.",
  PermanentRedirect:
    "The bucket lies in another region than Thaw was told. An administrator must look at it.",
  SlowDown: "S3 is busy. Thaw tries again by itself.",
  ThrottlingException: "S3 is busy. Thaw tries again by itself.",
  MalformedXML: "S3 did not understand Thaw's request. An administrator should report this.",
  InvalidArgument: "S3 did not understand Thaw's request. An administrator should report this.",
  InvalidObjectState:
    "S3 says that this file is not archived, and yet that it cannot be read. An administrator should look at it.",
};

/**
 * HEAD errors carry no body, hence no code of S3's: the status must do. 403 is also what S3 answers for a
 * missing file to who may not list the bucket.
 */
const BY_STATUS: Record<number, Trouble> = {
  301: { code: "PermanentRedirect", message: SENTENCES["PermanentRedirect"] as string },
  400: {
    code: "BadRequest",
    message: "S3 refuses to look at this file (it may be encrypted with a customer's own key).",
  },
  403: { code: "AccessDenied", message: DENIED },
};

const NO_ANSWER = "S3 did not answer. Thaw tries again by itself.";

/** What went wrong, from anything the SDK throws. Decides by `name` (never `Code`), then by status. */
export function troubleOf(error: unknown): Trouble {
  const name = error instanceof Error ? error.name : "Error";
  if (error instanceof S3ServiceException) {
    const status = error.$metadata.httpStatusCode ?? 0;
    const sentence = SENTENCES[name];
    if (sentence !== undefined) return { code: name, message: sentence };
    if (BY_STATUS[status] !== undefined) return BY_STATUS[status];
    const code =
      /^[A-Z][A-Za-z]+$/.test(name) && name !== "Unknown" && name !== "Error" ? name : `HTTP${status}`;
    return { code, message: `S3 answered ${status} (${code}). Thaw tries again by itself.` };
  }
  if (name === "AbortError" || name === "TimeoutError") return { code: "Timeout", message: NO_ANSWER };
  const sentence = SENTENCES[name];
  if (sentence !== undefined) return { code: name, message: sentence };
  // Node's own network errors: ECONNREFUSED, ECONNRESET, ENOTFOUND.
  const { code } = error as { code?: unknown };
  return { code: typeof code === "string" ? code : name, message: NO_ANSWER };
}
