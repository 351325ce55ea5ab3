import { sql } from "kysely";

import { Batcher } from "../postgres/batch.ts";
import { isBadRow } from "../postgres/errors.ts";
import type { RestoreRow } from "../postgres/rows.ts";
import type { ObjectFacts } from "../s3/head.ts";
import { hasExpedited, type Tier } from "../s3/storage_class.ts";
import type { TaskContext } from "./task.ts";

/** What admit_restores (sql/cost.sql) has decided about a restore. */
export interface Admission {
  decision: "go" | "held" | "observed" | "refused";
  tier: Tier;
  days: number;
  /** RestoreObject was not sent for it before, as far as anybody knows. */
  is_new: boolean;
}

/** Postgres did not say whether it may be restored, so S3 must not be asked. */
export class NotAdmitted extends Error {
  override name = "NotAdmitted";
}

/** Objects are admitted together that HEAD finds archived within this time. Nobody notices it beside the hours of a restore. */
const ADMIT_TOGETHER_MS = 25;

type Archived = Pick<RestoreRow, "id" | "claim_id"> & ObjectFacts & { region: string | null };

/** Asks whether restores may be started, by which tier and for how long: a page at a time. */
export class Admissions {
  readonly #batcher: Batcher<Archived, Admission | undefined>;

  constructor({ db, settings }: TaskContext) {
    this.#batcher = new Batcher(
      async (objects) => {
        const described = objects.map((object) => ({ ...object, has_expedited: hasExpedited(object) }));
        const { rows } = await sql<Admission & { id: string }>`
          select id, decision, tier, days, is_new
            from admit_restores(${JSON.stringify(described)}, ${settings.RESTORE_TIER}, ${settings.RESTORE_DAYS})`.execute(
          db,
        );
        const admissions = new Map(rows.map((row) => [row.id, row]));
        return objects.map(({ id }) => admissions.get(id));
      },
      { batch_size: settings.S3_CONCURRENCY, linger_ms: ADMIT_TOGETHER_MS },
    );
  }

  /**
   * Null: the claim is no longer ours, and another worker goes on.
   * @throws NotAdmitted when Postgres does not answer; what Postgres refuses of this row alone.
   */
  async admit(object: Archived): Promise<Admission | null> {
    try {
      return (await this.#batcher.push(object)) ?? null;
    } catch (error) {
      if (isBadRow(error)) throw error;
      throw new NotAdmitted("Postgres did not say whether this may be restored", { cause: error });
    }
  }
}
