import { AsyncLocalStorage } from "node:async_hooks";

/** What a job did, by name: `{ claimed: 3, asked: 3, pending: 2, trouble: 1 }`. */
type Counts = Record<string, number>;

const running = new AsyncLocalStorage<Counts>();

/** graphile-worker passes on nothing that a task returns, but the same job to the task and to its events. */
const byJob = new WeakMap<object, Counts>();

/** Counts for the job on whose behalf this runs, however deep; outside of one for nobody. */
export function count(what: string, by = 1): void {
  const counts = running.getStore();
  if (counts !== undefined && by > 0) counts[what] = (counts[what] ?? 0) + by;
}

export function countFor<T>(job: object, work: () => Promise<T>): Promise<T> {
  const counts: Counts = {};
  byJob.set(job, counts);
  return running.run(counts, work);
}

/** Nothing for a job that found nothing to do, or left it to a run that was under way. */
export function countsOf(job: object): { did?: Counts } {
  const did = byJob.get(job);
  return did === undefined || Object.keys(did).length === 0 ? {} : { did };
}
