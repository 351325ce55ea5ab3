/**
 * Installs what only the tests need and what is too large for everybody's `npm ci`. `npm test` starts with it: the first
 * time it takes some seconds to a minute, later nothing. Without a network the tests run without these tools, and say so.
 */
import { spawnSync } from "node:child_process";

import { missingTools } from "./tools.ts";

const missing = missingTools();
if (missing.length > 0) {
  console.log(
    `Installing tools of the tests into test/heavy_tools, once (some 300 MB in all): ${missing.join(", ")} ...`,
  );
  const started = performance.now();
  // The cache first, and no long wait where there is no network.
  spawnSync(
    "npm",
    ["ci", "--prefer-offline", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=30000"],
    {
      cwd: import.meta.dirname,
      stdio: "inherit",
    },
  );
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  const left = missingTools();
  if (left.length === 0) console.log(`Installed in ${seconds} s.`);
  else {
    console.error(
      `NOT INSTALLED: ${left.join(", ")}. What needs them is skipped. When the registry can be reached: npm test, or npm ci in test/heavy_tools.`,
    );
  }
}
