/** One element: enough of XML for the small documents S3 takes. */
export interface XmlElement {
  name: string;
  text: string;
  children: XmlElement[];
}

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/**
 * Reads a small XML document; undefined when it is not well-formed.
 *
 * Names lose their prefix, attributes (xmlns) are skipped, and a DOCTYPE is refused.
 */
export function parseXml(source: string): XmlElement | undefined {
  const tokens = source.replace(/^\uFEFF?\s*<\?xml[^>]*\?>/, "").match(/<!--[\s\S]*?-->|<[^>]*>|[^<]+|</g);
  const top: XmlElement = { name: "", text: "", children: [] };
  const open = [top];
  for (const token of tokens ?? []) {
    const here = open.at(-1);
    if (here === undefined) return undefined;
    if (token.startsWith("<!--")) continue;
    if (!token.startsWith("<")) {
      here.text += unescapeXml(token);
      continue;
    }
    const tag = /^<(\/?)(?:[\w.-]+:)?([\w.-]+)((?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(\/?)>$/.exec(
      token,
    );
    if (tag === null) return undefined;
    const [, closing, name = "", , empty] = tag;
    if (closing === "/") {
      if (here.name !== name || open.length === 1) return undefined;
      open.pop();
      continue;
    }
    const element: XmlElement = { name, text: "", children: [] };
    here.children.push(element);
    if (empty !== "/") open.push(element);
  }
  if (open.length !== 1 || top.text.trim() !== "" || top.children.length !== 1) return undefined;
  return top.children[0];
}

function unescapeXml(text: string): string {
  return text.replaceAll(
    /&(?:#x([0-9a-fA-F]+)|#(\d+)|(\w+));/g,
    (whole, hex?: string, dec?: string, name?: string) => {
      if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
      if (dec !== undefined) return String.fromCodePoint(Number.parseInt(dec, 10));
      return ENTITIES[name ?? ""] ?? whole;
    },
  );
}

/** Writes text for XML; keys may hold control characters, which S3 sends as references. */
export function escapeXml(text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.replaceAll(/[&<>"\u0000-\u001F]/g, (character) => {
    if (character === "&") return "&amp;";
    if (character === "<") return "&lt;";
    if (character === ">") return "&gt;";
    if (character === '"') return "&quot;";
    return `&#x${character.codePointAt(0)?.toString(16)};`;
  });
}
