import { parse } from "csv-parse/sync";

import { isAddress } from "../settings/address.ts";
import { ConfigError } from "../config.ts";

/** One entry of a map: an access key id, an ARN, or a prefix of ARNs that ends in `*`. */
export interface UserRow {
  id: string;
  email: string;
}

/** As written in a file; check_users in the database validates it. */
export interface UserLine extends UserRow {
  line: number;
}

/** What the columns are called, in letters only: "Access key ID" is accesskeyid. */
const ID_COLUMNS = ["accesskeyid", "principal", "principalarn", "arn"];
const EMAIL_COLUMNS = ["email", "emailaddress", "mail"];

/** Column numbers. A line may have a key and an ARN of the same person. */
interface Columns {
  ids: number[];
  email: number;
}

interface CsvRecord {
  record: string[];
  line: number;
}

/** A line that has more or fewer fields than the first has a comma too many, or lost a quote. */
export type Misshapen = { line: number; fields: number; expected: number };

/**
 * Reads lines of an access key id or principal and an address, in any order of columns when the first line names them. Fields
 * are separated by commas, semicolons or tabs.
 *
 * @throws ConfigError when the columns cannot be recognised.
 */
export function readUserRows(text: string, file: string): { rows: UserLine[]; misshapen: Misshapen[] } {
  const records = parseCsv(text, file);
  const [first] = records;
  const named = first && namedColumns(first.record);
  const columns = named ?? (first && bareColumns(first.record));
  if (first === undefined || columns === undefined) {
    throw new ConfigError(
      `${file}: the first line must name the columns: access_key_id,email (or principal,email)`,
    );
  }
  const expected = first.record.length;
  const rows: UserLine[] = [];
  const misshapen: Misshapen[] = [];
  for (const { record, line } of named === undefined ? records : records.slice(1)) {
    if (record.length !== expected) {
      misshapen.push({ line, fields: record.length, expected });
      continue;
    }
    const email = record[columns.email] ?? "";
    const ids = columns.ids.map((index) => record[index] ?? "").filter((id) => id !== "");
    for (const id of ids.length > 0 ? ids : [""]) rows.push({ line, id, email });
  }
  return { rows, misshapen };
}

function namedColumns(names: string[]): Columns | undefined {
  const letters = names.map((name) => name.toLowerCase().replaceAll(/[^a-z]/g, ""));
  const among = (known: string[]): number[] =>
    [...letters.keys()].filter((i) => known.includes(letters[i] ?? ""));
  const [email, another] = among(EMAIL_COLUMNS);
  const ids = among(ID_COLUMNS);
  return email !== undefined && another === undefined && ids.length > 0 ? { ids, email } : undefined;
}

/** No names: two columns, one of them with an address. */
function bareColumns(record: string[]): Columns | undefined {
  if (record.length !== 2) return undefined;
  const email = record.findIndex(isAddress);
  return email < 0 ? undefined : { ids: [1 - email], email };
}

function parseCsv(text: string, file: string): CsvRecord[] {
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

/** The one that the first line has most of, outside of quotes; none of them occurs in a key, an ARN or an address. */
function likelySeparator(text: string): string {
  const first = (/^\s*(.*)/.exec(text)?.[1] ?? "").replaceAll(/"[^"]*"/g, "");
  const count = (separator: string): number => first.split(separator).length;
  return [",", ";", "\t"].toSorted((a, b) => count(b) - count(a))[0] ?? ",";
}
