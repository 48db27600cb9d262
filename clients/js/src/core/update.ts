/** The handle of one update. */
import { MAX_TIMER } from "./env";
import { TimedOut } from "./errors";
import type { Pending } from "./queue";

/** One update that was queued. Nobody has to wait for it. */
export class Update {
  /** Another one once a newer value was handed over; see `Queue.replaceable`. */
  id: string;
  readonly keys: readonly string[];
  /** That the server gave it. */
  version: number | undefined;
  /** Why it was refused. */
  error: Error | undefined;
  /** Acknowledged, refused, or overtaken by the end of the session. */
  done = false;
  #settle!: () => void;
  readonly #settled = new Promise<void>((resolve) => {
    this.#settle = resolve;
  });

  constructor(pending: Pending) {
    this.id = pending.id;
    this.keys = pending.keys;
  }

  /** Resolves when it is done, in whatever way. */
  settled(): Promise<void> {
    return this.#settled;
  }

  /**
   * Resolves with the version that the server gave it. A `set` that a newer one of the same key has
   * replaced before it was sent is acknowledged with that one.
   *
   * @param within milliseconds
   * @throws UpdateRefused, SessionClosed (the outcome is not known), TimedOut (it stays queued)
   */
  async acknowledged(within?: number): Promise<number> {
    await inTime(this.settled(), within, "no acknowledgement");
    if (this.error) throw this.error;
    return this.version!;
  }

  /** Called once, by the session. */
  finish(version: number, error: Error | undefined): void {
    this.done = true;
    this.error = error;
    this.version = error ? undefined : version;
    this.#settle();
  }
}

/** What a promise gives, if it does so within so many milliseconds; else TimedOut. */
export async function inTime<T>(
  work: Promise<T>,
  within: number | undefined,
  what: string,
): Promise<T> {
  if (within === undefined) return work;
  let id: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const late = () => reject(new TimedOut(`${what} in time`));
    id = setTimeout(late, Math.min(within, MAX_TIMER));
  });
  return Promise.race([work, late]).finally(() => clearTimeout(id));
}
