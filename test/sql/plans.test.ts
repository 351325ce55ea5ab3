/**
 * What one step costs does not depend on what else waits: each recurring statement on a large open backlog, half of which is
 * due, with the statistics of that moment and with none.
 */
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { addClosedRestores, addStuck } from "../bench/closed_restores.ts";
import { addOpen, costOf, WORK, type Cost } from "../bench/figures/history.ts";
import { test } from "../support/database.ts";

const FEW = 2_000;
const MANY = 60_000;

/** Looks at a table that is empty here: it reads all of it. */
const { "claim of mails": _, ...TASKS } = WORK;

/** A page of an order: files of every state, and as many new ones. */
const ORDERED = Array.from({ length: 40 }, (_file, ord) => ({
  ord,
  s3_bucket: "bench",
  s3_key: ord % 2 === 0 ? `open/${ord % 4}/${ord}` : `new/${ord}`,
  storage_class: "GLACIER",
  size_bytes: 1000,
  has_expedited: true,
}));
const RECURRING: Record<string, string> = {
  ...TASKS,
  "preview of an order": `select * from preview_order('jane@example.com', '${JSON.stringify(ORDERED)}', 'Standard', 7)`,
};

/** What workers note of rows that they hold: the outcomes of a page of claimed restores, of each kind. */
async function settling(pool: Pool): Promise<Record<string, string>> {
  const claimed = async (claim: string): Promise<Claimed[]> =>
    (await pool.query<Claimed>(`select id, claim_id from ${claim} c where c.head_wanted_at is null`)).rows;
  const settle = (rows: Claimed[], transition: string): string => {
    const outcomes = rows.map((row) => ({
      ...row,
      transition,
      pinned_version_id: "",
      storage_class: "GLACIER",
      code: "gone",
      message: "Gone.",
    }));
    return `select settle_restores('${JSON.stringify(outcomes)}', '{120 seconds,900 seconds}')`;
  };
  const started = await claimed("claim_restores_to_trigger(10, 'bench')");
  const asked = await claimed(
    "claim_restores_to_poll(10, '23 hours', '-infinity', '00000000-0000-0000-0000-000000000000', 'bench')",
  );
  // As a read that is refused again has them asked about.
  const { rows: restored } = await pool.query<Claimed>(
    `update restores set claim_id = gen_random_uuid(), attempt_after = now() + interval '1 minute', head_wanted_at = now() - interval '1 minute'
      where id in (select id from restores where status = 'restored' and closed_at is null order by s3_key limit 10) returning id, claim_id`,
  );
  expect([started.length, asked.length, restored.length]).toEqual([10, 10, 10]);
  return {
    ...Object.fromEntries(
      [
        "mark_restores_pending",
        "mark_restores_restored",
        "mark_restores_failed",
        "note_restore_troubles",
      ].map((transition) => [`${transition}, started`, settle(started, transition)]),
    ),
    ...Object.fromEntries(
      [
        "mark_restores_restored",
        "mark_restores_lost",
        "note_restores_checked",
        "mark_restores_failed",
        "note_restore_troubles",
      ].map((transition) => [`${transition}, asked`, settle(asked, transition)]),
    ),
    ...Object.fromEntries(
      ["mark_restores_expired", "note_restores_checked", "note_restore_troubles"].map((transition) => [
        `${transition}, restored`,
        settle(restored, transition),
      ]),
    ),
  };
}

interface Claimed {
  id: string;
  claim_id: string;
}

async function costs(pool: Pool, statements?: Record<string, string>): Promise<Record<string, Cost>> {
  const all = statements ?? { ...RECURRING, ...(await settling(pool)) };
  const client = await pool.connect();
  const found: Record<string, Cost> = {};
  for (const [name, statement] of Object.entries(all)) found[name] = await costOf(client, statement);
  client.release(true);
  return found;
}

/** A page on the way more in each index that grew, and never all of a table. */
function expectAsCheap(many: Record<string, Cost>, few: Record<string, Cost>, statistics = ""): void {
  for (const [name, cost] of Object.entries(many)) {
    expect.soft(cost.scanned, `${name} reads all of, ${statistics}`).toEqual([]);
    expect
      .soft(cost.buffers, `${name}, ${statistics}`)
      .toBeLessThanOrEqual(1.5 * (few[name]?.buffers ?? 0) + 100);
  }
}

describe("each step costs the same", () => {
  test("however much is open, and half of it due", { timeout: 240_000 }, async ({ pool }) => {
    // Only what a line here says makes statistics.
    for (const table of ["restores", "restore_requests"])
      await pool.query(`alter table ${table} set (autovacuum_enabled = off)`);
    await addOpen(pool, FEW);
    await pool.query("vacuum analyze");
    const few = await costs(pool);
    // What vacuum and analyze say of an empty table: that there is no row.
    for (const known of ["analyze restores, restore_requests", "vacuum restores, restore_requests"]) {
      await pool.query("truncate restores, restore_requests cascade");
      await pool.query(known);
      await addOpen(pool, MANY);
      expectAsCheap(await costs(pool), few, known);
    }
    await pool.query("vacuum analyze");
    expectAsCheap(await costs(pool), few, "as they are");
  });

  const OVER =
    "status = 'restored', accepted_at = now() - interval '60 days', status_at = now() - interval '50 days', restore_expires_at = now() - interval '40 days'";
  test.for([
    ["waits to be asked for", "trigger_restores", "attempt_after = now()"],
    [
      "waits to be asked about",
      "poll_pending_restores",
      "status = 'pending', accepted_at = now() - interval '2 days'",
    ],
    [
      "has its expected time over",
      "poll_pending_restores",
      "status = 'pending', accepted_at = now() - interval '6 hours', ask_after = now() - interval '1 hour'",
    ],
    ["is doubtful", "poll_pending_restores", `${OVER}, head_wanted_at = now()`],
    ["is over", "closing sweep", OVER],
    [
      "has failed today",
      "closing sweep",
      "status = 'failed', failure_code = 'gone', failure_message = 'Gone.'",
    ],
    ["was over long ago", "forgetting", `${OVER}, closed_at = now() - interval '40 days'`],
  ] as const)("where all of it %s", { timeout: 60_000 }, async ([, name, columns], { pool }) => {
    const statement = WORK[name] ?? "select forget_old_restores('30 days', 100)";
    const fill = async (count: number): Promise<void> => {
      const pairs = columns.split(", ").map((pair) => pair.split(" = "));
      await pool.query("truncate restores, restore_requests cascade");
      await pool.query(
        `insert into restores (id, s3_bucket, s3_key, ${pairs.map(([column]) => column).join()})
         select gen_random_uuid(), 'bench', n::text, ${pairs.map(([, value]) => value).join()} from generate_series(1, $1::int) n`,
        [count],
      );
    };
    await fill(1_000);
    await pool.query("vacuum analyze");
    const few = await costs(pool, { [name]: statement });
    await fill(MANY);
    const unaware = await costs(pool, { [name]: statement });
    await pool.query("vacuum analyze");
    expectAsCheap(await costs(pool, { [name]: statement }), few);
    expectAsCheap(unaware, few);
  });

  test(
    "to claim one whose time has come, however many others wait for theirs, are in backoff or are asked about by events",
    { timeout: 240_000 },
    async ({ pool }) => {
      await pool.query("alter table restores set (autovacuum_enabled = off)");
      const claim = WORK["poll_pending_restores"] ?? "";
      const fill = async (count: number): Promise<void> => {
        await pool.query("truncate restores, restore_requests cascade");
        await pool.query("analyze restores");
        // A third waits for its time, a third is in backoff as a claim or trouble leaves it, of a third an event asks, in backoff.
        await pool.query(
          `insert into restores (id, s3_bucket, s3_key, status, accepted_at, tier, ask_after, attempt_after, head_wanted_at)
           select gen_random_uuid(), 'bench', n::text, 'pending', now() - interval '6 hours', 'Standard',
                  case n % 3 when 0 then now() + n * interval '1 second' when 1 then now() + interval '1 minute' else now() - interval '1 hour' end,
                  case n % 3 when 0 then now() else now() + interval '1 minute' end,
                  case n % 3 when 2 then now() - interval '1 hour' end
             from generate_series(1, $1::int) n`,
          [count],
        );
        await pool.query(
          `insert into restores (id, s3_bucket, s3_key, status, accepted_at, tier, ask_after)
           select gen_random_uuid(), 'bench', 'due' || n, 'pending', now() - interval '6 hours', 'Standard', now() - interval '1 hour' from generate_series(1, 50) n`,
        );
      };
      await fill(1_000);
      await pool.query("vacuum analyze restores");
      const few = await costs(pool, { claim });
      await fill(300_000);
      expectAsCheap(await costs(pool, { claim }), few, "of an empty table");
      await pool.query("vacuum analyze restores");
      expectAsCheap(await costs(pool, { claim }), few, "as they are");
      expect((await pool.query(claim)).rowCount).toBe(50);
    },
  );

  test("however many jobs wait, on a table that was never analysed", async ({ pool }) => {
    const nudge = WORK["nudge"] ?? "";
    const client = await pool.connect();
    const none = await costOf(client, nudge);
    await pool.query(
      "select graphile_worker.add_jobs(array_agg(('trigger_restores', null, null, now() + n * interval '1 second', 3, null, null, null)::graphile_worker.job_spec)) from generate_series(-1000, 1000) n",
    );
    const many = await costOf(client, nudge);
    client.release(true);
    expect(many.scanned).toEqual([]);
    expect(many.buffers).toBeLessThanOrEqual(none.buffers + 200);
  });

  test("to find nothing stuck, however much is open and untold", { timeout: 60_000 }, async ({ pool }) => {
    await addOpen(pool, MANY, false);
    await pool.query("vacuum analyze");
    const client = await pool.connect();
    const { buffers, scanned } = await costOf(client, "select * from stuck_requests");
    client.release(true);
    expect((await pool.query("select from stuck_requests")).rowCount).toBe(0);
    expect(scanned.filter((table) => table !== "notifications")).toEqual([]);
    expect(buffers).toBeLessThan(100);
  });

  test(
    "to admit a page, to settle a hold and to tell who joins it, however much is held",
    { timeout: 240_000 },
    async ({ pool }) => {
      const fill = async (held: number): Promise<void> => {
        await pool.query(
          "truncate restores, restore_requests, holds, notices, spending, limits, policies cascade",
        );
        // What comes last is due; a hold of one person keeps all else.
        await pool.query(
          `with h as (insert into holds (person, reason, objects, status, decided_at, decided_by) values ('p', 'r', $1, 'approved', now(), 'ann') returning id),
         n as (select n, gen_random_uuid() as id, n > $1::int - 50 as is_due from generate_series(1, $1::int) n),
         r as (insert into restores (id, s3_bucket, s3_key, payer, hold_id, attempt_after)
               select n.id, 'bench', 'held' || n.n, case when not n.is_due then 'p' end, case when not n.is_due then h.id end,
                      case when n.is_due then now() - interval '1 minute' else 'infinity' end from n, h)
         insert into restore_requests (id, restore_id, s3_bucket, s3_key, access_key_id, email, user_resolved, restore_status, status_at, last_read_at)
         select n.id, n.id, 'bench', 'held' || n.n, 'AKIA' || n.n % 100, 'p' || n.n % 100 || '@example.com', true, 'not_started', now(), now() from n`,
          [held],
        );
        await pool.query(
          "insert into limits (scope, per, max_objects) values ('all', 'day', 1000000), ('person', 'day', 10), ('person', 'month', 1000000)",
        );
        await pool.query(
          "insert into policies (s3_bucket, action) values ('other', 'ignore'), ('third', 'observe')",
        );
      };
      const measured = async (): Promise<Record<string, Cost>> => {
        await pool.query(
          "update restores set claim_id = null, attempt_after = now() where attempt_after < 'infinity'",
        );
        const { rows } = await pool.query<Claimed>(
          "select id, claim_id from claim_restores_to_trigger(50, 'bench')",
        );
        expect(rows).toHaveLength(50);
        const objects = rows.map((row) =>
          Object.assign(row, { storage_class: "GLACIER", size_bytes: 1, pinned_version_id: "" }),
        );
        return await costs(pool, {
          admit_restores: `select * from admit_restores('${JSON.stringify(objects)}', 'Standard', 7)`,
          settle_holds: "select settle_holds(100)",
          note_held_readers: `select note_held_readers('{${rows.map(({ id }) => id).join()}}')`,
          give_back: `select give_back('{${rows.map(({ id }) => id).join()}}')`,
          "POST that a policy may ignore": RECURRING["POST /restore/request"] ?? "",
        });
      };
      await fill(FEW);
      await pool.query("vacuum analyze");
      const few = await measured();
      await fill(MANY);
      expectAsCheap(await measured(), few, "statistics of before");
      await pool.query("vacuum analyze");
      expectAsCheap(await measured(), few, "as they are");
    },
  );
  const STUCK = [
    "S3 refuses, or cannot be reached",
    "no worker has asked S3 yet",
    "S3 takes longer than it ever should",
    'the mail "ready" or "failed" is overdue',
    "a mail is not sent yet",
    "Resend refused a mail",
  ];
  const LOOKED_FOR: Record<string, string> = {
    "restores by name": "select * from find_by_name('bucket-1', true, 'projects/1/', null, 51)",
    "restores by name in all buckets": "select * from find_by_name('', false, 'projects/1/', null, 51)",
    "a later page of them":
      "select * from find_by_name('', false, 'projects/', '00000000-0000-4000-8000-000000000500', 51)",
    "a name that nothing has": "select * from find_by_name('', false, 'nothing', null, 51)",
    "reads of a person": "select * from find_by_address('p7@example.com', null, 51)",
    "a later page of the reads":
      "select * from find_by_address('p7@example.com', '00000000-0000-4000-8000-000000000047', 51)",
    "reads by a key": "select * from find_by_reader('{AKIA0000000000000007}', null, 51)",
    "reads by an ARN":
      "select * from find_by_reader('{arn:aws:sts::111122223333:assumed-role/Analyst/p7}', null, 51)",
    "readers with a prefix": "select * from readers_like('arn:aws:')",
    "mails that are refused":
      "select m.id from unsent_mails m where m.notification_status = 'failed' order by m.created_at, m.id limit 51",
    ...Object.fromEntries(
      STUCK.map((problem) => [`stuck: ${problem}`, `select * from oldest_stuck('${problem}', 51)`]),
    ),
  };

  test("to look for something, however much is over and stuck", { timeout: 120_000 }, async ({ pool }) => {
    const tables = ["restores", "restore_requests", "notifications", "restore_history"];
    for (const table of tables) await pool.query(`alter table ${table} set (autovacuum_enabled = off)`);
    const client = await pool.connect();
    try {
      const fill = async (closed: number, stuck: number): Promise<void> => {
        await addClosedRestores(client, closed);
        await addStuck(client, stuck);
      };
      const lookedFor = async (): Promise<Record<string, Cost>> => {
        const found = await costs(pool, LOOKED_FOR);
        const { buffers } = await costOf(client, "select * from findings");
        // It also looks at jobs, of which a handful wait.
        return { ...found, findings: { buffers, scanned: [] } };
      };
      // Counts of findings end at 1,000 of each.
      await fill(2_000, 7_200);
      await pool.query("vacuum analyze");
      const few = await lookedFor();
      // As if nothing had ever been in them.
      await pool.query(`truncate ${tables.join()}, announcements`);
      await pool.query(`analyze ${tables.join()}`);
      await fill(MANY, MANY);
      expectAsCheap(await lookedFor(), few, "of an empty table");
      await pool.query("vacuum analyze");
      expectAsCheap(await lookedFor(), few, "as they are");
    } finally {
      client.release(true);
    }
  });
});

/** A million would take minutes; the plan and what it reads are the same. */
describe("what pages and findings ask of holds", () => {
  const ASKED: Record<string, string> = {
    findings: "select * from findings where finding in ('holds_open', 'limit_used')",
    overview: "select * from restore_overview where restore_status = 'not_started'",
    "oldest waiting":
      "select * from oldest_waiting where waits_for in ('S3 to accept the restore', 'an operator to approve it')",
    "a page of not started": `select r.id from restore_details r where r.closed_at is null and r.restore_status = 'not_started' and not r.is_held
                               order by r.status_at desc, r.id desc limit 51`,
    "a page of held":
      "select r.id from restore_details r where r.is_held order by r.status_at desc, r.id desc limit 51",
    "a page of a hold":
      "select r.id from restore_details r where r.hold_id = '00000000-0000-4000-8000-000000000001' order by r.id limit 51",
    "open holds": "select * from hold_list where status = 'open' order by opened_at, id limit 51",
    "decided holds":
      "select * from hold_list where status <> 'open' order by opened_at desc, id desc limit 51",
  };

  test("costs the same however much is held", { timeout: 120_000 }, async ({ pool }) => {
    const hold = async (count: number): Promise<void> => {
      await pool.query("truncate restores, restore_requests, holds cascade");
      await pool.query(
        "insert into holds (id, person, reason, objects) values ('00000000-0000-4000-8000-000000000001', 'a', 'beyond a limit', $1)",
        [count],
      );
      await pool.query(
        "insert into holds (person, reason, status, decided_at, decided_by) select n::text, 'beyond a limit', 'refused', now(), 'ann' from generate_series(1, $1::int / 10) n",
        [count],
      );
      await pool.query(
        `insert into restores (id, s3_bucket, s3_key, status_at, attempt_after, hold_id)
         select gen_random_uuid(), 'bench', 'held/' || n, now() - interval '1 day' - n * interval '1 ms', 'infinity', '00000000-0000-4000-8000-000000000001'
           from generate_series(1, $1::int) n`,
        [count],
      );
      await pool.query(
        "insert into restores (id, s3_bucket, s3_key) select gen_random_uuid(), 'bench', 'waits/' || n from generate_series(1, 100) n",
      );
    };
    for (const table of ["restores", "holds"])
      await pool.query(`alter table ${table} set (autovacuum_enabled = off)`);
    await hold(FEW);
    await pool.query("vacuum analyze");
    const few = await costs(pool, ASKED);
    await hold(MANY);
    await pool.query("vacuum analyze");
    const many = await costs(pool, ASKED);
    for (const [name, cost] of Object.entries(many)) {
      // The other tables are empty here.
      expect.soft(cost.scanned, name).not.toContain("restores");
      expect.soft(cost.buffers, name).toBeLessThanOrEqual(1.5 * (few[name]?.buffers ?? 0) + 100);
    }
  });
});
