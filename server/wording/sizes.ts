const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"];

/**
 * "1 byte", "1.2 GB", "12 TB": as desktops count, in thousands, with one decimal where it tells something. Sums come from Postgres as
 * text. size_words in sql/cost.sql writes the same.
 */
export function size(bytes: number | string): string {
  let n = Number(bytes);
  let unit = 0;
  while (n >= 999.5 && unit < UNITS.length - 1) {
    n /= 1000;
    unit += 1;
  }
  if (unit === 0) return `${n} ${n === 1 ? "byte" : "bytes"}`;
  return `${n < 9.95 ? (Math.round(n * 10) / 10).toFixed(1) : Math.round(n)} ${UNITS[unit]}`;
}

/** The bytes that somebody wrote as "500GB", "1.5 TB" or "1000"; null: it is no size. */
export function parseSize(text: string): number | null {
  const [, digits, unit = "B"] = /^(\d{1,15}(?:\.\d{1,6})?) *([kMGTPE]?B|bytes?)?$/i.exec(text.trim()) ?? [];
  if (digits === undefined) return null;
  const power = Math.max(0, "BKMGTPE".indexOf(unit.charAt(0).toUpperCase()));
  const bytes = Math.round(Number(digits) * 1000 ** power);
  return Number.isSafeInteger(bytes) ? bytes : null;
}
