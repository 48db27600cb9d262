/** The devices of the session, and what is true of each only while it is there (`me`). */
import { InvalidUpdate } from "./errors";
import { NEVER, Pacer } from "./pacing";
import { bytes, checkKey, isObject, type Json, same, shared, toText } from "./values";
import type { Fields, Limits, Message } from "./wire";

/** One device of the session. Times are Unix seconds. */
export interface Device {
  readonly deviceId: string;
  readonly deviceType: string;
  readonly deviceName: string;
  readonly osVersion: string;
  readonly status: "online" | "offline";
  readonly connectedAt: number;
  readonly lastSeen: number | undefined;
  /** The channel whose call it holds, and the channel's waddle. */
  readonly inCall: string | undefined;
  readonly waddleId: string | undefined;
  /** What it says of itself while it is there: a cursor, a position. */
  readonly me: Readonly<Record<string, Json>>;
}

const NOTHING: Readonly<Record<string, Json>> = Object.freeze({});

export class Presence {
  /** All known devices; a new array only when one changes. */
  list: readonly Device[] = [];
  total = 0;
  /** What this device says of itself. */
  mine: ReadonlyMap<string, Json> = new Map();
  readonly #devices = new Map<string, Device>();
  readonly #unsaid = new Map<string, Json>();
  #own = "";
  /** Of a large session: how many devices are there, and beyond how many none says anything. */
  #online = 0;
  #bound = NEVER;
  #pacer = new Pacer(0, 0, 0);

  /** AUTH_SUCCESS: who is there, and everything that this device says is to be said again. */
  connected(message: Message, limits: Limits, now: number): void {
    this.#own = message.text("device_id");
    this.#bound = limits.presence_list;
    this.whole(message);
    const { ephemeral_per_second: rate } = limits;
    this.#pacer = new Pacer(rate, rate, now);
    this.#unsaid.clear();
    this.#sayAll();
  }

  #sayAll(): void {
    for (const [name, value] of this.mine) this.#unsaid.set(name, value);
  }

  /** A whole list, or some devices of a large session; those need not name this one. */
  whole(message: Message): void {
    if (!message.list("devices")) return;
    const before = new Map(this.#devices);
    const own = before.get(this.#own);
    this.#devices.clear();
    if (own) this.#devices.set(this.#own, own);
    for (const entry of message.records("devices")) this.#put(entry, before);
    this.#said(message.object("me"));
    const total = message.number("devices_total") ?? message.number("total");
    const { partial, devices_partial: some } = message.fields;
    this.#publish(total, partial || some ? total : 0);
  }

  /** DEVICE_LIST: whole, or what has changed. */
  listed(message: Message): void {
    if (!message.flag("delta")) return this.whole(message);
    for (const entry of message.records("joined")) this.#put(entry, this.#devices);
    for (const entry of message.records("left")) this.#devices.delete(entry.text("device_id"));
    this.#said(message.object("me"));
    const total = message.number("total");
    this.#publish(total ?? this.total, total);
  }

  joined(entry: Fields): Device {
    const device = this.#put(entry, this.#devices);
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

  /**
   * Say something of this device; null takes a name back.
   *
   * @throws InvalidUpdate when the server would refuse it, now and with all else on each connection
   */
  say(changes: ReadonlyMap<string, Json>, limits: Limits): void {
    const mine = new Map(this.mine);
    for (const [name, value] of changes) {
      checkKey(name, limits.key_bytes);
      if (value === null) mine.delete(name);
      else mine.set(name, value);
    }
    const { ephemeral_keys: most, ephemeral_bytes: size } = limits;
    if (mine.size > most || bytes(toText(Object.fromEntries(mine))) > size)
      throw new InvalidUpdate(`me: at most ${most} keys and ${size} bytes`);
    for (const [name, value] of changes)
      if (value === null || !same(this.mine.get(name), value)) this.#unsaid.set(name, value);
    this.mine = mine;
  }

  /** When something is to be said, in milliseconds from now. */
  wait(now: number): number {
    return this.#unsaid.size ? this.#pacer.wait(now) : NEVER;
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

  /** `before`: devices as they were known, whose parts are kept where they are equal. */
  #put(entry: Fields, before: ReadonlyMap<string, Device>): Device {
    const deviceId = entry.text("device_id");
    const device = shared(
      before.get(deviceId) as never,
      {
        deviceId,
        deviceType: entry.text("device_type"),
        deviceName: entry.text("device_name"),
        osVersion: entry.text("os_version"),
        status: entry.text("status") === "offline" ? "offline" : "online",
        connectedAt: entry.number("connected_at") ?? 0,
        lastSeen: entry.number("last_seen"),
        inCall: entry.text("in_call") || undefined,
        waddleId: entry.text("waddle_id") || undefined,
        me: entry.object("me"),
      } as never,
    ) as unknown as Device;
    this.#devices.set(deviceId, device);
    return device;
  }

  #publish(total?: number, online = this.#online): void {
    // What was said was taken back when the session grew beyond the bound.
    if (this.#online > this.#bound && online <= this.#bound) this.#sayAll();
    this.#online = online;
    this.list = shared(this.list as never, [...this.#devices.values()] as never) as never;
    this.total = Math.max(total ?? 0, this.list.length);
  }
}
