import { setTimeout as sleep } from "node:timers/promises";

import type { Result } from "../table.ts";
import type { World } from "../world.ts";

const SECONDS = 20;

export async function idle(world: World): Promise<Result[]> {
  const clouds = await world.clouds();
  const { url: databaseUrl, pool } = await world.newDatabase();
  const server = await world.server(databaseUrl);
  const worker = await world.worker(databaseUrl, clouds);
  await sleep(5_000);
  const commits = async (): Promise<number> => {
    await pool.query("select pg_stat_force_next_flush()");
    return Number(
      (
        await pool.query<{ n: string }>(
          "select xact_commit + xact_rollback as n from pg_stat_database where datname = current_database()",
        )
      ).rows[0]?.n,
    );
  };
  const before = { commits: await commits(), server: await server.cpuTime(), worker: await worker.cpuTime() };
  await sleep(SECONDS * 1000);
  const cpu = (await server.cpuTime()) - before.server + (await worker.cpuTime()) - before.worker;
  // Our own two questions are not theirs.
  const queries = ((await commits()) - before.commits - 2) / SECONDS;
  const memory = (await server.peakMemory()) + (await worker.peakMemory());
  await worker.stop();
  await server.stop();
  await clouds.stop();
  return [
    {
      number: 12,
      figure: "idle server and worker: processor",
      value: cpu / (SECONDS * 10),
      unit: "% of a core",
      goal: "see",
      met: null,
    },
    {
      number: 12,
      figure: "idle server and worker: peak memory",
      value: memory,
      unit: "MiB",
      goal: "see",
      met: null,
    },
    {
      number: 12,
      figure: "idle server and worker: transactions",
      value: queries,
      unit: "/s",
      goal: "no busy polling: < 10 (8 lanes look every 2 s)",
      met: queries < 10,
    },
  ];
}
