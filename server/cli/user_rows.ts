import { isAddress } from "../settings/address.ts";
import { ConfigError } from "../config.ts";
import { lettersOf, parseCsv, type Misshapen } from "./csv_file.ts";

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
  const letters = names.map(lettersOf);
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
