import type { Context } from "hono";
import type { z } from "zod";

import { ApiError, bodyEnded } from "./errors.ts";
import type { LoggedEvent, RequestEnv } from "./request_log.ts";

/** The charset that we decode is the only parameter allowed. Two types in one header are refused. */
const JSON_TYPE = /^application\/json\s*(;\s*charset="?utf-8"?\s*)?$/i;

/** Bytes -> UTF-8 (refused, never replaced) -> JSON -> the schema, with errors that name the field. */
export async function readBody<T extends LoggedEvent>(
  c: Context<RequestEnv>,
  schema: z.ZodType<T>,
): Promise<T> {
  if (!JSON_TYPE.test(c.req.header("content-type") ?? "")) {
    throw new ApiError("unsupported_media_type", "Send JSON with content-type: application/json.");
  }
  const result = schema.safeParse(parseJson(await c.req.arrayBuffer().catch(bodyEnded)));
  if (result.success) {
    const { event_id, s3_bucket, s3_key } = result.data;
    c.set("event", { event_id, s3_bucket, s3_key });
    return result.data;
  }
  throw new ApiError(
    "invalid_request",
    "The body is not what this route takes.",
    result.error.issues.map((issue) => ({
      field: issue.code === "unrecognized_keys" ? issue.keys.join(", ") : issue.path.join("."),
      message: issue.code === "unrecognized_keys" ? "is not a field of this route" : issue.message,
    })),
  );
}

function parseJson(bytes: ArrayBuffer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes));
  } catch (error) {
    throw new ApiError(
      "invalid_request",
      error instanceof SyntaxError ? "The body is not valid JSON." : "The body is not valid UTF-8.",
    );
  }
}
