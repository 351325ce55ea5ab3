/** The one door of all commands: finds the command, reads its arguments, and turns errors into sentences and exit codes. */
import { parseArgs } from "node:util";

import { ConfigError } from "../config.ts";
import { isBadRow, isForbidden, isLocked, isTooSlow, isUnavailable, whatToDo } from "../postgres/errors.ts";
import { reasonOf } from "../log.ts";
import { CommandError, EXIT, type Command, type Exit, type Given, type Option } from "./command.ts";
import { cost } from "./commands/cost.ts";
import { doctor } from "./commands/doctor.ts";
import { gate, gateClose, gateOpen } from "./commands/gate.ts";
import { giveUp } from "./commands/give_up.ts";
import { holdApprove, holdList, holdRefuse, holdShow } from "./commands/hold.ts";
import { limitList, limitRemove, limitSet } from "./commands/limit.ts";
import { mailsPreview } from "./commands/mails_preview.ts";
import { policyCheck, policyImport, policyList, policyRemove, policySet } from "./commands/policy.ts";
import { pricesImport, pricesList } from "./commands/prices.ts";
import { resend } from "./commands/resend.ts";
import { resolve } from "./commands/resolve.ts";
import { restore } from "./commands/restore.ts";
import { retry } from "./commands/retry.ts";
import { status } from "./commands/status.ts";
import { usersCheck, usersErase, usersImport, usersList, usersRemove } from "./commands/users.ts";
import { sentence, Terminal, visible, type Io } from "./terminal.ts";

/** In the order in which help shows them. */
const COMMANDS: readonly Command[] = [
  status,
  doctor,
  restore,
  retry,
  resend,
  giveUp,
  resolve,
  gate,
  gateOpen,
  gateClose,
  usersImport,
  usersList,
  usersCheck,
  usersRemove,
  usersErase,
  holdList,
  holdShow,
  holdApprove,
  holdRefuse,
  policyList,
  policySet,
  policyRemove,
  policyCheck,
  policyImport,
  limitList,
  limitSet,
  limitRemove,
  cost,
  pricesList,
  pricesImport,
  mailsPreview,
];

/** Of every command. */
const COMMON: Record<string, Option> = {
  json: { type: "boolean", what: "one JSON object per line, times in ISO 8601 UTC" },
  help: { type: "boolean", what: "this text" },
};

const EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not in that state, 5 database away";

/** What is typed before a command: `npm run users --` leaves out the first word. */
export interface Door {
  typed: string;
  prefix: string;
}
const THAW: Door = { typed: "npm run thaw --", prefix: "" };

/** Runs `words` as typed after that door; returns the exit code. */
export async function run(words: readonly string[], io: Io, door: Door = THAW): Promise<Exit> {
  const all = door.prefix === "" ? words : [door.prefix, ...words];
  const command = commandOf(all);
  try {
    if (command === undefined || wantsHelp(command, all)) return help(all, command, io, door);
    const { given, args } = read(command, all.slice(command.name.split(" ").length));
    return (await command.run(new Terminal(io, given["json"] === true), args, given)) ?? EXIT.done;
  } catch (error) {
    const { exit, message } = problemOf(error);
    const usage = exit === EXIT.usage ? `\n${listOf(groupOf(all), door)}` : "";
    io.err(`${message.split("\n").map(visible).join("\n")}\n${usage}`);
    return exit;
  }
}

/** The longest name that the words begin with. */
const commandOf = (words: readonly string[]): Command | undefined =>
  COMMANDS.filter(({ name }) => `${words.join(" ")} `.startsWith(`${name} `)).toSorted(
    (a, b) => b.name.length - a.name.length,
  )[0];

/** Those with the same first word; where there are none, all. */
function groupOf([first = ""]: readonly string[]): readonly Command[] {
  const group = COMMANDS.filter(({ name }) => name.split(" ")[0] === first);
  return group.length > 0 ? group : COMMANDS;
}

function wantsHelp({ name }: Command, words: readonly string[]): boolean {
  const rest = words.slice(name.split(" ").length);
  const options = rest.includes("--") ? rest.slice(0, rest.indexOf("--")) : rest;
  return options.includes("-h") || options.includes("--help");
}

function read(command: Command, words: readonly string[]): { given: Given; args: string[] } {
  const options = { ...command.options, ...COMMON };
  const { values, positionals } = parse(words, options);
  const [least, most] = boundsOf(command.args);
  if (positionals.length < least) throw new CommandError(EXIT.usage, `${command.args} is missing.`);
  if (positionals.length > most) {
    throw new CommandError(EXIT.usage, `${positionals[most]} is one argument too many.`);
  }
  return { given: values, args: positionals };
}

function parse(words: readonly string[], options: Record<string, Option>) {
  try {
    const config = Object.entries(options).map(([name, { type }]) => [name, { type }] as const);
    return parseArgs({ args: [...words], options: Object.fromEntries(config), allowPositionals: true });
  } catch (error) {
    throw new CommandError(
      EXIT.usage,
      (error as Error).message.replace(/\. To specify a positional.*/s, "."),
    );
  }
}

const boundsOf = (args: string): [least: number, most: number] =>
  args === "" ? [0, 0] : args.startsWith("[") ? [0, Infinity] : [1, 1];

/** An error as a person reads it. A bug keeps its stack, but not its fields: pg's errors carry the client. */
function problemOf(error: unknown): { exit: Exit; message: string } {
  if (error instanceof CommandError) return { exit: error.exit, message: error.message };
  if (error instanceof ConfigError) return { exit: EXIT.failed, message: error.message };
  const { code, hint } = error as { code?: unknown; hint?: unknown };
  const reason = reasonOf(error);
  const message = `${sentence(reason)}${typeof hint === "string" ? ` ${hint}` : ""}`;
  if (code === "P0002") return { exit: EXIT.not_found, message };
  if (code === "55000") return { exit: EXIT.wrong_state, message };
  if (isForbidden(error)) {
    return {
      exit: EXIT.failed,
      message: `The database role in DATABASE_URL may not do this (${reason}). Connect as thaw_operator, or as the owner (sql/README.md, "Roles").`,
    };
  }
  if (isLocked(error) || isTooSlow(error)) {
    return {
      exit: EXIT.failed,
      message: `Postgres did not get it done in time (${reason}): somebody may hold a lock on it. Try again.`,
    };
  }
  if (isUnavailable(error)) {
    return {
      exit: EXIT.database_away,
      message: `Postgres cannot be used: ${reason}. ${whatToDo(error)}.`,
    };
  }
  if (isBadRow(error)) return { exit: EXIT.failed, message };
  return { exit: EXIT.failed, message: error instanceof Error ? (error.stack ?? reason) : reason };
}

const typed = (command: Pick<Command, "name">, { typed: before, prefix }: Door): string =>
  `${before} ${command.name.slice(prefix === "" ? 0 : prefix.length + 1)}`.trimEnd();

/** To stdout when it was asked for; else to stderr, after what is wrong. */
function help(words: readonly string[], command: Command | undefined, io: Io, door: Door): Exit {
  if (command !== undefined) {
    const others = groupOf(words).filter((other) => other !== command);
    io.out(helpOf(command, door) + (others.length === 0 ? "" : `\nSee also:\n${listOf(others, door)}`));
    return EXIT.done;
  }
  const group = groupOf(words);
  const text = `${listOf(group, door)}\nEach explains itself with -h.\n${EXIT_CODES}\n`;
  if (words.includes("-h") || words.includes("--help")) {
    io.out(text);
    return EXIT.done;
  }
  // Two words name a command of a group.
  const known = group === COMMANDS ? 0 : 1;
  const unknown = words.length > known ? words.slice(0, known + 1).join(" ") : "";
  const first =
    unknown === "" ? "" : `There is no command ${visible(unknown)}.${suggestion(unknown, door)}\n\n`;
  io.err(first + text);
  return EXIT.usage;
}

function listOf(commands: readonly Command[], door: Door): string {
  const left = commands.map((command) => `  ${typed(command, door)} ${command.args}`.trimEnd());
  const width = Math.max(...left.map((text) => text.length));
  return commands.map(({ summary }, at) => `${(left[at] ?? "").padEnd(width)}  ${summary}\n`).join("");
}

function helpOf(command: Command, door: Door): string {
  const options = { ...command.options, ...COMMON };
  const examples = command.examples.map(
    ([args, what]) => [`${typed(command, door)} ${args}`.trimEnd(), what] as const,
  );
  const flags = Object.entries(options).map(
    ([name, { value, what }]) =>
      [`${name === "help" ? "-h, " : ""}--${name}${value === undefined ? "" : ` ${value}`}`, what] as const,
  );
  const columns = (rows: (readonly [string, string])[]): string => {
    const width = Math.max(...rows.map(([left]) => left.length));
    return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}\n`).join("");
  };
  return (
    `${command.summary}\n\n${columns(examples)}\n` +
    `Usage: ${typed(command, door)} ${command.args === "" ? "" : `${command.args} `}[options]\n${columns(flags)}\n${EXIT_CODES}\n`
  );
}

/** A slip of the fingers is off by one or two; more is another word. */
const SLIP = 2;

function suggestion(unknown: string, door: Door): string {
  const names = COMMANDS.flatMap(({ name }) => [name, name.split(" ")[0] ?? name]);
  const [nearest] = names
    .map((name) => ({ name, distance: distance(unknown.toLowerCase(), name) }))
    .toSorted((a, b) => a.distance - b.distance);
  return nearest !== undefined && nearest.distance <= SLIP ? ` Did you mean: ${typed(nearest, door)}` : "";
}

/** Levenshtein: letters to add, drop or change. */
function distance(one: string, other: string): number {
  let above = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (const [row, letter] of Array.from(one).entries()) {
    const current = [row + 1];
    for (let at = 1; at <= other.length; at++) {
      const changed = (above[at - 1] ?? 0) + (letter === other[at - 1] ? 0 : 1);
      current.push(Math.min(changed, (above[at] ?? 0) + 1, (current[at - 1] ?? 0) + 1));
    }
    above = current;
  }
  return above[other.length] ?? 0;
}
