/**
 * The real AWS CLI, from its command to the mail: what it sends to our S3, as CloudTrail records it, through the zip that is deployed
 * to a real server and worker.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";

import { unzipSync } from "fflate";
import { afterAll, beforeAll, describe, expect } from "vitest";

import { buildLambdas } from "../../lambdas/build.ts";
import type { S3Event } from "../stand_ins/s3.ts";
import {
  MISSING_CLIENTS,
  realClients,
  runClient,
  type Ended,
  type RealClient,
} from "../stand_ins/real_clients.ts";
import { test as base, waitFor } from "../support/database.ts";
import { one, query } from "../support/rows.ts";
import { BUCKET, SECRET, startThaw, type Thaw } from "../support/thaw.ts";

const AWS = await realClients("aws");
const NEW = AWS.filter(({ name }) => !name.startsWith("aws-cli/1."));
const OLD = AWS.filter(({ name }) => name.startsWith("aws-cli/1."));

/** A start of Python and its libraries takes seconds on a busy machine. */
const SLOW = { timeout: 120_000 };
const MAIL_WITHIN_MS = 30_000;
/** Whose key runClient takes. */
const READER = "AKIAREADER";

const RUN = `
  const { handler } = await import(process.argv[1]);
  const { text } = await import("node:stream/consumers");
  await handler(JSON.parse(await text(process.stdin)), { getRemainingTimeInMillis: () => 30_000 });
`;

let bundle = "";
beforeAll(async () => {
  bundle = await mkdtemp(join(tmpdir(), "thaw-looked-"));
  await buildLambdas(bundle);
  for (const [file, bytes] of Object.entries(
    unzipSync(readFileSync(join(bundle, "restore_requested.zip"))),
  )) {
    await writeFile(join(bundle, file), bytes);
  }
});
afterAll(() => rm(bundle, { recursive: true }));

interface Fixtures {
  thaw: Thaw;
  /** What CloudTrail has recorded, in order. */
  events: S3Event[];
  /** Where the CLI puts files. */
  folder: string;
  cli: (client: RealClient, ...args: string[]) => Promise<Ended>;
  /** Hands all that CloudTrail has recorded so far to the function; returns how each ended. */
  deliver: () => Promise<string[]>;
}

const test = base.extend<Fixtures>({
  // oxlint-disable-next-line no-empty-pattern
  events: async ({}, use) => use([]),
  // oxlint-disable-next-line no-empty-pattern
  folder: async ({}, use) => {
    const folder = await mkdtemp(join(tmpdir(), "thaw-cli-"));
    await use(folder);
    await rm(folder, { recursive: true });
  },
  thaw: async ({ databaseUrl, events }, use) => {
    const thaw = await startThaw(databaseUrl, {
      events: false,
      s3: {
        restore_ms: Infinity,
        records_heads: true,
        onEvent: (event) => {
          if (event["detail-type"] === "AWS API Call via CloudTrail") events.push(event);
        },
      },
    });
    await thaw.know(READER, "jane@example.com");
    await use(thaw);
    await thaw.stop();
    expect(thaw.lambdaErrors).toEqual([]);
  },
  cli: async ({ thaw, folder }, use) =>
    use((client, ...args) => runClient(client, ["--endpoint-url", thaw.s3.url, ...args], { cwd: folder })),
  deliver: async ({ thaw, events }, use) =>
    use(async () => {
      const outcomes: string[] = [];
      for (const event of events.splice(0)) outcomes.push(await invoke(thaw, event));
      return outcomes;
    }),
});

/** As Lambda runs it: alone, in a process of its own. */
async function invoke({ url }: Thaw, event: S3Event): Promise<string> {
  const child = spawn(
    process.execPath,
    ["--input-type=module", "--eval", RUN, join(bundle, "restore_requested.mjs")],
    { cwd: bundle, env: { THAW_URL: url, RESTORE_SECRET: SECRET } },
  );
  child.stdin.end(JSON.stringify(event));
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close"),
  ]);
  expect([code, stderr]).toEqual([0, ""]);
  return String((JSON.parse(stdout) as { outcome: unknown }).outcome);
}

const decided = ({ pool }: Thaw): Promise<unknown> =>
  waitFor(
    "every look to be decided",
    async () => (await query(pool, "select from looks")).length === 0,
    30_000,
  );

/** How many rows each table has, without those that any Thaw has. */
async function traces({ pool }: Thaw): Promise<Record<string, number>> {
  const tables = await query<{ name: string }>(
    pool,
    `select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
        and relname not in ('workers', 'task_runs', 'thaw_migrations', 'prices', 'aws_key_user_map') order by 1`,
  );
  const counts: Record<string, number> = {};
  for (const { name } of tables) counts[name] = (await query(pool, `select from ${name}`)).length;
  return counts;
}

const isTold = (thaw: Thaw): Promise<unknown> =>
  waitFor("the mail", async () => thaw.resend.mails.length > 0, MAIL_WITHIN_MS);

for (const missing of MISSING_CLIENTS.filter((text) => text.includes("aws"))) test.skip(missing);
if (AWS.length > 0 && NEW.length === 0) test.skip("No aws of version 2 here: apt install awscli.");

describe.each(NEW)("$name", (aws) => {
  test.for(["cp", "mv"])(
    "s3 %s of an archived file: it gives up, and its reader is told that the file is being restored",
    SLOW,
    async (command, { thaw, cli, events, deliver }) => {
      thaw.archive("a b+c%25/film.mov");
      const ended = await cli(aws, "s3", command, `s3://${BUCKET}/a b+c%25/film.mov`, ".");
      expect(ended).toMatchObject({ status: 2 });
      expect(ended.stderr).toContain("Object is of storage class GLACIER");
      expect(events.map(({ detail }) => "eventName" in detail && detail.eventName)).toEqual(["HeadObject"]);
      expect(events[0]?.detail).toMatchObject({
        userAgent: expect.stringMatching(new RegExp(`^\\[aws-cli/2\\..*command[#/]s3\\.${command}\\]$`)),
        requestParameters: { bucketName: BUCKET, key: "a b+c%25/film.mov" },
      });

      expect(await deliver()).toEqual(["sent"]);
      await isTold(thaw);
      expect(thaw.resend.mails).toMatchObject([{ to: ["jane@example.com"] }]);
      expect(JSON.stringify(thaw.resend.mails)).toContain("film.mov");
      expect(await one(thaw.pool, "select status::text, s3_key from restores")).toEqual({
        status: "pending",
        s3_key: "a b+c%25/film.mov",
      });
      expect(thaw.s3.look({ bucket: BUCKET, key: "a b+c%25/film.mov" })?.restores_accepted).toBe(1);

      // Thaw's own HEADs are in the trail, too.
      expect(events.length).toBeGreaterThanOrEqual(2);
      expect(new Set(await deliver())).toEqual(new Set(["ignored"]));
    },
  );

  test(
    "of a readable file: it has the file, and nothing stays in any table",
    SLOW,
    async ({ thaw, cli, folder, deliver }) => {
      thaw.archive("warm.mov", "STANDARD");
      thaw.archive("copy.mov");
      thaw.s3.beginRestore({ bucket: BUCKET, key: "copy.mov" }, { days: 3 });
      thaw.s3.finishRestore({ bucket: BUCKET, key: "copy.mov" });
      const before = await traces(thaw);
      for (const key of ["warm.mov", "copy.mov"])
        expect(await cli(aws, "s3", "cp", `s3://${BUCKET}/${key}`, ".")).toMatchObject({ status: 0 });
      expect((await readdir(folder)).toSorted()).toEqual(["copy.mov", "warm.mov"]);
      expect(await deliver()).toEqual(["sent", "sent"]);
      await decided(thaw);
      expect(thaw.s3.counts.get("HeadObject 200")).toBe(4);
      expect(await traces(thaw)).toEqual(before);
    },
  );

  test.for([
    { args: ["-"], title: "to stdout" },
    { args: [".", "--force-glacier-transfer"], title: "--force-glacier-transfer" },
  ])(
    "s3 cp $title looks and reads: one request, one mail",
    SLOW,
    async ({ args }, { thaw, cli, deliver }) => {
      thaw.archive("film.mov");
      expect(await cli(aws, "s3", "cp", `s3://${BUCKET}/film.mov`, ...args)).toMatchObject({ status: 1 });
      expect(await deliver()).toEqual(["sent", "sent"]);
      await decided(thaw);
      await isTold(thaw);
      thaw.s3.finishRestore({ bucket: BUCKET, key: "film.mov" });
      await thaw.post("/restore/completed", { s3_bucket: BUCKET, s3_key: "film.mov" });
      await waitFor("the ready mail", async () => thaw.resend.mails.length > 1, MAIL_WITHIN_MS);
      expect(thaw.resend.mails).toHaveLength(2);
      expect(await one(thaw.pool, "select read_count from restore_requests")).toEqual({ read_count: 2 });
    },
  );

  test("s3 cp --dryrun looks like s3 cp, and is restored", SLOW, async ({ thaw, cli, deliver }) => {
    thaw.archive("film.mov");
    await cli(aws, "s3", "cp", `s3://${BUCKET}/film.mov`, ".", "--dryrun");
    expect(await deliver()).toEqual(["sent"]);
    await isTold(thaw);
  });

  test(
    "s3 cp --recursive, mv --recursive and sync look at no file: nothing happens",
    SLOW,
    async ({ thaw, cli, events }) => {
      thaw.archive("films/a.mov");
      const before = await traces(thaw);
      for (const args of [["cp", "--recursive"], ["mv", "--recursive"], ["sync"]]) {
        const [command = "", ...more] = args;
        await cli(aws, "s3", command, `s3://${BUCKET}/films/`, ".", ...more);
      }
      expect(thaw.s3.requests.map(({ operation }) => operation)).toEqual(Array(3).fill("ListObjectsV2"));
      expect(events).toEqual([]);
      expect(await traces(thaw)).toEqual(before);
    },
  );
});

describe.each(OLD)("$name", (aws) => {
  test(
    "says in no event which command it runs, so its s3 cp stays unseen",
    SLOW,
    async ({ thaw, cli, events, deliver }) => {
      thaw.archive("film.mov");
      expect(await cli(aws, "s3", "cp", `s3://${BUCKET}/film.mov`, ".")).toMatchObject({ status: 2 });
      expect(events).toHaveLength(1);
      expect(await deliver()).toEqual(["ignored"]);
    },
  );
});
