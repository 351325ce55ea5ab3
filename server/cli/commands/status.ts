import { sql, type RawBuilder } from "kysely";

import { EXIT, type Command, type Exit } from "../command.ts";
import { withDatabase } from "../database.ts";
import type { Database } from "../../postgres/rows.ts";
import { sentence, timeText, type Terminal } from "../terminal.ts";
import { dollars } from "../../wording/dollars.ts";
import { size } from "../../wording/sizes.ts";
import { mailGate } from "./mail_gate.ts";

/** The views count no further. */
const FINDINGS_COUNTED = 1_000;
const OPEN_COUNTED = 10_000;

const upTo = (most: number, count: number): string => (count < most ? String(count) : `${most} or more`);

/** More do not help at 3 a.m.; the count says how many there are. */
const STUCK_SHOWN = 10;

export const status: Command = {
  name: "status",
  args: "",
  summary: "What needs you, since when, and what to do; then how things are",
  examples: [
    ["", "ends with 1 when something needs you, so that cron can mail it"],
    ["--json | jq 'select(.kind == \"finding\")'", "for a program"],
  ],
  run: (terminal) => withDatabase(terminal, "status", (db) => show(db, terminal)),
};

async function show(db: Database, terminal: Terminal): Promise<Exit> {
  const needs = await rowsOf(
    db,
    sql<Finding>`select finding, problem, since, count, what_to_do from findings order by rank, since`,
  );
  const verdict = verdictOf(needs);
  terminal.heading(
    { kind: "status", ok: needs.length === 0, verdict },
    verdict,
    needs.length > 0 ? "red" : "green",
  );
  showFindings(needs, terminal);
  if (needs.some(({ finding }) => finding === "stuck")) await showStuck(db, terminal);

  terminal.text("");
  terminal.table(
    "open_restores",
    {
      "open restores": ({ restore_status }) => restore_status,
      count: ({ open }) => upTo(OPEN_COUNTED, open),
      "oldest since": ({ oldest_since }) => timeText(oldest_since),
    },
    await rowsOf(
      db,
      sql<OpenRestores>`select restore_status, open, oldest_since from restore_overview order by restore_status`,
    ),
  );
  const waiting = await rowsOf(
    db,
    sql<OldestWaiting>`select waits_for, id, since from oldest_waiting order by since`,
  );
  if (waiting.length > 0) {
    terminal.text("");
    terminal.table(
      "oldest_waiting",
      {
        "waits for": ({ waits_for }) => waits_for,
        since: ({ since }) => timeText(since),
        id: ({ id }) => id,
      },
      waiting,
    );
  }
  await showMoney(db, terminal);
  terminal.text("");
  terminal.table(
    "task",
    {
      task: ({ task }) => task,
      "last success": ({ succeeded_at }) => timeText(succeeded_at),
      "jobs waiting": ({ waiting }) => waiting,
      "failed for good": ({ failed }) => failed,
    },
    await rowsOf(
      db,
      sql<Task>`select task, succeeded_at, failed_at, error, waiting::int, failed::int from job_status order by task`,
    ),
  );
  terminal.text("");
  const [workers] = await rowsOf(
    db,
    sql<Workers>`select count(*) filter (where is_alive)::int as alive, count(*) filter (where not is_alive)::int as dead from worker_status`,
  );
  const { alive, dead } = workers ?? { alive: 0, dead: 0 };
  terminal.show(
    { kind: "workers", alive, dead },
    `Workers alive: ${alive}${dead > 0 ? `, dead and not cleaned up: ${dead}` : ""}.`,
  );
  const gate = await mailGate(db);
  terminal.show({ kind: "mail_gate", ...gate.record }, gate.text);
  return needs.length === 0 ? EXIT.done : EXIT.failed;
}

interface Finding {
  finding: string;
  problem: string;
  since: Date | null;
  count: number;
  what_to_do: string;
}

/** "All is well." or "2 things need you: no worker, mail gate closed." */
function verdictOf(needs: Finding[]): string {
  if (needs.length === 0) return "All is well.";
  const kinds = new Set(needs.map(({ finding }) => finding.replaceAll("_", " ")));
  return `${needs.length === 1 ? "1 thing needs" : `${needs.length} things need`} you: ${[...kinds].join(", ")}.`;
}

function showFindings(needs: Finding[], terminal: Terminal): void {
  for (const [index, { finding, problem, since, count, what_to_do }] of needs.entries()) {
    const facts = [
      ...(since === null ? [] : [`since ${timeText(since)}`]),
      ...(count > 1 ? [`${upTo(FINDINGS_COUNTED, count)} cases`] : []),
    ];
    terminal.text("");
    terminal.show(
      { kind: "finding", finding, problem, since, count, what_to_do },
      `${index + 1}. ${sentence(problem)}${facts.length > 0 ? ` (${facts.join(", ")})` : ""}`,
    );
    terminal.text(`   ${what_to_do}`);
  }
}

interface Stuck {
  id: string;
  /** Null: it is not about a mail. */
  mail_id: string | null;
  s3_bucket: string;
  s3_key: string;
  since: Date;
  problem: string;
  failure_code: string;
  failure_message: string;
  what_to_do: string;
}

/** So that an id for retry, resend or resolve is at hand. */
async function showStuck(db: Database, terminal: Terminal): Promise<void> {
  const rows = await rowsOf(
    db,
    sql<Stuck>`
      select id, mail_id, s3_bucket, s3_key, since, problem, failure_code, failure_message, what_to_do
        from unnest(stuck_problems()) p (of) cross join lateral oldest_stuck(p.of, ${STUCK_SHOWN}) s order by since limit ${STUCK_SHOWN}`,
  );
  terminal.text("");
  terminal.table(
    "stuck",
    {
      "ID, or MAIL_ID": ({ id, mail_id }) => mail_id ?? id,
      file: ({ s3_bucket, s3_key }) => `s3://${s3_bucket}/${s3_key}`,
      problem: ({ problem, failure_code }) =>
        failure_code === "" ? problem : `${problem} (${failure_code})`,
      since: ({ since }) => timeText(since),
      "what S3 or Resend says": ({ failure_message }) => failure_message,
    },
    rows,
  );
}

interface OpenHold {
  id: string;
  person: string;
  reason: string;
  objects: string;
  bytes: string;
  estimated_cost: string;
  opened_at: Date;
}

interface UsedLimit {
  limit_text: string;
  person: string;
  used: number;
}

/** The oldest holds, and the limits of which most is used. */
const MONEY_SHOWN = 10;

async function showMoney(db: Database, terminal: Terminal): Promise<void> {
  const holds = await rowsOf(
    db,
    sql<OpenHold>`
      select id, person, reason, objects, bytes, estimated_cost, opened_at
        from hold_list where status = 'open' order by opened_at limit ${MONEY_SHOWN}`,
  );
  if (holds.length > 0) {
    terminal.text("");
    terminal.table(
      "hold",
      {
        "waits for approval": ({ id }) => id,
        "who reads": ({ person }) => person,
        objects: ({ objects }) => objects,
        size: ({ bytes }) => size(bytes),
        estimate: ({ estimated_cost }) => dollars(estimated_cost),
        since: ({ opened_at }) => timeText(opened_at),
      },
      holds,
    );
  }
  const limits = await rowsOf(
    db,
    sql<UsedLimit>`
      select limit_text, person, used::float8 as used from limit_status order by limit_status.used desc, limit_id, person limit ${MONEY_SHOWN}`,
  );
  if (limits.length > 0) {
    terminal.text("");
    terminal.table(
      "limit",
      {
        limit: ({ limit_text }) => limit_text,
        who: ({ person }) => person,
        used: ({ used }) => `${Math.floor(used * 100)} %`,
      },
      limits,
    );
  }
}

interface OpenRestores {
  restore_status: string;
  open: number;
  oldest_since: Date | null;
}

interface OldestWaiting {
  waits_for: string;
  id: string;
  since: Date;
}

interface Task {
  task: string;
  succeeded_at: Date | null;
  failed_at: Date | null;
  error: string;
  waiting: number;
  failed: number;
}

interface Workers {
  alive: number;
  dead: number;
}

const rowsOf = async <Row>(db: Database, query: RawBuilder<Row>): Promise<Row[]> =>
  (await query.execute(db)).rows;
