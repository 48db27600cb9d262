/** What the session asks of who keeps its state and queue; `offline` is one. */
import type { Dialogue } from "./dialogue";
import type { Env } from "./env";
import type { StorageError } from "./errors";
import type { Status } from "./events";
import type { Link } from "./link";
import type { Hello } from "./options";
import type { Pending } from "./queue";

/** What a store sees of its session; it is the session. */
export interface Keeping {
  readonly dialogue: Dialogue;
  readonly hello: Hello;
  readonly status: Status;
  /** There are updates in the queue that the session did not make, and keys have changed. */
  adopt(keys: ReadonlySet<string>): void;
  /** An update of the queue is done, or refused for good. */
  finished(pending: Pending, error?: Error): void;
  readonly link: Pick<Link, "wake" | "reconnect">;
  /** The session is where the tab is that speaks for this one. */
  move(status: Status): void;
  authenticate(token: string): Promise<void>;
  event(name: "storage", error: StorageError): void;
}

export interface Store {
  /** Where the session is once it has a connection; undefined: online. */
  readonly status?: Status | undefined;
  /** The surroundings with connections of the store's own. */
  surroundings?(env: Env): Env;
  /** Bring back what was kept, and keep what changes; whether there was a state. */
  open(what: Keeping): Promise<boolean>;
  /** Whether what was kept belongs to this user and session. */
  belongs(owner: string): boolean;
  /** The state has changed. */
  changed(): void;
  /** An update is done, or refused for good. */
  finished(pending: Pending, error: Error | undefined): void;
  /** The session has moved. */
  moved?(status: Status): void;
  /** Resolves when everything so far is safe; with false when it cannot be made safe. */
  stored(): Promise<boolean>;
  /** The page will be frozen: write what waits, and let go. */
  sleep(): void;
  close(code: number, reason: string): void;
}
