/** What cannot be shown or done, and what to do about it: a page instead of a stack. */
import { html } from "hono/html";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";

import {
  isBadValue,
  isForbidden,
  isPoolBusy,
  isReadOnly,
  isTooSlow,
  isUnavailable,
} from "../postgres/errors.ts";
import { link } from "./layout.ts";
import { Changed } from "./queries.ts";
import { visible, type Html } from "./text.ts";
import { urls } from "./urls.ts";

/** A reason for a person; `title` is the heading. */
export class PageProblem extends Error {
  override name = "PageProblem";
  readonly status: ContentfulStatusCode;
  readonly title: string;

  constructor(status: ContentfulStatusCode, title: string, message: string) {
    super(message);
    this.status = status;
    this.title = title;
  }
}

export const notFound = (): PageProblem =>
  new PageProblem(
    404,
    "There is no such page",
    "The address is wrong, or what it shows was deleted (RETENTION_DAYS).",
  );

const stateOf = (error: unknown): string => {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
};

export function problemOf(error: unknown): PageProblem {
  if (error instanceof PageProblem) return error;
  if (error instanceof HTTPException) {
    return error.status === 403
      ? new PageProblem(
          403,
          "Not taken",
          "This form came from another site, or through a proxy whose address Thaw does not know: set PUBLIC_URL to the address in the browser.",
        )
      : new PageProblem(
          error.status,
          "Not taken",
          "The browser sent something else than a form of these pages.",
        );
  }
  if (error instanceof Changed)
    return new PageProblem(
      409,
      "Nothing was done",
      "It has changed since the page that you confirmed: look at it again. Somebody else may have acted, or Thaw has gone on with it.",
    );
  // A NUL byte in an address, say.
  if (isBadValue(error))
    return new PageProblem(400, "Not found", "The database cannot hold such a text, so nothing has it.");
  // The operators' functions refuse with a sentence.
  if (stateOf(error) === "P0002")
    return new PageProblem(404, "It is not there any more", (error as Error).message);
  if (stateOf(error) === "55000") return new PageProblem(409, "Nothing was done", (error as Error).message);
  if (isTooSlow(error) || stateOf(error) === "55P03")
    return new PageProblem(
      503,
      "This took too long",
      "Postgres did not answer within 3 seconds. It may be busy, or somebody keeps a table or a row locked; or this list needs a narrower filter. Reload to try again.",
    );
  if (isPoolBusy(error))
    return new PageProblem(
      503,
      "Too many pages at once",
      "All connections of these pages are in use, perhaps by lists that take long. Postgres may be well. Reload to try again.",
    );
  if (isReadOnly(error))
    return new PageProblem(
      503,
      "Postgres is read-only",
      "Nothing can be done now: a failover, or a full disk.",
    );
  if (isUnavailable(error))
    return new PageProblem(
      503,
      "Postgres does not answer",
      "So nothing is restored and no mail goes out, and nothing of that is lost: events wait in their queue. Is Postgres running? The log of this process says what it answers.",
    );
  if (isForbidden(error))
    return new PageProblem(
      403,
      "The database role may not do this",
      "These pages connect with a role that lacks the right. Let PAGES_DATABASE_URL name thaw_operator, and run npm run migrate once after the role was made.",
    );
  // A view, column or function is missing.
  if (["42P01", "42703", "42883"].includes(stateOf(error)))
    return new PageProblem(
      503,
      "The database has another version",
      "It is older or newer than these pages. Run: npm run migrate",
    );
  return new PageProblem(
    500,
    "This page failed",
    "That is a mistake in Thaw. The log of this process has the details.",
  );
}

export const problemPage = ({ message }: PageProblem): Html =>
  html`<p class="card note">${visible(message)}</p>
    <p>${link(urls.overview(), "To the overview")}</p>`;
