import type { Pool } from "pg";
import { describe, expect } from "vitest";

import { test } from "../support/database.ts";
import { BUCKET, JANE, requestBody, startThaw } from "../support/thaw.ts";
import { users, withFile } from "../support/users_command.ts";
import { know } from "../support/rows.ts";
import { waitFor } from "../support/wait_for.ts";

const ROLE = "arn:aws:sts::111122223333:assumed-role";
const SSO = `${ROLE}/AWSReservedSSO_Reader_0123456789abcdef/jane@example.com`;

interface Found {
  email: string;
  resolved_by: string;
}

const find = async (
  pool: Pool,
  reader: { key?: string; principal?: string; source_identity?: string },
  domains: string[] = [],
): Promise<Found | undefined> =>
  (
    await pool.query<Found>("select email, resolved_by from find_person($1, $2, $3, $4)", [
      reader.key ?? "",
      reader.principal ?? "",
      reader.source_identity ?? "",
      domains,
    ])
  ).rows[0];

const mapPrincipal = (pool: Pool, principal: string, email: string): Promise<unknown> =>
  pool.query("insert into aws_principal_user_map (principal, email) values ($1, $2)", [principal, email]);

describe("whose read it is", () => {
  test("the access key comes first, whatever else would fit", async ({ pool }) => {
    await pool.query("insert into aws_key_user_map (access_key_id, email) values ($1, 'key@example.com')", [
      JANE,
    ]);
    await mapPrincipal(pool, SSO, "arn@example.com");
    expect(await find(pool, { key: JANE, principal: SSO }, ["example.com"])).toEqual({
      email: "key@example.com",
      resolved_by: "access_key",
    });
  });

  test("then the exact ARN, then the longest prefix of it", async ({ pool }) => {
    await mapPrincipal(pool, `${ROLE}/*`, "all@example.com");
    await mapPrincipal(pool, `${ROLE}/Analyst/*`, "analysts@example.com");
    await mapPrincipal(pool, `${ROLE}/Analyst/exact`, "exact@example.com");
    expect(await find(pool, { principal: `${ROLE}/Analyst/exact` })).toEqual({
      email: "exact@example.com",
      resolved_by: "principal",
    });
    expect(await find(pool, { principal: `${ROLE}/Analyst/i-0abc` })).toEqual({
      email: "analysts@example.com",
      resolved_by: "principal_prefix",
    });
    expect(await find(pool, { principal: `${ROLE}/Other/x` })).toEqual({
      email: "all@example.com",
      resolved_by: "principal_prefix",
    });
    expect(
      await find(pool, { principal: "arn:aws:sts::999999999999:assumed-role/Analyst/x" }),
    ).toBeUndefined();
  });

  test("% and _ in a prefix mean themselves", async ({ pool }) => {
    await mapPrincipal(pool, `${ROLE}/a_b%*`, "odd@example.com");
    expect(await find(pool, { principal: `${ROLE}/axbyy/s` })).toBeUndefined();
    expect(await find(pool, { principal: `${ROLE}/a_b%c/s` })).toMatchObject({ email: "odd@example.com" });
  });

  test("then the source identity, then the session name, if their domain is allowed", async ({ pool }) => {
    expect(await find(pool, { principal: SSO }, ["example.com"])).toEqual({
      email: "jane@example.com",
      resolved_by: "session_name",
    });
    expect(
      await find(pool, { principal: SSO, source_identity: "j.doe@Example.com" }, ["example.com"]),
    ).toEqual({
      email: "j.doe@Example.com",
      resolved_by: "source_identity",
    });
    expect(await find(pool, { principal: `${ROLE}/Custom/bob@example.com` }, ["example.com"])).toMatchObject({
      email: "bob@example.com",
    });
    expect(
      await find(pool, { principal: "arn:aws:sts::111122223333:federated-user/kim@example.com" }, [
        "example.com",
      ]),
    ).toMatchObject({ email: "kim@example.com" });
  });

  test.for([
    ["no domain is allowed", SSO, []],
    ["another domain is allowed", SSO, ["example.org"]],
    ["a domain that only ends alike is allowed", `${ROLE}/R/eve@evil-example.com`, ["example.com"]],
    ["a subdomain", `${ROLE}/R/eve@sub.example.com`, ["example.com"]],
    ["an instance", `${ROLE}/R/i-0123456789abcdef0`, ["example.com"]],
    ["two addresses", `${ROLE}/R/a@x.com,b@example.com`, ["example.com"]],
    ["two @", `${ROLE}/R/a@b@example.com`, ["example.com"]],
    [
      "an IAM user's path, which is no session",
      "arn:aws:iam::111122223333:user/jane@example.com",
      ["example.com"],
    ],
    ["nobody at all", "", ["example.com"]],
  ] as const)("%s: nobody", async ([, principal, domains], { pool }) => {
    expect(await find(pool, { principal }, [...domains])).toBeUndefined();
  });

  test("a star may stand at the end of a principal only", async ({ pool }) => {
    await expect(mapPrincipal(pool, "arn:aws:*:x", "a@example.com")).rejects.toThrow(
      "aws_principal_user_map_star_ends",
    );
  });
});

describe("a read by somebody with a temporary key", () => {
  test("finds its person at once, notes the rule, and is mailed", async ({ databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, {
      worker: false,
      env: { SESSION_EMAIL_DOMAINS: "Example.com, example.org" },
    });
    await thaw.post(
      "/restore/request",
      requestBody("a.bin", { access_key_id: "ASIATEMPORARY0000001", principal_arn: SSO }),
    );
    await thaw.post(
      "/restore/request",
      requestBody("a.bin", {
        access_key_id: "ASIATEMPORARY0000002",
        principal_arn: `${ROLE}/R/x`,
        source_identity: "kim@example.org",
      }),
    );
    const { rows } = await thaw.pool.query(
      "select email, resolved_by, user_resolved from restore_requests order by requested_at",
    );
    expect(rows).toEqual([
      { email: "jane@example.com", resolved_by: "session_name", user_resolved: true },
      { email: "kim@example.org", resolved_by: "source_identity", user_resolved: true },
    ]);
    await thaw.stop();
  });

  test("is found later when a principal is added to the map, while its restore is open", async ({
    databaseUrl,
  }) => {
    const thaw = await startThaw(databaseUrl, { worker: false });
    await thaw.post(
      "/restore/request",
      requestBody("a.bin", { access_key_id: "ASIATEMPORARY0000001", principal_arn: SSO }),
    );
    await thaw.pool.query("select resolve_requests(10, '{}')");
    expect((await thaw.pool.query("select email, user_resolved from restore_requests")).rows).toEqual([
      { email: null, user_resolved: true },
    ]);
    await mapPrincipal(thaw.pool, SSO, "jane@example.com");
    await thaw.pool.query("select resolve_requests(10, '{}')");
    expect((await thaw.pool.query("select email, resolved_by from restore_requests")).rows).toEqual([
      { email: "jane@example.com", resolved_by: "principal" },
    ]);
    await thaw.stop();
  });

  test.for([
    ["that was never looked up", false],
    ["whom nobody knew", true],
  ] as const)(
    "a reader %s is looked up soon after somebody's lock on the row has gone",
    async ([, lookedUp], { databaseUrl }) => {
      const thaw = await startThaw(databaseUrl, { worker: false });
      await thaw.post("/restore/request", requestBody("a.bin"));
      if (lookedUp) await thaw.pool.query("select resolve_requests(10, '{}')");
      await thaw.know(JANE, "jane@example.com");
      const psql = await thaw.pool.connect();
      await psql.query("begin");
      await psql.query("select from restore_requests for update");
      await thaw.startWorker();
      const again = "select from graphile_worker.jobs where key = 'resolve_users_again'";
      await waitFor("the look that passed it by", async () => (await thaw.pool.query(again)).rowCount === 1);
      await psql.query("rollback");
      psql.release();
      await waitFor("the address", async () => {
        const { rows } = await thaw.pool.query("select email from restore_requests");
        return rows[0].email === "jane@example.com";
      });
      await waitFor("the last look", async () => (await thaw.pool.query(again)).rowCount === 0);
      await thaw.stop();
    },
  );

  test.for([
    ["a service", { principal_arn: undefined, access_key_id: undefined }],
    ["another account without a person", { access_key_id: undefined, account_id: "999999999999" }],
    ["an event without a key id", { access_key_id: "", principal_arn: `${ROLE}/R/i-0abc` }],
  ] as const)("%s is restored all the same, for nobody", async ([, reader], { databaseUrl }) => {
    const thaw = await startThaw(databaseUrl, {
      worker: false,
      env: { SESSION_EMAIL_DOMAINS: "example.com" },
    });
    expect((await thaw.post("/restore/request", requestBody("a.bin", reader))).status).toBe(200);
    await thaw.pool.query("select resolve_requests(10, '{}')");
    expect((await thaw.pool.query("select email, user_resolved from restore_requests")).rows).toEqual([
      { email: null, user_resolved: true },
    ]);
    expect((await thaw.pool.query("select s3_bucket, status from restores")).rows).toEqual([
      { s3_bucket: BUCKET, status: "not_started" },
    ]);
    await thaw.stop();
  });
});

describe("npm run users", () => {
  test("imports keys and principals, again without harm, and tells who stops waiting by it", async ({
    databaseUrl,
    pool,
  }) => {
    const thaw = await startThaw(databaseUrl, { worker: false });
    await thaw.post("/restore/request", requestBody("a.bin"));
    await thaw.post("/restore/request", requestBody("b.bin", { access_key_id: "", principal_arn: SSO }));
    await withFile(
      `\uFEFFaccess_key_id,email\r\n${JANE}, jane@example.com\r\n"${ROLE}/AWSReservedSSO_Reader_*",readers@example.com\r\n`,
      async (file) => {
        const first = await users(databaseUrl, ["import", file]);
        expect(first.out).toContain("2 entries read: 2 added, 0 changed, 0 as before.");
        expect(first.out).toContain("2 waiting requests have an address now");
        expect(first.code).toBe(0);
        expect((await users(databaseUrl, ["import", file])).out).toContain(
          "2 entries read: 0 added, 0 changed, 2 as before.\nNo waiting request",
        );
      },
    );
    await withFile(`principal,email\n${JANE},new@example.com\n`, async (file) => {
      expect((await users(databaseUrl, ["import", file])).out).toContain("0 added, 1 changed, 0 as before");
    });
    // An address once on a request stays.
    const { rows } = await pool.query("select s3_key, email from restore_requests order by s3_key");
    expect(rows).toEqual([
      { s3_key: "a.bin", email: "jane@example.com" },
      { s3_key: "b.bin", email: "readers@example.com" },
    ]);
    expect((await users(databaseUrl, ["list"])).out).toBe(
      `new@example.com\t${JANE}\nreaders@example.com\t${ROLE}/AWSReservedSSO_Reader_*\n`,
    );
    await thaw.stop();
  });

  test("a file with mistakes changes nothing, and every mistake is named with its line", async ({
    databaseUrl,
    pool,
  }) => {
    const text = `access_key_id,email\n${JANE},jane@example.com\nAKIA BAD,bob@example.com\n${JANE},other@example.com\nAKIAGOOD000000000001,no address\narn:aws:sts::1:*:x,a@example.com\n,a@example.com\n`;
    await withFile(text, async (file) => {
      const { code, out } = await users(databaseUrl, ["import", file]);
      expect(code).toBe(1);
      for (const problem of [
        "line 3: 'AKIA BAD': neither an access key id (letters, digits, - and _) nor an ARN",
        `line 4: ${JANE} appears twice, with different addresses`,
        "line 5: 'no address' is not an email address",
        "line 6: 'arn:aws:sts::1:*:x': a * may stand at the end only",
        "line 7: the access key id or principal is missing",
      ]) {
        expect(out).toContain(problem);
      }
    });
    expect((await pool.query("select from aws_key_user_map")).rowCount).toBe(0);
    await withFile("key;mail\n", async (file) => {
      expect((await users(databaseUrl, ["import", file])).out).toContain(
        "the first line must name the columns: access_key_id,email",
      );
    });
    expect(await users(databaseUrl, ["import", "/nowhere/keys.csv"])).toMatchObject({ code: 1 });
  });

  test("check tells to whom a key or an ARN leads, and why", async ({ databaseUrl, pool }) => {
    const thaw = await startThaw(databaseUrl, { worker: false });
    await thaw.post("/restore/request", requestBody("a.bin"));
    const env = { SESSION_EMAIL_DOMAINS: "example.com" };
    expect((await users(databaseUrl, ["check", JANE], env)).out).toBe(
      `${JANE} leads to nobody: its reads are restored, and nobody is told. Add it: npm run users -- import FILE\n1 open request is by it, 1 of them without an address.\n`,
    );
    await know(pool, JANE);
    expect((await users(databaseUrl, ["check", JANE], env)).out).toContain(
      `${JANE} leads to jane@example.com: by its access key.`,
    );
    expect((await users(databaseUrl, ["check", SSO], env)).out).toContain(
      "by its session name (SESSION_EMAIL_DOMAINS)",
    );
    await thaw.stop();
  });

  test("says how it is used", async ({ databaseUrl }) => {
    for (const args of [[], ["list", "x"], ["import"], ["delete", "x"]]) {
      const { code, out } = await users(databaseUrl, args);
      expect(code).toBe(1);
      expect(out).toContain("npm run users -- import FILE");
    }
  });
});
