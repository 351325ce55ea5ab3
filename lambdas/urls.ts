/** Addresses to which secrets and credentials are sent. */
import { Unreachable } from "./failures.ts";

const EXAMPLE: Readonly<Record<string, string>> = {
  THAW_URL: "https://<host of Thaw>",
  DEAD_LETTER_QUEUE_URL: "https://sqs.<Region>.amazonaws.com/<account>/<name>",
};

/** The address in that environment variable. @throws unless what is secret can be sent there safely. */
export function safeUrl(name: "THAW_URL" | "DEAD_LETTER_QUEUE_URL"): URL {
  const url = URL.parse(process.env[name] ?? "");
  // The value is not quoted: it may hold a password.
  if (url === null) throw new Unreachable(`${name} is missing or no URL. Set it to ${EXAMPLE[name]}.`);
  if (url.username !== "" || url.password !== "") {
    throw new Unreachable(`${name} must not hold a user name or password.`);
  }
  if (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url.hostname))) {
    throw new Unreachable(
      `${name} must begin with https:// (it begins with ${url.protocol}//): what is secret never travels over plain HTTP, except to this very machine.`,
    );
  }
  return url;
}

// URL has normalised every form of an IPv4 address ("127.1", "0x7f.1") to four numbers.
const isLoopback = (hostname: string): boolean =>
  hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
