/**
 * A private Postgres for trying Thaw out, for the demo and for the tests.
 *
 * An ordinary Postgres with an ordinary data directory that starts everywhere: as root, from a checkout that only root can
 * enter, and after a start that was killed.
 */
import { once } from "node:events";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, type ClientConfig, DatabaseError } from "pg";
import { type Programs, USE_YOUR_OWN, accountFor, bundledPrograms } from "./binaries.ts";
import { type Cluster, openCluster, removeLeftovers } from "./cluster.ts";
import { type Postmaster, isRunning, lastPostmaster, launch, logSize, logTail, stop } from "./process.ts";
import { saveUrl } from "./url.ts";

export interface EmbeddedPostgresOptions {
  /** Holds the data, the log and the file `url`. Created when missing. */
  dir: string;
  /** Default: a free port, the last one if it is still free. */
  port?: number;
  /** Server settings, as after `-c`. A server that runs already keeps those it was started with. */
  settings?: Record<string, string>;
  /** Another Postgres than npm's, for tests. */
  programs?: Programs | undefined;
}

export interface EmbeddedPostgres {
  /** Of the database "thaw", as a superuser. */
  url: string;
  pid: number;
  /** Where the data really is: outside `dir` when only root can enter there. */
  dataDirectory: string;
  /** "fast" (the default) closes cleanly; "immediate" leaves recovery to the next start. */
  stop(mode?: "fast" | "immediate"): Promise<void>;
  /** For processes that share it: stops it unless another client is connected. Close your own connections first. */
  stopUnlessUsed(): Promise<void>;
}

/** Crash recovery included; what takes longer is more likely a fault. */
const START_TIMEOUT_MS = 60_000;
/** Together a second: a busy machine takes as long to end a connection. */
const CLIENT_CHECKS = 10;
const CLIENT_CHECK_EVERY_MS = 100;
/** A failed start is retried this long, if the cause may pass. */
const RETRY_MS = 15_000;

/**
 * Starts the Postgres of a directory, or joins the one that runs there already (left by a killed process, or another
 * starter's). It does not keep this process alive, and does not get its Ctrl-C: drain first, and call `stop` last.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const dir = resolve(options.dir);
  const account = await accountFor(join(dir, "data"));
  const programs = options.programs ?? (await bundledPrograms(account));
  const cluster = await openCluster(dir, account, programs).catch((error: unknown) => {
    throw new Error(
      `Cannot keep a Postgres in ${dir}: ${String(error)}\n` +
        `Name a directory that you can write to, or remove this one to start anew. ${USE_YOUR_OWN}`,
      { cause: error },
    );
  });
  const server = await joinOrStart(cluster, options, async (predecessor) =>
    launch({
      cluster,
      account,
      program: join(programs.bin, "postgres"),
      port: options.port || (await freePort(Number(cluster.url.port))),
      settings: options.settings ?? {},
      predecessor,
    }),
  );
  cluster.url.port = String(server.port);
  await saveUrl(dir, cluster.url);
  await removeLeftovers(dir);
  return {
    url: cluster.url.href,
    pid: server.pid,
    dataDirectory: cluster.data,
    stop: (mode = "fast") => stop(server, cluster, mode),
    async stopUnlessUsed() {
      // Connections that we have just closed may still be listed.
      for (let check = 0; check < CLIENT_CHECKS; check++) {
        if (!(await hasClients(cluster.url.href))) return stop(server, cluster, "fast");
        await sleep(CLIENT_CHECK_EVERY_MS);
      }
      return undefined;
    },
  };
}

/** Whether another client is connected; false when the server does not respond. */
async function hasClients(url: string): Promise<boolean> {
  const options = { connectionString: url, connectionTimeoutMillis: 2_000, query_timeout: 2_000 };
  return connected(options, async (client) => {
    const { rowCount } = await client.query(
      "select from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() limit 1",
    );
    return rowCount !== 0;
  }).catch(() => false);
}

async function connected<T>(options: ClientConfig, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client(options);
  client.on("error", () => undefined); // The query reports it too.
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function joinOrStart(
  cluster: Cluster,
  options: EmbeddedPostgresOptions,
  start: (predecessor: Postmaster | undefined) => Promise<Postmaster>,
): Promise<Postmaster> {
  const begin = Date.now();
  for (;;) {
    const since = await logSize(cluster);
    const last = await lastPostmaster(cluster);
    const joins = last !== undefined && (await isRunning(last, cluster));
    const server = joins ? last : await start(last);
    while (await isRunning(server, cluster)) {
      const trouble = await prepare(server, cluster);
      if (trouble === undefined) return server;
      if (Date.now() - begin > START_TIMEOUT_MS) {
        throw new Error(
          `Postgres (process ${server.pid}) runs but has accepted no connection for ${START_TIMEOUT_MS / 1000} s: ` +
            `${trouble}. If it still recovers from a crash, start again to wait on; ` +
            `else kill -QUIT ${server.pid}. ${await logTail(cluster)}`,
        );
      }
      await sleep(30);
    }
    // It has exited: for good, or for a cause that passes.
    const tail = await logTail(cluster, since);
    if (Date.now() - begin > RETRY_MS || !(joins || passes(tail, options))) {
      throw new Error(`Postgres does not start. ${tail}\n${USE_YOUR_OWN}`);
    }
    await sleep(30);
  }
}

/**
 * Whether the cause of a failed start passes: another starter was faster; children of a killed server still run; the free
 * port was taken meanwhile.
 */
function passes(log: string, options: EmbeddedPostgresOptions): boolean {
  if (/lock file "postmaster.pid"|pre-existing shared memory block/.test(log)) return true;
  return !options.port && log.includes("could not bind");
}

/** Creates the database when it is missing; returns why that is not possible yet. */
async function prepare(server: Postmaster, cluster: Cluster): Promise<string | undefined> {
  // Until its file says so, another server may listen on the port.
  const now = await lastPostmaster(cluster);
  if (now?.pid !== server.pid || !now.isReady) return "it is not ready";
  const url = new URL(cluster.url);
  url.port = String(server.port);
  url.pathname = "/postgres";
  try {
    await connected({ connectionString: url.href, connectionTimeoutMillis: 5_000 }, async (client) => {
      const { rowCount } = await client.query("select from pg_database where datname = 'thaw'");
      if (rowCount === 0) await client.query("create database thaw");
    });
    return undefined;
  } catch (error) {
    if (error instanceof DatabaseError && error.code === "28P01") {
      throw new Error(`The password in ${cluster.urlFile} is not that of ${cluster.data}.`, { cause: error });
    }
    return String(error);
  }
}

export async function freePort(preferred: number): Promise<number> {
  for (const port of [preferred, 0]) {
    const server = createServer();
    try {
      await once(server.listen(port, "127.0.0.1"), "listening");
      const address = server.address();
      if (typeof address === "object" && address !== null) return address.port;
    } catch {
      // Taken: any other.
    } finally {
      server.close();
    }
  }
  throw new Error("There is no free port on 127.0.0.1.");
}
