import { ConfigError } from "./config.ts";
import { MigrationError } from "./postgres/migrate.ts";
import { isUnavailable, whatToDo } from "./postgres/errors.ts";
import { reasonOf } from "./log.ts";

/** Prints a problem that the operator can solve as a sentence, a bug with its stack. */
export function reportError(error: unknown): void {
  if (error instanceof ConfigError || error instanceof MigrationError) console.error(error.message);
  else if (isUnavailable(error)) {
    console.error(`Postgres cannot be used: ${reasonOf(error)}. ${whatToDo(error)}.`);
  } else console.error(error instanceof Error ? error.stack : error); // Not its fields: pg's errors carry the client.
}
