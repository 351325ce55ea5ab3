/** How far a long command is: a bar on a terminal, plain lines elsewhere. */

/** Often enough for the eye. */
const REDRAW_MS = 100;
/** Rarely enough for a log. */
const LINE_MS = 10_000;

/** So that a million of a million fits into 80 columns. */
const BAR_WIDTH = 16;

const count = (n: number): string => n.toLocaleString("en-US");

export class Progress {
  readonly #what: string;
  readonly #redraw: ((line: string) => void) | undefined;
  readonly #say: (line: string) => void;
  readonly #started_at = performance.now();
  #shown_at: number;

  constructor(what: string, redraw: ((line: string) => void) | undefined, say: (line: string) => void) {
    this.#what = what;
    this.#redraw = redraw;
    this.#say = say;
    this.#shown_at = redraw === undefined ? this.#started_at : -Infinity;
  }

  at(done: number, total?: number): void {
    const now = performance.now();
    if (now - this.#shown_at < (this.#redraw === undefined ? LINE_MS : REDRAW_MS)) return;
    this.#shown_at = now;
    const words = `${count(done)}${total === undefined ? "" : ` of ${count(total)}`} ${this.#what}`;
    if (this.#redraw === undefined) this.#say(words);
    else this.#redraw(total === undefined ? words : `${this.#bar(done, total, now)}  ${words}`);
  }

  /** What comes next is written on a clean line. */
  end(): void {
    this.#redraw?.("");
  }

  #bar(done: number, total: number, now: number): string {
    const part = total === 0 ? 1 : done / total;
    const filled = Math.round(part * BAR_WIDTH);
    const left_s =
      done === 0 ? undefined : Math.ceil((((now - this.#started_at) / done) * (total - done)) / 1000);
    const left =
      left_s === undefined || left_s < 2
        ? ""
        : `, ${left_s < 120 ? `${left_s} s` : `${Math.ceil(left_s / 60)} min`} left`;
    return `[${"#".repeat(filled)}${"-".repeat(BAR_WIDTH - filled)}] ${Math.floor(part * 100)} %${left}`;
  }
}
