/** Many callers that do nothing but call: plain sockets, so that little of the machine goes into measuring. */
import { connect, type Socket } from "node:net";

import { SECRET } from "../support/thaw.ts";

export interface Load {
  answered: number;
  /** Anything but 200. */
  refused: number;
  seconds: number;
  per_second: number;
}

/**
 * Calls `path` over `connections` at once, one call after the other on each, for `seconds` or until `bodies` has no
 * more. A 503 is tried again, as callers do.
 */
export async function callForAWhile(options: {
  url: string;
  path: string;
  connections: number;
  seconds: number;
  body: (index: number) => string | undefined;
}): Promise<Load> {
  const { hostname, port } = new URL(options.url);
  const started = performance.now();
  const ends = started + options.seconds * 1000;
  const load: Load = { answered: 0, refused: 0, seconds: 0, per_second: 0 };
  let next = 0;

  const caller = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const socket: Socket = connect(Number(port), hostname);
      socket.setNoDelay(true);
      let received = "";
      let current: string | undefined;
      const call = (): void => {
        current = performance.now() < ends ? options.body(next++) : undefined;
        if (current === undefined) {
          socket.end();
          resolve();
        } else send(current);
      };
      const send = (body: string): void =>
        void socket.write(
          `POST ${options.path} HTTP/1.1\r\nhost: bench\r\nx-restore-secret: ${SECRET}\r\ncontent-type: application/json\r\n` +
            `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
        );
      socket.on("connect", call);
      socket.on("error", reject);
      socket.on("data", (chunk) => {
        received += chunk.toString("latin1");
        const head = received.indexOf("\r\n\r\n");
        if (head < 0) return;
        const length = Number(/content-length: (\d+)/i.exec(received.slice(0, head))?.[1]);
        if (received.length < head + 4 + length) return;
        const status = received.slice(9, 12);
        received = "";
        if (status === "200") load.answered++;
        else load.refused++;
        if (status === "503" && current !== undefined) setTimeout(send, 20, current);
        else call();
      });
    });
  await Promise.all(Array.from({ length: options.connections }, caller));
  load.seconds = (performance.now() - started) / 1000;
  load.per_second = load.answered / load.seconds;
  return load;
}
