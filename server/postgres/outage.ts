import { setTimeout as sleep } from "node:timers/promises";

import type { Pool } from "pg";

import { type Log, reasonOf } from "../log.ts";
import { isReadOnly, isUnavailable } from "./errors.ts";

/** Between two looks whether Postgres is back: the line that says so is about as exact. */
const LOOK_EVERY_MS = 1_000;

/** By then connections that broke together have left the pool: the first look shall not be at one of them. */
const SETTLE_MS = 200;

/**
 * Says once that Postgres is lost, and once that it is back and after how long. An outage breaks all connections at the
 * same time, and then fails each query anew: those who asked have errors of their own, and need not tell of it as well.
 */
export class Outage {
  readonly #log: Log;
  readonly #process: string;
  #since: number | undefined;
  #reason = "";

  /** `process` names who lost it, for logs in which several meet. One outage may watch several pools. */
  constructor(log: Log, process: string) {
    this.#log = log;
    this.#process = process;
  }

  /** Why Postgres is taken to be away, and for how long already; undefined while it answers. */
  current(): { reason: string; away_ms: number } | undefined {
    if (this.#since === undefined) return undefined;
    return { reason: this.#reason, away_ms: Math.round(performance.now() - this.#since) };
  }

  /** pg tells of a connection that breaks by an event, of one that cannot be made only to whoever asks for it. */
  watch(pool: Pool): void {
    const sign = (error: unknown): void => this.#sign(pool, error);
    pool.on("connect", (client) => client.on("error", sign));
    const connect = pool.connect.bind(pool) as (callback?: ConnectCallback) => Promise<unknown>;
    pool.connect = ((callback?: ConnectCallback) => {
      if (callback !== undefined) {
        return connect((error, ...rest) => {
          if (error) sign(error);
          callback(error, ...rest);
        });
      }
      return connect().catch((error: unknown) => {
        sign(error);
        throw error;
      });
    }) as typeof pool.connect;
  }

  #sign(pool: Pool, error: unknown): void {
    if (this.#since !== undefined || pool.ending || !isAway(error)) return;
    this.#since = performance.now();
    this.#reason = reasonOf(error);
    void this.#look(pool);
  }

  /** One connection that broke is no outage: only Postgres itself knows, by not answering. */
  async #look(pool: Pool): Promise<void> {
    let isLost = false;
    await sleep(SETTLE_MS, undefined, { ref: false });
    while (!pool.ending) {
      const error: unknown = await pool.query("select").then(
        () => undefined,
        (reason: unknown) => reason ?? "no reason",
      );
      const away = this.current();
      if (error === undefined || away === undefined) {
        this.#since = undefined;
        const line = { process: this.#process, away_ms: away?.away_ms };
        if (isLost) this.#log.warn(line, "Postgres is back");
        else
          this.#log.warn(
            { ...line, reason: this.#reason },
            "a connection to Postgres was lost; Postgres answers",
          );
        return;
      }
      if (!isLost && isAway(error)) {
        isLost = true;
        const reasons = new Set([this.#reason, reasonOf(error)]);
        this.#reason = [...reasons].join("; ");
        this.#log.error({ process: this.#process, reason: this.#reason }, "Postgres is lost");
      }
      await sleep(LOOK_EVERY_MS, undefined, { ref: false });
    }
  }
}

type ConnectCallback = (error: Error | undefined, ...rest: unknown[]) => void;

/** A pool whose connections are all in use has a time-out of its own, and a Postgres that is read-only answers. */
const isAway = (error: unknown): boolean =>
  isUnavailable(error) &&
  !isReadOnly(error) &&
  (error as Error | null)?.message !== "timeout exceeded when trying to connect";
