/** The HTTP side alone, as main.ts composes it, and ways to talk to it that fetch is too polite for. */
import { connect } from "node:net";
import { Writable } from "node:stream";

import { createPool, SERVER_QUERY_TIMEOUT_MS } from "../../server/postgres/pool.ts";
import { listen } from "../../server/http/listen.ts";
import { createLog, type Log } from "../../server/log.ts";
import { migrationProblem } from "../../server/postgres/migrate.ts";
import { testApp } from "./app.ts";
import { test as base } from "./database.ts";
import type { Row } from "./rows.ts";
import { BUCKET, SECRET } from "./thaw.ts";

/** Taken as well, as while a secret is rotated. */
export const SECOND_SECRET = "the-secret-that-comes-next-0123456789abcdef";

export interface Answer {
  status: number;
  // oxlint-disable-next-line typescript/no-explicit-any -- what a test expects, it asserts.
  body: any;
  headers: Headers;
  ms: number;
}

export interface Api {
  url: string;
  port: number;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Answer>;
  get(path: string): Promise<Answer>;
  close(): Promise<void>;
}

/** On any database. */
export async function startApi(
  databaseUrl: string,
  { notReady, log = createLog("silent") }: { notReady?: () => Promise<string | null>; log?: Log } = {},
): Promise<Api> {
  const pool = createPool(
    databaseUrl,
    { name: "api", max: 5, query_timeout_ms: SERVER_QUERY_TIMEOUT_MS },
    log,
  );
  const app = testApp(pool, {
    secrets: [SECRET, SECOND_SECRET],
    debounce: { quiet: "1 second", max_wait: "4 seconds" },
    notReady: notReady ?? (() => migrationProblem(pool)),
    log,
  });
  const listening = await listen(app.fetch, { HOST: "127.0.0.1", PORT: 0 });
  const url = `http://127.0.0.1:${listening.port}`;
  const ask = async (path: string, init: RequestInit): Promise<Answer> => {
    const began = performance.now();
    const response = await fetch(url + path, init);
    const text = await response.text();
    const ms = performance.now() - began;
    return { status: response.status, body: JSON.parse(text), headers: response.headers, ms };
  };
  return {
    url,
    port: listening.port,
    get: (path) => ask(path, {}),
    post: (path, body, headers = {}) =>
      ask(path, {
        method: "POST",
        headers: { "content-type": "application/json", "x-restore-secret": SECRET, ...headers },
        body: typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body),
      }),
    async close() {
      await listening.close();
      await pool.end();
    },
  };
}

export const test = base.extend<{ api: Api }>({
  api: async ({ databaseUrl }, use) => {
    const api = await startApi(databaseUrl);
    await use(api);
    await api.close();
  },
});

/** The least that both routes take. */
export const MINIMAL = { s3_bucket: BUCKET, s3_key: "a" };

/** A log, and what it has written. */
export function captureLog(): { log: Log; text: () => string; lines: () => Row[] } {
  let text = "";
  const destination = new Writable({
    write(chunk, _encoding, done) {
      text += String(chunk);
      done();
    },
  });
  return {
    log: createLog("trace", destination),
    text: () => text,
    lines: () =>
      text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as Row),
  };
}

/** The head of a request as it goes over the wire. */
export const head = (
  headers: Record<string, string>,
  requestLine = "POST /restore/request HTTP/1.1",
): string =>
  `${requestLine}\r\nhost: thaw\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("")}\r\n`;

/** One answer with a body of ours; Node's own answers end with the connection. */
const ANSWERED = /\r\n\r\n\{.*\}$/s;
export const HUNG_UP = /$^/;

/** Sends bytes as they are; answers with what came back until it was enough, or the server hung up. */
export async function raw(port: number, bytes: string | Uint8Array, enough = ANSWERED): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let received = "";
  socket.on("error", () => undefined);
  socket.on("data", (chunk) => {
    received += String(chunk);
    if (enough.test(received)) socket.destroy();
  });
  socket.write(bytes);
  await new Promise((resolve) => socket.once("close", resolve));
  return received;
}
