/** Which of the tools are here. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

interface Locked {
  version: string;
  os?: string[];
  cpu?: string[];
}

const runsHere = ({ os, cpu }: Locked): boolean =>
  (os?.includes(process.platform) ?? true) && (cpu?.includes(process.arch) ?? true);

function installedVersion(path: string): string | undefined {
  try {
    const text = readFileSync(join(import.meta.dirname, path, "package.json"), "utf8");
    return (JSON.parse(text) as Locked).version;
  } catch {
    return undefined;
  }
}

/** Names of the locked packages for this system that are not here, or in another version. */
export function missingTools(): string[] {
  const lock = JSON.parse(readFileSync(join(import.meta.dirname, "package-lock.json"), "utf8")) as {
    packages: Record<string, Locked>;
  };
  return Object.entries(lock.packages)
    .filter(([path, locked]) => path !== "" && runsHere(locked) && installedVersion(path) !== locked.version)
    .map(([path]) => path.replace(/^node_modules\//, ""));
}
