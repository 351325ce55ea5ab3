import { isBadRow, isConflict, isLocked, isTooSlow, isUnavailable } from "./errors.ts";

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
 * An item that Postgres refuses halves its batch until it stands alone, and only it fails. Items whose rows somebody keeps
 * locked are tried once more by themselves, beside the queue, which goes on without them. A batch that is too slow fails
 * alone: it has used up its callers' time, so halving it would help none of them and make everybody behind it late, too.
 * When Postgres is away all who wait hear so at once: trying batch after batch would take a time-out each.
 */
export class GroupCommit<In, Out> {
  readonly #write: (items: In[]) => Promise<Out[]>;
  readonly #lockedOf: ((items: In[]) => Promise<boolean[]>) | undefined;
  readonly #batch_size: number;
  readonly #queue_size: number;
  #queue: Waiting<In, Out>[] = [];
  #busy = false;

  /**
   * `write` answers one result per item, in order; `lockedOf` whether somebody keeps rows of that item locked. Without it,
   * a batch that meets a lock is halved.
   */
  constructor(
    write: (items: In[]) => Promise<Out[]>,
    limits: { batch_size: number; queue_size: number },
    lockedOf?: (items: In[]) => Promise<boolean[]>,
  ) {
    this.#write = write;
    this.#lockedOf = lockedOf;
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
      if (isUnavailable(error) && !isTooSlow(error)) throw error;
      if (batch.length > 1 && isLocked(error)) {
        await this.#partLocked(batch, error);
        return;
      }
      if (batch.length > 1 && isBadRow(error)) {
        const half = batch.length >>> 1;
        await this.#commit(batch.slice(0, half));
        await this.#commit(batch.slice(half));
        return;
      }
      for (const waiting of batch) waiting.reject(error);
    }
  }

  /** The free ones at once, the others beside the queue: they may wait for their locks as long as this batch did. */
  async #partLocked(batch: Waiting<In, Out>[], error: unknown): Promise<void> {
    const items = batch.map((waiting) => waiting.item);
    const isHeld = (await this.#lockedOf?.(items)) ?? items.map(() => false);
    const held = batch.filter((_, index) => isHeld[index]);
    if (held.length === batch.length) {
      for (const waiting of held) waiting.reject(error);
      return;
    }
    // No lock to be seen: gone again, or on a row that only its owner sees. Then as with a bad row.
    const second = held.length > 0 ? held : batch.slice(batch.length >>> 1);
    const first = batch.filter((waiting) => !second.includes(waiting));
    void this.#commit(second).catch((away: unknown) => {
      for (const waiting of second) waiting.reject(away);
    });
    await this.#commit(first);
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
