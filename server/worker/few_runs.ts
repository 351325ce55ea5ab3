import type { JobHelpers } from "graphile-worker";

import { countFor } from "./job_counts.ts";

const runs = new Map<string, { running: number; again: boolean }>();

/**
 * At most `limit` runs of a kind at a time in this process: each commit brings a nudge, and a crowd of runs over
 * one backlog would leave the worker no room for other tasks. A nudge that comes meanwhile makes them look again;
 * should a run die, its rows are still due, and the crontab finds them.
 */
export async function fewRuns(
  kind: string,
  limit: number,
  { job, abortSignal }: Pick<JobHelpers, "job" | "abortSignal">,
  run: () => Promise<void>,
): Promise<void> {
  const state = runs.get(kind) ?? { running: 0, again: false };
  runs.set(kind, state);
  state.again = true;
  if (state.running >= limit) return;
  state.running++;
  try {
    await countFor(job, async () => {
      while (state.again && !abortSignal.aborted) {
        state.again = false;
        await run();
      }
    });
  } finally {
    state.running--;
  }
}
