/**
 * The client's side of the protocol without a socket: messages in, messages out, time as an argument.
 *
 * `receive` takes one message and brings the replica, the device list and the queue up to date;
 * `outgoing` says what to send next. Nothing waits here, so any interleaving of updates, commits,
 * lost answers and reconnects can be tried in a test. What happened is told to a `Sink`.
 *
 * Three things make the client ask again for answers that it has not seen: a new connection, a
 * difference over several commits (the server leaves out what waited for a slow reader), and an
 * answer that is overdue. An update keeps its id and number, so asking is harmless.
 */
import { RequestFailed } from "./errors";
import type { Events } from "./events";
import * as T from "./kinds";
import type { Edits } from "./operations";
import type { Bounds, Hello } from "./options";
import { Updates } from "./outbox";
import { NEVER, Pacer } from "./pacing";
import { Presence } from "./presence";
import { type Pending, Queue } from "./queue";
import { type Position, Replica, type Step } from "./replica";
import { copied, type Json } from "./values";
import { MAX_REQUESTS, RETRY } from "./waits";
import {
  type Failure,
  failure,
  type Kind,
  LIMITS,
  type Limits,
  type Message,
  ProtocolViolation,
  read,
  write,
} from "./wire";

/** Who is told what happened. */
export interface Sink {
  /** The view has changed. */
  changed(keys: ReadonlySet<string>): void;
  event<K extends keyof Events>(name: K, event: Events[K]): void;
  /** An update is done, or refused for good. */
  finished(pending: Pending, error?: Error): void;
  /** Make an update again. */
  resend(edits: Edits): void;
}

/** What AUTH_SUCCESS says of the session. Times are milliseconds. */
export interface Welcome {
  sessionId: string;
  userId: string;
  deviceId: string;
  role: string;
  heartbeat: number;
  /** How long the token was still good. */
  tokenLeft: number;
  limits: Limits;
}

interface Request {
  resolve: () => void;
  reject: (error: RequestFailed) => void;
}

export class Dialogue {
  readonly replica: Replica;
  readonly updates: Updates;
  readonly presence = new Presence();
  /** AUTH was accepted on the present connection. */
  ready = false;
  welcome: Welcome | undefined;
  /** What the server asked for before it closes. */
  retryAfter = 0;
  /** Why AUTH was refused on the present connection. */
  refusal: Failure | undefined;
  #pacer = new Pacer(0, 0, 0);
  #requests: string[] = [];
  #asked = new Map<string, Request>();
  #missing = false;
  #differenceId = "";
  #differenceAt = 0;

  constructor(
    private readonly hello: Hello,
    readonly bounds: Bounds,
    private readonly sink: Sink,
    private readonly newId: () => string,
  ) {
    const queue = new Queue(bounds, newId);
    this.replica = new Replica(queue, bounds.conflict);
    this.updates = new Updates(this.replica, bounds, sink, newId);
  }

  /** The server's bounds; the defaults until it has told them. */
  get limits(): Limits {
    return this.welcome?.limits ?? LIMITS;
  }

  // The program's side

  /** Take an update; throws QueueFull and InvalidUpdate. */
  submit(edits: Edits): Pending {
    return this.updates.submit(edits, this.limits);
  }

  /** Send a request; resolves when it is answered. */
  async ask(kind: Kind, body: object): Promise<void> {
    if (!this.ready) throw new RequestFailed("disconnected");
    if (this.#asked.size >= MAX_REQUESTS)
      throw new RequestFailed("busy", `${MAX_REQUESTS} requests wait`);
    const id = this.newId();
    this.#requests.push(write(kind, body, id));
    return new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject }));
  }

  /** Send a message that has no answer. */
  tell(kind: Kind, body: object): void {
    this.pass(write(kind, body));
  }

  /** Send a message that is written already; false when there is no connection, or too much waits. */
  pass(message: string): boolean {
    const fits = this.ready && this.#requests.length < MAX_REQUESTS;
    if (fits) this.#requests.push(message);
    return fits;
  }

  /** Send a new token on the open connection. */
  renew(token: string): Promise<void> {
    return this.ask(T.AUTH, { token, device_id: this.hello.deviceId });
  }

  /** Say something of this device; null takes a name back. Throws InvalidUpdate. */
  say(changes: ReadonlyMap<string, Json>): void {
    this.presence.say(changes, this.limits);
  }

  // The connection's side

  /** The AUTH message of a new connection. */
  opening(token: string): string {
    this.retryAfter = 0;
    this.refusal = undefined;
    const { hello, replica } = this;
    const body = {
      token,
      device_id: hello.deviceId,
      session_id: hello.sessionId,
      device_type: hello.deviceType,
      device_name: hello.deviceName,
      os_version: hello.osVersion,
      app_version: hello.appVersion,
      stream: replica.queue.stream,
      acked: replica.queue.acked,
      resume: replica.known ? replica.at : undefined,
    };
    return write(T.AUTH, body, this.newId());
  }

  /** The connection is gone. */
  lost(): void {
    this.ready = this.#missing = false;
    this.#differenceId = "";
    this.#requests = [];
    this.replica.queue.disconnected();
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const request of asked) request.reject(new RequestFailed("disconnected"));
  }

  /** Whether the connection must be given up, as only a new one can tell what the server has. */
  astray(now: number): boolean {
    this.replica.queue.resendOlder(now - this.bounds.ackTimeout);
    return this.replica.queue.astray;
  }

  /** The next message to send, if there is one now. */
  outgoing(now: number): string | undefined {
    const due = this.#due(now);
    return due && this.#pacer.take(now) ? due() : undefined;
  }

  /** Milliseconds after which `outgoing` must be asked again although nothing has happened. */
  wait(now: number): number {
    if (!this.ready) return NEVER;
    if (this.#due(now)) return this.#pacer.wait(now);
    let at = now + this.presence.wait(now);
    for (const time of this.replica.queue.times(now, this.bounds.ackTimeout))
      at = Math.min(at, time);
    if (this.#missing) at = Math.min(at, this.#differenceAt);
    return Math.max(0, at - now);
  }

  /** What makes the next message, if there is one now. */
  #due(now: number): (() => string | undefined) | undefined {
    if (!this.ready) return undefined;
    if (this.#requests.length) return () => this.#requests.shift();
    if (this.#missing && now >= this.#differenceAt) return () => this.#askDifference(now);
    if (!this.presence.wait(now))
      return () => write(T.DEVICE_LIST, { me: this.presence.take(now) });
    return this.updates.next(now) && (() => this.updates.take(now));
  }

  #askDifference(now: number): string {
    this.#differenceId = this.newId();
    this.#differenceAt = now + this.bounds.requestTimeout;
    return write(T.SNAPSHOT_REQUEST, { since: this.replica.at }, this.#differenceId);
  }

  // Messages

  /** Take one message; throws ProtocolViolation. */
  receive(data: string, now: number): void {
    const message = read(data, this.bounds.numbers);
    switch (message.type) {
      case T.AUTH_SUCCESS:
        return this.#onAuthSuccess(message, now);
      case T.AUTH_FAILURE:
      case T.ERROR:
        return this.#onError(message, now);
      case T.STATE_UPDATE:
        return this.#onUpdate(message);
      case T.SNAPSHOT_RESPONSE:
        return this.#onSnapshot(message);
      case T.HEARTBEAT_ACK:
        return this.#onHeartbeat(message);
      case T.DEVICE_JOINED:
      case T.DEVICE_LEFT:
      case T.DEVICE_LIST:
        return this.#onDevices(message);
    }
    const { type, fields } = message;
    if (typeof type === "string") this.sink.event("voice", { type, data: fields });
    else this.sink.event("message", { type, payload: fields });
    this.#answered(message.id);
  }

  #onAuthSuccess(message: Message, now: number): void {
    const again = this.ready;
    this.welcome = welcome(message);
    const expiresAt = message.number("token_expires_at") ?? 0;
    if (again) {
      // A renewal carries no state, only the version.
      this.#missing ||= (message.number("version") ?? 0) > this.replica.at.version;
      this.sink.event("tokenRenewed", { expiresAt });
      return this.#answered(message.id);
    }
    this.ready = true;
    const { messages_per_second: rate, message_burst: burst } = this.limits;
    this.#pacer = new Pacer(rate, burst, now);
    this.#differenceAt = 0;
    this.presence.connected(message, this.limits, now);
    this.updates.refuseOversized(this.limits.message_bytes);
    this.#take(message);
    if (message.number("applied") === undefined) this.replica.queue.forgotten();
    const calls = message.list("voice");
    const { version } = this.replica.at;
    this.sink.event("connected", { version, resumed: message.flag("resumed"), calls });
    this.sink.event("devices", this.presence.list);
  }

  #onUpdate(message: Message): void {
    const step = this.replica.commit(
      {
        ...position(message, this.replica.at.epoch),
        prevVersion: message.number("prev_version") ?? 0,
        prevLineage: message.text("prev_lineage"),
        changes: message.object("changes"),
        deleted: message.texts("deleted_keys"),
      },
      message.id,
    );
    this.#missing ||= step.verdict === "gap" || step.verdict === "other";
    if (!message.text("device_id")) this.replica.queue.recall();
    this.#report(step);
  }

  #onSnapshot(message: Message): void {
    if (!this.#asked.has(message.id!)) {
      this.#missing = false;
      this.#differenceId = "";
      this.#differenceAt = 0;
      if (!message.flag("reset")) this.replica.queue.recall();
    }
    this.#take(message);
    this.#answered(message.id);
  }

  /** A whole state or a difference. */
  #take(message: Message): void {
    const at = position(message, "");
    const { epoch, version } = this.replica.at;
    const reset = message.flag("reset");
    if (message.flag("resumed")) {
      const changes = message.object("changes");
      const step = this.replica.difference({
        ...at,
        changes,
        deleted: message.texts("deleted_keys"),
      });
      this.#missing ||= step.verdict === "other";
      this.#report(step);
    } else {
      // What is older than ours, without a word why, is taken and asked about once more.
      this.#missing ||= !reset && at.epoch === epoch && at.version < version;
      this.#report(this.replica.whole(message.object("state_data"), at, reset));
    }
    const applied = message.number("applied");
    if (applied !== undefined) this.updates.reconcile(applied, message.texts("lost"));
    if (reset) this.sink.event("reset", { reason: message.text("reason"), version: at.version });
  }

  #report(step: Step): void {
    this.updates.report(step);
  }

  #onHeartbeat(message: Message): void {
    const version = message.number("version") ?? 0;
    const lineage = message.text("lineage");
    const { at } = this.replica;
    const branched = version === at.version && lineage && at.lineage && lineage !== at.lineage;
    this.#missing ||= version > at.version || Boolean(branched);
  }

  #onDevices(message: Message): void {
    const deviceId = message.text("device_id");
    const reason = message.text("reason");
    if (message.type === T.DEVICE_JOINED)
      this.sink.event("deviceJoined", this.presence.joined(message));
    else if (message.type === T.DEVICE_LIST) this.presence.listed(message);
    else {
      this.presence.left(deviceId, reason);
      this.sink.event("deviceLeft", { deviceId, reason });
    }
    this.sink.event("devices", this.presence.list);
    this.#answered(message.id);
  }

  #onError(message: Message, now: number): void {
    const why = failure(message);
    const pending = this.replica.queue.get(message.id);
    if (pending) {
      if (why.code === "rate_limited") this.#pacer.pause(why.retryAfter, now);
      this.#missing ||= this.updates.refused(pending, why, now);
    } else if (this.#asked.has(message.id!))
      this.#answered(message.id, new RequestFailed(why.code, why.message, why.retryable));
    else if (message.id === this.#differenceId)
      this.#differenceAt = now + Math.max(why.retryAfter, RETRY);
    else if (!this.ready) {
      this.refusal = why;
      this.retryAfter = why.retryAfter;
    } else this.#onNotice(why);
  }

  /** An ERROR that answers nothing: the server speaks on its own. */
  #onNotice(why: Failure): void {
    if (why.code === "draining") {
      this.retryAfter = why.retryAfter;
      this.sink.event("draining", { retryAfter: why.retryAfter });
    } else if (why.code === "token_expiring")
      this.sink.event("tokenExpiring", { expiresAt: Number(why.details.expires_at ?? 0) });
    else this.sink.event("error", why);
  }

  #answered(id: string | undefined, error?: RequestFailed): void {
    const request = this.#asked.get(id!);
    if (!request) return;
    this.#asked.delete(id!);
    error ? request.reject(error) : request.resolve();
  }
}

function position(message: Message, epoch: string): Position {
  const version = message.number("version");
  if (version === undefined) throw new ProtocolViolation(`${message.type} without version`);
  return {
    version,
    epoch: message.text("epoch") || epoch,
    lineage: message.text("lineage") || undefined,
  };
}

function welcome(message: Message): Welcome {
  return {
    sessionId: message.text("session_id"),
    userId: message.text("user_id"),
    deviceId: message.text("device_id"),
    role: message.text("role"),
    heartbeat: Math.max(100, message.number("heartbeat_interval_ms") ?? 25_000),
    tokenLeft: ((message.number("token_expires_at") ?? 0) - message.timestamp) * 1000,
    limits: { ...LIMITS, ...message.object("limits") },
  };
}

/** Values as changes of `me`: null and undefined take a name back. */
export function changesOf(values: Readonly<Record<string, unknown>>): Map<string, Json> {
  return new Map(Object.entries(values).map(([name, v]) => [name, copied(v ?? null)]));
}
