import { sql } from "kysely";

import { CommandError, EXIT, YES, type Command } from "../command.ts";
import { call, findMail, withDatabase } from "../database.ts";

export const resolve: Command = {
  name: "resolve",
  args: "ID",
  summary: "Says whether a mail of unknown outcome was sent (resend.com lists what was)",
  examples: [
    ["7c2e9f40 --sent", "it was: its readers count as told"],
    ["7c2e9f40 --not-sent", "it was not: it goes out now"],
  ],
  options: {
    sent: { type: "boolean", what: "Resend has sent it" },
    "not-sent": { type: "boolean", what: "Resend has not sent it" },
    ...YES,
  },
  async run(terminal, [typed = ""], given) {
    const was_sent = given["sent"] === true;
    if (was_sent === (given["not-sent"] === true))
      throw new CommandError(EXIT.usage, "Say either --sent or --not-sent.");
    await withDatabase(terminal, "resolve", async (db) => {
      const { id, about, state } = await findMail(db, typed);
      const effect = was_sent ? "Note as sent the" : "Send again, as it was not sent, the";
      await terminal.confirm(`${effect} ${about}?`, given);
      const did = await call(db, terminal, sql<string>`resolve_notification(${id}, ${was_sent})`, {
        status: state,
      });
      terminal.show({ id, did }, `The ${about}: ${did}.`);
    });
  },
};
