import type { Pool } from "pg";

import type { BenchOptions } from "../figures.ts";
import { callForAWhile } from "../load.ts";
import { LONG_LOCK_MS } from "../packaged_postgres.ts";
import type { Result } from "../table.ts";
import { otherPeople, watch } from "../watch.ts";
import { waitFor } from "../../support/wait_for.ts";
import { LOOK_EVERY_MS, type World } from "../world.ts";
import { bareRound, LATENCY_MS } from "./restores.ts";

/** Objects of most people, and the share of one who reads very many. */
const EACH = 12;
const HEAVY_SHARE = 0.2;
const QUIET_SECONDS = 30;
const PATIENCE_MS = 1_800_000;

/** The first reads a fifth of all, the others as many each. */
const peopleOf = (objects: number): number => 1 + Math.ceil(((1 - HEAVY_SHARE) * objects) / EACH);
const personOf = (index: number, objects: number): number =>
  index < HEAVY_SHARE * objects ? 0 : 1 + (index % (peopleOf(objects) - 1));

const isThere = async (pool: Pool, query: string): Promise<boolean> =>
  ((await pool.query(`${query} limit 1`)).rowCount ?? 0) > 0;

/**
 * A burst while no worker runs, as after an outage: taken in; restored by one worker; S3's Completed events, all at once; mails.
 * Other people read meanwhile.
 */
export async function manyPeople(world: World, { objects }: BenchOptions): Promise<Result[]> {
  const bareClouds = await world.clouds({ s3: { latency_ms: LATENCY_MS } });
  const bare = await bareRound(world, bareClouds, "bare/");
  await bareClouds.stop();

  const clouds = await world.clouds({ s3: { latency_ms: LATENCY_MS } });
  await clouds.ask("archive", "burst", objects);
  const postgres = await world.packagedPostgres();
  const { url: databaseUrl, pool } = await world.newDatabase(postgres.url);
  await pool.query(
    "insert into aws_key_user_map select 'AKIA' || n, 'p' || n || '@example.com' from generate_series(0, $1::int) n",
    [peopleOf(objects)],
  );
  const server = await world.server(databaseUrl);
  const others = otherPeople(server.url, "other/");
  const watching = watch(pool);
  const p95: Record<string, number> = {};
  const burst = (path: string, body: (index: number) => object): Promise<unknown> =>
    callForAWhile({
      url: server.url,
      path,
      connections: 64,
      seconds: PATIENCE_MS / 1000,
      body: (index) => (index < objects ? JSON.stringify(body(index)) : undefined),
    });

  await burst("/restore/request", (index) => ({
    s3_bucket: "bench",
    s3_key: `burst${index}`,
    access_key_id: `AKIA${personOf(index, objects)}`,
    event_id: `event-${index}`,
  }));
  p95["intake"] = others.p95();

  const before = await postgres.cpuTime();
  const worker = await world.worker(databaseUrl, clouds, {
    NOTIFY_QUIET_SECONDS: String(QUIET_SECONDS),
    NOTIFY_MAX_WAIT_SECONDS: String(4 * QUIET_SECONDS),
  });
  await waitFor(
    "all to be pending",
    async () =>
      !(await isThere(pool, "select from restores where status = 'not_started' and s3_key like 'burst%'")),
    PATIENCE_MS,
    LOOK_EVERY_MS,
  );
  const cpu = (await postgres.cpuTime()) - before;
  p95["restores"] = others.p95();
  const times = (await clouds.ask("restoreTimes")).toSorted((a, b) => a - b);
  const tenth = Math.floor(times.length / 10);
  const rate = (from: number): number =>
    ((tenth - 1) * 1000) / ((times[from + tenth - 1] ?? NaN) - (times[from] ?? NaN));
  const first = rate(0);
  const last = rate(times.length - tenth);

  await clouds.ask("finishRestores", "burst", objects);
  const expires = new Date(Date.now() + 7 * 86_400_000).toISOString();
  await burst("/restore/completed", (index) => ({
    s3_bucket: "bench",
    s3_key: `burst${index}`,
    restore_expires_at: expires,
  }));
  p95["events"] = others.p95();
  const completed = performance.now();
  const untold = [
    "select from restores where status = 'pending' and s3_key like 'burst%'",
    `select from restore_requests where post_notification_id is null and restore_status in ('restored', 'failed') and email is not null`,
    "select from notifications where status <> 'sent'",
  ];
  await waitFor(
    "all to be told",
    async () => {
      for (const query of untold) if (await isThere(pool, query)) return false;
      return true;
    },
    PATIENCE_MS,
    LOOK_EVERY_MS,
  );
  const told = (performance.now() - completed) / 1000;
  p95["mails"] = others.p95();
  const waits = await postgres.longLockWaits();
  await others.stop();
  await watching.stop();
  await worker.stop();
  await server.stop();
  await clouds.stop();

  const { jobs, transaction_ms } = watching.watched;
  const figure = (what: string): Pick<Result, "number" | "figure"> => ({
    number: 13,
    figure: `${objects / 1_000} thousand objects: ${what}`,
  });
  const worst = Math.max(...Object.values(p95));
  const per_hundred = (cpu / times.length) * 100;
  return [
    {
      ...figure("restores, the last tenth"),
      value: last,
      unit: "/s",
      against: "the first tenth",
      peer: first,
      ratio: last / first,
      goal: ">= 0.85",
      met: last >= 0.85 * first,
      remark: postgres.what,
    },
    {
      ...figure("the same"),
      value: last,
      unit: "/s",
      against: "bare loop",
      peer: bare,
      ratio: last / bare,
      goal: ">= 0.8",
      met: last >= 0.8 * bare,
    },
    {
      ...figure("processor time of Postgres for a hundred restores"),
      value: per_hundred,
      unit: "s",
      goal: "< 0.1",
      met: per_hundred < 0.1,
    },
    { ...figure("jobs that wait, at most"), value: jobs, goal: "<= 50", met: jobs <= 50 },
    {
      ...figure("last Completed event to the last mail, without a limit"),
      value: told,
      unit: "s",
      goal: `< 300, a quiet window of ${QUIET_SECONDS} in it`,
      met: told < 300,
    },
    {
      ...figure("other people's POST, p95, the worst part"),
      value: worst,
      unit: "ms",
      goal: "< 100",
      met: worst < 100,
      remark: Object.entries(p95)
        .map(([part, ms]) => `${part} ${ms.toFixed(0)}`)
        .join(", "),
    },
    {
      ...figure(`waits of ${LONG_LOCK_MS} ms for a lock`),
      value: waits.length,
      goal: "0",
      met: waits.length === 0,
      remark: `longest transaction seen: ${transaction_ms.toFixed(0)} ms${waits[0] === undefined ? "" : `; ${waits[0]}`}`,
    },
  ];
}
