/** An order of restores: looked over first (what it would do, and cost), then handed in. */
import { randomUUID } from "node:crypto";

import { sql } from "kysely";

import { debounceOf, trustedSessions, type Config } from "../config.ts";
import { Batcher } from "../postgres/batch.ts";
import { isBadRow, isLocked } from "../postgres/errors.ts";
import { intervalsOf } from "../postgres/debounce.ts";
import type { Database } from "../postgres/rows.ts";
import { hasExpedited, type Tier } from "../s3/storage_class.ts";
import type { ListedObject } from "../s3/list.ts";
import { acting } from "./database.ts";
import type { Spool } from "./spool.ts";
import type { Terminal } from "./terminal.ts";

/** For whom, and what counts where no policy says: as a worker of this environment would restore it. */
export interface Asked {
  person: string;
  tier: Tier;
  days: number;
}

/** What is handed in of an object. */
export interface Handed {
  s3_bucket: string;
  s3_key: string;
  version_id: string;
  region: string | null;
  /** "looked": it counts only if Thaw's own HEAD finds it archived. */
  evidence: "refused" | "looked";
}

/** Files that have the same end: by class, tier, days and what their policy says. */
export interface Group {
  storage_class: string;
  tier: Tier;
  days: number;
  action: string;
  objects: number;
  bytes: number;
  /** In dollars; null: a class without prices. */
  cost: number | null;
  /** From when S3 accepts it, of the slowest of them. */
  hours: { from: number; to: number };
}

interface Sum {
  objects: number;
  bytes: number;
}
const nothing = (): Sum => ({ objects: 0, bytes: 0 });

/** What a limit would have to have room for. */
interface Need extends Sum {
  limit_id: string;
  cost: number;
  is_unknown: boolean;
}

/** What an order would do. */
export class Plan {
  readonly groups = new Map<string, Group>();
  readonly needs = new Map<string, Need>();
  /** Readable now: nothing to do. */
  readonly readable = nothing();
  /** Intelligent-Tiering: only HEAD knows. */
  readonly maybe = nothing();
  /** Under way for somebody else, or outside of Thaw: the person hears, too, and nothing is paid. */
  readonly joined = nothing();
  /** Held for approval, for somebody else: the person hears, too. */
  readonly held = nothing();
  /** Under way, or held, for this person already. */
  readonly ordered = nothing();
  readonly failed = nothing();
  readonly ignored = nothing();
  readonly gone = nothing();
  /** Archived, with NUL in the key, which Postgres cannot keep. */
  readonly with_nul = nothing();
  looked_at = 0;
  /** Where those lie that would be restored; null: nobody knows. */
  readonly regions = new Set<string | null>();

  /** Restores that would begin, observed ones left out. */
  get restored(): Group[] {
    return [...this.groups.values()].filter(({ action }) => action !== "observe");
  }

  get observed(): Group[] {
    return [...this.groups.values()].filter(({ action }) => action === "observe");
  }
}

interface Preview {
  ord: number;
  state: "new" | "joined" | "held" | "ordered" | "failed";
  action: string;
  tier: Tier;
  days: number;
  cost: number | null;
  limits: string[];
  from_hours: number;
  to_hours: number;
}

/** Looks over a page of objects: counts them in the plan, and keeps in `spool` what is to be handed in. */
export async function lookOver(
  db: Database,
  plan: Plan,
  spool: Spool<Handed>,
  asked: Asked,
  objects: readonly ListedObject[],
  regionOf: (object: ListedObject) => string | null,
): Promise<void> {
  plan.looked_at += objects.length;
  const open: ListedObject[] = [];
  for (const object of objects) {
    if (object.state === "readable") add(plan.readable, object);
    else if (object.state === "gone") add(plan.gone, object);
    else if (object.s3_key.includes("\0")) add(plan.with_nul, object);
    else open.push(object);
  }
  if (open.length === 0) return;
  const previews = await preview(db, asked, open, regionOf);
  for (const [index, object] of open.entries()) {
    const found = previews.get(index);
    if (found === undefined) throw new Error("preview_order returned no row for an object");
    if (!count(plan, object, found)) continue;
    plan.regions.add(regionOf(object));
    const { s3_bucket, s3_key, version_id } = object;
    const evidence = object.state === "maybe" ? "looked" : "refused";
    await spool.add({ s3_bucket, s3_key, version_id, region: regionOf(object), evidence });
  }
}

async function preview(
  db: Database,
  { person, tier, days }: Asked,
  objects: ListedObject[],
  regionOf: (object: ListedObject) => string | null,
): Promise<Map<number, Preview>> {
  const asked = objects.map((object, ord) => {
    const { s3_bucket, s3_key, version_id, storage_class, archive_status, size_bytes } = object;
    const facts = { storage_class, archive_status, size_bytes, has_expedited: hasExpedited(object) };
    return { ord, s3_bucket, s3_key, version_id, region: regionOf(object), ...facts };
  });
  const { rows } = await sql<Preview>`
    select ord, state, action, tier, days, cost::float8 as cost, limits::text[] as limits, from_hours, to_hours
      from preview_order(${person}, ${JSON.stringify(asked)}::jsonb, ${tier}, ${days})`.execute(db);
  return new Map(rows.map((row) => [row.ord, row]));
}

/** Returns whether the object is to be handed in. */
function count(plan: Plan, object: ListedObject, found: Preview): boolean {
  if (found.state === "ordered") return add(plan.ordered, object, false);
  if (found.state === "failed") return add(plan.failed, object, false);
  if (found.action === "ignore") return add(plan.ignored, object, false);
  if (found.state === "held") return add(plan.held, object);
  if (found.state === "joined" || object.state === "restoring") return add(plan.joined, object);
  if (object.state === "maybe") return add(plan.maybe, object);

  const { action, tier, days, cost, limits } = found;
  const storage_class = object.archive_status ?? object.storage_class;
  const key = JSON.stringify([storage_class, tier, days, action]);
  const group = plan.groups.get(key) ?? {
    storage_class,
    tier,
    days,
    action,
    ...nothing(),
    cost: 0,
    hours: { from: 0, to: 0 },
  };
  plan.groups.set(key, group);
  add(group, object);
  group.cost = group.cost === null || cost === null ? null : group.cost + cost;
  if (found.to_hours > group.hours.to) group.hours = { from: found.from_hours, to: found.to_hours };
  if (action === "restore") {
    for (const limit_id of limits) {
      const need = plan.needs.get(limit_id) ?? { limit_id, ...nothing(), cost: 0, is_unknown: false };
      plan.needs.set(limit_id, need);
      add(need, object);
      need.cost += cost ?? 0;
      need.is_unknown ||= cost === null || object.size_bytes === null;
    }
  }
  return true;
}

function add(sum: Sum, object: ListedObject, is_handed_in = true): boolean {
  sum.objects += 1;
  sum.bytes += object.size_bytes ?? 0;
  return is_handed_in;
}

export interface LimitLeft {
  limit_text: string;
  objects_left: number | null;
  bytes_left: number | null;
  cost_left: number | null;
  is_beyond: boolean;
}

/** What the limits would do with it. */
export async function limitsOf(db: Database, { person }: Asked, plan: Plan): Promise<LimitLeft[]> {
  if (plan.needs.size === 0) return [];
  const { rows } = await sql<LimitLeft>`
    select limit_text, objects_left::float8 as objects_left, bytes_left::float8 as bytes_left, cost_left::float8 as cost_left, is_beyond
      from order_limits(${person}, ${JSON.stringify([...plan.needs.values()])}::jsonb)`.execute(db);
  return rows;
}

export interface HandedIn {
  handed_in: number;
  /** By a policy that was set meanwhile. */
  ignored: number;
  failed: number;
  /** Why the first of those failed. */
  first_problem: unknown;
}

/** As POST takes them: so short that no read of these files has to wait for long. */
const BATCH_SIZE = 200;

/** Hands in what was kept, page by page; stops between two pages. `done` is kept up to date, also when it throws. */
export async function handIn(
  db: Database,
  terminal: Terminal,
  config: Config,
  order: { of: string; person: string; plan: object },
  spool: Spool<Handed>,
  done: HandedIn,
  stop: AbortSignal,
  told: (handed_in: number) => void,
): Promise<void> {
  const id = await acting(db, terminal, async (trx) => {
    const { rows } = await sql<{ id: string }>`
      select open_order(${order.person}, ${order.of}, ${JSON.stringify(order.plan)}::jsonb)::text as id`.execute(
      trx,
    );
    return rows[0]?.id ?? "";
  });
  const waits = intervalsOf(debounceOf(config));
  const batcher = new Batcher(
    (items: (Handed & { id: string })[]) =>
      acting(db, terminal, async (trx) => {
        const { rows } = await sql<{ read_id: string; request_id: string | null }>`
          select read_id, request_id
            from order_restores(${id}::bigint, ${JSON.stringify(items)}::jsonb, ${waits}::interval[], ${trustedSessions(config)}::text[])`.execute(
          trx,
        );
        const requests = new Map(rows.map((row) => [row.read_id, row.request_id]));
        return items.map((item) => requests.get(item.id) ?? null);
      }),
    {
      batch_size: BATCH_SIZE,
      lockedOf: async (items) => {
        const reads = items.map((item) => ({ ...item, principal: `mailto:${order.person}` }));
        const { rows } = await sql<{ id: string }>`
          select id from locked_reads(${JSON.stringify(reads)}::jsonb) id`.execute(db);
        const locked = new Set(rows.map((row) => row.id));
        return items.map((item) => locked.has(item.id));
      },
    },
  );
  for await (const page of spool.pages()) {
    if (stop.aborted) return;
    const results = await Promise.allSettled(page.map((item) => batcher.push({ ...item, id: randomUUID() })));
    for (const result of results) {
      if (result.status === "rejected") continue;
      if (result.value === null) done.ignored += 1;
      else done.handed_in += 1;
    }
    for (const { reason } of results.filter(
      ({ status }) => status === "rejected",
    ) as PromiseRejectedResult[]) {
      // Of one file alone; anything else is everybody's.
      if (!isLocked(reason) && !isBadRow(reason)) throw reason;
      done.failed += 1;
      done.first_problem ??= reason;
    }
    told(done.handed_in);
  }
}
