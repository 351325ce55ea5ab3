import { malformedXml } from "./s3_wire.ts";
import { parseXml, type XmlElement } from "./s3_xml.ts";

/** Slowest first, so that a place in the list is a speed. */
export const TIERS = ["Bulk", "Standard", "Expedited"] as const;
export type Tier = (typeof TIERS)[number];

/** A restore somebody asks for; without a tier S3 takes Standard. */
export interface RestoreOrder {
  days: number | undefined;
  tier: Tier;
}

/** No real restore lasts longer, and dates still work with it. */
const MAX_DAYS = 1_000_000;

/**
 * Reads the body of a RestoreObject request as strictly as S3 does.
 *
 * S3 says MalformedXML for nearly everything: an absent body, a Tier beside Days (that one belongs
 * to SELECT restores), a Tier it does not know, fractions of a day.
 */
export function parseRestoreOrder(body: string): RestoreOrder {
  const root = parseXml(body);
  if (root === undefined || root.name !== "RestoreRequest" || root.text.trim() !== "") throw malformedXml();
  const names = root.children.map((child) => child.name);
  if (new Set(names).size !== names.length) throw malformedXml();

  const order: RestoreOrder = { days: undefined, tier: "Standard" };
  for (const child of root.children) {
    if (child.name === "Days") order.days = parseDays(child);
    else if (child.name === "GlacierJobParameters") order.tier = parseTier(child);
    // SELECT restores (Type, Tier, SelectParameters, OutputLocation) are closed to new customers.
    else if (child.name !== "Description") throw malformedXml();
  }
  return order;
}

function parseDays(element: XmlElement): number {
  const text = element.text.trim();
  const days = Number(text);
  if (element.children.length > 0 || !/^\d+$/.test(text) || days < 1 || days > MAX_DAYS) throw malformedXml();
  return days;
}

function parseTier(element: XmlElement): Tier {
  const [child, ...others] = element.children;
  const tier = TIERS.find((tier) => tier === child?.text);
  if (child?.name !== "Tier" || others.length > 0 || tier === undefined) throw malformedXml();
  return tier;
}
