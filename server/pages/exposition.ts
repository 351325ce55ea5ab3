/** Figures as Prometheus reads them. */
import { Registry, type Metric as RegistryMetric } from "@prometheus-io/client";

import type { Counted, Figures, Gauged } from "./figures.ts";
import { METRICS, type Labels, type Metric, type Total } from "./metric_list.ts";

interface Value {
  /** Of a histogram's parts; else the metric's own. */
  metricName?: string;
  labels: Labels;
  value: number;
}

interface Described {
  name: string;
  help: string;
  type: Metric["type"];
}

export const CONTENT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

/** Null: the database did not answer. Then no figure is served that may be out of date. */
export async function expose(figures: Figures | null, build: Labels): Promise<string> {
  const registry = new Registry();
  const add = (metric: Described, values: Value[]): void => {
    const served = { ...metric, get: () => ({ ...metric, values }) };
    // The library computes its own histograms only; what it prints it takes from get().
    registry.registerMetric(served as unknown as RegistryMetric<string>);
  };
  add(
    {
      name: "thaw_database_up",
      type: "gauge",
      help: "1 if the database gave this process the figures within two seconds. 0: it is away, too slow or refuses (see the log), and all that comes from it is missing, rather than out of date.",
    },
    [{ labels: {}, value: figures === null ? 0 : 1 }],
  );
  add(
    {
      name: "thaw_build_info",
      type: "gauge",
      help: "Always 1; its labels are the versions of this process.",
    },
    [{ labels: build, value: 1 }],
  );
  if (figures !== null) for (const metric of METRICS) add(metric, valuesOf(metric, figures));
  return registry.metrics();
}

function valuesOf(metric: Metric, { gauges, totals, buckets }: Figures): Value[] {
  switch (metric.type) {
    case "gauge":
      return gauges.filter((row) => `thaw_${row.metric}` === metric.name).map(valueOf);
    case "counter":
      return summed(metric, totals).map(({ labels, counted }) => ({ labels, value: sum(counted) }));
    case "histogram": {
      const sums = new Map(
        summed({ ...metric, total: `${metric.total}_sum` }, totals).map((series) => [
          keyOf(series.labels),
          sum(series.counted),
        ]),
      );
      return summed(metric, totals).flatMap(({ labels, counted }) =>
        histogramOf(metric.name, labels, counted, buckets, sums.get(keyOf(labels)) ?? 0),
      );
    }
  }
}

const valueOf = ({ labels, value }: Gauged): Value => ({ labels: inOrder(labels), value });

/** By name: jsonb has the shortest first. */
const inOrder = (labels: Labels): Labels => Object.fromEntries(Object.entries(labels).toSorted());

const sum = (counted: Counted[]): number => counted.reduce((all, { n }) => all + n, 0);

const keyOf = (labels: Labels): string => JSON.stringify(inOrder(labels));

/** Its rows by labels. */
function summed(
  { total, from_zero, has_no_labels = false }: Total,
  totals: Counted[],
): { labels: Labels; counted: Counted[] }[] {
  const series = new Map(from_zero.map((labels) => [keyOf(labels), { labels, counted: [] as Counted[] }]));
  for (const row of totals) {
    if (row.metric !== total) continue;
    const labels = has_no_labels ? {} : inOrder(row.labels);
    const key = keyOf(labels);
    const known = series.get(key) ?? { labels, counted: [] };
    known.counted.push(row);
    series.set(key, known);
  }
  return [...series.values()];
}

/** Buckets are cumulative. Rows may have bounds of an earlier release. */
function histogramOf(
  name: string,
  labels: Labels,
  counted: Counted[],
  buckets: number[],
  seconds: number,
): Value[] {
  const bounds = [...new Set([...buckets, ...counted.map(({ le }) => le ?? Infinity)])].toSorted(
    (a, b) => a - b,
  );
  const upTo = (bound: number): number => sum(counted.filter(({ le }) => (le ?? Infinity) <= bound));
  return [
    ...bounds.map((bound) => ({
      metricName: `${name}_bucket`,
      labels: { ...labels, le: bound === Infinity ? "+Inf" : String(bound) },
      value: upTo(bound),
    })),
    { metricName: `${name}_sum`, labels, value: seconds },
    { metricName: `${name}_count`, labels, value: upTo(Infinity) },
  ];
}
