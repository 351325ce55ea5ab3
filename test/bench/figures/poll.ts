import { waitFor } from "../../support/wait_for.ts";
import type { Result } from "../table.ts";
import { LOOK_EVERY_MS, type World } from "../world.ts";

async function round(
  world: World,
  count: number,
  env: Record<string, string> = {},
): Promise<{ memory: number; calls: number; per_second: number }> {
  const clouds = await world.clouds();
  await clouds.ask("archive", "slow", count);
  await clouds.ask("beginRestores", "slow", count);
  const { url: databaseUrl, pool } = await world.newDatabase();
  await pool.query(
    `insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, pinned_version_id)
     select gen_random_uuid(), 'bench', 'slow' || n, 'pending', now() - interval '2 days', now() - interval '2 days', '' from generate_series(0, $1 - 1) n`,
    [count],
  );
  await pool.query("vacuum analyze restores");
  const started = performance.now();
  const worker = await world.worker(databaseUrl, clouds, env);
  const left = async (): Promise<number> =>
    (await pool.query("select from restores where last_checked_at is null limit 1")).rowCount ?? 1;
  await waitFor("all to be looked at", async () => (await left()) === 0, 900_000, LOOK_EVERY_MS);
  const seconds = (performance.now() - started) / 1000;
  const memory = await worker.peakMemory();
  await worker.stop();
  const calls = Object.values(await clouds.ask("counts")).reduce((sum, times) => sum + times, 0);
  await clouds.stop();
  return { memory, calls: calls / count, per_second: count / seconds };
}

/** The SDK alone: objects that bear the names of a round of the worker's. */
async function bareMemory(world: World, count: number): Promise<number> {
  const clouds = await world.clouds();
  await clouds.ask("archive", "slow", count);
  const memory = Number(await world.script("bare_loop.ts", ["slow", String(count), "HEAD"], clouds.env));
  await clouds.stop();
  return memory;
}

const FEW = 1_000;
const MANY = 100_000;
/** A burst as large as those that figure 13 restores. */
const ALL = 300_000;

/** Node collects garbage late where memory is there: a limit shows what is needed. */
const LIMITED_HEAP = { NODE_OPTIONS: "--max-old-space-size=512" };

export async function poll(world: World): Promise<Result[]> {
  const few = await round(world, FEW);
  const all = await round(world, ALL);
  const limited = (await round(world, MANY, LIMITED_HEAP)).memory;
  const limitedFew = (await round(world, FEW, LIMITED_HEAP)).memory;
  const bare = await bareMemory(world, MANY);
  const bareFew = await bareMemory(world, FEW);
  const memory = { number: 10, unit: "MiB", against: "1,000 objects" };
  return [
    {
      ...memory,
      figure: "peak memory of a worker that polls 300,000 objects",
      value: all.memory,
      peer: few.memory,
      ratio: all.memory / few.memory,
      goal: "<= 1.3",
      met: all.memory <= 1.3 * few.memory,
      remark: `${all.per_second.toFixed(0)} objects/s`,
    },
    {
      ...memory,
      figure: "a bare loop of HEAD, 100,000 objects",
      value: bare,
      peer: bareFew,
      ratio: bare / bareFew,
      goal: "a limit",
      met: null,
    },
    {
      ...memory,
      figure: "the worker in a heap of 512 MiB, 100,000 objects",
      value: limited,
      peer: limitedFew,
      ratio: limited / limitedFew,
      goal: "<= 1.3",
      met: limited <= 1.3 * limitedFew,
    },
    {
      number: 10,
      figure: "S3 calls per polled object",
      value: all.calls,
      against: "one",
      peer: 1,
      ratio: all.calls,
      goal: "<= 1",
      met: all.calls <= 1,
    },
  ];
}
