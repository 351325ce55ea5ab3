import { pino, type DestinationStream, type Logger } from "pino";

export type Log = Logger;

/** What could hold a secret is not logged at all; this is the second line. */
const REDACT = ["*.authorization", "*.password", "*.connectionString", '*["x-restore-secret"]'];

/** A message that quotes a page, or a stack that is deep: enough to know it by. */
const MAX_TEXT_LENGTH = 2_000;

/**
 * What of an error is logged. Libraries hang whole objects on theirs (pg its client, the SDK its response), and Postgres
 * quotes the row that it refuses (detail, where): addresses and ARNs. So nothing goes through but what is named here.
 */
export function errorFields(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return reasonOf(error);
  const { code, constraint } = error as { code?: unknown; constraint?: unknown };
  return {
    type: error.name,
    message: reasonOf(error),
    ...(typeof code === "string" && { code }),
    ...(typeof constraint === "string" && { constraint }),
    stack: error.stack?.slice(0, MAX_TEXT_LENGTH),
    // Some errors are their own cause's cause.
    ...(error.cause !== undefined && depth < 3 && { cause: errorFields(error.cause, depth + 1) }),
  };
}

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

/** JSON lines, on stdout unless told otherwise. */
export function createLog(level: string, destination?: DestinationStream): Log {
  const options = {
    level,
    base: null,
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: (error: unknown) => errorFields(error) },
    redact: { paths: REDACT },
  };
  return pino(options, destination ?? standardOutput());
}

/**
 * pino stops writing to a broken pipe. A closed terminal would end the process before it has stopped, and then keep it for
 * ever, for at the exit it tries to write what is left until that succeeds. So it is to be treated alike.
 */
function standardOutput(): DestinationStream {
  const stdout = pino.destination(1);
  stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (!isClosedOutput(error)) throw error;
    const nothing = (): boolean => true;
    Object.assign(stdout, { write: nothing, flushSync: nothing, end: nothing, destroy: nothing });
  });
  return stdout;
}

/** A pipe that nobody reads any more, or a terminal that is gone. */
const isClosedOutput = (error: NodeJS.ErrnoException): boolean =>
  error.code === "EPIPE" || error.code === "EIO";

/**
 * For whoever prints: a reader that has seen enough (`| head`) and a terminal that was closed are no errors. What was
 * begun goes on to its end and to its exit code, unread, unless `whenClosed` ends it.
 */
export function allowClosedOutput(whenClosed: () => void = () => {}): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (!isClosedOutput(error)) throw error;
      whenClosed();
    });
  }
}
