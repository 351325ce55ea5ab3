import { pino, type DestinationStream, type Logger } from "pino";

export type Log = Logger;

/** What may hold a secret is never logged on purpose; this is a second defence. */
const REDACT = ["*.authorization", "*.password", "*.connectionString", '*["x-restore-secret"]'];

/** Enough of a deep stack to recognise it. */
const MAX_TEXT_LENGTH = 2_000;

/**
 * The fields of an error that are logged. Libraries attach whole objects to their errors (pg its client, the SDK its
 * response), and Postgres quotes the row that it refuses (detail, where) with its addresses and ARNs. So this is a list of
 * what is allowed.
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
    // Chains of causes can be circular.
    ...(error.cause !== undefined && depth < 3 && { cause: errorFields(error.cause, depth + 1) }),
  };
}

/** Longer messages are pages of HTML or quoted rows. */
const MAX_LENGTH = 300;

/**
 * An error as one short line for a log or a terminal. A host with several addresses fails with one AggregateError without a
 * text: then each of its reasons, once.
 */
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
 * pino stops writing to a broken pipe (EPIPE) by itself, but not to a closed terminal (EIO): there the error would end the
 * process before it has stopped cleanly, and pino's flush at exit would retry for ever. So both are treated alike.
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

/** The reader of the pipe has exited, or the terminal was closed. */
const isClosedOutput = (error: NodeJS.ErrnoException): boolean =>
  error.code === "EPIPE" || error.code === "EIO";

/**
 * For commands that print: a reader that stops early (`| head`) and a closed terminal are no errors. The command runs on to
 * its end and exit code without output, unless `whenClosed` ends it.
 */
export function allowClosedOutput(whenClosed: () => void = () => {}): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (!isClosedOutput(error)) throw error;
      whenClosed();
    });
  }
}
