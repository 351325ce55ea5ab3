import type pg from "pg";

export interface WorkerPresence {
  /** Comes back when its connection broke, and gives back what dead workers held. */
  look(): Promise<void>;
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
  let connection: pg.PoolClient | undefined;
  const enter = async (): Promise<void> => {
    const client = await pool.connect();
    client.once("error", () => {
      if (connection === client) connection = undefined;
      client.release(true);
    });
    try {
      await client.query(KEEPALIVE);
      await client.query("select enter_worker($1)", [worker_id]);
      connection = client;
    } catch (error) {
      client.release(true);
      throw error;
    }
  };
  await enter();
  return {
    async look() {
      if (connection === undefined) await enter();
      await pool.query("select reap_dead_workers()");
    },
    async leave() {
      const client = connection;
      connection = undefined;
      // With Postgres away there is nothing to tidy: the lock is gone with the connection.
      await client?.query("select leave_worker($1)", [worker_id]).catch(() => undefined);
      client?.release(true);
    },
  };
}
