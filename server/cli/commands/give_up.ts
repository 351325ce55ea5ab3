import { sql } from "kysely";

import { YES, type Command } from "../command.ts";
import { call, findRestore, withDatabase } from "../database.ts";

export const giveUp: Command = {
  name: "give-up",
  args: "ID",
  summary: "Ends a restore that is not ready yet; its readers are told that it failed",
  examples: [
    ["0b54c1de", "the restore or request whose id begins so (status shows ids)"],
    ["0b54c1de --yes", "from a script"],
  ],
  options: YES,
  run: (terminal, [typed = ""], given) =>
    withDatabase(terminal, "give-up", async (db) => {
      const { id, about, state } = await findRestore(db, typed);
      await terminal.confirm(`Give up ${about}? Its readers get a mail that says so.`, given);
      const did = await call(db, terminal, sql<string>`give_up_restore(${id})`, { status: state });
      terminal.show({ id, did }, `${about}: ${did}.`);
    }),
};
