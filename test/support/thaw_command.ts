/** `npm run thaw`, in this process, and at a terminal of its own. */
import { spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { run } from "../../server/cli/door.ts";
import type { Io } from "../../server/cli/terminal.ts";
import type { Row } from "./rows.ts";

export interface Ended {
  exit: number;
  out: string;
  err: string;
  asked: string[];
}

/** Runs a command in this process, by Anna; `answer` makes a terminal at which she types that. */
export async function thaw(
  databaseUrl: string,
  /** As words where one of them has a space. */
  words: string | readonly string[],
  { answer, ...changes }: Partial<Io> & { answer?: string } = {},
): Promise<Ended> {
  const ended: Ended = { exit: -1, out: "", err: "", asked: [] };
  const ask = (question: string): Promise<string> => {
    ended.asked.push(question);
    return Promise.resolve(answer ?? "");
  };
  ended.exit = await run(typeof words === "string" ? words.split(" ") : words, {
    env: { DATABASE_URL: databaseUrl },
    out: (text) => (ended.out += text),
    err: (text) => (ended.err += text),
    colours: false,
    user: "anna",
    ...(answer !== undefined && { ask }),
    ...changes,
  });
  return ended;
}

const THAW = join(import.meta.dirname, "../../server/cli/thaw.ts");

/** As a process at a terminal of its own (script); `answer` is typed when it asks. */
export async function atTerminal(
  words: string,
  environment: Record<string, string>,
  answer: string,
): Promise<{ code: unknown; output: string }> {
  const terminal = spawn("script", ["-qec", `${process.execPath} ${THAW} ${words}`, "/dev/null"], {
    cwd: tmpdir(),
    env: { TERM: "xterm", ...environment },
  });
  let output = "";
  let is_asked = false;
  terminal.stdout.on("data", (chunk) => {
    output += String(chunk);
    if (is_asked || !output.includes("[y/N]")) return;
    is_asked = true;
    terminal.stdin.write(answer);
  });
  const code = await new Promise((resolve) => terminal.once("close", resolve));
  return { code, output };
}

export const jsonLines = (out: string): Row[] =>
  out
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Row);
