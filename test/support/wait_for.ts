import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";

/** Asks until there is an answer. An error of the probe counts as "not yet", and is told at the end. */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined | false>,
  timeout_ms = 15_000,
  pause_ms = 20,
): Promise<T> {
  const deadline = Date.now() + timeout_ms;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) {
      throw new Error(`Waited ${timeout_ms} ms in vain for ${what}; last: ${inspect(last)}`, { cause: last });
    }
    await sleep(pause_ms);
  }
}
