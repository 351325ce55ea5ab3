import type { JsonObject } from "./fields.ts";

/** One line per event, so that a log query finds each one's outcome. */
export function log(
  line: { lambda: string; outcome: "sent" | "ignored" | "failed" | "dead_letter" } & JsonObject,
): void {
  console.log(JSON.stringify(line));
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
