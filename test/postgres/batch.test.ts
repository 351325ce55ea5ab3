import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";

import { describe, expect, test } from "vitest";

import { Batcher, Overloaded } from "../../server/postgres/batch.ts";
import { isBadRow, isConflict, isUnavailable } from "../../server/postgres/errors.ts";

const LIMITS = { batch_size: 10, queue_size: 100 };

/** An error as `pg` throws it. */
const pgError = (code: string, more: object = {}): Error => Object.assign(new Error(code), { code, ...more });

/** Answers n with n * 10, and notes the batches. */
function tenfold(before: (items: number[]) => Promise<void> | void = () => undefined) {
  const batches: number[][] = [];
  const write = async (items: number[]): Promise<number[]> => {
    batches.push(items);
    await turn();
    await before(items);
    return items.map((item) => item * 10);
  };
  return { batches, write };
}

const outcome = (push: Promise<unknown>): Promise<unknown> =>
  push.catch((error: unknown) => (error as Error).message);

describe("Batcher", () => {
  test("what arrives together is written together, and each gets its own answer", async () => {
    const { batches, write } = tenfold();
    const batcher = new Batcher(write, LIMITS);

    expect(await Promise.all([3, 1, 2].map((item) => batcher.push(item)))).toEqual([30, 10, 20]);
    expect(batches).toEqual([[3, 1, 2]]);
  });

  test("one write is in flight; what arrives meanwhile goes with the next", async () => {
    let writing = 0;
    const at_once: number[] = [];
    const { batches, write } = tenfold();
    const batcher = new Batcher<number, number>(async (items) => {
      at_once.push(++writing);
      const results = await write(items);
      writing--;
      return results;
    }, LIMITS);

    const pushes: Promise<number>[] = [];
    for (let item = 0; item < 25; item++) {
      pushes.push(batcher.push(item));
      if (item % 4 === 0) await turn();
    }
    const results = await Promise.all(pushes);

    expect(results).toEqual(Array.from({ length: 25 }, (_, item) => item * 10));
    expect(Math.max(...at_once)).toBe(1);
    expect(batches.length).toBeLessThan(25);
    expect(batches.flat()).toEqual(Array.from({ length: 25 }, (_, item) => item));
  });

  test("no batch is larger than it may be", async () => {
    const { batches, write } = tenfold();
    const batcher = new Batcher(write, LIMITS);

    await Promise.all(Array.from({ length: 24 }, (_, item) => batcher.push(item)));

    expect(batches.map((batch) => batch.length)).toEqual([10, 10, 4]);
  });

  test("only the items that Postgres refuses fail, the others of their batch are written", async () => {
    const written: number[] = [];
    const { write } = tenfold((items) => {
      if (items.some((item) => item === 3 || item === 8)) throw pgError("22P05");
      written.push(...items);
    });
    const batcher = new Batcher(write, LIMITS);

    const results = await Promise.all(Array.from({ length: 10 }, (_, item) => outcome(batcher.push(item))));

    expect(results).toEqual([0, 10, 20, "22P05", 40, 50, 60, 70, "22P05", 90]);
    expect(written).toEqual([0, 1, 2, 4, 5, 6, 7, 9]);
  });

  test("a conflict is tried again, and nobody notices", async () => {
    const errors = [
      pgError("40P01"),
      pgError("40001"),
      pgError("23503", { constraint: "restore_requests_follow_restore" }),
    ];
    const { batches, write } = tenfold(() => {
      const error = errors.shift();
      if (error) throw error;
    });
    const batcher = new Batcher(write, LIMITS);

    expect(await Promise.all([batcher.push(1), batcher.push(2)])).toEqual([10, 20]);
    expect(batches).toEqual([
      [1, 2],
      [1, 2],
      [1, 2],
      [1, 2],
    ]);
  });

  test("a conflict that does not end is thrown in the end", async () => {
    const { batches, write } = tenfold(() => {
      throw pgError("40P01");
    });
    const batcher = new Batcher(write, LIMITS);

    expect(await outcome(batcher.push(1))).toBe("40P01");
    expect(batches.length).toBe(5);
  });

  test("Postgres is away: all who wait hear so at once, and the next who comes is tried again", async () => {
    let away = true;
    const { batches, write } = tenfold(() => {
      if (away) throw pgError("ECONNREFUSED");
    });
    const batcher = new Batcher(write, LIMITS);

    const results = await Promise.all(Array.from({ length: 35 }, (_, item) => outcome(batcher.push(item))));
    expect(new Set(results)).toEqual(new Set(["ECONNREFUSED"]));
    expect(batches.length).toBe(1);

    away = false;
    expect(await batcher.push(7)).toBe(70);
  });

  test("Postgres goes away while a batch is taken apart: whoever has an answer keeps it", async () => {
    let writes = 0;
    const { batches, write } = tenfold(() => {
      writes++;
      if (writes === 1) throw pgError("23514");
      if (writes === 3) throw new Error("Connection terminated unexpectedly");
    });
    const batcher = new Batcher(write, { batch_size: 4, queue_size: 100 });

    const results = await Promise.all([1, 2, 3, 4, 5].map((item) => outcome(batcher.push(item))));

    const lost = "Connection terminated unexpectedly";
    expect(results).toEqual([10, 20, lost, lost, lost]);
    expect(batches).toEqual([
      [1, 2, 3, 4],
      [1, 2],
      [3, 4],
    ]);
  });

  test("an error that is neither fails its batch only", async () => {
    const { write } = tenfold((items) => {
      if (items.includes(1)) throw pgError("42883");
    });
    const batcher = new Batcher(write, { batch_size: 2, queue_size: 100 });

    expect(await Promise.all([1, 2, 3].map((item) => outcome(batcher.push(item))))).toEqual([
      "42883",
      "42883",
      30,
    ]);
  });

  test("who meets a lock waits beside the queue, and only who is still locked out fails", async () => {
    let locked = [3, 8];
    const { batches, write } = tenfold((items) => {
      if (items.some((item) => locked.includes(item))) throw pgError("55P03");
    });
    const batcher = new Batcher(write, {
      ...LIMITS,
      lockedOf: async (items) => {
        const held = items.map((item) => locked.includes(item));
        // Somebody lets go of one of them just then.
        locked = [3];
        return held;
      },
    });

    const results = await Promise.all(Array.from({ length: 12 }, (_, item) => outcome(batcher.push(item))));

    expect(results).toEqual([0, 10, 20, "55P03", 40, 50, 60, 70, 80, 90, 100, 110]);
    // One wait for the whole batch, not one for each half; the queue goes on without the two.
    expect(batches.slice(0, 3)).toEqual([
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
      [3, 8],
      [0, 1, 2, 4, 5, 6, 7, 9],
    ]);
    expect(batches).toContainEqual([10, 11]);
  });

  test("a lock that nobody can see halves its batch, and the other half waits for nobody", async () => {
    const { batches, write } = tenfold((items) => {
      if (items.includes(1)) throw pgError("55P03");
    });
    const batcher = new Batcher(write, { ...LIMITS, lockedOf: async (items) => items.map(() => false) });

    const results = await Promise.all([0, 1, 2, 3].map((item) => outcome(batcher.push(item))));

    expect(results).toEqual([0, "55P03", 20, 30]);
    expect(batches).toContainEqual([2, 3]);
  });

  test.for([1, 4])(
    "a table that a migration locks delays a batch of %i, and fails none of it",
    async (size) => {
      let locks = 4;
      const meetLock = (): void => {
        if (locks-- > 0) throw pgError("55P03");
      };
      const { write } = tenfold(meetLock);
      const batcher = new Batcher(write, {
        ...LIMITS,
        lockedOf: async (items) => {
          meetLock();
          return items.map(() => false);
        },
      });

      const results = await Promise.all(
        Array.from({ length: size }, (_, item) => outcome(batcher.push(item))),
      );

      expect(results).toEqual([0, 10, 20, 30].slice(0, size));
    },
  );

  test("a table that stays locked fails what has waited for as long as its caller does, and no batch behind it", async () => {
    let is_locked = true;
    const { write } = tenfold(() => {
      if (is_locked) throw pgError("55P03");
    });
    const batcher = new Batcher(write, {
      ...LIMITS,
      lockedOf: async () => {
        await sleep(50);
        throw pgError("55P03");
      },
    });

    expect(await outcome(batcher.push(1))).toBe("55P03");
    is_locked = false;
    expect(await outcome(batcher.push(2))).toBe(20);
  });

  test.for(["57014", "Query read timeout"])(
    "a batch that is too slow fails alone, and the queue behind it lives on (%s)",
    async (error) => {
      const { batches, write } = tenfold((items) => {
        if (items.includes(1)) throw error === "57014" ? pgError(error) : new Error(error);
      });
      const batcher = new Batcher(write, { batch_size: 2, queue_size: 100 });

      expect(await Promise.all([0, 1, 2, 3].map((item) => outcome(batcher.push(item))))).toEqual([
        error,
        error,
        20,
        30,
      ]);
      // Its callers have their answer by then: trying its halves would only make the others late.
      expect(batches).toEqual([
        [0, 1],
        [2, 3],
      ]);
    },
  );

  test("beyond the bound of the queue callers are turned away, and there is room again later", async () => {
    const { write } = tenfold();
    const batcher = new Batcher(write, { batch_size: 2, queue_size: 3 });

    const pushes = [1, 2, 3, 4].map((item) => batcher.push(item));
    await expect(pushes[3]).rejects.toBeInstanceOf(Overloaded);
    expect(await Promise.all(pushes.slice(0, 3))).toEqual([10, 20, 30]);
    expect(await batcher.push(5)).toBe(50);
  });
});

describe("A Batcher that lingers", () => {
  const LINGER_MS = 300;

  test("writes a batch that fills up at once, and any other when its first item has waited", async () => {
    const { batches, write } = tenfold();
    const batcher = new Batcher(write, { batch_size: 3, linger_ms: LINGER_MS });
    const began = performance.now();

    await Promise.all([1, 2, 3].map((item) => batcher.push(item)));
    expect(performance.now() - began).toBeLessThan(LINGER_MS);

    const first = batcher.push(4);
    await turn();
    expect(await Promise.all([first, batcher.push(5)])).toEqual([40, 50]);
    expect(performance.now() - began).toBeGreaterThan(LINGER_MS - 5);
    expect(batches).toEqual([
      [1, 2, 3],
      [4, 5],
    ]);
  });

  test("what waited for the write in flight does not linger as long again", async () => {
    let slow = true;
    const { batches, write } = tenfold(async () => {
      if (slow) await sleep(LINGER_MS);
      slow = false;
    });
    const batcher = new Batcher(write, { batch_size: 2, linger_ms: LINGER_MS });
    const first = [1, 2].map((item) => batcher.push(item));
    await turn();
    const began = performance.now();

    await batcher.push(3);

    expect(performance.now() - began).toBeLessThan(1.9 * LINGER_MS);
    await Promise.all(first);
    expect(batches).toEqual([[1, 2], [3]]);
  });

  test("writes what is left at its end, without lingering", async () => {
    const { batches, write } = tenfold();
    const batcher = new Batcher(write, { batch_size: 3, linger_ms: 60_000 });
    for (const item of [1, 2, 3, 4]) await batcher.add(item);

    await batcher.end();

    expect(batches).toEqual([[1, 2, 3], [4]]);
  });

  test("keeps callers who add from being faster than it writes", async () => {
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    const { batches, write } = tenfold(() => held);
    const batcher = new Batcher(write, { batch_size: 2, linger_ms: 60_000 });
    let added = 0;
    const adding = (async () => {
      for (const item of [1, 2, 3, 4, 5, 6, 7]) {
        await batcher.add(item);
        added = item;
      }
    })();
    for (let turns = 0; turns < 20; turns++) await turn();

    // One batch in flight, one that is full behind it.
    expect([added, batches]).toEqual([3, [[1, 2]]]);

    release();
    await adding;
    await batcher.end();
    expect(batches).toEqual([[1, 2], [3, 4], [5, 6], [7]]);
  });

  test("tells who adds more, and who ends it, that an item could not be written", async () => {
    const { batches, write } = tenfold(() => {
      throw pgError("ECONNREFUSED");
    });
    const batcher = new Batcher(write, { batch_size: 2, linger_ms: 60_000 });
    await batcher.add(1);
    await batcher.add(2);
    await expect.poll(() => outcome(batcher.add(3))).toBe("ECONNREFUSED");

    expect(await outcome(batcher.end())).toBe("ECONNREFUSED");
    expect(batches[0]).toEqual([1, 2]);
  });
});

describe("what an error of Postgres means", () => {
  test.for([
    ["22P05", "bad row"],
    ["23514", "bad row"],
    ["54000", "bad row"],
    ["40P01", "conflict"],
    ["40001", "conflict"],
    ["08006", "unavailable"],
    ["25006", "unavailable"],
    ["53300", "unavailable"],
    ["57P01", "unavailable"],
    ["57P03", "unavailable"],
    ["28P01", "unavailable"],
    ["3D000", "unavailable"],
    ["ECONNREFUSED", "unavailable"],
    ["ECONNRESET", "unavailable"],
    // As long as an SQLSTATE, and none.
    ["EPIPE", "unavailable"],
    ["ENOENT", "unavailable"],
    ["ENETUNREACH", "unavailable"],
    ["42883", "none of these"],
    ["ERR_INVALID_ARG_TYPE", "none of these"],
  ] as const)("%s: %s", ([code, meaning]) => {
    const error = pgError(code);
    expect([isBadRow(error), isConflict(error), isUnavailable(error)]).toEqual([
      meaning === "bad row",
      meaning === "conflict",
      meaning === "unavailable",
    ]);
  });

  test.for([
    "Connection terminated unexpectedly",
    "timeout exceeded when trying to connect",
    "Query read timeout",
    "Client has encountered a connection error and is not queryable",
  ])("%s: unavailable", (message) => {
    expect(isUnavailable(new Error(message))).toBe(true);
  });

  test("an error of our own is none of these", () => {
    for (const error of [new Error("unreachable"), undefined, null, "text"]) {
      expect([isBadRow(error), isConflict(error), isUnavailable(error)]).toEqual([false, false, false]);
    }
  });
});
