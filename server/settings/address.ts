/**
 * What an address is, as sql/0006_people.sql has it for whoever writes to the maps: ASCII (Resend takes no other), without
 * quotes or comments, at a domain with a dot. A test holds both to the same addresses.
 */
const WORD = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";

const DOMAIN = "([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\\.)+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?";

/** What SMTP can carry (RFC 5321). */
const MAX_LENGTH = 254;

const ONE_ADDRESS = new RegExp(`^(?=[^@]{1,64}@)${WORD}(\\.${WORD})*@${DOMAIN}$`);

export const isAddress = (text: string): boolean => text.length <= MAX_LENGTH && ONE_ADDRESS.test(text);

const ONE_DOMAIN = new RegExp(`^${DOMAIN}$`);

export const isDomain = (text: string): boolean => ONE_DOMAIN.test(text);
