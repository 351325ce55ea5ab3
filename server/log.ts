import { pino, type DestinationStream, type Logger } from "pino";

export type Log = Logger;

/** What could hold a secret is not logged at all; this is the second line. */
const REDACT = ["*.authorization", "*.password", "*.connectionString", '*["x-restore-secret"]'];

/** Where Postgres quotes the row, or the JSON, that it refuses: addresses and ARNs. */
const QUOTES = ["err.detail", "err.where"];

/** JSON lines, on stdout unless told otherwise. */
export function createLog(level: string, destination?: DestinationStream): Log {
  const options = {
    level,
    base: null,
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: [...REDACT, ...QUOTES] },
  };
  return destination ? pino(options, destination) : pino(options);
}
