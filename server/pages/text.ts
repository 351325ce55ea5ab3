/** How the pages write what comes from elsewhere: names, times, sizes. */
import { html } from "hono/html";

import { INVISIBLE } from "../wording/invisible.ts";

/** What a template returns. Ours never await anything, so it is never a promise. */
export type Html = ReturnType<typeof html>;

const escaped = (character: string): string =>
  `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

/** For attributes, titles and CSV, which hold no markup. */
export const plain = (text: string): string => text.replaceAll(INVISIBLE, (found) => `[${escaped(found)}]`);

/** An address or an access key that fits on a line of a phone is not broken. */
const SHORT = /^(?!s3:)\S{12,22}$/;

/** For the body of a page. The text stands in its own direction, so that it does not reorder what is around it. */
export function visible(text: string): Html {
  if (SHORT.test(text) && plain(text) === text) return html`<bdi class="short">${text}</bdi>`;
  const parts: (string | Html)[] = [];
  let from = 0;
  for (const { 0: found, index } of text.matchAll(INVISIBLE)) {
    parts.push(text.slice(from, index), html`<span class="invisible">${escaped(found)}</span>`);
    from = index + found.length;
  }
  return html`<bdi>${[...parts, text.slice(from)]}</bdi>`;
}

export const visibleUnlessEmpty = (text: string): Html | "" => (text === "" ? "" : visible(text));

/** What S3 or Resend said. */
export const reason = (of: { failure_code: string; failure_message: string }): Html | "" =>
  of.failure_code === "" && of.failure_message === ""
    ? ""
    : html`<b>${visible(of.failure_code)}</b> ${visible(of.failure_message)}`;

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** "1.2 GB", as S3 bills: powers of 1,000. */
export function bytes(count: number): string {
  let unit = 0;
  let size = count;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit++;
  }
  const digits = unit === 0 || size >= 99.5 ? 0 : 1;
  return `${size.toFixed(digits)} ${UNITS[unit]}`;
}

/** "1,234"; a count that was cut off there: "10,000+". */
export function count(n: number, cut_at = Infinity): string {
  return n >= cut_at ? `${cut_at.toLocaleString("en")}+` : n.toLocaleString("en");
}

/** "1 restore", "2 restores". */
export const things = (n: number, one: string, many = `${one}s`): string =>
  `${count(n)} ${n === 1 ? one : many}`;

export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

const SPANS = [
  ["d", 86_400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
] as const;

/** "3 h 12 min", "45 s", "12 d". */
export function duration(seconds: number): string {
  const left = Math.max(0, Math.round(seconds));
  const index = SPANS.findIndex(([, size]) => left >= size);
  const [unit, size] = SPANS[index] ?? ["s", 1];
  const first = `${Math.floor(left / size)} ${unit}`;
  const next = SPANS[index + 1];
  // The smaller unit matters while the larger one is small.
  if (next === undefined || left / size >= 10 || unit === "min") return first;
  const rest = Math.floor((left % size) / next[1]);
  return rest === 0 ? first : `${first} ${rest} ${next[0]}`;
}

const utc = (at: Date): string => {
  const iso = at.toISOString();
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`;
};

const relative = (at: Date, now: Date): string => {
  const seconds = (now.getTime() - at.getTime()) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
};

/** A point in time, always in UTC and as an age; a dash for none. */
export function time(at: Date | null, now: Date): Html {
  if (at === null) return html`<span class="none">–</span>`;
  return html`<time datetime="${at.toISOString()}"
    ><b>${relative(at, now)}</b> <small>${utc(at)}</small></time
  >`;
}

/** The age alone, where the exact time is near. */
export const since = (at: Date | null, now: Date): string => (at === null ? "" : relative(at, now));

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
