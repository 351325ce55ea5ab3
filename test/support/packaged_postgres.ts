/** Postgres as a distribution packages it: with JIT, on by default, which npm's does not have. */
import { spawn } from "node:child_process";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";

import { Client } from "pg";

import { accountFor, POSTGRES_ENVIRONMENT, runAs } from "../../server/postgres/embedded/binaries.ts";
import { freePort } from "../../server/postgres/embedded/start.ts";
import { PACKAGED } from "./postgres_versions.ts";
import { waitFor } from "./wait_for.ts";

export interface PackagedPostgres {
  /** Of an empty database, as a superuser. */
  url: string;
  stop(): Promise<void>;
}

/** With the settings it comes with, and its messages in `language`. */
export async function startPackagedPostgres(language = "en"): Promise<PackagedPostgres> {
  const { bin } = await PACKAGED.programs();
  const dir = await mkdtemp("/var/tmp/thaw-packaged-");
  const account = await accountFor(dir);
  if (account.uid !== undefined) await chown(dir, account.uid, account.gid);
  const data = join(dir, "data");
  const port = await freePort(0);
  const locale = ["--encoding=UTF8", "--locale=C.UTF-8", "--username=thaw", "--auth=trust"];
  await runAs(account, join(bin, "initdb"), ["-D", data, ...locale]);
  const settings = {
    port: String(port),
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    fsync: "off",
  };
  const child = spawn(
    join(bin, "postgres"),
    ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
    // With LC_ALL=C there are no translations.
    {
      ...account,
      cwd: data,
      stdio: "ignore",
      env: { PATH: POSTGRES_ENVIRONMENT.PATH, LC_ALL: "C.UTF-8", LANGUAGE: language },
    },
  );
  let has_ended = false;
  child.once("close", () => (has_ended = true));
  const url = `postgres://thaw@127.0.0.1:${port}/postgres`;
  await waitFor("the packaged Postgres", async () => {
    const client = new Client({ connectionString: url });
    await client.connect();
    await client.end();
    return true;
  });
  return {
    url,
    async stop() {
      child.kill("SIGQUIT");
      await waitFor("Postgres' end", async () => has_ended);
      await rm(dir, { recursive: true });
    },
  };
}
