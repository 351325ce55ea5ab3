/** `npm run thaw -- policy | limit | hold | cost | prices`. */
import { randomUUID } from "node:crypto";

import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { accepted, admitReads, claim, GIB, limit, policy, settle, SCANNER } from "../support/cost.ts";
import { test } from "../support/database.ts";
import { test as withRoles } from "../support/roles.ts";
import { one, query, type Row } from "../support/rows.ts";
import { jsonLines, thaw } from "../support/thaw_command.ts";
import { withFile } from "../support/users_command.ts";

const ROLE = "arn:aws:iam::123456789012:role/scanner";
const MONTH = new Date().toISOString().slice(0, 7);

const policies = (pool: Pool): Promise<Row[]> =>
  query(pool, "select s3_bucket, key_prefix, principal, action, tier, days, note from policy_list");

const actions = async (pool: Pool): Promise<unknown[]> =>
  (await query(pool, "select action from operator_actions order by id")).map(
    ({ action }) => action as string,
  );

describe("policy", () => {
  test("set asks first, says what was, and list shows the most specific first", async ({
    databaseUrl,
    pool,
  }) => {
    expect((await thaw(databaseUrl, "policy list")).out).toContain(
      "There is no policy: every read is restored",
    );
    expect(await thaw(databaseUrl, "policy set s3://* --action observe", { answer: "n" })).toMatchObject({
      exit: 1,
      asked: ["s3://*, read by anybody: observe. Set this policy? [y/N] "],
    });
    expect(await policies(pool)).toEqual([]);
    expect(await thaw(databaseUrl, "policy set s3://* --action observe --yes")).toMatchObject({
      exit: 0,
      out: "s3://*, read by anybody: observe (new).\n",
    });
    const changed = await thaw(
      databaseUrl,
      ["policy", "set", "s3://*", "--action", "hold", "--note", "ask Kim"],
      {
        answer: "y",
      },
    );
    expect(changed.asked[0]).toContain("It is now: observe. Set this policy?");
    await thaw(
      databaseUrl,
      `policy set s3://logs/2024/ --by ${ROLE} --action restore --tier Bulk --days 3 --yes`,
    );

    const { out } = await thaw(databaseUrl, "policy list");
    expect(out.split("\n")[1]).toMatch(
      /^s3:\/\/logs\/2024\/ +arn:aws:sts::123456789012:assumed-role\/scanner\/\* +restore +Bulk +3$/,
    );
    expect(out.split("\n")[2]).toMatch(/^s3:\/\/\* +anybody +hold +- +- +ask Kim$/);
    expect(jsonLines((await thaw(databaseUrl, "policy list --json")).out)).toMatchObject([
      { kind: "policy", s3_bucket: "logs", days: 3 },
      { kind: "policy", s3_bucket: "*", tier: null },
    ]);

    expect((await thaw(databaseUrl, `policy remove s3://logs/2024/ --by ${ROLE} --yes`)).exit).toBe(0);
    expect((await thaw(databaseUrl, `policy remove s3://logs/2024/ --by ${ROLE} --yes`)).exit).toBe(3);
    expect(await actions(pool)).toEqual(["set a policy", "set a policy", "set a policy", "remove a policy"]);
    expect((await one(pool, "select distinct actor from actions"))["actor"]).toMatch(/^anna \(/);
  });

  test.for<[words: string, err: RegExp]>([
    ["set logs --action hold", /^logs is no place in S3: write s3:\/\/bucket\/prefix/],
    ["set s3://logs", /^The action is missing/],
    ["set s3://logs --action restore --days seven", /^The days must be a whole number/],
    ["set s3://logs --action restore --tier Fast", /^The tier must be/],
    ["set s3://logs --action hold --by arn:aws:iam::1:group/x", /^A group reads nothing/],
    ["check s3://logs/", /^Name one file/],
    ["check s3://logs/a --by a*", /^Nobody reads as a\*: only an ARN/],
  ])("%s ends with 2, in one line", async ([words, err], { databaseUrl, pool }) => {
    const ended = await thaw(databaseUrl, `policy ${words}${words.startsWith("set") ? " --yes" : ""}`);
    expect(ended.err).toMatch(err);
    expect([ended.exit, ended.out]).toEqual([2, ""]);
    expect(await policies(pool)).toEqual([]);
  });

  test("import takes a spreadsheet's file whole, or says line by line why not", async ({
    databaseUrl,
    pool,
  }) => {
    await withFile(
      "Prefix;By;Action;Tier;Days\ns3://a/;;observe;;\nlogs;;hold;;\ns3://b/;;freeze;;\n\ns3://c/;x@;hold;;\ns3://a/;*;hold;;\ns3://d/;;hold\n",
      async (file) => {
        const { exit, err } = await thaw(databaseUrl, `policy import ${file} --yes`);
        expect(err.split("\n").slice(1, -1)).toEqual([
          "  line 3: 'logs' is no place in S3: write s3://bucket/prefix, or s3://* for all",
          "  line 4: the action must be restore, hold, observe or ignore",
          expect.stringMatching(/^ {2}line 6: ./),
          "  line 7: the same place and reader as in line 2",
          "  line 8: 3 fields, where the first line has 5",
        ]);
        expect(exit).toBe(1);
        expect(await policies(pool)).toEqual([]);
      },
    );
    await withFile(
      `prefix,by,action,tier,days,note\ns3://*,,observe,,,"first, look"\ns3://a/,${ROLE},ignore,,,\n`,
      async (file) => {
        expect((await thaw(databaseUrl, `policy import ${file}`)).exit).toBe(2);
        expect((await thaw(databaseUrl, `policy import ${file} --yes`)).out).toBe(
          "2 policies read: 2 added, 0 changed, 0 as before.\n",
        );
        expect((await thaw(databaseUrl, `policy import ${file} --yes`)).out).toContain(
          "0 added, 0 changed, 2 as before",
        );
      },
    );
    expect(await policies(pool)).toMatchObject([
      { principal: `${SCANNER}*`, action: "ignore" },
      { s3_bucket: "*", note: "first, look" },
    ]);
    await withFile("prefix,actoin\ns3://a/,hold\n", async (file) => {
      expect((await thaw(databaseUrl, `policy import ${file} --yes`)).err).toContain("it lacks action");
    });
  });

  test("check says what would happen to a read, and why, and changes nothing", async ({
    databaseUrl,
    pool,
  }) => {
    expect((await thaw(databaseUrl, "policy check s3://b/k")).out).toMatch(
      /^A read of s3:\/\/b\/k by anybody is restored\.\nWhy: no policy fits/,
    );
    await policy(pool, "restore", { s3_bucket: "b", tier: "Expedited", days: 2 });
    await policy(pool, "ignore", { s3_bucket: "b", key_prefix: "tmp/", principal: `${SCANNER}*` });
    await query(pool, "insert into aws_principal_user_map values ($1, 'ops@example.com')", [`${SCANNER}*`]);
    await limit(pool, { scope: "person", max_cost: 20 });
    await limit(pool, { scope: "prefix", s3_bucket: "b", key_prefix: "k", max_objects: 0 });

    const { out } = await thaw(databaseUrl, `policy check s3://b/x --by ${ROLE}`);
    expect(out).toContain(`A read of s3://b/x by ${SCANNER}* is restored.\n`);
    expect(out).toContain("Why: the policy of s3://b/, read by anybody says restore.\n");
    expect(out).toContain("It counts for ops@example.com.\n");
    expect(out).toContain("Tier: Expedited (of the policy). Days: 2 (of the policy).\n");
    // 10/1000 + 0.03 + 0.023 x 2/30 = 0.0415; Standard of Deep Archive: 0.1/1000 + 0.02 + 0.0015 = 0.0216
    expect(out).toMatch(/^GLACIER +Expedited +\$0\.04$/m);
    expect(out).toMatch(/^DEEP_ARCHIVE +Standard \(it has no Expedited\) +\$0\.02$/m);
    expect(out).toMatch(/prices of us-east-1 \(\d{4}-\d\d-\d\d\), for its region is not known yet\.\n/);
    expect(out).toMatch(/^\$20\.00 per day for each person +\$0\.00 +\$20\.00$/m);

    expect((await thaw(databaseUrl, `policy check s3://b/tmp/x --by ${SCANNER}i-1`)).out).toContain(
      "is ignored",
    );
    const held = await thaw(databaseUrl, "policy check s3://b/k --by AKIAX --json");
    expect(jsonLines(held.out)[0]).toMatchObject({
      kind: "check",
      outcome: "hold",
      payer: "AKIAX",
      policy_action: "restore",
      over_limits: ["0 objects per day under s3://b/k"],
    });
    expect(held.exit).toBe(0);
    expect(await query(pool, "select from spending")).toEqual([]);
    expect(await actions(pool)).toEqual([]);
  });

  test("check knows the file where Thaw has seen it, and what is left for it", async ({
    databaseUrl,
    pool,
  }) => {
    await policy(pool, "hold", { key_prefix: "" });
    await admitReads(pool, 1, () => ({
      s3_bucket: "b",
      s3_key: "big",
      access_key_id: "AKIAA",
      region: "eu-west-1",
    }));
    await query(pool, "update policies set action = 'restore'");
    await query(pool, "update restores set size_bytes = 100 * 2::bigint ^ 30");
    await limit(pool, { max_bytes: 99 * GIB });
    const { out } = await thaw(databaseUrl, "policy check s3://b/big --by AKIAA");
    expect(out).toContain("is held: somebody has to approve it.");
    expect(out).toContain("Why: nothing is left, or not enough, of 106 GB per day for all.");
    // 0.05/1000 + 100 x 0.01 + 100 x 0.023 x 7/30 = 1.5367
    expect(out).toMatch(/^GLACIER \(this file\) +Standard +\$1\.54$/m);
    expect(out).toContain("for eu-west-1 has none");
    expect(out).toMatch(/1 of their files wait for approval already: npm run thaw -- hold show [0-9a-f]{8}/);
  });
});

describe("limit", () => {
  test("set, list and remove say what is limited, and what is used", async ({ databaseUrl, pool }) => {
    expect((await thaw(databaseUrl, "limit list")).out).toContain("There is no limit");
    const set = await thaw(databaseUrl, "limit set --scope person --per day --max-objects 4 --max-cost $20", {
      answer: "yes",
    });
    expect(set).toMatchObject({
      exit: 0,
      asked: ["Set a limit of 4 objects, $20.00 per day for each person? [y/N] "],
      out: "Set: 4 objects, $20.00 per day for each person.\n",
    });
    await thaw(
      databaseUrl,
      "limit set --scope prefix --prefix s3://vault/raw/ --per month --max-bytes 1.5TB --yes",
    );
    await admitReads(pool, 3, () => ({ access_key_id: "AKIAA" }));

    const { out } = await thaw(databaseUrl, "limit list");
    expect(out).toMatch(
      /^4 objects, \$20\.00 per day for each person +AKIAA +75 % +3 of 4 objects, \$0\.05 of \$20\.00/m,
    );
    expect(out).toMatch(/^1\.5 TB per month under s3:\/\/vault\/raw\/ +all +0 % +0 bytes of 1\.5 TB$/m);
    expect(jsonLines((await thaw(databaseUrl, "limit list --json")).out)[0]).toMatchObject({
      kind: "limit",
      person: "AKIAA",
      objects: 3,
      max_cost: 20,
    });

    const removed = await thaw(databaseUrl, "limit remove --scope person --per day", { answer: "y" });
    expect(removed).toMatchObject({
      exit: 0,
      asked: ["Remove the limit of 4 objects, $20.00 per day for each person? [y/N] "],
    });
    expect((await thaw(databaseUrl, "limit remove --scope person --per day --yes")).exit).toBe(3);
    expect(await actions(pool)).toEqual(["set a limit", "set a limit", "remove a limit"]);
  });

  test.for<[words: string, err: RegExp]>([
    ["--per day --max-objects 1", /^The scope must be/],
    ["--scope all --max-objects 1", /^A limit is per day or per month/],
    ["--scope all --per day", /^Say how much/],
    ["--scope all --per day --max-objects -1", /./],
    ["--scope all --per day --max-objects 1e3", /^--max-objects must be one like 1000/],
    ["--scope all --per day --max-bytes 5XB", /^--max-bytes must be one like 500GB/],
    ["--scope all --per day --max-cost 20EUR", /^--max-cost must be one like 20/],
    ["--scope all --prefix s3://b/ --per day --max-cost 20", /^Only a limit of scope prefix/],
    ["--scope prefix --prefix s3://* --per day --max-cost 20", /^A limit for all buckets/],
  ])("set %s ends with 2", async ([words, err], { databaseUrl, pool }) => {
    const ended = await thaw(databaseUrl, `limit set ${words} --yes`);
    expect(ended.err).toMatch(err);
    expect(ended.exit).toBe(2);
    expect(await query(pool, "select from limits")).toEqual([]);
  });
});

describe("hold", () => {
  test("list and show say who waits for what, approve frees no more than was shown", async ({
    databaseUrl,
    pool,
  }) => {
    expect((await thaw(databaseUrl, "hold list")).out).toContain("Nothing waits for approval");
    await limit(pool, { scope: "person", max_objects: 2 });
    await admitReads(pool, 5, () => ({ access_key_id: "AKIAA" }));
    const { id } = await one(pool, "select id from holds");

    const list = (await thaw(databaseUrl, "hold list")).out;
    expect(list).toMatch(
      new RegExp(
        `^${id.slice(0, 8)} +open +AKIAA +3 +3\\.2 GB +\\$0\\.05 +\\d{4}-.* UTC +beyond the limit of 2 objects`,
        "m",
      ),
    );
    const show = (await thaw(databaseUrl, `hold show ${id.slice(0, 8)}`)).out;
    expect(show).toContain("AKIAA: 3 files, 3.2 GB, an estimated $0.05\n");
    expect(show).toMatch(/^s3:\/\/archive\/k000\d +1\.1 GB +GLACIER +Standard +\$0\.02$/m);
    expect(show).toContain(`npm run thaw -- hold approve ${id.slice(0, 8)}`);

    // It grows while somebody thinks.
    const grown = await thaw(databaseUrl, `hold approve ${id}`, {
      ask: async () => {
        await admitReads(pool, 1, () => ({ access_key_id: "AKIAA", s3_key: "late" }));
        return "y";
      },
    });
    expect(grown.err).toContain("has grown to 4 objects");
    expect(grown.exit).toBe(4);
    expect(await one(pool, "select status from holds")).toEqual({ status: "open" });

    const approved = await thaw(databaseUrl, `hold approve ${id.slice(0, 8)}`, { answer: "y" });
    expect(approved.asked[0]).toMatch(
      /^Approve 4 files, 4\.3 GB, an estimated \$0\.06, of AKIAA \(beyond the limit of 2/,
    );
    expect(approved).toMatchObject({ exit: 0, out: "Approved: 4 objects are being restored.\n" });
    expect(await thaw(databaseUrl, `hold refuse ${id} --yes`)).toMatchObject({
      exit: 4,
      err: expect.stringMatching(/^Hold .* is approved already, by anna \(/),
    });
    expect(await actions(pool)).toEqual(["approve"]);
    expect((await thaw(databaseUrl, `hold show ${id}`)).out).toMatch(/^Approved by anna \(.*\), \d{4}-/m);
  });

  test("refuse tells what becomes of it; an id that is none, or nobody's, says so", async ({
    databaseUrl,
    pool,
  }) => {
    await policy(pool, "hold");
    await admitReads(pool, 1);
    const { id } = await one(pool, "select id from holds");
    const refused = await thaw(databaseUrl, `hold refuse ${id}`, { answer: "y" });
    expect(refused.asked[0]).toContain("Those who wait for them get a mail that says so.");
    expect(refused.exit).toBe(0);
    expect(await one(pool, "select status, decided_by from holds")).toEqual({
      status: "refused",
      decided_by: expect.stringMatching(/^anna \(/),
    });
    expect((await thaw(databaseUrl, `hold show ${randomUUID()}`)).exit).toBe(3);
    expect((await thaw(databaseUrl, "hold show x")).exit).toBe(2);
    expect((await thaw(databaseUrl, `hold approve ${id}`)).exit).toBe(4);
  });
});

describe("cost", () => {
  /** One restored file of each of two people, and three observed ones. */
  async function spend(pool: Pool): Promise<void> {
    await admitReads(pool, 2, (n) => ({
      s3_key: `videos/${n}`,
      access_key_id: n === 0 ? "AKIAA" : "=cmd()",
    }));
    await settle(
      pool,
      (await query(pool, "select * from restores where status = 'not_started'")).map(accepted),
    );
    await policy(pool, "observe");
    await admitReads(pool, 3, (n) => ({ s3_key: `logs/${n}`, access_key_id: "AKIAA" }));
  }
  // 0.05/1000 + 0.01 + 0.023 x 7/30 = 0.0154167 each.

  test("tells what was restored apart from what was only observed, in the same numbers everywhere", async ({
    databaseUrl,
    pool,
  }) => {
    expect((await thaw(databaseUrl, "cost")).out).toContain(`Nothing was restored in ${MONTH}.`);
    await spend(pool);
    const { out } = await thaw(databaseUrl, "cost --by prefix");
    expect(out).toContain(`Restored in ${MONTH}: 2 files, 2.1 GB, $0.03\n`);
    expect(out).toMatch(/^s3:\/\/archive\/videos\/ +2 +2\.1 GB +\$0\.03$/m);
    expect(out).toContain(`Observed in ${MONTH}, not restored; it would have cost: 3 files, 3.2 GB, $0.05\n`);
    expect(out).toMatch(/^s3:\/\/archive\/logs\/ +3 +3\.2 GB +\$0\.05$/m);
    expect(out).toMatch(
      /^An estimate, without download and tax, by the prices of us-east-1 \(2026-09-26\); other regions/m,
    );
    expect((await thaw(databaseUrl, "cost")).out).toMatch(/^GLACIER Standard +2 +2\.1 GB +\$0\.03$/m);
    expect((await thaw(databaseUrl, "cost --by bucket")).out).toMatch(/^s3:\/\/archive +2 /m);
    expect((await thaw(databaseUrl, "cost --month 2020-01")).out).toContain(
      "Nothing was restored in 2020-01.",
    );

    const json = jsonLines((await thaw(databaseUrl, "cost --by person --json")).out);
    expect(json).toMatchObject([
      { kind: "cost", name: "=cmd()", observed: false, objects: 1 },
      { kind: "cost", name: "AKIAA", observed: false, estimated_cost: expect.closeTo(0.0154167, 6) },
      { kind: "cost", name: "AKIAA", observed: true, objects: 3 },
    ]);
  });

  test("as CSV has whole numbers, dollars to the cent, and no formula", async ({ databaseUrl, pool }) => {
    await spend(pool);
    expect((await thaw(databaseUrl, "cost --by person --csv")).out).toBe(
      [
        '"month","person","what","objects","bytes","estimated_cost_usd"',
        `"${MONTH}","AKIAA","observed","3","${3 * GIB}","0.05"`,
        `"${MONTH}","'=cmd()","restored","1","${GIB}","0.02"`,
        `"${MONTH}","AKIAA","restored","1","${GIB}","0.02"`,
        "",
      ].join("\r\n"),
    );
  });

  test.for(["--by team", "--month 2026-13", "--month november"])(
    "%s ends with 2",
    async (words, { databaseUrl }) => {
      expect((await thaw(databaseUrl, `cost ${words}`)).exit).toBe(2);
    },
  );
});

describe("prices", () => {
  const HEAD = "region,storage_class,tier,per_1000_requests,per_gb,copy_per_gb_month,valid_from,source\n";

  test("list shows what counts today; import takes a file whole, or says line by line why not", async ({
    databaseUrl,
    pool,
  }) => {
    const { out } = await thaw(databaseUrl, "prices list");
    expect(out).toMatch(
      /^us-east-1 +DEEP_ARCHIVE +Bulk +\$0\.025 +\$0\.0025 +\$0\.023 +2026-09-26 +AWS Price List$/m,
    );
    expect(out).toContain("any other region are estimated by the prices of us-east-1");

    await withFile(
      `${HEAD}eu-west-1,GLACIER,Bulk,0,0,0.023,2026-11-01,Price List\nParis,GLACIER,Bulk,0,0,0.023,2026-11-01,x\neu-west-1,DEEP_ARCHIVE,Expedited,1,1,1,2026-11-01,x\n`,
      async (file) => {
        const { exit, err } = await thaw(databaseUrl, `prices import ${file} --yes`);
        expect(err).toContain(
          "  line 3: the region must be one like eu-central-1\n  line 4: DEEP_ARCHIVE has no Expedited\n",
        );
        expect(exit).toBe(1);
      },
    );
    await withFile(`${HEAD}eu-west-1,GLACIER,Bulk,0,0,0.024,2026-11-01,Price List\n`, async (file) => {
      expect(await thaw(databaseUrl, `prices import ${file}`, { answer: "y" })).toMatchObject({
        exit: 0,
        asked: [expect.stringContaining("Set 1 prices?")],
        out: "1 prices read: 1 added, 0 changed, 0 as before.\n",
      });
    });
    expect((await thaw(databaseUrl, "prices list")).out).toMatch(
      /^eu-west-1 +GLACIER +Bulk +\$0 +\$0 +\$0\.024/m,
    );
    expect(await actions(pool)).toEqual(["import prices"]);
  });
});

withRoles(
  "thaw_operator runs all of these without the owner's password, thaw_reader those that look",
  async ({ migrated: roles }) => {
    const owner = roles.as("thaw_migrator");
    await policy(owner, "hold");
    await admitReads(owner, 2, (n) => ({ access_key_id: `AKIA${n}` }));
    const [one, two] = (await query(owner, "select id from holds")) as [Row, Row];
    const looks = [
      "policy list",
      "limit list",
      "hold list",
      `hold show ${one["id"]}`,
      "cost --by person",
      "prices list",
    ];
    for (const words of [
      ...looks,
      "policy set s3://b/ --action observe --yes",
      "policy check s3://b/k --by AKIAA",
      "policy remove s3://b/ --yes",
      "limit set --scope all --per month --max-cost 5 --yes",
      "limit remove --scope all --per month --yes",
      `hold approve ${one["id"]} --yes`,
      `hold refuse ${two["id"]} --yes`,
    ]) {
      const ended = await thaw(roles.urlOf("thaw_operator"), words);
      expect(ended.exit, `${words}\n${ended.err}`).toBe(0);
    }
    for (const words of looks) {
      const ended = await thaw(roles.urlOf("thaw_reader"), words);
      expect(ended.exit, `${words}\n${ended.err}`).toBe(0);
    }
    expect(await query(owner, "select distinct actor from actions")).toEqual([
      { actor: "anna (thaw_operator)" },
    ]);
    expect(
      (await thaw(roles.urlOf("thaw_reader"), "limit set --scope all --per day --max-cost 1 --yes")).err,
    ).toContain("may not do this");
    expect(await claim(owner)).toEqual([]);
  },
);
