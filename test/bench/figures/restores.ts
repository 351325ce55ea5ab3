import type { Pool } from "pg";

import { waitFor } from "../../support/wait_for.ts";
import { callForAWhile } from "../load.ts";
import { rclone, s3cmd, type Rate } from "../peers.ts";
import { median, type Result } from "../table.ts";
import { LOOK_EVERY_MS, type Clouds, type World } from "../world.ts";

export const LATENCY_MS = 20;
const OBJECTS = 5_000;
/** They send one at a time: fewer objects tell the same. */
const PEER_OBJECTS = 300;
const ROUNDS = 5;

/** Reads of `count` objects, as a server would have noted them. */
async function readAll(pool: Pool, prefix: string, count: number): Promise<void> {
  const page = 200;
  for (let from = 0; from < count; from += page) {
    await pool.query(
      `select request_restores((select jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 's3_bucket', 'bench', 's3_key', $1 || n, 'access_key_id', 'AKIA'))
         from generate_series($2::int, $3::int) n), '{120 seconds,900 seconds}')`,
      [prefix, from, Math.min(from + page, count) - 1],
    );
  }
}

const pending = async (pool: Pool): Promise<number> =>
  (
    await pool.query<{ count: number }>(
      "select count(*)::int as count from restores where status = 'pending'",
    )
  ).rows[0]?.count ?? 0;

/** Objects per second between the first RestoreObject that S3 accepted and the last. */
async function acceptedPerSecond(clouds: Clouds): Promise<number> {
  const times = await clouds.ask("restoreTimes");
  return (times.length - 1) / ((latest(times) - times.reduce((a, b) => Math.min(a, b))) / 1000);
}

const latest = (times: number[]): number => times.reduce((a, b) => Math.max(a, b), 0);

async function thawRound(world: World, clouds: Clouds, prefix: string): Promise<number> {
  await clouds.ask("archive", prefix, OBJECTS);
  await clouds.ask("clear");
  const { url: databaseUrl, pool } = await world.newDatabase();
  await readAll(pool, prefix, OBJECTS);
  const worker = await world.worker(databaseUrl, clouds);
  await waitFor("all to be pending", async () => (await pending(pool)) === OBJECTS, 120_000, LOOK_EVERY_MS);
  await worker.stop();
  return acceptedPerSecond(clouds);
}

export async function bareRound(
  world: World,
  clouds: Clouds,
  prefix: string,
  count = OBJECTS,
): Promise<number> {
  await clouds.ask("archive", prefix, count);
  await clouds.ask("clear");
  await world.script("bare_loop.ts", [prefix, String(count)], clouds.env);
  return acceptedPerSecond(clouds);
}

export async function restores(world: World): Promise<Result[]> {
  const clouds = await world.clouds({ s3: { latency_ms: LATENCY_MS } });
  const endpoint = clouds.env["AWS_ENDPOINT_URL_S3"] ?? "";
  const thaw: number[] = [];
  const bare: number[] = [];
  const peers: Record<string, Rate> = {};
  for (let round = 0; round < ROUNDS; round++) {
    bare.push(await bareRound(world, clouds, `bare${round}/`));
    thaw.push(await thawRound(world, clouds, `thaw${round}/`));
  }
  for (const [name, peer] of Object.entries({ rclone, s3cmd })) {
    await clouds.ask("archive", `${name}/`, PEER_OBJECTS);
    peers[name] = await peer(endpoint, `${name}/`, PEER_OBJECTS);
  }
  await clouds.stop();
  const own = median(thaw);
  return [
    againstPeer("rclone", own, peers["rclone"]),
    againstPeer("s3cmd", own, peers["s3cmd"]),
    {
      number: 5,
      figure: "the same",
      value: own,
      unit: "/s",
      against: "bare loop of HEAD and RestoreObject",
      peer: median(bare),
      ratio: own / median(bare),
      goal: ">= 0.85",
      met: own >= 0.85 * median(bare),
    },
  ];
}

function againstPeer(name: string, own: number, rate: Rate | undefined): Result {
  const result: Result = {
    number: 4,
    figure: "objects restored, 5,000 archived, 20 ms to S3",
    value: own,
    unit: "/s",
    against: name,
    goal: ">= 15",
    met: false,
  };
  if (typeof rate !== "number") return { ...result, remark: rate?.missing ?? "not measured" };
  return { ...result, peer: rate, ratio: own / rate, met: own >= 15 * rate };
}

const BURST_READS = 200_000;
const BURST_OBJECTS = 20_000;
/** Of the bare loop's rate: below what two workers could do, above the goal. */
const LIMIT_SHARE = 0.8;

export async function burst(world: World): Promise<Result[]> {
  const bareClouds = await world.clouds({ s3: { latency_ms: LATENCY_MS } });
  const bare = await bareRound(world, bareClouds, "bare/");
  await bareClouds.stop();
  const limit = LIMIT_SHARE * bare;
  const clouds = await world.clouds({ s3: { latency_ms: LATENCY_MS, restores_per_second: limit } });
  await clouds.ask("archive", "burst", BURST_OBJECTS);
  const { url: databaseUrl, pool } = await world.newDatabase();
  const server = await world.server(databaseUrl);
  const load = await callForAWhile({
    url: server.url,
    path: "/restore/request",
    connections: 64,
    seconds: 600,
    body: (index) =>
      index < BURST_READS
        ? JSON.stringify({
            s3_bucket: "bench",
            s3_key: `burst${index % BURST_OBJECTS}`,
            access_key_id: `AKIA${index % 50}`,
            event_id: `event-${index}`,
          })
        : undefined,
  });
  // Two workers keep up with that many reads; so they come when all are in, as after an outage of theirs.
  const workers = [await world.worker(databaseUrl, clouds), await world.worker(databaseUrl, clouds)];
  await waitFor(
    "all to be pending",
    async () => (await pending(pool)) === BURST_OBJECTS,
    600_000,
    LOOK_EVERY_MS,
  );
  const rate = await acceptedPerSecond(clouds);
  const counts = await clouds.ask("counts");
  const { rows } = await pool.query<{ failed: number }>(
    "select count(*) filter (where status = 'failed')::int as failed from restores",
  );
  for (const running of [...workers, server]) await running.stop();
  await clouds.stop();
  const accepted = counts["RestoreObject 202"] ?? 0;
  const slowed = counts["RestoreObject 503"] ?? 0;
  return [
    {
      number: 11,
      figure: `restores after a burst of 200,000 reads of 20,000 objects, S3 slowing down above ${LIMIT_SHARE} of the peer`,
      value: rate,
      unit: "/s",
      against: "bare loop",
      peer: bare,
      ratio: rate / bare,
      goal: ">= 0.7, none failed, none twice",
      met: rate >= 0.7 * bare && rows[0]?.failed === 0 && accepted === BURST_OBJECTS,
      remark: `${accepted} accepted, ${slowed} slowed down, ${rows[0]?.failed} failed; POSTs ${load.per_second.toFixed(0)}/s`,
    },
  ];
}
