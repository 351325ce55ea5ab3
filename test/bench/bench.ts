/**
 * `npm run bench [-- 4 5 --full]`: each figure against a peer or a limit, measured in the same run. Without numbers,
 * all of them: about three quarters of an hour. --full: ten million closed rows instead of one. --packaged: on the Postgres
 * of the distribution instead of npm's. For a quick look at 13 and 16: --objects 20000, --minutes 2.
 */
import { parseArgs } from "node:util";

import { PACKAGED } from "../support/postgres_versions.ts";
import { FIGURES, type Figure } from "./figures.ts";
import { printTable, type Result } from "./table.ts";
import { openWorld } from "./world.ts";

const { values, positionals } = parseArgs({
  options: {
    full: { type: "boolean" },
    packaged: { type: "boolean" },
    objects: { type: "string" },
    minutes: { type: "string" },
  },
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
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
  process.on(signal, () => void world.close().then(() => process.exit(130)));
const results: Result[] = [];
const options = {
  full: values.full === true,
  objects: Number(values.objects ?? 300_000),
  minutes: Number(values.minutes ?? 10),
};
try {
  for (const figure of chosen) {
    console.log(`${figure.what} ...`);
    const started = performance.now();
    results.push(
      ...(await figure.measure(world, options).catch((error: unknown) => [broken(figure, error)])),
    );
    console.log(`  ${((performance.now() - started) / 1000).toFixed(0)} s`);
  }
} finally {
  await world.close();
}
console.log(`\n${printTable(results)}`);
