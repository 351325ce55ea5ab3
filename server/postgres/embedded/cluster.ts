/**
 * What an embedded Postgres keeps in its directory:
 *
 *   data          the cluster, or a link to it where the account cannot enter
 *   url           see url.ts
 *   postgres.log
 */
import { chmod, chown, mkdir, mkdtemp, readdir, realpath, rename, rm, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Account, type Programs, exists, runAs } from "./binaries.ts";
import { makeUrl, readUrl, urlFile, writeSecret } from "./url.ts";

export interface Cluster {
  /** The data directory itself, links resolved: Postgres is known by this path. */
  data: string;
  log: string;
  urlFile: string;
  /** Superuser, password, last port and the database "thaw". */
  url: URL;
}

/**
 * Opens the cluster of a directory, or creates it. Atomic: killed at any moment it leaves a whole cluster or none, and two
 * concurrent starters get the same one.
 */
export async function openCluster(dir: string, account: Account, programs: Programs): Promise<Cluster> {
  const data = join(dir, "data");
  if ((await mkdir(dir, { recursive: true })) !== undefined) {
    await chmod(dir, account.uid === undefined ? 0o700 : 0o711);
  }
  const isNew = !(await exists(data));
  if (isNew) await makeUrl(dir);
  const url = await readUrl(dir);
  if (isNew) {
    try {
      await makeCluster(dir, account, programs, url.password);
    } catch (error) {
      if (!(await exists(data))) throw error; // Else another starter was faster: use its cluster.
    }
  }
  return { data: await realpath(data), log: join(dir, "postgres.log"), urlFile: urlFile(dir), url };
}

/** Deletes what killed starters have left. */
export async function removeLeftovers(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (!name.startsWith("new-")) continue;
    await rm(join(dir, name), { recursive: true, force: true }).catch((error: NodeJS.ErrnoException) => {
      // Another starter came second and still writes there: it removes its directory itself.
      if (error.code !== "ENOTEMPTY") throw error;
    });
  }
}

async function makeCluster(
  dir: string,
  account: Account,
  programs: Programs,
  password: string,
): Promise<void> {
  const home = await makeHome(dir, account);
  const data = join(home, "data");
  try {
    await mkdir(data, { mode: 0o700 });
    const passwordFile = await writeSecret(home, password);
    if (account.uid !== undefined) {
      await chmod(home, 0o711);
      await chown(data, account.uid, account.gid);
      await chown(passwordFile, account.uid, account.gid);
    }
    const text = ["--encoding=UTF8", ...programs.locale];
    const login = ["--auth=scram-sha-256", "--username=thaw", `--pwfile=${passwordFile}`];
    await runAs(account, join(programs.bin, "initdb"), ["-D", data, ...text, ...login]);
    // Either way it appears as a whole, and not at all if another starter was faster.
    if (dirname(home) === dir) {
      await rename(data, join(dir, "data"));
    } else {
      await rename(data, `${home}-data`);
      try {
        await symlink(`${home}-data`, join(dir, "data"));
      } catch (error) {
        await rm(`${home}-data`, { recursive: true });
        throw error;
      }
    }
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

/** A new directory that the account can enter: in `dir`, or outside if only root can enter that. */
async function makeHome(dir: string, account: Account): Promise<string> {
  if (account.uid === undefined) return mkdtemp(join(dir, "new-"));
  const reasons: unknown[] = [];
  // /var/tmp comes last: files that are unused for weeks are deleted there.
  for (const [place, prefix] of [
    [dir, "new-"],
    ["/var/lib", "thaw-"],
    ["/var/tmp", "thaw-"],
  ] as const) {
    try {
      await runAs(account, "/bin/sh", ["-c", 'cd "$1"', "sh", place]);
      return await mkdtemp(join(place, prefix));
    } catch (error) {
      reasons.push(error);
    }
  }
  throw new Error(
    `No place that user ${account.uid} can enter (Postgres refuses to run as root).\n${reasons.join("\n")}`,
  );
}
