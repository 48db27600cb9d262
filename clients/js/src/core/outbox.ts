/**
 * The way of own updates: taken, sent, rebased after a conflict, sent again, refused for good, and
 * those that the server had acknowledged and then lost.
 */
import { MAX_ROUNDS, rebased } from "./conflicts";
import type { Sink } from "./dialogue";
import { InvalidUpdate, UpdateRefused } from "./errors";
import type { LostUpdate } from "./events";
import { type Edits, isPlain } from "./operations";
import type { Bounds } from "./options";
import { Pending } from "./queue";
import type { Replica, Step } from "./replica";
import { bytes, type Json, MISSING, type Value } from "./values";
import { type Failure, type Limits, T, write } from "./wire";

/** Before an update that was refused for a moment is sent again: doubled each time. */
const RETRY_BASE = 250;
const RETRY_CAP = 30_000;
/** Acknowledged updates that are remembered, in case the server loses them. */
const REMEMBERED = 128;

export class Updates {
  #done: { seq: number; id: string; edits: Edits }[] = [];

  constructor(
    private readonly replica: Replica,
    private readonly bounds: Bounds,
    private readonly sink: Sink,
    private readonly newId: () => string,
  ) {}

  /** Take an update; throws QueueFull and InvalidUpdate. */
  submit(edits: Edits, limits: Limits): Pending {
    check(edits, limits);
    const guarded = this.bounds.conflict !== undefined && [...edits.values()].every(isPlain);
    const waiting = this.replica.queue.replaceable(edits, guarded);
    const pending = waiting ?? new Pending(this.newId(), edits, guarded);
    const step = waiting
      ? this.replica.replace(waiting, edits, limits.message_bytes)
      : this.replica.overlay(pending, limits.message_bytes);
    this.sink.changed(step.changed);
    return pending;
  }

  /** The next update that may be sent, rebased if it has to be. */
  next(now: number): Pending | undefined {
    for (;;) {
      const pending = this.replica.queue.next(now);
      if (!pending?.guarded || pending.sent) return pending;
      if (pending.contested.size && !this.#rebase(pending)) continue;
      const { version, lineage } = this.replica.at;
      if (!pending.base || pending.base.version <= version)
        pending.base = lineage === undefined ? { version } : { version, lineage };
      return pending;
    }
  }

  /** The message of the next update, which is on the way from here on. */
  take(now: number): string | undefined {
    const pending = this.next(now);
    if (!pending) return undefined;
    const { queue } = this.replica;
    queue.send(pending, now);
    const body = { ...pending.payload(), stream: queue.stream, seq: pending.seq };
    return write(T.STATE_UPDATE, body, pending.id);
  }

  /** Tell what a step did. */
  report(step: Step): void {
    this.sink.changed(step.changed);
    for (const pending of step.settled) {
      this.#done.push({ seq: pending.seq, id: pending.id, edits: pending.edits });
      this.sink.finished(pending, undefined);
    }
    this.#done.splice(0, Math.max(0, this.#done.length - REMEMBERED));
  }

  /** What the server has of our stream; `ids`: what it knows to have lost of it. */
  reconcile(applied: number, ids: readonly string[]): void {
    const { queue } = this.replica;
    const { done, lost } = queue.reconcile(applied);
    for (const pending of done) this.report(this.replica.confirm(pending));
    if (!lost && !ids.length) return;
    const gone = this.#done.filter((u) => u.seq > applied || ids.includes(u.id));
    this.#done = this.#done.filter((u) => !gone.includes(u));
    this.sink.event("lost", {
      count: Math.max(lost, gone.length),
      updates: gone.map(lostUpdate),
      resend: () => {
        for (const { edits } of gone) this.sink.resend(edits);
      },
    });
  }

  /** Larger messages would end the connection for good. */
  refuseOversized(maxMessage: number): void {
    for (const pending of this.replica.queue.oversized(maxMessage))
      this.#refuse(pending, new UpdateRefused("too_large", `a message has ${maxMessage} bytes`));
  }

  /**
   * The server has refused an update.
   *
   * @returns whether the state must be asked for
   */
  refused(pending: Pending, why: Failure, now: number): boolean {
    const { queue } = this.replica;
    if (pending.ackVersion !== undefined) return false;
    if (why.code === "sequence_gap" || why.code === "unknown_stream") {
      if (why.code === "unknown_stream" && pending.seq) queue.newStream();
      const last = why.details.last;
      queue.outOfStep(pending, typeof last === "number" ? last : undefined);
      return false;
    }
    pending.attempts += 1;
    const conflict = pending.guarded && why.code === "version_conflict";
    const ahead = pending.guarded && AHEAD.has(why.code);
    const tired =
      pending.attempts > MAX_ROUNDS && (conflict || ahead || why.code === "internal_error");
    if (tired || !(conflict || ahead || why.retryable)) {
      this.#refuse(pending, new UpdateRefused(why.code, why.message, why.details));
      return false;
    }
    queue.refused(pending);
    if (conflict) onConflict(pending, why);
    else postpone(pending, why, now);
    if (ahead) pending.base = undefined;
    return ahead;
  }

  /** Settle the contested keys of an update; false when nothing is left of it. */
  #rebase(pending: Pending): boolean {
    let result: ReturnType<typeof rebased>;
    try {
      result = rebased(pending, this.bounds.conflict!);
    } catch (error) {
      this.#refuse(pending, new UpdateRefused("conflict", `resolving it failed: ${error}`));
      return false;
    }
    const [edits, resolutions] = result;
    pending.contested.clear();
    this.sink.changed(this.replica.rewrite(pending, edits).changed);
    this.sink.event("conflict", { id: pending.id, resolutions });
    if (edits.size) return true;
    pending.version = this.replica.at.version;
    this.sink.finished(pending, undefined);
    return false;
  }

  #refuse(pending: Pending, error: UpdateRefused): void {
    const { id, keys } = pending;
    this.replica.queue.refused(pending);
    this.sink.changed(this.replica.withdraw(pending).changed);
    this.sink.event("refused", { id, keys, error });
    this.sink.finished(pending, error);
  }
}

/** The server's history is not the one that the update was made on. */
const AHEAD = new Set(["base_version_ahead", "base_lost"]);

function onConflict(pending: Pending, why: Failure): void {
  const current = why.details.current_version;
  pending.base = typeof current === "number" ? { version: current } : undefined;
  const conflicts = Array.isArray(why.details.conflicts) ? why.details.conflicts : [];
  for (const entry of conflicts as Record<string, Value | undefined>[]) {
    const key = String(entry?.key);
    const theirs = entry?.server_value;
    if (pending.edits.has(key)) pending.contested.set(key, theirs === undefined ? MISSING : theirs);
  }
}

function postpone(pending: Pending, why: Failure, now: number): void {
  const wait = Math.min(RETRY_CAP, RETRY_BASE * 2 ** Math.min(pending.attempts - 1, 16));
  pending.notBefore = now + Math.max(why.retryAfter, wait);
}

function lostUpdate({ id, edits }: { id: string; edits: Edits }): LostUpdate {
  const changes: Record<string, Json> = {};
  const deleted: string[] = [];
  let operation = "";
  for (const [key, edit] of edits) {
    if (edit.value === MISSING) deleted.push(key);
    else changes[key] = edit.value;
    if (!isPlain(edit)) operation = edit.operation;
  }
  return { id, changes, deleted, operation };
}

/** Refuse keys that no server takes. */
function check(edits: Edits, limits: Limits): void {
  if (!edits.size) throw new InvalidUpdate("an update names at least one key");
  if (edits.size > limits.changes)
    throw new InvalidUpdate(`an update names at most ${limits.changes} keys`);
  for (const key of edits.keys()) {
    const size = bytes(key);
    if (!size || size > limits.key_bytes)
      throw new InvalidUpdate(`a key is text of 1 to ${limits.key_bytes} bytes`);
    if (key.includes("\0") || key === "__proto__")
      throw new InvalidUpdate(`key ${JSON.stringify(key)} is reserved`);
  }
}
