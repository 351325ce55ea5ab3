/** Plays commands against the functions of sql/transitions.sql, as the server and the tasks call them. */
import { randomUUID } from "node:crypto";

import type { Pool } from "pg";

import { query, sealMail, WAITS, type Row } from "../support/rows.ts";
import { OBJECTS, READERS, type Command } from "./commands.ts";
import { GIVE_UP_TRIES, type Event, type Truth } from "./model.ts";

const DAYS_7 = 7 * 86_400_000;

/** S3 as it really is. */
interface Reality {
  truth: Truth;
  is_silent: boolean;
  /** Grows with each overwriting. */
  content: number;
  /** When the restored copy was finished, and what the event said of it. */
  told: { at: number; expires_at: number } | null;
}

/** What a worker has claimed and not reported. */
interface Claimed {
  row: Row;
  event: Event;
}

/** What an object's restore has met by a command. Of two reports on it either may have come first. */
type Met = (object: number, restore: Row) => Event[];

const onlyTo =
  (object: number, event: Event): Met =>
  (met) => [met === object ? event : { what: "other" }];

export class Play {
  readonly pool: Pool;
  readonly realities: Reality[] = Array.from({ length: OBJECTS }, () => ({
    truth: { state: "archived" },
    is_silent: false,
    content: 1,
    told: null,
  }));
  /** Mails that Resend has taken, by their notification: each person has each of these once. */
  readonly accepted = new Map<string, { person: string; kind: string; restores: string[] }>();
  /** What is wrong with mails, as far as Resend can tell. */
  readonly wrongs: string[] = [];
  #late: Claimed[] = [];

  constructor(pool: Pool) {
    this.pool = pool;
  }

  async begin(): Promise<void> {
    await this.pool.query(
      "truncate restores, restore_requests, notifications, announcements, restore_history, actions, totals, aws_key_user_map, aws_principal_user_map, workers",
    );
    await this.pool.query(
      "update mail_gate set closed_until = '-infinity', next_call_at = '-infinity', calls_per_second = 1000000",
    );
    await this.pool.query("delete from graphile_worker._private_jobs");
    await this.pool.query(
      `create or replace function give_up_tries() returns integer language sql immutable as $$ select ${GIVE_UP_TRIES} $$`,
    );
    for (const [index, { known }] of READERS.entries()) if (known) await this.#learn(index);
  }

  truthOf(object: number): Truth {
    const reality = this.realities[object] as Reality;
    if (reality.is_silent) return { state: "silent" };
    const { truth } = reality;
    if (truth.state === "readable" && truth.expires_at !== null && truth.expires_at <= Date.now())
      return { state: "archived" };
    return truth;
  }

  /** Does it, and answers what each object's restore has met by it. */
  async do(command: Command): Promise<Met> {
    const other: Met = () => [{ what: "other" }];
    switch (command.do) {
      case "read":
        return onlyTo(command.object, await this.#read(command));
      case "completed": {
        const event = await this.#completed(command);
        return event === undefined ? other : onlyTo(command.object, event);
      }
      case "trigger":
      case "poll":
        return this.#ask(command.do, command.gets);
      case "s3":
        this.#turn(command.object, command.turns);
        return other;
      case "learn":
        await this.#learn(command.reader);
        return other;
      case "resolve":
        await this.pool.query("select resolve_requests(100, $1, '{}')", [WAITS]);
        return other;
      case "sweep":
        await this.pool.query("select close_finished_restores(100)");
        return () => [{ what: "sweep" }];
      case "notify":
        await this.#notify(command.kind, command.resend);
        return other;
      case "retry":
        return this.#retry(command.object);
      case "pass":
        await this.#pass(command.minutes);
        return other;
    }
  }

  async #read({ object, reader, late_minutes }: Extract<Command, { do: "read" }>): Promise<Event> {
    const at = Date.now() - late_minutes * 60_000;
    const { access_key_id, principal } = READERS[reader] as (typeof READERS)[number];
    const read = {
      id: randomUUID(),
      ...nameOf(object),
      access_key_id,
      principal,
      event_id: randomUUID(),
      event_time: new Date(at).toISOString(),
    };
    const rows = await query(this.pool, "select * from request_restores($1, $2, '{}')", [
      JSON.stringify([read]),
      WAITS,
    ]);
    if (rows.length !== 1) this.wrongs.push("a read without an answer");
    return { what: "read", at };
  }

  async #completed({ object, as }: Extract<Command, { do: "completed" }>): Promise<Event | undefined> {
    const { told } = this.realities[object] as Reality;
    // S3 does not speak of what never was; what it once said may come at any time. Who forges, says what is wanted.
    if (told === null && as !== "forged") return undefined;
    const { at, expires_at } = told ?? { at: Date.now(), expires_at: Date.now() + DAYS_7 };
    const event = {
      id: randomUUID(),
      ...nameOf(object),
      version_id: as === "wrong version" ? "another" : "",
      restore_expires_at:
        as === "without expiry" ? undefined : iso(as === "expired" ? Date.now() - 1000 : expires_at),
      event_time: iso(as === "old" ? at - 90_000_000 : at),
    };
    await query(this.pool, "select * from complete_restores($1, $2)", [JSON.stringify([event]), WAITS]);
    return { what: "completed" };
  }

  /** A worker's run: everything due is claimed, asked about and reported; or it dies, or comes late. */
  async #ask(task: "trigger" | "poll", gets: "done" | "dead" | "late"): Promise<Met> {
    const claim =
      task === "trigger" ? "claim_restores_to_trigger(100)" : "claim_restores_to_poll(100, '23 hours')";
    const claimed = (await query(this.pool, `select * from ${claim}`)).map((row) => ({
      row,
      event: { what: task, truth: this.truthOf(objectOf(row)) } satisfies Event,
    }));
    const late = this.#late;
    this.#late = gets === "late" ? claimed : [];
    for (const one of claimed) {
      // S3 has taken the order, whatever becomes of who gave it.
      const reality = this.realities[objectOf(one.row)] as Reality;
      if (task === "trigger" && gets !== "dead" && one.event.truth.state === "archived")
        reality.truth = { state: "restoring" };
    }
    // Reports of an earlier claim: facts count, news that may have grown old does not.
    for (const one of late) await this.#report(one);
    if (gets === "done") for (const one of claimed) await this.#report(one);
    const reported = [...late, ...(gets === "done" ? claimed : [])];
    return (_, restore) => {
      const events = reported.filter(({ row }) => row["id"] === restore["id"]).map(({ event }) => event);
      return events.length > 0 ? events : [{ what: "other" }];
    };
  }

  async #report({ row, event }: Claimed): Promise<void> {
    if (event.what !== "trigger" && event.what !== "poll") return;
    const object = objectOf(row);
    const { truth } = event;
    const content = `"${(this.realities[object] as Reality).content}"`;
    const outcome = {
      id: row["id"],
      claim_id: row["claim_id"],
      storage_class: "GLACIER",
      pinned_version_id: "",
      etag: content,
      size_bytes: 1,
    };
    const settle = async (transition: string, more: Row = {}): Promise<void> => {
      await this.pool.query("select settle_restores($1, $2)", [
        JSON.stringify([{ ...outcome, transition, ...more }]),
        WAITS,
      ]);
    };
    const gone = { code: "object_not_found", message: "The file is no longer there." };
    if (truth.state === "silent")
      return settle("note_restore_troubles", { code: "Timeout", message: "S3 did not answer." });
    if (row["status"] === "restored") {
      return truth.state === "readable"
        ? settle("note_restores_checked", { restore_expires_at: iso(truth.expires_at) })
        : settle("mark_restores_expired");
    }
    if (truth.state === "gone") return settle("mark_restores_failed", gone);
    if (event.what === "poll" && row["etag"] !== null && row["etag"] !== content) {
      return settle("mark_restores_failed", {
        code: "object_overwritten",
        message: "The file was replaced.",
      });
    }
    if (truth.state === "readable")
      return settle("mark_restores_restored", { restore_expires_at: iso(truth.expires_at) });
    if (event.what === "trigger") return settle("mark_restores_pending", { tier: "Standard" });
    return truth.state === "restoring" ? settle("note_restores_checked") : settle("mark_restores_lost");
  }

  #turn(object: number, turns: Extract<Command, { do: "s3" }>["turns"]): void {
    const reality = this.realities[object] as Reality;
    const { truth } = reality;
    switch (turns) {
      case "finishes":
        if (truth.state !== "restoring") return;
        reality.truth = { state: "readable", expires_at: Date.now() + DAYS_7 };
        reality.told = { at: Date.now(), expires_at: Date.now() + DAYS_7 };
        return;
      case "loses":
        if (truth.state === "restoring") reality.truth = { state: "archived" };
        return;
      case "expires":
        if (truth.state === "readable") reality.truth = { state: "archived" };
        return;
      case "deletes":
        reality.truth = { state: "gone" };
        return;
      case "overwrites":
        reality.truth = { state: "archived" };
        reality.content++;
        return;
      case "is silent":
        reality.is_silent = true;
        return;
      case "speaks":
        reality.is_silent = false;
        return;
    }
  }

  async #learn(reader: number): Promise<void> {
    const { access_key_id, principal, email } = READERS[reader] as (typeof READERS)[number];
    await this.pool.query("select import_users($1)", [
      JSON.stringify([{ id: access_key_id || principal, email }]),
    ]);
  }

  /** As server/worker/mails.ts does it. */
  async #notify(kind: "pre" | "post", resend: Extract<Command, { do: "notify" }>["resend"]): Promise<void> {
    await this.pool.query("select unseal_stale_notifications($1)", [kind]);
    const people = await query(this.pool, "select person from due_people($1, $2, $3, 100) person", [
      kind,
      ...WAITS,
    ]);
    for (const { person } of people) {
      const client = await this.pool.connect();
      const id = randomUUID();
      await client.query("begin");
      await sealMail(client, id, kind, person);
      await client.query("commit");
      client.release();
    }
    const claimed = await query(this.pool, "select * from claim_notifications($1, 100)", [kind]);
    for (const mail of claimed) await this.#send(kind, mail, resend);
  }

  async #send(kind: string, mail: Row, resend: Extract<Command, { do: "notify" }>["resend"]): Promise<void> {
    if (resend === "accepts" || resend === "accepts silently") await this.#accept(kind, mail);
    const uncertain = "select note_notification_uncertain($1, $2, 'no_answer', 'no answer')";
    switch (resend) {
      case "accepts":
        await this.pool.query("select mark_notification_sent($1, 'r')", [mail["id"]]);
        return;
      case "accepts silently":
      case "is away":
        await this.pool.query(uncertain, [mail["id"], mail["claim_id"]]);
        return;
      case "refuses for now":
        await this.pool.query("select shut_mail_gate($1, $2, $3, '1 minute', 'rate', 'too many')", [
          mail["id"],
          mail["claim_id"],
          mail["uncertain_since_before"],
        ]);
        return;
      case "refuses":
        // Whoever had it once is not refused for the address.
        if (this.accepted.has(mail["id"])) await this.pool.query(uncertain, [mail["id"], mail["claim_id"]]);
        else
          await this.pool.query(
            "select mark_notification_undeliverable($1, 'failed', 'bad', 'no such mailbox')",
            [mail["id"]],
          );
    }
  }

  /** A repeat under the same key is recognised; anything else is one more mail in somebody's inbox. */
  async #accept(kind: string, mail: Row): Promise<void> {
    if (this.accepted.has(mail["id"])) return;
    const rows = await query(this.pool, "select restore_id from announcements where notification_id = $1", [
      mail["id"],
    ]);
    const restores = rows.map((row) => row["restore_id"] as string);
    const person = (mail["email"] as string).toLowerCase();
    for (const before of this.accepted.values()) {
      const twice = before.restores.find(
        (restore) => before.person === person && before.kind === kind && restores.includes(restore),
      );
      if (twice !== undefined) this.wrongs.push(`${person} was told ${kind} of ${twice} twice`);
    }
    this.accepted.set(mail["id"], { person, kind, restores });
  }

  /** An operator's wish; of a failed restore it makes a new one. */
  async #retry(object: number): Promise<Met> {
    const [open] = await query(this.pool, "select id from restores where s3_key = $1 and closed_at is null", [
      nameOf(object).s3_key,
    ]);
    if (open !== undefined) await this.pool.query("select retry_restore($1)", [open["id"]]);
    return onlyTo(object, { what: "retry" });
  }

  /** Everything grows older; nothing else changes. */
  async #pass(minutes: number): Promise<void> {
    const client = await this.pool.connect();
    await client.query("begin");
    await client.query("set local session_replication_role = replica");
    const columns = await query(
      client,
      `select table_name as "table", array_agg(column_name::text) as columns from information_schema.columns
        where table_schema = 'public' and data_type = 'timestamp with time zone' and is_generated = 'NEVER'
          and table_name in ('restores', 'restore_requests', 'notifications', 'mail_gate') group by 1`,
    );
    for (const { table, columns: names } of columns) {
      const set = (names as string[]).map((name) => `${name} = ${name} - interval '${minutes} minutes'`);
      await client.query(`update ${table} set ${set.join()}`);
    }
    await client.query("commit");
    client.release();
    for (const reality of this.realities) {
      if (reality.truth.state === "readable" && reality.truth.expires_at !== null) {
        reality.truth = { state: "readable", expires_at: reality.truth.expires_at - minutes * 60_000 };
      }
      if (reality.told !== null) {
        reality.told = {
          at: reality.told.at - minutes * 60_000,
          expires_at: reality.told.expires_at - minutes * 60_000,
        };
      }
    }
  }

  /** Lets everything come to its end: S3 speaks and finishes, Resend accepts, workers live, time passes. */
  async drain(): Promise<void> {
    for (let object = 0; object < OBJECTS; object++) this.#turn(object, "speaks");
    for (let round = 0; round < 8; round++) {
      for (const task of ["trigger", "poll"] as const) await this.do({ do: task, gets: "done" });
      for (let object = 0; object < OBJECTS; object++) this.#turn(object, "finishes");
      // Longer than any back-off and any quiet window; polls are due after a day.
      await this.#pass(round === 2 || round === 4 ? 1_400 : 65);
      await this.do({ do: "resolve" });
      for (const kind of ["pre", "post"] as const) await this.do({ do: "notify", kind, resend: "accepts" });
    }
  }
}

export const nameOf = (object: number): { s3_bucket: string; s3_key: string } => ({
  s3_bucket: "model",
  s3_key: `object-${object}`,
});
export const objectOf = (row: Row): number => Number((row["s3_key"] as string).slice("object-".length));
const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());
