export interface Result {
  number: number;
  figure: string;
  value: number | string;
  unit?: string;
  /** The peer or the limit, measured in the same run. */
  against?: string;
  peer?: number;
  /** value / peer, or what else is held against the goal. */
  ratio?: number;
  goal: string;
  met: boolean | null;
  remark?: string;
}

const round = (value: number | string): string =>
  typeof value === "string"
    ? value
    : value >= 100
      ? value.toFixed(0)
      : value >= 10
        ? value.toFixed(1)
        : value.toFixed(2);

/** One line per figure; met: yes, NO, or - where there is only something to see. */
export function printTable(results: Result[]): string {
  const rows = results.map((result) => [
    String(result.number),
    result.figure,
    `${round(result.value)}${result.unit ? ` ${result.unit}` : ""}`,
    `${result.against ?? ""}${result.peer === undefined ? "" : `: ${round(result.peer)}`}`,
    result.ratio === undefined ? "" : round(result.ratio),
    result.goal,
    `${result.met === null ? "-" : result.met ? "met" : "NOT MET"}${result.remark === undefined ? "" : ` (${result.remark})`}`,
  ]);
  const head = ["#", "figure", "here", "against", "ratio", "goal", ""];
  const widths = head.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: string[]): string =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? NaN)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

export function percentile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? NaN;
}
