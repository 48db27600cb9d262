// The devices of the session: whole lists, and what is told of a large session.
import { expect, it } from "vitest";
import { Presence } from "../../src/core/presence";
import { LIMITS, Message } from "../../src/core/wire";

const entry = (id: string) => ({ device_id: id, status: "online", connected_at: 1 });
const list = (payload: Record<string, unknown>) => new Message(12, payload, undefined, 0);

/** A client that has joined a session of 100 devices as `me`, and is shown two others. */
function joined(): Presence {
  const presence = new Presence();
  const devices = ["a", "b", "me"].map(entry);
  presence.connected(
    list({ device_id: "me", devices, devices_total: 100, devices_partial: true }),
    LIMITS,
    0,
  );
  return presence;
}
const ids = (presence: Presence) => presence.list.map((device) => device.deviceId);

it("knows how many there are when it is shown some", () => {
  const presence = joined();

  expect(ids(presence)).toEqual(["a", "b", "me"]);
  expect(presence.total).toBe(100);
});

it("takes who came and went together", () => {
  const presence = joined();
  const left = [{ device_id: "a", reason: "closed" }, { device_id: "never seen" }];
  presence.listed(list({ delta: true, joined: [entry("c")], left, total: 90 }));

  expect(ids(presence)).toEqual(["b", "me", "c"]);
  expect(presence.total).toBe(90);
});

it("leaves the total alone when a device says something", () => {
  const presence = joined();
  presence.listed(list({ delta: true, me: { a: { x: 1 } } }));

  expect(presence.total).toBe(100);
  expect(presence.list.find((device) => device.deviceId === "a")?.me).toEqual({ x: 1 });
});

it("says everything again when a large session is small enough again, once", () => {
  const presence = new Presence();
  const limits = { ...LIMITS, presence_list: 4 };
  presence.connected(list({ device_id: "me", devices: [entry("me")] }), limits, 0);
  presence.say(new Map([["x", 1]]), limits);
  presence.take(0);
  const steps = [
    { devices: [entry("a")], total: 5, partial: true },
    { delta: true, total: 6 },
    { delta: true, me: { a: { y: 1 } } },
    { delta: true, total: 4 },
    { devices: [entry("me")], total: 9 },
  ];
  const said = steps.map((step) => {
    presence.listed(list(step));
    return presence.wait(9_000) === 0 && presence.take(9_000);
  });

  expect(said).toEqual([false, false, false, { x: 1 }, false]);
});

it("keeps itself when another part is shown", () => {
  const presence = joined();
  presence.listed(list({ devices: [entry("x")], total: 80, partial: true }));

  expect(new Set(ids(presence))).toEqual(new Set(["x", "me"]));
  expect(presence.total).toBe(80);
});
