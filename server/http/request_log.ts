import { randomUUID } from "node:crypto";

import { createMiddleware } from "hono/factory";
import { routePath } from "hono/route";

import { type Log, reasonOf } from "../log.ts";

/** What an operator searches the log for. */
export interface LoggedEvent {
  event_id?: string | undefined;
  s3_bucket: string;
  s3_key: string;
}

export interface RequestEnv {
  Variables: {
    /** Generated here, never the caller's choice: it becomes the id of a row. */
    request_id: string;
    /** Set once the body is valid. */
    event?: LoggedEvent;
  };
}

/**
 * Gives each request an id and logs one line about it. Of the caller's text the line has validated fields only: the matched
 * route instead of the path, no query, no headers. So a secret in the wrong place is not logged.
 */
export const requestLog = (log: Log) =>
  createMiddleware<RequestEnv>(async (c, next) => {
    const started = performance.now();
    const request_id = randomUUID();
    c.set("request_id", request_id);
    c.header("X-Request-Id", request_id);
    await next();
    const line = {
      request_id,
      method: c.req.method,
      path: routePath(c, -1),
      status: c.res.status,
      ms: Math.round(performance.now() - started),
      ...c.get("event"),
    };
    if (c.res.status < 500) log.info(line, "request");
    // Not our failure: the caller retries, and an outage of Postgres has a line of its own.
    else if (c.res.status === 503) log.warn({ ...line, reason: reasonOf(c.error) }, "a request failed");
    else log.error({ ...line, err: c.error }, "a request failed");
  });
