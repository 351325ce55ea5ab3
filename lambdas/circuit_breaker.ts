/**
 * A circuit breaker for batches of SQS: while Thaw is away, trying each message only costs time that is billed, and greets
 * a server that comes back with a crowd.
 *
 * Closed, all go. Open, the first message of each batch goes alone, once, as a probe: if Thaw answers, the breaker closes
 * and the rest follows; if not, the rest returns to the queue unsent.
 */
import { Permanent, Unreachable, Unsent } from "./failures.ts";
import { messageOf } from "./log.ts";

/**
 * Answers of 429 and 5xx may be one event's own trouble (a locked row), so only a row of them without anything else in
 * between means that Thaw, or its database, is away: as many as go at once.
 */
const BUSY_IN_A_ROW = 10;

/** Of this process, which handles one invocation at a time. Another address is another Thaw. */
const known = { url: process.env["THAW_URL"], busy: 0, away: undefined as string | undefined };

export class CircuitBreaker {
  /** Set once this batch has probed, or has found out by itself that Thaw is away: it probes no more. */
  #probe: Promise<unknown> | undefined;

  constructor() {
    const url = process.env["THAW_URL"];
    if (known.url !== url) Object.assign(known, { url, busy: 0, away: undefined });
  }

  /** @throws Unsent instead of sending while Thaw is away. */
  async pass<T>(send: (options: { retry: boolean }) => Promise<T>): Promise<T> {
    if (known.away !== undefined && this.#probe === undefined) {
      const probe = this.#watch(send({ retry: false }));
      this.#probe = probe.catch(() => undefined);
      return await probe;
    }
    await this.#probe;
    if (known.away !== undefined) throw new Unsent(`not sent, because Thaw is away: ${known.away}`);
    return await this.#watch(send({ retry: true }));
  }

  async #watch<T>(sent: Promise<T>): Promise<T> {
    try {
      const answer = await sent;
      this.#close();
      return answer;
    } catch (error) {
      if (error instanceof Permanent) this.#close();
      else if (error instanceof Unreachable || ++known.busy >= BUSY_IN_A_ROW) {
        known.away = messageOf(error);
        this.#probe ??= Promise.resolve();
      }
      throw error;
    }
  }

  /** Thaw has dealt with an event. */
  #close(): void {
    known.busy = 0;
    known.away = undefined;
  }
}
