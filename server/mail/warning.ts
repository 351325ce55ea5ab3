/** To each of APPROVERS: a limit is nearly used up. */
import { dollars } from "../wording/dollars.ts";
import { size } from "../wording/sizes.ts";
import { moment } from "../wording/times.ts";
import type { MailDocument } from "./document.ts";
import type { WarningContents } from "./input.ts";
import { APPROVERS_FOOTER, lead, number, paragraph } from "./words.ts";

export function warningMail(contents: WarningContents): MailDocument {
  const { limit, per, person, resets_at, page } = contents;
  const measures = measuresOf(contents);
  const [most] = measures.toSorted((a, b) => b.part - a.part);
  const percent = Math.floor(100 * (most?.part ?? 1));
  const what = `A limit is ${percent} % used up`;
  return {
    subject: `${what} ${per === "day" ? "today" : "this month"}: ${most?.words ?? ""}`,
    preheader: "What is beyond a limit waits for approval.",
    tone: "expired",
    heading: what,
    blocks: [
      lead(
        `Used ${per === "day" ? "today" : "this month"}${person === "" ? "" : " by "}`,
        ...(person === "" ? [] : [{ code: person }]),
        `: ${measures.map(({ words }) => words).join("; ")}.`,
      ),
      paragraph("The limit: ", { code: limit }, `. It begins anew on ${moment(resets_at)}.`),
      paragraph(
        "What is beyond it waits for approval, and you get a mail of that. You need not do anything now. " +
          (page === null ? "To look at all limits, where Thaw runs:" : "To look at all limits: "),
        ...(page === null ? [] : [{ page }]),
      ),
      ...(page === null ? [{ kind: "commands" as const, lines: ["npm run thaw -- limit list"] }] : []),
    ],
    footer: APPROVERS_FOOTER,
  };
}

/** "18 of 20 files", "an estimated $18.20 of $20.00": each measure that the limit has. */
function measuresOf({ used, most }: WarningContents): { words: string; part: number }[] {
  // A limit of 0 is used up by nothing.
  const part = (of: number | string, all: number | string): number =>
    Number(all) > 0 ? Number(of) / Number(all) : 1;
  return [
    ...(most.objects === null
      ? []
      : [
          {
            words: `${number(used.objects)} of ${number(most.objects)} files`,
            part: part(used.objects, most.objects),
          },
        ]),
    ...(most.bytes === null
      ? []
      : [{ words: `${size(used.bytes)} of ${size(most.bytes)}`, part: part(used.bytes, most.bytes) }]),
    ...(most.cost === null
      ? []
      : [
          {
            words: `an estimated ${dollars(used.cost)} of ${dollars(most.cost)}`,
            part: part(used.cost, most.cost),
          },
        ]),
  ];
}
