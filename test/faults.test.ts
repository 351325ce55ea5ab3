/** faults.md names a test for each fault: it must be there. */
import { readFileSync } from "node:fs";

import { expect, test } from "vitest";

const read = (name: string): string => readFileSync(`${import.meta.dirname}/${name}`, "utf8");

const rows = [...read("faults.md").matchAll(/^\| (\d+) \|.*\| (\w+\.test\.ts): (.+) \|$/gm)].map(
  ([, number, file, title]) => ({
    number: Number(number),
    file: file as string,
    title: title as string,
  }),
);

test("the table is complete", () => {
  expect(rows.map((row) => row.number)).toEqual(Array.from({ length: 53 }, (_, index) => index + 1));
});

test.for(rows)("$number: $file has a test of that name", ({ file, title }) => {
  expect(read(file)).toContain(title);
});
