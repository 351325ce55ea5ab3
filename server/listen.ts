import { serve, type ServerType } from "@hono/node-server";

import { ConfigError } from "./config.ts";

/** A request in flight gets this long to end after SIGTERM. */
const DRAIN_MS = 5_000;

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

/** Resolves when the port is open. @throws ConfigError when it is taken. */
export async function listen(
  fetch: Parameters<typeof serve>[0]["fetch"],
  { HOST, PORT }: { HOST: string; PORT: number },
): Promise<Listening> {
  const { server, port } = await new Promise<{ server: ServerType; port: number }>((resolve, reject) => {
    const server = serve({ fetch, hostname: HOST, port: PORT, serverOptions: LIMITS }, (address) =>
      resolve({ server, port: address.port }),
    );
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        error.code === "EADDRINUSE"
          ? new ConfigError(`Port ${PORT} of ${HOST} is taken; set PORT to another.`)
          : error,
      ),
    );
  });
  return {
    port,
    close: () =>
      new Promise((resolve) => {
        const cut = setTimeout(
          () => "closeAllConnections" in server && server.closeAllConnections(),
          DRAIN_MS,
        );
        server.close(() => {
          clearTimeout(cut);
          resolve();
        });
      }),
  };
}
