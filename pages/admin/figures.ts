/** Figures out of two answers of the server, and the bounded memory behind the charts. */
import type { Metrics } from "./types";

/** What the charts show of one moment. Rates are per second, latencies in ms; NaN: nothing to say. */
export interface Sample {
  at: number;
  connections: number;
  sessions: number;
  updates: number;
  received: number;
  sent: number;
  bytes: number;
  p50: number;
  p95: number;
  p99: number;
  errors: number;
  closes: number;
}

/** Samples that are kept of each width: an hour at 5 s, twelve hours at a minute. */
export const KEPT = 720;
const MINUTE = 60_000;

export function time(at: number | string): number {
  return typeof at === "number" ? at : Date.parse(at);
}

/**
 * The value below which a share of the times lies, as Prometheus estimates it.
 *
 * @param bounds upper bounds of the buckets, in seconds; the last bucket has none
 * @param counts how many times fell into each
 * @returns seconds; NaN when there were none
 */
export function quantile(
  share: number,
  bounds: readonly number[],
  counts: readonly number[],
): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return Number.NaN;
  let below = 0;
  for (const [at, count] of counts.entries()) {
    if (count && below + count >= share * total) {
      const upper = bounds[at];
      const lower = at ? bounds[at - 1]! : 0;
      if (upper === undefined) return lower;
      return lower + (upper - lower) * ((share * total - below) / count);
    }
    below += count;
  }
  return bounds.at(-1) ?? Number.NaN;
}

/** What was counted between two answers; a node that began anew does not count backwards. */
export function grown(before: readonly number[], after: readonly number[]): number[] {
  return after.map((count, at) => Math.max(0, count - (before[at] ?? 0)));
}

export function sum(counts: Record<string, number>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

/**
 * An answer, if the totals of the next one go on from it: the same nodes have told both. One that
 * missed an answer tells all that it ever counted with the next, which nobody did in five seconds.
 */
export function earlier(before: Metrics | undefined, after: Metrics): Metrics | undefined {
  const who = ({ nodes }: Metrics) =>
    nodes.map(({ node, started_at, fresh }) => `${node} ${started_at} ${fresh}`).join();
  return before && who(before) === who(after) ? before : undefined;
}

/** The moment of `after`, with rates since the answer before it. */
export function sampleOf(last: Metrics | undefined, after: Metrics): Sample {
  const before = earlier(last, after);
  const at = time(after.at);
  const seconds = before ? (at - time(before.at)) / 1000 : 0;
  const rate = (read: (metrics: Metrics) => number) =>
    before && seconds > 0 ? Math.max(0, read(after) - read(before)) / seconds : Number.NaN;
  const commits = before ? grown(before.latency.commits, after.latency.commits) : [];
  const ms = (share: number) => 1000 * quantile(share, after.latency.bounds, commits);
  return {
    at,
    connections: after.connections.open,
    sessions: after.sessions.active,
    updates: rate((m) => m.sessions.writes_total),
    received: rate((m) => m.connections.messages_in_total),
    sent: rate((m) => m.connections.frames_out_total),
    bytes: rate((m) => m.connections.bytes_out_total),
    p50: ms(0.5),
    p95: ms(0.95),
    p99: ms(0.99),
    errors: rate((m) => sum(m.trouble.errors)),
    closes: rate((m) => sum(m.trouble.closes)),
  };
}

/** The samples of the last hour, and minutes of the last twelve. Never more than `KEPT` of each. */
export class History {
  readonly fine: Sample[] = [];
  readonly coarse: Sample[] = [];
  #minute: Sample[] = [];

  add(sample: Sample): void {
    push(this.fine, sample);
    const first = this.#minute[0];
    if (first && Math.floor(first.at / MINUTE) !== Math.floor(sample.at / MINUTE)) {
      push(this.coarse, mean(this.#minute));
      this.#minute = [];
    }
    this.#minute.push(sample);
  }
}

function push(ring: Sample[], sample: Sample): void {
  ring.push(sample);
  if (ring.length > KEPT) ring.shift();
}

/** The mean of samples; what has nothing to say does not count. */
export function mean(samples: readonly Sample[]): Sample {
  const names = Object.keys(samples[0]!) as (keyof Sample)[];
  const means = names.map((name) => {
    const values = samples.map((sample) => sample[name]).filter((value) => !Number.isNaN(value));
    return [name, values.length ? values.reduce((a, b) => a + b) / values.length : Number.NaN];
  });
  return Object.fromEntries(means);
}

/** What is wrong, in the words of an operator; empty when nothing is. */
export function complaints(metrics: Metrics): string[] {
  const found: string[] = [];
  for (const { node, redis, fresh, draining } of metrics.nodes) {
    if (!fresh) found.push(`Node ${node} does not answer.`);
    if (draining) found.push(`Node ${node} is stopping.`);
    if (redis?.reason) found.push(`Node ${node} cannot use Redis: ${redis.reason}.`);
  }
  if (!metrics.complete && !found.length) found.push("Not every node has answered.");
  if (!metrics.snapshots) found.push("Redis does not answer.");
  if (metrics.snapshots?.damaged) {
    found.push(`${metrics.snapshots.damaged} stored sessions cannot be read.`);
  }
  return found;
}
