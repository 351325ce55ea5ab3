/** Batches from SQS: what is sent, what returns, what is given up, and what it costs while Thaw is away. */
import { readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";

import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest";

import type { SqsBatchResponse } from "../../lambdas/deliver.ts";
import { isObject, type JsonObject } from "../../lambdas/fields.ts";
import { handler as restoreCompleted } from "../../lambdas/restore_completed.ts";
import { handler as restoreRequested } from "../../lambdas/restore_requested.ts";
import { seededRandom } from "../stand_ins/random.ts";
import { Clock, StandInQueue } from "../stand_ins/sqs.ts";
import { CREDENTIALS, startSqsServer, type SqsServer } from "../stand_ins/sqs_server.ts";
import { hang, json, listen, type Answer, type Call } from "../support/stub_server.ts";

const SECRET = "the-secret-of-these-tests-0123456789";

const fixture = (name: string): JsonObject =>
  JSON.parse(readFileSync(new URL(`../fixtures/${name}.json`, import.meta.url), "utf8"));

/** A read of that file, as EventBridge tells it. */
function readOf(s3_key: string): string {
  const event = fixture("get_iam_user");
  const detail = event["detail"];
  if (!isObject(detail) || !isObject(detail["requestParameters"])) throw new TypeError("another fixture");
  detail["requestParameters"]["key"] = s3_key;
  return JSON.stringify(event);
}

/** A copy of that source. */
function copyOf(source: string): string {
  const event = fixture("copy_source");
  const detail = event["detail"];
  if (!isObject(detail) || !isObject(detail["requestParameters"])) throw new TypeError("another fixture");
  detail["requestParameters"]["x-amz-copy-source"] = source;
  return JSON.stringify(event);
}

const message = (messageId: string, body: unknown = readOf(messageId)) => ({
  messageId,
  eventSource: "aws:sqs",
  body,
});
const batch = (...keys: string[]) => ({ Records: keys.map((key) => message(key)) });
const numbered = (count: number, first = 0) =>
  Array.from({ length: count }, (_, index) => `file-${first + index}`);

const within = (remaining_ms: number) => ({ getRemainingTimeInMillis: () => remaining_ms });

const returning = (result: SqsBatchResponse | undefined): string[] =>
  (result?.batchItemFailures ?? []).map(({ itemIdentifier }) => itemIdentifier).toSorted();

/** What Lambda would see: the error's message, or which messages return. */
const outcomeOf = (run: Promise<SqsBatchResponse | undefined>): Promise<string | string[]> =>
  run.then(returning, (error: unknown) => (error instanceof Error ? error.message : String(error)));

const ok = json(200, { ok: true, id: "1", duplicate: false });
const refusal = (status: number): Answer =>
  json(status, { error: { code: "invalid_request", message: "The body is not valid." } });
const cut: Answer = (response) => void response.destroy();

const keyOf = ({ body }: Call): string => (isObject(body) ? String(body["s3_key"]) : "");

/** An answer for each file. */
const by =
  (choose: (key: string) => Answer): Answer =>
  (response, call) =>
    choose(keyOf(call))(response, call);

/** Thaw, as far as the functions see it. */
async function thaw(answer: Answer = ok) {
  const server = await listen([answer]);
  vi.stubEnv("THAW_URL", server.url);
  return server;
}

/** The dead-letter queue, and its address in the environment. */
async function deadLetters(): Promise<{ queue: StandInQueue; server: SqsServer }> {
  const queue = new StandInQueue({ clock: new Clock(0), name: "dead-letters" });
  const server = await startSqsServer(queue);
  onTestFinished(() => server.close());
  vi.stubEnv("DEAD_LETTER_QUEUE_URL", server.urlOf(queue));
  return { queue, server };
}

let logged: JsonObject[] = [];
const outcomes = (): string[] => logged.map(({ outcome }) => String(outcome)).toSorted();

beforeEach(() => {
  logged = [];
  vi.spyOn(console, "log").mockImplementation((line: string) => void logged.push(JSON.parse(line)));
  vi.stubEnv("RESTORE_SECRET", SECRET);
  vi.stubEnv("RESTORE_SECRET_ARN", "");
  vi.stubEnv("DEAD_LETTER_QUEUE_URL", "");
  for (const [name, value] of Object.entries(CREDENTIALS)) vi.stubEnv(name, value);
  onTestFinished(() => {
    const lines = JSON.stringify(logged);
    expect(lines).not.toContain(SECRET);
    expect(lines).not.toContain(CREDENTIALS.AWS_SECRET_ACCESS_KEY);
    expect(lines).not.toContain(CREDENTIALS.AWS_SESSION_TOKEN);
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
  });
});

describe("a batch", () => {
  test("goes at once, and the next one over the same connections", async () => {
    const waiting: (() => void)[] = [];
    const { calls, connections } = await thaw((response, call) => {
      waiting.push(() => ok(response, call));
      if (waiting.length === 10) for (const answer of waiting.splice(0)) answer();
    });
    expect(await restoreRequested(batch(...numbered(10)))).toEqual({ batchItemFailures: [] });
    expect(await restoreRequested(batch(...numbered(10, 10)))).toEqual({ batchItemFailures: [] });
    expect(calls).toHaveLength(20);
    expect(connections()).toBe(10);
  });

  test("goes on over a new connection where the server has closed old ones meanwhile", async () => {
    // Between two invocations Lambda lets no timer and no socket of ours do anything.
    const used = new Set<unknown>();
    let together = 0;
    const waiting: (() => void)[] = [];
    const { connections } = await thaw((response, call) => {
      if (used.has(response.socket)) return void response.destroy();
      used.add(response.socket);
      waiting.push(() => ok(response, call));
      if (++together >= 6) for (const answer of waiting.splice(0)) answer();
    });
    expect(await restoreRequested(batch(...numbered(6)))).toEqual({ batchItemFailures: [] });
    // Six closed ones are more than there are tries, and cost none.
    expect(await restoreRequested(batch("seventh"))).toEqual({ batchItemFailures: [] });
    expect(connections()).toBe(7);
  });

  test("in part answers with what returns; whole it throws, so that Lambda counts an error and slows down", async () => {
    await thaw(by((key) => (key.startsWith("bad") ? json(500, {}) : ok)));
    expect(await outcomeOf(restoreRequested(batch("good", "bad-1", "bad-2")))).toEqual(["bad-1", "bad-2"]);
    expect(await outcomeOf(restoreRequested(batch("bad-1", "bad-2")))).toMatch(
      /^All 2 messages return to the queue: .*answered 500/,
    );
    expect(await outcomeOf(restoreRequested(batch("bad-1")))).toMatch(/^All 1 messages return/);
  });

  test("with one message twice returns it when either copy failed, and names it once", async () => {
    let calls = 0;
    await thaw(by((key) => (key === "doubled" && ++calls > 1 ? json(500, {}) : ok)));
    expect(await outcomeOf(restoreRequested(batch("doubled", "doubled", "other")))).toEqual(["doubled"]);
    expect(await outcomeOf(restoreRequested(batch("doubled", "doubled", "other")))).toEqual(["doubled"]);
  });

  test.each([[undefined], [""], [7], [null]])(
    "with a message whose id is %j is thrown before anything is sent or given up",
    async (messageId) => {
      const { calls } = await thaw();
      const { queue } = await deadLetters();
      const Records = [
        message("one"),
        { ...message("two", "no JSON"), messageId },
        message("three", "no JSON"),
      ];
      expect(await outcomeOf(restoreRequested({ Records }))).toMatch(/messageId is missing/);
      expect(calls).toEqual([]);
      expect(queue.size).toBe(0);
    },
  );

  test("that is empty is nothing, and acknowledges nothing", async () => {
    const { calls } = await thaw();
    expect(await restoreRequested({ Records: [] })).toBeUndefined();
    expect(calls).toEqual([]);
  });

  test.each([
    ["another page", ((response) => void response.end("<h1>It works!</h1>")) satisfies Answer],
    ["not ok", json(200, { ok: false })],
    ["no object", json(200, [true])],
    ["empty", ((response) => void response.end()) satisfies Answer],
    ["no content", ((response) => void response.writeHead(204).end()) satisfies Answer],
    [
      "a response cut in the middle",
      ((response) => {
        response.writeHead(200, { "content-length": "100" }).write('{"ok":true');
        setTimeout(() => response.destroy(), 10);
      }) satisfies Answer,
    ],
  ])("returns what Thaw has not clearly taken: %s", async (_, bad) => {
    await thaw(by((key) => (key === "bad" ? bad : ok)));
    const { queue } = await deadLetters();
    // One that was taken first, and one beside it.
    await restoreRequested(batch("good"));
    expect(await outcomeOf(restoreRequested(batch("good", "bad")))).toEqual(["bad"]);
    expect(queue.size).toBe(0);
  });

  test("returns what its time is too short for", async () => {
    const { calls } = await thaw(by((key) => (Number(key.slice(5)) < 10 ? ok : hang)));
    const result = await outcomeOf(restoreRequested(batch(...numbered(40)), within(1_000)));
    expect(result).toEqual(numbered(30, 10).toSorted());
    expect(calls).toHaveLength(20);
  });

  test("too late for anything sends nothing, and is thrown", async () => {
    const { calls } = await thaw();
    expect(await outcomeOf(restoreRequested(batch("one", "two"), within(100)))).toMatch(
      /the time of this invocation is over/,
    );
    expect(calls).toEqual([]);
  });
});

describe("while Thaw is away", () => {
  test.each([
    ["nobody listens", cut, 4],
    ["a proxy answers for it", json(502, {}), 4],
    ["its database is away", json(503, { error: { code: "unavailable" } }, { "retry-after": "5" }), 1],
    ["the secret differs", json(401, {}), 1],
    ["the address is wrong", json(404, {}), 1],
    ["the address is somebody else's", json(200, {}), 1],
    ["the address leads elsewhere", json(302, {}, { location: "https://example.com" }), 1],
  ])("a batch costs one call of one message: %s", async (_, bad, tries) => {
    let away = true;
    const { calls } = await thaw((response, call) => (away ? bad : ok)(response, call));
    // It finds out at the price of one batch.
    expect(await outcomeOf(restoreRequested(batch(...numbered(10))))).toMatch(/^All 10 messages return/);
    expect(calls.length).toBeLessThanOrEqual(10 * tries);
    calls.length = 0;
    for (let round = 0; round < 3; round++) {
      expect(await outcomeOf(restoreRequested(batch(...numbered(10))))).toMatch(/^All 10 messages return/);
    }
    expect(calls).toHaveLength(3);
    expect(logged.at(-1)).toMatchObject({ outcome: "failed", messages: 9, reason: /./ });

    away = false;
    calls.length = 0;
    expect(await outcomeOf(restoreRequested(batch(...numbered(10))))).toEqual([]);
    expect(calls).toHaveLength(10);
  });

  test("the rest of a large batch returns unsent", async () => {
    const { calls } = await thaw(json(401, {}));
    expect(await outcomeOf(restoreRequested(batch(...numbered(45))))).toMatch(/^All 45 messages return/);
    expect(calls).toHaveLength(10);
    expect(outcomes()).toEqual(Array(11).fill("failed"));
    expect(logged.at(-1)).toMatchObject({ messages: 35 });
    expect(String(logged.at(-1)?.["reason"])).toMatch(/^not sent, because Thaw is away: .*401/);
  });

  test("a message that Thaw refuses shows that it is there", async () => {
    let answer: Answer = json(401, {});
    const { calls } = await thaw((response, call) => answer(response, call));
    await outcomeOf(restoreRequested(batch("one")));
    answer = (response, call) => (keyOf(call) === "bad" ? refusal(400) : ok)(response, call);
    expect(await outcomeOf(restoreRequested(batch("bad", "one", "two")))).toEqual(["bad"]);
    expect(calls).toHaveLength(4);
  });

  test("a message that needs no Thaw is dealt with all the same", async () => {
    await thaw(json(401, {}));
    const { queue } = await deadLetters();
    await outcomeOf(restoreRequested(batch("one")));
    const Records = [
      message("unreadable", "no JSON"),
      message("ignored", JSON.stringify(fixture("put_object"))),
      message("read"),
    ];
    expect(await outcomeOf(restoreRequested({ Records }))).toEqual(["read"]);
    expect(queue.bodies()).toEqual(["no JSON"]);
  });

  test("no call is made to a Thaw that cannot be connected to, beyond one each", async () => {
    // It takes connections, and says nothing: TLS never begins.
    let connections = 0;
    const server = createServer((socket) => {
      connections++;
      socket.on("error", () => undefined);
    });
    await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    vi.stubEnv("THAW_URL", `https://127.0.0.1:${(server.address() as AddressInfo).port}`);
    expect(await outcomeOf(restoreRequested(batch("one", "two")))).toMatch(/timed out while connecting/);
    expect(connections).toBe(2);
  });

  test("no message is tried again that Thaw did not answer in time", async () => {
    const { calls } = await thaw(hang);
    expect(await outcomeOf(restoreRequested(batch("one", "two")))).toMatch(/no answer: timed out/);
    expect(calls).toHaveLength(2);
  });

  test("both functions know it", async () => {
    const { calls } = await thaw(json(401, {}));
    const completions = () =>
      restoreCompleted({
        Records: numbered(3).map((id) => message(id, JSON.stringify(fixture("eventbridge_completed")))),
      });
    await outcomeOf(completions());
    expect(calls).toHaveLength(3);
    await outcomeOf(completions());
    expect(calls).toHaveLength(4);
  });
});

describe("one event's own trouble", () => {
  test("holds up no other: it is tried again, and returns alone", async () => {
    // After the others, so that none of them shows that Thaw is there.
    const locked: Answer = (...call) =>
      void setTimeout(() => json(503, {}, { "retry-after": "5" })(...call), 50);
    const { calls } = await thaw(by((key) => (key === "locked" ? locked : ok)));
    for (let round = 0; round < 12; round++) {
      const keys = ["locked", ...numbered(9, round * 9)];
      expect(await outcomeOf(restoreRequested(batch(...keys)))).toEqual(["locked"]);
    }
    expect(calls).toHaveLength(120);
  });
});

describe("what will never be delivered", () => {
  test.each([400, 413, 422])(
    "goes to the dead-letter queue at once, as it came: refused with %i",
    async (status) => {
      await thaw(by((key) => (key === "bad" ? refusal(status) : ok)));
      const { queue } = await deadLetters();
      expect(await outcomeOf(restoreRequested(batch("good", "bad")))).toEqual([]);
      expect(queue.receive(10)).toEqual([
        expect.objectContaining({
          body: readOf("bad"),
          messageAttributes: {
            ErrorCode: { dataType: "String", stringValue: "REFUSED" },
            ErrorMessage: {
              dataType: "String",
              stringValue: expect.stringMatching(`refused as invalid \\(${status}\\): The body is not valid`),
            },
            OriginalMessageId: { dataType: "String", stringValue: "bad" },
          },
        }),
      ]);
      expect(outcomes()).toEqual(["dead_letter", "failed", "sent"]);
    },
  );

  test.each([
    ["no JSON", "no JSON"],
    ["characters that no attribute holds", copyOf("my-archive/%\u0001\ud800")],
    ["an envelope that nobody knows", JSON.stringify({ read: fixture("get_iam_user") })],
    ["a read without its file", JSON.stringify(fixture("get_unreadable"))],
    ["text of all kinds", `${readOf("é, 漢字, 🧊").slice(0, -1)},`],
  ])("goes there, unchanged to the byte, when it cannot be read: %s", async (_, body) => {
    const { calls } = await thaw();
    const { queue } = await deadLetters();
    expect(await outcomeOf(restoreRequested({ Records: [message("one", body)] }))).toEqual([]);
    expect(calls).toEqual([]);
    const [letter] = queue.receive(1);
    expect(letter?.body).toBe(body);
    expect(letter?.messageAttributes["ErrorCode"]?.stringValue).toBe("UNREADABLE");
  });

  test("comes back as an ordinary message", async () => {
    let fixed = false;
    const { calls } = await thaw((response, call) => (fixed ? ok : refusal(400))(response, call));
    const { queue } = await deadLetters();
    await restoreRequested(batch("one"));
    const source = new StandInQueue({ clock: new Clock(0), name: "work" });
    // It was sent there, not moved by SQS: where to must be said.
    expect(queue.moveAll()).toEqual({ moved: 0, failure: "CouldNotDetermineMessageSource" });
    expect(queue.moveAll(source)).toEqual({ moved: 1 });
    fixed = true;
    expect(await outcomeOf(restoreRequested({ Records: source.receive(10) }))).toEqual([]);
    expect(calls.map(keyOf)).toEqual(["one", "one"]);
  });

  test.each([
    ["401", json(401, {})],
    ["404", json(404, { error: { code: "not_found", message: "No such route." } })],
    ["a redirect", json(308, {}, { location: "https://example.com" })],
    ["a refusal by a proxy", ((response) => void response.writeHead(400).end("<html>")) satisfies Answer],
    ["a refusal by somebody else's JSON", json(400, { error: "bad" })],
    [
      "a refusal by a platform before Thaw, in the same form",
      json(413, { error: { code: "FUNCTION_PAYLOAD_TOO_LARGE", message: "Request Entity Too Large" } }),
    ],
    ["500", json(500, { error: { code: "internal", message: "Internal error." } })],
  ])("is not what may heal: %s", async (_, bad) => {
    await thaw(bad);
    const { queue, server } = await deadLetters();
    expect(await outcomeOf(restoreRequested(batch("one", "two")))).toMatch(/^All 2 messages return/);
    expect(queue.size).toBe(0);
    expect(server.calls).toBe(0);
  });

  test.each(["throttle", "cut", "nonsense", "hang"] as const)(
    "returns when the dead-letter queue does not take it: %s",
    async (fault) => {
      await thaw(by((key) => (key === "bad" ? refusal(400) : ok)));
      const { queue, server } = await deadLetters();
      server.faults.push(fault);
      expect(await outcomeOf(restoreRequested(batch("good", "bad"), within(2_500)))).toEqual(["bad"]);
      expect(queue.size).toBe(0);
      expect(outcomes()).toEqual(["failed", "failed", "sent"]);
      expect(await outcomeOf(restoreRequested(batch("bad")))).toEqual([]);
      expect(queue.size).toBe(1);
    },
  );

  test.each([
    ["http://sqs.eu-west-1.amazonaws.com/111122223333/failures", /must begin with https/],
    ["https://user:password@sqs.eu-west-1.amazonaws.com/1/f", /must not hold a user name/],
    ["failures", /is missing or no URL/],
  ])("returns, and nothing is signed, when the queue's address is %s", async (url, problem) => {
    await thaw();
    vi.stubEnv("DEAD_LETTER_QUEUE_URL", url);
    expect(await outcomeOf(restoreRequested({ Records: [message("one", "no JSON")] }))).toMatch(problem);
  });

  test("returns without a dead-letter queue of its own: SQS moves it when it has returned often enough", async () => {
    await thaw(by((key) => (key === "bad" ? refusal(400) : ok)));
    expect(await outcomeOf(restoreRequested(batch("good", "bad")))).toEqual(["bad"]);
  });

  test("returns as long as another event of its message may still be delivered", async () => {
    let answers: Record<string, Answer> = { one: refusal(400), two: json(500, {}) };
    await thaw(by((key) => answers[key] ?? ok));
    const { queue } = await deadLetters();
    const body = JSON.stringify([JSON.parse(readOf("one")), JSON.parse(readOf("two"))]);
    const Records = [message("good"), message("pair", body)];
    expect(await outcomeOf(restoreRequested({ Records }))).toEqual(["pair"]);
    expect(queue.size).toBe(0);

    answers = { one: refusal(400) };
    expect(await outcomeOf(restoreRequested({ Records }))).toEqual([]);
    expect(queue.bodies()).toEqual([body]);
  });

  test("is also what is older than four days and fails again: its queue would drop it after seven", async () => {
    await thaw(by((key) => (key.startsWith("good") ? ok : json(401, {}))));
    const { queue } = await deadLetters();
    const DAY_MS = 24 * 3_600_000;
    const aged = (id: string, days: number | string) => ({
      ...message(id),
      attributes: { SentTimestamp: typeof days === "string" ? days : String(Date.now() - days * DAY_MS) },
    });
    const Records = [aged("good-old", 5), aged("old", 4.01), aged("young", 3.99), aged("ageless", "?")];
    expect(await outcomeOf(restoreRequested({ Records }))).toEqual(["ageless", "young"]);
    const [letter, ...others] = queue.receive(10);
    expect(others).toEqual([]);
    expect(letter?.body).toBe(readOf("old"));
    expect(letter?.messageAttributes["ErrorCode"]?.stringValue).toBe("TOO_OLD");
    expect(letter?.messageAttributes["ErrorMessage"]?.stringValue).toMatch(
      /^not delivered in four days: .*401/,
    );
  });

  test("is thrown when the function is invoked directly, for then Lambda keeps it", async () => {
    await thaw(refusal(400));
    const { server } = await deadLetters();
    for (const direct of [JSON.parse(readOf("one")), "no JSON", message("by hand", "no JSON")]) {
      expect(await outcomeOf(restoreRequested(direct))).toMatch(/refused as invalid|Unreadable event/);
    }
    expect(server.calls).toBe(0);
  });
});

test("no message is lost: each is taken by Thaw, or needs nothing, or is a dead letter, or returns", async () => {
  const random = seededRandom(16);
  const pick = <T>(...items: T[]): T => items[Math.floor(random() * items.length)] as T;
  const KINDS = {
    ok: ok,
    refused: refusal(400),
    busy: json(503, {}, { "retry-after": "5" }),
    // Tried again for a second, so rare.
    cut,
    page: ((response) => void response.end("<html>")) satisfies Answer,
  };
  const taken = new Set<string>();
  await thaw((response, call) => {
    const key = keyOf(call);
    const kind = key.split("-")[0] as keyof typeof KINDS;
    // What only passes, passes now and then.
    const answer = kind !== "refused" && random() < 0.3 ? ok : KINDS[kind];
    if (answer === ok) taken.add(key);
    answer(response, call);
  });
  const { queue, server } = await deadLetters();
  const counts = { taken: 0, dead: 0, returned: 0 };
  for (let round = 0; round < 40; round++) {
    taken.clear();
    if (random() < 0.3) server.faults.push(pick("throttle", "cut", "nonsense"));
    const Records = Array.from({ length: 1 + Math.floor(random() * 12) }, (_, index) => {
      const bad = round % 10 === 0 ? pick("cut", "page") : "busy";
      const kind = pick("ok", "ok", "refused", bad, "unreadable", "ignored");
      const id = `${kind}-${round}-${index}`;
      if (kind === "unreadable") return message(id, `${id} is no JSON`);
      return message(id, kind === "ignored" ? JSON.stringify(fixture("put_object")) : readOf(id));
    });
    const before = new Set(queue.bodies());
    const result = await outcomeOf(restoreRequested({ Records }));
    server.faults.length = 0;
    const returned = new Set(typeof result === "string" ? Records.map(({ messageId }) => messageId) : result);
    for (const { messageId, body } of Records) {
      const dead = queue.bodies().includes(String(body)) && !before.has(String(body));
      const done = taken.has(messageId) || dead || messageId.startsWith("ignored");
      expect(done || returned.has(messageId), messageId).toBe(true);
      // Nor is what may still be delivered given up.
      if (dead) expect(messageId).toMatch(/^(refused|unreadable)-/);
      counts.taken += Number(taken.has(messageId));
      counts.dead += Number(dead);
      counts.returned += Number(returned.has(messageId));
    }
  }
  expect(Math.min(...Object.values(counts))).toBeGreaterThan(20);
});
