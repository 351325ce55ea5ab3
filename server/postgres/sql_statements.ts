/** One statement of a file, and the line on which it begins. */
export interface Statement {
  text: string;
  line: number;
}

/** Tokens that may contain a semicolon, and all others. (BEGIN ATOMIC bodies are not covered; ours are all quoted.) */
const TOKEN =
  /(?<blank>\s+|--[^\n]*|\/\*.*?\*\/)|(?<end>;)|\$(?<tag>(?:[a-z_]\w*)?)\$.*?\$\k<tag>\$|e'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"[^"]*"|[a-z_][\w$]*|./gis;

/** Splits a file, so that each statement is sent by itself: of many sent together Postgres rarely says which one failed. */
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

/** The fields in which Postgres says where a statement failed; each is set only sometimes. */
interface Whereabouts {
  position?: string;
  internalQuery?: string;
  internalPosition?: string;
  where?: string;
}

/** The line of the file on which a statement failed, as exactly as Postgres says; else its first line. */
export function lineOf(error: unknown, { text, line }: Statement): number {
  const { position, internalQuery, internalPosition, where } = error as Whereabouts;
  const lineAt = (offset: number): number => line + linesIn(text.slice(0, offset)) - 1;
  if (position !== undefined) return lineAt(Number(position));
  // A function's body, or a statement in it, that this text contains as it was run.
  const inner = internalQuery === undefined ? -1 : text.indexOf(internalQuery);
  if (inner >= 0) return lineAt(inner + Number(internalPosition));
  // Lines of a DO block count from its opening quote; in `where`, what it called comes first.
  const inBlock = /inline_code_block line (\d+)/.exec(where ?? "")?.[1];
  if (inBlock !== undefined) return lineAt(text.indexOf("$")) + Number(inBlock) - 1;
  return line;
}
