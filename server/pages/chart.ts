/** Bars over hours as an inline SVG, with its numbers as a table for who cannot see it. */
import { html } from "hono/html";

import { table } from "./layout.ts";
import { count, type Html } from "./text.ts";

const HEIGHT = 100;
const BAR = 12;
const COLOURS = ["one", "two", "three"];

interface Series {
  name: string;
  values: number[];
}

const total = (values: number[]): number => values.reduce((sum, value) => sum + value, 0);

const hour = (at: Date): string => `${at.toISOString().slice(5, 13).replace("T", " ")}:00`;

export function hourChart(id: string, title: string, hours: Date[], series: Series[]): Html {
  const heights = hours.map((_, index) => total(series.map(({ values }) => values[index] ?? 0)));
  const most = Math.max(...heights, 1);
  const sums = series.map(({ name, values }) => `${count(total(values))} ${name}`).join(", ");
  const bars = hours.map((_, index) => {
    let y = HEIGHT;
    return series.map(({ values }, which) => {
      const value = values[index] ?? 0;
      if (value === 0) return "";
      // A single one must still show.
      const height = Math.max(1, (value / most) * (HEIGHT - 4));
      y -= height;
      return html`<rect
        class="${COLOURS[which] ?? "one"}"
        x="${index * BAR + 1}"
        y="${y.toFixed(1)}"
        width="${BAR - 2}"
        height="${height.toFixed(1)}"
      />`;
    });
  });
  const width = Math.max(1, hours.length) * BAR;
  return html`<figure class="card">
    <figcaption>
      ${title} <small>most in an hour: ${count(most === 1 && total(heights) === 0 ? 0 : most)}</small>
    </figcaption>
    <svg
      class="chart"
      role="img"
      aria-labelledby="${id}"
      viewBox="0 0 ${width} ${HEIGHT}"
      preserveAspectRatio="none"
    >
      <title id="${id}">${title}: ${sums} in ${hours.length} hours</title>
      ${bars}
      <line class="axis" x1="0" y1="${HEIGHT}" x2="${width}" y2="${HEIGHT}" />
    </svg>
    <p class="legend quiet">
      ${series.map(
        ({ name, values }, which) =>
          html`<span
            ><svg aria-hidden="true" viewBox="0 0 10 10">
              <rect class="${COLOURS[which] ?? "one"}" width="10" height="10" />
            </svg>
            ${name}: ${count(total(values))}</span
          > `,
      )}
    </p>
    <details>
      <summary>As a table</summary>
      ${table(
        "Hours in UTC; those without anything are left out",
        ["hour", ...series.map(({ name }) => name)],
        hours.flatMap((at, index) =>
          (heights[index] ?? 0) === 0
            ? []
            : [[hour(at), ...series.map(({ values }) => count(values[index] ?? 0))]],
        ),
      )}
    </details>
  </figure>`;
}
