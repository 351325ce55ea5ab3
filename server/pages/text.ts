/** How the pages write what comes from elsewhere: names, times, counts. */
import { html } from "hono/html";

import { codePoint, INVISIBLE, plain } from "../wording/invisible.ts";

/** What a template returns. Ours never await anything, so it is never a promise. */
export type Html = ReturnType<typeof html>;

export { plain };

/** An address or an access key that fits on a line of a phone is not broken. */
const SHORT = /^(?!s3:)\S{12,22}$/;

/** For the body of a page. The text stands in its own direction, so that it does not reorder what is around it. */
export function visible(text: string): Html {
  if (SHORT.test(text) && plain(text) === text) return html`<bdi class="short">${text}</bdi>`;
  const parts: (string | Html)[] = [];
  let from = 0;
  for (const { 0: found, index } of text.matchAll(INVISIBLE)) {
    parts.push(text.slice(from, index), html`<span class="invisible">${codePoint(found)}</span>`);
    from = index + found.length;
  }
  return html`<bdi>${[...parts, text.slice(from)]}</bdi>`;
}

export const visibleUnlessEmpty = (text: string): Html | "" => (text === "" ? "" : visible(text));

/** A jsonb object, as Postgres writes it, in words: "status: approved, objects: 3". A sentence stays as it is. */
export function inWords(text: string): string {
  if (!/^\{".*\}$/s.test(text)) return text;
  const fields: Record<string, unknown> = JSON.parse(text);
  const wordOf = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
  return Object.entries(fields)
    .map(([name, value]) => `${name.replaceAll("_", " ")}: ${wordOf(value)}`)
    .join(", ");
}

/** What S3 or Resend said. */
export const reason = (of: { failure_code: string; failure_message: string }): Html | "" =>
  of.failure_code === "" && of.failure_message === ""
    ? ""
    : html`<b>${visible(of.failure_code)}</b> ${visible(of.failure_message)}`;

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
