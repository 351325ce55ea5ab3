/**
 * `npm run bench [-- 4 5 --full]`: each figure against a peer or a limit, measured in the same run. Without numbers,
 * all of them: about a quarter of an hour. --full: ten million closed rows instead of one. --packaged:
 * on the Postgres of the distribution instead of npm's.
 */
import { parseArgs } from "node:util";

import { PACKAGED } from "../postgres_versions.ts";
import { FIGURES, type Figure } from "./figures.ts";
import { printTable, type Result } from "./table.ts";
import { openWorld } from "./world.ts";

const { values, positionals } = parseArgs({
  options: { full: { type: "boolean" }, packaged: { type: "boolean" } },
  allowPositionals: true,
});
const chosen = FIGURES.filter(
  ({ numbers }) => positionals.length === 0 || numbers.some((n) => positionals.includes(String(n))),
);

/** A figure that could not be measured costs its own line, not the table. */
const broken = ({ numbers, what }: Figure, error: unknown): Result => ({
  number: numbers[0] ?? 0,
  figure: what,
  value: "none",
  goal: "to be measured",
  met: false,
  remark: error instanceof Error ? error.message : String(error),
});

if (values.packaged === true && PACKAGED.missing !== undefined) throw new Error(PACKAGED.missing);
const world = await openWorld(values.packaged === true ? await PACKAGED.programs() : undefined);
for (const signal of ["SIGINT", "SIGTERM"])
  process.on(signal, () => void world.close().then(() => process.exit(130)));
const results: Result[] = [];
const full = values.full === true;
try {
  for (const figure of chosen) {
    console.log(`${figure.what} ...`);
    const started = performance.now();
    results.push(
      ...(await figure.measure(world, { full }).catch((error: unknown) => [broken(figure, error)])),
    );
    console.log(`  ${((performance.now() - started) / 1000).toFixed(0)} s`);
  }
} finally {
  await world.close();
}
console.log(`\n${printTable(results)}`);
