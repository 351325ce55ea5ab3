/**
 * Bundles each function into one zip that Lambda can run as it is: `npm run build:lambdas`.
 *
 * Reproducible, same input, same bytes: AWS deploys only what has changed, and a reviewer can build what runs there.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";

import { zipSync } from "fflate";
import { rolldown } from "rolldown";

const ROOT = join(import.meta.dirname, "..");

/** Each is a file here and, with ".handler", a Handler in template.yaml. */
const FUNCTIONS = ["restore_requested", "restore_completed"];

/** Zip times have no zone, so a fixed one for all machines: the earliest of the format. */
const MTIME = "1980-01-01T00:00:00";

export interface BuiltLambda {
  path: string;
  size_bytes: number;
}

export async function buildLambdas(directory: string): Promise<BuiltLambda[]> {
  await mkdir(directory, { recursive: true });
  return Promise.all(FUNCTIONS.map(async (name) => write(join(directory, `${name}.zip`), await zip(name))));
}

async function write(path: string, bytes: Uint8Array): Promise<BuiltLambda> {
  await writeFile(path, bytes);
  return { path, size_bytes: bytes.length };
}

async function zip(name: string): Promise<Uint8Array> {
  // ".mjs", for there is no package.json beside it to say that this is a module.
  const file = `${name}.mjs`;
  const bundle = await rolldown({
    input: join(import.meta.dirname, `${name}.ts`),
    cwd: ROOT,
    platform: "node",
    onwarn(warning) {
      throw new Error(`Bundling ${name}: ${warning.message}`);
    },
  });
  try {
    const { output } = await bundle.generate({
      format: "esm",
      entryFileNames: file,
      codeSplitting: false,
      sourcemap: true,
      // Stack traces then say lambdas/thaw_client.ts, wherever this checkout is.
      sourcemapPathTransform: (source, map) =>
        relative(ROOT, resolve(map, "..", source)).replaceAll("\\", "/"),
    });
    const contents: Record<string, Uint8Array> = {};
    for (const part of output) {
      if (part.type === "chunk") refuseImports(name, part.imports);
      contents[part.fileName] = new TextEncoder().encode(
        part.type === "chunk" ? part.code : String(part.source),
      );
    }
    return zipSync(contents, { level: 9, mtime: MTIME });
  } finally {
    await bundle.close();
  }
}

/** Lambda has no node_modules: what is not in the bundle must be in Node. */
function refuseImports(name: string, imports: string[]): void {
  const foreign = imports.filter((specifier) => !specifier.startsWith("node:"));
  if (foreign.length > 0) throw new Error(`${name} is not self-contained: it imports ${foreign.join(", ")}.`);
}

if (import.meta.main) {
  for (const { path, size_bytes } of await buildLambdas(join(ROOT, "dist/lambdas"))) {
    console.log(`${relative(ROOT, path)}  ${(size_bytes / 1024).toFixed(1)} KB`);
  }
}
