/** Lists of people as they are exported and pasted: read right, or refused with a line and the form that works. */
import { describe, expect, test as plain } from "vitest";

import { decodeText } from "../../server/cli/user_file.ts";
import { readUserRows, type UserLine } from "../../server/cli/user_rows.ts";
import { test } from "../support/database.ts";
import { insertRow, query } from "../support/rows.ts";
import { JANE, requestBody, startThaw } from "../support/thaw.ts";
import { users, withFile } from "../support/users_command.ts";

const ACCOUNT = "111122223333";
const STS = `arn:aws:sts::${ACCOUNT}`;
const IAM = `arn:aws:iam::${ACCOUNT}`;

describe("a list as programs export it", () => {
  const rowsOf = (content: string | Buffer): UserLine[] =>
    readUserRows(decodeText(Buffer.from(content), "keys.csv"), "keys.csv").rows;
  const LIST = "access_key_id,email\r\nAKIA1,jane@example.com\r\nAKIA2,john@example.com\r\n";
  const ROWS = [
    { line: 2, id: "AKIA1", email: "jane@example.com" },
    { line: 3, id: "AKIA2", email: "john@example.com" },
  ];
  const as = (change: (list: string) => string): string => change(LIST);
  const shifted = (lines: number): UserLine[] => ROWS.map((row) => ({ ...row, line: row.line + lines }));

  plain.for<[string, string | Buffer, UserLine[]]>([
    ["with commas", LIST, ROWS],
    ["with semicolons", as((list) => list.replaceAll(",", ";")), ROWS],
    ["with tabs", as((list) => list.replaceAll(",", "\t")), ROWS],
    [
      "with tabs, and nothing in the first column",
      "name\taccess_key_id\temail\n\tAKIA1\tjane@example.com\n\tAKIA2\tjohn@example.com",
      ROWS,
    ],
    ["with Excel's line of its separator", as((list) => `sep=;\r\n${list.replaceAll(",", ";")}`), shifted(1)],
    ["with quotes, and spaces before them", as((list) => list.replaceAll(/[^,\r\n]+/g, ' "$&" ')), ROWS],
    ["of Unix", as((list) => list.replaceAll("\r", "")), ROWS],
    ["of an old Mac", as((list) => list.replaceAll("\n", "")), ROWS],
    ["without a last line end", as((list) => list.trim()), ROWS],
    ["with empty lines and lines of separators only", as((list) => `\r\n,\r\n${list},\r\n`), shifted(2)],
    ["without names of columns", as((list) => list.replace(/^.*\r\n/, "")), shifted(-1)],
    [
      "without names of columns, the address first",
      "jane@example.com;AKIA1\njohn@example.com;AKIA2",
      shifted(-1),
    ],
    [
      "with other columns, and names as AWS and directories write them",
      'User name;"Access key ID";E-Mail\n"Doe; Jane";AKIA1;jane@example.com\nJohn;AKIA2;john@example.com',
      ROWS,
    ],
    [
      "with a key and an ARN of one person",
      `access_key_id,arn,email\nAKIA1,${IAM}:user/jane,jane@example.com`,
      [
        { line: 2, id: "AKIA1", email: "jane@example.com" },
        { line: 2, id: `${IAM}:user/jane`, email: "jane@example.com" },
      ],
    ],
    ["in UTF-8 with its mark", `\uFEFF${LIST}`, ROWS],
    [
      "in UTF-16, as Excel's Unicode text",
      Buffer.from(`\uFEFF${LIST.replaceAll(",", "\t")}`, "utf16le"),
      ROWS,
    ],
    ["in UTF-16 the other way round", Buffer.from(`\uFEFF${LIST}`, "utf16le").swap16(), ROWS],
    [
      "in Windows-1252, with names that are not ASCII",
      Buffer.from(
        "name,access_key_id,email\nJ\xf6rg,AKIA1,jane@example.com\nR\xe9mi,AKIA2,john@example.com",
        "latin1",
      ),
      ROWS,
    ],
  ])("%s is read", ([, content, rows]) => {
    expect(rowsOf(content)).toEqual(rows);
  });

  plain.for<[string, string | Buffer, RegExp]>([
    [
      "a workbook",
      Buffer.from([0x50, 0x4b, 0x03, 0x04, 0x14, 0]),
      /is an Excel workbook .*Save it as "CSV UTF-8/,
    ],
    ["an old workbook", Buffer.from([0xd0, 0xcf, 0x11, 0xe0, 0xa1]), /is an old Excel workbook/],
    [
      "UTF-16 without its mark",
      Buffer.from(LIST, "utf16le"),
      /UTF-16 without its byte order mark.*Save it as/,
    ],
    ["an empty file", "", /the first line must name the columns/],
    ["names that say nothing", "key;mail address of person\nAKIA1;jane@example.com", /must name the columns/],
    ["two columns of addresses", "access_key_id,email,mail\nA,a@b.c,d@e.f", /must name the columns/],
    [
      "AWS's own list, with a secret",
      "Access key ID,Secret access key\nAKIA1,wJalrXUtnFEMI",
      /must name the columns/,
    ],
    ["a quote that is never closed", 'access_key_id,email\nA,"a@b.c\nB,b@b.c', /is not a CSV file: .*line/],
  ])("%s is refused with what to do", ([, content, message]) => {
    expect(() => rowsOf(content)).toThrow(message);
    expect(() => rowsOf(content)).not.toThrow(/wJalr/);
  });
});

/** Written by people; what is kept. */
const TAKEN: [written: string, kept: string][] = [
  [`${IAM}:user/jane`, `${IAM}:user/jane`],
  [`${IAM}:user/division/team/jane`, `${IAM}:user/division/team/jane`],
  [`${IAM}:user/division/*`, `${IAM}:user/division/*`],
  [`${IAM}:root`, `${IAM}:root`],
  [`${IAM}:role/Analyst`, `${STS}:assumed-role/Analyst/*`],
  [`${IAM}:role/service-role/Nightly`, `${STS}:assumed-role/Nightly/*`],
  [
    `${IAM}:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Reader_0123456789abcdef`,
    `${STS}:assumed-role/AWSReservedSSO_Reader_0123456789abcdef/*`,
  ],
  [
    `${IAM}:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Writer_*`,
    `${STS}:assumed-role/AWSReservedSSO_Writer_*`,
  ],
  [`${IAM}:role/*`, `${STS}:assumed-role/*`],
  [`${STS}:assumed-role/Analyst/jane@example.com`, `${STS}:assumed-role/Analyst/jane@example.com`],
  [`${STS}:assumed-role/An*`, `${STS}:assumed-role/An*`],
  [`${STS}:federated-user/bob`, `${STS}:federated-user/bob`],
  [`${STS}:*`, `${STS}:*`],
  ["arn:*", "arn:*"],
  ["arn:aws:identitystore:::user/94d00cd8-e9e6-4810", "arn:aws:identitystore:::user/94d00cd8-e9e6-4810"],
  [`arn:aws-cn:iam::${ACCOUNT}:user/jane`, `arn:aws-cn:iam::${ACCOUNT}:user/jane`],
  [`arn:aws-us-gov:iam::${ACCOUNT}:role/R`, `arn:aws-us-gov:sts::${ACCOUNT}:assumed-role/R/*`],
  // IAM's ids: of a user, of a session, of a role for its sessions.
  ["AIDACKCEVSQ6C2EXAMPLE", "AIDACKCEVSQ6C2EXAMPLE"],
  ["AROACKCEVSQ6C2EXAMPLE:jane@example.com", "AROACKCEVSQ6C2EXAMPLE:jane@example.com"],
  ["AROACKCEVSQ6C2EXAMPL1", "AROACKCEVSQ6C2EXAMPL1:*"],
  ["AROACKCEVSQ6C2EXAMPL2:*", "AROACKCEVSQ6C2EXAMPL2:*"],
  // Keys of AWS, MinIO, Ceph and Garage.
  ["AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"],
  ["minioadmin", "minioadmin"],
  ["0555b35654ad1656d804", "0555b35654ad1656d804"],
  ["GK31c2f218a2e44f485b94239e", "GK31c2f218a2e44f485b94239e"],
  ["backup_user-1", "backup_user-1"],
];

/** What can match no reader, and what its message says. */
const REFUSED: [written: string, message: string][] = [
  [`${IAM}:role/service-role/*`, "a role reads by its sessions"],
  [`${IAM}:role/`, "a role reads by its sessions"],
  [`${IAM}:role/An*st`, "a * may stand at the end only"],
  [`${STS}:assumed-role/*/jane@example.com`, "a * may stand at the end only"],
  [`${STS}:assumed-role/Analyst/**`, "a * may stand at the end only"],
  [`${STS}:assumed-role/Analyst`, "the session is missing: end it in /*"],
  [`${STS}:assumed-role/service-role/Nightly/*`, "sessions do not have the role's path"],
  [`${IAM}:assumed-role/Analyst/*`, "no reader has it"],
  [`${STS}:role/Analyst`, "no reader has it"],
  [`${IAM}:group/analysts`, "a group reads nothing: write its users"],
  [`${IAM}:policy/ReadOnly`, "it reads nothing"],
  [`${IAM}:instance-profile/web`, "it reads nothing"],
  [`${IAM}:user/`, "no reader has it"],
  [`${IAM}:us*`, "no reader has it"],
  ["arn:aws:iam::1111:user/jane", "an account has 12 digits"],
  ["arn:aws:iam::1111-2222-3333:user/jane", "an account has 12 digits"],
  ["arn:aws:iam:::user/jane", "an account has 12 digits"],
  [`arn:aws:iam:us-east-1:${ACCOUNT}:user/jane`, "a region stands in it"],
  [
    `arn:aws:identitystore::${ACCOUNT}:identitystore/d-1234567890`,
    "is written arn:aws:identitystore:::user/<user id>",
  ],
  ["arn:aws:s3:::bucket/key", "no reader has it"],
  [`arn:azure:iam::${ACCOUNT}:user/jane`, "no reader has it"],
  [`${IAM}:user/ja ne`, "it holds a space"],
  [`${IAM}:user/jan\u200Be`, "it holds a space, or a character that no ARN has"],
  ["AGPACKCEVSQ6C2EXAMPLE", "write the access key id (AKIA...), or the ARN"],
  ["AIDACKCEVSQ6C2EXAMPLE:jane", "a user has no sessions"],
  ["AROACKCEVSQ6C2EXAMPLE:ja*", "a * means all sessions of a role"],
  ["AROACKCEVSQ6C2EXAMPLE:", "a role reads by its sessions"],
  ["AROACKCEVSQ6C2EXAMPLE/jane", "neither an access key id"],
  ["AKIA 1", "neither an access key id"],
  ["jane@example.com", "neither an access key id"],
  ["*", "neither an access key id"],
  ["A".repeat(129), "neither an access key id"],
];

describe("an entry", () => {
  test("that readers can have is taken, a role's ARN for its sessions", async ({ databaseUrl, pool }) => {
    const list = TAKEN.map(([written], index) => `${written},p${index}@example.com\n`);
    await withFile(`principal,email\n${list.join("")}`, async (file) => {
      const { out } = await users(databaseUrl, ["import", file]);
      expect(out).toContain(`${TAKEN.length} entries read: ${TAKEN.length} added`);
    });
    const kept = await query(pool, "select id, email, problem from map_entries");
    expect(kept).toHaveLength(TAKEN.length);
    for (const [index, [, id]] of TAKEN.entries())
      expect(kept).toContainEqual({ id, email: `p${index}@example.com`, problem: null });
  });

  test("that no reader can have is refused with its line and the form that works", async ({
    databaseUrl,
    pool,
  }) => {
    // Twenty problems are shown at a time.
    for (let from = 0; from < REFUSED.length; from += 20) {
      const some = REFUSED.slice(from, from + 20);
      const list = some.map(([written]) => `${written},jane@example.com\n`);
      await withFile(`principal,email\n${list.join("")}`, async (file) => {
        const { code, out } = await users(databaseUrl, ["import", file]);
        expect(code).toBe(1);
        const lines = out.split("\n");
        for (const [index, [written, message]] of some.entries()) {
          const line = lines.find((text) => text.startsWith(`  line ${index + 2}: `));
          expect(line, written).toContain(message);
          expect(line).toContain(written.replace("\u200B", "\\u{200b}"));
        }
      });
    }
    expect(await query(pool, "select from map_entries")).toEqual([]);
  });

  test.for(
    [...REFUSED.map(([written]) => written), `${IAM}:role/Analyst`].filter((id) => id.startsWith("arn:")),
  )("%j is refused from psql, too", async (principal, { pool }) => {
    await expect(
      insertRow(pool, "aws_principal_user_map", { principal, email: "jane@example.com" }),
    ).rejects.toMatchObject({
      constraint: expect.stringMatching(/^aws_principal_user_map_(suits_a_reader|star_ends)$/),
    });
  });

  test.for(["AROACKCEVSQ6C2EXAMPLE", "AKIA 1", "jane@example.com", `${IAM}:user/jane`])(
    "%j is refused as a key from psql, too",
    async (access_key_id, { pool }) => {
      await expect(
        insertRow(pool, "aws_key_user_map", { access_key_id, email: "jane@example.com" }),
      ).rejects.toMatchObject({ constraint: "aws_key_user_map_suits_a_reader" });
    },
  );

  test("of a role and of its sessions is one entry: it cannot lead to two people", async ({
    databaseUrl,
  }) => {
    const list = (other: string): string =>
      `principal,email\n${IAM}:role/R,a@example.com\n${STS}:assumed-role/R/*,${other}@example.com\n`;
    await withFile(list("b"), async (file) => {
      expect((await users(databaseUrl, ["import", file])).out).toContain(
        `line 3: ${STS}:assumed-role/R/* appears twice, with different addresses`,
      );
    });
    await withFile(list("a"), async (file) => {
      expect((await users(databaseUrl, ["import", file])).out).toContain("1 entries read: 1 added");
    });
  });

  test("is shown with what is wrong: invisible characters, and lines with too many fields", async ({
    databaseUrl,
  }) => {
    await withFile(
      `access_key_id,email\n${JANE},jane\u200B@example.com\nAKIA2,Doe, Jane,x@example.com\nAKIA3,mailto:x@example.com\n`,
      async (file) => {
        const { out } = await users(databaseUrl, ["import", file]);
        expect(out).toContain(
          "line 2: 'jane\\u{200b}@example.com' is not an email address: it holds a character",
        );
        expect(out).toContain("line 3: 4 fields, where the first line has 2");
        expect(out).toContain(
          "line 4: 'mailto:x@example.com' is not an email address: write it without mailto:",
        );
      },
    );
  });
});

describe("npm run users -- check", () => {
  test("understands IAM's ids: of a role, of one of its sessions, and of a user", async ({ databaseUrl }) => {
    const role = "AROACKCEVSQ6C2EXAMPLE";
    const list = `principal,email\n${role},role@example.com\n${role}:jane,jane@example.com\nAIDACKCEVSQ6C2EXAMPLE,u@example.com\n`;
    await withFile(list, async (file) => {
      await users(databaseUrl, ["import", file]);
      const { out } = await users(databaseUrl, ["check", role]);
      expect(out).toContain(
        `${role} (its sessions, ${role}:*) leads to role@example.com: by its principal id.`,
      );
      expect(out).toContain(`but ${role}:jane leads to jane@example.com`);
      expect((await users(databaseUrl, ["check", `${role}:jane`])).out).toContain(
        "leads to jane@example.com",
      );
      expect((await users(databaseUrl, ["check", "AIDACKCEVSQ6C2EXAMPLE"])).out).toContain(
        "leads to u@example.com: by its principal id.",
      );
    });
  });

  test("answers for a role by its sessions, and names the single ones that lead elsewhere", async ({
    databaseUrl,
  }) => {
    const thaw = await startThaw(databaseUrl, { worker: false });
    await withFile(
      `principal,email\n${IAM}:role/Analyst,analysts@example.com\n${STS}:assumed-role/Analyst/boss,boss@example.com\n`,
      (file) => users(databaseUrl, ["import", file]),
    );
    for (const session of ["one", "two"])
      await thaw.post(
        "/restore/request",
        requestBody("a.bin", { access_key_id: "", principal_arn: `${STS}:assumed-role/Analyst/${session}` }),
      );

    const { code, out } = await users(databaseUrl, ["check", `${IAM}:role/team/Analyst`]);
    expect(out).toBe(
      `${IAM}:role/team/Analyst (its sessions, ${STS}:assumed-role/Analyst/*) leads to analysts@example.com: by a prefix of its ARN.\n` +
        `  but ${STS}:assumed-role/Analyst/boss leads to boss@example.com\n` +
        "2 open requests are by it, 0 of them without an address.\n",
    );
    expect(code).toBe(0);
    expect((await users(databaseUrl, ["check", `${IAM}:role/Other`])).out).toContain("leads to nobody");
    await thaw.stop();
  });

  test("says of what nobody reads as, why", async ({ databaseUrl }) => {
    expect(await users(databaseUrl, ["check", `${IAM}:group/analysts`])).toMatchObject({
      code: 1,
      out: expect.stringContaining("a group reads nothing: write its users"),
    });
  });
});
