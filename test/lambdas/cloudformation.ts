/**
 * Reads a CloudFormation template and works out its functions for given parameters, as AWS would; what
 * refers to nothing is an error. Knows only the functions that our template uses.
 */
import { isMap, isScalar, isSeq, parseDocument } from "yaml";

import { isObject, type JsonObject } from "../../lambdas/fields.ts";

export interface Resource extends JsonObject {
  Type: string;
  Properties: JsonObject;
}

export interface Template {
  Parameters: Record<string, JsonObject>;
  Mappings: Record<string, Record<string, JsonObject>>;
  Conditions: JsonObject;
  Globals: { Function: JsonObject };
  Resources: Record<string, Resource>;
  Outputs: Record<string, JsonObject>;
}

export interface Rendered {
  Globals: { Function: JsonObject };
  Resources: Record<string, Resource>;
  Outputs: Record<string, JsonObject>;
  /** Every parameter, condition, mapping and resource that something referred to. */
  used: Set<string>;
  /** What has to be there before a resource: what it refers to, and its DependsOn. */
  before: Map<string, Set<string>>;
}

export type Parameters = Record<string, string | string[]>;

export function parseTemplate(text: string): Template {
  // Its tags are CloudFormation's: the parser warns of them, and longForm() takes care.
  const document = parseDocument(text, { logLevel: "silent", uniqueKeys: true });
  if (document.errors[0] !== undefined) throw document.errors[0];
  return plain(document.contents) as Template;
}

function plain(node: unknown): unknown {
  if (isMap(node)) {
    return longForm(
      node.tag,
      Object.fromEntries(
        node.items.map(({ key, value }) => [isScalar(key) ? String(key.value) : "", plain(value)]),
      ),
    );
  }
  if (isSeq(node)) return longForm(node.tag, node.items.map(plain));
  if (isScalar(node)) return longForm(node.tag, node.value);
  if (node === null) return null;
  throw new TypeError("The template uses YAML that CloudFormation does not take.");
}

/** `!Sub x` means `{"Fn::Sub": x}`. */
function longForm(tag: string | undefined, value: unknown): unknown {
  if (tag === undefined || !/^![A-Z]/.test(tag)) return value;
  if (tag === "!GetAtt") return { "Fn::GetAtt": String(value).split(".") };
  return { [tag === "!Ref" ? "Ref" : `Fn::${tag.slice(1)}`]: value };
}

/** What `Fn::GetAtt` may ask of the kinds of resources that we have. */
const ATTRIBUTES: Record<string, string[]> = {
  "AWS::Events::Rule": ["Arn"],
  "AWS::IAM::Role": ["Arn"],
  "AWS::Logs::LogGroup": ["Arn"],
  "AWS::S3::Bucket": ["Arn"],
  "AWS::Serverless::Function": ["Arn"],
  "AWS::SQS::Queue": ["Arn", "QueueName"],
};

const PSEUDO: Record<string, unknown> = {
  "AWS::AccountId": "111122223333",
  "AWS::NoValue": undefined,
  "AWS::Region": "eu-west-1",
  "AWS::StackName": "thaw",
};

/** References to resources become "<Name>" and "<Name.Attribute>". */
export function render(template: Template, given: Parameters, pseudo: JsonObject = {}): Rendered {
  const used = new Set<string>();
  const before = new Map<string, Set<string>>();
  /** The resource that is worked out at the moment. */
  let owner: string | undefined;
  const parameters: Parameters = {};
  for (const [name, declared] of Object.entries(template.Parameters)) {
    const isList = declared["Type"] === "CommaDelimitedList";
    const scalar = "Default" in declared ? scalarOf(declared["Default"]) : undefined;
    const value = given[name] ?? (isList ? scalar?.split(",") : scalar);
    if (value === undefined) throw new Error(`Parameter ${name} is missing.`);
    if (Array.isArray(value) !== isList) {
      throw new Error(`Parameter ${name} is of another type.`);
    }
    for (const text of [value].flat()) {
      if (!isAllowed(declared, text)) throw new Error(`Parameter ${name} may not be "${text}".`);
    }
    parameters[name] = value;
  }

  const exists = (resource: Resource): boolean =>
    resource["Condition"] === undefined || holds(textOf(resource["Condition"]));

  function holds(condition: string): boolean {
    if (!(condition in template.Conditions)) throw new Error(`No condition ${condition}.`);
    used.add(condition);
    return evaluate(template.Conditions[condition]) === true;
  }

  function resource(name: string): Resource {
    const found = template.Resources[name];
    if (found === undefined || !exists(found)) throw new Error(`Nothing here is called ${name}.`);
    used.add(name);
    if (owner !== undefined) before.get(owner)?.add(name);
    return found;
  }

  function reference(name: string): unknown {
    if (name in PSEUDO) return pseudo[name] ?? PSEUDO[name];
    if (!(name in parameters)) return resource(name) && `<${name}>`;
    used.add(name);
    return parameters[name];
  }

  function attribute(name: string, attribute: string): string {
    const { Type } = resource(name);
    if (!ATTRIBUTES[Type]?.includes(attribute)) throw new Error(`A ${Type} has no ${attribute}.`);
    return `<${name}.${attribute}>`;
  }

  function substitute(operand: unknown): string {
    const [text, variables] = Array.isArray(operand) ? operand : [operand, {}];
    const local = evaluate(variables) as JsonObject;
    for (const name of Object.keys(local)) {
      if (!textOf(text).includes(`\${${name}}`)) throw new Error(`Fn::Sub has no place for ${name}.`);
    }
    return textOf(text).replaceAll(/\$\{([^}]+)\}/g, (_, name: string) => {
      const [id = "", member] = name.split(".");
      return textOf(local[name] ?? (member === undefined ? reference(name) : attribute(id, member)));
    });
  }

  function evaluate(value: unknown): unknown {
    if (Array.isArray(value)) return value.map(evaluate).filter((item) => item !== undefined);
    if (!isObject(value)) return value;
    const [[key, operand] = ["", undefined], ...others] = Object.entries(value);
    if (others.length > 0 || (key !== "Ref" && !key.startsWith("Fn::"))) {
      const entries = Object.entries(value).map(([name, item]) => [name, evaluate(item)] as const);
      return Object.fromEntries(entries.filter(([, item]) => item !== undefined));
    }
    // The branch that is not taken may refer to what is not there.
    if (key === "Fn::If") {
      const [condition, yes, no] = operand as unknown[];
      return evaluate(holds(textOf(condition)) ? yes : no);
    }
    if (key === "Fn::Sub") return substitute(operand);
    const operands = [evaluate(operand)].flat();
    const [first, second, third] = operands;
    switch (key) {
      case "Ref":
        return reference(textOf(operand));
      case "Fn::GetAtt":
        return attribute(textOf(first), textOf(second));
      case "Fn::Equals":
        return String(first) === String(second);
      case "Fn::Not":
        return first !== true;
      case "Fn::Or":
        return operands.includes(true);
      case "Fn::Join": {
        const [separator, list] = evaluate(operand) as [unknown, unknown];
        return listOf(list).join(textOf(separator));
      }
      case "Fn::Split":
        return textOf(second).split(textOf(first));
      case "Fn::Select": {
        const [index, list] = evaluate(operand) as [unknown, unknown];
        return textOf(listOf(list)[Number(index)]);
      }
      case "Fn::FindInMap":
        used.add(textOf(first));
        return textOf(template.Mappings[textOf(first)]?.[textOf(second)]?.[textOf(third)]);
      default:
        throw new Error(`${key} is not known here.`);
    }
  }

  const kept = (entries: Record<string, JsonObject>): [string, JsonObject][] =>
    Object.entries(entries).filter(([, entry]) => exists(entry as Resource));

  const Resources: Record<string, Resource> = {};
  for (const [name, entry] of kept(template.Resources)) {
    owner = name;
    before.set(name, new Set());
    Resources[name] = evaluate(entry) as Resource;
    for (const other of [entry["DependsOn"] ?? []].flat()) resource(textOf(other));
  }
  owner = undefined;
  return {
    Globals: evaluate(template.Globals) as Rendered["Globals"],
    Resources,
    Outputs: Object.fromEntries(
      kept(template.Outputs).map(([name, entry]) => [name, evaluate(entry) as JsonObject]),
    ),
    used,
    before,
  };
}

/** The resources, each after all that it waits for, as CloudFormation creates and updates them. @throws for a cycle. */
export function creationOrder({ before }: Rendered): string[] {
  const done = new Set<string>();
  const visit = (name: string, path: string[]): void => {
    if (path.includes(name)) throw new Error(`A cycle: ${[...path, name].join(" -> ")}`);
    if (done.has(name)) return;
    for (const other of before.get(name) ?? []) visit(other, [...path, name]);
    done.add(name);
  };
  for (const name of before.keys()) visit(name, []);
  return [...done];
}

function isAllowed({ AllowedPattern, AllowedValues, MinValue, MaxValue }: JsonObject, text: string): boolean {
  const pattern = AllowedPattern === undefined ? /^/ : new RegExp(`^(?:${textOf(AllowedPattern)})$`);
  const values = AllowedValues === undefined ? [text] : listOf(AllowedValues).map(scalarOf);
  const isWithin =
    (MinValue === undefined || Number(text) >= Number(MinValue)) &&
    (MaxValue === undefined || Number(text) <= Number(MaxValue));
  return pattern.test(text) && values.includes(text) && isWithin;
}

const scalarOf = (value: unknown): string => (typeof value === "number" ? String(value) : textOf(value));

function textOf(value: unknown): string {
  if (typeof value !== "string") throw new TypeError(`Expected text, not ${JSON.stringify(value)}.`);
  return value;
}

function listOf(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw new TypeError(`Expected a list, not ${JSON.stringify(value)}.`);
  return value;
}
