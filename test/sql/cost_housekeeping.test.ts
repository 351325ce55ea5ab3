/** What is erased and forgotten of limits, holds and their mails. */
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import {
  aRead,
  ago,
  insertNotification,
  know,
  one,
  query,
  requestRestores,
  type Row,
} from "../support/rows.ts";

const ADDRESS = "jane.o+x@example.com";
const GIB = 2 ** 30;

/** Reads that many objects with this key, and admits them. */
async function admitReads(pool: Pool, count: number, more: Row = {}, prefix = "k"): Promise<void> {
  await requestRestores(
    pool,
    ...Array.from({ length: count }, (_, n) => aRead({ s3_key: `${prefix}${n}`, ...more })),
  );
  await query(pool, "select resolve_requests(1000, '{}')");
  const claimed = await query(pool, "select * from claim_restores_to_trigger(1000)");
  const objects = claimed.map(({ id, claim_id }) => ({
    id,
    claim_id,
    region: "us-east-1",
    storage_class: "GLACIER",
    size_bytes: GIB,
    pinned_version_id: "",
    has_expedited: true,
  }));
  await query(pool, "select * from admit_restores($1, 'Standard', 7)", [JSON.stringify(objects)]);
}

const limit = (pool: Pool, max_objects: number, scope = "person", per = "day"): Promise<Row[]> =>
  query(pool, "insert into limits (scope, per, max_objects) values ($1, $2, $3)", [scope, per, max_objects]);

/** What limits have spent is the sum of the restores that were charged. */
async function expectBooksToBalance(pool: Pool): Promise<void> {
  const counters = await query(
    pool,
    "select limit_id, subject, period, objects::integer, bytes, cost::float from spending where objects > 0 order by 1, 2, 3",
  );
  expect(counters).toEqual(
    await query(
      pool,
      `select c.limit_id, c.subject, c.period, count(*)::integer as objects, sum(c.bytes) as bytes, sum(c.cost)::float as cost
         from charges_of(array(select id from restores)) c group by 1, 2, 3 order by 1, 2, 3`,
    ),
  );
}

/** The tables of this subject in which that text stands. */
async function tablesWith(pool: Pool, text: string): Promise<string[]> {
  const found: string[] = [];
  for (const table of ["restores", "spending", "holds", "notices", "costs", "policies", "notifications"]) {
    const rows = await query(
      pool,
      `select from ${table} t where position($1 in lower(t::text)) > 0 limit 1`,
      [text],
    );
    if (rows.length > 0) found.push(table);
  }
  return found;
}

describe("a person who is erased", () => {
  test("leaves limits, holds and the ledger, page by page, and the books balance at each step", async ({
    pool,
  }) => {
    await know(pool, "AKIAJANE", ADDRESS);
    await limit(pool, 7);
    await limit(pool, 100, "all");
    await admitReads(pool, 10, { access_key_id: "AKIAJANE" });
    // A federated user's ARN ends in the name; and somebody else, who stays.
    const FEDERATED = `arn:aws:sts::111122223333:federated-user/${ADDRESS}`;
    await admitReads(pool, 3, { access_key_id: "", principal: FEDERATED }, "f");
    await admitReads(pool, 2, { access_key_id: "AKIAOTHER" }, "o");
    await query(pool, "insert into policies (s3_bucket, principal, action) values ('*', $1, 'hold')", [
      ADDRESS,
    ]);
    await query(pool, "select note_costs(array(select id from restores), false)");
    const notice = await one(pool, "select id from notices where kind = 'approval'");
    await insertNotification(pool, {
      kind: "approval",
      email: "ann@example.com",
      status: "sent",
      sent_at: new Date(),
      body: JSON.stringify({ text: ADDRESS }),
      notice_id: notice["id"],
    });
    expect(await tablesWith(pool, ADDRESS)).toHaveLength(7);
    await expectBooksToBalance(pool);

    for (let rows = 1, calls = 0; rows > 0; calls++) {
      rows = (await one(pool, "select erase_person($1, 3) as rows", [ADDRESS]))["rows"];
      expect(calls).toBeLessThan(30);
      await expectBooksToBalance(pool);
    }

    expect(await tablesWith(pool, ADDRESS)).toEqual([]);
    expect(
      await query(
        pool,
        "select subject like 'erased-%' as is_erased, subject like '%federated-user/erased-%' as is_arn, objects::integer from spending where objects > 0 order by objects, subject",
      ),
    ).toEqual([
      { is_erased: false, is_arn: false, objects: 2 },
      { is_erased: false, is_arn: true, objects: 3 },
      { is_erased: true, is_arn: false, objects: 7 },
      { is_erased: false, is_arn: false, objects: 12 },
    ]);
    // The hold goes on under another name, and can be decided.
    await query(pool, "select approve_hold(id, 'ann') from holds");
    expect(
      await one(pool, "select person like 'erased-%' as is_erased, objects::integer from holds"),
    ).toEqual({
      is_erased: true,
      objects: 3,
    });
  });

  test("is not while a mail to an approver that names them is being sent, and one not sent is written anew", async ({
    pool,
  }) => {
    await know(pool, "AKIAJANE", ADDRESS);
    await limit(pool, 0);
    await admitReads(pool, 1, { access_key_id: "AKIAJANE" });
    const notice = await one(
      pool,
      "update notices set sealed_at = now() where kind = 'approval' returning id",
    );
    const mail = await insertNotification(pool, {
      kind: "approval",
      email: "ann@example.com",
      body: JSON.stringify({ text: ADDRESS }),
      notice_id: notice["id"],
      claim_id: notice["id"],
    });
    await expect(query(pool, "select erase_person($1)", [ADDRESS])).rejects.toThrow("is being sent");

    await query(
      pool,
      "update notifications set claim_id = null, created_at = now() - interval '11 minutes' where id = $1",
      [mail["id"]],
    );
    while ((await one(pool, "select erase_person($1) as rows", [ADDRESS]))["rows"] > 0);
    expect(await tablesWith(pool, ADDRESS)).toEqual([]);
    await query(pool, "select unseal_stale_notifications('pre')");
    expect(await query(pool, "select id from due_notices('0', '0', true, 10) id")).toEqual([
      { id: notice["id"] },
    ]);
  });
});

describe("what is over long ago", () => {
  const forget = async (pool: Pool): Promise<void> => {
    await query(pool, "select forget_old_restores('30 days', 1000), forget_old_holds('30 days', 1000)");
  };
  const counts = async (pool: Pool): Promise<Row> =>
    one(
      pool,
      `select (select count(*)::integer from holds) as holds, (select count(*)::integer from notices) as notices,
              (select count(*)::integer from notifications) as mails, (select count(*)::integer from spending) as spending`,
    );

  test("goes: a settled hold with its notices and mails, after its restores", async ({ pool }) => {
    await know(pool, "AKIAJANE", ADDRESS);
    await query(pool, "insert into policies (s3_bucket, action) values ('*', 'hold')");
    await admitReads(pool, 2, { access_key_id: "AKIAJANE" });
    const [first, second] = (await query(pool, "update notices set sealed_at = now() returning id")) as [
      Row,
      Row,
    ];
    const sent = { status: "sent", sent_at: ago("40 days"), created_at: ago("40 days") };
    await insertNotification(pool, { ...sent, kind: "approval", notice_id: first["id"] });
    const failed = { status: "failed", failure_message: "no", created_at: ago("40 days") };
    await insertNotification(pool, { ...failed, kind: "held", notice_id: second["id"] });
    await query(pool, "update holds set opened_at = now() - interval '50 days'");
    await forget(pool);
    expect(await counts(pool)).toEqual({ holds: 1, notices: 2, mails: 2, spending: 0 });

    while ((await one(pool, "select settle_holds(100) as n"))["n"] > 0);
    await query(pool, "update holds set settled_at = now() - interval '40 days'");
    await query(pool, "update restores set closed_at = now() - interval '29 days'");
    await query(pool, "update restore_requests set email = null, observed = true");
    await forget(pool);
    expect(await counts(pool)).toMatchObject({ holds: 1, mails: 2 });

    await query(pool, "update restores set closed_at = now() - interval '31 days'");
    await forget(pool);
    // Resend refused a mail of it: kept twice as long.
    expect(await counts(pool)).toMatchObject({ holds: 1, mails: 2 });
    await query(pool, "update notifications set created_at = now() - interval '61 days'");
    await forget(pool);
    expect(await counts(pool)).toEqual({ holds: 0, notices: 0, mails: 0, spending: 0 });
  });

  test("goes: what limits spent in periods of before, with the warnings", async ({ pool }) => {
    await limit(pool, 2, "all", "month");
    await admitReads(pool, 2);
    await query(pool, "update notices set sealed_at = now()");
    await query(
      pool,
      `insert into spending (limit_id, subject, period) select id, '', (now() - n * interval '1 day')::date from limits, unnest(array[59, 70, 400]) n`,
    );
    await query(pool, "select forget_old_holds('30 days', 1)");
    await query(pool, "select forget_old_holds('30 days', 1)");
    expect(await counts(pool)).toMatchObject({ spending: 2, notices: 1 });
    expect(await query(pool, "select forget_old_holds('30 days', 1) as n")).toEqual([{ n: 0 }]);
  });

  test("costs no more to look for when much is kept", async ({ pool }) => {
    await query(
      pool,
      "insert into holds (person, status, reason, decided_at, decided_by, settled_at, opened_at) select 'p' || n, 'approved', 'r', now(), 'ann', now(), now() from generate_series(1, 20000) n",
    );
    await query(pool, "analyze holds");
    const plan = await query(
      pool,
      "explain (analyze, buffers, format json) select forget_old_holds('30 days', 100)",
    );
    const buffers = plan[0]?.["QUERY PLAN"][0]["Plan"]["Shared Hit Blocks"];
    expect(buffers).toBeLessThan(1500);
  });
});
