/** How closed restores go when they are old enough, and what stays. */
import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import {
  ago,
  insertNotification,
  insertRead,
  insertRequest,
  insertRestore,
  JOHN,
  query,
  type Row,
} from "../support/rows.ts";

const forget = async (pool: Pool, limit = 1000): Promise<number> =>
  (await query(pool, "select forget_old_restores('30 days', $1) as forgotten", [limit]))[0]?.["forgotten"];

const idsOf = async (pool: Pool, table: string): Promise<string[]> =>
  (await query(pool, `select id from ${table} order by id`)).map((row) => row["id"]);

const sorted = (...rows: Row[]): string[] => rows.map((row) => row["id"] as string).toSorted();

/** A closed restore of which Jane was told by a mail. */
async function told(
  pool: Pool,
  closed_at: string,
  mail?: Row,
): Promise<{ restore: Row; request: Row; mail: Row }> {
  const at = ago(closed_at);
  const sent = mail ?? (await insertNotification(pool, { status: "sent", sent_at: at }));
  const { restore, request } = await insertRead(pool, "closed", {
    restore: { closed_at: at, s3_key: `${closed_at}.bin`, status_at: ago("400 days") },
    request: { post_notification_id: sent["id"], post_notified: true },
  });
  await announce(pool, restore, sent);
  return { restore, request, mail: sent };
}

const announce = (pool: Pool, restore: Row, mail: Row) =>
  pool.query("insert into announcements values ($1, 'post', 'jane@example.com', $2)", [
    restore["id"],
    mail["id"],
  ]);

describe("what was over long ago", () => {
  test("goes with its readers and mails, and nothing else does", async ({ pool }) => {
    await told(pool, "31 days");
    const young = await told(pool, "29 days");
    const open = await insertRead(pool, "pending", {
      restore: { s3_key: "open.bin", created_at: ago("90 days") },
    });

    expect(await forget(pool)).toBe(1);

    expect(await idsOf(pool, "restores")).toEqual(sorted(young.restore, open.restore));
    expect(await idsOf(pool, "restore_requests")).toEqual(sorted(young.request, open.request));
    expect(await idsOf(pool, "notifications")).toEqual(sorted(young.mail));
    expect(await query(pool, "select restore_id from announcements")).toEqual([
      { restore_id: young.restore["id"] },
    ]);
    expect(await forget(pool)).toBe(0);
  });

  test("leaves a mail that also tells of something younger", async ({ pool }) => {
    const young = await told(pool, "29 days");
    await told(pool, "31 days", young.mail);

    expect(await forget(pool)).toBe(1);
    expect(await idsOf(pool, "notifications")).toEqual(sorted(young.mail));
  });

  test("takes along the mails that were sent again", async ({ pool }) => {
    const { mail } = await told(pool, "31 days");
    const older = await insertNotification(pool, {
      status: "failed",
      failure_message: "refused",
      superseded_by: mail["id"],
    });
    await insertNotification(pool, {
      status: "unknown",
      failure_message: "no answer",
      superseded_by: older["id"],
    });

    expect(await forget(pool)).toBe(1);
    expect(await idsOf(pool, "notifications")).toEqual([]);
  });

  test("stays while somebody has still to be told", async ({ pool }) => {
    const untold = await insertRead(pool, "closed", {
      restore: { closed_at: ago("31 days"), s3_key: "untold.bin" },
    });
    const sealed = await insertNotification(pool, { status: "sealed" });
    const waiting = await told(pool, "32 days", sealed);
    expect(await forget(pool)).toBe(0);
    expect(await idsOf(pool, "restores")).toEqual(sorted(untold.restore, waiting.restore));
  });

  test("stays twice as long when its mail was refused", async ({ pool }) => {
    const refuse = () => insertNotification(pool, { status: "failed", failure_message: "refused" });
    const young = await told(pool, "59 days", await refuse());
    await told(pool, "61 days", await refuse());

    expect(await forget(pool)).toBe(1);
    expect(await idsOf(pool, "restores")).toEqual(sorted(young.restore));
    expect(await idsOf(pool, "notifications")).toEqual(sorted(young.mail));
  });

  test("goes with readers whom nobody knows", async ({ pool }) => {
    const restore = await insertRestore(pool, "closed", { closed_at: ago("31 days") });
    await insertRequest(pool, restore, { access_key_id: JOHN, email: null });

    expect(await forget(pool)).toBe(1);
    expect(await idsOf(pool, "restore_requests")).toEqual([]);
  });

  test("goes oldest first, a page at a time", async ({ pool }) => {
    const newest = await told(pool, "31 days");
    await told(pool, "33 days");
    await told(pool, "32 days");

    expect(await forget(pool, 2)).toBe(2);
    expect(await idsOf(pool, "restores")).toEqual(sorted(newest.restore));
  });
});
