/** The template as a linter by others reads it, which knows AWS's schemas of all resources: pip install cfn-lint. */
import { spawnSync } from "node:child_process";

import { expect, test } from "vitest";

import { ROOT } from "../support/root.ts";

/** Of each age: the oldest Regions know everything, the newest the least. */
const REGIONS = ["eu-west-1", "us-east-1", "eu-central-2", "ap-southeast-1", "il-central-1", "mx-central-1"];

test("cfn-lint finds nothing in the template, not even a hint", { timeout: 240_000 }, ({ skip }) => {
  const args = ["--include-checks", "I", "--regions", ...REGIONS, "--template", "lambdas/template.yaml"];
  const { error, status, stdout, stderr } = spawnSync("cfn-lint", args, { cwd: ROOT, encoding: "utf8" });
  if (error !== undefined) return skip("No cfn-lint here: pip install cfn-lint.");
  expect(`${stdout}${stderr}`.trim()).toBe("");
  expect(status).toBe(0);
});
