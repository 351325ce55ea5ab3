/** Callers who are slow, many, or speak HTTP as no client should: refused cleanly, and nobody else notices. */
import { once } from "node:events";
import { request } from "node:http";
import { connect, type Socket } from "node:net";

import { describe, expect } from "vitest";

import { createLog } from "../../server/log.ts";
import { head, HUNG_UP, MINIMAL, raw, startApi, test, type Api } from "../support/api.ts";
import { waitFor } from "../support/database.ts";
import { SECRET } from "../support/thaw.ts";

const JSON_HEADERS = { "x-restore-secret": SECRET, "content-type": "application/json" };

/** A good request for that key, as it goes over the wire. */
const good = (s3_key: string, more: Record<string, string> = {}): string => {
  const body = JSON.stringify({ ...MINIMAL, s3_key });
  return head({ ...JSON_HEADERS, "content-length": `${Buffer.byteLength(body)}`, ...more }) + body;
};

/** The last one on its connection. */
const last = (s3_key: string): string => good(s3_key, { connection: "close" });

const statuses = (answers: string): number[] =>
  [...answers.matchAll(/HTTP\/1\.1 (\d+) /g)].map((match) => Number(match[1]));

/** Opens a connection that says this, then that every half second. */
function drip(port: number, begin: string, then = ""): { ended: Promise<{ answer: string; ms: number }> } {
  const began = performance.now();
  const socket = connect(port, "127.0.0.1");
  let answer = "";
  socket.on("error", () => undefined);
  socket.on("data", (chunk) => (answer += String(chunk)));
  socket.write(begin);
  const timer = setInterval(() => then && socket.write(then), 500);
  return {
    ended: new Promise((resolve) => {
      socket.once("close", () => {
        clearInterval(timer);
        resolve({ answer, ms: performance.now() - began });
      });
    }),
  };
}

describe("a request in a strange shape", () => {
  const body = JSON.stringify({ ...MINIMAL, s3_key: "strange" });
  const shaped = (headers: string, text = body, requestLine = "POST /restore/request HTTP/1.1"): string =>
    `${requestLine}\r\nhost: thaw\r\nx-restore-secret: ${SECRET}\r\ncontent-type: application/json\r\n${headers}\r\n${text}`;
  const length = `content-length: ${body.length}\r\n`;
  const chunked = "transfer-encoding: chunked\r\n";
  const hex = body.length.toString(16);
  const whole = `${hex}\r\n${body}\r\n0\r\n\r\n`;

  /** What Node refuses by itself: where a request ends is in doubt, so nothing behind it counts either. */
  const REFUSED: Record<string, string | Uint8Array> = {
    "two lengths": shaped(length + length),
    "two lengths that differ": shaped(`${length}content-length: 5\r\n`),
    "a list of lengths": shaped(`content-length: ${body.length}, ${body.length}\r\n`),
    "a length with a sign": shaped(`content-length: +${body.length}\r\n`),
    "a negative length": shaped("content-length: -1\r\n"),
    "a hexadecimal length": shaped(`content-length: 0x${hex}\r\n`),
    "a length beyond 64 bits": shaped("content-length: 99999999999999999999\r\n"),
    "a length and chunks": shaped(length + chunked, whole),
    "chunks and a length": shaped(chunked + length, whole),
    "chunks twice": shaped(chunked + chunked, whole),
    "chunks that are not the last coding": shaped("transfer-encoding: chunked, identity\r\n", whole),
    "a coding nobody knows": shaped("transfer-encoding: xchunked\r\n", whole),
    "a space before the colon": shaped("transfer-encoding : chunked\r\n", whole),
    "a chunk longer than 64 bits": shaped(chunked, `fffffffffffffffff\r\n${whole}`),
    "a chunk's length with 0x": shaped(chunked, `0x${whole}`),
    "a chunk that does not end where it said": shaped(chunked, `${hex}\r\n${body}xx0\r\n\r\n`),
    "a folded header": shaped(`x: y\r\n z\r\n${length}`),
    "lines that end in LF alone": shaped(length).replaceAll("\r\n", "\n"),
    "a CR inside a header": shaped(`x: y\rz: 1\r\n${length}`),
    "a NUL inside a header": shaped(`x: y\0z\r\n${length}`),
    "no host": shaped(length).replace("host: thaw\r\n", ""),
    "a path that is not ASCII": Buffer.from(shaped(length).replace("/request", "/\xe9"), "latin1"),
    "a method nobody knows": shaped(length, body, "BREW /restore/request HTTP/1.1"),
    "a method in small letters": shaped(length, body, "post /restore/request HTTP/1.1"),
    "HTTP/2": `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
    TLS: Buffer.from("160301020001000 1fc0303".replaceAll(" ", ""), "hex"),
  };

  test("is refused and cut off when nobody can know where it ends", async ({ api, pool }) => {
    const outcomes = await Promise.all(
      Object.entries(REFUSED).map(async ([what, bytes]) => {
        const behind = Buffer.concat([Buffer.from(bytes as string), Buffer.from(last("smuggled"))]);
        const answer = await raw(api.port, behind, HUNG_UP);
        return [what, statuses(answer), /^connection: close$/im.test(answer)];
      }),
    );

    expect(outcomes).toEqual(Object.keys(REFUSED).map((what) => [what, [400], true]));
    expect((await pool.query("select from restores")).rowCount).toBe(0);
  });

  /** What is clear enough, with the answer it gets; the request behind it gets its own. */
  const CLEAR: Record<string, [string, number]> = {
    "HTTP/1.0 that keeps the connection": [
      shaped(`${length}connection: keep-alive\r\n`, body, "POST /restore/request HTTP/1.0"),
      200,
    ],
    "an absolute URL": [shaped(length, body, "POST http://other.example/restore/request HTTP/1.1"), 200],
    "two hosts, of which we use none": [shaped(`host: other\r\n${length}`), 200],
    "an address as host": [shaped(length).replace("host: thaw", "host: [::1]:3000"), 200],
    "empty lines before it": [`\r\n\r\n${shaped(length)}`, 200],
    "chunks with extensions": [shaped(chunked, `${hex};a=b\r\n${body}\r\n0\r\n\r\n`), 200],
    "trailers that look like headers": [
      shaped(chunked, `${hex}\r\n${body}\r\n0\r\nx-restore-secret: x\r\n\r\n`),
      200,
    ],
    "a fragment": [shaped(length, body, "POST /restore/request#here HTTP/1.1"), 200],
    "dots in the path": [shaped(length, body, "POST /x/../restore/%72equest HTTP/1.1"), 200],
    "a method in a header": [shaped(`${length}x-http-method-override: GET\r\n`), 200],
    "another coding around the chunks": [shaped("transfer-encoding: gzip, chunked\r\n", whole), 200],
    "a host that is none": [shaped(length).replace("host: thaw", "host: a/b?c@d"), 400],
    "a backslash in the path": [shaped(length, body, "POST /restore\\request HTTP/1.1"), 400],
    "a URL without a host": [shaped(length, body, "POST http:// HTTP/1.1"), 400],
    "a URL of something else": [shaped(length, body, "POST ftp://thaw/restore/request HTTP/1.1"), 400],
    "another expectation": [shaped(`${length}expect: a-miracle\r\n`), 417],
    "a request in the body that nobody reads": [
      shaped(`content-length: ${last("smuggled").length}\r\n`, last("smuggled"), "GET /healthz HTTP/1.1"),
      200,
    ],
    "a request in the body, without the secret": [
      head({ "content-length": `${last("smuggled").length}` }) + last("smuggled"),
      401,
    ],
    "a request in the body, to no route": [
      shaped(`content-length: ${last("smuggled").length}\r\n`, last("smuggled"), "POST /x HTTP/1.1"),
      404,
    ],
    "a request at the end of a body that is too large": [
      shaped(
        `content-length: ${70_000 + last("smuggled").length}\r\n`,
        " ".repeat(70_000) + last("smuggled"),
      ),
      413,
    ],
  };

  test("is answered when it is clear, and so is who comes behind it", async ({ api, pool }) => {
    for (const [what, [bytes, status]] of Object.entries(CLEAR)) {
      const answer = await raw(api.port, bytes + last("behind"), HUNG_UP);
      const { rows } = await pool.query("select s3_key from restores order by s3_key");
      await pool.query("truncate restores cascade");

      const taken = status === 200 && bytes.includes("strange") ? ["behind", "strange"] : ["behind"];
      expect([what, statuses(answer), rows.map((row) => row.s3_key)]).toEqual([what, [status, 200], taken]);
    }
  });

  test("needs the secret, however its path is spelt", async ({ api, pool }) => {
    for (const path of [
      "/restore/request",
      "/%72estore/request",
      "/restore/%72equest",
      "/restore/request?x",
      "/restore/request#x",
      "/./restore/request",
      "/x/../restore/request",
      "/x/%2e%2e/restore/request",
      "/restore;x/request",
      "/restore%2Frequest",
      "/restore%252Frequest",
      "//restore/request",
      "/restore//request",
      "/RESTORE/request",
      "/healthz/../restore/request",
      "/healthz%2f..%2frestore%2frequest",
      "http://thaw/restore/request",
    ]) {
      const text = good("a").replace(`x-restore-secret: ${SECRET}\r\n`, "").replace("/restore/request", path);
      const [status] = statuses(await raw(api.port, text));
      expect([path, [401, 404].includes(status as number)]).toEqual([path, true]);
    }
    expect((await pool.query("select from restores")).rowCount).toBe(0);
  });

  test("has a head that is too large", async ({ api }) => {
    for (const text of [
      good("a", { "x-long": "x".repeat(8 * 1024) }),
      good("a", { "x-restore-secret": "x".repeat(16 * 1024) }),
      good("a").replace("/request", `/${"x".repeat(8 * 1024)}`),
      good("a").replace("host:", `${"a: b\r\n".repeat(150)}host:`),
    ]) {
      const answer = await raw(api.port, text, HUNG_UP);
      expect(statuses(answer)).toEqual([431]);
      expect(answer).toMatch(/^connection: close$/im);
    }
    // Cut off so early that the answer may get lost.
    const megabyte = await raw(api.port, good("a", { "x-restore-secret": "x".repeat(1024 * 1024) }), HUNG_UP);
    expect(["", "HTTP/1.1 431 "]).toContain(megabyte.slice(0, 13));
    expect(statuses(await raw(api.port, good("a", { "x-long": "x".repeat(7 * 1024) })))).toEqual([200]);
  });
});

describe("a caller with bad manners", () => {
  test("who goes away in the middle of a body harms nobody", async ({ databaseUrl }) => {
    const errors: unknown[] = [];
    const log = createLog("silent");
    log.error = (...line: unknown[]) => void errors.push(line);
    const api = await startApi(databaseUrl, { log });
    for (const framing of [{ "content-length": "1000" }, { "transfer-encoding": "chunked" }]) {
      const socket = connect(api.port, "127.0.0.1");
      socket.on("error", () => undefined);
      socket.write(`${head({ ...JSON_HEADERS, ...framing })}5\r\n{"s3_\r\n`);
      // The next answer shows that the server has seen what came before.
      await api.get("/healthz");
      socket.resetAndDestroy();
      await once(socket, "close");
    }

    expect(await api.post("/restore/request", MINIMAL)).toMatchObject({ status: 200 });
    await api.close();
    expect(errors).toEqual([]);
  });

  test("who sends several requests at once gets the answers in order", async ({ api }) => {
    const answers = await raw(api.port, good("a") + good("") + last("a"), HUNG_UP);

    expect(answers.match(/HTTP\/1.1 \d+|"duplicate":\w+/g)).toEqual([
      "HTTP/1.1 200",
      '"duplicate":false',
      "HTTP/1.1 400",
      "HTTP/1.1 200",
      '"duplicate":true',
    ]);
  });

  test("who asks before sending a body is told to go on", async ({ api }) => {
    const asking = request(`${api.url}/restore/request`, {
      method: "POST",
      headers: { ...JSON_HEADERS, expect: "100-continue" },
    });
    asking.flushHeaders();
    await once(asking, "continue");
    asking.end(JSON.stringify(MINIMAL));
    const [response] = await once(asking, "response");

    expect(response.statusCode).toBe(200);
    response.resume();
  });

  test("who offers another protocol gets this one", async ({ api }) => {
    for (const upgrade of ["websocket", "h2c"]) {
      const answer = await raw(api.port, good("a", { connection: "upgrade", upgrade }));
      expect(statuses(answer)).toEqual([200]);
    }
  });

  test("who speaks HTTP/1.0 gets the answer, and the end", async ({ api }) => {
    const answer = await raw(api.port, good("a").replace("HTTP/1.1\r\nhost: thaw", "HTTP/1.0"), HUNG_UP);

    expect(statuses(answer)).toEqual([200]);
  });
});

/** As long as Node needs beyond a limit to see it, and a busy machine. */
const LATE_MS = 3_000;

test("who is slow is cut off in time, and holds up nobody", async ({ api }) => {
  const nothing = drip(api.port, "");
  const headers = drip(api.port, "POST /restore/request HTTP/1.1\r\nhost: thaw\r\n", "a: b\r\n");
  const byte_by_byte = drip(api.port, head({ ...JSON_HEADERS, "content-length": "1000" }) + "{", " ");
  const chunk_by_chunk = drip(
    api.port,
    head({ ...JSON_HEADERS, "transfer-encoding": "chunked" }) + "1\r\n{\r\n",
    "1\r\n \r\n",
  );
  const resting = drip(api.port, good("resting"));
  // Who may not write is not waited for.
  const unknown = drip(api.port, head({ "content-length": "1000" }), " ");

  for (let time = 0; time < 20; time++)
    expect((await api.post("/restore/request", MINIMAL)).ms).toBeLessThan(1_500);
  const [none, slow_headers, slow_body, slow_chunks, rest, stranger] = await Promise.all(
    [nothing, headers, byte_by_byte, chunk_by_chunk, resting, unknown].map((one) => one.ended),
  );
  const told = (one: typeof none) => [
    ...statuses(one?.answer ?? ""),
    /connection: close/i.test(one?.answer ?? ""),
  ];
  expect(told(none)).toEqual([408, true]);
  expect(told(slow_headers)).toEqual([408, true]);
  expect(told(slow_body)).toEqual([408, true]);
  expect(told(slow_chunks)).toEqual([408, true]);
  expect(told(rest)).toEqual([200, false]);
  expect(told(stranger)).toEqual([401, false]);
  for (const [one, limit_ms] of [
    [none, 5_000],
    [slow_headers, 5_000],
    [slow_body, 10_000],
    [slow_chunks, 10_000],
    [rest, 5_000],
    [stranger, 500],
  ] as const) {
    expect(one?.ms).toBeGreaterThan(limit_ms - 100);
    expect(one?.ms).toBeLessThan(limit_ms + LATE_MS);
  }
});

describe("more connections than there are places", () => {
  const PLACES = 2_000;

  /** Takes all places with connections that say this; each has been heard. */
  async function takePlaces(api: Api, text: string): Promise<Socket[]> {
    const sockets: Socket[] = [];
    while (sockets.length < PLACES) {
      // No more at once than the kernel queues for the server.
      const some = Array.from({ length: 100 }, () => connect(api.port, "127.0.0.1"));
      for (const socket of some) socket.on("error", () => undefined).write(text);
      await Promise.all(some.map((socket) => once(socket, "data")));
      sockets.push(...some);
    }
    return sockets;
  }

  const comesIn = async (api: Api): Promise<boolean> =>
    (await raw(api.port, good("newcomer"))).startsWith("HTTP/1.1 200");

  test("newcomers are cut off at once, and who is being served is served", async ({ api }) => {
    const body = JSON.stringify(MINIMAL);
    const sockets = await takePlaces(
      api,
      head({ ...JSON_HEADERS, "content-length": `${body.length}`, expect: "100-continue" }),
    );
    const began = performance.now();

    for (let time = 0; time < 20; time++) expect(await comesIn(api)).toBe(false);
    expect(performance.now() - began).toBeLessThan(2_000);
    const served = sockets.map(async (socket) => {
      const answer = once(socket, "data");
      socket.write(body);
      return statuses(String((await answer)[0]));
    });
    expect((await Promise.all(served)).flat()).toEqual(sockets.map(() => 200));

    for (const socket of sockets) socket.destroy();
    await waitFor("a place", () => comesIn(api));
  });

  test("who only rests on one makes room", async ({ api }) => {
    const sockets = await takePlaces(api, "GET /healthz HTTP/1.1\r\nhost: thaw\r\n\r\n");
    const began = performance.now();

    await waitFor("a place", () => comesIn(api));
    // Long before the resting ones go by themselves, and at no more than they cost.
    expect(performance.now() - began).toBeLessThan(2_500);
    expect(sockets.filter((socket) => socket.readableEnded || socket.destroyed).length).toBeLessThan(20);
    for (const socket of sockets) socket.destroy();
  });
});
