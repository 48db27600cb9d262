/** The dashboard's figures: percentiles, rates, and a memory that has a bound. */
import { describe, expect, it } from "vitest";
import { complaints, grown, History, KEPT, mean, quantile, sampleOf } from "../admin/figures";
import { age, bytes, count, Digits, ms, parse, span } from "../admin/format";
import type { Metrics, NodeFigures } from "../admin/types";

const BOUNDS = [0.001, 0.01, 0.1];

function metrics(at: number, writes: number, commits: number[]): Metrics {
  return {
    at,
    complete: true,
    sessions: { active: 1, exact: true, devices: 1, writes_total: writes },
    connections: {
      open: 5,
      authenticated: 5,
      users: 2,
      queued_bytes: 0,
      messages_in_total: writes,
      frames_out_total: 3 * writes,
      bytes_in_total: 0,
      bytes_out_total: 100 * writes,
    },
    snapshots: { stored: 1, bytes: 10, exact: true, damaged: 0 },
    nodes: [],
    latency: { bounds: BOUNDS, commits, redis: [], ticks: [] },
    trouble: { errors: { rate_limited: writes }, closes: {}, auth: {} },
  };
}

describe("a percentile", () => {
  it("lies within its bucket, by share", () => {
    expect(quantile(0.5, BOUNDS, [0, 10, 0, 0])).toBeCloseTo(0.0055);
    expect(quantile(0.95, BOUNDS, [90, 0, 10, 0])).toBeCloseTo(0.055);
    expect(quantile(0.01, BOUNDS, [100, 0, 0, 0])).toBeCloseTo(0.00001);
  });

  it("of what is above the last bound is that bound, and of nothing is nothing", () => {
    expect(quantile(0.99, BOUNDS, [0, 0, 0, 5])).toBe(0.1);
    expect(quantile(0.5, BOUNDS, [0, 0, 0, 0])).toBeNaN();
    expect(quantile(0.5, [], [])).toBeNaN();
  });
});

describe("a sample", () => {
  it("has rates between two answers", () => {
    const before = metrics(1_000, 100, [10, 0, 0, 0]);
    const sample = sampleOf(before, metrics(6_000, 600, [10, 500, 0, 0]));
    expect(sample).toMatchObject({
      at: 6_000,
      updates: 100,
      sent: 300,
      bytes: 10_000,
      errors: 100,
    });
    expect(sample.p50).toBeCloseTo(5.5);
  });

  it("does not count backwards when a node begins anew, and begins without rates", () => {
    const before = metrics(1_000, 100, [10, 5, 0, 0]);
    expect(sampleOf(before, metrics(2_000, 10, [2, 7, 0, 0])).updates).toBe(0);
    expect(grown([10, 5], [2, 7])).toEqual([0, 2]);
    expect(sampleOf(undefined, before).updates).toBeNaN();
  });
});

describe("totals of several nodes", () => {
  const node = (name: string, fresh = true, started_at = 1) =>
    ({ node: name, fresh, started_at }) as NodeFigures;
  const told = (at: number, writes: number, ...nodes: NodeFigures[]) => ({
    ...metrics(at, writes, [writes, 0, 0, 0]),
    nodes,
  });
  const both = told(1_000, 100, node("a"), node("b"));

  it("are compared while the same nodes have told them", () => {
    const after = told(2_000, 150, node("a"), node("b"));
    expect(sampleOf(both, after)).toMatchObject({ updates: 50, errors: 50 });
  });

  it.each([
    ["did not answer, and does again", [node("a"), node("b", false)]],
    ["is gone", [node("a")]],
    ["has begun anew", [node("a"), node("b", true, 2)]],
    ["has come", [node("a"), node("b"), node("c")]],
  ])("say nothing where one %s", (_, nodes) => {
    const other = told(2_000, 900, ...nodes);
    for (const sample of [sampleOf(both, other), sampleOf(other, { ...both, at: 3_000 })])
      expect([sample.updates, sample.errors, sample.p99]).toEqual([
        Number.NaN,
        Number.NaN,
        Number.NaN,
      ]);
  });
});

describe("the history", () => {
  it("is bounded: an hour fine, twelve coarse, whatever is added", () => {
    const history = new History();
    const sample = sampleOf(undefined, metrics(0, 0, []));
    for (let at = 0; at < 14 * 3600; at += 5)
      history.add({ ...sample, at: at * 1000, updates: at });
    expect(history.fine.length).toBe(KEPT);
    expect(history.coarse.length).toBe(KEPT);
    expect(history.fine.at(-1)!.at - history.fine[0]!.at).toBe(719 * 5_000);
    expect(history.coarse.at(-1)!.at - history.coarse[0]!.at).toBe(719 * 60_000);
    expect(history.coarse.at(-1)!.updates).toBe(history.coarse.at(-1)!.at / 1000);
  });

  it("means leave out what has nothing to say", () => {
    const sample = sampleOf(undefined, metrics(0, 0, []));
    expect(
      mean([
        { ...sample, p50: Number.NaN },
        { ...sample, p50: 4 },
      ]).p50,
    ).toBe(4);
    expect(mean([sample]).p50).toBeNaN();
  });
});

describe("what is wrong", () => {
  it("is said of nodes, Redis and stored sessions", () => {
    const redis = {
      kind: "single",
      version: "7",
      role: "primary",
      replicas: 0,
      durability: "memory",
    };
    const node = { node: "n1", fresh: true, draining: false } as NodeFigures;
    const all = metrics(0, 0, []);
    expect(complaints(all)).toEqual([]);
    all.nodes = [{ ...node, redis: { ...redis, reason: "oom", queued: 0 } }];
    expect(complaints(all)).toEqual(["Node n1 cannot use Redis: oom."]);
    all.nodes = [{ ...node, redis: null, fresh: false }];
    all.snapshots = null;
    expect(complaints(all)).toEqual(["Node n1 does not answer.", "Redis does not answer."]);
    all.nodes = [];
    all.complete = false;
    all.snapshots = { stored: 1, bytes: 1, exact: true, damaged: 2 };
    expect(complaints(all)).toEqual([
      "Not every node has answered.",
      "2 stored sessions cannot be read.",
    ]);
  });
});

describe("texts", () => {
  it("have units that people read", () => {
    expect([bytes(0), bytes(1536), bytes(20 * 1024 * 1024)]).toEqual(["0 B", "1.5 KiB", "20 MiB"]);
    expect([count(Number.NaN), count(1234), count(2_500_000)]).toEqual(["–", "1,234", "2.5M"]);
    expect([span(5), span(600), span(7200), span(864_000)]).toEqual([
      "5 s",
      "10 min",
      "2 h",
      "10 d",
    ]);
    expect([ms(0), ms(1.84), ms(12.6), ms(2_500)]).toEqual(["0 ms", "1.8 ms", "13 ms", "2.5 s"]);
    expect([age(0, 60_000), age(60_000, 0), age(null)]).toEqual(["60 s ago", "in 60 s", "never"]);
  });

  it("of numbers that JavaScript cannot hold keep their digits where the browser tells them", () => {
    const value = parse('{"a":9007199254740993,"b":1.5}') as { a: unknown; b: number };
    expect(value.b).toBe(1.5);
    if (value.a instanceof Digits) expect(value.a.text).toBe("9007199254740993");
  });
});
