import type { Server, ServerResponse } from "node:http";

import { serve } from "@hono/node-server";

import { ConfigError } from "./config.ts";

/** A request in flight gets this long to end after SIGTERM. */
const DRAIN_MS = 3_000;

/**
 * Node's own limits suit file uploads; ours suit a Lambda with a small JSON body. Who is slower than this
 * holds a connection for nothing.
 */
const LIMITS = { headersTimeout: 5_000, requestTimeout: 10_000, connectionsCheckingInterval: 1_000 };

export interface Listening {
  port: number;
  /** Takes no new request, and cuts none that is being answered. */
  close(): Promise<void>;
}

/** Resolves when the port is open. @throws ConfigError when it cannot be had. */
export async function listen(
  fetch: Parameters<typeof serve>[0]["fetch"],
  { HOST, PORT }: { HOST: string; PORT: number },
): Promise<Listening> {
  const { server, port } = await new Promise<{ server: Server; port: number }>((resolve, reject) => {
    const server = serve({ fetch, hostname: HOST, port: PORT, serverOptions: LIMITS }, (address) =>
      resolve({ server, port: address.port }),
    ) as Server;
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        new ConfigError(
          error.code === "EADDRINUSE"
            ? `Port ${PORT} of ${HOST} is taken; set PORT to another.`
            : `Cannot listen on port ${PORT} of ${HOST}: ${error.message}`,
        ),
      ),
    );
  });
  // So that a client does not keep the connection on which it waits for its last answer.
  let closing = false;
  const answering = new Set<ServerResponse>();
  server.on("request", (_request: unknown, response: ServerResponse) => {
    if (closing) response.shouldKeepAlive = false;
    answering.add(response);
    response.once("close", () => answering.delete(response));
  });
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
