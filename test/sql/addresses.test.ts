/** What an address is: one rule, in SQL for whoever writes to a map, in TypeScript for settings. */
import { describe, expect, test as plain } from "vitest";

import { isAddress } from "../../server/settings/address.ts";
import { ConfigError, readConfig } from "../../server/config.ts";
import { test } from "../support/database.ts";
import { insertRow, one } from "../support/rows.ts";

const LONG = `${"d".repeat(60)}.`.repeat(3);

const GOOD = [
  "jane@example.com",
  "Jane.Doe+glacier@mail.example.co.uk",
  "o'brien@example.com",
  "j_d=x/y{z}@example.com",
  "1@2.example",
  "j@e.x",
  "jane@xn--mnchen-3ya.de",
  "jane@example.xn--p1ai",
  `${"l".repeat(64)}@example.com`,
  `jane@${LONG}${"e".repeat(254 - "jane@".length - LONG.length - ".com".length)}.com`,
];

const BAD = [
  "jane\u200B@example.com",
  "jane@example.com\u200B",
  "\uFEFFjane@example.com",
  "jane\u00AD@example.com",
  "jane\u00A0@example.com",
  "jane\u202E@example.com",
  "jane\u0007@example.com",
  "jane\u0085@example.com",
  "jane\u007F@example.com",
  "j\uFFFDrg@example.com",
  "j\u{E0041}@example.com",
  "jörg@example.com",
  "jane@münchen.de",
  "ｊane@example.com",
  "mailto:jane@example.com",
  "MAILTO:jane@example.com",
  ".jane@example.com",
  "jane.@example.com",
  "ja..ne@example.com",
  "jane@.example.com",
  "jane@example.com.",
  "jane@example..com",
  "jane@example",
  "jane@localhost",
  "jane@10.0.0.1",
  "jane@[10.0.0.1]",
  "jane@-example.com",
  "jane@example-.com",
  "jane@example.com-",
  "jane@exam_ple.com",
  '"jane doe"@example.com',
  "jane(work)@example.com",
  "jane\\@example.com",
  "jane@example.com ",
  "jane@exam ple.com",
  "jane@example.com\n",
  "jane",
  "@example.com",
  "jane@",
  "jane@doe@example.com",
  "Jane <jane@example.com>",
  "jane@example.com,john@example.com",
  "",
  `${"l".repeat(65)}@example.com`,
  `jane@${LONG}${"e".repeat(255 - "jane@".length - LONG.length - ".com".length)}.com`,
  `${"x".repeat(8000)}@example.com`,
];

const MINIMAL = {
  DATABASE_URL: "postgres://localhost/thaw",
  RESEND_API_KEY: "re_1",
  MAIL_FROM: "Thaw <thaw@example.com>",
};
const isRefused = (env: Record<string, string>): boolean => {
  try {
    readConfig({ ...MINIMAL, ...env }, ["worker"]);
    return false;
  } catch (error) {
    return error instanceof ConfigError;
  }
};

describe.for([
  ["an address that mails reach", true, GOOD],
  ["an address that reaches nobody", false, BAD],
] as const)("%s", ([, good, addresses]) => {
  plain.for(addresses)("%j is known as such to TypeScript", (address) => {
    expect(isAddress(address)).toBe(good);
  });

  test("is known as such to SQL, with a reason", async ({ pool }) => {
    for (const address of addresses) {
      const { problem } = await one(pool, "select address_problem($1) as problem", [address]);
      if (good) expect(problem, JSON.stringify(address)).toBeNull();
      else expect(problem, JSON.stringify(address)).toMatch(/^[a-z].{10,}/);
    }
  });

  test("is taken or refused by both maps, whoever writes to them", async ({ pool }) => {
    for (const [index, email] of addresses.entries()) {
      const entries: [map: string, entry: Record<string, string>][] = [
        ["aws_key_user_map", { access_key_id: `AKIA${index}`, email }],
        ["aws_principal_user_map", { principal: `arn:aws:iam::111122223333:user/${index}`, email }],
      ];
      for (const [map, entry] of entries) {
        const insert = insertRow(pool, map, entry);
        if (good) await insert;
        else
          await expect(insert, JSON.stringify(email)).rejects.toMatchObject({
            constraint: expect.stringMatching(/reaches_somebody$|^email_address_is_one_mailbox$/),
          });
      }
    }
  });

  plain.for(addresses.filter((address) => address.trim() !== ""))(
    "%j is taken or refused as a sender, bare and with a name",
    (address) => {
      expect(isRefused({ MAIL_REPLY_TO: `Thaw <${address}>` })).toBe(!good);
      // "Jane <jane@example.com>" is a sender, if no address.
      if (!address.includes("<")) expect(isRefused({ MAIL_FROM: address })).toBe(!good);
    },
  );

  test("is taken or refused as a session's name", async ({ pool }) => {
    for (const address of addresses) {
      const domain = address.split("@")[1] ?? "";
      const found = await pool.query(
        "select from find_person('', 'arn:aws:sts::1:assumed-role/R/' || $1::text, '', array[lower($2)])",
        [address, domain],
      );
      expect(found.rowCount, JSON.stringify(address)).toBe(good ? 1 : 0);
    }
  });
});

plain("a sender's name holds nothing that is not seen", () => {
  for (const hidden of ["\u0007", "\u200B", "\u202E", "\r\nBcc: x", "\u2028"])
    expect(isRefused({ MAIL_FROM: `Thaw${hidden} <thaw@example.com>` }), JSON.stringify(hidden)).toBe(true);
  expect(isRefused({ MAIL_FROM: "Thaw für Jörg 🧊 <thaw@example.com>" })).toBe(false);
});

plain.for([
  "@example.com",
  "*.example.com",
  "*",
  "example",
  "exam ple.com",
  "example.com.",
  ".example.com",
  "example..com",
  "jane@example.com",
  "münchen.de",
  "example.com\u200B",
  "example.com; example.org",
  "https://example.com",
])("the domain %j, which no session's address can have, is refused", (SESSION_EMAIL_DOMAINS) => {
  expect(isRefused({ SESSION_EMAIL_DOMAINS })).toBe(true);
  expect(isRefused({ SESSION_EMAIL_DOMAINS: `example.com, ${SESSION_EMAIL_DOMAINS}` })).toBe(true);
});
