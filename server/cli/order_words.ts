/** An order in words: what it would do, the question, and what became of it. */
import { reasonOf } from "../log.ts";
import { dollars } from "../wording/dollars.ts";
import { size } from "../wording/sizes.ts";
import { hoursInWords } from "../wording/times.ts";
import type { Asked, Group, HandedIn, LimitLeft, Plan } from "./order.ts";
import { sentence, type Terminal } from "./terminal.ts";

export const counted = (files: number): string =>
  `${files.toLocaleString("en-US")} ${files === 1 ? "file" : "files"}`;

const sum = <T>(rows: readonly T[], of: (row: T) => number): number =>
  rows.reduce((all, row) => all + of(row), 0);

/** Null: of some nobody knows the price. */
const costOf = (groups: readonly Group[]): number | null =>
  groups.some(({ cost }) => cost === null) ? null : sum(groups, ({ cost }) => cost ?? 0);

const ARCHIVES = new Set(["ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"]);

const OUTCOMES: Record<string, string> = {
  restore: "restored",
  hold: "held for approval, by a policy",
  observe: "only observed, by a policy: not restored, nobody is told",
};

/** In dollars, as `actions` keep it. */
const toHundredthsOfACent = (cost: number | null): number | null =>
  cost === null ? null : Number(cost.toFixed(4));

/** For `open_order`. */
export const keptPlan = (plan: Plan): Record<string, unknown> => ({
  ...planRecord(plan),
  estimated_cost: toHundredthsOfACent(costOf(plan.restored)),
});

const planRecord = (plan: Plan): Record<string, unknown> => ({
  objects: sum(plan.restored, ({ objects }) => objects),
  bytes: sum(plan.restored, ({ bytes }) => bytes),
  estimated_cost: costOf(plan.restored),
  observed: sum(plan.observed, ({ objects }) => objects),
  maybe: plan.maybe.objects,
  joined: plan.joined.objects,
  held_before: plan.held.objects,
  ordered_before: plan.ordered.objects,
  readable: plan.readable.objects,
  failed_before: plan.failed.objects,
  ignored: plan.ignored.objects,
  gone: plan.gone.objects,
  with_nul: plan.with_nul.objects,
});

export function showPlan(
  terminal: Terminal,
  { person, of }: { person: string; of: string },
  { tier, days }: Asked,
  plan: Plan,
  limits: LimitLeft[],
  prices: string[],
): void {
  const groups = [...plan.groups.values()].toSorted((a, b) => b.bytes - a.bytes);
  const cost = costOf(plan.restored);
  const hours = plan.restored.map((group) => group.hours).toSorted((a, b) => b.to - a.to)[0];
  terminal.heading(
    { kind: "plan", for: person, of, ...planRecord(plan), tier, days, hours_at_most: hours?.to ?? null },
    plan.restored.length === 0
      ? `${of}: ${counted(plan.looked_at)}, none of them to restore.`
      : `${of}: ${counted(sum(plan.restored, ({ objects }) => objects))} of ${plan.looked_at.toLocaleString("en-US")} to restore for ${person}, ${size(sum(plan.restored, ({ bytes }) => bytes))}, ${cost === null ? "at an unknown cost" : `an estimated ${dollars(cost)}`}.`,
    "bold",
  );
  if (groups.length > 0) {
    terminal.text("");
    terminal.table(
      "class",
      {
        class: ({ storage_class }) => storage_class,
        files: ({ objects }) => objects.toLocaleString("en-US"),
        size: ({ bytes }) => size(bytes),
        tier: (group) => group.tier,
        days: (group) => (ARCHIVES.has(group.storage_class) ? "for good" : group.days),
        "readable in": (group) => hoursInWords(group.hours),
        "estimated cost": (group) => (group.cost === null ? "unknown" : dollars(group.cost)),
        outcome: ({ action }) => OUTCOMES[action] ?? action,
      },
      groups,
    );
    terminal.text("");
    if (prices.length > 0)
      terminal.text(`An estimate, without download and tax, by the prices of ${prices.join(", ")}.`);
    terminal.text(
      `Where no policy says: ${tier} for ${days === 1 ? "1 day" : `${days} days`} (RESTORE_TIER, RESTORE_DAYS here; the worker's own count).`,
    );
  }
  for (const line of besides(person, plan)) terminal.text(line);
  if (terminal.is_json) terminal.table("limit", {}, limits);
  else for (const limit of limits) terminal.text(limitLine(limit));
}

/** What is not restored by this order, and why. */
function besides(person: string, plan: Plan): string[] {
  const { readable, joined, held, ordered, maybe, failed, ignored, gone, with_nul } = plan;
  const line = (files: { objects: number }, what: (one: boolean) => string): string[] =>
    files.objects === 0 ? [] : [`${counted(files.objects)} ${what(files.objects === 1)}`];
  return [
    ...line(readable, (one) => `${one ? "is" : "are"} readable already.`),
    ...line(
      joined,
      (one) =>
        `${one ? "is" : "are"} being restored already, which costs nothing more: ${person} will hear of ${one ? "it" : "them"}, too.`,
    ),
    ...line(
      held,
      (one) =>
        `${one ? "waits" : "wait"} for approval already (npm run thaw -- hold list): ${person} will hear of ${one ? "it" : "them"}, too.`,
    ),
    ...line(
      ordered,
      (one) =>
        `${one ? "was" : "were"} ordered for ${person} before, and ${one ? "is" : "are"} under way, or ${one ? "waits" : "wait"} for approval.`,
    ),
    ...line(
      maybe,
      (one) =>
        `in Intelligent-Tiering: a list does not say whether ${one ? "it is" : "they are"} archived. Thaw asks S3 for ${one ? "it" : "each"}; what is readable is left as it is.`,
    ),
    ...line(
      failed,
      (one) =>
        `failed within the last day, and ${one ? "is" : "are"} not tried again by an order: see npm run thaw -- status, and retry.`,
    ),
    ...line(ignored, (one) => `${one ? "is" : "are"} left out: a policy ignores ${person} there.`),
    ...line(gone, (one) => `${one ? "is" : "are"} not there, and left out: no such key, or version.`),
    ...line(
      with_nul,
      (one) =>
        `${one ? "has NUL in its key, and is" : "have NUL in their keys, and are"} left out: Thaw cannot keep such a key.`,
    ),
  ];
}

function limitLine({ limit_text, objects_left, bytes_left, cost_left, is_beyond }: LimitLeft): string {
  const left = [
    ...(objects_left === null ? [] : [`${Math.max(0, objects_left).toLocaleString("en-US")} objects`]),
    ...(bytes_left === null ? [] : [size(Math.max(0, bytes_left))]),
    ...(cost_left === null ? [] : [dollars(Math.max(0, cost_left))]),
  ].join(", ");
  return is_beyond
    ? `Beyond the limit of ${limit_text} (${left} left): what is beyond waits for approval (npm run thaw -- hold list).`
    : `Within the limit of ${limit_text} (${left} left).`;
}

/** `handed_in`: those that cost nothing, or nobody knows, included. */
export function questionOf(
  { person, of }: { person: string; of: string },
  plan: Plan,
  handed_in: number,
): string {
  const objects = sum(plan.restored, (group) => group.objects);
  const cost = costOf(plan.restored);
  const known = `${counted(objects)} (${size(sum(plan.restored, ({ bytes }) => bytes))}, ${cost === null ? "cost unknown" : `an estimated ${dollars(cost)}`})`;
  return objects === 0
    ? `Hand in ${counted(handed_in)} of ${of} for ${person}?`
    : `Restore ${known} of ${of} for ${person}?`;
}

/** The result, whether it is whole or not: a record and a sentence. */
export function handedInOf(
  person: string,
  { handed_in, ignored, failed, first_problem }: HandedIn,
  all: number,
  is_whole: boolean,
): [record: object, text: string] {
  const record = { kind: "order", for: person, handed_in, ignored, failed, of: all, ok: is_whole };
  if (is_whole) {
    return [
      record,
      `Handed in: ${counted(handed_in)} for ${person}, who is mailed when the restores have begun, and when files are ready.`,
    ];
  }
  const why = failed === 0 ? "" : ` ${counted(failed)} could not be: ${sentence(reasonOf(first_problem))}`;
  return [
    record,
    `${failed === 0 ? "Stopped. " : ""}${counted(handed_in)} of ${all.toLocaleString("en-US")} ${handed_in === 1 ? "was" : "were"} handed in, and ${handed_in === 1 ? "is" : "are"} being restored.${why} For the rest, give the same command again: nothing is restored, or told, twice.`,
  ];
}
