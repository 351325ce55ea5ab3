import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

import { html } from "hono/html";

import { renderMail, type RenderedMail } from "../../mail/render.ts";
import type { Command } from "../command.ts";
import { MAIL_SAMPLES } from "../mail_samples.ts";

export const mailsPreview: Command = {
  name: "mails preview",
  args: "",
  summary: "Writes every kind of mail as an HTML file, and a page that shows them all; sends nothing",
  examples: [
    ["", "into a new directory; open the index.html that it names"],
    ["--out /tmp/mails", "into that one"],
  ],
  options: { out: { type: "string", value: "DIR", what: "where to; it is made where it is missing" } },
  async run(terminal, _, given) {
    const { out } = given;
    const directory = typeof out === "string" ? resolve(out) : mkdtempSync(join(tmpdir(), "thaw-mails-"));
    mkdirSync(directory, { recursive: true });
    const mails = Object.entries(MAIL_SAMPLES).map(([name, contents]) => ({
      name,
      mail: renderMail(contents),
    }));
    for (const { name, mail } of mails) {
      const path = join(directory, `${name}.html`);
      writeFileSync(path, mail.html);
      writeFileSync(join(directory, `${name}.txt`), mail.text);
      terminal.show({ name, subject: mail.subject, file: path }, `${path}  ${mail.subject}`);
    }
    const index = join(directory, "index.html");
    writeFileSync(index, await indexOf(mails));
    terminal.show({ name: "index", file: index }, index);
  },
};

async function indexOf(mails: { name: string; mail: RenderedMail }[]): Promise<string> {
  const page = await html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width,initial-scale=1" />
        <title>Thaw's mails</title>
        <style>
          body {
            font-family: sans-serif;
            margin: 2rem auto;
            max-width: 44rem;
            padding: 0 1rem;
          }
          iframe {
            border: 1px solid #888;
            height: 40rem;
            width: 100%;
          }
        </style>
      </head>
      <body>
        <h1>Thaw's mails</h1>
        ${mails.map(
          ({ name, mail: { subject } }) => html`
            <h2 id="${name}">${subject}</h2>
            <p><a href="${name}.html">HTML</a> <a href="${name}.txt">text</a></p>
            <iframe src="${name}.html" title="${subject}" loading="lazy"></iframe>
          `,
        )}
      </body>
    </html>`;
  return page.toString();
}
