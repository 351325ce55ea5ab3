import type pg from "pg";

export interface WorkerPresence {
  /** Comes back when its connection broke, and gives back what dead workers held. */
  check(): Promise<void>;
  leave(): Promise<void>;
}

/** A host that vanished without a word is noticed after about 25 seconds, not after the system's two hours. */
const KEEPALIVE =
  "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3";

/**
 * Makes it known that this worker lives: a lock on a connection of its own, which Postgres frees by itself when
 * the process dies, however it dies. Whoever sees it free gives back what the dead one held (reap_dead_workers).
 */
export async function enterWorker(pool: pg.Pool, worker_id: string): Promise<WorkerPresence> {
  let connection: PresenceConnection | undefined;
  let entering: Promise<void> | undefined;
  const enter = async (): Promise<void> => {
    const entered = holdConnection(await pool.connect(), () => {
      if (connection === entered) connection = undefined;
    });
    try {
      await entered.client.query(KEEPALIVE);
      await entered.client.query("select enter_worker($1)", [worker_id]);
      connection = entered;
    } catch (error) {
      entered.letGo();
      throw error;
    }
  };
  await enter();
  return {
    async check() {
      // A connection that a firewall forgot tells nobody: it must be spoken on.
      const held = connection;
      await held?.client.query("select").catch(() => held.letGo());
      // Once at a time: a second connection would wait for the lock of the first.
      if (connection === undefined) await (entering ??= enter().finally(() => (entering = undefined)));
      await pool.query("select reap_dead_workers()");
    },
    async leave() {
      const left = connection;
      connection = undefined;
      // With Postgres away there is nothing to tidy: the lock is gone with the connection.
      await left?.client.query("select leave_worker($1)", [worker_id]).catch(() => undefined);
      left?.letGo();
    },
  };
}

interface PresenceConnection {
  client: pg.PoolClient;
  letGo(): void;
}

/** A connection that breaks is told of twice, by its query and by an event; the pool takes it back once. */
function holdConnection(client: pg.PoolClient, onGone: () => void): PresenceConnection {
  let isHeld = true;
  const letGo = (): void => {
    if (!isHeld) return;
    isHeld = false;
    client.release(true);
    onGone();
  };
  client.once("error", letGo);
  return { client, letGo };
}
