/** What commands write and ask: results to stdout, as text or as JSON lines; talk and questions to stderr. */
import { once } from "node:events";
import { userInfo } from "node:os";
import { createInterface } from "node:readline/promises";
import { styleText } from "node:util";

import { INVISIBLE } from "../wording/invisible.ts";
import { CommandError, EXIT, type Given } from "./command.ts";
import { Progress } from "./progress.ts";

/** The world around a command. */
export interface Io {
  env: NodeJS.ProcessEnv;
  out: (text: string) => void;
  err: (text: string) => void;
  /** Undefined: there is no terminal at which a person could answer. */
  ask?: (question: string) => Promise<string>;
  colours: boolean;
  /** Draws the last line of the terminal anew; undefined: talk is read as lines. */
  redraw?: (line: string) => void;
  /** Aborts when somebody presses Ctrl-C; a second time ends the process at once. */
  interrupt?: () => AbortSignal;
  /** Who runs the command, as the operating system knows them. */
  user: string;
}

/** Text from outside on one line, with invisible characters escaped: a file's name may hold a line break or U+202E. */
export const visible = (text: string): string =>
  text.replaceAll(INVISIBLE, (found) => `\\u{${found.codePointAt(0)?.toString(16)}}`);

/** As it begins and ends in a text. */
export const sentence = (text: string): string =>
  `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

/** "2026-11-27 18:40 UTC". pg reads infinity, which only the mail gate has, as a number. */
export function timeText(time: Date | number | null): string {
  if (time === null) return "-";
  return time instanceof Date
    ? `${time.toISOString().slice(0, 16).replace("T", " ")} UTC`
    : "somebody opens it";
}

/** JSON in ASCII where it would be hidden; what it means stays the same. */
const jsonLine = (record: object): string =>
  JSON.stringify(record, (_, value: unknown) =>
    typeof value === "number" && !Number.isFinite(value) ? (value > 0 ? "infinity" : "-infinity") : value,
  ).replaceAll(INVISIBLE, (hidden) =>
    Array.from(hidden.split(""), (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join(""),
  );

const widthOf = (text: string): number => Array.from(text).length;

export type Style = "bold" | "red" | "green";

/** A column's title, and its text for a row. */
export type Columns<Row> = Record<string, (row: Row) => string | number>;

/** Where a command writes: `record` with --json, else the text. Only our own line breaks and colours reach the terminal. */
export class Terminal {
  readonly #io: Io;
  readonly #json: boolean;

  constructor(io: Io, json = false) {
    this.#io = io;
    this.#json = json;
  }

  get env(): NodeJS.ProcessEnv {
    return this.#io.env;
  }

  get user(): string {
    return this.#io.user;
  }

  /** One result. Several texts are separated by tabs. */
  show(record: object, ...texts: string[]): void {
    this.#io.out(`${this.#json ? jsonLine(record) : texts.map(visible).join("\t")}\n`);
  }

  /** The result that people see first. */
  heading(record: object, text: string, style: Style): void {
    this.#io.out(`${this.#json ? jsonLine(record) : this.#styled(visible(text), style)}\n`);
  }

  /** Text that is no result of its own; nothing with --json. */
  text(line: string): void {
    if (!this.#json) this.#io.out(`${visible(line)}\n`);
  }

  /** A file as it is, for a pipe; its maker has escaped what must be. */
  file(text: string): void {
    this.#io.out(text);
  }

  /** Talk beside the results, on a line of its own. */
  say(line: string): void {
    this.#io.err(`${visible(line)}\n`);
  }

  /** How far something is: "listed", "handed in". */
  progress(what: string): Progress {
    const { redraw } = this.#io;
    return new Progress(what, redraw, (line) => this.say(line));
  }

  /** For work that can be stopped between two steps. */
  interrupt(): AbortSignal {
    return this.#io.interrupt?.() ?? new AbortController().signal;
  }

  get is_json(): boolean {
    return this.#json;
  }

  table<Row extends object>(kind: string, columns: Columns<Row>, rows: Row[]): void {
    if (this.#json) {
      for (const row of rows) this.#io.out(`${jsonLine({ kind, ...row })}\n`);
      return;
    }
    const titles = Object.keys(columns);
    const lines = [
      titles,
      ...rows.map((row) => Object.values(columns).map((text) => visible(String(text(row))))),
    ];
    const widths = titles.map((_, at) => Math.max(...lines.map((cells) => widthOf(cells[at] ?? ""))));
    for (const [index, cells] of lines.entries()) {
      const padded = cells.map((cell, at) => cell + " ".repeat((widths[at] ?? 0) - widthOf(cell)));
      this.#io.out(`${this.#styled(padded.join("  ").trimEnd(), index === 0 ? "bold" : undefined)}\n`);
    }
  }

  /** Asks before something is changed. @throws CommandError when the answer is no, or nobody can be asked. */
  async confirm(question: string, given: Given): Promise<void> {
    if (given["yes"] === true) return;
    const answer = await this.#answer(`${question} [y/N] `, "--yes");
    if (!/^y(es)?$/i.test(answer)) throw new CommandError(EXIT.failed, "Nothing was changed.");
  }

  /** Before something that cannot be undone: the name must be typed, or be given as --confirm. */
  async confirmName(question: string, name: string, given: Given): Promise<void> {
    const answer = given["confirm"] ?? (await this.#answer(`${question} `, `--confirm=${name}`));
    if (answer !== name)
      throw new CommandError(EXIT.failed, `That is not ${visible(name)}. Nothing was changed.`);
  }

  async #answer(question: string, option: string): Promise<string> {
    if (this.#io.ask === undefined) {
      throw new CommandError(EXIT.usage, `No terminal can answer here: add ${option}. Nothing was changed.`);
    }
    return (await this.#io.ask(visible(question))).trim();
  }

  #styled(text: string, style: Style | undefined): string {
    return style !== undefined && this.#io.colours ? styleText(style, text, { validateStream: false }) : text;
  }
}

/** This process's own. */
export function processIo(env: NodeJS.ProcessEnv): Io {
  const { stdin, stdout, stderr } = process;
  return {
    env,
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    ...(stdin.isTTY && stderr.isTTY && { ask }),
    ...(stderr.isTTY && env["TERM"] !== "dumb" && { redraw }),
    interrupt,
    colours: stdout.isTTY && !env["NO_COLOR"] && env["TERM"] !== "dumb",
    user: osUser(),
  };
}

/** In one write: the cursor to the beginning, what is there away, the line as far as it fits. */
function redraw(line: string): void {
  process.stderr.write(
    `\r\u001B[2K${Array.from(line)
      .slice(0, (process.stderr.columns || 80) - 1)
      .join("")}`,
  );
}

function interrupt(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      // As a shell says it: 128 and the signal's number.
      if (controller.signal.aborted) process.exit(signal === "SIGINT" ? 130 : 143);
      controller.abort();
    });
  }
  return controller.signal;
}

/** Ctrl-D and Ctrl-C answer nothing. */
async function ask(question: string): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const closed = once(lines, "close").then(() => "");
  const answer = await Promise.race([lines.question(question).catch(() => ""), closed]);
  lines.close();
  return answer;
}

/** A container's user may have no name. */
function osUser(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? "unknown"}`;
  }
}
