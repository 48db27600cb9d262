/**
 * What happens to a page, told to a session.
 *
 * A page that is frozen or in the back/forward cache answers pings without living, and its server
 * takes it for present; an open socket in it loses what comes. So the socket is closed before, and
 * opened again after. `unload` is not listened to: it keeps a page out of the cache.
 */

export interface PageListener {
  hurry(): void;
  doubt(): void;
  sleep(): void;
  resume(): void;
}

/** @returns a function that ends the listening; there is nothing to listen to outside of a page */
export function watchPage(told: PageListener): () => void {
  if (typeof document === "undefined") return () => {};
  const stop = new AbortController();
  const { signal } = stop;
  const on = (target: EventTarget, name: string, listener: () => void) =>
    target.addEventListener(name, listener, { signal });
  on(window, "online", () => told.hurry());
  on(window, "offline", () => told.doubt());
  on(window, "pageshow", () => told.resume());
  on(window, "pagehide", () => told.sleep());
  on(document, "freeze", () => told.sleep());
  on(document, "resume", () => told.resume());
  on(document, "visibilitychange", () => document.hidden || told.hurry());
  return () => stop.abort();
}
