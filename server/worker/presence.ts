import type pg from "pg";

export interface WorkerPresence {
  /** Enters again if the connection broke, and gives back what dead workers held. @throws when Postgres does not answer. */
  check(): Promise<void>;
  leave(): Promise<void>;
}

/** Postgres notices a host that vanished without closing its connection after about 25 s, not after the system's two hours. */
const KEEPALIVE =
  "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3";

/**
 * Registers this worker as alive. A live worker holds an advisory lock on a dedicated connection, which Postgres frees when the
 * process dies, however it dies. Any worker that finds the lock free gives back what the dead one held (reap_dead_workers).
 */
export async function enterWorker(pool: pg.Pool, worker_id: string): Promise<WorkerPresence> {
  let connection: PresenceConnection | undefined;
  let entering: Promise<void> | undefined;
  let isLeaving = false;
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
      // Only a query shows that a firewall has dropped the connection.
      const held = connection;
      await held?.client.query("select").catch(() => held.letGo());
      // One attempt at a time: a second connection would wait for the lock of the first.
      if (connection === undefined && !isLeaving)
        await (entering ??= enter().finally(() => (entering = undefined)));
      await pool.query("select reap_dead_workers()");
    },
    async leave() {
      isLeaving = true;
      await entering?.catch(() => undefined);
      // Not on the dedicated connection: it may have broken since the last check. With Postgres away there is nothing to tidy up:
      // the lock is gone with the connection, and another worker gives back what this one held.
      await pool.query("select leave_worker($1)", [worker_id]).catch(() => undefined);
      connection?.letGo();
    },
  };
}

interface PresenceConnection {
  client: pg.PoolClient;
  letGo(): void;
}

/** A broken connection is reported twice, by its query and by an event, but may be released only once. */
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
