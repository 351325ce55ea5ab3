import { sql } from "kysely";

import type { Debounce } from "../config.ts";
import { intervalsOf } from "./debounce.ts";
import type { Database } from "./rows.ts";

/** Requests resolved per statement: a map filled for the first time may resolve very many. */
const PAGE = 1000;

/**
 * Fills in the addresses of requests whose reader the maps know, a page per statement, until none is left or `signal` aborts.
 * Returns how many requests it looked up. identity_store: the id of the store that is to be asked about the others, if there is one.
 */
export async function resolveRequests(
  db: Database,
  rules: { debounce: Debounce; session_domains: string[]; identity_store?: string | undefined },
  signal?: AbortSignal,
): Promise<number> {
  let looked_up = 0;
  for (;;) {
    const { rows } = await sql<{ touched: number }>`
      select resolve_requests(${PAGE}, ${intervalsOf(rules.debounce)}::interval[], ${rules.session_domains}::text[],
        ${rules.identity_store ?? ""}) as touched`.execute(db);
    const touched = rows[0]?.touched ?? 0;
    looked_up += touched;
    if (touched === 0 || signal?.aborted === true) return looked_up;
  }
}
