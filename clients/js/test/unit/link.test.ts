// The connections of a session: every state and what ends it, on a clock that the test moves.
import { expect, it, vi } from "vitest";
import {
  ConnectFailed,
  SessionClosed,
  UnauthorizedError,
  UnsentUpdates,
} from "../../src/core/errors";
import type { Events } from "../../src/core/events";
import { explain } from "../../src/core/explain";
import type { Session } from "../../src/core/session";
import { TokenKeeper } from "../../src/core/tokens";
import { offline } from "../../src/offline";
import { settle } from "../support/clock";
import { World } from "../support/world";

function heard<K extends keyof Events>(session: Session, name: K): Events[K][] {
  const events: Events[K][] = [];
  session.on(name, (event) => events.push(event));
  return events;
}

const auths = (world: World) => world.server.heard.filter((m) => m.type === 7);

it("gives up a handshake that hangs, and tries again", async () => {
  const world = new World();
  world.hanging = true;
  const session = world.session();
  await world.clock.run(9_999);
  expect(world.wires.size).toBe(1);
  world.hanging = false;
  await world.clock.run(1_000);

  expect(session.status).toBe("online");
});

it("gives up a server that says nothing for two heartbeats, after asking it", async () => {
  const world = new World();
  const session = world.session();
  await world.quiet([session]);
  const lost = heard(session, "disconnected");
  world.silent = true;
  await world.clock.run(49_000);
  expect(session.status).toBe("online");
  await world.clock.run(4_000);

  expect(lost.map(({ code, reason }) => [code, reason])).toEqual([
    [1006, "nothing heard for too long"],
  ]);
});

it("stays connected as long as heartbeats are answered", async () => {
  const world = new World();
  const session = world.session();
  await world.clock.run(600_000);

  expect(session.status).toBe("online");
  expect(auths(world).length).toBe(1);
});

it("asks a server after a sleep before it gives up the connection", async () => {
  const world = new World();
  const session = world.session();
  await world.quiet([session]);
  world.clock.leap(3_600_000);
  await world.clock.run(1_000);

  expect(session.status).toBe("online");
  expect(auths(world).length).toBe(1);
});

it("spreads its attempts, and hears what the server asks for", async () => {
  const world = new World();
  world.refusing = true;
  world.why = { status: 429, code: "rate_limited", detail: "slow down", retryAfter: 7_000 };
  const session = world.session();
  const lost = heard(session, "disconnected");
  await world.clock.run(120_000);

  expect(lost.length).toBeGreaterThan(5);
  expect(lost[0]!.retryIn).toBeGreaterThanOrEqual(7_000);
  expect(lost[0]!.reason).toBe("rate_limited: slow down");
  expect(Math.max(...lost.map((l) => l.retryIn))).toBeLessThanOrEqual(37_000);
});

it("waits at most a quarter of an outage, and starts small again after a connection that lived", async () => {
  const world = new World();
  world.refusing = true;
  const session = world.session();
  const waits: [since: number, retryIn: number][] = [];
  let began = world.clock.now;
  session.on("disconnected", ({ retryIn }) => waits.push([world.clock.now - began, retryIn]));
  await world.clock.run(300_000);

  for (const [since, retryIn] of waits)
    expect(retryIn).toBeLessThanOrEqual(Math.max(250, since / 4));
  expect(Math.max(...waits.map(([, retryIn]) => retryIn))).toBeGreaterThan(10_000);

  world.refusing = false;
  await world.quiet([session]);
  await world.clock.run(60_000);
  waits.length = 0;
  began = world.clock.now;
  world.refusing = true;
  world.cut();
  await world.clock.run(2_000);

  expect(waits.length).toBeGreaterThan(3);
  for (const [since, retryIn] of waits)
    expect(retryIn).toBeLessThanOrEqual(Math.max(250, since / 4));
});

it("ends when the refusal of a handshake is for good, and says why", async () => {
  const world = new World();
  world.refusing = true;
  world.why = { status: 403, code: "origin_refused", detail: "not this page", retryAfter: 0 };
  const session = world.session();
  await world.clock.run(100);

  expect((await session.closed()).reason).toBe("origin_refused: not this page");
});

it.each([
  ["token_invalid", 4002, false],
  ["token_revoked", 4005, false],
  ["forbidden", 4003, false],
  ["wrong_session", 4003, false],
  ["too_many_devices", 4011, false],
  ["store_unavailable", 4012, true],
  ["overloaded", 4013, true],
])("after AUTH_FAILURE %s", async (code, close, retryable) => {
  const world = new World();
  world.server.rejectToken = { code, close, retryable };
  const session = world.session();
  await world.clock.run(5_000);

  expect(session.status).toBe(retryable ? "connecting" : "closed");
  if (!retryable) expect((await session.closed()).reason).toBe(`${code}: ${code}`);
  expect(auths(world).length > 1).toBe(retryable);
});

it("takes a new token after token_expired, and ends when there is none", async () => {
  const world = new World();
  world.server.rejectToken = { code: "token_expired", close: 4002 };
  let asked = 0;
  const renewing = world.session({
    token: () => {
      if (++asked > 1) world.server.rejectToken = undefined;
      return `t${asked}`;
    },
  });
  await world.clock.run(3_000);
  expect([renewing.status, asked]).toEqual(["online", 2]);

  world.server.rejectToken = { code: "token_expired", close: 4002 };
  const fixed = world.session({ deviceId: "b" });
  await world.clock.run(3_000);
  expect((await fixed.closed()).closeCode).toBe(4004);
});

it("asks for a new token when the one that it had is not accepted any more, once", async () => {
  const world = new World();
  let asked = 0;
  const session = world.session({
    token: () => {
      if (++asked === 2) world.server.rejectToken = undefined;
      return `t${asked}`;
    },
  });
  await world.quiet([session]);
  world.server.rejectToken = { code: "token_invalid", close: 4002 };
  world.cut();
  await world.clock.run(3_000);
  expect([session.status, asked]).toEqual(["online", 2]);

  world.server.rejectToken = { code: "token_invalid", close: 4002 };
  world.cut();
  await world.clock.run(3_000);
  expect([(await session.closed()).closeCode, asked]).toEqual([4002, 3]);
});

it("goes on after a renewal that the server did not accept, with another token", async () => {
  const world = new World();
  let asked = 0;
  const session = world.session({ token: () => `t${++asked}` });
  await world.quiet([session]);
  world.server.rejectToken = { code: "token_invalid", close: 4002 };
  for (const peer of [...world.server.peers]) {
    peer.ready = false;
    world.server.receive(peer, JSON.stringify({ type: 7, payload: { token: "bad" } }));
  }
  world.server.rejectToken = undefined;
  await world.quiet([session]);

  expect([session.status, asked]).toEqual(["online", 2]);
});

it.each([
  ["Infinity", 3_600_000],
  ["-5", 0],
  ["soon", 0],
  ["2", 2_000],
])("waits within bounds after Retry-After: %s", async (said, wait) => {
  vi.stubGlobal("fetch", async () =>
    Response.json({ code: "overloaded" }, { status: 503, headers: { "Retry-After": said } }),
  );
  expect((await explain("ws://server/ws"))!.retryAfter).toBe(wait);
  vi.unstubAllGlobals();
});

it("renews its token in band before it ends, with one request", async () => {
  const world = new World();
  let asked = 0;
  const session = world.session({ token: () => `t${++asked}` });
  const renewed = heard(session, "tokenRenewed");
  await world.clock.run(1_700_000);

  expect(session.status).toBe("online");
  expect([asked, renewed.length, auths(world).length]).toEqual([3, 2, 3]);
});

it("says at the end of a page what is told when it is left", async () => {
  const world = new World();
  const session = world.session();
  await world.quiet([session]);
  session.on("leaving", () => session.tell("voice_leave", { channelId: "c" }));
  session.link.sleep();
  await world.clock.run(100);

  expect(session.status).toBe("sleeping");
  expect(world.sent.some((text) => text.includes("voice_leave"))).toBe(true);
});

it("asks for one token however many wait for it", async () => {
  let asked = 0;
  const keeper = new TokenKeeper(
    async () => `t${++asked}`,
    (work) => work,
  );
  const waiting = [keeper.renewed(), keeper.current(0), keeper.renewed()];

  expect(await Promise.all(waiting)).toEqual(["t1", "t1", "t1"]);
  expect(await keeper.renewed()).toBe("t2");
});

it("asks again when a token could not be had, and ends when the login is over", async () => {
  const world = new World();
  let asked = 0;
  const session = world.session({
    token: () => {
      asked += 1;
      if (asked === 1) throw new Error("network");
      if (asked === 3) throw new UnauthorizedError();
      return "t";
    },
  });
  await world.clock.run(2_000);
  expect(session.status).toBe("online");
  world.server.rejectToken = { code: "token_expired", close: 4002 };
  world.cut();
  await world.clock.run(60_000);

  expect((await session.closed()).closeCode).toBe(4002);
});

it("comes back after a drain when the server asked it to", async () => {
  const world = new World();
  const session = world.session();
  await world.quiet([session]);
  const draining = heard(session, "draining");
  const lost = heard(session, "disconnected");
  for (const peer of [...world.server.peers]) {
    peer.send({
      type: 6,
      payload: { code: "draining", message: "", retryable: true, retry_after_ms: 4_000 },
    });
    peer.close(1012, "server restarts");
  }
  await world.clock.run(3_900);
  expect([draining.length, lost[0]!.code, auths(world).length]).toEqual([1, 1012, 1]);
  await world.quiet([session]);

  expect(session.status).toBe("online");
});

it("ends when the same device connects again elsewhere", async () => {
  const world = new World();
  const first = world.session();
  await world.quiet([first]);
  const second = world.session();
  await world.quiet([second]);

  expect((await first.closed()).closeCode).toBe(4009);
  expect(() => first.set("a", 1)).toThrow(SessionClosed);
});

it("ends the connection, not the program, when it does not understand the server", async () => {
  const world = new World();
  const session = world.session();
  await world.quiet([session]);
  const lost = heard(session, "disconnected");
  world.server.peers[0]!.send([] as never);
  await world.quiet([session]);

  expect(lost[0]!.reason).toMatch(/not understood/);
  expect(session.status).toBe("online");
});

it("closes what is open after the last acknowledgement, and names what had none", async () => {
  const world = new World();
  const session = world.session({ closeTimeout: 10 });
  await world.quiet([session]);
  world.silent = true;
  session.set("a", 1);

  await expect(session.close()).rejects.toThrow(UnsentUpdates);
  await expect(session.close()).resolves.toBeUndefined();
  expect(session.status).toBe("closed");
});

it("names what had no acknowledgement when its store keeps nothing, as in Node", async () => {
  const world = new World();
  const session = world.session({ closeTimeout: 10, store: offline({ user: "u" }) });
  await world.quiet([session]);
  world.silent = true;
  session.set("a", 1);

  await expect(session.close()).rejects.toThrow(UnsentUpdates);
});

it("throws ConnectFailed with the reason when there is no connection in time", async () => {
  const world = new World();
  world.refusing = true;
  const session = world.session({ startTimeout: 20 });
  const started = session.started();
  await world.clock.run(100);

  await expect(started).rejects.toThrow(ConnectFailed);
  expect(session.status).toBe("closed");
});

it("says again on each connection what is true while the device is there, at a bounded rate", async () => {
  const world = new World();
  const session = world.session();
  await world.quiet([session]);
  for (let i = 0; i < 200; i++) {
    session.setMe({ cursor: i });
    await world.clock.run(5);
  }
  await world.clock.run(1_000);
  const said = world.server.heard.filter((m) => m.type === 12);
  expect(said.length).toBeLessThanOrEqual(16 + 20);
  expect(said.at(-1)!.payload.me).toEqual({ cursor: 199 });
  world.cut();
  await world.quiet([session]);

  expect(world.server.heard.at(-1)!.payload.me).toEqual({ cursor: 199 });
});

it("asks for the state when a heartbeat shows that something is missing", async () => {
  const world = new World();
  world.server.lineages = true;
  const session = world.session();
  session.set("a", 1);
  await world.quiet([session]);
  world.server.state.set("b", 2);
  world.server.version = 2;
  world.server.changedAt.set("b", 2);
  await world.clock.run(30_000);
  await settle();

  expect(session.state).toEqual({ a: 1, b: 2 });
  const asked = world.server.heard.find((m) => m.type === 3)!;
  expect(asked.payload.since).toEqual({ version: 1, epoch: "e1", lineage: "l1" });
});
