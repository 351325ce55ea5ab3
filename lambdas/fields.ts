/** Reads untrusted JSON. */
import { unreadable } from "./failures.ts";

/** Enough to recognise an error page. */
const MAX_QUOTE_LENGTH = 500;

export const quote = (text: string): string =>
  text.length > MAX_QUOTE_LENGTH ? `${text.slice(0, MAX_QUOTE_LENGTH)}...` : text || "(empty)";

/** Parsed JSON, known to be an object. */
export type JsonObject = Record<string, unknown>;

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The text, or undefined where AWS left a field out or empty. */
export const textOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined;

/**
 * A text that decides which object is meant, or whether the event concerns us; undefined where AWS left it out or empty.
 * @throws for any other type: taken for left out, it would mean another version, or no event of ours.
 */
export function textIn(record: JsonObject, name: string): string | undefined {
  const value = record[name];
  if (value === undefined || value === null || typeof value === "string") return textOf(value);
  throw unreadable(`${name} is of the wrong kind: ${quote(JSON.stringify(value))}`);
}

/** A required field that must be an object. */
export function objectIn(parent: JsonObject, name: string): JsonObject {
  const value = parent[name];
  return required(isObject(value) ? value : undefined, name);
}

/** The parsed text, or undefined when it is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A required field of an event of ours; without it the event belongs in the dead-letter queue. */
export function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw unreadable(`${name} is missing or of the wrong kind`);
  return value;
}

/** A time as AWS writes it, or undefined when it is absent; throws when it is no time. */
export function timeOf(value: unknown, name: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (
    typeof value === "string" &&
    /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value) &&
    !Number.isNaN(Date.parse(value))
  ) {
    return value;
  }
  throw unreadable(`${name} is not a UTC time: ${quote(JSON.stringify(value))}`);
}

/** Undoes form encoding ("+" is a space); throws on a stray "%". */
export function decodeForm(text: string, name: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw unreadable(`${name} is not URL-encoded: ${quote(text)}`);
  }
}
