/** The READMEs are run, not believed. */
import { execFileSync, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import { test as rolesTest } from "../support/roles.ts";
import { insertNotification, insertRead, insertRow, one } from "../support/rows.ts";
import { thaw } from "../support/thaw_command.ts";
import { JANE, requestBody, startThaw } from "../support/thaw.ts";

const ROOT = join(import.meta.dirname, "../..");

const filesOf = (...patterns: string[]): string[] =>
  execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", ...patterns], {
    cwd: ROOT,
    encoding: "utf8",
  })
    .split("\n")
    .filter((path) => path !== "" && existsSync(join(ROOT, path)));

const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");
const READMES = filesOf("*README.md");
const texts = new Map(READMES.map((path) => [path, read(path)]));
const everything = [...texts.values()].join("\n");

/** From a heading to the next one of its level. */
function section(path: string, heading: string): string {
  const [, after] = `\n${texts.get(path)}`.split(`\n${heading}\n`);
  expect(after, `${path} has no "${heading}"`).toBeDefined();
  return (after ?? "").split(new RegExp(`\n#{2,${heading.indexOf(" ")}} `))[0] ?? "";
}

/** Headings, and not the comments of an indented or fenced block. */
const headingsOf = (text: string): string[] =>
  [...text.matchAll(/^#+ (.*)$/gm)].map((match) => match[1] ?? "");

/** As GitHub names a heading: letters, digits and hyphens stay, spaces become hyphens. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\- _]/gu, "")
    .replaceAll(" ", "-");

/** A block of lines that are indented by four, the line of its first words included. */
const blocksOf = (text: string): string[] =>
  [...text.matchAll(/(?:^(?: {4}.*)?\n)+/gm)]
    .map(([block]) => block.replace(/^ {4}/gm, "").trim())
    .filter((block) => block !== "");

test("are where people look for them, the first one short", () => {
  expect(READMES.toSorted()).toEqual([
    "README.md",
    "lambdas/README.md",
    "server/README.md",
    "sql/README.md",
    "test/README.md",
    "test/bench/README.md",
    "test/fixtures/README.md",
  ]);
  expect(read("README.md").split("\n").length).toBeLessThan(160);
});

describe("commands", () => {
  /** Whose line it is: the variable that it connects with names the role. */
  const ROLE_OF = {
    DATABASE_URL: "thaw_migrator",
    OPERATOR_URL: "thaw_operator",
    READER_URL: "thaw_reader",
  } as const;
  const HOLD = "00000000-0000-4000-8000-000000000001";
  type Url = keyof typeof ROLE_OF;
  const linesOf = (text: string): { url: Url; statement: string }[] =>
    text
      .split("\n")
      .map((line) => /^ {4,}psql "\$([A-Z_]+)" (?:-x )?-c "(.*)"$/.exec(line))
      .filter((found) => found !== null && (found[1] ?? "") in ROLE_OF)
      .map((found) => ({ url: found?.[1] as Url, statement: found?.[2] ?? "" }));

  rolesTest(
    "every psql line runs as the role it names, on a database with work in it",
    async ({ migrated: roles }) => {
      const owner = roles.as("thaw_migrator");
      const running = await startThaw(roles.urlOf("thaw_migrator"), { worker: false });
      await running.know(JANE, "jane@example.com");
      const { body } = await running.post("/restore/request", requestBody("a.bin"));
      await insertRow(owner, "aws_key_user_map", {
        access_key_id: "AKIAEXAMPLEJANE00001",
        email: "jane@example.com",
      });
      const mail = async (status: string): Promise<string> =>
        (
          await insertNotification(owner, {
            status,
            ...(status === "sealed" ? {} : { failure_message: "refused" }),
          })
        )["id"];

      const lines = linesOf(everything);
      expect(lines.length).toBeGreaterThanOrEqual(25);
      expect(new Set(lines.map(({ url }) => url))).toEqual(new Set(Object.keys(ROLE_OF)));
      // Operating is done without the owner's password, but for the one line that says so.
      const operating = linesOf(section("sql/README.md", "## Operating"));
      expect(operating.filter(({ url }) => url === "DATABASE_URL")).toHaveLength(1);
      await owner.query("update mail_gate set closed_until = now() + interval '1 hour', reason = 'quota'");
      for (const { url, statement } of lines) {
        if (statement.includes("$ID")) {
          // What each needs, made by the owner.
          await owner.query(
            "update restores set status = 'pending', accepted_at = now(), status_at = now() where closed_at is null",
          );
        }
        const id = statement.includes("resend_notification")
          ? await mail("failed")
          : statement.includes("resolve_notification")
            ? await mail("unknown")
            : statement.includes("mark_notification_sent")
              ? await mail("sealed")
              : (body as { id: string }).id;
        if (statement.includes("$HOLD"))
          await owner.query(
            `insert into holds (id, person, reason, objects) values ('${HOLD}', 'x', 'x', 12)`,
          );
        await roles
          .as(ROLE_OF[url])
          .query(statement.replace("$ID", id).replace("$HOLD", HOLD))
          .catch((error: unknown) => {
            throw new Error(`psql "$${url}" -c "${statement}": ${(error as Error).message}`, {
              cause: error,
            });
          });
      }
      // They did what they say.
      const { rows } = await owner.query(
        "select distinct action, role from actions where role = 'thaw_operator' order by action",
      );
      expect(rows.map(({ action }) => action)).toEqual([
        "approve",
        "close the mail gate",
        "erase a person",
        "give up",
        "open the mail gate",
        "remove a user",
        "resolve",
        "retry",
        "send again",
        "set a limit",
        "set a policy",
      ]);
      expect((await owner.query("select from restore_requests where email is not null")).rowCount).toBe(0);
      await running.stop();
    },
  );

  /** A line of a shell as its words; only plain and single-quoted ones. */
  const wordsOf = (line: string): string[] =>
    [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? "");

  rolesTest(
    "every npm run thaw line runs as thaw_operator, in the order in which it stands",
    async ({ migrated: roles, world }) => {
      const owner = roles.as("thaw_migrator");
      const directory = mkdtempSync(join(tmpdir(), "thaw-readme-"));
      world.s3.createBucket("films");
      for (const key of ["2019/a b.mov", "2019/c.mov"])
        world.s3.putObject({ bucket: "films", key, storage_class: "GLACIER" });
      const { settings } = world;
      // The SDK reads them from the process.
      Object.assign(process.env, {
        AWS_ACCESS_KEY_ID: settings["AWS_ACCESS_KEY_ID"],
        AWS_SECRET_ACCESS_KEY: settings["AWS_SECRET_ACCESS_KEY"],
      });
      try {
        const lines: string[] = [];
        for (const text of texts.values()) {
          for (const block of blocksOf(text)) {
            const name = block.startsWith("s3://")
              ? "files.txt"
              : block.startsWith("prefix,by,")
                ? "policies.csv"
                : block.startsWith("region,")
                  ? "prices.csv"
                  : undefined;
            if (name !== undefined) writeFileSync(join(directory, name), block.split("\n\n")[0] ?? "");
            lines.push(...[...block.matchAll(/^npm run thaw -- (.*)$/gm)].map(([, line]) => line ?? ""));
          }
        }
        expect(lines.length).toBeGreaterThanOrEqual(18);
        for (const line of lines) {
          const id = line.startsWith("resend")
            ? (
                await insertNotification(owner, { status: "failed", failure_message: "x", failure_code: "x" })
              )["id"]
            : line.startsWith("retry")
              ? (await insertRead(owner, "pending", { restore: { s3_key: line } })).restore["id"]
              : await openHold(owner);
          const words = wordsOf(line).map((word) =>
            word === "ID" ? (id as string) : /\.(csv|txt)$/.test(word) ? join(directory, word) : word,
          );
          const asks = (await thaw(roles.urlOf("thaw_operator"), [...words, "-h"])).out.includes("--yes ");
          const { exit, err } = await thaw(
            roles.urlOf("thaw_operator"),
            [...words, ...(asks ? ["--yes"] : [])],
            { env: { ...settings, DATABASE_URL: roles.urlOf("thaw_operator") } },
          );
          expect(exit, `npm run thaw -- ${line}\n${err}`).toBe(line === "status" ? 1 : 0);
        }
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );

  const openHold = async (owner: Pool): Promise<unknown> =>
    (
      await one(owner, "insert into holds (person, reason) values ($1, 'beyond a limit') returning id", [
        randomUUID(),
      ])
    )["id"];

  test("every npm script that people use is named, and each one named exists", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const named = [...everything.matchAll(/npm (?:run ([a-z:]+)|(start|test)\b)/g)].map(
      (match) => match[1] ?? match[2] ?? "",
    );
    expect(named.length).toBeGreaterThan(20);
    for (const name of named) expect(Object.keys(scripts)).toContain(name);
    // A table of test/README.md has them without "npm run".
    const inTables = [...everything.matchAll(/^\| `([a-z:]+)` \|/gm)].map((match) => match[1]);
    for (const name of Object.keys(scripts)) expect([...named, ...inTables]).toContain(name);
  });
});

test("name every setting of config.ts, and none that is not there", () => {
  const table = section("server/README.md", "## Configuration");
  const named = new Set([...table.matchAll(/`([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)*)`/g)].map((match) => match[1]));
  const config = read("server/config.ts");
  const known = new Set([...config.matchAll(/^ {2}([A-Z][A-Z0-9_]+):/gm)].map((match) => match[1]));
  expect([...named].toSorted()).toEqual([...known].toSorted());
});

test("name every parameter of the template, and none that is not there", () => {
  const table = section("lambdas/README.md", "## Template parameters");
  const named = [...table.matchAll(/^\| `(\w+)` \|/gm)].map((match) => match[1]);
  const [, parameters = ""] = read("lambdas/template.yaml").split("\nParameters:\n");
  const known = [...(parameters.split(/\n(?=\S)/)[0] ?? "").matchAll(/^ {2}(\w+):$/gm)].map(
    (match) => match[1],
  );
  expect(known.length).toBeGreaterThan(5);
  expect(named).toEqual(known);
});

test("the picture of a restore shows the five tasks and every state", async ({ pool }) => {
  const picture = section("README.md", "## The life of a restore");
  const { rows } = await pool.query<{ state: string }>(
    "select unnest(enum_range(null::restore_status))::text as state",
  );
  for (const { state } of rows) expect(picture).toContain(state);
  for (const task of [
    "resolve_users",
    "trigger_restores",
    "pre_notify",
    "post_notify",
    "poll_pending_restores",
  ]) {
    expect(picture).toContain(task);
  }
});

describe("what they point at", () => {
  test("every link leads to a file, and to a heading of it", () => {
    let count = 0;
    for (const [path, text] of texts) {
      for (const [, target = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^https?:/.test(target)) continue;
        count++;
        const [file = "", anchor] = target.split("#");
        const found = file === "" ? path : join(dirname(path), file);
        expect(existsSync(join(ROOT, found)), `${path}: ${target}`).toBe(true);
        if (anchor === undefined) continue;
        expect(headingsOf(read(found)).map(anchorOf), `${path}: ${target}`).toContain(anchor);
      }
    }
    expect(count).toBeGreaterThan(20);
  });

  test("every path of the repository exists, from its top or from the README's folder", () => {
    const folders = new Set(
      filesOf()
        .filter((path) => path.includes("/"))
        .map((path) => path.slice(0, path.indexOf("/"))),
    );
    const isPath = (text: string): boolean =>
      /^[\w.-]+(\/[\w.-]+)*\/?$/.test(text) &&
      (/\.(ts|sql|yaml|json|md|png|py)$/.test(text) ||
        (text.includes("/") && folders.has(text.split("/")[0] ?? "")));
    let count = 0;
    for (const [path, text] of texts) {
      for (const [, name = ""] of text.matchAll(/`([^`\n]+)`/g)) {
        if (!isPath(name)) continue;
        count++;
        const places = [join(ROOT, name), join(ROOT, dirname(path), name)];
        expect(
          places.some((place) => existsSync(place)),
          `${path}: ${name}`,
        ).toBe(true);
      }
    }
    expect(count).toBeGreaterThan(50);
  });

  test("every section that a message or a comment names is there", () => {
    let count = 0;
    for (const path of filesOf("server", "tasks", "sql", "lambdas", "crontab")) {
      if (path.endsWith(".md")) continue;
      for (const [all, folder = "", heading = ""] of read(path).matchAll(
        /((?:\w+\/)?)README(?:\.md)?, "([^"]+)"/g,
      )) {
        count++;
        // Of the folder that is named; or of the file's own, or of the top.
        const places =
          folder === "" ? [join(dirname(path), "README.md"), "README.md"] : [`${folder}README.md`];
        const headings = places.flatMap((place) => headingsOf(texts.get(place) ?? ""));
        expect(headings, `${path}: ${all}`).toContain(heading);
      }
    }
    expect(count).toBeGreaterThan(5);
  });
});

describe("what people copy to a server", () => {
  const readme = read("server/README.md");

  test("systemd takes the units, and restarts both for ever", ({ skip }) => {
    const units = blocksOf(readme).filter((block) => block.startsWith("[Unit]"));
    expect(units).toHaveLength(2);
    for (const [index, part] of ["server", "worker"].entries()) {
      const unit = units[index] ?? "";
      expect(readme).toContain(`\`/etc/systemd/system/thaw-${part}.service\`:\n\n    [Unit]`);
      expect(unit).toContain(`server/main.ts ${part}\n`);
      for (const line of ["StartLimitIntervalSec=0", "Restart=always", "RestartSec=5"])
        expect(unit.split("\n")).toContain(line);
    }
    const missing = spawnSync("systemd-analyze", ["--version"]).error !== undefined;
    skip(missing, "No systemd-analyze here: the units are not verified.");
    const directory = mkdtempSync(join(tmpdir(), "thaw-units-"));
    try {
      for (const [index, part] of ["server", "worker"].entries()) {
        const file = join(directory, `thaw-${part}.service`);
        // It looks for the program too, which need not be in the same place here.
        writeFileSync(file, (units[index] ?? "").replace("/usr/bin/node", process.execPath));
        const verified = spawnSync("systemd-analyze", ["verify", "--man=no", file], { encoding: "utf8" });
        // It tells of what it does not know, and ends with 0.
        const told = `${verified.stdout}${verified.stderr}`.split("\n").filter((line) => line.includes(part));
        expect(told).toEqual([]);
        expect(verified.status).toBe(0);
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test("Caddy takes the Caddyfile, which leads to our port", ({ skip }) => {
    const file = section("server/README.md", "## Caddy");
    const caddyfile = blocksOf(file)[0] ?? "";
    expect(caddyfile).toContain("reverse_proxy 127.0.0.1:3000");
    skip(spawnSync("caddy", ["version"]).error !== undefined, "No caddy here: apt install caddy.");
    const directory = mkdtempSync(join(tmpdir(), "thaw-caddy-"));
    try {
      writeFileSync(join(directory, "Caddyfile"), `${caddyfile}\n`);
      const adapted = spawnSync("caddy", ["adapt", "--validate", "--config", "Caddyfile"], {
        cwd: directory,
        encoding: "utf8",
        env: { ...process.env, HOME: directory },
      });
      expect(adapted.status, adapted.stderr).toBe(0);
      // What it writes to its log has no secret, errors included: those go to the default log.
      const { logging } = JSON.parse(adapted.stdout) as {
        logging: { logs: { default: { encoder: { fields: object } } } };
      };
      expect(logging.logs.default.encoder.fields).toEqual({
        "request>headers>X-Restore-Secret": { filter: "delete" },
      });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
