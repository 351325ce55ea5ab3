/** What goes on meanwhile: other people's requests, jobs that wait, transactions that last. */
import { setTimeout as sleep } from "node:timers/promises";

import type { Pool } from "pg";

import { SECRET } from "../support/thaw.ts";
import { percentile } from "./table.ts";

/** Calls once in `every_ms` until stopped; whatever it throws ends the measurement. */
function repeat(every_ms: number, call: () => Promise<void>): { stop(): Promise<void> } {
  let stopped = false;
  const loop = (async () => {
    while (!stopped) {
      await call();
      await sleep(every_ms);
    }
  })();
  loop.catch(() => undefined);
  return {
    async stop() {
      stopped = true;
      await loop;
    },
  };
}

export interface OtherPeople {
  /** Of the calls since the last look, in milliseconds; a refused one counts as endless. */
  p95(): number;
  stop(): Promise<void>;
}

/** Ten people a second who read one file each. */
export function otherPeople(url: string, prefix: string): OtherPeople {
  let times: number[] = [];
  let serial = 0;
  const calling = repeat(100, async () => {
    const number = serial++;
    const started = performance.now();
    const response = await fetch(`${url}/restore/request`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-restore-secret": SECRET },
      body: JSON.stringify({
        s3_bucket: "bench",
        s3_key: `${prefix}${number}`,
        access_key_id: `OTHER${number}`,
      }),
    });
    await response.text();
    times.push(response.ok ? performance.now() - started : Infinity);
  });
  return {
    p95() {
      const measured = times;
      times = [];
      return percentile(measured, 0.95);
    },
    stop: () => calling.stop(),
  };
}

export interface Watched {
  /** Most jobs that waited. */
  jobs: number;
  /** The longest transaction that was seen, in milliseconds. Who is measured, not who measures. */
  transaction_ms: number;
}

export function watch(pool: Pool): { watched: Watched; stop(): Promise<void> } {
  const watched: Watched = { jobs: 0, transaction_ms: 0 };
  const watching = repeat(250, async () => {
    const { rows } = await pool.query<Watched>(
      `select (select count(*)::int from graphile_worker.jobs where locked_at is null) as jobs,
              coalesce((select max(extract(epoch from clock_timestamp() - xact_start) * 1000)::float8 from pg_stat_activity
                         where datname = current_database() and backend_type = 'client backend'
                           and pid <> pg_backend_pid() and application_name <> 'bench' and backend_xid is not null), 0) as transaction_ms`,
    );
    watched.jobs = Math.max(watched.jobs, rows[0]?.jobs ?? 0);
    watched.transaction_ms = Math.max(watched.transaction_ms, rows[0]?.transaction_ms ?? 0);
  });
  return { watched, stop: () => watching.stop() };
}
