import { ConfigError } from "./config.ts";
import { isUnavailable, whatToDo } from "./postgres_errors.ts";

/** What the person at the terminal can do something about comes as a sentence, a bug with its stack. */
export function reportError(error: unknown): void {
  if (error instanceof ConfigError) console.error(error.message);
  else if (isUnavailable(error)) {
    console.error(`Postgres cannot be used: ${reasonOf(error)}. ${whatToDo(error)}.`);
  } else console.error(error);
}

/** Several addresses that all refuse come as one error without a text. */
const reasonOf = (error: unknown): string =>
  error instanceof AggregateError ? error.errors.map(String).join("; ") : (error as Error).message;
