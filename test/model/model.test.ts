/**
 * Any interleaving of reads, events, map changes, sweeps, crashes and failures ends where the model says. The same
 * ones each time; others and more of them: MODEL_SEED=7 MODEL_RUNS=2000. A run that fails prints the shortest way to it.
 */
import * as fc from "fast-check";
import type { Pool } from "pg";
import { expect } from "vitest";

import { test } from "../support/database.ts";
import { commands, READERS, type Command } from "./commands.ts";
import { next, type Restore } from "./model.ts";
import { HELD_FOR_EVER, SPENDING_IS_WRONG } from "../support/cost.ts";
import { nameOf, objectOf, Play } from "./play.ts";
import { query, type Row } from "../support/rows.ts";

const RUNS = Number(process.env["MODEL_RUNS"] ?? 80);
const SEED = Number(process.env["MODEL_SEED"] ?? 1);

const ms = (time: unknown): number | null => (time instanceof Date ? time.getTime() : null);

const restoresOf = (pool: Pool): Promise<Row[]> =>
  query(
    pool,
    `select r.*, exists (select from restore_requests q where q.restore_id = r.id and q.post_notification_id is null and not q.observed
                            and (q.email is not null or r.status_at > now() - interval '7 days')) as has_untold
       from restores r order by r.created_at, r.id`,
  );

const emailsOf = async (pool: Pool): Promise<Map<string, string | null>> =>
  new Map(
    (await query(pool, "select id, email from restore_requests")).map((row) => [row["id"], row["email"]]),
  );

/** As the model sees a row. */
const restoreOf = (row: Row, play: Play): Restore => ({
  status: row["status"],
  status_at: ms(row["status_at"]) ?? 0,
  created_at: ms(row["created_at"]) ?? 0,
  accepted_at: ms(row["accepted_at"]),
  // Of a claim that came before this command.
  was_asked_too_early:
    row["claim_id"] !== null && (ms(row["head_wanted_at"]) ?? 0) > (ms(row["claimed_at"]) ?? Infinity),
  restore_expires_at: ms(row["restore_expires_at"]),
  failing_since: ms(row["failing_since"]),
  attempts: row["attempts"],
  lost_count: row["lost_count"],
  is_doubtful: row["head_wanted_at"] !== null,
  is_overwritten: row["etag"] !== null && row["etag"] !== `"${play.realities[objectOf(row)]?.content}"`,
  has_untold: row["has_untold"],
});

/** Clocks of Postgres and of this process, on one machine. */
const CLOCK_MS = 5;

/** Whether a restore may begin by it: of nothing but reads, somebody's wish, and HEAD's word that a copy is gone. */
async function beginnings(pool: Pool, command: Command, before: Row[]): Promise<"one" | "none" | "any"> {
  // A run of either task may report what a late one has found.
  if (["poll", "trigger", "retry"].includes(command.do)) return "any";
  if (command.do !== "read") return "none";
  const at = Date.now() - command.late_minutes * 60_000;
  const own = before.filter((row) => objectOf(row) === command.object);
  const open = own.find((row) => row["closed_at"] === null);
  if (open !== undefined) {
    const now = await query(pool, "select closed_at from restores where id = $1", [open["id"]]);
    if (now[0]?.["closed_at"] === null) return "none";
  }
  // Who had one that ended after the read was made, has been served: the event is late.
  const { access_key_id, principal } = READERS[command.reader] as (typeof READERS)[number];
  const ends = await query(
    pool,
    `select r.closed_at from restores r join restore_requests q on q.restore_id = r.id
      where r.s3_key = $1 and q.reader = $2 and r.closed_at is not null`,
    [nameOf(command.object).s3_key, access_key_id || principal],
  );
  const newest = Math.max(-Infinity, ...ends.map((row) => (row["closed_at"] as Date).getTime()));
  if (Math.abs(newest - at) < CLOCK_MS) return "any";
  return newest > at ? "none" : "one";
}

/** What holds at any moment, as [what, query that finds who breaks it]. */
const ALWAYS: [string, string][] = [
  [
    "a request says other than its restore",
    "select from restore_requests q join restores r on r.id = q.restore_id where q.restore_status <> r.status or q.status_at <> r.status_at",
  ],
  [
    "two open restores of an object",
    "select from restores where closed_at is null group by s3_bucket, s3_key, version_id having count(*) > 1",
  ],
  [
    "failed without a reason",
    "select from restores where status = 'failed' and (failure_code is null or failure_message is null)",
  ],
  [
    "told before Resend took it",
    "select from restore_requests q left join notifications n on n.id = q.post_notification_id where q.post_notified and n.status is distinct from 'sent'",
  ],
  [
    "the last step of its history is not where it is",
    `select from restores r
       left join lateral (select h.to_status from restore_history h where h.restore_id = r.id order by h.id desc limit 1) h on true
      where h.to_status is distinct from case when r.closed_at is null then r.status::text else 'closed' end`,
  ],
  [
    "a step of its history does not follow from the one before",
    `select from (select h.from_status, lag(h.to_status) over (partition by h.restore_id order by h.id) as before from restore_history h) h
      where h.from_status is distinct from h.before`,
  ],
  [
    "totals say another number of restores",
    `select where (select coalesce(sum(t.n), 0) from totals t where t.metric = 'reads_opened') <> (select count(*) from restores)`,
  ],
  [
    "somebody waits at a closed restore although there is an open one",
    `select from restore_requests q join restores o on o.id = q.restore_id and o.closed_at is not null
       join restores n on n.s3_key = o.s3_key and n.closed_at is null
      where q.post_notification_id is null and q.email is not null and not q.observed
        and not exists (select from announcements a where a.restore_id = o.id and a.kind = 'post' and a.person = lower(q.email))
        and not exists (select from restore_requests t where t.restore_id = n.id and lower(t.email) = lower(q.email))`,
  ],
];

ALWAYS.push(
  ["what a limit has spent is not what was charged", SPENDING_IS_WRONG],
  ["held, and nobody will decide", HELD_FOR_EVER],
  [
    "a mail to somebody who was only observed",
    "select from restore_requests where observed and (pre_notification_id is not null or post_notification_id is not null)",
  ],
);

/** Which arrows were met, over all runs. */
const seen = new Set<string>();

/** All that there are, so that the weights of commands.ts keep them in reach; another seed or fewer runs may miss one. */
const ARROWS = [
  "completed: not_started -> not_started",
  "completed: pending -> pending",
  "completed: restored -> restored",
  "trigger: not_started -> pending",
  "trigger: not_started -> failed",
  "trigger: not_started -> not_started",
  "trigger: not_started -> closed",
  "settle: not_started -> failed",
  "poll: pending -> restored",
  "poll: pending -> not_started",
  "poll: pending -> failed",
  "poll: pending -> pending",
  "poll: restored -> restored",
  "poll: restored -> closed",
  "read: restored -> closed",
  "read: failed -> closed",
  "sweep: restored -> closed",
  "sweep: failed -> closed",
  "retry: failed -> closed",
];

async function playAndCheck(pool: Pool, list: Command[]): Promise<void> {
  const play = new Play(pool);
  await play.begin();
  for (const command of list) {
    const before = await restoresOf(pool);
    const known = await emailsOf(pool);
    const truths = before.map((row) => play.truthOf(objectOf(row)));
    const eventsOf = await play.do(command);
    const after = new Map((await restoresOf(pool)).map((row) => [row["id"] as string, row]));
    for (const [index, row] of before.entries()) {
      const now = after.get(row["id"]);
      const what = JSON.stringify({ command, truth: truths[index], status: row["status"] });
      if (row["closed_at"] !== null) {
        expect(now?.["closed_at"], `${what}: closed is closed`).not.toBeNull();
        continue;
      }
      const events = eventsOf(objectOf(row), row);
      const restore = restoreOf(row, play);
      const allowed: string[] = events.flatMap((event) => next(restore, event, Date.now()));
      // Somebody else's report may have come first, or this one too late: then nothing has happened.
      if (command.do === "trigger" || command.do === "poll") {
        const is_own = now?.["claim_id"] === null || now?.["claim_id"] === undefined;
        if (!is_own || events.some(({ what }) => what !== command.do)) allowed.push(row["status"]);
      }
      const state = now?.["closed_at"] !== null ? "closed" : now?.["status"];
      for (const event of events) seen.add(`${event.what}: ${row["status"]} -> ${state}`);
      expect(allowed, what).toContain(state);
    }
    const begun = after.size - before.length;
    const may = await beginnings(pool, command, before);
    if (may !== "any")
      expect(begun, `${JSON.stringify(command)}: restores that began`).toBe(may === "one" ? 1 : 0);
    const readers = await emailsOf(pool);
    for (const [id, email] of known) {
      if (email !== null) expect(readers.get(id), "an address once on a row stays").toBe(email);
    }
    for (const [what, text] of ALWAYS)
      expect(await query(pool, text), `${what}, after ${JSON.stringify(command)}`).toEqual([]);
    expect(play.wrongs, JSON.stringify(command)).toEqual([]);
  }

  await play.drain();
  const open = (await restoresOf(pool)).filter((row) => row["closed_at"] === null);
  for (const row of open) {
    expect(
      ["restored", "failed"],
      `at the end ${row["s3_key"]} is ${row["status"]} (${row["failure_code"]})`,
    ).toContain(row["status"]);
    if (row["status"] === "restored")
      expect(play.truthOf(objectOf(row)).state, `${row["s3_key"]} is called restored`).not.toBe("restoring");
  }
  expect(
    await query(
      pool,
      `select q.s3_key, q.reader, q.restore_status::text as status, q.post_notification_id from restore_requests q
         join restores r on r.id = q.restore_id left join notifications n on n.id = q.post_notification_id
        where r.closed_at is null and q.email is not null and not q.observed and not q.post_notified and coalesce(n.status, 'sealed') not in ('failed', 'unknown')`,
    ),
    "at the end nobody waits for a mail",
  ).toEqual([]);
  expect(play.wrongs).toEqual([]);
}

test("any interleaving ends where the model says", { timeout: RUNS * 3_000 }, async ({ pool }) => {
  await fc.assert(
    fc.asyncProperty(commands, (list) => playAndCheck(pool, list)),
    { numRuns: RUNS, seed: SEED, unbiased: true },
  );
  // A model that meets none of it shows nothing.
  expect([...seen]).toEqual(expect.arrayContaining(ARROWS));
});
