import { pino, type Logger } from "pino";

export type Log = Logger;

/** JSON lines on stdout. What could hold a secret is not logged at all; the redaction is the second line. */
export function createLog(level: string): Log {
  return pino({
    level,
    base: null,
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: ["*.authorization", "*.password", "*.connectionString", '*["x-restore-secret"]'] },
  });
}
