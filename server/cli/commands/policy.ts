/** What happens to reads: policies. */
import { sql } from "kysely";

import { readRestoreDefaults, trustedSessions } from "../../config.ts";
import type { Database } from "../../postgres/rows.ts";
import { dollars } from "../../wording/dollars.ts";
import { size } from "../../wording/sizes.ts";
import { CommandError, EXIT, YES, type Command, type Given } from "../command.ts";
import { readRows, refuse } from "../csv_file.ts";
import { acting, call, withDatabase } from "../database.ts";
import { placeOf, placeText, readPlace, type Place } from "../place.ts";
import { sentence, type Terminal } from "../terminal.ts";

const BY = {
  by: {
    type: "string",
    value: "PRINCIPAL",
    what: "whose reads: an access key, an ARN (of a role: its sessions), a prefix with *, an address; else anybody's",
  },
} as const;

interface Policy extends Place {
  principal: string;
  action: string;
  tier: string | null;
  days: number | null;
  note: string;
}

const byText = (principal: string): string => (principal === "*" ? "anybody" : principal);

/** "restore, Bulk, 3 days". */
const saysText = ({ action, tier, days }: Pick<Policy, "action" | "tier" | "days">): string =>
  [
    action,
    ...(tier === null ? [] : [tier]),
    ...(days === null ? [] : [days === 1 ? "1 day" : `${days} days`]),
  ].join(", ");

export const policyList: Command = {
  name: "policy list",
  args: "",
  summary: "Shows what happens to reads: of a read, the first line that fits counts",
  examples: [["", "the most specific first"]],
  run: (terminal) =>
    withDatabase(terminal, "policy", async (db) => {
      const { rows } = await sql<Policy>`
        select s3_bucket, key_prefix, principal, action, tier, days, note, created_at from policy_list`.execute(
        db,
      );
      if (rows.length === 0) {
        terminal.text("There is no policy: every read is restored, by RESTORE_TIER for RESTORE_DAYS.");
        return;
      }
      terminal.table(
        "policy",
        {
          place: placeText,
          "read by": ({ principal }) => byText(principal),
          action: ({ action }) => action,
          tier: ({ tier }) => tier ?? "-",
          days: ({ days }) => days ?? "-",
          note: ({ note }) => note,
        },
        rows,
      );
    }),
};

/** As check_policies takes it: texts. */
interface Written extends Place {
  principal: string;
  action: string;
  tier: string;
  days: string;
  note: string;
}

type Checked = Policy & { problem: string | null };

async function check(db: Database, policies: Written[]): Promise<Checked[]> {
  const { rows } = await sql<Checked>`
    select s3_bucket, key_prefix, principal, action, tier, days, note, problem
      from check_policies(${JSON.stringify(policies)}::jsonb)`.execute(db);
  return rows;
}

const given = (of: Given, name: string): string => String(of[name] ?? "");

export const policySet: Command = {
  name: "policy set",
  args: "s3://BUCKET/PREFIX",
  summary:
    "Says what happens to reads under a prefix: restore, hold for approval, only observe, or ignore them",
  examples: [
    ["'s3://*' --action observe", "all reads: nothing is restored, `cost` tells what it would cost"],
    [
      "s3://logs/ --by arn:aws:iam::111122223333:role/Scanner --action ignore",
      "a scanner's reads count for nothing",
    ],
    ["s3://videos/raw/ --action restore --tier Bulk --days 3", "slower and cheaper, and for a shorter time"],
    ['s3://vault/ --action hold --note "legal hold, ask Kim" --yes', "from a script: each needs approval"],
  ],
  options: {
    ...BY,
    action: { type: "string", value: "ACTION", what: "restore, hold, observe or ignore" },
    tier: { type: "string", value: "Bulk", what: "Expedited, Standard or Bulk; else RESTORE_TIER" },
    days: { type: "string", value: "3", what: "for how long the copy stays; else RESTORE_DAYS" },
    note: { type: "string", value: "TEXT", what: "why, for those who look" },
    ...YES,
  },
  run: (terminal, [place = ""], options) =>
    withDatabase(terminal, "policy", async (db) => {
      const written: Written = {
        ...placeOf(place),
        principal: given(options, "by"),
        action: given(options, "action"),
        tier: given(options, "tier"),
        days: given(options, "days"),
        note: given(options, "note").trim(),
      };
      const [policy] = await check(db, [written]);
      if (policy === undefined) throw new Error("check_policies returned no row");
      if (policy.problem !== null) throw new CommandError(EXIT.usage, sentence(policy.problem));
      const before = await find(db, policy);
      const now = before === undefined ? "" : ` It is now: ${saysText(before)}.`;
      await terminal.confirm(
        `${placeText(policy)}, read by ${byText(policy.principal)}: ${saysText(policy)}.${now} Set this policy?`,
        options,
      );
      const { s3_bucket, key_prefix, principal, action, tier, days, note } = policy;
      const did = await call(
        db,
        terminal,
        sql<string>`set_policy(${s3_bucket}, ${key_prefix}, ${principal}, ${action}, ${tier}, ${days}::integer, ${note})`,
      );
      terminal.show({ s3_bucket, key_prefix, principal, did }, `${did}.`);
    }),
};

async function find(db: Database, { s3_bucket, key_prefix, principal }: Policy): Promise<Policy | undefined> {
  const { rows } = await sql<Policy>`
    select s3_bucket, key_prefix, principal, action, tier, days, note from policy_list
     where s3_bucket = ${s3_bucket} and key_prefix = ${key_prefix} and principal = ${principal}`.execute(db);
  return rows[0];
}

export const policyRemove: Command = {
  name: "policy remove",
  args: "s3://BUCKET/PREFIX",
  summary: "Removes a policy; the next one that fits counts for what is read from then on",
  examples: [
    ["'s3://*'", "after observing: reads are restored again; what was only observed is not"],
    ["s3://logs/ --by arn:aws:iam::111122223333:role/Scanner --yes", "from a script"],
  ],
  options: { ...BY, ...YES },
  run: (terminal, [typed = ""], options) =>
    withDatabase(terminal, "policy", async (db) => {
      const { s3_bucket, key_prefix } = placeOf(typed);
      const principal = given(options, "by");
      const who = principal === "" ? "anybody" : principal;
      await terminal.confirm(`Remove the policy of ${typed}, read by ${who}?`, options);
      const did = await call(
        db,
        terminal,
        sql<string>`remove_policy(${s3_bucket}, ${key_prefix}, ${principal})`,
      );
      terminal.show({ s3_bucket, key_prefix, principal, did }, sentence(did));
    }),
};

const COLUMNS = {
  prefix: ["path", "place", "s3", "s3uri", "uri"],
  by: ["principal", "reader"],
  action: [],
  tier: [],
  days: [],
  note: ["comment"],
} as const;

export const policyImport: Command = {
  name: "policy import",
  args: "FILE",
  summary: "Adds and changes policies from a CSV file: all of it, or nothing",
  examples: [
    ["policies.csv", "the columns prefix (s3://bucket/prefix) and action; also by, tier, days, note"],
    ["policies.csv --yes", "from a script"],
  ],
  options: YES,
  run: (terminal, [file = ""], options) =>
    withDatabase(terminal, "policy", async (db) => {
      const { rows, problems } = readRows(file, COLUMNS, ["prefix", "action"]);
      const written = rows.map(({ line, values: { prefix, by, ...rest } }) => {
        const place = readPlace(prefix);
        if (place === null)
          problems.push({
            line,
            problem: `'${prefix}' is no place in S3: write s3://bucket/prefix, or s3://* for all`,
          });
        return { ...(place ?? { s3_bucket: "*", key_prefix: "" }), principal: by, ...rest };
      });
      const checked = await check(db, written);
      const lines = new Map<string, number>();
      for (const [index, policy] of checked.entries()) {
        const line = rows[index]?.line ?? 0;
        if (problems.some((other) => other.line === line)) continue;
        if (policy.problem !== null) problems.push({ line, problem: policy.problem });
        const key = JSON.stringify([policy.s3_bucket, policy.key_prefix, policy.principal]);
        const other = lines.get(key);
        if (other !== undefined)
          problems.push({ line, problem: `the same place and reader as in line ${other}` });
        lines.set(key, line);
      }
      refuse(file, problems);
      await terminal.confirm(`Set ${checked.length} policies?`, options);
      const { added, changed } = await acting(db, terminal, async (trx) => {
        const { rows: counts } = await sql<{ added: number; changed: number }>`
          select added, changed from import_policies(${JSON.stringify(written)}::jsonb)`.execute(trx);
        return counts[0] ?? { added: 0, changed: 0 };
      });
      terminal.show(
        { read: checked.length, added, changed },
        `${checked.length} policies read: ${added} added, ${changed} changed, ${checked.length - added - changed} as before.`,
      );
    }),
};

interface Read {
  reader: string;
  problem: string | null;
  email: string | null;
  payer: string | null;
  policy_bucket: string | null;
  policy_prefix: string | null;
  policy_principal: string | null;
  action: string;
  tier: string | null;
  days: number | null;
  note: string;
  region: string | null;
  known_class: string | null;
  known_bytes: number | null;
}

interface Left {
  limit_text: string;
  scope: string;
  objects: number;
  bytes: number;
  cost: number;
  objects_left: number | null;
  bytes_left: number | null;
  cost_left: number | null;
  is_beyond: boolean;
}

interface ByClass {
  storage_class: string;
  tier: string;
  estimated_cost: number | null;
  price_region: string | null;
  valid_from: string | null;
}

const GB = 2 ** 30;

export const policyCheck: Command = {
  name: "policy check",
  args: "s3://BUCKET/KEY",
  summary:
    "Says what would happen to a read of that key, and why: policy, tier, days, limits. Changes nothing",
  examples: [
    ["s3://logs/2024/a.gz", "read by nobody in particular"],
    ["s3://logs/2024/a.gz --by arn:aws:iam::111122223333:role/Scanner", "by a session of that role"],
    ["s3://logs/2024/a.gz --by jane@example.com --json", "for a script"],
  ],
  options: BY,
  run: (terminal, [typed = ""], options) =>
    withDatabase(terminal, "policy", async (db, config) => {
      const { s3_bucket, key_prefix: s3_key } = placeOf(typed);
      if (s3_bucket === "*" || s3_key === "")
        throw new CommandError(EXIT.usage, "Name one file: s3://bucket/key.");
      const {
        rows: [read],
      } = await sql<Read>`
        select reader, problem, email, payer, policy_bucket, policy_prefix, policy_principal, action, tier, days, note, region,
               known_class, known_bytes::float8 as known_bytes
          from check_read(${s3_bucket}, ${s3_key}, ${given(options, "by")}, ${trustedSessions(config)}::text[])`.execute(
        db,
      );
      if (read === undefined) throw new Error("check_read returned no row");
      if (read.problem !== null)
        throw new CommandError(EXIT.usage, `Nobody reads as ${given(options, "by")}: ${read.problem}.`);
      await show(db, terminal, typed, read);
    }),
};

async function show(db: Database, terminal: Terminal, place: string, read: Read): Promise<void> {
  const { RESTORE_TIER, RESTORE_DAYS } = readRestoreDefaults(terminal.env);
  const tier = read.tier ?? RESTORE_TIER;
  const days = read.days ?? RESTORE_DAYS;
  const bytes = read.known_bytes ?? GB;
  const { s3_bucket, key_prefix } = placeOf(place);
  const { rows: classes } = await sql<ByClass>`
    select storage_class, tier, estimated_cost::float8 as estimated_cost, price_region, valid_from::text as valid_from
      from check_tiers(${tier}, ${days}, ${bytes}, ${read.region})`.execute(db);
  const known = classes.find(({ storage_class }) => storage_class === read.known_class);
  // Of a file that Thaw has never asked S3 about: whether there is room for the smallest.
  const one =
    read.known_class === null
      ? sql``
      : sql`, ${read.known_bytes}::numeric, ${known?.estimated_cost ?? null}::numeric`;
  const { rows: limits } = await sql<Left>`
    select limit_text, scope, objects::float8 as objects, bytes::float8 as bytes, cost::float8 as cost,
           objects_left::float8 as objects_left, bytes_left::float8 as bytes_left, cost_left::float8 as cost_left, is_beyond
      from check_limits(${s3_bucket}, ${key_prefix}, ${read.payer}${one})`.execute(db);
  const { rows: holds } = await sql<{ id: string; objects: number }>`
    select id, objects::float8 as objects from hold_list where status = 'open' and person = ${read.payer}`.execute(
    db,
  );

  const over = limits.filter(({ is_beyond }) => is_beyond);
  const outcome = read.action === "restore" && over.length > 0 ? "hold" : read.action;
  const policy =
    read.policy_bucket === null
      ? null
      : `${placeText({ s3_bucket: read.policy_bucket, key_prefix: read.policy_prefix ?? "" })}, read by ${byText(read.policy_principal ?? "*")}`;

  terminal.heading(
    {
      kind: "check",
      outcome,
      reader: read.reader,
      payer: read.payer,
      email: read.email,
      policy,
      policy_action: policy === null ? null : read.action,
      note: read.note,
      tier,
      days,
      known_class: read.known_class,
      known_bytes: read.known_bytes,
      over_limits: over.map(({ limit_text }) => limit_text),
      open_hold: holds[0]?.id ?? null,
    },
    `A read of ${place} by ${byText(read.reader)} ${OUTCOMES[outcome] ?? outcome}.`,
    "bold",
  );
  terminal.text(
    policy === null
      ? "Why: no policy fits, so reads are restored."
      : `Why: the policy of ${policy} says ${read.action}${read.note === "" ? "" : ` (${read.note})`}.`,
  );
  for (const { limit_text } of over) terminal.text(`Why: nothing is left, or not enough, of ${limit_text}.`);
  if (read.payer !== null) terminal.text(`It counts for ${read.payer}.`);
  if (read.action === "ignore") return;

  terminal.text(
    `Tier: ${tier} (${read.tier === null ? "RESTORE_TIER here; the worker's own counts" : "of the policy"}). ` +
      `Days: ${days} (${read.days === null ? "RESTORE_DAYS here; the worker's own counts" : "of the policy"}).`,
  );
  terminal.text("");
  terminal.table(
    "class",
    {
      class: ({ storage_class }) =>
        storage_class + (storage_class === read.known_class ? " (this file)" : ""),
      tier: (row) => row.tier + (row.tier === tier ? "" : ` (it has no ${tier})`),
      [`estimated cost of ${read.known_bytes === null ? "a GB" : size(bytes)}`]: ({ estimated_cost }) =>
        estimated_cost === null ? "unknown" : dollars(estimated_cost),
    },
    classes,
  );
  const price = known ?? classes[0];
  if (price?.price_region != null) {
    const whose =
      read.region === null
        ? ", for its region is not known yet"
        : price.price_region === read.region
          ? ""
          : `, for ${read.region} has none: npm run thaw -- prices list`;
    terminal.text(
      `An estimate without download and tax, by the prices of ${price.price_region} (${price.valid_from})${whose}.`,
    );
  }
  terminal.text("");
  if (limits.length === 0) terminal.text("No limit applies.");
  else {
    terminal.table(
      "limit",
      { limit: ({ limit_text }) => limit_text, used: usedText, left: leftText },
      limits,
    );
  }
  for (const { id, objects } of holds) {
    terminal.text(
      `${objects} of their files wait for approval already: npm run thaw -- hold show ${id.slice(0, 8)}`,
    );
  }
}

const OUTCOMES: Record<string, string> = {
  restore: "is restored",
  hold: "is held: somebody has to approve it",
  observe: "is only observed: nothing is restored, and nobody is told",
  ignore: "is ignored: it is counted, and leaves no trace else",
};

const usedText = ({ objects, bytes, cost, objects_left, bytes_left, cost_left }: Left): string =>
  [
    ...(objects_left === null ? [] : [`${objects.toLocaleString("en-US")} objects`]),
    ...(bytes_left === null ? [] : [size(bytes)]),
    ...(cost_left === null ? [] : [dollars(cost)]),
  ].join(", ");

const leftText = ({ objects_left, bytes_left, cost_left }: Left): string =>
  [
    ...(objects_left === null ? [] : [`${Math.max(0, objects_left).toLocaleString("en-US")} objects`]),
    ...(bytes_left === null ? [] : [size(Math.max(0, bytes_left))]),
    ...(cost_left === null ? [] : [dollars(Math.max(0, cost_left))]),
  ].join(", ");
