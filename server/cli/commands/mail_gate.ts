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
  closed_since: Date | null;
}

/** As `status` and `gate` show it. `closing` is closed_until as it stands in actions; null: it is open. */
export async function mailGate(
  db: Database,
): Promise<{ record: MailGate; text: string; closing: string | null }> {
  const { rows } = await sql<MailGate & { closing: string | null }>`
    select is_open, closed_until, reason, sender, calls_per_second, closed_since, to_jsonb(closed_until) #>> '{}' as closing
      from mail_gate_status`.execute(db);
  if (rows[0] === undefined) throw new Error("mail_gate has no row");
  const { closing, ...record } = rows[0];
  const whose = record.sender === null ? "No mail goes out" : `No mail goes out from ${record.sender}`;
  const text = record.is_open
    ? `Mail goes out, at most ${record.calls_per_second} a second.`
    : sentence(
        `${whose}${record.closed_since === null ? "" : ` since ${timeText(record.closed_since)},`} until ${timeText(record.closed_until)}: ${record.reason}`,
      );
  return { record, text, closing };
}
