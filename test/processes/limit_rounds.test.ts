/**
 * No RestoreObject is sent beyond a limit, whatever crashes: seeded rounds with real workers that are really killed. The same few
 * each time; others and more of them: LIMIT_SEED=100 LIMIT_ROUNDS=100. What it was killed at is the machine's timing, not the seed's.
 */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomUUID } from "node:crypto";

import { expect, inject, test } from "vitest";

import { createLog } from "../../server/log.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import { createPool } from "../../server/postgres/pool.ts";
import { onServer, playRound } from "../chaos/limit_round.ts";
import { PrivatePostgres, UNSAFE } from "../support/private_postgres.ts";
import { ROOT } from "../support/root.ts";

const ROUNDS = Number(process.env["LIMIT_ROUNDS"] ?? 5);
const SEED = Number(process.env["LIMIT_SEED"] ?? 1);

test(
  "fifty readers, three workers and a limit of twenty: twenty restores, whatever is killed",
  { timeout: 60_000 + ROUNDS * 60_000 },
  async () => {
    const postgres = await PrivatePostgres.start(
      join(tmpdir(), `thaw-limits-${randomUUID()}`),
      UNSAFE,
      inject("postgresPrograms"),
    );
    try {
      const url = new URL(postgres.url);
      url.pathname = "/rounds";
      await onServer(postgres.url, "create database rounds");
      const pool = createPool(url.href, { name: "rounds", max: 2, query_timeout_ms: 0 }, createLog("silent"));
      await migrate(pool, join(ROOT, "sql"));
      await pool.end();
      const figures: Record<string, number> = {};
      for (let seed = SEED; seed < SEED + ROUNDS; seed++) {
        const round = await playRound(seed, postgres, "rounds");
        if (ROUNDS > 10) console.log(seed, JSON.stringify(round));
        expect.soft(round.wrong).toEqual([]);
        for (const [name, value] of Object.entries(round.figures))
          if (typeof value === "number") figures[name] = (figures[name] ?? 0) + value;
      }
      if (ROUNDS > 10) console.log(`${ROUNDS} rounds: ${JSON.stringify(figures)}`);
      // It was a bad day: otherwise nothing is shown.
      expect(figures["kills"]).toBeGreaterThan(3 * ROUNDS);
      expect(figures["S3 calls spoiled"]).toBeGreaterThan(5 * ROUNDS);
    } finally {
      await postgres.remove();
    }
  },
);
