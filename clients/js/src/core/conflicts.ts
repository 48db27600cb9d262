/** What becomes of an update when somebody else has changed one of its keys meanwhile. */
import { become, type Edit, type Edits } from "./operations";
import type { Pending } from "./queue";
import { copied, MISSING, same, type Value } from "./values";

/** (key, mine, theirs) → the value to write; MISSING for a key that is not to be there. */
export type Resolver = (key: string, mine: Value, theirs: Value) => unknown;
export type Policy = "server_wins" | "client_wins" | Resolver;

/** Conflicts of one update after which it is refused; the keys are then fought over. */
export const MAX_ROUNDS = 8;

/** One key of one update. `written`: what goes to the server now; nothing of it if `dropped`. */
export interface Resolution {
  readonly key: string;
  readonly mine: Value;
  readonly theirs: Value;
  readonly written: Value;
  readonly dropped: boolean;
}

/** The edits of an update after its contested keys were settled, and what was decided. */
export function rebased(pending: Pending, policy: Policy): [Edits, Resolution[]] {
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
export function decide(key: string, mine: Value, theirs: Value, policy: Policy): Resolution {
  if (policy === "client_wins") return { key, mine, theirs, written: mine, dropped: false };
  if (policy === "server_wins") return { key, mine, theirs, written: theirs, dropped: true };
  const chosen = policy(key, mine, theirs);
  const written = chosen === MISSING ? MISSING : copied(chosen);
  return { key, mine, theirs, written, dropped: same(written, theirs) };
}
