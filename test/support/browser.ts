/**
 * A real browser: the one that CHROMIUM names, else the system's (apt install chromium), else the one that npm brings into
 * test/heavy_tools (Linux on x64). The few types are ours, because these packages need not be there.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

import { ROOT } from "./root.ts";

export interface BrowserPage {
  goto(url: string): Promise<{ status(): number } | null>;
  url(): string;
  title(): Promise<string>;
  content(): Promise<string>;
  evaluate<T>(script: string): Promise<T>;
  locator(selector: string): {
    click(): Promise<void>;
    focus(): Promise<void>;
    textContent(): Promise<string | null>;
    count(): Promise<number>;
  };
  keyboard: { press(key: string): Promise<void> };
  clock: { install(): Promise<void>; runFor(ms: number): Promise<void> };
  screenshot(options: { path: string; fullPage: boolean }): Promise<unknown>;
  on(event: "console", listener: (message: { type(): string; text(): string }) => void): void;
  on(event: "pageerror", listener: (error: Error) => void): void;
  waitForURL(url: RegExp): Promise<void>;
}

export interface BrowserContext {
  newPage(): Promise<BrowserPage>;
  close(): Promise<void>;
}

export interface ContextOptions {
  viewport: { width: number; height: number };
  colorScheme?: "light" | "dark";
  deviceScaleFactor?: number;
  javaScriptEnabled?: boolean;
  httpCredentials: { username: string; password: string };
}

export interface Browser {
  newContext(options: ContextOptions): Promise<BrowserContext>;
  version(): string;
  close(): Promise<void>;
}

interface Violation {
  id: string;
  impact: string;
  nodes: { html: string; failureSummary: string }[];
}

const require = createRequire(join(ROOT, "test/heavy_tools/package.json"));

/** Chromium cannot isolate itself in a container, or as root. The pages are our own. */
const ARGUMENTS = ["--no-sandbox"];

const SYSTEM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** The browser, or why none can run here. */
export async function launchBrowser(): Promise<Browser | string> {
  try {
    const { chromium } = require("playwright-core") as {
      chromium: { launch(options: object): Promise<Browser> };
    };
    const { executablePath, env } = await program();
    return await chromium.launch({ executablePath, args: ARGUMENTS, env: { ...process.env, ...env } });
  } catch (error) {
    return `No browser runs here: ${String(error).split("\n")[0]}. npm test installs one on Linux (x64); elsewhere: apt install chromium, or CHROMIUM=/path/to/one`;
  }
}

async function program(): Promise<{ executablePath: string; env: Record<string, string> }> {
  const system = process.env["CHROMIUM"] ?? SYSTEM.find((path) => existsSync(path));
  if (system !== undefined) return { executablePath: system, env: {} };
  return unpacked();
}

/** Unpacked once for each version, in a folder of our own: it would take any file of that name in /tmp. */
async function unpacked(): Promise<{ executablePath: string; env: Record<string, string> }> {
  const root = join(ROOT, "test/heavy_tools/node_modules/@sparticuz/chromium");
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  const home = join(homedir(), ".cache/thaw-tests", `chromium-${version}`);
  mkdirSync(home, { recursive: true, mode: 0o700 });
  const packaged = (await import(join(root, "build/index.js"))) as {
    default: { executablePath(): Promise<string> };
    inflate(file: string): Promise<string>;
  };
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = home;
  try {
    const executablePath = await packaged.default.executablePath();
    // Its libraries (nss), which it unpacks by itself on AWS only.
    const bin = join(root, "bin");
    const libraries = readdirSync(bin).find((name) => name.startsWith("al2023"));
    const folder = libraries === undefined ? home : await packaged.inflate(join(bin, libraries));
    return { executablePath, env: { LD_LIBRARY_PATH: join(folder, "lib") } };
  } finally {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
  }
}

/** What axe finds wrong with a page, in short. */
export async function violationsOf(page: BrowserPage): Promise<string[]> {
  const { AxeBuilder } = require("@axe-core/playwright") as {
    AxeBuilder: new (options: { page: BrowserPage }) => { analyze(): Promise<{ violations: Violation[] }> };
  };
  const { violations } = await new AxeBuilder({ page }).analyze();
  return violations.map(
    ({ id, impact, nodes }) =>
      `${id} (${impact}): ${nodes
        .map((node) => `${node.html} ${node.failureSummary}`)
        .join(" | ")
        .slice(0, 600)}`,
  );
}
