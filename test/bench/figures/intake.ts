import { waitFor } from "../../support/wait_for.ts";
import { callForAWhile } from "../load.ts";
import { pgbench } from "../peers.ts";
import { median, type Result } from "../table.ts";
import type { World } from "../world.ts";

export const CONNECTIONS = 64;
const ROUNDS = 3;
const SECONDS = 5;

/** What pgbench calls: the same function, one read each, distinct objects and people. */
const ONE_READ = `select * from request_restores(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 's3_bucket', 'bench',
  's3_key', gen_random_uuid()::text, 'access_key_id', 'AKIA' || floor(random() * 1e12)::bigint, 'event_id', gen_random_uuid())),
  '{120 seconds,900 seconds}', '{}')`;

let serial = 0;
export const distinctRead = (): string => {
  const number = serial++;
  return JSON.stringify({
    s3_bucket: "bench",
    s3_key: `films/${number}.mov`,
    access_key_id: `AKIA${number}`,
    event_id: `event-${number}`,
  });
};

export async function intake(world: World): Promise<Result[]> {
  const { url: databaseUrl } = await world.newDatabase();
  const server = await world.server(databaseUrl);
  const without = await world.nullServer();
  const call = { path: "/restore/request", connections: CONNECTIONS, seconds: SECONDS, body: distinctRead };
  const rates: Record<"thaw" | "pgbench" | "without", number[]> = { thaw: [], pgbench: [], without: [] };
  let remark: string | undefined;
  await callForAWhile({ ...call, url: server.url, seconds: 2 });
  await callForAWhile({ ...call, url: without.url, seconds: 2 });
  for (let round = 0; round < ROUNDS; round++) {
    rates.thaw.push((await callForAWhile({ ...call, url: server.url })).per_second);
    const peer = await pgbench(databaseUrl, ONE_READ, SECONDS);
    if (typeof peer === "number") rates.pgbench.push(peer);
    else remark = peer.missing;
    rates.without.push((await callForAWhile({ ...call, url: without.url })).per_second);
  }
  await server.stop();
  await without.stop();
  const thaw = median(rates.thaw);
  const bench = median(rates.pgbench);
  const plain = median(rates.without);
  return [
    {
      number: 1,
      figure: "durable POST /restore/request, 64 connections",
      value: thaw,
      unit: "/s",
      against: "pgbench, one read per transaction",
      ...(rates.pgbench.length > 0 && { peer: bench, ratio: thaw / bench }),
      goal: ">= 5",
      met: thaw >= 5 * bench,
      ...(remark !== undefined && { remark }),
    },
    {
      number: 2,
      figure: "the same",
      value: thaw,
      unit: "/s",
      against: "the route without Postgres",
      peer: plain,
      ratio: thaw / plain,
      goal: ">= 0.45",
      met: thaw >= 0.45 * plain,
    },
  ];
}

const HOT = 1_000;
const hotRead = (): string => {
  const number = serial++;
  return JSON.stringify({
    s3_bucket: "bench",
    s3_key: `hot${number % HOT}`,
    access_key_id: `AKIA${(number * 7) % 100}`,
    event_id: `event-${number}`,
  });
};

export async function intakeBesideWorker(world: World): Promise<Result[]> {
  const clouds = await world.clouds({ s3: { latency_ms: 20 } });
  await clouds.ask("archive", "hot", HOT);
  const rates: Record<"beside" | "alone", number[]> = { beside: [], alone: [] };
  let left = "";
  for (let round = 0; round < ROUNDS; round++) {
    for (const way of ["alone", "beside"] as const) {
      const { url: databaseUrl, pool } = await world.newDatabase();
      await pool.query(
        "insert into aws_key_user_map select 'AKIA' || n, 'p' || n || '@example.com' from generate_series(0, 99) n",
      );
      const server = await world.server(databaseUrl);
      const worker =
        way === "beside"
          ? await world.worker(databaseUrl, clouds, {
              NOTIFY_QUIET_SECONDS: "2",
              NOTIFY_MAX_WAIT_SECONDS: "4",
            })
          : undefined;
      const load = await callForAWhile({
        url: server.url,
        path: "/restore/request",
        connections: CONNECTIONS,
        seconds: SECONDS + 3,
        body: hotRead,
      });
      rates[way].push(load.per_second);
      if (worker !== undefined) {
        await waitFor(
          "an empty queue",
          async () => (await pool.query("select from graphile_worker.jobs")).rowCount === 0,
          60_000,
        ).catch((error: unknown) => {
          left = String(error);
        });
        await worker.stop();
      }
      await server.stop();
    }
  }
  await clouds.stop();
  const beside = median(rates.beside);
  const alone = median(rates.alone);
  return [
    {
      number: 3,
      figure: "reads of 1,000 hot objects, a worker running",
      value: beside,
      unit: "/s",
      against: "without a worker",
      peer: alone,
      ratio: beside / alone,
      goal: ">= 0.6, queue empty again",
      met: beside >= 0.6 * alone && left === "",
      ...(left !== "" && { remark: left }),
    },
  ];
}

export async function hotObject(world: World): Promise<Result[]> {
  const clouds = await world.clouds({ s3: { latency_ms: 20 } });
  await clouds.ask("archive", "hot", 1);
  const { url: databaseUrl, pool } = await world.newDatabase();
  const server = await world.server(databaseUrl);
  const worker = await world.worker(databaseUrl, clouds);
  const load = await callForAWhile({
    url: server.url,
    path: "/restore/request",
    connections: CONNECTIONS,
    seconds: 60,
    body: (index) =>
      index < 10_000
        ? JSON.stringify({
            s3_bucket: "bench",
            s3_key: "hot0",
            access_key_id: `AKIA${index % 100}`,
            event_id: `event-${index}`,
          })
        : undefined,
  });
  await waitFor(
    "it to be pending",
    async () => (await pool.query("select from restores where status = 'pending'")).rowCount === 1,
  );
  const { rows } = await pool.query<{ reads: number }>(
    "select sum(read_count)::int as reads from restore_requests",
  );
  await worker.stop();
  await server.stop();
  const accepted = (await clouds.ask("counts"))["RestoreObject 202"] ?? 0;
  await clouds.stop();
  return [
    {
      number: 6,
      figure: "RestoreObject accepted, 10,000 reads by 100 people of one object",
      value: accepted,
      against: "reads counted",
      peer: rows[0]?.reads ?? 0,
      goal: "1",
      met: accepted === 1 && load.answered === 10_000 && rows[0]?.reads === 10_000,
    },
  ];
}
