/** What Lambda does between a queue and a function: takes batches, and judges what the function returns. */
import { isObject } from "../../lambdas/fields.ts";
import type { Received, StandInQueue } from "./sqs.ts";

/** What became of an invocation: the function's result, as JSON has carried it, or the error that it threw. */
export type Invoked = { result: unknown } | { error: string };

export interface MappingOptions {
  queue: StandInQueue;
  invoke: (event: { Records: Received[] }) => Promise<Invoked>;
  batch_size?: number;
  max_concurrency?: number;
  /** FunctionResponseTypes: without it whatever a function returns means that all is done. */
  report_batch_item_failures?: boolean;
}

export class EventSourceMapping {
  invocations = 0;
  /** Lambda's metric Errors. */
  errors = 0;
  #options: Required<MappingOptions>;
  #concurrency: number;

  constructor(options: MappingOptions) {
    this.#options = { batch_size: 10, max_concurrency: 2, report_batch_item_failures: true, ...options };
    this.#concurrency = this.#options.max_concurrency;
  }

  /** How many batches Lambda runs at once: fewer after errors, more again after successes. */
  get concurrency(): number {
    return this.#concurrency;
  }

  /** Hands out what is visible now, until nothing is. */
  async drain(): Promise<void> {
    const { queue, batch_size, max_concurrency } = this.#options;
    for (;;) {
      const batches: Received[][] = [];
      while (batches.length < this.#concurrency) {
        const batch = queue.receive(batch_size);
        if (batch.length === 0) break;
        batches.push(batch);
      }
      if (batches.length === 0) return;
      const outcomes = await Promise.all(batches.map((batch) => this.#run(batch)));
      this.#concurrency = outcomes.includes("failed")
        ? Math.max(1, this.#concurrency >> 1)
        : Math.min(max_concurrency, this.#concurrency + 1);
    }
  }

  async #run(batch: Received[]): Promise<"done" | "failed"> {
    this.invocations++;
    const invoked = await this.#options.invoke({ Records: batch });
    if ("error" in invoked) {
      this.errors++;
      // They stay where they are, and become visible again when their time is over.
      return "failed";
    }
    const returning = this.#options.report_batch_item_failures
      ? returningOf(invoked.result, batch)
      : new Set<string>();
    for (const { messageId, receiptHandle } of batch) {
      if (!returning.has(messageId)) this.#options.queue.delete(receiptHandle);
    }
    return "done";
  }
}

/** By Lambda's rules: nothing means success, and a list that is not as it must be means that all have failed. */
function returningOf(result: unknown, batch: Received[]): Set<string> {
  const all = new Set(batch.map(({ messageId }) => messageId));
  if (result === null || result === undefined) return new Set();
  if (!isObject(result)) return all;
  const failures = result["batchItemFailures"];
  if (failures === null || failures === undefined) return new Set();
  if (!Array.isArray(failures)) return all;
  const returning = new Set<string>();
  for (const failure of failures as unknown[]) {
    const id = isObject(failure) ? failure["itemIdentifier"] : undefined;
    if (typeof id !== "string" || !all.has(id)) return all;
    returning.add(id);
  }
  return returning;
}
