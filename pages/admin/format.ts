/** Numbers, sizes, times and JSON as people read them. */
import { now as serverNow } from "./clock";

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A number; nothing is a dash. */
export function count(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return "–";
  return Math.abs(value) >= 100_000 ? SHORT.format(value) : COUNT.format(value);
}

export function bytes(value: number): string {
  if (Number.isNaN(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let rest = value;
  while (rest >= 1024 && at < units.length - 1) {
    rest /= 1024;
    at += 1;
  }
  return `${rest < 10 && at ? rest.toFixed(1) : Math.round(rest)} ${units[at]}`;
}

export function ms(value: number): string {
  if (Number.isNaN(value)) return "–";
  return value < 1000
    ? `${value && value < 10 ? value.toFixed(1) : Math.round(value)} ms`
    : `${(value / 1000).toFixed(1)} s`;
}

/** How long ago, or how far ahead. */
export function age(at: string | number | null, now = serverNow()): string {
  if (at === null || at === "") return "never";
  const seconds = (now - new Date(at).getTime()) / 1000;
  const text = span(Math.abs(seconds));
  return seconds < -1 ? `in ${text}` : `${text} ago`;
}

/** A length of time, with its largest unit or two. */
export function span(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DATE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export function clock(at: number | string): string {
  return CLOCK.format(new Date(at));
}

export function date(at: number | string): string {
  return DATE.format(new Date(at));
}

type Source = { source?: string };
type RawJson = JSON & { rawJSON?: (text: string) => unknown };

/** A number that JavaScript cannot hold, with its digits. */
export class Digits {
  constructor(readonly text: string) {}
  toJSON(): unknown {
    return (JSON as RawJson).rawJSON?.(this.text) ?? Number(this.text);
  }
}

/** JSON in which no number loses a digit: one that would is a `Digits`. @throws SyntaxError */
export function parse(text: string): unknown {
  return JSON.parse(text, ((_: string, value: unknown, { source }: Source = {}) =>
    typeof value === "number" &&
    source !== undefined &&
    String(value) !== source &&
    !Number.isSafeInteger(value)
      ? new Digits(source)
      : value) as (key: string, value: unknown) => unknown);
}

/** The beginning of a JSON text, on one line. */
export function preview(text: string, most = 80): string {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
