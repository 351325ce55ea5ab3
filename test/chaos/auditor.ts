/** Holds what Thaw says it did against what S3, Resend and the callers saw. */
import type { Evidence, Rows } from "./evidence.ts";
import type { StormObject } from "./objects.ts";

/** As many files as a mail shows; of more it tells the number. */
const FILES_SHOWN = 50;

/** What a mail says of a file that was never there. */
const FAILED_FILE = "The file is no longer there";

/** Clocks of two processes on one machine, and the rounding of a time to a millisecond. */
const CLOCK_MS = 50;

/** What is wrong, a sentence each; none when every promise was kept. */
export function audit(evidence: Evidence): string[] {
  return [
    ...(evidence.unfinished === undefined ? [] : [`it did not end: ${evidence.unfinished}`]),
    ...evidence.surprises,
    ...acceptedReads(evidence),
    ...restores(evidence),
    ...money(evidence),
    ...mails(evidence),
    ...announcements(evidence),
    ...leftovers(evidence),
  ];
}

const nameOf = (row: { s3_bucket: string; s3_key: string; version_id?: string }): string =>
  `${row.s3_bucket}/${row.s3_key}@${row.version_id ?? ""}`;

/** 1. Every read that was answered with 2xx has its row, and the row its end. */
function* acceptedReads({ accepted, rows, objects }: Evidence): Generator<string> {
  const byReader = new Map<string, Rows>();
  for (const row of rows.requests) {
    const name = `${nameOf(row as never)} by ${row["access_key_id"]}`;
    byReader.set(name, [...(byReader.get(name) ?? []), row]);
  }
  const objectOf = new Map(objects.map((object) => [object.key, object]));
  const first = new Set<string>();
  for (const { read, id, duplicate } of accepted) {
    const name = `${nameOf(read)} by ${read.access_key_id}`;
    const found = byReader.get(name) ?? [];
    if (found.length !== 1) yield `${name}: ${found.length} rows for a read that was accepted`;
    const row = found[0];
    if (row === undefined) continue;
    if (row["id"] !== id) yield `${name}: the answer named row ${id}, there is ${row["id"]}`;
    if (!duplicate && first.has(id)) yield `${name}: two answers called themselves the first`;
    if (!duplicate) first.add(id);
    const expected = objectOf.get(read.s3_key)?.kind === "missing" ? "failed" : "restored";
    if (row["restore_status"] !== expected)
      yield `${name}: ended as ${row["restore_status"]}, expected ${expected}`;
  }
}

/** 3., 5. One accepted RestoreObject per restore; readable only after S3 had it readable; failed with a reason. */
function* restores({ rows, objects, looks }: Evidence): Generator<string> {
  const byKey = new Map<string, Rows>();
  for (const row of rows.restores) byKey.set(row["s3_key"], [...(byKey.get(row["s3_key"]) ?? []), row]);
  for (const [index, object] of objects.entries()) {
    const look = looks[index];
    const own = byKey.get(object.key) ?? [];
    const accepted = look?.restores_accepted ?? 0;
    const right = object.lost + object.begun_by_others + 1;
    if (accepted > right) yield `${object.key}: S3 accepted ${accepted} restores, ${right} would have done`;
    for (const row of own) {
      if (row["status"] === "restored") yield* isReadable(object, row, look?.restore);
      if (row["status"] === "failed" && !(row["failure_code"] && row["failure_message"]))
        yield `${object.key}: failed without a reason`;
      if (row["claim_id"] !== null) yield `${object.key}: is still claimed`;
    }
  }
}

function* isReadable(object: StormObject, row: Rows[number], state: string | undefined): Generator<string> {
  if (object.kind === "readable") return;
  if (state !== "ready")
    yield `${object.key}: called restored, but in S3 it is ${object.kind}, restore: ${state}`;
  const restored_at = (row["restored_at"] as Date).getTime();
  if (object.ready_at === undefined || restored_at < object.ready_at - CLOCK_MS) {
    yield `${object.key}: called restored ${object.ready_at === undefined ? "although" : `${object.ready_at - restored_at} ms before`} S3 had it`;
  }
}

/** 7. Nobody's restores beyond their limit but those that somebody approved; the counters are the sums; nothing is held for ever. */
function* money({ rows, objects, looks }: Evidence): Generator<string> {
  for (const row of rows.wrong_spending)
    yield `what a limit has spent is not what was charged: ${JSON.stringify(row)}`;
  for (const row of rows.held_for_ever) yield `restore ${row["id"]}: held, and nobody will decide`;
  for (const { payer, charged, allowed, approved } of rows.payers)
    if (charged > allowed + approved)
      yield `${payer}: ${charged} restores, beyond the limit of ${allowed} and ${approved} that were approved`;
  // Of an object that was read once, and that nobody else asked for, it is Thaw's own.
  const own = Map.groupBy(rows.restores, (row) => row["s3_key"] as string);
  for (const [index, object] of objects.entries()) {
    const of_it = own.get(object.key) ?? [];
    const is_ours = looks[index]?.restores_accepted === 1 && object.begun_by_others === 0;
    if (is_ours && of_it.length > 0 && !of_it.some((row) => row["charged"] !== null))
      yield `${object.key}: accepted by S3, and charged to nobody`;
  }
}

/** 2. What went out is what is noted as sent, each mail once. */
function* mails({ mails, mailCalls, rows }: Evidence): Generator<string> {
  const delivered = Map.groupBy(mails, (mail) => notificationOf(mail));
  for (const [id, copies] of delivered) {
    if (copies.length > 1) yield `mail ${id}: delivered ${copies.length} times to ${copies[0]?.to.join()}`;
    if (!rows.notifications.some((row) => row["id"] === id)) yield `mail ${id}: delivered, and not noted`;
  }
  for (const row of rows.notifications) {
    if (row["status"] !== "sent")
      yield `mail ${row["id"]}: ended as ${row["status"]} (${row["failure_code"]}: ${row["failure_message"]})`;
    else if (!delivered.has(row["id"])) yield `mail ${row["id"]}: noted as sent, never delivered`;
    for (const copy of delivered.get(row["id"]) ?? []) {
      if (copy.to.join() !== row["email"])
        yield `mail ${row["id"]}: for ${row["email"]}, delivered to ${copy.to.join()}`;
    }
  }
  const unkeyed = mailCalls.filter((call) => call.idempotency_key === undefined).length;
  if (unkeyed > 0) yield `${unkeyed} mail calls without an idempotency key`;
}

const notificationOf = (mail: Evidence["mails"][number]): string =>
  mail.tags?.find((tag) => tag.name === "notification_id")?.value ?? "untagged";

/** 2. Each person is told of each of their files how it ended, once; that it began, at most once; and of nobody else's. */
function* announcements({ accepted, people, objects, mails, rows }: Evidence): Generator<string> {
  const restoreOf = new Map(rows.restores.map((row) => [row["id"] as string, row]));
  const notificationById = new Map(rows.notifications.map((row) => [row["id"] as string, row]));
  const objectOf = new Map(objects.map((object) => [object.key, object]));
  const told = new Map<string, number>();
  const announcedBy = Map.groupBy(rows.announcements, (row) => row["notification_id"] as string);
  for (const mail of mails) {
    const id = notificationOf(mail);
    const kind = notificationById.get(id)?.["kind"] as string | undefined;
    // Mails about holds and limits announce nothing.
    if (kind !== undefined && kind !== "pre" && kind !== "post") continue;
    const announced = (announcedBy.get(id) ?? []).map((row) => restoreOf.get(row["restore_id"]) ?? {});
    for (const restore of announced) {
      const name = `${mail.to.join()} ${kind} ${nameOf(restore as never)}`;
      told.set(name, (told.get(name) ?? 0) + 1);
      const ready_at = objectOf.get(restore["s3_key"])?.ready_at ?? 0;
      if (kind === "post" && restore["status"] === "restored" && mail.at.getTime() < ready_at - CLOCK_MS) {
        yield `${name}: told before S3 had it`;
      }
    }
    // Which of them failed, is told as failed, and nothing else is.
    const failed = announced.filter((restore) => restore["status"] === "failed");
    if (kind === "post" && announced.length <= FILES_SHOWN) {
      const said = mail.text.replaceAll(/\s+/g, " ").includes(FAILED_FILE);
      if (failed.length > 0 && !said) yield `${mail.to.join()}: mail ${id} does not say what failed`;
      if (failed.length === 0 && said) yield `${mail.to.join()}: mail ${id} says that something failed`;
      if (failed.length === announced.length && /\bready\b/.test(mail.subject))
        yield `${mail.to.join()}: mail ${id} calls ready what failed`;
    }
    const mentioned = new Set(mail.text.match(/obj-\d{5}/g) ?? []);
    const meant = new Set(announced.map((restore) => /obj-\d{5}/.exec(restore["s3_key"])?.[0] ?? ""));
    for (const token of mentioned)
      if (!meant.has(token))
        yield `${mail.to.join()}: mail ${id} speaks of ${token}, which it does not announce`;
    if (announced.length <= FILES_SHOWN && mentioned.size < meant.size) {
      yield `${mail.to.join()}: mail ${id} announces ${meant.size} files and shows ${mentioned.size}`;
    }
  }
  for (const [name, times] of told) if (times > 1) yield `${name}: told ${times} times`;

  const due = new Set<string>();
  for (const { read } of accepted) {
    const person = people.get(read.access_key_id);
    if (person !== undefined) due.add(`${person} post ${nameOf(read)}`);
  }
  for (const name of due) if (!told.has(name)) yield `${name}: never told`;
  for (const name of told.keys()) {
    if (!due.has(name.replace(" pre ", " post "))) yield `${name}: told, though they never asked`;
  }
}

/** Nothing is left locked, stuck or shut; who was asked to stop, stopped. */
function* leftovers({ rows, ends, blows, restarts }: Evidence): Generator<string> {
  // Without a blow nobody has a reason to die: what Resend or S3 answers is none.
  if (blows.length === 0)
    for (const [name, times] of Object.entries(restarts))
      if (times > 0) yield `${name} died ${times} times by itself`;
  for (const job of rows.locked_jobs) yield `job ${job["id"]} (${job["task_identifier"]}) is left locked`;
  for (const row of rows.stuck) yield `stuck: ${row["s3_key"]}: ${row["problem"]}`;
  for (const row of rows.workers) yield `worker ${row["id"]} is noted as alive`;
  if (rows.gate_is_shut) yield "the mail gate is shut";
  for (const [name, end] of Object.entries(ends)) if (end !== 0) yield `${name} ended with ${end}`;
}
