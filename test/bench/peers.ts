/** Programs that are measured against, where they are installed. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Rate of a program, or how to install it. */
export type Rate = number | { missing: string };

const missing = (name: string, install: string): Rate => ({ missing: `peer missing: ${name} (${install})` });

async function isInstalled(program: string): Promise<boolean> {
  return run(program, ["--version"]).then(
    () => true,
    () => false,
  );
}

/** Transactions per second of one statement, 64 clients. */
export async function pgbench(databaseUrl: string, statement: string, seconds: number): Promise<Rate> {
  if (!(await isInstalled("pgbench"))) return missing("pgbench", "apt install postgresql-contrib");
  const dir = await mkdtemp(join(tmpdir(), "thaw-pgbench-"));
  await writeFile(join(dir, "script.sql"), statement);
  const args = [
    "-n",
    "-M",
    "prepared",
    "-c",
    "64",
    "-j",
    "2",
    "-T",
    String(seconds),
    "-f",
    join(dir, "script.sql"),
    databaseUrl,
  ];
  const { stdout } = await run("pgbench", args);
  await rm(dir, { recursive: true });
  return Number(/tps = ([\d.]+)/.exec(stdout)?.[1]);
}

/** Objects per second, of `count` under a prefix of bucket "bench". */
export async function rclone(endpoint: string, prefix: string, count: number): Promise<Rate> {
  if (!(await isInstalled("rclone"))) return missing("rclone", "apt install rclone");
  // rclone 1.60 fails while this is set.
  const { AWS_CA_BUNDLE: _, ...env } = process.env;
  const started = performance.now();
  await run(
    "rclone",
    [
      "backend",
      "restore",
      `:s3,provider=Other,access_key_id=AKIATHAW000000000001,secret_access_key=secret,region=us-east-1,endpoint='${endpoint}':bench/${prefix}`,
      "-o",
      "priority=Standard",
      "-o",
      "lifetime=7",
    ],
    { env: { ...env, RCLONE_CONFIG: "/dev/null" }, maxBuffer: 1e8 },
  );
  return count / ((performance.now() - started) / 1000);
}

export async function s3cmd(endpoint: string, prefix: string, count: number): Promise<Rate> {
  if (!(await isInstalled("s3cmd"))) return missing("s3cmd", "apt install s3cmd");
  const { host } = new URL(endpoint);
  const started = performance.now();
  await run(
    "s3cmd",
    [
      "--no-ssl",
      `--host=${host}`,
      `--host-bucket=${host}`,
      "--access_key=AKIATHAW000000000001",
      "--secret_key=secret",
      "--config=/dev/null",
      "--restore-days=7",
      "--restore-priority=standard",
      "restore",
      "--recursive",
      `s3://bench/${prefix}`,
    ],
    { maxBuffer: 1e8 },
  );
  return count / ((performance.now() - started) / 1000);
}
