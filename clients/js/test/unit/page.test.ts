// @vitest-environment happy-dom
// What a session does at the events of its page.
import { expect, it } from "vitest";
import { watchPage } from "../../src/core/page";

const KINDS = ["hurry", "doubt", "sleep", "resume"] as const;

function watched(): { told: string[]; stop: () => void } {
  const told: string[] = [];
  const listener = Object.fromEntries(KINDS.map((kind) => [kind, () => told.push(kind)]));
  return { told, stop: watchPage(listener as never) };
}

it.each([
  [() => window, "online", "hurry"],
  [() => window, "offline", "doubt"],
  [() => window, "pagehide", "sleep"],
  [() => window, "pageshow", "resume"],
  [() => document, "freeze", "sleep"],
  [() => document, "resume", "resume"],
  [() => document, "visibilitychange", "hurry"],
] as const)("%s %s: %s", (target, event, kind) => {
  const { told, stop } = watched();
  target().dispatchEvent(new Event(event));
  expect(told).toEqual([kind]);
  stop();
  target().dispatchEvent(new Event(event));
  expect(told).toEqual([kind]);
});
