/** Thaw's commands as operators run them: from anywhere, with nothing in the environment but what they are given. */
import { execFile } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { baseEnv } from "./fast_run.ts";
import { ROOT } from "./root.ts";

/** Time-outs of the commands themselves are far below; the rest is a busy machine. */
const TIMEOUT_MS = 25_000;

export interface Ended {
  code: number;
  /** All that it wrote. */
  output: string;
}

/** Runs `node server/... arguments` to its end. */
export const runCommand = (
  [program = "", ...args]: readonly string[],
  env: Record<string, string | undefined> = {},
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [join(ROOT, program), ...args],
      { cwd: tmpdir(), env: { ...baseEnv(), ...env }, timeout: TIMEOUT_MS },
      (error, stdout, stderr) => {
        const output = stdout + stderr;
        if (error?.killed === true) reject(new Error(`It does not end:\n${output}`));
        else resolve({ code: Number(error?.code ?? 0), output });
      },
    );
  });
