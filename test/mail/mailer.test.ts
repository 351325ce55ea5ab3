/** What each answer of Resend means for a mail, and that the wire carries exactly the frozen bytes. */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

import { createMailer, type ClaimedMail, type Mailer } from "../../server/mail/resend.ts";
import { waitFor } from "../support/database.ts";
import { startResendStandIn, type Fault, type ResendStandIn } from "../stand_ins/resend.ts";

let resend: ResendStandIn;
let mailer: Mailer;

beforeAll(async () => {
  resend = await startResendStandIn();
  mailer = createMailer({ RESEND_API_KEY: resend.api_key, RESEND_BASE_URL: resend.url }, 500);
});
afterAll(() => resend.close());
beforeEach(() => {
  resend.clear();
  Object.assign(resend.limits, { requests_per_second: 10_000, latency_ms: 0 });
});

const never = new AbortController().signal;

const bodyTo = (to: string, more: Record<string, unknown> = {}) =>
  JSON.stringify({
    from: "Thaw <thaw@example.com>",
    to: [to],
    subject: "Your file is ready",
    html: "<p>é\u2028 𝄞 \ud800 \u0000</p>",
    text: "1e400 \\ \u007f",
    ...more,
  });

const claimed = (body = bodyTo("ann@example.com")): ClaimedMail => ({
  id: randomUUID(),
  claim_id: randomUUID(),
  email: "ann@example.com",
  body,
  uncertain_since_before: null,
  calls_per_second: 2,
});

/** What the mailer makes of one scripted answer. */
async function answerTo(answer: {
  status: number;
  body: string;
  headers?: Record<string, string>;
}): Promise<Awaited<ReturnType<Mailer["send"]>>> {
  const server = createServer((_request, response) => {
    response.writeHead(answer.status, { connection: "close", ...answer.headers }).end(answer.body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  try {
    return await createMailer({
      RESEND_API_KEY: "re_key",
      RESEND_BASE_URL: `http://127.0.0.1:${port}`,
    }).send(claimed(), never);
  } finally {
    server.close();
  }
}

const refusal = (statusCode: number, name: string, message = "No.") => ({
  status: statusCode,
  body: JSON.stringify({ statusCode, name, message }),
});

describe("a mail that Resend takes", () => {
  test("goes over the wire byte by byte as it was frozen", async () => {
    const mail = claimed();

    const answer = await mailer.send(mail, never);

    expect(resend.mails.map(({ body, idempotency_key }) => ({ body, idempotency_key }))).toEqual([
      { body: mail.body, idempotency_key: `thaw/${mail.id}` },
    ]);
    expect(answer).toEqual({ outcome: "sent", resend_id: resend.mails[0]?.id, calls_per_second: 10_000 });
  });

  test("is not delivered again when it is sent again", async () => {
    const mail = claimed();

    const [first, second] = [await mailer.send(mail, never), await mailer.send(mail, never)];

    expect(second).toEqual(first);
    expect(resend.requests).toHaveLength(2);
    expect(resend.mails).toHaveLength(1);
  });

  test("tells how many it takes a second, also when it was too many", async () => {
    resend.limits.requests_per_second = 1;

    expect(await mailer.send(claimed(), never)).toMatchObject({ outcome: "sent", calls_per_second: 1 });
    expect(await mailer.send(claimed(), never)).toMatchObject({ outcome: "gate", calls_per_second: 1 });
  });
});

describe("a mail of which nobody knows whether Resend took it", () => {
  const faults: Fault[] = [
    { kind: "application_error" },
    { kind: "service_unavailable" },
    { kind: "html_502" },
    { kind: "reset" },
    { kind: "hang" },
    { kind: "accept_then_drop" },
    { kind: "accept_then_hang" },
    { kind: "accept_then_truncate" },
    { kind: "accept_then_html" },
    { kind: "concurrent_idempotent_requests" },
    { kind: "application_error", status: 408 },
    { kind: "application_error", status: 599 },
  ];
  test.each(faults)("is uncertain after $kind, and delivered once by the repeat", async (fault) => {
    const mail = claimed();
    resend.addFault({ ...fault, times: 1 });

    expect(await mailer.send(mail, never)).toMatchObject({
      outcome: "uncertain",
      code: expect.any(String),
      message: expect.any(String),
    });
    expect(await mailer.send(mail, never)).toMatchObject({ outcome: "sent" });
    expect(resend.mails).toHaveLength(1);
  });

  test("is uncertain when the worker stops in the middle of the call", async () => {
    const stopping = new AbortController();
    resend.addFault({ kind: "accept_then_hang", times: 1 });
    const mail = claimed();

    const sending = mailer.send(mail, stopping.signal);
    await waitFor("the mail to arrive", async () => resend.mails.length === 1);
    stopping.abort();

    expect(await sending).toMatchObject({ outcome: "uncertain" });
    expect(await mailer.send(mail, never)).toMatchObject({ outcome: "sent" });
    expect(resend.mails).toHaveLength(1);
  });

  test("is uncertain when the worker had stopped before", async () => {
    expect(await mailer.send(claimed(), AbortSignal.abort())).toMatchObject({ outcome: "uncertain" });
    expect(resend.requests).toEqual([]);
  });

  test("is uncertain when nobody listens", async () => {
    const gone = createMailer({ RESEND_API_KEY: "re_key", RESEND_BASE_URL: "http://127.0.0.1:1" });

    expect(await gone.send(claimed(), never)).toMatchObject({ outcome: "uncertain" });
  });

  test.each([
    ["no body", { status: 200, body: "" }],
    ["null", { status: 200, body: "null" }],
    ["no id", { status: 200, body: "{}" }],
    ["an id that is no text", { status: 200, body: '{"id":7}' }],
    ["a trouble that says null", { status: 500, body: "null" }],
    ["a trouble without words", { status: 500, body: "{}" }],
    ["a trouble in numbers", { status: 503, body: '{"statusCode":503,"name":1,"message":2}' }],
    ["a refusal that names no status", { status: 422, body: '{"error":"unprocessable"}' }],
    // A firewall or a company's proxy: not Resend's word on this mail, nor on all others.
    ["a firewall's page", { status: 403, body: "<html>blocked</html>" }],
    ["a proxy's page", { status: 413, body: "<html>too large</html>" }],
  ])("is uncertain when the answer is %s", async (_name, answer) => {
    expect(await answerTo(answer)).toMatchObject({
      outcome: "uncertain",
      code: expect.any(String),
      message: expect.any(String),
    });
  });
});

describe("a refusal that every mail would get", () => {
  test.each([
    ["the rate limit", { kind: "rate_limit_exceeded", retry_after_s: 3 }, 3],
    ["the rate limit, in tenths", { kind: "rate_limit_exceeded", retry_after_s: 0.4 }, 0.4],
    ["a wait without bounds", { kind: "rate_limit_exceeded", retry_after_s: 1e30 }, 3600],
    ["the daily quota", { kind: "daily_quota_exceeded" }, 3600],
    ["the monthly quota", { kind: "monthly_quota_exceeded" }, 3600],
    ["a revoked key", { kind: "invalid_api_key" }, 300],
    ["a revoked key, by another status", { kind: "invalid_api_key", status: 401 }, 300],
    [
      "a key that is not told to be wrong before the fields are",
      { kind: "invalid_api_key", status: 400 },
      300,
    ],
    ["a restricted key", { kind: "restricted_api_key" }, 300],
    ["a suspended key", { kind: "suspended_api_key" }, 300],
    ["an unverified domain", { kind: "domain_not_verified" }, 300],
  ] as [string, Fault, number][])("shuts the gate for %s", async (_name, fault, wait_seconds) => {
    resend.addFault(fault);

    expect(await mailer.send(claimed(), never)).toMatchObject({ outcome: "gate", wait_seconds });
    expect(resend.mails).toEqual([]);
  });

  test.each([
    ["sender", bodyTo("ann@example.com", { from: "nobody" })],
    ["reply address", bodyTo("ann@example.com", { reply_to: "nobody" })],
  ])("shuts the gate for a wrong %s, which is a setting and no mail's fault", async (_name, body) => {
    expect(await mailer.send(claimed(body), never)).toMatchObject({ outcome: "gate", wait_seconds: 300 });
  });

  test.each([
    [402, "payment_required"],
    [404, "not_found"],
    [405, "method_not_allowed"],
  ])("shuts the gate for a %i", async (status, name) => {
    expect(await answerTo(refusal(status, name))).toMatchObject({ outcome: "gate", wait_seconds: 300 });
  });

  test("shuts the gate when RESEND_BASE_URL leads to some other site", async () => {
    expect(await answerTo({ status: 404, body: "<html>not found</html>" })).toMatchObject({
      outcome: "gate",
      wait_seconds: 300,
    });
  });

  test.each(["Wed, 21 Oct 2026 07:28:00 GMT", "", "-5", "soon"])(
    "waits a second when retry-after says %j",
    async (said) => {
      const answer = { ...refusal(429, "rate_limit_exceeded"), headers: { "retry-after": said } };
      expect(await answerTo(answer)).toMatchObject({ outcome: "gate", wait_seconds: 1 });
    },
  );
});

describe("a refusal of this very mail", () => {
  test.each(["nobody", "jörg@example.com"])("fails the mail whose address is %s", async (address) => {
    expect(await mailer.send(claimed(bodyTo(address)), never)).toMatchObject({
      outcome: "failed",
      code: "validation_error",
      message: expect.stringContaining("`to`"),
    });
  });

  test("fails the mail to an address that Resend refuses", async () => {
    resend.refuse("ann@example.com");

    expect(await mailer.send(claimed(), never)).toMatchObject({ outcome: "failed" });
    expect(await mailer.send(claimed(bodyTo("bob@example.com")), never)).toMatchObject({ outcome: "sent" });
  });

  test.each([
    [400, "validation_error"],
    [413, "too_large"],
    [422, "invalid_parameter"],
    [451, "security_error"],
  ])("fails the mail after a %i", async (status, name) => {
    expect(await answerTo(refusal(status, name))).toMatchObject({ outcome: "failed", code: name });
  });

  test("leaves it unknown when Resend has seen the key with another body", async () => {
    const mail = claimed();
    await mailer.send(mail, never);

    expect(await mailer.send({ ...mail, body: bodyTo("bob@example.com") }, never)).toMatchObject({
      outcome: "unknown",
      code: "invalid_idempotent_request",
    });
    expect(resend.mails).toHaveLength(1);
  });
});
