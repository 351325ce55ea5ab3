/**
 * Standard queues of SQS, by a clock that only the test moves: no order, at least once, visibility time-out, receive count,
 * redrive to a dead-letter queue, retention, message move tasks.
 */
import { randomUUID } from "node:crypto";

import { seededRandom } from "./random.ts";

export const SECOND_MS = 1_000;
export const HOUR_MS = 3_600 * SECOND_MS;
export const DAY_MS = 24 * HOUR_MS;

export class Clock {
  now_ms: number;
  constructor(now_ms: number) {
    this.now_ms = now_ms;
  }
  advance(ms: number): void {
    this.now_ms += ms;
  }
}

export interface QueueOptions {
  clock: Clock;
  name: string;
  visibility_timeout_ms?: number;
  retention_ms?: number;
  /** Where a message goes that was received so often. */
  redrive?: { to: StandInQueue; max_receive_count: number };
  /** The share of messages that SQS delivers twice. */
  doubled?: number;
  seed?: number;
}

interface Stored {
  id: string;
  body: string;
  attributes: Record<string, string>;
  sent_at_ms: number;
  visible_at_ms: number;
  receive_count: number;
  first_received_at_ms?: number;
  /** Of the last time it was received; earlier ones delete nothing. */
  receipt?: string;
  /** The queue that SQS itself moved it from. */
  source?: StandInQueue;
}

/** As a queue hands it out, with the names of a record of Lambda. */
export interface Received {
  messageId: string;
  receiptHandle: string;
  body: string;
  attributes: Record<string, string>;
  messageAttributes: Record<string, { stringValue: string; dataType: "String" }>;
  eventSource: "aws:sqs";
  eventSourceARN: string;
  awsRegion: string;
}

export class StandInQueue {
  readonly name: string;
  readonly arn: string;
  /** Messages that their retention has taken, and nothing else: lost. */
  expired = 0;
  #options: Required<Omit<QueueOptions, "redrive">> & Pick<QueueOptions, "redrive">;
  #random: () => number;
  #messages = new Set<Stored>();

  constructor(options: QueueOptions) {
    this.name = options.name;
    this.arn = `arn:aws:sqs:eu-west-1:111122223333:${options.name}`;
    this.#options = {
      visibility_timeout_ms: 30 * SECOND_MS,
      retention_ms: 4 * DAY_MS,
      doubled: 0,
      seed: 1,
      ...options,
    };
    this.#random = seededRandom(this.#options.seed);
  }

  get #now(): number {
    return this.#options.clock.now_ms;
  }

  send(body: string, attributes: Record<string, string> = {}): string {
    const id = randomUUID();
    const copies = this.#random() < this.#options.doubled ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) this.#put({ id, body, attributes, sent_at_ms: this.#now });
    return id;
  }

  #put(message: Pick<Stored, "id" | "body" | "attributes" | "sent_at_ms" | "source">): void {
    this.#messages.add({ ...message, visible_at_ms: this.#now, receive_count: 0 });
  }

  /** Up to `max` messages, in no order; those received too often already go to the dead-letter queue. */
  receive(max: number): Received[] {
    this.#expire();
    const { redrive, visibility_timeout_ms } = this.#options;
    const received: Received[] = [];
    for (const message of this.#shuffled()) {
      if (received.length === max) break;
      if (message.visible_at_ms > this.#now) continue;
      if (redrive !== undefined && message.receive_count >= redrive.max_receive_count) {
        this.#messages.delete(message);
        // A standard queue keeps the time of the first sending, by which the other queue's retention counts.
        redrive.to.#put({ ...message, source: this });
        continue;
      }
      message.receive_count++;
      message.first_received_at_ms ??= this.#now;
      message.visible_at_ms = this.#now + visibility_timeout_ms;
      message.receipt = randomUUID();
      received.push(this.#record(message, message.receipt));
    }
    return received;
  }

  #record(message: Stored, receipt: string): Received {
    return {
      messageId: message.id,
      receiptHandle: receipt,
      body: message.body,
      attributes: {
        ApproximateReceiveCount: String(message.receive_count),
        SentTimestamp: String(message.sent_at_ms),
        SenderId: "AIDAEXAMPLEEVENTS0001",
        ApproximateFirstReceiveTimestamp: String(message.first_received_at_ms),
        ...(message.source !== undefined && { DeadLetterQueueSourceArn: message.source.arn }),
      },
      messageAttributes: Object.fromEntries(
        Object.entries(message.attributes).map(([name, stringValue]) => [
          name,
          { stringValue, dataType: "String" as const },
        ]),
      ),
      eventSource: "aws:sqs",
      eventSourceARN: this.arn,
      awsRegion: "eu-west-1",
    };
  }

  /** Deletes the copy that was received under this handle, unless it was received again since. */
  delete(receipt: string): void {
    for (const message of this.#messages) if (message.receipt === receipt) this.#messages.delete(message);
  }

  /** ApproximateNumberOfMessages and ...NotVisible together. */
  get size(): number {
    this.#expire();
    return this.#messages.size;
  }

  /** ApproximateAgeOfOldestMessage, which leaves out what was received three times. */
  get oldest_ms(): number {
    this.#expire();
    const fresh = [...this.#messages].filter(({ receive_count }) => receive_count < 3);
    const sent = fresh.map(({ sent_at_ms }) => sent_at_ms);
    return sent.length === 0 ? 0 : this.#now - Math.min(...sent);
  }

  bodies(): string[] {
    return [...this.#messages].map(({ body }) => body);
  }

  /**
   * StartMessageMoveTask, to its end. Moved messages are new ones: another id, another age, no receives.
   * Without a destination each returns to where SQS took it from; one that was sent here by anybody else came from nowhere,
   * and ends the task.
   */
  moveAll(destination?: StandInQueue): { moved: number; failure?: "CouldNotDetermineMessageSource" } {
    this.#expire();
    let moved = 0;
    for (const message of this.#messages) {
      const to = destination ?? message.source;
      if (to === undefined) return { moved, failure: "CouldNotDetermineMessageSource" };
      this.#messages.delete(message);
      const { body, attributes } = message;
      to.#put({ id: randomUUID(), body, attributes, sent_at_ms: this.#now });
      moved++;
    }
    return { moved };
  }

  #expire(): void {
    for (const message of this.#messages) {
      if (this.#now - message.sent_at_ms < this.#options.retention_ms) continue;
      this.#messages.delete(message);
      this.expired++;
    }
  }

  #shuffled(): Stored[] {
    const all = [...this.#messages];
    for (let last = all.length - 1; last > 0; last--) {
      const other = Math.floor(this.#random() * (last + 1));
      [all[last], all[other]] = [all[other] as Stored, all[last] as Stored];
    }
    return all;
  }
}
