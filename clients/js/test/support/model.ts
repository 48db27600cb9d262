/**
 * A model of the server, as small as the contract allows: one session, with streams or, as servers
 * were before them, with remembered ids only.
 */
import { effect, type Operation } from "../../src/core/operations";
import { type Json, MISSING, same } from "../../src/core/values";

export interface Peer {
  deviceId: string;
  ready: boolean;
  send(message: object): void;
  close(code: number, reason: string): void;
}

interface Place {
  version: number;
  epoch: string;
  lineage?: string;
}

interface Payload {
  key: string;
  value?: Json;
  expected?: Json;
  operation: Operation;
  changes?: Record<string, Json>;
  deleted_keys?: string[];
  base_version?: number;
  stream: string;
  seq: number;
  token: string;
  device_id: string;
  acked: number;
  resume?: Place;
  since?: Place;
  me?: Record<string, Json | null>;
}

export interface Incoming {
  type: number;
  payload: Payload;
  correlation_id: string;
}

interface Saved {
  state: Map<string, Json>;
  changedAt: Map<string, number>;
  version: number;
  lineage: string[];
  ids: Map<string, number>;
  streams: Map<string, number>;
}

export class ModelServer {
  state = new Map<string, Json>();
  version = 0;
  epoch = "e1";
  /** Names the history up to each version; told when `lineages` is set. */
  lineage = [""];
  commits = 0;
  /** Version of each key's last change; deletions too. */
  changedAt = new Map<string, number>();
  ids = new Map<string, number>();
  streams = new Map<string, number>();
  peers: Peer[] = [];
  /** Every message that came in, for counting. */
  heard: Incoming[] = [];
  applied: string[] = [];
  rejectToken: { code: string; close: number; retryable?: boolean } | undefined;
  /** Says whether a write is refused for a moment. */
  busy: () => boolean = () => false;
  lineages = false;
  tokenLife = 900;
  heartbeat = 25_000;
  #saved: Saved | undefined;

  constructor(
    readonly sequenced: boolean,
    readonly seconds: () => number = () => 1_700_000_000,
  ) {}

  receive(peer: Peer, data: string): void {
    const message = JSON.parse(data) as Incoming;
    this.heard.push(message);
    if (message.type === 7) return this.#auth(peer, message);
    if (!peer.ready) return this.#error(peer, message, "auth_required");
    if (message.type === 1) this.#reply(peer, message, 2, this.#at());
    if (message.type === 3) this.#reply(peer, message, 4, this.#since(message.payload.since));
    if (message.type === 5) this.#update(peer, message);
    if (message.type === 12) this.#reply(peer, message, 12, { devices: this.devices(), total: 0 });
  }

  devices(): object[] {
    return this.peers
      .filter((p) => p.ready)
      .map((p) => ({ device_id: p.deviceId, status: "online", connected_at: 1 }));
  }

  /** What a restored backup will bring back. */
  save(): void {
    this.#saved = structuredClone({
      state: this.state,
      changedAt: this.changedAt,
      version: this.version,
      lineage: this.lineage,
      ids: this.ids,
      streams: this.streams,
    });
  }

  /** The store comes back as it was saved; every connection breaks with it. */
  rollBack(): void {
    Object.assign(this, structuredClone(this.#saved));
    for (const peer of [...this.peers]) peer.close(1012, "server restarts");
  }

  #at(): object {
    const at = { version: this.version, epoch: this.version ? this.epoch : "" };
    return this.lineages ? { ...at, lineage: this.lineage[this.version] } : at;
  }

  /** Begin a version. */
  next(): number {
    this.lineage[++this.version] = `l${++this.commits}`;
    return this.version;
  }

  #since(from: Place | undefined): object {
    const ours = !this.lineages || this.lineage[from?.version ?? 0] === (from?.lineage ?? "");
    const fits = from && from.epoch === this.epoch && from.version <= this.version && ours;
    const at = { ...this.#at(), resumed: Boolean(fits) };
    if (!fits) {
      const reset =
        from && (from.version > this.version || !ours)
          ? { reset: true, reason: "rolled_back" }
          : {};
      return {
        ...at,
        ...(this.sequenced ? reset : {}),
        state_data: Object.fromEntries(this.state),
      };
    }
    const later = [...this.changedAt].filter(([, v]) => v > from.version).map(([k]) => k);
    return {
      ...at,
      changes: Object.fromEntries(
        later.flatMap((k) => (this.state.has(k) ? [[k, this.state.get(k)]] : [])),
      ),
      deleted_keys: later.filter((k) => !this.state.has(k)),
    };
  }

  #auth(peer: Peer, message: Incoming): void {
    const { payload } = message;
    if (this.rejectToken && !peer.ready) {
      const { code, close, retryable = false } = this.rejectToken;
      this.#reply(peer, message, 9, { code, message: code, retryable });
      return peer.close(close, code);
    }
    const renewal = peer.ready;
    peer.deviceId = payload.device_id;
    if (!renewal)
      for (const old of this.peers.filter((p) => p !== peer && p.deviceId === peer.deviceId))
        old.close(4009, "same device connected again");
    peer.ready = true;
    if (!this.peers.includes(peer)) this.peers.push(peer);
    const state = renewal ? { ...this.#at(), resumed: true } : this.#since(payload.resume);
    this.#reply(peer, message, 8, {
      ...state,
      ...(this.sequenced && !renewal ? { applied: this.streams.get(payload.stream) ?? 0 } : {}),
      session_id: "s",
      user_id: "u",
      device_id: peer.deviceId,
      role: "user",
      heartbeat_interval_ms: this.heartbeat,
      token_expires_at: this.seconds() + this.tokenLife,
      limits: { messages_per_second: 50, message_burst: 100, message_bytes: 65_536 },
      devices: this.devices(),
    });
  }

  #update(peer: Peer, message: Incoming): void {
    const { payload, correlation_id: id } = message;
    const known = this.ids.get(`${peer.deviceId}/${id}`);
    // As a rate limit does: what is known already may be refused for a moment, too.
    if (!this.sequenced && this.busy())
      return this.#error(peer, message, "store_unavailable", {}, true);
    if (this.sequenced) {
      const last = this.streams.get(payload.stream);
      if (last === undefined && payload.seq !== 1)
        return this.#error(peer, message, "unknown_stream");
      if (payload.seq <= (last ?? 0)) return this.#acknowledge(peer, message, this.version);
      if (payload.seq > (last ?? 0) + 1)
        return this.#error(peer, message, "sequence_gap", { last: last ?? 0 }, true);
    } else if (known !== undefined) return this.#acknowledge(peer, message, known);
    if (this.sequenced && this.busy())
      return this.#error(peer, message, "store_unavailable", {}, true);
    this.#apply(peer, message);
  }

  #apply(peer: Peer, message: Incoming): void {
    const { payload, correlation_id: id } = message;
    const told = new Map<string, Json | typeof MISSING>();
    if (payload.key === undefined) {
      for (const [k, v] of Object.entries(payload.changes ?? {})) told.set(k, v);
      for (const k of payload.deleted_keys ?? []) told.set(k, MISSING);
    } else {
      const base = this.state.has(payload.key) ? this.state.get(payload.key)! : MISSING;
      const { operation, value = MISSING, expected = MISSING } = payload;
      const fails =
        (operation === "CAS" && !same(base, expected)) ||
        (operation === "SETNX" && base !== MISSING);
      if (fails) return this.#error(peer, message, "precondition_failed", { key: payload.key });
      told.set(payload.key, effect(base, { operation, value, expected }));
    }
    const conflicts = this.#conflicts(told.keys(), payload.base_version);
    if (conflicts.length)
      return this.#error(peer, message, "version_conflict", {
        current_version: this.version,
        conflicts,
      });
    this.applied.push(id);
    this.streams.set(payload.stream, payload.seq);
    for (const [k, v] of told)
      if (same(this.state.has(k) ? this.state.get(k) : MISSING, v)) told.delete(k);
    if (!told.size) {
      this.ids.set(`${peer.deviceId}/${id}`, this.version);
      return this.#acknowledge(peer, message, this.version);
    }
    this.#commit(peer, message, told);
  }

  #conflicts(keys: Iterable<string>, base: number | undefined): object[] {
    if (base === undefined) return [];
    return [...keys]
      .filter((k) => (this.changedAt.get(k) ?? 0) > base)
      .map((k) =>
        this.state.has(k) ? { key: k, server_value: this.state.get(k) } : { key: k, deleted: true },
      );
  }

  #commit(peer: Peer, message: Incoming, told: Map<string, Json | typeof MISSING>): void {
    const prev = this.version;
    this.next();
    const changes: Record<string, Json> = {};
    const deleted: string[] = [];
    for (const [k, v] of told) {
      this.changedAt.set(k, this.version);
      if (v === MISSING) {
        this.state.delete(k);
        deleted.push(k);
      } else {
        this.state.set(k, v);
        changes[k] = v;
      }
    }
    this.ids.set(`${peer.deviceId}/${message.correlation_id}`, this.version);
    const lineage = this.lineages ? { prev_lineage: this.lineage[prev] } : {};
    const payload = {
      ...this.#at(),
      ...lineage,
      prev_version: prev,
      changes,
      deleted_keys: deleted,
    };
    for (const other of this.peers)
      if (other.ready) this.#reply(other, message, 5, { ...payload, device_id: peer.deviceId });
  }

  #acknowledge(peer: Peer, message: Incoming, version: number): void {
    const body = { ...this.#at(), version, prev_version: version, changes: {}, deleted_keys: [] };
    this.#reply(peer, message, 5, { ...body, device_id: peer.deviceId, duplicate: true });
  }

  #error(peer: Peer, to: Incoming, code: string, details: object = {}, retryable = false): void {
    this.#reply(peer, to, 6, { code, message: code, retryable, details });
  }

  #reply(peer: Peer, to: Incoming, type: number, payload: object): void {
    peer.send({
      type,
      payload,
      correlation_id: to.correlation_id ?? null,
      timestamp: this.seconds(),
    });
  }
}
