// Values: what is JSON, what a number keeps, what is shared.
import fc from "fast-check";
import { expect, it } from "vitest";
import { InvalidUpdate } from "../../src/core/errors";
import { effect } from "../../src/core/operations";
import {
  copied,
  fromText,
  MISSING,
  mergePatch,
  RawNumber,
  same,
  shared,
  toText,
} from "../../src/core/values";

it("keeps an integer beyond 2^53 digit by digit, also when it is sent back", () => {
  const text = '{"id":12345678901234567890,"t":"12345678901234567890","n":-9007199254740993}';
  const value = fromText(text) as { id: bigint; t: string };

  expect(value.id).toBe(12345678901234567890n);
  expect(value.t).toBe("12345678901234567890");
  expect(toText(copied(value))).toBe(text);
});

it("keeps every long number as its text when asked to", () => {
  const text = "[0.1234567890123456789,1234567890123456789012,1.5,1e3]";
  const value = fromText(text, RawNumber) as RawNumber[];

  expect(value[0]).toBeInstanceOf(RawNumber);
  expect(value[2]).toBe(1.5);
  expect(toText(copied(value))).toBe("[0.1234567890123456789,1234567890123456789012,1.5,1000]");
});

it("does not take a string of digits for a number, however it is written", () => {
  const tricky = ['"', "\\", "9".repeat(20), '\\"' + "9".repeat(20), "\u0000", '":1'];
  const text = JSON.stringify({ list: tricky, big: 1 }).replace(
    '"big":1',
    `"big":${"9".repeat(20)}`,
  );

  expect((fromText(text) as { list: string[] }).list).toEqual(tricky);
});

it("refuses what is not JSON before it looks for long numbers in it", () => {
  // To look for the end of each of these strings would take minutes.
  const endless = `[12345678901234567890,"${'\\"'.repeat(300_000)}`;
  expect(() => fromText(endless)).toThrow(SyntaxError);
});

it("reads what JSON.parse reads, and writes what JSON.stringify writes", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value);
      fc.pre(!/\d{16}/.test(text));
      expect(fromText(text)).toEqual(JSON.parse(text));
      expect(toText(copied(value))).toBe(JSON.stringify(JSON.parse(text)));
    }),
  );
});

it.each([
  ["NaN", Number.NaN],
  ["a function", () => 1],
  ["a lone surrogate", { a: ["\ud800"] }],
  ["a Map", new Map()],
  ["undefined in a list", [undefined]],
])("refuses %s with a clear error", (_name, value) => {
  expect(() => copied(value)).toThrow(InvalidUpdate);
});

it("refuses a list with a hole, which JSON would fill", () => {
  expect(() => copied(Array(2))).toThrow(InvalidUpdate);
});

it("refuses a loop", () => {
  const loop: unknown[] = [];
  loop.push(loop);
  expect(() => copied(loop)).toThrow(/loop/);
});

it("copies: later changes of the caller's object do not reach it, and nobody can change it", () => {
  const mine = { list: [1], when: new Date(0), gone: undefined };
  const copy = copied(mine) as { list: number[] };
  mine.list.push(2);

  expect(copy).toEqual({ list: [1], when: "1970-01-01T00:00:00.000Z" });
  expect(() => copy.list.push(3)).toThrow(TypeError);
});

it("does not let a member named __proto__ become a prototype", () => {
  const copy = copied(JSON.parse('{"__proto__":{"admin":true}}')) as Record<string, unknown>;

  expect(copy.admin).toBeUndefined();
  expect(toText(copy)).toBe('{"__proto__":{"admin":true}}');
});

it("compares by value: numbers exactly, objects without order, null is no absence", () => {
  expect(same({ a: 1, b: [2] }, { b: [2], a: 1 })).toBe(true);
  expect(same(-0, 0)).toBe(true);
  expect(same(1, true)).toBe(false);
  expect(same(null, MISSING)).toBe(false);
  expect(same(9007199254740993n, 9007199254740992)).toBe(false);
  expect(same([1, 2], { 0: 1, 1: 2 })).toBe(false);
});

it("shares every part that is equal", () => {
  const old = copied({ a: { x: 1 }, b: { y: [1, 2] } }) as Record<string, object>;
  const next = shared(old as never, copied({ a: { x: 2 }, b: { y: [1, 2] } })) as Record<
    string,
    object
  >;

  expect(next.b).toBe(old.b);
  expect(next.a).not.toBe(old.a);
  expect(shared(old as never, copied({ a: { x: 1 }, b: { y: [1, 2] } }))).toBe(old);
});

it("merges as RFC 7396 says, without touching the old value", () => {
  const old = copied({ a: { b: 1, c: 2 }, d: [1] });

  expect(mergePatch(old, copied({ a: { b: null, e: 3 }, d: { f: 1 } }))).toEqual({
    a: { c: 2, e: 3 },
    d: { f: 1 },
  });
  expect(old).toEqual({ a: { b: 1, c: 2 }, d: [1] });
});

it("adds integers exactly, and leaves alone what only the server can decide", () => {
  const incr = (base: never, value: number | bigint) => effect(base, { operation: "INCR", value });

  expect(incr(9007199254740991 as never, 1)).toBe(9007199254740992n);
  expect(incr("text" as never, 1)).toBe("text");
  expect(incr((2n ** 63n - 1n) as never, 1)).toBe(2n ** 63n - 1n);
  expect(effect(3, { operation: "MAX", value: 2 })).toBe(3);
  expect(effect(MISSING, { operation: "MIN", value: 2 })).toBe(2);
});
