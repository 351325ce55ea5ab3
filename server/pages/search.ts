/** What somebody means who types something into the search box. */
import type { Match } from "./queries.ts";
import { isId } from "./urls.ts";

export type SearchFor =
  | { kind: "nothing" }
  | { kind: "id"; text: string }
  | { kind: "object"; bucket: string; text: string }
  | { kind: "reads"; match: Match; text: string };

export function searchOf(q: string): SearchFor {
  if (q === "") return { kind: "nothing" };
  if (isId(q)) return { kind: "id", text: q };
  const isPrefix = q.endsWith("*");
  const text = isPrefix ? q.slice(0, -1) : q;
  if (q.startsWith("s3://")) {
    const [, bucket, key] = /^s3:\/\/([^/]+)\/(.+)$/s.exec(q) ?? [];
    if (bucket === undefined || key === undefined || isPrefix || q.endsWith("/"))
      return { kind: "reads", match: "path_prefix", text };
    return { kind: "object", bucket, text: key };
  }
  if (/^[^@\s/]+@[^@\s/]+$/.test(q)) return { kind: "reads", match: "address", text: q };
  if (q.startsWith("arn:")) return { kind: "reads", match: isPrefix ? "reader_prefix" : "reader", text };
  // Keys of AWS. Of other stores any word may be one; there a file's name is meant more often.
  if (/^A[A-Z]{3}[A-Z0-9]{12,28}\*?$/.test(q))
    return { kind: "reads", match: isPrefix ? "reader_prefix" : "reader", text };
  return { kind: "reads", match: "key_prefix", text };
}
