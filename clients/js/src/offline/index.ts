/**
 * The queue and the last state in IndexedDB: they survive a reload and a crash, and every update is
 * carried out once.
 *
 * The law: an update leaves the page only when it is on disk, as it is, at its place. After a reload
 * everything on disk counts as sent and is not changed any more; its number in the stream follows
 * from its place and the last acknowledged number. So what the server has carried out is recognised.
 *
 * Who opens the database raises its generation; a page whose generation is not the newest writes no
 * more. Without IndexedDB (in Node) everything is kept in memory.
 */
import { StorageError } from "../core/errors";
import type { Edit, Operation } from "../core/operations";
import { Pending } from "../core/queue";
import type { Keeping, Store } from "../core/store";
import { fromText, type Json, MISSING, toText, type Value } from "../core/values";
import { Database, type Stores } from "./database";

export interface OfflineOptions {
  /** Whose data it is: a user id. Part of the name of the database. */
  user: string;
  /** Which one, when a user has several sessions or devices in this browser. */
  name?: string;
}

/** The state is written at most once in so many milliseconds. */
const SNAPSHOT = 1_000;

interface Meta {
  generation: number;
  stream: string;
  acked: number;
  /** User and session, once they are known. */
  owner: string;
}

interface Op {
  id: string;
  guarded: boolean;
  edits: [string, Operation, string | undefined, string | undefined][];
}

/** A `store` for `connect`. */
export function offline({ user, name = "" }: OfflineOptions): Offline {
  return new Offline(`syncbridge:${user}:${name}`);
}

export class Offline implements Store {
  /** False after storage has failed, and where there is none. */
  durable = typeof indexedDB !== "undefined";
  readonly #database: Database;
  #keeping: Keeping | undefined;
  #meta: Meta = { generation: 0, stream: "", acked: 0, owner: "" };
  /** Places on disk, by id of the update. */
  readonly #places = new Map<string, number>();
  #lastPlace = 0;
  readonly #dirty = new Map<string, Pending | undefined>();
  #metaDirty = false;
  #snapDirty = false;
  #snapDue = false;
  #snapTimer: ReturnType<typeof setTimeout> | undefined;
  #writing: Promise<void> | undefined;
  #closed = false;

  constructor(name: string) {
    this.#database = new Database(name);
  }

  async open(keeping: Keeping): Promise<boolean> {
    this.#keeping = keeping;
    if (!this.durable) return false;
    keeping.replica.queue.flushed = -1;
    try {
      return await this.#load(keeping);
    } catch (error) {
      this.#fail(error as StorageError);
      return false;
    }
  }

  belongs(owner: string): boolean {
    if (this.#meta.owner) return this.#meta.owner === owner;
    this.#meta.owner = owner;
    this.#metaDirty = true;
    this.#write();
    return true;
  }

  changed(): void {
    this.#snapDirty = true;
    this.#snapTimer ??= setTimeout(() => this.flush(), SNAPSHOT);
  }

  async stored(): Promise<boolean> {
    while (this.durable && (this.#writing || this.#dirty.size || !this.#meta.generation)) {
      await (this.#writing ?? new Promise((resolve) => setTimeout(resolve, 1)));
    }
    return this.durable;
  }

  flush(): void {
    clearTimeout(this.#snapTimer);
    this.#snapTimer = undefined;
    this.#snapDue = this.#snapDirty;
    this.#write();
  }

  close(): void {
    this.flush();
    this.#closed = true;
    void (this.#writing ?? Promise.resolve()).then(() => this.#database.close());
  }

  // Reading

  async #load(keeping: Keeping): Promise<boolean> {
    const { queue } = keeping.replica;
    const read = await this.#database.run((stores) => ({
      meta: this.#raise(stores, queue.stream),
      snap: stores.snap.get(0),
      ops: stores.ops.getAll(),
      places: stores.ops.getAllKeys(),
    }));
    const made = [...queue];
    this.#meta = read.meta.result ?? { ...this.#meta, stream: queue.stream };
    this.#meta.generation += 1;
    queue.stream = this.#meta.stream;
    queue.acked = this.#meta.acked;
    // What the page has done meanwhile comes after what was kept.
    for (const pending of made) queue.remove(pending);
    const places = read.places.result as number[];
    for (const [i, op] of (read.ops.result as Op[]).entries())
      queue.restore(this.#restored(op, places[i]!));
    queue.journal = {
      put: (pending) => this.#mark(pending.id, pending),
      remove: (id) => this.#mark(id, undefined),
      moved: () => this.#moved(),
    };
    queue.recall();
    for (const pending of made) {
      queue.restore(pending);
      pending.mark = ++queue.marks;
      this.#mark(pending.id, pending);
    }
    queue.flushed = made.length ? 0 : queue.marks;
    return this.#show(keeping, read.snap.result);
  }

  /** A new generation, in the transaction that reads the old one. */
  #raise(stores: Stores, stream: string): IDBRequest<Meta | undefined> {
    const first = { ...this.#meta, stream };
    const written = stores.meta.get(0) as IDBRequest<Meta | undefined>;
    written.onsuccess = () => {
      const old = written.result ?? first;
      stores.meta.put({ ...old, generation: old.generation + 1 }, 0);
    };
    return written;
  }

  #restored(op: Op, place: number): Pending {
    const edits = op.edits.map(([key, operation, value, expected]): [string, Edit] => [
      key,
      { operation, value: parsed(value), expected: parsed(expected) },
    ]);
    const pending = new Pending(op.id, new Map(edits), op.guarded);
    pending.sent = true;
    this.#places.set(op.id, place);
    this.#lastPlace = Math.max(this.#lastPlace, place);
    return pending;
  }

  #show({ replica }: Keeping, snap: { state: string; at: never } | undefined): boolean {
    const state = snap ? (fromText(snap.state) as Record<string, Json>) : {};
    replica.restore(state, snap?.at ?? replica.at, Boolean(snap));
    return Boolean(snap);
  }

  // Writing

  #mark(id: string, pending: Pending | undefined): void {
    this.#dirty.set(id, pending);
    this.#write();
  }

  #moved(): void {
    const { queue } = this.#keeping!.replica;
    this.#meta.stream = queue.stream;
    this.#meta.acked = queue.acked;
    this.#metaDirty = true;
    this.#write();
  }

  /** One transaction at a time, with all that waits by then. */
  #write(): void {
    const wanted = this.#dirty.size > 0 || this.#metaDirty || this.#snapDue;
    if (!wanted || this.#writing || !this.durable || this.#closed || !this.#meta.generation) return;
    this.#writing = Promise.resolve()
      .then(() => this.#batch())
      .catch((error) => this.#fail(error))
      .then(() => {
        this.#writing = undefined;
        this.#write();
      });
  }

  async #batch(): Promise<void> {
    const { replica, wake } = this.#keeping!;
    const { marks } = replica.queue;
    const dirty = [...this.#dirty];
    const snap = this.#snapDue && whole(replica);
    if (snap) this.#snapDirty = this.#snapDue = false;
    this.#dirty.clear();
    this.#metaDirty = false;
    const meta = { ...this.#meta };
    const ops = dirty.map(([id, pending]) => [this.#place(id), pending && kept(pending)] as const);
    let fenced = false;
    const act = (stores: Stores) => {
      const request = stores.meta.get(0) as IDBRequest<Meta>;
      request.onsuccess = () => {
        fenced = request.result.generation !== meta.generation;
        if (fenced) return stores.meta.transaction.abort();
        stores.meta.put(meta, 0);
        for (const [place, op] of ops) op ? stores.ops.put(op, place) : stores.ops.delete(place);
        if (snap) stores.snap.put(snap, 0);
      };
    };
    await this.#database.run(act).catch((error) => {
      throw fenced ? new StorageError("another page has opened this storage") : error;
    });
    for (const [id, pending] of dirty) if (!pending) this.#places.delete(id);
    replica.queue.flushed = marks;
    wake();
  }

  #place(id: string): number {
    const place = this.#places.get(id) ?? ++this.#lastPlace;
    this.#places.set(id, place);
    return place;
  }

  /** From here on in memory only. */
  #fail(error: StorageError): void {
    this.durable = false;
    const { replica, failed, wake } = this.#keeping!;
    replica.queue.journal = undefined;
    replica.queue.flushed = Number.POSITIVE_INFINITY;
    failed(error);
    wake();
  }
}

function whole({ server, at }: Keeping["replica"]): object {
  return { state: toText(Object.fromEntries(server)), at: { ...at } };
}

function kept(pending: Pending): Op {
  const edits = [...pending.edits].map(([key, edit]): Op["edits"][number] => [
    key,
    edit.operation,
    written(edit.value),
    written(edit.expected),
  ]);
  return { id: pending.id, guarded: pending.guarded, edits };
}

function written(value: Value | undefined): string | undefined {
  return value === undefined || value === MISSING ? undefined : toText(value);
}

function parsed(text: string | undefined): Value {
  return text === undefined ? MISSING : (fromText(text) as Json);
}
