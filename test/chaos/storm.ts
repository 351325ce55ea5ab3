/**
 * Real servers, real workers and a real Postgres, killed, paused and stopped while people read their files; S3 and
 * Resend at their worst. Then the weather clears, and what is left is evidence for the auditor.
 */
import { randomUUID } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { createPool } from "../../server/postgres/pool.ts";
import { freePort } from "../../server/postgres/embedded/start.ts";
import { createLog } from "../../server/log.ts";
import { migrate } from "../../server/postgres/migrate.ts";
import { PrivatePostgres } from "../support/private_postgres.ts";
import { seededRandom } from "../stand_ins/random.ts";
import { startResendStandIn } from "../stand_ins/resend.ts";
import { startS3StandIn, type S3Event } from "../stand_ins/s3.ts";
import { settingsFor } from "../support/thaw.ts";
import { ROOT } from "../support/root.ts";
import { waitFor } from "../support/wait_for.ts";
import { strike } from "./blows.ts";
import { createCallers, type Read } from "./callers.ts";
import { isOver, rowsOf, type Evidence } from "./evidence.ts";
import { objectOf, putObjects, type StormObject } from "./objects.ts";
import { Supervised } from "./supervised.ts";
import { kindOf, planBlows, WORST, type Weather } from "./weather.ts";

export interface StormOptions {
  seed: number;
  reads: number;
  people: number;
  objects: number;
  /** Another weather than the worst. */
  weather?: Weather;
  /** How long the storm lasts; what is left is given time afterwards. */
  seconds: number;
  /** Whose sources run; the checkout's unless told. */
  root?: string;
}

/** Each takes a second: in a storm no lease lasts a minute, nor may S3 have a quarter of an hour. */
const QUICK_TIMES = `
  create or replace function retry_delay(p_attempts integer) returns interval language sql immutable as
    $$ select least(interval '4 seconds', interval '1 second' * p_attempts) $$;
  create or replace function busy_delay(p_attempts integer) returns interval language sql immutable as $$ select retry_delay(p_attempts) $$;
  create or replace function lost_grace() returns interval language sql immutable as $$ select interval '3 seconds' $$;
  create or replace function reconnect_grace() returns interval language sql immutable as $$ select interval '6 seconds' $$;`;

const INTERRUPTS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** What is due after the storm comes within this, or it is stuck. */
const PATIENCE_MS = 120_000;

export async function runStorm(
  options: StormOptions,
  say: (line: string) => void = () => {},
): Promise<Evidence> {
  const weather = options.weather ?? WORST;
  const random = seededRandom(options.seed);
  const postgres = await PrivatePostgres.start(join(tmpdir(), `thaw-chaos-${randomUUID()}`));
  const resend = await startResendStandIn({ seed: options.seed });
  const deliveries = new Set<Promise<void>>();
  const later = (ms: number, deliver: () => Promise<void>): void => {
    const delivery = sleep(ms).then(deliver);
    deliveries.add(delivery);
    void delivery.finally(() => deliveries.delete(delivery));
  };
  const s3 = await startS3StandIn({
    seed: options.seed,
    restore_ms: () => 500 + random() * 4_000,
    onEvent: (event) => onEvent(event),
  });

  const objects = putObjects(s3, options.objects, random);
  const people = new Map<string, string>();
  const keys = Array.from(
    { length: Math.ceil(options.people * 1.3) },
    (_, index) => `AKIASTORM${String(index).padStart(6, "0")}`,
  );
  // More keys than people: some have two. One in twenty is nobody's.
  for (const [index, key] of keys.entries()) {
    if (index % 20 !== 7) people.set(key, `person${index % options.people}@example.com`);
  }

  const pool = createPool(postgres.url, { name: "chaos", max: 5, query_timeout_ms: 0 }, createLog("silent"));
  const root = options.root ?? ROOT;
  await migrate(pool, join(root, "sql"));
  await pool.query(QUICK_TIMES);
  // Everybody exceeds it; somebody approves whatever waits.
  await pool.query("insert into limits (scope, per, max_objects) values ('person', 'month', 1)");
  const early = [...people].filter(() => random() < 0.8);
  const know = async (entries: [string, string][]): Promise<void> => {
    await pool.query("select import_users($1)", [
      JSON.stringify(entries.map(([id, email]) => ({ id, email }))),
    ]);
  };
  await know(early);

  const ports = [await freePort(0), await freePort(0)];
  const env = {
    ...settingsFor(postgres.url, s3, resend),
    NOTIFY_MAX_WAIT_SECONDS: "3",
    POLL_AFTER_HOURS: "0.001",
    LOG_LEVEL: "warn",
  };
  const processes = [
    new Supervised("worker 1", root, ["worker"], env),
    new Supervised("worker 2", root, ["worker"], env),
    ...ports.map(
      (port, index) =>
        new Supervised(`server ${index + 1}`, root, ["server"], { ...env, PORT: String(port) }),
    ),
  ];
  const callers = createCallers(
    ports.map((port) => `http://127.0.0.1:${port}`),
    random,
  );

  const cleanUp = async (): Promise<void> => {
    for (const running of processes) running.abandon();
    await pool.end();
    await s3.close();
    await resend.close();
    await postgres.remove();
  };
  // Nothing is left running by Ctrl-C.
  const interrupted = (): void => void cleanUp().finally(() => process.exit(130));
  for (const signal of INTERRUPTS) process.once(signal, interrupted);

  function onEvent(event: S3Event): void {
    const object = objectOf(event, objects);
    if (event["detail-type"] === "Object Restore Initiated") {
      // Of some files somebody says at once that they are done.
      if (object !== undefined && objects.indexOf(object) % 5 === 0)
        later(100, () => callers.completed(event));
      // S3 forgets one in thirty, once.
      if (object !== undefined && object.lost === 0 && random() < 0.03) {
        setTimeout(() => {
          if (s3.loseRestore({ bucket: object.bucket, key: object.key })) object.lost++;
        }, 200);
      }
    }
    if (event["detail-type"] !== "Object Restore Completed") return;
    if (object !== undefined) object.ready_at = Date.now();
    // Lost, delayed, told twice.
    if (random() < 0.25) return;
    later(random() * 3_000, () => callers.completed(event));
    if (random() < 0.2) later(random() * 8_000, () => callers.completed(event));
  }

  const faults = weather.s3.map((rule) => s3.fail(rule));
  for (const fault of weather.resend) resend.addFault(fault);

  // ------------------------------------------------------------------------------------ the storm
  const begun = performance.now();
  const elapsed = (): number => performance.now() - begun;
  const until_ms = options.seconds * 1000;
  const plan = weather.blows ? planBlows(random, processes.length, until_ms) : [];
  const blowing = strike(plan, { processes, postgres, elapsed, say });
  const reading = readers();
  later(until_ms / 2, () =>
    waitFor("the rest of the map", () => know([...people]).then(() => true), 60_000).then(() => undefined),
  );
  // The crontab, every two seconds instead of every five minutes; a storm does not last long enough for the real one.
  let over = false;
  const cron = (async () => {
    while (!over) {
      await pool
        .query(
          "select nudge(task) from unnest('{resolve_users,trigger_restores,pre_notify,post_notify,poll_pending_restores}'::text[]) task",
        )
        .catch(() => undefined);
      await pool
        .query("select approve_hold(id, 'on call', objects) from holds where status = 'open'")
        .catch(() => undefined);
      await sleep(2_000);
    }
  })();

  async function readers(): Promise<void> {
    const under_way: Promise<void>[] = [];
    const past: Read[] = [];
    for (let index = 0; index < options.reads; index++) {
      await sleep(Math.max(0, (index / options.reads) * until_ms * 0.9 - elapsed()));
      const repeated = random() < 0.15 ? past[Math.floor(random() * past.length)] : undefined;
      const read: Read = repeated ?? newRead(index);
      past.push(read);
      const object = objects.find((one) => one.key === read.s3_key);
      // Now and then somebody else has asked S3 already, and the event comes before the read.
      if (object?.kind === "archived" && random() < 0.03) {
        try {
          s3.beginRestore({ bucket: object.bucket, key: object.key });
          object.begun_by_others++;
        } catch {
          // It is being restored already.
        }
      }
      under_way.push(callers.read(read));
    }
    await Promise.all(under_way);
  }

  function newRead(index: number): Read {
    const object = objects[Math.floor(random() * objects.length)] as StormObject;
    return {
      s3_bucket: object.bucket,
      s3_key: object.key,
      ...(object.version_id !== undefined && { version_id: object.version_id }),
      access_key_id: keys[Math.floor(random() * keys.length)] as string,
      event_id: `event-${index}`,
      event_time: new Date().toISOString(),
    };
  }

  if (plan.length === 0) await sleep(until_ms);
  await waitFor(
    "the weather to strike",
    async () =>
      resend.requests.filter((call) => call.fault !== undefined).length >= (weather.spoiled_mail_calls ?? 0),
    PATIENCE_MS,
  );
  const blows = await blowing;
  say(`${(elapsed() / 1000).toFixed(1)} s  the storm is over`);

  // ------------------------------------------------------------------------------------ the weather clears
  const struck = faults.reduce((sum, fault) => sum + fault.struck, 0);
  s3.clearFaults();
  resend.clearFaults();
  const cleared = performance.now();
  let unfinished: string | undefined;
  try {
    await waitFor(
      "all reads to be accepted",
      async () => (await Promise.all([reading, ...deliveries]), true),
      PATIENCE_MS,
    );
    await waitFor("everything to come to its end", () => isOver(pool), PATIENCE_MS);
  } catch (error) {
    unfinished = (error as Error).message;
  }
  const recovered_ms = performance.now() - cleared;
  say(`${(elapsed() / 1000).toFixed(1)} s  ${unfinished ?? "everything has come to its end"}`);
  over = true;
  await cron;
  const ends: Record<string, number | string> = {};
  for (const running of processes.toReversed()) ends[running.name] = await running.stop();

  const evidence: Evidence = {
    accepted: callers.accepted,
    surprises: callers.surprises,
    objects,
    looks: objects.map((object) => s3.look({ bucket: object.bucket, key: object.key })),
    people,
    mails: [...resend.mails],
    mailCalls: [...resend.requests],
    rows: await rowsOf(pool),
    ends,
    blows: plan.map((blow) =>
      kindOf(
        blow,
        processes.map(({ name }) => name),
      ),
    ),
    restarts: Object.fromEntries(processes.map(({ name, restarts }) => [name, restarts])),
    unfinished,
    figures: {
      seed: options.seed,
      "seconds of storm": options.seconds,
      "reads accepted": callers.accepted.length,
      "calls it took": callers.tries,
      "processes killed": blows.kill,
      "processes paused beyond their lease": blows.pause,
      "processes terminated": blows.terminate,
      "Postgres stopped": blows["stop postgres"],
      "S3 calls spoiled": struck,
      "mail calls spoiled": resend.requests.filter((call) => call.fault !== undefined).length,
      "mails delivered": resend.mails.length,
      "repeats that Resend recognised": resend.requests.filter((call) => call.replayed).length,
      "restores S3 lost": objects.reduce((sum, object) => sum + object.lost, 0),
      "seconds until all had ended": (recovered_ms / 1000).toFixed(1),
    },
  };
  if (unfinished !== undefined)
    for (const running of processes) say(`${running.name}:\n${running.lines.slice(-15).join("\n")}`);
  for (const signal of INTERRUPTS) process.off(signal, interrupted);
  await cleanUp();
  return evidence;
}
