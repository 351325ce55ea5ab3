/** The three files that pages load, served from memory. Their names carry a hash of their text, so a browser may keep them. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

interface Asset {
  name: string;
  type: string;
  text: string;
}

function load(file: string, type: string): Asset {
  const text = readFileSync(`${import.meta.dirname}/assets/${file}`, "utf8");
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 12);
  return { name: file.replace(/\.(\w+)$/, `-${hash}.$1`), type, text };
}

export const STYLE = load("style.css", "text/css; charset=utf-8");
export const SCRIPT = load("script.js", "text/javascript; charset=utf-8");
export const ICON = load("icon.svg", "image/svg+xml");

export const ASSETS = [STYLE, SCRIPT, ICON];
