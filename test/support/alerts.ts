/** The alert rules of server/pages/alerts.yml against what /metrics serves, by Prometheus' own judge. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { expect } from "vitest";
import { parse, stringify } from "yaml";

import { promtool } from "./promtool.ts";
import { ROOT } from "./root.ts";

export const ALERTS = join(ROOT, "server/pages/alerts.yml");

export interface Rule {
  alert: string;
  expr: string;
  for?: string;
  labels: { severity: string };
  annotations: { summary: string; description: string };
}

export const RULES = (parse(readFileSync(ALERTS, "utf8")) as { groups: { rules: Rule[] }[] }).groups.flatMap(
  (group) => group.rules,
);

/** Each series as it is written, with its value. */
export function seriesOf(text: string): Map<string, number> {
  const series = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const [, name = "", value = ""] = /^(\w+(?:\{.*\})?) (\S+)$/.exec(line) ?? [];
    expect(name, line).not.toBe("");
    expect(series.has(name), line).toBe(false);
    series.set(name, value === "+Inf" ? Infinity : Number(value));
  }
  return series;
}

/** Minutes before the trouble. */
const QUIET = 10;

export const minutesOf = (rule: Rule | undefined): number => {
  const [, count = "0", unit = "m"] = /^(\d+)([mh])$/.exec(rule?.for ?? "0m") ?? [];
  return Number(count) * (unit === "h" ? 60 : 1);
};

/**
 * Which alerts fire some minutes after `before` has become `after`, as Prometheus sees it: its test starts at time 0 and takes a
 * sample each minute. Each scrape finds the same as the one before, so a time in it moves on with the clock; what `grows` gets
 * older instead.
 */
export function judge(
  before: string,
  after: string,
  minutes: number,
  fires: string[],
  scraped_at: number,
  grows?: string,
) {
  const [old, now] = [seriesOf(before), seriesOf(after)];
  const plain = (value: number): string => value.toFixed(3);
  const input_series = [...new Set([...old.keys(), ...now.keys()])].map((series) => {
    const moves = /^\w+_timestamp_seconds(\{|$)/.test(series);
    const at = (value: number, minute: number): string =>
      plain(moves ? (value === 0 ? -1e9 : value - scraped_at) + 60 * minute : value);
    const [was, is] = [old.get(series), now.get(series)];
    const first = Array.from({ length: QUIET }, (_, minute) => (was === undefined ? "_" : at(was, minute)));
    const step = moves || series === grows ? 60 : 0;
    const then = is === undefined ? "stale" : `${at(is, QUIET)}+${step}x${minutes + 5}`;
    return { series, values: [...first, then].join(" ") };
  });
  const tests = {
    rule_files: [ALERTS],
    evaluation_interval: "1m",
    tests: [
      {
        interval: "1m",
        input_series,
        promql_expr_test: [
          {
            expr: 'count by (alertname) (count by (alertname) (ALERTS{alertstate="firing"}))',
            eval_time: `${QUIET + minutes + 2}m`,
            exp_samples: fires.map((alert) => ({ labels: `{alertname="${alert}"}`, value: 1 })),
          },
        ],
      },
    ],
  };
  expect(promtool(["test", "rules", "tests.yml"], { "tests.yml": stringify(tests) })).toMatchObject({
    status: 0,
    output: expect.stringContaining("SUCCESS"),
  });
}
