import { callForAWhile } from "../load.ts";
import { median, type Result } from "../table.ts";
import type { World } from "../world.ts";

const ARNS = 100_000;
const CONNECTIONS = 64;
const ROUNDS = 3;
const SECONDS = 5;

let serial = 0;
/** By a session of a role: its key is in no map, and all of the rules are asked. */
const sessionRead = (): string => {
  const number = serial++;
  return JSON.stringify({
    s3_bucket: "bench",
    s3_key: `films/${number}.mov`,
    access_key_id: `ASIA${number}`,
    principal_arn: `arn:aws:sts::111122223333:assumed-role/Machine/i-${number}`,
    event_id: `event-${number}`,
  });
};

/** Reads taken in while the map of principals is large, and while it is empty, turn by turn. */
export async function largeMap(world: World): Promise<Result[]> {
  const rates: Record<"empty" | "large", number[]> = { empty: [], large: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const map of ["empty", "large"] as const) {
      const { url: databaseUrl, pool } = await world.newDatabase();
      if (map === "large") {
        await pool.query(
          `insert into aws_principal_user_map (principal, email)
           select 'arn:aws:sts::111122223333:assumed-role/Analyst/session-' || n, 'p' || n || '@example.com' from generate_series(1, $1::int) n`,
          [ARNS],
        );
        await pool.query("vacuum analyze aws_principal_user_map");
      }
      const server = await world.server(databaseUrl);
      const call = {
        url: server.url,
        path: "/restore/request",
        connections: CONNECTIONS,
        body: sessionRead,
      };
      await callForAWhile({ ...call, seconds: 1 });
      rates[map].push((await callForAWhile({ ...call, seconds: SECONDS })).per_second);
      await server.stop();
    }
  }
  const large = median(rates.large);
  const empty = median(rates.empty);
  return [
    {
      number: 15,
      figure: "reads by sessions, 100,000 exact ARNs in the map",
      value: large,
      unit: "/s",
      against: "an empty map",
      peer: empty,
      ratio: large / empty,
      goal: ">= 0.9",
      met: large >= 0.9 * empty,
    },
  ];
}
