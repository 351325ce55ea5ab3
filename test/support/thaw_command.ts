/** `npm run thaw`, in this process. */
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

export const jsonLines = (out: string): Row[] =>
  out
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Row);
