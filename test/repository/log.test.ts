/** What of an error reaches the log: never what libraries hang on it. */
import { describe, expect, test } from "vitest";

import { reasonOf } from "../../server/log.ts";
import { captureLog } from "../support/api.ts";

/** As pg, the SDK and Resend make them. */
const LOADED = Object.assign(new Error("it broke"), {
  code: "57P01",
  client: { connectionParameters: { host: "db", user: "thaw" }, password: "hunter2" },
  pool: { options: { connectionString: "postgres://thaw:hunter2@db/thaw" } },
  $response: { body: "<Error>hunter2</Error>", headers: { authorization: "hunter2" } },
  detail: "Failing row contains (jane@example.com).",
  where: 'JSON data, line 1: {"email":"jane@example.com"',
  request: { body: "hunter2" },
});

describe("an error in the log", () => {
  test("has its name, message, code and stack, and nothing that hangs on it, in its causes neither", () => {
    const { log, text, lines } = captureLog();
    log.error({ err: LOADED }, "one");
    log.error({ err: new Error("outer", { cause: LOADED }) }, "two");
    log.error(LOADED, "three");

    const [one, two, three] = lines();
    const fields = { type: "Error", message: "it broke", code: "57P01", stack: expect.any(String) };
    expect(one?.["err"]).toEqual(fields);
    expect(two?.["err"]).toEqual({
      type: "Error",
      message: "outer",
      stack: expect.any(String),
      cause: fields,
    });
    expect(three?.["err"]).toEqual(fields);
    expect(text()).not.toMatch(/hunter2|jane@|connectionParameters/);
  });

  test("stays a line that can be read, whatever it quotes and however it is built", () => {
    const { log, lines } = captureLog();
    const endless = new Error("a cause of itself");
    endless.cause = endless;
    const errors = [
      new Error(`<html>${"x".repeat(100_000)}`),
      new AggregateError(Array.from({ length: 1_000 }, (_, index) => new Error(`connect ${index}`))),
      endless,
      "text",
      undefined,
      { any: "thing" },
    ];
    for (const err of errors) log.error({ err }, "it");
    for (const line of lines()) expect(JSON.stringify(line).length).toBeLessThan(10_000);
  });
});

test("the reason of an error is one short line, of several addresses that refuse each once", () => {
  const refused = (address: string) => new Error(`connect ECONNREFUSED ${address}`);
  expect(
    reasonOf(new AggregateError([refused("::1:5432"), refused("127.0.0.1:5432"), refused("::1:5432")])),
  ).toBe("connect ECONNREFUSED ::1:5432; connect ECONNREFUSED 127.0.0.1:5432");
  expect(reasonOf(new Error("two\n  lines"))).toBe("two lines");
  expect(reasonOf(Object.assign(new Error(), { code: "EPIPE" }))).toBe("EPIPE");
  expect(reasonOf(new TypeError())).toBe("TypeError");
  expect(reasonOf(new Error("x".repeat(5_000))).length).toBeLessThan(400);
  expect(reasonOf("text")).toBe("text");
});
