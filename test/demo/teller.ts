/** Tells what happens line by line, with the seconds since the beginning. */

const plain = !process.stdout.isTTY || process.env["NO_COLOR"] !== undefined;
const paint = (code: number) => (text: string) => (plain ? text : `\u001b[${code}m${text}\u001b[0m`);

export const bold = paint(1);
export const dim = paint(2);
export const red = paint(31);

/** Who does something, one colour each. */
const WHO = {
  reader: paint(36),
  S3: paint(33),
  lambda: paint(35),
  Thaw: paint(34),
  mail: paint(32),
} as const;

export interface Teller {
  tell: (who: keyof typeof WHO, what: string) => void;
  say: (line?: string) => void;
  seconds: () => number;
}

export function createTeller(): Teller {
  const began = performance.now();
  const seconds = (): number => (performance.now() - began) / 1000;
  return {
    seconds,
    say: (line = "") => void process.stdout.write(`${line}\n`),
    tell(who, what) {
      process.stdout.write(`${dim(seconds().toFixed(1).padStart(5))}  ${WHO[who](who.padEnd(7))} ${what}\n`);
    },
  };
}
