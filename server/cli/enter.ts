/** How a process enters the door, and leaves with its exit code. */
import { allowClosedOutput } from "../log.ts";
import type { Exit } from "./command.ts";
import { run, type Door } from "./door.ts";
import { processIo } from "./terminal.ts";

/** Runs the command that was typed, and ends the process; `exitOf` maps its exit code. */
export async function enter(
  words: readonly string[],
  env: NodeJS.ProcessEnv,
  door?: Door,
  exitOf: (exit: Exit) => number = (exit) => exit,
): Promise<void> {
  allowClosedOutput();
  const exit = await run(words, processIo(env), door);
  // The end of what is written comes first, where a pipe is slow. Not only the exit code: calls that timed out, and
  // connections on which pg could not log in, may still be open.
  process.stdout.write("", () => process.exit(exitOf(exit)));
}
