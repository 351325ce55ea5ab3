/** One POST over a kept-alive connection, by Node's own client: fetch cannot limit the time to connect alone. */
import { Agent as HttpAgent, request as requestHttp, type IncomingHttpHeaders } from "node:http";
import { Agent as HttpsAgent, request as requestHttps } from "node:https";

import { CONNECT_TIMEOUT_MS, timeoutWithin } from "./tries.ts";

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/** Kept for the process: a new TLS connection costs more than the request itself. */
const HTTP = new HttpAgent({ keepAlive: true });
const HTTPS = new HttpsAgent({ keepAlive: true });

/** No answer in time. Unlike a refused connection, another try would cost as long again. */
export class TimedOut extends Error {
  override name = "TimedOut";
}

/** Follows no redirect. @throws when there is no whole answer in time. */
export async function post(
  url: URL,
  headers: Record<string, string>,
  body: string,
  deadline: number,
): Promise<Answer> {
  for (;;) {
    const attempt = await postOnce(url, headers, body, timeoutWithin(deadline));
    // Lambda freezes us between invocations, and the server closes idle connections meanwhile. Each such one is gone
    // after its try, so this ends.
    if ("answer" in attempt) return attempt.answer;
    if (!attempt.stale) throw attempt.error;
  }
}

type Attempt = { answer: Answer } | { error: Error; stale: boolean };

function postOnce(
  url: URL,
  headers: Record<string, string>,
  body: string,
  timeout_ms: number,
): Promise<Attempt> {
  const secure = url.protocol === "https:";
  return new Promise((resolve) => {
    const request = (secure ? requestHttps : requestHttp)(url, {
      method: "POST",
      agent: secure ? HTTPS : HTTP,
      headers: { ...headers, "content-length": Buffer.byteLength(body) },
    });
    let heard = false;
    const end = (attempt: Attempt): void => {
      clearTimeout(total);
      clearTimeout(connecting);
      resolve(attempt);
    };
    const fail = (error: Error, stale = false): void => {
      end({ error, stale });
      request.destroy();
    };
    const total = setTimeout(() => fail(new TimedOut("timed out")), timeout_ms);
    const connecting = setTimeout(
      () => fail(new TimedOut("timed out while connecting")),
      Math.min(CONNECT_TIMEOUT_MS, timeout_ms),
    );
    request.on("socket", (socket) => {
      const connected = (): void => clearTimeout(connecting);
      if (request.reusedSocket) connected();
      else socket.once(secure ? "secureConnect" : "connect", connected);
    });
    request.on("error", (error) => fail(error, request.reusedSocket && !heard && isReset(error)));
    request.on("response", (response) => {
      heard = true;
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", fail);
      response.on("end", () =>
        end({
          answer: {
            status: response.statusCode ?? 0,
            headers: response.headers,
            text: Buffer.concat(chunks).toString("utf8"),
          },
        }),
      );
    });
    request.end(body);
  });
}

/** The server had closed the connection before it could take the request. */
const isReset = (error: NodeJS.ErrnoException): boolean =>
  error.code === "ECONNRESET" || error.code === "EPIPE";
