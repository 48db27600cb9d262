/** What becomes of an update when somebody else has changed one of its keys meanwhile. */
import type { Updates } from "./outbox";
import type { Pending } from "./queue";
import type { Value } from "./values";
import type { Failure } from "./wire";

/** (key, mine, theirs) → the value to write; MISSING for a key that is not to be there. */
export type Resolver = (key: string, mine: Value, theirs: Value) => unknown;
export type Policy = "server_wins" | "client_wins" | Resolver;

/** One key of one update. `written`: what goes to the server now; nothing of it if `dropped`. */
export interface Resolution {
  readonly key: string;
  readonly mine: Value;
  readonly theirs: Value;
  readonly written: Value;
  readonly dropped: boolean;
}

/** Finds conflicts and settles them. Without one the last writer of a key wins. */
export interface Guard {
  /** The server's value of a key changes under these updates of it. */
  contest(waiting: readonly Pending[], key: string, theirs: Value, version: number): void;
  /** What others saw of an update that was carried out is no conflict for our later ones. */
  confirmed(own: Pending, key: string, waiting: readonly Pending[]): void;
  /** An update is about to leave; false when nothing is left of it. */
  prepare(pending: Pending, updates: Updates): boolean;
  /** The server has refused an update: for a conflict, or because its history is another one. */
  refused(pending: Pending, why: Failure): "conflict" | "ahead" | undefined;
}
