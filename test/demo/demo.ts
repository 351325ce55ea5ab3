/**
 * The main job on nothing but this checkout: a real Postgres, server, worker and lambda handlers; S3 and Resend
 * are stand-ins over real HTTP. `--once` ends after the ready mails, with 1 and the reason if they do not come.
 */
import { randomBytes } from "node:crypto";
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { Client } from "pg";

import { listen } from "../../server/http/listen.ts";
import { allowClosedOutput, createLog } from "../../server/log.ts";
import { createPages } from "../../server/pages/app.ts";
import { metricsRoutes } from "../../server/pages/metrics.ts";
import { PAGES_QUERY_TIMEOUT_MS } from "../../server/pages/queries.ts";
import { startEmbeddedPostgres } from "../../server/postgres/embedded/start.ts";
import { createPool } from "../../server/postgres/pool.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import type { S3Event } from "../stand_ins/s3.ts";
import { BUCKET, SECRET, startThaw, type Thaw } from "../support/thaw.ts";
import { bold, createTeller, dim, red } from "./teller.ts";

const DIRECTORY = `${import.meta.dirname}/../../.data/demo`;

/** S3 takes hours; a demo should not. */
const RESTORE_MS = 9_000;
const QUIET_SECONDS = "2";
const MAX_WAIT_SECONDS = "6";

const once = process.argv.includes("--once");

/** Several times what the story takes on a slow machine. */
const PATIENCE_MS = 90_000;

const JANE = { name: "jane", key: "AKIAJANE000000000001", email: "jane@example.com" };
const BOB = { name: "bob", key: "AKIABOB0000000000001", email: "bob@example.com" };
const CARL = { name: "carl", key: "AKIACARL000000000001", email: "carl@example.com" };
const APPROVER = { name: "ann", email: "ann@example.com" };
const STRANGER = { name: "a key nobody knows", key: "AKIAUNKNOWN000000001" };

const FILES = {
  holiday: { key: "films/2019/holiday in ČR.mov", storage_class: "GLACIER" },
  wedding: { key: "films/2021/wedding (1+2).mov", storage_class: "GLACIER" },
  scans: { key: "scans/box-07/0001.tif", storage_class: "DEEP_ARCHIVE" },
  ledger: { key: "accounts/ledger-2008.csv", storage_class: "GLACIER" },
  diary: { key: "notes/diary-1998.txt", storage_class: "GLACIER" },
  notes: { key: "notes/today.txt", storage_class: "STANDARD" },
} as const;

/** More than one person may restore in a day. */
const FILES_PER_DAY = 5;
const BURST = Array.from({ length: 8 }, (_, n) => `photos/1999/roll-0${n + 1}.tif`);
const HELD = BURST.length - FILES_PER_DAY;

/** A person who looks at the demo may decide on the pages; then it goes on by itself. */
const DECIDE_WITHIN_MS = once ? 0 : 30_000;

const { tell, say, seconds } = createTeller();

/** Stopped in the reverse order, whatever happens. */
const stops: (() => Promise<unknown>)[] = [];
let ending: Promise<never> | undefined;

function end(code: number): Promise<never> {
  ending ??= (async () => {
    for (const stop of stops.toReversed()) await stop();
    process.exit(code);
  })();
  return ending;
}
process.on("SIGINT", () => void end(once ? 130 : 0));
process.on("SIGTERM", () => void end(143));
// The terminal, or whoever reads the story, is gone: Postgres would stay.
process.on("SIGHUP", () => void end(129));
allowClosedOutput(() => void end(141));

async function main(): Promise<void> {
  mkdirSync(DIRECTORY, { recursive: true });
  // The lambdas log with console.log, as CloudWatch wants it; here that would drown the story.
  const lambdaLog = `${DIRECTORY}/lambdas.log`;
  writeFileSync(lambdaLog, "");
  console.log = (line: unknown) => appendFileSync(lambdaLog, `${String(line)}\n`);

  say(bold("Thaw, on stand-ins for S3 and Resend"));
  say(dim("Starting Postgres (the first time takes a few seconds) ..."));
  const databaseUrl = await startDatabase();
  const pages = await startPages(databaseUrl);
  const thaw = await startThaw(databaseUrl, {
    s3: { restore_ms: RESTORE_MS, onEvent: tellEvent },
    env: {
      NOTIFY_QUIET_SECONDS: QUIET_SECONDS,
      NOTIFY_MAX_WAIT_SECONDS: MAX_WAIT_SECONDS,
      LOG_LEVEL: "error",
      APPROVERS: APPROVER.email,
      PUBLIC_URL: new URL(pages.url).origin,
    },
  });
  stops.push(() => thaw.stop());
  for (const file of Object.values(FILES)) thaw.archive(file.key, file.storage_class);
  await thaw.know(JANE.key, JANE.email);
  for (const key of BURST) thaw.archive(key);
  await thaw.know(BOB.key, BOB.email);
  await thaw.know(CARL.key, CARL.email);
  await thaw.pool.query("insert into limits (scope, per, max_objects) values ('person', 'day', $1)", [
    FILES_PER_DAY,
  ]);

  say(`  ${bold("inbox")}     ${thaw.resend.inboxUrl}   ${dim("open it and watch")}`);
  say(`  server    ${thaw.url}`);
  say(
    `  S3        ${thaw.s3.url}   ${dim(`a restore takes ${RESTORE_MS / 1000} seconds here; S3 takes hours`)}`,
  );
  say(
    `  pages     ${pages.url}   ${dim(`for operators: any name, password ${pages.password}; metrics at /metrics`)}`,
  );
  say(`  logs      .data/demo/`);
  say();

  void tellMails(thaw);
  await tellStory(thaw);
  await tellSummary(thaw);
  if (once) await end(0);
  tellWhatNext(thaw, databaseUrl);
}

/** The operator's pages, on a port of their own. */
async function startPages(databaseUrl: string): Promise<{ url: string; password: string }> {
  const log = createLog("error");
  const password = randomBytes(12).toString("hex");
  const pool = createPool(
    databaseUrl,
    { name: "thaw pages", max: 5, query_timeout_ms: PAGES_QUERY_TIMEOUT_MS },
    log,
  );
  stops.push(() => pool.end());
  const app = createPages({ pool, password, log }).route("/", metricsRoutes({ pool, token: undefined, log }));
  const listening = await listen(app.fetch, { HOST: "127.0.0.1", PORT: 0 });
  stops.push(() => listening.close());
  return { url: `http://127.0.0.1:${listening.port}/ops`, password };
}

async function startDatabase(): Promise<string> {
  const postgres = await startEmbeddedPostgres({ dir: DIRECTORY });
  stops.push(() => postgres.stopUnlessUsed());
  // Each demo starts from nothing: S3's objects are new as well.
  const admin = new Client({ connectionString: postgres.url });
  await admin.connect();
  const others = await admin.query("select from pg_stat_activity where datname = 'demo' limit 1");
  if (others.rowCount !== 0) {
    await admin.end();
    throw new Error("a demo runs in this checkout already; end it first (Ctrl-C there).");
  }
  await admin.query("drop database if exists demo");
  await admin.query("create database demo");
  await admin.end();
  const url = new URL(postgres.url);
  url.pathname = "/demo";
  const pool = createPool(url.href, { name: "demo", max: 10, query_timeout_ms: 0 }, createLog("error"));
  await migrate(pool);
  await pool.end();
  return url.href;
}

async function tellStory(thaw: Thaw): Promise<void> {
  const read = async (
    who: { name: string; key: string },
    file: { key: string },
    times = 1,
  ): Promise<void> => {
    tell("reader", `${who.name} reads ${file.key}${times > 1 ? `, and tries ${times - 1} times more` : ""}`);
    let answer = "";
    for (let time = 0; time < times; time++) answer = await thaw.read(file.key, who.key);
    if (answer === "") tell("S3", "answers 200 OK");
    else {
      tell("S3", `answers 403 ${answer}, and no word more`);
      tell(
        "lambda",
        `hears of it from CloudTrail: POST /restore/request${times > 1 ? ` (${times} times)` : ""}`,
      );
    }
  };
  await read(JANE, FILES.notes);
  await read(JANE, FILES.holiday);
  await read(JANE, FILES.wedding, 6);
  await read(JANE, FILES.scans);
  await read(BOB, FILES.holiday);
  await read(STRANGER, FILES.ledger);
  tell(
    "reader",
    `${CARL.name} reads ${BURST.length} files of photos/1999/: ${FILES_PER_DAY} are allowed a day`,
  );
  for (const key of BURST) await thaw.read(key, CARL.key);

  const mailsTold = (address: string, subject: RegExp): number =>
    thaw.resend.mails.slice(0, told).filter((mail) => mail.to.includes(address) && subject.test(mail.subject))
      .length;
  await until(thaw, "the mails of what waits for approval", () =>
    Promise.resolve(mailsTold(APPROVER.email, /approval/) > 0 && mailsTold(CARL.email, /approval/) > 0),
  );
  await approve(thaw);
  await until(thaw, "the ready mails", async () => {
    const { rowCount } = await thaw.pool.query(
      "select from restore_requests where email is not null and not post_notified",
    );
    return rowCount === 0 && told === thaw.resend.mails.length;
  });
  await read(JANE, FILES.holiday);
}

/** A person decides on the page; without one, or once nobody does, the demo does as the page would. */
async function approve(thaw: Thaw): Promise<void> {
  const deadline = performance.now() + DECIDE_WITHIN_MS;
  if (!once) {
    say();
    say(
      `  Approve what waits: the link is in ${APPROVER.name}'s mail, or on the pages. Else it is approved in ${DECIDE_WITHIN_MS / 1000} s.`,
    );
    say();
  }
  const isOpen = async (): Promise<boolean> =>
    (await thaw.pool.query("select from holds where status = 'open'")).rowCount !== 0;
  while ((await isOpen()) && performance.now() < deadline) await sleep(200);
  const { rows } = await thaw.pool.query<{ did: string }>(
    "select approve_hold(id, $1, objects) as did from holds where status = 'open'",
    [APPROVER.name],
  );
  tell("Thaw", rows[0]?.did ?? "somebody has decided on the pages");
}

/** Waits, and gives the reason when it was in vain. */
async function until(thaw: Thaw, what: string, done: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await done())) {
    if (thaw.lambdaErrors.length > 0) throw thaw.lambdaErrors[0];
    if (performance.now() > deadline) {
      const { rows } = await thaw.pool.query(
        "select s3_key, restore_status, pre_notified, post_notified from restore_requests order by s3_key",
      );
      throw new Error(
        `${what} did not come within ${PATIENCE_MS / 1000} s. The requests: ${JSON.stringify(rows, null, 2)}`,
      );
    }
    await sleep(100);
  }
}

function tellEvent(event: S3Event): void {
  if (event["detail-type"] === "Object Restore Initiated") {
    tell("Thaw", `asks S3 to restore ${event.detail.object.key}`);
  } else if (event["detail-type"] === "Object Restore Completed") {
    tell("S3", `has restored ${event.detail.object.key}`);
    tell("lambda", "hears of it from EventBridge: POST /restore/completed, and Thaw asks S3");
  }
}

/** How many mails the story has told of. */
let told = 0;

async function tellMails(thaw: Thaw): Promise<void> {
  while (ending === undefined) {
    const mail = thaw.resend.mails[told];
    if (mail === undefined) await sleep(50);
    else {
      tell("mail", `to ${mail.to.join()}: ${bold(mail.subject)}`);
      told++;
    }
  }
}

async function tellSummary(thaw: Thaw): Promise<void> {
  const { rows } = await thaw.pool.query<{
    reads: string;
    requests: string;
    objects: string;
    unknown: string;
  }>(`
    select sum(read_count) as reads, count(*) as requests, count(distinct restore_id) as objects,
           count(*) filter (where email is null) as unknown from restore_requests`);
  const counts = rows[0];
  if (counts === undefined) throw new Error("unreachable");
  const subjectsTo = (email: string): string[] =>
    thaw.resend.mails.filter((mail) => mail.to.includes(email)).map((mail) => mail.subject);
  for (const { email } of [JANE, BOB]) {
    const mails = subjectsTo(email).length;
    if (mails !== 2) throw new Error(`${email} got ${mails} mails instead of 2`);
  }
  for (const { email } of [CARL, APPROVER]) {
    const mails = subjectsTo(email).filter((subject) => subject.includes("approval")).length;
    if (mails !== 1) throw new Error(`${email} got ${mails} mails of what needs approval instead of 1`);
  }
  say();
  say(bold(`The end, after ${seconds().toFixed(1)} s:`));
  say(`  ${counts.reads} failed reads became ${counts.requests} requests for ${counts.objects} files,`);
  say(`  ${thaw.s3.counts.get("RestoreObject 202") ?? 0} restores were paid for, one per file,`);
  say(
    `  ${HELD} of ${CARL.name}'s ${BURST.length} were beyond the limit of ${FILES_PER_DAY} a day: they waited until ${APPROVER.name} had approved them;`,
  );
  say(
    `  ${thaw.resend.mails.length} mails went out: of each file its reader was told once that it begins and once that it is ready;`,
  );
  say(
    `  ${counts.unknown} file was read with a key nobody knows: restored all the same, nobody to write to.`,
  );
}

function tellWhatNext(thaw: Thaw, databaseUrl: string): void {
  say();
  say(`Still serving until Ctrl-C. The mails as people see them: ${bold(thaw.resend.inboxUrl)}`);
  say("What operators see: the pages' address is above, and in another terminal");
  say(dim(`  DATABASE_URL='${databaseUrl}' npm run thaw -- status`));
  say("Tell Thaw of another failed read, as the lambda does:");
  say(
    dim(
      `  curl -s ${thaw.url}/restore/request -H 'X-Restore-Secret: ${SECRET}' -H 'content-type: application/json' \\\n` +
        `    -d '{"s3_bucket":"${BUCKET}","s3_key":"${FILES.diary.key}","access_key_id":"${BOB.key}"}'`,
    ),
  );
  say("Look at the tables:");
  say(
    dim(
      `  psql '${databaseUrl}' -c 'select s3_key, email, restore_status, pre_notified, post_notified from restore_requests'`,
    ),
  );
}

main().catch(async (error: unknown) => {
  if (ending !== undefined) return; // Stopped in the middle: what broke off is no news.
  say(red(`The demo failed: ${error instanceof Error ? error.message : String(error)}`));
  await end(1);
});
