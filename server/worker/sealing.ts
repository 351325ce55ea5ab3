import type { NotificationKind } from "../postgres/rows.ts";
import type { RenderedMail } from "../mail/render.ts";
import { senderOf } from "../mail/resend.ts";
import { isConflict, isTooSlow, isUnavailable } from "../postgres/errors.ts";
import type { TaskContext } from "./task.ts";

/** Another transaction may hold a person's rows for a moment. */
const SEAL_TRIES = 3;

/** If a mail cannot be sealed (our bug, or rows that somebody keeps locked), it is tried again later, and the others go on. */
export async function attempt<T>(
  context: TaskContext,
  kind: NotificationKind | "notice",
  work: () => Promise<T>,
): Promise<T | undefined> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (isUnavailable(error) && !isTooSlow(error)) throw error;
      if (isConflict(error) && attempt < SEAL_TRIES) continue;
      // The address stays out of the log: stuck_requests has it.
      context.log.error({ err: error, kind }, "a mail could not be sealed");
      return undefined;
    }
  }
}

/** The mail as Resend gets it. */
export function bodyOf(
  { settings }: Pick<TaskContext, "settings">,
  id: string,
  email: string,
  { subject, html, text }: RenderedMail,
): string {
  return JSON.stringify({
    ...senderOf(settings),
    to: [email],
    subject,
    html,
    text,
    // No out-of-office replies (RFC 3834).
    headers: { "Auto-Submitted": "auto-generated" },
    tags: [{ name: "notification_id", value: id }],
  });
}
