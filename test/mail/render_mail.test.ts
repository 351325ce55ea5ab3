import { execFileSync } from "node:child_process";

import { describe, expect, test } from "vitest";

import {
  FILES_SHOWN,
  type ApprovalContents,
  type HeldContents,
  type MailContents,
  type MailFile,
  type WarningContents,
} from "../../server/mail/input.ts";
import { renderMail } from "../../server/mail/render.ts";

const at = (time: string): Date => new Date(`${time}Z`);
const MIDNIGHT = at("2026-11-29T00:00");

function pending(overrides: Partial<MailFile> = {}): MailFile {
  return {
    s3_bucket: "acme-archive",
    s3_key: "surveys/2019/north.pdf",
    version_id: "",
    restore_status: "pending",
    storage_class: "GLACIER",
    archive_status: null,
    tier: "Standard",
    size_bytes: 12_400_000,
    accepted_at: at("2026-11-22T15:40"),
    from_hours: 3,
    to_hours: 5,
    restored_at: null,
    restore_expires_at: null,
    failure_code: null,
    failure_message: null,
    ...overrides,
  };
}

/** Where S3 names only an upper bound. */
const within = (to_hours: number): Partial<MailFile> => ({ from_hours: 0, to_hours });

const ready = (overrides: Partial<MailFile> = {}): MailFile =>
  pending({ restore_status: "restored", restore_expires_at: MIDNIGHT, ...overrides });

const failed = (overrides: Partial<MailFile> = {}): MailFile =>
  pending({
    restore_status: "failed",
    failure_code: "object_gone",
    failure_message: "The file was deleted.",
    ...overrides,
  });

const expired = (overrides: Partial<MailFile> = {}): MailFile =>
  ready({ restore_expires_at: at("2026-11-22T00:00"), ...overrides });

const times = (n: number, file: () => MailFile): MailFile[] =>
  Array.from({ length: n }, (_, i) => ({ ...file(), s3_key: `surveys/${file().restore_status}-${i}.pdf` }));

/** Counts as the database gives them for these files, so that a test names only what it is about. */
function contents(
  kind: "pre" | "post",
  files: MailFile[],
  overrides: Partial<MailContents> = {},
): MailContents {
  const now = overrides.now ?? at("2026-11-22T15:45:10");
  const gone = (file: MailFile) => file.restore_expires_at !== null && file.restore_expires_at <= now;
  const restored = files.filter((file) => file.restore_status === "restored");
  return {
    kind,
    files: files.slice(0, FILES_SHOWN),
    file_count: files.length,
    restored_count: restored.filter((file) => !gone(file)).length,
    failed_count: files.filter((file) => file.restore_status === "failed").length,
    expired_count: restored.filter(gone).length,
    waiting_count: 0,
    held_count: 0,
    approvers: ["ann@example.com"],
    readers: ["AKIAIOSFODNN7EXAMPLE"],
    first_read_at: at("2026-11-22T15:38"),
    now,
    ...overrides,
  };
}

const pre = (files: MailFile[], overrides?: Partial<MailContents>) =>
  renderMail(contents("pre", files, overrides));
const post = (files: MailFile[], overrides?: Partial<MailContents>) =>
  renderMail(contents("post", files, overrides));

const HOLD = {
  id: "0d1b9c1e-9a52-4c8f-a6a4-0b7a52f5c1aa",
  person: "jane@example.com",
  reason: "beyond the limit of 20 objects per day for each person",
  opened_at: at("2026-11-22T15:38"),
  expires_at: at("2026-11-25T15:38"),
};
const SUMS = { file_count: 12, bytes: "1200000000000", estimated_cost: "24.1" };

const held = (overrides: Partial<HeldContents> = {}) =>
  renderMail({
    kind: "held",
    hold: HOLD,
    files: [pending()],
    ...SUMS,
    approvers: ["ann@example.com", "li@example.com"],
    readers: ["AKIAIOSFODNN7EXAMPLE"],
    first_read_at: at("2026-11-22T15:38"),
    now: at("2026-11-22T15:45"),
    ...overrides,
  });

const approval = (overrides: Partial<ApprovalContents> = {}) =>
  renderMail({
    kind: "approval",
    hold: HOLD,
    files: [pending()],
    ...SUMS,
    page: null,
    now: at("2026-11-22T15:45"),
    ...overrides,
  });

const warning = (overrides: Partial<WarningContents> = {}) =>
  renderMail({
    kind: "warning",
    limit: "20 objects per day for each person",
    per: "day",
    person: "jane@example.com",
    used: { objects: 17, bytes: "3000000000", cost: "3.1" },
    most: { objects: 20, bytes: null, cost: "20" },
    resets_at: at("2026-11-23T00:00"),
    page: null,
    now: at("2026-11-22T15:45"),
    ...overrides,
  });

/** The text part as one line, as if it were not wrapped. */
const prose = (mail: { text: string }): string => mail.text.replace(/\s+/g, " ");

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" };

const withoutTags = (html: string): string =>
  html
    .slice(html.indexOf("<body"))
    .replace(/<!--.*?-->/gs, "")
    .replace(/<[^>]*>/g, "")
    .replace(/&(#?\w+);/g, (whole, name: string) => ENTITIES[name] ?? whole);

const HOSTILE = [
  "party 🎉 👩‍💻 ❤️.mov",
  "invoice\u202Efdp.exe",
  "<script>alert(1)</script>/<img src=x onerror=alert(1)>.html",
  "</bdi></td></table><a href='https://evil.example'>click</a>",
  '" onmouseover="alert(1)',
  "https://evil.example/login?user=you@example.com",
  'it\'s "quoted" & $(touch /tmp/thaw) ~ `id` ${HOME} $HOME \\n !! !x.txt',
  "'; exit 1; '",
  "$'\\x41'",
  "line\nbreak\r\nSubject: won\ttabbed",
  "x".repeat(1024),
  "é".repeat(512),
  "  two  spaces and more   ",
  "non\u00A0breaking\u2003em\u3000wide",
  "zero\u200Bwidth\uFEFF\u00AD",
  "separators\u2028and\u2029",
  "عربي/ملف.pdf",
  "\u200F\u202E\u2066\u061C",
  "\u0001\u0007\u001B[31mred\u007F\u0085",
  "-rf",
  "--recursive",
  "folder/",
  "a/..",
  "/leading//double",
  "&amp;&lt;&#39;%20+",
  "*?[a-z]{1,2}#;|&<>()",
  "file:///etc/passwd",
  "e\u0301 is not \u00E9",
];

describe("the first mail", () => {
  test("says when the files are expected, in UTC and in words", () => {
    const mail = pre(times(10, pending));
    expect(mail.subject).toBe("Your 10 files are being restored, expected between 18:40 and 20:40 UTC");
    expect(prose(mail)).toContain("We expect them between 18:40 and 20:40 UTC today (Sun 22 Nov).");
    expect(prose(mail)).toContain(
      "S3 usually takes 3 to 5 hours for Glacier Flexible Retrieval. The restores began at 15:40 UTC.",
    );
    expect(prose(mail)).toContain("You need not do anything: we write again when they are ready.");
  });

  test("speaks of one file in the singular", () => {
    const mail = pre([pending()]);
    expect(mail.subject).toBe("Your file is being restored, expected between 18:40 and 20:40 UTC");
    expect(prose(mail)).toContain("You tried to read a file that lies in archive storage");
    expect(prose(mail)).toContain("we write again when it is ready.");
    expect(prose(mail)).toContain("The restore began at 15:40 UTC.");
    expect(prose(mail)).not.toMatch(/\b(files are|them|they)\b/);
  });

  test.each([
    [
      "a range that ends tomorrow",
      pending({ accepted_at: at("2026-11-22T19:30") }),
      "2026-11-22T19:35",
      "between 22 Nov, 22:30 and 23 Nov, 00:30 UTC",
      "between 22:30 UTC today (Sun 22 Nov) and 00:30 UTC tomorrow (Mon 23 Nov)",
    ],
    [
      "a range that lies in tomorrow",
      pending({ accepted_at: at("2026-11-22T22:02") }),
      "2026-11-22T22:05",
      "on 23 Nov between 01:00 and 03:05 UTC",
      "between 01:00 and 03:05 UTC tomorrow (Mon 23 Nov)",
    ],
    [
      "only the end once the beginning has passed",
      pending(),
      "2026-11-22T19:00",
      "by 20:40 UTC",
      "by 20:40 UTC today (Sun 22 Nov)",
    ],
    [
      "an end where S3 names no beginning",
      pending({ storage_class: "DEEP_ARCHIVE", ...within(12) }),
      "2026-11-22T15:45",
      "by 23 Nov, 03:40 UTC",
      "by 03:40 UTC tomorrow (Mon 23 Nov)",
    ],
    [
      "an end in another year",
      pending({
        storage_class: "DEEP_ARCHIVE",
        tier: "Bulk",
        ...within(48),
        accepted_at: at("2026-12-30T15:40"),
      }),
      "2026-12-30T15:45",
      "by 1 Jan 2027, 15:40 UTC",
      "by 15:40 UTC on Fri 1 Jan 2027",
    ],
    [
      "minutes for Expedited",
      pending({ tier: "Expedited", from_hours: 1 / 60, to_hours: 5 / 60 }),
      "2026-11-22T15:40",
      "between 15:41 and 15:45 UTC",
      "between 15:41 and 15:45 UTC today (Sun 22 Nov)",
    ],
    [
      "an hour and half a minute for a large Expedited one",
      pending({ tier: "Expedited", size_bytes: 1e12, from_hours: 1 / 60, to_hours: 1.0093 }),
      "2026-11-22T15:45",
      "by 16:45 UTC",
      "by 16:45 UTC today (Sun 22 Nov)",
    ],
    [
      "two days for more than 5 TB",
      pending({ size_bytes: 6e12, ...within(48) }),
      "2026-11-22T15:45",
      "by 24 Nov, 15:40 UTC",
      "by 15:40 UTC on Tue 24 Nov 2026",
    ],
    [
      "a bound from now where the start is unknown",
      pending({ accepted_at: null }),
      "2026-11-22T16:00",
      "between 19:00 and 21:00 UTC",
      "between 19:00 and 21:00 UTC today (Sun 22 Nov)",
    ],
  ])("tells %s", (_what, file, now, inSubject, inBody) => {
    const mail = pre([file], { now: at(now) });
    expect(mail.subject).toBe(`Your file is being restored, expected ${inSubject}`);
    expect(prose(mail)).toContain(`We expect it ${inBody}.`);
  });

  test("gives each file its own time when classes and tiers differ", () => {
    const mail = pre([
      pending({ s3_key: "a.bin" }),
      pending({ s3_key: "b.bin", storage_class: "DEEP_ARCHIVE", ...within(12) }),
      pending({
        s3_key: "c.bin",
        storage_class: "INTELLIGENT_TIERING",
        archive_status: "ARCHIVE_ACCESS",
        tier: "Bulk",
        from_hours: 5,
        to_hours: 12,
      }),
    ]);
    expect(mail.subject).toBe("Your 3 files are being restored, expected by 23 Nov, 03:40 UTC");
    expect(prose(mail)).toContain(
      "a.bin (12 MB) Glacier Flexible Retrieval, expected between 18:40 and 20:40 UTC today (Sun 22 Nov)",
    );
    expect(prose(mail)).toContain(
      "b.bin (12 MB) Glacier Deep Archive, expected by 03:40 UTC tomorrow (Mon 23 Nov)",
    );
    expect(prose(mail)).toContain(
      "c.bin (12 MB) Intelligent-Tiering, Archive Access, expected between 20:40 UTC today (Sun 22 Nov) and 03:40 UTC tomorrow (Mon 23 Nov)",
    );
  });

  test("calls the time an upper bound when somebody else started the restore", () => {
    const mail = pre([pending({ tier: null, ...within(12) })]);
    expect(mail.subject).toBe("Your file is being restored, expected by 23 Nov, 03:40 UTC");
    expect(prose(mail)).toContain(
      "This restore was already under way when you asked, so we do not know how fast: the time given is the longest that S3 usually takes.",
    );
    const unknown = pre([pending({ tier: null, storage_class: null, ...within(48) })]);
    expect(unknown.subject).toBe("Your file is being restored, expected by 24 Nov, 15:40 UTC");
  });

  test("admits not to know how long an unknown class takes", () => {
    for (const unknown of [
      { storage_class: "CLOUDTIER", archive_status: null },
      { storage_class: "INTELLIGENT_TIERING", archive_status: "COLDEST_ACCESS" },
    ]) {
      const mail = pre([pending({ ...unknown, ...within(48) })]);
      expect(mail.subject).toBe("Your file is being restored, expected by 24 Nov, 15:40 UTC");
      expect(prose(mail)).toMatch(
        /We do not know how long S3 takes for [\w-]*(CLOUDTIER|, COLDEST_ACCESS): the time given is the longest/,
      );
    }
  });

  test("admits that the expected time has passed", () => {
    const mail = pre([pending()], { now: at("2026-11-22T21:00") });
    expect(mail.subject).toBe("Your file is being restored");
    expect(prose(mail)).toContain(
      "We expected it by 20:40 UTC today (Sun 22 Nov), and that time has passed. S3 takes longer than usual, and does not say why.",
    );
  });

  test("names the late ones among others", () => {
    const mail = pre(
      [pending({ s3_key: "late.bin" }), pending({ s3_key: "new.bin", accepted_at: at("2026-11-22T20:45") })],
      {
        now: at("2026-11-22T21:00"),
      },
    );
    expect(mail.subject).toMatch(/expected between 22 Nov, 23:45 and 23 Nov, 01:45 UTC$/);
    expect(prose(mail)).toContain(
      "late.bin (12 MB) Glacier Flexible Retrieval, was expected by 20:40 UTC today (Sun 22 Nov), now late",
    );
    const close = pre([pending({ s3_key: "late.bin" }), pending({ accepted_at: at("2026-11-22T15:50") })], {
      now: at("2026-11-22T20:45"),
    });
    expect(close.subject).toBe("Your 2 files are being restored, expected by 20:50 UTC");
    expect(prose(close)).toContain("was expected by 20:40 UTC today (Sun 22 Nov), now late");
  });
});

describe("the second mail", () => {
  test("says until when one file is readable", () => {
    const mail = post([ready()], { now: at("2026-11-22T20:02") });
    expect(mail.subject).toBe("Your file is ready, until 29 Nov, 00:00 UTC");
    expect(prose(mail)).toContain(
      "It is readable until Sun 29 Nov 2026, 00:00 UTC (midnight at the end of Sat 28 Nov): for 6 more days.",
    );
    expect(prose(mail)).toContain(
      "Once the copy has expired, the file is archived as before: a new read restores it again.",
    );
  });

  test.each([
    ["2026-11-27T00:00", "for 2 more days"],
    ["2026-11-27T00:01", "for 47 more hours"],
    ["2026-11-28T22:30", "for one more hour"],
    ["2026-11-28T23:30", "for less than an hour"],
  ])("at %s that is %s", (now, words) => {
    expect(prose(post([ready()], { now: at(now) }))).toContain(`Nov): ${words}.`);
  });

  test("counts what is ready and what is still coming", () => {
    const mail = post(times(4, ready), { waiting_count: 6 });
    expect(mail.subject).toBe("4 of your 10 files are ready");
    expect(prose(mail)).toContain(
      "6 more files are still being restored. You need not do anything: we write again when they are ready.",
    );
    const almost = post(times(9, ready), { waiting_count: 1 });
    expect(prose(almost)).toContain(
      "One more file is still being restored. You need not do anything: we write again when it is ready.",
    );
    expect(post(times(1, ready), { waiting_count: 1 }).subject).toBe("1 of your 2 files is ready");
  });

  test("leads with the earliest end and gives each file its own when ends differ", () => {
    const mail = post([
      ready({ s3_key: "a.bin" }),
      ready({ s3_key: "b.bin", restore_expires_at: at("2026-12-02T00:00") }),
      ready({ s3_key: "c.bin", restore_expires_at: null, storage_class: "INTELLIGENT_TIERING" }),
    ]);
    expect(mail.subject).toBe("Your 3 files are ready, at least until 29 Nov, 00:00 UTC");
    expect(prose(mail)).toContain("a.bin (12 MB) until Sun 29 Nov 2026, 00:00 UTC");
    expect(prose(mail)).toContain("b.bin (12 MB) until Wed 2 Dec 2026, 00:00 UTC");
    expect(prose(mail)).toContain("c.bin (12 MB) stays readable");
  });

  test("promises no end where there is none", () => {
    const mail = post([ready({ restore_expires_at: null, storage_class: "INTELLIGENT_TIERING" })]);
    expect(mail.subject).toBe("Your file is ready");
    expect(prose(mail)).toContain("It stays readable: no end is set.");
    expect(prose(mail)).not.toMatch(/expire|until/);
  });

  test("explains a failure once for all files that share it, and what to do", () => {
    const mail = post([
      ...times(2, failed),
      failed({ s3_key: "other.pdf", failure_code: "AccessDenied", failure_message: "Thaw may not read it" }),
    ]);
    expect(mail.subject).toBe("3 files could not be restored");
    expect(mail.text).not.toMatch(/ready|readable|aws s3/);
    expect(mail.text.match(/The file was deleted\. \(Code: object_gone\)/g)).toHaveLength(1);
    expect(prose(mail)).toContain("Thaw may not read it. (Code: AccessDenied) * s3://acme-archive/other.pdf");
    expect(prose(mail)).toContain("What you can do: once the cause is put right, read the files again.");
    expect(post([failed()]).subject).toBe("Your file could not be restored");
    expect(post([failed()], { waiting_count: 1 }).subject).toBe("1 of your 2 files could not be restored");
    expect(prose(post([failed({ failure_code: null, failure_message: null })]))).toContain(
      "S3 gave no reason.",
    );
  });

  test("keeps ready, failed, expired and waiting apart", () => {
    const mail = post([...times(6, ready), ...times(3, failed), expired({ s3_key: "gone.pdf" })], {
      waiting_count: 2,
    });
    expect(mail.subject).toBe("6 of your 12 files are ready, 3 could not be restored");
    expect(mail.text).toContain("6 files are ready\n-----------------\n");
    expect(mail.text).toContain("3 files could not be restored\n-----------------------------\n");
    expect(mail.text).toContain("1 file was restored, but the copy has expired\n----------");
    expect(prose(mail)).toContain("2 more files are still being restored.");
  });

  test("claims nothing about files for which the list had no room", () => {
    const crowded = post(times(50, failed), { file_count: 55, restored_count: 5 });
    expect(prose(crowded)).toContain(
      "5 files are ready ----------------- They are readable, but found no room",
    );
    expect(crowded.text).not.toMatch(/stay readable|until|aws s3/);
    const unexplained = post(times(50, ready), { file_count: 53, failed_count: 3 });
    expect(prose(unexplained)).toContain(
      "There was no room for this in the mail's list; whoever looks after Thaw can",
    );
  });

  test("says sorry for a copy that expired before the mail", () => {
    const mail = post([expired()]);
    expect(mail.subject).toBe("Your file was restored, but the copy has expired");
    expect(prose(mail)).toContain(
      "The readable copy expired on Sun 22 Nov 2026, 00:00 UTC, before we could write to you. We are sorry: read the file again, and it is restored again.",
    );
    expect(mail.text).not.toContain("aws s3");
    expect(post(times(2, expired)).subject).toBe("Your 2 files were restored, but the copies have expired");
  });

  test("offers commands for what is ready and for nothing else", () => {
    const mail = post([...times(2, ready), ...times(2, failed), ...times(2, expired)].map(withIndex));
    expect(commands(mail.text)).toEqual([
      "aws s3 cp 's3://acme-archive/0.pdf' .",
      "aws s3 cp 's3://acme-archive/1.pdf' .",
    ]);
  });

  test("says how a client reads it: each as before, whole folders with an option", () => {
    const one = prose(post([ready()]));
    expect(one).toContain(
      "Read it as you tried to before: programs, Mountpoint and the S3 console read it like any other file now.",
    );
    expect(one).not.toMatch(/--force-glacier-transfer|sync|Athena|folder/);
    // Several folders: no command fetches these and no others.
    const scattered = post([ready({ s3_key: "a/1.pdf" }), ready({ s3_key: "b/2.pdf" })]);
    expect(commands(scattered.text)).toHaveLength(2);
    expect(prose(scattered)).toContain(
      "For a whole folder, aws s3 cp --recursive and aws s3 sync need --force-glacier-transfer: without it they skip files in Glacier even when they are restored.",
    );
    expect(prose(scattered)).toContain("what is still archived there is restored too");
  });

  test.for([
    ["GLACIER", null, "--force-glacier-transfer "],
    ["DEEP_ARCHIVE", null, "--force-glacier-transfer "],
    ["INTELLIGENT_TIERING", null, ""],
    ["STANDARD_IA", null, ""],
    ["CLOUDTIER", null, ""],
  ] as const)("fetches many files of one folder at once: %s", ([storage_class, , option]) => {
    const mail = post(times(12, () => ready({ storage_class })));
    expect(commands(mail.text).at(-1)).toBe(`aws s3 cp --recursive ${option}'s3://acme-archive/surveys/' .`);
    expect(commandsOf(mail.html)).toEqual(commands(mail.text));
    expect(prose(mail)).toContain("Or all of the folder that they are in:");
    expect(prose(mail)).toContain("each such restore is paid for");
    expect(prose(mail).includes("skip files in Glacier")).toBe(option !== "");
    const listed = post(
      times(50, () => ready({ storage_class })),
      { file_count: 900, restored_count: 900 },
    );
    expect(prose(listed)).toContain("Or all of the folder that the files listed here are in:");
  });

  test("offers no folder that would be a whole bucket, or would not have the version", () => {
    for (const files of [
      // Nor for a few.
      times(3, ready),
      times(4, ready).map(withIndex),
      times(4, () => ready({ version_id: "v1" })),
      [...times(3, ready), ready({ s3_bucket: "other", s3_key: "surveys/1.pdf" })],
      [...times(3, ready), ready({ s3_key: "surveys/2019/deeper/north.pdf" })],
    ])
      expect(commands(post(files).text).filter((line) => line.includes("--recursive"))).toEqual([]);
  });

  test("speaks of Athena where files look like those of a table, and Athena would skip them", () => {
    const athena = (s3_key: string, storage_class = "GLACIER"): boolean =>
      prose(post([ready({ s3_key, storage_class })])).includes(
        "Athena skips restored files too, unless the table has the property read_restored_glacier_objects=true (engine version 3, Hive tables).",
      );
    for (const key of [
      "events/a.parquet",
      "events/A.CSV",
      "events/a.json.gz",
      "events/year=2024/month=1/000000_0",
      "out/part-00000",
      "out/part-00000-4f2a.snappy",
    ])
      expect(athena(key), key).toBe(true);
    for (const key of ["films/a.mov", "a=b.mov", "parquet/report.pdf", "backup.tar.gz", "party-hats.jpg"])
      expect(athena(key), key).toBe(false);
    expect(athena("events/a.parquet", "DEEP_ARCHIVE")).toBe(true);
    expect(athena("events/a.parquet", "INTELLIGENT_TIERING")).toBe(false);
  });
});

describe("both mails", () => {
  test("list 50 of 10,000 files and count the others", () => {
    for (const [kind, file] of [
      ["pre", pending],
      ["post", ready],
    ] as const) {
      const mail = renderMail(contents(kind, times(10_000, file)));
      expect(mail.subject).toMatch(/^Your 10,000 files are /);
      expect(mail.text.match(/^\* s3:/gm)).toHaveLength(50);
      expect(mail.text).toContain("\n  and 9,950 more\n");
      const tooMany = renderMail(contents(kind, times(60, file), { files: times(60, file) }));
      expect(tooMany.text.match(/^\* s3:/gm)).toHaveLength(50);
      expect(withoutTags(mail.html)).toContain("and 9,950 more");
    }
    const subject = post(times(10_000, ready)).subject;
    expect(subject).toBe("Your 10,000 files are ready, at least until 29 Nov, 00:00 UTC");
  });

  test("stay below the size at which Gmail cuts, however long the keys", () => {
    const mail = post(Array.from({ length: 50 }, (_, i) => ready({ s3_key: `${i}/`.padEnd(1024, "k") })));
    expect(Buffer.byteLength(mail.html)).toBeLessThan(102_000);
    const shown = mail.text.match(/^\* s3:/gm)?.length ?? 0;
    expect(shown).toBeGreaterThan(10);
    expect(mail.text).toContain(`and ${50 - shown} more`);
  });

  test("say why this person gets them", () => {
    expect(prose(pre([pending()]))).toContain(
      "a read of this file with access key AKIAIOSFODNN7EXAMPLE failed on Sun 22 Nov 2026, 15:38 UTC",
    );
    const arn = "arn:aws:sts::111122223333:assumed-role/Reader/jane@example.com";
    expect(prose(post(times(2, ready), { readers: ["AKIA1", arn] }))).toContain(
      `reads of these files with access key AKIA1 and by ${arn} failed, the first on Sun 22 Nov 2026, 15:38 UTC`,
    );
    expect(prose(pre([pending()], { readers: ["A", "B", "C", "D", "E"] }))).toContain(
      "with access key A, with access key B, with access key C and 2 more failed",
    );
    expect(prose(pre([pending()], { readers: ["mailto:jane@example.com"] }))).toContain(
      "Why you get this mail: somebody who looks after Thaw ordered this file for you on Sun 22 Nov 2026, 15:38 UTC. If you did not ask",
    );
    expect(prose(post(times(2, ready), { readers: ["A", "mailto:jane@example.com"] }))).toContain(
      "reads of these files with access key A failed, the first on",
    );
    expect(prose(pre([pending()], { readers: [] }))).toContain("a read of this file under your name failed");
  });

  test("are the same for the same contents", () => {
    expect(post(times(3, ready))).toEqual(post(times(3, ready)));
  });

  test("say the same in HTML and in text", () => {
    const outcome = [...times(3, ready), ...times(2, failed), ...times(2, expired)];
    for (const mail of [pre(times(3, pending)), post(outcome, { waiting_count: 2 })]) {
      const html = withoutTags(mail.html).replace(/\s+/g, " ");
      for (const line of mail.text.split("\n")) {
        // Rules, and the brackets and bullets that only text needs.
        const size = / \(([\d.]+ \w+)\)$/.exec(line)?.[1] ?? "";
        expect(html).toContain(size);
        const words = line.replace(/^[-=]+$|^\* | \([\d.]+ \w+\)$/g, "").trim();
        expect(html).toContain(words);
      }
    }
  });

  test("wrap text at 76 columns, but neither names nor commands", () => {
    const mail = post(times(3, () => ready({ version_id: "3HL4kqtJlcpXroDTDmjVBH40Nrjfkd" })));
    const long = mail.text.split("\n").filter((line) => line.length > 76);
    expect(long.every((line) => line.startsWith("* ") || line.startsWith("  aws "))).toBe(true);
    expect(mail.text).toMatch(/^ {2}aws s3api .{100,}$/m);
  });

  test("survive whatever the database tells them", () => {
    const odd = pending({
      s3_key: "\uD800lone",
      storage_class: "\u202EWHAT<b>",
      tier: "Instant",
      size_bytes: -1,
      accepted_at: new Date(Number.NaN),
      failure_message: "<b>\r\n",
    });
    for (const status of ["pending", "restored", "failed"] as const) {
      for (const kind of ["pre", "post"] as const) {
        const files = [{ ...odd, restore_status: status }];
        expect(() => renderMail(contents(kind, files))).not.toThrow();
        expect(() => renderMail(contents(kind, [], { restored_count: 7, file_count: 3 }))).not.toThrow();
        const mail = renderMail(contents(kind, files));
        expect(mail.html).not.toMatch(/<b>|\u202E/);
        expect(mail.html.isWellFormed() && mail.text.isWellFormed()).toBe(true);
      }
    }
  });
});

describe("the mail to a reader whose files wait for approval", () => {
  test("says how many, how much, what it costs, whom to ask and until when", () => {
    const mail = held();
    expect(mail.subject).toBe("Your 12 files need approval: 1.2 TB, an estimated $24.10");
    expect(prose(mail)).toContain("Together they are 1.2 TB; restoring them costs an estimated $24.10.");
    expect(prose(mail)).toContain("Whom to ask: ann@example.com or li@example.com.");
    expect(prose(mail)).toContain("If nobody approves by Wed 25 Nov 2026, 15:38 UTC, nothing is restored.");
    expect(prose(mail)).toContain("beyond the limit of 20 objects per day for each person");
    expect(prose(mail)).toContain("and 11 more");
  });

  test("speaks of one file in the singular, of a cost without a price not at all, and of nobody to ask", () => {
    const mail = held({ file_count: 1, bytes: "12400000", estimated_cost: null, approvers: [] });
    expect(mail.subject).toBe("Your file needs approval: 12 MB");
    expect(prose(mail)).toContain("It is 12 MB. Somebody has to approve that first.");
    expect(prose(mail)).toContain("Whom to ask: whoever looks after Thaw.");
    expect(prose(mail)).not.toMatch(/\b(they|them)\b(?! failed)/);
  });
});

describe("the mail to an approver", () => {
  test("says who, how many, how much, why, and how to decide, and has a page where there is one", () => {
    const mail = approval();
    expect(mail.subject).toBe("12 files wait for approval: 1.2 TB, an estimated $24.10");
    expect(prose(mail)).toContain(
      "jane@example.com has read 12 files of 1.2 TB. Restoring them costs an estimated $24.10.",
    );
    expect(mail.text).toContain(`\n  npm run thaw -- hold approve ${HOLD.id}\n`);
    expect(mail.html).not.toContain("<a ");

    const page = `https://thaw.example.com/ops/holds/${HOLD.id}`;
    expect(tags(approval({ page }).html).filter((tag) => tag.startsWith("<a "))).toEqual([
      expect.stringContaining(`href="${page}"`),
    ]);
    expect(approval({ page }).text).toContain(page);
  });

  test("of a limit says what is used of it, how much is left, and when it begins anew", () => {
    const mail = warning();
    expect(mail.subject).toBe("A limit is 85 % used up today: 17 of 20 files");
    expect(prose(mail)).toContain(
      "Used today by jane@example.com: 17 of 20 files; an estimated $3.10 of $20.00.",
    );
    expect(prose(mail)).toContain("It begins anew on Mon 23 Nov 2026, 00:00 UTC.");
    expect(warning({ most: { objects: 0, bytes: "1", cost: null } }).subject).not.toMatch(/Infinity|NaN/);
  });
});

describe("an outcome with files that wait for approval, or were refused it", () => {
  test("tells those apart that are being restored from those that wait", () => {
    const mail = post(times(4, ready), { waiting_count: 6, held_count: 5 });
    expect(mail.subject).toBe("4 of your 10 files are ready");
    expect(prose(mail)).toContain("One more file is still being restored.");
    expect(prose(mail)).toContain("5 more files wait for approval");
    const rest = prose(post(times(4, ready), { waiting_count: 1, held_count: 1 }));
    expect(rest).toContain("One more file waits for approval");
    expect(rest).not.toContain("still being restored");
  });

  test("says whom to ask, and does not tell to put right what nobody can", () => {
    const refused = failed({
      failure_code: "not_approved",
      failure_message: "The restore was not approved.",
    });
    const mail = prose(post([refused]));
    expect(mail).toContain("The restore was not approved. (Code: not_approved)");
    expect(mail).toContain("ask ann@example.com.");
    expect(mail).not.toContain("once the cause is put right");
    expect(prose(post([refused, failed({ s3_key: "b" })]))).toContain("once the cause is put right");
  });
});

describe("hostile names", () => {
  const all = HOSTILE.map((s3_key) => ready({ s3_key }));

  test("never reach a subject", () => {
    for (const s3_key of HOSTILE) {
      const name = { s3_key, s3_bucket: `bucket-${s3_key}` };
      for (const mail of [pre([pending(name)]), post([ready(name)]), post([failed(name)])]) {
        expect(mail.subject).toMatch(/^Your file (is|could)[\w ,:]*$/);
      }
      const about = { hold: { ...HOLD, person: s3_key, reason: s3_key }, files: [pending(name)] };
      for (const mail of [held(about), approval(about), warning({ person: s3_key, limit: s3_key })]) {
        expect(mail.subject).toMatch(/^(Your 12 files need|12 files wait|A limit is)[\w ,:.%$]*$/);
      }
    }
  });

  test("leave the HTML inert", () => {
    const reader = "<img src=x>arn:'\"&";
    for (const mail of [
      pre(all, { readers: [reader] }),
      post(all, { readers: [reader] }),
      post(
        all.map((file) =>
          failed({ s3_key: file.s3_key, failure_message: file.s3_key, failure_code: file.s3_key }),
        ),
      ),
      ...HOSTILE.flatMap((text) => [
        held({ files: all, hold: { ...HOLD, reason: text }, approvers: [text], readers: [text] }),
        approval({ files: all, hold: { ...HOLD, person: text, reason: text } }),
        warning({ person: text, limit: text }),
      ]),
    ]) {
      const found = tags(mail.html);
      expect(found.map(tagName).filter((name) => !ALLOWED.has(name))).toEqual([]);
      expect(found.filter((tag) => /\s(?:href|src|on\w+|background)=/i.test(tag))).toEqual([]);
      expect(unbalanced(found)).toEqual([]);
      expect(mail.html).not.toMatch(/url\(|@import|https?:\/\//i);
    }
  });

  test("show without what hides, turns or breaks a line", () => {
    for (const mail of [post(all), pre(all), held({ files: all }), approval({ files: all })]) {
      // oxlint-disable-next-line no-control-regex -- controls are what this is about.
      const shown = /[\u0000-\u0009\u000B-\u001F\u007F-\u009F\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069]/;
      expect(mail.text).not.toMatch(shown);
      expect(mail.html).not.toMatch(shown);
      expect(mail.text.match(/^\* s3:\/\/acme-archive\//gm)).toHaveLength(
        mail.text.match(/^\* /gm)?.length ?? 0,
      );
      expect(mail.text).toContain("* s3://acme-archive/invoicefdp.exe (12 MB)\n  its name has characters");
      expect(withoutTags(mail.html)).toContain('it\'s "quoted" & $(touch /tmp/thaw) ~ `id` ${HOME}');
      expect(mail.html).toContain("it&#39;s &quot;quoted&quot; &amp; $(touch");
    }
  });

  test("are isolated in their direction", () => {
    expect(post([ready({ s3_key: "عربي.pdf" })]).html).toMatch(/<bdi>عربي<wbr>\.pdf<\/bdi>/);
  });

  test("come back exactly from a real shell", () => {
    const mail = post(all, { file_count: all.length });
    const lines = commands(mail.text);
    expect(lines).toHaveLength(HOSTILE.length);
    const calls = runInBash(lines);
    expect(calls.map((args) => args.slice(0, 3))).toEqual(
      HOSTILE.map((key) => ["s3", "cp", `s3://acme-archive/${key}`]),
    );
    expect(commandsOf(mail.html)).toEqual(lines);
  });

  test("of a folder come back exactly, too", () => {
    for (const folder of HOSTILE) {
      const mail = post([1, 2, 3, 4].map((name) => ready({ s3_key: `${folder}/${name}` })));
      expect(runInBash(commands(mail.text)).at(-1)).toEqual([
        "s3",
        "cp",
        "--recursive",
        "--force-glacier-transfer",
        `s3://acme-archive/${folder}/`,
        ".",
      ]);
      expect(commandsOf(mail.html)).toEqual(commands(mail.text));
    }
  });

  test("come back exactly with a version, too", () => {
    const versions = HOSTILE.map((s3_key) => ready({ s3_key, version_id: "v1'x" }));
    const lines = commands(post(versions).text);
    const keys = runInBash(lines).map((args) => {
      const option = (name: string) => args[args.indexOf(name) + 1];
      if (!args.includes("--cli-input-json")) {
        return [option("--bucket"), option("--key"), option("--version-id")];
      }
      const { Bucket, Key, VersionId } = parse(option("--cli-input-json"));
      return [Bucket, Key, VersionId];
    });
    expect(keys).toEqual(HOSTILE.map((key) => ["acme-archive", key, "v1'x"]));
  });

  test("are never taken for an option or a local file by the AWS command line", () => {
    for (const s3_key of [
      "-rf",
      "--recursive",
      "file:///etc/passwd",
      "fileb://x",
      "https://evil.example/x",
    ]) {
      const [args] = runInBash(commands(post([ready({ s3_key, version_id: "v1" })]).text));
      const values = args?.slice(2).filter((arg) => !["--cli-input-json"].includes(arg)) ?? [];
      expect(values.filter((value) => /^(?:-|file|http)/.test(value))).toEqual([]);
    }
  });

  test("that copy well stay readable in the command", () => {
    const [line] = commands(post([ready({ s3_key: "Übersicht 2019 (final) 🎉.pdf" })]).text);
    expect(line).toBe("aws s3 cp 's3://acme-archive/Übersicht 2019 (final) 🎉.pdf' .");
  });

  test("that do not are visibly spelt out", () => {
    const mail = post([ready({ s3_key: "it's\u202E.pdf" })]);
    expect(commands(mail.text)).toEqual(["aws s3 cp $'s3://acme-archive/it\\'s\\xe2\\x80\\xae.pdf' ."]);
    expect(prose(mail)).toContain("they are spelt out in the way that bash and zsh understand");
    // A shell may look for history before it looks for quotes.
    expect(commands(post([ready({ s3_key: "it's !!" })]).text)).toEqual([
      "aws s3 cp $'s3://acme-archive/it\\'s \\x21\\x21' .",
    ]);
  });

  test("never make one file overwrite another", () => {
    const keys = ["a/report.pdf", "b/report.pdf", "c/REPORT.pdf", "d/", "e/", "f/..", "g/report-2.pdf"];
    const lines = commands(post(keys.map((s3_key) => ready({ s3_key }))).text);
    expect(runInBash(lines).map((args) => args[3])).toEqual([
      ".",
      "./report-2.pdf",
      "./REPORT-3.pdf",
      "./restored-file",
      "./restored-file-2",
      "./restored-file-3",
      "./report-2-2.pdf",
    ]);
  });
});

function withIndex(file: MailFile, index: number): MailFile {
  return { ...file, s3_key: `${index}.pdf` };
}

function parse(json = "{}"): Record<string, unknown> {
  const parsed: unknown = JSON.parse(json);
  return Object.fromEntries(Object.entries(parsed ?? {}));
}

const commands = (text: string): string[] =>
  text
    .split("\n")
    .filter((line) => line.startsWith("  aws "))
    .map((line) => line.trim());

/** What a reader copies out of the HTML's block of commands. */
function commandsOf(html: string): string[] {
  const block = html.slice(html.indexOf('class="code"'));
  return [...block.matchAll(/<div style="padding:5px 0">(.*?)<\/div>/g)].map(([, line]) =>
    withoutTags(`<body>${line ?? ""}`),
  );
}

/** The arguments that `aws` gets, line by line, when the lines are pasted into bash. */
function runInBash(lines: string[]): string[][] {
  const stub = `aws() { printf '%s\\0' "$@"; printf '\\n\\0'; }`;
  const script = `set -u; ${stub}\n${lines.join("\n")}\n`;
  const printed = execFileSync("bash", ["-c", script], { encoding: "utf8" });
  const calls: string[][] = [[]];
  for (const argument of printed.split("\0").slice(0, -1)) {
    if (argument === "\n") calls.push([]);
    else calls.at(-1)?.push(argument);
  }
  return calls.slice(0, -1);
}

const ALLOWED = new Set(
  "!doctype html head meta title style body div table tr td h1 h2 p span bdi wbr".split(" "),
);
const VOID = new Set(["!doctype", "meta", "wbr"]);

const tags = (html: string): string[] => html.replace(/<!--.*?-->/gs, "").match(/<[^>]*>/g) ?? [];
const tagName = (tag: string): string => /^<\/?([!\w]+)/.exec(tag)?.[1]?.toLowerCase() ?? tag;
const isClosing = (tag: string): boolean => tag.startsWith("</");

/** Tags that were opened and not closed in their order. */
function unbalanced(found: string[]): string[] {
  const open: string[] = [];
  for (const tag of found.filter((each) => !VOID.has(tagName(each)))) {
    if (!isClosing(tag)) open.push(tagName(tag));
    else if (open.pop() !== tagName(tag)) return [tag];
  }
  return open;
}
