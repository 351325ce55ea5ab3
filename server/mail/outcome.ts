/** The second mail: what is ready and until when, what failed and why, what came too late. */
import type { MailContents, MailFile } from "./input.ts";
import type { Block, MailDocument, Tone } from "./document.ts";
import { fetchCommands, folderCommand } from "../wording/fetch_command.ts";
import { earliest, endInWords, moment, remainingInWords, shortMoment } from "../wording/times.ts";
import {
  approversInWords,
  entry,
  files,
  footer,
  lead,
  more,
  number,
  paragraph,
  yourFilesAre,
} from "./words.ts";

/** One outcome: its files, of which some are listed, with a title unless it is the mail's only one. */
interface Section {
  listed: MailFile[];
  total: number;
  titled: boolean;
}

/** What the second mail says. */
export function outcomeMail(contents: MailContents): MailDocument {
  const { now, restored_count, failed_count, expired_count, waiting_count } = contents;
  const heading = outcomeInWords(contents);
  const titled = [restored_count, failed_count, expired_count].filter((n) => n > 0).length > 1;
  const restored = contents.files.filter((file) => file.restore_status === "restored");
  const ready = restored.filter((file) => !isExpired(file, now));
  const expired = restored.filter((file) => isExpired(file, now));
  const failed = contents.files.filter((file) => file.restore_status === "failed");
  const waiting = waiting_count === 0 ? [] : [stillWaiting(contents)];
  const [first, ...others] = [
    ...readySection({ listed: ready, total: restored_count, titled }, now),
    ...failedSection({ listed: failed, total: failed_count, titled }, contents.approvers),
    ...expiredSection({ listed: expired, total: expired_count, titled }),
  ];

  return {
    subject: heading + untilInSubject(ready, contents),
    preheader: preheader(contents),
    tone: restored_count > 0 ? "ready" : failed_count > 0 ? "failed" : "expired",
    heading,
    blocks: [
      ...(titled ? waiting.map((text) => lead(text)) : []),
      ...(first === undefined ? [] : [first]),
      ...(titled ? [] : waiting.map((text) => paragraph(text))),
      ...others,
    ],
    footer: footer(contents),
  };
}

const isExpired = (file: MailFile, now: Date): boolean =>
  file.restore_expires_at !== null && file.restore_expires_at <= now;

/** "Your 4 files are ready", "4 of your 10 files are ready, 3 could not be restored", ... */
function outcomeInWords(contents: MailContents): string {
  const { file_count, restored_count, failed_count, expired_count, waiting_count } = contents;
  const all = file_count + waiting_count;
  const failure = "could not be restored";
  if (restored_count > 0) {
    if (restored_count === all) return `${yourFilesAre(all)} ready`;
    const rest = failed_count === 0 ? "" : `, ${number(failed_count)} ${failure}`;
    return `${number(restored_count)} of your ${files(all)} ${restored_count === 1 ? "is" : "are"} ready${rest}`;
  }
  if (failed_count > 0) {
    if (all === 1) return `Your file ${failure}`;
    return failed_count === all
      ? `${files(all)} ${failure}`
      : `${number(failed_count)} of your ${files(all)} ${failure}`;
  }
  if (expired_count > 0) {
    if (all === 1) return `Your file ${cameTooLate(1)}`;
    return expired_count === all
      ? `Your ${files(all)} ${cameTooLate(all)}`
      : `${number(expired_count)} of your ${files(all)} ${cameTooLate(expired_count)}`;
  }
  return "News of your files";
}

const cameTooLate = (n: number): string =>
  n === 1 ? "was restored, but the copy has expired" : "were restored, but the copies have expired";

/** Only where all is ready: a partial count and an end together would be too long for a subject. */
function untilInSubject(
  ready: MailFile[],
  { file_count, restored_count, waiting_count, now }: MailContents,
): string {
  const { first, all } = expiry(ready);
  if (first === undefined || restored_count !== file_count + waiting_count) return "";
  const atLeast = all && ready.length >= restored_count ? "" : "at least ";
  return `, ${atLeast}until ${shortMoment(first, now)}`;
}

/** The earliest expiry, and whether every file has that same one. */
function expiry(listed: MailFile[]): { first: Date | undefined; all: boolean } {
  const ends = listed.flatMap((file) => file.restore_expires_at ?? []);
  const first = earliest(ends);
  return {
    first,
    all: ends.length === listed.length && ends.every((end) => end.getTime() === first?.getTime()),
  };
}

function preheader(contents: MailContents): string {
  const { restored_count, failed_count, waiting_count } = contents;
  if (waiting_count > 0) return stillWaiting(contents);
  if (restored_count > 0) return "How to fetch what is ready, and until when.";
  return failed_count > 0 ? "Why, and what you can do." : "Read again what you still need.";
}

function stillWaiting({
  waiting_count,
  held_count,
}: Pick<MailContents, "waiting_count" | "held_count">): string {
  const n = waiting_count - held_count;
  const held =
    held_count === 0
      ? []
      : [
          `${held_count === 1 ? "One more file waits" : `${number(held_count)} more files wait`} for approval, as we wrote in another mail.`,
        ];
  const restoring =
    n === 0
      ? []
      : [
          `${n === 1 ? "One more file is" : `${number(n)} more files are`} still being restored. ` +
            `You need not do anything: we write again when ${n === 1 ? "it is" : "they are"} ready.`,
        ];
  return [...restoring, ...held].join(" ");
}

function readySection({ listed, total, titled }: Section, now: Date): Block[] {
  if (total === 0) return [];
  const { first, all } = expiry(listed);
  const until = readableUntil(listed, total, now);
  return [
    ...title("ready", titled, `${files(total)} ${total === 1 ? "is" : "are"} ready`),
    titled ? paragraph(until) : lead(until),
    ...(first === undefined ? [] : [paragraph(afterwards(total))]),
    {
      kind: "files",
      files: listed.map((file) => entry(file, all || first === undefined ? [] : [ownEnd(file)])),
      more: more(total, listed.length),
    },
    ...(listed.length === 0 ? [] : fetching(listed, total)),
  ];
}

/** Files that are not listed expire no earlier than those that are (see MailContents). */
function readableUntil(listed: MailFile[], total: number, now: Date): string {
  const { first, all } = expiry(listed);
  const they = total === 1 ? "It is" : "They are";
  if (listed.length === 0) return `${they} readable, but found no room in this mail's list.`;
  if (first === undefined) {
    return total === 1 ? "It stays readable: no end is set." : "They stay readable: no end is set.";
  }
  const until = `until ${endInWords(first)}: ${remainingInWords(first, now)}.`;
  if (all) return `${they} readable ${listed.length >= total ? "" : "at least "}${until}`;
  return `${they} readable at least ${until} Each file below has its own end.`;
}

const afterwards = (total: number): string =>
  total === 1
    ? "Once the copy has expired, the file is archived as before: a new read restores it again."
    : "Once the copies have expired, the files are archived as before: a new read restores them again.";

const ownEnd = (file: MailFile): string =>
  file.restore_expires_at === null ? "stays readable" : `until ${moment(file.restore_expires_at)}`;

/** Fewer files are fetched one by one: their folder may hold much else, and what is archived there is paid for. */
const FOLDER_FROM = 4;

function fetching(listed: MailFile[], total: number): Block[] {
  const lines = fetchCommands(listed);
  const is_glacier = listed.some(isGlacier);
  const folder = total >= FOLDER_FROM ? folderCommand(listed, is_glacier) : null;
  const it = total === 1 ? "it" : "them";
  return [
    paragraph(
      `Read ${it} as you tried to before: programs, Mountpoint and the S3 console read ${it} like any other file now. Or fetch ${it} with the AWS command line:`,
    ),
    { kind: "commands", lines },
    ...([...lines, folder ?? ""].some((line) => line.includes("$'")) ? [speltOut] : []),
    ...(folder === null
      ? is_glacier && total > 1
        ? [wholeFolders]
        : []
      : [
          paragraph(
            `Or all of the folder that ${total === listed.length ? "they" : "the files listed here"} are in:`,
          ),
          { kind: "commands" as const, lines: [folder] },
          is_glacier ? skippedWithout : paragraph(readsTheRest),
        ]),
    ...(listed.some((file) => isGlacier(file) && isTableData(file)) ? [athena] : []),
  ];
}

/** What the AWS command line and Athena take for an archive, restored or not. */
const isGlacier = ({ storage_class }: MailFile): boolean =>
  storage_class === "GLACIER" || storage_class === "DEEP_ARCHIVE";

/** What tables are made of: formats that Athena reads, and partitions (`year=2026/`). */
const TABLE_DATA =
  /(?:\.(?:parquet|orc|avro|csv|tsv|json|jsonl|ndjson)|part-[\w-]+)(?:\.(?:gz|bz2|snappy|zst|lz4))?$|(?:^|\/)\w+=[^/]*\//i;

const isTableData = ({ s3_key }: MailFile): boolean => TABLE_DATA.test(s3_key);

const speltOut = paragraph(
  "Names between ",
  { code: "$'" },
  " and ",
  { code: "'" },
  " have characters that do not show or do not copy well; they are spelt out in the way that bash and zsh understand.",
);

const readsTheRest =
  "Mind that this reads all of the folder: what is still archived there is restored too, and each such restore is paid for.";

/** The AWS command line learns from a listing that an object is in Glacier, but not that it is restored. */
const skippedWithout = paragraph(
  "Without ",
  { code: "--force-glacier-transfer" },
  ", ",
  { code: "cp --recursive" },
  " and ",
  { code: "sync" },
  ` skip files in Glacier even when they are restored. ${readsTheRest}`,
);

const wholeFolders = paragraph(
  "For a whole folder, ",
  { code: "aws s3 cp --recursive" },
  " and ",
  { code: "aws s3 sync" },
  " need ",
  { code: "--force-glacier-transfer" },
  `: without it they skip files in Glacier even when they are restored. ${readsTheRest}`,
);

const athena = paragraph(
  "Athena skips restored files too, unless the table has the property ",
  { code: "read_restored_glacier_objects=true" },
  " (engine version 3, Hive tables).",
);

/** Most failures share one reason: it is said once, above the files that it explains. */
function failedSection({ listed, total, titled }: Section, approvers: string[]): Block[] {
  if (total === 0) return [];
  const unapproved = listed.filter(({ failure_code }) => isUnapproved(failure_code)).length;
  const left = more(total, listed.length);
  return [
    ...title("failed", titled, `${files(total)} could not be restored`),
    ...[...Map.groupBy(listed, reason)].flatMap(([why, those]): Block[] => [
      titled ? paragraph(why) : lead(why),
      { kind: "files", files: those.map((file) => entry(file, [])), more: null },
    ]),
    ...(left === null
      ? []
      : [paragraph(listed.length === 0 ? NO_ROOM : `${left} that could not be restored.`)]),
    ...(unapproved === 0
      ? []
      : [
          paragraph(
            "What you can do where approval is missing: ask ",
            ...approversInWords(approvers),
            ". A read later than 24 hours after this asks for approval once more; an earlier one changes nothing.",
          ),
        ]),
    ...(unapproved === total
      ? []
      : [
          paragraph(
            `What you can do: once the cause is put right, read the ${total === 1 ? "file" : "files"} again. ` +
              "A read later than 24 hours after the failure starts a new attempt; an earlier one changes nothing. " +
              "If you cannot put it right yourself, forward this mail to whoever looks after the bucket.",
          ),
        ]),
  ];
}

/** Somebody said no, or nobody said anything. */
const isUnapproved = (code: string | null): boolean => code === "not_approved" || code === "approval_expired";

const NO_ROOM =
  "There was no room for this in the mail's list; whoever looks after Thaw can tell which and why.";

function reason({ failure_code, failure_message }: MailFile): string {
  const said = failure_message?.trim() ?? "";
  const sentence = said === "" ? "S3 gave no reason." : /[.!?]$/.test(said) ? said : `${said}.`;
  return failure_code === null ? sentence : `${sentence} (Code: ${failure_code})`;
}

function expiredSection({ listed, total, titled }: Section): Block[] {
  if (total === 0) return [];
  const { first, all } = expiry(listed);
  const together = first !== undefined && all && listed.length >= total;
  const on = together ? ` on ${moment(first)}` : "";
  const text =
    total === 1
      ? `The readable copy expired${on}, before we could write to you. We are sorry: read the file again, and it is restored again.`
      : `The readable copies expired${on}, before we could write to you. We are sorry: read the files again, and they are restored again.`;
  return [
    ...title("expired", titled, `${files(total)} ${cameTooLate(total)}`),
    titled ? paragraph(text) : lead(text),
    {
      kind: "files",
      files: listed.map((file) =>
        entry(
          file,
          together || file.restore_expires_at === null ? [] : [`expired ${moment(file.restore_expires_at)}`],
        ),
      ),
      more: more(total, listed.length),
    },
  ];
}

const title = (tone: Tone, titled: boolean, text: string): Block[] =>
  titled ? [{ kind: "heading", tone, text }] : [];
