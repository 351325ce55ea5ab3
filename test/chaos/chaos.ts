/** `npm run chaos -- [--seed N] [--reads N] [--seconds N]`: a storm, and what the auditor finds. Ends with 1 when he does. */
import { parseArgs } from "node:util";

import { audit } from "./auditor.ts";
import { runStorm } from "./storm.ts";

const { values } = parseArgs({
  options: { seed: { type: "string" }, reads: { type: "string" }, seconds: { type: "string" } },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000));
console.log(`seed ${seed} (the same weather again: npm run chaos -- --seed ${seed})`);

const evidence = await runStorm(
  {
    seed,
    reads: Number(values.reads ?? 5_000),
    people: 300,
    objects: 1_000,
    seconds: Number(values.seconds ?? 90),
  },
  (line) => console.log(line),
);
const findings = audit(evidence);
console.log();
for (const [what, figure] of Object.entries(evidence.figures))
  console.log(`${String(figure).padStart(10)}  ${what}`);
console.log();
for (const finding of findings) console.log(`FOUND  ${finding}`);
console.log(findings.length === 0 ? "Every promise was kept." : `${findings.length} findings, seed ${seed}.`);
process.exit(findings.length === 0 ? 0 : 1);
