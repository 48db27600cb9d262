/** Sessions, a model server, and a network between them that can be broken. Time is the test's. */
import type { Env, Explanation, SocketLike } from "../../src/core/env";
import { type AnyState, type Options, Session } from "../../src/core/session";
import { Clock, seeded } from "./clock";
import { ModelServer, type Peer } from "./model";

/** One WebSocket, both ends of it. Messages take `latency` each way and keep their order. */
class Wire implements SocketLike, Peer {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  bufferedAmount = 0;
  deviceId = "";
  ready = false;
  cut = false;
  opened = false;

  constructor(readonly world: World) {
    if (world.hanging) return;
    this.#later(() => {
      if (world.refusing || world.down) return this.#end(1006, "");
      this.opened = true;
      this.onopen?.({} as never);
    });
  }

  // The client's end

  send(data: string | object): void {
    if (typeof data === "string") {
      this.world.sent.push(data);
      this.#later(() => this.world.down || this.world.server.receive(this, data));
    } else this.#later(() => this.onmessage?.({ data: JSON.stringify(data) } as never));
  }

  /** By the client, or with a reason by the server. */
  close(code = 1000, reason?: string): void {
    if (reason === undefined) return this.break(false);
    this.#leave();
    this.#later(() => this.#end(code, reason));
  }

  /** Whatever is on the way is lost. */
  break(told = true): void {
    this.#leave();
    this.cut = true;
    if (told) this.onclose?.({ code: 1006, reason: "" } as never);
  }

  #leave(): void {
    this.ready = false;
    this.world.server.peers = this.world.server.peers.filter((p) => p !== this);
    this.world.wires.delete(this);
  }

  #end(code: number, reason: string): void {
    this.cut = true;
    this.onclose?.({ code, reason } as never);
  }

  #later(act: () => void): void {
    this.world.clock.timer(this.world.latency, () => this.cut || this.world.silent || act());
  }
}

export class World {
  readonly clock = new Clock();
  readonly server: ModelServer;
  readonly wires = new Set<Wire>();
  readonly sent: string[] = [];
  readonly random: () => number;
  latency = 5;
  /** The server is not there. */
  down = false;
  /** Handshakes are refused; `why` is what `GET /ws` says. */
  refusing = false;
  why: Explanation | undefined;
  /** Handshakes are never answered. */
  hanging = false;
  /** Nothing arrives any more, and nobody is told. */
  silent = false;
  #ids = 0;

  constructor(sequenced = true, seed = 1) {
    this.server = new ModelServer(sequenced, () => Math.floor(1.7e9 + this.clock.now / 1000));
    this.random = seeded(seed);
  }

  /** Those that are alive; a page that has crashed does nothing any more. */
  #lives: { over: boolean }[] = [];

  /** Every page so far crashes: no timer of it runs again, and nobody is told anything. */
  crash(): void {
    for (const life of this.#lives.splice(0)) life.over = true;
    for (const wire of [...this.wires]) wire.break();
  }

  env(): Env {
    const life = { over: false };
    this.#lives.push(life);
    return {
      now: () => this.clock.now,
      timer: (ms, wake) => this.clock.timer(ms, () => life.over || wake()),
      socket: () => {
        const wire = new Wire(this);
        this.wires.add(wire);
        return wire;
      },
      explain: async () => this.why,
      random: this.random,
      newId: () => `id-${++this.#ids}`,
    };
  }

  session<S extends object = AnyState>(options: Partial<Options> = {}): Session<S> {
    const all = { url: "ws://model/ws", token: "t", deviceId: "a", ...options };
    return new Session<S>(all, this.env());
  }

  /** Break every connection. */
  cut(): void {
    for (const wire of [...this.wires]) wire.break();
  }

  /** Until nothing waits, or so many milliseconds. */
  async quiet(sessions: Session<never>[] | Session[], ms = 120_000): Promise<void> {
    for (let spent = 0; spent < ms; spent += 100) {
      await this.clock.run(100);
      if ((sessions as Session[]).every((s) => s.status === "online" && !s.pending.length)) break;
    }
    await this.clock.run(1_000);
  }
}
