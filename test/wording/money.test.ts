/** One number everywhere: how dollars, sizes and cells are written. */
import { expect, test } from "vitest";

import { csv } from "../../server/wording/csv.ts";
import { dollarCell, dollars, estimated } from "../../server/wording/dollars.ts";
import { parseSize, size } from "../../server/wording/sizes.ts";

test("dollars are written to the cent, exactly, and what is less than one is not nothing", () => {
  expect(["0", "0.009999", "0.01", "1.005", "24.1", "1234.5", "1234567.891"].map(dollars)).toEqual([
    "$0.00",
    "under $0.01",
    "$0.01",
    "$1.01",
    "$24.10",
    "$1,234.50",
    "$1,234,567.89",
  ]);
  expect(dollars(0.5)).toBe("$0.50");
  expect([estimated("24.1"), estimated("0.001")]).toEqual([
    "an estimated $24.10",
    "an estimate of under $0.01",
  ]);
  expect(["1234.5", "0.005", "0"].map(dollarCell)).toEqual(["1234.50", "0.01", "0.00"]);
});

test("sizes are in thousands, as S3's console and desktops count", () => {
  expect([0, 1, 999, 1000, 1_234_000, 999_960, 12_345_678, 5e12, "1200000000000000"].map(size)).toEqual([
    "0 bytes",
    "1 byte",
    "999 bytes",
    "1.0 kB",
    "1.2 MB",
    "1.0 MB",
    "12 MB",
    "5.0 TB",
    "1.2 PB",
  ]);
});

test("sizes are read as people write them, and nothing else is taken for one", () => {
  expect(["500GB", "1.5 TB", "1000", "12 bytes", "0", "3kb"].map(parseSize)).toEqual([
    500e9, 1.5e12, 1000, 12, 0, 3000,
  ]);
  for (const text of ["", "GB", "-1GB", "1e3", "1,5TB", "5 XB", "0x10", "99999999 EB", "GB 5"])
    expect(parseSize(text), text).toBeNull();
});

test("a cell of a CSV file that a spreadsheet would run is a text there", () => {
  expect(csv([["=1+1", "@a", 'a "b"', -1, null]])).toBe(`"'=1+1","'@a","a ""b""","-1",\r\n`);
});
