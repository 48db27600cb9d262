/** The server's clock, as its answers tell it: that of the browser may be wrong. */

/** The header Date has whole seconds, and is as old as its way was long. */
const TOLERANCE = 3_000;
let ahead = 0;

/** @param date the header Date of an answer that has just come; null: it has none */
export function noteServerTime(date: string | null): void {
  const found = Date.parse(date ?? "") - Date.now();
  if (Math.abs(found - ahead) > TOLERANCE) ahead = Math.abs(found) > TOLERANCE ? found : 0;
}

/** Unix ms by the server's clock. */
export function now(): number {
  return Date.now() + ahead;
}
