import { setTimeout as delay } from "node:timers/promises";
import { Resend } from "resend";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startResendStandIn, type Fault, type ResendStandIn } from "./resend.ts";

let standIn: ResendStandIn;
let resend: Resend;

beforeAll(async () => {
  standIn = await startResendStandIn();
  resend = new Resend(standIn.api_key, { baseUrl: standIn.url });
});
afterAll(() => standIn.close());
beforeEach(() => {
  standIn.clear();
  Object.assign(standIn.limits, { requests_per_second: 10_000, latency_ms: 0, key_life_ms: 86_400_000 });
});

const mailTo = (to: string | string[], subject = "Your files are ready") => ({
  from: "Thaw <thaw@example.com>",
  to,
  subject,
  html: "<p>They are.</p>",
  text: "They are.",
});
const mail = mailTo("ann@example.com");

/** What `emails.send` calls, without its types, which forbid most of what is tried here. */
const sendAnything = (fields: object) => resend.post<{ id: string }>("/emails", fields);
const sendWith = (idempotencyKey: string, fields = mail) => resend.emails.send(fields, { idempotencyKey });

const read = async (path: string) => {
  const answer = await fetch(standIn.url + path);
  return { status: answer.status, text: await answer.text(), headers: answer.headers };
};

/** Which of 200 calls failed at a chance of 30 %. */
const diceOf = async (seed: number): Promise<string> => {
  const other = await startResendStandIn({ seed });
  const client = new Resend(other.api_key, { baseUrl: other.url });
  other.addFault({ kind: "application_error", probability: 0.3 });
  for (let i = 0; i < 200; i += 1) await client.emails.send(mail);
  await other.close();
  return other.requests.map(({ status }) => (status === 200 ? "." : "x")).join("");
};

describe("a mail", () => {
  test("is delivered with all its parts and an id", async () => {
    const { data, error, headers } = await resend.emails.send(
      { ...mail, replyTo: "ops@example.com", tags: [{ name: "notification_id", value: "7c-1_b" }] },
      { idempotencyKey: "thaw/1" },
    );

    expect(error).toBeNull();
    expect(standIn.mails).toMatchObject([
      {
        id: data?.id,
        idempotency_key: "thaw/1",
        ...mail,
        to: ["ann@example.com"],
        reply_to: ["ops@example.com"],
        tags: [{ name: "notification_id", value: "7c-1_b" }],
      },
    ]);
    expect(JSON.parse(standIn.mails[0]?.body ?? "")).toMatchObject(mail);
    expect(standIn.requests).toMatchObject([
      { status: 200, idempotency_key: "thaw/1", to: ["ann@example.com"], delivered: true, replayed: false },
    ]);
    expect(headers).toMatchObject({ "ratelimit-limit": "10000", "ratelimit-reset": "1" });
  });

  test.for<[string, object, number, string]>([
    ["no sender", { from: undefined }, 422, "missing_required_field"],
    ["a sender that is no address", { from: "Thaw" }, 422, "invalid_from_address"],
    ["no recipient", { to: [] }, 422, "missing_required_field"],
    ["a recipient without a name", { to: "@example.com" }, 422, "validation_error"],
    ["a recipient without a domain", { to: "ann@" }, 422, "validation_error"],
    ["a domain without a dot", { to: "ann@localhost" }, 422, "validation_error"],
    ["two addresses in one", { to: "ann@example.com, bob@example.com" }, 422, "validation_error"],
    ["a line break in an address", { to: "A\nBcc: x <a@example.com>" }, 422, "validation_error"],
    ["a wide letter in an address", { to: "ａｎｎ@example.com" }, 422, "validation_error"],
    ["one bad address among good ones", { to: ["ann@example.com", "bob"] }, 422, "validation_error"],
    ["51 recipients", { to: Array(51).fill("ann@example.com") }, 422, "validation_error"],
    ["a bad reply address", { reply_to: "ops" }, 422, "validation_error"],
    ["no subject", { subject: "" }, 422, "missing_required_field"],
    ["a line break in the subject", { subject: "a\r\nBcc: x@example.com" }, 422, "validation_error"],
    ["neither html nor text", { html: undefined, text: undefined }, 422, "missing_required_field"],
    ["an html part that is no text", { html: { p: 1 } }, 422, "validation_error"],
    ["a tag with a space", { tags: [{ name: "a b", value: "c" }] }, 422, "validation_error"],
  ])("with %s is refused", async ([, change, statusCode, name]) => {
    const { data, error } = await sendAnything({ ...mail, ...change });

    expect(data).toBeNull();
    expect(error).toMatchObject({ statusCode, name });
    expect(error?.message).not.toBe("");
    expect(standIn.mails).toEqual([]);
    expect(standIn.requests).toMatchObject([{ status: statusCode, name, delivered: false }]);
  });

  test.for<[string, object]>([
    ["50 recipients", { to: Array(50).fill("ann@example.com") }],
    ["a name", { to: "Ann O'Neil, Jr. <ann.o'neil+x@mail.example.co.uk>" }],
    ["text alone", { html: undefined }],
    ["html alone", { text: undefined }],
  ])("with %s is taken", async ([, change]) => {
    expect(await sendAnything({ ...mail, ...change })).toMatchObject({ error: null });
    expect(standIn.mails).toHaveLength(1);
  });

  test("to a refused address is refused, others flow, until it is allowed again", async () => {
    const allow = standIn.refuse("bad@example.com");

    const bad = await resend.emails.send(mailTo(["ann@example.com", "Bad <BAD@example.com>"]));
    expect(bad.error).toMatchObject({ statusCode: 422, name: "validation_error" });
    expect(await resend.emails.send(mail)).toMatchObject({ error: null });
    allow();
    expect(await resend.emails.send(mailTo("bad@example.com"))).toMatchObject({ error: null });
    expect(standIn.mails.map(({ to }) => to)).toEqual([["ann@example.com"], ["bad@example.com"]]);
  });

  test("that is no JSON is refused", async () => {
    const answer = await fetch(`${standIn.url}/emails`, {
      method: "POST",
      headers: { authorization: `Bearer ${standIn.api_key}` },
      body: '{"from":',
    });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ statusCode: 400, name: "validation_error" });
  });
});

describe("the API key", () => {
  test("is asked for", async () => {
    const answer = await fetch(`${standIn.url}/emails`, { method: "POST", body: JSON.stringify(mail) });
    expect(await answer.json()).toMatchObject({ statusCode: 401, name: "missing_api_key" });
  });

  test("must be the right one", async () => {
    const stranger = new Resend("re_wrong", { baseUrl: standIn.url });
    const { error } = await stranger.emails.send(mail);
    expect(error).toMatchObject({ statusCode: 403, name: "invalid_api_key" });
    expect(standIn.mails).toEqual([]);
  });

  test("sends and does nothing else", async () => {
    const { error } = await resend.emails.get("7c");
    expect(error).toMatchObject({ statusCode: 401, name: "restricted_api_key" });
    const { error: batchError } = await resend.batch.send([mail]);
    expect(batchError).toMatchObject({ statusCode: 404, name: "not_found" });
  });
});

describe("the idempotency key", () => {
  test("turns a repeat into the first answer", async () => {
    const first = await sendWith("thaw/1");
    const second = await sendWith("thaw/1");

    expect(second.data?.id).toBe(first.data?.id);
    expect(standIn.mails).toHaveLength(1);
    expect(standIn.requests).toMatchObject([
      { delivered: true, replayed: false },
      { delivered: false, replayed: true, status: 200 },
    ]);
  });

  test("compares what was sent by value", async () => {
    const { data } = await sendWith("thaw/1");
    const { from, to, ...rest } = mail;
    const again = await sendWith("thaw/1", { ...rest, to, from });
    expect(again.data?.id).toBe(data?.id);

    const changed = await sendWith("thaw/1", { ...mail, text: "They are!" });
    expect(changed.error).toMatchObject({ statusCode: 409, name: "invalid_idempotent_request" });
    expect(standIn.mails).toHaveLength(1);
  });

  test("of a mail that is just being sent is in use", async () => {
    standIn.limits.latency_ms = 200;
    const first = sendWith("thaw/1");
    await expect.poll(() => standIn.requests.length, { interval: 5 }).toBe(1);

    const second = await sendWith("thaw/1");
    expect(second.error).toMatchObject({ statusCode: 409, name: "concurrent_idempotent_requests" });
    expect(await first).toMatchObject({ error: null });
    expect(standIn.mails).toHaveLength(1);
  });

  test("is forgotten after a day", async () => {
    const first = await sendWith("thaw/1");
    standIn.ageKeys(23 * 3_600_000);
    expect((await sendWith("thaw/1")).data?.id).toBe(first.data?.id);
    standIn.ageKeys(3_600_000);
    expect((await sendWith("thaw/1")).data?.id).not.toBe(first.data?.id);
    expect(standIn.mails).toHaveLength(2);
  });

  test("of a refused mail is free for a better one", async () => {
    const allow = standIn.refuse("ann@example.com");
    expect((await sendWith("thaw/1")).error).not.toBeNull();
    allow();
    expect(await sendWith("thaw/1", { ...mail, text: "Other words" })).toMatchObject({ error: null });
  });

  test("has 1 to 256 characters", async () => {
    expect(await sendWith("k".repeat(256))).toMatchObject({ error: null });
    const tooLong = await sendWith("k".repeat(257));
    expect(tooLong.error).toMatchObject({ statusCode: 400, name: "invalid_idempotency_key" });
    // The SDK drops an empty key without a word, so this one goes around it.
    const empty = await resend.emails.send(mail, { headers: { "Idempotency-Key": "" } });
    expect(empty.error).toMatchObject({ statusCode: 400, name: "invalid_idempotency_key" });
  });

  test("left out means a mail per call", async () => {
    await resend.emails.send(mail);
    await resend.emails.send(mail);
    expect(standIn.mails).toHaveLength(2);
  });
});

describe("the rate limit", () => {
  test("is told with every answer and lifted when it says so", async () => {
    standIn.limits.requests_per_second = 3;
    const answers = [];
    for (let i = 0; i < 4; i += 1) answers.push(await resend.emails.send(mail));

    expect(answers.map(({ headers }) => headers?.["ratelimit-remaining"])).toEqual(["2", "1", "0", "0"]);
    expect(answers[3]?.error).toMatchObject({ statusCode: 429, name: "rate_limit_exceeded" });
    expect(answers[3]?.headers).toMatchObject({ "retry-after": "1", "ratelimit-limit": "3" });
    expect(standIn.mails).toHaveLength(3);

    await delay(1000 * Number(answers[3]?.headers?.["retry-after"]));
    expect(await resend.emails.send(mail)).toMatchObject({ error: null });
  });

  test("holds for calls that arrive together", async () => {
    standIn.limits.requests_per_second = 5;
    const answers = await Promise.all(Array.from({ length: 50 }, () => resend.emails.send(mail)));
    expect(answers.filter(({ error }) => error === null)).toHaveLength(5);
    expect(standIn.mails).toHaveLength(5);
  });
});

describe("a scripted fault", () => {
  test.for<[Fault["kind"], number, string]>([
    ["rate_limit_exceeded", 429, "rate_limit_exceeded"],
    ["daily_quota_exceeded", 429, "daily_quota_exceeded"],
    ["monthly_quota_exceeded", 429, "monthly_quota_exceeded"],
    ["invalid_api_key", 403, "invalid_api_key"],
    ["restricted_api_key", 401, "restricted_api_key"],
    ["suspended_api_key", 403, "suspended_api_key"],
    ["domain_not_verified", 403, "validation_error"],
    ["invalid_idempotent_request", 409, "invalid_idempotent_request"],
    ["concurrent_idempotent_requests", 409, "concurrent_idempotent_requests"],
    ["application_error", 500, "application_error"],
    ["service_unavailable", 503, "service_unavailable"],
    ["html_502", 502, "application_error"],
  ])("%s refuses and leaves nothing behind", async ([kind, statusCode, name]) => {
    const remove = standIn.addFault({ kind });
    const { error } = await sendWith("thaw/1");
    expect(error).toMatchObject({ statusCode, name });
    expect(standIn.mails).toEqual([]);
    expect(standIn.requests).toMatchObject([{ status: statusCode, delivered: false, fault: kind }]);

    remove();
    expect(await sendWith("thaw/1", { ...mail, text: "Other words" })).toMatchObject({ error: null });
  });

  test("says when to come back, and may use another status", async () => {
    standIn.addFault({ kind: "rate_limit_exceeded", retry_after_s: 3, times: 1 });
    standIn.addFault({ kind: "service_unavailable", times: 1 });
    standIn.addFault({ kind: "invalid_api_key", status: 401 });

    expect((await resend.emails.send(mail)).headers).toMatchObject({ "retry-after": "3" });
    expect((await resend.emails.send(mail)).headers).not.toHaveProperty("retry-after");
    const { error } = await resend.emails.send(mail);
    expect(error).toMatchObject({ statusCode: 401, name: "invalid_api_key" });
  });

  test("cuts the connection before the mail is taken", async () => {
    standIn.addFault({ kind: "reset", times: 1 });
    const { error, headers } = await sendWith("thaw/1");
    expect(error).toMatchObject({ statusCode: null, name: "application_error" });
    expect(headers).toBeNull();
    expect(standIn.mails).toEqual([]);
    expect(standIn.requests).toMatchObject([{ status: "dropped", delivered: false, fault: "reset" }]);

    expect(await sendWith("thaw/1")).toMatchObject({ error: null });
    expect(standIn.requests[1]).toMatchObject({ replayed: false, delivered: true });
  });

  test("hangs before the mail is taken, until the caller goes", async () => {
    standIn.addFault({ kind: "hang", times: 1 });
    const signal = AbortSignal.timeout(100);
    const { error } = await resend.emails.send(mail, { idempotencyKey: "thaw/1", signal });
    expect(error).toMatchObject({ statusCode: null });
    expect(signal.aborted).toBe(true);
    expect(standIn.mails).toEqual([]);
    expect(await sendWith("thaw/1")).toMatchObject({ error: null });
    expect(standIn.requests).toMatchObject([{ status: "dropped" }, { status: 200, delivered: true }]);
  });

  test.for<[Fault["kind"], number | "dropped"]>([
    ["accept_then_drop", "dropped"],
    ["accept_then_truncate", "dropped"],
    ["accept_then_html", 200],
    ["accept_then_hang", "dropped"],
  ])("%s loses the answer, not the mail", async ([kind, status]) => {
    standIn.addFault({ kind, times: 2 });
    for (const attempt of [0, 1]) {
      const signal = AbortSignal.timeout(200);
      const { data, error } = await resend.emails.send(mail, { idempotencyKey: "thaw/1", signal });
      expect(data).toBeNull();
      expect(error).toMatchObject({ statusCode: null, name: "application_error" });
      expect(signal.aborted).toBe(kind === "accept_then_hang");
      expect(standIn.requests[attempt]).toMatchObject({ status, fault: kind, replayed: attempt === 1 });
    }

    const { data } = await sendWith("thaw/1");
    expect(standIn.mails.map(({ id }) => id)).toEqual([data?.id]);
    expect(standIn.requests.map(({ delivered }) => delivered)).toEqual([true, false, false]);
  });

  test("is not wasted on a call that is refused anyway", async () => {
    standIn.addFault({ kind: "accept_then_drop", times: 1 });
    expect((await sendAnything({ ...mail, subject: "" })).error).toMatchObject({ statusCode: 422 });
    expect((await resend.emails.send(mail)).error).toMatchObject({ statusCode: null });
  });

  test("makes one mail slow, and it goes out although the caller has left", async () => {
    standIn.addFault({ kind: "slow", delay_ms: 250, times: 1 });
    const signal = AbortSignal.timeout(50);
    const { error } = await resend.emails.send(mail, { idempotencyKey: "thaw/1", signal });
    expect(error).toMatchObject({ statusCode: null });
    expect(standIn.mails).toEqual([]);
    expect((await sendWith("thaw/1")).error).toMatchObject({ name: "concurrent_idempotent_requests" });

    await expect.poll(() => standIn.mails.length).toBe(1);
    expect((await sendWith("thaw/1")).data?.id).toBe(standIn.mails[0]?.id);
    expect(standIn.requests[0]).toMatchObject({ status: "dropped", delivered: true });
  });

  test("may concern one recipient only", async () => {
    standIn.addFault({ kind: "application_error", to: "ANN@example.com" });
    expect((await resend.emails.send(mailTo("Ann <ann@example.com>"))).error).not.toBeNull();
    expect((await resend.emails.send(mailTo("bob@example.com"))).error).toBeNull();
  });

  test("happens as often as it says, first added first", async () => {
    standIn.addFault({ kind: "application_error", times: 2 });
    standIn.addFault({ kind: "service_unavailable", times: 1 });
    const statuses = [];
    for (let i = 0; i < 4; i += 1) statuses.push((await resend.emails.send(mail)).error?.statusCode);
    expect(statuses).toEqual([500, 500, 503, undefined]);
  });

  test("falls by the same dice for the same seed", async () => {
    const [first, again, different] = [await diceOf(1), await diceOf(1), await diceOf(2)];
    expect(again).toBe(first);
    expect(different).not.toBe(first);
    expect(first.replaceAll(".", "").length).toBeGreaterThan(40);
    expect(first.replaceAll(".", "").length).toBeLessThan(80);
  });

  test("ends when all are cleared", async () => {
    standIn.addFault({ kind: "application_error" });
    standIn.addFault({ kind: "accept_then_drop" });
    standIn.clearFaults();
    expect(await resend.emails.send(mail)).toMatchObject({ error: null });
  });
});

test("many mails at once are each delivered once", async () => {
  standIn.limits.latency_ms = 5;
  const numbers = Array.from({ length: 300 }, (_, i) => i);
  const answers = await Promise.all(numbers.map((i) => sendWith(`thaw/${i}`)));
  expect(answers.filter(({ error }) => error !== null)).toEqual([]);
  expect(new Set(standIn.mails.map(({ idempotency_key }) => idempotency_key)).size).toBe(300);
  expect(standIn.mails).toHaveLength(300);
});

test("clearing forgets everything, mails on their way too", async () => {
  await sendWith("thaw/1");
  standIn.refuse("bob@example.com");
  standIn.addFault({ kind: "slow", delay_ms: 100, to: "carl@example.com" });
  const late = resend.emails.send(mailTo("carl@example.com"));
  await expect.poll(() => standIn.requests.length, { interval: 5 }).toBe(2);
  standIn.clear();

  expect((await late).error).toMatchObject({ statusCode: null });
  await delay(150);
  expect([standIn.mails, standIn.requests]).toEqual([[], []]);
  expect(await sendWith("thaw/1", mailTo("bob@example.com"))).toMatchObject({ error: null });
});

test("closing ends hanging calls at once and delivers nothing more", async () => {
  const other = await startResendStandIn({ latency_ms: 60_000 });
  const client = new Resend(other.api_key, { baseUrl: other.url });
  other.addFault({ kind: "hang", to: "bob@example.com" });
  const calls = [client.emails.send(mail), client.emails.send(mailTo("bob@example.com"))];
  await expect.poll(() => other.requests.length, { interval: 5 }).toBe(2);

  const started = performance.now();
  await other.close();
  for (const { error } of await Promise.all(calls)) expect(error).toMatchObject({ statusCode: null });
  expect(performance.now() - started).toBeLessThan(1000);
  expect(other.mails).toEqual([]);
});

describe("the inbox", () => {
  test("says that nothing has come yet", async () => {
    for (const path of ["/", "/inbox", "/inbox/list"]) {
      const { status, text } = await read(path);
      expect(status).toBe(200);
      expect(text).toContain("No mail yet");
    }
    expect((await read("/mails.json")).text).toBe("[]");
  });

  test("lists the newest mail first and shows the chosen one in a sandbox", async () => {
    await resend.emails.send(mailTo("ann@example.com", "First"));
    await resend.emails.send({ ...mailTo("bob@example.com", "Second"), replyTo: "ops@example.com" });
    const [first, second] = standIn.mails;

    const inbox = await read("/inbox");
    expect(inbox.text.indexOf("Second")).toBeLessThan(inbox.text.indexOf("First"));
    expect(inbox.text).toContain(`href="/mails/${second?.id}" aria-current="true"`);

    const { text } = await read(`/mails/${first?.id}`);
    expect(text).toContain(`href="/mails/${first?.id}" aria-current="true"`);
    expect(text).toMatch(/<iframe [^>]*sandbox="[^"]*"[^>]*srcdoc="[^"]*&lt;p&gt;They are.&lt;\/p&gt;"/);
    expect(text).not.toMatch(/sandbox="[^"]*(scripts|same-origin|forms)/);
    expect((await read(`/mails/${first?.id}?part=text`)).text).toMatch(/<pre[^>]*>They are.<\/pre>/);
    expect((await read(`/mails/none`)).status).toBe(404);
    expect(JSON.parse((await read("/mails.json")).text)).toMatchObject([
      { subject: "First" },
      { id: second?.id },
    ]);
  });

  test("lets no mail break out of its place", async () => {
    const evil = `</title></script></pre><script>alert('1')</script>"'&`;
    const { data } = await resend.emails.send({
      from: `"><script>alert(2)//" <thaw@example.com>`.replaceAll(/[<>](?!thaw|$)/g, "&"),
      to: "ann@example.com",
      subject: evil,
      html: `"></iframe>${evil}`,
      text: evil,
    });
    for (const path of ["/", `/mails/${data?.id}`, `/mails/${data?.id}?part=text`, "/inbox/list"]) {
      const { text, headers } = await read(path);
      expect(text.replace(/<script nonce="[^"]+">/, "")).not.toContain("<script");
      expect(text).not.toContain("alert('1')");
      expect(text.match(/<\/iframe>/g)?.length ?? 0).toBeLessThanOrEqual(1);
      if (path !== "/inbox/list") {
        expect(headers.get("content-security-policy")).toContain("default-src 'none'");
      }
    }
  });

  test("loads nothing from elsewhere", async () => {
    await resend.emails.send(mail);
    const { text } = await read("/");
    expect(text).not.toMatch(/https?:\/\//);
  });
});
