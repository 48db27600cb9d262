/** How long to wait before trying again, and how fast to send. Times are milliseconds. */

export const NEVER = Number.POSITIVE_INFINITY;

/** A wait that a server asks for, at most an hour, so that every wait ends. */
export const asked = (ms: number): number => Math.min(Math.max(ms, 0), 3_600_000) || 0;

/** No wait is longer than this share of the time that it has not worked so far. */
const OUTAGE_SHARE = 1 / 4;

/**
 * Exponential backoff with full jitter: the n-th wait is uniform in [0, min(cap, base * 2**n)], and
 * in a quarter of the outage so far when that is less. After a crash of a server all of its clients
 * come back spread over the interval, and within a time that fits the outage.
 */
export class Backoff {
  #attempts = 0;
  constructor(
    private readonly base: number,
    private readonly cap: number,
    private readonly draw: () => number,
  ) {}

  /** The next wait; `atLeast` is what the server asked for, `outage` how long it has not worked. */
  next(atLeast = 0, outage = NEVER): number {
    const grown = Math.min(this.cap, this.base * 2 ** Math.min(this.#attempts, 32));
    this.#attempts += 1;
    return atLeast + this.draw() * Math.min(grown, Math.max(this.base, outage * OUTAGE_SHARE));
  }

  /** It worked: the next wait is a first one again. */
  reset(): void {
    this.#attempts = 0;
  }
}

/** Share of the server's rate that is used: clocks differ, and so do arrival times. */
const SHARE = 0.8;

/** A token bucket: `burst` messages at once, `rate` a second after that; 0 means no bound. */
export class Pacer {
  #tokens: number;
  readonly #rate: number;
  readonly #burst: number;
  #at: number;

  constructor(rate: number, burst: number, now: number) {
    this.#rate = rate ? Math.max(rate * SHARE, 0.1) / 1000 : 1e6;
    this.#burst = rate ? Math.max(burst * SHARE, 1) : 1e9;
    this.#tokens = this.#burst;
    this.#at = now;
  }

  /** Whether one more message may go now; counts it when it may. */
  take(now: number): boolean {
    if (this.wait(now) > 0) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Milliseconds until `take` will allow a message. */
  wait(now: number): number {
    this.#refill(now);
    // Rounding must not leave a wait that no timer can keep.
    const missing = 1 - this.#tokens;
    return missing <= 1e-6 ? 0 : missing / this.#rate;
  }

  /** The server asked for silence: nothing goes for so long. */
  pause(ms: number, now: number): void {
    this.#refill(now);
    this.#tokens = Math.min(this.#tokens, 1 - ms * this.#rate);
  }

  #refill(now: number): void {
    if (now <= this.#at) return;
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#rate);
    this.#at = now;
  }
}
