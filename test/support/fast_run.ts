/** Makes a run fast on this machine. No test may depend on it. */
import { statfsSync } from "node:fs";
import { join } from "node:path";

import { ROOT } from "./root.ts";

/** Linux's file system in memory. */
const MEMORY = "/dev/shm";
/** Five servers with a quarter of a GB of WAL each, and a few databases. Containers often have 64 MB, too little. */
const ROOM_BYTES = 4 * 1024 ** 3;

/** For this process and all that it starts. */
export function prepareFastRun(): void {
  // Each test has a database, and a database is 300 files: on a disk it takes seven times the processor time, in the kernel.
  if (hasRoom(MEMORY)) process.env["TMPDIR"] = MEMORY;
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

function hasRoom(directory: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize >= ROOM_BYTES;
  } catch {
    return false;
  }
}
