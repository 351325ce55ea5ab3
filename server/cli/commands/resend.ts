import { sql } from "kysely";

import { YES, type Command } from "../command.ts";
import { call, findMail, withDatabase } from "../database.ts";

export const resend: Command = {
  name: "resend",
  args: "ID",
  summary: "Sends a mail once more; if the first one did arrive, the person has it twice",
  examples: [
    ["7c2e9f40", "the mail whose id begins so, or the latest mail about that request"],
    ["7c2e9f40 --yes", "from a script"],
  ],
  options: YES,
  run: (terminal, [typed = ""], given) =>
    withDatabase(terminal, "resend", async (db) => {
      const { id, about, state } = await findMail(db, typed);
      await terminal.confirm(
        `Send the ${about} once more? If it did arrive, the person gets it twice.`,
        given,
      );
      const notification_id = await call(db, terminal, sql<string>`resend_notification(${id})`, {
        status: state,
      });
      terminal.show({ id, notification_id }, `The ${about}: sent again, as ${notification_id}.`);
    }),
};
