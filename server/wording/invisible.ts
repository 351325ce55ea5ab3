/**
 * Characters that do not show, or that change how others show: control characters, line ends, bidirectional overrides (U+202E),
 * zero-width and other spaces. Printed as they are, `invoice\u202Efdp.exe` reads as another name. Each place escapes them its own way.
 */
export const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
