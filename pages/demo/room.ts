/** What the two devices share, and how it is settled when both have changed it. */
import type { Resolver } from "@syncbridge/client/conflicts";

export interface Item {
  readonly text: string;
  readonly done: boolean;
}

export interface Room {
  slider: number;
  counter: number;
  /** By an id that sorts by time; merged item by item, so that both sides' changes stay. */
  list: Readonly<Record<string, Item>>;
  text: string;
}

/** Lines that only one side has are kept, those of the other side first; else one's own value. */
export const settle: Resolver = (key, mine, theirs) =>
  key === "text" && typeof mine === "string" && typeof theirs === "string"
    ? joined(mine, theirs)
    : mine;

export function joined(mine: string, theirs: string): string {
  const known = new Set(theirs.split("\n"));
  const own = mine.split("\n").filter((line) => !known.has(line));
  return [theirs, ...own].filter((line) => line !== "").join("\n");
}

/** A value in a sentence. */
export function shown(value: unknown): string {
  if (typeof value === "symbol") return "nothing";
  return typeof value === "string" ? `“${value.replaceAll("\n", " ⏎ ")}”` : JSON.stringify(value);
}
