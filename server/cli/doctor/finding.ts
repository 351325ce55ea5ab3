import { inTime } from "../../time_limit.ts";

/** One line of the doctor's output. */
export interface Finding {
  /** FAIL: Thaw cannot work. warn: it works, but not for everybody or not on time. skip: not checked. */
  level: "ok" | "warn" | "FAIL" | "skip";
  /** What was checked. */
  what: string;
  found: string;
  /** What to do about it; always set on warn and FAIL. */
  todo?: string;
}

export const ok = (what: string, found: string): Finding => ({ level: "ok", what, found });
export const warn = (what: string, found: string, todo: string): Finding => ({
  level: "warn",
  what,
  found,
  todo,
});
export const fail = (what: string, found: string, todo: string): Finding => ({
  level: "FAIL",
  what,
  found,
  todo,
});
export const skip = (what: string, why: string): Finding => ({
  level: "skip",
  what,
  found: `skipped: ${why}`,
});

/** Somebody waits at a terminal: what takes longer counts as no answer. */
export const CALL_TIMEOUT_MS = 5_000;

export const LATE = `no answer within ${CALL_TIMEOUT_MS / 1000} s`;

/** For calls that no signal ends. They may go on in the background: the doctor exits after its last line. */
export const within = <T>(call: Promise<T>): Promise<T> =>
  inTime(CALL_TIMEOUT_MS, call, () => new Error(LATE));

export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;
