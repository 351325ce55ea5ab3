import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { faultError, type FaultRule, type Faults } from "./s3_faults.ts";
import type { RequestLog, S3Request } from "./s3_log.ts";
import type { S3Operations } from "./s3_operations.ts";
import { errorXml, hostId, parseTarget, readBody, readSigner, type S3Answer, S3Error } from "./s3_wire.ts";

/** A request on its way through delay, fault and work to its answer. */
interface Passage {
  request: IncomingMessage;
  response: ServerResponse;
  seen: S3Request;
  request_id: string;
  fault: FaultRule | undefined;
  work: (body: string) => S3Answer;
}

/** The HTTP side: reads requests, lets faults strike, writes answers. */
export class S3Server {
  private operations: S3Operations;
  private faults: Faults;
  private log: RequestLog;
  private latencyMs: number;
  private lastRequestId = 0;
  // Clients keep connections for long; closing one under a request would be a fault nobody scripted.
  private http = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    this.receive(request, response);
  });

  constructor(operations: S3Operations, faults: Faults, log: RequestLog, latencyMs: number) {
    this.operations = operations;
    this.faults = faults;
    this.log = log;
    this.latencyMs = latencyMs;
  }

  /** Resolves to the port. */
  async listen(port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.http.once("error", reject);
      this.http.listen(port, "127.0.0.1", resolve);
    });
    const address = this.http.address();
    if (address === null || typeof address === "string") throw new Error("not listening on a port");
    return address.port;
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.http.close(() => resolve());
      this.http.closeAllConnections();
    });
  }

  /** Unique and 16 capitals and digits long, like S3's. */
  newRequestId(): string {
    this.lastRequestId += 1;
    return this.lastRequestId.toString(36).toUpperCase().padStart(16, "0");
  }

  private receive(request: IncomingMessage, response: ServerResponse): void {
    // A client that cuts the line is no news here.
    response.on("error", () => {});
    const seen: S3Request = {
      at: Date.now(),
      method: request.method ?? "",
      operation: "Unknown",
      bucket: undefined,
      key: undefined,
      status: 0,
    };
    this.log.remember(seen);
    const requestId = this.newRequestId();
    try {
      const target = parseTarget(request.url ?? "/");
      const signer = readSigner(request, target.query);
      const copies = request.headers["x-amz-copy-source"] !== undefined;
      seen.operation = this.operations.name(seen.method, target, copies);
      seen.bucket = target.bucket;
      seen.key = target.key;
      const versionId = target.query.get("versionId");
      if (versionId !== undefined) seen.version_id = versionId;
      if (signer.access_key_id !== undefined) seen.access_key_id = signer.access_key_id;

      const { fault, delay_ms: faultDelayMs } = this.faults.strike(seen);
      if (fault !== undefined) seen.fault = fault.with;
      else if (faultDelayMs > 0) seen.fault = "latency";
      const { headers } = request;
      const work = (body: string): S3Answer =>
        this.operations.perform({ seen, target, signer, body, request_id: requestId, headers });
      const passage: Passage = { request, response, seen, request_id: requestId, fault, work };
      const delayMs = this.latencyMs + faultDelayMs;
      if (delayMs > 0) setTimeout(() => this.proceed(passage), delayMs).unref();
      else this.proceed(passage);
    } catch (error) {
      this.refuse(response, seen, requestId, error);
    }
  }

  private proceed(passage: Passage): void {
    const { request, seen, fault } = passage;
    if (fault?.with === "hang" || fault?.with === "reset") {
      this.log.count(seen);
      if (fault.with === "reset") request.socket.resetAndDestroy();
      return;
    }
    // Only a POST has a body that matters; Node drops the others unread.
    if (request.method !== "POST") {
      this.answer(passage, "");
      return;
    }
    readBody(request, (body) => {
      if (body === undefined) this.log.count(seen);
      else this.answer(passage, body);
    });
  }

  private answer(passage: Passage, body: string | S3Error): void {
    const { request, response, seen, request_id: requestId, fault } = passage;
    try {
      if (body instanceof S3Error) throw body;
      if (fault?.with === "garbage") {
        this.send(response, seen, requestId, garbage(fault.status ?? 502));
        return;
      }
      const error = fault === undefined ? undefined : faultError(fault);
      if (error !== undefined) throw error;
      const answer = passage.work(body);
      if (fault?.with === "headers") answer.headers = { ...lowerCase(answer.headers), ...fault.headers };
      if (fault?.with === "drop_after_accept") {
        this.log.count(seen);
        request.socket.destroy();
        return;
      }
      this.send(response, seen, requestId, answer);
    } catch (error) {
      this.refuse(response, seen, requestId, error);
    }
  }

  private refuse(response: ServerResponse, seen: S3Request, requestId: string, error: unknown): void {
    // Anything but an S3Error is a bug in here: better loud than as an S3 that has a bad day.
    if (!(error instanceof S3Error)) throw error;
    seen.code = error.code;
    const headers = { "Content-Type": "application/xml", ...error.headers };
    this.send(response, seen, requestId, { status: error.status, headers, body: errorXml(error, requestId) });
  }

  private send(response: ServerResponse, seen: S3Request, requestId: string, answer: S3Answer): void {
    seen.status = answer.status;
    this.log.count(seen);
    const headers = present({
      server: "AmazonS3",
      "x-amz-request-id": requestId,
      "x-amz-id-2": hostId(requestId),
      ...lowerCase(answer.headers),
    });
    // A wrong length would spoil the next answer on this connection: be loud instead.
    response.strictContentLength = true;
    if (seen.method === "HEAD") {
      // Never a body, not even of an error: that is why SDKs cannot name what a HEAD met.
      response.writeHead(answer.status, headers).end();
    } else if (answer.stream !== undefined) {
      response.writeHead(answer.status, headers);
      Readable.from(answer.stream).pipe(response);
    } else {
      const body = answer.body ?? "";
      headers["content-length"] = String(Buffer.byteLength(body));
      response.writeHead(answer.status, headers).end(body);
    }
  }
}

type Headers = Record<string, string | undefined>;

const lowerCase = (headers: Headers): Headers =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));

const present = (headers: Headers): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );

/** What a proxy in between says when it has an opinion of its own. */
function garbage(status: number): S3Answer {
  const body = `<html>\r\n<head><title>${status}</title></head>\r\n<body>\r\n<center><h1>${status}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n`;
  const headers = {
    server: "nginx",
    "content-type": "text/html",
    "x-amz-request-id": undefined,
    "x-amz-id-2": undefined,
  };
  return { status, headers, body };
}
