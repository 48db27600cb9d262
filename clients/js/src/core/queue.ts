/**
 * Updates that the server has not acknowledged yet: strictly in order, within bounds, each carried
 * out once.
 *
 * An update keeps its correlation id for its whole life, and what it says from its first sending on.
 * The queue is a `stream`: the updates of it are numbered 1, 2, 3 … in the order in which they are
 * sent, and the server carries one out only if its number is the next. So several may be on the way
 * at once, and one that the server refuses for a moment is not overtaken: those behind it are
 * refused with `sequence_gap`, and all of them get new numbers once everything that was on the way
 * is answered. An update that is refused uses no number. The acknowledgement of one says that all
 * before it were carried out, too.
 *
 * A server without streams ignores the numbers and knows updates by their ids. There two updates of
 * one key are never on the way together, so that an older one is not sent again after a newer one.
 *
 * Numbers are given by position: the first update that is not acknowledged has `acked + 1`. The
 * same order gives the same numbers, on a new connection and after a reload. On a connection they
 * stay: an update may be asked again, and is answered once for each copy of it.
 *
 * Where the numbers and the server's disagree, the connection is given up, and the next one begins
 * with the truth. So it is, too, when the server has gone back while a copy of an update may still be
 * on the way: an update that is done, as its first copy was answered, may be carried out anew by its
 * second one, and then it is not lost. The server reads no copy of an older connection.
 */
import { InvalidUpdate, QueueFull } from "./errors";
import { type Edit, type Edits, isPlain, parts } from "./operations";
import type { Bounds } from "./options";
import { NEVER } from "./pacing";
import { bytes, toText, type Value } from "./values";

/** What a message has around its payload: type, ids, stream, number, a base version. */
const ENVELOPE_BYTES = 420;

/** One update of this device. Times are milliseconds of the caller's clock. */
export class Pending {
  readonly id: string;
  edits: Edits;
  /** It is sent with `base_version`, so that conflicts are found. */
  readonly guarded: boolean;
  base: { version: number; lineage?: string } | undefined;
  /** Keys that somebody else changed after the update was made, and their values. */
  readonly contested = new Map<string, Value>();
  /** Its number in the stream; 0 while it has none. */
  seq = 0;
  /** Once it is done: the stream in which it has that number. */
  stream = "";
  /** It may have been carried out: what it says must not change. */
  sent = false;
  /** It was sent on an earlier connection, too. */
  tried = false;
  inFlight = false;
  /** How often it was sent on this connection and not answered. */
  copies = 0;
  /** One of its answers was overdue, or no answer. */
  doubtful = false;
  sentAt = 0;
  notBefore = 0;
  attempts = 0;
  /** Acknowledged: it goes when the replica has this version. */
  ackVersion: number | undefined;
  /** That the server gave it. */
  version = 0;
  size = 0;
  /** The state of storage that must be reached before it may leave. */
  mark = 0;
  /** Ids of updates of other tabs whose place it has taken. */
  aliases: readonly string[] = [];
  /** The update that it has taken the place of, which was handed to another tab already. */
  replaces: string | undefined;

  constructor(id: string, edits: Edits, guarded = false) {
    this.id = id;
    this.edits = edits;
    this.guarded = guarded;
    this.measure();
  }

  get keys(): string[] {
    return [...this.edits.keys()];
  }

  /** The payload of its STATE_UPDATE, without stream and number. */
  payload(): Record<string, unknown> {
    const body = this.edits.size === 1 ? this.#single() : this.#several();
    return { ...body, base_version: this.base?.version, base_lineage: this.base?.lineage };
  }

  measure(): void {
    this.size = bytes(toText(this.payload()));
  }

  /** JSON leaves out what is MISSING, a symbol. */
  #single(): object {
    const [[key, { operation, value, expected }]] = [...this.edits] as [[string, Edit]];
    return { key, operation, value, expected };
  }

  #several(): object {
    const { changes, deleted } = parts(this.edits);
    return { changes, deleted_keys: deleted };
  }
}

/** Who keeps the queue on disk. Each change is told at once; `flushed` is raised when it is safe. */
export interface Journal {
  put(pending: Pending): void;
  /** It is done or refused. One that was acknowledged goes together with its number. */
  remove(pending: Pending): void;
  /** The stream or its acknowledged number has changed. */
  moved(): void;
}

export class Queue {
  /** The name of this queue at the server. */
  stream: string;
  /** The last number that was acknowledged. */
  acked = 0;
  /** The server takes the stream in order, so updates of one key may be on the way together. */
  sequenced = false;
  /** Only a new connection can tell what the server has. */
  astray = false;
  bytes = 0;
  /** Updates on the way at once. NEVER: they are handed to a peer that has a queue of its own. */
  window: number;
  journal: Journal | undefined;
  /** What has reached the disk; all of it when there is none. */
  flushed = NEVER;
  marks = 0;
  #barrier = 0;
  #last = 0;
  #stalled = false;
  /** An update was asked again on this connection. */
  #repeated = false;
  readonly #updates = new Map<string, Pending>();
  readonly #byKey = new Map<string, Pending[]>();

  constructor(
    private readonly bounds: Pick<Bounds, "queueUpdates" | "queueBytes" | "window">,
    private readonly newId: () => string,
  ) {
    this.stream = newId();
    this.window = bounds.window;
  }

  get size(): number {
    return this.#updates.size;
  }

  /** Keys that updates of it touch. */
  get keys(): Iterable<string> {
    return this.#byKey.keys();
  }

  [Symbol.iterator](): IterableIterator<Pending> {
    return this.#updates.values();
  }

  get(id: string | undefined): Pending | undefined {
    return this.#updates.get(id!);
  }

  /** Updates of one key, oldest first. */
  touching(key: string): readonly Pending[] {
    return this.#byKey.get(key) ?? [];
  }

  /**
   * Append an update; `instead` of another one.
   *
   * @throws QueueFull when it does not fit; nothing changed
   * @throws InvalidUpdate when it is larger than a message of `maxMessage` bytes can be
   */
  add(pending: Pending, maxMessage: number, instead?: Pending): void {
    this.#check(pending.size, maxMessage);
    this.#fits(pending.size - (instead?.size ?? 0), instead ? 0 : 1);
    pending.replaces = instead?.id;
    if (instead) this.remove(instead);
    this.restore(pending);
    this.#stored(pending);
  }

  /** Put an update back that was kept by the journal. */
  restore(pending: Pending): void {
    this.#updates.set(pending.id, pending);
    this.bytes += pending.size;
    for (const key of pending.edits.keys()) this.#byKey.set(key, [...this.touching(key), pending]);
  }

  /**
   * The update whose value a newer one of the same key may take over: not sent yet, of one key, and
   * nothing later touches that key. One that was handed over may be replaced, too, under another id:
   * the peer takes the newer value for the older one, or passes on both.
   */
  replaceable(edits: Edits, guarded: boolean): Pending | undefined {
    if (edits.size !== 1) return undefined;
    const [[key, edit]] = [...edits] as [[string, Edit]];
    const last = this.touching(key).at(-1);
    if (!last || last.ackVersion !== undefined || last.edits.size !== 1) return undefined;
    if (last.sent && (guarded || this.journal || !this.handed)) return undefined;
    const plain = isPlain(edit) && isPlain(last.edits.get(key)!);
    return plain && last.guarded === guarded ? last : undefined;
  }

  /** Give an update that was not sent another value for its key; throws as `add`. */
  replace(pending: Pending, edits: Edits, maxMessage: number): void {
    const other = new Pending(pending.id, edits, pending.guarded);
    this.#check(other.size, maxMessage);
    this.#fits(other.size - pending.size, 0);
    this.#setEdits(pending, edits);
  }

  /** Take an update out: done, or refused. */
  remove(pending: Pending): void {
    this.#updates.delete(pending.id);
    this.bytes -= pending.size;
    for (const key of pending.edits.keys()) this.#forget(key, pending);
    this.journal?.remove(pending);
  }

  /** Give an update other edits, on some of its keys. */
  rewrite(pending: Pending, edits: Edits): void {
    for (const key of pending.edits.keys()) if (!edits.has(key)) this.#forget(key, pending);
    this.#setEdits(pending, edits);
  }

  /** The next update to send. */
  next(now: number): Pending | undefined {
    const blocked = new Set<string>();
    const unseen = new Set<string>();
    let onTheWay = 0;
    for (const pending of this) {
      if (pending.ackVersion !== undefined) for (const key of pending.edits.keys()) unseen.add(key);
      else if (pending.inFlight) {
        if (++onTheWay >= this.window) return undefined;
        for (const key of pending.edits.keys()) blocked.add(key);
      } else if (this.#mayGo(pending, now, blocked, unseen)) return pending;
      else if (!this.#stalled) return undefined; // else one behind may have to be asked again
    }
    return undefined;
  }

  #mayGo(pending: Pending, now: number, blocked: Set<string>, unseen: Set<string>): boolean {
    if ((this.#stalled && !pending.seq) || pending.notBefore > now) return false;
    if (this.flushed < Math.max(pending.mark, this.#barrier)) return false;
    for (const key of pending.edits.keys()) {
      if (blocked.has(key) && (pending.guarded || !(this.sequenced || this.handed))) return false;
      if (pending.guarded && unseen.has(key)) return false;
    }
    return true;
  }

  /** An update is on the way. */
  send(pending: Pending, now: number): void {
    if (!pending.seq) pending.seq = ++this.#last;
    pending.inFlight = pending.sent = true;
    this.#repeated ||= pending.copies > 0 && !this.handed;
    pending.copies = this.handed ? 1 : pending.copies + 1;
    pending.sentAt = now;
  }

  /** Each is known by its id there, and they are not done in order. */
  get handed(): boolean {
    return this.window === NEVER;
  }

  /** What an acknowledgement speaks of: the answers of those before may have been left out. */
  upTo(last: Pending): Pending[] {
    if (!this.sequenced || this.handed) return [last];
    const done = (p: Pending) => p.seq && p.seq < last.seq && p.ackVersion === undefined;
    return [...this].filter((p) => p === last || done(p));
  }

  /** The server has carried out an update. */
  acknowledge(pending: Pending): void {
    pending.inFlight = false;
    pending.copies = 0;
    this.journal?.remove(pending);
    if (pending.seq > this.acked) {
      this.acked = pending.seq;
      this.journal?.moved();
    }
    this.#settle();
  }

  /** Whether a refusal stands. If another copy is on the way, that one's answer does. */
  stands(pending: Pending): boolean {
    pending.doubtful = --pending.copies > 0;
    return !pending.doubtful;
  }

  /** The server has not carried out an update; it stays, or `remove` follows. */
  refused(pending: Pending): void {
    pending.seq = pending.copies = 0;
    pending.inFlight = pending.doubtful = false;
    // A server that knows ids only may have carried it out before, and refuse to look now. A tab that
    // leads looks first.
    pending.sent = pending.tried && !this.sequenced && !this.handed;
    this.#barrier = ++this.marks;
    this.journal?.moved();
    this.#stalled = true;
    this.#settle();
  }

  /** The numbers are not those that the server expects: `last` is the one it has, if it has one. */
  outOfStep(pending: Pending, last: unknown): void {
    this.sequenced = true;
    this.refused(pending);
    // While others are not answered, they may be what `last` counts.
    if (last === undefined || (last !== this.acked && !this.#awaits())) this.astray = true;
  }

  #awaits(): boolean {
    for (const p of this) if (p.copies && p.ackVersion === undefined) return true;
    return false;
  }

  /** Nobody knows the old stream, or another copy of this queue uses it. */
  newStream(): void {
    this.stream = this.newId();
    this.sequenced = false;
    this.astray = true;
    this.#setAcked(0);
  }

  /** A server that takes streams does not tell what it has of ours: it does not know. */
  forgotten(): void {
    if (this.sequenced && !this.handed) this.newStream();
  }

  #setAcked(last: number): void {
    this.acked = last;
    this.#barrier = ++this.marks;
    this.journal?.moved();
  }

  /** New numbers, once nothing is on the way that has an old one. */
  #settle(): void {
    if (this.#stalled && !this.#awaits()) this.#renumber();
  }

  #renumber(): void {
    this.#stalled = false;
    this.#last = this.acked;
    for (const pending of this) if (pending.ackVersion === undefined) pending.seq = 0;
  }

  /** Answers may have been left out: all is asked again, under the same numbers. */
  recall(): void {
    for (const pending of this) pending.inFlight = false;
  }

  /**
   * The connection is gone: everything is sent again. What was acknowledged is in what the next one
   * begins with, or lost with the store.
   */
  disconnected(): void {
    for (const pending of this) {
      if (pending.ackVersion) pending.ackVersion = 0;
      pending.tried = pending.sent;
      pending.inFlight = pending.doubtful = false;
      pending.copies = 0;
    }
    this.astray = this.#repeated = false;
    this.#renumber();
  }

  /**
   * What the server has of the stream.
   *
   * @returns done: updates of ours that it has carried out; lost: how many acknowledged ones it
   *     does not have any more. Nothing while a copy may be on the way: that is for a new connection
   */
  reconcile(applied: number): { done: Pending[]; lost: number } {
    this.astray ||= this.#repeated || this.#awaits();
    if (this.astray) return { done: [], lost: 0 };
    this.sequenced = true;
    const lost = Math.max(0, this.acked - applied);
    const open = [...this].filter((p) => p.ackVersion === undefined);
    const sent = open.filter((p) => p.sent);
    const done = sent.slice(0, Math.max(0, applied - this.acked));
    const first = this.acked + 1;
    if (lost) this.#setAcked(applied);
    else if (applied > this.acked + sent.length) this.newStream();
    else if (done.length) this.#setAcked(applied);
    this.#renumber();
    for (const [index, pending] of done.entries()) pending.seq = first + index;
    return { done, lost };
  }

  /** When postponed updates may be sent again, and when answers are overdue. */
  *times(now: number, ackTimeout: number): Generator<number> {
    for (const p of this) {
      if (p.inFlight) yield p.sentAt + ackTimeout;
      else if (p.notBefore > now) yield p.notBefore;
    }
  }

  /** Send again what was sent before a time and is not answered; twice in vain is enough. */
  resendOlder(than: number): void {
    for (const p of this) {
      if (!p.inFlight || p.sentAt > than) continue;
      p.inFlight = false;
      this.astray ||= p.doubtful;
      p.doubtful = !this.handed;
    }
  }

  /** Updates that do not fit a message of so many bytes. */
  oversized(maxMessage: number): Pending[] {
    return [...this].filter((p) => p.size + ENVELOPE_BYTES > maxMessage);
  }

  #check(size: number, maxMessage: number): void {
    if (size + ENVELOPE_BYTES > maxMessage)
      throw new InvalidUpdate(`${size} bytes do not fit a message of ${maxMessage}`);
  }

  #fits(more: number, updates: number): void {
    if (
      this.size + updates > this.bounds.queueUpdates ||
      this.bytes + more > this.bounds.queueBytes
    )
      throw new QueueFull(`${this.size} updates of ${this.bytes} bytes wait`);
  }

  #setEdits(pending: Pending, edits: Edits): void {
    this.bytes -= pending.size;
    pending.edits = edits;
    pending.measure();
    this.bytes += pending.size;
    this.#stored(pending);
  }

  #stored(pending: Pending): void {
    pending.mark = ++this.marks;
    this.journal?.put(pending);
  }

  #forget(key: string, pending: Pending): void {
    const rest = this.touching(key).filter((other) => other !== pending);
    if (rest.length) this.#byKey.set(key, rest);
    else this.#byKey.delete(key);
  }
}
