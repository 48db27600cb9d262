// What a program gets wrong: it is told at once and clearly, and nothing else suffers.
import { expect, it } from "vitest";
import { InvalidUpdate } from "../../src/core/errors";
import { Presence } from "../../src/core/presence";
import { LIMITS, Message } from "../../src/core/wire";
import * as browser from "../../src/index";
import * as node from "../../src/node";
import { offline } from "../../src/offline";
import { createApi } from "../../src/server";
import { World } from "../support/world";

it.each([
  ["no token", { token: undefined }, "token: text or a function is expected"],
  ["an empty token", { token: "" }, "token: text or a function is expected"],
  ["a policy as in Python", { conflict: "server_wins" }, "conflict: conflicts(policy) is expected"],
  ["a function as a policy", { conflict: () => 1 }, "conflict: conflicts(policy) is expected"],
])("refuses %s before it connects", (_, options, message) => {
  const world = new World();

  expect(() => world.session(options as never)).toThrow(new TypeError(message));
  expect(world.wires.size).toBe(0);
});

it.each([
  ["a page", browser],
  ["Node", node],
])("rejects, and does not throw, in %s", async (_, { connect }) => {
  const options = { url: "ftp://host", token: "t", deviceId: "a" };

  await expect(connect(options).catch((error) => error.message)).resolves.toMatch(/WebSocket/);
});

it("does not keep the data of nobody", () => {
  expect(() => offline({} as never)).toThrow("offline: user is expected");
  expect(() => offline("ann" as never)).toThrow("offline: user is expected");
});

it.each([
  [5n, "bigint"],
  [5, "number"],
  [undefined, "undefined"],
  [Symbol("k"), "symbol"],
  ["__proto__", '"__proto__"'],
  ["\ud800", '"\\ud800"'],
])("names what it refuses as a key: %s", (key, shown) => {
  const session = new World().session();

  const set = () => session.set(key as never, 1);
  expect(set).toThrow(InvalidUpdate);
  expect(set).toThrow(`key ${shown}: not text`);
});

it.each([
  ["17 keys", Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, i]))],
  ["more than 1 KiB", { long: "é".repeat(510) }],
  ["more than 1 KiB with what it said before", { long: "x".repeat(1_000) }],
  ["a reserved name", JSON.parse('{"__proto__": 1}')],
  ["a name without text", { "": 1 }],
])("does not say %s, which would be refused with all else on every connection", async (_, me) => {
  const world = new World();
  const session = world.session();
  session.setMe({ cursor: [3, 14] });
  await world.quiet([session]);

  expect(() => session.setMe(me)).toThrow(InvalidUpdate);
  world.cut();
  await world.quiet([session]);
  expect(world.server.heard.at(-1)!.payload.me).toEqual({ cursor: [3, 14] });
});

it("says as much as the server allows", () => {
  const presence = new Presence();
  const limits = { ...LIMITS, ephemeral_keys: 1, ephemeral_per_second: 2 };
  presence.connected(new Message(8, { device_id: "a", devices: [] }), limits, 0);
  presence.say(new Map([["one", 1]]), limits);
  presence.take(0);
  presence.say(new Map([["one", 2]]), limits);
  presence.take(0);
  presence.say(new Map([["one", 3]]), limits);

  expect(presence.wait(0)).toBeGreaterThan(100);
  expect(() => presence.say(new Map([["two", 1]]), limits)).toThrow("me: at most 1 keys");
});

it.each([
  ["rejects", async () => Promise.reject(new Error("login is down")), "Error: login is down"],
  ["returns no text", () => 5, "TypeError: token() returned no text"],
  ["hangs", () => new Promise(() => {}), "ClientError: no answer of token() in time"],
])("tells why there is no token when the function %s", async (_, token, why) => {
  const world = new World();
  const session = world.session({ token: token as never, requestTimeout: 5, startTimeout: 50 });
  const started = session.started();

  await expect(started).rejects.toThrow(`no new token: ${why}`);
});

it("tells a back end, too, why there is no token", async () => {
  const api = createApi({ url: "http://host", token: () => new Promise(() => {}), timeout: 5 });

  await expect(api.get("/health")).rejects.toThrow(/: no answer of token\(\) in time$/);
});

it.each([
  ["Infinity", 3_600_000],
  ["-5", 0],
  ["soon", 0],
])("tells a back end of no wait without an end: Retry-After %s", async (said, wait) => {
  const headers = { "Retry-After": said, "Content-Type": "application/problem+json" };
  const answer = () => Response.json({ code: "overloaded" }, { status: 503, headers });
  const api = createApi({ url: "http://host", fetch: async () => answer() });
  const error = await api.get("/health").catch((it) => it);

  expect([error.code, error.retryAfter]).toEqual(["overloaded", wait]);
});

it("names no cause when there was none yet", async () => {
  const world = new World();
  world.hanging = true;
  const started = world.session({ startTimeout: 20 }).started();

  await expect(started).rejects.toThrow("no connection in time: no answer");
});

it("does not call a token failed whose connection has ended", async () => {
  const world = new World();
  let asked = 0;
  const session = world.session({ token: () => `t${++asked}` });
  await world.quiet([session]);
  const failed: unknown[] = [];
  session.on("tokenFailed", (event) => failed.push(event));
  session.link.renewToken();
  await world.clock.run(1);
  expect(asked).toBe(2);
  await session.close();
  await world.clock.run(100);

  expect(failed).toEqual([]);
});
