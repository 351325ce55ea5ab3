import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";

import { Overloaded } from "../postgres/batch.ts";
import { isBadValue, isLocked, isTooSlow, isUnavailable } from "../postgres/errors.ts";

export interface Issue {
  field: string;
  message: string;
}

const STATUS = {
  invalid_request: 400,
  unauthorized: 401,
  not_found: 404,
  method_not_allowed: 405,
  too_large: 413,
  unsupported_media_type: 415,
  unprocessable: 422,
  unavailable: 503,
  internal: 500,
} as const satisfies Record<string, ContentfulStatusCode>;

/** What a caller did wrong, or what we cannot do now. */
export class ApiError extends Error {
  override name = "ApiError";
  readonly code: keyof typeof STATUS;
  readonly issues: Issue[] | undefined;

  constructor(code: keyof typeof STATUS, message: string, issues?: Issue[]) {
    super(message);
    this.code = code;
    this.issues = issues;
  }
}

/** For reading a body: its caller went away, or was too slow. Nothing of ours failed. */
export function bodyEnded(error: unknown): never {
  throw error instanceof ApiError ? error : new ApiError("invalid_request", "The body ended early.");
}

/** For a path that is there, when another method asks for it. */
export const onlyTakes = (allow: string) => (c: Context) => {
  c.header("Allow", allow);
  throw new ApiError("method_not_allowed", `This route takes ${allow}.`);
};

/** Seconds until a caller tries again while Postgres is away: a restart takes about as long. */
const RETRY_AFTER_SECONDS = "5";

const asApiError = (error: Error): ApiError => {
  if (error instanceof ApiError) return error;
  if (error instanceof HTTPException) return new ApiError("invalid_request", error.message);
  if (error instanceof Overloaded)
    return new ApiError("unavailable", "Too many requests are waiting; try again.");
  if (isLocked(error))
    return new ApiError("unavailable", "Somebody keeps this file's row locked in the database; try again.");
  if (isTooSlow(error))
    return new ApiError("unavailable", "The database does not answer in time; try again.");
  if (isUnavailable(error)) return new ApiError("unavailable", "The database is not available; try again.");
  // Of a body that this route takes; the same one will never do, so its caller must not repeat it.
  if (isBadValue(error))
    return new ApiError(
      "unprocessable",
      "The database cannot hold what this body says; repeating it will not help.",
    );
  return new ApiError("internal", "Internal error.");
};

/** Answers `{"error":{code,message,issues?}}`; the request's log line has the error itself. */
export function answerError(error: Error, c: Context): Response {
  const { code, message, issues } = asApiError(error);
  if (code === "unavailable") c.header("Retry-After", RETRY_AFTER_SECONDS);
  return c.json({ error: { code, message, ...(issues && { issues }) } }, STATUS[code]);
}
