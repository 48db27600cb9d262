/** The devices of the session, and what is true of each only while it is there (`me`). */
import { Pacer } from "./pacing";
import { isObject, type Json, MISSING, same, shared, type Value } from "./values";
import type { Message } from "./wire";

/** One device of the session. Times are Unix seconds. */
export interface Device {
  readonly deviceId: string;
  readonly deviceType: string;
  readonly deviceName: string;
  readonly osVersion: string;
  readonly status: "online" | "offline";
  readonly connectedAt: number;
  readonly lastSeen: number | undefined;
  /** The channel whose call it holds. */
  readonly inCall: string | undefined;
  /** What it says of itself while it is there: a cursor, a position. */
  readonly me: Readonly<Record<string, Json>>;
}

/** Changes of `me` a second that the server takes. */
const ME_RATE = 20;
const NOTHING: Readonly<Record<string, Json>> = Object.freeze({});

export class Presence {
  /** All known devices; a new array whenever one changes. */
  list: readonly Device[] = [];
  total = 0;
  /** What this device says of itself. */
  readonly mine = new Map<string, Json>();
  readonly #devices = new Map<string, Device>();
  readonly #unsaid = new Map<string, Json>();
  #pacer = new Pacer(ME_RATE, ME_RATE, 0);

  /** AUTH_SUCCESS: who is there, and everything that this device says is to be said again. */
  connected(message: Message, now: number): void {
    this.whole(message);
    this.#pacer = new Pacer(ME_RATE, ME_RATE, now);
    this.#unsaid.clear();
    for (const [name, value] of this.mine) this.#unsaid.set(name, value);
  }

  /** A whole list. */
  whole(message: Message): void {
    const entries = message.records("devices");
    if (!entries) return;
    const before = new Map(this.#devices);
    this.#devices.clear();
    for (const entry of entries) this.#put(entry, before.get(String(entry.device_id)), entry.me);
    this.#said(message.object("me"));
    this.#publish(message.number("devices_total") ?? message.number("total"));
  }

  /** DEVICE_LIST: whole, or what has changed. */
  listed(message: Message): void {
    if (!message.flag("delta")) return this.whole(message);
    for (const entry of message.records("joined") ?? []) this.joined(entry);
    for (const entry of message.records("left") ?? [])
      this.left(String(entry.device_id), String(entry.reason ?? ""));
    this.#said(message.object("me"));
    this.#publish(message.number("total"));
  }

  joined(entry: Readonly<Record<string, unknown>>): Device {
    const device = this.#put(entry, undefined, entry.me);
    this.#publish();
    return device;
  }

  left(deviceId: string, reason: string): void {
    const known = this.#devices.get(deviceId);
    if (reason === "removed") this.#devices.delete(deviceId);
    else if (known && reason !== "replaced")
      this.#devices.set(deviceId, Object.freeze({ ...known, status: "offline", me: NOTHING }));
    this.#publish();
  }

  /** Say something of this device; MISSING takes a name back. */
  say(changes: ReadonlyMap<string, Value>): void {
    for (const [name, value] of changes) {
      if (value === MISSING || value === null) this.mine.delete(name);
      else if (same(this.mine.get(name), value)) continue;
      else this.mine.set(name, value);
      this.#unsaid.set(name, value === MISSING ? null : value);
    }
  }

  /** Whether something is to be said now. */
  ready(now: number): boolean {
    return this.#unsaid.size > 0 && this.#pacer.wait(now) === 0;
  }

  /** When something is to be said, in milliseconds from now. */
  wait(now: number): number {
    return this.#unsaid.size ? this.#pacer.wait(now) : Number.POSITIVE_INFINITY;
  }

  /** What is to be said. */
  take(now: number): Record<string, Json> {
    this.#pacer.take(now);
    const me = Object.fromEntries(this.#unsaid);
    this.#unsaid.clear();
    return me;
  }

  #said(me: Readonly<Record<string, Json>>): void {
    for (const [deviceId, map] of Object.entries(me)) {
      const known = this.#devices.get(deviceId);
      if (known && isObject(map))
        this.#devices.set(
          deviceId,
          Object.freeze({ ...known, me: shared(known.me, map) as never }),
        );
    }
  }

  #put(entry: Readonly<Record<string, unknown>>, old: Device | undefined, me: unknown): Device {
    const text = (name: string) => (typeof entry[name] === "string" ? entry[name] : "");
    const device: Device = {
      deviceId: text("device_id"),
      deviceType: text("device_type"),
      deviceName: text("device_name"),
      osVersion: text("os_version"),
      status: entry.status === "offline" ? "offline" : "online",
      connectedAt: Number(entry.connected_at ?? 0),
      lastSeen: typeof entry.last_seen === "number" ? entry.last_seen : undefined,
      inCall: text("in_call") || undefined,
      me: isObject(me) ? (shared(old?.me ?? MISSING, me as Json) as never) : NOTHING,
    };
    this.#devices.set(device.deviceId, Object.freeze(device));
    return device;
  }

  #publish(total?: number): void {
    this.list = Object.freeze([...this.#devices.values()]);
    this.total = Math.max(total ?? 0, this.list.length);
  }
}
