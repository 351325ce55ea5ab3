/** How much may be restored before somebody has to approve: limits. */
import { sql } from "kysely";

import type { Database } from "../../postgres/rows.ts";
import { dollars } from "../../wording/dollars.ts";
import { parseSize, size } from "../../wording/sizes.ts";
import { CommandError, EXIT, YES, type Command, type Given } from "../command.ts";
import { call, withDatabase } from "../database.ts";
import { placeOf, type Place } from "../place.ts";
import { sentence } from "../terminal.ts";

interface Used {
  limit_id: string;
  limit_text: string;
  scope: string;
  person: string;
  objects: number;
  bytes: number;
  estimated_cost: number;
  max_objects: number | null;
  max_bytes: number | null;
  max_cost: number | null;
  used: number;
}

/** Of a limit for each person: those who have used most. */
const PEOPLE_SHOWN = 5;

export const limitList: Command = {
  name: "limit list",
  args: "",
  summary: "Shows the limits, and how much of each is used now",
  examples: [["", `of a limit for each person, the ${PEOPLE_SHOWN} who have used most`]],
  run: (terminal) =>
    withDatabase(terminal, "limit", async (db) => {
      const { rows } = await sql<Used>`
        select limit_id, limit_text, scope, s3_bucket, key_prefix, per, person, period::text as period, objects::float8 as objects,
               bytes::float8 as bytes, estimated_cost::float8 as estimated_cost, max_objects::float8 as max_objects,
               max_bytes::float8 as max_bytes, max_cost::float8 as max_cost, used::float8 as used
          from (select s.*, row_number() over (partition by limit_id order by used desc, person) as place from limit_status s) s
         where place <= ${PEOPLE_SHOWN} order by scope, per, s3_bucket, key_prefix, used desc, person`.execute(
        db,
      );
      if (rows.length === 0) {
        terminal.text("There is no limit: as much is restored as is read.");
        return;
      }
      terminal.table(
        "limit",
        {
          limit: ({ limit_text }) => limit_text,
          "used by": ({ scope, person }) =>
            scope !== "person" ? "all" : person === "" ? "nobody yet" : person,
          used: ({ used }) => `${Math.round(used * 100)} %`,
          "so far": soFar,
        },
        rows,
      );
    }),
};

const soFar = ({ objects, bytes, estimated_cost, max_objects, max_bytes, max_cost }: Used): string =>
  [
    ...(max_objects === null
      ? []
      : [`${objects.toLocaleString("en-US")} of ${max_objects.toLocaleString("en-US")} objects`]),
    ...(max_bytes === null ? [] : [`${size(bytes)} of ${size(max_bytes)}`]),
    ...(max_cost === null ? [] : [`${dollars(estimated_cost)} of ${dollars(max_cost)} (estimate)`]),
  ].join(", ");

const KIND = {
  scope: {
    type: "string",
    value: "SCOPE",
    what: "person (each has their own), prefix, or all (everybody together)",
  },
  prefix: { type: "string", value: "s3://BUCKET/PREFIX", what: "of scope prefix: where" },
  per: { type: "string", value: "day", what: "day or month, by UTC" },
} as const;

interface Kind extends Place {
  scope: string;
  per: string;
}

function kindOf(given: Given): Kind {
  const { prefix } = given;
  return {
    scope: String(given["scope"] ?? ""),
    per: String(given["per"] ?? ""),
    ...(prefix === undefined ? { s3_bucket: "*", key_prefix: "" } : placeOf(String(prefix))),
  };
}

interface Maximum {
  max_objects: number | null;
  max_bytes: number | null;
  max_cost: string | null;
}

/** @throws CommandError */
function maximumOf(given: Given): Maximum {
  const read = <T>(name: string, parse: (text: string) => T | null, example: string): T | null => {
    if (given[name] === undefined) return null;
    const value = parse(String(given[name]));
    if (value === null)
      throw new CommandError(
        EXIT.usage,
        `--${name} must be one like ${example}, not ${String(given[name])}.`,
      );
    return value;
  };
  return {
    max_objects: read("max-objects", (text) => (/^\d{1,12}$/.test(text) ? Number(text) : null), "1000"),
    max_bytes: read("max-bytes", parseSize, "500GB"),
    max_cost: read(
      "max-cost",
      (text) => /^\$?(\d{1,9}(?:\.\d{1,4})?)$/.exec(text)?.[1] ?? null,
      "20 or 12.50 (dollars)",
    ),
  };
}

async function problemOf(db: Database, kind: Kind, maximum: Maximum | null): Promise<string | null> {
  const { scope, s3_bucket, key_prefix, per } = kind;
  const check =
    maximum === null
      ? sql<string | null>`limit_kind_problem(${scope}, ${s3_bucket}, ${key_prefix}, ${per})`
      : sql<
          string | null
        >`limit_problem(${scope}, ${s3_bucket}, ${key_prefix}, ${per}, ${maximum.max_objects}::bigint,
                                         ${maximum.max_bytes}::bigint, ${maximum.max_cost}::numeric)`;
  const { rows } = await sql<{ problem: string | null }>`select ${check} as problem`.execute(db);
  return rows[0]?.problem ?? null;
}

/** The limit of that kind in words, if there is one. */
async function found(db: Database, { scope, s3_bucket, key_prefix, per }: Kind): Promise<string | undefined> {
  const { rows } = await sql<{ limit_text: string }>`
    select limit_text from limit_list
     where scope = ${scope} and s3_bucket = ${s3_bucket} and key_prefix = ${key_prefix} and per = ${per}`.execute(
    db,
  );
  return rows[0]?.limit_text;
}

export const limitSet: Command = {
  name: "limit set",
  args: "",
  summary: "Sets how much may be restored in a day or a month; what is beyond waits for approval",
  examples: [
    ["--scope person --per day --max-cost 20", "for each person: an estimated $20 a day"],
    ["--scope all --per month --max-bytes 50TB --max-cost 1000", "for all together; both must have room"],
    [
      "--scope prefix --prefix s3://vault/raw/ --per day --max-objects 0 --yes",
      "from a script: each needs approval",
    ],
  ],
  options: {
    ...KIND,
    "max-objects": { type: "string", value: "N", what: "how many objects; 0 holds each" },
    "max-bytes": {
      type: "string",
      value: "500GB",
      what: "how much, in thousands: 500GB is 500,000,000,000 bytes",
    },
    "max-cost": { type: "string", value: "20", what: "how many dollars, by our estimate" },
    ...YES,
  },
  run: (terminal, _, given) =>
    withDatabase(terminal, "limit", async (db) => {
      const kind = kindOf(given);
      const maximum = maximumOf(given);
      const problem = await problemOf(db, kind, maximum);
      if (problem !== null) throw new CommandError(EXIT.usage, sentence(problem));
      const { rows } = await sql<{ words: string }>`
        select limit_words(jsonb_populate_record(null::limits, ${JSON.stringify({ ...kind, ...maximum })}::jsonb)) as words`.execute(
        db,
      );
      const before = await found(db, kind);
      await terminal.confirm(
        `Set a limit of ${rows[0]?.words}?${before === undefined ? "" : ` It is now: ${before}.`}`,
        given,
      );
      const { scope, s3_bucket, key_prefix, per } = kind;
      const did = await call(
        db,
        terminal,
        sql<string>`set_limit(${scope}, ${s3_bucket}, ${key_prefix}, ${per}, ${maximum.max_objects}::bigint,
                              ${maximum.max_bytes}::bigint, ${maximum.max_cost}::numeric)`,
      );
      terminal.show({ ...kind, did }, sentence(did));
    }),
};

export const limitRemove: Command = {
  name: "limit remove",
  args: "",
  summary: "Removes a limit; what waits for approval because of it waits on",
  examples: [
    ["--scope person --per day", "the limit of each person and day"],
    ["--scope prefix --prefix s3://vault/raw/ --per day --yes", "from a script"],
  ],
  options: { ...KIND, ...YES },
  run: (terminal, _, given) =>
    withDatabase(terminal, "limit", async (db) => {
      const kind = kindOf(given);
      const problem = await problemOf(db, kind, null);
      if (problem !== null) throw new CommandError(EXIT.usage, sentence(problem));
      const { scope, s3_bucket, key_prefix, per } = kind;
      const before = await found(db, kind);
      if (before !== undefined) await terminal.confirm(`Remove the limit of ${before}?`, given);
      const did = await call(
        db,
        terminal,
        sql<string>`remove_limit(${scope}, ${s3_bucket}, ${key_prefix}, ${per})`,
      );
      terminal.show({ ...kind, did }, sentence(did));
    }),
};
