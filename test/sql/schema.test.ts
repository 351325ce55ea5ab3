import { readFileSync } from "node:fs";

import { expect } from "vitest";

import { test } from "../support/database.ts";
import { query } from "../support/rows.ts";

const SOURCE = readFileSync(`${import.meta.dirname}/../../server/postgres/rows.ts`, "utf8");

/** What pg makes of a column, as our interfaces write it. */
const FAMILIES: Record<string, string> = { timestamptz: "Date", int4: "number", bool: "boolean" };
const ENUMS: Record<string, string> = {
  restore_status: "RestoreStatus",
  notification_kind: "NotificationKind",
  notification_status: '"sealed" | "sent" | "failed" | "unknown"',
};

const fieldsOf = (name: string): [string, string][] => {
  const body = new RegExp(`interface ${name} \\{\\n(.*?)\\n\\}`, "s").exec(SOURCE)?.[1] ?? "";
  return [...body.matchAll(/^ {2}(\w+): (.+);$/gm)].map(([, field, type]) => [field ?? "", type ?? ""]);
};

test.for([
  ["RestoreRow", "restores"],
  ["RestoreRequestRow", "restore_requests"],
  ["NotificationRow", "notifications"],
] as const)("%s is what %s has", async ([name, table], { pool }) => {
  const columns = await query(
    pool,
    `select column_name, coalesce(domain_name, udt_name) as type, is_nullable = 'YES' as nullable
       from information_schema.columns where table_name = $1`,
    [table],
  );
  const fields = fieldsOf(name);
  expect(fields.length).toBeGreaterThan(3);
  const truth = fields.map(([field, type]) => {
    const column = columns.find((column) => column["column_name"] === field);
    if (column === undefined) return [field, "no such column"];
    const family = FAMILIES[column["type"]] ?? ENUMS[column["type"]] ?? "string";
    // Of a claimed row there is always a claim; defaults are Kysely's Generated.
    const nullable = column["nullable"] === true && field !== "claim_id";
    return [
      field,
      type.startsWith("Generated<") ? `Generated<${family}>` : nullable ? `${family} | null` : family,
    ];
  });
  expect(fields).toEqual(truth);
});
