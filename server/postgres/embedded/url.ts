/** The file `url` of an embedded Postgres: where it listens, and the password. For psql too: psql "$(cat .data/url)". */
import { randomBytes, randomUUID } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { ConfigError } from "../../config.ts";
import { reasonOf } from "../../log.ts";

/** Of this checkout, for DATABASE_URL=embedded. */
export const EMBEDDED_DIRECTORY = join(import.meta.dirname, "../../../.data");

/** Where DATABASE_URL=embedded leads, as the last start saved it. @throws ConfigError when there was none. */
export async function embeddedUrl(): Promise<string> {
  try {
    return (await readUrl(EMBEDDED_DIRECTORY)).href;
  } catch (error) {
    throw new ConfigError(`There is no embedded Postgres yet (${reasonOf(error)}). Start Thaw: npm start`, {
      cause: error,
    });
  }
}

export const urlFile = (dir: string): string => join(dir, "url");

export const readUrl = async (dir: string): Promise<URL> => new URL(await readFile(urlFile(dir), "utf8"));

/** Remembers the port for the next start and for psql. */
export async function saveUrl(dir: string, url: URL): Promise<void> {
  await rename(await writeSecret(dir, `${url.href}\n`), urlFile(dir));
}

/** The password must be on disk before the cluster that knows it. Of two starters, the first to write it wins. */
export async function makeUrl(dir: string): Promise<void> {
  const password = randomBytes(24).toString("base64url");
  const fresh = await writeSecret(dir, `postgres://thaw:${password}@127.0.0.1:0/thaw\n`);
  await link(fresh, urlFile(dir)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  await rm(fresh);
}

/** Returns the path of a new file that only this user can read. */
export async function writeSecret(dir: string, text: string): Promise<string> {
  const path = join(dir, `.secret-${randomUUID()}`);
  await writeFile(path, text, { mode: 0o600, flag: "wx" });
  return path;
}
