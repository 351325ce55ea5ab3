/** Makes a run fast on this machine. No test may depend on it. */
import { chmodSync, mkdirSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";

import { ROOT } from "./root.ts";

/** Linux's file system in memory. */
const MEMORY = "/dev/shm";
/** Five servers with a quarter of a GB of WAL each, and a few databases. Containers often have 64 MB, too little. */
const ROOM_BYTES = 4 * 1024 ** 3;

/** For this process and all that it starts. */
export function prepareFastRun(): void {
  // Each test has a database, and a database is 300 files: on a disk it takes seven times the processor time, in the kernel.
  // What KEEP_DB=1 keeps, stays on the disk.
  if (process.env["KEEP_DB"] !== "1" && hasRoom()) process.env["TMPDIR"] = makeDirectory();
  // A third of the start of a process is stripping types and compiling.
  process.env["NODE_COMPILE_CACHE"] ??= join(ROOT, "node_modules/.cache/compiled");
}

/**
 * The environment of a process that a test starts; the test adds its settings, and nothing else may matter. Of another
 * checkout, which is gone after the test, nothing is kept in the cache.
 */
export const baseEnv = (root = ROOT): Record<string, string> => ({
  PATH: process.env["PATH"] ?? "",
  ...(root === ROOT && { NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? "" }),
});

function hasRoom(): boolean {
  try {
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize >= ROOM_BYTES;
  } catch {
    return false;
  }
}

/** One for the run. It takes memory, so what killed runs have left goes as well. */
function makeDirectory(): string {
  for (const name of readdirSync(MEMORY)) {
    const [, pid] = /^thaw-tests-(\d+)$/.exec(name) ?? [];
    if (pid !== undefined && !isRunning(Number(pid))) remove(join(MEMORY, name));
  }
  const directory = join(MEMORY, `thaw-tests-${process.pid}`);
  mkdirSync(directory, { recursive: true });
  // As /tmp: Postgres may run as somebody else.
  chmodSync(directory, 0o1777);
  process.once("exit", () => remove(directory));
  return directory;
}

const remove = (directory: string): void => {
  try {
    rmSync(directory, { recursive: true, force: true });
  } catch {
    // Somebody else's, or just being written to: it takes memory, and no more than that.
  }
};

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
