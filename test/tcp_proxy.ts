/** A cable between two programs that can be held, cut or left hanging. */
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

export interface TcpProxy {
  port: number;
  /** From now on what the server says is kept back, on connections that exist and new ones. */
  holdAnswers(): void;
  /** From now on the connections that exist carry nothing, and nobody is told: half-open. New ones work. */
  forgetConnections(): void;
  close(): Promise<void>;
}

export async function startTcpProxy(target_port: number): Promise<TcpProxy> {
  const pairs = new Set<{ caller: Socket; server: Socket }>();
  let holds = false;
  const proxy = createServer((caller) => {
    const pair = { caller, server: connect(target_port, "127.0.0.1") };
    pairs.add(pair);
    const end = (): void => {
      caller.destroy();
      pair.server.destroy();
      pairs.delete(pair);
    };
    for (const socket of [caller, pair.server]) {
      socket.on("error", end);
      socket.on("close", end);
    }
    caller.pipe(pair.server);
    if (!holds) pair.server.pipe(caller);
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return {
    port: (proxy.address() as AddressInfo).port,
    holdAnswers() {
      holds = true;
      for (const { caller, server } of pairs) server.unpipe(caller);
    },
    forgetConnections() {
      for (const { caller, server } of pairs) {
        caller.unpipe(server);
        server.unpipe(caller);
        server.removeAllListeners("close");
        // What still arrives is taken and thrown away, as by a network that lost its way.
        caller.resume();
        server.resume();
      }
    },
    async close() {
      for (const { caller, server } of pairs) {
        caller.destroy();
        server.destroy();
      }
      proxy.close();
      await once(proxy, "close");
    },
  };
}
