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
  /** Write what waits. */
  flush(): void;
  close(): void;
}
