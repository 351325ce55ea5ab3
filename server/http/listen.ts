import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer, type Socket } from "node:net";

import { serve } from "@hono/node-server";

import { ConfigError } from "../config.ts";

/** A request in flight gets this long to end after SIGTERM. */
const DRAIN_MS = 3_000;

/**
 * Node's own limits suit browsers and uploads; ours suit a Lambda with a small JSON body, near or behind a
 * proxy. Beyond them Node itself answers 408 or 431, without a body, and closes the connection.
 */
const LIMITS = {
  /** Counted from the start of the connection. A slower client only occupies it. */
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  /** So a limit is exceeded by a second at most. */
  connectionsCheckingInterval: 1_000,
  /** Enough for the secret and what proxies add; keys and ARNs are in the body. */
  maxHeaderSize: 8 * 1024,
  /** Between two requests: long enough for the next one of a burst. */
  keepAliveTimeout: 5_000,
};

/** Few proxies add more than a dozen. */
const MAX_HEADERS = 100;

/**
 * Twice the concurrency of an account's Lambdas, which is 1,000 by default. Each may make us hold 64 KiB of body, together
 * 128 MiB. Connections beyond are dropped at once, and their callers retry.
 */
const MAX_CONNECTIONS = 2_000;

export interface Listening {
  port: number;
  /** Takes no new requests, and gives those in flight DRAIN_MS to end. */
  close(): Promise<void>;
}

interface Address {
  HOST: string;
  PORT: number;
  /** The setting that names the port, for the error. */
  setting?: string;
}

/**
 * An early check, before anything else is started. It does not keep the port: an open port means that everything runs, so
 * `listen` comes last, and may still find it taken. @throws ConfigError when the port cannot be opened.
 */
export async function checkPort(address: Address): Promise<void> {
  const { HOST, PORT } = address;
  if (PORT === 0) return;
  await new Promise<void>((resolve, reject) => {
    const server = createServer();
    server.once("error", (error) => reject(cannotListen(address, error)));
    server.listen(PORT, HOST, () => server.close(() => resolve()));
  });
}

const cannotListen = ({ HOST, PORT, setting = "PORT" }: Address, error: NodeJS.ErrnoException): ConfigError =>
  new ConfigError(
    error.code === "EADDRINUSE"
      ? `Port ${PORT} of ${HOST} is taken; set ${setting} to another.`
      : `Cannot listen on port ${PORT} of ${HOST}: ${error.message}`,
  );

/** Resolves when the port is open. @throws ConfigError when it cannot be opened. */
export async function listen(
  fetch: Parameters<typeof serve>[0]["fetch"],
  address: Address,
): Promise<Listening> {
  const { HOST, PORT } = address;
  const { server, port } = await new Promise<{ server: Server; port: number }>((resolve, reject) => {
    const server = serve({ fetch, hostname: HOST, port: PORT, serverOptions: LIMITS }, (bound) =>
      resolve({ server, port: bound.port }),
    ) as Server;
    server.once("error", (error) => reject(cannotListen(address, error)));
  });
  server.maxHeadersCount = MAX_HEADERS;
  server.maxConnections = MAX_CONNECTIONS;
  // While closing, each response also closes its connection.
  let closing = false;
  const active = new Set<ServerResponse>();
  /** Between two requests, the longest idle first. */
  const idle = new Set<Socket>();
  server.on("connection", (socket: Socket) => socket.once("close", () => idle.delete(socket)));
  server.on("request", ({ socket }: IncomingMessage, response: ServerResponse) => {
    if (closing) response.shouldKeepAlive = false;
    active.add(response);
    idle.delete(socket);
    response.once("close", () => {
      active.delete(response);
      if (!socket.destroyed) idle.add(socket);
    });
  });
  // So that a dropped client finds a place when it retries. (closeIdleConnections would also close new connections that
  // have not sent anything yet.)
  server.on("drop", () => idle.values().next().value?.destroy());
  return {
    port,
    close: () =>
      new Promise((resolve) => {
        closing = true;
        for (const response of active) response.shouldKeepAlive = false;
        const cut = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
        server.close(() => {
          clearTimeout(cut);
          resolve();
        });
      }),
  };
}
