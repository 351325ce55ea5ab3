import type { Pool, PoolClient } from "pg";

import type { Result } from "../table.ts";
import type { World } from "../world.ts";

const OPEN = 1_000;
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

/** A quarter of the open rows in each state, a third of their readers known, a fiftieth not looked up yet: what comes between two runs. */
async function addOpen(pool: Pool): Promise<void> {
  await pool.query(
    `with n as (select n, gen_random_uuid() as restore, (enum_range(null::restore_status))[1 + n % 4] as status, now() - interval '2 days' as at
                  from generate_series(1, $1::int) n),
     r as (insert into restores (id, s3_bucket, s3_key, status, status_at, accepted_at, pinned_version_id, restore_expires_at, failure_code, failure_message)
           select restore, 'bench', 'open' || n, status, at, at, '', case when status = 'restored' then now() + interval '5 days' end,
                  case when status = 'failed' then 'gone' end, case when status = 'failed' then 'Gone.' end from n)
     insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, requested_at, last_read_at)
     select gen_random_uuid(), restore, 'bench', 'open' || n, 'AKIA' || n, case when n % 3 = 0 then 'p' || n % 50 || '@example.com' end, n % 3 = 0 or n % 50 <> 1, status, at, at, at from n`,
    [OPEN],
  );
}

/** What each recurring task, and one POST, asks of Postgres first: all of it is rolled back. */
const WORK: Record<string, string> = {
  "POST /restore/request": `select * from request_restores('[{"id":"00000000-0000-4000-8000-000000000001","s3_bucket":"bench","s3_key":"open5","access_key_id":"AKIANEW"}]', '{120 seconds,900 seconds}', '{}')`,
  "POST /restore/completed": `select * from complete_restores('[{"id":"00000000-0000-4000-8000-000000000001","s3_bucket":"bench","s3_key":"open4"}]', '{120 seconds,900 seconds}')`,
  resolve_users: "select resolve_requests(1000, '{120 seconds,900 seconds}', '{}')",
  trigger_restores: "select * from claim_restores_to_trigger(50, 'bench')",
  pre_notify: "select * from due_people('pre', '120 seconds', '900 seconds', 50, '')",
  post_notify: "select * from due_people('post', '120 seconds', '900 seconds', 50, '')",
  "seal of one person":
    "select seal_notification(gen_random_uuid(), 'post', 'p3@example.com', '120 seconds', '900 seconds')",
  "claim of mails": "select * from claim_notifications('post', 2, 'bench')",
  poll_pending_restores:
    "select * from claim_restores_to_poll(50, '23 hours', '-infinity', '00000000-0000-0000-0000-000000000000', 'bench')",
  "closing sweep": "select close_finished_restores(1000)",
  reaper: "select reap_dead_workers()",
};

/** What no code can change: with more rows an index has one page more on the way to each. */
const LOOK_UP = "one look-up in an index";
const LOOK_UP_STATEMENT = "select from restore_requests where id = '00000000-0000-4000-8000-000000000001'";

interface Cost {
  buffers: number;
  /** History tables that were read from end to end. */
  scanned: string[];
}

async function costOf(client: PoolClient, statement: string): Promise<Cost> {
  const buffers: number[] = [];
  let scanned: string[] = [];
  // The first call of a session also plans, and reads the catalogue.
  for (let call = 0; call < 3; call++) {
    await client.query("begin");
    await client.query("set constraints all deferred");
    const { rows } = await client.query<{ "QUERY PLAN": [{ Plan: Record<string, number> }] }>(
      `explain (analyze, buffers, format json) ${statement}`,
    );
    const plan = rows[0]?.["QUERY PLAN"][0].Plan ?? {};
    buffers.push((plan["Shared Hit Blocks"] ?? 0) + (plan["Shared Read Blocks"] ?? 0));
    const scans = await client.query<{ relname: string }>(
      `select relname from pg_stat_xact_user_tables where seq_scan > 0
         and relname in ('restores', 'restore_requests', 'notifications', 'announcements')`,
    );
    scanned = scans.rows.map((row) => row.relname);
    await client.query("rollback");
  }
  return { buffers: Math.min(...buffers), scanned };
}

async function costs(world: World, closed: number): Promise<Record<string, Cost>> {
  const { pool } = await world.newDatabase();
  // First, so that they lie on the same pages whatever comes after them.
  await addOpen(pool);
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

export async function history(world: World, { full }: { full: boolean }): Promise<Result[]> {
  const many = full ? 10_000_000 : 1_000_000;
  const few = await costs(world, FEW);
  const lots = await costs(world, many);
  const results: Result[] = [];
  for (const [name, cost] of Object.entries(lots)) {
    const before = few[name]?.buffers ?? NaN;
    const scanned = cost.scanned.length > 0 ? `reads all of ${cost.scanned.join()}` : undefined;
    results.push({
      number: 8,
      figure: `buffers, ${many / 1_000_000} million closed: ${name}`,
      value: cost.buffers,
      against: "ten thousand closed",
      peer: before,
      ratio: cost.buffers / before,
      goal: name === LOOK_UP ? "a limit" : "<= 1.2, no sequential scan",
      met: name === LOOK_UP ? null : cost.buffers <= 1.2 * before && scanned === undefined,
      ...(scanned !== undefined && { remark: scanned }),
    });
  }
  return results;
}
