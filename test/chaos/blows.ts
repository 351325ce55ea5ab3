/** What hits Thaw's processes and Postgres in a storm, as planned. */
import { setTimeout as sleep } from "node:timers/promises";

import type { PrivatePostgres } from "../support/private_postgres.ts";
import type { Supervised } from "./supervised.ts";
import type { Blow } from "./weather.ts";

interface Struck {
  processes: Supervised[];
  postgres: PrivatePostgres;
  /** Milliseconds since the storm began. */
  elapsed: () => number;
  say: (line: string) => void;
}

/** Blow after blow, until the last is over; answers how many of each. */
export async function strike(
  blows: Blow[],
  { processes, postgres, elapsed, say }: Struck,
): Promise<Record<Blow["what"], number>> {
  const counts: Record<Blow["what"], number> = { kill: 0, terminate: 0, pause: 0, "stop postgres": 0 };
  const resumed: Promise<void>[] = [];
  for (const blow of blows) {
    await sleep(Math.max(0, blow.at_ms - elapsed()));
    say(`${(elapsed() / 1000).toFixed(1)} s  ${describe(blow, processes)}`);
    counts[blow.what]++;
    if (blow.what === "stop postgres") {
      await postgres.stop(blow.mode);
      await sleep(blow.for_ms);
      await postgres.start();
      continue;
    }
    const struck = processes[blow.process];
    if (blow.what === "pause") {
      struck?.kill("SIGSTOP");
      resumed.push(sleep(blow.for_ms).then(() => struck?.kill("SIGCONT")));
    } else struck?.kill(blow.what === "kill" ? "SIGKILL" : "SIGTERM");
  }
  await Promise.all(resumed);
  return counts;
}

function describe(blow: Blow, processes: Supervised[]): string {
  if (blow.what === "stop postgres")
    return `stops Postgres (${blow.mode}) for ${(blow.for_ms / 1000).toFixed(1)} s`;
  const name = processes[blow.process]?.name ?? "?";
  if (blow.what === "pause") return `pauses ${name} for ${(blow.for_ms / 1000).toFixed(1)} s`;
  return `${blow.what}s ${name}`;
}
