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
  if (typeof window === "undefined" || typeof document === "undefined") return () => {};
  const stop = new AbortController();
  const options = { signal: stop.signal };
  const visible = () => {
    if (document.visibilityState === "visible") told.hurry();
  };
  window.addEventListener("online", () => told.hurry(), options);
  window.addEventListener("offline", () => told.doubt(), options);
  window.addEventListener("pageshow", () => told.resume(), options);
  window.addEventListener("pagehide", () => told.sleep(), options);
  document.addEventListener("visibilitychange", visible, options);
  document.addEventListener("freeze", () => told.sleep(), options);
  document.addEventListener("resume", () => told.resume(), options);
  return () => stop.abort();
}
