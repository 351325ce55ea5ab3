/** More than fits into memory, between two passes: in a temporary file that has no name, so that nothing of it is left behind. */
import { mkdtemp, open, rm, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Keys of 1,024 bytes make it a megabyte. */
const PAGE = 1000;

export class Spool<Item> {
  readonly #file: FileHandle;
  #page: Item[] = [];
  /** In bytes: where each page ends. */
  readonly #ends: number[] = [];
  #count = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  static async open<Item>(): Promise<Spool<Item>> {
    const directory = await mkdtemp(join(tmpdir(), "thaw-"));
    try {
      return new Spool(await open(join(directory, "spool"), "wx+", 0o600));
    } finally {
      await rm(directory, { recursive: true });
    }
  }

  get count(): number {
    return this.#count;
  }

  async add(item: Item): Promise<void> {
    this.#count += 1;
    this.#page.push(item);
    if (this.#page.length === PAGE) await this.#write();
  }

  /** As they were added; nothing is added any more. */
  async *pages(): AsyncGenerator<Item[]> {
    if (this.#page.length > 0) await this.#write();
    let from = 0;
    for (const end of this.#ends) {
      const bytes = Buffer.alloc(end - from);
      for (let read = 0; read < bytes.length;) {
        const { bytesRead } = await this.#file.read(bytes, read, bytes.length - read, from + read);
        if (bytesRead === 0) throw new Error("the temporary file has been cut off");
        read += bytesRead;
      }
      yield JSON.parse(bytes.toString("utf8")) as Item[];
      from = end;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #write(): Promise<void> {
    const bytes = Buffer.from(JSON.stringify(this.#page));
    await this.#file.appendFile(bytes);
    this.#ends.push((this.#ends.at(-1) ?? 0) + bytes.length);
    this.#page = [];
  }
}
