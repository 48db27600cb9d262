/**
 * The network of one device: tells what travels, and can be cut.
 *
 * It stands between the client and its sockets as a `Store` that keeps nothing, but has surroundings
 * of its own. A cut is what an aeroplane mode does: sockets end without a close frame, none opens.
 */
import type { Env, SocketLike, Store } from "@syncbridge/client";

const ABNORMAL = 1006;

type Told = (sent: boolean, text: string) => void;
type Listener = ((event: never) => void) | null;

/** What is lost with the network. */
interface Lost {
  lose(): void;
}

export class Line implements Store {
  cut = false;
  readonly #lost = new Set<Lost>();

  constructor(readonly told: Told) {}

  switch(cut: boolean): void {
    if (cut === this.cut) return;
    this.cut = cut;
    if (cut) for (const one of [...this.#lost]) one.lose();
    // What a browser says when its network is back; the client then waits no longer.
    else window.dispatchEvent(new Event("online"));
  }

  /** Have something lost at the next cut; returns what ends that. */
  carries(one: Lost): () => void {
    this.#lost.add(one);
    return () => void this.#lost.delete(one);
  }

  surroundings(env: Env): Env {
    return {
      ...env,
      socket: (url) => (this.cut ? new NoSocket() : new Wire(env.socket(url), this)),
      explain: (url) => (this.cut ? Promise.resolve(undefined) : env.explain(url)),
    };
  }

  // It keeps nothing.

  open = async () => false;
  belongs = () => true;
  stored = async () => false;
  changed(): void {}
  finished(): void {}
  sleep(): void {}
  close(): void {}
}

/** A socket whose messages are told. */
class Wire implements SocketLike {
  onopen: Listener = null;
  onmessage: Listener = null;
  onclose: Listener = null;
  onerror: Listener = null;
  readonly #release: () => void;

  constructor(
    private readonly real: SocketLike,
    private readonly line: Line,
  ) {
    this.#release = line.carries(this);
    real.onopen = (event) => this.onopen?.(event);
    real.onerror = (event) => this.onerror?.(event);
    real.onmessage = (event: { data: unknown }) => {
      line.told(false, String(event.data));
      this.onmessage?.(event as never);
    };
    real.onclose = (event) => {
      this.#release();
      this.onclose?.(event);
    };
  }

  get bufferedAmount(): number {
    return this.real.bufferedAmount;
  }

  send(data: string): void {
    this.line.told(true, data);
    this.real.send(data);
  }

  close(code?: number, reason?: string): void {
    this.#release();
    this.real.close(code, reason);
  }

  lose(): void {
    this.#release();
    this.real.onopen = this.real.onmessage = this.real.onclose = null;
    this.real.close();
    this.onclose?.({ code: ABNORMAL, reason: "" } as never);
  }
}

/** A socket that cannot open. */
class NoSocket implements SocketLike {
  readonly bufferedAmount = 0;
  onopen: Listener = null;
  onmessage: Listener = null;
  onclose: Listener = null;
  onerror: Listener = null;
  readonly #timer = setTimeout(() => this.onclose?.({ code: ABNORMAL, reason: "" } as never), 10);

  send(): void {}

  close(): void {
    clearTimeout(this.#timer);
  }
}
