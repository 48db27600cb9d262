// The numbers of updates: whatever answer is left out, late or lost, each is carried out once.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { conflicts as guardOf, type Policy } from "../../src/conflicts";
import { NEVER } from "../../src/core/pacing";
import { Line } from "../support/line";

/** `count` updates are carried out; one difference tells of it, no acknowledgement does. */
function unanswered(line: Line, count: number): void {
  for (let i = 0; i < count; i++) line.operate("n", "INCR", 1);
  line.send();
  line.read();
  line.conflate();
}

describe("while an update is on the way", () => {
  it("keeps its number when answers were left out, so that its answer counts", () => {
    const line = new Line();
    line.operate("n", "INCR", 1);
    line.send();
    line.queue.recall();
    line.read();
    line.deliver();
    expect(line.queue.acked).toBe(1);
    line.operate("n", "INCR", 1);
    line.settle();

    expect(line.server.state.get("n")).toBe(2);
  });

  it("keeps its number when the whole state comes, unasked", () => {
    const line = new Line();
    line.server.save();
    line.operate("n", "INCR", 1);
    line.send();
    line.rollBack(); // nothing was lost; the update is read after it
    line.read();
    line.deliver();
    line.operate("n", "INCR", 1);
    line.operate("n", "INCR", 1);
    line.settle();

    expect(line.server.state.get("n")).toBe(3);
    expect(line.lost).toEqual([]);
  });

  it("tells what a rollback lost once, although it comes amid updates", () => {
    const line = new Line();
    line.server.save();
    line.operate("n", "INCR", 1);
    line.settle();
    line.operate("n", "INCR", 1);
    line.send();
    line.rollBack();
    line.settle();

    expect(line.lost.map(({ count }) => count)).toEqual([1]);
    expect(line.server.state.get("n")).toBe(1);
  });
});

it("does not take for lost what a second copy of an update carries out anew", () => {
  const line = new Line();
  line.server.save();
  line.operate("n", "INCR", 1);
  line.send();
  line.read(); // the answer is late
  line.now += 11_000;
  line.send();
  line.rollBack();
  line.settle();
  line.operate("n", "INCR", 1);
  line.settle();

  expect(line.lost).toEqual([]);
  expect(line.server.state.get("n")).toBe(2);
});

it("does not wait for a version that is lost", () => {
  const line = new Line();
  line.server.lineages = true;
  line.set("x", 1);
  line.settle();
  line.server.save();
  line.server.changedAt.set("y", line.server.next()); // nobody is told of it
  line.operate("n", "INCR", 1);
  line.send();
  line.read();
  line.deliver(); // acknowledged, before the state is there
  line.lose();
  line.rollBack(); // to what the device has: it is given a difference
  line.settle();

  expect(line.lost.map(({ count }) => count)).toEqual([1]);
  expect(line.finishes.length).toBe(2);
  expect(Object.fromEntries(line.dialogue.replica.view)).toEqual({ x: 1 });
});

it("counts those before an acknowledged one as carried out", () => {
  const line = new Line();
  line.set("a", 0);
  line.settle();
  unanswered(line, 2);
  line.outbox.splice(0); // not even the difference arrives
  line.operate("other", "INCR", 1);
  line.send();
  line.read();
  line.deliver();
  expect(line.queue.acked).toBe(4);
  line.lose();
  line.settle();

  expect(Object.fromEntries(line.server.state)).toEqual({ a: 0, n: 2, other: 1 });
  expect(line.finishes.length).toBe(4);
});

it("does not take it for a foreign number that its own updates explain", () => {
  const line = new Line();
  const { stream } = line.queue;
  unanswered(line, 1);
  line.deliver(); // it is asked again, from here on
  const late = line.operate("other", "INCR", 1);
  line.queue.send(late, line.now); // with a number that is too high by one
  late.seq += 1;
  const refusal = { code: "sequence_gap", message: "", retryable: true, details: { last: 1 } };
  const message = { type: 6, payload: refusal, correlation_id: late.id, timestamp: 1 };
  line.dialogue.receive(JSON.stringify(message), line.now);
  expect([line.queue.stream, line.queue.astray]).toEqual([stream, false]);
  line.settle();

  expect(Object.fromEntries(line.server.state)).toEqual({ n: 1, other: 1 });
});

it("does not take back what a newer copy may carry out", () => {
  const line = new Line();
  const first = line.set("a", 1);
  line.send();
  line.server.busy = () => true;
  line.read(); // refused; the answer is late
  line.server.busy = () => false;
  line.queue.recall();
  line.send();
  line.deliver();
  expect(first.sent).toBe(true); // what it says must not change any more
  line.set("a", 2);
  line.settle();

  expect(line.server.applied.length).toBe(2);
  expect(line.server.state.get("a")).toBe(2);
});

it("gives no number twice when a refusal for good is that of an older copy", () => {
  const line = new Line();
  line.server.state.set("a", 0);
  const swap = line.operate("a", "CAS", 5, 1);
  line.send();
  line.read(); // refused: it is 0
  line.server.state.set("a", 1);
  line.queue.recall();
  line.send();
  line.read(); // carried out
  line.deliver(1);
  line.operate("n", "INCR", 1);
  line.settle();

  expect(line.finishes.find(([p]) => p === swap)?.[1]).toBe(undefined);
  expect(Object.fromEntries(line.server.state)).toEqual({ a: 5, n: 1 });
});

it("asks again for what has a number while others wait for theirs", () => {
  const line = new Line();
  line.operate("n", "INCR", 1);
  line.operate("other", "INCR", 1);
  line.send();
  line.server.busy = () => true;
  line.read(1);
  line.deliver(); // the first one waits for a number until the second is answered
  line.server.busy = () => false;
  line.queue.recall(); // which may have been left out: it is asked again
  expect(line.send()).toBe(1);
  line.settle();

  expect(Object.fromEntries(line.server.state)).toEqual({ n: 1, other: 1 });
});

it("gives a connection up on which it asked twice in vain", () => {
  const line = new Line();
  line.server.save();
  line.operate("n", "INCR", 1);
  line.settle();
  unanswered(line, 1);
  line.deliver();
  line.send();
  line.rollBack();
  line.outbox.splice(0);
  line.server.busy = () => true;
  line.read();
  line.deliver(); // refused, where one copy is counted that is never answered
  line.server.busy = () => line.connections < 2;
  line.settle();

  expect(line.server.state.get("n")).toBe(1);
  expect(line.lost.length).toBe(1);
});

it("does not take a tab that leads for a server that carries out in order", () => {
  const line = new Line(false, NEVER);
  line.set("a", 1);
  line.settle();
  const first = line.operate("n", "INCR", 1);
  const second = line.operate("n", "INCR", 1);
  expect(line.send()).toBe(2);
  line.read();
  line.outbox.reverse();
  line.deliver(1);
  expect([first.ackVersion, second.ackVersion]).toEqual([undefined, 3]);
  line.settle();

  expect(line.finishes.length).toBe(3);
});

it("keeps its connection to a tab that leads, which knows of no streams", () => {
  const line = new Line();
  line.set("a", 1);
  line.settle();
  line.queue.window = NEVER;
  line.lose();
  line.connect();
  line.read();
  for (const { payload } of line.outbox) Reflect.deleteProperty(payload, "applied");
  line.deliver();
  expect([line.dialogue.ready, line.dialogue.astray(line.now)]).toEqual([true, false]);
});

it("does not offer again, as lost, what an older stream had", () => {
  const line = new Line();
  line.set("a", 1);
  line.settle();
  line.queue.newStream();
  line.server.save();
  line.set("b", 1);
  line.settle();
  line.rollBack();
  line.settle();

  expect(line.lost.map(({ count, updates }) => [count, updates.length])).toEqual([[1, 1]]);
  expect(line.lost[0]!.updates[0]!.changes).toEqual({ b: 1 });
});

it("begins a new stream when the server cannot tell what became of the old one", () => {
  const line = new Line();
  const { stream } = line.queue;
  line.operate("n", "INCR", 1);
  line.settle();
  const answer = line.deliver.bind(line);
  line.deliver = (most) => {
    for (const { type, payload } of line.outbox)
      if (type === 8 && line.queue.stream === stream) Reflect.deleteProperty(payload, "applied");
    answer(most);
  };
  line.server.streams.clear();
  line.operate("n", "INCR", 1);
  line.operate("n", "INCR", 1);
  line.settle();

  expect(line.queue.stream).not.toBe(stream);
  expect(line.server.state.get("n")).toBe(3);
});

describe("a server that knows ids only, and refuses before it looks at them", () => {
  /** x is 1 at the server; the answer is lost, and the second sending is refused for a moment. */
  function refusedAfterwards(conflicts: unknown[]): Line {
    const resolver: Policy = (_key, mine, theirs) => {
      conflicts.push(theirs);
      return mine;
    };
    const line = new Line(false, 4, guardOf(resolver));
    line.set("x", 1);
    line.send();
    line.read();
    line.lose();
    line.connect();
    line.read();
    line.deliver();
    line.server.busy = () => true;
    line.send();
    line.read();
    line.deliver();
    line.server.busy = () => false;
    return line;
  }

  it("is not taken for somebody else with our own value", () => {
    const conflicts: unknown[] = [];
    const line = refusedAfterwards(conflicts);
    line.settle();

    expect(conflicts).toEqual([]);
    expect(line.finishes.length).toBe(1);
  });

  it("is sent a newer value under an id of its own", () => {
    const line = refusedAfterwards([]);
    line.set("x", 2);
    line.settle();

    expect(line.server.state.get("x")).toBe(2);
  });
});

// Random histories

const some = fc.integer({ min: 0, max: 4 });
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constantFrom("incr", "append", "set", "cas") }) },
  { weight: 8, arbitrary: fc.record({ send: some, read: some, deliver: some }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("lose"), read: some }) },
  { weight: 1, arbitrary: fc.record({ wait: fc.constantFrom(10, 1_000, 11_000) }) },
  { weight: 2, arbitrary: fc.record({ refuse: some }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("conflate", "other") }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("save", "rollBack") }) },
);
type Step = {
  do?: string;
  send?: number;
  read?: number;
  deliver?: number;
  wait?: number;
  refuse?: number;
};

class History {
  readonly line: Line;
  readonly items: number[] = [];
  made = 0;
  increments = 0;
  sets = 0;
  refusals = 0;

  constructor(readonly sequenced: boolean) {
    this.line = new Line(sequenced, 4);
    this.line.server.save();
    this.line.server.lineages = sequenced;
    this.line.server.busy = () => this.refusals-- > 0;
  }

  play(steps: readonly Step[]): void {
    for (const one of steps) this.act(one);
    this.refusals = 0;
    this.line.settle();
  }

  act(one: Step): void {
    const { line } = this;
    if (one.wait) line.now += one.wait;
    if (one.refuse) this.refusals = one.refuse;
    if (one.do === "lose" && line.connected) {
      line.read(one.read);
      line.lose();
    }
    if (one.send !== undefined) this.flow(one);
    if (one.do === "conflate") line.conflate();
    if (one.do === "save") line.server.save();
    if (one.do === "rollBack" && this.sequenced) line.rollBack();
    this.write(one.do);
  }

  flow(one: Step): void {
    const { line } = this;
    if (!line.connected) line.connect();
    line.send(one.send);
    if (line.connected) line.read(one.read);
    if (line.connected) line.deliver(one.deliver);
  }

  write(what: string | undefined): void {
    const { line } = this;
    if (what === "incr") line.operate("n", "INCR", 1);
    if (what === "incr") this.increments += 1;
    if (what === "append") line.operate("list", "APPEND", this.items.push(this.items.length) - 1);
    if (what === "set") line.set("x", ++this.sets);
    if (what === "cas") line.operate("x", "CAS", ++this.sets, 1 + (this.sets % 2));
    if (what === "other") {
      line.server.state.set("y", ++this.sets);
      line.server.changedAt.set("y", line.server.next());
    }
  }

  check(): void {
    const { server, lost, dialogue, finishes } = this.line;
    const gone = lost.flatMap(({ updates }) => updates);
    const items = gone.flatMap((u) => (u.operation === "APPEND" ? [u.changes.list] : []));
    const counts = gone.filter((u) => u.operation === "INCR").length;
    expect(Number(server.state.get("n") ?? 0) + counts).toBe(this.increments);
    const kept = this.items.filter((item) => !items.includes(item));
    expect(server.state.get("list") ?? []).toEqual(kept);
    expect(new Set(finishes.map(([p]) => p)).size).toBe(finishes.length);
    const own = (map: Map<string, unknown>) => [...map].filter(([key]) => key !== "y").sort();
    expect(own(dialogue.replica.view)).toEqual(own(server.state));
  }
}

it.each([
  ["with streams", true],
  ["that knows ids only", false],
])("loses and doubles nothing with a server %s, whatever is left out", (_name, sequenced) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const history = new History(sequenced);
      history.play(steps);
      history.check();
    }),
    { numRuns: Number(process.env.SYNCBRIDGE_TEST_MODEL_EXAMPLES ?? 400) },
  );
});
