/** A server that does what a test tells it, and records what it was told. */
import { createServer } from "node:http";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";

import { onTestFinished } from "vitest";

export interface Call {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  body: unknown;
}

export type Answer = (response: ServerResponse, call: Call) => void;

export const json =
  (status: number, body: unknown, headers: Record<string, string> = {}): Answer =>
  (response) =>
    void response
      .writeHead(status, { "content-type": "application/json", ...headers })
      .end(JSON.stringify(body));
export const hang: Answer = () => {};

/** A real HTTP server that records what arrives and gives the answers in turn, the last one for ever. */
export async function listen(answers: Answer[]): Promise<{
  port: number;
  url: string;
  calls: Call[];
  /** How many were ever opened. */
  connections: () => number;
}> {
  const calls: Call[] = [];
  let connections = 0;
  const server = createServer((request, response) => void receive(request, response));
  server.on("connection", () => connections++);
  async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const text = (await request.toArray()).join("");
    const call: Call = {
      method: request.method ?? "",
      path: request.url ?? "",
      headers: request.headers,
      body: text === "" ? undefined : JSON.parse(text),
    };
    calls.push(call);
    (answers[calls.length - 1] ?? answers.at(-1))?.(response, call);
  }
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("It listens on no port.");
  const { port } = address;
  return { port, url: `http://127.0.0.1:${port}`, calls, connections: () => connections };
}

/** A port of this machine where nobody listens any more. */
export async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => void server.close(resolve));
  return address !== null && typeof address === "object" ? address.port : 0;
}
