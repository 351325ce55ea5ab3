import { parse } from "csv-parse/sync";

import { ConfigError } from "./config.ts";

/** One entry of a map: an access key id, an ARN, or a prefix of ARNs that ends in `*`. */
export interface UserRow {
  id: string;
  email: string;
}

/** More than this is not read one by one; the rest shows with the next try. */
const PROBLEMS_SHOWN = 20;

/** As the database's email_address: one mailbox, nothing that could make two of it. */
const EMAIL = /^[^@\s,;<>"]+@[^@\s,;<>"]+$/u;

/**
 * Reads `access_key_id,email` or `principal,email` lines; the header may use either name, a line either kind.
 *
 * @throws ConfigError with every problem and its line.
 */
export function readUserRows(text: string, file: string): UserRow[] {
  const problems: string[] = [];
  const rows = new Map<string, UserRow>();
  for (const { record, info } of parseCsv(text, file)) {
    const id = (record["access_key_id"] || record["principal"] || "").trim();
    const email = (record["email"] ?? "").trim();
    const contradicts = (rows.get(id)?.email ?? email) !== email;
    const problem =
      problemOf(id, email) ?? (contradicts ? `${id} stands twice, with different addresses` : null);
    if (problem !== null) problems.push(`  line ${info.lines}: ${problem}`);
    rows.set(id, { id, email });
  }
  if (problems.length > 0) {
    const more = problems.length > PROBLEMS_SHOWN ? `\n  and ${problems.length - PROBLEMS_SHOWN} more` : "";
    throw new ConfigError(
      `Nothing was imported from ${file}:\n${problems.slice(0, PROBLEMS_SHOWN).join("\n")}${more}`,
    );
  }
  return [...rows.values()];
}

function problemOf(id: string, email: string): string | null {
  if (id === "") return "the access key id or principal is missing";
  if (!EMAIL.test(email)) return `'${email}' is not an email address`;
  if (id.startsWith("arn:")) {
    if (id.slice(0, -1).includes("*")) return `'${id}': a * may stand at the end only`;
    return /^arn:[^:]+:(iam|sts|identitystore):/.test(id)
      ? null
      : `'${id}' is not the ARN of a user, role or session`;
  }
  return /^[A-Z0-9]{16,128}$/.test(id) ? null : `'${id}' is neither an access key id (AKIA...) nor an ARN`;
}

function parseCsv(text: string, file: string): { record: Record<string, string>; info: { lines: number } }[] {
  try {
    return parse(text, {
      bom: true,
      columns: (names: string[]) => columnsOf(names, file),
      info: true,
      skip_empty_lines: true,
      trim: true,
    });
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`${file} is not a CSV file: ${(error as Error).message}`);
  }
}

function columnsOf(names: string[], file: string): string[] {
  const columns = names.map((name) => name.trim().toLowerCase());
  if (!columns.includes("email") || !(columns.includes("access_key_id") || columns.includes("principal"))) {
    throw new ConfigError(
      `${file}: the first line must name the columns: access_key_id,email (or principal,email)`,
    );
  }
  return columns;
}
