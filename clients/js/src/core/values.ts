/**
 * JSON values as the client keeps them: copied at the border, frozen, shared where they are equal.
 *
 * A value that a caller hands in is checked and copied, so later changes of the caller's own object
 * do not reach the client. An integer that a JavaScript number cannot hold is a `bigint` (or a
 * `RawNumber`), never a number that is nearly it.
 */
import { InvalidUpdate } from "./errors";

const RAW: unique symbol = Symbol.for("syncbridge.raw");

/** A number as the server wrote it; made only with `numbers: "raw"`. */
export class RawNumber {
  readonly text: string;
  readonly [RAW] = true;
  /** @param text a JSON number, such as `12345678901234567890` */
  constructor(text: string) {
    if (!NUMBER.test(text)) throw new InvalidUpdate(`not a JSON number: ${text.slice(0, 80)}`);
    this.text = text;
    Object.freeze(this);
  }
  /** Also those of another copy of this module. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && RAW in value;
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

/** Stands for a key that is not there, which is not the same as null. */
export const MISSING: unique symbol = Symbol.for("syncbridge.missing");
export type Missing = typeof MISSING;
export type Value = Json | Missing;

/** What becomes of numbers that a JavaScript number cannot hold. */
export type Numbers = "bigint" | "raw";

export const MAX_DEPTH = 64;
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const LONG = /\d{16}|\d[eE]/;
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
const LONE = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/;

/**
 * A frozen copy of a value, as the other end will read it.
 *
 * @throws InvalidUpdate when it is not JSON: NaN, a lone surrogate, a function, a loop
 */
export function copied(value: unknown, depth = 0): Json {
  if (depth > MAX_DEPTH) throw new InvalidUpdate(`nested more than ${MAX_DEPTH} deep, or a loop`);
  switch (typeof value) {
    case "boolean":
    case "bigint":
      return value;
    case "string":
      return text(value);
    case "number":
      if (!Number.isFinite(value)) throw new InvalidUpdate(`not a JSON value: ${value}`);
      return value;
    case "object":
      return value === null || value instanceof RawNumber ? value : container(value, depth + 1);
  }
  throw new InvalidUpdate(`not a JSON value: ${typeof value}`);
}

function text(value: string): string {
  if (LONE.test(value)) throw new InvalidUpdate("not a JSON value: a lone surrogate in a string");
  return value;
}

function container(value: object, depth: number): Json {
  if (Array.isArray(value)) return Object.freeze(value.map((item) => copied(item, depth)));
  const json = (value as { toJSON?: unknown }).toJSON;
  if (typeof json === "function") return copied(json.call(value), depth);
  const kind = Object.getPrototypeOf(value);
  if (kind !== null && Object.getPrototypeOf(kind) !== null)
    throw new InvalidUpdate(`not a JSON value: ${value.constructor?.name ?? "an object"}`);
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
  if (typeof value === "bigint" || value instanceof RawNumber) return String(value);
  if (Array.isArray(value)) return `[${value.map(toText).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const parts: string[] = [];
  for (const [name, part] of Object.entries(value))
    if (part !== undefined) parts.push(`${JSON.stringify(name)}:${toText(part)}`);
  return `{${parts.join(",")}}`;
}

/**
 * JSON text as a value; long integers by `numbers`.
 *
 * @throws SyntaxError when it is not JSON
 */
export function fromText(data: string, numbers: Numbers = "bigint"): unknown {
  if (!LONG.test(data)) return JSON.parse(data);
  const mark = `${SALT}:`;
  let found = false;
  const marked = data.replace(TOKEN, (token) => {
    if (token[0] === '"' || isExact(token, numbers)) return token;
    found = true;
    return `"${mark}${token}"`;
  });
  if (!found) return JSON.parse(data);
  return JSON.parse(marked, (_name, value) =>
    typeof value === "string" && value.startsWith(mark)
      ? unmarked(value.slice(mark.length), numbers)
      : value,
  );
}

/** Not to be guessed by who writes the strings in a message. */
const SALT = Array.from({ length: 4 }, () => Math.random().toString(36).slice(2)).join("");

function unmarked(token: string, numbers: Numbers): bigint | RawNumber {
  return numbers === "raw" ? new RawNumber(token) : BigInt(token);
}

/** Whether a JavaScript number is as good as the text: fifteen digits always are. */
function isExact(token: string, numbers: Numbers): boolean {
  if (/^-?\d+$/.test(token)) return Number.isSafeInteger(Number(token));
  return numbers !== "raw" || token.replace(/[eE].*|\D/g, "").length <= 15;
}

/** Whether two values are the same JSON: numbers by value, objects without order. */
export function same(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (one instanceof RawNumber && other instanceof RawNumber) return one.text === other.text;
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
  return typeof value === "number" || typeof value === "bigint" || value instanceof RawNumber;
}

function member(of: object, name: string): Json {
  return (of as Record<string, Json>)[name]!;
}

/** `next`, made of the parts of `old` wherever they are equal; frozen. */
export function shared(old: Value | undefined, next: Json): Json {
  if (same(old, next)) return old as Json;
  if (typeof next !== "object" || next === null || next instanceof RawNumber) return next;
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
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof RawNumber)
  );
}

const encoder = new TextEncoder();

/** Bytes of a text in UTF-8. */
export function bytes(data: string): number {
  return encoder.encode(data).length;
}
