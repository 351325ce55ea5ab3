/** The operator's pages without a socket, and a person who knows the password. */
import type { Hono } from "hono";
import type { Pool } from "pg";

import { createLog, type Log } from "../../server/log.ts";
import { createPages } from "../../server/pages/app.ts";
import type { PagesEnv } from "../../server/pages/sign_in.ts";

export const PASSWORD = "a-password-for-the-pages";

export const basic = (name: string, password = PASSWORD): string =>
  `Basic ${Buffer.from(`${name}:${password}`).toString("base64")}`;

export interface Seen {
  status: number;
  text: string;
  headers: Headers;
}

export interface Operator {
  app: Hono<PagesEnv>;
  get(path: string, headers?: Record<string, string>): Promise<Seen>;
  /** Sends a form as a browser does, from the same origin. */
  post(path: string, fields: Record<string, string>, headers?: Record<string, string>): Promise<Seen>;
}

export function operator(
  pool: Pool,
  {
    log = createLog("silent"),
    name = "Ada",
    public_url,
  }: { log?: Log; name?: string; public_url?: string } = {},
): Operator {
  const app = createPages({ pool, password: PASSWORD, log, public_url });
  const seen = async (answer: Response | Promise<Response>): Promise<Seen> => {
    const response = await answer;
    return { status: response.status, text: await response.text(), headers: response.headers };
  };
  return {
    app,
    get: (path, headers = {}) =>
      seen(app.request(path, { headers: { authorization: basic(name), ...headers } })),
    post: (path, fields, headers = {}) =>
      seen(
        app.request(path, {
          method: "POST",
          headers: {
            authorization: basic(name),
            "content-type": "application/x-www-form-urlencoded",
            "sec-fetch-site": "same-origin",
            ...headers,
          },
          body: new URLSearchParams(fields).toString(),
        }),
      ),
  };
}
