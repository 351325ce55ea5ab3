import { S3ServiceException } from "@aws-sdk/client-s3";

/** What an error of the SDK tells of the HTTP answer behind it. */
export interface S3Answer {
  status: number;
  /** S3's own name for the error. HEAD's answers have no body, and mostly none. */
  code: string | undefined;
  /** Whether S3 itself gave the answer: it numbers every request, as do the stores that took over its API. */
  signed: boolean;
  headers: Record<string, string>;
}

/** An answer that S3 cannot have given: somebody in between did. */
export class NotFromS3 extends Error {
  override name = "NotFromS3";
}

/** Which answer an error is about; undefined when there was none (no connection, no credentials). */
export function answerOf(error: unknown): S3Answer | undefined {
  // On errors that are not S3's as well: an answer that the SDK cannot read is still an answer.
  const { $metadata, $response, $fault } = (error ?? {}) as Partial<S3ServiceException>;
  const status = $metadata?.httpStatusCode;
  // Another service's refusal (STS, SSO) is no answer of S3.
  if (status === undefined || ($fault !== undefined && !(error instanceof S3ServiceException)))
    return undefined;
  const headers = ($response?.headers ?? {}) as Record<string, string>;
  return { status, code: codeIn(error, headers), signed: isSigned($metadata), headers };
}

export const isSigned = (metadata: S3ServiceException["$metadata"] | undefined): boolean =>
  metadata?.requestId !== undefined || metadata?.extendedRequestId !== undefined;

/** "KMS.DisabledException" is one, "503" is not. */
const CODE = /^[A-Z][A-Za-z0-9]*(\.[A-Za-z0-9]+)*$/;

/** The SDK's own names for answers without a code. */
const NO_CODES = new Set(["Unknown", "UnknownError", "NotFound", "Error", "S3ServiceException"]);

function codeIn(error: unknown, headers: Record<string, string>): string | undefined {
  const names = [
    error instanceof S3ServiceException ? error.name : undefined,
    // What a HEAD cannot say in a body, MinIO says in a header.
    headers["x-minio-error-code"],
    headers["x-amz-error-code"],
  ];
  return names.find((name) => name !== undefined && CODE.test(name) && !NO_CODES.has(name));
}
