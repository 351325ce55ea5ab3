import type { Pool, PoolClient } from "pg";

import { run } from "../../../server/cli/door.ts";
import { createLog } from "../../../server/log.ts";
import { createReader } from "../../../server/pages/figures.ts";
import { PAGES_QUERY_TIMEOUT_MS } from "../../../server/pages/queries.ts";
import { createPool } from "../../../server/postgres/pool.ts";
import { operator } from "../../support/pages.ts";
import { PACKAGED } from "../../support/postgres_versions.ts";
import { addClosedRestores, addCounts, addStuck, BUCKETS, PEOPLE } from "../closed_restores.ts";
import { median, percentile, type Result } from "../table.ts";
import { openWorld, type World } from "../world.ts";
import { addOpen } from "./history.ts";

const FEW = 10_000;
const OPEN = 1_000;
const ROUNDS = 20;
const GOAL_MS = 150;

/** Somewhere in that long past, another place at each call. */
interface Place {
  /** Of the restore, and its request. */
  id: string;
  mail: string;
  bucket: string;
  key: string;
  person: number;
}

const places = (closed: number): (() => Place) => {
  let turn = 0;
  return () => {
    // Far from the one before.
    const n = Math.floor(((turn++ * 0.618_034) % 1) * closed);
    const hex = (number: number): string => number.toString(16).padStart(12, "0");
    return {
      id: `00000000-0000-4000-8000-${hex(n)}`,
      mail: `00000000-0000-4000-9000-${hex(Math.floor(n / 10))}`,
      bucket: `bucket-${n % BUCKETS}`,
      key: `projects/${n % 1000}/film-${n}.mov`,
      person: Math.floor(n / 10) % PEOPLE,
    };
  };
};

const search = (q: string): string => `/ops/search?q=${encodeURIComponent(q)}`;
const ARN = "arn:aws:sts::111122223333:assumed-role/Analyst/p";

/** What an operator opens. */
const PAGES: Record<string, (place: Place) => string> = {
  overview: () => "/ops",
  "list: open": () => "/ops/restores",
  "list: not_started": () => "/ops/restores?state=not_started",
  "list: pending": () => "/ops/restores?state=pending",
  "list: restored": () => "/ops/restores?state=restored",
  "list: failed": () => "/ops/restores?state=failed",
  "list: closed": () => "/ops/restores?state=closed",
  "list: closed, oldest first": () => "/ops/restores?state=closed&order=oldest",
  "list: closed, of one day": () => `/ops/restores?state=closed&from=${day(200)}&to=${day(200)}`,
  "list: closed, a later page": ({ id }) =>
    `/ops/restores?state=closed&after=${encodeURIComponent(`${day(200)} 00:00:00+00_${id}`)}`,
  "one restore": ({ id }) => `/ops/restores/${id}`,
  "search: id": ({ id }) => search(id),
  "search: s3:// path": ({ bucket, key }) => search(`s3://${bucket}/${key}`),
  "search: beginning of a path": ({ bucket, key }) => search(`s3://${bucket}/${key.slice(0, -5)}*`),
  "search: beginning of a key": ({ key }) => search(key.slice(0, -5)),
  "search: no such key": () => search("nothing/of/this/name"),
  "search: address": ({ person }) => search(`p${person}@example.com`),
  "search: no such address": () => search("nobody@example.com"),
  "search: access key": ({ person }) => search(`AKIA${String(person).padStart(16, "0")}`),
  "search: ARN": ({ person }) => search(ARN + String(person)),
  "search: beginning of an ARN": () => search(`${ARN}*`),
  stuck: () => "/ops/stuck",
  mails: () => "/ops/mails",
  "one mail": ({ mail }) => `/ops/mails/${mail}`,
  workers: () => "/ops/workers",
  actions: () => "/ops/actions",
};

const day = (ago: number): string => new Date(Date.now() - ago * 86_400_000).toISOString().slice(0, 10);

type Times = Record<string, number[]>;

/** A database to look at. */
interface Subject {
  what: string;
  url: string;
  pool: Pool;
  place: () => Place;
  times: Times;
}

const CSV = "a file of 10,000 rows";

const nothing = (): void => {};

const callsOf = ({ url, pool, place }: Subject): Record<string, () => Promise<unknown>> => ({
  ...Object.fromEntries(
    Object.entries(PAGES).map(([name, path]) => [
      name,
      async () => {
        // A new one each time, for the first screen is kept for some seconds.
        const { status } = await operator(pool).get(path(place()));
        if (![200, 302].includes(status)) throw new Error(`${name}: ${status}`);
      },
    ]),
  ),
  [CSV]: () => operator(pool).get("/ops/restores.csv?state=closed"),
  // What is settled is read once an hour, by the first call; and a scrape is kept for some seconds.
  "/metrics": createReader(pool),
  "thaw status": async () => {
    let out = "";
    const io = { env: { DATABASE_URL: url }, err: nothing, colours: false, user: "bench" };
    await run(["status"], { ...io, out: (text) => (out += text) });
    if (!out.includes("Workers alive")) throw new Error(`thaw status: ${out}`);
  },
});

/** By turns, so that whatever else this machine does concerns all of them. */
export async function look(subjects: Subject[]): Promise<void> {
  const calls = subjects.map((subject) => ({ times: subject.times, calls: callsOf(subject) }));
  for (const name of Object.keys(calls[0]?.calls ?? {})) {
    for (let round = -2; round < ROUNDS; round++) {
      for (const { times, calls: of } of calls) {
        const started = performance.now();
        await of[name]?.();
        // The first two plan, and fill the caches.
        if (round >= 0) (times[name] ??= []).push(performance.now() - started);
      }
    }
  }
}

async function subject(
  world: World,
  what: string,
  closed: number,
  more?: (client: PoolClient) => Promise<unknown>,
): Promise<Subject> {
  const { url, pool } = await world.newDatabase();
  const client = await pool.connect();
  await addClosedRestores(client, closed);
  await addCounts(client);
  await addOpen(client, OPEN);
  await more?.(client);
  await client.query("vacuum analyze");
  client.release(true);
  return { what, url, pool: pagesPool(url), place: places(closed), times: {} };
}

export const pagesPool = (url: string): Pool =>
  createPool(
    url,
    { name: "thaw pages", max: 5, query_timeout_ms: PAGES_QUERY_TIMEOUT_MS },
    createLog("silent"),
  );

const STUCK = 300_000;
const WITH_MUCH_STUCK = ["overview", "list: open", "stuck", "mails", "/metrics", "thaw status"];

/** Two calls of a few milliseconds differ by more than that for other reasons. */
const SMALL_MS = 5;

function compare(subject: Subject, few: Subject, names: string[], most_times = Infinity): Result[] {
  return names.map((name) => {
    const [here, peer] = [subject.times[name] ?? [], few.times[name] ?? []];
    const ratio = median(here) / median(peer);
    const p95 = percentile(here, 0.95);
    const most_ms = name === CSV ? Infinity : GOAL_MS;
    const goals = [
      ...(most_times < Infinity ? [`<= ${most_times}, or ${SMALL_MS} ms`] : []),
      ...(most_ms < Infinity ? [`p95 <= ${most_ms} ms`] : []),
    ];
    return {
      number: 17,
      figure: `${name}, ${subject.what}`,
      value: median(here),
      unit: "ms",
      against: few.what,
      peer: median(peer),
      ratio,
      goal: goals.join("; "),
      met: (ratio <= most_times || median(here) <= SMALL_MS) && p95 <= most_ms,
      remark: `p95 ${p95.toFixed(0)} ms`,
    };
  });
}

/** How long an operator waits: on a packaged Postgres, as most have it. */
export async function pages(given: World, { full }: { full: boolean }): Promise<Result[]> {
  const world = PACKAGED.missing === undefined ? await openWorld(await PACKAGED.programs()) : given;
  const subjects: Subject[] = [];
  try {
    const closed = full ? 10_000_000 : 1_000_000;
    const few = await subject(world, "ten thousand closed", FEW);
    subjects.push(few);
    const stuck = await subject(world, "300,000 stuck", FEW, (client) => addStuck(client, STUCK));
    subjects.push(stuck);
    const many = await subject(world, `${closed / 1_000_000} million closed`, closed);
    subjects.push(many);
    await look(subjects);
    return [
      ...compare(many, few, Object.keys(many.times), 1.5),
      // More is read than of a few, up to what counts end at.
      ...compare(stuck, { ...few, what: "a thousand open" }, WITH_MUCH_STUCK),
    ];
  } finally {
    for (const { pool } of subjects) await pool.end();
    if (world !== given) await world.close();
  }
}
