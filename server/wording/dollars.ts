/**
 * What restores cost: always an estimate by published prices, without tax and download. Mails, pages, commands and CSV files write it
 * with this, so that it is the same number everywhere.
 */
const CENTS = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
const PLAIN = new Intl.NumberFormat("en-US", {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
  useGrouping: false,
});

/** Of Postgres's numeric as text: exact, without a detour by binary fractions. */
type Amount = number | string;
const exact = (amount: Amount): number => amount as number; // format() takes decimal text, and its types do not say so

/** "$1,234.50"; "under $0.01" for what is more than nothing. dollar_words in sql/cost.sql writes the same. */
export function dollars(amount: Amount): string {
  const n = Number(amount);
  return n > 0 && n < 0.01 ? "under $0.01" : CENTS.format(exact(amount));
}

/** As it stands where nothing else says what it is: "an estimated $24.10", "an estimate of under $0.01". */
export function estimated(amount: Amount): string {
  const text = dollars(amount);
  return text.startsWith("$") ? `an estimated ${text}` : `an estimate of ${text}`;
}

/** For a cell of a CSV file, whose title names the currency: "1234.50". */
export const dollarCell = (amount: Amount): string => PLAIN.format(exact(amount));
