/** Reads from the database what the metrics say. */
import type { Pool, PoolClient } from "pg";

import type { Labels } from "./metric_list.ts";

export interface Gauged {
  metric: string;
  labels: Labels;
  value: number;
}

export interface Counted {
  metric: string;
  labels: Labels;
  /** Upper bound of a histogram's bucket; null: a plain count or sum. */
  le: number | null;
  n: number;
}

export interface Figures {
  gauges: Gauged[];
  totals: Counted[];
  /** Upper bounds of all histograms, in ascending order. */
  buckets: number[];
}

/**
 * One snapshot, or a counter and the gauge beside it would not fit together. No sequential scan: the planner's statistics may
 * be those of an empty table (sql/rules.sql, "How plans are pinned").
 */
const BEGIN = `begin isolation level repeatable read read only;
  set local statement_timeout = '2s'; set local enable_seqscan = off`;

/** Hours before this do not change any more in sum (add_totals_up), so their sums are read once an hour. */
const SETTLED = `select (date_trunc('hour', now(), 'UTC') - interval '3 days')::text as until, time_buckets() as buckets`;

const TOTALS = "select t.metric, t.labels, t.le, sum(t.n) as n from hourly_totals t";
const GROUP = "group by t.metric, t.labels, t.le";

/** Reads figures, again and again: it remembers sums that do not change. */
export function createReader(pool: Pool): () => Promise<Figures> {
  let settled: { until: string; totals: Counted[] } | undefined;

  const read = async (client: PoolClient): Promise<Figures> => {
    await client.query(BEGIN);
    const now = await client.query<{ until: string; buckets: number[] }>(SETTLED);
    const { until, buckets } = now.rows[0] ?? { until: "", buckets: [] };
    if (settled?.until !== until) {
      const { rows } = await client.query<Counted>(`${TOTALS} where t.hour < $1 ${GROUP}`, [until]);
      settled = { until, totals: rows };
    }
    const recent = await client.query<Counted>(`${TOTALS} where t.hour >= $1 ${GROUP}`, [until]);
    const gauges = await client.query<Gauged>("select metric, labels, value from gauges");
    await client.query("commit");
    return { gauges: gauges.rows, totals: [...settled.totals, ...recent.rows], buckets };
  };

  return async () => {
    const client = await pool.connect();
    try {
      const figures = await read(client);
      client.release();
      return figures;
    } catch (error) {
      // It may still be in its transaction.
      client.release(true);
      throw error;
    }
  };
}
