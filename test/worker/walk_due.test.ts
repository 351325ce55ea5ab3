import { setImmediate as turn } from "node:timers/promises";

import { describe, expect, test } from "vitest";

import { walkDue } from "../../server/worker/walk_due.ts";

/** A claim that hands out numbers 0 to count - 1, and notes what it was asked for. */
function numbers(count: number): { claim: (limit: number) => Promise<number[]>; limits: number[] } {
  const limits: number[] = [];
  let given = 0;
  return {
    limits,
    claim: async (limit) => {
      limits.push(limit);
      await turn();
      const page = Array.from({ length: Math.min(limit, count - given) }, (_, index) => given + index);
      given += page.length;
      return page;
    },
  };
}

const never = new AbortController().signal;

describe("walkDue", () => {
  test("does every row once, oldest first, and answers how many", async () => {
    const { claim } = numbers(23);
    const done: number[] = [];

    const worked = await walkDue({
      claim,
      work: async (row) => {
        await turn();
        done.push(row);
      },
      concurrency: 4,
      signal: never,
    });

    expect(worked).toBe(23);
    expect(done).toEqual(Array.from({ length: 23 }, (_, index) => index));
  });

  test("claims no more than it can work on at once, one claim at a time", async () => {
    const { claim, limits } = numbers(10);
    let claiming = 0;
    const at_once: number[] = [];

    await walkDue({
      claim: async (limit) => {
        at_once.push(++claiming);
        const page = await claim(limit);
        claiming--;
        return page;
      },
      work: () => turn(),
      concurrency: 4,
      signal: never,
    });

    // 4 + 4 + 2, and the one that finds nothing.
    expect(limits).toEqual([4, 4, 4, 4]);
    expect(Math.max(...at_once)).toBe(1);
  });

  test("works on as many rows at once as it may, and never on more", async () => {
    let working = 0;
    const at_once: number[] = [];

    await walkDue({
      claim: numbers(30).claim,
      work: async () => {
        at_once.push(++working);
        await turn();
        working--;
      },
      concurrency: 5,
      signal: never,
    });

    expect(Math.max(...at_once)).toBe(5);
  });

  test("a slow row holds up nobody but itself", async () => {
    const slow = Promise.withResolvers<void>();
    let done = 0;

    await walkDue({
      claim: numbers(40).claim,
      work: async (row) => {
        if (row === 1) await slow.promise;
        // All others are done while the second still waits.
        if (++done === 39) slow.resolve();
      },
      concurrency: 3,
      signal: never,
    });

    expect(done).toBe(40);
  });

  test("nothing due: one claim, and the walk is over", async () => {
    const { claim, limits } = numbers(0);

    expect(
      await walkDue({
        claim,
        work: () => Promise.reject(new Error("there was no row")),
        concurrency: 3,
        signal: never,
      }),
    ).toBe(0);
    expect(limits).toEqual([3]);
  });

  test("a signal ends it between two rows: what is begun is finished, nothing more is begun", async () => {
    const stop = new AbortController();
    const begun: number[] = [];
    const finished: number[] = [];
    const { claim, limits } = numbers(100);

    const worked = await walkDue({
      claim,
      work: async (row) => {
        begun.push(row);
        if (row === 5) stop.abort();
        await turn();
        finished.push(row);
      },
      concurrency: 4,
      signal: stop.signal,
    });

    expect(finished).toEqual(begun);
    expect(worked).toBe(begun.length);
    expect(begun.length).toBeLessThanOrEqual(8);
    expect(limits.length).toBe(2);
  });

  test("an error in the work ends the walk and is thrown; the others finish their row", async () => {
    const finished: number[] = [];
    const { claim, limits } = numbers(100);

    await expect(
      walkDue({
        claim,
        work: async (row) => {
          if (row === 2) throw new Error("Postgres is away");
          await turn();
          await turn();
          finished.push(row);
        },
        concurrency: 4,
        signal: never,
      }),
    ).rejects.toThrow("Postgres is away");

    expect(finished).toEqual([0, 1, 3]);
    expect(limits).toEqual([4]);
  });

  test("an error ends the walk also while a page is being claimed", async () => {
    const failed = Promise.withResolvers<void>();
    const claimed = Promise.withResolvers<void>();
    const worked: number[] = [];
    let pages = 0;

    const walk = walkDue({
      claim: async () => {
        pages++;
        if (pages === 1) return [1, 2];
        // The second lane asks for more; meanwhile the first one fails.
        claimed.resolve();
        await failed.promise;
        await turn();
        return pages === 2 ? [3, 4] : [];
      },
      work: async (row) => {
        worked.push(row);
        if (row !== 1) return;
        await claimed.promise;
        failed.resolve();
        throw new Error("Postgres is away");
      },
      concurrency: 2,
      signal: never,
    });

    await expect(walk).rejects.toThrow("Postgres is away");
    expect(worked).toEqual([1, 2]);
    expect(pages).toBe(2);
  });

  test("an error of the claim ends the walk and is thrown", async () => {
    let claims = 0;
    await expect(
      walkDue({
        claim: () => {
          claims++;
          return Promise.reject(new Error("no connection"));
        },
        work: () => turn(),
        concurrency: 4,
        signal: never,
      }),
    ).rejects.toThrow("no connection");
    expect(claims).toBeLessThanOrEqual(4);
  });
});
