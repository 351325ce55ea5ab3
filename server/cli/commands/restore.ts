/** Restores what lies under a prefix, or what a list names, for a person: an order. */
import { sql } from "kysely";

import { readRestoreDefaults, readS3Settings } from "../../config.ts";
import type { Database } from "../../postgres/rows.ts";
import type { ListedObject } from "../../s3/list.ts";
import { createS3 } from "../../s3/s3.ts";
import { isAddress } from "../../settings/address.ts";
import { CommandError, EXIT, YES, type Command, type Exit, type Given } from "../command.ts";
import { withDatabase } from "../database.ts";
import { handIn, limitsOf, lookOver, Plan, type Asked, type Handed, type HandedIn } from "../order.ts";
import { listedPages, ManifestFiles } from "../order_source.ts";
import { counted, handedInOf, keptPlan, questionOf, showPlan } from "../order_words.ts";
import { placeText, readPlace, type Place } from "../place.ts";
import { Spool } from "../spool.ts";
import type { Terminal } from "../terminal.ts";

export const restore: Command = {
  name: "restore",
  args: "[s3://BUCKET/PREFIX]",
  summary: "Restores all archived files under a prefix, or of a list, for a person, who gets the mails",
  examples: [
    [
      "s3://films/2019/ --for jane@example.com --dry-run",
      "how many, how large, at what cost; changes nothing",
    ],
    ["s3://films/2019/ --for jane@example.com", "the same, then asks"],
    [
      "--manifest files.txt --for jane@example.com",
      "a list: one s3:// URL a line, or CSV bucket,key[,version]",
    ],
    [
      "--manifest inventory.csv --url-encoded --for jane@example.com --yes",
      "a list of S3 Inventory or for Batch Operations, from a script",
    ],
  ],
  options: {
    for: { type: "string", value: "ADDRESS", what: "who waits for them: gets the mails; their limits count" },
    manifest: {
      type: "string",
      value: "FILE",
      what: "a list of files instead of a prefix; keys are taken as they are",
    },
    "url-encoded": {
      type: "boolean",
      what: "the list's keys are URL-encoded, as S3 Inventory and Batch Operations have them",
    },
    versions: { type: "boolean", what: "all versions under the prefix, not only the current ones" },
    "dry-run": { type: "boolean", what: "only shows what would happen" },
    ...YES,
  },
  run: (terminal, args, given) => order(terminal, read(args, given), given),
};

interface Order {
  person: string;
  /** What is ordered, as people name it. */
  of: string;
  source: (Place & { versions: boolean }) | { file: string; is_url_encoded: boolean };
}

/** @throws CommandError */
function read(args: string[], given: Given): Order {
  const wrong = (message: string): never => {
    throw new CommandError(EXIT.usage, message);
  };
  const [typed, more] = args;
  const { for: person, manifest, versions = false, "url-encoded": is_url_encoded = false } = given;
  if (more !== undefined) wrong(`${more} is one argument too many: order one prefix at a time, or a list.`);
  if ((typed === undefined) === (manifest === undefined))
    wrong("Say what to restore: either s3://bucket/prefix, or --manifest FILE.");
  if (person === undefined) wrong("Say for whom: --for jane@example.com. They get the mails.");
  const address = String(person);
  if (!isAddress(address)) wrong(`--for must be one bare address like jane@example.com, not ${address}.`);
  if (manifest !== undefined) {
    if (versions === true) wrong("--versions is for a prefix; a list names a version as its third field.");
    const file = String(manifest);
    return {
      person: address.toLowerCase(),
      of: file,
      source: { file, is_url_encoded: is_url_encoded === true },
    };
  }
  if (is_url_encoded === true) wrong("--url-encoded is for a list (--manifest).");
  const place = readPlace(String(typed));
  if (place === null || place.s3_bucket === "*")
    return wrong(`${typed} is no place in S3: write s3://bucket/prefix.`);
  return {
    person: address.toLowerCase(),
    of: placeText(place),
    source: { ...place, versions: versions === true },
  };
}

async function order(terminal: Terminal, order: Order, given: Given): Promise<Exit | void> {
  const { source } = order;
  const settings = readS3Settings(terminal.env);
  const { RESTORE_TIER: tier, RESTORE_DAYS: days } = readRestoreDefaults(terminal.env);
  const asked: Asked = { person: order.person, tier, days };
  const files = "file" in source ? await ManifestFiles.read(source.file, source.is_url_encoded) : undefined;
  const spool = await Spool.open<Handed>();
  const s3 = createS3(settings);
  try {
    return await withDatabase(terminal, "restore", async (db, config) => {
      const stop = terminal.interrupt();
      // The worker's estimates are by the bucket's region, too.
      const regionOf = (object: ListedObject): string | null =>
        s3.regionOf({ ...object, region: null }) ?? settings.AWS_REGION ?? null;
      const plan = new Plan();
      const pages =
        "file" in source
          ? (files as ManifestFiles).pages(s3, settings.S3_CONCURRENCY, stop)
          : listedPages(s3, source, stop);
      const progress = terminal.progress("files looked at");
      const beside = "file" in source ? undefined : new BesideFolder(source);
      try {
        for await (const page of pages) {
          beside?.add(page);
          await lookOver(db, plan, spool, asked, page, regionOf);
          progress.at(plan.looked_at, files?.count);
        }
      } finally {
        progress.end();
      }
      if (stop.aborted) throw new CommandError(EXIT.failed, "Stopped. Nothing was ordered.");
      if (plan.looked_at === 0)
        throw new CommandError(EXIT.not_found, `There is nothing ${files ? "in" : "under"} ${order.of}.`);

      const limits = await limitsOf(db, asked, plan);
      const prices = await pricesOf(db, asked, plan);
      showPlan(terminal, order, asked, plan, limits, prices);
      if (beside !== undefined && beside.count > 0)
        terminal.text(
          `${counted(beside.count)} of these ${beside.count === 1 ? "is" : "are"} not in the folder ${order.of}/. For that alone, end the prefix in /.`,
        );
      if (files !== undefined && files.looks_encoded > 0)
        terminal.text(
          `${counted(files.looks_encoded)} of the list ${files.looks_encoded === 1 ? "has a key" : "have keys"} with %XX in it, taken as it is. If the list is from S3 Inventory, or for Batch Operations, add --url-encoded.`,
        );
      if (given["dry-run"] === true) return terminal.text("Nothing was ordered: this was a dry run.");
      if (spool.count === 0) return terminal.text("There is nothing to order.");
      terminal.text("");
      await terminal.confirm(questionOf(order, plan, spool.count), given);
      return await handInAll(terminal, { db, config, spool, stop, plan, order });
    });
  } finally {
    s3.destroy();
    await spool.close();
    await files?.close();
  }
}

/** Files that a prefix of the name of a folder has beside those in it: "2019" has 2019-old/a, too. */
class BesideFolder {
  readonly #prefix: string;
  #within = 0;
  #beside = 0;

  constructor({ key_prefix }: Place) {
    this.#prefix = key_prefix;
  }

  add(page: readonly ListedObject[]): void {
    for (const { s3_key } of page) {
      if (s3_key.startsWith(`${this.#prefix}/`)) this.#within += 1;
      else if (s3_key !== this.#prefix) this.#beside += 1;
    }
  }

  /** 0 where the prefix is the name of no folder. */
  get count(): number {
    return this.#within > 0 && this.#prefix !== "" && !this.#prefix.endsWith("/") ? this.#beside : 0;
  }
}

async function handInAll(
  terminal: Terminal,
  {
    db,
    config,
    spool,
    stop,
    plan,
    order,
  }: {
    db: Database;
    config: Parameters<typeof handIn>[2];
    spool: Spool<Handed>;
    stop: AbortSignal;
    plan: Plan;
    order: Order;
  },
): Promise<Exit | void> {
  const done: HandedIn = { handed_in: 0, ignored: 0, failed: 0, first_problem: undefined };
  const progress = terminal.progress("files handed in");
  const all = { person: order.person, of: order.of, plan: keptPlan(plan) };
  let is_whole = false;
  try {
    await handIn(db, terminal, config, all, spool, done, stop, (handed_in) =>
      progress.at(handed_in, spool.count),
    );
    is_whole = done.handed_in + done.ignored === spool.count;
  } finally {
    progress.end();
    const [record, text] = handedInOf(order.person, done, spool.count, is_whole);
    terminal.show(record, text);
  }
  return is_whole ? EXIT.done : EXIT.failed;
}

/** By whose prices the estimates are. */
async function pricesOf(db: Database, { tier, days }: Asked, plan: Plan): Promise<string[]> {
  const { rows } = await sql<{ words: string }>`
    select distinct format('%s (%s)', p.price_region, p.valid_from) as words
      from unnest(${[...plan.regions].map((region) => region ?? "")}::text[]) r (region)
     cross join lateral check_tiers(${tier}, ${days}, 1, nullif(r.region, '')) p
     where p.price_region is not null order by 1`.execute(db);
  return rows.map(({ words }) => words);
}
