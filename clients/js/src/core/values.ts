/**
 * JSON values as the client keeps them: copied at the border, frozen, shared where they are equal.
 *
 * A value that a caller hands in is checked and copied, so later changes of the caller's own object
 * do not reach the client. An integer that a JavaScript number cannot hold is a `bigint` (or a
 * `RawNumber`), never a number that is nearly it.
 */
import { newId } from "./env";
import { InvalidUpdate } from "./errors";

const RAW: unique symbol = Symbol.for("syncbridge.raw");

/** A number as the server wrote it; made only with `numbers: RawNumber`. */
export class RawNumber {
  readonly text: string;
  readonly [RAW]: true;
  /** @param text a JSON number, such as `12345678901234567890` */
  constructor(text: string) {
    if (!NUMBER.test(text)) throw new InvalidUpdate(`not a JSON number: ${text.slice(0, 80)}`);
    this.text = text;
    this[RAW] = true;
    Object.freeze(this);
  }
  /** Also those of another copy of this module. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return isRaw(value);
  }
  /** Whether a JavaScript number is as good as the text: fifteen digits always are. */
  static holds(token: string): boolean {
    return token.replace(/[eE].*|\D/g, "").length <= 15;
  }
  toString(): string {
    return this.text;
  }
  valueOf(): number {
    return Number(this.text);
  }
}

export type Json =
  | null
  | boolean
  | number
  | bigint
  | string
  | RawNumber
  | readonly Json[]
  | { readonly [name: string]: Json };

function isRaw(value: unknown): value is RawNumber {
  return typeof value === "object" && value !== null && RAW in value;
}

/** Stands for a key that is not there, which is not the same as null. */
export const MISSING: unique symbol = Symbol.for("syncbridge.missing");
export type Missing = typeof MISSING;
export type Value = Json | Missing;

/** What becomes of numbers that a JavaScript number cannot hold. */
export type Numbers = "bigint" | typeof RawNumber;

export const MAX_DEPTH = 64;
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
export const INTEGER = /^-?\d+$/;
const LONG = /\d{16}|\d[eE]/;
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

/**
 * A frozen copy of a value, as the other end will read it.
 *
 * @throws InvalidUpdate when it is not JSON: NaN, a lone surrogate, a function, a loop
 */
export function copied(value: unknown, depth = 0): Json {
  if (depth > MAX_DEPTH) throw notJson("nested too deep, or a loop");
  switch (typeof value) {
    case "boolean":
    case "bigint":
      return value;
    case "string":
      return text(value);
    case "number":
      if (Number.isFinite(value)) return value;
      throw notJson(value);
    case "object":
      return value === null || isRaw(value) ? value : container(value, depth + 1);
  }
  throw notJson(typeof value);
}

function notJson(what: unknown): InvalidUpdate {
  return new InvalidUpdate(`not a JSON value: ${what}`);
}

function text(value: string): string {
  if (value.isWellFormed()) return value;
  throw notJson("a lone surrogate in a string");
}

function container(value: object, depth: number): Json {
  if (Array.isArray(value)) return Object.freeze(Array.from(value, (item) => copied(item, depth)));
  const json = (value as { toJSON?: unknown }).toJSON;
  if (typeof json === "function") return copied(json.call(value), depth);
  const kind = Object.getPrototypeOf(value);
  if (kind !== null && Object.getPrototypeOf(kind) !== null) throw notJson(value.constructor?.name);
  const copy: Record<string, Json> = {};
  for (const [name, part] of Object.entries(value))
    if (part !== undefined) put(copy, text(name), copied(part, depth));
  return Object.freeze(copy);
}

/** Set a member, whatever its name: `__proto__` would change the object's prototype. */
function put(target: Record<string, Json>, name: string, value: Json): void {
  if (name !== "__proto__") target[name] = value;
  else Object.defineProperty(target, name, { value, enumerable: true });
}

/** A value as JSON text. `undefined` members are left out. */
export function toText(value: unknown): string {
  let marked = false;
  const text = JSON.stringify(value, (_name, part) => {
    if (typeof part !== "bigint" && !isRaw(part)) return part;
    marked = true;
    return MARK + String(part);
  });
  return marked ? text.replace(MARKED, "$1") : text;
}

/**
 * JSON text as a value; long integers by `numbers`.
 *
 * @throws SyntaxError when it is not JSON
 */
export function fromText(data: string, numbers: Numbers = "bigint"): unknown {
  // First, as in what is not JSON the search for tokens could take for ever.
  const plain = JSON.parse(data);
  if (!LONG.test(data)) return plain;
  const marked = data.replace(TOKEN, (token) =>
    token[0] === '"' || isExact(token, numbers) ? token : `"${MARK}${token}"`,
  );
  return JSON.parse(marked, (_name, value) => {
    if (typeof value !== "string" || !value.startsWith(MARK)) return value;
    const text = value.slice(MARK.length);
    return numbers === "bigint" ? BigInt(text) : new numbers(text);
  });
}

/** Before a number that is a string for a moment; who writes strings in a message cannot guess it. */
const MARK = newId();
const MARKED = new RegExp(`"${MARK}([^"]+)"`, "g");

function isExact(token: string, numbers: Numbers): boolean {
  if (INTEGER.test(token)) return Number.isSafeInteger(Number(token));
  return numbers === "bigint" || numbers.holds(token);
}

/** Whether two values are the same JSON: numbers by value, objects without order. */
export function same(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (isRaw(one) && isRaw(other)) return one.text === other.text;
  if (typeof one !== "object" || typeof other !== "object" || !one || !other) return false;
  if (Array.isArray(one))
    return (
      Array.isArray(other) && one.length === other.length && one.every((v, i) => same(v, other[i]))
    );
  if (Array.isArray(other)) return false;
  const names = Object.keys(one);
  return (
    names.length === Object.keys(other).length &&
    names.every((n) => Object.hasOwn(other, n) && same(member(one, n), member(other, n)))
  );
}

export function isNumeric(value: unknown): value is number | bigint | RawNumber {
  return typeof value === "number" || typeof value === "bigint" || isRaw(value);
}

function member(of: object, name: string): Json {
  return (of as Record<string, Json>)[name]!;
}

/** `next`, made of the parts of `old` wherever they are equal; frozen. */
export function shared(old: Value | undefined, next: Json): Json {
  if (same(old, next)) return old as Json;
  if (typeof next !== "object" || next === null || isRaw(next)) return next;
  const before: object = typeof old === "object" && old !== null ? old : {};
  if (Array.isArray(next))
    return Object.freeze(next.map((v, i) => shared(Array.isArray(old) ? old[i] : MISSING, v)));
  const made: Record<string, Json> = {};
  for (const [name, part] of Object.entries(next as Record<string, Json>))
    put(made, name, shared(Object.hasOwn(before, name) ? member(before, name) : MISSING, part));
  return Object.freeze(made);
}

/** The patched copy of a value (RFC 7396): null removes a member. */
export function mergePatch(target: Value, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const merged: Record<string, Json> = {};
  if (isObject(target)) for (const [n, v] of Object.entries(target)) put(merged, n, v);
  for (const [name, part] of Object.entries(patch)) {
    if (part === null) delete merged[name];
    else put(merged, name, mergePatch(Object.hasOwn(merged, name) ? merged[name]! : MISSING, part));
  }
  return Object.freeze(merged);
}

export function isObject(value: unknown): value is { readonly [name: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isRaw(value);
}

/** Refuse a key that no server takes; `most`: bytes. */
export function checkKey(key: unknown, most: number): void {
  const text = typeof key === "string" ? key : "";
  const valid = text && text.isWellFormed() && !text.includes("\0") && text !== "__proto__";
  if (!valid || bytes(text) > most) {
    const shown = text ? JSON.stringify(text) : typeof key;
    throw new InvalidUpdate(`key ${shown}: not text of 1 to ${most} bytes, or reserved`);
  }
}

const encoder = new TextEncoder();

/** Bytes of a text in UTF-8. */
export function bytes(data: string): number {
  return encoder.encode(data).length;
}
