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
    `insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, storage_class, tier, ask_after, pinned_version_id)
     select gen_random_uuid(), 'bench', 'slow' || n, 'pending', now() - interval '7 hours', now() - interval '7 hours', 'GLACIER', 'Standard',
            now() - interval '2 hours', '' from generate_series(0, $1 - 1) n`,
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

/** What an archive may be asked for, in parts of all: an assumption, for nobody publishes it. */
const MIX = [
  { storage_class: "GLACIER", tier: "Standard", part: 0.6 },
  { storage_class: "DEEP_ARCHIVE", tier: "Standard", part: 0.2 },
  { storage_class: "GLACIER", tier: "Bulk", part: 0.1 },
  { storage_class: "DEEP_ARCHIVE", tier: "Bulk", part: 0.08 },
  { storage_class: "GLACIER", tier: "Expedited", part: 0.02 },
];

/** How often the crontab runs the poll, and for how long this is played. */
const RUN_MINUTES = 5;
const DAYS = 4;
const DAY_RUNS = (24 * 60) / RUN_MINUTES;

/** In which runs after it was accepted S3 is asked about one restore of each kind, if it never answers "done". */
async function askedWithoutEvents(world: World): Promise<{ end: number; runs: number[] }[]> {
  const { pool } = await world.newDatabase();
  const settle = (outcomes: object[]) =>
    pool.query("select settle_restores($1, '{}')", [JSON.stringify(outcomes)]);
  await pool.query(
    "insert into restores (id, s3_bucket, s3_key) select gen_random_uuid(), 'bench', n::text from generate_series(0, $1::int) n",
    [MIX.length - 1],
  );
  const claimed = await pool.query<{ id: string; s3_key: string }>(
    "select id, s3_key from claim_restores_to_trigger(100)",
  );
  await settle(
    claimed.rows.map(({ id, s3_key }) =>
      Object.assign(
        { id, transition: "mark_restores_pending", size_bytes: 1, pinned_version_id: "" },
        MIX[Number(s3_key)],
      ),
    ),
  );
  const { rows: ends } = await pool.query<{ end: number }>(
    "select ceil(extract(epoch from expected_end(r) - r.accepted_at) / $1)::int as end from restores r order by s3_key::int",
    [RUN_MINUTES * 60],
  );
  const asked = ends.map(({ end }) => ({ end, runs: [] as number[] }));
  for (let run = 1; run <= DAYS * DAY_RUNS; run++) {
    await pool.query(
      `update restores set accepted_at = accepted_at - i.passed, last_checked_at = last_checked_at - i.passed,
                           ask_after = ask_after - i.passed, attempt_after = attempt_after - i.passed
         from (select make_interval(mins => $1) as passed) i`,
      [RUN_MINUTES],
    );
    const due = await pool.query<{ id: string; claim_id: string; s3_key: string }>(
      "select id, claim_id, s3_key from claim_restores_to_poll(100, '23 hours')",
    );
    for (const { s3_key } of due.rows) asked[Number(s3_key)]?.runs.push(run);
    if (due.rows.length > 0)
      await settle(
        due.rows.map(({ id, claim_id }) => ({ id, claim_id, transition: "note_restores_checked" })),
      );
  }
  return asked;
}

/** The most in any day of them. */
const mostInADay = (runs: number[]): number =>
  Math.max(0, ...runs.map((first) => runs.filter((run) => run >= first && run < first + DAY_RUNS).length));

/** What no event costs: for that many pending, by the worst day of each. */
async function dailyHeads(world: World, count: number): Promise<Result[]> {
  const asked = await askedWithoutEvents(world);
  const daily = (of: (kind: { end: number; runs: number[] }) => number[]): number =>
    MIX.reduce((sum, { part }, index) => {
      const kind = asked[index];
      return sum + (kind === undefined ? NaN : part * count * mostInADay(of(kind)));
    }, 0);
  // S3 is done when its time ends, at the latest: the first answer from then on is the last.
  const inTime = daily(({ end, runs }) => {
    const last = runs.find((run) => run >= end) ?? Infinity;
    return runs.filter((run) => run <= last);
  });
  const late = daily(({ runs }) => runs);
  // Events come before that time: what is left is what 23 hours (POLL_AFTER_HOURS) ask for, of what takes two days.
  const told = daily(({ end, runs }) => runs.filter((run) => run < end));
  const figure = "HEADs a day for 300,000 pending of a usual mix";
  const cost = (heads: number): string => `$${((heads / 1000) * 0.0004).toFixed(2)} a day`;
  return [
    {
      number: 10,
      figure: `${figure}, besides those that events ask for, events in time`,
      value: told,
      against: "objects",
      peer: count,
      ratio: told / count,
      goal: "<= 0.2",
      met: told <= 0.2 * count,
      remark: "after 23 hours, of Deep Archive's Bulk alone",
    },
    {
      number: 10,
      figure: `${figure}, no event comes, S3 in time`,
      value: inTime,
      against: "objects",
      peer: count,
      ratio: inTime / count,
      goal: "<= 2",
      met: inTime <= 2 * count,
      remark: cost(inTime),
    },
    {
      number: 10,
      figure: `${figure}, no event comes, and S3 is never done`,
      value: late,
      against: "objects",
      peer: count,
      ratio: late / count,
      goal: "<= 10",
      met: late <= 10 * count,
      remark: cost(late),
    },
  ];
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
    ...(await dailyHeads(world, ALL)),
  ];
}
