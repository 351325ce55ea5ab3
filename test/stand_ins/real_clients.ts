/** Programs that speak S3's language and that nobody here wrote: they hold our S3 to what they expect of the real one. */
import { execFile, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";

/** Where a distribution puts programs, even if somebody's own come first in PATH. */
const FOLDERS = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/bin"];

const found = (name: string): string[] =>
  FOLDERS.map((folder) => join(folder, name)).filter((path) => existsSync(path));

const knowsBoto3 = (python: string): boolean => {
  const ask = "import importlib.util as u, sys; sys.exit(u.find_spec('boto3') is None)";
  try {
    execFileSync(python, ["-c", ask], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};

const PROGRAMS = {
  aws: found("aws"),
  boto3: found("python3").filter(knowsBoto3),
  rclone: found("rclone"),
  s3cmd: found("s3cmd"),
};

const PACKAGES: Record<keyof typeof PROGRAMS, string> = {
  aws: "awscli",
  boto3: "python3-boto3",
  rclone: "rclone",
  s3cmd: "s3cmd",
};

/** A whole S3 of others, which knows archived classes and restores. */
export const MOTO = found("moto_server")[0];

const names = Object.keys(PACKAGES) as (keyof typeof PROGRAMS)[];

/** What to do to have those that are not here. */
export const MISSING_CLIENTS: string[] = names
  .filter((name) => PROGRAMS[name].length === 0)
  .map((name) => `No ${name} here: apt install ${PACKAGES[name]}.`);

export const MISSING_MOTO: string[] =
  MOTO === undefined ? ["No moto_server here: pip install 'moto[server]'."] : [];

export interface RealClient {
  name: string;
  program: string;
}

const run = promisify(execFile);

/** Every version of it that is installed: two are two witnesses. */
export async function realClients(client: keyof typeof PROGRAMS): Promise<RealClient[]> {
  const ask = client === "boto3" ? ["-c", "import boto3; print('boto3', boto3.__version__)"] : ["--version"];
  const clients = new Map<string, RealClient>();
  const seen = new Set<string>();
  for (const program of PROGRAMS[client]) {
    const real = await realpath(program);
    // The same folder by two names. A version manager's wrapper is one file for all its programs.
    if (seen.has(`${real} ${client}`)) continue;
    seen.add(`${real} ${client}`);
    const { stdout } = await run(program, ask);
    const name = /^\S+(?: (?:version )?v?[\d.]+)?/.exec(stdout.trim())?.[0] ?? client;
    clients.set(name, { name, program });
  }
  return [...clients.values()];
}

export interface Ended {
  status: number;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end, with nothing of this machine's settings for AWS. */
export async function runClient(
  { program }: RealClient,
  args: string[],
  options: { cwd?: string; env?: Record<string, string>; input?: string } = {},
): Promise<Ended> {
  const env = {
    PATH: process.env["PATH"],
    HOME: "/nonexistent",
    LC_ALL: "C.UTF-8",
    AWS_ACCESS_KEY_ID: "AKIAREADER",
    AWS_SECRET_ACCESS_KEY: "x",
    AWS_DEFAULT_REGION: "us-east-1",
    AWS_CONFIG_FILE: "/dev/null",
    AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_MAX_ATTEMPTS: "1",
    AWS_PAGER: "",
    RCLONE_CONFIG: "/dev/null",
    ...options.env,
  };
  return await new Promise((resolve) => {
    const child = execFile(program, args, { env, cwd: options.cwd }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ status, stdout, stderr });
    });
    child.stdin?.end(options.input);
  });
}
