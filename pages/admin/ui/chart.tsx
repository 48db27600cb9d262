/** One chart over time, with the same figures as a table behind it. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Sample } from "../figures";
import { clock } from "../format";

export interface Line {
  label: string;
  read: (sample: Sample) => number;
}

interface Given {
  title: string;
  lines: readonly Line[];
  samples: readonly Sample[];
  show: (value: number) => string;
}

const HEIGHT = 150;
const ROWS = 10;

/** The colours that the style sheet gives, which a canvas cannot read by itself. */
function colour(root: HTMLElement, name: string): string {
  const probe = root.appendChild(document.createElement("i"));
  probe.className = name;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function data(lines: readonly Line[], samples: readonly Sample[]): uPlot.AlignedData {
  const column = (read: (sample: Sample) => number) =>
    samples.map((sample) => (Number.isNaN(read(sample)) ? null : read(sample)));
  return [samples.map(({ at }) => at / 1000), ...lines.map(({ read }) => column(read))];
}

function made(root: HTMLElement, { lines, samples, show }: Given): uPlot {
  const axis = {
    stroke: colour(root, "ink-muted"),
    grid: { stroke: colour(root, "ink-line"), width: 1 },
  };
  const series = lines.map(({ label }, at) => ({
    label,
    stroke: colour(root, `ink-${at}`),
    width: 2,
    points: { show: false },
    spanGaps: false,
  }));
  return new uPlot(
    {
      width: root.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 8, 0, 0],
      scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.15 : 1] } },
      axes: [
        { ...axis, space: 80, size: 26, values: (_, at) => times(at) },
        { ...axis, size: 62, space: 34, values: (_, at) => at.map(show) },
      ],
      series: [{}, ...series],
    },
    data(lines, samples),
    root,
  );
}

/** Labels of the time axis; with seconds where minutes would say the same twice. */
function times(at: number[]): string[] {
  const close = at.length > 1 && at[1]! - at[0]! < 60;
  return at.map((one) => clock(one * 1000).slice(0, close ? 8 : 5));
}

export function Chart(given: Given) {
  const root = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(undefined);
  const latest = useRef(given);
  latest.current = given;
  useEffect(() => {
    const element = root.current!;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const draw = () => {
      plot.current?.destroy();
      plot.current = made(element, latest.current);
    };
    const resized = new ResizeObserver(() => {
      plot.current?.setSize({ width: element.clientWidth, height: HEIGHT });
    });
    draw();
    resized.observe(element);
    dark.addEventListener("change", draw);
    return () => {
      resized.disconnect();
      dark.removeEventListener("change", draw);
      plot.current?.destroy();
    };
  }, []);
  const newest = given.samples.at(-1);
  useEffect(() => plot.current?.setData(data(given.lines, given.samples)), [newest, given.samples]);
  return (
    <section class="card chart" aria-label={given.title}>
      <div class="card-head">
        <h2>{given.title}</h2>
        <ul class="legend">
          {given.lines.map(({ label, read }, at) => (
            <li key={label}>
              <i class={`ink ink-${at}`} aria-hidden="true" /> {label}{" "}
              <b>{newest ? given.show(read(newest)) : "–"}</b>
            </li>
          ))}
        </ul>
      </div>
      <div ref={root} class="plot" aria-hidden="true" />
      <details class="behind">
        <summary>Figures</summary>
        <table>
          <thead>
            <tr>
              <th scope="col">Time</th>
              {given.lines.map(({ label }) => (
                <th key={label} scope="col" class="number">
                  {label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {given.samples
              .slice(-ROWS)
              .reverse()
              .map((sample) => (
                <tr key={sample.at}>
                  <td>{clock(sample.at)}</td>
                  {given.lines.map(({ label, read }) => (
                    <td key={label} class="number">
                      {given.show(read(sample))}
                    </td>
                  ))}
                </tr>
              ))}
          </tbody>
        </table>
      </details>
    </section>
  );
}
