/**
 * What each operation does to a value, as far as the client can know before the server has said.
 *
 * The server answers with results, never operations, so these rules only make the wait invisible.
 * Where the outcome cannot be told the value stays as it is.
 */
import { INTEGER, isNumeric, type Json, MISSING, mergePatch, same, type Value } from "./values";

export type Operation =
  | "SET"
  | "DELETE"
  | "INCR"
  | "APPEND"
  | "MERGE"
  | "MAX"
  | "MIN"
  | "SETNX"
  | "CAS";

/** One operation on one key. `value` is MISSING for DELETE; `expected` belongs to CAS. */
export interface Edit {
  readonly operation: Operation;
  readonly value: Value;
  readonly expected?: Value;
}

export type Edits = ReadonlyMap<string, Edit>;

export const set = (value: Json): Edit => ({ operation: "SET", value });
export const remove: Edit = { operation: "DELETE", value: MISSING };
/** The edit that makes a key be as `value` says. */
export const become = (value: Value): Edit => (value === MISSING ? remove : set(value));
/** Whether the result of an edit is known beforehand. */
export const isPlain = (edit: Edit): boolean =>
  edit.operation === "SET" || edit.operation === "DELETE";

/** Edits as the protocol writes several of them. */
export function parts(edits: Edits): { changes: Record<string, Json>; deleted: string[] } {
  const changes: Record<string, Json> = {};
  const deleted: string[] = [];
  for (const [key, { value }] of edits)
    if (value === MISSING) deleted.push(key);
    else changes[key] = value;
  return { changes, deleted };
}

const INT64 = 2n ** 63n;

/** The value after an edit; MISSING stands for a key that is not there. */
export function effect(base: Value, edit: Edit): Value {
  const value = edit.value as Json;
  switch (edit.operation) {
    case "SET":
      return value;
    case "DELETE":
      return MISSING;
    case "INCR":
      return sum(base, value);
    case "APPEND":
      if (base === MISSING) return Object.freeze([value]);
      return Array.isArray(base) ? Object.freeze([...base, value]) : base;
    case "MERGE":
      return mergePatch(base, value);
    case "MAX":
    case "MIN":
      return extreme(base, value, edit.operation === "MAX");
    case "SETNX":
      return base === MISSING ? value : base;
    case "CAS":
      return same(base, edit.expected ?? MISSING) ? value : base;
  }
}

function integer(value: Value): bigint | undefined {
  const text = isNumeric(value) ? String(value) : "";
  return INTEGER.test(text) ? BigInt(text) : undefined;
}

function sum(base: Value, by: Json): Value {
  const start = integer(base === MISSING ? 0 : base);
  const step = integer(by);
  if (start === undefined || step === undefined) return base;
  const total = start + step;
  if (total < -INT64 || total >= INT64) return base;
  const small = Number(total);
  return Number.isSafeInteger(small) ? small : total;
}

function extreme(base: Value, value: Json, greater: boolean): Value {
  if (base === MISSING) return value;
  if (!isNumeric(base) || !isNumeric(value)) return base;
  // A number and a bigint compare by their exact values.
  const [a, b] = [integer(base) ?? base, integer(value) ?? value];
  return (greater ? b > a : b < a) ? value : base;
}
