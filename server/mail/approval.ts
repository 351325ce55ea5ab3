/** To each of APPROVERS: a hold to decide about. */
import { estimated } from "../wording/dollars.ts";
import { size } from "../wording/sizes.ts";
import { moment } from "../wording/times.ts";
import type { MailDocument } from "./document.ts";
import type { ApprovalContents } from "./input.ts";
import { APPROVERS_FOOTER, entry, files, lead, more, paragraph } from "./words.ts";

export function approvalMail(contents: ApprovalContents): MailDocument {
  const { hold, file_count, bytes, estimated_cost, page } = contents;
  const one = file_count === 1;
  const cost = estimated_cost === null ? [] : [estimated(estimated_cost)];
  const what = `${files(file_count)} ${one ? "waits" : "wait"} for approval`;
  return {
    subject: `${what}: ${[size(bytes), ...cost].join(", ")}`,
    preheader: `Approve or refuse until ${moment(hold.expires_at)}.`,
    tone: "expired",
    heading: what,
    blocks: [
      lead(
        { code: hold.person },
        ` ${one ? "has read a file" : `has read ${files(file_count)}`} of ${size(bytes)}. To restore ${one ? "it" : "them"} ` +
          (estimated_cost === null
            ? "costs we do not know how much."
            : `costs ${estimated(estimated_cost)}.`),
      ),
      paragraph(
        `Why ${one ? "it waits" : "they wait"}: ${hold.reason}. The first has waited since ${moment(hold.opened_at)}.`,
      ),
      ...(page === null ? [] : [paragraph("To look at and to decide: ", { page })]),
      paragraph(page === null ? "To look at and to decide, where Thaw runs:" : "Or where Thaw runs:"),
      {
        kind: "commands",
        lines: ["show", "approve", "refuse"].map((action) => `npm run thaw -- hold ${action} ${hold.id}`),
      },
      paragraph(
        `Approved, ${one ? "it is" : "they are"} restored at once, beyond the limit. Refused, or without a decision by ${moment(hold.expires_at)}, ` +
          `${one ? "it is" : "they are"} not, and who reads ${one ? "it" : "them"} is told. Until then more files of the same reader may join, without another mail.`,
      ),
      {
        kind: "files",
        files: contents.files.map((file) => entry(file, [])),
        more: more(file_count, contents.files.length),
      },
    ],
    footer: APPROVERS_FOOTER,
  };
}
