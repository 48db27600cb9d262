/** A clock that a test moves, and timers on it. */

export class Clock {
  now = 1_000;
  #id = 0;
  readonly #timers = new Map<number, { at: number; wake: () => void }>();

  timer(ms: number, wake: () => void): () => void {
    const id = ++this.#id;
    this.#timers.set(id, { at: this.now + Math.max(0, ms), wake });
    return () => void this.#timers.delete(id);
  }

  /** Let everything happen that is due within so many milliseconds. */
  async run(ms: number): Promise<void> {
    const until = this.now + ms;
    await settle();
    for (;;) {
      const next = this.#next(until);
      if (next === undefined) break;
      const { at, wake } = this.#timers.get(next)!;
      this.#timers.delete(next);
      this.now = Math.max(this.now, at);
      wake();
      await settle();
    }
    this.now = until;
  }

  /** The machine slept: time has passed, and no timer ran. */
  leap(ms: number): void {
    this.now += ms;
  }

  #next(until: number): number | undefined {
    let best: number | undefined;
    for (const [id, { at }] of this.#timers)
      if (at <= until && (best === undefined || at < this.#timers.get(best)!.at)) best = id;
    return best;
  }
}

/** Let all promises that can go on do so. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

/** Pseudo-random numbers in [0, 1) that are the same each time (mulberry32). */
export function seeded(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
