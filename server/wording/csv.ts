import { plain } from "./invisible.ts";

/**
 * A cell of a CSV file. A spreadsheet runs a cell that begins with = + - @ (or with a tab or a line end before it) as a
 * formula; with a quote before it, it is a text.
 */
export function csvCell(value: string | number | Date | null): string {
  if (value === null) return "";
  const text = value instanceof Date ? value.toISOString() : plain(String(value));
  const inert = typeof value === "string" && /^\s*[=+\-@＝＋－＠\t\r\n]/u.test(value) ? `'${text}` : text;
  return `"${inert.replaceAll('"', '""')}"`;
}

export const csv = (rows: (string | number | Date | null)[][]): string =>
  rows.map((row) => `${row.map(csvCell).join(",")}\r\n`).join("");
