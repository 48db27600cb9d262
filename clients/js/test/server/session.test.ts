// Sessions against a real server: two devices, a slider, kills, tokens, refusals, drains.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import type { Session } from "../../src/core/session";
import { connect, createSession, type Events, type Options, SessionClosed } from "../../src/node";
import { FaultyProxy } from "../support/proxy";
import { mint, Site, until } from "../support/server";

let site: Site;
const open: Session<never>[] = [];
const proxies: FaultyProxy[] = [];

beforeAll(async () => {
  site = await Site.start({ SYNCBRIDGE_EXPIRY_WARNING: "2s", SYNCBRIDGE_EXPIRY_GRACE: "1s" });
});
afterAll(() => site.close());
afterEach(async () => {
  for (const session of open.splice(0)) await session.close().catch(() => {});
  for (const proxy of proxies.splice(0)) await proxy.close();
});

async function join<S extends object = Record<string, never>>(
  user: string,
  options: Partial<Options> = {},
): Promise<Session<S>> {
  const session = await connect<S>({
    url: site.url,
    token: mint(user),
    deviceId: "phone",
    ...options,
  });
  open.push(session as never);
  return session;
}

function heard<K extends keyof Events>(session: Session<never>, name: K): Events[K][] {
  const events: Events[K][] = [];
  session.on(name, (event) => events.push(event));
  return events;
}

async function through(options: { delay?: number } = {}): Promise<FaultyProxy> {
  const proxy = await FaultyProxy.start(site.port);
  Object.assign(proxy, options);
  proxies.push(proxy);
  return proxy;
}

it("shows a change of one device on the other, and who is there", async () => {
  type State = { mood: string; n: number; list: string[]; big: bigint };
  const user = randomUUID();
  const phone = await join<State>(user);
  const laptop = await join<State>(user, { deviceId: "laptop", deviceName: "MacBook" });
  const moods: unknown[] = [];
  laptop.subscribe("mood", (mood) => moods.push(mood));
  const version = await phone.set("mood", "calm").acknowledged(5_000);
  await until(() => moods.length === 1);
  phone.incr("n", 2);
  laptop.incr("n", 3);
  laptop.append("list", "x");
  phone.update({ big: 12345678901234567890n });
  phone.delete("mood");
  await Promise.all([phone.synced(5_000), laptop.synced(5_000)]);
  await until(() => laptop.version === phone.version && laptop.get("big") !== undefined);

  expect(version).toBe(1);
  expect(laptop.state).toEqual({ n: 5, list: ["x"], big: 12345678901234567890n });
  expect(phone.state).toEqual(laptop.state);
  expect(moods).toEqual(["calm", undefined]);
  const device = phone.devices.find((d) => d.deviceId === "laptop");
  expect([device?.deviceName, device?.status]).toEqual(["MacBook", "online"]);
});

it("paces a slider at 125 changes a second: never rate_limited, the last value arrives", async () => {
  const user = randomUUID();
  const phone = await join<{ v: number }>(user);
  const laptop = await join<{ v: number }>(user, { deviceId: "laptop" });
  const errors = [...heard(phone as never, "error"), ...heard(phone as never, "refused")];
  const start = phone.version;
  for (let i = 1; i <= 625; i++) {
    phone.set("v", i);
    await sleep(8);
  }
  await phone.synced(10_000);
  await until(() => laptop.get("v") === 625);

  expect(errors).toEqual([]);
  expect(phone.version - start).toBeLessThan(80 + 40 * 9);
});

it("carries out every increment once while its connection is cut again and again", async () => {
  const user = randomUUID();
  const proxy = await through();
  const phone = await join<{ n: number; list: number[] }>(user, {
    url: proxy.url,
    backoffBase: 20,
    backoffCap: 100,
  });
  const laptop = await join<{ n: number; list: number[] }>(user, { deviceId: "laptop" });
  for (let i = 0; i < 60; i++) {
    phone.incr("n");
    phone.append("list", i);
    if (i % 6 === 5) proxy.cut();
    proxy.resetAfter = 3 + (i % 5);
    await sleep(25);
  }
  proxy.resetAfter = -1;
  await phone.synced(20_000);
  await until(() => laptop.version === phone.version);

  expect(proxy.accepted).toBeGreaterThan(5);
  expect(laptop.get("n")).toBe(60);
  expect(laptop.get("list")).toEqual([...Array(60).keys()]);
});

it("comes back after kill -9 of the server, with what was changed meanwhile", async () => {
  const user = randomUUID();
  const phone = await join<{ a: number; b: number }>(user);
  const laptop = await join<{ a: number; b: number }>(user, { deviceId: "laptop" });
  await phone.set("a", 1).acknowledged(5_000);
  const lost = heard(phone as never, "disconnected");
  await site.kill();
  await until(() => phone.status === "offline");
  phone.set("b", 2);
  expect(phone.get("b")).toBe(2);
  await site.startServer();
  await phone.synced(30_000);
  await until(() => laptop.get("b") === 2, 30_000);

  expect(lost[0]?.code).toBe(1006);
  expect(laptop.state).toEqual({ a: 1, b: 2 });
});

it("hears a drain, and comes back when it was asked to", async () => {
  const phone = await join(randomUUID());
  const draining = heard(phone as never, "draining");
  const lost = heard(phone as never, "disconnected");
  await site.stop();
  await until(() => lost.length > 0);
  await site.startServer();
  await phone.online(30_000);

  expect(draining.length).toBe(1);
  expect(lost[0]?.code).toBe(1012);
  expect(lost[0]?.retryIn).toBeGreaterThanOrEqual(draining[0]!.retryAfter);
});

it("shows what a device says of itself on another node, says it again after a cut, and keeps none of it", async () => {
  const user = randomUUID();
  const node = await site.beside();
  try {
    const proxy = await through();
    const phone = await join(user, { url: proxy.url });
    const laptop = await join(user, { url: node.url, deviceId: "laptop" });
    const seen = () => laptop.devices.find((d) => d.deviceId === "phone");
    phone.setMe({ cursor: { line: 3 }, typing: true });
    await until(() => seen()?.me.typing === true);
    expect(seen()!.me).toEqual({ cursor: { line: 3 }, typing: true });
    const { cursor } = seen()!.me;
    phone.setMe({ typing: null });
    await until(() => seen()!.me.typing === undefined);
    expect(seen()!.me.cursor).toBe(cursor); // what has not changed stays the same object

    const connected = heard(phone as never, "connected");
    const left = heard(laptop as never, "deviceLeft");
    proxy.fault = "refuse";
    proxy.cut();
    await until(() => seen()?.status === "offline");
    expect(seen()!.me).toEqual({});
    phone.setMe({ away: "tunnel" });
    proxy.fault = "none";
    await until(() => connected.length > 0);
    await until(() => seen()?.me.away === "tunnel");
    expect(seen()!.me).toEqual({ cursor: { line: 3 }, away: "tunnel" });

    const late = await join(user, { url: node.url, deviceId: "late" });
    expect(late.devices.find((d) => d.deviceId === "phone")?.me).toEqual(seen()!.me);
    await phone.close();
    await until(() => left.some((event) => event.deviceId === "phone"));
    await until(() => seen()?.status !== "online");
    expect(seen()?.me ?? {}).toEqual({});
    expect([late.version, late.state]).toEqual([0, {}]);
  } finally {
    await node.close();
  }
});

it("renews a short token in band, without losing the connection", async () => {
  const user = randomUUID();
  let asked = 0;
  const token = async () => {
    asked += 1;
    return mint(user, {}, 3);
  };
  const phone = await join(user, { token });
  const renewed = heard(phone as never, "tokenRenewed");
  const lost = heard(phone as never, "disconnected");
  await until(() => renewed.length >= 2, 15_000);

  expect([phone.status, lost.length]).toEqual(["online", 0]);
  expect(asked).toBe(renewed.length + 1);
});

it("uses a token that the program gives it when one expires", async () => {
  const user = randomUUID();
  const phone = await join(user, { token: mint(user, {}, 3) });
  const expiring = heard(phone as never, "tokenExpiring");
  await until(() => expiring.length > 0, 10_000);
  await phone.authenticate(mint(user));

  expect(phone.status).toBe("online");
});

it.each([
  ["a token that is not one", () => "nonsense", {}, /token_invalid/],
  ["a token that has expired", () => mint("u", {}, -3600), {}, /token_expired/],
  ["a refresh token", () => mint("u", { typ: "refresh" }), {}, /token_invalid/],
  [
    "a token for another session",
    () => mint("u", { session_id: randomUUID() }),
    { sessionId: randomUUID() },
    /wrong_session/,
  ],
  ["a token for another device", () => mint("u", { device_id: "other" }), {}, /wrong_device/],
])("says why it ends with %s", async (_name, token, options, why) => {
  const failure = await join("u", { token: token(), ...options }).catch((error) => error);

  expect(failure).toBeInstanceOf(SessionClosed);
  expect(failure.reason).toMatch(why);
});

it("ends with 403 forbidden in the session of another user", async () => {
  const owner = await join<{ a: number }>(randomUUID());
  await owner.set("a", 1).acknowledged(5_000);
  const failure = await join(randomUUID(), { sessionId: owner.sessionId }).catch((error) => error);

  expect(failure).toBeInstanceOf(SessionClosed);
  expect(failure.reason).toMatch(/forbidden/);
});

it("ends when its device is removed, when its token is revoked, and when it is opened elsewhere", async () => {
  const user = randomUUID();
  const removed = await join(user, { deviceId: "old" });
  await site.admin("DELETE", `/session/${removed.sessionId}/device/old`);
  expect((await removed.closed()).closeCode).toBe(4010);

  const first = await join(user);
  await join(user);
  expect((await first.closed()).closeCode).toBe(4009);

  const other = await join(randomUUID(), { deviceId: "tablet" });
  await site.admin("POST", "/auth/revoke", { user_id: other.userId });
  expect((await other.closed()).closeCode).toBe(4005);
});

it("gives up a handshake that hangs and a server that falls silent", async () => {
  const proxy = await through();
  proxy.fault = "hang";
  const phone = createSession({
    url: proxy.url,
    token: mint(randomUUID()),
    deviceId: "phone",
    connectTimeout: 300,
    probeTimeout: 300,
    backoffBase: 10,
    backoffCap: 50,
  });
  open.push(phone as never);
  await until(() => proxy.accepted >= 2);
  proxy.fault = "none";
  await phone.online(5_000);

  expect(proxy.accepted).toBeGreaterThanOrEqual(3);
});

it("tells an origin problem and a full house apart, by asking over HTTP", async () => {
  const session = createSession({
    url: `ws://127.0.0.1:${site.port}/nowhere`,
    token: mint("u"),
    deviceId: "phone",
  });
  open.push(session as never);

  expect((await session.closed()).reason).toMatch(/not_found/);
});
