import { sql } from "kysely";

import type { Database } from "../../postgres/rows.ts";
import { sentence, timeText } from "../terminal.ts";

interface MailGate {
  is_open: boolean;
  /** A number: until somebody opens it. */
  closed_until: Date | number | null;
  reason: string;
  sender: string | null;
  calls_per_second: number;
}

/** As `status` and `gate` show it. */
export async function mailGate(db: Database): Promise<{ record: MailGate; text: string }> {
  const { rows } = await sql<MailGate>`
    select is_open, closed_until, reason, sender, calls_per_second from mail_gate_status`.execute(db);
  const record = rows[0];
  if (record === undefined) throw new Error("mail_gate has no row");
  const whose = record.sender === null ? "No mail goes out" : `No mail goes out from ${record.sender}`;
  const text = record.is_open
    ? `Mail goes out, at most ${record.calls_per_second} a second.`
    : sentence(`${whose} until ${timeText(record.closed_until)}: ${record.reason}`);
  return { record, text };
}
