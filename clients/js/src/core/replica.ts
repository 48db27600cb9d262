/**
 * What the client knows of its session: the server's state, and its own updates laid over it.
 *
 * `server` is the state at a position (epoch, version, lineage), made of what the server sent and
 * nothing else. `view` is `server` with every pending update on top, oldest first; it is what a
 * program sees. A commit changes `server`, and in the same step the update that it acknowledges
 * leaves the queue. So a key with a pending update shows ours until the server has ordered it, and
 * then what the server says.
 *
 * An acknowledgement may overtake the commit that it speaks of. Then the update stays, with its
 * `ackVersion`, until the replica has that version.
 */
import type { Guard } from "./conflicts";
import { effect, isPlain } from "./operations";
import type { Pending, Queue } from "./queue";
import { type Json, MISSING, same, shared, type Value } from "./values";

export type Verdict = "applied" | "known" | "gap" | "other";

/** What one message did. `settled`: updates that are done. */
export interface Step {
  verdict: Verdict;
  changed: Set<string>;
  settled: Pending[];
}

export interface Position {
  version: number;
  epoch: string;
  /** Opaque; given back as it came. */
  lineage?: string | undefined;
}

/** A commit, or a difference over several. */
export interface Commit extends Position {
  prevVersion: number;
  prevLineage?: string | undefined;
  changes: Readonly<Record<string, Json>>;
  deleted: readonly string[];
}

type Told = ReadonlyMap<string, Value>;

export class Replica {
  at: Position = { version: 0, epoch: "" };
  /** A whole state was received once, so that resuming is possible. */
  known = false;
  readonly server = new Map<string, Json>();
  readonly view = new Map<string, Json>();
  #confirmed: Pending[] = [];

  constructor(
    readonly queue: Queue,
    private readonly guard?: Guard,
  ) {}

  // Our own updates

  /** The queue was changed: show its effect on these keys. */
  show(keys: Iterable<string>): ReadonlySet<string> {
    return this.#refreshed(step(), keys).changed;
  }

  /** Show what was kept by a journal. */
  restore(state: Readonly<Record<string, Json>>, at: Position): ReadonlySet<string> {
    this.at = at;
    this.known = true;
    for (const [key, value] of Object.entries(state)) this.server.set(key, value);
    return this.show([...this.server.keys(), ...this.queue.keys]);
  }

  // What the server says

  /** A whole state: the truth, whatever was known before. `reset`: versions start again. */
  whole(state: Readonly<Record<string, Json>>, at: Position, reset = false): Step {
    if (reset || at.epoch !== this.at.epoch) for (const p of this.queue) p.base = undefined;
    for (const pending of this.#confirmed) pending.ackVersion = 0;
    const told = new Map<string, Value>();
    for (const key of this.server.keys()) told.set(key, MISSING);
    for (const [key, value] of Object.entries(state)) told.set(key, value);
    this.known = true;
    return this.#take(told, at, undefined);
  }

  /** What changed since a version that we have. */
  difference(commit: Omit<Commit, "prevVersion">): Step {
    if (commit.epoch !== this.at.epoch && this.at.epoch) return step("other");
    if (commit.version < this.at.version) return step("known");
    return this.#take(told(commit), commit, undefined);
  }

  /** One STATE_UPDATE; `id` is its correlation id. */
  commit(commit: Commit, id: string | undefined): Step {
    const own = this.queue.get(id);
    const verdict = this.#judge(commit);
    if (verdict === "applied") {
      if (own) this.#confirm(own, commit.version);
      return this.#take(told(commit), commit, own);
    }
    if (!own || verdict === "other") return step(verdict);
    this.#confirm(own, commit.version);
    return this.#settle(step(verdict), []);
  }

  /** The server has carried out an update, and what we have contains it. */
  confirm(pending: Pending): Step {
    this.#confirm(pending, this.at.version);
    return this.#settle(step(), []);
  }

  #judge(commit: Commit): Verdict {
    const { version, epoch, lineage } = this.at;
    if (commit.epoch !== epoch && (epoch || commit.prevVersion)) return "other";
    if (commit.version <= version) return "known";
    if (commit.prevVersion > version) return "gap";
    const branched = lineage && commit.prevLineage && commit.prevLineage !== lineage;
    return branched && commit.prevVersion === version ? "other" : "applied";
  }

  /** Our update has a version, and those before it one that is not greater. */
  #confirm(own: Pending, version: number): void {
    for (const done of this.queue.upTo(own)) {
      if (done.ackVersion === undefined) this.#confirmed.push(done);
      done.ackVersion = done.version = version;
      this.queue.acknowledge(done);
      for (const key of done.edits.keys())
        this.guard?.confirmed(done, key, this.queue.touching(key));
    }
  }

  #take(changes: Told, at: Position, own: Pending | undefined): Step {
    for (const [key, value] of changes) {
      // While `server` is as it was: a difference may name again what we have, which is no news.
      if (!own && !same(valueIn(this.server, key), value))
        this.guard?.contest(this.queue.touching(key), key, value, at.version);
      if (value === MISSING) this.server.delete(key);
      else this.server.set(key, shared(this.server.get(key), value));
    }
    this.at = { version: at.version, epoch: at.epoch, lineage: at.lineage };
    return this.#settle(step(), changes.keys());
  }

  /** Let go of every update whose version we have, then bring the view up to date. */
  #settle(done: Step, touched: Iterable<string>): Step {
    const keys = new Set(touched);
    this.#confirmed = this.#confirmed.filter((pending) => {
      if (pending.ackVersion! > this.at.version) return true;
      this.queue.remove(pending);
      done.settled.push(pending);
      for (const key of pending.edits.keys()) keys.add(key);
      return false;
    });
    return this.#refreshed(done, keys);
  }

  #refreshed(done: Step, keys: Iterable<string>): Step {
    for (const key of keys) {
      const old = this.view.get(key);
      const now = this.#overlaid(key);
      if (now === MISSING) {
        if (this.view.delete(key)) done.changed.add(key);
        continue;
      }
      const next = shared(old, now);
      if (old !== undefined && next === old) continue;
      this.view.set(key, next);
      done.changed.add(key);
    }
    return done;
  }

  #overlaid(key: string): Value {
    let value = valueIn(this.server, key);
    for (const pending of this.queue.touching(key)) value = effect(value, pending.edits.get(key)!);
    return value;
  }
}

/** The value of a key; `null` is one. */
function valueIn(map: ReadonlyMap<string, Json>, key: string): Value {
  const value = map.get(key);
  return value === undefined ? MISSING : value;
}

function told(commit: Pick<Commit, "changes" | "deleted">): Told {
  const all = new Map<string, Value>(Object.entries(commit.changes));
  for (const key of commit.deleted) all.set(key, MISSING);
  return all;
}

function step(verdict: Verdict = "applied"): Step {
  return { verdict, changed: new Set(), settled: [] };
}

/** Whether an update has left this value in a key; only the server knows it of an operation. */
export function wrote(pending: Pending, key: string, value: Value): boolean {
  const edit = pending.edits.get(key);
  return edit !== undefined && isPlain(edit) && same(edit.value, value);
}
