/** The first mail: the restore has begun, and when to expect the files. */
import type { MailContents, MailFile } from "./input.ts";
import type { Block, MailDocument } from "./document.ts";
import {
  clockInWords,
  clockOrDate,
  earliest,
  expectation,
  hoursInWords,
  latest,
  spanInSubject,
  spanInWords,
  type Expectation,
} from "../wording/times.ts";
import { isUnknownArchive } from "../s3/storage_class.ts";
import { entry, footer, lead, more, paragraph, yourFilesAre } from "./words.ts";

/** Files accepted within this time of each other need no time of their own. */
const TOGETHER_MS = 30 * 60_000;

const UNKNOWN = "class unknown";

/** What the first mail says. */
export function startedMail(contents: MailContents): MailDocument {
  const { files, file_count, now } = contents;
  const one = file_count === 1;
  const what = `${yourFilesAre(file_count)} being restored`;
  const again = `You need not do anything: we write again when ${one ? "it is" : "they are"} ready.`;

  const expected = files.map((file) => expectation(file, now));
  const span = overall(expected.filter(({ to }) => to > now));
  const ownTimes = differ(expected, now);

  return {
    subject: span === null ? what : `${what}, expected ${spanInSubject(span, now)}`,
    preheader: again,
    tone: "waiting",
    heading: what,
    blocks: [
      lead(
        span === null
          ? overdue(expected, one, now)
          : `We expect ${one ? "it" : "them"} ${spanInWords(span, now)}.`,
      ),
      paragraph(
        `You tried to read ${one ? "a file that lies" : "files that lie"} in archive storage, where nothing can be read at once. ` +
          `Amazon S3 is now bringing ${one ? "it" : "them"} back. ${again}`,
      ),
      ...explained(contents, expected, ownTimes),
      {
        kind: "files",
        files: files.map((file, index) => {
          const own = expected[index];
          return entry(file, ownTimes && own !== undefined ? [className(file), ownTime(own, now)] : []);
        }),
        more: more(file_count, files.length),
      },
    ],
    footer: footer(contents),
  };
}

function overall(open: Expectation[]): { from: Date; to: Date } | null {
  const from = earliest(open.map((file) => file.from));
  const to = latest(open.map((file) => file.to));
  return from === undefined || to === undefined ? null : { from, to };
}

/** Whether one time for all files would mislead about some of them. */
function differ(expected: Expectation[], now: Date): boolean {
  const ends = expected.map(({ to }) => to);
  const [first, last] = [earliest(ends), latest(ends)];
  if (first === undefined || last === undefined) return false;
  return last.getTime() - first.getTime() > TOGETHER_MS || (first <= now && last > now);
}

function overdue(expected: Expectation[], one: boolean, now: Date): string {
  const to = latest(expected.map((file) => file.to));
  if (to === undefined) return "We cannot say yet how long this takes.";
  return (
    `We expected ${one ? "it" : "them"} by ${clockInWords(to, now)}, and that time has passed. ` +
    "S3 takes longer than usual, and does not say why."
  );
}

function ownTime(own: Expectation, now: Date): string {
  return own.to <= now
    ? `was expected by ${clockInWords(own.to, now)}, now late`
    : `expected ${spanInWords(own, now)}`;
}

/** Where the times come from, and where they are only bounds. */
function explained(contents: MailContents, expected: Expectation[], ownTimes: boolean): Block[] {
  const sentences = [
    usually(contents, expected, ownTimes),
    startedByOthers(contents),
    contents.file_count > contents.files.length ? "These times hold for the files listed here." : "",
  ].filter((sentence) => sentence !== "");
  return sentences.length === 0 ? [] : [paragraph(sentences.join(" "))];
}

function usually({ files, file_count, now }: MailContents, expected: Expectation[], own: boolean): string {
  const [hours, ...otherHours] = new Set(expected.map((file) => hoursInWords(file.hours)));
  if (hours === undefined) return "";
  if (otherHours.length > 0) {
    return "S3 needs longer for some classes and sizes than for others: each file below has its own time.";
  }
  const [kind, ...otherKinds] = new Set(files.map(className));
  const what = kind === undefined || kind === UNKNOWN || otherKinds.length > 0 ? "this" : kind;
  const [start, ...otherStarts] = new Set(expected.map((file) => clockOrDate(file.start, now)));
  const first = clockOrDate(earliest(expected.map((file) => file.start)) ?? now, now);
  const began =
    otherStarts.length === 0
      ? `The ${file_count === 1 ? "restore" : "restores"} began at ${start}.`
      : `The first restore began at ${first}${own ? "; each file below has its own time" : ""}.`;
  return files.some(isUnknown)
    ? `We do not know how long S3 takes for ${what}: the time given is the longest that any known archive takes. ${began}`
    : `S3 usually takes ${hours} for ${what}. ${began}`;
}

const isUnknown = ({ storage_class, archive_status }: MailFile): boolean =>
  storage_class !== null && isUnknownArchive({ storage_class, archive_status });

function startedByOthers({ files, file_count }: MailContents): string {
  const unknown = files.filter((file) => file.tier === null).length;
  if (unknown === 0) return "";
  const which =
    file_count === 1 ? "This restore was" : `${unknown === files.length ? "These" : "Some"} restores were`;
  return `${which} already under way when you asked, so we do not know how fast: the time given is the longest that S3 usually takes.`;
}

const ARCHIVE_NAMES: Record<string, string> = {
  ARCHIVE_ACCESS: "Archive Access",
  DEEP_ARCHIVE_ACCESS: "Deep Archive Access",
};

function className({ storage_class, archive_status }: MailFile): string {
  switch (storage_class) {
    case null:
      return UNKNOWN;
    case "GLACIER":
      return "Glacier Flexible Retrieval";
    case "DEEP_ARCHIVE":
      return "Glacier Deep Archive";
    case "INTELLIGENT_TIERING":
      return `Intelligent-Tiering, ${ARCHIVE_NAMES[archive_status ?? "ARCHIVE_ACCESS"] ?? archive_status}`;
    default:
      return storage_class;
  }
}
