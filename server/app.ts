import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";

import { ApiError, answerError, bodyEnded } from "./http_errors.ts";
import type { Log } from "./log.ts";
import { restoreRoutes, type RouteOptions } from "./routes/restore.ts";
import { createSecretCheck } from "./secret.ts";

export interface AppOptions extends RouteOptions {
  secrets: readonly string[];
  /** Why this process cannot do its work now, or null. Throws when Postgres does not answer. */
  notReady(): Promise<string | null>;
  log: Log;
}

/** A key of 1,024 bytes written as \u escapes, an ARN likewise, and room. */
const BODY_BYTES = 64 * 1024;

/** The HTTP side: routes start work, tasks/ perform it. */
export function createApp(options: AppOptions): Hono {
  const { log } = options;
  const hasSecret = createSecretCheck(options.secrets);
  const app = new Hono();
  app.onError((error, c) => answerError(error, c, log));
  app.notFound((c) => answerError(new ApiError("not_found", "There is no such route."), c, log));

  app.get("/healthz", (c) => c.json({ ok: true }));

  app.get("/readyz", async (c) => {
    const reason = await options.notReady().catch((error: unknown) => {
      // Only our log hears where Postgres is and what it said.
      log.warn({ err: error }, "not ready");
      return "Postgres does not answer.";
    });
    return reason === null ? c.json({ ok: true }) : c.json({ ok: false, reason }, 503);
  });

  app.use("/restore/*", async (c, next) => {
    const started = performance.now();
    await next();
    log.info(
      {
        method: c.req.method,
        path: c.req.path,
        status: c.res.status,
        ms: Math.round(performance.now() - started),
      },
      "request",
    );
  });

  // Before anything of the body is read: who may not write, costs nothing.
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
