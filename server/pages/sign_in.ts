/** Who may see the pages: everybody with the password. The user name is theirs to choose, and is the actor in `actions`. */
import { setTimeout as sleep } from "node:timers/promises";

import { getConnInfo } from "@hono/node-server/conninfo";
import type { Context, MiddlewareHandler } from "hono";
import { basicAuth } from "hono/basic-auth";
import { timingSafeEqual } from "hono/utils/buffer";

import type { Log } from "../log.ts";
import { plain } from "./text.ts";

export interface PagesEnv {
  Variables: { actor: string };
}

/** A failed log-in is answered that much after the failed one before it, whoever sends them. */
const PAUSE_MS = 500;

/** More need not wait: connections are for the others. Someone who sends so many gains nothing, the password is too long. */
const MOST_WAITING = 20;

const NAME = /^(?=.*\S)[^\p{C}]{1,100}$/u;

export function signIn(password: string, log: Log): MiddlewareHandler<PagesEnv> {
  let pause: Promise<unknown> = Promise.resolve();
  let waiting = 0;
  let untold = 0;
  const slowDown = async (): Promise<void> => {
    waiting++;
    pause = pause.then(() => sleep(PAUSE_MS));
    await pause;
    waiting--;
  };
  return basicAuth({
    realm: "Thaw",
    invalidUserMessage: "Sign in with your own name as user name, and with the password from OPS_PASSWORD.\n",
    verifyUser: async (name, given, c) => {
      const isRight = await timingSafeEqual(password, given);
      if (isRight && NAME.test(name)) return true;
      // People type a password into the wrong field.
      const shown =
        name.includes(password) || name.includes(given) ? "(not shown)" : plain(name).slice(0, 100);
      // Nobody may fill the disk with lines: what is not slowed down is counted.
      if (waiting >= MOST_WAITING) {
        untold++;
        return false;
      }
      log.warn(
        {
          user: shown,
          address: addressOf(c),
          wrong: isRight ? "user name" : "password",
          ...(untold > 0 && { others_since_the_last_line: untold }),
        },
        "a log-in to the pages failed",
      );
      untold = 0;
      await slowDown();
      return false;
    },
    onAuthSuccess: (c, name) => c.set("actor", name),
  });
}

/** Behind a proxy: whom the proxy names. Only for the log: anybody may send this header. */
function addressOf(c: Context): string {
  const forwarded = c.req.header("x-forwarded-for");
  let address = "unknown";
  try {
    address = getConnInfo(c).remote.address ?? address;
  } catch {
    // Without a socket, in tests.
  }
  return forwarded === undefined ? address : `${address}, for ${plain(forwarded).slice(0, 100)}`;
}
