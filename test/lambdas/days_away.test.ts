/**
 * Days of Thaw being away, in seconds: the built functions, each in processes of their own, behind queues by a clock that
 * the test moves; the real server on a real Postgres.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect } from "vitest";

import { isObject, type JsonObject } from "../../lambdas/fields.ts";
import { listen } from "../../server/http/listen.ts";
import { EventSourceMapping } from "../stand_ins/event_source_mapping.ts";
import { seededRandom } from "../stand_ins/random.ts";
import { Clock, DAY_MS, HOUR_MS, SECOND_MS, StandInQueue } from "../stand_ins/sqs.ts";
import { CREDENTIALS, startSqsServer } from "../stand_ins/sqs_server.ts";
import { testApp } from "../support/app.ts";
import { test as base } from "../support/database.ts";
import {
  startLambda,
  unpackLambdas,
  type LambdaName,
  type LambdaProcess,
} from "../support/lambda_process.ts";
import { query } from "../support/rows.ts";
import { SECRET } from "../support/thaw.ts";

// As template.yaml sets them.
const VISIBILITY_MS = 180 * SECOND_MS;
const MAX_RECEIVES = 1_000;
const RETENTION_MS = 7 * DAY_MS;
const DEAD_RETENTION_MS = 14 * DAY_MS;
const CONCURRENCY = 2;

let directory = "";
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "thaw-days-away-"));
  await unpackLambdas(directory);
});
afterAll(() => rm(directory, { recursive: true }));

/** What stands in front of Thaw's server: it lets all through, cuts every connection, or answers for it, as proxies do. */
async function startGate(port: number) {
  const sockets = new Set<Socket>();
  const gate = { state: "open" as "open" | "cut" | "502", turnedAway: 0, port: 0, close: async () => {} };
  const server = createServer((near) => {
    sockets.add(near);
    near.on("error", () => undefined).on("close", () => sockets.delete(near));
    if (gate.state === "open") {
      const far = connect(port, "127.0.0.1");
      far.on("error", () => near.destroy()).on("close", () => near.destroy());
      near
        .on("close", () => far.destroy())
        .pipe(far)
        .pipe(near);
      return;
    }
    gate.turnedAway++;
    if (gate.state === "cut") near.destroy();
    else {
      near.once("data", () => {
        near.end("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
      });
    }
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  gate.port = (server.address() as AddressInfo).port;
  gate.close = () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  return {
    gate,
    become: (state: typeof gate.state): void => {
      gate.state = state;
      for (const socket of sockets) socket.destroy();
    },
  };
}

interface Side {
  queue: StandInQueue;
  failures: StandInQueue;
  mapping: EventSourceMapping;
}

interface World {
  clock: Clock;
  reads: Side;
  completions: Side;
  become: (state: "open" | "cut" | "502") => void;
  turnedAway: () => number;
  /** Status and event id of what the server answered. */
  answered: { status: number; event_id: string }[];
  /** A visibility time-out goes by, or longer: what returned is handed out again. */
  step: (ms?: number) => Promise<void>;
}

const test = base.extend<{ world: World }>({
  world: async ({ pool }, use) => {
    const closers: (() => Promise<unknown>)[] = [];
    try {
      const answered: World["answered"] = [];
      const app = testApp(pool);
      const recording = async (request: Request): Promise<Response> => {
        const body: unknown = await request
          .clone()
          .json()
          .catch(() => undefined);
        const response = await app.fetch(request);
        answered.push({
          status: response.status,
          event_id: isObject(body) ? String(body["event_id"]) : "",
        });
        return response;
      };
      const server = await listen(recording, { HOST: "127.0.0.1", PORT: 0 });
      closers.push(() => server.close());
      const { gate, become } = await startGate(server.port);
      closers.push(() => gate.close());

      const clock = new Clock(Date.now() - 5 * DAY_MS);
      const failuresOf = (name: string) =>
        new StandInQueue({ clock, name: `${name}-failures`, retention_ms: DEAD_RETENTION_MS });
      const dead = { restore_requested: failuresOf("requested"), restore_completed: failuresOf("completed") };
      const sqs = await startSqsServer(...Object.values(dead));
      closers.push(() => sqs.close());

      const side = async (name: LambdaName, seed: number): Promise<Side> => {
        const failures = dead[name];
        const queue = new StandInQueue({
          clock,
          name,
          visibility_timeout_ms: VISIBILITY_MS,
          retention_ms: RETENTION_MS,
          redrive: { to: failures, max_receive_count: MAX_RECEIVES },
          doubled: 0.1,
          seed,
        });
        const idle: LambdaProcess[] = await Promise.all(
          Array.from({ length: CONCURRENCY }, () =>
            startLambda(directory, name, {
              ...CREDENTIALS,
              THAW_URL: `http://127.0.0.1:${gate.port}`,
              RESTORE_SECRET: SECRET,
              BUCKETS: "my-archive",
              DEAD_LETTER_QUEUE_URL: sqs.urlOf(failures),
            }),
          ),
        );
        for (const one of idle) closers.push(() => one.stop());
        const mapping = new EventSourceMapping({
          queue,
          max_concurrency: CONCURRENCY,
          async invoke(event) {
            const free = idle.pop();
            if (free === undefined) throw new Error("more invocations at once than MaximumConcurrency");
            const { result, error } = await free.invoke(event, clock.now_ms);
            idle.push(free);
            return error === undefined ? { result } : { error };
          },
        });
        return { queue, failures, mapping };
      };
      const [reads, completions] = await Promise.all([
        side("restore_requested", 1),
        side("restore_completed", 2),
      ]);
      await use({
        clock,
        reads,
        completions,
        become,
        turnedAway: () => gate.turnedAway,
        answered,
        step: async (ms = VISIBILITY_MS) => {
          clock.advance(ms);
          await Promise.all([reads.mapping.drain(), completions.mapping.drain()]);
        },
      });
    } finally {
      for (const close of closers.toReversed()) await close();
    }
  },
});

const fixture = (name: string): JsonObject =>
  JSON.parse(readFileSync(join(import.meta.dirname, `../fixtures/${name}.json`), "utf8"));
const partOf = (event: JsonObject, name: string): JsonObject => {
  const part = event[name];
  if (!isObject(part)) throw new TypeError(`another fixture: no ${name}`);
  return part;
};
const timeOf = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");

/** A read that failed at that time, as EventBridge tells of it. */
function read(key: string, at_ms: number): string {
  const event = fixture("get_iam_user");
  const detail = partOf(event, "detail");
  partOf(detail, "requestParameters")["key"] = key;
  detail["eventID"] = `read-${key.slice(0, 50)}`;
  detail["eventTime"] = timeOf(at_ms);
  return JSON.stringify(event);
}

function completion(key: string, at_ms: number): string {
  const event = fixture("eventbridge_completed");
  partOf(partOf(event, "detail"), "object")["key"] = key;
  return JSON.stringify({ ...event, id: `completed-${key}`, time: timeOf(at_ms) });
}

/** Thaw refuses it: no key of S3 is that long. */
const REFUSED_KEY = "x".repeat(1_100);
const UNREADABLE = JSON.stringify(fixture("get_unreadable"));
/** Of no bucket of ours. */
const FOREIGN = read("foreign.txt", 0).replaceAll("my-archive", "another-archive");

const taken = (world: World): string[] => [
  ...new Set(world.answered.filter(({ status }) => status === 200).map(({ event_id }) => event_id)),
];

describe("Thaw is away", () => {
  test("for a day: every read and every completion arrives, none twice, and what it refuses is set aside", async ({
    world,
    pool,
  }) => {
    const { clock, reads, completions, become, step } = world;
    const random = seededRandom(24);
    const keys: string[] = [];
    const letters = [read(REFUSED_KEY, clock.now_ms), UNREADABLE];
    const began_ms = clock.now_ms;
    const hour = (): number => (clock.now_ms - began_ms) / HOUR_MS;
    const errorsByHour = new Map<number, number>();
    // Two hours before it goes, a day without it, two hours after.
    while (hour() < 28) {
      const away = hour() >= 2 && hour() < 26;
      become(away ? (Math.floor(hour()) % 2 === 0 ? "cut" : "502") : "open");
      if (random() < 0.06) {
        const key = `file-${keys.length}.txt`;
        keys.push(key);
        const event = read(key, clock.now_ms);
        reads.queue.send(event);
        // EventBridge, too, delivers at least once.
        if (random() < 0.2) reads.queue.send(event);
        if (random() < 0.5) completions.queue.send(completion(key, clock.now_ms));
      }
      if (hour() === 1 || hour() === 3) for (const letter of letters) reads.queue.send(letter);
      if (hour() === 4) reads.queue.send(FOREIGN);
      const before = reads.mapping.errors;
      await step();
      const errors = reads.mapping.errors - before;
      errorsByHour.set(Math.floor(hour()), (errorsByHour.get(Math.floor(hour())) ?? 0) + errors);
    }
    const invocations = reads.mapping.invocations + completions.mapping.invocations;
    // Each of the four processes finds out at the price of one batch; from then on a batch costs one call.
    expect(world.turnedAway()).toBeGreaterThan(400);
    expect(world.turnedAway()).toBeLessThanOrEqual(invocations + 4 * 10 * 4);
    // Lambda's metric, on which an alarm stands, does not fall silent. (The age of the oldest message does: it leaves out
    // what was received three times.)
    for (let at = 3; at < 26; at++) expect(errorsByHour.get(at), `hour ${at}`).toBeGreaterThan(0);
    expect(reads.queue.oldest_ms).toBe(0);
    expect(keys.length).toBeGreaterThan(25);

    expect({ reads: reads.queue.size, completions: completions.queue.size }).toEqual({
      reads: 0,
      completions: 0,
    });
    expect(reads.queue.expired + completions.queue.expired).toBe(0);
    expect(completions.failures.size).toBe(0);
    // Each of the two was sent twice, and SQS may have doubled one.
    expect(new Set(reads.failures.bodies())).toEqual(new Set(letters));

    const arrived = taken(world);
    for (const key of keys) expect(arrived).toContain(`read-${key}`);
    const completed = arrived.filter((id) => id.startsWith("completed-"));
    expect(completed.length).toBeGreaterThan(5);
    expect(await query(pool, "select s3_key, read_count from restore_requests order by s3_key")).toEqual(
      keys.toSorted().map((s3_key) => ({ s3_key, read_count: 1 })),
    );
    expect(await query(pool, "select s3_key from restores order by s3_key")).toHaveLength(keys.length);
  }, 120_000);

  test("for longer than 50 hours: all is in the dead-letter queue, and one command brings it back", async ({
    world,
    pool,
  }) => {
    const { clock, reads, become, step } = world;
    const keys = Array.from({ length: 8 }, (_, index) => `file-${index}.txt`);
    become("cut");
    const began_ms = clock.now_ms;
    for (const key of keys) reads.queue.send(read(key, clock.now_ms));
    reads.queue.send(UNREADABLE);
    while (clock.now_ms - began_ms < 49 * HOUR_MS) await step();
    expect(reads.failures.bodies()).toEqual([UNREADABLE]);
    expect(reads.queue.size).toBeGreaterThanOrEqual(keys.length);

    while (clock.now_ms - began_ms < 52 * HOUR_MS) await step();
    expect(reads.queue.size).toBe(0);
    expect(reads.queue.expired).toBe(0);
    const bodies = new Set(reads.failures.bodies());
    expect(bodies.size).toBe(keys.length + 1);

    become("open");
    // Some came there by SQS, one by the function: without a destination, that one would end the task.
    expect(reads.failures.moveAll(reads.queue).moved).toBeGreaterThanOrEqual(keys.length + 1);
    await step();
    expect(reads.queue.size).toBe(0);
    expect(new Set(reads.failures.bodies())).toEqual(new Set([UNREADABLE]));
    expect(await query(pool, "select s3_key, read_count from restore_requests order by s3_key")).toEqual(
      keys.map((s3_key) => ({ s3_key, read_count: 1 })),
    );
  }, 120_000);

  test("for days, with a backlog so large that each message is tried once an hour: none is dropped for its age", async ({
    world,
    pool,
  }) => {
    const { clock, reads, become, step } = world;
    const keys = Array.from({ length: 8 }, (_, index) => `file-${index}.txt`);
    become("cut");
    const began_ms = clock.now_ms;
    for (const key of keys) reads.queue.send(read(key, clock.now_ms));
    while (clock.now_ms - began_ms < 4 * DAY_MS - HOUR_MS) await step(HOUR_MS);
    expect(reads.failures.size).toBe(0);
    await step(HOUR_MS);
    // A thousand receives would have taken 41 days, and the queue keeps a message for seven.
    expect(reads.queue.size).toBe(0);
    expect(reads.queue.expired).toBe(0);
    const [letter] = reads.failures.receive(1);
    expect(letter?.messageAttributes["ErrorCode"]?.stringValue).toBe("TOO_OLD");

    clock.advance(HOUR_MS);
    become("open");
    reads.failures.moveAll(reads.queue);
    await step();
    expect(reads.queue.size + reads.failures.size).toBe(0);
    expect(await query(pool, "select s3_key, read_count from restore_requests order by s3_key")).toEqual(
      keys.map((s3_key) => ({ s3_key, read_count: 1 })),
    );
  }, 120_000);
});
