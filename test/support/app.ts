/** The HTTP side without a socket. */
import type { Hono } from "hono";
import type { Pool } from "pg";

import { createApp, type AppOptions } from "../../server/http/app.ts";
import { createLog } from "../../server/log.ts";
import { SECRET } from "./thaw.ts";

/** On that pool, ready, and with nobody held back, unless told otherwise. */
export const testApp = (pool: Pool, changes: Partial<AppOptions> = {}): ReturnType<typeof createApp> =>
  createApp({
    pool,
    secrets: [SECRET],
    debounce: { quiet: "0", max_wait: "0" },
    session_domains: [],
    notReady: () => Promise.resolve(null),
    log: createLog("silent"),
    ...changes,
  });

/** A POST by somebody who knows the secret. */
export const postTo = async (app: Pick<Hono, "request">, path: string, body: unknown): Promise<Response> =>
  app.request(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-restore-secret": SECRET },
    body: JSON.stringify(body),
  });
