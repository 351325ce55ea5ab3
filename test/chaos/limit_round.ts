/**
 * One round against a limit: fifty people read at once, three workers restore, S3 has a bad day, and workers and Postgres are killed
 * at any moment; then somebody decides about what is held, and workers are killed again. What is wrong afterwards, a sentence each.
 */
import { setTimeout as sleep } from "node:timers/promises";

import { Client, Pool } from "pg";

import { createApp } from "../../server/http/app.ts";
import { createLog } from "../../server/log.ts";
import { seededRandom } from "../stand_ins/random.ts";
import { startResendStandIn } from "../stand_ins/resend.ts";
import { startS3StandIn, type FaultRule } from "../stand_ins/s3.ts";
import { HELD_FOR_EVER, SPENDING_IS_WRONG } from "../support/cost.ts";
import type { PrivatePostgres } from "../support/private_postgres.ts";
import { ROOT } from "../support/root.ts";
import { BUCKET, requestBody, SECRET, settingsFor } from "../support/thaw.ts";
import { waitFor } from "../support/wait_for.ts";
import { Supervised } from "./supervised.ts";

export const READS = 50;
export const LIMIT = 20;

/** A killed worker's lease and S3's refusals last seconds here. */
const QUICK_TIMES = `
  create or replace function retry_delay(p_attempts integer) returns interval language sql immutable as
    $$ select least(interval '3 seconds', interval '1 second' * p_attempts) $$;
  create or replace function busy_delay(p_attempts integer) returns interval language sql immutable as $$ select interval '1 second' $$;
  create or replace function reconnect_grace() returns interval language sql immutable as $$ select interval '1 second' $$;`;

/** Each ends by itself, so that what was admitted is accepted in the end. */
const BAD_DAY: FaultRule[] = [
  { with: "slow_down", operation: "RestoreObject", probability: 0.15, times: 8 },
  { with: "internal_error", operation: "RestoreObject", probability: 0.15, times: 8 },
  { with: "drop_after_accept", operation: "RestoreObject", probability: 0.2, times: 6 },
  { with: "reset", operation: "RestoreObject", probability: 0.1, times: 4 },
  { with: "access_denied", operation: "RestoreObject", probability: 0.2, times: 4 },
  {
    with: "error",
    status: 409,
    code: "OperationAborted",
    operation: "RestoreObject",
    probability: 0.1,
    times: 3,
  },
  { with: "slow_down", operation: "HeadObject", probability: 0.05, times: 4 },
];

const KEY = "scans/";
const BODY = "0123456789";
/** A request for one object of GLACIER by Standard; ten bytes cost nothing to speak of. */
const EACH_COSTS = 0.00005;
const SCANNER = "arn:aws:sts::123456789012:assumed-role/scanner";

/** Twenty, said in each way that there is. */
const LIMITS = [
  `('all', '*', '', 'day', ${LIMIT}, null, null)`,
  `('person', '*', '', 'month', ${LIMIT}, null, null)`,
  `('prefix', '${BUCKET}', '${KEY}', 'day', ${LIMIT}, null, null)`,
  `('all', '*', '', 'month', null, ${LIMIT * BODY.length}, null)`,
  `('person', '*', '', 'day', null, null, ${(LIMIT + 0.5) * EACH_COSTS})`,
];

const DECISIONS = ["approve", "refuse", "expire", "hold by policy", "raise the limit"] as const;

export interface RoundResult {
  wrong: string[];
  figures: Record<"kills" | "stops of Postgres" | "S3 calls spoiled" | "given back", number> & {
    decision: string;
  };
}

/** `template`: a database of that Postgres with our tables, to which nobody is connected. */
export async function playRound(
  seed: number,
  postgres: PrivatePostgres,
  template: string,
): Promise<RoundResult> {
  const random = seededRandom(seed);
  const within = (ms: number): Promise<void> => sleep(random() * ms);
  const decision = DECISIONS[seed % DECISIONS.length] ?? "approve";
  const name = `round_${seed}`;
  await onServer(postgres.url, `create database ${name} template ${template}`);
  const url = new URL(postgres.url);
  url.pathname = `/${name}`;
  const pool = new Pool({ connectionString: url.href, max: 10 });
  pool.on("error", () => undefined);

  let kills = 0;
  let stops = 0;
  let accepted = 0;
  const kill = (): void => {
    kills++;
    workers[Math.floor(random() * workers.length)]?.kill("SIGKILL");
  };
  const killed_at = new Set([Math.floor(random() * 10), 10 + Math.floor(random() * 10)]);
  const s3 = await startS3StandIn({
    seed,
    restore_ms: Infinity,
    latency_ms: 5,
    onEvent: (event) => {
      // Between S3's acceptance and our note of it.
      if (event["detail-type"] === "Object Restore Initiated" && killed_at.has(accepted++)) kill();
    },
  });
  const resend = await startResendStandIn();
  s3.createBucket(BUCKET);
  const keys = Array.from({ length: READS }, (_, n) => `${KEY}${n}`);
  for (const key of keys) s3.putObject({ bucket: BUCKET, key, storage_class: "GLACIER", body: BODY });
  const faults = BAD_DAY.map((rule) => s3.fail(rule));
  await pool.query(QUICK_TIMES);
  await pool.query(
    `insert into limits (scope, s3_bucket, key_prefix, per, max_objects, max_bytes, max_cost) values ${LIMITS[Math.floor(seed / DECISIONS.length) % LIMITS.length]}`,
  );

  const env = {
    ...settingsFor(url.href, s3, resend),
    S3_CONCURRENCY: "8",
    LOG_LEVEL: "info",
  };
  const workers = [1, 2, 3].map((n) => new Supervised(`worker ${n}`, ROOT, ["worker"], env));
  const app = createApp({
    pool,
    secrets: [SECRET],
    debounce: { quiet: "1 seconds", max_wait: "4 seconds" },
    session_domains: [],
    notReady: () => Promise.resolve(null),
    log: createLog("silent"),
  });
  const read = async (key: string, index: number): Promise<void> => {
    const body = JSON.stringify(
      requestBody(key, {
        access_key_id: `ASIA${seed}N${index}`,
        principal_arn: `${SCANNER}/session-${index}`,
      }),
    );
    await waitFor(
      `${key} to be accepted`,
      async () =>
        (
          await app.request("/restore/request", {
            method: "POST",
            headers: { "content-type": "application/json", "x-restore-secret": SECRET },
            body,
          })
        ).status === 200,
      PATIENCE_MS,
    );
  };
  const nudging = setInterval(
    () => void pool.query("select nudge('trigger_restores')").catch(() => undefined),
    500,
  );
  const stopPostgres = async (): Promise<void> => {
    stops++;
    await postgres.stop("immediate");
    await postgres.start();
  };

  try {
    await waitFor(
      "the workers",
      async () => workers.every(({ lines }) => lines.some((line) => line.includes("worker ready"))),
      PATIENCE_MS,
    );
    const reading = Promise.all(keys.map(read));
    const blows = (async () => {
      for (let blow = 0; blow < 2; blow++) {
        await within(600);
        kill();
      }
      if (seed % 4 === 0) await stopPostgres();
      if (decision === "hold by policy")
        await pool.query("insert into policies (s3_bucket, key_prefix, action) values ($1, $2, 'hold')", [
          BUCKET,
          `${KEY}1`,
        ]);
      if (decision === "raise the limit")
        await pool.query(
          "update limits set max_objects = max_objects + 5, max_bytes = max_bytes + 50, max_cost = max_cost + $1",
          [5 * EACH_COSTS],
        );
    })();
    await Promise.all([reading, blows]);
    await waitFor("all to be pending or held", () => isQuiet(pool), PATIENCE_MS);
    const wrong = [...(await audit("at first"))];

    if (decision === "approve" || decision === "refuse")
      await pool.query(`select ${decision}_hold(id, 'ann') from holds where status = 'open'`);
    if (decision === "expire") await pool.query("update holds set opened_at = now() - interval '73 hours'");
    if (decision !== "hold by policy" && decision !== "raise the limit") {
      await pool.query("select nudge('trigger_restores')");
      await within(800);
      kill();
      await within(300);
      kill();
      await waitFor(
        "the hold to be settled",
        async () =>
          (await isQuiet(pool)) &&
          (await pool.query("select from holds where settled_at is null")).rowCount === 0,
        PATIENCE_MS,
      );
      wrong.push(...(await audit("in the end")));
    }
    return {
      wrong,
      figures: {
        kills,
        "stops of Postgres": stops,
        "S3 calls spoiled": faults.reduce((sum, fault) => sum + fault.struck, 0),
        "given back": faults
          .filter(({ rule }) => rule.with === "access_denied" || rule.with === "error")
          .reduce((sum, fault) => sum + fault.struck, 0),
        decision,
      },
    };
  } catch (error) {
    const lines = workers.map((worker) => `${worker.name}:\n${worker.lines.slice(-10).join("\n")}`);
    throw new Error(`round ${seed}: ${(error as Error).message}\n${lines.join("\n")}`, { cause: error });
  } finally {
    clearInterval(nudging);
    for (const worker of workers) worker.abandon();
    await pool.end();
    await s3.close();
    await resend.close();
    await onServer(postgres.url, `drop database ${name} with (force)`);
  }

  async function audit(when: string): Promise<string[]> {
    const said = (what: string): string => `round ${seed}, ${when}: ${what}`;
    const looks = keys.map((key) => s3.look({ bucket: BUCKET, key })?.restores_accepted ?? 0);
    const restores = looks.reduce((sum, times) => sum + times, 0);
    const rows = (
      await pool.query(
        "select status::text, hold_id, failure_code, attempt_after = 'infinity' as is_held from restores",
      )
    ).rows;
    const count = (is: (row: (typeof rows)[number]) => boolean): number => rows.filter(is).length;
    const pending = count((row) => row.status === "pending");
    const held = count((row) => row.is_held);
    const failed = count((row) => row.status === "failed");
    const [least, most] =
      when !== "at first"
        ? decision === "approve"
          ? [READS, READS]
          : [LIMIT, LIMIT]
        : decision === "hold by policy"
          ? [0, LIMIT]
          : decision === "raise the limit"
            ? [LIMIT, LIMIT + 5]
            : [LIMIT, LIMIT];
    const wrong: string[] = [];
    if (Math.max(...looks) > 1) wrong.push(said("S3 accepted an object twice"));
    if (restores < least || restores > most)
      wrong.push(said(`S3 accepted ${restores} restores, not ${least} to ${most}`));
    if (pending !== restores) wrong.push(said(`${pending} are pending, S3 accepted ${restores}`));
    if (pending + held + failed !== READS)
      wrong.push(said(`${pending} pending, ${held} held and ${failed} failed are not ${READS}`));
    if (
      failed > 0 &&
      !(
        when === "in the end" &&
        rows.every(
          (row) =>
            row.status !== "failed" ||
            row.failure_code === (decision === "refuse" ? "not_approved" : "approval_expired"),
        )
      )
    )
      wrong.push(said(`${failed} have failed`));
    for (const row of (await pool.query(SPENDING_IS_WRONG)).rows)
      wrong.push(said(`the sums differ: ${JSON.stringify(row)}`));
    for (const row of (await pool.query(HELD_FOR_EVER)).rows) wrong.push(said(`held for ever: ${row.id}`));
    const { rows: sums } = await pool.query<{ spent: string; ledger: string; held: string }>(
      `select coalesce((select sum(objects) from spending), 0) as spent, coalesce((select sum(objects) from costs), 0) as ledger,
              coalesce((select sum(objects) from holds), 0) as held`,
    );
    if (Number(sums[0]?.spent) !== restores)
      wrong.push(said(`charged for ${sums[0]?.spent}, S3 accepted ${restores}`));
    if (Number(sums[0]?.ledger) !== restores)
      wrong.push(said(`the ledger has ${sums[0]?.ledger}, S3 accepted ${restores}`));
    if (when === "at first" && Number(sums[0]?.held) !== held)
      wrong.push(said(`the hold tells of ${sums[0]?.held}, held are ${held}`));
    return wrong;
  }
}

/** Nothing is due or claimed: each is pending, held, or has failed. */
async function isQuiet(pool: Pool): Promise<boolean> {
  const { rows } = await pool.query<{ all: number; open: number }>(
    `select count(*)::integer as all, (count(*) filter (where status = 'not_started' and attempt_after < 'infinity'))::integer as open from restores`,
  );
  return rows[0]?.all === READS && rows[0].open === 0;
}

const PATIENCE_MS = 90_000;

export async function onServer(url: string, statement: string): Promise<void> {
  const client = new Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
