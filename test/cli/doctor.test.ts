/** `npm run doctor`: the silences that are no errors, one line each, and what to do about it. */
import { execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";

import { Client } from "pg";
import { describe, expect } from "vitest";

import { checkPostgres } from "../../server/cli/doctor/postgres.ts";
import { checkResend } from "../../server/cli/doctor/resend.ts";
import { newPool, test as base, waitFor } from "../support/database.ts";
import { baseEnv } from "../support/fast_run.ts";
import { ROOT } from "../support/root.ts";
import { ago, insertRead, insertRestore, insertRequest, know } from "../support/rows.ts";
import { test as roleTest } from "../support/roles.ts";
import { runCommand } from "../support/run_command.ts";
import { startIdentityStoreStandIn } from "../stand_ins/identity_store.ts";
import { startResendStandIn, type ResendStandIn } from "../stand_ins/resend.ts";
import { startS3StandIn, type S3StandIn } from "../stand_ins/s3.ts";
import { BUCKET, JANE, SECRET, settingsFor } from "../support/thaw.ts";

const EVENTS = { notifications: "<EventBridgeConfiguration></EventBridgeConfiguration>" };
const AWS_SECRET = "an-aws-secret-that-nobody-may-see";

/** Whatever this machine is and knows, these tests do not ask it. */
const NO_AWS = {
  AWS_EC2_METADATA_DISABLED: "true",
  AWS_CONFIG_FILE: "/dev/null",
  AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
};

interface Report {
  code: number;
  output: string;
  /** The line about something, mark and all; "" if there is none. */
  line: (what: string) => string;
}

type Settings = Record<string, string | undefined>;

interface World {
  s3: S3StandIn;
  settings: Settings;
  doctor(names?: string[], change?: Settings): Promise<Report>;
}

const test = base.extend<{ world: World; resend: ResendStandIn; silence: { port: number } }>({
  // oxlint-disable-next-line no-empty-pattern
  resend: async ({}, use) => {
    const resend = await startResendStandIn();
    await use(resend);
    await resend.close();
  },
  world: async ({ databaseUrl, resend }, use) => {
    const s3 = await startS3StandIn({ restore_ms: Infinity });
    s3.createBucket(BUCKET, EVENTS);
    const settings = {
      ...settingsFor(databaseUrl, s3, resend),
      AWS_SECRET_ACCESS_KEY: AWS_SECRET,
      ...NO_AWS,
    };
    await use({
      s3,
      settings,
      doctor: (names = [], change = {}) => runDoctor(names, { ...settings, ...change }),
    });
    await s3.close();
  },
  /** Takes connections and never says a word. */
  // oxlint-disable-next-line no-empty-pattern
  silence: async ({}, use) => {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => sockets.add(socket.on("error", () => {})));
    await once(server.listen(0, "127.0.0.1"), "listening");
    await use({ port: (server.address() as AddressInfo).port });
    for (const socket of sockets) socket.destroy();
    server.close();
  },
});

async function runDoctor(names: string[], env: Settings): Promise<Report> {
  const { code, output } = await runCommand(["server/cli/doctor/doctor.ts", ...names], env);
  for (const secret of [SECRET, AWS_SECRET, env["RESEND_API_KEY"], passwordOf(env["DATABASE_URL"])]) {
    if (secret) expect(output).not.toContain(secret);
  }
  const lines = output.split("\n");
  return { code, output, line: (what) => lines.find((line) => line.slice(6).startsWith(`${what}: `)) ?? "" };
}

const passwordOf = (url = ""): string => URL.parse(url)?.password ?? "";

/** The lines that are neither ok nor skipped. */
const complaints = (report: Report): string[] =>
  report.output.split("\n").filter((line) => /^(warn|FAIL)/.test(line));

describe("the identity store", () => {
  test("is asked for nobody, and has a line only where there is one", async ({ world }) => {
    const store = await startIdentityStoreStandIn();
    try {
      const env = {
        IDENTITY_STORE_ID: store.id,
        IDENTITY_STORE_REGION: "eu-west-1",
        AWS_ENDPOINT_URL_IDENTITYSTORE: store.url,
      };
      const line = async (change: Settings): Promise<string> =>
        (await world.doctor([], change)).line("identity store");
      expect(await line({})).toBe("");
      expect(await line(env)).toBe("ok    identity store: d-1234567890 in eu-west-1 may be asked");
      expect(store.calls.map(({ operation }) => operation)).toEqual(["DescribeUser", "GetUserId"]);
      expect(await line({ ...env, IDENTITY_STORE_ID: "d-0000000000" })).toMatch(
        /^FAIL .*d-0000000000 is not in eu-west-1/,
      );
      expect(await line({ ...env, IDENTITY_STORE_ID: "mine" })).toMatch(/skipped: .*cannot be used/);
      store.fault = "denied";
      expect(await line(env)).toMatch(/^FAIL .*may not ask d-1234567890/);
    } finally {
      await store.close();
    }
  });
});

describe("a healthy Thaw", () => {
  test("has a line per check, all ok, and 0", async ({ world, resend, pool }) => {
    const { s3, settings } = world;
    s3.putObject({ bucket: BUCKET, key: "films/old.mov", storage_class: "GLACIER" });
    s3.putObject({ bucket: BUCKET, key: "films/new.mov" });
    resend.account.access = "full";
    await know(pool, JANE);
    const worker = execFile(process.execPath, [join(ROOT, "server", "main.ts"), "worker"], {
      env: { ...baseEnv(), ...settings, LOG_LEVEL: "info" },
    });
    try {
      let log = "";
      worker.stdout?.on("data", (chunk) => (log += String(chunk)));
      await waitFor("the worker", async () => log.includes("worker ready"), 20_000);

      const report = await world.doctor([`${BUCKET}/films/old.mov`, `s3://${BUCKET}/films/new.mov`]);

      expect(complaints(report)).toEqual([]);
      expect(report.code).toBe(0);
      expect(report.output.replaceAll(/version [\d.]+.*/g, "version N")).toBe(`\
ok    settings: complete
ok    Postgres: answers, version N
ok    clock: agrees with Postgres'
ok    database: migrated, and current
ok    role: thaw, who owns the tables and sees all of them
ok    schema public: nobody else may create there
ok    worker: 1 alive, and no job is overdue
ok    people: 1 access key and 0 principals in the map
ok    readers: all of the last 7 days are known
ok    mail gate: open
ok    stuck requests: none
ok    AWS region: us-east-1
ok    AWS credentials: found
ok    bucket archive: exists, in us-east-1
ok    bucket archive, listing: allowed
ok    bucket archive, a missing file: is 404
ok    bucket archive, events: go to EventBridge
ok    file archive/films/old.mov: GLACIER, archived
-     file archive/films/old.mov, restoring: skipped: s3:RestoreObject cannot be checked without cost on this class. Name a file beside it that is not archived
ok    file archive/films/new.mov: STANDARD, readable
ok    file archive/films/new.mov, restoring: allowed (S3 refuses it for the file's class only)
ok    Resend: knows the key, and example.com is verified
ok    findings: nothing needs you

Nothing is wrong here.
`);
      // Only the file that needs none was asked for, and nothing was begun.
      expect(s3.requests.filter(({ operation }) => operation === "RestoreObject")).toMatchObject([
        { key: "films/new.mov", status: 403 },
      ]);
    } finally {
      worker.kill("SIGKILL");
      if (worker.exitCode === null && worker.signalCode === null) await once(worker, "exit");
    }
  });
});

describe("settings", () => {
  test("are all told at once, and do not keep the rest from being checked", async ({ world }) => {
    const { code, line } = await world.doctor([BUCKET], { RESTORE_SECRET: "short", MAIL_FROM: undefined });

    expect(line("settings")).toMatch(/^FAIL .*RESTORE_SECRET: .*; MAIL_FROM: .*README/);
    expect(line("database")).toMatch(/^ok/);
    expect(line("bucket archive")).toMatch(/^ok/);
    expect(line("Resend")).toMatch(/^- .*skipped: .*MAIL_FROM/);
    expect(code).toBe(1);
  });
});

describe("Postgres", () => {
  test("that is away is a failure, and the rest goes on", async ({ world, databaseUrl }) => {
    const url = new URL(databaseUrl);
    url.port = "1";
    const { code, line } = await world.doctor([], { DATABASE_URL: url.href });

    expect(line("Postgres")).toMatch(/^FAIL .*ECONNREFUSED.*DATABASE_URL/);
    expect(line("database")).toMatch(/^- .*skipped: Postgres/);
    expect(line("stuck requests")).toMatch(/^- .*skipped: Postgres/);
    expect(line("buckets")).toMatch(/^- .*npm run doctor -- my-bucket/);
    expect(line("AWS credentials")).toMatch(/^ok/);
    expect(line("Resend")).toMatch(/^ok/);
    expect(code).toBe(1);
  });

  test("too old, with another clock and not migrated says so", async ({ databaseUrl, pool }) => {
    // An own schema, searched first, has another version and another time. The doctor's own connections search ours alone.
    await pool.query(`create schema strange;
      create function strange.current_setting(text) returns text language sql
        as $$ select case $1 when 'server_version' then '13.22' else '130022' end $$;
      create function strange.clock_timestamp() returns timestamptz language sql as $$ select now() + interval '2 minutes' $$;
      create function strange.applied_sql_files() returns table (name text, sha256 text) language sql as $$ select 'x', 'x' $$;
      do $$ begin execute format('alter database %I set search_path = strange, pg_catalog, public', current_database()); end $$`);
    const own = newPool(databaseUrl);
    const lines: string[] = [];
    for await (const { level, what, found, todo } of checkPostgres(own))
      lines.push(`${level} ${what}: ${found}. ${todo}`);
    await own.end();
    const line = (what: string): string => lines.find((text) => text.includes(` ${what}: `)) ?? "";

    expect(line("Postgres")).toMatch(/^FAIL .*13\.22.*14 or newer/);
    expect(line("clock")).toMatch(/^warn .*1(19|20|21) s ahead of this machine's.*NTP/);
    expect(line("database")).toMatch(/^FAIL .*lacks sql\/0001_tables\.sql.*npm run migrate/);
    expect(line("mail gate")).toMatch(/^skip .*skipped: .*not migrated/);
  });
});

describe("the tables", () => {
  test("fail for a missing worker; warn of an empty map, unknown readers, stuck requests and findings", async ({
    world,
    pool,
  }) => {
    world.s3.createBucket("films", EVENTS);
    const restore = await insertRestore(pool, "not_started", {
      s3_bucket: "films",
      attempt_after: ago("1 hours"),
    });
    await insertRequest(pool, restore, { email: null });
    await insertRead(pool, "closed", { request: { email: null, requested_at: ago("8 days") } });
    await pool.query("insert into workers (id) values ('dead')");
    await pool.query(
      "select graphile_worker.add_job('trigger_restores', run_at := now() - interval '1 hour')",
    );

    const report = await world.doctor();

    expect(report.line("worker")).toMatch(/^FAIL .*none is alive; 1 job overdue.*npm run worker/);
    expect(report.line("people")).toMatch(/^warn .*empty.*npm run users -- import/);
    expect(report.line("readers")).toMatch(
      /^warn .*1 request of the last 7 days by 1 unknown reader: .*psql/,
    );
    expect(report.line("stuck requests")).toMatch(/^warn .*: 1\. .*npm run thaw -- status/);
    // The findings come last, the worst first.
    expect(complaints(report).map((line) => line.slice(0, line.indexOf(": ")))).toEqual([
      "FAIL  worker",
      "warn  people",
      "warn  readers",
      "warn  stuck requests",
      "warn  no worker",
      "warn  stuck",
    ]);
    expect(report.line("stuck")).toMatch(/no worker has asked S3 yet \(since .* UTC\)\. Is a worker running/);
    // The buckets that were asked for lately, newest first.
    expect(report.output).toMatch(/bucket films: exists.*bucket archive: exists/s);
    expect(report.line("bucket films, restoring")).toMatch(/^- .*npm run doctor -- films\//);
    expect(report.code).toBe(1);
  });

  test("tell of a closed mail gate as a failure, and of a worker that does nothing", async ({
    world,
    pool,
    databaseUrl,
  }) => {
    await pool.query(
      "update mail_gate set closed_until = '2100-01-02 03:04Z', reason = 'the key is revoked'",
    );
    await pool.query("select graphile_worker.add_job('pre_notify', run_at := now() - interval '11 minutes')");
    const connected = new Client({ connectionString: databaseUrl });
    await connected.connect();
    await connected.query("select enter_worker('busy')");
    const { line, code } = await world.doctor([BUCKET]);
    await connected.end();

    expect(line("mail gate")).toMatch(
      /^FAIL .*2100-01-02 03:04 UTC.*the key is revoked.*npm run thaw -- gate open/,
    );
    expect(line("worker")).toMatch(/^warn .*1 alive; 1 job overdue.*worker's log/);
    expect(code).toBe(1);
  });
});

roleTest.for([
  [
    "thaw_server",
    "ok",
    /^warn .*thaw_server sees no view/,
    ["worker", "people", "readers", "mail gate", "stuck requests", "findings"],
  ],
  [
    "thaw_worker",
    "ok",
    /^warn .*thaw_worker sees no view/,
    ["worker", "people", "stuck requests", "findings"],
  ],
  [
    "thaw_reader",
    "-",
    /^ok .*thaw_reader sees the views.*people and readers are not checked, nor/,
    ["people", "readers"],
  ],
  [
    "thaw_operator",
    "ok",
    /^ok .*thaw_operator sees the views.*people and readers are not checked/,
    ["people", "readers"],
  ],
  ["thaw_migrator", "ok", /^ok .*thaw_migrator, who owns/, []],
] as const)(
  "as %s it says what that role cannot see, and calls a current database current",
  async ([role, database, expected, unseen], { migrated: roles }) => {
    // (Not by runDoctor: here a password is the name of its role.)
    const { output } = await runCommand(["server/cli/doctor/doctor.ts"], {
      DATABASE_URL: roles.urlOf(role),
      ...NO_AWS,
    });
    const line = (what: string): string =>
      output.split("\n").find((text) => text.slice(6).startsWith(`${what}: `)) ?? "";

    expect(line("database")).toMatch(new RegExp(`^${database} `));
    expect(output).not.toContain("Migrate it");
    expect(output).not.toContain("permission denied");
    expect(line("role")).toMatch(expected);
    for (const what of ["worker", "people", "readers", "mail gate", "stuck requests", "findings"])
      if (unseen.some((name) => name === what)) expect(line(what)).toMatch(/^- .*this role may not see it/);
    if (unseen.every((name) => name !== "findings")) {
      expect(line("worker")).toMatch(/^FAIL .*none is alive/);
      expect(line("no worker")).toMatch(/^warn /);
      expect(line("mail gate")).toMatch(/^ok/);
    }
  },
);

describe("the rights", () => {
  test("warn of roles that may create in schema public and are not the owner", async ({ world, pool }) => {
    const role = `stranger_${randomUUID().slice(0, 8)}`;
    await pool.query(`create role ${role} login; grant create on schema public to public`);
    const { line } = await world.doctor([BUCKET]);
    await pool.query(`drop role ${role}`);

    expect(line("schema public")).toContain(role);
    expect(line("schema public")).toMatch(/^warn .*revoke create on schema public from public, .*grant/);
  });
});

describe("AWS", () => {
  test("without credentials and region is not asked", async ({ world }) => {
    const { code, line } = await world.doctor([BUCKET], {
      AWS_REGION: undefined,
      AWS_ACCESS_KEY_ID: undefined,
    });

    expect(line("AWS region")).toMatch(/^FAIL .*AWS_REGION/);
    expect(line("AWS credentials")).toMatch(/^FAIL .*AWS_ACCESS_KEY_ID.*AWS_PROFILE/);
    expect(line("bucket archive")).toMatch(/^- .*skipped/);
    expect(line("Resend")).toMatch(/^ok/);
    expect(code).toBe(1);
    expect(world.s3.requests).toEqual([]);
  });

  test("tells of each bucket what is wrong with it", async ({ world }) => {
    const { s3 } = world;
    const denied = (bucket: string, operation: string): void =>
      void s3.fail({ with: "access_denied", bucket, operation });
    s3.createBucket("far-away", { ...EVENTS, region: "eu-west-1" });
    s3.createBucket("silent");
    s3.createBucket("talks-to-others", {
      notifications:
        "<QueueConfiguration><Id>q</Id><Queue>arn:aws:sqs:us-east-1:1:q</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration>",
    });
    s3.createBucket("told-by-queue", {
      notifications:
        "<QueueConfiguration><Id>q</Id><Queue>arn:aws:sqs:us-east-1:1:q</Queue><Event>s3:ObjectRestore:*</Event></QueueConfiguration>",
    });
    s3.createBucket("hides-events", EVENTS);
    denied("hides-events", "GetBucketNotificationConfiguration");
    s3.createBucket("no-list", EVENTS);
    for (const operation of ["HeadBucket", "ListObjectsV2", "HeadObject"]) denied("no-list", operation);
    s3.createBucket("no-head", EVENTS);
    denied("no-head", "HeadObject");
    s3.createBucket("no-restore", EVENTS);
    s3.putObject({ bucket: "no-restore", key: "a.txt", storage_class: "STANDARD_IA" });
    denied("no-restore", "RestoreObject");
    s3.createBucket("old-key", EVENTS);
    s3.fail({ bucket: "old-key", with: "error", status: 403, code: "InvalidAccessKeyId" });
    s3.createBucket("broken", EVENTS);
    s3.fail({ bucket: "broken", with: "internal_error" });
    s3.createBucket("malformed", {
      ...EVENTS,
      region: "eu-west-1",
      wrong_region: { status: 400, told_in: "body" },
    });
    s3.putObject({ bucket: "malformed", key: "a.txt", storage_class: "GLACIER" });
    s3.createBucket("web-server", EVENTS);
    s3.fail({ bucket: "web-server", with: "garbage", status: 404 });
    s3.createBucket("web-server-200", EVENTS);
    s3.fail({ bucket: "web-server-200", with: "garbage", status: 200 });
    s3.putObject({ bucket: BUCKET, key: "tape.mov", storage_class: "location-dmf-v1" });
    s3.putObject({ bucket: BUCKET, key: "copy.mov", storage_class: "GLACIER" });
    s3.beginRestore({ bucket: BUCKET, key: "copy.mov" }, { days: 3 });
    s3.finishRestore({ bucket: BUCKET, key: "copy.mov" });
    const copy = s3.look({ bucket: BUCKET, key: "copy.mov" });
    s3.putObject({
      bucket: BUCKET,
      key: "tiered.mov",
      storage_class: "INTELLIGENT_TIERING",
      archive_status: "ARCHIVE_ACCESS",
    });

    const names = ["far-away", "silent", "talks-to-others", "told-by-queue", "hides-events", "no-list"];
    names.push("no-head", "no-restore/a.txt", "old-key", "broken", "nowhere", "arn:aws:s3:::b");
    names.push("malformed/a.txt", "web-server", "web-server-200");
    const { code, line, output } = await world.doctor([
      ...names,
      ...["copy.mov", "tiered.mov", "lost.mov", "tape.mov"].map((key) => `${BUCKET}/${key}`),
    ]);

    expect(line("bucket far-away")).toMatch(/^ok .*eu-west-1/);
    expect(line("bucket far-away, events")).toMatch(/^ok/);
    expect(line("bucket malformed")).toMatch(/^ok/);
    expect(line("file malformed/a.txt")).toMatch(/^ok .*GLACIER, archived/);
    expect(line("bucket web-server")).toMatch(
      /^FAIL .*something else than S3 answers 404.*AWS_ENDPOINT_URL_S3/,
    );
    expect(line("bucket web-server-200")).toMatch(/^FAIL .*something else than S3 answers 200/);
    expect(line("file archive/tape.mov")).toMatch(
      /^warn .*location-dmf-v1, archived: Thaw does not know this class/,
    );
    expect(line("file archive/tape.mov, restoring")).toMatch(/^- .*without cost/);
    expect(line("bucket silent, events")).toMatch(
      /^FAIL .*aws s3api put-bucket-notification-configuration --bucket silent --notification-configuration '{"EventBridgeConfiguration":{}}'.*replaces.*empty now/,
    );
    expect(line("bucket talks-to-others, events")).toMatch(/^FAIL .*replaces.*add .*to the 1 entry/);
    expect(line("bucket told-by-queue, events")).toMatch(/^ok .*not by EventBridge/);
    expect(line("bucket hides-events, events")).toMatch(/^warn .*s3:GetBucketNotification is missing.*Allow/);
    expect(line("bucket no-list")).toMatch(/^ok/);
    expect(line("bucket no-list, listing")).toMatch(/^warn .*s3:ListBucket on arn:aws:s3:::no-list/);
    expect(line("bucket no-list, a missing file")).toMatch(/^- .*s3:ListBucket/);
    expect(line("bucket no-head, listing")).toMatch(/^ok/);
    expect(line("bucket no-head, a missing file")).toMatch(/^FAIL .*403.*s3:GetObject on .*no-head\/\*/);
    expect(line("file no-restore/a.txt")).toMatch(/^ok .*STANDARD_IA, readable/);
    expect(line("file no-restore/a.txt, restoring")).toMatch(/^FAIL .*s3:RestoreObject is missing.*Allow/);
    expect(line("bucket old-key")).toMatch(/^FAIL .*InvalidAccessKeyId.*Renew/);
    expect(line("bucket broken")).toMatch(/^FAIL .*500/);
    expect(line("bucket nowhere")).toMatch(/^FAIL .*does not exist.*name/);
    expect(line("bucket nowhere, all else")).toMatch(/^- .*skipped/);
    expect(line("arn:aws:s3:::b")).toMatch(/^FAIL .*no bucket's name/);
    expect(line("file archive/copy.mov")).toContain(
      `GLACIER, readable until ${copy?.expires_at?.toISOString()}`,
    );
    expect(line("file archive/copy.mov, restoring")).toMatch(/^- .*cost/);
    expect(line("file archive/tiered.mov")).toMatch(/INTELLIGENT_TIERING ARCHIVE_ACCESS, archived/);
    expect(line("file archive/tiered.mov, restoring")).toMatch(/^- .*cost/);
    expect(line("file archive/lost.mov")).toMatch(/^FAIL .*not there/);
    expect(output.match(/bucket archive: /g)).toHaveLength(1);
    expect(code).toBe(1);
    // Neither a restore nor a longer one: the copy's expiry is as before.
    expect(s3.requests.filter(({ operation }) => operation === "RestoreObject")).toMatchObject([
      { bucket: "no-restore" },
    ]);
    expect(s3.look({ bucket: BUCKET, key: "copy.mov" })).toEqual(copy);
  });

  test("names a bucket of which no event comes, and the line that turns its events on", async ({
    world,
    pool,
  }) => {
    const { s3 } = world;
    s3.createBucket("off");
    s3.createBucket("switched-on", EVENTS);
    s3.createBucket("hides", EVENTS);
    s3.fail({ with: "access_denied", bucket: "hides", operation: "GetBucketNotificationConfiguration" });
    s3.createBucket("told", EVENTS);
    for (const s3_bucket of ["off", "switched-on", "hides", "told"])
      await pool.query(
        "insert into totals (metric, labels, n, last_at) values ('completions_lost', $1, 5, now() - interval '1 hour')",
        [{ s3_bucket }],
      );
    await pool.query("insert into totals (metric, labels, n) values ('events', $1, 1)", [
      { s3_bucket: "told" },
    ]);

    // Nobody names one, and no read does: they are known by their silence.
    const { code, line } = await world.doctor();

    const turn_on =
      "aws s3api put-bucket-notification-configuration --bucket BUCKET --notification-configuration '{\"EventBridgeConfiguration\":{}}'";
    expect(line("bucket off, events")).toMatch(/^FAIL .*do not go to EventBridge.*5 restores ended/);
    expect(line("bucket off, events")).toContain(turn_on.replace("BUCKET", "off"));
    expect(line("bucket switched-on, events")).toMatch(
      /^FAIL .*do not arrive here: since .* UTC 5 restores ended.*queue.*log of restore_completed/,
    );
    expect(line("bucket switched-on, events")).not.toContain("put-bucket");
    expect(line("bucket hides, events")).toMatch(/^FAIL .*do not arrive: .*get-bucket-notification/);
    expect(line("bucket hides, events")).toContain(turn_on.replace("BUCKET", "hides"));
    expect(line("bucket told")).toBe("");
    expect(line("no events")).toMatch(
      /^warn .*Restores of the bucket [\w-]+ ended.*npm run doctor -- [\w-]+/,
    );
    expect(code).toBe(1);
  });

  test.for(["NotImplemented", "MethodNotAllowed"])(
    "a store that does not know RestoreObject (%s), as Ceph 16 does not, is called so",
    async (code, { world }) => {
      world.s3.putObject({ bucket: BUCKET, key: "new.mov" });
      world.s3.fail({ with: "error", operation: "RestoreObject", status: 501, code });
      const { line, code: exit } = await world.doctor([`${BUCKET}/new.mov`]);
      expect(line(`file ${BUCKET}/new.mov, restoring`)).toMatch(
        new RegExp(`^FAIL .*this store does not know RestoreObject \\(${code}\\): nothing can be restored`),
      );
      expect(exit).toBe(1);
    },
  );
});

describe("Resend", () => {
  test.for([
    ["knows a sending-only key", {}, "sending", /^ok knows the key.*cannot be checked.*fine/],
    ["does not know the key", { RESEND_API_KEY: "re_wrong" }, "full", /^FAIL refuses the key: 403.*api-keys/],
    ["cannot be asked with this key", { RESEND_API_KEY: "re_\nx" }, "full", /^FAIL .*characters.*api-keys/],
    [
      "knows no such domain",
      { MAIL_FROM: "thaw@mail.example.com" },
      "full",
      /^FAIL .*no domain mail\.ex.*Add/,
    ],
    ["has not verified the domain", { MAIL_FROM: "T <t@new.example>" }, "full", /^FAIL .*\(pending\).*DNS/],
    ["has the domain on its second page", { MAIL_FROM: "t@Last.example" }, "full", /^ok .*verified/],
    ["has its trial domain", { MAIL_FROM: "t@resend.dev" }, "full", /^warn .*nobody but you.*MAIL_FROM/],
    ["is away", { RESEND_BASE_URL: "http://127.0.0.1:1" }, "full", /^FAIL gives no answer.*RESEND_BASE_URL/],
  ] as const)("%s", async ([, change, access, expected], { resend }) => {
    const { account } = resend;
    account.access = access;
    account.domains.push({ name: "new.example", status: "pending" });
    for (let i = 0; i < 100; i++) account.domains.push({ name: `${i}.example`, status: "verified" });
    account.domains.push({ name: "last.example", status: "verified" });

    const settings = { RESEND_API_KEY: resend.api_key, RESEND_BASE_URL: resend.url };
    const finding = await checkResend({ MAIL_FROM: "Thaw <thaw@example.com>", ...settings, ...change });

    expect(`${finding.level} ${finding.found}. ${finding.todo}`).toMatch(expected);
    expect(resend.mails).toEqual([]);
  });
});

test("nobody's silence keeps it waiting", async ({ world, silence }) => {
  const nowhere = `http://127.0.0.1:${silence.port}`;
  const { code, line } = await world.doctor([BUCKET, "films"], {
    DATABASE_URL: `postgres://thaw:a-password-nobody-sees@127.0.0.1:${silence.port}/thaw`,
    AWS_ENDPOINT_URL_S3: nowhere,
    RESEND_BASE_URL: nowhere,
  });

  expect(line("Postgres")).toMatch(/^FAIL .*timeout/);
  expect(line("bucket archive")).toMatch(/^FAIL .*no answer within 5 s/);
  expect(line("bucket films")).toMatch(/^FAIL .*no answer within 5 s/);
  expect(line("Resend")).toMatch(/^FAIL .*no answer/);
  expect(code).toBe(1);
});

test.for([
  ["the doctor", ["server/cli/doctor/doctor.ts", BUCKET]],
  ["the users' list", ["server/cli/users.ts", "list"]],
  ["a migration", ["server/main.ts", "migrate"]],
] as const)(
  "%s ends quietly when nobody reads it to the end",
  async ([, [program, ...args]], { world, databaseUrl }) => {
    // Without one the doctor ends with 1.
    const worker = new Client({ connectionString: databaseUrl });
    await worker.connect();
    await worker.query("select enter_worker('alive')");
    const child = spawn(process.execPath, [join(ROOT, program), ...args], {
      cwd: tmpdir(),
      env: { ...baseEnv(), ...world.settings },
      stdio: ["ignore", "pipe", "pipe"],
    });
    // As `| head -0`: closed before the first line.
    child.stdout.destroy();
    const [stderr, [code, signal]] = await Promise.all([text(child.stderr), once(child, "close")]);

    await worker.end();
    expect(stderr).toBe("");
    expect([code, signal]).toEqual([0, null]);
  },
);
