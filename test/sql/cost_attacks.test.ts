/** What could break promise 7: a RestoreObject beyond a limit that nobody approved, or a restore that is held for ever. */
import { createHash } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import {
  accepted,
  admit,
  admitReads,
  archived,
  claim,
  decisions,
  GIB,
  holds,
  limit,
  policy,
  refused,
  settle,
  spent,
} from "../support/cost.ts";
import { test } from "../support/database.ts";
import {
  aRead,
  JOHN,
  know,
  one,
  query,
  read,
  requestRestores,
  whileUncommitted,
  type Row,
} from "../support/rows.ts";

const admitAll = async (pool: Pool): Promise<Row[]> =>
  admit(
    pool,
    (await claim(pool)).map((row) => archived(row)),
  );

const settleHolds = async (pool: Pool): Promise<void> => {
  while ((await one(pool, "select settle_holds(2) as n"))["n"] > 0);
};

describe("no restore is beyond a limit", () => {
  test("because its policy became ignore after its read came", async ({ pool }) => {
    await limit(pool, { max_objects: 1 });
    await requestRestores(pool, aRead({ s3_key: "a" }), aRead({ s3_key: "b" }));
    await policy(pool, "ignore");

    expect(decisions(await admitAll(pool))).toEqual({ go: 1, held: 1 });
    await spent(pool);
  });

  test("because it was held by its policy in a page that exceeds a limit: approved, it counts", async ({
    pool,
  }) => {
    await limit(pool, { max_objects: 1 });
    await policy(pool, "hold", { s3_bucket: "b" });
    await requestRestores(
      pool,
      ...[1, 2, 3].flatMap((n) => [
        aRead({ s3_bucket: "a", s3_key: `k${n}` }),
        aRead({ s3_bucket: "b", s3_key: `k${n}` }),
      ]),
    );
    expect(decisions(await admitAll(pool))).toEqual({ go: 1, held: 5 });
    await spent(pool);

    await query(pool, "select approve_hold(id, 'ann') from holds");
    await settleHolds(pool);
    await query(pool, "update restores set attempt_after = 'infinity' where charged is not null");
    expect(decisions(await admitAll(pool))).toEqual({ go: 5 });
    expect(await spent(pool)).toMatchObject([{ objects: 6 }]);
  });

  test("because nobody knows its price or its size: only a limit that counts those holds it", async ({
    pool,
  }) => {
    await limit(pool, { max_cost: 1000 });
    await limit(pool, { per: "month", max_bytes: 1000 * GIB });
    await requestRestores(pool, ...["class", "size", "known"].map((s3_key) => aRead({ s3_key })));
    const unknown: Record<string, Row> = {
      class: { storage_class: "COLDEST" },
      size: { size_bytes: null },
    };
    const admitted = await admit(
      pool,
      (await claim(pool)).map((row) => archived(row, unknown[row["s3_key"]])),
    );

    expect(decisions(admitted)).toEqual({ go: 1, held: 2 });
    expect((await holds(pool))[0]?.["reason"]).toContain("not known");
    await spent(pool);
  });

  test("because it costs nothing, where the limit is 0", async ({ pool }) => {
    await limit(pool, { max_cost: 0 });
    await read(pool);
    const admitted = await admit(
      pool,
      (await claim(pool)).map((row) => archived(row, { archive_status: "ARCHIVE_ACCESS" })),
    );
    expect(decisions(admitted)).toEqual({ held: 1 });
  });

  test("and the limits that count are those of one moment, whatever is set meanwhile", async ({ pool }) => {
    await limit(pool, { max_objects: 5 });
    await read(pool, { s3_key: "a" });
    const [claimed] = (await claim(pool)) as [Row];
    const { id } = await one(pool, "select id from limits");
    await query(
      pool,
      "insert into spending (limit_id, subject, period) values ($1, '', (now() at time zone 'UTC')::date)",
      [id],
    );

    // The admission waits for the counter; when it goes on, there is one more limit.
    await whileUncommitted(
      pool,
      (client) => client.query("select from spending for update"),
      () => admit(pool, [archived(claimed)]),
      () => limit(pool, { scope: "person", max_objects: 5 }),
    );
    expect(await spent(pool)).toMatchObject([{ limit_id: id, objects: 1 }]);
  });

  test("and what a limit is for stays as it was charged", async ({ pool }) => {
    await limit(pool, { max_objects: 5 });
    await admitReads(pool, 1);
    await expect(query(pool, "update limits set per = 'month'")).rejects.toThrow("cannot be changed");
    await query(pool, "update limits set max_objects = 1, max_cost = 5");
    await spent(pool);
  });
});

describe("a page is noted", () => {
  test("although somebody has set a counter back by hand", async ({ pool }) => {
    await limit(pool, { max_objects: 5, max_cost: 5 });
    await admitReads(pool, 2);
    await query(pool, "update spending set objects = 0, bytes = 0, cost = 0");
    const rows = await query(pool, "select * from restores");
    await settle(pool, rows.map(refused));
    expect(await one(pool, "select objects::integer from spending")).toEqual({ objects: 0 });
    expect(await query(pool, "select from restores where failure_code = 'AccessDenied'")).toHaveLength(2);
  });

  test("although the names of its reader and folder are as long as they may be", async ({ pool }) => {
    // Nothing that Postgres could compress.
    const noise = (length: number): string =>
      Array.from({ length: 40 }, (_, n) => createHash("sha512").update(`${length} ${n}`).digest("base64url"))
        .join("")
        .slice(0, length);
    await read(pool, { s3_key: `${noise(1000)}/k`, access_key_id: "", principal: noise(2048) });
    const [claimed] = (await claim(pool)) as [Row];
    await settle(pool, [accepted(claimed)]);
    expect(await query(pool, "select from costs")).toHaveLength(1);
  });
});

describe("nothing is held for ever", () => {
  test("that was looked at while somebody approved it", async ({ pool }) => {
    await policy(pool, "hold");
    await admitReads(pool, 1);
    const { id } = await one(pool, "select id from holds");
    // An event has HEAD look again; while that is admitted, somebody approves, and a worker settles the hold.
    await query(pool, "update restores set head_wanted_at = now(), attempt_after = now()");
    const [claimed] = (await claim(pool)) as [Row];
    await query(pool, "insert into policies (s3_bucket, action) values ('b', 'restore')");
    await whileUncommitted(
      pool,
      async (client) => {
        await client.query("select approve_hold($1, 'ann')", [id]);
        await client.query("select settle_holds(10)");
      },
      () => admit(pool, [archived(claimed)]),
    );

    await settleHolds(pool);
    expect(decisions(await admitAll(pool))).toEqual({ go: 1 });
  });

  test("whoever decides, and however often its restores are looked at meanwhile", async ({ pool }) => {
    await policy(pool, "hold");
    await admitReads(pool, 20, (n) => ({ access_key_id: `AKIA${n % 4}` }));
    const all = await query(pool, "select id, person from holds order by person");
    const decide = async (): Promise<void> => {
      for (const { id, person } of all) {
        await query(
          pool,
          person === "AKIA0" ? "select refuse_hold($1, 'ann')" : "select approve_hold($1, 'ann')",
          [id],
        );
        await query(pool, "select settle_holds(3)");
      }
    };
    const look = async (): Promise<void> => {
      for (let n = 0; n < 10; n++) {
        await query(
          pool,
          "update restores set attempt_after = now() where id in (select id from restores where status = 'not_started' and claim_id is null order by random() limit 5 for update skip locked)",
        );
        await admitAll(pool);
      }
    };
    await Promise.all([decide(), look(), look()]);
    await settleHolds(pool);
    await admitAll(pool);
    expect(await query(pool, "select from restores where attempt_after = 'infinity'")).toEqual([]);
    expect(
      await query(pool, "select status::text, count(*)::integer as n from restores group by 1 order by 1"),
    ).toEqual([
      { status: "failed", n: 5 },
      { status: "not_started", n: 15 },
    ]);
  });

  test("and those who decide hear of it at once, though no reader is known", async ({ pool }) => {
    await policy(pool, "hold");
    await query(pool, "delete from graphile_worker._private_jobs");
    await admitReads(pool, 1, () => ({ access_key_id: "AKIANOBODY" }));
    expect(
      await query(pool, "select from graphile_worker.jobs where task_identifier = 'pre_notify'"),
    ).toHaveLength(1);
  });
});

describe("who is only observed", () => {
  const outcome = (row: Row, transition: string): Row => ({
    ...archived(row),
    transition,
    code: "gone",
    message: "Gone.",
  });

  test.for(["mark_restores_pending", "mark_restores_restored", "mark_restores_failed"])(
    "hears nothing, whatever HEAD finds: %s",
    async (transition, { pool }) => {
      await know(pool, JOHN, "john@example.com");
      await policy(pool, "observe");
      await read(pool, { access_key_id: JOHN });
      const [claimed] = (await claim(pool)) as [Row];
      await settle(pool, [outcome(claimed, transition)]);

      expect(await query(pool, "select * from due_people('pre', '0', '0', 10)")).toEqual([]);
      expect(await query(pool, "select * from due_people('post', '0', '0', 10)")).toEqual([]);
    },
  );

  test("takes the restore from nobody who is not", async ({ pool }) => {
    await know(pool, "AKIAJANE", "jane@example.com");
    await policy(pool, "observe", { principal: "AKIA0SCANNER" });
    await requestRestores(
      pool,
      aRead({ access_key_id: "AKIA0SCANNER" }),
      aRead({ access_key_id: "AKIAJANE" }),
    );

    expect(decisions(await admitAll(pool))).toEqual({ go: 1 });
    const [row] = await query(pool, "select * from restores");
    await settle(pool, [{ ...outcome(row as Row, "mark_restores_pending"), tier: "Standard", days: 7 }]);
    expect(await one(pool, "select person from costs")).toEqual({ person: "jane@example.com" });
  });

  test("is so although the policy was taken away before HEAD, until they read once more", async ({
    pool,
  }) => {
    await policy(pool, "observe");
    await read(pool, { access_key_id: "AKIAJANE", event_id: "first" });
    await query(pool, "delete from policies");
    expect(decisions(await admitAll(pool))).toEqual({ observed: 1 });

    await read(pool, { access_key_id: "AKIAJANE", event_id: "second" });
    expect(decisions(await admitAll(pool))).toEqual({ go: 1 });
  });

  test("waits for no hold, and is not told of one", async ({ pool }) => {
    await know(pool, JOHN, "john@example.com");
    await policy(pool, "hold");
    await policy(pool, "observe", { principal: JOHN });
    await read(pool, { access_key_id: "AKIAJANE" });
    await admitAll(pool);
    await read(pool, { access_key_id: JOHN });
    expect(await query(pool, "select kind from notices")).toEqual([{ kind: "approval" }]);
  });
});

describe("a limit that is taken away", () => {
  test("and set again counts from then on; what it was charged is no trouble", async ({ pool }) => {
    await limit(pool, { max_objects: 2 });
    await admitReads(pool, 2);
    await query(pool, "delete from limits");
    await limit(pool, { max_objects: 1 });
    const rows = await query(pool, "select * from restores");
    await settle(pool, rows.map(refused));
    expect(await spent(pool)).toEqual([]);
    await query(pool, "update restores set attempt_after = now()");
    expect(decisions(await admitAll(pool))).toEqual({ go: 1, held: 1 });
    await spent(pool);
  });

  test("while restores are admitted: each is, and the sums are right", async ({ pool }) => {
    await limit(pool, { max_objects: 100 });
    await requestRestores(pool, ...Array.from({ length: 30 }, (_, n) => aRead({ s3_key: `k${n}` })));
    const pages = await Promise.all(Array.from({ length: 6 }, () => claim(pool, 5)));
    const flip = async (): Promise<void> => {
      for (let n = 0; n < 10; n++) {
        await query(pool, "delete from limits where scope = 'person'");
        await limit(pool, { scope: "person", max_objects: 100 });
      }
    };
    const admitted = await Promise.all([
      flip(),
      ...pages.map(async (rows) => {
        const objects = rows.map((row) => archived(row));
        // As the batcher does where a limit vanishes under it.
        return admit(pool, objects)
          .catch(() => admit(pool, objects))
          .catch(() => admit(pool, objects));
      }),
    ]);
    expect(admitted.flat().filter((row) => row?.["decision"] === "go")).toHaveLength(30);
    await spent(pool);
  });
});

test("ten thousand policies and a hundred limits cost a page no more than a moment", async ({ pool }) => {
  await query(
    pool,
    "insert into policies (s3_bucket, key_prefix, action) select 'b' || n % 100, 'p' || n || '/', 'restore' from generate_series(1, 10000) n",
  );
  await query(
    pool,
    "insert into limits (scope, s3_bucket, key_prefix, per, max_objects) select 'prefix', 'b' || n, '', 'day', 20 from generate_series(1, 100) n",
  );
  await limit(pool, { max_objects: 40 });
  await requestRestores(
    pool,
    ...Array.from({ length: 64 }, (_, n) => aRead({ s3_bucket: "b1", s3_key: `p${n}01/k` })),
  );
  const claimed = (await claim(pool)).map((row) => archived(row));
  const began = performance.now();
  const admitted = await admit(pool, claimed);
  // It takes some 100 ms; what a busy machine adds.
  expect(performance.now() - began).toBeLessThan(1000);
  expect(decisions(admitted)).toEqual({ go: 20, held: 44 });
  await spent(pool);
});

test("what was charged before a border of day or month is given back to that day and month", async ({
  pool,
}) => {
  await limit(pool, { max_objects: 5 });
  await limit(pool, { per: "month", max_objects: 5 });
  await admitReads(pool, 1);
  await query(pool, "update restores set admitted_at = '2026-01-31 23:59:59.999+00'");
  await query(
    pool,
    `update spending s set period = case l.per when 'day' then '2026-01-31' else '2026-01-01' end::date
       from limits l where l.id = s.limit_id`,
  );
  expect(await spent(pool)).toHaveLength(2);
  const [row] = await query(pool, "select * from restores");
  await settle(pool, [refused(row as Row)]);
  expect(await spent(pool)).toEqual([]);
});

test("an operator who retries a refused restore does not get round the limit", async ({ pool }) => {
  await limit(pool, { max_objects: 0 });
  await admitReads(pool, 1);
  const { id } = await one(pool, "select id from holds");
  await query(pool, "select refuse_hold($1, 'ann')", [id]);
  await settleHolds(pool);
  const { id: restore } = await one(pool, "select id from restores");
  await query(pool, "select retry_restore($1)", [restore]);
  expect(decisions(await admitAll(pool))).toEqual({ held: 1 });
  expect(await holds(pool)).toHaveLength(2);
});

test("a restore that S3 lost is asked for again under the same charge", async ({ pool }) => {
  await limit(pool, { max_objects: 1 });
  await admitReads(pool, 1);
  const [row] = await query(pool, "select * from restores");
  await settle(pool, [accepted(row as Row)]);
  await query(
    pool,
    "update restores set accepted_at = now() - interval '2 days', claim_id = gen_random_uuid(), attempt_after = now() + interval '1 minute'",
  );
  const [pending] = await query(pool, "select * from restores");
  await settle(pool, [{ ...archived(pending as Row), transition: "mark_restores_lost" }]);
  expect(await admitAll(pool)).toMatchObject([{ decision: "go", tier: "Standard", is_new: false }]);
  expect(await spent(pool)).toMatchObject([{ objects: 1 }]);
});
