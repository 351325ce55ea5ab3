/** CSV files as people and spreadsheets write them. */
import { readFileSync } from "node:fs";

import { parse } from "csv-parse/sync";

import { ConfigError } from "../config.ts";
import { decodeText } from "./user_file.ts";

interface CsvRecord {
  record: string[];
  line: number;
}

/** A line that has more or fewer fields than the first has a comma too many, or lost a quote. */
export type Misshapen = { line: number; fields: number; expected: number };

/** What is wrong with a line. */
export interface LineProblem {
  line: number;
  problem: string;
}

export const shapeProblem = ({ line, fields, expected }: Misshapen): LineProblem => ({
  line,
  problem: `${fields} fields, where the first line has ${expected}`,
});

/** A person does not read more of them; the rest shows on the next try. */
export const PROBLEMS_SHOWN = 20;

/** @throws ConfigError with every problem and its line, if there is any; `total`: where not all of them were kept. */
export function refuse(
  file: string,
  problems: LineProblem[],
  { total = problems.length, nothing = "Nothing was imported" } = {},
): void {
  if (total === 0) return;
  const lines = problems
    .toSorted((a, b) => a.line - b.line)
    .map(({ line, problem }) => `  line ${line}: ${problem}`);
  const more = total > PROBLEMS_SHOWN ? `\n  and ${total - PROBLEMS_SHOWN} more` : "";
  throw new ConfigError(`${nothing} from ${file}:\n${lines.slice(0, PROBLEMS_SHOWN).join("\n")}${more}`);
}

/** Column names in letters and digits only: "Access key ID" is accesskeyid. */
export const lettersOf = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9]/g, "");

/** The text of a file. @throws ConfigError when it cannot be read, or is no text. */
export function readText(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new ConfigError(`Cannot read ${file}: ${(error as Error).message}`);
  }
  return decodeText(bytes, file);
}

/**
 * The rows of a file whose first line names its columns, each under our name for the column. `columns`: what else each may be called;
 * those that are `needed` must be there. @throws ConfigError
 */
export function readRows<Name extends string>(
  file: string,
  columns: Record<Name, readonly string[]>,
  needed: readonly NoInfer<Name>[],
): { rows: { line: number; values: Record<Name, string> }[]; problems: LineProblem[] } {
  const [first, ...records] = parseCsv(readText(file), file);
  const letters = (first?.record ?? []).map(lettersOf);
  const names = Object.keys(columns) as Name[];
  const places = names.map((name) => {
    const known = new Set([name, ...columns[name]].map(lettersOf));
    return letters.findIndex((column) => known.has(column));
  });
  const missing = needed.filter((name) => places[names.indexOf(name)] === -1);
  if (missing.length > 0) {
    throw new ConfigError(
      `${file}: the first line must name the columns ${names.join(",")}; it lacks ${missing.join(", ")}`,
    );
  }
  const unknown = letters.filter((_, at) => !places.includes(at));
  if (unknown.length > 0) {
    throw new ConfigError(
      `${file}: there is no column ${unknown[0]}, or it is there twice; the columns are ${names.join(",")}`,
    );
  }
  const expected = letters.length;
  const isWhole = ({ record }: CsvRecord): boolean => record.length === expected;
  return {
    rows: records.filter(isWhole).map(({ record, line }) => ({
      line,
      values: Object.fromEntries(names.map((name, at) => [name, record[places[at] ?? -1] ?? ""])) as Record<
        Name,
        string
      >,
    })),
    problems: records
      .filter((of) => !isWhole(of))
      .map(({ record, line }) => shapeProblem({ line, fields: record.length, expected })),
  };
}

/** @throws ConfigError when it is no CSV file. */
export function parseCsv(text: string, file: string): CsvRecord[] {
  const named = /^sep=(.)\r?\n/i.exec(text)?.[1];
  const separator = named ?? likelySeparator(text);
  try {
    const records = parse(text, {
      // "sep=" is Excel's own line, which it does not show.
      from_line: named === undefined ? 1 : 2,
      delimiter: separator,
      info: true,
      relax_column_count: true,
      skip_empty_lines: true,
      skip_records_with_empty_values: true,
      // A space before a quote is no part of the field; tabs would be trimmed with it.
      trim: separator !== "\t",
    }) as unknown as { record: string[]; info: { lines: number } }[];
    return records.map(({ record, info }) => ({
      record: record.map((field) => field.trim()),
      line: info.lines,
    }));
  } catch (error) {
    throw new ConfigError(`${file} is not a CSV file: ${(error as Error).message}`);
  }
}

/** The one that the first line has most of, outside of quotes; none of them occurs in the name of a column. */
function likelySeparator(text: string): string {
  const first = (/^\s*(.*)/.exec(text)?.[1] ?? "").replaceAll(/"[^"]*"/g, "");
  const count = (separator: string): number => first.split(separator).length;
  return [",", ";", "\t"].toSorted((a, b) => count(b) - count(a))[0] ?? ",";
}
