/** What somebody means who types something into the search box. */
import type { Name, ReadsOf } from "./queries.ts";
import { isId } from "./urls.ts";

export type SearchFor =
  | { kind: "nothing" }
  | { kind: "id"; text: string }
  | { kind: "object"; bucket: string; text: string }
  | ({ kind: "names" } & Name)
  | { kind: "reads"; of: ReadsOf; text: string };

export function searchOf(q: string): SearchFor {
  if (q === "") return { kind: "nothing" };
  if (isId(q)) return { kind: "id", text: q };
  // The reader of an order, as lists show it.
  const address = /^mailto:([^@\s/]+@[^@\s/]+)$/i.exec(q)?.[1];
  if (address !== undefined) return { kind: "reads", of: "address", text: address };
  const isPrefix = q.endsWith("*");
  const text = isPrefix ? q.slice(0, -1) : q;
  if (q.startsWith("s3://")) {
    const [, bucket = "", slash, key = ""] = /^s3:\/\/([^/]*)(\/?)(.*)$/s.exec(text) ?? [];
    if (isPrefix || key === "" || key.endsWith("/"))
      return { kind: "names", bucket, is_whole: slash !== "", key };
    return { kind: "object", bucket, text: key };
  }
  // IAM's ids of users and sessions. Before addresses, which a session may be named by.
  if (/^A(IDA|ROA)[A-Z0-9]{17}(:|\*?$)/.test(q))
    return { kind: "reads", of: isPrefix ? "reader_prefix" : "reader", text };
  if (/^[^@\s/]+@[^@\s/]+$/.test(q)) return { kind: "reads", of: "address", text: q };
  if (q.startsWith("arn:")) return { kind: "reads", of: isPrefix ? "reader_prefix" : "reader", text };
  // Keys of AWS. Of other stores any word may be one; there a file's name is meant more often.
  if (/^A[A-Z]{3}[A-Z0-9]{12,28}\*?$/.test(q))
    return { kind: "reads", of: isPrefix ? "reader_prefix" : "reader", text };
  return { kind: "names", bucket: "", is_whole: false, key: text };
}
