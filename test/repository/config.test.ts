/** What the environment may say, and how all that is wrong with it is told at once. */
import { describe, expect, test } from "vitest";

import { ConfigError, debounceOf, readConfig, trustedSessions, type Role } from "../../server/config.ts";

const SECRET = "a-secret-of-at-least-32-characters-for-tests";
const ALL: Role[] = ["migrate", "server", "worker"];

const MINIMAL = {
  DATABASE_URL: "postgres://thaw:hunter2@db.example:5432/thaw",
  RESTORE_SECRET: SECRET,
  RESEND_API_KEY: "re_123456789",
  MAIL_FROM: "Thaw <thaw@example.com>",
};

/** The names with a problem, in the order they are told; the text is checked for what it must not say. */
function problemsOf(env: Record<string, string>, roles: Role[] = ALL): string[] {
  const error = errorOf(env, roles);
  for (const [name, value] of Object.entries(env)) {
    const isSecret = /SECRET|KEY|TOKEN|PASSWORD|DATABASE_URL/.test(name);
    for (const part of isSecret ? value.split(/[\s,]+/) : []) {
      if (part.length > 2) expect(error).not.toContain(part);
    }
  }
  return [...error.matchAll(/^ {2}(\w+): \S/gm)].map(([, name]) => name as string);
}

function errorOf(env: Record<string, string>, roles: Role[] = ALL): string {
  try {
    readConfig(env, roles);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message;
  }
  return "";
}

describe("the least that is needed", () => {
  test("gives the documented defaults", () => {
    expect(readConfig(MINIMAL, ALL)).toEqual({
      DATABASE_URL: MINIMAL.DATABASE_URL,
      LOG_LEVEL: "info",
      NOTIFY_QUIET_SECONDS: 120,
      NOTIFY_MAX_WAIT_SECONDS: 900,
      SESSION_EMAIL_DOMAINS: [],
      SESSION_ACCOUNTS: [],
      server: { RESTORE_SECRET: [SECRET], HOST: "127.0.0.1", PORT: 3000 },
      worker: {
        RESEND_API_KEY: "re_123456789",
        MAIL_FROM: "Thaw <thaw@example.com>",
        APPROVERS: [],
        S3_FORCE_PATH_STYLE: "false",
        RESTORE_DAYS: 7,
        RESTORE_TIER: "Standard",
        POLL_AFTER_HOURS: 23,
        WORKER_CONCURRENCY: 8,
        S3_CONCURRENCY: 50,
      },
    });
  });

  test("depends on the role", () => {
    expect(problemsOf({}, ["migrate"])).toEqual(["DATABASE_URL"]);
    expect(problemsOf({}, ["server"])).toEqual(["DATABASE_URL", "RESTORE_SECRET"]);
    expect(problemsOf({}, ["worker"])).toEqual(["DATABASE_URL", "RESEND_API_KEY", "MAIL_FROM"]);
    expect(problemsOf({}, ALL)).toEqual(["DATABASE_URL", "RESTORE_SECRET", "RESEND_API_KEY", "MAIL_FROM"]);
  });

  test("of pages on their own is a password and a database, which may be their own", () => {
    const OPS_PASSWORD = "correct-horse-battery";
    expect(problemsOf({}, ["pages"])).toEqual(["OPS_PASSWORD", "DATABASE_URL"]);
    const PAGES_DATABASE_URL = "postgres://thaw_operator:hunter2@db.example:5432/thaw";
    expect(readConfig({ OPS_PASSWORD, PAGES_DATABASE_URL }, ["pages"])).toMatchObject({
      DATABASE_URL: PAGES_DATABASE_URL,
      pages: { OPS_PASSWORD, PAGES_HOST: "127.0.0.1", PAGES_PORT: 3001, PAGES_DATABASE_URL },
    });
    // Beside others they are off without a password.
    expect(readConfig(MINIMAL, [...ALL, "pages"]).pages).toEqual({
      PAGES_HOST: "127.0.0.1",
      PAGES_PORT: 3001,
    });
    const wrong = {
      OPS_PASSWORD: "short",
      PAGES_PORT: "x",
      PAGES_DATABASE_URL: "mysql://db.example",
      PUBLIC_URL: "thaw.example.com",
    };
    expect(problemsOf({ ...MINIMAL, ...wrong }, [...ALL, "pages"]).toSorted()).toEqual(
      Object.keys(wrong).toSorted(),
    );
  });

  test("is not asked of a process that has another role, nor given to it", () => {
    const config = readConfig({ ...MINIMAL, PORT: "never read" }, ["worker"]);

    expect(config.server).toBeUndefined();
    expect(
      readConfig({ ...MINIMAL, RESTORE_DAYS: "never read" }, ["migrate", "server"]).worker,
    ).toBeUndefined();
  });
});

describe("a variable", () => {
  test("without content counts as absent", () => {
    const empty = { PORT: "", HOST: " ", RESTORE_TIER: "", AWS_ENDPOINT_URL_S3: "\t", MAIL_REPLY_TO: "" };

    expect(readConfig({ ...MINIMAL, ...empty }, ALL)).toEqual(readConfig(MINIMAL, ALL));
    expect(problemsOf({ ...MINIMAL, RESTORE_SECRET: "", MAIL_FROM: " " })).toEqual([
      "RESTORE_SECRET",
      "MAIL_FROM",
    ]);
  });

  test("that cannot be right is told, together with all others", () => {
    const wrong = {
      DATABASE_URL: "mysql://thaw:hunter2@db.example/thaw",
      LOG_LEVEL: "loud",
      NOTIFY_QUIET_SECONDS: "two minutes",
      NOTIFY_MAX_WAIT_SECONDS: "-1",
      RESTORE_SECRET: "too-short",
      PORT: "65536",
      RESEND_BASE_URL: "api.resend.com",
      MAIL_FROM: "Thaw",
      MAIL_REPLY_TO: "a@b, c@d",
      APPROVERS: "ann@example.com, Li <li@example.com>",
      PUBLIC_URL: "thaw.example.com",
      AWS_ENDPOINT_URL_S3: "here",
      S3_FORCE_PATH_STYLE: "yes",
      RESTORE_DAYS: "0",
      RESTORE_TIER: "Fast",
      POLL_AFTER_HOURS: "-1",
      RETENTION_DAYS: "29",
      WORKER_CONCURRENCY: "1.5",
      S3_CONCURRENCY: "0x10",
      METRICS_TOKEN: "guessed",
      SESSION_ACCOUNTS: "1234",
      IDENTITY_STORE_ID: "my-store",
      IDENTITY_STORE_REGION: "EU-WEST-1",
      AWS_ENDPOINT_URL_IDENTITYSTORE: "here",
    };

    expect(problemsOf({ ...MINIMAL, ...wrong }, [...ALL, "pages"]).toSorted()).toEqual(
      Object.keys(wrong).toSorted(),
    );
  });

  test("with a number takes whole ones in its range only", () => {
    for (const PORT of ["0", "1", "08080", "65535"]) {
      expect(readConfig({ ...MINIMAL, PORT }, ALL).server?.PORT).toBe(Number(PORT));
    }
    for (const PORT of [
      "-1",
      "65536",
      "1e3",
      "0x50",
      "3000 ",
      "+80",
      "80.0",
      "NaN",
      "9".repeat(400),
      "３０００",
    ]) {
      expect(problemsOf({ ...MINIMAL, PORT }), PORT).toEqual(["PORT"]);
    }
    expect(errorOf({ ...MINIMAL, PORT: "x" })).toContain("PORT: must be a whole number from 0 to 65535");
    expect(readConfig({ ...MINIMAL, POLL_AFTER_HOURS: "0.5" }, ALL).worker?.POLL_AFTER_HOURS).toBe(0.5);
  });

  test("with a tier names the tiers when it is unknown", () => {
    expect(readConfig({ ...MINIMAL, RESTORE_TIER: "Bulk" }, ALL).worker?.RESTORE_TIER).toBe("Bulk");
    for (const RESTORE_TIER of ["bulk", "Cheap"]) {
      expect(errorOf({ ...MINIMAL, RESTORE_TIER })).toMatch(
        /RESTORE_TIER: .*Standard.*Bulk|RESTORE_TIER: .*Bulk.*Standard/,
      );
    }
  });

  test("with an address takes it bare or with a name", () => {
    for (const MAIL_FROM of [
      "thaw@example.com",
      "Thaw <thaw@example.com>",
      "<thaw@example.com>",
      "Thaw, Inc. <t@e.x>",
    ]) {
      expect(readConfig({ ...MINIMAL, MAIL_FROM }, ALL).worker?.MAIL_FROM).toBe(MAIL_FROM);
    }
    for (const MAIL_FROM of [
      "thaw@example.com>",
      "Thaw <thaw@example.com",
      "Thaw thaw@example.com",
      "a@b@c",
      "a@b,c@d",
      "Thaw <a@b>\r\nBcc: c@d",
      "Thaw <a@b> <c@d>",
    ]) {
      expect(problemsOf({ ...MINIMAL, MAIL_FROM }), MAIL_FROM).toEqual(["MAIL_FROM"]);
    }
  });
});

describe("secrets", () => {
  const OTHER = "another-secret-0123456789-0123456789";

  test("may be several, with spaces around them", () => {
    expect(
      readConfig({ ...MINIMAL, RESTORE_SECRET: ` ${SECRET} ,\t${OTHER}\n` }, ALL).server?.RESTORE_SECRET,
    ).toEqual([SECRET, OTHER]);
  });

  test("are refused when a header could not carry them or anybody could guess one", () => {
    for (const RESTORE_SECRET of [
      "x".repeat(31),
      `${SECRET},short`,
      `${SECRET},`,
      `,${SECRET}`,
      ",",
      `${"x".repeat(20)} ${"y".repeat(20)}`,
      "é".repeat(40),
      `${"x".repeat(20)}\n${"y".repeat(20)}`,
    ]) {
      expect(problemsOf({ ...MINIMAL, RESTORE_SECRET }), JSON.stringify(RESTORE_SECRET)).toContain(
        "RESTORE_SECRET",
      );
    }
  });
});

describe("the database's URL", () => {
  test("is anything that pg can read, or embedded", () => {
    for (const DATABASE_URL of [
      "embedded",
      "postgres://localhost/thaw",
      "postgresql://thaw:p%40ss@[::1]:5432/thaw?application_name=x",
      "postgres://thaw@/thaw?host=/var/run/postgresql",
      "postgres:///thaw?host=/var/run/postgresql",
    ]) {
      expect(readConfig({ ...MINIMAL, DATABASE_URL }, ALL).DATABASE_URL).toBe(DATABASE_URL);
    }
  });

  test("never shows when it cannot be read, for it holds a password", () => {
    for (const DATABASE_URL of [
      "postgres://thaw:hun/ter2@db.example/thaw",
      "postgres://thaw:hunter2@db.example:port/thaw",
      "postgres://thaw:hunter2@db.example/thaw?sslmode=verify-full&sslrootcert=/no/such/file",
      "db.example",
    ]) {
      expect(problemsOf({ ...MINIMAL, DATABASE_URL }), DATABASE_URL).toEqual(["DATABASE_URL"]);
    }
    expect(errorOf({ ...MINIMAL, DATABASE_URL: "Embedded" })).toContain("'embedded'");
  });
});

describe("what libraries read by themselves", () => {
  const OWN_STORE = { AWS_ENDPOINT_URL_S3: "https://s3.example.com:9000" };

  test.for<[string, string[]]>([
    ["AWS_ACCESS_KEY_ID", ["AKIA\n", "AKIA 1", "\u200bAKIA", "AKIA\u00a0", "AKIA\r"]],
    ["AWS_SECRET_ACCESS_KEY", ["secret-one\n", " secret-one", "secret\ufeffone"]],
    ["AWS_SESSION_TOKEN", ["token-one\n", "token one", "\u2060token-one"]],
    ["RESEND_API_KEY", ["re_123456789\u200b", "re_123456789\n", "re_ 123456789", "re_\u202e123456789"]],
    [
      "AWS_ENDPOINT_URL_S3",
      [
        "localhost:9000",
        "ftp://s3.example.com",
        "s3.example.com",
        "http://",
        "http://a b",
        "http:///x",
        "http://s3\u200b.example.com",
        "http://s3.example.com\n",
      ],
    ],
    ["AWS_ENDPOINT_URL", ["localhost:9000", "ws://s3.example.com"]],
    ["AWS_ENDPOINT_URL_STS", ["sts"]],
    ["RESEND_BASE_URL", ["localhost:9000", "ftp://mail.example.com", "api.resend.com"]],
    [
      "AWS_REGION",
      [
        "US-EAST-1",
        "us-east-1a",
        "us east 1",
        "us-east-1 ",
        "us_east_1",
        "useast1",
        "us-east-1\u200b",
        "eu-west",
        "https://s3.eu-west-1.amazonaws.com",
      ],
    ],
    ["AWS_DEFAULT_REGION", ["US-EAST-1", "eu-central-1b"]],
    ["AWS_PROFILE", ["thaw\n", "thaw\u200b"]],
    ["AWS_ROLE_ARN", ["thaw"]],
    ["AWS_WEB_IDENTITY_TOKEN_FILE", ["/no/such/file"]],
    ["AWS_CONTAINER_CREDENTIALS_FULL_URI", ["169.254.170.2/v2"]],
    ["AWS_MAX_ATTEMPTS", ["0", "three", "-1"]],
    ["AWS_RETRY_MODE", ["legacy", "Standard"]],
    ["AWS_USE_FIPS_ENDPOINT", ["1", "yes"]],
    ["RESEND_USER_AGENT", ["a\nb"]],
    ["PGSSLMODE", ["verify_full", "allow", "on"]],
    ["PGPORT", ["postgres", "5432 "]],
  ])("%s is refused where it cannot be right", ([name, values]) => {
    const pair = {
      AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE",
      AWS_SECRET_ACCESS_KEY: "secret",
      AWS_ROLE_ARN: "arn:aws:iam::111122223333:role/thaw",
    };
    for (const value of values) {
      expect(problemsOf({ ...MINIMAL, ...pair, [name]: value }), JSON.stringify(value)).toEqual([name]);
    }
  });

  test("is told with all other problems at once", () => {
    const wrong = {
      PORT: "x",
      MAIL_FROM: "Thaw",
      AWS_REGION: "Frankfurt",
      AWS_RETRY_MODE: "never",
      AWS_SESSION_TOKEN: "a b",
      RESEND_API_KEY: "re_1\n",
      PGSSLMODE: "on",
    };
    expect(problemsOf({ ...MINIMAL, ...wrong }).toSorted()).toEqual(
      [...Object.keys(wrong), "AWS_ACCESS_KEY_ID"].toSorted(),
    );
  });

  test("is taken as real accounts and stores have it", () => {
    for (const AWS_REGION of [
      "us-east-1",
      "us-gov-west-1",
      "cn-northwest-1",
      "us-isob-east-1",
      "ap-southeast-7",
      "eusc-de-east-1",
    ]) {
      expect(readConfig({ ...MINIMAL, AWS_REGION }, ALL).worker?.AWS_REGION).toBe(AWS_REGION);
    }
    // A store of one's own calls its region what it likes.
    for (const AWS_REGION of ["RegionOne", "garage", "us-east-1", "auto", "de"]) {
      expect(readConfig({ ...MINIMAL, ...OWN_STORE, AWS_REGION }, ALL).worker).toMatchObject({
        AWS_REGION,
        ...OWN_STORE,
      });
    }
    const fine = {
      AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE",
      AWS_SECRET_ACCESS_KEY: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
      AWS_SESSION_TOKEN: "IQoJb3JpZ2luX2VjEJ///wEaCXVzLWVhc3QtMSJHMEUCIQ==",
      AWS_PROFILE: "my profile",
      AWS_ROLE_ARN: "arn:aws:iam::111122223333:role/thaw",
      AWS_WEB_IDENTITY_TOKEN_FILE: import.meta.filename,
      AWS_ENDPOINT_URL: "http://[::1]:9000/",
      AWS_USE_DUALSTACK_ENDPOINT: "true",
      PGSSLMODE: "verify-full",
      PGPORT: "5432",
    };
    expect(problemsOf({ ...MINIMAL, ...fine })).toEqual([]);
  });

  test("half a key pair is told with what is missing", () => {
    const half = (name: string) => problemsOf({ ...MINIMAL, [name]: "AKIAIOSFODNN7EXAMPLE" });

    expect(half("AWS_ACCESS_KEY_ID")).toEqual(["AWS_SECRET_ACCESS_KEY"]);
    expect(half("AWS_SECRET_ACCESS_KEY")).toEqual(["AWS_ACCESS_KEY_ID"]);
    expect(half("AWS_SESSION_TOKEN")).toEqual(["AWS_ACCESS_KEY_ID"]);
    expect(problemsOf({ ...MINIMAL, AWS_WEB_IDENTITY_TOKEN_FILE: import.meta.filename })).toEqual([
      "AWS_ROLE_ARN",
    ]);
  });

  test("the region is also found where the AWS command line finds it", () => {
    const both = { AWS_REGION: "eu-west-1", AWS_DEFAULT_REGION: "eu-central-1" };

    expect(readConfig({ ...MINIMAL, ...both }, ALL).worker?.AWS_REGION).toBe("eu-west-1");
    expect(readConfig({ ...MINIMAL, AWS_DEFAULT_REGION: "eu-central-1" }, ALL).worker?.AWS_REGION).toBe(
      "eu-central-1",
    );
  });

  test("is asked of whoever uses it", () => {
    const wrong = { AWS_REGION: "Frankfurt", RESEND_BASE_URL: "localhost:9000", PGSSLMODE: "on" };

    expect(problemsOf({ ...MINIMAL, ...wrong }, ["server"])).toEqual(["PGSSLMODE"]);
    expect(problemsOf({ ...MINIMAL, ...wrong }, ["migrate"])).toEqual(["PGSSLMODE"]);
    expect(problemsOf({ ...MINIMAL, ...wrong }, ["worker"]).toSorted()).toEqual(
      Object.keys(wrong).toSorted(),
    );
  });
});

describe("the waits of mails", () => {
  test("cannot end before they begin", () => {
    const waits = (quiet: string, most: string) => ({
      ...MINIMAL,
      NOTIFY_QUIET_SECONDS: quiet,
      NOTIFY_MAX_WAIT_SECONDS: most,
    });

    expect(problemsOf(waits("10", "9"))).toEqual(["NOTIFY_MAX_WAIT_SECONDS"]);
    expect(problemsOf(waits("10", "9"), ["migrate"])).toEqual(["NOTIFY_MAX_WAIT_SECONDS"]);
    expect(problemsOf({ ...waits("10", "9"), PORT: "x" })).toEqual(["PORT", "NOTIFY_MAX_WAIT_SECONDS"]);
    expect(debounceOf(readConfig(waits("9", "10"), ALL))).toEqual({
      quiet: "9 seconds",
      max_wait: "10 seconds",
    });
    expect(problemsOf(waits("10", "10"))).toEqual([]);
  });
});

describe("who is who", () => {
  const STORE = { IDENTITY_STORE_ID: "d-1234567890" };

  test("other accounts count for domains only, and a store has a region", () => {
    expect(problemsOf({ ...MINIMAL, SESSION_ACCOUNTS: "111122223333" })).toEqual(["SESSION_EMAIL_DOMAINS"]);
    expect(problemsOf({ ...MINIMAL, ...STORE })).toEqual(["IDENTITY_STORE_REGION"]);
    expect(errorOf({ ...MINIMAL, ...STORE, AWS_REGION: "eu-west-1" })).toBe("");
    expect(errorOf({ ...MINIMAL, ...STORE, IDENTITY_STORE_REGION: "eu-west-1" })).toBe("");
    const config = readConfig(
      { ...MINIMAL, SESSION_EMAIL_DOMAINS: "example.com", SESSION_ACCOUNTS: "111122223333, 444455556666" },
      ALL,
    );
    expect(trustedSessions(config)).toEqual(["example.com", "111122223333", "444455556666"]);
  });
});
