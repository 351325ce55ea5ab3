/** The queues and the event source mapping themselves: what the days without Thaw rely on. */
import { describe, expect, onTestFinished, test } from "vitest";

import { EventSourceMapping, type Invoked } from "./event_source_mapping.ts";
import { Clock, SECOND_MS, StandInQueue, type QueueOptions } from "./sqs.ts";
import { CREDENTIALS, startSqsServer } from "./sqs_server.ts";

const queueWith = (options: Partial<QueueOptions> = {}) => {
  const clock = options.clock ?? new Clock(0);
  return { clock, queue: new StandInQueue({ clock, name: "work", ...options }) };
};
const idsOf = (messages: { messageId: string }[]): string[] => messages.map(({ messageId }) => messageId);

describe("a queue", () => {
  test("hides what it handed out until its time is over, or for good when it is deleted", () => {
    const { clock, queue } = queueWith();
    queue.send("a");
    const [first] = queue.receive(10);
    clock.advance(29 * SECOND_MS);
    expect(queue.receive(10)).toEqual([]);
    clock.advance(1 * SECOND_MS);
    const [again] = queue.receive(10);
    expect(again).toMatchObject({
      messageId: first?.messageId,
      attributes: { ApproximateReceiveCount: "2" },
    });
    // A receipt of an earlier time deletes nothing.
    queue.delete(first?.receiptHandle ?? "");
    expect(queue.size).toBe(1);
    queue.delete(again?.receiptHandle ?? "");
    expect(queue.size).toBe(0);
  });

  test("keeps no order, and hands out some messages twice", () => {
    const { queue } = queueWith({ doubled: 0.2 });
    const sent = Array.from({ length: 100 }, (_, index) => queue.send(String(index)));
    const received = idsOf(queue.receive(1_000));
    expect(new Set(received)).toEqual(new Set(sent));
    expect(received.length).toBeGreaterThan(105);
    expect([...new Set(received)]).not.toEqual(sent);
  });

  test("moves what was received too often, with its id and age; and never when it is received less", () => {
    const { clock, queue: failures } = queueWith({ retention_ms: 1_000 * SECOND_MS });
    const { queue } = queueWith({ clock, redrive: { to: failures, max_receive_count: 3 } });
    const id = queue.send("a", { Reason: "b" });
    for (let round = 0; round < 3; round++) {
      expect(idsOf(queue.receive(10))).toEqual([id]);
      clock.advance(30 * SECOND_MS);
    }
    expect(failures.size).toBe(0);
    expect(queue.receive(10)).toEqual([]);
    expect(queue.size).toBe(0);
    expect(failures.oldest_ms).toBe(90 * SECOND_MS);
    expect(failures.receive(10)).toEqual([
      expect.objectContaining({
        messageId: id,
        messageAttributes: { Reason: { stringValue: "b", dataType: "String" } },
        attributes: expect.objectContaining({ DeadLetterQueueSourceArn: queue.arn }),
      }),
    ]);
    // The retention counts from the first sending.
    clock.advance(910 * SECOND_MS);
    expect(failures.size).toBe(0);
    expect(failures.expired).toBe(1);
  });

  test("loses what outlives its retention, even in flight", () => {
    const { clock, queue } = queueWith({
      retention_ms: 60 * SECOND_MS,
      visibility_timeout_ms: 120 * SECOND_MS,
    });
    queue.send("a");
    queue.receive(1);
    clock.advance(60 * SECOND_MS);
    expect(queue.size).toBe(0);
    expect(queue.expired).toBe(1);
  });

  test("moves all back as new messages; what no queue sent there needs a destination", () => {
    const { clock, queue: failures } = queueWith();
    const { queue } = queueWith({ clock, redrive: { to: failures, max_receive_count: 1 } });
    const id = queue.send("a");
    queue.receive(1);
    clock.advance(30 * SECOND_MS);
    queue.receive(1);
    expect(failures.moveAll()).toEqual({ moved: 1 });
    const [moved] = queue.receive(1);
    expect(moved).toMatchObject({ body: "a", attributes: { ApproximateReceiveCount: "1" } });
    expect(moved?.messageId).not.toBe(id);
    failures.send("b");
    expect(failures.moveAll()).toEqual({ moved: 0, failure: "CouldNotDetermineMessageSource" });
    expect(failures.moveAll(queue)).toEqual({ moved: 1 });
  });
});

describe("the event source mapping", () => {
  const run = async (count: number, invoke: (ids: string[]) => Invoked, options = {}) => {
    const { clock, queue } = queueWith();
    const sizes: number[] = [];
    const mapping = new EventSourceMapping({
      queue,
      ...options,
      invoke: ({ Records }) => {
        sizes.push(Records.length);
        return Promise.resolve(invoke(idsOf(Records)));
      },
    });
    for (let index = 0; index < count; index++) queue.send(String(index));
    await mapping.drain();
    return { clock, queue, mapping, sizes };
  };

  test("hands out batches of ten, and deletes what was done", async () => {
    const { queue, sizes } = await run(25, () => ({ result: { batchItemFailures: [] } }));
    expect(sizes).toEqual([10, 10, 5]);
    expect(queue.size).toBe(0);
  });

  test.each([
    ["nothing", null, 0],
    ["an empty object", {}, 0],
    ["no list", { batchItemFailures: null }, 0],
    ["no object", "done", 3],
    ["a list that is none", { batchItemFailures: "x" }, 3],
    ["an empty id", { batchItemFailures: [{ itemIdentifier: "" }] }, 3],
    ["no id", { batchItemFailures: [{ itemIdentifier: null }] }, 3],
    ["another name", { batchItemFailures: [{ messageId: "x" }] }, 3],
    ["an id of no message", { batchItemFailures: [{ itemIdentifier: "x" }] }, 3],
  ])("takes a result as Lambda does: %s", async (_, result, left) => {
    const { queue } = await run(3, () => ({ result }));
    expect(queue.size).toBe(left);
  });

  test("returns what is named, if it is told to look; without that it deletes everything", async () => {
    const failFirst = (ids: string[]) => ({ result: { batchItemFailures: [{ itemIdentifier: ids[0] }] } });
    expect((await run(3, failFirst)).queue.size).toBe(1);
    expect((await run(3, failFirst, { report_batch_item_failures: false })).queue.size).toBe(0);
  });

  test("returns all after an error, counts it, and runs fewer at once until it goes well again", async () => {
    let good = false;
    const { clock, queue, mapping } = await run(
      40,
      () => (good ? { result: null } : { error: "no answer" }),
      { max_concurrency: 4 },
    );
    expect(queue.size).toBe(40);
    expect(mapping.errors).toBe(4);
    expect(mapping.concurrency).toBeLessThan(4);
    good = true;
    clock.advance(30 * SECOND_MS);
    await mapping.drain();
    expect(queue.size).toBe(0);
    clock.advance(30 * SECOND_MS);
    for (let index = 0; index < 40; index++) queue.send("more");
    await mapping.drain();
    expect(mapping.concurrency).toBe(4);
  });
});

describe("SendMessage", () => {
  const post = async (headers: Record<string, string>, body = "{}") => {
    const { queue } = queueWith();
    const server = await startSqsServer(queue);
    onTestFinished(() => server.close());
    const response = await fetch(new URL("/", server.urlOf(queue)), { method: "POST", headers, body });
    return { status: response.status, answer: (await response.json()) as { message: string } };
  };
  const credential = `${CREDENTIALS.AWS_ACCESS_KEY_ID}/20261128/eu-west-1/sqs/aws4_request`;
  const names = "host;x-amz-date;x-amz-security-token;x-amz-target";
  const signed = {
    "x-amz-date": new Date().toISOString().replaceAll(/[-:]|\.\d+/g, ""),
    "x-amz-target": "AmazonSQS.SendMessage",
    "x-amz-security-token": CREDENTIALS.AWS_SESSION_TOKEN,
    authorization: `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names}, Signature=${"0".repeat(64)}`,
  };

  test.each([
    ["no signature", { authorization: "" }, /no signature/],
    ["a wrong one", {}, /does not match/],
    ["another token", { "x-amz-security-token": "x" }, /another session token/],
    ["an old one", { "x-amz-date": "20200101T000000Z" }, /expired/],
    [
      "the target unsigned",
      { authorization: signed.authorization.replace(";x-amz-target", "") },
      /is not signed/,
    ],
  ])("refuses %s", async (_, changes, problem) => {
    const { status, answer } = await post({ ...signed, ...changes });
    expect(status).toBe(403);
    expect(answer.message).toMatch(problem);
  });
});
