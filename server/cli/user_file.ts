import { ConfigError } from "../config.ts";

/** First bytes of files that are no text, but that people pass as a list. */
export const NO_TEXT: [start: number[], what: string][] = [
  [[0x50, 0x4b, 0x03, 0x04], "an Excel workbook (or another zip file)"],
  [[0xd0, 0xcf, 0x11, 0xe0], "an old Excel workbook"],
  [[0x25, 0x50, 0x44, 0x46], "a PDF"],
  [[0x1f, 0x8b], "a gzip file"],
];

export const startsWith = (bytes: Uint8Array, start: number[]): boolean =>
  start.every((byte, index) => bytes[index] === byte);

/**
 * The text of a file as spreadsheets and directories export it: UTF-8, UTF-16 with a byte order mark, else Windows-1252 (we
 * use only the ASCII parts of a list, which are the same in related encodings).
 *
 * @throws ConfigError saying what the file is, when it is no text.
 */
export function decodeText(bytes: Uint8Array, file: string): string {
  const found = NO_TEXT.find(([start]) => startsWith(bytes, start));
  if (found !== undefined) throw notText(file, found[1]);
  const text = decode(bytes);
  if (text.includes("\0")) throw notText(file, "a binary file, or UTF-16 without its byte order mark");
  return text;
}

/** TextDecoder removes the byte order mark. */
function decode(bytes: Uint8Array): string {
  if (startsWith(bytes, [0xff, 0xfe])) return new TextDecoder("utf-16le").decode(bytes);
  if (startsWith(bytes, [0xfe, 0xff])) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

const notText = (file: string, what: string): ConfigError =>
  new ConfigError(`${file} is ${what}, not a CSV file. Save it as "CSV UTF-8 (comma delimited)".`);
