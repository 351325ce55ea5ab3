import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";

import { ApiError, answerError, bodyEnded, onlyTakes } from "./errors.ts";
import { type Log, reasonOf } from "../log.ts";
import { isReadOnly } from "../postgres/errors.ts";
import { requestLog, type RequestEnv } from "./request_log.ts";
import { restoreRoutes, type RouteOptions } from "./restore.ts";
import { createSecretCheck } from "../settings/secret.ts";

export interface AppOptions extends RouteOptions {
  secrets: readonly string[];
  /** Why this process cannot do its work now, or null. Throws when Postgres does not answer. */
  notReady(): Promise<string | null>;
  log: Log;
}

/** A key of 1,024 bytes written as \u escapes, an ARN likewise, and a reserve. */
const BODY_BYTES = 64 * 1024;

/** The HTTP side: routes record work, tasks/ do it. */
export function createApp(options: AppOptions): Hono<RequestEnv> {
  const { log } = options;
  const hasSecret = createSecretCheck(options.secrets);
  const app = new Hono<RequestEnv>();
  app.onError(answerError);
  app.notFound((c) => answerError(new ApiError("not_found", "There is no such route."), c));

  // Before the log: probes come every few seconds and would bury the rest.
  app.get("/healthz", (c) => c.json({ ok: true }));

  let known: string | null = null;
  app.get("/readyz", async (c) => {
    let said: string | undefined;
    const reason = await whyNotReady(options).catch((error: unknown) => {
      // For our log only: the error names the database host.
      said = reasonOf(error);
      return isReadOnly(error) ? "Postgres is read-only." : "Postgres does not answer.";
    });
    // Probes come every few seconds: a line when it changes is enough.
    if (reason !== known) {
      if (reason === null) log.info("ready again");
      else log.warn({ reason, said }, "not ready");
      known = reason;
    }
    return reason === null ? c.json({ ok: true }) : c.json({ ok: false, reason }, 503);
  });

  app.use(requestLog(log));
  for (const probe of ["/healthz", "/readyz"]) app.all(probe, onlyTakes("GET, HEAD"));

  // Before the body is read, so that unauthorised callers cost nothing.
  app.use("/restore/*", async (c, next) => {
    if (!hasSecret(c.req.header("x-restore-secret"))) throw new ApiError("unauthorized", "unauthorized");
    await next();
  });

  const limit = bodyLimit({
    maxSize: BODY_BYTES,
    onError: () => {
      throw new ApiError("too_large", `The body must not be larger than ${BODY_BYTES} bytes.`);
    },
  });
  app.use("/restore/*", (c, next) => limit(c, next).catch(bodyEnded));

  app.route("/restore", restoreRoutes(options));
  return app;
}

/**
 * A read-only Postgres (full disk, failover) runs queries but refuses every event, even an empty list. That refusal makes the
 * pool replace the connection; a query of the setting alone would keep it for ever.
 */
async function whyNotReady(options: AppOptions): Promise<string | null> {
  const reason = await options.notReady();
  if (reason === null) await options.pool.query("select from request_restores('[]', '{}')");
  return reason;
}
