/**
 * Points in time in the words of a mail: always UTC, and in the body always with the date, because
 * "today" may be read tomorrow.
 */
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

const WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

interface Hours {
  from: number;
  to: number;
}

/** From when until when a file is expected, and what that rests on. */
export interface Expectation {
  from: Date;
  to: Date;
  start: Date;
  hours: Hours;
}

/** How long S3 takes for a file: usual_hours of sql/times.sql says it. */
export interface Restoring {
  /** Hours from when S3 accepted the restore. */
  from_hours: number;
  to_hours: number;
  accepted_at: Date | null;
}

/** When a file is expected. An unknown start counts as now: the bound is then late rather than wrong. */
export function expectation(file: Restoring, now: Date): Expectation {
  const hours = { from: file.from_hours, to: file.to_hours };
  const start = file.accepted_at ?? now;
  // Exact minutes would pretend to a precision that S3 does not have.
  const step = hours.to < 1 ? MINUTE_MS : 5 * MINUTE_MS;
  return {
    from: new Date(Math.floor((start.getTime() + hours.from * HOUR_MS) / step) * step),
    to: new Date(Math.ceil((start.getTime() + hours.to * HOUR_MS) / step) * step),
    start,
    hours,
  };
}

/** "3 to 5 hours", "1 to 5 minutes", "up to 12 hours". */
export function hoursInWords({ from, to }: Hours): string {
  if (to < 1) return `${Math.max(1, Math.round(from * 60))} to ${Math.ceil(to * 60)} minutes`;
  return from < 1 ? `up to ${Math.ceil(to)} hours` : `${from} to ${to} hours`;
}

const two = (n: number): string => String(n).padStart(2, "0");
const time = (at: Date): string => `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
const dayAndMonth = (at: Date): string => `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
const shortDay = (at: Date): string => `${WEEKDAYS[at.getUTCDay()]} ${dayAndMonth(at)}`;
const dayNumber = (at: Date): number => Math.floor(at.getTime() / DAY_MS);

/** "Sun 29 Nov 2026". */
const day = (at: Date): string => `${shortDay(at)} ${at.getUTCFullYear()}`;

/** "Sun 29 Nov 2026, 00:00 UTC". */
export const moment = (at: Date): string => `${day(at)}, ${time(at)} UTC`;

/** For a subject: "29 Nov, 00:00 UTC", with the year where it is another one. */
export function shortMoment(at: Date, now: Date): string {
  const year = at.getUTCFullYear() === now.getUTCFullYear() ? "" : ` ${at.getUTCFullYear()}`;
  return `${dayAndMonth(at)}${year}, ${time(at)} UTC`;
}

/** "today (Sun 22 Nov)", "tomorrow (...)", "yesterday (...)", else "on Sun 22 Nov 2026". */
function dayInWords(at: Date, now: Date): string {
  switch (dayNumber(at) - dayNumber(now)) {
    case -1:
      return `yesterday (${shortDay(at)})`;
    case 0:
      return `today (${shortDay(at)})`;
    case 1:
      return `tomorrow (${shortDay(at)})`;
    default:
      return `on ${day(at)}`;
  }
}

/** "15:40 UTC today (Sun 22 Nov)". */
export const clockInWords = (at: Date, now: Date): string => `${time(at)} UTC ${dayInWords(at, now)}`;

/** "15:40 UTC" where the day goes without saying. */
export const clockOrDate = (at: Date, now: Date): string =>
  dayNumber(at) === dayNumber(now) ? `${time(at)} UTC` : clockInWords(at, now);

/** "between 18:40 and 20:40 UTC today (...)"; only the end once the beginning has passed. */
export function spanInWords({ from, to }: { from: Date; to: Date }, now: Date): string {
  if (from <= now) return `by ${clockInWords(to, now)}`;
  if (dayNumber(from) === dayNumber(to)) return `between ${time(from)} and ${clockInWords(to, now)}`;
  return `between ${clockInWords(from, now)} and ${clockInWords(to, now)}`;
}

/** The same for a subject, which may be read on any day: dates instead of "tomorrow", none for today. */
export function spanInSubject({ from, to }: { from: Date; to: Date }, now: Date): string {
  const today = dayNumber(now);
  if (from <= now) return `by ${dayNumber(to) === today ? `${time(to)} UTC` : shortMoment(to, now)}`;
  if (dayNumber(from) !== dayNumber(to)) {
    return `between ${dayAndMonth(from)}, ${time(from)} and ${shortMoment(to, now)}`;
  }
  const on = dayNumber(from) === today ? "" : `on ${dayAndMonth(from)} `;
  return `${on}between ${time(from)} and ${time(to)} UTC`;
}

/**
 * "Sun 29 Nov 2026, 00:00 UTC (midnight at the end of Sat 28 Nov)".
 *
 * S3's copies end at midnight, and "until 29 Nov, 00:00" is easily read as "the 29th included".
 */
export function endInWords(at: Date): string {
  if (at.getTime() % DAY_MS !== 0) return moment(at);
  return `${moment(at)} (midnight at the end of ${shortDay(new Date(at.getTime() - DAY_MS))})`;
}

/** "for 6 more days", rounded down: a copy that lasts longer does no harm. */
export function remainingInWords(until: Date, now: Date): string {
  const left = until.getTime() - now.getTime();
  if (left >= 2 * DAY_MS) return `for ${Math.floor(left / DAY_MS)} more days`;
  if (left >= 2 * HOUR_MS) return `for ${Math.floor(left / HOUR_MS)} more hours`;
  return left >= HOUR_MS ? "for one more hour" : "for less than an hour";
}

export const earliest = (times: Date[]): Date | undefined =>
  times.toSorted((a, b) => Number(a) - Number(b))[0];
export const latest = (times: Date[]): Date | undefined => times.toSorted((a, b) => Number(b) - Number(a))[0];
