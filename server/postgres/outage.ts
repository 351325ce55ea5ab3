import { setTimeout as sleep } from "node:timers/promises";

import type { Pool } from "pg";

import { type Log, reasonOf } from "../log.ts";
import { isPoolBusy, isReadOnly, isUnavailable } from "./errors.ts";

/** Between two checks whether Postgres is back; the logged duration is as exact. */
const CHECK_EVERY_MS = 1_000;

/** By then connections that broke together have left the pool, so that the first check does not use one of them. */
const SETTLE_MS = 200;

/**
 * Logs once that Postgres is lost, and once that it is back and after how long. An outage breaks all connections at the same
 * time and then fails every query: their callers have errors of their own and need not log the outage.
 */
export class Outage {
  readonly #log: Log;
  readonly #process: string;
  #since: number | undefined;
  #reason = "";

  /** `process` names this process, for logs that several share. One outage may watch several pools. */
  constructor(log: Log, process: string) {
    this.#log = log;
    this.#process = process;
  }

  /** Why Postgres counts as down, and for how long; undefined while it is up. */
  current(): { reason: string; away_ms: number } | undefined {
    if (this.#since === undefined) return undefined;
    return { reason: this.#reason, away_ms: Math.round(performance.now() - this.#since) };
  }

  /** pg reports a broken connection by an event, a failed connect only to its caller. */
  watch(pool: Pool): void {
    const suspect = (error: unknown): void => this.#suspect(pool, error);
    pool.on("connect", (client) => client.on("error", suspect));
    const connect = pool.connect.bind(pool) as (callback?: ConnectCallback) => Promise<unknown>;
    pool.connect = ((callback?: ConnectCallback) => {
      if (callback !== undefined) {
        return connect((error, ...rest) => {
          if (error) suspect(error);
          callback(error, ...rest);
        });
      }
      return connect().catch((error: unknown) => {
        suspect(error);
        throw error;
      });
    }) as typeof pool.connect;
  }

  #suspect(pool: Pool, error: unknown): void {
    if (this.#since !== undefined || pool.ending || !isAway(error)) return;
    this.#since = performance.now();
    this.#reason = reasonOf(error);
    void this.#check(pool);
  }

  /** One broken connection is no outage; a Postgres that does not respond is. */
  async #check(pool: Pool): Promise<void> {
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
      await sleep(CHECK_EVERY_MS, undefined, { ref: false });
    }
  }
}

type ConnectCallback = (error: Error | undefined, ...rest: unknown[]) => void;

/** Neither a pool whose connections are all in use, which has a time-out of its own, nor a read-only Postgres. */
const isAway = (error: unknown): boolean => isUnavailable(error) && !isReadOnly(error) && !isPoolBusy(error);
