/** Thaw's processes: `node server/main.ts [migrate] [server] [worker] [pages]`, as package.json names them. */
import { Hono } from "hono";
import type { Pool } from "pg";

import { createApp } from "./http/app.ts";
import { allowClosedOutput, createLog, type Log, reasonOf } from "./log.ts";
import {
  ConfigError,
  debounceOf,
  readConfig,
  trustedSessions,
  type Config,
  type PagesConfig,
  type Role,
} from "./config.ts";
import { createPool, SERVER_QUERY_TIMEOUT_MS, WORKER_QUERY_TIMEOUT_MS } from "./postgres/pool.ts";
import { requireUsableDatabase } from "./postgres/database_problem.ts";
import { startEmbeddedPostgres } from "./postgres/embedded/start.ts";
import { EMBEDDED_DIRECTORY } from "./postgres/embedded/url.ts";
import { checkPort, listen } from "./http/listen.ts";
import { migrate, migrationProblem } from "./postgres/migrate.ts";
import { reportError } from "./report_error.ts";
import { createPages } from "./pages/app.ts";
import { metricsRoutes } from "./pages/metrics.ts";
import { PAGES_QUERY_TIMEOUT_MS } from "./pages/queries.ts";
import { isUnavailable } from "./postgres/errors.ts";
import { Outage } from "./postgres/outage.ts";
import { rightsProblem } from "./postgres/rights.ts";
import { startWorker } from "./worker/worker.ts";

/** Supervisors kill after ten seconds. */
const STOP_WITHIN_MS = 9_000;

const ROLES: readonly Role[] = ["migrate", "server", "worker", "pages"];

const NODE_MAJOR = 24;

/** How to stop what runs, in the order it was started; called in reverse. */
type Stops = (() => Promise<unknown>)[];

function main(): void {
  const roles = rolesOf(process.argv.slice(2));
  const config = readConfig(process.env, roles);
  const log = createLog(config.LOG_LEVEL);
  const outage = new Outage(log, roles.filter((role) => role !== "migrate").join(" ") || "migrate");
  const fatal = (reason: string): void => {
    const away = outage.current();
    log.fatal(
      { reason, ...(away && { postgres: away.reason, away_ms: away.away_ms }) },
      `cannot go on${away ? " without Postgres" : ""}; a supervisor should restart this process`,
    );
    process.exit(1);
  };
  // Node would print the error with all its properties, secrets included.
  for (const event of ["unhandledRejection", "uncaughtException"] as const) {
    process.on(event, (error: unknown) => {
      // graphile-worker throws it when it cannot mark a job as ended.
      if (isUnavailable(error)) fatal(reasonOf(error));
      log.fatal({ err: error }, event === "uncaughtException" ? "uncaught exception" : "unhandled rejection");
      process.exit(1);
    });
  }

  const stops: Stops = [];
  const starting = start({ config, roles, stops, log, outage, fatal });

  let stopping = false;
  const stop = async (code: number): Promise<void> => {
    // A signal may come twice: the terminal sends it to all, and npm passes it on.
    if (stopping) return;
    stopping = true;
    setTimeout(() => {
      log.error(`did not stop within ${STOP_WITHIN_MS / 1000} s`);
      process.exit(1);
    }, STOP_WITHIN_MS).unref();
    // What is still starting is not in `stops` yet, and would be left running.
    await starting.catch(() => {});
    let failed = false;
    for (const end of stops.toReversed()) {
      await end().catch((error: unknown) => {
        failed = true;
        log.error({ err: error }, "could not stop cleanly");
      });
    }
    process.exit(failed ? 1 : code);
  };
  // SIGHUP: the terminal was closed. An embedded Postgres does not get it, so it must be stopped here.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.on(signal, () => {
      log.info({ signal }, "stopping");
      void stop(0);
    });
  }
  starting.then(
    async () => {
      // Only `migrate`: done.
      if (!config.server && !config.worker && !hasListener(config.pages)) await stop(0);
    },
    async (error: unknown) => {
      reportError(error);
      await stop(1);
    },
  );
}

function rolesOf(names: string[]): Role[] {
  if (names.length === 0 || names.some((name) => !ROLES.includes(name as Role))) {
    throw new ConfigError(
      `Say what to run: node server/main.ts ${ROLES.map((role) => `[${role}]`).join(" ")}`,
    );
  }
  if (Number(process.versions.node.split(".")[0]) < NODE_MAJOR) {
    throw new ConfigError(
      `Thaw needs Node ${NODE_MAJOR} or newer; this is ${process.version}. Use npm start: npm ci brings its own Node.`,
    );
  }
  return names as Role[];
}

interface Start {
  config: Config;
  roles: readonly Role[];
  stops: Stops;
  log: Log;
  outage: Outage;
  fatal: (reason: string) => void;
}

async function start({ config, roles, stops, log, outage, fatal }: Start): Promise<void> {
  // First: a process that cannot get its port must not migrate or restore anything.
  if (config.server) await checkPort(config.server);
  if (config.pages && hasListener(config.pages)) await checkPort(pagesAddress(config.pages));
  const databaseUrl = await openDatabase(config, stops, log);
  if (roles.includes("migrate")) await migrateDatabase(databaseUrl, log);
  // Pages alone start in any case: they say themselves what is wrong with the database.
  if (roles.some((role) => role !== "pages"))
    await startWork({ config, roles, stops, log, outage, fatal, databaseUrl });
  if (config.pages) await startPages({ config: config.pages, databaseUrl, stops, log, outage });
}

async function startWork({
  config,
  roles,
  stops,
  log,
  outage,
  fatal,
  databaseUrl,
}: Start & { databaseUrl: string }): Promise<void> {
  const workerPool = createPool(
    databaseUrl,
    // A connection per job, one that listens for jobs, one that holds the worker's lock, and two for claims.
    {
      name: "thaw",
      max: (config.worker?.WORKER_CONCURRENCY ?? 1) + 4,
      query_timeout_ms: WORKER_QUERY_TIMEOUT_MS,
    },
    log,
    outage,
  );
  stops.push(() => workerPool.end());
  await requireUsableDatabase(workerPool);
  const problem = (await rightsProblem(workerPool, roles)) ?? (await migrationProblem(workerPool));
  if (problem !== null) throw new ConfigError(problem);

  // The worker first: a port that answers then means that everything runs. Stopping goes in reverse: the server takes no more
  // events before the worker ends its jobs.
  const worker =
    config.worker &&
    (await startWorker({ pool: workerPool, config: { ...config, worker: config.worker }, log, fatal }));
  if (worker) {
    stops.push(() => worker.stop());
    log.info("worker ready");
  }
  if (config.server) {
    const pool = createPool(
      databaseUrl,
      { name: "thaw server", max: 5, query_timeout_ms: SERVER_QUERY_TIMEOUT_MS },
      log,
      outage,
    );
    stops.push(() => pool.end());
    let stopping = false;
    const app = createApp({
      pool,
      secrets: config.server.RESTORE_SECRET,
      debounce: debounceOf(config),
      session_domains: trustedSessions(config),
      notReady: async () => {
        if (stopping) return "stopping";
        return worker?.problem() ?? (await migrationProblem(pool));
      },
      log,
    });
    const listening = await listen(app.fetch, config.server);
    stops.push(() => {
      stopping = true;
      return listening.close();
    });
    log.info({ host: config.server.HOST, port: listening.port }, "server ready");
  }
}

/** Of the pages, or of /metrics alone. */
const hasListener = (pages: PagesConfig | undefined): boolean =>
  pages?.OPS_PASSWORD !== undefined || pages?.METRICS_TOKEN !== undefined;

const pagesAddress = ({ PAGES_HOST, PAGES_PORT }: PagesConfig) => ({
  HOST: PAGES_HOST,
  PORT: PAGES_PORT,
  setting: "PAGES_PORT",
});

async function startPages({
  config,
  databaseUrl,
  stops,
  log,
  outage: outageOfAll,
}: Pick<Start, "stops" | "log" | "outage"> & { config: PagesConfig; databaseUrl: string }): Promise<void> {
  const password = config.OPS_PASSWORD;
  if (password === undefined) log.info("the operator's pages are off; set OPS_PASSWORD to have them");
  if (!hasListener(config)) return;
  // A role of its own may be refused while all else works.
  const outage = config.PAGES_DATABASE_URL === undefined ? outageOfAll : new Outage(log, "pages");
  const openPool = (name: string, max: number): Pool => {
    const pool = createPool(
      config.PAGES_DATABASE_URL ?? databaseUrl,
      { name, max, query_timeout_ms: PAGES_QUERY_TIMEOUT_MS },
      log,
      outage,
    );
    stops.push(() => pool.end());
    return pool;
  };
  const app =
    password === undefined
      ? new Hono()
      : createPages({ pool: openPool("thaw pages", 5), password, public_url: config.PUBLIC_URL, log });
  // Connections of its own: slow pages must not make it say that the database is away. One reads, while one that is late gives up.
  app.route("/", metricsRoutes({ pool: openPool("thaw metrics", 2), token: config.METRICS_TOKEN, log }));
  const listening = await listen(app.fetch, pagesAddress(config));
  stops.push(() => listening.close());
  log.info(
    { host: config.PAGES_HOST, pages_port: listening.port },
    password === undefined ? "metrics ready" : "pages ready",
  );
}

async function migrateDatabase(databaseUrl: string, log: Log): Promise<void> {
  // No time-out: an index over many rows may take long.
  const pool = createPool(databaseUrl, { name: "thaw migrate", max: 2, query_timeout_ms: 0 }, log);
  try {
    const ran = await migrate(pool);
    log.info({ ran }, ran.length === 0 ? "the database is up to date" : "migrated");
  } finally {
    await pool.end();
  }
}

async function openDatabase(config: Config, stops: Stops, log: Log): Promise<string> {
  if (config.DATABASE_URL !== "embedded") return config.DATABASE_URL;
  const postgres = await startEmbeddedPostgres({ dir: EMBEDDED_DIRECTORY });
  stops.push(() => postgres.stopUnlessUsed());
  log.info("embedded Postgres is running, for trying out; its address is in .data/url");
  return postgres.url;
}

allowClosedOutput();
try {
  main();
} catch (error) {
  reportError(error);
  process.exitCode = 1;
}
