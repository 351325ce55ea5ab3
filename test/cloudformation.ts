/**
 * Reads a CloudFormation template and works out its functions for given parameters, as AWS would:
 * what refers to nothing is an error. Only the functions that our template uses are known.
 */
import { parse, type CollectionTag, type ScalarTag } from "yaml";

import { isObject, type JsonObject } from "../lambdas/fields.ts";

const NAMES = ["And", "Equals", "FindInMap", "GetAtt", "If", "Join", "Not", "Select", "Split", "Sub"];

const longForm = (name: string): string => (name === "Ref" ? name : `Fn::${name}`);

const scalarTag = (name: string): ScalarTag => ({
  tag: `!${name}`,
  resolve: (text: string) => ({ [longForm(name)]: name === "GetAtt" ? text.split(".") : text }),
});

const sequenceTag = (name: string): CollectionTag => ({
  tag: `!${name}`,
  collection: "seq",
  nodeClass: undefined as never,
});

export interface Template {
  Parameters: Record<string, JsonObject>;
  Mappings: Record<string, Record<string, JsonObject>>;
  Conditions: Record<string, unknown>;
  Globals: { Function: JsonObject };
  Resources: Record<string, { Type: string; Condition?: string; Properties: JsonObject } & JsonObject>;
  Outputs: Record<string, JsonObject>;
}
