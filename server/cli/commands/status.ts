import { sql } from "kysely";

import { EXIT, type Command, type Exit } from "../command.ts";
import { withDatabase } from "../database.ts";
import type { Database } from "../../postgres/rows.ts";
import { timeText, type Terminal } from "../terminal.ts";
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
  const needs = await findings(db);
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
    await openRestores(db),
  );
  const waiting = await oldestWaiting(db);
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
  terminal.text("");
  terminal.table(
    "task",
    {
      task: ({ task }) => task,
      "last success": ({ succeeded_at }) => timeText(succeeded_at),
      "jobs waiting": ({ waiting }) => waiting,
      "failed for good": ({ failed }) => failed,
    },
    await tasks(db),
  );
  terminal.text("");
  const alive = await workers(db);
  terminal.show(
    { kind: "workers", ...alive },
    `Workers alive: ${alive.alive}${alive.dead > 0 ? `, dead and not cleaned up: ${alive.dead}` : ""}.`,
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

const findings = async (db: Database): Promise<Finding[]> =>
  (
    await sql<Finding>`select finding, problem, since, count, what_to_do from findings order by rank, since`.execute(
      db,
    )
  ).rows;

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
      `${index + 1}. ${problem}${facts.length > 0 ? ` (${facts.join(", ")})` : ""}`,
    );
    terminal.text(`   ${what_to_do}`);
  }
}

interface Stuck {
  id: string;
  s3_bucket: string;
  s3_key: string;
  since: Date;
  problem: string;
  failure_code: string;
  what_to_do: string;
}

/** So that an id for retry or resend is at hand. */
async function showStuck(db: Database, terminal: Terminal): Promise<void> {
  const { rows } = await sql<Stuck>`
    select id, s3_bucket, s3_key, since, problem, failure_code, what_to_do from stuck_requests
     order by since limit ${STUCK_SHOWN}`.execute(db);
  terminal.text("");
  terminal.table(
    "stuck",
    {
      "stuck request": ({ id }) => id,
      file: ({ s3_bucket, s3_key }) => `s3://${s3_bucket}/${s3_key}`,
      problem: ({ problem, failure_code }) =>
        failure_code === "" ? problem : `${problem} (${failure_code})`,
      since: ({ since }) => timeText(since),
    },
    rows,
  );
}

interface OpenRestores {
  restore_status: string;
  open: number;
  oldest_since: Date | null;
}

const openRestores = async (db: Database): Promise<OpenRestores[]> =>
  (
    await sql<OpenRestores>`select restore_status, open, oldest_since from restore_overview order by restore_status`.execute(
      db,
    )
  ).rows;

interface OldestWaiting {
  waits_for: string;
  id: string;
  since: Date;
}

const oldestWaiting = async (db: Database): Promise<OldestWaiting[]> =>
  (await sql<OldestWaiting>`select waits_for, id, since from oldest_waiting order by since`.execute(db)).rows;

interface Task {
  task: string;
  succeeded_at: Date | null;
  failed_at: Date | null;
  error: string;
  waiting: number;
  failed: number;
}

const tasks = async (db: Database): Promise<Task[]> =>
  (
    await sql<Task>`
      select task, succeeded_at, failed_at, error, waiting::int, failed::int from job_status order by task`.execute(
      db,
    )
  ).rows;

async function workers(db: Database): Promise<{ alive: number; dead: number }> {
  const { rows } = await sql<{ alive: number; dead: number }>`
    select count(*) filter (where is_alive)::int as alive, count(*) filter (where not is_alive)::int as dead
      from worker_status`.execute(db);
  return rows[0] ?? { alive: 0, dead: 0 };
}
