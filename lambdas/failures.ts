/** Why an event was not delivered decides who tries again: its queue, an operator, or nobody yet. */

/** Why a message is in the dead-letter queue. */
export interface DeadLetterReason {
  code: "UNREADABLE" | "REFUSED" | "TOO_OLD";
  message: string;
}

/** The event itself is at fault, so repeating it will not help: it belongs in the dead-letter queue. */
export class Permanent extends Error implements DeadLetterReason {
  override name = "Permanent";
  readonly code: DeadLetterReason["code"];

  constructor(code: DeadLetterReason["code"], message: string) {
    super(message);
    this.code = code;
  }
}

/** May concern us, and cannot be read. */
export const unreadable = (problem: string): Permanent =>
  new Permanent("UNREADABLE", `Unreadable event: ${problem}.`);

/** No event gets through now: Thaw is away, or the way to it is not configured as it must be. */
export class Unreachable extends Error {
  override name = "Unreachable";
}

/** Not even tried, because Thaw is known to be away. */
export class Unsent extends Error {
  override name = "Unsent";
}
