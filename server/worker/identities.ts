/** What resolve_users asks IAM Identity Center's identity store about readers whom nothing else names. */
import { sql } from "kysely";

import { isAddress } from "../settings/address.ts";
import type { IdentityStore } from "../identity_store.ts";
import { reasonOf } from "../log.ts";
import type { Database } from "../postgres/rows.ts";
import type { TaskContext } from "./task.ts";

/** People in one claim: answers come back together, so that readers are looked up again once per page. */
const PAGE = 100;

/** The store's own limit is some 20 calls a second for all callers of an account. */
const CONCURRENCY = 4;

/** No call begins later than this in a page: other readers wait meanwhile. With the time-out of a call below the lease. */
const PAGE_MS = 5_000;

interface Claimed {
  /** "user/<user id>" or "name/<user name>". */
  subject: string;
  claim_id: string;
}

type Answer = { answer: "found"; email: string } | { answer: "not_found" | "disabled" | "no_address" };

/** A page of people; returns how many. Nothing of it is inside a transaction. If the store fails, the rest is given back. */
export async function askIdentityStore(
  { db, log, count }: Pick<TaskContext, "db" | "log" | "count">,
  store: IdentityStore,
  signal: AbortSignal,
): Promise<number> {
  const claimed = await claim(db, store.id);
  if (claimed.length === 0) return 0;

  const until = Date.now() + PAGE_MS;
  const waiting = [...claimed];
  const answers: (Claimed & { answer: string; email?: string })[] = [];
  let trouble: { code: string; message: string } | undefined;
  const lane = async (): Promise<void> => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) {
      if (trouble !== undefined || signal.aborted || Date.now() > until) {
        answers.push({ ...one, answer: "not_asked" });
        continue;
      }
      try {
        answers.push({ ...one, ...(await ask(store, one.subject, signal)) });
      } catch (error) {
        answers.push({ ...one, answer: signal.aborted ? "not_asked" : "trouble" });
        if (!signal.aborted) trouble ??= troubleOf(error);
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, lane));

  await sql`select note_identities(${JSON.stringify(answers)}::jsonb, ${trouble?.code ?? null}, ${trouble?.message ?? null})`.execute(
    db,
  );
  if (trouble !== undefined)
    log.warn(trouble, "the identity store does not answer; asked again after a while");
  for (const { answer } of answers) count(`identity_${answer}`);
  return claimed.length;
}

async function claim(db: Database, store: string): Promise<Claimed[]> {
  const { rows } =
    await sql<Claimed>`select subject, claim_id from claim_identities(${store}, ${PAGE})`.execute(db);
  return rows;
}

async function ask(store: IdentityStore, subject: string, signal: AbortSignal): Promise<Answer> {
  const [, kind, name = ""] = /^(user|name)\/(.*)$/s.exec(subject) ?? [];
  const user_id = kind === "name" ? await store.findUser(name, signal) : name;
  const user = user_id === undefined ? undefined : await store.describeUser(user_id, signal);
  if (user === undefined) return { answer: "not_found" };
  // Somebody who may not sign in any more has left, or will.
  if (!user.is_enabled) return { answer: "disabled" };
  const email = user.emails.find(isAddress);
  return email === undefined ? { answer: "no_address" } : { answer: "found", email };
}

/** Longer messages are a program's output. */
const MAX_MESSAGE_LENGTH = 300;

function troubleOf(error: unknown): { code: string; message: string } {
  const { name, code } = (error ?? {}) as { name?: unknown; code?: unknown };
  const known = typeof code === "string" ? code : typeof name === "string" ? name : "Error";
  return {
    code: known,
    message: reasonOf(error)
      .replaceAll(/\p{Cc}+/gu, " ")
      .slice(0, MAX_MESSAGE_LENGTH),
  };
}
