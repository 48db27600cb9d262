/**
 * Updates that the server has not acknowledged yet: strictly in order, within bounds, each carried
 * out once.
 *
 * An update keeps its correlation id for its whole life, and what it says from its first sending on.
 * The queue is a `stream`: the updates of it are numbered 1, 2, 3 … in the order in which they are
 * sent, and the server carries one out only if its number is the next. So several may be on the way
 * at once, and one that the server refuses for a moment is not overtaken: those behind it are
 * refused with `sequence_gap`, and all of them get new numbers once everything that was on the way
 * is answered. An update that is refused uses no number.
 *
 * A server without streams ignores the numbers and knows updates by their ids. There two updates of
 * one key are never on the way together, so that an older one is not sent again after a newer one.
 *
 * Numbers are given by position: the first update that is not acknowledged has `acked + 1`. The
 * same order gives the same numbers, on a new connection and after a reload.
 */
import { InvalidUpdate, QueueFull } from "./errors";
import { type Edit, type Edits, isPlain } from "./operations";
import { bytes, MISSING, toText, type Value } from "./values";

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
  /** It may have been carried out: what it says must not change. */
  sent = false;
  inFlight = false;
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
    if (this.guarded && this.base) {
      body.base_version = this.base.version;
      body.base_lineage = this.base.lineage;
    }
    return body;
  }

  measure(): void {
    this.size = bytes(toText(this.payload()));
  }

  /** Nothing of it was carried out, which the server has said: it is as if it was never sent. */
  unsend(): void {
    this.seq = 0;
    this.sent = this.inFlight = false;
  }

  #single(): Record<string, unknown> {
    const [[key, edit]] = [...this.edits] as [[string, Edit]];
    const body: Record<string, unknown> = { key, operation: edit.operation };
    if (edit.value !== MISSING) body.value = edit.value;
    if (edit.expected !== undefined && edit.expected !== MISSING) body.expected = edit.expected;
    return body;
  }

  #several(): Record<string, unknown> {
    const changes: Record<string, unknown> = {};
    const deleted: string[] = [];
    for (const [key, edit] of this.edits)
      if (edit.value === MISSING) deleted.push(key);
      else changes[key] = edit.value;
    return { changes, deleted_keys: deleted };
  }
}

/** Who keeps the queue on disk. Each change is told at once; `flushed` is raised when it is safe. */
export interface Journal {
  put(pending: Pending): void;
  remove(id: string): void;
  /** The stream or its acknowledged number has changed. */
  moved(): void;
}

export interface QueueBounds {
  updates: number;
  bytes: number;
  /** Updates on the way at once. */
  window: number;
}

export class Queue {
  /** The name of this queue at the server. */
  stream: string;
  /** The last number that was acknowledged. */
  acked = 0;
  /** The server takes the stream in order, so updates of one key may be on the way together. */
  sequenced = false;
  bytes = 0;
  journal: Journal | undefined;
  /** What has reached the disk; all of it when there is none. */
  flushed = Number.POSITIVE_INFINITY;
  marks = 0;
  #barrier = 0;
  #last = 0;
  #stalled = false;
  readonly #updates = new Map<string, Pending>();
  readonly #byKey = new Map<string, Pending[]>();

  constructor(
    private readonly bounds: QueueBounds,
    private readonly newId: () => string,
  ) {
    this.stream = newId();
  }

  get size(): number {
    return this.#updates.size;
  }

  [Symbol.iterator](): IterableIterator<Pending> {
    return this.#updates.values();
  }

  get(id: string | undefined): Pending | undefined {
    return id === undefined ? undefined : this.#updates.get(id);
  }

  /** Updates of one key, oldest first. */
  touching(key: string): readonly Pending[] {
    return this.#byKey.get(key) ?? [];
  }

  /**
   * Append an update.
   *
   * @throws QueueFull when it does not fit; nothing changed
   * @throws InvalidUpdate when it is larger than a message of `maxMessage` bytes can be
   */
  add(pending: Pending, maxMessage: number): void {
    this.#check(pending.size, maxMessage);
    if (this.size >= this.bounds.updates)
      throw new QueueFull(`${this.bounds.updates} updates wait to be acknowledged`);
    this.#fits(pending.size);
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
   * nothing later touches that key.
   */
  replaceable(edits: Edits, guarded: boolean): Pending | undefined {
    if (edits.size !== 1) return undefined;
    const [[key, edit]] = [...edits] as [[string, Edit]];
    const last = this.touching(key).at(-1);
    if (!last || last.sent || last.ackVersion !== undefined || last.edits.size !== 1)
      return undefined;
    const plain = isPlain(edit) && isPlain(last.edits.get(key)!);
    return plain && last.guarded === guarded ? last : undefined;
  }

  /** Give an update that was not sent another value for its key; throws as `add`. */
  replace(pending: Pending, edits: Edits, maxMessage: number): void {
    const other = new Pending(pending.id, edits, pending.guarded);
    this.#check(other.size, maxMessage);
    this.#fits(other.size - pending.size);
    this.#setEdits(pending, edits);
  }

  /** Take an update out: done, or refused. */
  remove(pending: Pending): void {
    this.#updates.delete(pending.id);
    this.bytes -= pending.size;
    for (const key of pending.edits.keys()) this.#forget(key, pending);
    this.journal?.remove(pending.id);
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
        if (++onTheWay >= this.bounds.window) return undefined;
        for (const key of pending.edits.keys()) blocked.add(key);
      } else return this.#mayGo(pending, now, blocked, unseen) ? pending : undefined;
    }
    return undefined;
  }

  #mayGo(pending: Pending, now: number, blocked: Set<string>, unseen: Set<string>): boolean {
    if (this.#stalled || pending.notBefore > now) return false;
    if (this.flushed < Math.max(pending.mark, this.#barrier)) return false;
    for (const key of pending.edits.keys()) {
      if (blocked.has(key) && (pending.guarded || !this.sequenced)) return false;
      if (pending.guarded && unseen.has(key)) return false;
    }
    return true;
  }

  /** An update is on the way. */
  send(pending: Pending, now: number): void {
    if (!pending.seq) pending.seq = ++this.#last;
    pending.inFlight = pending.sent = true;
    pending.sentAt = now;
  }

  /** The server has carried out an update. */
  acknowledge(pending: Pending): void {
    pending.inFlight = false;
    if (pending.seq > this.acked) {
      this.acked = pending.seq;
      this.journal?.moved();
    }
    this.#settle();
  }

  /** The server has not carried out an update; it stays, or `remove` follows. */
  refused(pending: Pending): void {
    pending.unsend();
    this.#barrier = ++this.marks;
    this.journal?.moved();
    this.#stalled = true;
    this.#settle();
  }

  /** The numbers are not those that the server expects: `last` is the one it has. */
  outOfStep(pending: Pending, last: number | undefined): void {
    if (last !== undefined && last !== this.acked && !this.#othersOnTheWay(pending))
      last < this.acked ? this.#setAcked(last) : this.newStream();
    this.refused(pending);
  }

  #othersOnTheWay(pending: Pending): boolean {
    for (const other of this) if (other.inFlight && other !== pending) return true;
    return false;
  }

  /** Nobody knows the old stream, or another copy of this queue uses it. */
  newStream(): void {
    this.stream = this.newId();
    this.#setAcked(0);
  }

  #setAcked(last: number): void {
    this.acked = last;
    this.#barrier = ++this.marks;
    this.journal?.moved();
  }

  /** New numbers, once nothing is on the way that has an old one. */
  #settle(): void {
    if (!this.#stalled) return;
    for (const pending of this) if (pending.inFlight) return;
    this.#renumber();
  }

  #renumber(): void {
    this.#stalled = false;
    this.#last = this.acked;
    for (const pending of this) if (pending.ackVersion === undefined) pending.seq = 0;
  }

  /** The connection is gone, or answers may have been lost: everything is sent again. */
  recall(): void {
    for (const pending of this) pending.inFlight = false;
    this.#renumber();
  }

  /**
   * What the server has of the stream, told while nothing is on the way.
   *
   * @returns done: updates of ours that it has carried out; lost: how many acknowledged ones it
   *     does not have any more
   */
  reconcile(applied: number): { done: Pending[]; lost: number } {
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

  /** Send again what was sent before a time and is not answered. */
  resendOlder(than: number): void {
    for (const p of this) if (p.inFlight && p.sentAt <= than) p.inFlight = false;
  }

  /** Updates that do not fit a message of so many bytes. */
  oversized(maxMessage: number): Pending[] {
    return [...this].filter((p) => p.size + ENVELOPE_BYTES > maxMessage);
  }

  #check(size: number, maxMessage: number): void {
    if (size + ENVELOPE_BYTES > maxMessage)
      throw new InvalidUpdate(`an update of ${size} bytes does not fit a message of ${maxMessage}`);
  }

  #fits(more: number): void {
    if (this.bytes + more > this.bounds.bytes)
      throw new QueueFull(`updates of ${this.bytes} bytes wait to be acknowledged`);
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
