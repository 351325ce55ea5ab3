/** Restores that somebody has to approve: holds. */
import { sql } from "kysely";

import type { Database } from "../../postgres/rows.ts";
import { dollars, estimated } from "../../wording/dollars.ts";
import { size } from "../../wording/sizes.ts";
import { CommandError, EXIT, YES, type Command, type Given } from "../command.ts";
import { call, withDatabase } from "../database.ts";
import { placeText } from "../place.ts";
import { sentence, timeText, visible, type Terminal } from "../terminal.ts";

interface Hold {
  id: string;
  person: string;
  status: string;
  reason: string;
  objects: number;
  bytes: number;
  estimated_cost: number;
  opened_at: Date;
  last_added_at: Date;
  expires_at: Date | null;
  decided_at: Date | null;
  decided_by: string | null;
}

const HOLD = sql`
  id, person, status, reason, objects::float8 as objects, bytes::float8 as bytes, estimated_cost::float8 as estimated_cost, opened_at,
  last_added_at, expires_at, decided_at, decided_by`;

const files = (n: number): string => `${n.toLocaleString("en-US")} ${n === 1 ? "file" : "files"}`;

/** "12 files, 1.2 TB, an estimated $24.10". */
const burst = ({ objects, bytes, estimated_cost }: Hold): string =>
  `${files(objects)}, ${size(bytes)}, ${estimated(estimated_cost)}`;

const HOLDS_SHOWN = 50;

export const holdList: Command = {
  name: "hold list",
  args: "",
  summary: "Shows what waits for approval, and what was decided lately",
  examples: [
    ["", "what is open comes first"],
    ["--json", "for a script"],
  ],
  run: (terminal) =>
    withDatabase(terminal, "hold", async (db) => {
      const { rows } = await sql<Hold>`
        select ${HOLD} from hold_list h order by h.status = 'open' desc, h.opened_at desc limit ${HOLDS_SHOWN}`.execute(
        db,
      );
      if (rows.length === 0) {
        terminal.text("Nothing waits for approval, and nothing ever did.");
        return;
      }
      terminal.table(
        "hold",
        {
          hold: ({ id }) => id.slice(0, 8),
          status: ({ status }) => status,
          person: ({ person }) => person,
          files: ({ objects }) => objects.toLocaleString("en-US"),
          size: ({ bytes }) => size(bytes),
          "estimated cost": ({ estimated_cost }) => dollars(estimated_cost),
          since: ({ opened_at }) => timeText(opened_at),
          why: ({ reason }) => reason,
        },
        rows,
      );
    }),
};

/** The hold of that id, or the only one whose id begins so. @throws CommandError */
async function findHold(db: Database, typed: string): Promise<Hold> {
  if (!/^[0-9a-f]{8}[0-9a-f-]{0,28}$/i.test(typed)) {
    throw new CommandError(
      EXIT.usage,
      `${typed} is no id: give the one that hold list shows, or at least its first 8 characters.`,
    );
  }
  const digits = typed.replaceAll("-", "");
  const { rows } = await sql<Hold>`
    select ${HOLD} from hold_list h
     where h.id between rpad(${digits}, 32, '0')::uuid and rpad(${digits}, 32, 'f')::uuid order by h.id limit 10`.execute(
    db,
  );
  const [found, ...others] = rows;
  if (found === undefined) throw new CommandError(EXIT.not_found, `There is no hold ${typed}.`);
  if (others.length > 0) {
    const list = rows.map((row) => `  ${row.id}  ${visible(row.person)}`);
    throw new CommandError(EXIT.usage, `${typed} begins several ids; give more of it:\n${list.join("\n")}`);
  }
  return found;
}

interface Held {
  s3_bucket: string;
  s3_key: string;
  size_bytes: number | null;
  storage_class: string | null;
  archive_status: string | null;
  tier: string | null;
  estimated_cost: number | null;
}

const FILES_SHOWN = 10;

export const holdShow: Command = {
  name: "hold show",
  args: "ID",
  summary: "Shows what a hold is about: whose, how much, why, and some of its files",
  examples: [["5d0c3a7e", "the hold whose id begins so"]],
  run: (terminal, [typed = ""]) =>
    withDatabase(terminal, "hold", async (db) => {
      const hold = await findHold(db, typed);
      terminal.heading({ kind: "hold", ...hold }, `${hold.person}: ${burst(hold)}`, "bold");
      terminal.text(sentence(hold.reason));
      terminal.text(
        hold.expires_at === null
          ? `${sentence(hold.status).slice(0, -1)} by ${hold.decided_by}, ${timeText(hold.decided_at)}.`
          : `Waits since ${timeText(hold.opened_at)}; unless somebody decides, it fails at ${timeText(hold.expires_at)}.`,
      );
      const { rows } = await sql<Held>`
        select s3_bucket, s3_key, size_bytes::float8 as size_bytes, storage_class, archive_status, tier, estimated_cost::float8 as estimated_cost
          from held_restores where hold_id = ${hold.id} limit ${FILES_SHOWN}`.execute(db);
      if (rows.length > 0) {
        terminal.text("");
        terminal.table(
          "held",
          {
            file: ({ s3_bucket, s3_key }) => placeText({ s3_bucket, key_prefix: s3_key }),
            size: ({ size_bytes }) => (size_bytes === null ? "-" : size(size_bytes)),
            class: ({ storage_class, archive_status }) => archive_status ?? storage_class ?? "-",
            tier: ({ tier }) => tier ?? "-",
            "estimated cost": ({ estimated_cost }) =>
              estimated_cost === null ? "unknown" : dollars(estimated_cost),
          },
          rows,
        );
        if (hold.objects > rows.length) terminal.text(`Some of ${files(hold.objects)}.`);
      }
      if (hold.status === "open") {
        const id = hold.id.slice(0, 8);
        terminal.text("");
        terminal.text(`Decide: npm run thaw -- hold approve ${id}, or npm run thaw -- hold refuse ${id}`);
      }
    }),
};

/** What they saw goes along: nobody approves more than that. */
async function decide(
  terminal: Terminal,
  typed: string,
  given: Given,
  question: (hold: Hold) => string,
  decision: "approve" | "refuse",
): Promise<void> {
  await withDatabase(terminal, "hold", async (db) => {
    const hold = await findHold(db, typed);
    if (hold.status === "open") await terminal.confirm(question(hold), given);
    const did = await call(
      db,
      terminal,
      decision === "approve"
        ? sql<string>`approve_hold(${hold.id}, '', ${hold.objects}::bigint)`
        : sql<string>`refuse_hold(${hold.id}, '')`,
    );
    terminal.show({ id: hold.id, person: hold.person, did }, sentence(did));
  });
}

export const holdApprove: Command = {
  name: "hold approve",
  args: "ID",
  summary: "Lets the restores of a hold run, counted, beyond the limit",
  examples: [
    ["5d0c3a7e", "the hold whose id begins so; if it has grown since it was shown, nothing happens"],
    ["5d0c3a7e --yes", "from a script"],
  ],
  options: YES,
  run: (terminal, [typed = ""], given) =>
    decide(
      terminal,
      typed,
      given,
      (hold) => `Approve ${burst(hold)}, of ${hold.person} (${hold.reason})?`,
      "approve",
    ),
};

export const holdRefuse: Command = {
  name: "hold refuse",
  args: "ID",
  summary: "Ends the restores of a hold; their readers are told that they were not approved",
  examples: [
    ["5d0c3a7e", "the hold whose id begins so"],
    ["5d0c3a7e --yes", "from a script"],
  ],
  options: YES,
  run: (terminal, [typed = ""], given) =>
    decide(
      terminal,
      typed,
      given,
      (hold) => `Refuse ${burst(hold)}, of ${hold.person}? Those who wait for them get a mail that says so.`,
      "refuse",
    ),
};
