/**
 * A list of files: one s3:// URL a line, or CSV with bucket,key[,version]. Keys are taken as they are; S3's own lists (Inventory, Batch
 * Operations) have them URL-encoded, and do not say so, so the person who has such a file says it. Read once, as a stream: a list of a
 * million files is not held in memory, and a pipe is a file, too.
 */
import { createReadStream } from "node:fs";
import { pipeline } from "node:stream/promises";

import { parse } from "csv-parse";

import { ConfigError } from "../config.ts";
import { BUCKET_NAME } from "../s3/names.ts";
import { lettersOf, PROBLEMS_SHOWN, refuse, type LineProblem } from "./csv_file.ts";
import type { Spool } from "./spool.ts";
import { visible } from "./terminal.ts";
import { NO_TEXT, startsWith } from "./user_file.ts";

export interface ManifestEntry {
  line: number;
  s3_bucket: string;
  s3_key: string;
  /** '' is the current one. */
  version_id: string;
}

interface Manifest {
  entries: number;
  /** How many keys have %41 or the like in them, and were taken as they are. */
  looks_encoded: number;
}

/** Adds its entries to `spool`. @throws ConfigError with all bad lines. */
export async function readManifest(
  file: string,
  is_url_encoded: boolean,
  spool: Spool<ManifestEntry>,
): Promise<Manifest> {
  const manifest: Manifest = { entries: 0, looks_encoded: 0 };
  const problems: LineProblem[] = [];
  let problem_count = 0;
  const take = async ({ line, ...fields }: Fields): Promise<void> => {
    const entry = entryOf(fields, is_url_encoded);
    if (typeof entry === "string") {
      problem_count += 1;
      if (problems.length < PROBLEMS_SHOWN) problems.push({ line, problem: entry });
      return;
    }
    manifest.entries += 1;
    if (!is_url_encoded && /%[0-9A-Fa-f]{2}/.test(entry.s3_key)) manifest.looks_encoded += 1;
    // What is told in the end is what is wrong.
    if (problem_count === 0) await spool.add({ line, ...entry });
  };
  for await (const fields of fieldsIn(textOf(file), file)) await take(fields);
  refuse(file, problems, { total: problem_count, nothing: "Nothing was ordered" });
  return manifest;
}

/** A line as it is written; `problem`: why it cannot be read at all. */
type Fields = { line: number } & ({ bucket: string; key: string; version: string } | { problem: string });
type WithoutLine<T> = T extends unknown ? Omit<T, "line"> : never;

const BUCKET = new RegExp(`^${BUCKET_NAME}$`);

/** S3 allows this many bytes for a key, and for a version's id. */
const MAX_BYTES = 1024;

/** What the line names, or what is wrong with it. */
function entryOf(fields: WithoutLine<Fields>, is_url_encoded: boolean): Omit<ManifestEntry, "line"> | string {
  if ("problem" in fields) return fields.problem;
  const { bucket, key, version } = fields;
  if (!BUCKET.test(bucket)) return `'${visible(bucket)}' is no bucket's name`;
  const s3_key = is_url_encoded ? decoded(key) : key;
  if (s3_key === null)
    return `'${visible(key)}' is not URL-encoded: a % stands in it without two digits, or what it encodes is no text`;
  if (s3_key === "") return "the key is missing";
  if (Buffer.byteLength(s3_key) > MAX_BYTES) return `the key is longer than ${MAX_BYTES} bytes`;
  if (s3_key.includes("\0")) return "the key has NUL in it";
  if (Buffer.byteLength(version) > MAX_BYTES) return `the version is longer than ${MAX_BYTES} bytes`;
  return { s3_bucket: bucket, s3_key, version_id: version };
}

/** As S3 encodes keys in its lists: a space is a +. */
function decoded(key: string): string | null {
  try {
    return decodeURIComponent(key.replaceAll("+", " "));
  } catch {
    return null;
  }
}

/** The text of a file in pieces, whatever Unicode it is in. @throws ConfigError */
async function* textOf(file: string): AsyncGenerator<string> {
  let decoder: TextDecoder | undefined;
  try {
    for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
      decoder ??= decoderOf(chunk, file);
      yield decoder.decode(chunk, { stream: true });
    }
    if (decoder !== undefined) yield decoder.decode();
  } catch (error) {
    if (error instanceof TypeError) {
      throw new ConfigError(
        `${file} is neither UTF-8 nor UTF-16 with a byte order mark. Its keys cannot be told for sure: save it as UTF-8.`,
      );
    }
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`Cannot read ${file}: ${(error as Error).message}`);
  }
}

function decoderOf(bytes: Buffer, file: string): TextDecoder {
  const found = NO_TEXT.find(([start]) => startsWith(bytes, start));
  if (found !== undefined) {
    throw new ConfigError(
      `${file} is ${found[1]}, not a list. ${found[1] === "a gzip file" ? "Unpack it first: gunzip" : "Save it as UTF-8 text"}.`,
    );
  }
  // A TextDecoder takes the byte order mark away.
  const encoding = startsWith(bytes, [0xff, 0xfe])
    ? "utf-16le"
    : startsWith(bytes, [0xfe, 0xff])
      ? "utf-16be"
      : "utf-8";
  return new TextDecoder(encoding, { fatal: true });
}

/** Looks at the first line that is not empty: a URL, or CSV. */
async function* fieldsIn(text: AsyncGenerator<string>, file: string): AsyncGenerator<Fields> {
  let start = "";
  for (;;) {
    const { value, done } = await text.next();
    if (done === true) break;
    start += value;
    if (/\S[^\n]*\n/.test(start)) break;
  }
  if (start.includes("\0")) {
    throw new ConfigError(
      `${file} is a binary file, or UTF-16 without its byte order mark. Save it as UTF-8 text.`,
    );
  }
  const whole = prepended(start, text);
  yield* /^\s*s3:\/\//.test(start) ? urlLines(whole) : csvLines(whole, start, file);
}

async function* prepended(start: string, rest: AsyncGenerator<string>): AsyncGenerator<string> {
  yield start;
  yield* rest;
}

async function* urlLines(text: AsyncGenerator<string>): AsyncGenerator<Fields> {
  let line = 0;
  let left = "";
  const read = (written: string): Fields | undefined => {
    line += 1;
    const url = written.endsWith("\r") ? written.slice(0, -1) : written;
    if (url.trim() === "") return undefined;
    const [, bucket, key] = /^s3:\/\/([^/]*)\/(.*)$/su.exec(url) ?? [];
    return bucket === undefined || key === undefined
      ? { line, problem: `'${visible(url)}' is no s3://bucket/key` }
      : { line, bucket, key, version: "" };
  };
  for await (const piece of text) {
    const lines = (left + piece).split("\n");
    left = lines.pop() ?? "";
    for (const one of lines) {
      const fields = read(one);
      if (fields !== undefined) yield fields;
    }
  }
  const last = left === "" ? undefined : read(left);
  if (last !== undefined) yield last;
}

/** What each column may be called; the first two must be there, when the first line names columns. */
const COLUMNS: Record<"bucket" | "key" | "version", readonly string[]> = {
  bucket: ["bucket", "bucketname", "s3bucket"],
  key: ["key", "keyname", "objectkey", "s3key"],
  version: ["version", "versionid"],
};

interface CsvRecord {
  record: string[];
  info: { lines: number };
}

async function* csvLines(text: AsyncGenerator<string>, start: string, file: string): AsyncGenerator<Fields> {
  const first = /\S[^\n]*/.exec(start)?.[0] ?? "";
  const parser = parse({
    delimiter: first.includes(",") ? "," : first.includes("\t") ? "\t" : ";",
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
  });
  // An error of either end comes out of the loop below.
  const fed = pipeline(text, parser).catch(() => {});
  try {
    let layout: Layout | undefined;
    for await (const { record, info } of parser as AsyncIterable<CsvRecord>) {
      if (layout === undefined) {
        const named = namedLayout(record);
        layout = named ?? UNNAMED;
        if (named !== undefined) continue;
      }
      yield { line: info.lines, ...layout(record) };
    }
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(
      `${file} is neither a list of s3:// URLs nor a CSV file: ${(error as Error).message}`,
    );
  } finally {
    parser.destroy();
    await fed;
  }
}

/** How a record is read. */
type Layout = (record: string[]) => WithoutLine<Fields>;

const UNNAMED: Layout = (record) => {
  const [bucket = "", key = "", version = ""] = record;
  return record.length === 2 || record.length === 3
    ? { bucket, key, version }
    : {
        problem:
          record.length === 1
            ? `'${visible(bucket)}' is neither s3://bucket/key nor bucket,key`
            : `${record.length} fields, where bucket,key or bucket,key,version is expected (for a file with more, name its columns in a first line)`,
      };
};

/** Undefined: the first line names no columns, so it is an entry. */
function namedLayout(first: string[]): Layout | undefined {
  const names = first.map(lettersOf);
  const place = (column: keyof typeof COLUMNS): number =>
    names.findIndex((name) => COLUMNS[column].includes(name));
  const [bucket, key, version] = [place("bucket"), place("key"), place("version")];
  if (bucket === -1 || key === -1) return undefined;
  return (record) =>
    record.length === first.length
      ? { bucket: record[bucket] ?? "", key: record[key] ?? "", version: record[version] ?? "" }
      : { problem: `${record.length} fields, where the first line has ${first.length}` };
}
