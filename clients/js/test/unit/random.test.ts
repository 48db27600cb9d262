// Random histories against the model server: nothing lost, nothing doubled, everybody agrees.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { conflicts, type Policy } from "../../src/conflicts";
import type { Session } from "../../src/core/session";
import { World } from "../support/world";

type State = { n: number; list: string[]; x: number; y: number };

const device = fc.integer({ min: 0, max: 1 });
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("incr" as const), device }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("append" as const), device }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("set" as const), device, v: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("both" as const), device, v: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("cas" as const), device, v: fc.nat(3) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.nat(300) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("cut" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("silent" as const), ms: fc.nat(4_000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("busy" as const), share: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("sleep" as const), ms: fc.nat(90_000) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

class Run {
  readonly world: World;
  readonly sessions: Session<State>[];
  readonly appended: string[][] = [[], []];
  increments = 0;

  constructor(sequenced: boolean, seed: number, conflict?: Policy) {
    this.world = new World(sequenced, seed);
    this.sessions = ["a", "b"].map((deviceId) =>
      this.world.session<State>({ deviceId, conflict: conflict && conflicts(conflict) }),
    );
  }

  async play(steps: Step[]): Promise<void> {
    for (const one of steps) await this.act(one);
    this.world.silent = false;
    this.world.server.busy = () => false;
    await this.world.quiet(this.sessions as never[]);
  }

  async act(one: Step): Promise<void> {
    const { world } = this;
    if ("device" in one) return this.write(one, one.device);
    if (one.do === "wait") return world.clock.run(one.ms);
    if (one.do === "cut") return world.cut();
    if (one.do === "sleep") return world.clock.leap(one.ms);
    if (one.do === "busy") world.server.busy = () => world.random() < one.share / 10;
    if (one.do === "silent") {
      world.silent = true;
      await world.clock.run(one.ms);
      world.silent = false;
      // What was lost in between is lost: a connection that loses bytes is broken.
      world.cut();
    }
  }

  write(one: Extract<Step, { device: number }>, device: number): void {
    const session = this.sessions[device]!;
    const item = `${device}-${this.appended[device]!.length}`;
    if (one.do === "incr") session.incr("n");
    if (one.do === "append") session.append("list", item);
    if (one.do === "set") session.set("x", one.v);
    if (one.do === "both") session.update({ x: one.v, y: one.v });
    if (one.do === "cas") session.cas("y", session.get("y"), one.v);
    if (one.do === "incr") this.increments += 1;
    if (one.do === "append") this.appended[device]!.push(item);
  }

  check(): void {
    const { state } = this.world.server;
    const list = (state.get("list") ?? []) as string[];
    for (const session of this.sessions) {
      expect(session.pending).toEqual([]);
      expect(session.state).toEqual(Object.fromEntries(state));
      expect(session.version).toBe(this.world.server.version);
    }
    expect(state.get("n") ?? 0).toBe(this.increments);
    expect(list.filter((item) => item.startsWith("0-"))).toEqual(this.appended[0]);
    expect(list.filter((item) => item.startsWith("1-"))).toEqual(this.appended[1]);
  }
}

describe.each([
  ["a server with streams", true],
  ["a server that knows ids only", false],
])("%s", (_name, sequenced) => {
  it("loses nothing and doubles nothing, whatever breaks", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.nat(), async (steps, seed) => {
        const run = new Run(sequenced, seed);
        await run.play(steps);
        run.check();
      }),
      { numRuns: 150 },
    );
  });

  it("does so with a conflict policy, too", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.nat(), async (steps, seed) => {
        const run = new Run(sequenced, seed, "client_wins");
        await run.play(steps);
        run.check();
      }),
      { numRuns: 60 },
    );
  });
});

it("sees a doubled increment when updates lose their number and id (the control)", async () => {
  let doubled = 0;
  for (let seed = 0; seed < 30 && !doubled; seed++) {
    const run = new Run(false, seed);
    const { ids } = run.world.server;
    ids.set = () => ids;
    const steps: Step[] = [];
    for (let i = 0; i < 30; i++)
      steps.push(
        { do: "incr", device: 0 },
        { do: "wait", ms: 12 },
        { do: "cut" },
        { do: "wait", ms: 400 },
      );
    await run.play(steps);
    doubled += Number(run.world.server.state.get("n")) - run.increments;
  }
  expect(doubled).toBeGreaterThan(0);
});
