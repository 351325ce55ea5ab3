/** Prometheus' own judge of rules and metrics: a program of a distribution. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

const PROMTOOL = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/bin", "/usr/local/bin"]
  .map((folder) => join(folder, "promtool"))
  .find((path) => existsSync(path));

export const MISSING_PROMTOOL: string[] =
  PROMTOOL === undefined ? ["No promtool here: apt install prometheus."] : [];

export interface Judged {
  status: number | null;
  output: string;
}

/** Runs it; `files` are written to a folder of its own, in which it runs. */
export function promtool(args: string[], files: Record<string, string> = {}, input = ""): Judged {
  const folder = mkdtempSync(join(tmpdir(), "thaw-promtool-"));
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const { status, stdout, stderr } = spawnSync(PROMTOOL ?? "promtool", args, {
      cwd: folder,
      input,
      encoding: "utf8",
    });
    return { status, output: `${stdout}${stderr}` };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
