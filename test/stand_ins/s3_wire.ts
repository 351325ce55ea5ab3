import type { IncomingMessage } from "node:http";
import { escapeXml } from "./s3_xml.ts";

/** What a request names: read from its path and query by hand. */
export interface S3Target {
  bucket: string | undefined;
  key: string | undefined;
  query: Map<string, string>;
}

/** Who signed, and for which Region. Signatures themselves are not checked. */
export interface S3Signer {
  access_key_id: string | undefined;
  region: string | undefined;
  presigned: boolean;
}

/** An answer before it is written, so that a fault can swallow it after the work is done. */
export interface S3Answer {
  status: number;
  /** Undefined takes away one that S3 always sends. */
  headers: Record<string, string | undefined>;
  body?: string | Buffer;
  /** Instead of a body, for content larger than memory. */
  stream?: Iterable<Buffer>;
}

/** A refusal in S3's words; the server turns it into a status and an XML body. */
export class S3Error extends Error {
  status: number;
  code: string;
  fields: Record<string, string | undefined>;
  headers: Record<string, string | undefined>;

  constructor(
    status: number,
    code: string,
    message: string,
    fields: Record<string, string | undefined> = {},
    headers: Record<string, string | undefined> = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.fields = fields;
    this.headers = headers;
  }
}

/** S3's answer to a RestoreRequest it cannot read, whatever is wrong with it. */
export function malformedXml(): S3Error {
  const message = "The XML you provided was not well-formed or did not validate against our published schema";
  return new S3Error(400, "MalformedXML", message);
}

/** S3's answer to a caller without the permission, and to a signer of the wrong account. */
export function accessDenied(): S3Error {
  return new S3Error(403, "AccessDenied", "Access Denied");
}

/**
 * Splits a request target into bucket, key and query.
 *
 * By hand, because every URL parser folds `..` and `//` away, and both are ordinary bytes of a key.
 */
export function parseTarget(url: string): S3Target {
  const question = url.indexOf("?");
  const path = question === -1 ? url : url.slice(0, question);
  const query = parseQuery(question === -1 ? "" : url.slice(question + 1));
  const slash = path.indexOf("/", 1);
  const bucket = slash === -1 ? path.slice(1) : path.slice(1, slash);
  const key = slash === -1 ? "" : path.slice(slash + 1);
  return {
    bucket: bucket === "" ? undefined : decode(bucket),
    key: key === "" ? undefined : decode(key),
    query,
  };
}

/** The object that a copy is made from: "bucket/key?versionId=", encoded like a path, with or without a slash before it. */
export function parseCopySource(header: string): S3Target {
  return parseTarget(header.startsWith("/") ? header : `/${header}`);
}

function parseQuery(text: string): Map<string, string> {
  const query = new Map<string, string>();
  for (const part of text.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = equals === -1 ? part : part.slice(0, equals);
    query.set(decode(name), equals === -1 ? "" : decode(part.slice(equals + 1)));
  }
  return query;
}

/** Decodes once. S3 reads a bare `+` as a space even in a path; clients must send `%2B`. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw new S3Error(400, "InvalidURI", "Couldn't parse the specified URI.");
  }
}

/** Reads the signer from the Authorization header or, for a presigned URL, from the query. */
export function readSigner(request: IncomingMessage, query: Map<string, string>): S3Signer {
  const presigned = query.get("X-Amz-Credential");
  const header = request.headers.authorization;
  const credential = presigned ?? /Credential=([^,\s]+)/.exec(header ?? "")?.[1];
  const [accessKeyId, , region] = credential?.split("/") ?? [];
  return { access_key_id: accessKeyId, region, presigned: presigned !== undefined };
}

/** S3's error document. */
export function errorXml(error: S3Error, requestId: string): string {
  const fields = { Code: error.code, Message: error.message, ...error.fields, RequestId: requestId };
  let xml = "";
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined) xml += `<${name}>${escapeXml(value)}</${name}>`;
  }
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error>${xml}<HostId>${hostId(requestId)}</HostId></Error>`;
}

/** The second id of every answer (x-amz-id-2). */
export function hostId(requestId: string): string {
  return `${requestId}StandInHostId=`;
}

/** A RestoreRequest is a few hundred bytes; S3 closes the door long before this. */
const MAX_BODY_BYTES = 1_048_576;

/** Reads a request body whole; undefined when the client left in the middle of it. */
export function readBody(request: IncomingMessage, done: (body: string | undefined | S3Error) => void): void {
  const chunks: Buffer[] = [];
  let length = 0;
  request.on("data", (chunk: Buffer) => {
    length += chunk.length;
    // The rest is read and dropped, so that the client gets to hear the answer.
    if (length <= MAX_BODY_BYTES) chunks.push(chunk);
  });
  request.on("end", () => {
    if (length > MAX_BODY_BYTES) {
      done(new S3Error(400, "MaxMessageLengthExceeded", "Your request was too big."));
    } else {
      done(Buffer.concat(chunks).toString("utf8"));
    }
  });
  request.on("error", () => done(undefined));
}
