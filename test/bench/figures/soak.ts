import { setTimeout as sleep } from "node:timers/promises";

import type { BenchOptions } from "../figures.ts";
import { callForAWhile } from "../load.ts";
import { percentile, type Result } from "../table.ts";
import type { World } from "../world.ts";

const READS_PER_SECOND = 30;
const READERS = 200;
/** From RestoreObject to the Completed event. */
const RESTORE_MS = 40_000;

interface Minute {
  post: number;
  reaction: number;
  memory: number;
  dead: number;
}

/** Half of the reads are of new objects, half of the last hundred; S3 completes each after a while. */
export async function soak(world: World, { minutes }: BenchOptions): Promise<Result[]> {
  const clouds = await world.clouds({ s3: { latency_ms: 20 } });
  const count = Math.ceil((minutes * 60 * READS_PER_SECOND) / 2);
  await clouds.ask("archive", "soak", count);
  const postgres = await world.packagedPostgres();
  const { url: databaseUrl, pool } = await world.newDatabase(postgres.url);
  await pool.query(
    "insert into aws_key_user_map select 'AKIA' || n, 'p' || n || '@example.com' from generate_series(0, $1::int - 1) n",
    [READERS],
  );
  const server = await world.server(databaseUrl);
  const workers = [await world.worker(databaseUrl, clouds), await world.worker(databaseUrl, clouds)];
  const call = (path: string, body: object): Promise<unknown> =>
    callForAWhile({
      url: server.url,
      path,
      connections: 1,
      seconds: 60,
      body: (index) => (index === 0 ? JSON.stringify(body) : undefined),
    });

  const calls = new Set<Promise<unknown>>();
  const results: Minute[] = [];
  let fresh = 0;
  let over = false;
  for (let minute = 0; minute < minutes; minute++) {
    const times: number[] = [];
    const firstKey = fresh;
    const readAt = new Map<string, number>();
    for (let tick = 0; tick < 60 * READS_PER_SECOND; tick++) {
      const started = performance.now();
      const number = tick % 2 === 0 ? fresh++ : Math.max(0, fresh - 1 - Math.floor(Math.random() * 100));
      const key = `soak${number}`;
      const isNew = tick % 2 === 0;
      const posted = call("/restore/request", {
        s3_bucket: "bench",
        s3_key: key,
        access_key_id: `AKIA${(number * 7 + tick) % READERS}`,
      }).then(() => {
        times.push(performance.now() - started);
        if (isNew) readAt.set(key, Date.now());
      });
      calls.add(posted);
      void posted.finally(() => calls.delete(posted));
      if (isNew) void later(key);
      await sleep(Math.max(0, 1000 / READS_PER_SECOND - (performance.now() - started)));
    }
    await Promise.all(calls);
    const asked = new Map<string, number>();
    for (const { key, at } of await clouds.ask("acceptedTimes")) asked.set(key ?? "", at);
    const reactions = [...readAt].map(([key, at]) => (asked.get(key) ?? Infinity) - at);
    const { rows } = await pool.query<{ dead: string }>(
      "select sum(n_dead_tup) as dead from pg_stat_user_tables where relname in ('restores', 'restore_requests', '_private_jobs')",
    );
    // What was read in the last second may not have been asked for yet.
    const memory = await Promise.all([server, ...workers].map((running) => running.memory()));
    results.push({
      post: percentile(times, 0.95),
      reaction: percentile(reactions.slice(0, -READS_PER_SECOND), 0.95),
      memory: memory.reduce((a, b) => a + b),
      dead: Number(rows[0]?.dead),
    });
    console.log(
      `  minute ${minute + 1}, from ${firstKey} on: ${Object.entries(results.at(-1) ?? {})
        .map(([name, value]) => `${name} ${value.toFixed(0)}`)
        .join(", ")}`,
    );
  }
  over = true;
  for (const worker of workers) await worker.stop();
  await server.stop();
  await clouds.stop();

  async function later(key: string): Promise<void> {
    await sleep(RESTORE_MS, undefined, { ref: false });
    if (over) return;
    await clouds.ask("finishRestore", key).catch(() => undefined);
    await call("/restore/completed", { s3_bucket: "bench", s3_key: key }).catch(() => undefined);
  }

  // The first minute warms up, and has no restore that is completed yet.
  const middle = results.slice(1, Math.max(2, Math.ceil(results.length / 2)));
  const end = results.slice(-middle.length);
  const worst = (part: Minute[], name: keyof Minute): number =>
    Math.max(...part.map((minute) => minute[name]));
  const compare = (what: string, name: keyof Minute, unit: string, limit: number): Result => ({
    number: 16,
    figure: `soak of ${minutes} minutes at ${READS_PER_SECOND} reads/s, two workers: ${what}, the worst minute of the second half`,
    value: worst(end, name),
    unit,
    against: "of the first half",
    peer: worst(middle, name),
    ratio: worst(end, name) / worst(middle, name),
    goal: `<= ${limit}`,
    met: worst(end, name) <= limit * worst(middle, name),
  });
  return [
    { ...compare("POST, p95", "post", "ms", 1.5), remark: postgres.what },
    compare("POST answered to RestoreObject accepted, p95", "reaction", "ms", 1.5),
    compare("memory of server and workers", "memory", "MiB", 1.3),
    compare("dead rows", "dead", "rows", 2),
  ];
}
