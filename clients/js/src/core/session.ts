/**
 * `connect`: a session that stays alive over any number of connections.
 *
 * What the program calls only changes the `Dialogue` and wakes the `Link`, so nothing that it does
 * waits for the network. What comes in is told once a microtask, however much it is.
 */
import { changesOf, Dialogue, type Welcome } from "./dialogue";
import { type Env, newId } from "./env";
import { ConnectFailed, SessionClosed, UnsentUpdates } from "./errors";
import { Emitter, type Events, type Listener, type Status } from "./events";
import * as T from "./kinds";
import { Link } from "./link";
import { type Edit, type Edits, type Operation, remove, set } from "./operations";
import { BOUNDS, type Bounds, type Hello } from "./options";
import { watchPage } from "./page";
import type { Device } from "./presence";
import type { Pending } from "./queue";
import type { Store } from "./store";
import { type Token, TokenKeeper } from "./tokens";
import { inTime, Update } from "./update";
import { copied, type Json, MISSING } from "./values";
import type { Kind } from "./wire";

/** A state whose keys are not known beforehand. */
export type AnyState = Readonly<Record<string, Json>>;
type Key<S> = keyof S & string;
type KeyOf<S, V> = string extends keyof S
  ? string
  : { [K in keyof S]-?: S[K] extends V ? K : never }[keyof S] & string;
type Item<S, K extends keyof S> = S[K] extends readonly (infer I)[] ? I : Json;

export interface Options extends Hello, Partial<Bounds> {
  /** `wss://host/ws`, or `https://host` and the like: `/ws` is added. */
  url: string;
  /** An access token, or a function that is called whenever a new one is needed. */
  token: Token;
  /** Keeps the state and the queue over a reload; see `offline`. */
  store?: Store;
}

/** What has changed in `state` since the listener was called last. */
export interface Change<S> {
  readonly state: Readonly<Partial<S>>;
  readonly keys: ReadonlySet<string>;
  readonly version: number;
}

/** One device in one session; made by `connect` or `createSession`. */
export class Session<S extends object = AnyState> {
  /** @internal */
  readonly hello: Options;
  /** @internal */
  readonly dialogue: Dialogue;
  /** @internal */
  readonly link: Link;
  readonly #bounds: Bounds;
  readonly #keeper: TokenKeeper;
  readonly #events = new Emitter<Events>();
  /** One handle for each update of the queue, whichever call of `set` gave it its value. */
  readonly #updates = new Map<string, Update>();
  readonly #listeners = new Emitter<{ all: Change<S> }>();
  readonly #keyListeners = new Emitter<Record<string, Json | undefined>>();
  readonly #unwatch: () => void;
  #changed = new Set<string>();
  #state: Readonly<Record<string, Json>> | undefined;
  #status: Status = "connecting";
  #end: SessionClosed | undefined;

  constructor(options: Options, env: Env) {
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.hello = options;
    this.#bounds = { ...BOUNDS, ...Object.fromEntries(given) };
    if (options.conflict && !options.conflict.prepare)
      throw new TypeError("conflict: conflicts(policy) is expected");
    this.dialogue = new Dialogue(options, this.#bounds, this, env.newId);
    this.#keeper = new TokenKeeper(options.token, (work) =>
      inTime(work, this.#bounds.requestTimeout, "no answer of token()"),
    );
    const url = address(options.url);
    const around = options.store?.surroundings?.(env) ?? env;
    this.link = new Link(url, this.dialogue, this.#keeper, this.#bounds, around, this);
    this.#unwatch = watchPage(this.link);
    void this.#begin();
  }

  // What is known

  /** The state with own updates on top: frozen, and the same object until something changes. */
  get state(): Readonly<Partial<S>> {
    this.#state ??= Object.freeze(Object.fromEntries(this.dialogue.replica.view));
    return this.#state as Readonly<Partial<S>>;
  }

  /** The value of a key; undefined when it is not there. */
  get<K extends Key<S>>(key: K): S[K] | undefined {
    return this.dialogue.replica.view.get(key) as S[K] | undefined;
  }

  get status(): Status {
    return this.#status;
  }

  /** Version of the session that this device has. */
  get version(): number {
    return this.dialogue.replica.at.version;
  }

  /** The history that `version` counts in; empty for a session that nobody wrote to. */
  get epoch(): string {
    return this.dialogue.replica.at.epoch;
  }

  /** What the server said at the last connection; undefined before the first. */
  get welcome(): Readonly<Welcome> | undefined {
    return this.dialogue.welcome;
  }

  get sessionId(): string {
    return this.welcome?.sessionId ?? this.hello.sessionId ?? "";
  }

  get userId(): string {
    return this.welcome?.userId ?? "";
  }

  get deviceId(): string {
    return this.hello.deviceId;
  }

  /** The devices of the session, this one too; a new array whenever one changes. */
  get devices(): readonly Device[] {
    return this.dialogue.presence.list;
  }

  /** How many devices there are: `devices` has only some of those of a large session. */
  get devicesTotal(): number {
    return this.dialogue.presence.total;
  }

  /** Updates that the server has not acknowledged, oldest first. */
  get pending(): readonly Update[] {
    return [...this.#updates.values()];
  }

  // Changing the state

  /** Give a key a value. It shows at once and travels in the background. */
  set<K extends Key<S>>(key: K, value: S[K]): Update {
    return this.#submit([[key, set(copied(value))]]);
  }

  /** Remove a key. */
  delete(key: Key<S>): Update {
    return this.#submit([[key, remove]]);
  }

  /** Change several keys together, all or none. */
  update(changes: Readonly<Partial<S>>, deleted: readonly Key<S>[] = []): Update {
    const edits = Object.entries(changes).map(([k, v]) => [k, set(copied(v))] as [string, Edit]);
    return this.#submit([...edits, ...deleted.map((key) => [key, remove] as [string, Edit])]);
  }

  /** Add to an integer, exactly once; a missing key counts as 0. */
  incr(key: KeyOf<S, number | bigint>, by: number | bigint = 1): Update {
    return this.#operate(key, "INCR", by);
  }

  /** Add an item to a list, exactly once; a missing key counts as []. */
  append<K extends KeyOf<S, readonly unknown[]>>(key: K, item: Item<S, K & keyof S>): Update {
    return this.#operate(key, "APPEND", item);
  }

  /** Merge into an object (RFC 7396: null removes a member). */
  merge(key: KeyOf<S, object>, patch: object): Update {
    return this.#operate(key, "MERGE", patch);
  }

  /** Raise a number to at least `value`. */
  max(key: KeyOf<S, number | bigint>, value: number | bigint): Update {
    return this.#operate(key, "MAX", value);
  }

  /** Lower a number to at most `value`. */
  min(key: KeyOf<S, number | bigint>, value: number | bigint): Update {
    return this.#operate(key, "MIN", value);
  }

  /** Give a key a value unless it has one; else it is refused. */
  setnx<K extends Key<S>>(key: K, value: S[K]): Update {
    return this.#operate(key, "SETNX", value);
  }

  /** Give a key a value if it has the expected one (undefined: none); else it is refused. */
  cas<K extends Key<S>>(key: K, expected: S[K] | undefined, value: S[K]): Update {
    const wanted = expected === undefined ? MISSING : copied(expected);
    return this.#submit([[key, { operation: "CAS", value: copied(value), expected: wanted }]]);
  }

  // Watching

  /**
   * Be told of changes, at most once a microtask.
   *
   * @returns a function that ends it
   */
  subscribe(listener: Listener<Change<S>>): () => void;
  subscribe<K extends Key<S>>(key: K, listener: Listener<S[K] | undefined>): () => void;
  subscribe(what: string | Listener<Change<S>>, listener?: Listener<never>): () => void {
    if (typeof what === "string") return this.#keyListeners.on(what, listener as never);
    return this.#listeners.on("all", what);
  }

  /**
   * Hear of an event.
   *
   * @returns a function that ends it
   */
  on<K extends keyof Events>(name: K, listener: Listener<Events[K]>): () => void {
    return this.#events.on(name, listener);
  }

  /**
   * Resolves when every update made so far is acknowledged or refused.
   *
   * @param within milliseconds
   * @throws SessionClosed, TimedOut
   */
  async synced(within?: number): Promise<void> {
    const made = this.pending;
    await inTime(Promise.all(made.map((u) => u.settled())), within, "not synced");
    for (const update of made) if (update.error instanceof SessionClosed) throw update.error;
  }

  /**
   * Resolves when every update made so far would survive a crash of this page; with false when there
   * is no store, or it failed.
   */
  async stored(): Promise<boolean> {
    return (await this.hello.store?.stored()) ?? false;
  }

  /** Resolves when there is a connection; throws SessionClosed and TimedOut. */
  async online(within?: number): Promise<void> {
    await inTime(this.#reached("online"), within, "no connection");
    this.#requireOpen();
  }

  /** Resolves with how the session ended. */
  async closed(): Promise<SessionClosed> {
    await this.#reached("closed");
    return this.#end!;
  }

  // Presence

  /** Say what is true while this device is there; null takes a name back. Throws InvalidUpdate. */
  setMe(values: Readonly<Record<string, unknown>>): void {
    this.#requireOpen();
    this.dialogue.say(changesOf(values));
    this.link.wake();
  }

  // Requests

  /** Ask the server for the whole state; resolves with it, own updates on top. */
  async snapshot(): Promise<Readonly<Partial<S>>> {
    await this.request(T.SNAPSHOT_REQUEST, {});
    return this.state;
  }

  /** Use a new token: on the open connection at once, and for later ones. */
  async authenticate(token: string): Promise<void> {
    this.#requireOpen();
    if (this.dialogue.ready) await this.#asked(this.dialogue.renew(token));
    this.#keeper.replace(token);
  }

  /** Send a message of the protocol; resolves when it is answered, throws RequestFailed. */
  async request(kind: Kind, body: object): Promise<void> {
    this.#requireOpen();
    await this.#asked(this.dialogue.ask(kind, body));
  }

  /** Send a message of the protocol that has no answer. */
  tell(kind: Kind, body: object): void {
    this.dialogue.tell(kind, body);
    this.link.wake();
  }

  /**
   * Leave. Waits `closeTimeout` for acknowledgements.
   *
   * @throws UnsentUpdates when some did not come and are not stored; nothing is dropped silently
   */
  async close(): Promise<void> {
    if (this.#end) return;
    const { closeTimeout } = this.#bounds;
    const stored = inTime(this.stored(), closeTimeout, "not stored").catch(() => false);
    await this.synced(closeTimeout).catch(() => {});
    const kept = !this.#updates.size || (await stored);
    const unsent = this.pending.map((update) => update.keys);
    this.link.stop(1000, "left");
    if (unsent.length && !kept) throw new UnsentUpdates(unsent);
  }

  // Parts

  #operate(key: string, operation: Operation, value: unknown): Update {
    return this.#submit([[key, { operation, value: copied(value) }]]);
  }

  #submit(edits: Iterable<readonly [string, Edit]>): Update {
    this.#requireOpen();
    const pending = this.dialogue.submit(new Map(edits));
    const { id, replaces } = pending;
    const update = this.#updates.get(id) ?? this.#updates.get(replaces!) ?? new Update(pending);
    this.#updates.delete(replaces!);
    this.#updates.set(id, update);
    update.id = id;
    this.link.wake();
    return update;
  }

  #asked(answer: Promise<void>): Promise<void> {
    this.link.wake();
    return inTime(answer, this.#bounds.requestTimeout, "no answer");
  }

  #requireOpen(): void {
    if (this.#end) throw this.#end;
  }

  /** Resolves when the session is in one of these, or has ended. */
  #reached(...wanted: Status[]): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!this.#end && !wanted.includes(this.#status)) return;
        stop();
        resolve();
      };
      const stop = this.on("status", look);
      look();
    });
  }

  // What its parts tell it

  /** @internal The view has changed. */
  changed(keys: ReadonlySet<string>): void {
    this.hello.store?.changed();
    if (!keys.size) return;
    this.#state = undefined;
    if (!this.#changed.size) queueMicrotask(() => this.#tell());
    for (const key of keys) this.#changed.add(key);
  }

  #tell(): void {
    const keys = this.#changed;
    this.#changed = new Set();
    const view = this.dialogue.replica.view;
    for (const key of keys) this.#keyListeners.emit(key, view.get(key));
    this.#listeners.emit("all", { state: this.state, keys, version: this.version });
  }

  /** @internal An update is done, or refused for good. */
  finished(pending: Pending, error?: Error): void {
    this.hello.store?.finished(pending, error);
    this.#updates.get(pending.id)?.finish(pending.version, error);
    this.#updates.delete(pending.id);
  }

  /** @internal */
  event<K extends keyof Events>(name: K, event: Events[K]): void {
    if (name === "connected") this.#owned();
    this.#events.emit(name, event);
    if (name === "tokenExpiring") this.link.renewToken();
  }

  /** @internal Make updates again. */
  resend(edits: Edits): void {
    if (!this.#end) this.#submit(edits);
  }

  /** @internal There is a connection, or none. */
  linked(there: boolean): void {
    if (there) this.move(this.hello.store?.status ?? "online");
    else if (this.#status !== "connecting") this.move("offline");
  }

  // Life

  async #begin(): Promise<void> {
    const { store } = this.hello;
    if (store) await this.#restore(store);
    if (!this.#end) this.link.start();
  }

  /** What was kept shows before there is a connection. */
  async #restore(store: Store): Promise<void> {
    const restored = await store.open(this);
    if (restored && this.#status === "connecting") this.move("offline");
  }

  /** @internal There are updates in the queue that this session did not make. */
  adopt(keys: ReadonlySet<string>): void {
    for (const pending of this.dialogue.replica.queue) {
      if (!this.#updates.has(pending.id)) this.#updates.set(pending.id, new Update(pending));
    }
    this.changed(keys);
  }

  /** Nobody is shown, or sends, what another user has left in this browser. */
  #owned(): void {
    const owner = `${this.userId}/${this.sessionId}`;
    if (this.hello.store?.belongs(owner) === false)
      this.link.stop(4003, "stored for another user or session");
  }

  /** @internal The page will be frozen. */
  slept(): void {
    this.hello.store?.sleep();
    this.move("sleeping");
  }

  /** @internal */
  move(status: Status): void {
    if (this.#status === status || (this.#end && status !== "closed")) return;
    this.#status = status;
    this.hello.store?.moved?.(status);
    this.#events.emit("status", status);
  }

  /** @internal */
  ended(code: number, reason: string): void {
    this.#end = new SessionClosed(code, reason);
    this.#unwatch();
    this.hello.store?.close(code, reason);
    for (const update of this.pending) update.finish(0, this.#end);
    this.#updates.clear();
    this.move("closed");
    this.#events.emit("closed", { code, reason });
  }

  /** Until there is something to show; see `connect`. */
  async started(): Promise<this> {
    const wait = this.#bounds.startTimeout;
    if (!wait) return this;
    await inTime(this.#reached("online", "offline"), wait, "no connection").catch((late) => {
      this.link.stop(1000, "not started");
      throw new ConnectFailed(`no connection in time: ${this.link.cause ?? "no answer"}`, late);
    });
    this.#requireOpen();
    return this;
  }
}

/** The address of the WebSocket. */
function address(url: string): string {
  const parsed = new URL(url, globalThis.location?.href);
  parsed.protocol = parsed.protocol.replace("http", "ws");
  if (!/^wss?:$/.test(parsed.protocol)) throw new TypeError(`not a WebSocket address: ${url}`);
  if (parsed.pathname === "/") parsed.pathname = "/ws";
  return parsed.href;
}

/** A device id that stays the same in this browser profile; for devices that have none. */
export function storedDeviceId(key = "syncbridge.device"): string {
  try {
    const kept = localStorage.getItem(key);
    if (kept) return kept;
    const made = newId();
    localStorage.setItem(key, made);
    return made;
  } catch {
    return newId();
  }
}
