/** To a reader whose files wait for approval: how many, what they cost, and whom to ask. */
import { estimated } from "../wording/dollars.ts";
import { size } from "../wording/sizes.ts";
import { moment } from "../wording/times.ts";
import type { MailDocument } from "./document.ts";
import type { HeldContents } from "./input.ts";
import { approversInWords, entry, files, footer, lead, more, paragraph } from "./words.ts";

export function heldMail(contents: HeldContents): MailDocument {
  const { hold, file_count, bytes, estimated_cost, approvers } = contents;
  const one = file_count === 1;
  const what = one ? "Your file needs approval" : `Your ${files(file_count)} need approval`;
  const again = `We write again when ${one ? "it is" : "they are"} being restored, or when the answer is no.`;
  return {
    subject: `${what}: ${[size(bytes), ...(estimated_cost === null ? [] : [estimated(estimated_cost)])].join(", ")}`,
    preheader: "Nothing is restored before somebody has approved it. Whom to ask, and until when.",
    tone: "expired",
    heading: what,
    blocks: [
      lead(
        one
          ? `It is ${size(bytes)}${estimated_cost === null ? "" : `; restoring it costs ${estimated(estimated_cost)}`}. `
          : `Together they are ${size(bytes)}${estimated_cost === null ? "" : `; restoring them costs ${estimated(estimated_cost)}`}. `,
        "Somebody has to approve that first.",
      ),
      paragraph(
        `You tried to read ${one ? "a file that lies" : "files that lie"} in archive storage. Amazon S3 can bring ${one ? "it" : "them"} back, ` +
          `but that is paid for. Why ${one ? "it waits" : "they wait"}: ${hold.reason}.`,
      ),
      paragraph(
        "Whom to ask: ",
        ...approversInWords(approvers),
        `. If nobody approves by ${moment(hold.expires_at)}, nothing is restored. ${again}`,
      ),
      {
        kind: "files",
        files: contents.files.map((file) => entry(file, [])),
        more: more(file_count, contents.files.length),
      },
    ],
    footer: footer(contents),
  };
}
