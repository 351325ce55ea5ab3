import { setTimeout as sleep } from "node:timers/promises";

import { waitFor } from "../../wait_for.ts";
import { callForAWhile } from "../load.ts";
import { percentile, type Result } from "../table.ts";
import type { World } from "../world.ts";

const TIMES = 20;
const QUIET_SECONDS = 2;

export async function reaction(world: World): Promise<Result[]> {
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
  await worker.stop();
  await server.stop();
  await clouds.stop();
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
      figure: "idle: end of the quiet window to mail taken, p95",
      value: mail,
      unit: "ms",
      goal: "< 2500 ms",
      met: mail < 2_500,
    },
  ];
}
