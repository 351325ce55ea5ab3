import { S3ServiceException } from "@aws-sdk/client-s3";

/** The HTTP response behind an error of the SDK. */
export interface S3Answer {
  status: number;
  /** S3's error code. Responses to HEAD have no body, and so mostly no code. */
  code: string | undefined;
  /** Whether S3 itself responded: S3 and compatible stores send a request id with every response. */
  signed: boolean;
  headers: Record<string, string>;
  /** How often the SDK sent the request. */
  attempts: number;
}

/** A response that cannot be S3's, but is a proxy's or another server's. */
export class NotFromS3 extends Error {
  override name = "NotFromS3";
}

/** The response behind an error; undefined when there was none (no connection, no credentials). */
export function answerOf(error: unknown): S3Answer | undefined {
  // Also on errors that are not S3's: a response that the SDK cannot parse is still a response.
  const { $metadata, $response, $fault } = (error ?? {}) as Partial<S3ServiceException>;
  const status = $metadata?.httpStatusCode;
  // The refusal of another service (STS, SSO) is no response of S3.
  if (status === undefined || ($fault !== undefined && !(error instanceof S3ServiceException)))
    return undefined;
  const headers = ($response?.headers ?? {}) as Record<string, string>;
  return {
    status,
    code: codeIn(error, headers),
    signed: isSigned($metadata),
    headers,
    attempts: attemptsOf($metadata),
  };
}

/** More than one unless the SDK says otherwise. */
export const attemptsOf = (metadata: S3ServiceException["$metadata"] | undefined): number =>
  metadata?.attempts ?? 2;

export const isSigned = (metadata: S3ServiceException["$metadata"] | undefined): boolean =>
  metadata?.requestId !== undefined || metadata?.extendedRequestId !== undefined;

/** "KMS.DisabledException" is one, "503" is not. */
const CODE = /^[A-Z][A-Za-z0-9]*(\.[A-Za-z0-9]+)*$/;

/** The SDK's own names for errors without a code. */
const NO_CODES = new Set(["Unknown", "UnknownError", "NotFound", "Error", "S3ServiceException"]);

function codeIn(error: unknown, headers: Record<string, string>): string | undefined {
  const names = [
    error instanceof S3ServiceException ? error.name : undefined,
    // For HEAD, which has no body, MinIO sends the code in a header.
    headers["x-minio-error-code"],
    headers["x-amz-error-code"],
  ];
  return names.find((name) => name !== undefined && CODE.test(name) && !NO_CODES.has(name));
}
