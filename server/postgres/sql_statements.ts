/** One statement of a file, and the line on which it begins. */
export interface Statement {
  text: string;
  line: number;
}

/** What may hide a semicolon, and what may not. (Bodies by BEGIN ATOMIC would; ours are all quoted.) */
const TOKEN =
  /(?<blank>\s+|--[^\n]*|\/\*.*?\*\/)|(?<end>;)|\$(?<tag>(?:[a-z_]\w*)?)\$.*?\$\k<tag>\$|e'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"[^"]*"|[a-z_][\w$]*|./gis;

/** So that each is sent by itself: Postgres says of many sent together that one has failed, but rarely which. */
export function statementsOf(text: string): Statement[] {
  const statements: Statement[] = [];
  let from: number | undefined;
  const end = (to: number): void => {
    if (from === undefined) return;
    statements.push({ text: text.slice(from, to), line: linesIn(text.slice(0, from)) });
    from = undefined;
  };
  for (const { index, groups } of text.matchAll(TOKEN)) {
    if (groups?.["end"] !== undefined) end(index);
    else if (groups?.["blank"] === undefined) from ??= index;
  }
  end(text.length);
  return statements;
}

const linesIn = (text: string): number => text.split("\n").length;

/** The fields by which Postgres says where in a statement it failed, each only sometimes. */
interface Whereabouts {
  position?: string;
  internalQuery?: string;
  internalPosition?: string;
  where?: string;
}

/** The line of the file on which a statement has failed, as near as Postgres says; or else that of its beginning. */
export function lineOf(error: unknown, { text, line }: Statement): number {
  const { position, internalQuery, internalPosition, where } = error as Whereabouts;
  const lineAt = (offset: number): number => line + linesIn(text.slice(0, offset)) - 1;
  if (position !== undefined) return lineAt(Number(position));
  // A function's body, or a statement inside of one, that stands here as it was run.
  const inner = internalQuery === undefined ? -1 : text.indexOf(internalQuery);
  if (inner >= 0) return lineAt(inner + Number(internalPosition));
  // A DO block counts its lines from its opening quote; what it called, comes before it.
  const inBlock = /inline_code_block line (\d+)/.exec(where ?? "")?.[1];
  if (inBlock !== undefined) return lineAt(text.indexOf("$")) + Number(inBlock) - 1;
  return line;
}
