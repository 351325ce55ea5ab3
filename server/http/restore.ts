import { Hono } from "hono";
import type pg from "pg";

import type { Debounce } from "../config.ts";
import { Batcher } from "../postgres/batch.ts";
import { intervalsOf } from "../postgres/debounce.ts";
import { inTime } from "../time_limit.ts";
import { readBody } from "./body.ts";
import { ApiError, databaseTooSlow, onlyTakes } from "./errors.ts";
import { restoreCompleted, restoreRequest, type RestoreCompleted, type RestoreRequest } from "./input.ts";
import type { RequestEnv } from "./request_log.ts";

/** A batch stays below 100 ms of one statement; the queue below two seconds of waiting. */
const LIMITS = { batch_size: 200, queue_size: 5000 };

/** Requests behind a batch that hangs give up after this. Their write may still happen. */
const ANSWER_WITHIN_MS = 1_900;

export interface RouteOptions {
  pool: pg.Pool;
  debounce: Debounce;
  /** trustedSessions() of the settings. */
  session_domains: string[];
}

/** The two events from outside: a read failed; a restore is reported complete. */
export function restoreRoutes(options: RouteOptions): Hono<RequestEnv> {
  const requests = new Batcher(
    (items: (RestoreRequest & { id: string })[]) => requestRestores(options, items),
    { ...LIMITS, lockedOf: (items) => lockedOf(options, items) },
  );
  const completions = new Batcher(
    (items: (RestoreCompleted & { id: string })[]) => completeRestores(options, items),
    LIMITS,
  );

  return new Hono<RequestEnv>()
    .post("/request", async (c) => {
      const body = await readBody(c, restoreRequest);
      const { request_id, duplicate } = await answer(requests.push({ ...body, id: c.get("request_id") }));
      const ignored = request_id === null;
      return c.json({ ok: true, id: request_id, duplicate, ...(ignored && { ignored }) });
    })
    .all("/request", onlyTakes("POST"))
    .post("/completed", async (c) => {
      const body = await readBody(c, restoreCompleted);
      const updated = await answer(completions.push({ ...body, id: c.get("request_id") }));
      if (updated === undefined) {
        throw new ApiError("unavailable", "This restore is being worked on; try again.");
      }
      return c.json({ ok: true, updated });
    })
    .all("/completed", onlyTakes("POST"));
}

const answer = <T>(written: Promise<T>): Promise<T> => inTime(ANSWER_WITHIN_MS, written, databaseTooSlow);

/** With the field names of the SQL functions. */
const asRead = ({ principal_arn, ...item }: RestoreRequest & { id: string }) => ({
  ...item,
  principal: principal_arn,
});

async function requestRestores(
  { pool, debounce, session_domains }: RouteOptions,
  items: (RestoreRequest & { id: string })[],
): Promise<{ request_id: string | null; duplicate: boolean }[]> {
  const { rows } = await pool.query<{ read_id: string; request_id: string | null; duplicate: boolean }>({
    name: "request_restores",
    // By name: a prepared "*" fails once a later release returns more columns.
    text: "select read_id, request_id, duplicate from request_restores($1, $2, $3)",
    values: [JSON.stringify(items.map(asRead)), intervalsOf(debounce), session_domains],
  });
  return inOrder(items, rows, (row) => row.read_id);
}

/** How many requests each event concerns; undefined: not recorded, because another session locks its row. */
async function completeRestores(
  { pool, debounce }: RouteOptions,
  items: (RestoreCompleted & { id: string })[],
): Promise<(number | undefined)[]> {
  const { rows } = await pool.query<{ event_id: string; updated: number }>({
    name: "complete_restores",
    text: "select event_id, updated from complete_restores($1, $2)",
    values: [JSON.stringify(items), intervalsOf(debounce)],
  });
  const updated = new Map(rows.map((row) => [row.event_id, row.updated]));
  return items.map(({ id }) => updated.get(id));
}

async function lockedOf(
  { pool }: RouteOptions,
  items: (RestoreRequest & { id: string })[],
): Promise<boolean[]> {
  const { rows } = await pool.query<{ id: string }>({
    name: "locked_reads",
    text: "select id from locked_reads($1) id",
    values: [JSON.stringify(items.map(asRead))],
  });
  const locked = new Set(rows.map((row) => row.id));
  return items.map((item) => locked.has(item.id));
}

/** One result per item; an item without one is our bug, not the caller's. */
function inOrder<Row>(items: { id: string }[], rows: Row[], idOf: (row: Row) => string): Row[] {
  const byId = new Map(rows.map((row) => [idOf(row), row]));
  return items.map((item) => {
    const row = byId.get(item.id);
    if (row === undefined) throw new Error(`no result for ${item.id}`);
    return row;
  });
}
