/** A scanner reads an archive, and other people their files: it costs at most the limit, and they do not wait for it. */
import { expect } from "vitest";

import { HELD_FOR_EVER, SPENDING_IS_WRONG } from "../support/cost.ts";
import { test, waitFor } from "../support/database.ts";
import { aRead, one, query, requestRestores } from "../support/rows.ts";
import { BUCKET, startThaw } from "../support/thaw.ts";

const READS = 2_000;
const LIMIT = 50;
const PAGE = 200;

test(
  "a storm of one scanner with a thousand sessions costs at most the limit",
  { timeout: 60_000 },
  async ({ databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, { worker: false, events: false, s3: { restore_ms: Infinity } });
    await thaw.pool.query("insert into limits (scope, per, max_objects) values ('person', 'day', $1)", [
      LIMIT,
    ]);
    await thaw.know("AKIAOTHER", "other@example.com");
    for (let index = 0; index < READS; index++) thaw.archive(`scan/${index}`);
    for (let page = 0; page < READS / PAGE; page++) {
      const other = `other/${page}`;
      thaw.archive(other);
      await requestRestores(
        thaw.pool,
        ...Array.from({ length: PAGE }, (_, index) =>
          aRead({
            s3_bucket: BUCKET,
            s3_key: `scan/${page * PAGE + index}`,
            access_key_id: `ASIA${index}N${page}`,
            principal: `arn:aws:sts::123456789012:assumed-role/scanner/session-${(page * PAGE + index) % 1000}`,
          }),
        ),
        aRead({ s3_bucket: BUCKET, s3_key: other, access_key_id: "AKIAOTHER" }),
      );
    }
    await thaw.startWorker();
    await waitFor(
      "all to be pending or held",
      async () =>
        (
          await query(
            thaw.pool,
            "select from restores where status = 'not_started' and attempt_after < 'infinity' limit 1",
          )
        ).length === 0,
      45_000,
    );

    expect(thaw.s3.counts.get("RestoreObject 202")).toBe(LIMIT + READS / PAGE);
    expect(
      await query(thaw.pool, "select from restores where s3_key like 'other/%' and status = 'pending'"),
    ).toHaveLength(READS / PAGE);
    expect(await one(thaw.pool, "select objects::integer, person from holds")).toEqual({
      objects: READS - LIMIT,
      person: "arn:aws:sts::123456789012:assumed-role/scanner",
    });
    // One mail to who decides, however many pages it took.
    expect(await query(thaw.pool, "select from notices where kind = 'approval'")).toHaveLength(1);
    expect(await query(thaw.pool, SPENDING_IS_WRONG)).toEqual([]);
    expect(await query(thaw.pool, HELD_FOR_EVER)).toEqual([]);
    await thaw.stop();
  },
);
