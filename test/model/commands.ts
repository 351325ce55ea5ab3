import * as fc from "fast-check";

/** What may happen, in any order. Objects, readers and keys are few, so that things meet. */
export type Command =
  /** A failed read, told `late_minutes` after it was made. */
  | { do: "read"; object: number; reader: number; late_minutes: number }
  | {
      do: "completed";
      object: number;
      as: "told" | "forged" | "wrong version" | "expired" | "old" | "without expiry";
    }
  /** How far the worker gets: it may die with its claim, or report only after others have claimed the row; S3 may refuse RestoreObject. */
  | { do: "trigger" | "poll"; gets: "done" | "dead" | "late" | "refused" }
  /** At most so many restores a month; null: no limit. */
  | { do: "limit"; max: number | null }
  | { do: "policy"; action: "hold" | "observe" | null }
  | { do: "decide"; as: "approve" | "refuse" }
  | {
      do: "s3";
      object: number;
      turns: "finishes" | "loses" | "expires" | "deletes" | "overwrites" | "is silent" | "speaks";
    }
  | { do: "learn"; reader: number }
  | { do: "resolve" }
  | { do: "sweep" }
  | {
      do: "notify";
      kind: "pre" | "post";
      resend: "accepts" | "accepts silently" | "is away" | "refuses for now" | "refuses";
    }
  | { do: "retry"; object: number }
  | { do: "pass"; minutes: number };

export const OBJECTS = 2;
/** Two keys of one person, one of another, one whose owner is learnt later, one role without a key. */
export const READERS = [
  { access_key_id: "AKIAJANE1", principal: "", email: "jane@example.com", known: true },
  { access_key_id: "AKIAJANE2", principal: "", email: "Jane@example.com", known: true },
  { access_key_id: "AKIAJOHN", principal: "", email: "john@example.com", known: true },
  { access_key_id: "AKIALATER", principal: "", email: "later@example.com", known: false },
  {
    access_key_id: "",
    principal: "arn:aws:sts::111122223333:assumed-role/batch/x",
    email: "batch@example.com",
    known: true,
  },
] as const;

const object = fc.nat(OBJECTS - 1);
const reader = fc.nat(READERS.length - 1);
const command = <C extends Command>(fields: { [F in keyof C]: fc.Arbitrary<C[F]> }, weight: number) => ({
  arbitrary: fc.record(fields) as unknown as fc.Arbitrary<Command>,
  weight,
});
const is = <const V extends string>(...values: V[]): fc.Arbitrary<V> => fc.constantFrom(...values);

export const commands = fc.array(
  fc.oneof(
    command<Extract<Command, { do: "read" }>>(
      { do: is("read"), object, reader, late_minutes: fc.constantFrom(0, 0, 0, 4, 30, 3000, 3000) },
      6,
    ),
    command<Extract<Command, { do: "completed" }>>(
      {
        do: is("completed"),
        object,
        as: is("told", "told", "told", "forged", "wrong version", "expired", "old", "without expiry"),
      },
      6,
    ),
    command<Extract<Command, { do: "trigger" | "poll" }>>(
      {
        do: is("trigger", "poll", "poll"),
        gets: is("done", "done", "done", "done", "dead", "late", "refused"),
      },
      8,
    ),
    command<Extract<Command, { do: "s3" }>>(
      {
        do: is("s3"),
        object,
        // Mostly what S3 does all day: the others end an object's story.
        turns: is(
          ...([
            "finishes",
            "finishes",
            "finishes",
            "finishes",
            "finishes",
            "loses",
            "loses",
            "expires",
          ] as const),
          ...(["expires", "deletes", "overwrites", "is silent", "speaks", "speaks"] as const),
        ),
      },
      7,
    ),
    command<Extract<Command, { do: "limit" }>>(
      { do: is("limit"), max: fc.constantFrom(null, null, 0, 1, 3) },
      1,
    ),
    command<Extract<Command, { do: "policy" }>>(
      { do: is("policy"), action: fc.constantFrom(null, null, null, "hold", "observe") },
      1,
    ),
    command<Extract<Command, { do: "decide" }>>(
      { do: is("decide"), as: is("approve", "approve", "refuse") },
      2,
    ),
    command<Extract<Command, { do: "learn" }>>({ do: is("learn"), reader }, 1),
    command<Extract<Command, { do: "resolve" }>>({ do: is("resolve") }, 1),
    command<Extract<Command, { do: "sweep" }>>({ do: is("sweep") }, 2),
    command<Extract<Command, { do: "notify" }>>(
      {
        do: is("notify"),
        kind: is("pre", "post"),
        resend: is("accepts", "accepts", "accepts silently", "is away", "refuses for now", "refuses"),
      },
      4,
    ),
    command<Extract<Command, { do: "retry" }>>({ do: is("retry"), object }, 1),
    command<Extract<Command, { do: "pass" }>>(
      { do: is("pass"), minutes: fc.constantFrom(1, 20, 90, 600, 1500, 1500, 12_000, 12_000) },
      5,
    ),
  ),
  { minLength: 50, maxLength: 100, size: "max" },
);
