/** `GET /metrics`, for Prometheus. */
import { Hono } from "hono";
import type { Pool } from "pg";

import packageJson from "../../package.json" with { type: "json" };
import { type Log, reasonOf } from "../log.ts";
import { createSecretCheck } from "../settings/secret.ts";
import { inTime } from "../time_limit.ts";
import { cached } from "./cached.ts";
import { CONTENT_TYPE, expose } from "./exposition.ts";
import { createReader, type Figures } from "./figures.ts";

export interface MetricsOptions {
  pool: Pool;
  /** Who scrapes sends it as `Authorization: Bearer ...`; undefined: anybody may. */
  token: string | undefined;
  log: Log;
}

/** However many scrape, the database is asked once in this time. */
const FRESH_MS = 10_000;

/** Prometheus itself gives up after ten seconds, and so would never see that the database is away. */
const ANSWER_WITHIN_MS = 2_000;

const BUILD = { version: packageJson.version, node: process.versions.node };

export function metricsRoutes({ pool, token, log }: MetricsOptions): Hono {
  const isAllowed = token === undefined ? () => true : createSecretCheck([`Bearer ${token}`]);
  const scrape = createScrape(pool, log);
  const app = new Hono();
  app.get("/metrics", async (c) => {
    if (!isAllowed(c.req.header("authorization")))
      return c.text("unauthorized\n", 401, { "WWW-Authenticate": "Bearer" });
    return c.body(await scrape(), 200, { "Content-Type": CONTENT_TYPE, "Cache-Control": "no-store" });
  });
  return app;
}

/** Those who ask meanwhile get the same answer, also that the database is away. */
function createScrape(pool: Pool, log: Log): () => Promise<string> {
  const read = createReader(pool);
  let was_up = true;
  const collect = async (): Promise<string> => {
    const figures = await inTime(ANSWER_WITHIN_MS, read(), () => new Error("it took longer than 2 s")).catch(
      (error: unknown): Figures | null => {
        // A scrape comes every few seconds: a line when it changes is enough.
        if (was_up) log.warn({ reason: reasonOf(error) }, "no figures from Postgres for /metrics");
        return null;
      },
    );
    if (figures !== null && !was_up) log.info("figures for /metrics again");
    was_up = figures !== null;
    return expose(figures, BUILD);
  };
  return cached(collect, FRESH_MS);
}
