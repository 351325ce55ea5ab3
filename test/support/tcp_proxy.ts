/** Stands between a program and Postgres, and can become a black hole. */
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

export interface TcpProxy extends AsyncDisposable {
  /** The database's, through the proxy. */
  url: string;
  /** Swallows what either side says from now on; new connections open and stay silent. */
  freeze(): void;
  /** Swallows only Postgres's answers. */
  mute(): void;
  /** Swallows what is said on the connections that there are; new ones work. Nobody is told: half-open. */
  forget(): void;
  /** Resolves when something was swallowed. */
  swallowed(): Promise<void>;
  /** Cuts what is there, and forwards again. */
  melt(): void;
}

interface Silence {
  up: boolean;
  down: boolean;
}

export async function startTcpProxy(databaseUrl: string): Promise<TcpProxy> {
  const url = new URL(databaseUrl);
  const target = { host: url.hostname, port: Number(url.port) };
  const pairs = new Map<{ near: Socket; far: Socket }, Silence>();
  /** Of connections to come. */
  let silence: Silence = { up: false, down: false };
  let swallow: (() => void) | undefined;
  const silenceAll = (to: Silence): void => {
    for (const one of pairs.values()) Object.assign(one, to);
  };
  const cut = (): void => {
    for (const { near, far } of pairs.keys()) {
      near.destroy();
      far.destroy();
    }
    pairs.clear();
  };
  const server = createServer((near) => {
    const far = connect(target);
    const own = { ...silence };
    pairs.set({ near, far }, own);
    const pass = (from: Socket, to: Socket, way: keyof Silence): void => {
      from.on("error", () => undefined);
      from.on("data", (chunk) => {
        if (!own[way]) to.write(chunk);
        else swallow?.();
      });
      from.on("close", () => own[way] || to.destroy());
    };
    pass(near, far, "up");
    pass(far, near, "down");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  url.port = String((server.address() as AddressInfo).port);
  const become = (next: Silence): void => {
    silence = next;
    silenceAll(next);
  };
  return {
    url: url.href,
    freeze: () => become({ up: true, down: true }),
    mute: () => become({ up: false, down: true }),
    forget: () => silenceAll({ up: true, down: true }),
    swallowed: () => new Promise((resolve) => (swallow = resolve)),
    melt() {
      cut();
      silence = { up: false, down: false };
    },
    async [Symbol.asyncDispose]() {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}
