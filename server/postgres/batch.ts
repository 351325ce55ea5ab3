import { isBadRow, isConflict, isLocked, isTooSlow, isUnavailable } from "./errors.ts";

/** More is waiting than the database can take soon: tell the caller to come back. */
export class Overloaded extends Error {
  override name = "Overloaded";
}

interface Waiting<In, Out> {
  item: In;
  pushed_at: number;
  resolve(out: Out): void;
  reject(error: unknown): void;
}

export interface BatcherOptions<In> {
  /** Items per write, at most. */
  batch_size: number;
  /** Beyond this many, push() throws Overloaded. add() waits instead, and needs no bound. */
  queue_size?: number;
  /** An item waits this long for others to fill its batch. 0: only until the write in flight has ended. */
  linger_ms?: number;
  /**
   * Says of each item whether somebody keeps its rows locked; @throws lock_not_available if a whole table is. Without it, a batch
   * that meets a lock is halved.
   */
  lockedOf?: (items: In[]) => Promise<boolean[]>;
}

/** Two servers that lock the same rows may deadlock more than once; more often than this is no accident. */
const CONFLICT_TRIES = 5;

/** What waits for a locked table is tried again for this long: the callers of POST wait for 1.9 s, and a try takes up to 0.6 s. */
const LOCKED_TABLE_WAIT_MS = 1_300;

/**
 * Writes what arrives together in one statement: one is in flight, the rest queues for the next.
 * `add_job` serialises commits through NOTIFY, so with a transaction per item about 1,000 per second are the limit.
 *
 * - An item that Postgres refuses: its batch is halved until the item is alone, and only it fails.
 * - Items whose rows are locked: tried once more by themselves, beside the queue, which goes on without them.
 * - A whole table is locked (a migration): nothing could be written meanwhile, so the batch waits for it.
 * - A batch that is too slow: fails alone. It has used up its callers' time, so halving it would help none of them and make
 *   everybody behind it late, too.
 * - Postgres is away: all that wait fail at once. Trying batch after batch would take a time-out each.
 */
export class Batcher<In, Out> {
  readonly #write: (items: In[]) => Promise<Out[]>;
  readonly #lockedOf: ((items: In[]) => Promise<boolean[]>) | undefined;
  readonly #batch_size: number;
  readonly #queue_size: number;
  #linger_ms: number;
  #queue: Waiting<In, Out>[] = [];
  #busy = false;
  /** Ends the lingering of the next batch. */
  #stopLingering = (): void => {};
  /** Resolves when items have left the queue. */
  #taken = Promise.withResolvers<void>();
  /** Items of add() that are not written yet, and the first error of one. */
  readonly #added = new Set<Promise<void>>();
  #failure: { error: unknown } | undefined;

  /** `write` returns one result per item, in order. */
  constructor(write: (items: In[]) => Promise<Out[]>, options: BatcherOptions<In>) {
    this.#write = write;
    this.#lockedOf = options.lockedOf;
    this.#batch_size = options.batch_size;
    this.#queue_size = options.queue_size ?? Infinity;
    this.#linger_ms = options.linger_ms ?? 0;
  }

  /** Resolves when the item is committed. @throws Overloaded when the queue is full. */
  push(item: In): Promise<Out> {
    if (this.#queue.length >= this.#queue_size)
      return Promise.reject(new Overloaded("too many requests are waiting"));
    return new Promise((resolve, reject) => {
      this.#queue.push({ item, pushed_at: performance.now(), resolve, reject });
      if (this.#queue.length >= this.#batch_size) this.#stopLingering();
      if (!this.#busy) {
        this.#busy = true;
        // What arrives in the same turn of the event loop goes along.
        setImmediate(() => void this.#drain());
      }
    });
  }

  /**
   * For callers that do not wait for their own item. Back-pressure: resolves once less than a batch waits behind the write in
   * flight, so that callers work no faster than Postgres writes. @throws when an earlier item could not be written: stop.
   */
  async add(item: In): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    const written: Promise<void> = this.push(item).then(
      () => void this.#added.delete(written),
      (error: unknown) => {
        this.#added.delete(written);
        this.#failure ??= { error };
      },
    );
    this.#added.add(written);
    while (this.#queue.length >= this.#batch_size) await this.#taken.promise;
  }

  /** Writes at once what add() has left, and waits for it. @throws when an item could not be written. */
  async end(): Promise<void> {
    this.#linger_ms = 0;
    this.#stopLingering();
    await Promise.all(this.#added);
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      if (this.#linger_ms > 0) await this.#linger();
      const batch = this.#take(this.#batch_size);
      try {
        await this.#commit(batch);
      } catch (error) {
        // Items that are written already keep their result: a promise settles once.
        for (const waiting of [...batch, ...this.#take(Infinity)]) waiting.reject(error);
      }
    }
    this.#busy = false;
  }

  #take(count: number): Waiting<In, Out>[] {
    this.#taken.resolve();
    this.#taken = Promise.withResolvers();
    return this.#queue.splice(0, count);
  }

  /** Until the batch is full, its oldest item has waited long enough, or nothing more comes. */
  async #linger(): Promise<void> {
    const wait_ms = (this.#queue[0]?.pushed_at ?? 0) + this.#linger_ms - performance.now();
    if (wait_ms <= 0 || this.#queue.length >= this.#batch_size) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, wait_ms);
      this.#stopLingering = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** @throws when Postgres is away. */
  async #commit(batch: Waiting<In, Out>[]): Promise<void> {
    try {
      const results = await this.#writeWithRetry(batch.map((waiting) => waiting.item));
      // After the next batch is on its way, so that Postgres works while we hand out these results.
      setImmediate(() => batch.forEach((waiting, index) => waiting.resolve(results[index] as Out)));
    } catch (error) {
      if (isUnavailable(error) && !isTooSlow(error)) throw error;
      if (isLocked(error) && (batch.length > 1 || this.#lockedOf !== undefined)) {
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

  /** Writes the free items at once, and the locked ones beside the queue: they may wait for their locks as long as this batch did. */
  async #partLocked(batch: Waiting<In, Out>[], error: unknown): Promise<void> {
    const isHeld = await this.#heldOf(batch);
    if (isHeld === "all: the table is locked") {
      await this.#commit(batch);
      return;
    }
    const held = batch.filter((_, index) => isHeld[index]);
    if (held.length === batch.length || batch.length === 1) {
      for (const waiting of batch) waiting.reject(error);
      return;
    }
    // No lock is visible: it is gone again, or on a row that only its transaction sees. Halve, as for a bad row.
    const second = held.length > 0 ? held : batch.slice(batch.length >>> 1);
    const first = batch.filter((waiting) => !second.includes(waiting));
    void this.#commit(second).catch((away: unknown) => {
      for (const waiting of second) waiting.reject(away);
    });
    await this.#commit(first);
  }

  async #heldOf(batch: Waiting<In, Out>[]): Promise<boolean[] | "all: the table is locked"> {
    const items = batch.map((waiting) => waiting.item);
    try {
      return (await this.#lockedOf?.(items)) ?? items.map(() => false);
    } catch (error) {
      if (!isLocked(error)) throw error;
      const waited_ms = performance.now() - (batch[0]?.pushed_at ?? 0);
      return waited_ms < LOCKED_TABLE_WAIT_MS ? "all: the table is locked" : items.map(() => true);
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
