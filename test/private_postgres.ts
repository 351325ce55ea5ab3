import { rm } from "node:fs/promises";

import { startEmbeddedPostgres, type EmbeddedPostgres } from "../server/embedded_postgres/start.ts";

/** A Postgres of one's own, to be stopped and started. */
export class PrivatePostgres implements Pick<EmbeddedPostgres, "url"> {
  readonly dir: string;
  #running: EmbeddedPostgres;

  constructor(dir: string, running: EmbeddedPostgres) {
    this.dir = dir;
    this.#running = running;
  }

  static async start(dir: string): Promise<PrivatePostgres> {
    return new PrivatePostgres(dir, await PrivatePostgres.#launch(dir));
  }

  static #launch(dir: string): Promise<EmbeddedPostgres> {
    return startEmbeddedPostgres({ dir, settings: { fsync: "off", full_page_writes: "off" } });
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
    this.#running = await PrivatePostgres.#launch(this.dir);
  }

  async remove(): Promise<void> {
    await this.#running.stop("immediate");
    await rm(this.#running.dataDirectory, { recursive: true, force: true });
    await rm(this.dir, { recursive: true, force: true });
  }
}
