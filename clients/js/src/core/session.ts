/**
 * `connect`: a session that stays alive over any number of connections.
 *
 * What the program calls only changes the `Dialogue` and wakes the `Link`, so nothing that it does
 * waits for the network. What comes in is told once a microtask, however much it is.
 */
import { changesOf, Dialogue, type Sink, type Welcome } from "./dialogue";
import { type Env, newId } from "./env";
import { ConnectFailed, SessionClosed, UnsentUpdates } from "./errors";
import { call, Emitter, type Events, type Listener, type Status } from "./events";
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
import { type Kind, T } from "./wire";

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
  readonly #options: Options;
  readonly #bounds: Bounds;
  readonly #dialogue: Dialogue;
  readonly #keeper: TokenKeeper;
  readonly #link: Link;
  readonly #events = new Emitter<Events>();
  readonly #updates = new Map<string, Update[]>();
  readonly #listeners = new Set<Listener<Change<S>>>();
  readonly #keyListeners = new Emitter<Record<string, Json | undefined>>();
  readonly #unwatch: () => void;
  #changed = new Set<string>();
  #state: Readonly<Record<string, Json>> | undefined;
  #status: Status = "connecting";
  #end: SessionClosed | undefined;
  #restored = false;

  constructor(options: Options, env: Env) {
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this.#options = options;
    this.#bounds = { ...BOUNDS, ...Object.fromEntries(given) };
    const sink = this.#sink();
    this.#dialogue = new Dialogue(options, this.#bounds, sink, env.newId);
    this.#keeper = new TokenKeeper(options.token, (work) =>
      inTime(work, this.#bounds.requestTimeout, "no new token in time"),
    );
    const url = address(options.url);
    this.#link = new Link(url, this.#dialogue, this.#keeper, this.#bounds, env, {
      event: sink.event,
      online: () => this.#move("online"),
      offline: () => this.#status !== "connecting" && this.#move("offline"),
      ended: (code, reason) => this.#ended(code, reason),
    });
    this.#unwatch = watchPage({
      hurry: () => this.#link.hurry(),
      doubt: () => this.#link.doubt(),
      resume: () => this.#link.resume(),
      sleep: () => this.#sleep(),
    });
    void this.#begin();
  }

  // What is known

  /** The state with own updates on top: frozen, and the same object until something changes. */
  get state(): Readonly<Partial<S>> {
    this.#state ??= Object.freeze(Object.fromEntries(this.#dialogue.replica.view));
    return this.#state as Readonly<Partial<S>>;
  }

  /** The value of a key; undefined when it is not there. */
  get<K extends Key<S>>(key: K): S[K] | undefined {
    return this.#dialogue.replica.view.get(key) as S[K] | undefined;
  }

  get status(): Status {
    return this.#status;
  }

  /** Version of the session that this device has. */
  get version(): number {
    return this.#dialogue.replica.at.version;
  }

  /** The history that `version` counts in; empty for a session that nobody wrote to. */
  get epoch(): string {
    return this.#dialogue.replica.at.epoch;
  }

  /** What the server said at the last connection; undefined before the first. */
  get welcome(): Readonly<Welcome> | undefined {
    return this.#dialogue.welcome;
  }

  get sessionId(): string {
    return this.welcome?.sessionId ?? this.#options.sessionId ?? "";
  }

  get userId(): string {
    return this.welcome?.userId ?? "";
  }

  get deviceId(): string {
    return this.#options.deviceId;
  }

  /** The devices of the session, this one too; a new array whenever one changes. */
  get devices(): readonly Device[] {
    return this.#dialogue.presence.list;
  }

  /** Updates that the server has not acknowledged, oldest first. */
  get pending(): readonly Update[] {
    return [...this.#updates.values()].map((handles) => handles.at(-1)!);
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
    this.#listeners.add(what);
    return () => void this.#listeners.delete(what);
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
    const made = [...this.#updates.values()].flat();
    await inTime(Promise.all(made.map((u) => u.settled())), within, "not synced in time");
    for (const update of made) if (update.error instanceof SessionClosed) throw update.error;
  }

  /**
   * Resolves when every update made so far would survive a crash of this page; with false when there
   * is no store, or it failed.
   */
  async stored(): Promise<boolean> {
    return (await this.#options.store?.stored()) ?? false;
  }

  /** Resolves when there is a connection; throws SessionClosed and TimedOut. */
  async online(within?: number): Promise<void> {
    await inTime(this.#reached("online"), within, "no connection in time");
    this.#requireOpen();
  }

  /** Resolves with how the session ended. */
  async closed(): Promise<SessionClosed> {
    await this.#reached("closed");
    return this.#end!;
  }

  // Presence

  /** Say what is true while this device is there; null takes a name back. Never kept. */
  setMe(values: Readonly<Record<string, unknown>>): void {
    this.#requireOpen();
    const checked = Object.entries(values).map(([k, v]) => [k, v === undefined ? null : copied(v)]);
    this.#dialogue.say(changesOf(Object.fromEntries(checked)));
    this.#link.wake();
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
    if (this.#dialogue.ready) await this.#asked(this.#dialogue.renew(token));
    this.#keeper.replace(token);
  }

  /** Send a message of the protocol; resolves when it is answered, throws RequestFailed. */
  async request(kind: Kind, body: object): Promise<void> {
    this.#requireOpen();
    await this.#asked(this.#dialogue.ask(kind, body));
  }

  /** Send a message of the protocol that has no answer. */
  tell(kind: Kind, body: object): void {
    this.#dialogue.tell(kind, body);
    this.#link.wake();
  }

  /**
   * Leave. Waits `closeTimeout` for acknowledgements.
   *
   * @throws UnsentUpdates when some did not come; nothing is dropped silently
   */
  async close(): Promise<void> {
    if (this.#end) return;
    await this.synced(this.#bounds.closeTimeout).catch(() => {});
    const unsent = this.pending.map((update) => update.keys);
    this.#link.stop(1000, "left");
    if (unsent.length && !this.#options.store) throw new UnsentUpdates(unsent);
  }

  // Parts

  #operate(key: string, operation: Operation, value: unknown): Update {
    return this.#submit([[key, { operation, value: copied(value) }]]);
  }

  #submit(edits: Iterable<[string, Edit]>): Update {
    return this.#take(new Map(edits));
  }

  #take(edits: Edits): Update {
    this.#requireOpen();
    const pending = this.#dialogue.submit(edits);
    const update = new Update(pending);
    this.#updates.set(pending.id, [...(this.#updates.get(pending.id) ?? []), update]);
    this.#link.wake();
    return update;
  }

  #asked(answer: Promise<void>): Promise<void> {
    this.#link.wake();
    return inTime(answer, this.#bounds.requestTimeout, "no answer in time");
  }

  #requireOpen(): void {
    if (this.#end) throw new SessionClosed(this.#end.closeCode, this.#end.reason);
  }

  #reached(status: Status): Promise<void> {
    if (this.#status === status || this.#end) return Promise.resolve();
    return new Promise((resolve) => {
      const stop = this.on("status", (now) => {
        if (now !== status && now !== "closed") return;
        stop();
        resolve();
      });
    });
  }

  #sink(): Sink {
    return {
      changed: (keys) => this.#notice(keys),
      event: (name, event) => {
        if (name === "connected") this.#owned();
        this.#events.emit(name, event);
      },
      finished: (pending, error) => this.#finished(pending, error),
      resend: (edits) => void (this.#end || this.#take(edits)),
      tokenWanted: () => this.#link.renewToken(),
    };
  }

  #notice(keys: ReadonlySet<string>): void {
    this.#options.store?.changed();
    if (!keys.size) return;
    this.#state = undefined;
    if (!this.#changed.size) queueMicrotask(() => this.#tell());
    for (const key of keys) this.#changed.add(key);
  }

  #tell(): void {
    const keys = this.#changed;
    this.#changed = new Set();
    const view = this.#dialogue.replica.view;
    for (const key of keys) this.#keyListeners.emit(key, view.get(key));
    const change = { state: this.state, keys, version: this.version };
    for (const listener of [...this.#listeners]) call(listener, change);
  }

  #finished(pending: Pending, error: Error | undefined): void {
    const handles = this.#updates.get(pending.id) ?? [];
    this.#updates.delete(pending.id);
    for (const update of handles) update.finish(pending.version, error);
  }

  // Life

  async #begin(): Promise<void> {
    const { store } = this.#options;
    if (store) await this.#restore(store);
    if (!this.#end) this.#link.start();
  }

  /** What was kept shows before there is a connection. */
  async #restore(store: Store): Promise<void> {
    const { replica } = this.#dialogue;
    this.#restored = await store.open({
      replica,
      wake: () => this.#link.wake(),
      failed: (error) => this.#events.emit("storage", error),
    });
    for (const pending of replica.queue) {
      if (!this.#updates.has(pending.id)) this.#updates.set(pending.id, [new Update(pending)]);
    }
    this.#notice(new Set(replica.view.keys()));
    if (this.#restored && this.#status === "connecting") this.#move("offline");
  }

  /** Nobody is shown, or sends, what another user has left in this browser. */
  #owned(): void {
    const owner = `${this.userId}/${this.sessionId}`;
    if (this.#options.store?.belongs(owner) === false)
      this.#link.stop(4003, "what is stored here belongs to another user or session");
  }

  #sleep(): void {
    this.#options.store?.flush();
    this.#link.sleep();
    if (!this.#end) this.#move("sleeping");
  }

  #move(status: Status): void {
    if (this.#status === status) return;
    this.#status = status;
    this.#events.emit("status", status);
  }

  #ended(code: number, reason: string): void {
    this.#end = new SessionClosed(code, reason);
    this.#unwatch();
    this.#options.store?.close();
    for (const update of [...this.#updates.values()].flat()) update.finish(0, this.#end);
    this.#updates.clear();
    this.#move("closed");
    this.#events.emit("closed", { code, reason });
  }

  /** Until there is something to show; see `connect`. */
  async started(): Promise<this> {
    const wait = this.#bounds.startTimeout;
    if (!wait) return this;
    const some = Promise.race([this.#reached("online"), this.#reached("offline")]);
    await inTime(this.#restoredOr(some), wait, "not connected in time").catch((late: Error) => {
      this.#link.stop(1000, "not started");
      throw new ConnectFailed(`not connected in time: ${this.#link.cause}`, late);
    });
    this.#requireOpen();
    return this;
  }

  async #restoredOr(some: Promise<void>): Promise<void> {
    await some;
    if (!this.#restored) await this.#reached("online");
  }
}

/** The address of the WebSocket. */
function address(url: string): string {
  const base = typeof location === "undefined" ? undefined : location.href;
  const parsed = new URL(url, base);
  parsed.protocol = parsed.protocol.replace("http", "ws");
  if (!/^wss?:$/.test(parsed.protocol))
    throw new TypeError(`not an address of a WebSocket: ${url}`);
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
