/**
 * The way of own updates: taken, sent, rebased after a conflict, sent again, refused for good, and
 * those that the server had acknowledged and then lost.
 */
import type { Sink } from "./dialogue";
import { InvalidUpdate, UpdateRefused } from "./errors";
import type { LostUpdate } from "./events";
import * as T from "./kinds";
import { type Edits, isPlain, parts } from "./operations";
import type { Bounds } from "./options";
import { Pending } from "./queue";
import type { Replica, Step } from "./replica";
import { checkKey } from "./values";
import { MAX_ROUNDS, REMEMBERED, RETRY_BASE, RETRY_CAP } from "./waits";
import { type Failure, type Limits, write } from "./wire";

export class Updates {
  #done: Pending[] = [];

  constructor(
    readonly replica: Replica,
    private readonly bounds: Bounds,
    readonly sink: Sink,
    private readonly newId: () => string,
  ) {}

  /** Take an update; throws QueueFull and InvalidUpdate. */
  submit(edits: Edits, limits: Limits): Pending {
    check(edits, limits);
    const guarded = this.bounds.conflict !== undefined && [...edits.values()].every(isPlain);
    const { queue } = this.replica;
    const waiting = queue.replaceable(edits, guarded);
    const unsent = waiting?.sent ? undefined : waiting;
    const pending = unsent ?? new Pending(this.newId(), edits, guarded);
    if (unsent) queue.replace(unsent, edits, limits.message_bytes);
    else queue.add(pending, limits.message_bytes, waiting);
    this.sink.changed(this.replica.show(edits.keys()));
    return pending;
  }

  /** The next update that may be sent, rebased if it has to be. */
  next(now: number): Pending | undefined {
    for (;;) {
      const pending = this.replica.queue.next(now);
      const guard = pending?.guarded && !pending.sent && this.bounds.conflict;
      if (!guard || guard.prepare(pending, this)) return pending;
    }
  }

  /** The message of the next update, which is on the way from here on. */
  take(now: number): string | undefined {
    const pending = this.next(now);
    if (!pending) return undefined;
    const { queue } = this.replica;
    queue.send(pending, now);
    const replaces = queue.handed ? pending.replaces : undefined;
    const body = { ...pending.payload(), stream: queue.stream, seq: pending.seq, replaces };
    return write(T.STATE_UPDATE, body, pending.id);
  }

  /** Tell what a step did. */
  report(step: Step): void {
    this.sink.changed(step.changed);
    const { stream } = this.replica.queue;
    for (const pending of step.settled) {
      pending.stream = stream;
      this.#done.push(pending);
      this.sink.finished(pending);
    }
    this.#done.splice(0, Math.max(0, this.#done.length - REMEMBERED));
  }

  /** What the server has of our stream; `ids`: what it knows to have lost of it. */
  reconcile(applied: number, ids: readonly string[]): void {
    const { queue } = this.replica;
    const { done, lost } = queue.reconcile(applied);
    for (const pending of done) this.report(this.replica.confirm(pending));
    if (queue.astray || !(lost || ids.length)) return;
    const above = (u: Pending) => u.stream === queue.stream && u.seq > applied;
    const gone = this.#done.filter((u) => above(u) || ids.includes(u.id));
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
      this.refuse(pending, new UpdateRefused("too_large", `a message has ${maxMessage} bytes`));
  }

  /**
   * The server has refused an update.
   *
   * @returns whether the state must be asked for
   */
  refused(pending: Pending, why: Failure, now: number): boolean {
    const { queue } = this.replica;
    if (pending.ackVersion !== undefined || !queue.stands(pending)) return false;
    if (why.code === "sequence_gap" || why.code === "unknown_stream") {
      queue.outOfStep(pending, why.details.last);
      return false;
    }
    pending.attempts += 1;
    const reason = pending.guarded ? this.bounds.conflict?.refused(pending, why) : undefined;
    const tired = pending.attempts > MAX_ROUNDS && (reason || why.code === "internal_error");
    if (tired || !(reason || why.retryable)) {
      this.refuse(pending, new UpdateRefused(why.code, why.message, why.details));
      return false;
    }
    // What conflicts was not carried out before.
    if (reason) pending.tried = false;
    queue.refused(pending);
    if (reason !== "conflict") postpone(pending, why, now);
    return reason === "ahead";
  }

  /** Take an update back, for good. */
  refuse(pending: Pending, error: UpdateRefused): void {
    const { id, keys } = pending;
    this.replica.queue.refused(pending);
    this.replica.queue.remove(pending);
    this.sink.changed(this.replica.show(keys));
    this.sink.event("refused", { id, keys, error });
    this.sink.finished(pending, error);
  }
}

function postpone(pending: Pending, why: Failure, now: number): void {
  const wait = Math.min(RETRY_CAP, RETRY_BASE * 2 ** Math.min(pending.attempts - 1, 16));
  pending.notBefore = now + Math.max(why.retryAfter, wait);
}

function lostUpdate({ id, edits }: Pending): LostUpdate {
  const special = [...edits.values()].find((edit) => !isPlain(edit));
  return { id, ...parts(edits), operation: special?.operation ?? "" };
}

/** Refuse what no server takes. */
function check(edits: Edits, limits: Limits): void {
  if (!edits.size || edits.size > limits.changes)
    throw new InvalidUpdate(`an update names 1 to ${limits.changes} keys`);
  for (const key of edits.keys()) checkKey(key, limits.key_bytes);
}
