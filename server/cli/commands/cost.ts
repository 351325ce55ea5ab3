/** What restores cost, by our estimate. */
import { sql, type RawBuilder } from "kysely";

import type { Database } from "../../postgres/rows.ts";
import { csv } from "../../wording/csv.ts";
import { dollarCell, dollars } from "../../wording/dollars.ts";
import { size } from "../../wording/sizes.ts";
import { CommandError, EXIT, type Command } from "../command.ts";
import { withDatabase } from "../database.ts";
import type { Terminal } from "../terminal.ts";

interface Line {
  name: string;
  observed: boolean;
  objects: number;
  bytes: number;
  estimated_cost: number;
}

/** A view that has one row per day, and what tells its lines apart. */
const BY: Record<string, { view: string; name: RawBuilder<string> }> = {
  class: { view: "cost_by_class", name: sql`storage_class || ' ' || tier` },
  person: { view: "cost_by_person", name: sql`person` },
  bucket: { view: "cost_by_bucket", name: sql`'s3://' || s3_bucket` },
  prefix: { view: "cost_by_prefix", name: sql`'s3://' || s3_bucket || '/' || key_prefix` },
};

const LINES_SHOWN = 40;

export const cost: Command = {
  name: "cost",
  args: "",
  summary: "Shows what restores of a month cost, and what was only observed would have cost: an estimate",
  examples: [
    ["", "this month, by class and tier, as the AWS bill has it"],
    ["--by person", "who reads most; also --by bucket, --by prefix"],
    [
      "--by prefix --month 2026-11 --csv",
      "for a spreadsheet; into a file: npm run --silent thaw -- cost --csv > cost.csv",
    ],
  ],
  options: {
    by: {
      type: "string",
      value: "person",
      what: "person, bucket, prefix (the key up to its first slash) or class",
    },
    month: { type: "string", value: "2026-11", what: "which month, by UTC; else this one" },
    csv: { type: "boolean", what: "as CSV, dollars to the cent" },
  },
  run: (terminal, _, given) => {
    const by = String(given["by"] ?? "class");
    const month = String(given["month"] ?? new Date().toISOString().slice(0, 7));
    const known = BY[by];
    if (known === undefined)
      throw new CommandError(EXIT.usage, `--by must be person, bucket, prefix or class, not ${by}.`);
    if (!/^[1-9]\d{3}-(0[1-9]|1[0-2])$/.test(month))
      throw new CommandError(EXIT.usage, `--month must be one like 2026-11, not ${month}.`);
    return withDatabase(terminal, "cost", async (db) => {
      const first = `${month}-01`;
      const { rows } = await sql<Line>`
        select ${known.name} as name, observed, sum(objects)::float8 as objects, sum(bytes)::float8 as bytes,
               sum(estimated_cost)::float8 as estimated_cost
          from ${sql.table(known.view)}
         where day >= ${first}::date and day < (${first}::date + interval '1 month')::date
         group by 1, 2 order by sum(estimated_cost) desc, sum(objects) desc, 1`.execute(db);
      if (given["csv"] === true) terminal.file(csvOf(by, month, rows));
      else await show(db, terminal, by, month, rows);
    });
  },
};

const csvOf = (by: string, month: string, rows: Line[]): string =>
  csv([
    ["month", by, "what", "objects", "bytes", "estimated_cost_usd"],
    ...rows.map(({ name, observed, objects, bytes, estimated_cost }) => [
      month,
      name,
      observed ? "observed" : "restored",
      objects,
      bytes,
      dollarCell(estimated_cost),
    ]),
  ]);

async function show(
  db: Database,
  terminal: Terminal,
  by: string,
  month: string,
  rows: Line[],
): Promise<void> {
  const part = (title: string, none: string, lines: Line[]): void => {
    if (lines.length === 0) {
      terminal.text(none);
      return;
    }
    const sum = (of: (line: Line) => number): number => lines.reduce((all, line) => all + of(line), 0);
    terminal.text(
      `${title}: ${sum((line) => line.objects).toLocaleString("en-US")} files, ${size(sum((line) => line.bytes))}, ${dollars(sum((line) => line.estimated_cost))}`,
    );
    terminal.table(
      "cost",
      {
        [by]: ({ name }) => name,
        files: ({ objects }) => objects.toLocaleString("en-US"),
        size: ({ bytes }) => size(bytes),
        "estimated cost": ({ estimated_cost }) => dollars(estimated_cost),
      },
      terminal.is_json ? lines : lines.slice(0, LINES_SHOWN),
    );
    if (lines.length > LINES_SHOWN)
      terminal.text(`and ${(lines.length - LINES_SHOWN).toLocaleString("en-US")} more: --csv has all.`);
  };
  part(
    `Restored in ${month}`,
    `Nothing was restored in ${month}.`,
    rows.filter(({ observed }) => !observed),
  );
  const observed = rows.filter((line) => line.observed);
  terminal.text("");
  part(
    `Observed in ${month}, not restored; it would have cost`,
    `Nothing was only observed in ${month}.`,
    observed,
  );
  terminal.text("");
  const { rows: regions } = await sql<{ region: string; valid_from: string }>`
    select region, max(valid_from)::text as valid_from from price_list where is_current group by region order by region`.execute(
    db,
  );
  terminal.text(
    `An estimate, without download and tax, by the prices of ${regions.map(({ region, valid_from }) => `${region} (${valid_from})`).join(", ")}; other regions by those of us-east-1.`,
  );
}
