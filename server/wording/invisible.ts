/**
 * Characters that do not show, or that change how others show: control characters, line ends, bidirectional overrides (U+202E),
 * zero-width and other spaces. Printed as they are, `invoice\u202Efdp.exe` reads as another name. Each place escapes them its own way.
 */
export const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** "U+202E". */
export const codePoint = (character: string): string =>
  `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

/** For attributes, titles and CSV, which hold no markup. */
export const plain = (text: string): string => text.replaceAll(INVISIBLE, (found) => `[${codePoint(found)}]`);
