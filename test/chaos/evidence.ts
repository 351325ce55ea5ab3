/** What is left of a storm, for the auditor. */
import type { Pool } from "pg";

import type { DeliveredMail, ResendRequest } from "../stand_ins/resend.ts";
import type { S3Look } from "../stand_ins/s3.ts";
import type { Accepted } from "./callers.ts";
import type { StormObject } from "./objects.ts";
import { HELD_FOR_EVER, SPENDING_IS_WRONG } from "../support/cost.ts";

// oxlint-disable-next-line typescript/no-explicit-any -- rows, as Postgres has them.
export type Rows = Record<string, any>[];

/** All that can be seen from outside, after the storm. */
export interface Evidence {
  accepted: Accepted[];
  surprises: string[];
  objects: StormObject[];
  /** As S3 itself sees them. */
  looks: (S3Look | undefined)[];
  /** Who is behind an access key; absent: nobody ever learns. */
  people: Map<string, string>;
  mails: DeliveredMail[];
  mailCalls: ResendRequest[];
  rows: {
    restores: Rows;
    requests: Rows;
    notifications: Rows;
    announcements: Rows;
    locked_jobs: Rows;
    stuck: Rows;
    workers: Rows;
    /** Where counters and charges differ. */
    wrong_spending: Rows;
    held_for_ever: Rows;
    /** How much each payer was charged, and how much somebody has approved. */
    payers: Rows;
    gate_is_shut: boolean;
  };
  /** How the processes ended when they were asked to, at last. */
  ends: Record<string, number | string>;
  /** What hit whom: "kill worker", "stop postgres fast". */
  blows: string[];
  /** How often processes ended by themselves, or were ended, and were started again. */
  restarts: Record<string, number>;
  /** Not over when patience was. */
  unfinished: string | undefined;
  figures: Record<string, number | string>;
}

export async function rowsOf(pool: Pool): Promise<Evidence["rows"]> {
  const table = async (sql: string): Promise<Rows> => (await pool.query(sql)).rows as Rows;
  return {
    restores: await table("select * from restores"),
    requests: await table("select * from restore_requests"),
    notifications: await table("select * from notifications"),
    announcements: await table("select * from announcements"),
    locked_jobs: await table("select * from graphile_worker.jobs where locked_at is not null"),
    stuck: await table("select * from stuck_requests"),
    workers: await table("select * from workers"),
    wrong_spending: await table(SPENDING_IS_WRONG),
    held_for_ever: await table(HELD_FOR_EVER),
    payers: await table(
      `select r.payer, count(*)::integer as charged, l.max_objects::integer as allowed,
              coalesce((select sum(h.objects)::integer from holds h where h.person = r.payer and h.status = 'approved'), 0) as approved
         from restores r join limits l on l.id = any (r.charged) group by r.payer, l.max_objects`,
    ),
    gate_is_shut: (await table("select from mail_gate where closed_until > now()")).length > 0,
  };
}

/** Nothing open, nothing untold, nothing to send, nothing held by the dead. */
export async function isOver(pool: Pool): Promise<boolean> {
  const { rows } = await pool.query<{ left: string }>(
    `select concat_ws(', ',
       (select nullif(count(*), 0) || ' open restores' from restores where status in ('not_started', 'pending') or head_wanted_at is not null),
       (select nullif(count(*), 0) || ' untold' from untold_requests),
       (select nullif(count(*), 0) || ' unresolved' from restore_requests where not user_resolved),
       (select nullif(count(*), 0) || ' mails to send' from notifications where status = 'sealed'),
       (select nullif(count(*), 0) || ' jobs of the dead' from graphile_worker.jobs where locked_by not in (select id from workers)),
       (select nullif(count(*) - 2, 0) || ' workers too many' from workers)) as left`,
  );
  if (rows[0]?.left === "") return true;
  throw new Error(rows[0]?.left);
}
