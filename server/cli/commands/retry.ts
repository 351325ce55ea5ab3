import { sql } from "kysely";

import { EXIT, YES, type Command } from "../command.ts";
import { call, findRestore, withDatabase } from "../database.ts";

export const retry: Command = {
  name: "retry",
  args: "ID",
  summary: "Asks S3 again now about a restore; a failed one begins anew",
  examples: [
    ["0b54c1de", "the restore or request whose id begins so (status shows ids)"],
    ["0b54c1de-5f7a-4c0e-9b1a-7d1f0c9a2e11 --yes", "from a script"],
  ],
  options: YES,
  run: (terminal, [typed = ""], given) =>
    withDatabase(terminal, "retry", async (db) => {
      const { id, about, state } = await findRestore(db, typed);
      await terminal.confirm(`Retry ${about}?`, given);
      const did = await call(db, terminal, sql<string>`retry_restore(${id})`, { status: state });
      terminal.show({ id, did }, `${about}: ${did}.`);
      return state === "closed" ? EXIT.wrong_state : EXIT.done;
    }),
};
