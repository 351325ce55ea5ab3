/**
 * Command lines that fetch exactly one object, or a folder, whatever its key is made of.
 *
 * A reader copies these out of a mail, so a key may neither end its quotes nor change on the way:
 * what a mail client could swallow, turn or normalise is spelt as bytes.
 */

/** An object to fetch; an empty version_id means the current version. */
export interface Fetchable {
  s3_bucket: string;
  s3_key: string;
  version_id: string;
}

/** Names longer than this may not fit a file system's 255 bytes once a temporary ending is added. */
const NAME_BYTES = 200;

/** Invisible characters, spaces that are not the plain one, and plain ones that HTML would collapse. */
const FRAGILE = /[\p{C}\p{Zl}\p{Zp}]|[^\P{Zs} ]|^ | $| (?= )/u;
const NEEDS_ESCAPE = new RegExp(`${FRAGILE.source}|['\\\\!]`, "gu");

/**
 * One shell word with exactly this value: '...' where the text survives a mail, else $'...'.
 *
 * Bytes and not \u, because macOS' bash 3.2 does not know \u and others make it depend on the locale.
 * The exclamation mark is spelt out since some shells look for history before they look for quotes.
 */
export function shellQuote(value: string): string {
  if (!value.includes("'") && !FRAGILE.test(value)) return `'${value}'`;
  return `$'${value.replace(NEEDS_ESCAPE, escaped)}'`;
}

function escaped(character: string): string {
  if (character === "'" || character === "\\") return `\\${character}`;
  return Array.from(Buffer.from(character), (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
}

/** One command per object, none of which overwrites the file that another one writes. */
export function fetchCommands(files: Fetchable[]): string[] {
  const taken = new Set<string>();
  return files.map((file) => {
    const wanted = file.s3_key.slice(file.s3_key.lastIndexOf("/") + 1);
    const name = freeName(usableName(wanted), taken);
    if (file.version_id !== "") return getVersion(file, name);
    const target = name === wanted ? "." : shellQuote(`./${name}`);
    return `aws s3 cp ${shellQuote(`s3://${file.s3_bucket}/${file.s3_key}`)} ${target}`;
  });
}

/**
 * All of the folder that these files are in, at once. Null: they are not in one folder, it would be a whole bucket, or a version
 * is wanted. A listing tells the AWS command line an object's class, but not that it is restored: without the option it skips what is
 * in the classes that it knows as archives (not Intelligent-Tiering, whose class is the same in every tier).
 */
export function folderCommand(files: Fetchable[], is_glacier: boolean): string | null {
  const folders = new Set(
    files.map(({ s3_bucket, s3_key }) => `${s3_bucket}/${s3_key.slice(0, s3_key.lastIndexOf("/") + 1)}`),
  );
  const [folder = ""] = folders;
  const bucket = `${files[0]?.s3_bucket ?? ""}/`;
  if (folders.size !== 1 || folder === bucket || files.some(({ version_id }) => version_id !== ""))
    return null;
  return `aws s3 cp --recursive ${is_glacier ? "--force-glacier-transfer " : ""}${shellQuote(`s3://${folder}`)} .`;
}

/** `aws s3 cp` knows no versions. */
function getVersion({ s3_bucket, s3_key, version_id }: Fetchable, name: string): string {
  // The AWS command line takes a leading dash for an option and file:// for "read this local file".
  const misread = [s3_bucket, s3_key, version_id].some((value) => /^-|^(?:fileb?|https?):\/\//.test(value));
  const object = misread
    ? `--cli-input-json ${shellQuote(JSON.stringify({ Bucket: s3_bucket, Key: s3_key, VersionId: version_id }))}`
    : `--bucket ${shellQuote(s3_bucket)} --key ${shellQuote(s3_key)} --version-id ${shellQuote(version_id)}`;
  return `aws s3api get-object ${object} ${shellQuote(`./${name}`)}`;
}

function usableName(name: string): string {
  const usable = name !== "" && name !== "." && name !== ".." && Buffer.byteLength(name) <= NAME_BYTES;
  return usable ? name : "restored-file";
}

/** report.pdf, report-2.pdf, ... Case does not count: neither does it on most desktops' disks. */
function freeName(name: string, taken: Set<string>): string {
  const dot = name.lastIndexOf(".");
  const [stem, ending] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  let free = name;
  for (let n = 2; taken.has(free.toLowerCase()); n += 1) free = `${stem}-${n}${ending}`;
  taken.add(free.toLowerCase());
  return free;
}
