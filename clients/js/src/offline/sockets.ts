/** The two ends that sessions have in tabs that share a connection. */
import type { SocketLike } from "../core/env";
import type { Disk } from "./disk";
import type { Hub } from "./hub";

/** What one tab says to another, or to all. */
export interface Word {
  from: string;
  to?: string | undefined;
  kind:
    | "state"
    | "stored"
    | "say"
    | "shut"
    | "leader"
    | "heard"
    | "answer"
    | "hear"
    | "status"
    | "close";
  data?: unknown;
}

type Listener = ((event: never) => void) | null;

/** The WebSocket of a session whose tab follows. */
export class FollowerSocket implements SocketLike {
  readonly bufferedAmount = 0;
  onopen: Listener = null;
  onmessage: Listener = null;
  onclose: Listener = null;
  onerror: Listener = null;
  /** The leader has answered; what it says to all is of no use before. */
  ready = false;

  constructor(private readonly say: (word: Omit<Word, "from">) => void) {
    queueMicrotask(() => this.onopen?.({} as never));
  }

  send(data: string): void {
    this.say({ kind: "say", data });
  }

  close(): void {
    this.say({ kind: "shut" });
  }

  hear({ kind, to, data }: Word): void {
    if (kind === "close") return this.onclose?.(data as never);
    this.ready ||= to !== undefined;
    if (this.ready) this.onmessage?.({ data } as never);
  }
}

const REPLACED = 4009;

/**
 * The WebSocket of the tab that leads; the others hear what comes.
 *
 * A second connection of the device closes the first. Where another tab has opened the database
 * meanwhile it was that tab's, and this one follows it.
 */
export class LeaderSocket implements SocketLike {
  onopen: Listener = null;
  onmessage: Listener = null;
  onclose: Listener = null;
  onerror: Listener = null;

  constructor(
    private readonly inner: SocketLike,
    private readonly hub: Hub,
    private readonly disk: Disk,
    private readonly demote: () => void,
  ) {
    inner.onopen = (event) => this.onopen?.(event);
    inner.onerror = (event) => this.onerror?.(event);
    inner.onmessage = (event) => this.#message(event);
    inner.onclose = (event: { code: number }) => {
      if (event.code === REPLACED) void this.#unlessNewer(() => this.onclose?.(event as never));
      else this.onclose?.(event as never);
    };
  }

  get bufferedAmount(): number {
    return this.inner.bufferedAmount;
  }

  send(data: string): void {
    this.inner.send(data);
  }

  close(code?: number): void {
    this.inner.close(code);
  }

  #message(event: { data: string }): void {
    const deliver = () =>
      this.onmessage && this.hub.pass(event.data, () => this.onmessage?.(event as never));
    if (this.hub.isFence(event.data)) void this.#unlessNewer(deliver);
    else deliver();
  }

  async #unlessNewer(act: () => void): Promise<void> {
    if (await this.disk.newest().catch(() => true)) act();
    else this.demote();
  }
}
