import { createHash, timingSafeEqual } from "node:crypto";

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/**
 * Whether a header holds one of the secrets, in constant time: both sides are hashed, so neither content nor length matters,
 * and all secrets are compared, so neither does which one matches.
 */
export function createSecretCheck(secrets: readonly string[]): (given: string | undefined) => boolean {
  const known = secrets.map(digest);
  return (given) => {
    const candidate = digest(given ?? "");
    let matches = false;
    for (const secret of known) matches = timingSafeEqual(secret, candidate) || matches;
    return matches && given !== undefined;
  };
}
