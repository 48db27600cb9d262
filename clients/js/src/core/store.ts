/** What the session asks of who keeps its state and queue; `offline` is one. */
import type { StorageError } from "./errors";
import type { Replica } from "./replica";

export interface Keeping {
  readonly replica: Replica;
  /** Something has become safe: there may be something to send. */
  wake(): void;
  /** Storage failed; what comes is kept in memory only. */
  failed(error: StorageError): void;
}

export interface Store {
  /** Bring back what was kept, and keep what changes; whether there was a state. */
  open(what: Keeping): Promise<boolean>;
  /** Whether what was kept belongs to this user and session. */
  belongs(owner: string): boolean;
  /** The state has changed. */
  changed(): void;
  /** Resolves when everything so far is safe; with false when it cannot be made safe. */
  stored(): Promise<boolean>;
  /** Write what waits, now. */
  flush(): void;
  close(): void;
}
