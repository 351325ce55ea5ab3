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
  /** Who is slower than this, counted from the connection's first moment, holds it for nothing. */
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  /** So a limit is overrun by a second at most. */
  connectionsCheckingInterval: 1_000,
  /** A secret, and what proxies add; keys and ARNs are in the body. */
  maxHeaderSize: 8 * 1024,
  /** Between two requests: long enough for the next one of a burst. */
  keepAliveTimeout: 5_000,
};

/** Few proxies add more than a dozen. */
const MAX_HEADERS = 100;

/**
 * An account's Lambdas are 1,000 at once unless AWS was asked for more; twice that. Each may make us hold 64 KiB of
 * body, so all of them 128 MiB. Who comes beyond is cut off at once, and comes back.
 */
const MAX_CONNECTIONS = 2_000;

export interface Listening {
  port: number;
  /** Takes no new request, and cuts none that is being answered. */
  close(): Promise<void>;
}

interface Address {
  HOST: string;
  PORT: number;
}

/**
 * For before anything is begun. It only looks: a port that answers shall mean that all runs, so it is opened last, and is
 * found taken even then if somebody was faster. @throws ConfigError when the port cannot be had.
 */
export async function checkPort({ HOST, PORT }: Address): Promise<void> {
  if (PORT === 0) return;
  await new Promise<void>((resolve, reject) => {
    const server = createServer();
    server.once("error", (error) => reject(cannotListen({ HOST, PORT }, error)));
    server.listen(PORT, HOST, () => server.close(() => resolve()));
  });
}

const cannotListen = ({ HOST, PORT }: Address, error: NodeJS.ErrnoException): ConfigError =>
  new ConfigError(
    error.code === "EADDRINUSE"
      ? `Port ${PORT} of ${HOST} is taken; set PORT to another.`
      : `Cannot listen on port ${PORT} of ${HOST}: ${error.message}`,
  );

/** Resolves when the port is open. @throws ConfigError when it cannot be had. */
export async function listen(
  fetch: Parameters<typeof serve>[0]["fetch"],
  { HOST, PORT }: Address,
): Promise<Listening> {
  const { server, port } = await new Promise<{ server: Server; port: number }>((resolve, reject) => {
    const server = serve({ fetch, hostname: HOST, port: PORT, serverOptions: LIMITS }, (address) =>
      resolve({ server, port: address.port }),
    ) as Server;
    server.once("error", (error) => reject(cannotListen({ HOST, PORT }, error)));
  });
  server.maxHeadersCount = MAX_HEADERS;
  server.maxConnections = MAX_CONNECTIONS;
  // So that a client does not keep the connection on which it waits for its last answer.
  let closing = false;
  const answering = new Set<ServerResponse>();
  /** Between two requests, the longest resting first. */
  const resting = new Set<Socket>();
  server.on("connection", (socket: Socket) => socket.once("close", () => resting.delete(socket)));
  server.on("request", ({ socket }: IncomingMessage, response: ServerResponse) => {
    if (closing) response.shouldKeepAlive = false;
    answering.add(response);
    resting.delete(socket);
    response.once("close", () => {
      answering.delete(response);
      if (!socket.destroyed) resting.add(socket);
    });
  });
  // Who is cut off finds a place next time, if anybody only rests on one. (closeIdleConnections would also close
  // those that have just come and not spoken yet.)
  server.on("drop", () => resting.values().next().value?.destroy());
  return {
    port,
    close: () =>
      new Promise((resolve) => {
        closing = true;
        for (const response of answering) response.shouldKeepAlive = false;
        const cut = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
        server.close(() => {
          clearTimeout(cut);
          resolve();
        });
      }),
  };
}
