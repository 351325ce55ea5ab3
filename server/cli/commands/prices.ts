/** What S3 takes for restores: prices, which estimates rest on. */
import { sql } from "kysely";

import { YES, type Command } from "../command.ts";
import { readRows, refuse } from "../csv_file.ts";
import { acting, withDatabase } from "../database.ts";

interface Price {
  region: string;
  storage_class: string;
  tier: string;
  per_1000_requests: number;
  per_gb: number;
  copy_per_gb_month: number;
  valid_from: string;
  source: string;
}

/** As it was imported: prices are fractions of a cent. */
const price = (dollars: number): string => `$${dollars}`;

export const pricesList: Command = {
  name: "prices list",
  args: "",
  summary: "Shows the prices that estimates rest on today, by region",
  examples: [["", "in dollars, without tax"]],
  run: (terminal) =>
    withDatabase(terminal, "prices", async (db) => {
      const { rows } = await sql<Price>`
        select region, storage_class, tier, per_1000_requests::float8 as per_1000_requests, per_gb::float8 as per_gb,
               copy_per_gb_month::float8 as copy_per_gb_month, valid_from::text as valid_from, source
          from price_list where is_current order by region, storage_class, tier`.execute(db);
      terminal.table(
        "price",
        {
          region: ({ region }) => region,
          class: ({ storage_class }) => storage_class,
          tier: ({ tier }) => tier,
          "per 1,000": ({ per_1000_requests }) => price(per_1000_requests),
          "per GB": ({ per_gb }) => price(per_gb),
          "copy, GB and month": ({ copy_per_gb_month }) => price(copy_per_gb_month),
          from: ({ valid_from }) => valid_from,
          source: ({ source }) => source,
        },
        rows,
      );
      terminal.text("");
      terminal.text(
        "Restores in any other region are estimated by the prices of us-east-1. Add yours: npm run thaw -- prices import FILE",
      );
    }),
};

const COLUMNS = {
  region: [],
  storage_class: ["class"],
  tier: [],
  per_1000_requests: ["per_1000"],
  per_gb: [],
  copy_per_gb_month: ["copy"],
  valid_from: ["from"],
  source: [],
} as const;

export const pricesImport: Command = {
  name: "prices import",
  args: "FILE",
  summary: "Adds and changes prices from a CSV file: all of it, or nothing",
  examples: [
    ["prices.csv", `the columns ${Object.keys(COLUMNS).join(",")}`],
    ["prices.csv --yes", "from a script"],
  ],
  options: YES,
  run: (terminal, [file = ""], given) =>
    withDatabase(terminal, "prices", async (db) => {
      const { rows, problems } = readRows(file, COLUMNS, Object.keys(COLUMNS) as (keyof typeof COLUMNS)[]);
      const written = JSON.stringify(rows.map(({ values }) => values));
      const { rows: checked } = await sql<Price & { problem: string | null }>`
        select region, storage_class, tier, valid_from::text as valid_from, problem from check_prices(${written}::jsonb)`.execute(
        db,
      );
      const lines = new Map<string, number>();
      for (const [index, { region, storage_class, tier, valid_from, problem }] of checked.entries()) {
        const line = rows[index]?.line ?? 0;
        if (problem !== null) problems.push({ line, problem });
        const key = JSON.stringify([region, storage_class, tier, valid_from]);
        const other = lines.get(key);
        if (problem === null && other !== undefined)
          problems.push({ line, problem: `the same region, class, tier and day as in line ${other}` });
        lines.set(key, line);
      }
      refuse(file, problems);
      await terminal.confirm(
        `Set ${checked.length} prices? What was estimated before stays as it is.`,
        given,
      );
      const { added, changed } = await acting(db, terminal, async (trx) => {
        const { rows: counts } = await sql<{ added: number; changed: number }>`
          select added, changed from import_prices(${written}::jsonb)`.execute(trx);
        return counts[0] ?? { added: 0, changed: 0 };
      });
      terminal.show(
        { read: checked.length, added, changed },
        `${checked.length} prices read: ${added} added, ${changed} changed, ${checked.length - added - changed} as before.`,
      );
    }),
};
