/** A short storm; `npm run chaos` is the long one. And that the auditor would see it, were a promise broken. */
import { describe, expect, test } from "vitest";

import { audit } from "../chaos/auditor.ts";
import { checkoutOf, MUTANTS } from "../chaos/mutants.ts";
import { runStorm } from "../chaos/storm.ts";
import { LOST_ANSWERS } from "../chaos/weather.ts";

/** Of the weather; the timing is the machine's. */
const SEED = 61;

/** Each of these hits at least once; with another seed, or other plans, look again. */
const BLOWS = [
  "kill worker",
  "kill server",
  "pause worker",
  "terminate worker",
  "stop postgres fast",
  "stop postgres immediate",
];
const TIMEOUT_MS = 240_000;

describe("in a storm", () => {
  test("every promise is kept", { timeout: TIMEOUT_MS }, async () => {
    const evidence = await runStorm({ seed: SEED, reads: 300, people: 60, objects: 150, seconds: 15 });

    expect(audit(evidence), `seed ${SEED}`).toEqual([]);

    // It was one: otherwise nothing is shown.
    expect([...new Set(evidence.blows)]).toEqual(expect.arrayContaining(BLOWS));
    expect(evidence.rows.notifications.filter((row) => row["kind"] === "pre").length).toBeGreaterThan(10);
    expect(evidence.accepted).toHaveLength(300);
    expect(evidence.mails.length).toBeGreaterThan(60);
    expect(evidence.figures["repeats that Resend recognised"]).toBeGreaterThan(5);
    expect(evidence.figures["S3 calls spoiled"]).toBeGreaterThan(50);
  });

  // At once: these mostly wait for what their processes do.
  test.concurrent.for(MUTANTS)("a Thaw that $name is found out", { timeout: TIMEOUT_MS }, async (mutant) => {
    const { root, remove } = await checkoutOf(mutant);
    const evidence = await runStorm({
      seed: SEED,
      reads: 150,
      people: 40,
      objects: 60,
      seconds: 5,
      weather: LOST_ANSWERS,
      root,
    });
    await remove();

    expect(audit(evidence).join("\n")).toMatch(mutant.caught);
  });
});
