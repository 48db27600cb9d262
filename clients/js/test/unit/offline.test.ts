// The queue in IndexedDB (of `fake-indexeddb`): reloads, crashes, other users, failing storage.
import "fake-indexeddb/auto";
import { afterEach, expect, it, vi } from "vitest";
import { offline } from "../../src/offline";
import { Disk } from "../../src/offline/disk";
import { Hub } from "../../src/offline/hub";
import { World } from "../support/world";

let name = 0;
afterEach(() => {
  name += 1;
});

const store = (user = "u"): Disk => new Disk(`${user}-${name}`);

/** Let the database work, whose clock is the real one. */
async function work(world: World, ms = 200): Promise<void> {
  for (let i = 0; i < 20; i++) {
    await world.clock.run(ms / 20);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** The page is gone: nothing was said to anybody, and nothing more is written. */
async function crash(world: World, kept: Disk): Promise<void> {
  kept.durable = false;
  world.crash();
  await work(world);
}

interface Said {
  type: number;
  payload: { device_id?: string };
}

/** Messages of the server to a device that do not arrive. */
function lose(world: World, lost: (to: string, message: Said) => boolean): void {
  for (const peer of world.server.peers) {
    const { send } = peer;
    peer.send = (message) => {
      const said = typeof message === "object" && lost(peer.deviceId, message as Said);
      if (!said) send.call(peer, message);
    };
  }
}

it("brings back the state before there is a connection", async () => {
  const world = new World();
  const kept = store();
  const before = world.session<{ a: number }>({ store: kept });
  before.set("a", 1);
  await work(world);
  kept.flush();
  await work(world);
  await crash(world, kept);
  world.down = true;
  const after = world.session<{ a: number }>({ store: store() });
  const started = after.started();
  await work(world);

  expect((await started).get("a")).toBe(1);
  expect(after.status).toBe("offline");
});

it("carries out once what was made offline, after a reload", async () => {
  const world = new World();
  world.down = true;
  const kept = store();
  const before = world.session<{ n: number; list: string[] }>({ store: kept });
  for (let i = 0; i < 5; i++) before.incr("n");
  before.append("list", "x");
  const safe = before.stored();
  await work(world);
  expect(await safe).toBe(true);
  await crash(world, kept);
  world.down = false;
  const after = world.session<{ n: number; list: string[] }>({ store: store() });
  await work(world, 3_000);

  expect(after.pending).toEqual([]);
  expect(Object.fromEntries(world.server.state)).toEqual({ n: 5, list: ["x"] });
  expect(after.state).toEqual({ n: 5, list: ["x"] });
});

it("keeps and sends again after it has let go", async () => {
  const world = new World();
  const kept = store();
  const { open } = kept;
  let again = async () => {};
  kept.open = (keeping) => {
    again = () => open.call(kept, keeping).then(() => {});
    return open.call(kept, keeping);
  };
  const page = world.session<{ a: number }>({ store: kept });
  await work(world);
  kept.leave();
  await again();
  page.set("a", 1);
  const safe = page.stored();
  await work(world);
  expect(await safe).toBe(true);
  expect(Object.fromEntries(world.server.state)).toEqual({ a: 1 });
});

it.each([3, 6, 9, 12, 18])(
  "crashes %i ms after an update: exactly once all the same",
  async (ms) => {
    const world = new World();
    world.server.ids.set = () => world.server.ids; // only stream and number can tell
    let pages = 0;
    for (; pages < 8; pages++) {
      const kept = store();
      const page = world.session<{ n: number }>({ store: kept });
      await work(world, 400);
      page.incr("n");
      const safe = page.stored();
      await work(world, 0);
      expect(await safe).toBe(true);
      await world.clock.run(ms);
      await crash(world, kept);
    }
    const last = world.session<{ n: number }>({ store: store() });
    await work(world, 5_000);

    expect(last.pending).toEqual([]);
    expect(world.server.state.get("n")).toBe(pages);
  },
);

it("takes an acknowledged update off the disk with its number, though the state is behind", async () => {
  const world = new World();
  world.server.ids.set = () => world.server.ids; // only stream and number can tell
  let kept = store();
  const before = world.session<{ n: number }>({ store: kept });
  const other = world.session({ deviceId: "b" });
  before.incr("n");
  await work(world, 400);
  let behind = true;
  lose(world, (to, { type, payload }) => {
    const theirs = type === 5 && payload.device_id === "b";
    return behind && to === "a" && (theirs || type === 4);
  });
  other.set("x", 1);
  await work(world);
  const { id } = before.incr("n");
  await work(world);
  expect(before.pending.length).toBe(1); // acknowledged, and not to be seen yet
  await crash(world, kept);
  behind = false;
  kept = store();
  const after = world.session<{ n: number }>({ store: kept });
  await work(world, 3_000);

  expect(world.server.state.get("n")).toBe(2);
  expect([after.get("n"), after.pending.length]).toEqual([2, 0]);
  expect(kept.outcome(id)?.version).toBe(3);
});

it("does not send an update before it is safe", async () => {
  const world = new World();
  const kept = store();
  const page = world.session({ store: kept });
  await work(world);
  page.set("a", 1);
  await world.clock.run(1_000); // the database has not had a turn
  expect(world.server.heard.some((m) => m.type === 5)).toBe(false);
  await work(world);

  expect(world.server.state.get("a")).toBe(1);
});

it("does not hand what one user left to another", async () => {
  const world = new World();
  const kept = store();
  const before = world.session({ store: kept });
  await work(world);
  await crash(world, kept);
  const after = world.session({ store: store() });
  Object.defineProperty(after, "userId", { get: () => "somebody else" });
  await work(world);

  expect(before.status).toBe("offline");
  expect((await after.closed()).closeCode).toBe(4003);
});

it("takes back what was put into another user's storage", async () => {
  const world = new World();
  const kept = store();
  world.session({ store: kept }).set("mine", 1);
  await work(world);
  await crash(world, kept);
  world.down = true;
  const theirs = world.session<{ theirs: number }>({ store: store() });
  Object.defineProperty(theirs, "userId", { get: () => "somebody else" });
  theirs.set("theirs", 2);
  const safe = theirs.stored();
  await work(world);
  expect(await safe).toBe(true);
  world.down = false;
  await work(world, 3_000);
  expect((await theirs.closed()).closeCode).toBe(4003);
  world.session({ store: store() });
  await work(world, 3_000);

  expect(Object.fromEntries(world.server.state)).toEqual({ mine: 1 });
});

it("lets the page that opened it last write, and tells the other", async () => {
  const world = new World();
  const first = world.session({ store: store() });
  await work(world);
  const told: string[] = [];
  first.on("storage", (error) => told.push(error.message));
  world.session({ store: store(), deviceId: "b" });
  await work(world);
  first.set("a", 1);
  await work(world);

  expect(told).toEqual(["another page has opened this storage"]);
  expect(await first.stored()).toBe(false);
  expect(world.server.state.get("a")).toBe(1);
});

it("goes on in memory when storage fails, and says so", async () => {
  const world = new World();
  const real = indexedDB.open;
  indexedDB.open = () => {
    throw new DOMException("no", "SecurityError");
  };
  const page = world.session({ store: store() });
  const told: string[] = [];
  page.on("storage", (error) => told.push(error.message));
  await work(world);
  indexedDB.open = real;
  page.set("a", 1);
  await work(world);

  expect(told).toEqual(["storage failed: SecurityError"]);
  expect(world.server.state.get("a")).toBe(1);
});

it("goes on in memory, alone, where the browser gives a page no lock", async () => {
  const refused = async () => {
    throw new DOMException("no", "SecurityError");
  };
  vi.stubGlobal("navigator", { locks: { request: refused } });
  const world = new World();
  const page = world.session({ store: offline({ user: `u-${name}` }) });
  const told: string[] = [];
  page.on("storage", (error) => told.push(error.message));
  await work(world);
  page.set("a", 1);
  await work(world);
  vi.unstubAllGlobals();

  expect([page.status, told]).toEqual(["online", ["no lock"]]);
  expect(world.server.state.get("a")).toBe(1);
  await page.close();
});

it("says that nothing is stored any more when its session has ended, and can be used again", async () => {
  const world = new World();
  const kept = store();
  const first = world.session<{ n: number }>({ store: kept });
  first.incr("n");
  await work(world);
  await first.close();
  expect(await first.stored()).toBe(false);
  const second = world.session<{ n: number }>({ store: kept });
  second.incr("n");
  await work(world);
  expect([second.get("n"), await second.stored(), second.pending]).toEqual([2, true, []]);
});

it("keeps everything in one page where a browser refuses channels", () => {
  vi.stubGlobal("navigator", { locks: {} });
  vi.stubGlobal(
    "BroadcastChannel",
    class {
      constructor() {
        throw new DOMException("blocked", "SecurityError");
      }
    },
  );
  expect(offline({ user: "u" })).toBeInstanceOf(Disk);
  vi.unstubAllGlobals();
});

it("keeps everything in memory where a browser throws at the question for storage", async () => {
  const real = Object.getOwnPropertyDescriptor(globalThis, "indexedDB")!;
  const get = () => {
    throw new DOMException("blocked", "SecurityError");
  };
  Object.defineProperty(globalThis, "indexedDB", { configurable: true, get });
  const kept = offline({ user: "u" });
  Object.defineProperty(globalThis, "indexedDB", real);
  const world = new World();
  const page = world.session({ store: kept });
  await world.quiet([page]);

  expect([page.status, kept.durable, await page.stored()]).toEqual(["online", false, false]);
});

it("answers a tab whose values do not fit beside those of the others", async () => {
  const world = new World();
  const leader = world.session();
  await world.quiet([leader]);
  const words: string[] = [];
  const hub = new Hub(leader, store(), ({ data }) => words.push(String(data)));
  const me = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`k${i}`, i]));
  leader.setMe({ cursor: 1 });
  for (const message of [
    { type: 7, payload: { device_id: "a" } },
    { type: 12, payload: { me } },
  ])
    hub.hear({ from: "b", kind: "say", data: JSON.stringify(message) });

  expect(JSON.parse(words.at(-1)!)).toMatchObject({ type: 6, payload: { code: "invalid_update" } });
  expect([...leader.dialogue.presence.mine]).toEqual([["cursor", 1]]);
});
