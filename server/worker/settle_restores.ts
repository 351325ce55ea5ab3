import { sql } from "kysely";

import type { Database, RestoreRow } from "../postgres/rows.ts";
import type { ObjectFacts } from "../s3/head.ts";
import type { Trouble } from "../s3/trouble.ts";
import type { Tier } from "../s3/storage_class.ts";

/** What a task learned about a claimed row, named by the function of sql/transitions.sql that notes it. */
export type RestoreOutcome = { id: string; claim_id: string } & (
  | ({ transition: "mark_restores_pending"; tier: Tier | null } & ObjectFacts)
  | ({ transition: "mark_restores_restored"; restore_expires_at: Date | null } & ObjectFacts)
  | ({ transition: "mark_restores_failed" } & Trouble)
  | { transition: "mark_restores_lost" }
  | { transition: "mark_restores_expired" }
  | { transition: "note_restores_checked"; restore_expires_at: Date | null }
  | ({ transition: "note_restore_troubles" } & Trouble)
);

/** An outcome without the row it belongs to. */
export type Finding = RestoreOutcome extends infer O
  ? O extends RestoreOutcome
    ? Omit<O, "id" | "claim_id">
    : never
  : never;

export const outcomeOf = (row: RestoreRow, finding: Finding): RestoreOutcome => ({
  ...finding,
  id: row.id,
  claim_id: row.claim_id,
});

/** Notes a page of outcomes, all of them or none. */
export async function settleRestores(
  db: Database,
  notify_waits: string[],
  outcomes: RestoreOutcome[],
): Promise<void> {
  await sql`select settle_restores(${JSON.stringify(outcomes)}, ${notify_waits}::interval[])`.execute(db);
}
