import type { Domain, Resend } from "resend";

import type { WorkerConfig } from "../../config.ts";
import { resendClient } from "../../mail/resend.ts";
import { addressIn } from "../../settings/address.ts";
import { CALL_TIMEOUT_MS, fail, ok, warn, type Finding } from "./finding.ts";

/** Resend's own, for trying out: mails from there reach only the account's owner. */
const TRIAL_DOMAIN = "resend.dev";

const MAKE_KEY = "Make one at https://resend.com/api-keys (sending access is enough) and set RESEND_API_KEY";

/** Whether Resend knows the key, and lets the sender's domain send. Sends nothing. */
export async function checkResend(
  settings: Pick<WorkerConfig, "RESEND_API_KEY" | "RESEND_BASE_URL" | "MAIL_FROM">,
): Promise<Finding> {
  const sender = (addressIn(settings.MAIL_FROM).split("@")[1] ?? "").toLowerCase();
  const answer = await listDomains(settings);
  if ("domains" in answer) return checkDomain(sender, answer.domains);
  const { name, status } = answer;
  if (status === undefined) {
    return fail("Resend", "RESEND_API_KEY has characters that no key has", MAKE_KEY);
  }
  if (name === "restricted_api_key") {
    return ok(
      "Resend",
      `knows the key; whether ${sender} is verified cannot be checked with a sending-only key, which is fine`,
    );
  }
  if (status === 0) {
    return fail(
      "Resend",
      "gives no answer",
      "Check that this machine may reach https://api.resend.com, or RESEND_BASE_URL if you set it",
    );
  }
  if (status === 429 || status >= 500) {
    return warn("Resend", `answered ${status} (${name}), so nothing could be checked`, "Try again later");
  }
  return fail("Resend", `refuses the key: ${status} (${name})`, MAKE_KEY);
}

function checkDomain(sender: string, domains: Pick<Domain, "name" | "status">[]): Finding {
  if (sender === TRIAL_DOMAIN) {
    return warn(
      "Resend",
      `mails from ${sender} reach nobody but you`,
      "Verify a domain of your own at https://resend.com/domains and set MAIL_FROM to it",
    );
  }
  // Resend verifies exact domains: example.com does not cover mail.example.com.
  const domain = domains.find(({ name }) => name.toLowerCase() === sender);
  if (domain === undefined) {
    return fail(
      "Resend",
      `knows the key, and no domain ${sender}`,
      "Add it at https://resend.com/domains, or set MAIL_FROM to a domain that is verified there",
    );
  }
  return domain.status === "verified"
    ? ok("Resend", `knows the key, and ${sender} is verified`)
    : fail(
        "Resend",
        `knows the key, and ${sender} is not verified (${domain.status})`,
        "Enter the DNS records that https://resend.com/domains shows for it, and press Verify there",
      );
}

/** A status of 0: no response; undefined: no request was sent. */
type DomainsAnswer = { domains: Domain[] } | { name: string; status: number | undefined };

async function listDomains(
  settings: Pick<WorkerConfig, "RESEND_API_KEY" | "RESEND_BASE_URL">,
): Promise<DomainsAnswer> {
  const signal = AbortSignal.timeout(CALL_TIMEOUT_MS);
  let resend: Resend;
  try {
    resend = resendClient(settings);
  } catch {
    // No HTTP header can carry the key, and the error would show it.
    return { name: "unusable", status: undefined };
  }
  const domains: Domain[] = [];
  for (;;) {
    const after = domains.at(-1)?.id;
    const page = { limit: 100, ...(after !== undefined && { after }) };
    const { data, error } = await resend.domains.list(page, { signal });
    if (error !== null) return { name: error.name, status: error.statusCode ?? 0 };
    // Another server, at a wrong RESEND_BASE_URL.
    if (!Array.isArray(data?.data)) return { name: "not Resend's", status: 0 };
    domains.push(...data.data);
    if (!data.has_more || data.data.length === 0) return { domains };
  }
}
