/** What a session tells its program, besides the state itself. */
import type { Resolution } from "./conflicts";
import type { StorageError, UpdateRefused } from "./errors";
import type { Device } from "./presence";
import type { Json } from "./values";
import type { Failure, Kind } from "./wire";

/**
 * Where a session is: `connecting` before the first connection, then `online` or `offline`;
 * `sleeping` while the page is frozen or in the back/forward cache, and in a tab that another tab
 * speaks for; at last `closed`.
 */
export type Status = "connecting" | "online" | "offline" | "sleeping" | "closed";

/** An update that was acknowledged and then lost with the server's store. */
export interface LostUpdate {
  readonly id: string;
  readonly changes: Readonly<Record<string, Json>>;
  readonly deleted: readonly string[];
  /** The operation, when it was not SET or DELETE. */
  readonly operation: string;
}

export interface Events {
  /** The session is online. `resumed`: only what had changed meanwhile was sent. */
  connected: { version: number; resumed: boolean; calls: readonly unknown[] | undefined };
  /** The connection is gone; `code` is 1006 without a close frame, 0 when none was made. */
  disconnected: { code: number; reason: string; retryIn: number };
  /** The session has ended and does not connect again. */
  closed: { code: number; reason: string };
  status: Status;
  /** The page will be frozen or left. What is told now is the last that goes out. */
  leaving: undefined;
  devices: readonly Device[];
  deviceJoined: Device;
  deviceLeft: { deviceId: string; reason: string };
  /** The server will close the connection and asks to come back after so many milliseconds. */
  draining: { retryAfter: number };
  /** Without a `token` function, call `authenticate` now. `expiresAt`: Unix seconds. */
  tokenExpiring: { expiresAt: number };
  tokenRenewed: { expiresAt: number };
  /** No new token could be had, or the server did not accept it. */
  tokenFailed: { message: string };
  /** An update was refused for good; its optimistic effect is taken back. */
  refused: { id: string; keys: readonly string[]; error: UpdateRefused };
  /** Somebody else changed keys of an update of ours; how each was settled. */
  conflict: { id: string; resolutions: readonly Resolution[] };
  /** The server's state is not the continuation of ours: it was rolled back, or began anew. */
  reset: { reason: string; version: number };
  /** Acknowledged updates that the server does not have any more. `resend` makes them again. */
  lost: { count: number; updates: readonly LostUpdate[]; resend: () => void };
  /** An ERROR that answers none of our updates. */
  error: Failure;
  /** Anything else that the server sends: BROADCAST, ADMIN_UPDATE. */
  message: { type: Kind; payload: Readonly<Record<string, unknown>> };
  /** A message about a voice call. */
  voice: { type: string; data: Readonly<Record<string, unknown>> };
  /** The browser's storage failed: from here on updates are kept in memory only. */
  storage: StorageError;
}

export type Listener<T> = (event: T) => void;

/** Listeners by event. One that throws does not keep the others from hearing. */
export class Emitter<M> {
  readonly #listeners = new Map<keyof M, Set<Listener<never>>>();

  /** @returns a function that ends the listening */
  on<K extends keyof M>(name: K, listener: Listener<M[K]>): () => void {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set.add(listener));
    return () => {
      if (set.delete(listener) && !set.size) this.#listeners.delete(name);
    };
  }

  emit<K extends keyof M>(name: K, event: M[K]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) call(listener as never, event);
  }
}

/** Call a listener; what it throws is reported as an uncaught error, as the DOM does. */
export function call<T>(listener: Listener<T>, event: T): void {
  try {
    listener(event);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
