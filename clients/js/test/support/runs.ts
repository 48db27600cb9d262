/** The tests of the scripted runs, the same in every browser. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Browser } from "./browsers";
import { Run, Stage, script } from "./run";

export interface Runs {
  name: string;
  launch: () => Promise<Browser>;
  /** Whether the browser can be told to freeze a page. */
  freezes: boolean;
}

/** How many runs, and the first of them: a run has its number as its seed. */
const COUNT = Number(process.env.SYNCBRIDGE_BROWSER_RUNS ?? 5);
const FIRST = Number(process.env.SYNCBRIDGE_BROWSER_FIRST ?? 0);

export function scriptedRuns({ name, launch, freezes }: Runs): void {
  const synced: number[] = [];
  let operations = 0;
  let stage: Stage;

  beforeAll(async () => {
    stage = await Stage.build(launch);
  });
  afterAll(async () => {
    await stage?.close();
    if (synced.length)
      console.log(
        `${name}, runs ${FIRST} to ${FIRST + COUNT - 1}: ${operations} operations, ` +
          summary(synced),
      );
  });

  const numbers = Array.from({ length: COUNT }, (_, i) => FIRST + i);
  const runs = numbers.map((run) => [run, script(run, freezes)] as const);
  const timeout = 300_000;

  it.each(runs)("loses and doubles nothing, run %i: %s", { timeout }, async (seed, steps) => {
    const run = await Run.start(stage, seed);
    await run.play(steps);
    const { faults, state } = await run.result();
    expect(faults).toEqual([]);
    expect(state.log.length).toBeGreaterThanOrEqual(run.told.size);
    expect(run.told.size).toBeGreaterThan(steps.length);
    synced.push(...run.synced);
    operations += state.n + state.log.length;
    await run.close();
  });

  it("finds what a client without numbers doubles", { timeout }, async () => {
    const run = await Run.start(stage, 0, 1, "/naive");
    await run.play(["deaf"]);
    const { faults } = await run.result();
    expect(faults.filter((fault) => /doubled/.test(fault))).not.toEqual([]);
    await run.close();
  });
}

/** From a connection until everything was acknowledged, in milliseconds. */
function summary(times: number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.floor(share * (sorted.length - 1))]!);
  const slow = sorted.filter((ms) => ms > 1_000).length;
  return (
    `all acknowledged ${at(0.5)} ms after a connection (median of ${sorted.length}), ` +
    `95 % ${at(0.95)} ms, longest ${at(1)} ms, ${slow} over a second`
  );
}
