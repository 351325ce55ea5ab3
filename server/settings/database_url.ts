import { readFileSync } from "node:fs";

import { Client } from "pg";

/** Parameters that name files, which pg reads while it parses the URL. */
const FILES = ["sslrootcert", "sslcert", "sslkey"];

/** Why `pg` cannot use it, or null. Checked here, because pg's own error shows the password. */
export function databaseUrlProblem(text: string): string | null {
  if (/^[^/]*\/\/[^/?#]*,/.test(text.replace(/\/\/[^/?#]*@/, "//")) || /[?&]host=[^&]*(,|%2C)/i.test(text)) {
    return "names several hosts, and Thaw's driver takes one: name the one that is always the primary (a DNS name, HAProxy, or a pooler in session mode)";
  }
  for (const name of FILES) {
    const file = URL.parse(text)?.searchParams.get(name);
    const problem = file ? fileProblem(file) : null;
    if (problem !== null)
      return `names ${file} as ${name}, which ${problem}. Put it there, or take ${name} away`;
  }
  try {
    void new Client({ connectionString: text });
    return /^postgres(ql)?:\/\//.test(text) ? null : NO_URL;
  } catch {
    return NO_URL;
  }
}

const NO_URL =
  "must be a postgres:// URL (with : / @ ? # in the password written as %3A %2F %40 %3F %23), or 'embedded'";

/** TLS would ignore a file without a certificate, and then not trust the server's. */
function fileProblem(path: string): string | null {
  try {
    return readFileSync(path, "utf8").includes("-----BEGIN ") ? null : "is no PEM file";
  } catch (error) {
    return `cannot be read (${(error as NodeJS.ErrnoException).code})`;
  }
}
