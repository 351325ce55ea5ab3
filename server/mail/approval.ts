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
        ` has read ${one ? "a file" : files(file_count)} of ${size(bytes)}. ` +
          (estimated_cost === null
            ? "There are no prices to estimate what a restore costs."
            : `Restoring ${one ? "it" : "them"} costs ${estimated(estimated_cost)}.`),
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
        `Approved, ${one ? "it is" : "they are"} restored at once and counted, whatever the limits say. Refused, or without a decision by ${moment(hold.expires_at)}, ` +
          `${one ? "it is" : "they are"} not, and who reads ${one ? "it" : "them"} is told. Until then more files of the same reader may join, without another mail.`,
      ),
      {
        kind: "files",
        files: contents.files.map((file) => entry(file, [])),
        more: more(file_count, contents.files.length),
      },
    ],
    footer: [["Each approver gets this mail; the first decision counts."], ...APPROVERS_FOOTER],
  };
}
