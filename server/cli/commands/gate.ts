import { sql } from "kysely";

import { CommandError, EXIT, YES, type Command, type Given } from "../command.ts";
import { call, withDatabase } from "../database.ts";
import { sentence, timeText } from "../terminal.ts";
import { mailGate } from "./mail_gate.ts";

export const gate: Command = {
  name: "gate",
  args: "",
  summary: "Shows whether mail goes out; if not, why and until when",
  examples: [
    ["", "open or closed"],
    ["--json", "for a script"],
  ],
  run: (terminal) =>
    withDatabase(terminal, "gate", async (db) => {
      const found = await mailGate(db);
      terminal.show(found.record, found.text);
    }),
};

export const gateOpen: Command = {
  name: "gate open",
  args: "",
  summary: "Lets mail go out again at once",
  examples: [["", "once the reason is gone: the next refusal by Resend would close it again"]],
  options: YES,
  run: (terminal, _, given) =>
    withDatabase(terminal, "gate", async (db) => {
      const { text, closing } = await mailGate(db);
      await terminal.confirm(`${text} Open it?`, given);
      // Not another closing: somebody may hold mail back on purpose by now.
      const confirmed = closing === null ? undefined : { closed_until: closing };
      const did = await call(db, terminal, sql<string>`open_mail_gate()`, confirmed);
      terminal.show({ did }, sentence(did));
    }),
};

const UNITS: Record<string, string> = { m: "minutes", h: "hours", d: "days" };

/** As Postgres reads it; null: until somebody opens the gate. @throws CommandError */
function waitOf(text: Given[string]): string | null {
  if (text === undefined) return null;
  const [, count, unit = ""] = /^(\d{1,4})([mhd])$/.exec(String(text)) ?? [];
  if (count === undefined || Number(count) === 0) {
    throw new CommandError(
      EXIT.usage,
      "Say for how long: --for 30m, --for 2h or --for 3d. Without --for: until somebody opens the gate.",
    );
  }
  return `${count} ${UNITS[unit]}`;
}

export const gateClose: Command = {
  name: "gate close",
  args: "",
  summary: "Holds all mail back, for some time or until somebody opens the gate; nothing is lost",
  examples: [
    ['--reason "restored from a backup"', "until somebody opens it; status tells of it meanwhile"],
    ['--for 30m --reason "the domain moves" --yes', "for half an hour, from a script"],
  ],
  options: {
    for: {
      type: "string",
      value: "2h",
      what: "how long: 30m, 2h, 3d; without it, until somebody opens the gate",
    },
    reason: { type: "string", value: "TEXT", what: "why; everybody who looks sees it" },
    ...YES,
  },
  async run(terminal, _, given) {
    const wait = waitOf(given["for"]);
    const reason = String(given["reason"] ?? "").trim();
    if (reason === "")
      throw new CommandError(EXIT.usage, 'Say why, for those who look: --reason "restored from a backup".');
    await withDatabase(terminal, "gate", async (db) => {
      const { record } = await mailGate(db);
      const before = record.is_open ? "" : ` It is closed until ${timeText(record.closed_until)} already.`;
      const how_long = wait === null ? "until somebody opens the gate" : `for ${wait}`;
      await terminal.confirm(`Hold all mail back ${how_long}?${before}`, given);
      const did = await call(db, terminal, sql<string>`close_mail_gate(${wait}::interval, ${reason})`);
      terminal.show({ did }, sentence(did));
    });
  },
};
