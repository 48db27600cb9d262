// Own updates: shown at once, conflated, acknowledged once, taken back, numbered, lost and found.
import { expect, it } from "vitest";
import { conflicts } from "../../src/conflicts";
import { InvalidUpdate, QueueFull, UpdateRefused } from "../../src/core/errors";
import type { Events } from "../../src/core/events";
import { MISSING } from "../../src/core/values";
import { World } from "../support/world";

const updates = (world: World) => world.server.heard.filter((m) => m.type === 5);

it("shows an update at once and acknowledges it with its version", async () => {
  const world = new World();
  const session = world.session();
  const update = session.set("mood", "calm");

  expect(session.get("mood")).toBe("calm");
  await world.quiet([session]);
  expect(await update.acknowledged()).toBe(1);
  expect(world.server.state.get("mood")).toBe("calm");
});

it("paces a slider: 125 changes a second for 5 s, never above the rate, the last one arrives", async () => {
  const world = new World();
  const session = world.session();
  await world.quiet([session]);
  const handles = [];
  for (let i = 0; i <= 625; i++) {
    handles.push(session.set("v", i));
    await world.clock.run(8);
  }
  await world.quiet([session]);

  expect(world.server.state.get("v")).toBe(625);
  expect(updates(world).length).toBeLessThanOrEqual(80 + 5 * 40 + 2);
  expect(handles.every((h) => h.done && !h.error)).toBe(true);
});

it("has one handle for all values of a key that replace one another", async () => {
  const world = new World();
  world.down = true;
  const session = world.session();
  const handles = new Set(Array.from({ length: 2_000 }, (_, i) => session.set("v", i)));

  expect(handles.size).toBe(1);
  world.down = false;
  await world.quiet([session]);
  expect([...handles][0]!.version).toBe(1);
  expect(world.server.state.get("v")).toBe(1_999);
});

it("waits without an end when it is told to", async () => {
  const world = new World();
  const session = world.session();
  const waits = [
    session.set("v", 1).acknowledged(Number.POSITIVE_INFINITY),
    session.online(Number.MAX_SAFE_INTEGER),
  ];
  await new Promise((resolve) => setTimeout(resolve, 20));
  await world.quiet([session]);

  expect(await Promise.all(waits)).toEqual([1, undefined]);
});

it("does not replace a value that is on its way, nor one that a later update builds on", async () => {
  const world = new World();
  const session = world.session();
  session.set("n", 1);
  session.incr("n");
  session.set("n", 10);
  session.set("n", 11);
  session.incr("n");
  await world.quiet([session]);

  expect(updates(world).map((m) => m.payload.value)).toEqual([1, 1, 11, 1]);
  expect(session.get("n")).toBe(12);
});

it("takes an update back that the server refuses, and says so", async () => {
  const world = new World();
  const session = world.session<{ a: number }>();
  const refused: Events["refused"][] = [];
  session.on("refused", (event) => refused.push(event));
  session.set("a", 1);
  await world.quiet([session as never]);
  const update = session.cas("a", 5, 6);
  const later = session.incr("a");
  await world.quiet([session as never]);

  await expect(update.acknowledged()).rejects.toThrow(UpdateRefused);
  expect(await later.acknowledged()).toBe(2);
  expect(refused.map((event) => event.keys)).toEqual([["a"]]);
  expect(session.get("a")).toBe(2);
});

it("gives the number of a refused update to the next one", async () => {
  const world = new World();
  const session = world.session<{ a: number; b: number; c: number }>();
  await world.quiet([session as never]);
  session.cas("a", 1, 2);
  session.set("b", 1);
  session.set("c", 1);
  await world.quiet([session as never]);

  expect([...world.server.streams.values()]).toEqual([2]);
  expect(session.state).toEqual({ b: 1, c: 1 });
  expect(world.server.applied.length).toBe(2);
});

it("does not let a later update overtake one that is refused for a moment", async () => {
  const world = new World();
  const session = world.session();
  await world.quiet([session]);
  let refusals = 2;
  world.server.busy = () => refusals-- > 0;
  for (const key of ["a", "b", "c", "d"]) session.set(key, 1);
  await world.quiet([session]);

  expect([...world.server.changedAt.keys()]).toEqual(["a", "b", "c", "d"]);
});

it("refuses what does not fit the queue, and drops nothing", () => {
  const session = new World().session({ queueUpdates: 2, conflict: undefined });
  session.set("a", 1);
  session.set("b", 1);

  expect(() => session.set("c", 1)).toThrow(QueueFull);
  session.set("b", 2);
  expect(session.pending.length).toBe(2);
});

it.each([
  ["", "1 to 256"],
  ["__proto__", "reserved"],
  ["a\0b", "reserved"],
  ["é".repeat(129), "1 to 256"],
])("refuses the key %j", (key, why) => {
  expect(() => new World().session().set(key, 1)).toThrow(why);
});

it("refuses a key that no server can read, which would be asked again for ever", () => {
  const session = new World().session();

  expect(() => session.set("half \ud800", 1)).toThrow(InvalidUpdate);
  expect(() => session.set(undefined as never, 1)).toThrow(InvalidUpdate);
  expect(session.pending).toEqual([]);
});

it("counts what a restored backup lost, and sends it again when asked", async () => {
  const world = new World();
  const session = world.session<{ a: number; n: number }>();
  const lost: Events["lost"][] = [];
  const resets: Events["reset"][] = [];
  session.on("lost", (event) => lost.push(event));
  session.on("reset", (event) => resets.push(event));
  session.set("a", 1);
  await world.quiet([session as never]);
  world.server.save();
  session.set("a", 2);
  session.incr("n");
  await world.quiet([session as never]);
  world.server.rollBack();
  await world.quiet([session as never]);

  expect(session.state).toEqual({ a: 1 });
  expect(resets.map((event) => event.reason)).toEqual(["rolled_back"]);
  expect(lost.map(({ count }) => count)).toEqual([2]);
  expect(lost[0]!.updates.map(({ changes, operation }) => [changes, operation])).toEqual([
    [{ a: 2 }, ""],
    [{ n: 1 }, "INCR"],
  ]);
  lost[0]!.resend();
  await world.quiet([session as never]);
  expect(Object.fromEntries(world.server.state)).toEqual({ a: 2, n: 1 });
});

it("numbers what was not acknowledged anew after a rollback, and carries it out once", async () => {
  const world = new World();
  const session = world.session<{ n: number }>();
  session.incr("n");
  await world.quiet([session as never]);
  world.server.save();
  session.incr("n");
  await world.quiet([session as never]);
  world.down = true;
  world.server.rollBack();
  session.incr("n");
  await world.clock.run(2_000);
  world.down = false;
  await world.quiet([session as never]);

  expect(world.server.state.get("n")).toBe(2);
  expect(session.get("n")).toBe(2);
});

it("begins a new stream when the server has forgotten the old one", async () => {
  const world = new World();
  const session = world.session<{ n: number }>();
  session.incr("n");
  await world.quiet([session as never]);
  world.server.streams.clear();
  session.incr("n");
  session.incr("n");
  await world.quiet([session as never]);

  expect(world.server.state.get("n")).toBe(3);
});

it("learns from AUTH_SUCCESS what was carried out, when the answer was lost", async () => {
  const world = new World();
  const session = world.session<{ n: number }>();
  await world.quiet([session as never]);
  const update = session.incr("n");
  await world.clock.run(7); // it is there, its answer is not
  world.cut();
  const before = updates(world).length;
  await world.quiet([session as never]);

  expect(update.done && !update.error).toBe(true);
  expect(updates(world).length).toBe(before);
  expect(session.get("n")).toBe(1);
});

it.each([
  ["server_wins", "theirs", 1],
  ["client_wins", "mine", 2],
  [(_key: string, mine: unknown, theirs: unknown) => `${mine}+${theirs}`, "mine+theirs", 2],
] as const)("settles a conflict by the policy: %s", async (conflict, value, version) => {
  const world = new World();
  const mine = world.session({ conflict: conflicts(conflict) });
  const theirs = world.session({ deviceId: "b" });
  await world.quiet([mine, theirs]);
  const settled: Events["conflict"][] = [];
  mine.on("conflict", (event) => settled.push(event));
  theirs.set("k", "theirs");
  await world.clock.run(7);
  const update = mine.set("k", "mine"); // it has not seen theirs yet
  await world.quiet([mine, theirs]);

  expect(settled.map((event) => event.resolutions[0]!.theirs)).toEqual(["theirs"]);
  expect([theirs.get("k"), mine.get("k"), world.server.version]).toEqual([value, value, version]);
  expect(update.done).toBe(true);
});

it("tells a listener once a microtask, with values that change only where they do", async () => {
  const world = new World();
  const session = world.session<{ a: { x: number }; b: number }>();
  session.update({ a: { x: 1 }, b: 1 });
  await world.quiet([session as never]);
  const before = session.state;
  const told: string[][] = [];
  session.subscribe(({ keys }) => told.push([...keys]));
  const values: unknown[] = [];
  session.subscribe("b", (value) => values.push(value));
  session.set("b", 2);
  session.set("b", 3);
  session.set("a", { x: 1 });
  await world.quiet([session as never]);

  expect(told).toEqual([["b"]]);
  expect(values).toEqual([3]);
  expect(session.state.a).toBe(before.a);
  expect(session.state).not.toBe(before);
  expect(session.state).toBe(session.state);
});

it("gives null, a deletion and an absent key their own meaning", async () => {
  const world = new World();
  const session = world.session();
  session.set("a", null);
  await world.quiet([session]);

  expect([session.get("a"), session.get("b")]).toEqual([null, undefined]);
  session.delete("a");
  await world.quiet([session]);
  expect(["a" in session.state, MISSING.toString()]).toEqual([false, "Symbol(syncbridge.missing)"]);
});
