import { isBadRow, isConflict, isUnavailable } from "./postgres_errors.ts";

/** More is waiting than the database can take soon: tell the caller to come back. */
export class Overloaded extends Error {
  override name = "Overloaded";
}

interface Waiting<In, Out> {
  item: In;
  resolve(out: Out): void;
  reject(error: unknown): void;
}

/** Two servers that lock the same rows may meet more than once; more often than this is no accident. */
const CONFLICT_TRIES = 5;

/**
 * Writes what arrives together in one statement: one is in flight, the rest queues for the next.
 * `add_job` serialises commits through NOTIFY, so a transaction each stops at about 1,000 per second.
 *
 * An item that Postgres refuses halves its batch until it stands alone, and only it fails. When Postgres is
 * away all who wait hear so at once: trying batch after batch would take a time-out each.
 */
export class GroupCommit<In, Out> {
  readonly #write: (items: In[]) => Promise<Out[]>;
  readonly #batch_size: number;
  readonly #queue_size: number;
  #queue: Waiting<In, Out>[] = [];
  #busy = false;

  /** `write` answers one result per item, in order. */
  constructor(write: (items: In[]) => Promise<Out[]>, limits: { batch_size: number; queue_size: number }) {
    this.#write = write;
    this.#batch_size = limits.batch_size;
    this.#queue_size = limits.queue_size;
  }

  /** Resolves when the item is committed. @throws Overloaded when the queue is full. */
  push(item: In): Promise<Out> {
    if (this.#queue.length >= this.#queue_size)
      return Promise.reject(new Overloaded("too many requests are waiting"));
    return new Promise((resolve, reject) => {
      this.#queue.push({ item, resolve, reject });
      if (!this.#busy) {
        this.#busy = true;
        // What arrives in the same turn of the event loop goes along.
        setImmediate(() => void this.#drain());
      }
    });
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, this.#batch_size);
      try {
        await this.#commit(batch);
      } catch (error) {
        // Whoever has an answer keeps it: a promise settles once.
        for (const waiting of [...batch, ...this.#queue.splice(0)]) waiting.reject(error);
      }
    }
    this.#busy = false;
  }

  /** @throws when Postgres is away. */
  async #commit(batch: Waiting<In, Out>[]): Promise<void> {
    try {
      const results = await this.#writeWithRetry(batch.map((waiting) => waiting.item));
      // After the next batch is on its way: Postgres works on it while we answer this one.
      setImmediate(() => batch.forEach((waiting, index) => waiting.resolve(results[index] as Out)));
    } catch (error) {
      if (isUnavailable(error)) throw error;
      if (batch.length === 1 || !isBadRow(error)) {
        for (const waiting of batch) waiting.reject(error);
        return;
      }
      const half = batch.length >>> 1;
      await this.#commit(batch.slice(0, half));
      await this.#commit(batch.slice(half));
    }
  }

  async #writeWithRetry(items: In[]): Promise<Out[]> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#write(items);
      } catch (error) {
        if (!isConflict(error) || attempt === CONFLICT_TRIES) throw error;
      }
    }
  }
}
