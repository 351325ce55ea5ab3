/** `npm run users` as people run it. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const users = (
  databaseUrl: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<{ code: number; out: string }> =>
  new Promise((resolve) => {
    execFile(
      process.execPath,
      [`${import.meta.dirname}/../../server/cli/users.ts`, ...args],
      { env: { ...process.env, DATABASE_URL: databaseUrl, ...env } },
      (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code), out: stdout + stderr }),
    );
  });

export const withFile = async <T>(
  content: string | Buffer,
  use: (file: string) => Promise<T>,
): Promise<T> => {
  const directory = mkdtempSync(join(tmpdir(), "users-"));
  try {
    const file = join(directory, "keys.csv");
    writeFileSync(file, content);
    return await use(file);
  } finally {
    rmSync(directory, { recursive: true });
  }
};
