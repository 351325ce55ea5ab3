/**
 * What an address is: ASCII only (Resend takes no other), no quotes or comments, a domain with a dot. address_problem of
 * sql/0006_people.sql has the same rule for the maps; a test runs both on the same addresses.
 */
const WORD = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";

const DOMAIN = "([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\\.)+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?";

/** Of SMTP (RFC 5321). */
const MAX_LENGTH = 254;

const ONE_ADDRESS = new RegExp(`^(?=[^@]{1,64}@)${WORD}(\\.${WORD})*@${DOMAIN}$`);

export const isAddress = (text: string): boolean => text.length <= MAX_LENGTH && ONE_ADDRESS.test(text);

const ONE_DOMAIN = new RegExp(`^${DOMAIN}$`);

export const isDomain = (text: string): boolean => ONE_DOMAIN.test(text);

const NAME_AND_ADDRESS = /^([^<>]*)<([^<>]*)>$/;

/** The address in 'Thaw <thaw@example.com>', or the whole text where there are no brackets. */
export const addressIn = (mailbox: string): string => NAME_AND_ADDRESS.exec(mailbox)?.[2] ?? mailbox;

/** An address, or a name and the address in angle brackets. The name must have no invisible characters. */
export function isMailbox(text: string): boolean {
  const name = NAME_AND_ADDRESS.exec(text)?.[1] ?? "";
  return isAddress(addressIn(text)) && !/[\p{C}\p{Zl}\p{Zp}]/u.test(name);
}
