import type { Pool, PoolClient } from "pg";

import type { Result } from "../table.ts";
import type { World } from "../world.ts";

const OPEN = 1_000;
const MUCH_OPEN = 300_000;
const FEW = 10_000;

/** Restores that are over, with their readers, mails and announcements. Foreign keys are looked at when all is in. */
async function addHistory(pool: Pool, count: number): Promise<void> {
  await pool.query("set session_replication_role = replica");
  const page = 100_000;
  for (let from = 0; from < count; from += page) {
    await pool.query(
      `with n as (select n, gen_random_uuid() as restore, gen_random_uuid() as mail, now() - interval '30 days' - n * interval '1 second' as at
                    from generate_series($1::int, $2::int) n),
       r as (insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, pinned_version_id, restore_expires_at, closed_at, created_at)
             select restore, 'bench', 'old' || n, 'restored', at, at, '', at + interval '7 days', at + interval '7 days', at from n),
       m as (insert into notifications (id, kind, email, status, body, sent_at, created_at)
             select mail, 'post', 'p' || n % 5000 || '@example.com', 'sent', '{}', at, at from n),
       a as (insert into announcements select restore, 'post', 'p' || n % 5000 || '@example.com', mail from n)
       insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, requested_at, last_read_at,
                                     pre_notification_id, post_notification_id, pre_notified, post_notified)
       select gen_random_uuid(), restore, 'bench', 'old' || n, 'AKIA' || n % 5000, case when n % 10 > 0 then 'p' || n % 5000 || '@example.com' end, true,
              'restored', at, at, at, mail, mail, true, true from n`,
      [from, Math.min(from + page, count) - 1],
    );
  }
}

/** Open rows per person. */
const EACH = 20;

/**
 * Open restores, a quarter in each state, of people with as many files each: those of every second person are due (all of
 * them recent where `anyDue` is false). A third of the people are known; twenty readers are not looked up yet.
 */
export async function addOpen(pool: Pool | PoolClient, count: number, anyDue = true): Promise<void> {
  await pool.query(
    `with n as (select n / $2::int as file, n % $2::int as person, (enum_range(null::restore_status))[1 + n / $2::int % 4] as status, gen_random_uuid() as restore,
                       n % 2 = 1 and $3 as due, case when n % 2 = 1 and $3 then now() - interval '2 days' else now() end as at from generate_series(0, $1::int - 1) n),
     r as (insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, attempt_after, pinned_version_id, restore_expires_at, failure_code, failure_message)
           select restore, 'bench', 'open/' || file || '/' || person, status, at, case when status in ('pending', 'restored') then at end,
                  case when due then at else now() + interval '1 hour' end, '',
                  case when status = 'restored' then case when due then now() - interval '1 minute' else now() + interval '5 days' end end,
                  case when status = 'failed' then 'gone' end, case when status = 'failed' then 'Gone.' end from n)
     insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, requested_at, last_read_at)
     select gen_random_uuid(), restore, 'bench', 'open/' || file || '/' || person, 'AKIA' || person, case when person % 3 = 0 then 'p' || person || '@example.com' end,
            person % 3 = 0 or person > 60 or file > 0, status, at, at, at from n`,
    [count, count / EACH, anyDue],
  );
}

/** As many people as are due in the smaller backlog, too: a page that is not full costs less, whatever it is taken from. */
const DUE_PEOPLE = 5;

/** What each recurring task, and one POST, asks of Postgres first: all of it is rolled back. */
export const WORK: Record<string, string> = {
  "POST /restore/request": `select * from request_restores('[{"id":"00000000-0000-4000-8000-000000000001","s3_bucket":"bench","s3_key":"open/0/5","access_key_id":"AKIANEW"}]', '{120 seconds,900 seconds}', '{}')`,
  "POST /restore/completed": `select * from complete_restores('[{"id":"00000000-0000-4000-8000-000000000001","s3_bucket":"bench","s3_key":"open/1/5"}]', '{120 seconds,900 seconds}')`,
  resolve_users: "select resolve_requests(1000, '{120 seconds,900 seconds}', '{}')",
  trigger_restores: "select * from claim_restores_to_trigger(50, 'bench')",
  pre_notify: `select * from due_people('pre', '120 seconds', '900 seconds', ${DUE_PEOPLE}, '')`,
  post_notify: `select * from due_people('post', '120 seconds', '900 seconds', ${DUE_PEOPLE}, '')`,
  "seal of one person":
    "select * from seal_page(gen_random_uuid(), 'post', 'p3@example.com', '120 seconds', '900 seconds')",
  "claim of mails": "select * from claim_notifications('post', 2, 'bench')",
  poll_pending_restores:
    "select * from claim_restores_to_poll(50, '23 hours', '-infinity', '00000000-0000-0000-0000-000000000000', 'bench')",
  "closing sweep": "select close_finished_restores(100)",
  nudge: "select nudge('trigger_restores'), nudge('post_notify', '{120 seconds,900 seconds}')",
  reaper: "select reap_dead_workers()",
};

/** What no code can change: with more rows an index has one page more on the way to each. */
const LOOK_UP = "one look-up in an index";
const LOOK_UP_STATEMENT = "select from restore_requests where id = '00000000-0000-4000-8000-000000000001'";

export interface Cost {
  buffers: number;
  /** Large tables that were read from end to end. */
  scanned: string[];
}

/** What a statement reads, the statements of its functions included; it is rolled back. */
export async function costOf(client: PoolClient, statement: string): Promise<Cost> {
  const buffers: number[] = [];
  let scanned: string[] = [];
  // What the session has read before is in there, too, until Postgres has collected it.
  const scans = async (): Promise<Map<string, number>> => {
    const { rows } = await client.query<{ relname: string; seq_scan: string }>(
      `select relname, seq_scan from pg_stat_xact_user_tables
        where relname in ('restores', 'restore_requests', 'looks', 'notifications', 'announcements', '_private_jobs')`,
    );
    return new Map(rows.map((row) => [row.relname, Number(row.seq_scan)]));
  };
  // The first call of a session also plans, and reads the catalogue.
  for (let call = 0; call < 3; call++) {
    await client.query("begin");
    await client.query("set constraints all deferred");
    const before = await scans();
    const { rows } = await client.query<{ "QUERY PLAN": [{ Plan: Record<string, number> }] }>(
      `explain (analyze, buffers, format json) ${statement}`,
    );
    const plan = rows[0]?.["QUERY PLAN"][0].Plan ?? {};
    buffers.push((plan["Shared Hit Blocks"] ?? 0) + (plan["Shared Read Blocks"] ?? 0));
    const after = await scans();
    scanned = [...after.keys()].filter((table) => (after.get(table) ?? 0) > (before.get(table) ?? 0));
    await client.query("rollback");
  }
  return { buffers: Math.min(...buffers), scanned };
}

async function costs(world: World, closed: number, open: number): Promise<Record<string, Cost>> {
  const { pool } = await world.newDatabase();
  // First, so that they lie on the same pages whatever comes after them.
  await addOpen(pool, open);
  const loader = await pool.connect();
  await addHistory(loader as unknown as Pool, closed);
  await loader.query("set session_replication_role = origin");
  loader.release(true);
  await pool.query("vacuum analyze");
  const client = await pool.connect();
  const found: Record<string, Cost> = {};
  for (const [name, statement] of Object.entries({ ...WORK, [LOOK_UP]: LOOK_UP_STATEMENT }))
    found[name] = await costOf(client, statement);
  client.release(true);
  return found;
}

/** One line for each statement: what it reads of the larger database, against the smaller. */
function compare(
  larger: { what: string; costs: Record<string, Cost> },
  smaller: { what: string; costs: Record<string, Cost> },
  limit: number,
): Result[] {
  const results: Result[] = [];
  for (const [name, cost] of Object.entries(larger.costs)) {
    const before = smaller.costs[name]?.buffers ?? NaN;
    const scanned = cost.scanned.length > 0 ? `reads all of ${cost.scanned.join()}` : undefined;
    results.push({
      number: 8,
      figure: `buffers, ${larger.what}: ${name}`,
      value: cost.buffers,
      against: smaller.what,
      peer: before,
      ratio: cost.buffers / before,
      goal: name === LOOK_UP ? "a limit" : `<= ${limit}, no sequential scan`,
      met: name === LOOK_UP ? null : cost.buffers <= limit * before && scanned === undefined,
      ...(scanned !== undefined && { remark: scanned }),
    });
  }
  return results;
}

export async function history(world: World, { full }: { full: boolean }): Promise<Result[]> {
  const many = full ? 10_000_000 : 1_000_000;
  const few = { what: "ten thousand closed", costs: await costs(world, FEW, OPEN) };
  const lots = { what: `${many / 1_000_000} million closed`, costs: await costs(world, many, OPEN) };
  const backlog = {
    what: `${MUCH_OPEN / 1_000} thousand open, half of them due`,
    costs: await costs(world, FEW, MUCH_OPEN),
  };
  return [...compare(lots, few, 1.2), ...compare(backlog, { ...few, what: "one thousand open" }, 1.5)];
}
