import { Hono, type Context } from "hono";
import type pg from "pg";
import type { z } from "zod";

import type { Debounce } from "../config.ts";
import { Batcher } from "../postgres/batch.ts";
import { intervalsOf } from "../postgres/debounce.ts";
import { ApiError, bodyEnded, onlyTakes } from "./errors.ts";
import { restoreCompleted, restoreRequest, type RestoreCompleted, type RestoreRequest } from "./input.ts";
import type { LoggedEvent, RequestEnv } from "./request_log.ts";

/** A batch stays below 100 ms of one statement; the queue below two seconds of waiting. */
const LIMITS = { batch_size: 200, queue_size: 5000 };

/** Who waits behind a batch that Postgres does not answer gives up with it; the write may still happen. */
const ANSWER_WITHIN_MS = 1_900;

export interface RouteOptions {
  pool: pg.Pool;
  debounce: Debounce;
  /** SESSION_EMAIL_DOMAINS. */
  session_domains: string[];
}

/** The two events of the outside world: a read failed, a restore is said to be complete. */
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
      const { request_id, duplicate } = await inTime(requests.push({ ...body, id: c.get("request_id") }));
      return c.json({ ok: true, id: request_id, duplicate });
    })
    .all("/request", onlyTakes("POST"))
    .post("/completed", async (c) => {
      const body = await readBody(c, restoreCompleted);
      const updated = await inTime(completions.push({ ...body, id: c.get("request_id") }));
      if (updated === undefined) {
        throw new ApiError("unavailable", "This restore is being worked on; try again.");
      }
      return c.json({ ok: true, updated });
    })
    .all("/completed", onlyTakes("POST"));
}

async function inTime<T>(written: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new ApiError("unavailable", "The database does not answer in time; try again.")),
      ANSWER_WITHIN_MS,
    );
  });
  return Promise.race([written, late]).finally(() => clearTimeout(timer));
}

/** As the SQL functions know it. */
const asRead = ({ principal_arn, ...item }: RestoreRequest & { id: string }) => ({
  ...item,
  principal: principal_arn,
});

async function requestRestores(
  { pool, debounce, session_domains }: RouteOptions,
  items: (RestoreRequest & { id: string })[],
): Promise<{ request_id: string; duplicate: boolean }[]> {
  const { rows } = await pool.query<{ read_id: string; request_id: string; duplicate: boolean }>({
    name: "request_restores",
    // By name: a prepared "*" fails once a later release has its function answer more.
    text: "select read_id, request_id, duplicate from request_restores($1, $2, $3)",
    values: [JSON.stringify(items.map(asRead)), intervalsOf(debounce), session_domains],
  });
  return inOrder(items, rows, (row) => row.read_id);
}

/** How many requests each event concerns; undefined: it could not be noted, for somebody keeps its row locked. */
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

/** Of parameters only the charset that we read; two types in one header are none. */
const JSON_TYPE = /^application\/json\s*(;\s*charset="?utf-8"?\s*)?$/i;

/** Bytes -> UTF-8 (refused, never replaced) -> JSON -> the schema, with errors that name the field. */
async function readBody<T extends LoggedEvent>(c: Context<RequestEnv>, schema: z.ZodType<T>): Promise<T> {
  if (!JSON_TYPE.test(c.req.header("content-type") ?? "")) {
    throw new ApiError("unsupported_media_type", "Send JSON with content-type: application/json.");
  }
  const result = schema.safeParse(parseJson(await c.req.arrayBuffer().catch(bodyEnded)));
  if (result.success) {
    const { event_id, s3_bucket, s3_key } = result.data;
    c.set("event", { event_id, s3_bucket, s3_key });
    return result.data;
  }
  throw new ApiError(
    "invalid_request",
    "The body is not what this route takes.",
    result.error.issues.map((issue) => ({
      field: issue.code === "unrecognized_keys" ? issue.keys.join(", ") : issue.path.join("."),
      message: issue.code === "unrecognized_keys" ? "is not a field of this route" : issue.message,
    })),
  );
}

function parseJson(bytes: ArrayBuffer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes));
  } catch (error) {
    throw new ApiError(
      "invalid_request",
      error instanceof SyntaxError ? "The body is not valid JSON." : "The body is not valid UTF-8.",
    );
  }
}
