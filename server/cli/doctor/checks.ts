import type { Pool } from "pg";

import { readConfig, type Config, type ConfigError, type Role } from "../../config.ts";
import { createPool } from "../../postgres/pool.ts";
import { CALL_TIMEOUT_MS, fail, ok, skip, within, type Finding } from "./finding.ts";
import { checkIdentityStore } from "./identity_store.ts";
import { checkFindings, checkPostgres, recentBuckets, silentBuckets, skipDatabase } from "./postgres.ts";
import { checkResend } from "./resend.ts";
import { checkBucket, type Silence } from "./bucket.ts";
import { bucketsNamed, checkAws, NAME_ONE } from "./s3.ts";
import { createLog, reasonOf } from "../../log.ts";
import { embeddedUrl } from "../../postgres/embedded/url.ts";
import { S3Clients } from "../../s3/clients.ts";

type Env = NodeJS.ProcessEnv;

/** All checks, in order of dependency. A failure skips only the checks that depend on it. */
export async function* checkUp(env: Env, names: string[]): AsyncGenerator<Finding> {
  yield checkSettings(env);

  // Started early, reported last: it runs while S3 is checked.
  const mail = checkMail(env);

  const opened = await openPool(env);
  const pool = "level" in opened ? undefined : opened;
  let has_tables = false;
  if (pool !== undefined) has_tables = yield* checkPostgres(pool);
  else yield* [opened as Finding, ...skipDatabase("Postgres cannot be asked")];

  yield* checkS3(env, names, has_tables ? pool : undefined);

  const people = await checkPeople(env);
  if (people !== undefined) yield people;

  yield await mail;

  if (pool !== undefined && has_tables) yield* checkFindings(pool);
  else yield skip("findings", "the database cannot be asked");

  // With a Postgres that hangs, end() hangs too.
  if (pool !== undefined) await within(pool.end()).catch(() => {});
}

function checkSettings(env: Env): Finding {
  try {
    readConfig(env, ["server", "worker"]);
    return ok("settings", "complete");
  } catch (error) {
    const [, ...problems] = (error as ConfigError).message.split("\n");
    return fail(
      "settings",
      problems.map((problem) => problem.trim()).join("; "),
      'Set these variables (server/README.md, "Configuration")',
    );
  }
}

/** For required settings that a check does not use, so that one bad setting does not hide the state of the others. */
const PLACEHOLDERS = { DATABASE_URL: "embedded", RESEND_API_KEY: "unused", MAIL_FROM: "unused@example.com" };

/** These settings alone; undefined if one of them cannot be used. */
function settingsOf(env: Env, names: string[], roles: Role[] = ["worker"]): Config | undefined {
  try {
    const named = Object.fromEntries(names.map((name) => [name, env[name]]));
    return readConfig({ ...PLACEHOLDERS, ...named }, roles);
  } catch {
    return undefined;
  }
}

async function openPool(env: Env): Promise<Pool | Finding> {
  let url = settingsOf(env, ["DATABASE_URL"], [])?.DATABASE_URL;
  if (url === undefined) return skip("Postgres", "DATABASE_URL cannot be used");
  if (url === "embedded") {
    // The doctor starts nothing.
    url = await embeddedUrl().catch(() => undefined);
    if (url === undefined) return fail("Postgres", "there is no embedded one yet", "Start Thaw: npm start");
  }
  return createPool(
    url,
    { name: "thaw doctor", max: 2, query_timeout_ms: CALL_TIMEOUT_MS },
    createLog("silent"),
  );
}

async function checkMail(env: Env): Promise<Finding> {
  const settings = settingsOf(env, ["RESEND_API_KEY", "RESEND_BASE_URL", "MAIL_FROM"])?.worker;
  if (settings === undefined) {
    return skip("Resend", "RESEND_API_KEY, RESEND_BASE_URL or MAIL_FROM cannot be used");
  }
  return checkResend(settings).catch((error: unknown) =>
    fail("Resend", `cannot be asked (${reasonOf(error)})`, "Check RESEND_API_KEY and RESEND_BASE_URL"),
  );
}

const PEOPLE_SETTINGS = [
  "AWS_REGION",
  "AWS_DEFAULT_REGION",
  "IDENTITY_STORE_ID",
  "IDENTITY_STORE_REGION",
  "AWS_ENDPOINT_URL_IDENTITYSTORE",
];

async function checkPeople(env: Env): Promise<Finding | undefined> {
  if (!env["IDENTITY_STORE_ID"]?.trim()) return undefined;
  const settings = settingsOf(env, PEOPLE_SETTINGS)?.worker;
  return settings === undefined
    ? skip("identity store", `${PEOPLE_SETTINGS.join(" or ")} cannot be used`)
    : checkIdentityStore(settings);
}

const S3_SETTINGS = ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "S3_FORCE_PATH_STYLE"];

async function* checkS3(env: Env, names: string[], pool: Pool | undefined): AsyncGenerator<Finding> {
  const settings = settingsOf(env, S3_SETTINGS)?.worker;
  if (settings === undefined) {
    yield skip("AWS", `${S3_SETTINGS.join(" or ")} cannot be used`);
    return;
  }
  // Thaw's own clients, so that the doctor sees what Thaw sees.
  const s3 = new S3Clients(settings);
  const may_ask = yield* checkAws(s3.clientIn(null));

  const asked = bucketsNamed(names);
  yield* asked.problems;
  let { buckets } = asked;
  // This role may not see it: then there are the findings.
  const silent =
    pool === undefined
      ? new Map<string, Silence>()
      : await silentBuckets(pool).catch(() => new Map<string, Silence>());
  if (names.length === 0 && pool !== undefined) {
    const recent = await recentBuckets(pool).catch(() => []);
    buckets = new Map([...recent, ...silent.keys()].map((bucket) => [bucket, []]));
  }
  if (buckets.size === 0 && names.length === 0) {
    const why = pool === undefined ? "the database cannot name any" : "no request named one in 90 days";
    yield skip("buckets", `${why}. ${NAME_ONE}`);
  }
  if (!may_ask) {
    for (const bucket of buckets.keys()) yield skip(`bucket ${bucket}`, "S3 cannot be asked");
    return;
  }
  // Concurrently: a bucket that does not respond takes its whole time-out.
  const looked = [...buckets].map(([bucket, keys]) => checkBucket(s3, bucket, keys, silent.get(bucket)));
  for (const findings of looked) yield* await findings;
}
