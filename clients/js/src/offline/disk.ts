/**
 * The queue and the last state in IndexedDB: they survive a reload and a crash, and every update is
 * carried out once.
 *
 * The law: an update leaves the page only when it is on disk, as it is, at its place. After a reload
 * everything on disk counts as sent and is not changed any more; its number in the stream follows
 * from its place and the last acknowledged number. So what the server has carried out is recognised.
 * An acknowledged update leaves the disk in the transaction that raises that number.
 *
 * Who opens the database raises its generation; a page whose generation is not the newest writes no
 * more. What became of the last updates is kept with them, for tabs that ask again after their leader
 * has gone. Without IndexedDB (in Node) everything is kept in memory.
 */
import { StorageError, UpdateRefused } from "../core/errors";
import type { Edit, Operation } from "../core/operations";
import { Pending } from "../core/queue";
import type { Position, Replica } from "../core/replica";
import type { Keeping, Store } from "../core/store";
import { fromText, type Json, MISSING, toText, type Value } from "../core/values";
import { Database, hasStorage, type Stores } from "./database";

/** The state is written at most once in so many milliseconds. */
const SNAPSHOT = 1_000;
/** Updates whose outcome is kept. */
const OUTCOMES = 256;

/** What became of an update: its version, or why it was refused. */
export interface Outcome {
  id: string;
  version: number;
  code?: string | undefined;
  message?: string | undefined;
}

interface Meta {
  generation: number;
  stream: string;
  acked: number;
  /** User and session, once they are known. */
  owner: string;
  outcomes?: Outcome[];
}

interface Op {
  id: string;
  aliases?: readonly string[];
  guarded: boolean;
  edits: [string, Operation, string | undefined, string | undefined][];
}

export class Disk implements Store {
  /** False after storage has failed, and where there is none. */
  durable = hasStorage();
  readonly #database: Database;
  #keeping: Keeping | undefined;
  #meta: Meta = { generation: 0, stream: "", acked: 0, owner: "" };
  /** Places on disk, by id of the update. */
  readonly #places = new Map<string, number>();
  #lastPlace = 0;
  /** The last place that was taken when the database was opened. */
  #found = 0;
  readonly #dirty = new Map<string, Pending | undefined>();
  #metaDirty = false;
  #snapDirty = false;
  #snapDue = false;
  #snapTimer: ReturnType<typeof setTimeout> | undefined;
  #writing: Promise<void> | undefined;
  #leaving: Promise<void> | undefined;
  #outcomes = new Map<string, Outcome>();
  /** Another page has opened the database. */
  fenced: (() => void) | undefined;

  constructor(name: string) {
    this.#database = new Database(name);
  }

  async open(keeping: Keeping): Promise<boolean> {
    await this.#leaving;
    this.#leaving = undefined;
    this.#keeping = keeping;
    if (!this.durable) return false;
    keeping.dialogue.replica.queue.flushed = -1;
    try {
      return await this.#load(keeping);
    } catch (error) {
      this.#fail(error as StorageError);
      return false;
    }
  }

  belongs(owner: string): boolean {
    if (this.#meta.owner) {
      if (this.#meta.owner !== owner) this.#withdraw();
      return this.#meta.owner === owner;
    }
    this.#meta.owner = owner;
    this.#metaDirty = true;
    this.#write();
    return true;
  }

  /** All this is somebody else's: what this page has added must not be sent by them. */
  #withdraw(): void {
    for (const id of [...this.#places.keys(), ...this.#dirty.keys()])
      if (this.#place(id) > this.#found) this.#dirty.set(id, undefined);
    this.#write();
  }

  changed(): void {
    this.#snapDirty = true;
    this.#snapTimer ??= setTimeout(() => this.flush(), SNAPSHOT);
  }

  async stored(): Promise<boolean> {
    while (this.#keeps && (this.#writing || this.#dirty.size || !this.#meta.generation)) {
      await (this.#writing ?? new Promise((resolve) => setTimeout(resolve, 1)));
    }
    return this.#keeps;
  }

  get #keeps(): boolean {
    return this.durable && !this.#leaving;
  }

  /** What became of an update that is not in the queue any more. */
  outcome(id: string): Outcome | undefined {
    return this.#outcomes.get(id);
  }

  finished(pending: Pending, error: Error | undefined): void {
    for (const id of [pending.id, ...pending.aliases])
      this.#outcomes.set(id, outcome(id, pending.version, error));
    for (const id of this.#outcomes.keys())
      if (this.#outcomes.size > OUTCOMES) this.#outcomes.delete(id);
    this.#metaDirty = true;
    this.#write();
  }

  /** One that was carried out goes with the number that says so, and is known as done from then. */
  #gone(pending: Pending): void {
    const { id } = pending;
    if (pending.ackVersion !== undefined) this.finished(pending, undefined);
    if (this.#places.has(id) || this.#dirty.get(id)) this.#mark(id, undefined);
  }

  sleep(): void {
    this.flush();
  }

  /** Whether no other page has opened the database since. */
  async newest(): Promise<boolean> {
    if (!this.durable) return true;
    const read = await this.#database.run(({ meta }) => meta.get(0) as IDBRequest<Meta>);
    return read.result?.generation === this.#meta.generation;
  }

  /** Write what waits, and stop keeping; `open` begins again. */
  leave(): void {
    const { queue } = this.#keeping!.dialogue.replica;
    this.flush();
    this.#leaving = (async () => {
      while (this.#writing) await this.#writing;
      this.#meta = { generation: 0, stream: "", acked: 0, owner: "" };
      this.#places.clear();
      this.#dirty.clear();
      this.#lastPlace = 0;
    })();
    queue.journal = undefined;
    queue.flushed = Number.POSITIVE_INFINITY;
  }

  flush(): void {
    clearTimeout(this.#snapTimer);
    this.#snapTimer = undefined;
    this.#snapDue = this.#snapDirty;
    this.#write();
  }

  close(): void {
    if (!this.#keeping) return;
    this.leave();
    void this.#leaving!.then(() => this.#database.close());
  }

  // Reading

  async #load(keeping: Keeping): Promise<boolean> {
    const { replica } = keeping.dialogue;
    const { queue } = replica;
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
    queue.sequenced = false;
    for (const kept of this.#meta.outcomes ?? []) this.#outcomes.set(kept.id, kept);
    // What the page has done meanwhile comes after what was kept.
    for (const pending of made) queue.remove(pending);
    const places = read.places.result as number[];
    for (const [i, op] of (read.ops.result as Op[]).entries())
      queue.restore(this.#restored(op, places[i]!));
    this.#found = this.#lastPlace;
    queue.journal = {
      put: (pending) => this.#mark(pending.id, pending),
      remove: (pending) => this.#gone(pending),
      moved: () => this.#moved(),
    };
    queue.disconnected();
    queue.flushed = queue.marks;
    for (const pending of made) this.#again(keeping, pending);
    if (!replica.known) this.#show(keeping, read.snap.result);
    const ours = made.flatMap((pending) => pending.keys);
    const keys = [...replica.view.keys(), ...queue.keys, ...ours];
    replica.show(keys);
    keeping.adopt(new Set(keys));
    return replica.known;
  }

  /** What the page has made before, unless it is kept already, or done. */
  #again(keeping: Keeping, pending: Pending): void {
    const { queue } = keeping.dialogue.replica;
    const done = this.#outcomes.get(pending.id);
    if (done) {
      pending.version = done.version;
      return keeping.finished(pending, refusal(done));
    }
    for (const kept of queue)
      if (kept.id === pending.id || kept.aliases.includes(pending.id)) return;
    queue.restore(pending);
    pending.mark = ++queue.marks;
    this.#mark(pending.id, pending);
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
      { operation, value: this.#parsed(value), expected: this.#parsed(expected) },
    ]);
    const pending = new Pending(op.id, new Map(edits), op.guarded);
    pending.sent = true;
    pending.aliases = op.aliases ?? [];
    this.#places.set(op.id, place);
    this.#lastPlace = Math.max(this.#lastPlace, place);
    return pending;
  }

  #parsed(text: string | undefined): Value {
    const { numbers } = this.#keeping!.dialogue.bounds;
    return text === undefined ? MISSING : (fromText(text, numbers) as Json);
  }

  #show({ dialogue }: Keeping, snap: Snap | undefined): void {
    if (snap)
      dialogue.replica.restore(
        fromText(snap.state, dialogue.bounds.numbers) as Record<string, Json>,
        snap.at,
      );
  }

  // Writing

  #mark(id: string, pending: Pending | undefined): void {
    this.#dirty.set(id, pending);
    this.#write();
  }

  #moved(): void {
    const { queue } = this.#keeping!.dialogue.replica;
    this.#meta.stream = queue.stream;
    this.#meta.acked = queue.acked;
    this.#metaDirty = true;
    this.#write();
  }

  /** One transaction at a time, with all that waits by then. */
  #write(): void {
    const wanted = this.#dirty.size > 0 || this.#metaDirty || this.#snapDue;
    if (!wanted || this.#writing || !this.durable || !this.#meta.generation) return;
    this.#writing = Promise.resolve()
      .then(() => this.#batch())
      .catch((error) => this.#leaving || this.#fail(error))
      .then(() => {
        this.#writing = undefined;
        this.#write();
      });
  }

  async #batch(): Promise<void> {
    const { dialogue, link } = this.#keeping!;
    const { replica } = dialogue;
    const { marks } = replica.queue;
    const dirty = [...this.#dirty];
    const snap = this.#snapDue && whole(replica);
    if (snap) this.#snapDirty = this.#snapDue = false;
    this.#dirty.clear();
    this.#metaDirty = false;
    const meta = { ...this.#meta, outcomes: [...this.#outcomes.values()] };
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
      throw fenced ? new StorageError(FENCED) : error;
    });
    for (const [id, pending] of dirty) if (!pending) this.#places.delete(id);
    if (this.#leaving) return;
    replica.queue.flushed = marks;
    link.wake();
  }

  #place(id: string): number {
    const place = this.#places.get(id) ?? ++this.#lastPlace;
    this.#places.set(id, place);
    return place;
  }

  /** From here on in memory only. */
  #fail(error: StorageError): void {
    if (this.fenced && error.message === FENCED) return this.fenced();
    this.durable = false;
    const keeping = this.#keeping!;
    const { queue } = keeping.dialogue.replica;
    queue.journal = undefined;
    queue.flushed = Number.POSITIVE_INFINITY;
    keeping.event("storage", error);
    keeping.link.wake();
  }
}

const FENCED = "another page has opened this storage";

/** A state as it is kept. */
export interface Snap {
  state: string;
  at: Position;
}

export function whole({ server, at }: Replica): Snap {
  return { state: toText(Object.fromEntries(server)), at: { ...at } };
}

function outcome(id: string, version: number, error: Error | undefined): Outcome {
  if (!error) return { id, version };
  return { id, version: 0, code: (error as { code?: string }).code, message: error.message };
}

function refusal({ code, message }: Outcome): UpdateRefused | undefined {
  return code === undefined ? undefined : new UpdateRefused(code, message ?? "");
}

function kept(pending: Pending): Op {
  const edits = [...pending.edits].map(([key, edit]): Op["edits"][number] => [
    key,
    edit.operation,
    written(edit.value),
    written(edit.expected),
  ]);
  return { id: pending.id, aliases: pending.aliases, guarded: pending.guarded, edits };
}

function written(value: Value | undefined): string | undefined {
  return value === undefined || value === MISSING ? undefined : toText(value);
}
