/** Longer ones are pages of HTML, or rows quoted: nobody reads them on one line. */
const MAX_LENGTH = 300;

/** An error as one short line for a log or a terminal. Several addresses that all refuse come as one error without a text. */
export function reasonOf(error: unknown): string {
  const reason =
    error instanceof AggregateError && error.errors.length > 0
      ? [...new Set(error.errors.map(textOf))].join("; ")
      : textOf(error);
  const line = reason.replaceAll(/\s+/g, " ").trim();
  return line.length > MAX_LENGTH ? `${line.slice(0, MAX_LENGTH)}...` : line;
}

function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as { code?: unknown };
  return error.message || (typeof code === "string" ? code : error.name);
}
