/** Thaw's processes: `node server/main.ts [migrate] [server] [worker]`, as package.json names them. */
import { createApp } from "./app.ts";
import { ConfigError, notifyWaits, readConfig, type Config, type Role } from "./config.ts";
import { createPool } from "./database.ts";
import { startEmbeddedPostgres } from "./embedded_postgres.ts";
import { listen } from "./listen.ts";
import { createLog, type Log } from "./log.ts";
import { migrate, migrationProblem } from "./migrate.ts";
import { watchPostgres } from "./watch_postgres.ts";
import { startWorker } from "./worker.ts";

/** Longer than this means a batch that hangs; callers must have their 503 within two seconds. */
const SERVER_QUERY_TIMEOUT_MS = 1_800;

const ROLES: readonly Role[] = ["migrate", "server", "worker"];

const NODE_MAJOR = 24;

async function main(): Promise<void> {
  const roles = process.argv.slice(2) as Role[];
  if (roles.length === 0 || roles.some((role) => !ROLES.includes(role))) {
    throw new ConfigError(
      `Say what to run: node server/main.ts ${ROLES.map((role) => `[${role}]`).join(" ")}`,
    );
  }
  if (Number(process.versions.node.split(".")[0]) < NODE_MAJOR) {
    throw new ConfigError(
      `Thaw needs Node ${NODE_MAJOR} or newer; this is ${process.version}. Use npm start: npm ci brings its own Node.`,
    );
  }
  const config = readConfig(process.env, roles);
  const log = createLog(config.LOG_LEVEL);
  const fatal = (reason: string): void => {
    log.fatal({ reason }, "cannot go on; a supervisor should restart this process");
    process.exit(1);
  };
  process.on("unhandledRejection", (error) => {
    log.fatal({ err: error }, "unhandled rejection");
    process.exit(1);
  });

  // In order of starting; stopped in the reverse order.
  const stops: (() => Promise<unknown>)[] = [];
  const stop = once(async (signal: string) => {
    log.info({ signal }, "stopping");
    for (const end of stops.toReversed()) await end();
    log.info("stopped");
    process.exit(0);
  });
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);

  const databaseUrl = await openDatabase(config, stops, log);
  const workerPool = createPool(
    databaseUrl,
    // One connection listens for jobs, one may claim while every task works.
    { name: "thaw", max: (config.worker?.WORKER_CONCURRENCY ?? 1) + 3, query_timeout_ms: 0 },
    log,
  );
  stops.push(() => workerPool.end());

  if (roles.includes("migrate")) {
    const ran = await migrate(workerPool);
    log.info({ ran }, ran.length === 0 ? "the database is up to date" : "migrated");
  }
  const problem = await migrationProblem(workerPool);
  if (problem !== null) throw new ConfigError(problem);

  let notReady: string | null = null;
  if (config.server) {
    const pool = createPool(
      databaseUrl,
      { name: "thaw server", max: 5, query_timeout_ms: SERVER_QUERY_TIMEOUT_MS },
      log,
    );
    stops.push(() => pool.end());
    const app = createApp({
      pool,
      secrets: config.server.RESTORE_SECRET,
      notify_waits: notifyWaits(config),
      notReady: async () =>
        notReady ??
        (await migrationProblem(pool).catch((error: Error) => `Postgres does not answer: ${error.message}`)),
      log,
    });
    const listening = await listen(app.fetch, config.server);
    log.info({ host: config.server.HOST, port: listening.port }, "server ready");
    stops.push(() => listening.close());
  }
  if (config.worker) {
    const worker = await startWorker({
      pool: workerPool,
      config: { ...config, worker: config.worker },
      log,
      fatal,
    });
    log.info("worker ready");
    const watch = watchPostgres(workerPool, fatal);
    stops.push(async () => {
      watch.stop();
      await worker.stop();
    });
  }
  stops.push(() => {
    notReady = "stopping";
    return Promise.resolve();
  });
  // Migrated, and nothing else to do.
  if (!config.server && !config.worker) for (const end of stops.toReversed()) await end();
}

async function openDatabase(config: Config, stops: (() => Promise<unknown>)[], log: Log): Promise<string> {
  if (config.DATABASE_URL !== "embedded") return config.DATABASE_URL;
  const postgres = await startEmbeddedPostgres({ dir: `${import.meta.dirname}/../.data` });
  stops.push(() => postgres.stop());
  log.info("embedded Postgres is running, for trying out: its data lie under .data/");
  return postgres.url;
}

/** Signals may come twice (npm passes on what the terminal already sent): stopping happens once. */
const once = (action: (signal: string) => Promise<void>): ((signal: string) => void) => {
  let begun = false;
  return (signal) => {
    if (begun) return;
    begun = true;
    action(signal).catch((error: unknown) => {
      console.error(error);
      process.exit(1);
    });
  };
};

main().catch((error: unknown) => {
  console.error(error instanceof ConfigError ? error.message : error);
  process.exit(1);
});
