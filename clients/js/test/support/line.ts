/**
 * The client's rules and a model server with a line between them, on which every message is moved
 * by the test: read, delivered, left out, or lost with the connection.
 */
import type { Guard } from "../../src/core/conflicts";
import { Dialogue, type Sink } from "../../src/core/dialogue";
import type { Events } from "../../src/core/events";
import { become, type Edits, type Operation } from "../../src/core/operations";
import { BOUNDS } from "../../src/core/options";
import type { Pending, Queue } from "../../src/core/queue";
import type { Json } from "../../src/core/values";
import { ModelServer, type Peer } from "./model";

interface Answer {
  type: number;
  payload: { version: number; prev_version: number; changes: object; deleted_keys: string[] };
  correlation_id: string | null;
}

export class Line implements Sink {
  readonly server: ModelServer;
  readonly dialogue: Dialogue;
  readonly queue: Queue;
  readonly inbox: string[] = [];
  readonly outbox: Answer[] = [];
  readonly finishes: [Pending, Error | undefined][] = [];
  readonly lost: Events["lost"][] = [];
  now = 1_000;
  connections = 0;
  #ids = 0;
  #peer: Peer | undefined;

  constructor(sequenced = true, window = 8, conflict?: Guard) {
    this.server = new ModelServer(sequenced);
    const newId = () => `id-${++this.#ids}`;
    this.dialogue = new Dialogue({ deviceId: "a" }, { ...BOUNDS, window, conflict }, this, newId);
    this.queue = this.dialogue.replica.queue;
    this.connect();
    this.settle();
  }

  changed(): void {}
  resend(): void {}
  event<K extends keyof Events>(name: K, event: Events[K]): void {
    if (name === "lost") this.lost.push(event as Events["lost"]);
  }
  finished(pending: Pending, error?: Error): void {
    this.finishes.push([pending, error]);
  }

  set(key: string, value: Json): Pending {
    return this.submit(new Map([[key, become(value)]]));
  }

  operate(key: string, operation: Operation, value: Json, expected?: Json): Pending {
    const edit = { operation, value, ...(expected === undefined ? {} : { expected }) };
    return this.submit(new Map([[key, edit]]));
  }

  submit(edits: Edits): Pending {
    return this.dialogue.submit(edits);
  }

  // The line

  get connected(): boolean {
    return this.#peer !== undefined;
  }

  connect(): void {
    this.connections += 1;
    this.#peer = {
      deviceId: "",
      ready: false,
      send: (message) => void this.outbox.push(structuredClone(message) as Answer),
      close: () => {},
    };
    this.inbox.push(this.dialogue.opening("token"));
  }

  /** Whatever is on the line is lost. */
  lose(): void {
    this.server.peers = [];
    this.#peer = undefined;
    this.inbox.length = this.outbox.length = 0;
    this.dialogue.lost();
  }

  /** Put on the line what may go; how many messages. */
  send(most = 100): number {
    for (let sent = 0; sent < most; sent++) {
      if (this.#peer && this.dialogue.astray(this.now)) this.lose();
      const message = this.dialogue.outgoing(this.now);
      if (message === undefined) return sent;
      this.inbox.push(message);
    }
    return most;
  }

  /** The server acts on messages. */
  read(most = 100): void {
    for (const message of this.inbox.splice(0, most)) this.server.receive(this.#peer!, message);
  }

  /** Answers arrive. */
  deliver(most = 100): void {
    for (const message of this.outbox.splice(0, most))
      this.dialogue.receive(JSON.stringify(message), this.now);
  }

  /** The device was slow: what waits of the state is one difference, acknowledgements too. */
  conflate(): void {
    const first = this.outbox.find((m) => m.type === 5);
    if (!first || this.outbox.some((m) => m.type === 4 || m.type === 8)) return;
    const kept = this.outbox.filter((m) => m.type !== 5);
    const { state, changedAt, version, epoch, lineage, lineages } = this.server;
    const from = first.payload.prev_version;
    const later = [...changedAt].filter(([, at]) => at > from).map(([key]) => key);
    const changes = Object.fromEntries(
      later.filter((k) => state.has(k)).map((k) => [k, state.get(k)]),
    );
    const deleted_keys = later.filter((key) => !state.has(key));
    const names = { lineage: lineage[version], prev_lineage: lineage[from] };
    const at = { version, epoch, prev_version: from, ...(lineages ? names : {}) };
    const payload = { ...at, changes, deleted_keys };
    this.outbox.splice(0, this.outbox.length, ...kept, { type: 5, payload, correlation_id: null });
  }

  /** The store comes back as it was saved, as another history; who is connected is told. */
  rollBack(): void {
    const { server } = this;
    const { peers } = server;
    server.peers = [];
    server.rollBack();
    server.peers = peers;
    if (!server.lineages) server.epoch += "'";
    const { version, state, streams, lineages } = server;
    const epoch = version ? server.epoch : "";
    const applied = streams.get(this.queue.stream) ?? 0;
    const state_data = Object.fromEntries(state);
    const lineage = lineages ? server.lineage[version] : undefined;
    const at = { version, epoch, lineage };
    const payload = { reset: true, reason: "rolled_back", ...at, state_data, applied };
    if (this.#peer?.ready)
      this.#peer.send({ type: 4, payload, correlation_id: null, timestamp: 1 });
  }

  /** Until nothing moves and nothing waits. */
  settle(): void {
    for (let turn = 0; turn < 2_000; turn++) {
      if (!this.#peer) this.connect();
      else if (this.inbox.length) this.read(1);
      else if (this.outbox.length) this.deliver(1);
      else if (!this.send(1) && this.#peer) {
        if (!this.queue.size) return;
        this.now += 1_000;
      }
    }
    throw new Error("it never settles");
  }
}
