/** `offline`: a `store` that survives a reload, and that the tabs of a device share. */
import type { Store } from "../core/store";
import { Disk } from "./disk";
import { Tabs } from "./tabs";

export interface OfflineOptions {
  /** Whose data it is: a user id. Part of the name of the database. */
  user: string;
  /** Which one, when a user has several sessions or devices in this browser. */
  name?: string;
}

export interface Offline extends Store {
  /** False after storage has failed, and where there is none. */
  readonly durable: boolean;
}

/**
 * A `store` for `connect`. Tabs with the same user, name and device id share one connection and one
 * queue, where the browser has locks, which it has on secure origins.
 */
export function offline({ user, name = "" }: OfflineOptions): Offline {
  if (!user) throw new TypeError("offline: user is expected");
  const id = `syncbridge:${user}:${name}`;
  const disk = new Disk(id);
  return disk.durable && globalThis.navigator?.locks && hasChannels() ? new Tabs(id, disk) : disk;
}

/** Where a browser blocks storage it may refuse channels, too. */
function hasChannels(): boolean {
  try {
    new BroadcastChannel("syncbridge").close();
    return true;
  } catch {
    return false;
  }
}
