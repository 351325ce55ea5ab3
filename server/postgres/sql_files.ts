import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";

export const SQL_DIRECTORY = `${import.meta.dirname}/../../sql`;

export interface SqlFile {
  name: string;
  text: string;
  sha256: string;
  /**
   * Numbered files run once and are never edited. A page replaces what it defines when its text changes. Privileges run each
   * time: replaced objects have lost theirs, and roles may have been added since.
   */
  runs: "once" | "when_changed" | "always";
  /** Comments change nothing that a process calls: they have a transaction of their own, after all else. */
  is_comment: boolean;
}

/** One per subject, in order of dependency. */
const PAGES = [
  "rules",
  "times",
  "history",
  "people",
  "cost",
  "transitions",
  "looks",
  "mails",
  "workers",
  "retention",
  "lists",
  "operators",
  "cost_operators",
  "orders",
  "views",
  "cost_views",
  "metrics",
];

/** The files of `sql/` in the order they run: numbered migrations, pages, privileges, comments. */
export function sqlFiles(directory: string): SqlFile[] {
  const numbered = readdirSync(directory)
    .filter((name) => /^\d{4}_[a-z0-9_]+\.sql$/.test(name))
    .sort();
  const file = (name: string, runs: SqlFile["runs"]): SqlFile => {
    const text = readFileSync(`${directory}/${name}`, "utf8");
    return {
      name,
      text,
      sha256: createHash("sha256").update(text).digest("hex"),
      runs,
      is_comment: name === "comments.sql",
    };
  };
  return [
    ...numbered.map((name) => file(name, "once")),
    ...PAGES.map((name) => file(`${name}.sql`, "when_changed")),
    file("privileges.sql", "always"),
    file("comments.sql", "when_changed"),
  ];
}

/** The views that files create or replace. */
export const viewsOf = (files: SqlFile[]): string[] =>
  files.flatMap(({ text }) =>
    [...text.matchAll(/^create or replace view ([a-z_]+)/gm)].map(([, name]) => name ?? ""),
  );
