/** What the environment may say, and how all that is wrong with it is told at once. */
import { describe, expect, test } from "vitest";

import { ConfigError, notifyWaits, readConfig, type Role } from "../server/config.ts";

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
    const isSecret = /SECRET|KEY|DATABASE_URL/.test(name);
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
      server: { RESTORE_SECRET: [SECRET], HOST: "127.0.0.1", PORT: 3000 },
      worker: {
        RESEND_API_KEY: "re_123456789",
        MAIL_FROM: "Thaw <thaw@example.com>",
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
      AWS_ENDPOINT_URL_S3: "here",
      S3_FORCE_PATH_STYLE: "yes",
      RESTORE_DAYS: "0",
      RESTORE_TIER: "Fast",
      POLL_AFTER_HOURS: "-1",
      RETENTION_DAYS: "29",
      WORKER_CONCURRENCY: "1.5",
      S3_CONCURRENCY: "0x10",
    };

    expect(problemsOf({ ...MINIMAL, ...wrong }).toSorted()).toEqual(Object.keys(wrong).toSorted());
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
    expect(notifyWaits(readConfig(waits("10", "10"), ALL))).toEqual(["10 seconds", "10 seconds"]);
  });
});
