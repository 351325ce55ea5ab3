/**
 * Does an EventBridge pattern match an event? Only what the template's patterns use, and an error for the
 * rest: a matcher that shrugs at an operator it does not know would prove nothing.
 *
 * The rules are those of the EventBridge User Guide, "Comparison operators for use in event patterns".
 */
import { isObject } from "../../lambdas/fields.ts";

export function matches(pattern: unknown, event: unknown): boolean {
  if (!isObject(pattern)) throw new TypeError("A pattern is an object.");
  return Object.entries(pattern).every(([field, condition]) => {
    if (field === "$or") return listOf(condition).some((alternative) => matches(alternative, event));
    const found = valuesAt(event, field);
    if (Array.isArray(condition)) return condition.some((matcher) => matchesLeaf(matcher, found.flat()));
    // An absent object has absent fields: "exists: false" below it holds.
    return (found.length === 0 ? [{}] : found.flat()).some((value) => matches(condition, value));
  });
}

function listOf(condition: unknown): unknown[] {
  if (!Array.isArray(condition) || condition.length < 2) throw new TypeError("$or takes two or more.");
  return condition;
}

const valuesAt = (event: unknown, field: string): unknown[] =>
  isObject(event) && Object.hasOwn(event, field) ? [event[field]] : [];

function matchesLeaf(matcher: unknown, values: unknown[]): boolean {
  if (typeof matcher === "string") return values.includes(matcher);
  const [operator, operand] = isObject(matcher) ? (Object.entries(matcher)[0] ?? []) : [];
  const texts = values.filter((value) => typeof value === "string");
  switch (operator) {
    case "exists":
      return operand === values.length > 0;
    case "prefix":
    case "suffix":
    case "wildcard":
      return texts.some((text) => matchesText(operator, textOf(operand), text));
    // It wants a value to compare with: an absent field does not match.
    case "anything-but":
      return texts.some((text) => !isAmong(operand, text));
    default:
      throw new TypeError(`Not a matcher that is known here: ${JSON.stringify(matcher)}`);
  }
}

function matchesText(operator: string, operand: string, text: string): boolean {
  switch (operator) {
    case "prefix":
      return text.startsWith(operand);
    case "suffix":
      return text.endsWith(operand);
    case "wildcard":
      return wildcard(operand).test(text);
    default:
      throw new TypeError(`Not a matcher that is known here: ${operator}`);
  }
}

/** What "anything-but" excludes: a text or several, or one matcher of texts, with one operand or several. */
function isAmong(excluded: unknown, text: string): boolean {
  if (!isObject(excluded)) return severalOf(excluded).includes(text);
  const [[operator, operands] = ["", undefined], ...others] = Object.entries(excluded);
  if (others.length > 0) throw new TypeError("anything-but takes one matcher.");
  return severalOf(operands).some((operand) => matchesText(operator, operand, text));
}

function severalOf(operands: unknown): string[] {
  const list: unknown[] = Array.isArray(operands) ? operands : [operands];
  if (list.length === 0) throw new TypeError("The list of operands is empty.");
  return list.map(textOf);
}

function textOf(operand: unknown): string {
  if (typeof operand !== "string" || operand === "") throw new TypeError("The operand is no text.");
  return operand;
}

/** No escapes: none of our patterns has one. */
const wildcard = (text: string): RegExp =>
  new RegExp(`^${text.replaceAll(/[^\w*]/g, String.raw`\$&`).replaceAll("*", ".*")}$`, "s");
