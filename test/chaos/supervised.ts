import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { join } from "node:path";

import { baseEnv } from "../support/fast_run.ts";
import { waitFor } from "../support/wait_for.ts";

/** A process as a supervisor keeps it: started again whenever it ends, until told to stop. */
export class Supervised {
  readonly name: string;
  /** Its newest lines, for whoever has to find out why. */
  readonly lines: string[] = [];
  restarts = 0;
  readonly #start: () => ChildProcess;
  #child: ChildProcess | undefined;
  #wanted = true;

  constructor(name: string, root: string, roles: string[], env: Record<string, string>) {
    this.name = name;
    this.#start = () =>
      spawn(process.execPath, [join(root, "server", "main.ts"), ...roles], {
        env: { ...baseEnv(root), ...env },
        stdio: ["ignore", "pipe", "pipe"],
      });
    this.#launch();
  }

  #launch(): void {
    const child = this.#start();
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue;
      createInterface(stream).on("line", (line) => {
        this.lines.push(line);
        if (this.lines.length > 400) this.lines.splice(0, 200);
      });
    }
    child.once("close", () => {
      if (!this.#wanted || this.#child !== child) return;
      this.restarts++;
      // A supervisor's pause between two starts.
      setTimeout(() => this.#wanted && this.#launch(), 300);
    });
  }

  kill(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** Ends it for good, without a word. */
  abandon(): void {
    this.#wanted = false;
    this.#child?.kill("SIGKILL");
  }

  /** Ends it for good; answers how it ended. */
  async stop(): Promise<number | string> {
    this.#wanted = false;
    const child = this.#child;
    if (child === undefined) return "never ran";
    if (child.exitCode === null && child.signalCode === null) {
      const closed = once(child, "close");
      child.kill("SIGCONT");
      child.kill("SIGTERM");
      await waitFor(
        `${this.name} to end`,
        async () => child.exitCode !== null || child.signalCode !== null,
        15_000,
      ).catch(() => child.kill("SIGKILL"));
      await closed;
    }
    return child.exitCode ?? child.signalCode ?? "lost";
  }
}
