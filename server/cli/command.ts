/** What a command is, and how it ends. */
import type { Terminal } from "./terminal.ts";

/** Of `npm run thaw`; scripts and cron go by them. */
export const EXIT = { done: 0, failed: 1, usage: 2, not_found: 3, wrong_state: 4, database_away: 5 } as const;
export type Exit = (typeof EXIT)[keyof typeof EXIT];

/** Ends a command with that exit code; the message says what to do. */
export class CommandError extends Error {
  override name = "CommandError";
  readonly exit: Exit;
  constructor(exit: Exit, message: string) {
    super(message);
    this.exit = exit;
  }
}

export interface Option {
  type: "boolean" | "string";
  what: string;
  /** What help calls its value. */
  value?: string;
}

/** As given; --json is the terminal's business, -h the door's. */
export type Given = Record<string, string | boolean | undefined>;

export interface Command {
  /** One word, or two ("gate open"). */
  name: string;
  /** As help shows them: "" takes none, "ID" exactly one, "[BUCKET ...]" any number. */
  args: string;
  summary: string;
  /** What follows the command's name, and what that does. */
  examples: [args: string, what: string][];
  options?: Record<string, Option>;
  /** Returns nothing: done. @throws CommandError, ConfigError, or an error of Postgres'. */
  run(terminal: Terminal, args: string[], given: Given): Promise<Exit | void>;
}

/** Of every command that changes something. */
export const YES: Record<string, Option> = {
  yes: { type: "boolean", what: "do not ask; required where no terminal can answer" },
};
