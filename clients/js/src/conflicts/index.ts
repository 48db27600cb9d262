/**
 * Conflict policies: an import of its own, as most pages are content with the last writer.
 *
 *     const session = await connect({ …, conflict: conflicts("server_wins") });
 */
import type { Guard, Policy, Resolution } from "../core/conflicts";
import { UpdateRefused } from "../core/errors";
import { become, type Edit, type Edits } from "../core/operations";
import type { Updates } from "../core/outbox";
import type { Pending } from "../core/queue";
import { wrote } from "../core/replica";
import { copied, MISSING, same, type Value } from "../core/values";
import type { Failure } from "../core/wire";

export type { Policy, Resolution, Resolver } from "../core/conflicts";

/** The server's history is not the one that the update was made on. */
const AHEAD = new Set(["base_version_ahead", "base_lost"]);

/** What settles conflicts by a policy; see the option `conflict` of `connect`. */
export function conflicts(policy: Policy): Guard {
  return { contest, confirmed, refused, prepare: (p, updates) => prepare(p, updates, policy) };
}

function contest(waiting: readonly Pending[], key: string, theirs: Value, version: number): void {
  if (waiting.some((p) => p.ackVersion !== undefined && wrote(p, key, theirs))) return;
  for (const pending of waiting) {
    const news = pending.base === undefined || version > pending.base.version;
    if (pending.guarded && news && pending.ackVersion === undefined)
      pending.contested.set(key, theirs);
  }
}

function confirmed(own: Pending, key: string, waiting: readonly Pending[]): void {
  for (const { contested } of waiting)
    if (contested.has(key) && wrote(own, key, contested.get(key)!)) contested.delete(key);
}

function prepare(pending: Pending, updates: Updates, policy: Policy): boolean {
  if (pending.contested.size && !rebase(pending, updates, policy)) return false;
  const { version, lineage } = updates.replica.at;
  if (!pending.base || pending.base.version <= version)
    pending.base = lineage === undefined ? { version } : { version, lineage };
  return true;
}

/** Settle the contested keys of an update; false when nothing is left of it. */
function rebase(pending: Pending, updates: Updates, policy: Policy): boolean {
  let result: ReturnType<typeof rebased>;
  try {
    result = rebased(pending, policy);
  } catch (error) {
    updates.refuse(pending, new UpdateRefused("conflict", `resolving it failed: ${error}`));
    return false;
  }
  const [edits, resolutions] = result;
  const { replica, sink } = updates;
  pending.contested.clear();
  const { keys } = pending;
  if (edits.size) replica.queue.rewrite(pending, edits);
  else replica.queue.remove(pending);
  sink.changed(replica.show(keys));
  sink.event("conflict", { id: pending.id, resolutions });
  if (edits.size) return true;
  pending.version = replica.at.version;
  sink.finished(pending);
  return false;
}

/** The edits of an update after its contested keys were settled, and what was decided. */
function rebased(pending: Pending, policy: Policy): [Edits, Resolution[]] {
  const edits = new Map<string, Edit>();
  const decided: Resolution[] = [];
  for (const [key, edit] of pending.edits) {
    const theirs = pending.contested.get(key);
    if (theirs === undefined) {
      edits.set(key, edit);
      continue;
    }
    const resolution = decide(key, edit.value, theirs, policy);
    decided.push(resolution);
    if (!resolution.dropped) edits.set(key, become(resolution.written));
  }
  return [edits, decided];
}

/** Settle one key. */
function decide(key: string, mine: Value, theirs: Value, policy: Policy): Resolution {
  if (policy === "client_wins") return { key, mine, theirs, written: mine, dropped: false };
  if (policy === "server_wins") return { key, mine, theirs, written: theirs, dropped: true };
  const chosen = policy(key, mine, theirs);
  const written = chosen === MISSING ? MISSING : copied(chosen);
  return { key, mine, theirs, written, dropped: same(written, theirs) };
}

function refused(pending: Pending, why: Failure): "conflict" | "ahead" | undefined {
  if (AHEAD.has(why.code)) {
    pending.base = undefined;
    return "ahead";
  }
  if (why.code !== "version_conflict") return undefined;
  const { current_version: current, conflicts: entries } = why.details;
  pending.base = typeof current === "number" ? { version: current } : undefined;
  for (const entry of Array.isArray(entries) ? entries : []) {
    const key = String(entry?.key);
    const theirs: Value | undefined = entry?.server_value;
    if (pending.edits.has(key)) pending.contested.set(key, theirs === undefined ? MISSING : theirs);
  }
  return "conflict";
}
