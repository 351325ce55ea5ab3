import { setTimeout as sleep } from "node:timers/promises";

import { waitFor } from "../../support/wait_for.ts";
import { callForAWhile } from "../load.ts";
import { percentile, type Result } from "../table.ts";
import { LOOK_EVERY_MS, type Clouds, type World } from "../world.ts";

const TIMES = 20;
const QUIET_SECONDS = 2;

/** One event each; what a store of S3's size tells in a minute when a large restore is done. */
const EVENTS = 10_000;

export async function reaction(world: World): Promise<Result[]> {
  return [...(await idleReaction(world)), await manyEvents(world)];
}

async function idleReaction(world: World): Promise<Result[]> {
  const clouds = await world.clouds();
  await clouds.ask("archive", "idle", TIMES);
  const { url: databaseUrl, pool } = await world.newDatabase();
  await pool.query(
    "insert into aws_key_user_map select 'AKIA' || n, 'p' || n || '@example.com' from generate_series(0, 99) n",
  );
  const server = await world.server(databaseUrl);
  const worker = await world.worker(databaseUrl, clouds, {
    NOTIFY_QUIET_SECONDS: String(QUIET_SECONDS),
    NOTIFY_MAX_WAIT_SECONDS: "60",
  });
  // What starting brings along is over.
  await sleep(3_000);
  const toS3: number[] = [];
  const answered: number[] = [];
  for (let time = 0; time < TIMES; time++) {
    const body = JSON.stringify({ s3_bucket: "bench", s3_key: `idle${time}`, access_key_id: `AKIA${time}` });
    await callForAWhile({
      url: server.url,
      path: "/restore/request",
      connections: 1,
      seconds: 5,
      body: (index) => (index === 0 ? body : undefined),
    });
    const at = Date.now();
    answered.push(at);
    const asked = await waitFor("RestoreObject", async () =>
      (await clouds.ask("requestTimes", `idle${time}`)).find(
        ({ operation }) => operation === "RestoreObject",
      ),
    );
    toS3.push(asked.at - at);
    // Not in step with graphile-worker's own clock.
    await sleep(200 + Math.random() * 600);
  }
  await waitFor("all mails", async () => (await clouds.ask("mails")).length === TIMES, 60_000);
  const mails = await clouds.ask("mails");
  const { rows } = await pool.query<{ email: string; due: Date }>(
    `select email, status_at + interval '${QUIET_SECONDS} seconds' as due from restore_requests`,
  );
  const toMail = rows.map(
    ({ email, due }) => (mails.find((mail) => mail.to === email)?.at ?? NaN) - due.getTime(),
  );
  await clouds.ask("finishRestores", "idle", TIMES);
  const toRestored: number[] = [];
  for (let time = 0; time < TIMES; time++) {
    const at = Date.now();
    await complete(server.url, 1, (index) => (index === 0 ? `idle${time}` : undefined));
    await waitFor(
      "the file to be restored",
      async () =>
        (await pool.query("select from restores where s3_key = $1 and status = 'restored'", [`idle${time}`]))
          .rowCount === 1,
      10_000,
      2,
    );
    toRestored.push(Date.now() - at);
    await sleep(200 + Math.random() * 600);
  }
  await worker.stop();
  await server.stop();
  await clouds.stop();
  const restored = percentile(toRestored, 0.95);
  const s3 = percentile(toS3, 0.95);
  const mail = percentile(toMail, 0.95);
  return [
    {
      number: 9,
      figure: "idle: POST answered to RestoreObject sent, p95",
      value: s3,
      unit: "ms",
      goal: "< 250 ms",
      met: s3 < 250,
    },
    {
      number: 9,
      figure: "idle: POST of a Completed event to the file restored, p95",
      value: restored,
      unit: "ms",
      goal: "< 250 ms",
      met: restored < 250,
    },
    {
      number: 9,
      figure: "idle: end of the quiet window to mail taken, p95",
      value: mail,
      unit: "ms",
      goal: "< 2500 ms",
      met: mail < 2_500,
    },
  ];
}

async function complete(
  url: string,
  connections: number,
  keyOf: (index: number) => string | undefined,
): Promise<void> {
  await callForAWhile({
    url,
    path: "/restore/completed",
    connections,
    seconds: 60,
    body: (index) => {
      const s3_key = keyOf(index);
      return s3_key === undefined ? undefined : JSON.stringify({ s3_bucket: "bench", s3_key });
    },
  });
}

/** Events as fast as they are taken, beside a worker that asks S3 about each. */
async function manyEvents(world: World): Promise<Result> {
  const clouds = await world.clouds();
  for (const call of ["archive", "beginRestores", "finishRestores"] as const)
    await clouds.ask(call, "many", EVENTS);
  await world.script("bare_loop.ts", ["many", String(EVENTS), "HEAD"], clouds.env);
  const bare = await headsPerSecond(clouds);
  await clouds.ask("clear");
  const { url: databaseUrl, pool } = await world.newDatabase();
  await pool.query(
    `insert into restores (id, s3_bucket, s3_key, status, accepted_at, pinned_version_id)
     select gen_random_uuid(), 'bench', 'many' || n, 'pending', now() - interval '1 hour', '' from generate_series(0, $1 - 1) n`,
    [EVENTS],
  );
  const server = await world.server(databaseUrl);
  const worker = await world.worker(databaseUrl, clouds);
  await complete(server.url, 64, (index) => (index < EVENTS ? `many${index}` : undefined));
  await waitFor(
    "all to be restored",
    async () => (await pool.query("select from restores where status <> 'restored' limit 1")).rowCount === 0,
    120_000,
    LOOK_EVERY_MS,
  );
  await worker.stop();
  await server.stop();
  const own = await headsPerSecond(clouds);
  const heads = (await clouds.ask("headTimes")).length;
  await clouds.stop();
  return {
    number: 9,
    figure: `${EVENTS} Completed events at once: S3 asked about them`,
    value: own,
    unit: "/s",
    against: "bare loop of HEAD, no events",
    peer: bare,
    ratio: own / bare,
    goal: ">= 10,000 a minute",
    met: own >= 10_000 / 60 && heads === EVENTS,
    remark: `${heads} HEADs`,
  };
}

async function headsPerSecond(clouds: Clouds): Promise<number> {
  const times = (await clouds.ask("headTimes")).toSorted((a, b) => a - b);
  return (times.length - 1) / (((times.at(-1) ?? 0) - (times[0] ?? 0)) / 1000);
}
