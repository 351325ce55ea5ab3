import { rm } from "node:fs/promises";

import type { Programs } from "../../server/postgres/embedded/binaries.ts";
import { startEmbeddedPostgres, type EmbeddedPostgres } from "../../server/postgres/embedded/start.ts";

type Settings = Record<string, string>;

/** The tests kill Postgres, never the machine: the kernel keeps what was written. */
export const UNSAFE: Settings = { fsync: "off", full_page_writes: "off" };

/** A Postgres of one's own, to be stopped and started. */
export class PrivatePostgres implements Pick<EmbeddedPostgres, "url"> {
  readonly dir: string;
  readonly #options: { settings: Settings; programs: Programs | undefined };
  #running: EmbeddedPostgres;

  private constructor(
    dir: string,
    options: { settings: Settings; programs: Programs | undefined },
    running: EmbeddedPostgres,
  ) {
    this.dir = dir;
    this.#options = options;
    this.#running = running;
  }

  /** Without programs, the Postgres that npm brings. */
  static async start(
    dir: string,
    settings: Settings = UNSAFE,
    programs?: Programs,
  ): Promise<PrivatePostgres> {
    const options = { settings, programs };
    return new PrivatePostgres(dir, options, await startEmbeddedPostgres({ dir, ...options }));
  }

  get url(): string {
    return this.#running.url;
  }

  get dataDirectory(): string {
    return this.#running.dataDirectory;
  }

  async stop(mode: "fast" | "immediate" = "immediate"): Promise<void> {
    await this.#running.stop(mode);
  }

  /** On the same port as before. */
  async start(): Promise<void> {
    const port = Number(new URL(this.url).port);
    this.#running = await startEmbeddedPostgres({ dir: this.dir, ...this.#options, port });
  }

  async remove(): Promise<void> {
    await this.#running.stop("immediate");
    await rm(this.#running.dataDirectory, { recursive: true, force: true });
    await rm(this.dir, { recursive: true, force: true });
  }
}
