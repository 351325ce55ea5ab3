import { PACKAGED } from "../../support/postgres_versions.ts";
import { callForAWhile } from "../load.ts";
import { median, type Result } from "../table.ts";
import { openWorld, type World } from "../world.ts";
import { CONNECTIONS, distinctRead } from "./intake.ts";

const ROUNDS = 3;
const SECONDS = 5;
const WAYS = ["as installed", "off"] as const;

/** Whether Thaw minds that a packaged Postgres compiles what it thinks expensive: two databases of one Postgres, by turns. */
export async function jit(): Promise<Result[]> {
  if (PACKAGED.missing !== undefined) throw new Error(PACKAGED.missing);
  const packaged = await openWorld(await PACKAGED.programs());
  try {
    return [await measure(packaged)];
  } finally {
    await packaged.close();
  }
}

async function measure(world: World): Promise<Result> {
  const rates: Record<(typeof WAYS)[number], number[]> = { "as installed": [], off: [] };
  const servers = [];
  for (const way of WAYS) {
    const { url, pool } = await world.newDatabase();
    if (way === "off") await pool.query(`alter database ${new URL(url).pathname.slice(1)} set jit = off`);
    const server = await world.server(url);
    const load = (seconds: number) =>
      callForAWhile({
        url: server.url,
        path: "/restore/request",
        connections: CONNECTIONS,
        seconds,
        body: distinctRead,
      });
    await load(2);
    servers.push({ way, load });
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const { way, load } of servers) rates[way].push((await load(SECONDS)).per_second);
  }
  const [installed, off] = [median(rates["as installed"]), median(rates.off)];
  return {
    number: 14,
    figure: "durable POST /restore/request on a packaged Postgres",
    value: installed,
    unit: "/s",
    against: "the same with jit = off",
    peer: off,
    ratio: installed / off,
    goal: ">= 0.9",
    met: installed >= 0.9 * off,
  };
}
