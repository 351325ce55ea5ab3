/** Plays commands against the functions of sql/transitions.sql, as the server and the tasks call them. */
import { randomUUID } from "node:crypto";

import type { Pool } from "pg";

import { query, sealMail, WAITS, type Row } from "../support/rows.ts";
import { OBJECTS, READERS, type Command } from "./commands.ts";
import { decide, GIVE_UP_TRIES, type Decision, type Event, type Truth } from "./model.ts";

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
  event: Extract<Event, { truth: Truth }>;
  /** It was not admitted before. */
  is_new?: boolean;
  /** S3 has refused RestoreObject. */
  is_refused?: boolean;
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
      "truncate limits, policies, spending, holds, notices, costs, restores, restore_requests, notifications, announcements, restore_history, actions, totals, aws_key_user_map, aws_principal_user_map, workers",
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
      case "limit":
        await this.#limit(command.max);
        return other;
      case "policy":
        await this.#policy(command.action);
        return other;
      case "decide":
        await this.pool.query(`select ${command.as}_hold(id, 'somebody') from holds where status = 'open'`);
        return other;
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
  async #ask(task: "trigger" | "poll", gets: Extract<Command, { gets: string }>["gets"]): Promise<Met> {
    const ended = task === "trigger" ? await this.#settleHolds() : new Set<string>();
    const claim =
      task === "trigger" ? "claim_restores_to_trigger(100)" : "claim_restores_to_poll(100, '23 hours')";
    const claimed = (await query(this.pool, `select * from ${claim}`)).map((row): Claimed => ({
      row,
      event: { what: task, truth: this.truthOf(objectOf(row)) },
    }));
    const late = this.#late;
    // Also one who dies then has asked whether it may.
    const settled = task === "trigger" ? await this.#admit(claimed) : [];
    const going = claimed.filter((one) => !settled.includes(one));
    this.#late = gets === "late" ? going : [];
    for (const one of going) {
      if (task !== "trigger" || one.event.truth.state !== "archived") continue;
      const reality = this.realities[objectOf(one.row)] as Reality;
      // S3 has taken the order, whatever becomes of who gave it.
      if (gets === "done" || gets === "late") reality.truth = { state: "restoring" };
      if (gets === "refused") {
        one.is_refused = true;
        one.event = { what: "trigger", truth: { state: "silent" } };
      }
    }
    // Reports of an earlier claim: facts count, news that may have grown old does not.
    for (const one of late) await this.#report(one);
    const is_reported = gets === "done" || gets === "refused";
    if (is_reported) for (const one of going) await this.#report(one);
    const reported = [...late, ...settled, ...(is_reported ? going : [])];
    return (_, restore) => {
      if (ended.has(restore["id"])) return [{ what: "settle" }];
      const events = reported.filter(({ row }) => row["id"] === restore["id"]).map(({ event }) => event);
      return events.length > 0 ? events : [{ what: "other" }];
    };
  }

  /** As the task does it first; returns which restores it ends. */
  async #settleHolds(): Promise<Set<string>> {
    const rows = await query(
      this.pool,
      `select r.id from restores r join holds h on h.id = r.hold_id
        where r.status = 'not_started' and r.attempt_after = 'infinity'
          and (h.status in ('refused', 'expired') or (h.status = 'open' and h.opened_at <= now() - hold_lasts()))`,
    );
    for (let moved = 1; moved > 0;) {
      const [row] = await query(this.pool, "select settle_holds(1) as moved");
      moved = row?.["moved"] ?? 0;
    }
    return new Set(rows.map((row) => row["id"] as string));
  }

  /** Asks whether what is archived may be restored, as a page; returns what was settled by that. */
  async #admit(claimed: Claimed[]): Promise<Claimed[]> {
    const archived = claimed
      .filter(({ event }) => event.what === "trigger" && event.truth.state === "archived")
      .toSorted((a, b) => objectOf(a.row) - objectOf(b.row));
    if (archived.length === 0) return [];
    const [policy] = await query(this.pool, "select action from policies");
    const [limit] = await query(
      this.pool,
      `select max_objects::integer as max, coalesce((select sum(s.objects)::integer from spending s where s.limit_id = l.id and s.period = period_of('month', now())), 0) as spent
         from limits l`,
    );
    let room = limit === undefined ? Infinity : limit["max"] - limit["spent"];
    const expected = new Map<string, Decision>();
    for (const { row } of archived) {
      const [known] = await query(
        this.pool,
        `select r.admitted_at is not null as is_admitted, h.status::text as hold,
                not exists (select from restore_requests q where q.restore_id = r.id and not q.observed) as is_observed
           from restores r left join holds h on h.id = r.hold_id where r.id = $1`,
        [row["id"]],
      );
      const request = {
        is_admitted: known?.["is_admitted"],
        hold: known?.["hold"],
        action: known?.["is_observed"] ? ("observe" as const) : (policy?.["action"] ?? "restore"),
        has_room: room > 0,
      };
      const decision = decide(request);
      if (decision === "go" && !request.is_admitted) room--;
      expected.set(row["id"], decision);
    }
    const admitted = await query(this.pool, "select * from admit_restores($1, 'Standard', 7)", [
      JSON.stringify(archived.map(({ row }) => archivedFacts(row, this.#etagOf(row)))),
    ]);
    const found = new Map(admitted.map((row) => [row["id"] as string, row]));
    for (const one of archived) {
      const admission = found.get(one.row["id"]);
      if (admission?.["decision"] !== expected.get(one.row["id"]))
        this.wrongs.push(
          `${one.row["s3_key"]} is ${admission?.["decision"]}, and not ${expected.get(one.row["id"])}`,
        );
      one.is_new = admission?.["is_new"];
      one.event = { what: "trigger", truth: { state: "archived" }, decision: admission?.["decision"] };
    }
    return archived.filter(({ event }) => event.what === "trigger" && event.decision !== "go");
  }

  #etagOf = (row: Row): string => `"${(this.realities[objectOf(row)] as Reality).content}"`;

  async #limit(max: number | null): Promise<void> {
    if (max === null) await this.pool.query("delete from limits");
    else
      await this.pool.query(
        "insert into limits (scope, per, max_objects) values ('all', 'month', $1) on conflict (scope, s3_bucket, key_prefix, per) do update set max_objects = excluded.max_objects",
        [max],
      );
  }

  async #policy(action: "hold" | "observe" | null): Promise<void> {
    await this.pool.query("delete from policies");
    if (action !== null)
      await this.pool.query("insert into policies (s3_bucket, action) values ('model', $1)", [action]);
  }

  async #report({ row, event, is_new, is_refused }: Claimed): Promise<void> {
    const { truth } = event;
    const content = this.#etagOf(row);
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
    if (is_refused)
      return settle("note_restore_troubles", {
        code: "AccessDenied",
        message: "S3 refuses.",
        gives_back: is_new,
      });
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
    // Somebody else's, unless it was admitted before.
    if (event.what === "trigger")
      return settle("mark_restores_pending", {
        tier: event.decision === undefined && row["admitted_at"] === null ? null : "Standard",
      });
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
          -- What was charged to a month stays charged to it.
          and column_name <> 'admitted_at'
          and table_name in ('restores', 'restore_requests', 'notifications', 'mail_gate', 'holds') group by 1`,
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
      await this.do({ do: "decide", as: "approve" });
      for (const task of ["trigger", "poll"] as const) await this.do({ do: task, gets: "done" });
      for (let object = 0; object < OBJECTS; object++) this.#turn(object, "finishes");
      // Longer than any back-off and any quiet window; polls are due after a day.
      await this.#pass(round === 2 || round === 4 ? 1_400 : 65);
      await this.do({ do: "resolve" });
      for (const kind of ["pre", "post"] as const) await this.do({ do: "notify", kind, resend: "accepts" });
    }
  }
}

/** HEAD's word about a claimed row. */
const archivedFacts = (row: Row, etag: string): Row => ({
  id: row["id"],
  claim_id: row["claim_id"],
  region: "us-east-1",
  storage_class: "GLACIER",
  size_bytes: 1,
  etag,
  pinned_version_id: "",
  has_expedited: true,
});

export const nameOf = (object: number): { s3_bucket: string; s3_key: string } => ({
  s3_bucket: "model",
  s3_key: `object-${object}`,
});
export const objectOf = (row: Row): number => Number((row["s3_key"] as string).slice("object-".length));
const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());
