import type { Task } from "graphile-worker";
import { sql } from "kysely";

import { fewRuns } from "../server/worker/few_runs.ts";
import { count } from "../server/worker/job_counts.ts";
import { workerContext } from "../server/worker/task.ts";

/** Rows per statement: a map filled for the first time may resolve very many. */
const PAGE = 1000;

/** Finds the people behind keys, roles and sessions, for rows that are unresolved and for open rows of unknown readers. */
const resolve_users: Task = (_payload, helpers) =>
  fewRuns("resolve_users", 1, helpers, async () => {
    const { db, notify_waits, settings } = workerContext();
    for (;;) {
      const { rows } = await sql<{ touched: number }>`
        select resolve_requests(${PAGE}, ${notify_waits}::interval[], ${settings.SESSION_EMAIL_DOMAINS}::text[]) as touched`.execute(
        db,
      );
      count("looked_up", rows[0]?.touched);
      if (rows[0]?.touched === 0 || helpers.abortSignal.aborted) return;
    }
  });

export default resolve_users;
