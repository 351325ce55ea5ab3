/** What a check found: one line of the doctor's. */
export interface Finding {
  /** FAIL: Thaw cannot do its work. warn: it can, and somebody will miss something. skip: not checked. */
  level: "ok" | "warn" | "FAIL" | "skip";
  /** What was looked at. */
  what: string;
  found: string;
  /** What to do about it; there always is something. */
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

/** Whoever takes longer than this is as good as away, to the person who waits for the doctor's word. */
export const CALL_TIMEOUT_MS = 5_000;

const LATE = `no answer within ${CALL_TIMEOUT_MS / 1000} s`;

/** For calls that no signal ends. They may go on in the background: the doctor exits when it has spoken. */
export async function within<T>(call: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(LATE)), CALL_TIMEOUT_MS);
  });
  try {
    return await Promise.race([call, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** An error in a few words. A host with several addresses fails with several errors and no text. */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  if (!(error instanceof Error)) return String(error);
  if (error.name === "AbortError" || error.name === "TimeoutError") return LATE;
  const { code } = error as { code?: unknown };
  return error.message || (typeof code === "string" ? code : error.name);
}

export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;
