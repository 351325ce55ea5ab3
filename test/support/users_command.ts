/** `npm run users` as people run it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { runCommand } from "./run_command.ts";

export async function users(
  databaseUrl: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<{ code: number; out: string }> {
  const { code, output } = await runCommand(["server/cli/users.ts", ...args], {
    DATABASE_URL: databaseUrl,
    ...env,
  });
  return { code, out: output };
}

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
