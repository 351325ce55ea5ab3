/** What restores cost by our estimate: limits and how much of each is used, and who and what cost most. */
import { html } from "hono/html";

import { csv } from "../wording/csv.ts";
import { dollarCell, dollars } from "../wording/dollars.ts";
import { size } from "../wording/sizes.ts";
import type { By, Cost, Ignored, Spending } from "./cost_queries.ts";
import { link, table } from "./layout.ts";
import { count, plain, things, visible, type Html } from "./text.ts";
import { urls } from "./urls.ts";

/** From here on APPROVERS are warned: limit_warns_at in sql/cost.sql. */
const WARNS_AT = 0.8;

const usedInWords = (part: number): string =>
  part >= 1 ? `used up (${Math.floor(part * 100)} %)` : `${Math.floor(part * 100)} %`;

/** A bar from nothing to all of a limit; the same is beside it in words. */
function bar({ words, person, used }: Spending): Html {
  // What is more than nothing must show.
  const width = Math.min(100, used > 0 ? Math.max(1, used * 100) : 0);
  const colour = used >= 1 ? "three" : used >= WARNS_AT ? "warned" : "one";
  const of = person === "" ? words : `${words}, ${person}`;
  return html`<svg class="used" role="img" viewBox="0 0 100 10" preserveAspectRatio="none">
    <title>${plain(`${of}: ${usedInWords(used)}`)}</title>
    <rect class="empty" width="100" height="10" />
    <rect class="${colour}" width="${width.toFixed(1)}" height="10" />
  </svg>`;
}

const limitTable = (list: Spending[]): Html =>
  table(
    "In the present day or month (UTC); of a limit for each person, those who have used most",
    ["limit", "who", "used", "objects", "size", "estimate"],
    list.map((limit) => [
      visible(limit.words),
      limit.scope !== "person" ? "all together" : limit.person === "" ? "nobody yet" : visible(limit.person),
      html`${bar(limit)} ${usedInWords(limit.used)}`,
      count(limit.objects),
      size(limit.bytes),
      dollars(limit.estimated_cost),
    ]),
  );

const TITLES: Record<By, string> = { person: "Persons", bucket: "Buckets", prefix: "Prefixes" };

const costTable = (by: By, list: Cost[], month: string): Html =>
  html`<section>
    <h2>${TITLES[by]}</h2>
    ${table(
      "The dearest first",
      [by, "restored", "size", "estimate", "only observed", "size observed", "it would have cost"],
      list.map((cost) => [
        visible(cost.name),
        count(cost.objects),
        size(cost.bytes),
        dollars(cost.estimated_cost),
        count(cost.observed_objects),
        size(cost.observed_bytes),
        dollars(cost.observed_cost),
      ]),
    )}
    ${list.length > 0 ? html`<p class="bar">${link(urls.costsCsv(by, month), `${TITLES[by]} as CSV`)}</p>` : ""}
  </section>`;

/** The month so many months later, or before. */
export function monthFrom(month: string, months: number): string {
  const [year = 0, number = 1] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number - 1 + months, 1)).toISOString().slice(0, 7);
}

export interface CostFacts {
  month: string;
  all: Omit<Cost, "name"> | undefined;
  limits: Spending[];
  top: [By, Cost[]][];
  ignored: Ignored[];
}

export function costsPage({ month, all, limits, top, ignored }: CostFacts, now: Date): Html {
  const present = now.toISOString().slice(0, 7);
  return html`<p>
      Estimates by published prices: requests, retrieval and the temporary copies, without tax and download.
      What AWS bills may differ.
    </p>
    <section>
      <h2>Limits</h2>
      ${limits.length === 0 ? html`<p>There is no limit. To set one: <b>npm run thaw -- limit set</b></p>` : limitTable(limits)}
    </section>
    <section>
      <h2>Restores of ${month}</h2>
      <p class="bar">
        ${link(urls.costs(monthFrom(month, -1)), "The month before")}
        ${month < present ? link(urls.costs(monthFrom(month, 1)), "The month after") : ""}
      </p>
      ${
        all === undefined
          ? ""
          : html`<p>
              Restored: <b>${things(all.objects, "object")}</b>, ${size(all.bytes)}, an estimate of
              <b>${dollars(all.estimated_cost)}</b>. Only observed: ${things(all.observed_objects, "object")},
              ${size(all.observed_bytes)}; to restore them would have cost an estimate of
              ${dollars(all.observed_cost)}.
            </p>`
      }
    </section>
    ${top.map(([by, list]) => costTable(by, list, month))}
    ${
      ignored.length === 0
        ? ""
        : html`<section>
            <h2>Reads that a policy ignores</h2>
            ${table(
              "Nothing is restored, and nobody is told",
              ["where", "who", "reads"],
              ignored.map((one) => [
                visible(one.s3_bucket === "*" ? "everywhere" : `s3://${one.s3_bucket}/${one.key_prefix}`),
                one.principal === "*" ? "everybody" : visible(one.principal),
                count(one.reads),
              ]),
            )}
          </section>`
    }`;
}

export const costsAsCsv = (by: By, month: string, list: Cost[]): string =>
  csv([
    [
      "month",
      by,
      "restored_objects",
      "restored_bytes",
      "restored_estimate_usd",
      "observed_objects",
      "observed_bytes",
      "observed_estimate_usd",
    ],
    ...list.map((cost) => [
      month,
      cost.name,
      cost.objects,
      cost.bytes,
      dollarCell(cost.estimated_cost),
      cost.observed_objects,
      cost.observed_bytes,
      dollarCell(cost.observed_cost),
    ]),
  ]);
